//! Every message between nodes, in one table.
//!
//! A request to acceptors names the slots it is for, so that a node with two slots of an offset gets the
//! record once and answers twice. Every vote travels with (epoch, tag); an answer about an interval travels
//! with its extent.

use crate::trace::Trace;
use paxos::{Configuration, Granted, HomeState, Member};
use ring::members::MemberInfo;
use ring::{Extent, NodeId, NodeRef, Offset, RingId, Slot};
use std::net::SocketAddr;
use std::sync::Arc;
use store::{Ballot, Change, Key, Record, Refusal, SessionId, Stamp, TxChange, Value};

/// A set of slots, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSet(pub u8);

impl SlotSet {
    /// The set of one slot.
    pub fn one(slot: Slot) -> SlotSet {
        SlotSet(1 << slot)
    }
    /// Adds a slot.
    pub fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot;
    }
    /// Whether it holds a slot.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0 >> slot & 1 == 1
    }
    /// How many slots it holds.
    pub fn len(&self) -> usize {
        usize::try_from(self.0.count_ones()).unwrap_or(0)
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
    /// Its slots in order.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        (0..8u8).filter(move |s| self.contains(*s))
    }
}

/// The configuration under which a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era {
    /// The epoch.
    pub epoch: u64,
    /// The configuration's tag.
    pub tag: u64,
}

impl Era {
    /// The era of a configuration.
    pub fn of(c: &Configuration) -> Era {
        Era { epoch: c.epoch, tag: c.tag }
    }
}

impl Denied {
    /// Not here, and nothing is said of where.
    pub const ELSEWHERE: Denied = Denied::NotOwner { hint: None, extent: None };
}

/// Why an acceptor did not grant a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Not the acceptor; perhaps this node is.
    NotOwner {
        /// Whom to ask instead.
        hint: Option<NodeRef>,
        /// For which part of what was asked; if it is not said, for the first offset.
        extent: Option<Extent>,
    },
    /// Incomplete, or being handed over: ask again soon.
    NotReady,
    /// The request's epoch is older than the one in force for `extent`.
    StaleEpoch {
        /// For which offsets.
        extent: Extent,
        /// The configuration in force.
        configuration: Arc<Configuration>,
    },
    /// The request's epoch is newer than what was installed here: send the configuration.
    NewerEpoch,
    /// A higher ballot was promised.
    Promised(Ballot),
    /// The stamp is not newer than the key's, or not above the floor.
    Low,
    /// The change of members is not asked for: the one to be replaced is heard here.
    StillHeard,
}

/// One replica's view of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Under which configuration this was said.
    pub era: Era,
    /// The key's stamp and whether it is settled; none if there is no entry.
    pub stamp: Option<(Stamp, bool)>,
    /// The record, where it was asked for or is newer than the asker's.
    pub record: Option<Record>,
    /// The highest stamp dropped for this home slot.
    pub floor: Stamp,
}

/// One interval of a Confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmItem {
    /// The home slot.
    pub home: Slot,
    /// The acceptors asked.
    pub slots: SlotSet,
    /// The interval.
    pub extent: Extent,
    /// The reign.
    pub ballot: Ballot,
    /// The configuration.
    pub era: Era,
}

/// What a client operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A linearizable read.
    Get,
    /// A change.
    Change(Change),
    /// A transaction's read, always at the home. Of a key that is not there it answers the number up to which
    /// that is known.
    Inspect {
        /// Whether it waits its turn behind a lock whatever that is.
        waits: bool,
    },
    /// A replica shows something unfinished: the home is to ask the replicas anew what they hold, the asker among
    /// them. Answered like a read.
    Resync,
    /// A transaction's change.
    Tx(Box<TxChange>),
}

impl Operation {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        match self {
            Operation::Get | Operation::Inspect { .. } | Operation::Resync => true,
            Operation::Change(_) | Operation::Tx(_) => false,
        }
    }

    /// Whether it is a change of which executing it twice does no harm.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Operation::Get | Operation::Inspect { .. } | Operation::Resync => true,
            Operation::Change(_) => false,
            Operation::Tx(c) => c.is_repeatable(),
        }
    }
}

