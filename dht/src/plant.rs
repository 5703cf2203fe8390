//! Rules of the protocol that tests break on purpose, to see that the simulator notices.
//!
//! Without the feature `planted` none can be broken: [`crate::Config`] has no place to say so.

macro_rules! plants {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A broken rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plant {
            $($(#[$doc])+ $name,)+
        }

        impl Plant {
            /// All of them.
            pub const ALL: &[Plant] = &[$(Plant::$name,)+];
        }
    };
}

plants! {
    /// A pending transaction's lock is released without an entry in the ledger.
    PendingReleased,
    /// A pending lock always shows the old value, also of a transaction that rests on keys it does not hold.
    PendingAlwaysOld,
    /// A read behind a lock takes the word of a look into the ledger that began before the read came.
    PendingStaleWord,
    /// A lock is set whatever version the key has.
    LockWithoutVersion,
    /// Keys that were only read are validated before the locks are held.
    ValidateFirst,
    /// Keys that were only read are not validated.
    ValidateNever,
    /// Validation looks past locks.
    ValidateIgnoresLocks,
    /// A key that was absent and is absent counts as never there between.
    AbsentAnytime,
    /// A lock of a transaction that the ledger does not know counts as committed.
    AbsentIsCommitted,
    /// A lock is applied whatever keys and versions the ledger lists.
    ApplyUnlisted,
    /// Whatever lock is there is ended, not only the one that is named.
    SettleAnyLock,
    /// An applied lock leaves no operation id of its commit.
    ApplyWithoutId,
    /// That a key may have forgotten a commit counts as that it never was.
    ForgottenIsNever,
    /// An entry is done before its locks are applied.
    DoneBeforeApplied,
    /// A ledger of a coordinator that is gone is removed without applying what is committed.
    ClosedUnapplied,
    /// A decision makes the ledger if there is none.
    DecideCreates,
    /// A coordinator that does not hear of its decision says that it was not done.
    UnknownIsAborted,
    /// A coordinator that finds its ledger closed after its decision was sent says that it was not done.
    ClosedIsAborted,
    /// The client is told before the decision is chosen.
    ToldTooEarly,
}
