//! The node under seeds of every profile. These are requirements on the node, not on the simulator.

use dht::DhtNode;
use sim::{Outcome, Profile, Scenario, Settings, run};
use std::thread;

/// Runs seeds, two at once, and demands that none fails and that operations succeeded.
fn seeds(profile: Profile, scenario: Scenario, nodes: u8, seeds: std::ops::Range<u64>) {
    let half = seeds.start + (seeds.end - seeds.start) / 2;
    let work = |range: std::ops::Range<u64>| -> Vec<Outcome> {
        range.map(|s| run::<DhtNode>(&Settings::draw(s, profile, scenario, nodes, 150), false)).collect()
    };
    let outcomes = thread::scope(|t| {
        let first = t.spawn(|| work(seeds.start..half));
        let mut all = work(half..seeds.end);
        all.extend(first.join().expect("no panic in a run"));
        all
    });
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| o.violation.is_some()).collect();
    if let Some(o) = failed.first() {
        let text = o.violation.as_ref().map(ToString::to_string).unwrap_or_default();
        let n = (failed.len(), outcomes.len());
        panic!(
            "{} of {} seeds failed, seed {}: {text}\n{}",
            n.0,
            n.1,
            o.settings.seed,
            o.settings.replay_command()
        );
    }
    for o in &outcomes {
        let (all, done) = (o.ops.iter().sum::<u64>(), o.ops[0] + o.ops[1]);
        assert!(done * 4 > all, "seed {}: {done} of {all} operations were answered", o.settings.seed);
    }
}

#[test]
fn a_steady_ring_serves() {
    seeds(Profile::Steady, Scenario::Load, 5, 1..25);
}

#[test]
fn rings_of_one_to_seven_nodes_serve() {
    for nodes in [1, 2, 3, 4, 7] {
        seeds(Profile::Steady, Scenario::Load, nodes, 1..7);
    }
}

#[test]
fn faults_of_the_network_break_nothing() {
    seeds(Profile::Messages, Scenario::Load, 5, 1..25);
}

#[test]
fn joins_and_leaves_break_nothing() {
    seeds(Profile::Churn, Scenario::Load, 5, 1..25);
}

#[test]
fn crashes_break_nothing() {
    seeds(Profile::Crash, Scenario::Load, 5, 1..25);
}

/// Runs that once came to no rest, or worse, each for a reason of its own.
#[test]
fn what_was_replaced_once_is_whole_again() {
    let once = [
        // The replaced member's memory was there, and nobody asked it.
        (1167, Profile::Crash),
        (1354, Profile::Crash),
        // A node left with frozen memory, or with memory that others had streamed to.
        (1217, Profile::Crash),
        (1345, Profile::Crash),
        (1368, Profile::Crash),
        (20_169, Profile::Crash),
        // A piece that nobody could replace held up its neighbours.
        (1304, Profile::Crash),
        // A part of a fill kept the keys of the whole.
        (1219, Profile::Crash),
        // What was being filled was joined again and began anew.
        (20_084, Profile::Crash),
        // Enough donors had refused a member for ever.
        (20_950, Profile::Crash),
        (22_647, Profile::Crash),
        // The receiver of a chunk had discarded it, and said nothing.
        (20_328, Profile::Crash),
        // A founder that came home kept a ring of its own: the other one had only one member left.
        (22_614, Profile::Crash),
        // Frozen memory of several pieces was known of one only.
        (40_171, Profile::All),
        (50_379, Profile::Crash),
        // Only the replaced member knew the epoch that replaced it.
        (100_722, Profile::All),
        // A refusal was forgotten when the member that had refused was replaced: two nodes went on as one replica.
        (100_135, Profile::Messages),
        (100_633, Profile::Messages),
        // The answers that waited for the first Confirm of a node were given without it.
        (101_990, Profile::Crash),
        // A donor was here when its stream began, and was handed over.
        (5015, Profile::Crash),
        // Two nodes had been told the same end, and neither was to have the circle.
        (6108, Profile::Churn),
    ];
    let work = |part: &[(u64, Profile)]| {
        for (seed, profile) in part {
            let s = Settings::draw(*seed, *profile, Scenario::Load, 5, 400);
            let o = run::<DhtNode>(&s, false);
            assert_eq!(o.violation.map(|v| v.to_string()), None, "{}", s.replay_command());
        }
    };
    let (a, b) = once.split_at(once.len() / 2);
    thread::scope(|t| {
        t.spawn(|| work(a));
        work(b);
    });
}

#[test]
fn faults_that_come_thick_break_nothing() {
    // Seed 15 once had a reign without a quorum: it was cut while its grants were gathered.
    for seed in [15, 16, 17] {
        let s = Settings::draw(seed, Profile::Messages, Scenario::Hot, 5, 400)
            .with_replicas(Some(3))
            .with_harshness(true);
        let o = run::<DhtNode>(&s, false);
        assert_eq!(o.violation.map(|v| v.to_string()), None, "{}", s.replay_command());
    }
}

#[test]
fn a_ring_grows_from_one_to_nine_and_shrinks_to_one() {
    // Seeds 11 and 12 once read at a home whose own slot had not voted yet, with Q other slots on the same node.
    seeds(Profile::Steady, Scenario::GrowShrink, 9, 1..25);
}

#[test]
fn what_lost_its_quorum_is_unavailable_until_it_is_salvaged() {
    seeds(Profile::Steady, Scenario::Salvage, 3, 1..9);
    seeds(Profile::Steady, Scenario::Salvage, 5, 1..17);
}

#[test]
fn the_same_seed_twice_gives_the_same_transcript() {
    for seed in 1..=4 {
        let s = Settings::draw(seed, Profile::All, Scenario::Load, 5, 100);
        let (a, b) = (run::<DhtNode>(&s, false), run::<DhtNode>(&s, false));
        assert_eq!((a.digest, a.events), (b.digest, b.events), "seed {seed}");
    }
}
