//! The wire between nodes: frames of messages, and the handshake before them.
//!
//! A frame is the protobuf `Frame` with one entry per [`Message`]; it is written message by message, so that no
//! second copy of a batch is ever made, and read message by message out of one shared buffer.
//!
//! Keeps:
//! 1. `from_wire(to_wire(m))` gives `m` back.
//! 2. Any bytes decode to messages or to a [`WireError`]; nothing from a peer reaches an assertion: slots,
//!    sets of slots, extents, sizes of configurations and values are checked here.
//! 3. What a later version adds is ignored: unknown fields, and messages of an unknown kind.
//!
//! Source: `proto/kvnode/peer/v1/peer.proto`; `docs/protocol.md`.

mod from_wire;
mod handshake;
mod parts;
mod size;
#[cfg(test)]
mod strategies;
mod take;
mod to_wire;
pub(crate) mod transaction;

pub use from_wire::from_wire;
pub use handshake::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, Welcome};
pub use size::size_estimate;
pub use to_wire::to_wire;

use bytes::{BufMut, Bytes, BytesMut};
use core::num::NonZeroU64;
use dht::{Message, Trace};
use prost::Message as _;

/// The generated code.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::as_conversions)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/kvnode.peer.v1.rs"));
}

/// Why bytes of a peer are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not protobuf.
    #[error("not a protobuf message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field that a message cannot do without is not there.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A field has a value that it may not have.
    #[error("the field `{0}` has a value out of its range")]
    OutOfRange(&'static str),
    /// A key's value is not one.
    #[error("a stored value is malformed: {0}")]
    Value(#[from] store::ValueError),
}

/// The first byte of every entry of a `Frame`: field 1, length-delimited.
const ENTRY: u8 = 0x0a;

/// Appends one message to a frame.
pub fn put_message(frame: &mut BytesMut, message: &Message) {
    put_traced_message(frame, message, None);
}

/// Appends one message to a frame, with the trace that it is part of.
pub fn put_traced_message(frame: &mut BytesMut, message: &Message, trace: Option<Trace>) {
    let mut envelope = to_wire(message);
    envelope.trace = trace.map(|t| {
        let [id_high, id_low] = t.id;
        wire::Trace { id_high, id_low, span: t.span.get() }
    });
    let size = envelope.encoded_len();
    frame.reserve(size + 11);
    frame.put_u8(ENTRY);
    // Growing the buffer is what makes both infallible.
    let written = prost::encode_length_delimiter(size, frame).and_then(|()| envelope.encode(frame));
    debug_assert!(written.is_ok(), "a growing buffer has room");
}

/// What a frame holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Its messages.
    pub messages: Vec<Message>,
    /// The traces of those messages that are part of one, by their place.
    pub traces: Vec<(usize, Trace)>,
    /// How many messages of an unknown kind were passed over.
    pub unknown: usize,
}

/// A trace of which a part is missing is none: it decides nothing, so nothing is refused for it.
fn trace_of(w: Option<wire::Trace>) -> Option<Trace> {
    let w = w?;
    let id = [w.id_high, w.id_low];
    NonZeroU64::new(w.span).filter(|_| id != [0, 0]).map(|span| Trace { id, span })
}

/// The messages of a frame, and how many of an unknown kind were passed over.
pub fn take_frame(frame: Bytes) -> Result<(Vec<Message>, usize), WireError> {
    take_traced_frame(frame).map(|t| (t.messages, t.unknown))
}

