//! A model of transactions, searched exhaustively in a small scope: two coordinators of which one may crash, keys x
//! and y, and everything in any order.
//!
//! The machines are those of the node: [`Commit`], [`Ledgers`], [`Finish`], [`Watch`], [`Takeover`], and at the homes
//! `decide`. What is replaced is what lies between them. A register is one record that changes at once, since the rest
//! of the protocol makes it so; time passes whenever that is possible.
//!
//! Keeps:
//! 1. A call is executed and answered in one step. A call may also be answered as lost and executed later or never; a
//!    repeatable one may be executed twice. This takes from a number of faults. Calls of a crashed node are executed
//!    later or never.
//! 2. Whoever meets a lock may take its transaction for old; a read behind it may look whether it is pending.
//! 3. When nothing can be done any more there is no lock, no ledger and no job.
//!
//! Source: `docs/protocol.md`, section 8.

mod clients;
mod history;
mod scopes;
mod steps;

use super::commit::{Commit, Terms};
use super::finish::Finish;
use super::ledgers::Ledgers;
use super::log::TxLog;
use super::takeover::Takeover;
use super::watch::Watch;
use super::{Plant, Ticket};
use crate::homes::decide::{Decision, Room, decide};
use crate::message::{Attempt, Operation};
use crate::model::part::{self, Part};
use crate::reign::Reign;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use history::{Contents, Stand, Txn};
use ring::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use store::{Data, Key, Ledger, Record, SessionId, Value, Verdict};

/// The node at which locks are met and ledgers taken over; it has no clients and stays.
const HOMES: u8 = 2;
const START: Time = Time(0);
/// Later than everything that waits.
const LATE: Time = Time(3_600_000_000);
const AGE: Duration = Duration::from_secs(1);

/// What a client does.
#[derive(Clone, Debug)]
pub(super) enum Do {
    /// A transaction in one call: keys read, then keys written.
    Whole(&'static str, &'static str),
    /// One in two calls, of which the second is repeated at the other coordinator if nobody knows its outcome.
    Logged(&'static str, &'static str),
    Get(char),
    Put(char),
    Delete(char),
}

/// What is searched.
#[derive(Debug)]
pub(super) struct Scope {
    /// The clients: each at its coordinator, with what it does in turn.
    pub(super) clients: Vec<(u8, Vec<Do>)>,
    /// Keys that have a value at first.
    pub(super) present: &'static str,
    /// Whether coordinator 0 may crash.
    pub(super) may_crash: bool,
    /// Calls that are lost or executed twice, and coordinators that are taken for dead.
    pub(super) faults: u8,
    /// Conflicts after which a transaction is tried again.
    pub(super) again: u32,
    /// Operations of one transaction under way at once.
    pub(super) window: usize,
    pub(super) planted: Option<Plant>,
    reign: Reign,
}

#[derive(Clone, Debug)]
struct Register {
    record: Record,
    n: u64,
}

/// An operation under way. Nobody waits for the answer of one whose asker has given up or is gone.
#[derive(Clone, Debug)]
struct Call {
    key: Key,
    operation: Operation,
    is_awaited: bool,
    /// The ledger was seen to have the lock's transaction pending, after this came.
    is_pending_seen: bool,
}

/// Node, job, part, and a number that tells apart those that have the rest in common.
type CallId = (u8, u64, usize, u8);

#[derive(Clone, Debug)]
enum Job {
    Commit(Box<Commit>, Option<usize>),
    Finish(Finish, Option<bool>),
    Ledger,
    Watch(Watch),
    Takeover(Takeover),
    /// A client's operation on one key.
    Plain(usize),
}

#[derive(Clone, Debug)]
struct Node {
    is_up: bool,
    jobs: BTreeMap<u64, Job>,
    ledgers: Ledgers,
    last_ledger: u64,
    /// Jobs that go on after a pause.
    paused: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    /// How much of what it does has been begun.
    begun: usize,
    node: u8,
    log: TxLog,
    /// The commit of a log was asked for so often.
    asked: u8,
    is_running: bool,
}

/// A state of the model.
#[derive(Clone, Debug)]
pub(super) struct World {
    registers: BTreeMap<Key, Part<Register>>,
    calls: BTreeMap<CallId, Part<Call>>,
    nodes: Vec<Part<Node>>,
    clients: Part<Vec<Client>>,
    txns: Part<Vec<Txn>>,
    faults: u8,
    may_crash: bool,
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Begin(usize),
    AskAgain(usize),
    Execute(CallId),
    /// It stays under way as well.
    ExecuteTwice(CallId),
    Lose(CallId),
    /// A read that waits behind a lock looks into the ledger.
    Look(CallId),
    TakeOldValue(CallId),
    /// Its time behind the lock is up.
    GiveUp(CallId),
    Meet(Key),
    TakeOver(Key),
    Resume(u8, u64),
    /// Ledgers do what they do in time.
    Wait(u8),
    Crash,
}

impl World {
    fn press(&mut self) {
        self.registers.values_mut().for_each(Part::press);
        self.calls.values_mut().for_each(Part::press);
        self.nodes.iter_mut().for_each(Part::press);
        self.clients.press();
        self.txns.press();
    }

