//! What the clients of a model did and saw, and whether it can have happened one at a time: every order is tried.
//!
//! Keeps:
//! 1. It shares nothing with the simulator's checker, so that a mistake in one shows in the other.

use std::collections::BTreeMap;

/// The contents of the keys: the number of the transaction that wrote each, none where there is no value.
pub(super) type Contents = BTreeMap<char, Option<u8>>;

/// How a transaction stands for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Not begun.
    Idle,
    Running,
    Committed,
    Aborted,
    /// Told that nobody knows.
    Unknown,
}

/// A transaction, or an operation on one key.
#[derive(Clone, Debug)]
pub(super) struct Txn {
    pub(super) stand: Stand,
    /// Those that were known to be committed when it began, by bit.
    pub(super) after: u8,
    pub(super) reads: Vec<(char, Option<u8>)>,
    pub(super) writes: Vec<(char, Option<u8>)>,
}

/// Those of `txns` with this stand, by bit.
pub(super) fn having(txns: &[Txn], stand: Stand) -> u8 {
    txns.iter().enumerate().filter(|(_, t)| t.stand == stand).fold(0, |mask, (i, _)| mask | 1 << i)
}

/// Whether some order explains what was seen, and what is there at last, where that is given.
pub(super) fn is_serial(txns: &[Txn], contents: &Contents, last: Option<&Contents>) -> bool {
    go_on(txns, having(txns, Stand::Committed), 0, contents, last)
}

fn go_on(txns: &[Txn], committed: u8, done: u8, contents: &Contents, last: Option<&Contents>) -> bool {
    if committed & !done == 0 && last.is_none_or(|l| l == contents) {
        return true;
    }
    txns.iter().enumerate().any(|(i, t)| {
        let is_possible = match t.stand {
            Stand::Idle | Stand::Aborted => false,
            Stand::Committed => t.reads.iter().all(|(k, seen)| contents.get(k) == Some(seen)),
            Stand::Running | Stand::Unknown => true,
        };
        // What began after another had ended comes after it.
        if !is_possible || done & 1 << i != 0 || t.after & committed & !done != 0 {
            return false;
        }
        let mut next = contents.clone();
        next.extend(t.writes.iter().copied());
        go_on(txns, committed, done | 1 << i, &next, last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(stand: Stand, after: u8, reads: &[(char, u8)], writes: &[char], number: u8) -> Txn {
        let reads = reads.iter().map(|(k, w)| (*k, (*w > 0).then_some(*w))).collect();
        Txn { stand, after, reads, writes: writes.iter().map(|k| (*k, Some(number))).collect() }
    }
    fn serial(txns: &[Txn]) -> bool {
        is_serial(txns, &Contents::from([('x', None), ('y', None)]), None)
    }

    #[test]
    fn skew_torn_reads_and_stale_reads_have_no_order() {
        use Stand::Committed as C;
        assert!(!serial(&[txn(C, 0, &[('x', 0)], &['y'], 1), txn(C, 0, &[('y', 0)], &['x'], 2)]));
        assert!(serial(&[txn(C, 0, &[('x', 0)], &['y'], 1), txn(C, 0, &[('y', 1)], &['x'], 2)]));
        assert!(!serial(&[txn(C, 0, &[], &['x', 'y'], 1), txn(C, 0, &[('x', 1), ('y', 0)], &[], 2)]));
        assert!(!serial(&[txn(C, 0, &[], &['x'], 1), txn(C, 1, &[('x', 0)], &[], 2)]));
        assert!(serial(&[txn(C, 0, &[], &['x'], 1), txn(C, 0, &[('x', 0)], &[], 2)]));
    }

    #[test]
    fn what_is_unknown_may_have_happened_and_what_failed_may_not() {
        let seen =
            |stand| serial(&[txn(stand, 0, &[], &['x'], 1), txn(Stand::Committed, 1, &[('x', 1)], &[], 2)]);
        assert!(seen(Stand::Unknown) && seen(Stand::Running) && !seen(Stand::Aborted));
        let lost = [txn(Stand::Committed, 0, &[], &['x'], 1)];
        let nothing = Contents::from([('x', None), ('y', None)]);
        assert!(!is_serial(&lost, &nothing, Some(&nothing)));
    }
}
