//! What a node's surroundings say to it and hear from it.

use crate::counters::Rounds;
use crate::message::Message;
use crate::trace::Trace;
use crate::tx::{Step, TxLog};
use core::time::Duration;
use paxos::Configuration;
use ring::members::MemberInfo;
use ring::{Extent, NodeId, NodeRef, Position, RingId, Slot};
use std::net::SocketAddr;
use std::sync::Arc;
use store::{Change, Key, OpId, Refusal, Value};

/// Chosen by the caller, echoed in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a client or the process asks of its node. Every request gets exactly one reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Begins: creates a ring or joins one. Replied to at once; [`Event`]s tell what came of it.
    Start {
        /// Known hosts, resolved; the node's own address among them or none at all means: may create.
        seeds: Vec<SocketAddr>,
        /// Creates a ring without probation.
        creates_at_once: bool,
        /// The replication factor it insists on; none takes the ring's.
        replication_factor: Option<u8>,
    },
    /// The known hosts, resolved again.
    Seeds(Vec<SocketAddr>),
    /// A linearizable read.
    Get {
        /// The key.
        key: Key,
    },
    /// A change of one key.
    Change {
        /// The key.
        key: Key,
        /// What to do.
        change: Change,
    },
    /// Operations of a transaction, and its commit.
    Transact(Box<Transact>),
    /// The node's and the ring's state in short.
    Status,
    /// How much of what the node holds and does.
    Insight,
    /// What each replica has of a key, as it says itself.
    Inspect {
        /// The key.
        key: Key,
    },
    /// The member table.
    Members,
    /// Who owns what, as this node sees it.
    Ring,
    /// Where a key's replicas are.
    Locate {
        /// The key.
        key: Key,
    },
    /// What this node's memory holds, below replication.
    Scan {
        /// The first position.
        from: Position,
        /// The last position.
        to: Position,
        /// Where the answer before ended.
        after: Option<(Position, Key)>,
    },
    /// Decides anew, from what is left, whatever has lost its quorum: an operator's command.
    Salvage {
        /// Only tell what would be done.
        is_dry: bool,
    },
    /// Gives up the data of this node's ring, another one with data being heard: an operator's command. The process
    /// is to begin the node anew at [`Event::RingGivenUp`].
    Dissolve {
        /// Only tell what would be given up.
        is_dry: bool,
    },
    /// Hands over everything and leaves the ring; replied to when it has left, or cannot.
    Leave,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Start` and `Seeds`.
    Ok,
    /// To `Get`. Version 0: the key is not there and its version is not remembered.
    Value {
        /// The value, if the key is there.
        value: Option<Value>,
        /// Its version.
        version: u64,
    },
    /// To `Change`: done, once.
    Changed {
        /// The key's version after it.
        version: u64,
        /// The new value, where the change computes one (AddOnNumber).
        value: Option<Value>,
    },
    /// To `Change`: not done, for a reason in the key's state.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The key's present version.
        version: u64,
        /// Its present value.
        value: Option<Value>,
    },
    /// To `Get`, `Change` or `Transact`: no answer about the key.
    Failed(Failure),
    /// To `Transact`.
    Transacted(Box<Transacted>),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Insight`.
    Insight(Box<Insight>),
    /// To `Inspect`, by slot.
    Inspected(Vec<InspectedReplica>),
    /// To `Members`.
    Members(Vec<MemberView>),
    /// To `Ring`: every known piece.
    Ring(Vec<PieceView>),
    /// To `Locate`.
    Located(Box<Location>),
    /// To `Scan`: in the order of position and key.
    Scanned {
        /// The keys that have a value.
        held: Vec<Held>,
        /// Whether there may be more after the last of them.
        is_more: bool,
    },
    /// To `Salvage`.
    Salvaged(Box<SalvageReport>),
    /// To `Dissolve`.
    Dissolved(Box<DissolveReport>),
    /// To `Leave`: everything was handed over, or there was nobody to hand it to.
    Left {
        /// Whether every piece found a new owner.
        is_clean: bool,
    },
}

/// What a salvage did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Nothing was done: the node is not in a ring, or is at it already.
    pub is_refused: bool,
    /// Nodes in the member table that did not answer, dead ones too; what only they have is not counted as there.
    pub silent: usize,
    /// Intervals without a quorum.
    pub intervals: usize,
    /// How much of all positions they are, in millionths.
    pub share_ppm: u32,
    /// Intervals of them of which nothing is left.
    pub lost_whole: usize,
    /// Memories that were there and could not be read to their end.
    pub sources_lost: usize,
    /// Intervals that could not be decided anew, a handover being under way there; to be commanded again.
    pub failed: usize,
    /// Keys found in what was decided anew.
    pub keys: usize,
    /// How often this ring was salvaged: the highest lineage of any interval.
    pub lineage: u64,
}

