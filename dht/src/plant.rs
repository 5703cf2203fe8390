//! Rules of the protocol that tests break on purpose, to see that the simulator notices.
//!
//! Without the feature `planted` none can be broken: [`crate::Config`] has no place to say so.

use crate::message::{Denied, Era};
use crate::node::DhtNode;
use paxos::{Acceptor, Configuration};
use ring::{Extent, Offset, Slot};
use std::sync::Arc;
use store::{Ballot, Key, Stamp};

/// The rules by name, each with the section of `docs/protocol.md` that has it: one list for the type, for all of
/// them, and for what is said of them.
macro_rules! plants {
    ($($(#[doc = $doc:literal])+ $name:ident = $section:literal,)+) => {
        /// A broken rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Plant {
            /// All of them.
            pub const ALL: &[Plant] = &[$(Plant::$name),+];

            /// The section of `docs/protocol.md` that has the rule.
            pub fn section(self) -> &'static str {
                match self {
                    $(Plant::$name => $section),+
                }
            }
        }
    };
}

plants! {
    /// A node replaces or receives a slot of an offset of which it holds another, whatever the ring's size.
    HoldsTwoSlots = "1",
    /// An acceptor grants an Accept whatever epoch it names.
    EpochIgnored = "2",
    /// A reign goes on with its ballot under the next epoch.
    BallotAcrossEpochs = "2",
    /// A reign goes on under the next epoch and counts the votes of both.
    VotesOfTwoEpochs = "2",
    /// A replaced member goes on voting, under the epoch that replaced it.
    NoFreeze = "2",
    /// A new member votes without having been filled.
    NoFill = "2",
    /// A replica id is used again for an offset.
    ReplicaReused = "2",
    /// A restarted process has the node id of the one before.
    IdentityKept = "2",
    /// Q-1 grants make a reign.
    ReignFewer = "3",
    /// A record counts as chosen with Q-1 grants.
    ChosenFewer = "3",
    /// An acceptor grants an Accept below its promise.
    AcceptBelowPromise = "3",
    /// Versions are counted for each key by itself.
    NPerKey = "3",
    /// A reign does not raise its numbers above what it learns.
    NBelowHigh = "3",
    /// A key is used without a Sync.
    SyncNever = "3",
    /// A Sync is done with Q-1 answers.
    SyncFewer = "3",
    /// A Sync is granted without a promise.
    SyncUnpromised = "3",
    /// A Sync takes the same stamp everywhere for chosen though it is not settled.
    SyncIgnoresUnsettled = "3",
    /// Keys stay synced whatever promise the grants named.
    KeysCarriedAlways = "3",
    /// A key with an Accept of unknown outcome stays synced in the next reign.
    KeysCarriedOpen = "3",
    /// What rests on a record is answered without a Confirm.
    ConfirmNever = "3",
    /// A Confirm that was sent before the read came in counts for it.
    ConfirmBefore = "3",
    /// Q-1 grants make a Confirm.
    ConfirmFewer = "3",
    /// An acceptor grants a Confirm whatever it has promised.
    ConfirmUnchecked = "3",
    /// A refusal, and an answer that changes nothing, is given without a Confirm.
    RefusalUnconfirmed = "3",
    /// A read at the home does not wait for the Accept whose record it shows.
    ReadInFlight = "3",
    /// A direct read is content with Q-1 answers.
    ReadFewer = "3",
    /// A direct read counts answers of two epochs.
    ReadOfTwoEpochs = "3",
    /// A direct read takes a stamp that is not settled.
    ReadIgnoresUnsettled = "3",
    /// A member that is being filled answers direct reads.
    ReadUnfilled = "3",
    /// A home that lost its reign says of what it had sent that it was not executed.
    SentIsNotHome = "3",
    /// The operation ids of a record are not looked at.
    OpsNotLooked = "4",
    /// A later attempt is executed whatever it knows.
    OpsFloorIgnored = "4",
    /// A first attempt is executed whatever it knows.
    FirstFloorIgnored = "4",
    /// A first attempt that was addressed to another reign is executed.
    OldReignExecuted = "4",
    /// The floor of an absent key is not kept.
    AbsentFloorForgotten = "4",
    /// A home tells the last n drawn as if it were chosen, and executes under an n that the sender may know already.
    KnownAnyN = "4",
    /// A later attempt knows what was learned after the first one.
    KnownRises = "4",
    /// One negative answer counts for all attempts.
    OneNegativeIsDefinite = "4",
    /// An operation whose attempts were not all answered is reported as not done.
    UnknownIsNotDone = "4",
    /// What comes of one attempt to hand over counts for another.
    AttemptsIgnored = "5",
    /// The receiver takes an attempt lower than one that it has seen or activated.
    AttemptsUnordered = "5",
    /// A giver offers the next chunk to a receiver that has not confirmed the last.
    NextBeforeConfirmed = "5",
    /// A giver aborts after it has sent Activate.
    AbortAfterActivate = "5",
    /// The receiver serves before Activate.
    ServedEarly = "5",
    /// A giver votes after it has sent the last changes.
    GiverKeepsVoting = "5",
    /// A giver's reign over the chunk goes on.
    GiverKeepsReign = "5",
    /// What changed since the copy is not sent, and the digests are not compared.
    ChangesLeftOut = "5",
    /// A handover leaves the promises, highs and floors behind.
    PromisesLeftBehind = "5",
    /// A handover leaves behind to whom was donated, and who was refused.
    DonatedLeftBehind = "5",
    /// Members that are not complete take part in deciding the next epoch.
    IncompletePromises = "6.1",
    /// A fresh proposal is content with the promise of the member that it replaces.
    FreshByAny = "6.1",
    /// A reported change_accepted is not finished first.
    AcceptedIgnored = "6.1",
    /// The grant of the replaced member does not count, even for a reported proposal.
    ReportedByOthers = "6.1",
    /// Q-1 grants decide the next epoch.
    ChangeFewer = "6.1",
    /// A successor takes an arc without an owner for its own.
    DecidedAlone = "6.1",
    /// A fill is done with Q-1 streams.
    FillFewer = "6.2 (a)",
    /// A fill does not merge the promises.
    FillWithoutPromises = "6.2 (a)",
    /// A fill does not merge the floors.
    FillWithoutFloors = "6.2 (a)",
    /// A fill does not merge to whom was donated.
    FillWithoutDonated = "6.2 (a)",
    /// A fill marks every entry settled.
    FillSettles = "6.2 (a)",
    /// A fill goes on with its streams when the epoch changes.
    StreamsOfTwoEpochs = "6.2 (a)",
    /// A donor does not note to whom it has streamed.
    DonatedNotNoted = "6.2 (a)",
    /// Frozen memory is taken without asking to whom was donated.
    FrozenUnasked = "6.2 (b)",
    /// Frozen memory is given to whoever asks.
    FrozenGivenTwice = "6.2 (b)",
    /// A member that froze unfinished gives its memory as if it were whole.
    UnfinishedIsWhole = "6.2 (b)",
    /// A member says that it never will be complete before it is frozen.
    TestimonyEarly = "6.2 (b)",
    /// A frozen holder goes on without asking anybody.
    ResumeUnrefused = "6.2 (c)",
    /// A frozen holder goes on though it has given its memory.
    ResumeAfterGiven = "6.2 (c)",
    /// A member donates to one that it has refused.
    RefusalNotBinding = "6.2 (c)",
    /// A frozen holder that goes on does not note the refusal as its own.
    RefusalForgotten = "6.2 (c)",
    /// Frozen memory is forgotten as soon as a later member exists.
    DiscardedEarly = "6.3",
    /// A tombstone is dropped when Q replicas hold it.
    DropByQuorum = "7",
    /// A replica drops a key whatever its stamp.
    DropAnyStamp = "7",
    /// A drop does not raise the floor.
    FloorNotRaised = "7",
    /// A pending transaction's lock is released without an entry in the ledger.
    PendingReleased = "8",
    /// A pending lock always shows the old value, also of a transaction that rests on keys it does not hold.
    PendingAlwaysOld = "8",
    /// A read behind a lock takes the word of a look into the ledger that began before the read came.
    PendingStaleWord = "8",
    /// A lock is set whatever version the key has.
    LockWithoutVersion = "8",
    /// Keys that were only read are validated before the locks are held.
    ValidateFirst = "8",
    /// Keys that were only read are not validated.
    ValidateNever = "8",
    /// Validation looks past locks.
    ValidateIgnoresLocks = "8",
    /// A key that was absent and is absent counts as never there between.
    AbsentAnytime = "8",
    /// A lock of a transaction that the ledger does not know counts as committed.
    AbsentIsCommitted = "8",
    /// A lock is applied whatever keys and versions the ledger lists.
    ApplyUnlisted = "8",
    /// Whatever lock is there is ended, not only the one that is named.
    SettleAnyLock = "8",
    /// An applied lock leaves no operation id of its commit.
    ApplyWithoutId = "8",
    /// That a key may have forgotten a commit counts as that it never was.
    ForgottenIsNever = "8",
    /// An entry is done before its locks are applied.
    DoneBeforeApplied = "8",
    /// A ledger of a coordinator that is gone is removed without applying what is committed.
    ClosedUnapplied = "8",
    /// A decision makes the ledger if there is none.
    DecideCreates = "8",
    /// A coordinator that does not hear of its decision says that it was not done.
    UnknownIsAborted = "8",
    /// A coordinator that finds its ledger closed after its decision was sent says that it was not done.
    ClosedIsAborted = "8",
    /// The client is told before the decision is chosen.
    ToldTooEarly = "8",
    /// A creator that names itself serves at once.
    ProbationSkipped = "9",
}

