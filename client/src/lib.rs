//! The Rust client of kvnode.
