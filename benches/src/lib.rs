//! Load and measurement beside a running server.
#![allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]
