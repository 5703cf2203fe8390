//! The simulator accepts a right machine and catches broken ones.

#![allow(clippy::wildcard_enum_match_arm, reason = "toys and written histories know few of the cases")]

mod toy;

use sim::{Outcome, Profile, Scenario, Settings, run};
use toy::*;

fn toys<const BUG: u8>(profile: Profile, seeds: u64) -> Vec<Outcome> {
    let of = |seed| Settings::draw(seed, profile, Scenario::Load, 4, 250);
    (1..=seeds).map(|s| run::<Toy<BUG>>(&of(s), false)).collect()
}

fn found(outcomes: &[Outcome], invariant: &str) -> usize {
    outcomes.iter().filter(|o| o.violation.as_ref().is_some_and(|v| v.invariant == invariant)).count()
}

#[test]
fn a_right_machine_passes_with_and_without_faults() {
    for profile in [Profile::Steady, Profile::Messages] {
        for o in toys::<RIGHT>(profile, 20) {
            assert_eq!(o.violation, None, "seed {}", o.settings.seed);
            assert!(o.ops[0] > 150, "seed {}: {:?}", o.settings.seed, o.ops);
            assert_eq!(o.undecided, 0);
        }
    }
}

#[test]
fn faults_of_the_network_take_effect() {
    let all = toys::<RIGHT>(Profile::Messages, 20);
    let sum = |f: fn(&Outcome) -> u64| all.iter().map(f).sum::<u64>();
    assert!(sum(|o| o.network.lost) > 100);
    assert!(sum(|o| o.network.cut) > 100);
    assert!(sum(|o| o.network.duplicated) > 50);
    assert!(sum(|o| o.network.replayed) > 10);
    assert!(sum(|o| o.ops[3]) > 10, "some outcomes are unknown");
    for fault in ["isolated node", "halves", "one-way cut", "partial cut", "clogged links", "pause"] {
        assert!(all.iter().any(|o| o.faults.contains_key(fault)), "{fault}");
    }
}

#[test]
fn lost_writes_are_caught() {
    assert_eq!(found(&toys::<LOSES_WRITES>(Profile::Steady, 10), "I5"), 10);
}

#[test]
fn a_change_made_twice_is_caught() {
    assert!(found(&toys::<EXECUTES_TWICE>(Profile::Messages, 20), "I5") >= 5);
}

#[test]
fn stale_reads_are_caught() {
    assert!(found(&toys::<READS_STALE>(Profile::Steady, 10), "I5") >= 9);
}

#[test]
fn a_failed_change_that_was_made_is_caught() {
    assert!(found(&toys::<FAILS_BUT_DOES>(Profile::Messages, 20), "I5") >= 5);
}

#[test]
fn a_key_that_goes_back_is_caught() {
    assert_eq!(found(&toys::<GOES_BACK>(Profile::Steady, 10), "I5"), 10);
}

#[test]
fn a_second_reply_and_a_missing_one_are_caught() {
    assert_eq!(found(&toys::<REPLIES_TWICE>(Profile::Steady, 5), "replies"), 5);
    assert_eq!(found(&toys::<NEVER_REPLIES>(Profile::Steady, 5), "I6"), 5);
}

#[test]
fn the_same_seed_twice_gives_the_same_transcript() {
    for profile in [Profile::Steady, Profile::Messages] {
        let (a, b) = (toys::<RIGHT>(profile, 6), toys::<RIGHT>(profile, 6));
        for (a, b) in a.iter().zip(&b) {
            assert_eq!((a.digest, a.events, a.ops), (b.digest, b.events, b.ops));
        }
        assert_ne!(a[0].digest, a[1].digest);
    }
}
