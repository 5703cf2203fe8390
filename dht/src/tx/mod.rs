//! Transactions: the jobs of one node that lock, decide, apply, and finish what others left.
//!
//! The machines are leaves: [`commit`] coordinates one transaction, [`ledgers`] keeps the ledgers of this node's
//! coordinators, [`finish`] ends locks, [`watch`] resolves a foreign lock, [`takeover`] finishes the ledger of a
//! coordinator that is gone. Here they are given their answers, and what they want becomes operations of the
//! gateway, which end at the homes of the keys like a client's.
//!
//! Keeps:
//! 1. Every operation of a job is answered to that job once, or the job is over.
//! 2. A client's transaction gets one reply.
//!
//! Source: `docs/protocol.md`, section 8.

mod commit;
mod finish;
mod home;
mod ledgers;
pub mod log;
#[cfg(test)]
mod model;
pub mod report;
mod takeover;
mod watch;

pub(crate) use home::{Blocked, broken, is_in_the_way};
pub use log::{LogEntry, Step, TxLog};

use crate::api::{Failure, Reply, RequestId, Transact};
use crate::message::Operation;
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::trace::Trace;
use commit::{Act, Commit, Terms};
use core::time::Duration;
use finish::{Finish, Progress};
use ledgers::{LedgerAct, Ledgers};
use rand_core::RngCore;
use report::{Trail, TxReport};
use ring::Time;
use std::collections::{BTreeMap, VecDeque};
use store::{Key, Ledger, OpId, SessionId, Stamp, TxId};
use takeover::Takeover;
use watch::{Next, Watch};

/// The pause before what nobody answered is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// The first pause after a conflict; it grows with their number.
const CONFLICT_PAUSE: Duration = Duration::from_millis(2);
/// Salts tried for a ledger whose home is here.
const SALTS_MAX: u32 = 4096;
/// A coordinator that the member table does not know counts as gone after this.
const STRANGER_WAIT: Duration = Duration::from_secs(1);
/// An empty ledger of a live coordinator that stays as it is for so long is not in use.
const ORPHAN_WAIT: Duration = Duration::from_secs(30);
/// Reports that wait to be read; what comes after is not told.
const REPORTS_MAX: usize = 1024;

/// Which part of which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    job: u64,
    part: usize,
}

impl Ticket {
    /// Nobody waits for the answer.
    const NOBODY: Ticket = Ticket { job: 0, part: 0 };
}

/// A job of this node's transactions.
#[derive(Debug)]
enum Job {
    /// A client's transaction, and whom to reply to.
    Commit(Box<Commit>, Option<RequestId>),
    /// A transaction that begins anew after a pause.
    Again {
        asked: Transact,
        op: OpId,
        conflicts: u32,
        began: Time,
        request: RequestId,
        trail: Option<Box<Trail>>,
    },
    /// Locks to be ended; the own entry that is finished with it, and whether that is committed.
    Finish(Finish, Option<bool>),
    /// A foreign lock.
    Watch(Watch),
    /// The ledger of a coordinator that is gone.
    Takeover(Takeover),
    /// An own ledger.
    Ledger,
}

/// The transactions of one node.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    jobs: BTreeMap<u64, Job>,
    /// The traces of jobs that are part of one.
    traces: BTreeMap<u64, Trace>,
    /// The trace of one of the transactions whose decisions go out together.
    decides_in: Option<Trace>,
    last_job: u64,
    ledgers: Ledgers,
    last_ledger: u64,
    watches: BTreeMap<TxId, u64>,
    takeovers: BTreeMap<Key, u64>,
    /// Ledgers here that may have nobody, with the stamp at which they stand since when.
    strangers: BTreeMap<Key, (Stamp, Time)>,
    /// Answers for jobs.
    pub(crate) inbox: VecDeque<(Ticket, Reply)>,
    wakes: std::collections::BTreeSet<(Time, u64)>,
    last_read: u64,
    /// What this node's replicas show unfinished where it does not lead.
    unfinished: BTreeMap<Key, home::Unfinished>,
    /// Clients' transactions.
    open_count: usize,
    next_look: Time,
    reports: VecDeque<TxReport>,
}

