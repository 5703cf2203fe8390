//! What transactional clients do: lists that are added to, registers, and accounts between which money moves.
//!
//! Transactions are made to collide: few keys, reads of what others write, write skew, totals over all accounts.
//! Single operations on the same keys go between. A commit of which the outcome was not told is asked for again
//! with the same log at another node.
//!
//! Keeps:
//! 1. Every write has a number that its value shows.
//! 2. Money is moved, never made: the accounts always have the same total.

use super::history::{Fate, Read, Txn, Write};
use crate::draw::Draw;
use dht::api::{Transact, TxOutcome};
use dht::tx::{Step, TxLog};
use dht::{Failure, Reply, Request};
use num_bigint::BigInt;
use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Condition, Data, Key, OpId, SessionId, Value};

/// After so many transactions the lists are new ones, since every read of a list tells all of it.
const TXNS_PER_GENERATION: u64 = 300;
const LISTS: u64 = 3;
const REGISTERS: u64 = 4;
/// How many accounts there are.
pub const ACCOUNTS: u64 = 6;
/// What an account has that nobody used yet.
const BALANCE: i64 = 100;
const CONFLICTS_MAX: u32 = 4;
const QUESTIONS_MAX: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Reads lists and adds to some of them.
    Append,
    /// Reads registers and writes one of them or another.
    Skew,
    /// Moves money.
    Transfer,
    /// Adds up all accounts.
    Total,
    /// Reads several keys.
    Look,
    /// Writes several registers without reading.
    Blind,
    /// One read that is no transaction.
    Get,
    /// One write that is no transaction.
    Put,
}

/// A transaction under way.
#[derive(Clone, Debug)]
pub struct Open {
    txn: Txn,
    plan: Plan,
    keys: Vec<Key>,
    log: TxLog,
    steps: Vec<Step>,
    op: OpId,
    is_committing: bool,
    conflicts: u32,
    questions: u32,
    /// Whether an answer to the commit was lost before.
    is_doubtful: bool,
    /// Whether the commit may be asked for a second time.
    can_ask: bool,
}

impl Open {
    /// Whose it is.
    pub fn client(&self) -> usize {
        self.txn.client
    }
}

/// The transactional clients of a run.
#[derive(Debug)]
pub struct Clients {
    draw: Draw,
    last_write: u64,
    begun: u64,
    txns: Vec<Txn>,
    /// By outcome: committed, aborted, unknown.
    pub fates: [u64; 3],
    /// Totals that were added up, and the first that was wrong.
    pub totals: (u64, Option<String>),
}

fn key(kind: char, n: u64) -> Key {
    Key::new(format!("t{kind}{n}").as_bytes())
}

fn int(n: u64) -> Data {
    Data::Int(BigInt::from(n))
}

fn tagged(content: i64, write: u64) -> Value {
    Value::encode(&Data::List(vec![Data::Int(BigInt::from(content)), int(write)]))
}

/// The writes that a value shows, newest first, and the content of a register.
fn shown(key: &Key, value: &Value) -> (Vec<u64>, i64) {
    let number = |d: &Data| if let Data::Int(i) = d { i64::try_from(i).unwrap_or(-1) } else { -1 };
    let Data::List(items) = value.decode() else { return (Vec::new(), 0) };
    let ints: Vec<i64> = items.iter().map(number).collect();
    let write = |i: &i64| u64::try_from(*i).unwrap_or(u64::MAX);
    match (key.as_bytes().get(1), ints.as_slice()) {
        (Some(b'l'), all) => (all.iter().map(write).collect(), 0),
        (_, [content, last]) => (vec![write(last)], *content),
        (_, _) => (Vec::new(), 0),
    }
}

fn read_of(key: &Key, value: Option<&Value>, version: u64) -> Read {
    let is_list = key.as_bytes().get(1) == Some(&b'l');
    let writes = value.map(|v| shown(key, v).0).unwrap_or_default();
    let list = is_list.then(|| writes.iter().rev().copied().collect());
    Read { key: key.clone(), write: writes.first().copied(), version, list }
}

impl Clients {
    /// Nothing done yet.
    pub fn new(draw: Draw) -> Clients {
        Clients { draw, last_write: 0, begun: 0, txns: Vec::new(), fates: [0; 3], totals: (0, None) }
    }