/// The messages of a frame with their traces.
pub fn take_traced_frame(mut frame: Bytes) -> Result<Taken, WireError> {
    let mut taken = Taken::default();
    let mut add = |mut envelope: wire::Envelope| {
        let trace = trace_of(envelope.trace.take());
        match from_wire(envelope)? {
            Some(message) => {
                taken.traces.extend(trace.map(|t| (taken.messages.len(), t)));
                taken.messages.push(message);
            }
            None => taken.unknown += 1,
        }
        Ok::<(), WireError>(())
    };
    while let Some(&first) = frame.first() {
        if first != ENTRY {
            // A field that a later version added: the general decoder knows how to pass over it.
            for envelope in wire::Frame::decode(frame)?.messages {
                add(envelope)?;
            }
            break;
        }
        let _ = frame.split_to(1);
        let size = prost::decode_length_delimiter(&mut frame)?;
        if size > frame.len() {
            return Err(WireError::OutOfRange("Frame.messages"));
        }
        add(wire::Envelope::decode(frame.split_to(size))?)?;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame_of(messages: &[Message]) -> Bytes {
        let mut frame = BytesMut::new();
        for m in messages {
            put_message(&mut frame, m);
        }
        frame.freeze()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_put_into_a_frame_is_taken_out(ms in proptest::collection::vec(strategies::message(), 0..4)) {
            prop_assert_eq!(take_frame(frame_of(&ms)), Ok((ms, 0)));
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_something(b: Vec<u8>) {
            let _ = take_frame(Bytes::from(b));
        }

        #[test]
        fn a_damaged_frame_decodes_to_an_error_or_to_something(
            m in strategies::message(), at: prop::sample::Index, with: u8, cut: prop::sample::Index,
        ) {
            let mut b = frame_of(&[m]).to_vec();
            let i = at.index(b.len());
            b[i] = with;
            let _ = take_frame(Bytes::from(b.clone()));
            b.truncate(cut.index(b.len()));
            let _ = take_frame(Bytes::from(b));
        }

        #[test]
        fn the_estimate_is_near_the_size(m in strategies::message()) {
            let size = frame_of(std::slice::from_ref(&m)).len();
            let estimate = size_estimate(&m);
            prop_assert!(estimate + 64 >= size / 8 && estimate <= 8 * size + 1024, "{} for {}", estimate, size);
        }
    }

    #[test]
    fn a_frame_with_a_field_of_a_later_version_keeps_its_messages() {
        let abort = Message::HandoverAbort { attempt: 7 };
        let mut b = vec![0x10, 0x05];
        b.extend_from_slice(&frame_of(std::slice::from_ref(&abort)));
        assert_eq!(take_frame(Bytes::from(b)), Ok((vec![abort], 0)));
    }

    #[test]
    fn a_trace_goes_beside_its_message_and_a_broken_one_is_none() {
        let (read, abort) = (Message::HandoverAbort { attempt: 1 }, Message::HandoverAbort { attempt: 2 });
        let trace = Trace { id: [0, 7], span: NonZeroU64::MIN };
        let mut frame = BytesMut::new();
        put_traced_message(&mut frame, &read, None);
        put_traced_message(&mut frame, &abort, Some(trace));
        let taken = take_traced_frame(frame.clone().freeze()).expect("a frame");
        assert_eq!((taken.messages, taken.traces), (vec![read.clone(), abort.clone()], vec![(1, trace)]));
        // Whoever does not look at traces gets the same messages.
        assert_eq!(take_frame(frame.freeze()), Ok((vec![read, abort], 0)));
        for broken in
            [wire::Trace { id_high: 0, id_low: 0, span: 5 }, wire::Trace { id_high: 1, id_low: 1, span: 0 }]
        {
            assert_eq!(trace_of(Some(broken)), None);
        }
    }

    #[test]
    fn a_message_of_an_unknown_kind_is_passed_over() {
        let mut b = vec![ENTRY, 4, 0xfa, 0x3e, 1, 0];
        b.extend_from_slice(&frame_of(&[Message::HandoverAbort { attempt: 7 }]));
        assert_eq!(take_frame(Bytes::from(b)), Ok((vec![Message::HandoverAbort { attempt: 7 }], 1)));
    }

    #[test]
    fn an_answer_without_a_grant_grants_nothing() {
        let reply = wire::AcceptReply { slot: 1, ..wire::AcceptReply::default() };
        let envelope = wire::Envelope { kind: Some(wire::envelope::Kind::AcceptReply(reply)), trace: None };
        assert_eq!(from_wire(envelope), Err(WireError::Missing("granted")));
    }

    #[test]
    fn slots_and_extents_out_of_range_are_errors() {
        let query = |slot, extent| wire::Envelope {
            kind: Some(wire::envelope::Kind::ConfigurationQuery(wire::ConfigurationQuery {
                rpc: 1,
                slot,
                extent,
            })),
            trace: None,
        };
        let empty = wire::Extent { lo_high: 1, lo_low: 0, hi_high: 0, hi_low: 5 };
        assert_eq!(from_wire(query(7, Some(wire::Extent::default()))), Err(WireError::OutOfRange("slot")));
        assert_eq!(from_wire(query(1, Some(empty))), Err(WireError::OutOfRange("extent")));
        assert_eq!(from_wire(query(1, None)), Err(WireError::Missing("extent")));
    }
}
