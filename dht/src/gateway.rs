//! The gateway: client operations from their arrival to their one reply.
//!
//! A read asks Q replicas directly and goes to the home only if they disagree. A change goes to the home in
//! attempts until an answer is definite or the deadline has come. Each open operation holds a session for
//! itself, so that a session never has two operations of one key under way.
//!
//! Keeps:
//! 1. An operation is reported as not done only if every attempt sent was answered so.
//! 2. `known` of later attempts is that of the last first attempt: it must not rise past an execution.
//!
//! Source: `docs/protocol.md`, sections 3 (read by anyone) and 4.

use crate::api::{Failure, Phase, Reply, RequestId};
use crate::counters::RoundKind;
use crate::hints::Hints;
use crate::homes::Lookup;
use crate::message::{Answer, Attempt, Denied, Era, Message, Operation, Sighting, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::trace::Trace;
use crate::tx::Ticket;
use core::time::Duration;
use rand_core::RngCore;
use ring::{Extent, NodeId, NodeRef, Offset, Slot, Time};
use store::{Ballot, Change, Key, Record, Refusal, SessionId, Stamp, Value};

/// How long a direct read waits before it goes to the home.
const DIRECT_READ_WAIT: Duration = Duration::from_millis(100);
/// The first pause after an answer that leads nowhere.
const BACKOFF_MIN: Duration = Duration::from_millis(4);
/// How long a node that has left may take to refuse what was on its way to it.
const LEFT_WAIT: Duration = Duration::from_millis(150);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
struct Seen {
    slot: Slot,
    era: Era,
    stamp: Option<(Stamp, bool)>,
    record: Option<Record>,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Replicas were asked directly.
    Reading { rpc: u64, asked: usize, seen: Vec<Seen> },
    /// An attempt is at a home.
    Asked { target: NodeId },
    /// Waits before the next attempt.
    Pausing,
}

/// Who gets the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A client.
    Client(RequestId),
    /// A job of this node's transactions.
    Job(Ticket),
}

#[derive(Clone, Debug)]
struct Open {
    asker: Asker,
    key: Key,
    home: Slot,
    offset: Offset,
    operation: Operation,
    attempt: u32,
    /// Attempts sent that were not answered as not executed; an answer may come twice.
    outstanding: Vec<u32>,
    known: u64,
    began: Time,
    wake_at: Time,
    backoff: Duration,
    stage: Stage,
    /// No attempt follows one that may have been executed.
    is_once: bool,
    trace: Option<Trace>,
}

#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    seq: u64,
    open: Option<Open>,
}

/// The client operations of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gateway {
    sessions: Vec<Session>,
    free: Vec<usize>,
    by_session: Lookup<u64, usize>,
    by_rpc: Lookup<u64, usize>,
    pub(crate) hints: Hints,
    pub(crate) next_scan: Option<Time>,
    pub(crate) open_count: usize,
}

impl Gateway {
    fn schedule(&mut self, at: Time) {
        self.next_scan = Some(self.next_scan.map_or(at, |n| n.min(at)));
    }
}

impl DhtNode {
    pub(crate) fn check_limits(&self, key: &Key, change: Option<&Change>) -> Option<Failure> {
        let c = &self.ctx.config;
        let size_bytes = key.as_bytes().len();
        if size_bytes > c.key_bytes_max {
            return Some(Failure::KeyTooLong { size_bytes, limit_bytes: c.key_bytes_max });
        }
        let len = |v: &Value| v.as_bytes().len();
        let size_bytes = match change {
            None | Some(Change::Delete { .. }) => 0,
            Some(Change::Put { value, .. }) => len(value),
            Some(Change::TestAndSet { old, new }) => len(old).max(len(new)),
            Some(Change::AddOnNumber { by }) => len(by),
            Some(Change::AddDelOnList { add, remove }) => len(add).max(len(remove)),
        };
        (size_bytes > c.value_bytes_max)
            .then_some(Failure::ValueTooLong { size_bytes, limit_bytes: c.value_bytes_max })
    }

    /// A client's read or change.
    pub(crate) fn begin_operation(&mut self, id: RequestId, key: Key, operation: Operation) {
        if !self.takes_requests() {
            let phase = self.phase;
            self.ctx.reply(id, Reply::Failed(Failure::NotReady { phase }));
            return;
        }
        let change = match &operation {
            Operation::Get | Operation::Inspect { .. } | Operation::Resync | Operation::Tx(_) => None,
            Operation::Change(c) => Some(c),
        };
        if key.is_reserved() {
            self.ctx.reply(id, Reply::Failed(Failure::KeyReserved));
            return;
        }
        if let Some(f) = self.check_limits(&key, change) {
            self.ctx.reply(id, Reply::Failed(f));
            return;
        }
        if self.gateway.open_count >= self.ctx.config.operations_max {
            self.ctx.reply(id, Reply::Failed(Failure::Busy));
            return;
        }
        self.open_operation(Asker::Client(id), key, operation, false);
    }

