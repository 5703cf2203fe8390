//! The member table: who is in the ring, what each says of itself, and who still answers.
pub mod info;
pub use info::{MemberInfo, MemberState};
/// Placeholder replaced by the failure detector.
#[derive(Clone, Debug, PartialEq)]
pub enum Gossip {}
