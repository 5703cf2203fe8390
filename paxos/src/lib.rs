//! Configurations and acceptors: the rules by which records and members are decided.
//!
//! One acceptor is the memory of one slot over one extent of offsets. It answers requests and never acts by
//! itself; who asks it, and when, is the business of the crate `dht`.

pub mod acceptor;
pub mod configuration;

pub use acceptor::{Acceptor, Granted, HomeState, Refused};
pub use configuration::{Configuration, Member, epoch_of_lineage, lineage_of};
pub use store::{Ballot, Stamp};
