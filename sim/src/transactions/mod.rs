//! Transactions in a run: what clients do, what they saw, and whether it can have happened one at a time.

pub mod anomalies;
pub mod graph;
pub mod history;
pub mod workload;

pub use anomalies::{Anomaly, check};
pub use history::{Fate, Read, Txn, Write};
