//! The wire: generated code and the conversions between it and the cores' own types.

pub mod peer;