    /// All that ended.
    pub fn txns(&self) -> &[Txn] {
        &self.txns
    }

    /// The first number of the lists that are used now.
    fn lists_from(&self) -> u64 {
        self.begun / TXNS_PER_GENERATION * LISTS
    }

    /// Every key that was used or may be.
    pub fn keys(&self) -> Vec<Key> {
        let all = [('l', self.lists_from() + LISTS), ('r', REGISTERS), ('b', ACCOUNTS)];
        all.iter().flat_map(|(kind, n)| (0..*n).map(|i| key(*kind, i))).collect()
    }

    /// The keys that are used now.
    fn present_keys(&self) -> Vec<Key> {
        let lists = self.lists_from();
        let all = [('l', lists, LISTS), ('r', 0, REGISTERS), ('b', 0, ACCOUNTS)];
        all.iter().flat_map(|(kind, from, n)| (*from..from + n).map(|i| key(*kind, i))).collect()
    }

    /// The accounts.
    pub fn accounts() -> Vec<Key> {
        (0..ACCOUNTS).map(|i| key('b', i)).collect()
    }

    fn some(&mut self, kind: char, of: u64, least: u64, most: u64) -> Vec<Key> {
        let from = if kind == 'l' { self.lists_from() } else { 0 };
        let n = self.draw.between(least, most.min(of));
        let mut out = BTreeSet::new();
        while u64::try_from(out.len()).unwrap_or(n) < n {
            out.insert(self.draw.below(of));
        }
        out.into_iter().map(|i| key(kind, from + i)).collect()
    }

    /// The next transaction of a client, and its first request.
    pub fn begin(&mut self, client: usize, at: u64) -> (Open, Request) {
        let plan = match self.draw.below(20) {
            0..=4 => Plan::Append,
            5..=8 => Plan::Skew,
            9..=11 => Plan::Transfer,
            12 => Plan::Total,
            13..=14 => Plan::Look,
            15 => Plan::Blind,
            16..=17 => Plan::Get,
            _ => Plan::Put,
        };
        let present = self.present_keys();
        self.begun += 1;
        let keys = match plan {
            Plan::Append => self.some('l', LISTS, 1, 3),
            Plan::Skew => self.some('r', REGISTERS, 1, 3),
            Plan::Transfer => self.some('b', ACCOUNTS, 2, 2),
            Plan::Total => Clients::accounts(),
            Plan::Blind => self.some('r', REGISTERS, 1, 3),
            Plan::Put => self.some('r', REGISTERS, 1, 1),
            Plan::Look => {
                let n = self.draw.between(2, 5);
                let some: BTreeSet<Key> = (0..n).filter_map(|_| self.draw.pick(&present)).collect();
                some.into_iter().collect()
            }
            Plan::Get => self.draw.pick(&present).into_iter().collect(),
        };
        self.attempt(client, plan, keys, 0, at)
    }

    /// One read of every key at once, or of one.
    pub fn look_at(&mut self, client: usize, keys: Vec<Key>, at: u64) -> (Open, Request) {
        let plan = if keys.len() == 1 { Plan::Get } else { Plan::Total };
        self.attempt(client, plan, keys, 0, at)
    }