impl Transactions {
    fn add(&mut self, job: Job) -> u64 {
        self.last_job += 1;
        self.jobs.insert(self.last_job, job);
        self.last_job
    }

    /// A job is over.
    fn remove(&mut self, job: u64) -> Option<Job> {
        self.traces.remove(&job);
        self.jobs.remove(&job)
    }

    /// A job is part of a trace.
    fn trace(&mut self, job: u64, trace: Option<Trace>) {
        if let Some(trace) = trace {
            self.traces.insert(job, trace);
        }
    }

    /// Whether nothing is under way, no ledger is open and no lock is watched.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.ledgers.is_empty()
    }

    /// What is under way, for a reader of a failed run.
    pub(crate) fn describe(&self) -> String {
        format!("{:?} {:?} {:?}", self.jobs, self.ledgers, self.wakes)
    }

    /// Clients' transactions under way.
    pub(crate) fn open_count(&self) -> usize {
        self.open_count
    }
}

impl DhtNode {
    /// A client's call of a transaction.
    pub(crate) fn begin_transaction(&mut self, id: RequestId, asked: Transact) {
        if !self.takes_requests() {
            let phase = self.phase;
            self.ctx.reply(id, Reply::Failed(Failure::NotReady { phase }));
            return;
        }
        if let Some(f) = self.check_transaction(&asked) {
            self.ctx.reply(id, Reply::Failed(f));
            return;
        }
        let op = asked.op.unwrap_or(OpId { session: SessionId(self.ctx.rng.next_u64()), seq: 1 });
        self.tx.open_count += 1;
        let (conflicts, now) = (asked.conflicts, self.ctx.now);
        let trail = self.ctx.config.tells_transactions.then(Box::default);
        self.begin_commit(asked, op, conflicts, now, id, trail);
    }

    /// What a transaction of a client went through, once it has its reply; there is something to read only where
    /// [`crate::Config::tells_transactions`] says so.
    pub fn poll_report(&mut self) -> Option<TxReport> {
        self.tx.reports.pop_front()
    }

    fn check_transaction(&self, asked: &Transact) -> Option<Failure> {
        let c = &self.ctx.config;
        for s in &asked.steps {
            if s.key.is_reserved() {
                return Some(Failure::KeyReserved);
            }
            if let Some(f) = self.check_limits(&s.key, s.change.as_ref()) {
                return Some(f);
            }
        }
        if asked.log.entries.keys().any(Key::is_reserved) {
            return Some(Failure::KeyReserved);
        }
        let unseen = asked.steps.iter().filter(|s| !asked.log.entries.contains_key(&s.key)).count();
        if asked.op.is_some() && unseen > 0 {
            return Some(Failure::KeyNotInLog);
        }
        let keys = asked.log.entries.len() + asked.log.missing(&asked.steps).len();
        if keys > c.transaction_keys_max {
            return Some(Failure::TooManyKeys { keys, keys_max: c.transaction_keys_max });
        }
        (self.tx.open_count >= c.transactions_max).then_some(Failure::Busy)
    }

    fn begin_commit(
        &mut self,
        asked: Transact,
        op: OpId,
        conflicts: u32,
        began: Time,
        request: RequestId,
        trail: Option<Box<Trail>>,
    ) {
        let c = &self.ctx.config;
        let terms = Terms {
            window: c.transaction_window,
            value_bytes_max: c.value_bytes_max,
            patience: c.transaction_patience,
            planted: self.ctx.planted(),
        };
        let commit = Box::new(Commit::new(asked, op, conflicts, began, terms, trail));
        let job = self.tx.add(Job::Commit(commit, Some(request)));
        self.tx.trace(job, self.ctx.trace);
        self.with_commit(job, |commit, _, out| commit.begin(out));
    }

