//! The process around the core: event loop, sockets, client interfaces and the command line of `kvnode`.
//!
//! Everything that touches the operating system is here; what a node decides is decided in `dht`.

pub mod cli;
pub mod config;
pub mod dashboard;
pub mod error;
pub mod event_loop;
pub mod facts;
pub mod grpc;
pub mod handle;
pub mod http;
mod listen;
pub mod logging;
pub mod metrics;
pub mod peer;
pub mod run;
pub mod run_error;
pub mod scalaris;
pub mod seeds;
pub mod serve;
pub mod signals;
pub mod traces;
