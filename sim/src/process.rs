//! A process of the cluster: a machine, its clock, and whether it runs.
//!
//! Keeps:
//! 1. Its clock starts anywhere and may run a little fast or slow; it never goes back.
//! 2. While it is paused nothing is handled; what arrives waits and is handled in order when it goes on.

use core::time::Duration;
use dht::{Message, Request, RequestId};
use ring::{NodeRef, RingId, Time};
use std::collections::VecDeque;

/// What a process is given.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message.
    Message {
        /// From whom.
        from: NodeRef,
        /// The ring that the sender was in.
        ring: Option<RingId>,
        /// What.
        message: Box<Message>,
    },
    /// A request of a client or of the operator.
    Request {
        /// Its name.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// A connection broke.
    Lost {
        /// To whom.
        peer: NodeRef,
    },
    /// Its timer fired.
    Timeout,
}

/// A clock that starts at `offset` and runs `rate_per_mille` thousandths as fast as the simulator's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at the beginning of the run.
    pub offset: u64,
    /// Its speed.
    pub rate_per_mille: u64,
}

impl Clock {
    /// What it shows at `now`.
    pub fn local(&self, now: Time) -> Time {
        Time(self.offset.saturating_add(now.0.saturating_mul(self.rate_per_mille) / 1000))
    }

    /// The first moment at which it shows at least `local`.
    pub fn global(&self, local: Time) -> Time {
        let passed = local.0.saturating_sub(self.offset);
        Time(passed.saturating_mul(1000).div_ceil(self.rate_per_mille.max(1)))
    }
}

/// A process.
#[derive(Debug)]
pub struct Process<M> {
    /// Its name.
    pub me: NodeRef,
    /// What it runs.
    pub machine: M,
    /// Its clock.
    pub clock: Clock,
    /// When it was started.
    pub started: Time,
    /// The ring it announced to be in.
    pub ring: Option<RingId>,
    /// Whether it was asked to leave.
    pub is_leaving: bool,
    /// Whether it is stopped for a while.
    pub is_paused: bool,
    /// What arrived meanwhile.
    pub waiting: VecDeque<Input>,
    /// For when its next timeout is in the queue.
    pub wake: Option<Time>,
    /// How much was handled, to look at registers now and then.
    pub handled: u64,
}

impl<M> Process<M> {
    /// Whether clients may be sent to it.
    pub fn is_serving(&self) -> bool {
        self.ring.is_some() && !self.is_leaving && !self.is_paused
    }

    /// How long it has lived.
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_moment_only_when_it_has_come() {
        for rate_per_mille in [900, 1000, 1037, 1100] {
            let c = Clock { offset: 12345, rate_per_mille };
            for t in [0, 1, 999, 1_000_000] {
                let local = c.local(Time(t)) + Duration::from_micros(777);
                assert!(c.local(c.global(local)) >= local);
            }
        }
    }
}
