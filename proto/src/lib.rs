//! The wire: code generated from the `.proto` files beside this crate, and conversions at its edge.
//!
//! Nothing but this crate and the edges of `node` and `client` knows protobuf types.

