//! Nodes that come, leave and crash, with a machine whose memory outlives them.

#![allow(clippy::wildcard_enum_match_arm, reason = "toys and written histories know few of the cases")]

#[path = "toy/shared.rs"]
mod shared;

use shared::Shared;
use sim::{Profile, Scenario, Settings, run};

#[test]
fn a_memory_outside_of_all_processes_survives_everything() {
    let mut faults = std::collections::BTreeMap::new();
    for profile in [Profile::Churn, Profile::Crash, Profile::All] {
        for seed in 1..=20 {
            let s = Settings::draw(seed, profile, Scenario::Load, 5, 300);
            let o = run::<Shared<false>>(&s, false);
            assert_eq!(o.violation, None, "seed {seed}");
            assert_eq!(o.digest, run::<Shared<false>>(&s, false).digest, "seed {seed}");
            for (k, n) in o.faults {
                *faults.entry(k).or_insert(0) += n;
            }
        }
    }
    for f in
        ["crash", "restart at the same address", "founder restarted with its own address", "join", "leave"]
    {
        assert!(faults.contains_key(f), "{f} never happened: {faults:?}");
    }
}

#[test]
fn a_key_lost_with_a_leaving_node_is_caught() {
    let failed = |seed| {
        let s = Settings::draw(seed, Profile::Churn, Scenario::Load, 5, 300);
        run::<Shared<true>>(&s, false).violation.is_some()
    };
    assert!((1..=20).filter(|s| failed(*s)).count() >= 5);
}

#[test]
fn a_ring_grows_and_shrinks() {
    for seed in 1..=10 {
        let s = Settings::draw(seed, Profile::Steady, Scenario::GrowShrink, 9, 300);
        assert_eq!(run::<Shared<false>>(&s, false).violation, None, "seed {seed}");
    }
    let s = |seed| Settings::draw(seed, Profile::Steady, Scenario::GrowShrink, 9, 300);
    assert!((1..=10).all(|seed| run::<Shared<true>>(&s(seed), false).violation.is_some()));
}
