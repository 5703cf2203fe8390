//! Finishing the ledger of a coordinator that is gone, at the ledger's home.
//!
//! It is closed first, which ends everything that was pending in it, used or not. Then what was committed is
//! applied, and the ledger goes with the last entry.
//!
//! Source: `docs/protocol.md`, section 8.

use crate::api::Reply;
use crate::message::Operation;
use crate::tx::finish::{Finish, Progress};
use std::collections::VecDeque;
use store::{Key, Ledger, LedgerChange, TxChange, TxId};

#[derive(Clone, Debug)]
enum Stage {
    Closing,
    Reading,
    Applying(Finish),
    Telling,
}

/// One ledger being finished.
#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    pub(crate) key: Key,
    stage: Stage,
    entries: VecDeque<(u64, Vec<(Key, u64)>)>,
    applied: Vec<u64>,
    window: usize,
    /// A test wants the committed entries forgotten.
    is_careless: bool,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// These operations, by part.
    Ask(Vec<(usize, Key, Operation)>),
    /// The same after a pause.
    Pause,
    /// It is over.
    Over,
}

fn change(c: LedgerChange) -> Operation {
    Operation::Tx(Box::new(TxChange::Ledger(c)))
}

impl Takeover {
    /// The ledger `key`.
    pub(crate) fn new(key: Key, window: usize, is_careless: bool) -> Takeover {
        let (entries, applied) = (VecDeque::new(), Vec::new());
        Takeover { key, stage: Stage::Closing, entries, applied, window, is_careless }
    }

    /// What is to be asked now, at the beginning and after a pause.
    pub(crate) fn ask(&mut self) -> Step {
        let operation = match &mut self.stage {
            Stage::Closing => change(LedgerChange::Close),
            Stage::Reading => Operation::Inspect { waits: false },
            Stage::Telling => change(LedgerChange::Applied(self.applied.clone())),
            Stage::Applying(f) => return Step::Ask(f.ask()),
        };
        Step::Ask(vec![(0, self.key.clone(), operation)])
    }

    /// An answer.
    pub(crate) fn on_answer(&mut self, part: usize, reply: &Reply) -> Step {
        match (&mut self.stage, reply) {
            (Stage::Closing, Reply::Changed { .. }) => self.stage = Stage::Reading,
            (Stage::Reading, Reply::Value { value, .. }) => {
                let Some(ledger) = value.as_ref().and_then(Ledger::decode) else { return Step::Over };
                self.entries = ledger.committed().map(|(n, k)| (n, k.clone())).collect();
                if self.is_careless {
                    self.applied.extend(self.entries.drain(..).map(|e| e.0));
                }
                return self.next_entry();
            }
            (Stage::Applying(f), _) => {
                f.on_answer(part, reply);
                match f.progress() {
                    Progress::Waits => {}
                    Progress::Pauses => return Step::Pause,
                    Progress::Over => {
                        self.applied.push(f.tx.entry);
                        return self.next_entry();
                    }
                }
            }
            (Stage::Telling, Reply::Changed { .. }) => return Step::Over,
            (_, _) => return Step::Pause,
        }
        self.ask()
    }

    fn next_entry(&mut self) -> Step {
        self.stage = match self.entries.pop_front() {
            Some((entry, keys)) => {
                let tx = TxId { ledger: self.key.clone(), entry };
                let keys = keys.into_iter().map(|(k, v)| (k, v, true)).collect();
                Stage::Applying(Finish::new(tx, keys, self.window))
            }
            None if self.applied.is_empty() => return Step::Over,
            None => Stage::Telling,
        };
        if let Stage::Applying(f) = &self.stage
            && f.progress() == Progress::Over
        {
            self.applied.push(f.tx.entry);
            return self.next_entry();
        }
        self.ask()
    }
}
