//! The wire: code generated from the `.proto` files beside this crate, and conversions at its edge.
//!
//! Nothing but this crate and the edges of `node` and `client` knows protobuf types.

pub mod client_api;
pub mod codec;
pub mod peer;
pub mod transaction_log;

/// The client API, package `kvnode.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::as_conversions,
    clippy::wildcard_enum_match_arm
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/kvnode.v1.rs"));

    /// The descriptors of the client API, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kvnode_v1.bin"));
}