    /// Lets a transaction do something, and then what it wants.
    fn with_commit(&mut self, job: u64, f: impl FnOnce(&mut Commit, Time, &mut Vec<Act>)) {
        let Some(Job::Commit(commit, _)) = self.tx.jobs.get_mut(&job) else { return };
        let mut acts = Vec::new();
        f(commit, self.ctx.now, &mut acts);
        commit.note_phase(self.ctx.now);
        for act in acts {
            self.act(job, act);
        }
    }

    fn act(&mut self, job: u64, act: Act) {
        match act {
            Act::Ask { part, key, operation } => self.ask(job, part, key, operation),
            Act::Open => {
                let mut out = Vec::new();
                let is_first = self.tx.ledgers.open(job, &mut out);
                self.act_on_ledgers(out);
                if is_first {
                    self.make_ledger();
                }
            }
            Act::Decide { tx, keys } => {
                let mut out = Vec::new();
                self.tx.decides_in = self.tx.traces.get(&job).copied().or(self.tx.decides_in);
                self.tx.ledgers.decide(job, tx, keys, &mut out);
                self.act_on_ledgers(out);
            }
            Act::Reply(reply) => {
                if let Some(Job::Commit(commit, request)) = self.tx.jobs.get_mut(&job)
                    && let Some(id) = request.take()
                {
                    if let Some(report) = commit.report(self.ctx.now, &reply)
                        && self.tx.reports.len() < REPORTS_MAX
                    {
                        self.tx.reports.push_back(report);
                    }
                    self.reply_transaction(id, reply);
                }
            }
            Act::Again => self.begin_again(job),
            Act::Pause => self.wake_job(self.ctx.now + PAUSE, job),
            Act::Settle { tx, keys, is_committed } => {
                if is_committed && self.ctx.is_planted(Plant::DoneBeforeApplied) {
                    self.tx.ledgers.finished(&tx, true, self.ctx.now);
                }
                let finish = Finish::new(tx, keys, self.ctx.config.transaction_window);
                let ends = self.tx.add(Job::Finish(finish, Some(is_committed)));
                self.tx.trace(ends, self.tx.traces.get(&job).copied());
                self.go_on_finishing(ends);
            }
            Act::End => {
                self.tx.remove(job);
            }
        }
    }

    fn reply_transaction(&mut self, id: RequestId, reply: Reply) {
        self.tx.open_count -= 1;
        self.has_acknowledged = true;
        self.ctx.reply(id, reply);
    }

    fn begin_again(&mut self, job: u64) {
        let Some(Job::Commit(commit, request)) = self.tx.jobs.get_mut(&job) else { return };
        let Some(request) = request.take() else { return };
        let (asked, op, began) = (commit.asked.clone(), commit.op(), commit.began);
        let conflicts = commit.conflicts.saturating_add(1);
        let trail = commit.take_trail(self.ctx.now);
        let pause = self.ctx.jitter(CONFLICT_PAUSE * conflicts.min(16));
        let again = self.tx.add(Job::Again { asked, op, conflicts, began, request, trail });
        self.tx.trace(again, self.tx.traces.get(&job).copied());
        self.wake_job(self.ctx.now + pause, again);
    }

    fn ask(&mut self, job: u64, part: usize, key: Key, operation: Operation) {
        let before = core::mem::replace(&mut self.ctx.trace, self.tx.traces.get(&job).copied());
        self.begin_job_operation(Ticket { job, part }, key, operation, false);
        self.ctx.trace = before;
    }

    fn wake_job(&mut self, at: Time, job: u64) {
        self.tx.wakes.insert((at, job));
    }

    /// A key of which this node is home, so that decisions take one round trip; if there is none, any.
    fn make_ledger(&mut self) {
        self.tx.last_ledger += 1;
        let (me, number) = (self.ctx.me.id, self.tx.last_ledger);
        let mut key = Ledger::key(me, number, 0);
        for salt in 0..SALTS_MAX {
            let k = Ledger::key(me, number, salt);
            let (home, offset) = self.ctx.space.locate(k.as_bytes());
            if self.likely_home(home, offset).is_some_and(|n| n.id == me) {
                key = k;
                break;
            }
        }
        let job = self.tx.add(Job::Ledger);
        let mut out = Vec::new();
        self.tx.ledgers.create(job, key, self.ctx.now, &mut out);
        self.act_on_ledgers(out);
    }

