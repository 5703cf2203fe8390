//! The process around the core: event loop, sockets, client interfaces and the command line of `kvnode`.
//!
//! Everything that touches the operating system is here; what a node decides is decided in `dht`.

pub mod cli;
pub mod config;
pub mod error;
pub mod grpc;
pub mod handle;
pub mod http;
