//! The ledgers of this node's own coordinators: which is open, what is to be written into it, when it goes.
//!
//! One change of a ledger is under way at a time; what is decided meanwhile goes into the next one together.
//!
//! Keeps:
//! 1. A ledger is created once, and used only after that is known to have succeeded.
//! 2. The low mark never passes a number that is in use.
//! 3. A number is done only after everything of it is applied.
//! 4. What is not open any more is closed, also if its creation is in doubt.
//!
//! Source: `docs/protocol.md`, section 8.

use crate::api::{Failure, Reply};
use crate::message::Operation;
use crate::tx::commit::Decided;
use core::time::Duration;
use ring::Time;
use std::collections::{BTreeMap, BTreeSet};
use store::ledger::refused_numbers;
use store::{Key, LedgerChange, Refusal, TxChange, TxId};

/// A ledger is followed by a new one when so many numbers have been given out.
const NUMBERS_MAX: u64 = 4096;
/// Or when its open decisions name so many keys.
const KEYS_MAX: usize = 4096;
/// Numbers that are done are told with the next decision, or after this.
const DONE_WAIT: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Creating,
    Open,
    /// No new numbers; closes when the last one in use is finished.
    Retired,
    Closing,
}

/// A decision to be written: transaction, number, keys.
type Decision = (u64, u64, Vec<(Key, u64)>);
/// Decisions being written (transaction, number), and numbers told done with them.
type InFlight = (Vec<(u64, u64)>, Vec<u64>);

#[derive(Clone, Debug)]
struct Own {
    key: Key,
    state: State,
    next: u64,
    /// Numbers in use.
    used: BTreeSet<u64>,
    queue: Vec<Decision>,
    done: Vec<u64>,
    done_since: Option<Time>,
    in_flight: Option<InFlight>,
    keys_open: usize,
    idle_since: Time,
    retry_at: Option<Time>,
}

/// What is to be done for a ledger.
#[derive(Debug)]
pub(crate) enum LedgerAct {
    /// An operation on it.
    Ask { job: u64, key: Key, operation: Operation, is_once: bool },
    /// A transaction gets its entry, or none.
    Opened(u64, Option<TxId>),
    /// What came of a decision.
    Decided(u64, Decided),
    /// The ledger is no more.
    Over(u64),
}

/// The ledgers of one node's coordinators, by job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledgers {
    own: BTreeMap<u64, Own>,
    current: Option<u64>,
    /// Transactions that wait for a ledger.
    waiting: Vec<u64>,
    failed_creations: u32,
}

fn ask(job: u64, own: &Own, change: LedgerChange, is_once: bool) -> LedgerAct {
    let operation = Operation::Tx(Box::new(TxChange::Ledger(change)));
    LedgerAct::Ask { job, key: own.key.clone(), operation, is_once }
}

