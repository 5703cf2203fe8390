//! The process around the core: event loop, sockets, start and end.

pub mod event_loop;
pub mod grpc;
pub mod handle;
pub mod http;
mod listen;
pub mod logging;
pub mod peer;
pub mod run;
pub mod run_error;
pub mod seeds;
pub mod signals;
