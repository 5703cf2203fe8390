//! The coordinator of one transaction: read, lock, validate, decide.
//!
//! It runs in the client's gateway and asks for what it needs: operations on keys, an entry of a ledger, a
//! decision there. What follows a decision, applying or releasing the locks, is a job of its own, so the client
//! is told as soon as the outcome is certain.
//!
//! Keeps:
//! 1. Nothing is validated before every lock is held; nothing is decided before everything is validated.
//! 2. It commits once. Not done is said only if no decision was sent, or the decision was definitely refused, or
//!    the entry was seen aborted after it.
//! 3. After a first conflict keys are locked in their order, one after the other, each waiting its turn; after a
//!    second one the keys that are only read, too. So somebody always gets on.
//!
//! Source: `docs/protocol.md`, section 8.

use crate::api::{Failure, Reply, Transact, Transacted, TxOutcome};
use crate::message::Operation;
use crate::plant::Plant;
use crate::tx::log::{Step, TxLog, fetch};
use crate::tx::report::{Trail, TxPhase, TxReport};
use core::time::Duration;
use ring::Time;
use store::{Intent, Key, Ledger, LedgerChange, OpId, Refusal, Seen, TxChange, TxId, Verdict};

/// What a transaction wants done.
#[derive(Debug)]
pub(crate) enum Act {
    /// An operation on a key; the answer comes back with the part.
    Ask { part: usize, key: Key, operation: Operation },
    /// An entry of a ledger.
    Open,
    /// The entry is to be committed.
    Decide { tx: TxId, keys: Vec<(Key, u64)> },
    /// The client's reply.
    Reply(Reply),
    /// The same once more, after a conflict.
    Again,
    /// To be gone on with after a while.
    Pause,
    /// Locks to be ended: key, version, whether it is applied.
    Settle { tx: TxId, keys: Vec<(Key, u64, bool)>, is_committed: bool },
    /// It is over; nobody will hear of it again.
    End,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    /// It is committed.
    Committed,
    /// It was not and never will be.
    Refused,
    /// One or the other.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Fetching,
    /// One key: a plain change.
    Installing,
    Opening,
    Locking,
    Validating,
    Deciding,
    /// The decision's outcome is looked up in the ledger.
    Settling,
    /// The entry is aborted, so that it has an outcome.
    Aborting,
    /// The client has its reply; answers are still to come.
    Ending,
}

/// What every transaction is begun with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Operations of one transaction under way at once.
    pub(crate) window: usize,
    pub(crate) value_bytes_max: usize,
    /// No conflict is tried again after this.
    pub(crate) patience: Duration,
    /// A rule that a test breaks.
    pub(crate) planted: Option<Plant>,
}

/// One transaction under way.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) asked: Transact,
    /// How many conflicts it has met, the client's count included.
    pub(crate) conflicts: u32,
    pub(crate) began: Time,
    terms: Terms,
    op: OpId,
    log: TxLog,
    results: Vec<Reply>,
    stage: Stage,
    /// What is asked in this stage.
    plan: Vec<(Key, Seen, Intent)>,
    next: usize,
    open: usize,
    /// Locks granted: key, version, whether it is to be applied.
    locked: Vec<(Key, u64, bool)>,
    conflict_keys: Vec<Key>,
    /// What is locked only after the validation, where a test has it so.
    locks_after: Vec<(Key, Seen, Intent)>,
    /// Whether an earlier commit of the same log may have been done.
    may_be_applied: bool,
    /// Whether it may still be under way, so that more will be known later.
    may_end: bool,
    /// Whether the client has its reply although the outcome is not known here.
    is_told: bool,
    tx: Option<TxId>,
    /// What it went through, where that is told.
    trail: Option<Box<Trail>>,
}

impl Commit {
    /// A transaction that has met so many conflicts; `op` names its commit.
    pub(crate) fn new(
        asked: Transact,
        op: OpId,
        conflicts: u32,
        began: Time,
        terms: Terms,
        trail: Option<Box<Trail>>,
    ) -> Commit {
        let log = asked.log.clone();
        Commit {
            asked,
            conflicts,
            began,
            terms,
            op,
            log,
            results: Vec::new(),
            stage: Stage::Fetching,
            plan: Vec::new(),
            next: 0,
            open: 0,
            locked: Vec::new(),
            conflict_keys: Vec::new(),
            locks_after: Vec::new(),
            may_be_applied: false,
            may_end: false,
            is_told: false,
            tx: None,
            trail,
        }
    }

