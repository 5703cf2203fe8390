//! What every machine of a node uses: who it is, its settings, its counters, the way out.

use crate::api::{Effect, Event, Reply, RequestId};
use crate::config::Config;
use crate::counters::Rounds;
use crate::locations::Locations;
use crate::message::Message;
use crate::plant::Plant;
use crate::trace::Trace;
use core::time::Duration;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use ring::members::Members;
use ring::{Extent, NodeId, NodeRef, Offset, ReplicaId, RingId, Slot, Space, Time};
use std::collections::VecDeque;
use store::Ballot;

/// The surroundings of the machines of one node.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) me: NodeRef,
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) space: Space,
    pub(crate) ring: Option<RingId>,
    pub(crate) members: Members,
    pub(crate) locations: Locations,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) effects: VecDeque<Effect>,
    /// Messages of this node to itself, handled before the present input is done with.
    pub(crate) local: VecDeque<(Message, Option<Trace>)>,
    /// The trace that the present input is part of.
    pub(crate) trace: Option<Trace>,
    pub(crate) rounds: Rounds,
    ballot_counter: u64,
    replica_counter: u64,
    n_counter: u64,
    rpc_counter: u64,
}

impl Context {
    pub(crate) fn new(
        me: NodeRef,
        config: Config,
        space: Space,
        members: Members,
        rng: ChaCha8Rng,
        now: Time,
    ) -> Context {
        Context {
            me,
            config,
            now,
            space,
            ring: None,
            members,
            locations: Locations::new(&space),
            rng,
            effects: VecDeque::new(),
            local: VecDeque::new(),
            trace: None,
            rounds: Rounds::default(),
            ballot_counter: 0,
            replica_counter: 0,
            n_counter: 0,
            rpc_counter: 0,
        }
    }

    pub(crate) fn send(&mut self, to: NodeRef, message: Message) {
        self.send_in(self.trace, to, message);
    }

    /// Sends a message as part of a trace other than the present input's.
    pub(crate) fn send_in(&mut self, trace: Option<Trace>, to: NodeRef, message: Message) {
        let trace = trace.filter(|_| message.is_traced());
        if to.id == self.me.id {
            self.local.push_back((message, trace));
        } else {
            self.effects.push_back(Effect::Send { to, message, trace });
        }
    }

    pub(crate) fn reply(&mut self, id: RequestId, reply: Reply) {
        self.effects.push_back(Effect::Reply { id, reply });
    }

    pub(crate) fn announce(&mut self, event: Event) {
        self.effects.push_back(Effect::Announce(event));
    }

    /// A ballot above every one met.
    pub(crate) fn draw_ballot(&mut self) -> Ballot {
        self.ballot_counter += 1;
        Ballot { counter: self.ballot_counter, node: self.me.id }
    }

    pub(crate) fn meet_ballot(&mut self, b: Ballot) {
        self.ballot_counter = self.ballot_counter.max(b.counter);
    }

    /// A number above every high, floor, stamp and version met; one counter for all reigns of the process.
    pub(crate) fn draw_n(&mut self) -> u64 {
        self.n_counter += 1;
        self.n_counter
    }

    /// What [`Context::draw_n`] would give.
    pub(crate) fn next_n(&self) -> u64 {
        self.n_counter + 1
    }

    /// The highest n drawn or met.
    pub(crate) fn n(&self) -> u64 {
        self.n_counter
    }

    pub(crate) fn meet_n(&mut self, n: u64) {
        if !self.is_planted(Plant::NBelowHigh) {
            self.n_counter = self.n_counter.max(n);
        }
    }

    pub(crate) fn draw_rpc(&mut self) -> u64 {
        self.rpc_counter += 1;
        self.rpc_counter
    }

    pub(crate) fn draw_replica(&mut self) -> ReplicaId {
        self.replica_counter += 1;
        ReplicaId { node: self.me.id, counter: self.replica_counter }
    }

    /// The counters of ballots, replicas, n and questions, for a model that tells states apart.
    #[cfg(test)]
    pub(crate) fn counters(&self) -> [u64; 4] {
        [self.ballot_counter, self.replica_counter, self.n_counter, self.rpc_counter]
    }

    /// Who owns an offset in a slot, this node included.
    pub(crate) fn owner(&self, slot: Slot, offset: Offset) -> Option<NodeRef> {
        self.locations.owner(slot, offset)
    }

    /// The owner, if it is not suspected.
    pub(crate) fn live_owner(&self, slot: Slot, offset: Offset) -> Option<NodeRef> {
        self.owner(slot, offset).filter(|n| self.is_live(n.id))
    }

    /// The rule that a test breaks in this node, if any.
    pub(crate) fn planted(&self) -> Option<Plant> {
        self.config.planted()
    }

    pub(crate) fn is_planted(&self, plant: Plant) -> bool {
        self.planted() == Some(plant)
    }

    /// A quorum, or one less if a test breaks `plant`.
    pub(crate) fn quorum_unless(&self, plant: Plant) -> usize {
        (self.space.quorum() - usize::from(self.is_planted(plant))).max(1)
    }

    pub(crate) fn is_live(&self, id: NodeId) -> bool {
        id == self.me.id || self.members.is_live(id)
    }

    /// Whom to ask for an offset: its owner, or, if nobody told of one, the node that should be it.
    pub(crate) fn owner_or_guess(&self, slot: Slot, offset: Offset) -> Option<NodeRef> {
        self.owner(slot, offset).or_else(|| {
            let at = self.space.position(slot, offset);
            // The first node clockwise: ends at or after the position come before those that lie around.
            let others = self.members.live_infos().filter(|m| m.node.id != self.me.id);
            others.min_by_key(|m| (m.end < at, m.end)).map(|m| m.node)
        })
    }

    /// Corrects by what a node said where it was taken for the owner: in the part that it named, or, if it named none,
    /// at the offset that it was asked for.
    pub(crate) fn learn_not_owner(
        &mut self,
        slot: Slot,
        offset: Offset,
        told: Option<Extent>,
        asked: NodeId,
        hint: Option<NodeRef>,
    ) {
        let told = told.and_then(|e| e.intersect(&self.space.whole())).unwrap_or(Extent::point(offset));
        for (part, owner) in self.locations.pieces(slot, told) {
            if owner.is_none_or(|o| o.id == asked && o.id != self.me.id) {
                match hint.filter(|h| h.id != asked) {
                    Some(h) => self.locations.set(slot, part, h),
                    None => self.locations.clear(slot, part),
                }
            }
        }
    }

    /// `base` lengthened by up to a half, so that nodes do not act in step.
    pub(crate) fn jitter(&mut self, base: Duration) -> Duration {
        let half = u64::try_from(base.as_micros() / 2).unwrap_or(0).max(1);
        base + Duration::from_micros(self.rng.next_u64() % half)
    }
}
