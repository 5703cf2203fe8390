//! One kvnode as one state machine without IO.
//!
//! Messages, requests, time and a seed go in; effects come out. `ring` says whom to ask, `paxos` and `store`
//! what an acceptor may answer; this crate is who asks: homes, gateways, handover, replacement, membership.
//!
//! The five verbs are [`DhtNode::handle_message`], [`DhtNode::handle_request`], [`DhtNode::handle_timeout`],
//! [`DhtNode::poll_effect`] and [`DhtNode::next_timeout`].

pub mod acceptors;
pub mod api;
pub mod config;
mod context;
pub mod counters;
mod dissolve;
mod duty;
mod fill;
mod frozen;
mod gateway;
mod handover;
mod hints;
mod homes;
mod insight;
mod joining;
pub mod locations;
pub mod message;
#[cfg(test)]
mod model;
pub mod node;
pub mod plant;
mod reign;
mod replacement;
mod salvage;
mod scan;
mod serve;
pub mod trace;
mod transfer;
pub mod tx;

pub use api::{Effect, Event, Failure, Reply, Request, RequestId};
pub use config::Config;
pub use message::Message;
pub use node::DhtNode;
pub use trace::Trace;
