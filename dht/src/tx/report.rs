//! What a transaction went through, told once its client has its reply.
//!
//! Relies on: nothing reads it to decide anything; it is kept only where [`crate::Config::tells_transactions`]
//! says so.

use crate::api::{Failure, Reply, TxOutcome};
use crate::tx::log::TxLog;
use ring::Time;
use store::Key;

/// Entries of each list of a report; what is beyond is counted only.
const ENTRIES_MAX: usize = 8;
/// Phases noted of one transaction; one that is tried again and again repeats them.
const PHASES_MAX: usize = 32;

/// What a transaction does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxPhase {
    /// Reads keys.
    Read,
    /// Writes its only key.
    Install,
    /// Waits for a ledger.
    Open,
    /// Locks what it writes.
    Lock,
    /// Looks whether what it read still holds.
    Validate,
    /// Waits for the decision.
    Decide,
    /// Looks up a decision of which it was not told.
    LookUp,
    /// Waits before it begins anew after a conflict.
    Pause,
}

impl TxPhase {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            TxPhase::Read => "read",
            TxPhase::Install => "install",
            TxPhase::Open => "open",
            TxPhase::Lock => "lock",
            TxPhase::Validate => "validate",
            TxPhase::Decide => "decide",
            TxPhase::LookUp => "look_up",
            TxPhase::Pause => "pause",
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxEnd {
    /// It is committed.
    Committed,
    /// An operation on this key failed.
    Failed(Key),
    /// Others changed or held what it needs.
    Conflict,
    /// No quorum, no room, or nobody knows.
    Unanswered(Failure),
}

/// What a transaction went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxReport {
    /// When its commit was asked for.
    pub began: Time,
    /// When it was replied to.
    pub ended: Time,
    /// Its phases, with the time at which each began.
    pub phases: Vec<(TxPhase, Time)>,
    /// How often it was begun anew after a conflict.
    pub conflicts: u32,
    /// Where conflicts were met, the first few.
    pub met: Vec<Key>,
    /// The first few of its keys, and whether each is written.
    pub keys: Vec<(Key, bool)>,
    /// All its keys.
    pub keys_count: usize,
    /// Those that are written.
    pub writes_count: usize,
    /// How it ended.
    pub end: TxEnd,
}

/// What is noted while it is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail {
    phases: Vec<(TxPhase, Time)>,
    met: Vec<Key>,
}

impl Trail {
    /// It does this from now on.
    pub(crate) fn enter(&mut self, phase: TxPhase, now: Time) {
        if self.phases.last().is_none_or(|p| p.0 != phase) && self.phases.len() < PHASES_MAX {
            self.phases.push((phase, now));
        }
    }

    /// It met others here.
    pub(crate) fn meet(&mut self, keys: &[Key]) {
        for key in keys {
            if self.met.len() < ENTRIES_MAX && !self.met.contains(key) {
                self.met.push(key.clone());
            }
        }
    }

    /// All of it, at the end. None for a call that does not commit.
    pub(crate) fn report(
        &mut self,
        began: Time,
        now: Time,
        conflicts: u32,
        log: &TxLog,
        reply: &Reply,
    ) -> Option<TxReport> {
        let end = if let Reply::Transacted(t) = reply {
            match &t.outcome {
                TxOutcome::Open => return None,
                TxOutcome::Committed(_) => TxEnd::Committed,
                TxOutcome::Failed(key) => TxEnd::Failed(key.clone()),
                TxOutcome::Conflict(keys) => {
                    self.meet(keys);
                    TxEnd::Conflict
                }
            }
        } else if let Reply::Failed(f) = reply {
            TxEnd::Unanswered(f.clone())
        } else {
            return None;
        };
        let is_written = |e: &crate::tx::LogEntry| e.write.is_some();
        Some(TxReport {
            began,
            ended: now,
            phases: core::mem::take(&mut self.phases),
            conflicts,
            met: core::mem::take(&mut self.met),
            keys: log.entries.iter().take(ENTRIES_MAX).map(|(k, e)| (k.clone(), is_written(e))).collect(),
            keys_count: log.entries.len(),
            writes_count: log.entries.values().filter(|e| is_written(e)).count(),
            end,
        })
    }
}
