//! Scalaris' JSON-RPC as functions from bytes to calls and from results to bytes, without IO.
//!
//! The server gives a body to [`envelope::calls`], carries out each [`call::Call`], and puts the answers
//! together again. What a transaction does to its log is decided here as well; what must be read and
//! committed for that is done by the server.
//!
//! Source: Scalaris 0.9.0, `docroot/api/*.yaws`, `src/json/api_json*.erl`, and what its server was seen to
//! answer; differences are in `docs/scalaris.md`.

pub mod body;
pub mod call;
pub mod envelope;
pub mod json;
pub mod log;
pub mod outcome;
mod parameters;
pub mod transaction;
pub mod value;

pub use call::{Call, Page, Reject};
pub use json::Json;