impl DhtNode {
    /// Whether a reign goes on under a decided configuration: only if a test wants it to.
    pub(crate) fn goes_on_in(&mut self, at: (Slot, Offset), c: &Arc<Configuration>) -> bool {
        let counts_both = self.ctx.is_planted(Plant::VotesOfTwoEpochs);
        if !counts_both && !self.ctx.is_planted(Plant::BallotAcrossEpochs) {
            return false;
        }
        let Some(r) = self.homes.reigns.get_mut(at).filter(|r| r.is_reigning()) else { return false };
        if self.acceptors.covering(r.anchor, r.extent, Some(Era::of(c))).is_err() {
            return false;
        }
        r.configuration = c.clone();
        for k in r.keys.values_mut().filter(|_| !counts_both) {
            if let Some(s) = k.sync.as_mut() {
                s.sightings.clear();
            }
            for f in k.flights.iter_mut().filter(|f| !f.is_chosen) {
                (f.granted, f.low) = Default::default();
            }
        }
        true
    }

    /// The epoch that a vote is tested for: the one it names, unless a test wants no test.
    pub(crate) fn era_tested(&self, slot: Slot, offset: Offset, named: Era) -> Era {
        let here = self.acceptors.find(slot, offset).filter(|_| self.ctx.is_planted(Plant::EpochIgnored));
        here.map_or(named, |a| Era::of(&a.configuration))
    }