    /// Notes what it does now, if it is to be told later.
    pub(crate) fn note_phase(&mut self, now: Time) {
        let phase = match self.stage {
            Stage::Fetching => TxPhase::Read,
            Stage::Installing => TxPhase::Install,
            Stage::Opening => TxPhase::Open,
            Stage::Locking => TxPhase::Lock,
            Stage::Validating => TxPhase::Validate,
            Stage::Deciding => TxPhase::Decide,
            Stage::Settling | Stage::Aborting => TxPhase::LookUp,
            Stage::Ending => return,
        };
        if let Some(trail) = &mut self.trail {
            trail.enter(phase, now);
        }
    }

    /// What it went through, with this reply at its end.
    pub(crate) fn report(&mut self, now: Time, reply: &Reply) -> Option<TxReport> {
        let (began, conflicts) = (self.began, self.conflicts);
        self.trail.as_mut()?.report(began, now, conflicts, &self.log, reply)
    }

    /// What it went through, for the next try after a conflict.
    pub(crate) fn take_trail(&mut self, now: Time) -> Option<Box<Trail>> {
        let mut trail = self.trail.take()?;
        trail.meet(&self.conflict_keys);
        trail.enter(TxPhase::Pause, now);
        Some(trail)
    }

    /// The commit's id.
    pub(crate) fn op(&self) -> OpId {
        self.op
    }

    /// Whether it may have been committed, or still may be.
    pub(crate) fn may_be_decided(&self) -> bool {
        match self.stage {
            Stage::Installing | Stage::Deciding | Stage::Settling | Stage::Aborting => true,
            Stage::Fetching | Stage::Opening | Stage::Locking | Stage::Validating | Stage::Ending => false,
        }
    }

    fn is_ordered(&self) -> bool {
        self.conflicts > 0
    }

    /// Begins.
    pub(crate) fn begin(&mut self, out: &mut Vec<Act>) {
        let missing = self.log.missing(&self.asked.steps);
        let plan = missing.into_iter().map(|k| (k, Seen::Absent(0), Intent::Keep)).collect();
        self.enter(Stage::Fetching, plan, out);
    }

    /// Enters a stage that asks something of every key of the plan.
    fn enter(&mut self, stage: Stage, plan: Vec<(Key, Seen, Intent)>, out: &mut Vec<Act>) {
        (self.stage, self.plan, self.next, self.open) = (stage, plan, 0, 0);
        self.ask_more(out);
        if self.plan.is_empty() {
            self.on_stage_over(out);
        }
    }

    fn ask_more(&mut self, out: &mut Vec<Act>) {
        let is_one_by_one = self.stage == Stage::Locking && self.is_ordered();
        let window = if is_one_by_one { 1 } else { self.terms.window };
        while self.open < window {
            let Some((key, seen, intent)) = self.plan.get(self.next) else { break };
            let operation = match (self.stage, &self.tx) {
                (Stage::Fetching, _) => fetch(self.is_ordered()),
                (Stage::Validating, _) => fetch(true),
                (Stage::Locking, Some(tx)) => Operation::Tx(Box::new(TxChange::Lock {
                    tx: tx.clone(),
                    seen: *seen,
                    intent: intent.clone(),
                    validates: self.plan.len() < self.log.entries.len(),
                    op: self.op,
                    waits: self.is_ordered() || self.asked.is_repeated,
                })),
                (_, _) => {
                    let (seen, intent, op) = (*seen, intent.clone(), self.op);
                    Operation::Tx(Box::new(TxChange::Install { seen, intent, op }))
                }
            };
            out.push(Act::Ask { part: self.next, key: key.clone(), operation });
            self.next += 1;
            self.open += 1;
        }
    }

