//! Ballots and stamps: the order in which a key's records were written.
//!
//! Source: `docs/protocol.md`, section 3.

use core::fmt;
use ring::NodeId;

/// A proposal number: a process-wide counter and the process, compared in that order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Counted by the proposer, above every counter it has met.
    pub counter: u64,
    /// The proposer.
    pub node: NodeId,
}

impl Ballot {
    /// Lower than every drawn ballot.
    pub const ZERO: Ballot = Ballot { counter: 0, node: NodeId(0) };
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.counter, self.node.0 >> 32)
    }
}

/// The ballot under which a record was accepted and its number within that reign, compared in that order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The reign's ballot.
    pub ballot: Ballot,
    /// Drawn from the home's one counter.
    pub n: u64,
}

impl Stamp {
    /// Lower than every drawn stamp.
    pub const ZERO: Stamp = Stamp { ballot: Ballot::ZERO, n: 0 };
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ballot, self.n)
    }
}