    fn act_on_ledgers(&mut self, acts: Vec<LedgerAct>) {
        for act in acts {
            match act {
                LedgerAct::Ask { job, key, operation, is_once } => {
                    self.begin_job_operation(Ticket { job, part: 0 }, key, operation, is_once);
                }
                LedgerAct::Opened(job, tx) => {
                    if matches!(self.tx.jobs.get(&job), Some(Job::Commit(..))) {
                        self.with_commit(job, |c, now, out| c.on_opened(now, tx, out));
                    } else if let Some(tx) = tx {
                        // The transaction went meanwhile; its number is free.
                        self.tx.ledgers.finished(&tx, false, self.ctx.now);
                    }
                }
                LedgerAct::Decided(job, decided) => {
                    self.with_commit(job, |c, now, out| c.on_decided(now, decided, out));
                }
                LedgerAct::Over(job) => {
                    self.tx.remove(job);
                }
            }
        }
    }

    fn go_on_finishing(&mut self, job: u64) {
        let Some(Job::Finish(finish, _)) = self.tx.jobs.get_mut(&job) else { return };
        let asks = finish.ask();
        let progress = finish.progress();
        for (part, key, operation) in asks {
            self.ask(job, part, key, operation);
        }
        match progress {
            Progress::Waits => {}
            Progress::Pauses => self.wake_job(self.ctx.now + PAUSE, job),
            Progress::Over => {
                if let Some(Job::Finish(finish, own)) = self.tx.remove(job) {
                    match own {
                        Some(is_committed) => {
                            self.tx.ledgers.finished(&finish.tx, is_committed, self.ctx.now);
                        }
                        None => {
                            self.tx.watches.remove(&finish.tx);
                        }
                    }
                }
            }
        }
    }

    /// Gives jobs their answers.
    pub(crate) fn on_job_answer(&mut self, ticket: Ticket, reply: Reply) {
        let (job, part, now) = (ticket.job, ticket.part, self.ctx.now);
        match self.tx.jobs.get_mut(&job) {
            None | Some(Job::Again { .. }) => {}
            Some(Job::Commit(..)) => self.with_commit(job, |c, now, out| c.on_answer(now, part, reply, out)),
            Some(Job::Finish(finish, _)) => {
                finish.on_answer(part, &reply);
                if finish.progress() == Progress::Pauses {
                    self.wake_job(now + PAUSE, job);
                } else {
                    self.go_on_finishing(job);
                }
            }
            Some(Job::Watch(watch)) => {
                let mut next = watch.on_answer(now, &reply);
                let is_absent = matches!(reply, Reply::Value { value: None, .. });
                if let Next::End(keys) = &mut next
                    && (self.ctx.is_planted(Plant::ApplyUnlisted)
                        || is_absent && self.ctx.is_planted(Plant::AbsentIsCommitted))
                {
                    keys.iter_mut().for_each(|k| k.2 = true);
                }
                self.do_next(job, next);
            }
            Some(Job::Takeover(takeover)) => {
                let step = takeover.on_answer(part, &reply);
                self.take_over(job, step);
            }
            Some(Job::Ledger) => {
                let mut out = Vec::new();
                let is_another_wanted = self.tx.ledgers.on_answer(job, now, &reply, &mut out);
                self.act_on_ledgers(out);
                if is_another_wanted {
                    self.make_ledger();
                }
            }
        }
    }

    fn take_over(&mut self, job: u64, step: takeover::Step) {
        match step {
            takeover::Step::Ask(asks) => {
                for (part, key, operation) in asks {
                    self.ask(job, part, key, operation);
                }
            }
            takeover::Step::Pause => self.wake_job(self.ctx.now + PAUSE, job),
            takeover::Step::Over => {
                if let Some(Job::Takeover(t)) = self.tx.remove(job) {
                    self.tx.takeovers.remove(&t.key);
                }
            }
        }
    }