    /// The answer to a part.
    pub(crate) fn on_answer(&mut self, now: Time, part: usize, reply: Reply, out: &mut Vec<Act>) {
        if matches!(self.stage, Stage::Settling | Stage::Aborting) {
            self.on_ledger_answer(now, &reply, out);
            return;
        }
        self.open = self.open.saturating_sub(1);
        let Some((key, seen, intent)) = self.plan.get(part) else { return };
        let key = key.clone();
        match reply {
            Reply::Value { value, version } => {
                let is_as_seen = if self.stage == Stage::Fetching {
                    self.log.note(&key, version, value)
                } else {
                    let is_absent = matches!(seen, Seen::Absent(_)) && value.is_none();
                    let is_taken = is_absent && self.terms.planted == Some(Plant::AbsentAnytime);
                    is_taken || seen.still_holds(Seen::of(version, value.is_some()))
                };
                if !is_as_seen {
                    self.conflict_keys.push(key);
                }
            }
            Reply::Changed { version, .. } => self.locked.push((key, version, *intent != Intent::Keep)),
            Reply::Refused { refusal, .. } => self.on_refused(key, &refusal, out),
            Reply::Failed(f) => self.fail(now, f, out),
            Reply::Ok
            | Reply::Status(_)
            | Reply::Insight(_)
            | Reply::Inspected(_)
            | Reply::Members(_)
            | Reply::Ring(_)
            | Reply::Located(_)
            | Reply::Transacted(_)
            | Reply::Salvaged(_)
            | Reply::Scanned { .. }
            | Reply::Dissolved(_)
            | Reply::Left { .. } => self.fail(now, Failure::Busy, out),
        }
        if !self.conflict_keys.is_empty() && self.stage != Stage::Ending {
            self.lose(now, out);
        }
        self.ask_more(out);
        if self.open == 0 {
            self.on_stage_over(out);
        }
    }

    fn on_refused(&mut self, key: Key, refusal: &Refusal, out: &mut Vec<Act>) {
        if self.stage == Stage::Ending {
            return;
        }
        if *refusal == Refusal::Applied {
            // An earlier commit of the same log has done it all.
            self.reply(TxOutcome::Committed(Vec::new()), out);
            self.end_early();
            return;
        }
        // The first commit of the log may have set that lock, or been applied.
        let is_denied = *refusal == Refusal::Forgotten && self.terms.planted == Some(Plant::ForgottenIsNever);
        if self.asked.is_repeated && !is_denied {
            self.may_be_applied |= matches!(refusal, Refusal::Locked | Refusal::Forgotten);
            self.may_end |= *refusal == Refusal::Locked;
        }
        self.conflict_keys.push(key);
    }

    /// A conflict was met before anything was decided: the whole is tried again, or the client is told.
    fn lose(&mut self, now: Time, out: &mut Vec<Act>) {
        let waited = now.since(self.began);
        let is_whole = self.asked.log.entries.is_empty() && self.asked.commit;
        if (is_whole || self.may_end) && waited < self.terms.patience {
            out.push(Act::Again);
        } else if self.may_be_applied {
            out.push(Act::Reply(Reply::Failed(Failure::Unknown { waited })));
        } else {
            let keys = self.conflict_keys.clone();
            self.reply(TxOutcome::Conflict(keys), out);
        }
        self.end_early();
    }

    /// No more is asked; what was granted is given back when the last answer is in.
    fn end_early(&mut self) {
        self.stage = Stage::Ending;
        self.next = self.plan.len();
    }

    fn fail(&mut self, now: Time, failure: Failure, out: &mut Vec<Act>) {
        if self.stage == Stage::Ending {
            return;
        }
        let waited = now.since(self.began);
        // A lock that may be there does nothing by itself.
        let is_harmless = matches!(failure, Failure::Unknown { .. }) && self.stage != Stage::Installing;
        let failure = if is_harmless { Failure::Unavailable { waited } } else { failure };
        out.push(Act::Reply(Reply::Failed(failure)));
        self.end_early();
    }

