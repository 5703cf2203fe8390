//! Deterministic simulation of many nodes: one clock, one network, one seed.
//!
//! A run draws a cluster, its settings, its faults and its clients from one seed, watches the invariants of
//! `docs/protocol.md` while it goes, then heals everything, demands progress, and checks the histories of
//! what the clients saw. The same seed gives the same run on every machine.
//!
//! Source: the safety phase and liveness phase of TigerBeetle's simulator; the order of work of
//! FoundationDB's (Zhou et al. 2021).

pub mod cluster;
pub mod coverage;
pub mod draw;
pub mod history;
pub mod invariants;
pub mod linearizability;
pub mod machine;
pub mod memories;
pub mod names;
pub mod nemesis;
pub mod network;
pub mod order;
#[cfg(feature = "planted")]
pub mod planted;
pub mod process;
pub mod queue;
pub mod reigns;
pub mod report;
pub mod run;
pub mod settings;
pub mod strength;
pub mod swarm;
pub mod transactions;
pub mod transcript;
pub mod workload;

pub use invariants::Violation;
pub use machine::Machine;
pub use run::{Outcome, run};
pub use settings::{Profile, Scenario, Settings};