impl Ledgers {
    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// Whether `key` is a ledger in use here.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.own.values().any(|o| o.key == *key)
    }

    /// A transaction wants an entry. True if a ledger has to be made for it.
    pub(crate) fn open(&mut self, tx: u64, out: &mut Vec<LedgerAct>) -> bool {
        if let Some(own) = self.current.and_then(|c| self.own.get_mut(&c))
            && own.state == State::Open
        {
            let id = own.give();
            if own.next >= NUMBERS_MAX || own.keys_open >= KEYS_MAX {
                own.state = State::Retired;
                self.current = None;
            }
            out.push(LedgerAct::Opened(tx, Some(id)));
            return false;
        }
        self.waiting.push(tx);
        self.current.is_none()
    }

    /// Makes the ledger `key`.
    pub(crate) fn create(&mut self, job: u64, key: Key, now: Time, out: &mut Vec<LedgerAct>) {
        let own = Own {
            key,
            state: State::Creating,
            next: 1,
            used: BTreeSet::new(),
            queue: Vec::new(),
            done: Vec::new(),
            done_since: None,
            in_flight: None,
            keys_open: 0,
            idle_since: now,
            retry_at: None,
        };
        out.push(ask(job, &own, LedgerChange::Create, true));
        self.own.insert(job, own);
        self.current = Some(job);
    }

    fn of(&mut self, tx: &TxId) -> Option<&mut Own> {
        self.own.values_mut().find(|o| o.key == tx.ledger)
    }

    /// An entry is to be committed.
    pub(crate) fn decide(&mut self, job: u64, tx: TxId, keys: Vec<(Key, u64)>, out: &mut Vec<LedgerAct>) {
        match self.of(&tx) {
            Some(own) if own.state != State::Closing => {
                own.keys_open += keys.len();
                own.queue.push((job, tx.entry, keys));
            }
            // It was closed by others, so nothing was decided.
            Some(_) | None => out.push(LedgerAct::Decided(job, Decided::Refused)),
        }
    }

    /// A number is finished: of a committed one everything is applied.
    pub(crate) fn finished(&mut self, tx: &TxId, is_committed: bool, now: Time) {
        let Some(own) = self.of(tx) else { return };
        own.used.remove(&tx.entry);
        own.idle_since = now;
        if is_committed {
            own.done.push(tx.entry);
            own.done_since.get_or_insert(now);
        }
    }

    /// The answer to what was asked of a ledger. True if another one has to be made.
    pub(crate) fn on_answer(&mut self, job: u64, now: Time, reply: &Reply, out: &mut Vec<LedgerAct>) -> bool {
        let Some(own) = self.own.get_mut(&job) else { return false };
        match own.state {
            State::Creating => {
                let is_made = matches!(reply, Reply::Changed { .. });
                return self.on_created(job, is_made, now, out);
            }
            State::Closing if matches!(reply, Reply::Changed { .. } | Reply::Refused { .. }) => {
                self.own.remove(&job);
                out.push(LedgerAct::Over(job));
            }
            State::Closing => own.retry_at = Some(now + DONE_WAIT * 4),
            State::Open | State::Retired => self.on_decided(job, now, reply, out),
        }
        false
    }

    fn on_created(&mut self, job: u64, is_made: bool, now: Time, out: &mut Vec<LedgerAct>) -> bool {
        let Some(own) = self.own.get_mut(&job) else { return false };
        if is_made {
            own.state = State::Open;
            own.idle_since = now;
            self.failed_creations = 0;
            for tx in std::mem::take(&mut self.waiting) {
                out.push(LedgerAct::Opened(tx, Some(own.give())));
            }
            return false;
        }
        own.state = State::Retired;
        self.current = None;
        self.failed_creations += 1;
        if self.failed_creations < 4 {
            return !self.waiting.is_empty();
        }
        self.failed_creations = 0;
        for tx in std::mem::take(&mut self.waiting) {
            out.push(LedgerAct::Opened(tx, None));
        }
        false
    }

    fn on_decided(&mut self, job: u64, now: Time, reply: &Reply, out: &mut Vec<LedgerAct>) {
        let Some(own) = self.own.get_mut(&job) else { return };
        let Some((commits, done)) = own.in_flight.take() else { return };
        if let Reply::Changed { value, .. } = reply {
            let refused = refused_numbers(value.as_ref());
            for (tx, n) in commits {
                let decided = if refused.contains(&n) { Decided::Refused } else { Decided::Committed };
                out.push(LedgerAct::Decided(tx, decided));
            }
            own.idle_since = now;
            return;
        }
        let is_lost = matches!(reply, Reply::Refused { refusal: Refusal::NotFound, .. });
        let is_definite = matches!(reply, Reply::Failed(f) if !matches!(f, Failure::Unknown { .. }));
        let decided = if is_lost || is_definite { Decided::Refused } else { Decided::Unknown };
        for (tx, _) in commits {
            out.push(LedgerAct::Decided(tx, decided));
        }
        // Telling twice that they are done does no harm.
        own.done.extend(done);
        own.done_since = (!own.done.is_empty()).then_some(now);
        own.retry_at = Some(now + DONE_WAIT);
        own.state = State::Retired;
        if is_lost {
            for (tx, _, _) in std::mem::take(&mut own.queue) {
                out.push(LedgerAct::Decided(tx, Decided::Refused));
            }
            own.state = State::Closing;
            own.retry_at = Some(now);
        }
        if self.current == Some(job) {
            self.current = None;
        }
    }

    /// Sends what is due: decisions that have gathered, numbers that are done, the end of idle ledgers.
    pub(crate) fn flush(&mut self, now: Time, idle_max: Duration, out: &mut Vec<LedgerAct>) {
        let mut given_up = None;
        for (job, own) in &mut self.own {
            if own.state == State::Creating || own.in_flight.is_some() {
                continue;
            }
            if own.retry_at.is_some_and(|t| t > now) {
                continue;
            }
            let was_waiting = own.retry_at.take().is_some();
            let is_idle = own.used.is_empty() && own.queue.is_empty();
            let is_old = now.since(own.idle_since) >= idle_max;
            if own.state == State::Closing {
                if was_waiting {
                    out.push(ask(*job, own, LedgerChange::Close, false));
                }
                continue;
            }
            if is_idle && own.done.is_empty() && (own.state == State::Retired || is_old) {
                if own.state == State::Open {
                    given_up = Some(*job);
                }
                own.state = State::Closing;
                out.push(ask(*job, own, LedgerChange::Close, false));
                continue;
            }
            let is_done_due = own.done_since.is_some_and(|t| now.since(t) >= DONE_WAIT);
            if own.queue.is_empty() && (!is_done_due || own.done.is_empty()) {
                continue;
            }
            own.done_since = None;
            let commits = std::mem::take(&mut own.queue);
            let done = std::mem::take(&mut own.done);
            own.keys_open = own.keys_open.saturating_sub(commits.iter().map(|c| c.2.len()).sum());
            own.in_flight = Some((commits.iter().map(|c| (c.0, c.1)).collect(), done.clone()));
            let commits = commits.into_iter().map(|(_, n, keys)| (n, keys)).collect();
            let low = own.used.first().copied().unwrap_or(own.next);
            out.push(ask(*job, own, LedgerChange::Decide { commits, done, low }, false));
        }
        if given_up.is_some() && self.current == given_up {
            self.current = None;
        }
    }

    /// When [`Ledgers::flush`] has something to do without being asked.
    pub(crate) fn next_timeout(&self, idle_max: Duration) -> Option<Time> {
        let of = |o: &Own| {
            if o.state == State::Creating || o.in_flight.is_some() {
                return None;
            }
            if o.state == State::Closing {
                return o.retry_at;
            }
            let idle = (o.used.is_empty() && o.state == State::Open).then_some(o.idle_since + idle_max);
            let done = o.done_since.map(|t| t + DONE_WAIT);
            let at = o.retry_at.or_else(|| idle.into_iter().chain(done).min());
            at.or_else(|| (o.state == State::Retired && o.used.is_empty()).then_some(o.idle_since))
        };
        self.own.values().filter_map(of).min()
    }
}

impl Own {
    fn give(&mut self) -> TxId {
        let entry = self.next;
        self.next += 1;
        self.used.insert(entry);
        TxId { ledger: self.key.clone(), entry }
    }
}
