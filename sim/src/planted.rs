//! Rules of the protocol broken on purpose: by which run each of them is noticed.
//!
//! Keeps:
//! 1. Every way of looking gets its first seed before any gets its second, so that what is found first took the
//!    fewest runs.

use crate::invariants::Violation;
use crate::run::run;
use crate::settings::{Profile, Scenario, Settings};
use core::fmt;
use dht::DhtNode;
use dht::plant::Plant;
use std::panic::catch_unwind;

/// A way of looking for a broken rule.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The faults.
    pub profile: Profile,
    /// What is done.
    pub scenario: Scenario,
    /// The replication factor, if it is not to be drawn.
    pub replicas: Option<u8>,
    /// Whether faults come thick.
    pub is_harsh: bool,
}

const fn way(profile: Profile, scenario: Scenario, replicas: Option<u8>, is_harsh: bool) -> Way {
    Way { profile, scenario, replicas, is_harsh }
}

/// For rules of single keys and of the ring.
const OF_KEYS: [Way; 7] = [
    way(Profile::Messages, Scenario::Hot, Some(3), false),
    way(Profile::Crash, Scenario::Hot, Some(3), false),
    way(Profile::Churn, Scenario::Hot, Some(3), false),
    way(Profile::Crash, Scenario::Load, Some(3), false),
    way(Profile::Messages, Scenario::Hot, Some(3), true),
    way(Profile::Crash, Scenario::Hot, Some(3), true),
    way(Profile::Messages, Scenario::Hot, Some(5), true),
];

/// For rules of transactions.
const OF_TRANSACTIONS: [Way; 3] = [
    way(Profile::Steady, Scenario::Transactions, None, false),
    way(Profile::Messages, Scenario::Transactions, None, false),
    way(Profile::Crash, Scenario::Transactions, None, false),
];

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The broken rule.
    pub plant: Plant,
    /// How many runs there were.
    pub runs: u64,
    /// The run that noticed it.
    pub caught: Option<(Settings, Violation)>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { plant, runs, caught } = self;
        write!(f, "{plant:?} ({}): ", plant.section())?;
        match caught {
            None => write!(f, "not noticed in {runs} runs"),
            Some((s, v)) => write!(
                f,
                "noticed in run {runs} by {}\n  {}\n  {}",
                v.invariant,
                v.text.lines().next().unwrap_or_default(),
                s.replay_command()
            ),
        }
    }
}

/// Runs `seeds` seeds, beginning with `from`, in every way that fits `plant`, until one of them fails.
pub fn hunt(plant: Plant, from: u64, seeds: u64) -> Found {
    let ways: &[Way] = if plant.section() == "8" { &OF_TRANSACTIONS } else { &OF_KEYS };
    hunt_in(plant, ways, from, seeds)
}

/// The same in ways of one's own.
pub fn hunt_in(plant: Plant, ways: &[Way], from: u64, seeds: u64) -> Found {
    let mut runs = 0;
    for seed in from..from.saturating_add(seeds) {
        for way in ways {
            runs += 1;
            let ops = if way.scenario == Scenario::Transactions { 250 } else { 400 };
            let s = Settings::draw(seed, way.profile, way.scenario, 5, ops)
                .with_replicas(way.replicas)
                .with_harshness(way.is_harsh)
                .with_planted(Some(plant));
            // A node that gives up on an assertion has noticed, too.
            let told = catch_unwind(|| run::<DhtNode>(&s, false).violation).unwrap_or_else(|why| {
                let text = why.downcast_ref::<String>().cloned();
                let text = text.or_else(|| why.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                Some(Violation { invariant: "assertion", text: text.unwrap_or_default() })
            });
            if let Some(v) = told {
                return Found { plant, runs, caught: Some((s, v)) };
            }
        }
    }
    Found { plant, runs, caught: None }
}