/// An attempt at a client operation, from the gateway to a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whose operation.
    pub session: SessionId,
    /// Its number in the session.
    pub seq: u64,
    /// The number of this attempt, echoed in the answer.
    pub attempt: u32,
    /// Whether no earlier attempt can have been executed.
    pub is_first: bool,
    /// The reign it is addressed to.
    pub addressed: Option<Ballot>,
    /// A chosen n of the home interval, 0 if none is known.
    pub known: u64,
    /// The key.
    pub key: Key,
    /// What to do.
    pub operation: Operation,
    /// The trace it is part of, while it waits at its home; on its way that is told beside it.
    pub trace: Option<Trace>,
}

/// The answer to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Executed: the version written, and the result where the request does not tell it.
    Done {
        /// The n under which it was written.
        version: u64,
        /// A sum, say.
        result: Option<Value>,
    },
    /// Nothing had to be changed; the key's present version.
    Nothing {
        /// The present version.
        version: u64,
        /// The present value, where the operation answers one.
        value: Option<Value>,
    },
    /// The condition does not hold; the key's present state.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The present version.
        version: u64,
        /// The present value.
        value: Option<Value>,
    },
    /// The value read.
    Value {
        /// Its version, 0 if the key is not there.
        version: u64,
        /// The value.
        value: Option<Value>,
    },
    /// Definite: not executed; somebody else, or another reign, is home.
    NotHome {
        /// The node and reign to address.
        hint: Option<(NodeRef, Option<Ballot>)>,
    },
    /// Definite: not executed; send it again knowing this n.
    Behind {
        /// The floor, which was chosen.
        floor: u64,
    },
    /// Definite: not executed, the queue is full.
    Busy,
    /// Definite: not executed, the home's memory is full.
    Full,
    /// Definite: not executed, a transaction holds the key.
    Locked,
    /// An Accept was sent and its outcome is not known here; the next home can tell.
    Unknown,
    /// It was executed or not, and what could tell is forgotten: nobody ever knows.
    Forgotten,
}

/// An entry of a page of registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// The offset of the key.
    pub offset: Offset,
    /// The key.
    pub key: Key,
    /// Its stamp.
    pub stamp: Stamp,
    /// Whether it is settled.
    pub settled: bool,
    /// Its record.
    pub record: Record,
}

/// An acceptor's memory without its registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptorState {
    /// Which of the R.
    pub slot: Slot,
    /// For which offsets.
    pub extent: Extent,
    /// The newest configuration installed.
    pub configuration: Arc<Configuration>,
    /// (slot, since) of members to which it was completely streamed.
    pub donated: Vec<(Slot, u64)>,
    /// (slot, since) of members to which it will never donate.
    pub refused: Vec<(Slot, u64)>,
    /// Promise of the change instance.
    pub change_promised: Ballot,
    /// Vote of the change instance.
    pub change_accepted: Option<(Ballot, Vec<Member>)>,
    /// By home slot, R of them.
    pub homes: Vec<HomeState>,
}

/// The end of a stream of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageEnd {
    /// The donor's memory without its registers, as it is now.
    pub state: AcceptorState,
    /// Count and digest of all entries of the stream: what the receiver said that it holds, and this page's.
    pub sum: (u64, u64),
}

/// What a ring says of itself to one who asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingInfo {
    /// The ring.
    pub ring: RingId,
    /// Its replication factor.
    pub replication_factor: u8,
    /// The most nodes it had at once, at most R, lowered by graceful leaves; and how often it was changed.
    pub strength: (u64, u8),
}

/// Why a node is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// Not in a ring itself yet: ask again.
    NotReady,
    /// A node with this id is a member already.
    IdTaken,
    /// The asker wants another replication factor.
    ReplicationFactor {
        /// The ring's.
        ring: u8,
    },
}

