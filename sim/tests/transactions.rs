//! Transactions under seeds of every profile. These are requirements on the node, not on the simulator.

use dht::DhtNode;
use sim::{Outcome, Profile, Scenario, Settings, run};
use std::thread;

/// Runs seeds, two at once, and demands that none fails and that most transactions were decided.
fn seeds(profile: Profile, seeds: std::ops::Range<u64>) {
    longer_seeds(profile, seeds, 150);
}

fn longer_seeds(profile: Profile, seeds: std::ops::Range<u64>, ops: usize) {
    let half = seeds.start + (seeds.end - seeds.start) / 2;
    let work = |range: std::ops::Range<u64>| -> Vec<Outcome> {
        range
            .map(|s| run::<DhtNode>(&Settings::draw(s, profile, Scenario::Transactions, 5, ops), false))
            .collect()
    };
    let outcomes = thread::scope(|t| {
        let first = t.spawn(|| work(seeds.start..half));
        let mut all = work(half..seeds.end);
        all.extend(first.join().expect("no panic in a run"));
        all
    });
    for o in &outcomes {
        if let Some(v) = &o.violation {
            panic!("seed {}: {v}\n{}", o.settings.seed, o.settings.replay_command());
        }
        let [committed, aborted, unknown] = o.transactions;
        let all = committed + aborted + unknown;
        assert!(committed * 4 > all && unknown * 4 < all, "seed {}: {:?}", o.settings.seed, o.transactions);
    }
}

#[test]
fn transactions_of_a_steady_ring_are_serial() {
    seeds(Profile::Steady, 1..25);
}

#[test]
fn faults_of_the_network_leave_no_lock_and_no_ledger() {
    // Seed 1 once woke for ever for a ledger that was closing; 82 waited for the answer of a replica that has none;
    // 20 sent a tombstone for ever to a replica whose floor had passed it.
    seeds(Profile::Messages, 1..13);
    seeds(Profile::Messages, 20..21);
    seeds(Profile::Messages, 82..83);
    // A commit that was done, asked for again after two conflicts, was told that it was not: a key that it only read
    // had been written since.
    longer_seeds(Profile::Messages, 2_003_004..2_003_005, 5000);
}

#[test]
fn joins_and_leaves_leave_no_lock_and_no_ledger() {
    // In seed 11 a reign led over several pieces of memory, and only the first was looked at.
    seeds(Profile::Churn, 1..13);
}

#[test]
fn crashes_leave_no_lock_and_no_ledger() {
    seeds(Profile::Crash, 1..9);
    // In an earlier build an apply stayed unconfirmed.
    longer_seeds(Profile::Crash, 33..34, 400);
}

#[test]
fn an_attempt_that_comes_late_is_not_executed_again() {
    // The end of a lock had pushed out the id of a plain write, and the home did not note it: the write's first
    // attempt, which arrived four seconds late, was executed a second time.
    longer_seeds(Profile::Churn, 287..288, 250);
}

#[test]
fn the_same_seed_twice_gives_the_same_transcript() {
    for seed in 1..=3 {
        let s = Settings::draw(seed, Profile::All, Scenario::Transactions, 5, 100);
        let (a, b) = (run::<DhtNode>(&s, false), run::<DhtNode>(&s, false));
        assert_eq!((a.digest, a.events), (b.digest, b.events), "seed {seed}");
    }
}