    /// Whether a member that is not complete takes part in a change all the same.
    pub(crate) fn is_waived(&self, denied: &Denied) -> bool {
        *denied == Denied::NotReady && self.ctx.is_planted(Plant::IncompletePromises)
    }

    /// Lets what froze at `c` go on under it.
    pub(crate) fn thaw(&mut self, extent: Extent, c: &Arc<Configuration>) {
        let froze = |a: &&Acceptor| a.successor.as_ref() == Some(c) && extent.covers(&a.extent);
        let frozen: Vec<(Slot, u64, Extent)> =
            self.acceptors.frozen().iter().filter(froze).map(|a| (a.slot, a.since(), a.extent)).collect();
        for (slot, since, part) in frozen {
            if !self.acceptors.overlaps(slot, part)
                && let Some(mut a) = self.acceptors.take_frozen(slot, since, part)
            {
                (a.is_frozen, a.successor, a.configuration) = (false, None, c.clone());
                (a.change_promised, a.change_accepted) = (Ballot::ZERO, None);
                self.acceptors.insert(a);
            }
        }
    }

    /// Calls complete what `c` is about to freeze.
    pub(crate) fn call_whole(&mut self, extent: Extent, c: &Configuration) {
        for (slot, member) in self.ctx.space.slots().zip(&c.members) {
            let is_it = |a: &Acceptor| {
                !a.is_complete && a.configuration.epoch < c.epoch && a.replica != member.replica
            };
            let parts: Vec<Extent> =
                self.acceptors.parts(slot, extent).filter(|(_, a)| is_it(a)).map(|(e, _)| e).collect();
            for part in parts {
                self.acceptors.cut_extent(slot, part);
                if let Some(a) = self.acceptors.find_mut(slot, part.lo) {
                    a.is_complete = true;
                }
            }
        }
    }

    /// Drops a tombstone at a replica here, as [`crate::acceptors::Acceptors::drop_key`] does.
    pub(crate) fn drop_here(
        &mut self,
        slot: Slot,
        home: Slot,
        stamp: Stamp,
        offset: Offset,
        key: &Key,
    ) -> bool {
        let held = self.acceptors.entry(slot, offset, key).map(|e| e.stamp);
        let stamp = held.filter(|_| self.ctx.is_planted(Plant::DropAnyStamp)).unwrap_or(stamp);
        let of_home = |a: &Acceptor| a.homes.get(usize::from(home)).map(|h| h.floor);
        let floor = self.acceptors.find(slot, offset).and_then(of_home);
        let dropped = self.acceptors.drop_key(slot, home, stamp, offset, key);
        if self.ctx.is_planted(Plant::FloorNotRaised)
            && let Some(a) = self.acceptors.find_mut(slot, offset)
            && let Some((h, floor)) = a.homes.get_mut(usize::from(home)).zip(floor)
        {
            h.floor = floor;
        }
        dropped
    }
}

/// Takes out of a filled memory what a test wants to be missing.
pub(crate) fn spoil_fill(a: &mut Acceptor, planted: Option<Plant>) {
    for h in &mut a.homes {
        if planted == Some(Plant::FillWithoutPromises) {
            h.promised = Ballot::ZERO;
        }
        if planted == Some(Plant::FillWithoutFloors) {
            h.floor = Stamp::ZERO;
        }
    }
    if planted == Some(Plant::FillWithoutDonated) {
        let own = (a.slot, a.since());
        a.donated.retain(|d| *d == own);
    }
    if planted == Some(Plant::FillSettles) {
        a.registers.for_each_mut(|_, _, e| e.settled = true);
    }
}