    fn attempt(
        &mut self,
        client: usize,
        plan: Plan,
        keys: Vec<Key>,
        conflicts: u32,
        at: u64,
    ) -> (Open, Request) {
        let txn = Txn {
            client,
            invoked: at,
            completed: None,
            fate: Fate::Unknown,
            reads: Vec::new(),
            writes: Vec::new(),
        };
        let op = OpId { session: SessionId(self.draw.bits()), seq: 1 };
        let log = TxLog::default();
        let (is_committing, is_doubtful, can_ask) = (false, false, false);
        let mut open = Open {
            txn,
            plan,
            keys,
            log,
            steps: Vec::new(),
            op,
            is_committing,
            conflicts,
            questions: 0,
            is_doubtful,
            can_ask,
        };
        let gets = |keys: &[Key]| keys.iter().map(|k| Step { key: k.clone(), change: None }).collect();
        let request = match (plan, open.keys.first().cloned()) {
            (Plan::Get, Some(key)) => Request::Get { key },
            (Plan::Put, Some(key)) => {
                let step = self.write(&mut open, key.clone(), None);
                Request::Change {
                    key,
                    change: step.change.unwrap_or(Change::Delete { condition: Condition::Always }),
                }
            }
            (Plan::Blind, _) => {
                open.steps = open.keys.clone().into_iter().map(|k| self.write(&mut open, k, None)).collect();
                self.call(&mut open, true)
            }
            (Plan::Append, _) if self.draw.chance(400) => {
                let keys = open.keys.clone();
                open.steps = gets(&keys);
                for k in keys {
                    if self.draw.chance(700) {
                        let step = self.write(&mut open, k, None);
                        open.steps.push(step);
                    }
                }
                self.call(&mut open, true)
            }
            (Plan::Total | Plan::Look, _) if self.draw.chance(600) => {
                open.steps = gets(&open.keys);
                self.call(&mut open, true)
            }
            (_, _) => {
                open.steps = gets(&open.keys);
                self.call(&mut open, false)
            }
        };
        (open, request)
    }

    fn call(&mut self, open: &mut Open, commit: bool) -> Request {
        open.is_committing = commit;
        let is_known = |s: &Step| open.log.entries.contains_key(&s.key);
        let has_log = !open.log.entries.is_empty() && open.steps.iter().all(is_known);
        let op = (commit && has_log).then_some(open.op);
        open.can_ask = op.is_some();
        Request::Transact(Box::new(Transact {
            log: open.log.clone(),
            steps: open.steps.clone(),
            commit,
            op,
            is_repeated: open.is_doubtful,
            conflicts: open.conflicts,
        }))
    }

    /// A write with a new number.
    fn write(&mut self, open: &mut Open, key: Key, content: Option<i64>) -> Step {
        self.last_write += 1;
        let write = self.last_write;
        let is_append = key.as_bytes().get(1) == Some(&b'l');
        for w in open.txn.writes.iter_mut().filter(|w| w.key == key && !is_append) {
            w.is_overwritten = true;
        }
        open.txn.writes.push(Write {
            key: key.clone(),
            write,
            version: None,
            is_append,
            is_overwritten: false,
        });
        let change = if is_append {
            let add = Value::encode(&Data::List(vec![int(write)]));
            Change::AddDelOnList { add, remove: Value::encode(&Data::List(Vec::new())) }
        } else {
            Change::Put { value: tagged(content.unwrap_or(0), write), condition: Condition::Always }
        };
        Step { key, change: Some(change) }
    }

    /// The steps after the reads.
    fn second_half(&mut self, open: &mut Open, seen: &BTreeMap<Key, i64>) -> Vec<Step> {
        let keys = open.keys.clone();
        match open.plan {
            Plan::Transfer => {
                let amount = i64::try_from(self.draw.between(1, 30)).unwrap_or(1);
                let [from, to] = keys.as_slice() else { return Vec::new() };
                let of = |k: &Key| seen.get(k).copied().unwrap_or(BALANCE);
                let (a, b) = (of(from) - amount, of(to) + amount);
                vec![self.write(open, from.clone(), Some(a)), self.write(open, to.clone(), Some(b))]
            }
            Plan::Append => {
                let some: Vec<Key> = keys.into_iter().filter(|_| self.draw.chance(700)).collect();
                some.into_iter().map(|k| self.write(open, k, None)).collect()
            }
            Plan::Skew => {
                let Some(k) = self.draw.pick(&keys) else { return Vec::new() };
                let k = if self.draw.chance(300) { key('r', self.draw.below(REGISTERS)) } else { k };
                let mut steps = vec![self.write(open, k.clone(), None)];
                if self.draw.chance(150) {
                    steps.push(self.write(open, k, None));
                }
                steps
            }
            Plan::Total | Plan::Look | Plan::Blind | Plan::Get | Plan::Put => Vec::new(),
        }
    }

