//! The steps of the model: which are possible, and what they do.

use super::super::commit::Act;
use super::super::finish::Progress;
use super::super::home::{fails_at_once, is_in_the_way, takes_old_value};
use super::super::ledgers::LedgerAct;
use super::super::takeover;
use super::super::watch::Next;
use super::*;
use crate::api::{Failure, Reply};
use crate::homes::decide::read_of;
use crate::message::Answer;
use stateright::{Model, Property};
use store::{LedgerChange, Refusal, TxChange};

/// That the search gets there at all.
pub(super) const ALL_COMMIT: &str = "all commit";

impl Model for Scope {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, w: &World, out: &mut Vec<Action>) {
        for (i, c) in w.clients.iter().enumerate() {
            let is_up = w.nodes[usize::from(c.node)].is_up;
            if !c.is_running && is_up && c.begun < self.clients[i].1.len() {
                out.push(Action::Begin(i));
            }
            if c.is_running && !is_up && c.asked == 1 {
                out.push(Action::AskAgain(i));
            }
        }
        for (id, call) in &w.calls {
            self.actions_of_call(w, *id, call, out);
        }
        for (k, r) in &w.registers {
            if r.record.lock().is_some() && !w.nodes[usize::from(HOMES)].jobs.contains_key(&watch_job(k)) {
                out.push(Action::Meet(k.clone()));
            }
            if k.is_reserved() && can_take_over(w, k, &r.record) {
                out.push(Action::TakeOver(k.clone()));
            }
        }
        for (i, n) in (0u8..).zip(&w.nodes).filter(|(_, n)| n.is_up) {
            out.extend(n.paused.iter().map(|job| Action::Resume(i, *job)));
            // A transaction is faster than the times after which a ledger does something by itself.
            let mut acts = Vec::new();
            if !n.jobs.values().any(|j| matches!(j, Job::Commit(..))) {
                n.ledgers.clone().flush(LATE, AGE, &mut acts);
            }
            if !acts.is_empty() {
                out.push(Action::Wait(i));
            }
        }
        if w.may_crash && w.nodes[0].is_up && !w.nodes[0].jobs.is_empty() {
            out.push(Action::Crash);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut w = last.clone();
        self.act(&mut w, action);
        w.press();
        Some(w)
    }

    fn properties(&self) -> Vec<Property<Scope>> {
        vec![
            Property::always("there is a serial order", |s: &Scope, w: &World| {
                history::is_serial(&w.txns, &s.contents(), None)
            }),
            Property::always("nothing is left, and what is there has an order", |s: &Scope, w: &World| {
                // What nobody waits for may be executed at any time, or never.
                let is_late = |a: &Action| matches!(a, Action::Execute(id) if w.calls.get(id).is_some_and(|c| !c.is_awaited));
                let mut actions = Vec::new();
                s.actions(w, &mut actions);
                !actions.iter().all(is_late)
                    || w.is_clean() && history::is_serial(&w.txns, &s.contents(), Some(&w.contents()))
            }),
            Property::sometimes(ALL_COMMIT, |_: &Scope, w: &World| {
                w.txns.iter().all(|t| t.stand == Stand::Committed)
            }),
        ]
    }
}

fn watch_job(k: &Key) -> u64 {
    30 + u64::from(k.as_bytes().first() == Some(&b'y'))
}

/// Whether a ledger is finished by others: its coordinator has closed it, or does not know of it and it stays empty, or
/// is gone.
fn is_left_behind(w: &World, k: &Key, ledger: &Ledger) -> bool {
    let is_orphan = ledger.entries.is_empty() && !w.nodes.iter().any(|n| n.ledgers.knows(k));
    ledger.is_closed || is_orphan || !w.is_coordinator_up(k)
}

/// A coordinator may be taken for gone.
fn can_take_over(w: &World, k: &Key, record: &Record) -> bool {
    let Some(ledger) = record.value.as_ref().and_then(Ledger::decode) else { return false };
    let is_free = !w.nodes[usize::from(HOMES)].jobs.contains_key(&takeover_job(k));
    is_free && (w.faults > 0 || is_left_behind(w, k, &ledger))
}

