//! The checker of transactions, with histories that are known to be good or bad.

use sim::transactions::{Fate, Read, Txn, Write, check};
use store::Key;

fn key(name: &str) -> Key {
    Key::new(name.as_bytes())
}

/// A committed transaction between two moments: reads (key, write, version) and writes (key, write, version).
fn txn(from: u64, to: u64, reads: &[(&str, u64, u64)], writes: &[(&str, u64, u64)]) -> Txn {
    let read = |r: &(&str, u64, u64)| Read {
        key: key(r.0),
        write: (r.1 > 0).then_some(r.1),
        version: r.2,
        list: None,
    };
    let write = |w: &(&str, u64, u64)| Write {
        key: key(w.0),
        write: w.1,
        version: (w.2 > 0).then_some(w.2),
        is_append: false,
        is_overwritten: false,
    };
    Txn {
        client: 0,
        invoked: from,
        completed: Some(to),
        fate: Fate::Committed,
        reads: reads.iter().map(read).collect(),
        writes: writes.iter().map(write).collect(),
    }
}

fn with(fate: Fate, t: Txn) -> Txn {
    let completed = t.completed.filter(|_| fate != Fate::Unknown);
    Txn { fate, completed, ..t }
}

fn list(from: u64, seen: &[u64]) -> Txn {
    let last = seen.last().copied();
    let version = last.map_or(0, |w| w * 10);
    let read = Read { key: key("l"), write: last, version, list: Some(seen.to_vec()) };
    Txn { reads: vec![read], ..txn(from, from + 1, &[], &[]) }
}

fn append(from: u64, write: u64) -> Txn {
    let mut t = txn(from, from + 1, &[], &[("l", write, write * 10)]);
    t.writes[0].is_append = true;
    t
}

fn found(txns: &[Txn]) -> String {
    check(txns).expect_err("an anomaly").name
}

#[test]
fn transactions_one_after_the_other_are_fine() {
    let all = [
        txn(1, 2, &[], &[("x", 1, 10), ("y", 2, 11)]),
        txn(3, 4, &[("x", 1, 10), ("y", 2, 11)], &[("x", 3, 20)]),
        txn(5, 6, &[("x", 3, 20), ("y", 2, 11)], &[]),
    ];
    assert_eq!(check(&all), Ok(()));
}

#[test]
fn transactions_at_the_same_time_may_have_any_order() {
    let all = [
        txn(1, 9, &[], &[("x", 1, 10)]),
        txn(2, 8, &[("x", 0, 0)], &[("y", 2, 5)]),
        txn(3, 7, &[("x", 1, 10), ("y", 2, 5)], &[]),
    ];
    assert_eq!(check(&all), Ok(()));
}

#[test]
fn a_lost_update_is_named() {
    let all = [
        txn(1, 2, &[], &[("x", 1, 10)]),
        txn(3, 9, &[("x", 1, 10)], &[("x", 2, 20)]),
        txn(4, 8, &[("x", 1, 10)], &[("x", 3, 30)]),
    ];
    assert_eq!(found(&all), "G-single (read skew or lost update)");
}

#[test]
fn read_skew_is_named() {
    let all = [txn(1, 9, &[], &[("x", 1, 10), ("y", 2, 11)]), txn(2, 8, &[("x", 1, 10), ("y", 0, 0)], &[])];
    assert_eq!(found(&all), "G-single (read skew or lost update)");
}

#[test]
fn write_skew_is_named() {
    let all = [
        txn(1, 9, &[("x", 0, 0), ("y", 0, 0)], &[("x", 1, 10)]),
        txn(2, 8, &[("x", 0, 0), ("y", 0, 0)], &[("y", 2, 11)]),
    ];
    assert_eq!(found(&all), "G2 (write skew or long fork)");
}

#[test]
fn a_long_fork_is_named() {
    let all = [
        txn(1, 20, &[], &[("x", 1, 10)]),
        txn(2, 19, &[], &[("y", 2, 11)]),
        txn(3, 18, &[("x", 1, 10), ("y", 0, 0)], &[]),
        txn(4, 17, &[("x", 0, 0), ("y", 2, 11)], &[]),
    ];
    assert_eq!(found(&all), "G2 (write skew or long fork)");
}

