//! Leaving always ends. Each of these seeds once had a node that did not finish.

use dht::DhtNode;
use sim::{Profile, Scenario, Settings, run};

fn ends(profile: Profile, scenario: Scenario, nodes: u8, seeds: &[u64]) {
    for seed in seeds {
        let s = Settings::draw(*seed, profile, scenario, nodes, 400);
        let o = run::<DhtNode>(&s, false);
        let text = o.violation.as_ref().map(ToString::to_string);
        assert_eq!(text, None, "{}", s.replay_command());
    }
}

#[test]
fn owners_of_many_pieces_are_found_and_chunks_drain() {
    ends(Profile::Steady, Scenario::GrowShrink, 9, &[54, 70, 221, 380, 398, 430, 545, 585, 717, 831]);
}

#[test]
fn a_giver_hears_that_its_chunk_was_discarded() {
    ends(Profile::Churn, Scenario::Load, 5, &[1066]);
}

/// Nothing is lost on the way and nobody crashes, so every change must be told what became of it. This seed once had
/// a home whose Confirms waited behind those of a reign that had ended, and attempts that were not answered at all.
#[test]
fn without_faults_nothing_is_in_doubt() {
    let s = Settings::draw(50, Profile::Steady, Scenario::GrowShrink, 9, 2000);
    let o = run::<DhtNode>(&s, false);
    let [answered, refused, _, unknown] = o.ops;
    assert!(answered + refused > 100, "hardly anything was done: {:?}", o.ops);
    assert_eq!(unknown, 0, "{}", s.replay_command());
}