fn takeover_job(k: &Key) -> u64 {
    40 + k.as_bytes().iter().map(|b| u64::from(*b)).sum::<u64>() % 40
}

impl Scope {
    fn actions_of_call(&self, w: &World, id: CallId, call: &Call, out: &mut Vec<Action>) {
        let register = w.register(&call.key);
        if call.is_awaited && w.faults > 0 && id.0 != HOMES {
            out.push(Action::Lose(id));
        }
        let lock = register.record.lock().filter(|l| is_in_the_way(l, &call.operation));
        if let Some(lock) = lock
            && matches!(self.decide(&register, id, call), Decision::Blocked)
        {
            let is_free = !lock.validates || self.planted == Some(Plant::PendingAlwaysOld);
            if fails_at_once(&call.operation, lock) {
                out.push(Action::GiveUp(id));
            } else if takes_old_value(&call.operation) && is_free {
                let is_told = call.is_pending_seen || self.planted == Some(Plant::PendingStaleWord);
                let is_pending = w.verdict(&register.record) == Some(Verdict::Pending);
                if is_told {
                    out.push(Action::TakeOldValue(id));
                } else if is_pending {
                    out.push(Action::Look(id));
                }
            } else if call.operation.is_repeatable() && call.operation != Operation::Get {
                out.push(Action::GiveUp(id));
            }
            return;
        }
        out.push(Action::Execute(id));
        let is_change = !call.operation.is_read();
        if is_change && call.operation.is_repeatable() && call.is_awaited && w.faults > 0 {
            out.push(Action::ExecuteTwice(id));
        }
    }

    fn act(&self, w: &mut World, action: Action) {
        match action {
            Action::Begin(client) => self.begin(w, client),
            Action::AskAgain(client) => self.commit_log(w, client),
            Action::Execute(id) => self.execute(w, id, false),
            Action::ExecuteTwice(id) => self.execute(w, id, true),
            Action::Lose(id) => {
                w.faults -= 1;
                let Some(call) = w.calls.get_mut(&id) else { return };
                call.is_awaited = false;
                let waited = Duration::ZERO;
                let f = if call.operation.is_read() {
                    Failure::Unavailable { waited }
                } else {
                    Failure::Unknown { waited }
                };
                self.answer(w, id, Reply::Failed(f));
            }
            Action::Look(id) => {
                if let Some(c) = w.calls.get_mut(&id) {
                    c.is_pending_seen = true;
                }
            }
            Action::TakeOldValue(id) => {
                let Some(call) = w.calls.remove(&id).map(|c| (*c).clone()) else { return };
                let answer = read_of(&w.register(&call.key).record, &call.operation);
                self.answer_if_awaited(w, id, &call, reply(answer));
            }
            Action::GiveUp(id) => {
                let Some(call) = w.calls.remove(&id).map(|c| (*c).clone()) else { return };
                let locked = Reply::Refused { refusal: Refusal::Locked, version: 0, value: None };
                self.answer_if_awaited(w, id, &call, locked);
            }
            Action::Meet(k) => self.meet(w, &k),
            Action::TakeOver(k) => self.begin_takeover(w, &k),
            Action::Resume(node, job) => {
                w.nodes[usize::from(node)].paused.remove(&job);
                self.resume(w, node, job);
            }
            Action::Wait(node) => {
                let mut acts = Vec::new();
                w.nodes[usize::from(node)].ledgers.flush(LATE, AGE, &mut acts);
                self.on_ledger_acts(w, node, acts);
            }
            Action::Crash => {
                w.may_crash = false;
                let n = &mut w.nodes[0];
                (n.is_up, n.ledgers) = (false, Ledgers::default());
                n.jobs.clear();
                n.paused.clear();
                w.calls.iter_mut().filter(|(id, _)| id.0 == 0).for_each(|(_, c)| c.is_awaited = false);
            }
        }
    }

