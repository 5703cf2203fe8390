//! Identities: nodes, replicas and rings.
//!
//! Keeps:
//! 1. A node id is drawn at process start and never used again: a restarted process is a new node.
//! 2. A replica id names one lifetime of one acceptor's memory; its counter is process-wide and never reused.
//!
//! Source: `docs/protocol.md`, section 2.

use core::fmt;
use std::net::SocketAddr;

/// 64 random bits drawn at process start. Zero stands for "whoever listens there" and is never drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id that stands for any process at an address; used before its id is known.
    pub const ANY: NodeId = NodeId(0);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n-{:016x}", self.0)
    }
}

/// A node and the overlay address at which it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    /// The process.
    pub id: NodeId,
    /// Its overlay address.
    pub addr: SocketAddr,
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.addr)
    }
}

/// One lifetime of one acceptor's memory. Handover keeps it, replacement makes a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The node at which the memory came into being.
    pub node: NodeId,
    /// That process's counter.
    pub counter: u64,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}", self.node.0 >> 32, self.counter)
    }
}

/// The random id of a ring, drawn by its creator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingId(pub u64);

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r-{:016x}", self.0)
    }
}