/// What is given up by dissolving a ring. It was done, if that was asked for and both rings are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DissolveReport {
    /// The ring; none if the node is not a member of one.
    pub ring: Option<RingId>,
    /// Its members that this node knows, itself included.
    pub members: usize,
    /// About how many keys it has, as its members told last.
    pub keys: u64,
    /// The other ring with data, and the address of a member of it; none if none was heard lately.
    pub other: Option<(RingId, SocketAddr)>,
}

/// A call of a transaction: operations on its log, and whether it is committed after them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transact {
    /// The log that the call before gave back; empty at first.
    pub log: TxLog,
    /// The operations, each seeing those before it.
    pub steps: Vec<Step>,
    /// Whether it is committed.
    pub commit: bool,
    /// The commit's id, if it may be asked for a second time: the same log with the same id is committed once. The
    /// operations with it may name only keys that are in the log.
    pub op: Option<OpId>,
    /// Whether a commit with this id was asked for before.
    pub is_repeated: bool,
    /// How often the transaction was begun anew after a conflict.
    pub conflicts: u32,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Transacted {
    /// For the next call; empty at the end of the transaction.
    pub log: TxLog,
    /// One reply for each operation: `Value`, `Changed` or `Refused`. What is written but not committed has
    /// version 0.
    pub results: Vec<Reply>,
    /// How it stands.
    pub outcome: TxOutcome,
}

/// How a transaction stands after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// It goes on.
    Open,
    /// Committed; the keys written, with their versions where this call has installed them.
    Committed(Vec<(Key, u64)>),
    /// Not committed: an operation on this key failed.
    Failed(Key),
    /// Not committed: these keys were changed or held by others. None are named if the coordinator was taken for
    /// dead.
    Conflict(Vec<Key>),
}

/// Why there is no answer about a key. Unknown and not-done are never mixed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not done: this node is not in a ring, or leaves it.
    NotReady {
        /// What it is doing instead.
        phase: Phase,
    },
    /// Not done: no quorum for this key answered in time.
    Unavailable {
        /// How long it was tried.
        waited: Duration,
    },
    /// Not done: a queue is full.
    Busy,
    /// Not done: the home's memory is full.
    Full,
    /// Not done: there is no such key for clients.
    KeyReserved,
    /// Not done: a commit that names itself must have seen every key before.
    KeyNotInLog,
    /// Not done: the transaction has too many keys.
    TooManyKeys {
        /// Its keys.
        keys: usize,
        /// The limit.
        keys_max: usize,
    },
    /// Not done: the key is too long.
    KeyTooLong {
        /// Its bytes.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// Not done: the value is too long.
    ValueTooLong {
        /// Its bytes.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// It may have been done, or may still be.
    Unknown {
        /// How long an answer was waited for.
        waited: Duration,
    },
}

/// Where the node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Idle,
    /// Asking to be let into a ring.
    Joining,
    /// Created a ring and waits to be called home.
    Probation,
    /// Serves.
    Member,
    /// Hands over what it has.
    Leaving,
    /// Has left.
    Left,
}

/// The node and its ring in short.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// This node.
    pub node: NodeRef,
    /// Its phase.
    pub phase: Phase,
    /// Its ring, once it is in one.
    pub ring: Option<RingId>,
    /// The replication factor.
    pub replication_factor: u8,
    /// Members alive.
    pub members_alive: usize,
    /// Members suspected or dead and not yet forgotten.
    pub members_lost: usize,
    /// Those of them that are suspected only.
    pub members_suspected: usize,
    /// How many more nodes may fail at once without any key losing its quorum, as far as this node sees.
    pub tolerated_failures: usize,
    /// Whether every position has a live complete owner, as far as this node sees.
    pub is_fully_replicated: bool,
    /// Keys in this node's memory, all slots together.
    pub keys: u64,
    /// Bytes in this node's memory.
    pub bytes: u64,
    /// The limit on them.
    pub bytes_max: u64,
    /// Pieces in this node's memory.
    pub pieces: usize,
    /// Operations open at this gateway.
    pub operations_open: usize,
    /// Another ring with data that answered at an address of ours, if any.
    pub foreign_ring: Option<RingId>,
    /// How often the ring was salvaged, as far as this node's memory tells: acknowledged writes may have been lost then.
    pub lineage: u64,
}

/// Pieces in this node's memory by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PieceCounts {
    /// They vote.
    pub active: usize,
    /// They are being refilled.
    pub incomplete: usize,
    /// They are being handed over.
    pub frozen: usize,
    /// They were replaced or given away, and are kept for those who have not heard of it.
    pub stopped: usize,
}

/// What the node holds and does, in numbers. [`Rounds`] count from its start, all else is the present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insight {
    /// Pieces by state.
    pub pieces: PieceCounts,
    /// Intervals into which owners cut the offsets.
    pub intervals: usize,
    /// Those in which a slot has no live owner.
    pub intervals_under_replicated: usize,
    /// Reigns.
    pub reigns: usize,
    /// Rounds of votes begun here.
    pub rounds: Rounds,
    /// Operations open at this gateway.
    pub operations_open: usize,
    /// Operations that wait at homes here.
    pub operations_waiting_at_homes: usize,
    /// Records sent for a vote and not yet forgotten.
    pub records_in_flight: usize,
    /// Effects not yet carried out.
    pub effects_waiting: usize,
    /// Handovers given or received.
    pub handovers_running: usize,
    /// Replacements and refills.
    pub replacements_running: usize,
    /// Pieces that a live member says it owns and this node ascribes to another.
    pub view_disagreements: usize,
}