    pub(super) fn with_commit(
        &self,
        w: &mut World,
        node: u8,
        job: u64,
        f: impl FnOnce(&mut Commit, &mut Vec<Act>),
    ) {
        let Some(Job::Commit(commit, _)) = w.nodes[usize::from(node)].jobs.get_mut(&job) else { return };
        let mut acts = Vec::new();
        f(commit, &mut acts);
        for act in acts {
            self.on_act(w, node, job, act);
        }
    }

    fn on_act(&self, w: &mut World, node: u8, job: u64, act: Act) {
        let n = &mut w.nodes[usize::from(node)];
        let mut out = Vec::new();
        match act {
            Act::Ask { part, key, operation } => ask(w, node, Ticket { job, part }, key, operation),
            Act::Open => {
                let is_first = n.ledgers.open(job, &mut out);
                self.on_ledger_acts(w, node, out);
                if is_first {
                    self.make_ledger(w, node);
                }
            }
            Act::Decide { tx, keys } => {
                n.ledgers.decide(job, tx, keys, &mut out);
                self.on_ledger_acts(w, node, out);
            }
            Act::Reply(reply) => {
                if let Some(Job::Commit(_, client)) = n.jobs.get_mut(&job)
                    && let Some(client) = client.take()
                {
                    self.on_reply(w, client, reply);
                }
            }
            Act::Again => {
                let Some(Job::Commit(c, client)) = n.jobs.get_mut(&job) else { return };
                let Some(client) = client.take() else { return };
                let conflicts = c.conflicts + 1;
                let commit =
                    Commit::new(c.asked.clone(), c.op(), conflicts, START, self.terms(conflicts), None);
                self.add_commit(w, node, commit, client);
            }
            Act::Pause => drop(n.paused.insert(job)),
            Act::Settle { tx, keys, is_committed } => {
                if is_committed && self.planted == Some(Plant::DoneBeforeApplied) {
                    n.ledgers.finished(&tx, true, START);
                }
                let finish = Finish::new(tx, keys, 8);
                let job = free_job(w, node, 20);
                w.nodes[usize::from(node)].jobs.insert(job, Job::Finish(finish, Some(is_committed)));
                self.go_on_finishing(w, node, job);
            }
            Act::End => drop(n.jobs.remove(&job)),
        }
    }

    fn make_ledger(&self, w: &mut World, node: u8) {
        let n = &mut w.nodes[usize::from(node)];
        n.last_ledger += 1;
        let key = Ledger::key(coordinator(usize::from(node)), n.last_ledger, 0);
        let job = 10 + n.last_ledger;
        n.jobs.insert(job, Job::Ledger);
        let mut out = Vec::new();
        n.ledgers.create(job, key, START, &mut out);
        self.on_ledger_acts(w, node, out);
    }

    fn on_ledger_acts(&self, w: &mut World, node: u8, acts: Vec<LedgerAct>) {
        for act in acts {
            match act {
                LedgerAct::Ask { job, key, operation, is_once: _ } => {
                    ask(w, node, Ticket { job, part: 0 }, key, operation);
                }
                LedgerAct::Opened(job, tx) => {
                    let n = &mut w.nodes[usize::from(node)];
                    if matches!(n.jobs.get(&job), Some(Job::Commit(..))) {
                        self.with_commit(w, node, job, |c, out| c.on_opened(START, tx, out));
                    } else if let Some(tx) = tx {
                        n.ledgers.finished(&tx, false, START);
                    }
                }
                LedgerAct::Decided(job, decided) => {
                    self.with_commit(w, node, job, |c, out| c.on_decided(decided, out));
                }
                LedgerAct::Over(job) => drop(w.nodes[usize::from(node)].jobs.remove(&job)),
            }
        }
    }

    fn go_on_finishing(&self, w: &mut World, node: u8, job: u64) {
        let n = &mut w.nodes[usize::from(node)];
        let Some(Job::Finish(finish, own)) = n.jobs.get_mut(&job) else { return };
        let (asks, progress, own) = (finish.ask(), finish.progress(), *own);
        let tx = finish.tx.clone();
        for (part, key, operation) in asks {
            ask(w, node, Ticket { job, part }, key, operation);
        }
        let n = &mut w.nodes[usize::from(node)];
        match progress {
            Progress::Waits => {}
            Progress::Pauses => drop(n.paused.insert(job)),
            Progress::Over => {
                n.jobs.remove(&job);
                if let Some(is_committed) = own {
                    n.ledgers.finished(&tx, is_committed, START);
                }
            }
        }
    }

