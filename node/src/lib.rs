//! The process around the core.