    /// An operation of a job of this node's transactions; its reply goes there.
    pub(crate) fn begin_job_operation(
        &mut self,
        ticket: Ticket,
        key: Key,
        operation: Operation,
        is_once: bool,
    ) {
        if matches!(self.phase, Phase::Member | Phase::Leaving) {
            self.open_operation(Asker::Job(ticket), key, operation, is_once);
        } else {
            let phase = self.phase;
            self.tx.inbox.push_back((ticket, Reply::Failed(Failure::NotReady { phase })));
        }
    }

    fn open_operation(&mut self, asker: Asker, key: Key, operation: Operation, is_once: bool) {
        let (home, offset) = self.ctx.space.locate(key.as_bytes());
        let index = match self.gateway.free.pop() {
            Some(i) => i,
            None => {
                let session = SessionId(self.ctx.rng.next_u64());
                let i = self.gateway.sessions.len();
                self.gateway.sessions.push(Session { id: session, seq: 0, open: None });
                self.gateway.by_session.insert(session.0, i);
                i
            }
        };
        let open = Open {
            asker,
            key,
            home,
            offset,
            operation,
            attempt: 0,
            outstanding: Vec::new(),
            known: 0,
            began: self.ctx.now,
            wake_at: self.ctx.now + self.ctx.config.operation_deadline,
            backoff: BACKOFF_MIN,
            stage: Stage::Pausing,
            is_once,
            trace: self.ctx.trace,
        };
        let is_read = matches!(open.operation, Operation::Get);
        if let Some(s) = self.gateway.sessions.get_mut(index) {
            s.seq += 1;
            s.open = Some(open);
        }
        self.gateway.open_count += 1;
        if !is_read || !self.begin_direct_read(index) {
            self.next_attempt(index);
        }
    }

    fn finish(&mut self, index: usize, reply: Reply) {
        let Some(s) = self.gateway.sessions.get_mut(index) else { return };
        let Some(open) = s.open.take() else { return };
        if let Stage::Reading { rpc, .. } = open.stage {
            self.gateway.by_rpc.remove(&rpc);
        }
        self.gateway.open_count -= 1;
        self.gateway.free.push(index);
        match open.asker {
            Asker::Client(id) => self.ctx.reply(id, reply),
            Asker::Job(ticket) => self.tx.inbox.push_back((ticket, reply)),
        }
    }

    /// Asks Q replicas, local ones first. False if too few are known to be alive.
    fn begin_direct_read(&mut self, index: usize) -> bool {
        let Some(open) = self.gateway.sessions.get(index).and_then(|s| s.open.as_ref()) else { return true };
        let (key, offset) = (open.key.clone(), open.offset);
        let quorum = self.ctx.quorum_unless(Plant::ReadFewer);
        let mut seen: Vec<Seen> = Vec::new();
        let slots: Vec<Slot> = self.acceptors.active_slots(self.ctx.space.replicas(), offset).collect();
        for slot in slots.into_iter().take(quorum) {
            if let Some(a) = self.acceptors.active(slot, offset) {
                let e = a.registers.get(offset, &key);
                // One record is enough, and the first sighting carries it.
                let record = if seen.is_empty() { e.map(|e| e.record.clone()) } else { None };
                let stamp = e.map(|e| (e.stamp, e.settled));
                seen.push(Seen { slot, era: Era::of(&a.configuration), stamp, record });
            }
        }
        let mut remote: Vec<(NodeRef, SlotSet)> = Vec::new();
        let mut planned = seen.len();
        let first = usize::from(open.home);
        let r = usize::from(self.ctx.space.replicas());
        for slot in (0..r).map(|i| u8::try_from((first + i) % r).unwrap_or(0)) {
            if planned >= quorum {
                break;
            }
            if seen.iter().any(|s| s.slot == slot) {
                continue;
            }
            if let Some(owner) = self.ctx.live_owner(slot, offset).filter(|o| o.id != self.ctx.me.id) {
                match remote.iter_mut().find(|(o, _)| o.id == owner.id) {
                    Some((_, set)) => set.insert(slot),
                    None => remote.push((owner, SlotSet::one(slot))),
                }
                planned += 1;
            }
        }
        if planned < quorum {
            return false;
        }
        let rpc = self.ctx.draw_rpc();
        self.ctx.rounds.began(RoundKind::Read);
        let mut wants_record = seen.is_empty();
        for (to, slots) in remote {
            self.ctx.send(to, Message::Read { rpc, slots, key: key.clone(), wants_record });
            wants_record = false;
        }
        let wake_at = self.ctx.now + DIRECT_READ_WAIT;
        if let Some(open) = self.gateway.sessions.get_mut(index).and_then(|s| s.open.as_mut()) {
            open.stage = Stage::Reading { rpc, asked: planned, seen };
            open.wake_at = wake_at;
        }
        self.gateway.by_rpc.insert(rpc, index);
        self.gateway.schedule(wake_at);
        self.judge_read(index);
        true
    }

