//! The member table: who is in the ring, what each says of itself, and who still answers.
pub mod info;
pub use info::{MemberInfo, MemberState};
use crate::ident::{NodeId, NodeRef};
/// Placeholder replaced by the failure detector.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "replaced on merge")]
pub enum Gossip {
    Ping { probe: u64, updates: Vec<MemberInfo>, strength: (u64, u8) },
    Ack { probe: u64, updates: Vec<MemberInfo>, strength: (u64, u8) },
    PingRequest { probe: u64, target: NodeRef, updates: Vec<MemberInfo> },
    IndirectAck { probe: u64, target: NodeId },
    Digest { entries: Vec<(NodeId, u64, MemberState)>, strength: (u64, u8) },
    Table { members: Vec<MemberInfo>, strength: (u64, u8) },
}
