//! Configurations: who the R acceptors of an extent are, in a chain of epochs.
//!
//! Keeps:
//! 1. An epoch has one successor, decided by its own members (single-decree Paxos in each acceptor).
//! 2. The tag is a function of ring id, epoch and members; requests of different configurations never count
//!    together.
//!
//! Source: Vertical Paxos (Lamport, Malkhi, Zhou 2009); `docs/protocol.md`, section 2.

use ring::{ReplicaId, RingId};
use sha2::{Digest, Sha256};

/// Bits of an epoch below the lineage.
const LINEAGE_SHIFT: u32 = 52;
/// Bits below what tells two salvages of one lineage apart.
const SPREAD_SHIFT: u32 = 32;

/// How often the chain of epochs was begun anew by an operator's command. Epochs of a later lineage are higher than all
/// of an earlier one.
pub fn lineage_of(epoch: u64) -> u64 {
    epoch >> LINEAGE_SHIFT
}

/// The first epoch of a lineage. Two nodes that begin the same lineage draw different `spread`: one of them prevails
/// everywhere.
pub fn epoch_of_lineage(lineage: u64, spread: u64) -> u64 {
    let spread = spread % (1 << (LINEAGE_SHIFT - SPREAD_SHIFT));
    (lineage << LINEAGE_SHIFT) | (spread << SPREAD_SHIFT) | 1
}

/// One slot of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// The epoch in which it came in.
    pub since: u64,
}

/// The acceptors of an extent under one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The number in the chain, from 1.
    pub epoch: u64,
    /// Hash of ring id, epoch and members.
    pub tag: u64,
    /// By slot.
    pub members: Vec<Member>,
}

impl Configuration {
    /// The configuration with these members.
    pub fn new(ring: RingId, epoch: u64, members: Vec<Member>) -> Configuration {
        let mut h = Sha256::new();
        h.update(ring.0.to_be_bytes());
        h.update(epoch.to_be_bytes());
        for m in &members {
            h.update(m.replica.node.0.to_be_bytes());
            h.update(m.replica.counter.to_be_bytes());
            h.update(m.since.to_be_bytes());
        }
        let digest = h.finalize();
        let mut first = [0u8; 8];
        first.copy_from_slice(&digest[..8]);
        Configuration { epoch, tag: u64::from_be_bytes(first), members }
    }
}
