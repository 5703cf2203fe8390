//! Ending the locks of one transaction whose outcome is certain: applying or releasing each.
//!
//! Used by the coordinator after its decision, by whoever met a lock, and by whoever finishes the ledger of a
//! coordinator that is gone. It may be done by several of them at once: a lock ends once.
//!
//! Keeps:
//! 1. A lock is applied only if the transaction is committed with this key and version; that is the caller's
//!    word.
//! 2. It is over only when every lock that was to be applied is known to be gone.

use crate::api::Reply;
use crate::message::Operation;
use store::{Key, TxChange, TxId};

/// The locks of one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    pub(crate) tx: TxId,
    keys: Vec<(Key, u64, bool)>,
    next: usize,
    open: usize,
    window: usize,
    /// Parts to be asked again.
    failed: Vec<usize>,
}

/// What it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More answers are to come.
    Waits,
    /// Some were not answered: to be gone on with after a pause.
    Pauses,
    /// It is over.
    Over,
}

impl Finish {
    /// Locks to be ended: key, version, whether it is applied.
    pub(crate) fn new(tx: TxId, keys: Vec<(Key, u64, bool)>, window: usize) -> Finish {
        Finish { tx, keys, next: 0, open: 0, window, failed: Vec::new() }
    }

    /// The next operations, by part.
    pub(crate) fn ask(&mut self) -> Vec<(usize, Key, Operation)> {
        let mut out = Vec::new();
        while self.open < self.window {
            let part = match self.failed.pop() {
                Some(part) => part,
                None if self.next < self.keys.len() => {
                    self.next += 1;
                    self.next - 1
                }
                None => break,
            };
            let Some((key, version, applies)) = self.keys.get(part) else { continue };
            let change = TxChange::Settle { tx: self.tx.clone(), version: *version, applies: *applies };
            out.push((part, key.clone(), Operation::Tx(Box::new(change))));
            self.open += 1;
        }
        out
    }

    /// The answer to a part.
    pub(crate) fn on_answer(&mut self, part: usize, reply: &Reply) {
        self.open = self.open.saturating_sub(1);
        let applies = self.keys.get(part).is_some_and(|k| k.2);
        if applies && !matches!(reply, Reply::Changed { .. }) {
            self.failed.push(part);
        }
    }

    /// How far it is. With `Pauses`, [`Finish::ask`] goes on with what failed.
    pub(crate) fn progress(&self) -> Progress {
        let has_more = self.next < self.keys.len();
        match (self.open, self.failed.is_empty(), has_more) {
            (0, true, false) => Progress::Over,
            (0, false, false) => Progress::Pauses,
            (_, _, _) => Progress::Waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Failure;

    #[test]
    fn what_was_not_applied_is_asked_again_and_what_was_not_released_is_not() {
        let key = |n: u8| Key::new(&[n]);
        let tx = TxId { ledger: Key::new(b"\xff"), entry: 1 };
        let mut f = Finish::new(tx, vec![(key(1), 5, true), (key(2), 6, false), (key(3), 7, true)], 2);
        assert_eq!(f.ask().iter().map(|a| a.0).collect::<Vec<_>>(), [0, 1]);
        let done = Reply::Changed { version: 5, value: None };
        let lost = Reply::Failed(Failure::Busy);
        f.on_answer(0, &lost);
        f.on_answer(1, &lost);
        assert_eq!(f.progress(), Progress::Waits);
        assert_eq!(f.ask().len(), 2, "the one that failed and the last");
        f.on_answer(0, &lost);
        f.on_answer(2, &done);
        assert_eq!(f.progress(), Progress::Pauses);
        assert_eq!(f.ask().len(), 1);
        f.on_answer(0, &done);
        assert_eq!(f.progress(), Progress::Over);
    }
}
