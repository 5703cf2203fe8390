//! The trace that an operation is part of: it travels beside messages and with what waits, so that whoever
//! watches several nodes can tell what belongs together.
//!
//! Keeps:
//! 1. Nothing here looks into it or decides anything by it.
//! 2. Where none is given there is none, and nothing is kept for it.
//!
//! Source: W3C Trace Context; OpenTelemetry.

use crate::message::Message;
use core::num::NonZeroU64;

/// A trace, and the span of it that causes what it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The two halves of the trace's id, the higher one first.
    pub id: [u64; 2],
    /// The span.
    pub span: NonZeroU64,
}

impl Message {
    /// Whether it asks something for an operation, so that a trace goes with it. Answers need none: whoever asked
    /// knows.
    pub fn is_traced(&self) -> bool {
        matches!(
            self,
            Message::Operation(_)
                | Message::Read { .. }
                | Message::Sync { .. }
                | Message::Accept { .. }
                | Message::Confirm { .. }
        )
    }
}
