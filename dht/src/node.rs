//! The node: dispatch of inputs to the machines of this crate, and the queue of effects.

use crate::api::{Effect, Request, RequestId};
use crate::config::Config;
use crate::message::Message;
use paxos::Acceptor;
use ring::{NodeRef, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// One node without IO.
#[derive(Debug)]
pub struct DhtNode {
    effects: VecDeque<Effect>,
}

impl DhtNode {
    /// A node that is in no ring yet. `seed` is all the randomness it will ever use; `client_addr` is what it
    /// tells others of where it answers clients.
    pub fn new(
        config: Config,
        me: NodeRef,
        client_addr: Option<SocketAddr>,
        seed: u64,
        now: Time,
    ) -> DhtNode {
        let _ = (config, me, client_addr, seed, now);
        DhtNode { effects: VecDeque::new() }
    }
    /// A message from another node. Messages to another node id than this one's must not be given.
    pub fn handle_message(&mut self, now: Time, from: NodeRef, message: Message) {
        let _ = (now, from, message);
    }
    /// A request of a client or of the process.
    pub fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        let _ = (now, id, request);
    }
    /// A hint of the transport: the connection to `peer` broke or could not be made.
    pub fn handle_connection_lost(&mut self, now: Time, peer: NodeRef) {
        let _ = (now, peer);
    }
    /// The moment of [`DhtNode::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
    }
    /// The next thing to do outside. Ask until there is none after every batch of inputs: what waits for other
    /// inputs of the same batch is put together at the first call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
    /// When [`DhtNode::handle_timeout`] is to be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        None
    }
    /// The acceptors in this node's memory, for checkers.
    pub fn acceptors(&self) -> impl Iterator<Item = &Acceptor> {
        std::iter::empty()
    }
}