    fn execute(&self, w: &mut World, id: CallId, is_twice: bool) {
        let Some(call) = w.calls.get(&id).map(|c| (**c).clone()) else { return };
        if is_twice {
            w.faults -= 1;
            if let Some(c) = w.calls.get_mut(&id) {
                c.is_awaited = false;
            }
        } else {
            w.calls.remove(&id);
        }
        let mut register = w.register(&call.key);
        let answer = match self.decide(&register, id, &call) {
            Decision::Now(answer) | Decision::Confirmed(answer, _) => answer,
            Decision::Blocked => return,
            Decision::Write(written) => {
                register.n += 1;
                register.record = written.record;
                // All replicas have a tombstone sooner or later; of a ledger nobody asks when.
                if register.record.is_gone() && call.key.is_reserved() {
                    register.record = Record::absent(register.n);
                }
                w.registers.insert(call.key.clone(), Part::new(register));
                Answer::Done { version: written.version, result: written.result }
            }
        };
        self.answer_if_awaited(w, id, &call, reply(answer));
    }

    fn answer_if_awaited(&self, w: &mut World, id: CallId, call: &Call, reply: Reply) {
        if call.is_awaited {
            self.answer(w, id, reply);
        }
    }

    fn answer(&self, w: &mut World, (node, job, part, _): CallId, reply: Reply) {
        let n = &mut w.nodes[usize::from(node)];
        match n.jobs.get_mut(&job) {
            None => {}
            Some(Job::Plain(client)) => {
                let client = *client;
                n.jobs.remove(&job);
                self.on_reply(w, client, reply);
            }
            Some(Job::Commit(..)) => {
                self.with_commit(w, node, job, |c, out| c.on_answer(START, part, reply, out));
            }
            Some(Job::Finish(finish, _)) => {
                finish.on_answer(part, &reply);
                if finish.progress() == Progress::Pauses {
                    n.paused.insert(job);
                } else {
                    self.go_on_finishing(w, node, job);
                }
            }
            Some(Job::Watch(watch)) => {
                let mut next = watch.on_answer(START, &reply);
                let is_absent = matches!(reply, Reply::Value { value: None, .. });
                if let Next::End(keys) = &mut next
                    && (self.planted == Some(Plant::ApplyUnlisted)
                        || is_absent && self.planted == Some(Plant::AbsentIsCommitted))
                {
                    keys.iter_mut().for_each(|k| k.2 = true);
                }
                self.on_watch(w, job, next);
            }
            Some(Job::Takeover(t)) => {
                let step = t.on_answer(part, &reply);
                self.on_takeover(w, job, step);
            }
            Some(Job::Ledger) => {
                let mut out = Vec::new();
                let is_another_wanted = n.ledgers.on_answer(job, START, &reply, &mut out);
                self.on_ledger_acts(w, node, out);
                if is_another_wanted {
                    self.make_ledger(w, node);
                }
            }
        }
        let mut out = Vec::new();
        w.nodes[usize::from(node)].ledgers.flush(START, AGE, &mut out);
        self.on_ledger_acts(w, node, out);
    }

    fn resume(&self, w: &mut World, node: u8, job: u64) {
        let n = &mut w.nodes[usize::from(node)];
        match n.jobs.get_mut(&job) {
            Some(Job::Commit(..)) => self.with_commit(w, node, job, |c, out| c.resume(out)),
            Some(Job::Finish(..)) => self.go_on_finishing(w, node, job),
            Some(Job::Takeover(t)) => {
                let step = t.ask();
                self.on_takeover(w, job, step);
            }
            Some(Job::Ledger | Job::Watch(_) | Job::Plain(_)) | None => {}
        }
    }