    /// A reply; what is asked next, if anything.
    pub fn on_reply(&mut self, mut open: Open, reply: Option<Reply>, at: u64) -> Option<(Open, Request)> {
        match reply {
            Some(Reply::Value { value, version }) => {
                let key = open.keys.first()?.clone();
                open.txn.reads.push(read_of(&key, value.as_ref(), version));
                self.end(open, Fate::Committed, at)
            }
            Some(Reply::Changed { version, .. }) => {
                if let Some(w) = open.txn.writes.first_mut() {
                    w.version = Some(version);
                }
                self.end(open, Fate::Committed, at)
            }
            Some(Reply::Transacted(t)) => match t.outcome {
                TxOutcome::Open => {
                    let seen = self.take_reads(&mut open, &t.results);
                    open.log = t.log;
                    open.steps = self.second_half(&mut open, &seen);
                    let request = self.call(&mut open, true);
                    Some((open, request))
                }
                TxOutcome::Committed(versions) => {
                    let seen = self.take_reads(&mut open, &t.results);
                    for w in open.txn.writes.iter_mut().filter(|w| !w.is_overwritten) {
                        w.version = versions.iter().find(|v| v.0 == w.key).map(|v| v.1);
                    }
                    self.add_up(&open, &seen);
                    self.end(open, Fate::Committed, at)
                }
                TxOutcome::Failed(_) => self.end(open, Fate::Aborted, at),
                TxOutcome::Conflict(_) => {
                    let (client, plan, keys) = (open.txn.client, open.plan, open.keys.clone());
                    let conflicts = open.conflicts + 1;
                    self.end(open, Fate::Aborted, at);
                    (conflicts < CONFLICTS_MAX).then(|| self.attempt(client, plan, keys, conflicts, at))
                }
            },
            Some(Reply::Refused { .. }) => self.end(open, Fate::Aborted, at),
            Some(Reply::Failed(f)) if !matches!(f, Failure::Unknown { .. }) && !open.is_doubtful => {
                self.end(open, Fate::Aborted, at)
            }
            // Whoever asks for a commit again is told of the first one, too.
            Some(Reply::Failed(_)) | None if open.is_committing && open.can_ask => {
                open.questions += 1;
                open.is_doubtful = true;
                if open.questions > QUESTIONS_MAX || self.draw.chance(300) {
                    return self.end(open, Fate::Unknown, at);
                }
                let request = self.call(&mut open, true);
                Some((open, request))
            }
            _ => self.end(open, Fate::Unknown, at),
        }
    }

    /// Notes the external reads of a call; the contents of registers seen.
    fn take_reads(&mut self, open: &mut Open, results: &[Reply]) -> BTreeMap<Key, i64> {
        let mut seen = BTreeMap::new();
        for (step, reply) in open.steps.iter().zip(results) {
            let (None, Reply::Value { value, version }) = (&step.change, reply) else { continue };
            if let Some(v) = value {
                seen.insert(step.key.clone(), shown(&step.key, v).1);
            }
            if !open.txn.reads.iter().any(|r| r.key == step.key) {
                open.txn.reads.push(read_of(&step.key, value.as_ref(), *version));
            }
        }
        seen
    }

    /// A committed total must be what it always was.
    fn add_up(&mut self, open: &Open, seen: &BTreeMap<Key, i64>) {
        if open.plan != Plan::Total || !open.keys.iter().all(|k| k.as_bytes().get(1) == Some(&b'b')) {
            return;
        }
        // The second call of an interactive one has no results: its reads were the first's.
        if open.steps.is_empty() {
            return;
        }
        let total: i64 = open.keys.iter().map(|k| seen.get(k).copied().unwrap_or(BALANCE)).sum();
        self.totals.0 += 1;
        let wanted = BALANCE * i64::try_from(ACCOUNTS).unwrap_or(0);
        if total != wanted && self.totals.1.is_none() {
            self.totals.1 = Some(format!("accounts add up to {total}, not {wanted}: {}", open.txn));
        }
    }

    fn end(&mut self, mut open: Open, fate: Fate, at: u64) -> Option<(Open, Request)> {
        let [committed, aborted, unknown] = &mut self.fates;
        *match fate {
            Fate::Committed => committed,
            Fate::Aborted => aborted,
            Fate::Unknown => unknown,
        } += 1;
        open.txn.fate = fate;
        open.txn.completed = (fate != Fate::Unknown).then_some(at);
        self.txns.push(open.txn);
        None
    }

    /// A transaction that will never be answered.
    pub fn give_up(&mut self, open: Open) {
        self.end(open, Fate::Unknown, 0);
    }
}