#[test]
fn circular_flow_and_write_cycles_are_named() {
    let all = [txn(1, 9, &[("y", 2, 11)], &[("x", 1, 10)]), txn(2, 8, &[("x", 1, 10)], &[("y", 2, 11)])];
    assert_eq!(found(&all), "G1c (circular information flow)");
    let all = [txn(1, 9, &[], &[("x", 1, 10), ("y", 2, 21)]), txn(2, 8, &[], &[("x", 3, 20), ("y", 4, 11)])];
    assert_eq!(found(&all), "G0 (write cycle)");
}

#[test]
fn what_is_serializable_but_against_real_time_is_named_so() {
    let stale = [txn(1, 2, &[], &[("x", 1, 10)]), txn(5, 6, &[("x", 0, 0)], &[])];
    assert_eq!(found(&stale), "G-single (read skew or lost update)-realtime");
    // The counterexample of the pending lock: T validates x, W writes x, a read sees the old y, T commits y.
    let pending = [
        txn(1, 9, &[("x", 0, 0)], &[("y", 1, 10)]),
        txn(2, 3, &[], &[("x", 2, 20)]),
        txn(4, 5, &[("y", 0, 0)], &[]),
    ];
    assert_eq!(found(&pending), "G2 (write skew or long fork)-realtime");
}

#[test]
fn aborted_and_intermediate_reads_are_named() {
    let aborted = with(Fate::Aborted, txn(1, 2, &[], &[("x", 1, 0)]));
    assert_eq!(found(&[aborted, txn(3, 4, &[("x", 1, 10)], &[])]), "G1a (aborted read)");
    let mut twice = txn(1, 2, &[], &[("x", 1, 0), ("x", 2, 10)]);
    twice.writes[0].is_overwritten = true;
    assert_eq!(found(&[twice, txn(3, 4, &[("x", 1, 10)], &[])]), "G1b (intermediate read)");
}

#[test]
fn a_write_that_was_done_twice_is_named() {
    let all =
        [txn(1, 2, &[], &[("x", 1, 10)]), txn(3, 4, &[], &[("x", 2, 20)]), txn(5, 6, &[("x", 1, 30)], &[])];
    assert_eq!(found(&all), "a write has two versions");
}

#[test]
fn an_unknown_transaction_counts_once_somebody_saw_it() {
    let unknown = with(Fate::Unknown, txn(1, 2, &[], &[("x", 1, 0), ("y", 2, 0)]));
    let unseen = [unknown.clone(), txn(3, 4, &[("x", 0, 0), ("y", 0, 0)], &[])];
    assert_eq!(check(&unseen), Ok(()));
    let torn = [
        unknown,
        txn(3, 4, &[("x", 1, 10), ("y", 2, 11)], &[]),
        txn(5, 6, &[("x", 0, 0), ("y", 2, 11)], &[]),
    ];
    assert!(found(&torn).contains("-realtime") || found(&torn).starts_with("G"));
}

#[test]
fn lists_lose_nothing_and_show_nothing_twice() {
    let fine = [append(1, 1), append(3, 2), list(5, &[1, 2])];
    assert_eq!(check(&fine), Ok(()));
    assert_eq!(
        found(&[append(1, 1), append(3, 2), list(5, &[2])]),
        "a transaction took effect in part, or was lost"
    );
    assert_eq!(found(&[append(1, 1), list(5, &[1, 1])]), "an addition is there twice");
    assert_eq!(found(&[append(1, 1), append(1, 2), list(5, &[1, 2]), list(7, &[2, 1])]), "lists disagree");
}

#[test]
fn an_unknown_addition_is_in_all_of_its_lists_or_in_none() {
    let mut both = with(Fate::Unknown, append(1, 1));
    both.writes[0].version = None;
    both.writes.push(Write { key: key("m"), write: 2, ..both.writes[0].clone() });
    let m = |seen: &[u64]| {
        let mut t = list(9, seen);
        t.reads[0].key = key("m");
        t
    };
    assert_eq!(check(&[both.clone(), list(7, &[]), m(&[])]), Ok(()));
    assert_eq!(found(&[both, list(7, &[1]), m(&[])]), "a transaction took effect in part, or was lost");
}