    /// A lock is met at its key's home. One whose transaction is pending is taken to be old; before that, looking at
    /// it changes nothing.
    fn meet(&self, w: &mut World, k: &Key) {
        let record = w.register(k).record;
        let Some(lock) = record.lock() else { return };
        let mut watch = Watch::new(lock.tx.clone(), START, START);
        watch.meet(k.clone(), lock.version, START);
        let now = if w.verdict(&record) == Some(Verdict::Pending) { LATE } else { START };
        let next = watch.on_time(now, true, AGE);
        let job = watch_job(k);
        w.nodes[usize::from(HOMES)].jobs.insert(job, Job::Watch(watch));
        self.on_watch(w, job, next);
    }

    fn on_watch(&self, w: &mut World, job: u64, next: Next) {
        let Some(Job::Watch(watch)) = w.nodes[usize::from(HOMES)].jobs.get_mut(&job) else { return };
        let tx = watch.tx.clone();
        let ticket = Ticket { job, part: 0 };
        match next {
            Next::Read => {
                watch.reads(1);
                ask(w, HOMES, ticket, tx.ledger, Operation::Inspect { waits: false });
            }
            Next::Abort if self.planted == Some(Plant::PendingReleased) => {
                let ends = watch.keys.iter().map(|(k, v)| (k.clone(), *v, false)).collect();
                self.on_watch(w, job, Next::End(ends));
            }
            Next::Abort => {
                let abort = TxChange::Ledger(LedgerChange::Abort(tx.entry));
                ask(w, HOMES, ticket, tx.ledger, Operation::Tx(Box::new(abort)));
            }
            // It is met again.
            Next::Wait | Next::Pending(_) => drop(w.nodes[usize::from(HOMES)].jobs.remove(&job)),
            Next::End(keys) => {
                let finish = Job::Finish(Finish::new(tx, keys, 8), None);
                w.nodes[usize::from(HOMES)].jobs.insert(job, finish);
                self.go_on_finishing(w, HOMES, job);
            }
        }
    }

    fn begin_takeover(&self, w: &mut World, k: &Key) {
        let ledger = w.register(k).record.value.as_ref().and_then(Ledger::decode);
        if ledger.is_some_and(|l| !is_left_behind(w, k, &l)) {
            w.faults -= 1;
        }
        let mut takeover = Takeover::new(k.clone(), 8, self.planted == Some(Plant::ClosedUnapplied));
        let step = takeover.ask();
        let job = takeover_job(k);
        w.nodes[usize::from(HOMES)].jobs.insert(job, Job::Takeover(takeover));
        self.on_takeover(w, job, step);
    }

    fn on_takeover(&self, w: &mut World, job: u64, step: takeover::Step) {
        let homes = &mut w.nodes[usize::from(HOMES)];
        match step {
            takeover::Step::Ask(asks) => {
                for (part, key, operation) in asks {
                    ask(w, HOMES, Ticket { job, part }, key, operation);
                }
            }
            takeover::Step::Pause => drop(homes.paused.insert(job)),
            takeover::Step::Over => drop(homes.jobs.remove(&job)),
        }
    }
}

pub(super) fn free_job(w: &World, node: u8, first: u64) -> u64 {
    let jobs = &w.nodes[usize::from(node)].jobs;
    (first..).find(|j| !jobs.contains_key(j)).unwrap_or(first)
}

pub(super) fn ask(w: &mut World, node: u8, ticket: Ticket, key: Key, operation: Operation) {
    let number = (0..).find(|n| !w.calls.contains_key(&(node, ticket.job, ticket.part, *n))).unwrap_or(0);
    let call = Call { key, operation, is_awaited: true, is_pending_seen: false };
    w.calls.insert((node, ticket.job, ticket.part, number), Part::new(call));
}

/// What the gateway makes of a home's answer.
fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Done { version, result } => Reply::Changed { version, value: result },
        Answer::Nothing { version, value } => Reply::Changed { version, value },
        Answer::Refused { refusal, version, value } => Reply::Refused { refusal, version, value },
        Answer::Value { version, value } => Reply::Value { value, version },
        Answer::NotHome { .. }
        | Answer::Behind { .. }
        | Answer::Busy
        | Answer::Full
        | Answer::Locked
        | Answer::Unknown
        | Answer::Forgotten => Reply::Failed(Failure::Busy),
    }
}