    /// Decisions that came together go out together; called when a batch of inputs is through.
    pub(crate) fn flush_transactions(&mut self) {
        let mut out = Vec::new();
        self.tx.ledgers.flush(self.ctx.now, self.ctx.config.ledger_idle_max, &mut out);
        self.ctx.trace = self.tx.decides_in.take();
        self.act_on_ledgers(out);
        self.ctx.trace = None;
    }

    /// When [`DhtNode::scan_transactions`] has something to do.
    pub(crate) fn next_transaction_timeout(&self) -> Option<Time> {
        let wake = self.tx.wakes.first().map(|w| w.0);
        let ledger = self.tx.ledgers.next_timeout(self.ctx.config.ledger_idle_max);
        wake.into_iter().chain(ledger).min()
    }

    /// Wakes jobs that paused.
    pub(crate) fn scan_transactions(&mut self) {
        let now = self.ctx.now;
        while let Some((at, job)) = self.tx.wakes.first().copied() {
            if at > now {
                break;
            }
            self.tx.wakes.pop_first();
            match self.tx.jobs.get_mut(&job) {
                None | Some(Job::Ledger) => {}
                Some(Job::Commit(..)) => self.with_commit(job, |c, _, out| c.resume(out)),
                Some(Job::Again { .. }) => {
                    let trace = self.tx.traces.get(&job).copied();
                    if let Some(Job::Again { asked, op, conflicts, began, request, trail }) =
                        self.tx.remove(job)
                    {
                        self.ctx.trace = trace;
                        self.begin_commit(asked, op, conflicts, began, request, trail);
                        self.ctx.trace = None;
                    }
                }
                Some(Job::Finish(..)) => self.go_on_finishing(job),
                Some(Job::Watch(_)) => self.look_at_watch(job),
                Some(Job::Takeover(t)) => {
                    let step = t.ask();
                    self.take_over(job, step);
                }
            }
        }
    }

    fn look_at_watch(&mut self, job: u64) {
        let Some(Job::Watch(watch)) = self.tx.jobs.get(&job) else { return };
        let is_there = watch.keys.iter().any(|(k, v)| self.holds_lock(k, &watch.tx, *v));
        let is_live = self.is_coordinator_live(&watch.tx.ledger);
        let (now, age_max) = (self.ctx.now, self.ctx.config.lock_age_max);
        let Some(Job::Watch(watch)) = self.tx.jobs.get_mut(&job) else { return };
        let next = if is_there || !watch.is_idle() {
            watch.on_time(now, is_live, age_max)
        } else {
            Next::End(Vec::new())
        };
        self.do_next(job, next);
    }

    fn is_coordinator_live(&self, ledger: &Key) -> bool {
        Ledger::coordinator(ledger).is_some_and(|id| self.ctx.is_live(id))
    }

    fn do_next(&mut self, job: u64, next: Next) {
        let Some(Job::Watch(watch)) = self.tx.jobs.get_mut(&job) else { return };
        let tx = watch.tx.clone();
        match next {
            Next::Wait => {
                let at = watch.wake_at;
                if watch.is_idle() {
                    self.wake_job(at, job);
                }
            }
            Next::Read => {
                self.tx.last_read += 1;
                watch.reads(self.tx.last_read);
                self.ask(job, 0, tx.ledger, Operation::Inspect { waits: false });
            }
            Next::Abort if self.ctx.is_planted(Plant::PendingReleased) => {
                let ends = watch.keys.iter().map(|(k, v)| (k.clone(), *v, false)).collect();
                self.do_next(job, Next::End(ends));
            }
            Next::Abort => {
                let abort = store::LedgerChange::Abort(tx.entry);
                let operation = Operation::Tx(Box::new(store::TxChange::Ledger(abort)));
                self.ask(job, 0, tx.ledger, operation);
            }
            Next::Pending(number) => {
                let at = watch.wake_at;
                let keys: Vec<Key> = watch.keys.keys().cloned().collect();
                self.wake_job(at, job);
                self.release_readers_of_pending(&tx, &keys, number);
            }
            Next::End(keys) => {
                let finish = Finish::new(tx, keys, self.ctx.config.transaction_window);
                self.tx.jobs.insert(job, Job::Finish(finish, None));
                self.go_on_finishing(job);
            }
        }
    }

