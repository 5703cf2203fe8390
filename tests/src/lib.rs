//! What the tests of real processes and containers have in common.
//!
//! Keeps:
//! 1. Every wait polls for a condition and has a deadline ([`poll`]).
//! 2. Whatever a test starts ends with the value that stands for it; nothing else is ever ended.
//! 3. Nothing is written outside the target directory.
//!
//! Relies on: a `cargo` to build the program under test with ([`binary`]); what else a test needs, an engine
//! for containers say, is looked for at run time.

#![allow(clippy::disallowed_methods, reason = "these tests live in real time and use real threads")]

pub mod binary;
pub mod cli;
pub mod docker;
pub mod grpc;
pub mod http;
pub mod large;
pub mod load;
pub mod poll;
pub mod process;
pub mod python;

/// What a test step gives back; the error is a sentence for people.
pub type Res<T> = Result<T, String>;
