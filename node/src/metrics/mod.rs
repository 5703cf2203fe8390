//! The node in numbers: what is counted, what it is called, and how it is written for Prometheus.
//!
//! Keeps:
//! 1. Every name is in [`METRICS`], and everything in it is written on each scrape of a node.
//! 2. No name or label holds a key, a value or anything else that a client chose.

mod exposition;
mod registry;
mod scrape;
mod traffic;

pub use exposition::Exposition;
pub use registry::{METRICS, Metric, MetricKind, find};
pub(crate) use scrape::resident_bytes;
pub use scrape::{Said, scrape};
pub(crate) use traffic::outcome;
pub use traffic::{Interval, LATENCY_BOUNDS_SECONDS, OperationKind, OutcomeKind, Traffic};
