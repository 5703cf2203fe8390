//! What the simulator needs of a node: the five verbs, and its memory to look into.
//!
//! The simulator is generic over this, so that it can itself be tested with machines that are known to be
//! right or wrong.

use dht::{Config, DhtNode, Effect, Message, Request, RequestId};
use paxos::Acceptor;
use ring::{Extent, NodeRef, Slot, Time};
use store::Ballot;

/// One node without IO.
pub trait Machine {
    /// Whether positions, replicas and strength mean anything for it; toys without acceptors say no.
    const IS_REPLICATED: bool;

    /// A new process.
    fn new(config: Config, me: NodeRef, seed: u64, now: Time) -> Self;
    /// A message from another node.
    fn handle_message(&mut self, now: Time, from: NodeRef, message: Message);
    /// A request of a client or of the process.
    fn handle_request(&mut self, now: Time, id: RequestId, request: Request);
    /// A hint that the connection to `peer` broke.
    fn handle_connection_lost(&mut self, now: Time, peer: NodeRef);
    /// The moment of `next_timeout` has come.
    fn handle_timeout(&mut self, now: Time);
    /// The next thing to do outside.
    fn poll_effect(&mut self) -> Option<Effect>;
    /// When `handle_timeout` is to be called next.
    fn next_timeout(&self) -> Option<Time>;
    /// The acceptors in its memory.
    fn acceptors(&self) -> impl Iterator<Item = &Acceptor> + Clone;
    /// Begins to replace a member that is alive.
    fn replace_wrongly(&mut self, _now: Time, _dice: u64) {}
    /// The reigns that it has: home slot, interval, ballot.
    fn reigns(&self) -> Vec<(Slot, Extent, Ballot)> {
        Vec::new()
    }
    /// Whether its transactions have left nothing to do.
    fn has_no_transactions(&self) -> bool {
        true
    }
    /// What it holds and does, for the reader of a failed run.
    fn describe(&self) -> String {
        String::new()
    }
}

impl Machine for DhtNode {
    const IS_REPLICATED: bool = true;

    fn new(config: Config, me: NodeRef, seed: u64, now: Time) -> DhtNode {
        DhtNode::new(config, me, None, seed, now)
    }
    fn handle_message(&mut self, now: Time, from: NodeRef, message: Message) {
        DhtNode::handle_message(self, now, from, message);
    }
    fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        DhtNode::handle_request(self, now, id, request);
    }
    fn handle_connection_lost(&mut self, now: Time, peer: NodeRef) {
        DhtNode::handle_connection_lost(self, now, peer);
    }
    fn handle_timeout(&mut self, now: Time) {
        DhtNode::handle_timeout(self, now);
    }
    fn poll_effect(&mut self) -> Option<Effect> {
        DhtNode::poll_effect(self)
    }
    fn next_timeout(&self) -> Option<Time> {
        DhtNode::next_timeout(self)
    }
    fn acceptors(&self) -> impl Iterator<Item = &Acceptor> + Clone {
        DhtNode::acceptors(self)
    }
    fn replace_wrongly(&mut self, now: Time, dice: u64) {
        self.replace_wrongly_for_tests(now, dice);
    }
    fn reigns(&self) -> Vec<(Slot, Extent, Ballot)> {
        DhtNode::reigns(self).collect()
    }
    fn has_no_transactions(&self) -> bool {
        DhtNode::has_no_transactions(self)
    }
    fn describe(&self) -> String {
        DhtNode::describe(self)
    }
}