    /// A replica's answer to a direct read.
    pub(crate) fn on_read_reply(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        answer: Result<Sighting, Denied>,
    ) {
        let Some(index) = self.gateway.by_rpc.get(&rpc).copied() else { return };
        let Some(open) = self.gateway.sessions.get_mut(index).and_then(|s| s.open.as_mut()) else { return };
        let offset = open.offset;
        let Stage::Reading { rpc: x, seen, .. } = &mut open.stage else { return };
        if *x != rpc || seen.iter().any(|s| s.slot == slot) {
            return;
        }
        match answer {
            Ok(g) => {
                seen.push(Seen { slot, era: g.era, stamp: g.stamp, record: g.record });
                self.judge_read(index);
            }
            Err(d) => {
                if let Denied::NotOwner { hint, extent } = d {
                    self.ctx.learn_not_owner(slot, offset, extent, from.id, hint);
                }
                self.read_at_home(index);
            }
        }
    }

    fn read_at_home(&mut self, index: usize) {
        if let Some(open) = self.gateway.sessions.get_mut(index).and_then(|s| s.open.as_mut())
            && let Stage::Reading { rpc, .. } = open.stage
        {
            self.gateway.by_rpc.remove(&rpc);
            open.stage = Stage::Pausing;
            self.next_attempt(index);
        }
    }

    fn judge_read(&mut self, index: usize) {
        let quorum = self.ctx.quorum_unless(Plant::ReadFewer);
        let is_any_era = self.ctx.is_planted(Plant::ReadOfTwoEpochs);
        let is_any_settled = self.ctx.is_planted(Plant::ReadIgnoresUnsettled);
        let Some(open) = self.gateway.sessions.get(index).and_then(|s| s.open.as_ref()) else { return };
        let Stage::Reading { asked, seen, .. } = &open.stage else { return };
        if seen.len() < *asked {
            return;
        }
        let Some(first) = seen.first() else { return };
        let is_equal = seen.len() >= quorum
            && seen.iter().all(|s| {
                (s.era == first.era || is_any_era)
                    && s.stamp.map(|t| t.0) == first.stamp.map(|t| t.0)
                    && s.stamp.is_none_or(|t| t.1 || is_any_settled)
            });
        let record = seen.iter().find_map(|s| s.record.as_ref());
        // Behind a lock there may be a value that is committed already.
        let is_locked = record.is_some_and(|r| r.lock().is_some());
        if is_equal && !is_locked && (first.stamp.is_none() || record.is_some()) {
            let (version, value) = record.map_or((0, None), |r| (r.version, r.value.clone()));
            self.finish(index, Reply::Value { value, version });
        } else {
            self.read_at_home(index);
        }
    }

    /// Who seems to be home.
    pub(crate) fn likely_home(&self, home: Slot, offset: Offset) -> Option<NodeRef> {
        let hinted = self.gateway.hints.get(home, offset).and_then(|h| h.node);
        let owner = || {
            let r = self.ctx.space.replicas();
            (0..r).find_map(|k| self.ctx.live_owner((home + k) % r, offset))
        };
        hinted.filter(|n| self.ctx.is_live(n.id)).or_else(owner)
    }

