//! Rules of the protocol that tests break on purpose, to see that the simulator notices.
//!
//! Without the feature `planted` none can be broken: [`crate::Config`] has no place to say so.

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A pending transaction's lock is released without an entry in the ledger.
    PendingReleased,
    /// A pending lock always shows the old value, also of a transaction that rests on keys it does not hold.
    PendingAlwaysOld,
    /// A lock is set whatever version the key has.
    LockWithoutVersion,
    /// Keys that were only read are validated before the locks are held.
    ValidateFirst,
    /// Keys that were only read are not validated.
    ValidateNever,
    /// Validation looks past locks.
    ValidateIgnoresLocks,
    /// A lock of a transaction that the ledger does not know counts as committed.
    AbsentIsCommitted,
    /// A lock is applied whatever keys and versions the ledger lists.
    ApplyUnlisted,
    /// An entry is done before its locks are applied.
    DoneBeforeApplied,
    /// A ledger of a coordinator that is gone is removed without applying what is committed.
    ClosedUnapplied,
    /// A coordinator that does not hear of its decision says that it was not done.
    UnknownIsAborted,
    /// The client is told before the decision is chosen.
    ToldTooEarly,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 12] = [
        Plant::PendingReleased,
        Plant::PendingAlwaysOld,
        Plant::LockWithoutVersion,
        Plant::ValidateFirst,
        Plant::ValidateNever,
        Plant::ValidateIgnoresLocks,
        Plant::AbsentIsCommitted,
        Plant::ApplyUnlisted,
        Plant::DoneBeforeApplied,
        Plant::ClosedUnapplied,
        Plant::UnknownIsAborted,
        Plant::ToldTooEarly,
    ];
}