    /// A foreign lock was met at its key's home.
    pub(crate) fn meet_lock(&mut self, key: &Key, tx: &TxId, version: u64, look_at: Time) {
        let now = self.ctx.now;
        let job = match self.tx.watches.get(tx) {
            Some(job) => *job,
            None => {
                let job = self.tx.add(Job::Watch(Watch::new(tx.clone(), now, look_at)));
                self.tx.watches.insert(tx.clone(), job);
                job
            }
        };
        if let Some(Job::Watch(watch)) = self.tx.jobs.get_mut(&job) {
            watch.meet(key.clone(), version, look_at);
            let at = watch.wake_at;
            if watch.is_idle() {
                self.wake_job(at, job);
            }
        }
    }

    /// A ledger was met at its home: if nobody else will, it is finished here.
    pub(crate) fn meet_ledger(&mut self, key: &Key, stamp: Stamp, ledger: Option<&Ledger>) {
        let Some(coordinator) = Ledger::coordinator(key) else { return };
        let (now, is_live) = (self.ctx.now, self.ctx.is_live(coordinator));
        let is_known = self.ctx.members.get(coordinator).is_some();
        let is_closed = ledger.is_some_and(|l| l.is_closed);
        if self.tx.takeovers.contains_key(key) || self.tx.ledgers.knows(key) {
            self.tx.strangers.remove(key);
            return;
        }
        // A coordinator closes what it does not use; an empty ledger that stays is one whose creation it did not
        // hear of.
        let is_empty = ledger.is_some_and(|l| l.entries.is_empty());
        let wait = match (is_closed, is_live, is_known) {
            (true, _, _) | (false, false, true) => Duration::ZERO,
            (false, false, false) => STRANGER_WAIT,
            (false, true, _) if is_empty => ORPHAN_WAIT,
            (false, true, _) => {
                self.tx.strangers.remove(key);
                return;
            }
        };
        let since = self.tx.strangers.entry(key.clone()).or_insert((stamp, now));
        if since.0 != stamp {
            *since = (stamp, now);
        }
        if now.since(since.1) < wait {
            return;
        }
        self.tx.strangers.remove(key);
        let mut takeover = Takeover::new(
            key.clone(),
            self.ctx.config.transaction_window,
            self.ctx.is_planted(Plant::ClosedUnapplied),
        );
        let step = takeover.ask();
        let job = self.tx.add(Job::Takeover(takeover));
        self.tx.takeovers.insert(key.clone(), job);
        self.take_over(job, step);
    }

    /// The node has left: what is open gets its reply now, the rest is for others.
    pub(crate) fn end_transactions(&mut self) {
        self.tx.inbox.clear();
        let now = self.ctx.now;
        for job in std::mem::take(&mut self.tx.jobs).into_values() {
            let (request, is_sure, began) = match job {
                Job::Commit(c, Some(request)) => (request, !c.may_be_decided(), c.began),
                Job::Again { request, began, .. } => (request, true, began),
                Job::Commit(_, None) | Job::Finish(..) | Job::Watch(_) | Job::Takeover(_) | Job::Ledger => {
                    continue;
                }
            };
            let phase = self.phase;
            let waited = now.since(began);
            let f = if is_sure { Failure::NotReady { phase } } else { Failure::Unknown { waited } };
            self.reply_transaction(request, Reply::Failed(f));
        }
        self.tx.ledgers = Ledgers::default();
        self.tx.traces.clear();
        self.tx.watches.clear();
        self.tx.takeovers.clear();
        self.tx.wakes.clear();
    }
}