    fn prints(&self) -> impl Iterator<Item = u64> {
        let calls = self.calls.values().map(Part::print);
        let nodes = self.nodes.iter().map(Part::print);
        let rest =
            [self.clients.print(), self.txns.print(), u64::from(self.faults), u64::from(self.may_crash)];
        self.registers.values().map(Part::print).chain(calls).chain(nodes).chain(rest)
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.registers.keys().for_each(|k| k.hash(state));
        self.calls.keys().for_each(|k| k.hash(state));
        self.prints().for_each(|p| p.hash(state));
    }
}

/// States are the same if they read the same: the machines need no comparison for anything else.
impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        self.registers.keys().eq(other.registers.keys())
            && self.calls.keys().eq(other.calls.keys())
            && self.prints().eq(other.prints())
    }
}

fn key(name: char) -> Key {
    Key::new(name.to_string().as_bytes())
}

/// The transaction that wrote a value.
fn writer(value: Option<&Value>) -> Option<u8> {
    if let Data::Int(i) = value?.decode() { u8::try_from(i).ok() } else { None }
}

impl Scope {
    fn decide(&self, register: &Register, id: CallId, call: &Call) -> Decision {
        // Every call has a session of its own.
        let attempt = Attempt {
            session: SessionId(part::print(&(id, &call.operation))),
            seq: 1,
            attempt: 1,
            is_first: true,
            addressed: None,
            known: 0,
            key: call.key.clone(),
            operation: call.operation.clone(),
            trace: None,
        };
        let (n, floor) = (register.n + 1, register.record.ops_floor());
        let room = Room { is_memory_full: false, value_bytes_max: 1000, n, floor, planted: self.planted };
        decide(&self.reign, &register.record, &attempt, room)
    }

    fn terms(&self, conflicts: u32) -> Terms {
        let patience = if conflicts < self.again { AGE } else { Duration::ZERO };
        Terms { window: self.window, value_bytes_max: 1000, patience, planted: self.planted }
    }

    /// The number of a client's transaction.
    fn txn(&self, client: usize, number: usize) -> usize {
        self.clients.iter().take(client).map(|c| c.1.len()).sum::<usize>() + number
    }

    fn contents(&self) -> Contents {
        "xy".chars().map(|k| (k, self.present.contains(k).then_some(0))).collect()
    }

    fn first(&self) -> World {
        let idle = Node {
            is_up: true,
            jobs: BTreeMap::new(),
            ledgers: Ledgers::default(),
            last_ledger: 0,
            paused: BTreeSet::new(),
        };
        let register = |(k, v): (char, Option<u8>)| {
            let value = v.map(|w| Value::int(i64::from(w)));
            let n = u64::from(value.is_some());
            (key(k), Part::new(Register { record: Record { version: n, value, ops: None }, n }))
        };
        let client = |c: &(u8, Vec<Do>)| Client { node: c.0, ..Client::default() };
        let txn = Txn { stand: Stand::Idle, after: 0, reads: Vec::new(), writes: Vec::new() };
        let mut w = World {
            registers: self.contents().into_iter().map(register).collect(),
            calls: BTreeMap::new(),
            nodes: (0..=HOMES).map(|_| Part::new(idle.clone())).collect(),
            clients: Part::new(self.clients.iter().map(client).collect()),
            txns: Part::new(self.clients.iter().flat_map(|c| c.1.iter().map(|_| txn.clone())).collect()),
            faults: self.faults,
            may_crash: self.may_crash,
        };
        w.press();
        w
    }
}

impl World {
    fn register(&self, key: &Key) -> Register {
        self.registers.get(key).map(|r| (**r).clone()).unwrap_or(Register { record: Record::absent(0), n: 0 })
    }

    fn contents(&self) -> Contents {
        "xy".chars().map(|k| (k, writer(self.register(&key(k)).record.value.as_ref()))).collect()
    }

    /// What the ledger says of the transaction that holds a key.
    fn verdict(&self, record: &Record) -> Option<Verdict> {
        let tx = &record.lock()?.tx;
        Some(Ledger::verdict_of(self.register(&tx.ledger).record.value.as_ref(), tx.entry))
    }

    fn is_coordinator_up(&self, ledger: &Key) -> bool {
        let is_it = |i: usize| Ledger::coordinator(ledger) == Some(coordinator(i));
        self.nodes.iter().enumerate().any(|(i, n)| n.is_up && is_it(i))
    }

    /// What is left of transactions.
    fn is_clean(&self) -> bool {
        let is_left =
            |k: &Key, r: &Register| r.record.lock().is_some() || k.is_reserved() && r.record.value.is_some();
        self.calls.values().all(|c| !c.is_awaited)
            && self.nodes.iter().all(|n| !n.is_up || n.jobs.is_empty() && n.ledgers.is_empty())
            && !self.registers.iter().any(|(k, r)| is_left(k, r))
    }
}

fn coordinator(node: usize) -> NodeId {
    NodeId(u64::try_from(node).unwrap_or(0) + 1)
}
