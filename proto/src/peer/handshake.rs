//! What two nodes say before the first frame: who they are, and which versions of the protocol they speak.
//!
//! The connecting side sends a [`Hello`], the accepting side answers with a [`Welcome`]. Both begin with
//! [`Hello::MAGIC`], so that something else on either end is told apart from a node at once.

use super::{WireError, parts, take, wire};
use bytes::Bytes;
use prost::Message as _;
use ring::{NodeId, NodeRef, RingId};

/// The oldest protocol version that this program speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// The newest protocol version that this program speaks.
pub const PROTOCOL_MAX: u32 = 1;

/// The first words of the connecting side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest and newest version spoken.
    pub protocol: (u32, u32),
    /// The sender's ring, if it is in one.
    pub ring: Option<RingId>,
    /// Who connects.
    pub sender: NodeRef,
    /// Whom it means to reach; [`NodeId::ANY`] whoever listens there.
    pub expected: NodeId,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No version that both speak.
    Version,
    /// The node that was meant does not listen here (any more).
    WrongNode,
    /// The greeting could not be understood.
    Malformed,
    /// There are too many connections.
    Busy,
}

/// The answer of the accepting side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The oldest and newest version spoken.
    pub protocol: (u32, u32),
    /// The answering node's ring, if it is in one.
    pub ring: Option<RingId>,
    /// Who answers.
    pub sender: NodeRef,
    /// The version to speak, or why none.
    pub answer: Result<u32, Refusal>,
}

/// The newest version in both ranges.
pub(super) fn common_version(a: (u32, u32), b: (u32, u32)) -> Option<u32> {
    let (low, high) = (a.0.max(b.0), a.1.min(b.1));
    (low <= high).then_some(high)
}

fn ring_of(ring: u64) -> Option<RingId> {
    (ring != 0).then_some(RingId(ring))
}

impl Hello {
    /// What both sides send first. The line end makes a text protocol on the other side answer at once, and a
    /// transport that mangles line ends visible.
    pub const MAGIC: [u8; 8] = *b"kvnode\r\n";

    /// The bytes after magic and length.
    pub fn encode(&self) -> Vec<u8> {
        wire::Hello {
            protocol_min: self.protocol.0,
            protocol_max: self.protocol.1,
            ring: self.ring.map_or(0, |r| r.0),
            sender: Some(parts::node_ref(&self.sender)),
            expected: self.expected.0,
        }
        .encode_to_vec()
    }

    /// The greeting in these bytes.
    pub fn decode(bytes: Bytes) -> Result<Hello, WireError> {
        let w = wire::Hello::decode(bytes)?;
        Ok(Hello {
            protocol: (w.protocol_min, w.protocol_max),
            ring: ring_of(w.ring),
            sender: take::node_ref(w.sender, "sender")?,
            expected: NodeId(w.expected),
        })
    }

    /// What `me`, a member of `ring`, answers.
    pub fn answer(&self, me: NodeRef, ring: Option<RingId>) -> Welcome {
        let ours = (PROTOCOL_MIN, PROTOCOL_MAX);
        let answer = match common_version(ours, self.protocol) {
            None => Err(Refusal::Version),
            Some(_) if self.expected != NodeId::ANY && self.expected != me.id => Err(Refusal::WrongNode),
            Some(version) => Ok(version),
        };
        Welcome { protocol: ours, ring, sender: me, answer }
    }
}

impl Welcome {
    /// The bytes after magic and length.
    pub fn encode(&self) -> Vec<u8> {
        use wire::HandshakeRefusal as Kind;
        let refusal = match self.answer {
            Ok(_) => Kind::None,
            Err(Refusal::Version) => Kind::Version,
            Err(Refusal::WrongNode) => Kind::WrongNode,
            Err(Refusal::Malformed) => Kind::Malformed,
            Err(Refusal::Busy) => Kind::Busy,
        };
        wire::Welcome {
            protocol_min: self.protocol.0,
            protocol_max: self.protocol.1,
            ring: self.ring.map_or(0, |r| r.0),
            sender: Some(parts::node_ref(&self.sender)),
            refusal: i32::from(refusal),
            protocol: self.answer.unwrap_or(0),
        }
        .encode_to_vec()
    }

    /// The answer in these bytes.
    pub fn decode(bytes: Bytes) -> Result<Welcome, WireError> {
        use wire::HandshakeRefusal as Kind;
        let w = wire::Welcome::decode(bytes)?;
        let answer = match Kind::try_from(w.refusal) {
            Ok(Kind::None) if (PROTOCOL_MIN..=PROTOCOL_MAX).contains(&w.protocol) => Ok(w.protocol),
            Ok(Kind::None | Kind::Version) => Err(Refusal::Version),
            Ok(Kind::WrongNode) => Err(Refusal::WrongNode),
            Ok(Kind::Malformed) => Err(Refusal::Malformed),
            Ok(Kind::Busy) | Err(_) => Err(Refusal::Busy),
        };
        Ok(Welcome {
            protocol: (w.protocol_min, w.protocol_max),
            ring: ring_of(w.ring),
            sender: take::node_ref(w.sender, "sender")?,
            answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> NodeRef {
        NodeRef { id: NodeId(id), addr: "10.2.1.3:14195".parse().expect("an address") }
    }
    fn hello(expected: u64, protocol: (u32, u32)) -> Hello {
        Hello { protocol, ring: None, sender: node(1), expected: NodeId(expected) }
    }

    #[test]
    fn greetings_survive_the_wire() {
        let h = hello(2, (1, 3));
        assert_eq!(Hello::decode(h.encode().into()), Ok(h));
        for answer in [Ok(1), Err(Refusal::Version), Err(Refusal::WrongNode), Err(Refusal::Busy)] {
            let w = Welcome { protocol: (1, 1), ring: Some(RingId(5)), sender: node(2), answer };
            assert_eq!(Welcome::decode(w.encode().into()), Ok(w));
        }
    }

    #[test]
    fn another_version_or_another_node_is_refused() {
        assert_eq!(hello(2, (1, 9)).answer(node(2), None).answer, Ok(1));
        assert_eq!(hello(0, (1, 1)).answer(node(2), None).answer, Ok(1));
        assert_eq!(hello(2, (2, 9)).answer(node(2), None).answer, Err(Refusal::Version));
        assert_eq!(hello(3, (1, 1)).answer(node(2), None).answer, Err(Refusal::WrongNode));
    }
}
