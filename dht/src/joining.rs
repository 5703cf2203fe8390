//! Join or create: how a node comes into a ring, and how lost ones are called home.
//!
//! A creator that names itself as known host waits a moment, on probation, to be called by a ring that lost it;
//! members of a ring that lost somebody knock at the lost addresses and the configured ones. A called creator
//! with one member and no acknowledged write dissolves its ring and joins; the check and the end of serving are
//! one step. Two rings with data never merge by themselves.
//!
//! Source: `docs/protocol.md`, section 9.

use crate::api::{Event, Phase, Reply, RequestId};
use crate::dissolve::ForeignRing;
use crate::message::{JoinRefusal, Message, RingInfo};
use crate::node::DhtNode;
use crate::plant::Plant;
use paxos::{Acceptor, Configuration, Member};
use rand_core::RngCore;
use ring::members::{MemberInfo, MemberState};
use ring::placement::choose_end;
use ring::{NodeId, NodeRef, Position, RingId, Space, Time};
use std::net::SocketAddr;
use std::sync::Arc;

/// Applicants that are remembered; the others ask again by themselves.
const APPLICANTS_MAX: usize = 64;

/// The way into a ring.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    seeds: Vec<SocketAddr>,
    replication_factor: Option<u8>,
    pub(crate) next_knock: Option<Time>,
    probation_until: Time,
    knock_turn: usize,
    pub(crate) foreign_ring: Option<ForeignRing>,
    refusals_told: Vec<(SocketAddr, JoinRefusal)>,
    /// Who asked to be let in while this node was on probation.
    applicants: Vec<NodeRef>,
}

impl DhtNode {
    /// Begins.
    pub(crate) fn start(
        &mut self,
        id: RequestId,
        seeds: Vec<SocketAddr>,
        creates_at_once: bool,
        replication_factor: Option<u8>,
    ) {
        self.ctx.reply(id, Reply::Ok);
        if self.phase != Phase::Idle {
            return;
        }
        let names_itself = seeds.contains(&self.ctx.me.addr);
        self.joining.seeds = seeds;
        self.joining.seeds.retain(|a| *a != self.ctx.me.addr);
        self.joining.replication_factor = replication_factor;
        let is_sure = creates_at_once || self.ctx.is_planted(Plant::ProbationSkipped) && names_itself;
        if is_sure || !names_itself && self.joining.seeds.is_empty() {
            self.create_ring();
            self.become_member(true);
        } else if names_itself {
            self.create_ring();
            self.phase = Phase::Probation;
            // Long enough that a ring that lost this address has noticed, and knocked twice.
            let c = &self.ctx.config;
            let noticed = c.suspect_after + c.knock_interval * 2;
            self.joining.probation_until = self.ctx.now + c.probation.max(noticed);
        } else {
            self.phase = Phase::Joining;
        }
        self.joining.next_knock = Some(self.ctx.now);
        self.scan_joining();
    }

    /// The known hosts, resolved again.
    pub(crate) fn set_seeds(&mut self, mut seeds: Vec<SocketAddr>) {
        seeds.retain(|a| *a != self.ctx.me.addr);
        self.joining.seeds = seeds;
    }

    fn create_ring(&mut self) {
        let space = self.ctx.space;
        let ring = RingId(self.ctx.rng.next_u64().max(1));
        self.ctx.ring = Some(ring);
        let members: Vec<Member> =
            space.slots().map(|_| Member { replica: self.ctx.draw_replica(), since: 1 }).collect();
        let configuration = Arc::new(Configuration::new(ring, 1, members));
        for slot in space.slots() {
            self.acceptors.insert(Acceptor::new(slot, space.whole(), configuration.clone(), true));
            self.ctx.locations.set(slot, space.whole(), self.ctx.me);
        }
        // The first R nodes then own one whole slot each, and intervals are not cut where slots meet.
        let end = space.position(space.replicas() - 1, space.whole().hi);
        let now = self.ctx.now;
        self.ctx.members.update_me(now, |m| (m.end, m.state) = (end, MemberState::Alive));
        self.ctx.members.set_strength((1, 1));
        self.is_owned_changed = true;
    }

    fn become_member(&mut self, is_creator: bool) {
        self.phase = Phase::Member;
        self.is_creator = is_creator;
        self.is_duty_due = true;
        self.next_duty = self.ctx.now;
        if let Some(ring) = self.ctx.ring {
            self.ctx.announce(Event::Joined { ring, is_creator });
            let info = self.ring_info(ring);
            for to in std::mem::take(&mut self.joining.applicants) {
                self.ctx.send(to, Message::Knock { info: info.clone(), members: 1 });
            }
        }
    }

