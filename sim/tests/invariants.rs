//! The invariants are looked at in whole runs: three machines that show fixed acceptors.

#![allow(clippy::wildcard_enum_match_arm, reason = "toys know few of the cases")]

#[path = "toy/shared.rs"]
mod shared;

use dht::{Config, Effect, Message, Request, RequestId};
use paxos::{Acceptor, Configuration, Member};
use ring::{NodeId, NodeRef, ReplicaId, RingId, Space, Time};
use shared::Shared;
use sim::cluster::address;
use sim::{Machine, Profile, Scenario, Settings, run};
use std::sync::Arc;
use store::{Ballot, Stamp};

const RIGHT: u8 = 0;
/// Two nodes have the same replica.
const TWINS: u8 = 1;
/// A promise is forgotten.
const FORGETS: u8 = 2;
/// One node installed another successor than the others.
const FORKS: u8 = 3;
/// A slot has no owner.
const GAP: u8 = 4;

struct Fixed<const BUG: u8> {
    inner: Shared<false>,
    acceptor: Acceptor,
    handled: u64,
}

impl<const BUG: u8> Fixed<BUG> {
    fn touch(&mut self) {
        self.handled += 1;
        let counter = if BUG == FORGETS && self.handled == 40 { 1 } else { self.handled };
        let ballot = Ballot { counter, node: NodeId(1) };
        self.acceptor.homes[0].promised = ballot;
        self.acceptor.homes[0].floor = self.acceptor.homes[0].floor.max(Stamp { ballot, n: self.handled });
    }
}

impl<const BUG: u8> Machine for Fixed<BUG> {
    const IS_REPLICATED: bool = true;

    fn new(config: Config, me: NodeRef, seed: u64, now: Time) -> Self {
        let space = Space::new(3).expect("valid");
        let host = (0..3u8).find(|h| address(u16::from(*h) + 1) == me.addr).expect("three hosts");
        let members = |last| {
            let nodes = [1, 2, last];
            nodes.map(|n| Member { replica: ReplicaId { node: NodeId(n), counter: 1 }, since: 1 }).to_vec()
        };
        let slot = match (BUG, host) {
            (TWINS, 1) => 0,
            (GAP, 2) => 1,
            _ => host,
        };
        let last = if BUG == FORKS && host == 1 { 4 } else { 3 };
        let configuration = Arc::new(Configuration::new(RingId(1), 1, members(last)));
        let mut acceptor = Acceptor::new(slot, space.whole(), configuration, true);
        if BUG == GAP && host == 2 {
            acceptor.is_complete = false;
        }
        Fixed { inner: Shared::new(config, me, seed, now), acceptor, handled: 0 }
    }
    fn handle_message(&mut self, now: Time, from: NodeRef, message: Message) {
        self.inner.handle_message(now, from, message);
    }
    fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        self.touch();
        self.inner.handle_request(now, id, request);
    }
    fn handle_connection_lost(&mut self, now: Time, peer: NodeRef) {
        self.inner.handle_connection_lost(now, peer);
    }
    fn handle_timeout(&mut self, now: Time) {
        self.touch();
        self.inner.handle_timeout(now);
    }
    fn poll_effect(&mut self) -> Option<Effect> {
        self.inner.poll_effect()
    }
    fn next_timeout(&self) -> Option<Time> {
        self.inner.next_timeout()
    }
    fn acceptors(&self) -> impl Iterator<Item = &Acceptor> + Clone {
        std::iter::once(&self.acceptor)
    }
}

fn invariant<const BUG: u8>() -> Option<&'static str> {
    let mut s = Settings::draw(1, Profile::Steady, Scenario::Load, 3, 200);
    s.config.replication_factor = 3;
    run::<Fixed<BUG>>(&s, false).violation.map(|v| v.invariant)
}

#[test]
fn fixed_acceptors_that_are_right_pass() {
    assert_eq!(invariant::<RIGHT>(), None);
}

#[test]
fn a_replica_at_two_nodes_is_caught() {
    assert_eq!(invariant::<TWINS>(), Some("I3"));
}

#[test]
fn a_forgotten_promise_is_caught() {
    assert_eq!(invariant::<FORGETS>(), Some("promises"));
}

#[test]
fn two_configurations_of_an_epoch_are_caught() {
    assert_eq!(invariant::<FORKS>(), Some("I3"));
}

#[test]
fn a_slot_without_owner_is_caught() {
    assert_eq!(invariant::<GAP>(), Some("I6"));
}
