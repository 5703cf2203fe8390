//! Rules of transactions that are broken on purpose: the simulator must notice every one of them.
#![cfg(feature = "planted")]

use dht::DhtNode;
use dht::plant::Plant;
use sim::{Profile, Scenario, Settings, run};

/// Runs until a seed fails; the number of runs, and what was found.
fn caught(plant: Plant, profile: Profile, runs: u64) -> Option<(u64, String)> {
    (1..=runs).find_map(|seed| {
        let mut s = Settings::draw(seed, profile, Scenario::Transactions, 5, 250);
        s.config.planted = Some(plant);
        let violation = run::<DhtNode>(&s, false).violation.filter(|v| v.invariant == "I5")?;
        Some((seed, violation.to_string()))
    })
}

fn must_be_caught(plant: Plant, profile: Profile, runs: u64) {
    match caught(plant, profile, runs) {
        Some((seed, text)) => {
            println!("{plant:?}: seed {seed}: {}", text.lines().next().unwrap_or_default());
        }
        None => panic!("{plant:?} was not noticed in {runs} runs"),
    }
}