    fn on_stage_over(&mut self, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Fetching => self.on_fetched(out),
            Stage::Installing => {
                let versions = self.locked.iter().map(|(k, v, _)| (k.clone(), *v)).collect();
                self.reply(TxOutcome::Committed(versions), out);
                out.push(Act::End);
            }
            Stage::Locking => {
                // They were granted in any order; versions are looked up by key.
                self.locked.sort();
                let is_skipped =
                    matches!(self.terms.planted, Some(Plant::ValidateFirst | Plant::ValidateNever));
                let is_all = self.locked.len() == self.log.entries.len();
                let reads = if is_all || is_skipped { Vec::new() } else { self.unlocked_reads() };
                self.enter(Stage::Validating, reads, out);
            }
            Stage::Validating if !self.locks_after.is_empty() => {
                let plan = std::mem::take(&mut self.locks_after);
                self.enter(Stage::Locking, plan, out);
            }
            Stage::Validating if self.tx.is_none() => {
                self.reply(TxOutcome::Committed(Vec::new()), out);
                out.push(Act::End);
            }
            // With every key locked and none written there is nothing that somebody else would have to know.
            Stage::Validating if self.locked.iter().all(|l| !l.2) => {
                self.reply(TxOutcome::Committed(Vec::new()), out);
                self.settle(false, out);
            }
            Stage::Validating => {
                self.stage = Stage::Deciding;
                let keys = self.locked.iter().filter(|l| l.2).map(|(k, v, _)| (k.clone(), *v)).collect();
                if self.terms.planted == Some(Plant::ToldTooEarly) {
                    self.reply(TxOutcome::Committed(Vec::new()), out);
                }
                if let Some(tx) = self.tx.clone() {
                    out.push(Act::Decide { tx, keys });
                }
            }
            Stage::Ending => self.give_back(out),
            Stage::Opening | Stage::Deciding | Stage::Settling | Stage::Aborting => {}
        }
    }

    /// Everything is read: the operations are executed, and it is known what the commit needs.
    fn on_fetched(&mut self, out: &mut Vec<Act>) {
        self.results = self.log.execute(&self.asked.steps, self.terms.value_bytes_max);
        if !self.asked.commit {
            self.reply(TxOutcome::Open, out);
            out.push(Act::End);
            return;
        }
        if let Some(key) = self.log.failed.clone() {
            self.reply(TxOutcome::Failed(key), out);
            out.push(Act::End);
            return;
        }
        let writes: Vec<_> = self.log.writes().map(|(k, s, i)| (k.clone(), s, i)).collect();
        let is_single = self.log.entries.len() <= 1;
        match (writes.is_empty(), is_single) {
            // One read is linearizable by itself.
            (true, true) => {
                self.reply(TxOutcome::Committed(Vec::new()), out);
                out.push(Act::End);
            }
            (false, true) => self.enter(Stage::Installing, writes, out),
            (true, false) if self.conflicts < 2 => {
                let is_skipped = self.terms.planted == Some(Plant::ValidateNever);
                let reads = if is_skipped { Vec::new() } else { self.unlocked_reads() };
                self.enter(Stage::Validating, reads, out);
            }
            (_, false) => {
                self.stage = Stage::Opening;
                out.push(Act::Open);
            }
        }
    }

    fn unlocked_reads(&self) -> Vec<(Key, Seen, Intent)> {
        self.log.reads().map(|(k, s)| (k.clone(), s, Intent::Keep)).collect()
    }

    /// The entry of a ledger, or why there is none.
    pub(crate) fn on_opened(&mut self, now: Time, tx: Option<TxId>, out: &mut Vec<Act>) {
        if tx.is_none() {
            let waited = now.since(self.began);
            out.push(Act::Reply(Reply::Failed(Failure::Unavailable { waited })));
            out.push(Act::End);
            return;
        }
        self.tx = tx;
        let mut plan: Vec<_> = self.log.writes().map(|(k, s, i)| (k.clone(), s, i)).collect();
        // Of a commit that is asked for again a key that is written tells what became of the first one. A key that is
        // only read keeps no id of it, and may have been written since.
        if self.conflicts > 1
            && (!self.asked.is_repeated || self.terms.planted == Some(Plant::RepeatedLocksReads))
        {
            plan.extend(self.unlocked_reads());
        }
        plan.sort_by(|a, b| a.0.cmp(&b.0));
        if self.terms.planted == Some(Plant::ValidateFirst) {
            self.locks_after = std::mem::replace(&mut plan, self.unlocked_reads());
            self.enter(Stage::Validating, plan, out);
            return;
        }
        self.enter(Stage::Locking, plan, out);
    }

    /// What came of the decision.
    pub(crate) fn on_decided(&mut self, now: Time, decided: Decided, out: &mut Vec<Act>) {
        let is_denied = decided == Decided::Unknown && self.terms.planted == Some(Plant::UnknownIsAborted);
        let decided = if is_denied { Decided::Refused } else { decided };
        match decided {
            Decided::Committed => self.committed(out),
            Decided::Refused => self.aborted(now, out),
            Decided::Unknown => self.look_up(Stage::Settling, Operation::Inspect { waits: false }, out),
        }
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&mut self, out: &mut Vec<Act>) {
        self.look_up(Stage::Settling, Operation::Inspect { waits: false }, out);
    }

    fn look_up(&mut self, stage: Stage, operation: Operation, out: &mut Vec<Act>) {
        self.stage = stage;
        if let Some(tx) = &self.tx {
            out.push(Act::Ask { part: 0, key: tx.ledger.clone(), operation });
        }
    }

    /// The decision's outcome was not told: the ledger says what it is, or is made to.
    fn on_ledger_answer(&mut self, now: Time, reply: &Reply, out: &mut Vec<Act>) {
        let Some(entry) = self.tx.as_ref().map(|t| t.entry) else { return };
        let waited = now.since(self.began);
        let unknown = Act::Reply(Reply::Failed(Failure::Unknown { waited }));
        match (self.stage, reply) {
            (Stage::Settling, Reply::Value { value, .. }) => {
                match Ledger::verdict_of(value.as_ref(), entry) {
                    Verdict::Committed(_) => self.committed(out),
                    Verdict::Closed if self.terms.planted == Some(Plant::ClosedIsAborted) => {
                        self.reply(TxOutcome::Conflict(Vec::new()), out);
                        self.give_back(out);
                    }
                    Verdict::Aborted => self.aborted(now, out),
                    // Not committed, or committed, applied and done by others: either way its locks are ghosts.
                    Verdict::Closed => {
                        if !std::mem::replace(&mut self.is_told, true) {
                            out.push(unknown);
                        }
                        self.give_back(out);
                    }
                    Verdict::Pending => {
                        let abort = TxChange::Ledger(LedgerChange::Abort(entry));
                        self.look_up(Stage::Aborting, Operation::Tx(Box::new(abort)), out);
                    }
                }
            }
            (Stage::Aborting, Reply::Changed { .. }) => {
                self.look_up(Stage::Settling, Operation::Inspect { waits: false }, out);
            }
            // The client need not wait for it, but the entry must not be forgotten.
            (_, _) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    out.push(unknown);
                }
                out.push(Act::Pause);
            }
        }
    }

    fn committed(&mut self, out: &mut Vec<Act>) {
        let versions = self.locked.iter().filter(|l| l.2).map(|(k, v, _)| (k.clone(), *v)).collect();
        self.reply(TxOutcome::Committed(versions), out);
        self.settle(true, out);
    }

    /// Its entry is aborted. That is the outcome unless another commit of the same log may be under way, which is not
    /// aborted by it.
    fn aborted(&mut self, now: Time, out: &mut Vec<Act>) {
        if self.asked.is_repeated && !self.is_told {
            (self.may_be_applied, self.may_end, self.is_told) = (true, true, true);
            self.lose(now, out);
        } else {
            self.reply(TxOutcome::Conflict(Vec::new()), out);
        }
        self.give_back(out);
    }

    /// Nothing was decided, or not to commit: the locks go.
    fn give_back(&mut self, out: &mut Vec<Act>) {
        if self.stage == Stage::Installing || self.tx.is_none() {
            self.locked.clear();
        }
        self.settle(false, out);
    }

    fn settle(&mut self, is_committed: bool, out: &mut Vec<Act>) {
        let keys = self.locked.drain(..).map(|(k, v, applies)| (k, v, applies && is_committed)).collect();
        if let Some(tx) = self.tx.take() {
            out.push(Act::Settle { tx, keys, is_committed });
        }
        out.push(Act::End);
    }

    fn reply(&mut self, outcome: TxOutcome, out: &mut Vec<Act>) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let mut results = std::mem::take(&mut self.results);
        let mut log = TxLog::default();
        match &outcome {
            TxOutcome::Open => log = std::mem::take(&mut self.log),
            TxOutcome::Committed(versions) => tell_versions(&self.asked.steps, &mut results, versions),
            TxOutcome::Failed(_) | TxOutcome::Conflict(_) => {}
        }
        out.push(Act::Reply(Reply::Transacted(Box::new(Transacted { log, results, outcome }))));
    }
}

/// What was written has its version now.
fn tell_versions(steps: &[Step], results: &mut [Reply], versions: &[(Key, u64)]) {
    for (step, result) in steps.iter().zip(results) {
        if let Reply::Changed { version, .. } = result
            && *version == 0
            && let Ok(i) = versions.binary_search_by(|v| v.0.cmp(&step.key))
            && let Some((_, installed)) = versions.get(i)
        {
            *version = *installed;
        }
    }
}
