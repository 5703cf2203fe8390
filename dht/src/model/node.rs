//! A node of the model: a [`DhtNode`] that can be copied, and that says of itself what tells its states apart.

use super::{START, Scope};
use crate::api::{Effect, Phase};
use crate::config::Config;
use crate::node::DhtNode;
use core::fmt::{Debug, Formatter, Result};
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use paxos::{Acceptor, Configuration, Member};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use ring::members::{DetectorConfig, MemberInfo, MemberState, Members};
use ring::{Extent, NodeId, NodeRef, ReplicaId, RingId, Slot, Time};
use std::net::SocketAddr;
use std::sync::Arc;

const RING: RingId = RingId(1);

/// A node, whom it takes for dead, by bit, and what it told last of what it owns.
pub(super) struct Node {
    inner: DhtNode,
    gone: u8,
    told: Vec<(Slot, Extent)>,
}

pub(super) fn reference(i: u8) -> NodeRef {
    NodeRef { id: NodeId(u64::from(i) + 1), addr: SocketAddr::from(([10, 0, 0, i + 1], 1)) }
}

/// The number of a node.
pub(super) fn number(of: NodeRef) -> u8 {
    u8::try_from(of.id.0).unwrap_or(0).saturating_sub(1)
}

fn info(i: u8, is_gone: bool) -> MemberInfo {
    MemberInfo {
        node: reference(i),
        client_addr: None,
        incarnation: 1,
        state: if is_gone { MemberState::Dead } else { MemberState::Alive },
        end: 0,
        owned: Vec::new(),
        keys: 0,
        bytes: 0,
        extra: Vec::new(),
    }
}

impl Node {
    /// A member of the ring; the first three have the slots of their number.
    pub(super) fn new(i: u8, scope: &Scope) -> Node {
        let config = Config { operation_id_age: Duration::ZERO, planted: scope.planted, ..Config::default() };
        let mut inner = DhtNode::new(config, reference(i), None, 1, START);
        (inner.phase, inner.ctx.ring) = (Phase::Member, Some(RING));
        // The counter of replicas starts above those that are there.
        inner.ctx.draw_replica();
        let member = |s| Member { replica: ReplicaId { node: reference(s).id, counter: 1 }, since: 1 };
        let members: Vec<Member> = scope.space.slots().map(member).collect();
        let configuration = Arc::new(Configuration::new(RING, 1, members));
        for slot in scope.space.slots() {
            inner.ctx.locations.set(slot, scope.space.whole(), reference(slot));
            if slot == i {
                inner.acceptors.insert(Acceptor::new(slot, scope.space.whole(), configuration.clone(), true));
            }
        }
        let told = inner.acceptors.summary();
        let mut node = Node { inner, gone: 0, told };
        node.believe(0, scope.nodes);
        node
    }

    /// What it owns, if that is news to the others; it knows it itself then.
    pub(super) fn tell_owned(&mut self) -> Option<Vec<(Slot, Extent)>> {
        let (owned, me) = (self.inner.acceptors.summary(), self.inner.ctx.me);
        self.inner.ctx.locations.set_owned_by(me, &owned);
        let is_news = owned != self.told;
        self.told.clone_from(&owned);
        is_news.then_some(owned)
    }

    /// Has the node tell the others anew what it owns.
    pub(super) fn forget_told(&mut self) {
        self.told.clear();
        self.inner.is_owned_changed = true;
    }

    pub(super) fn gone(&self) -> u8 {
        self.gone
    }

    /// Takes these nodes for dead, and no others.
    pub(super) fn believe(&mut self, gone: u8, nodes: u8) {
        self.gone = gone;
        let me = number(self.inner.ctx.me);
        let mut members = Members::new(DetectorConfig::default(), info(me, false), 1, START);
        members.merge(START, (0..nodes).filter(|i| *i != me).map(|i| info(i, gone >> i & 1 == 1)).collect());
        while members.poll_output().is_some() {}
        self.inner.ctx.members = members;
    }

    /// Gives the node an input, and lets it do all that needs neither another node nor time.
    pub(super) fn input(&mut self, now: Time, seed: u64, f: impl FnOnce(&mut DhtNode)) -> Vec<Effect> {
        let n = &mut self.inner;
        n.ctx.now = now;
        n.ctx.rng = ChaCha8Rng::seed_from_u64(seed);
        f(n);
        loop {
            n.handle_local();
            n.flush_confirms();
            if n.replacements.next_scan.is_some_and(|t| t <= n.ctx.now) {
                n.scan_replacements();
            } else if n.ctx.local.is_empty() {
                break;
            }
        }
        (n.is_duty_due, n.needs_flush) = (false, false);
        while n.ctx.members.poll_output().is_some() {}
        n.ctx.effects.drain(..).collect()
    }
}

impl Clone for Node {
    /// What no step of the model touches is made anew.
    fn clone(&self) -> Node {
        let n = &self.inner;
        let inner = DhtNode {
            ctx: n.ctx.clone(),
            phase: n.phase,
            acceptors: n.acceptors.clone(),
            homes: n.homes.clone(),
            gateway: n.gateway.clone(),
            handovers: n.handovers.clone(),
            replacements: n.replacements.clone(),
            tx: Default::default(),
            joining: Default::default(),
            inspections: Default::default(),
            salvage: None,
            holes: Vec::new(),
            leave_requests: Vec::new(),
            ..*n
        };
        Node { inner, gone: self.gone, told: self.told.clone() }
    }
}

impl Debug for Node {
    /// Counters of work done, the table of members (said by `gone`) and randomness (the same in every step) are left out.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let n = &self.inner;
        write!(
            f,
            "{:?} {:?} {:?} {:?} {:?} ",
            self.gone,
            self.told,
            n.ctx.counters(),
            n.ctx.locations,
            n.acceptors
        )?;
        write!(f, "{:?} {:?} {:?} {:?}", n.homes, n.gateway, n.handovers, n.replacements)
    }
}

impl Deref for Node {
    type Target = DhtNode;
    fn deref(&self) -> &DhtNode {
        &self.inner
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut DhtNode {
        &mut self.inner
    }
}