    /// Sends the next attempt to whoever seems to be home.
    fn next_attempt(&mut self, index: usize) {
        let now = self.ctx.now;
        let Some(s) = self.gateway.sessions.get(index) else { return };
        let Some(open) = s.open.as_ref() else { return };
        let (session, seq, home, offset) = (s.id, s.seq, open.home, open.offset);
        let hint = self.gateway.hints.get(home, offset);
        let target = self.likely_home(home, offset);
        let deadline = now + self.ctx.config.attempt_timeout;
        let Some(target) = target else {
            self.pause(index);
            return;
        };
        let Some(open) = self.gateway.sessions.get_mut(index).and_then(|s| s.open.as_mut()) else { return };
        let is_first = open.outstanding.is_empty();
        if open.is_once && !is_first {
            let waited = now.since(open.began);
            self.finish(index, Reply::Failed(Failure::Unknown { waited }));
            return;
        }
        if is_first || self.ctx.is_planted(Plant::KnownRises) {
            open.known = hint.map_or(0, |h| h.known).max(open.known);
        }
        open.attempt += 1;
        open.outstanding.push(open.attempt);
        open.stage = Stage::Asked { target: target.id };
        open.wake_at = deadline;
        let attempt = Attempt {
            session,
            seq,
            attempt: open.attempt,
            is_first,
            addressed: hint.filter(|h| h.node.is_some_and(|n| n.id == target.id)).and_then(|h| h.ballot),
            known: open.known,
            key: open.key.clone(),
            operation: open.operation.clone(),
            trace: None,
        };
        let trace = open.trace;
        self.gateway.schedule(deadline);
        self.ctx.send_in(trace, target, Message::Operation(attempt));
    }

    fn pause(&mut self, index: usize) {
        let Some(open) = self.gateway.sessions.get(index).and_then(|s| s.open.as_ref()) else { return };
        let pause = self.ctx.jitter(open.backoff);
        let wake_at = self.ctx.now + pause;
        if let Some(open) = self.gateway.sessions.get_mut(index).and_then(|s| s.open.as_mut()) {
            open.stage = Stage::Pausing;
            open.wake_at = wake_at;
            open.backoff = (open.backoff * 2).min(BACKOFF_MAX);
        }
        self.gateway.schedule(wake_at);
    }