/// Memory at a node, without what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPiece {
    /// Which of the R.
    pub slot: Slot,
    /// For which offsets.
    pub extent: Extent,
    /// The newest configuration installed before it was frozen, if it is.
    pub configuration: Arc<Configuration>,
    /// Whether it was ever complete.
    pub is_whole: bool,
    /// Whether it votes.
    pub is_active: bool,
}

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Asks to be let into whatever ring the receiver is in; sent by address.
    Join {
        /// The newcomer; its `end` and incarnation are not set yet.
        info: MemberInfo,
        /// The replication factor it insists on, if any.
        replication_factor: Option<u8>,
    },
    /// The newcomer may enter.
    JoinAccepted {
        /// The ring.
        info: RingInfo,
        /// Where the newcomer should stand.
        end: u128,
        /// The member table.
        members: Vec<MemberInfo>,
    },
    /// The newcomer may not enter.
    JoinDenied(JoinRefusal),
    /// "Are you one of us, or alone?" from a ring that lost somebody; sent by address.
    Knock {
        /// The ring.
        info: RingInfo,
        /// The number of members alive.
        members: u32,
    },
    /// The answer of somebody who is in a ring with data that is not the knocker's.
    KnockDenied {
        /// Its ring.
        ring: RingId,
    },
    /// The operator gave this ring up for another one that has data: the receiver's node ends.
    Dissolve {
        /// The ring that is given up.
        ring: RingId,
        /// The ring to be joined.
        other: RingId,
        /// A member of it.
        at: SocketAddr,
    },
    /// Failure detection and the member table.
    Gossip(ring::members::Gossip),

    /// Asks acceptors for a reign over an interval.
    Reign {
        /// Echoed.
        rpc: u64,
        /// The home slot.
        home: Slot,
        /// The acceptors asked.
        slots: SlotSet,
        /// The interval.
        extent: Extent,
        /// The new reign.
        ballot: Ballot,
        /// The configuration.
        era: Era,
    },
    /// The answer of one acceptor. Granted only for the whole interval.
    ReignReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// The grant; its old promise is none if the pieces of the interval differed.
        answer: Result<(Option<Ballot>, Granted), Denied>,
    },
    /// Asks acceptors what they hold of a key, and for their promise.
    Sync {
        /// Echoed.
        rpc: u64,
        /// The home slot.
        home: Slot,
        /// The acceptors asked.
        slots: SlotSet,
        /// The key.
        key: Key,
        /// The reign.
        ballot: Ballot,
        /// The configuration.
        era: Era,
        /// The asker's own stamp: a record is sent only if it is newer.
        have: Option<Stamp>,
    },
    /// The answer of one acceptor.
    SyncReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// What it holds.
        answer: Result<Sighting, Denied>,
    },
    /// Asks acceptors to take a record.
    Accept {
        /// The home slot.
        home: Slot,
        /// The acceptors asked.
        slots: SlotSet,
        /// The key.
        key: Key,
        /// The record's stamp; its n also matches the answer to the request.
        stamp: Stamp,
        /// The configuration.
        era: Era,
        /// The record.
        record: Record,
    },
    /// The vote of one acceptor.
    AcceptReply {
        /// From the request.
        stamp: Stamp,
        /// The acceptor.
        slot: Slot,
        /// The vote.
        answer: Result<(), Denied>,
    },
    /// Asks acceptors whether reigns still hold.
    Confirm {
        /// Echoed.
        round: u64,
        /// The intervals.
        items: Vec<ConfirmItem>,
    },
    /// The answers: (index of the item, acceptor, answer).
    ConfirmReply {
        /// From the request.
        round: u64,
        /// By item and acceptor.
        answers: Vec<(u32, Slot, Result<(), Denied>)>,
    },
    /// A direct read: what do you hold of this key?
    Read {
        /// Echoed.
        rpc: u64,
        /// The acceptors asked.
        slots: SlotSet,
        /// The key.
        key: Key,
        /// Whether the record is wanted, or only its stamp.
        wants_record: bool,
    },
    /// The answer of one acceptor.
    ReadReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// What it holds.
        answer: Result<Sighting, Denied>,
    },
    /// Tells acceptors that all of them hold this tombstone: forget it.
    Drop {
        /// The home slot.
        home: Slot,
        /// The acceptors told.
        slots: SlotSet,
        /// The key.
        key: Key,
        /// The tombstone's stamp.
        stamp: Stamp,
        /// The configuration.
        era: Era,
    },

    /// An attempt at a client's operation, to its home.
    Operation(Attempt),
    /// The home's answer.
    OperationReply {
        /// From the attempt.
        session: SessionId,
        /// From the attempt.
        seq: u64,
        /// From the attempt.
        attempt: u32,
        /// The home slot and interval for which the rest is said.
        home: Slot,
        /// The interval.
        extent: Extent,
        /// The reign of the answering node there, if it has one.
        ballot: Option<Ballot>,
        /// A chosen n of that interval.
        known: u64,
        /// The answer.
        answer: Answer,
    },

    /// Which configurations are in force in an interval?
    ConfigurationQuery {
        /// Echoed.
        rpc: u64,
        /// The acceptor asked.
        slot: Slot,
        /// The interval.
        extent: Extent,
    },
    /// The pieces of the interval that the acceptor owns: configuration and whether its memory is complete.
    ConfigurationReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// The interval asked for.
        extent: Extent,
        /// The pieces.
        pieces: Vec<(Extent, Arc<Configuration>, bool)>,
    },
    /// First phase of deciding the next configuration.
    ChangePrepare {
        /// Echoed.
        rpc: u64,
        /// The acceptor asked.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The configuration to be succeeded.
        era: Era,
        /// The proposal's number.
        ballot: Ballot,
        /// The node that is to lose its slot: refused while it is heard (a hint, not safety).
        suspect: Option<NodeId>,
    },
    /// The promise of one acceptor, with what it accepted before.
    ChangePrepareReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// The beginning of the interval over which what was accepted is the same: the answer is for this.
        extent: Extent,
        /// The promise.
        answer: Result<Option<(Ballot, Vec<Member>)>, Denied>,
    },
    /// Second phase.
    ChangeAccept {
        /// Echoed.
        rpc: u64,
        /// The acceptor asked.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The configuration to be succeeded.
        era: Era,
        /// The proposal's number.
        ballot: Ballot,
        /// The members of the next epoch.
        members: Vec<Member>,
    },
    /// The vote of one acceptor.
    ChangeAcceptReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// The vote.
        answer: Result<(), Denied>,
    },
    /// A decided configuration.
    Install {
        /// For which offsets.
        extent: Extent,
        /// The configuration.
        configuration: Arc<Configuration>,
    },
    /// For a salvage: what memory is there?
    SurveyQuery {
        /// Echoed.
        rpc: u64,
    },
    /// All memory of the answering node.
    SurveyReply {
        /// From the request.
        rpc: u64,
        /// The memory.
        pieces: Vec<MemoryPiece>,
    },
    /// For a salvage: asks for the next page of a member's memory, which votes no more from then on; answered by a
    /// FillPage.
    SalvagePull {
        /// Echoed.
        rpc: u64,
        /// The slot.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The epoch in which the member came in.
        since: u64,
        /// After which entry.
        after: Option<(Offset, Key)>,
        /// Count and digest of what came so far.
        held: (u64, u64),
    },
    /// Asks a member for the next page of its memory.
    FillPull {
        /// Echoed.
        rpc: u64,
        /// The donor.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The configuration that the stream belongs to.
        era: Era,
        /// The member that is filled.
        target: (Slot, u64),
        /// After which entry.
        after: Option<(Offset, Key)>,
        /// Count and digest of what came so far.
        held: (u64, u64),
    },
    /// A page, the last one with the donor's state.
    FillPage {
        /// From the request.
        rpc: u64,
        /// The donor.
        slot: Slot,
        /// The page.
        answer: Result<(Vec<PageEntry>, Option<Box<PageEnd>>), Denied>,
    },
    /// A frozen holder asks whether a later member of its slot is complete.
    FrozenQuery {
        /// The slot.
        slot: Slot,
        /// The interval of the frozen memory.
        extent: Extent,
        /// The epoch in which the frozen member came in.
        since: u64,
    },
    /// For this interval a later member is complete: the frozen memory may go.
    FrozenReply {
        /// The slot.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The epoch in which the complete member came in.
        since: u64,
    },
    /// Who has memory of this slot that was replaced?
    MemorySeek {
        /// The slot.
        slot: Slot,
        /// The interval.
        extent: Extent,
    },
    /// Memory of the slot at the answering node.
    MemoryFound {
        /// The slot.
        slot: Slot,
        /// Frozen memory (whole), and members that froze before they were complete and never will be (not whole):
        /// interval, the epoch in which the member came in, whether it is whole.
        pieces: Vec<(Extent, u64, bool)>,
    },
    /// To which members of a slot did this acceptor donate?
    DonationQuery {
        /// Echoed.
        rpc: u64,
        /// The acceptor asked.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The configuration.
        era: Era,
        /// The slot in question.
        of: Slot,
    },
    /// The epochs in which those members came in.
    DonationReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// The epochs.
        answer: Result<Vec<u64>, Denied>,
    },
    /// Asks for the next page of frozen memory; answered by a FillPage.
    FrozenPull {
        /// Echoed.
        rpc: u64,
        /// The slot of both.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The epoch in which the frozen member came in.
        since: u64,
        /// The epoch in which the receiver came in.
        receiver: u64,
        /// After which entry.
        after: Option<(Offset, Key)>,
        /// Count and digest of what came so far.
        held: (u64, u64),
        /// Members of the slot that froze unfinished, by the epoch in which they came in.
        unfinished: Vec<u64>,
    },
    /// A frozen holder asks acceptors never to donate to the member that replaced it.
    Refuse {
        /// Echoed.
        rpc: u64,
        /// The acceptor asked.
        slot: Slot,
        /// The interval.
        extent: Extent,
        /// The slot of the frozen holder.
        of: Slot,
        /// The epoch in which the frozen holder came in.
        after: u64,
        /// Members of the slot that froze unfinished, by the epoch in which they came in.
        unfinished: Vec<u64>,
    },
    /// The intervals for which that is promised, each with the configuration whose member is refused.
    RefuseReply {
        /// From the request.
        rpc: u64,
        /// The acceptor.
        slot: Slot,
        /// Intervals and configurations.
        pieces: Vec<(Extent, Arc<Configuration>)>,
    },

    /// The owner of a chunk offers it; the receiver answers with Continue or Abort.
    HandoverOffer {
        /// Grows with every attempt of the giver.
        attempt: u64,
        /// What will come.
        state: Box<AcceptorState>,
    },
    /// The receiver takes the attempt, or has stored the page with this number.
    HandoverContinue {
        /// The attempt.
        attempt: u64,
        /// The last page stored, 0 for none yet.
        page: u32,
    },
    /// A page of the chunk.
    HandoverPage {
        /// The attempt.
        attempt: u64,
        /// Counted from 1.
        page: u32,
        /// The entries.
        entries: Vec<PageEntry>,
    },
    /// The giver has stopped: the state, and what changed since it was copied.
    HandoverFinal {
        /// The attempt.
        attempt: u64,
        /// The final state.
        state: Box<AcceptorState>,
        /// Entries changed since they were copied.
        entries: Vec<PageEntry>,
        /// Keys dropped since they were copied.
        dropped: Vec<(Offset, Key)>,
        /// The number of keys of the chunk.
        count: u64,
        /// Their digest.
        digest: u64,
    },
    /// The receiver holds the chunk, with this count and digest, and does not serve it yet.
    HandoverReceived {
        /// The attempt.
        attempt: u64,
        /// The number of keys.
        count: u64,
        /// Their digest.
        digest: u64,
    },
    /// The giver has forgotten the chunk: the receiver is the owner.
    HandoverActivate {
        /// The attempt.
        attempt: u64,
    },
    /// The receiver serves the chunk.
    HandoverActivated {
        /// The attempt.
        attempt: u64,
    },
    /// Either side gives the attempt up, before Activate.
    HandoverAbort {
        /// The attempt.
        attempt: u64,
    },
}