/// What a replica has of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaSight {
    /// It was not asked or did not answer in time.
    Silent,
    /// It does not vote at present, or is not the owner.
    Refused,
    /// No record.
    Nothing,
    /// A record.
    Record {
        /// The version.
        version: u64,
        /// Whether it holds a value; otherwise it notes a removal.
        is_there: bool,
        /// The n of its stamp.
        n: u64,
        /// Whether it is known to be chosen.
        is_settled: bool,
    },
}

/// A replica of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectedReplica {
    /// Its slot.
    pub slot: Slot,
    /// Its owner, as far as known.
    pub owner: Option<NodeRef>,
    /// What it has.
    pub sight: ReplicaSight,
}

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberView {
    /// What it says of itself.
    pub info: MemberInfo,
    /// Whether this node suspects it.
    pub is_suspected: bool,
    /// When it was last heard, ago.
    pub heard_ago: Duration,
    /// Round-trip time of pings, smoothed.
    pub round_trip: Option<Duration>,
}

/// A piece of the ring and its owner, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceView {
    /// The slot.
    pub slot: Slot,
    /// The offsets.
    pub extent: Extent,
    /// The owner, if one is known.
    pub owner: Option<NodeRef>,
    /// Whether the owner is alive.
    pub is_live: bool,
}

/// A key in one node's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The position of this replica.
    pub position: Position,
    /// The key.
    pub key: Key,
    /// Its value there.
    pub value: Value,
    /// Its version there.
    pub version: u64,
}

/// Where a key lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The key's home slot.
    pub home: Slot,
    /// Its positions by slot, with the owner as this node sees it.
    pub replicas: Vec<(Position, Option<NodeRef>)>,
}

/// What the node wants done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message. A `to.id` of [`NodeId::ANY`] means whoever listens at the address.
    Send {
        /// The receiver.
        to: NodeRef,
        /// The message.
        message: Message,
        /// The trace it is part of, to be sent beside it.
        trace: Option<Trace>,
    },
    /// Reply to a request.
    Reply {
        /// The request.
        id: RequestId,
        /// The reply.
        reply: Reply,
    },
    /// Tell the log and the operator.
    Announce(Event),
}

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The node is a member and serves.
    Joined {
        /// The ring.
        ring: RingId,
        /// Whether it created it.
        is_creator: bool,
    },
    /// The node gave up a ring of its own that had no data, and joins another.
    Dissolved {
        /// The ring given up.
        ring: RingId,
    },
    /// No ring let it in so far.
    JoinDenied {
        /// Who answered.
        by: NodeRef,
        /// The answer.
        refusal: crate::message::JoinRefusal,
    },
    /// A ring with data answers at an address of ours.
    ForeignRing {
        /// Who answered.
        by: NodeRef,
        /// Its ring.
        ring: RingId,
    },
    /// The data of this node's ring were given up for another ring's: the node has ended, and its process is to begin it
    /// anew, with another id, no data, and that address as known host.
    RingGivenUp {
        /// The ring that was given up.
        ring: RingId,
        /// The ring to be joined.
        other: RingId,
        /// A member of it.
        at: SocketAddr,
    },
    /// A member came.
    MemberUp(NodeRef),
    /// A member is suspected.
    MemberSuspected(NodeRef),
    /// A member counts as dead.
    MemberDead(NodeRef),
    /// A member left after handing over.
    MemberLeft(NodeRef),
    /// A chunk was handed over.
    HandedOver {
        /// The slot.
        slot: Slot,
        /// The offsets.
        extent: Extent,
        /// The receiver.
        to: NodeRef,
        /// Its keys.
        keys: u64,
    },
    /// A replica was replaced and is complete.
    Replaced {
        /// The slot.
        slot: Slot,
        /// The offsets.
        extent: Extent,
        /// The configuration.
        configuration: Arc<Configuration>,
    },
    /// A replica that had been replaced goes on, its successor being gone.
    Resumed {
        /// The slot.
        slot: Slot,
        /// The offsets.
        extent: Extent,
        /// The configuration.
        configuration: Arc<Configuration>,
    },
    /// What had lost its quorum was decided anew from what was left, at an operator's command.
    Salvaged {
        /// The offsets.
        extent: Extent,
        /// The configuration, of a new lineage.
        configuration: Arc<Configuration>,
        /// The keys that were left.
        keys: usize,
    },
    /// A reign began here.
    ReignBegan {
        /// The home slot.
        home: Slot,
        /// The offsets.
        extent: Extent,
    },
    /// A node with this id, not this one's ring, was refused.
    Refused {
        /// Who.
        node: NodeId,
    },
}