    /// A home's answer.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_operation_reply(
        &mut self,
        from: NodeRef,
        session: SessionId,
        seq: u64,
        attempt: u32,
        home: Slot,
        extent: Extent,
        ballot: Option<Ballot>,
        known: u64,
        answer: Answer,
    ) {
        self.gateway.hints.learn_of(home, extent, from, ballot, known, &answer);
        let Some(index) = self.gateway.by_session.get(&session.0).copied() else { return };
        let Some(s) = self.gateway.sessions.get_mut(index).filter(|s| s.seq == seq) else { return };
        let Some(open) = s.open.as_mut() else { return };
        let is_current = open.attempt == attempt && matches!(open.stage, Stage::Asked { .. });
        let is_negative = !matches!(
            answer,
            Answer::Done { .. } | Answer::Value { .. } | Answer::Unknown | Answer::Forgotten
        );
        if is_negative && self.ctx.is_planted(Plant::OneNegativeIsDefinite) {
            open.outstanding.clear();
        }
        match answer {
            Answer::Done { version, result } => self.finish(index, Reply::Changed { version, value: result }),
            Answer::Nothing { version, value } => {
                open.outstanding.retain(|a| *a != attempt);
                if open.outstanding.is_empty() || open.operation.is_repeatable() {
                    self.finish(index, Reply::Changed { version, value });
                } else {
                    let waited = self.ctx.now.since(open.began);
                    self.finish(index, Reply::Failed(Failure::Unknown { waited }));
                }
            }
            Answer::Refused { refusal, version, value } => {
                // A refusal of one attempt says nothing of another that may have been executed.
                open.outstanding.retain(|a| *a != attempt);
                let is_certain = open.operation.is_repeatable() || refusal == Refusal::Applied;
                if open.outstanding.is_empty() || is_certain {
                    self.finish(index, Reply::Refused { refusal, version, value });
                } else {
                    let waited = self.ctx.now.since(open.began);
                    self.finish(index, Reply::Failed(Failure::Unknown { waited }));
                }
            }
            Answer::Value { version, value } => self.finish(index, Reply::Value { value, version }),
            Answer::NotHome { hint } => {
                open.outstanding.retain(|a| *a != attempt);
                if !is_current {
                    return;
                }
                // A reign that is named is worth a try at once, but not for ever.
                if hint.is_some_and(|(_, b)| b.is_some()) && open.attempt % 4 != 0 {
                    self.next_attempt(index);
                } else {
                    self.pause(index);
                }
            }
            Answer::Behind { .. } => {
                open.outstanding.retain(|a| *a != attempt);
                if is_current {
                    self.next_attempt(index);
                }
            }
            Answer::Busy | Answer::Full => {
                open.outstanding.retain(|a| *a != attempt);
                let is_definite = open.outstanding.is_empty() || open.operation.is_repeatable();
                if !is_current {
                    return;
                }
                if is_definite {
                    let f = if answer == Answer::Full { Failure::Full } else { Failure::Busy };
                    self.finish(index, Reply::Failed(f));
                } else {
                    self.pause(index);
                }
            }
            Answer::Locked => {
                open.outstanding.retain(|a| *a != attempt);
                if is_current {
                    self.on_locked(index);
                }
            }
            Answer::Unknown => {
                if is_current {
                    self.pause(index);
                }
            }
            Answer::Forgotten => {
                // No other home knows more, and none will later: there is nothing to wait for.
                if is_current {
                    let waited = self.ctx.now.since(open.began);
                    self.finish(index, Reply::Failed(Failure::Unknown { waited }));
                }
            }
        }
    }

    /// A transaction holds the key. Transactions are told at once; others wait on.
    fn on_locked(&mut self, index: usize) {
        let Some(open) = self.gateway.sessions.get(index).and_then(|s| s.open.as_ref()) else { return };
        let waited = self.ctx.now.since(open.began);
        let is_repeatable = open.operation.is_repeatable() && open.operation != Operation::Get;
        if !is_repeatable && waited < self.ctx.config.lock_patience {
            self.next_attempt(index);
            return;
        }
        let is_definite = open.outstanding.is_empty() || open.operation.is_repeatable();
        self.finish(
            index,
            if is_definite {
                Reply::Refused { refusal: Refusal::Locked, version: 0, value: None }
            } else {
                Reply::Failed(Failure::Unknown { waited })
            },
        );
    }

    /// The node has left and will not hear of its open operations any more: each gets its reply now.
    pub(crate) fn end_operations(&mut self) {
        for index in 0..self.gateway.sessions.len() {
            let Some(open) = self.gateway.sessions.get(index).and_then(|s| s.open.as_ref()) else { continue };
            let is_definite = open.outstanding.is_empty() || open.operation.is_read();
            let waited = self.ctx.now.since(open.began);
            let phase = self.phase;
            let f = if is_definite { Failure::NotReady { phase } } else { Failure::Unknown { waited } };
            self.finish(index, Reply::Failed(f));
        }
    }

    /// Wakes what waited long enough.
    pub(crate) fn scan_gateway(&mut self) {
        let now = self.ctx.now;
        if self.gateway.next_scan.is_none_or(|t| t > now) {
            return;
        }
        self.gateway.next_scan = None;
        for index in 0..self.gateway.sessions.len() {
            let deadline = self.ctx.config.operation_deadline;
            let Some(open) = self.gateway.sessions.get_mut(index).and_then(|s| s.open.as_mut()) else {
                continue;
            };
            let waited = now.since(open.began);
            let is_read = open.operation.is_read();
            if waited >= deadline {
                let is_denied = self.ctx.is_planted(Plant::UnknownIsNotDone);
                let f = if open.outstanding.is_empty() || is_read || is_denied {
                    Failure::Unavailable { waited }
                } else {
                    Failure::Unknown { waited }
                };
                self.finish(index, Reply::Failed(f));
                continue;
            }
            if open.wake_at <= now {
                match open.stage {
                    Stage::Reading { .. } => self.read_at_home(index),
                    Stage::Pausing | Stage::Asked { .. } => {
                        if let Stage::Asked { target } = open.stage {
                            self.gateway.hints.forget_node(target);
                        }
                        self.next_attempt(index);
                    }
                }
            }
        }
        let deadline = self.ctx.config.operation_deadline;
        let next = self
            .gateway
            .sessions
            .iter()
            .filter_map(|s| s.open.as_ref().map(|o| o.wake_at.min(o.began + deadline)))
            .min();
        if let Some(t) = next {
            self.gateway.schedule(t.max(now + Duration::from_micros(500)));
        }
    }

    /// A node is suspected: what was asked of it is asked of another at once.
    pub(crate) fn on_suspected(&mut self, id: NodeId) {
        self.ask_another(id, Duration::ZERO);
    }

    /// A node has left: it still says of what reaches it now that it did not do it, so that whatever is asked of
    /// another then is a first attempt again.
    pub(crate) fn on_left(&mut self, id: NodeId) {
        self.ask_another(id, LEFT_WAIT);
    }

    fn ask_another(&mut self, id: NodeId, wait: Duration) {
        self.gateway.hints.forget_node(id);
        let at = self.ctx.now + wait;
        for s in &mut self.gateway.sessions {
            if let Some(open) = s.open.as_mut()
                && matches!(open.stage, Stage::Asked { target } if target == id)
            {
                open.wake_at = open.wake_at.min(at);
            }
        }
        self.gateway.schedule(at);
    }
}