    /// Whether this ring may be given up: it is ours alone and nothing was acknowledged in it.
    fn may_dissolve(&self) -> bool {
        let is_alone = self.ctx.members.iter().next().is_none();
        is_alone
            && !self.has_acknowledged
            && self.acceptors.keys() == 0
            && (self.phase == Phase::Probation || self.phase == Phase::Member && self.is_creator)
    }

    fn dissolve(&mut self) {
        if let Some(ring) = self.ctx.ring.take() {
            self.ctx.announce(Event::Dissolved { ring });
        }
        for at in self.homes.reigns.keys() {
            self.lose_reign(at, None);
        }
        self.acceptors = crate::acceptors::Acceptors::default();
        self.ctx.locations = crate::locations::Locations::new(&self.ctx.space);
        self.phase = Phase::Joining;
        self.is_creator = false;
        self.joining.next_knock = Some(self.ctx.now);
    }

    fn ring_info(&self, ring: RingId) -> RingInfo {
        let replication_factor = self.ctx.space.replicas();
        RingInfo { ring, replication_factor, strength: self.ctx.members.strength() }
    }

    /// Somebody asks to be let in.
    pub(crate) fn on_join(&mut self, from: NodeRef, mut info: MemberInfo, replication_factor: Option<u8>) {
        if info.node.id != from.id || from.id == self.ctx.me.id {
            return;
        }
        let deny = |node: &mut DhtNode, r| node.ctx.send(from, Message::JoinDenied(r));
        // Of two creators on probation that name each other the one with the lower id lets the other in.
        if self.phase == Phase::Probation
            && self.joining.seeds.contains(&from.addr)
            && self.ctx.me.id < from.id
        {
            self.become_member(true);
        }
        let Some(ring) = self.ctx.ring.filter(|_| matches!(self.phase, Phase::Member | Phase::Leaving))
        else {
            let applicants = &mut self.joining.applicants;
            if self.phase == Phase::Probation
                && !applicants.contains(&from)
                && applicants.len() < APPLICANTS_MAX
            {
                applicants.push(from);
            }
            deny(self, JoinRefusal::NotReady);
            return;
        };
        let own = self.ctx.space.replicas();
        if replication_factor.is_some_and(|r| r != own) {
            deny(self, JoinRefusal::ReplicationFactor { ring: own });
            return;
        }
        let known = self.ctx.members.get(from.id).map(|m| (m.info.node.addr, m.info.end));
        let end = match known {
            Some((addr, _)) if addr != from.addr => {
                deny(self, JoinRefusal::IdTaken);
                return;
            }
            Some((_, end)) => end,
            None => {
                let jitter = self.ctx.rng.next_u64();
                let end = choose_end(&self.ctx.space, &self.stayers(), from.id, jitter);
                (info.end, info.incarnation, info.state) = (end, 1, MemberState::Alive);
                info.owned.clear();
                let now = self.ctx.now;
                // A new process at an address means that the one before is gone.
                let former: Vec<NodeId> = self
                    .ctx
                    .members
                    .iter()
                    .filter(|m| m.info.node.addr == from.addr && m.info.node.id != from.id)
                    .map(|m| m.info.node.id)
                    .collect();
                for id in former {
                    self.ctx.members.connection_lost(now, id);
                }
                self.ctx.members.merge(now, vec![info]);
                end
            }
        };
        let mut members: Vec<MemberInfo> = self.ctx.members.live_infos().cloned().collect();
        members.extend(self.ctx.members.lost().cloned());
        members.retain(|m| m.node.id != from.id);
        let info = self.ring_info(ring);
        self.ctx.send(from, Message::JoinAccepted { info, end, members });
    }

    /// Let in.
    pub(crate) fn on_join_accepted(&mut self, info: &RingInfo, end: Position, members: Vec<MemberInfo>) {
        match self.phase {
            Phase::Joining => {}
            Phase::Probation if self.may_dissolve() => self.dissolve(),
            Phase::Probation | Phase::Idle | Phase::Member | Phase::Leaving | Phase::Left => return,
        }
        let Some(space) = Space::new(info.replication_factor) else { return };
        let (slot, offset) = space.split(end);
        let end = space.position(slot, offset);
        self.ctx.space = space;
        self.ctx.ring = Some(info.ring);
        self.ctx.locations = crate::locations::Locations::new(&space);
        let now = self.ctx.now;
        self.ctx.members.update_me(now, |m| {
            (m.end, m.state) = (end, MemberState::Alive);
            m.owned.clear();
            m.incarnation = m.incarnation.max(1);
        });
        self.ctx.members.merge_strength(info.strength);
        self.ctx.members.merge(now, members);
        self.become_member(false);
    }

    /// Not let in.
    pub(crate) fn on_join_denied(&mut self, from: NodeRef, refusal: JoinRefusal) {
        if self.phase == Phase::Joining && !self.joining.refusals_told.contains(&(from.addr, refusal)) {
            self.joining.refusals_told.push((from.addr, refusal));
            self.ctx.announce(Event::JoinDenied { by: from, refusal });
        }
    }

    /// A ring that lost somebody asks who lives here.
    pub(crate) fn on_knock(&mut self, from: NodeRef, info: &RingInfo, members: u32) {
        match self.phase {
            Phase::Joining => self.ask_to_join(from.addr),
            Phase::Probation | Phase::Member => {
                let Some(own) = self.ctx.ring.filter(|r| *r != info.ring) else { return };
                // Of two rings of one the younger goes: one that had more nodes has data. If both are new, the one with
                // the higher id.
                let (theirs, ours) = (info.strength.0, self.ctx.members.strength().0);
                let is_younger = theirs > ours || theirs == ours && own > info.ring;
                if self.may_dissolve() && (members > 1 || is_younger) {
                    self.dissolve();
                    if !self.joining.seeds.contains(&from.addr) {
                        self.joining.seeds.push(from.addr);
                    }
                    self.ask_to_join(from.addr);
                } else if !self.may_dissolve() {
                    self.ctx.send(from, Message::KnockDenied { ring: own });
                    self.tell_foreign(from, info.ring);
                }
            }
            Phase::Idle | Phase::Leaving | Phase::Left => {}
        }
    }

    /// Another ring with data lives at an address of ours.
    pub(crate) fn on_knock_denied(&mut self, from: NodeRef, ring: RingId) {
        if self.ctx.ring.is_some_and(|r| r != ring) {
            self.tell_foreign(from, ring);
        }
    }

    fn tell_foreign(&mut self, by: NodeRef, ring: RingId) {
        let before = self.joining.foreign_ring.replace(ForeignRing { ring, by, heard: self.ctx.now });
        if before.is_none_or(|f| f.ring != ring) {
            self.ctx.announce(Event::ForeignRing { by, ring });
        }
    }

    fn ask_to_join(&mut self, addr: SocketAddr) {
        let info = self.ctx.members.me().clone();
        let replication_factor = self.joining.replication_factor;
        let to = NodeRef { id: NodeId::ANY, addr };
        self.ctx.send(to, Message::Join { info, replication_factor });
    }

    /// Knocks and asks again.
    pub(crate) fn scan_joining(&mut self) {
        let now = self.ctx.now;
        if self.joining.next_knock.is_none_or(|t| t > now) {
            return;
        }
        let mut next = now + self.ctx.config.knock_interval;
        if self.phase == Phase::Probation && self.joining.probation_until > now {
            next = next.min(self.joining.probation_until);
        }
        self.joining.next_knock = Some(next);
        match self.phase {
            Phase::Joining => {
                for addr in self.joining.seeds.clone() {
                    self.ask_to_join(addr);
                }
            }
            Phase::Probation => {
                if self.joining.probation_until <= now {
                    self.become_member(true);
                } else {
                    for addr in self.joining.seeds.clone() {
                        self.ask_to_join(addr);
                    }
                }
            }
            Phase::Member => self.knock(),
            Phase::Idle | Phase::Leaving | Phase::Left => {}
        }
    }

    /// One knock at an address at which a member was lost, or that is a known host without a member.
    fn knock(&mut self) {
        let Some(ring) = self.ctx.ring else { return };
        let live: Vec<SocketAddr> = self
            .ctx
            .members
            .live_infos()
            .filter(|m| self.ctx.is_live(m.node.id))
            .map(|m| m.node.addr)
            .collect();
        let mut at: Vec<SocketAddr> = self.ctx.members.lost().map(|m| m.node.addr).collect();
        // One that is only suspected may have been restarted, and be about to found a ring of its own.
        at.extend(self.ctx.members.iter().filter(|m| m.is_suspected).map(|m| m.info.node.addr));
        at.extend(self.joining.seeds.iter().copied());
        at.sort_unstable();
        at.dedup();
        at.retain(|a| !live.contains(a));
        if at.is_empty() {
            return;
        }
        self.joining.knock_turn = self.joining.knock_turn.wrapping_add(1);
        if let Some(addr) = at.get(self.joining.knock_turn % at.len()).copied() {
            let info = self.ring_info(ring);
            let members = u32::try_from(live.len()).unwrap_or(u32::MAX);
            self.ctx.send(NodeRef { id: NodeId::ANY, addr }, Message::Knock { info, members });
        }
    }
}
