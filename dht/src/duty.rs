//! Duty: what a node does so that every position has a live, complete owner in the right place.
//!
//! From the member table each node computes the same arcs. What it owns outside its arc it hands over to the
//! node whose arc it is; what has no live owner inside its arc it replaces. Join, leave and slide are all this
//! one rule. A wrong table costs work, never data.
//!
//! Source: `docs/protocol.md`, sections 1 (placement) and 6 (duty).

use crate::api::{Event, Phase, Reply};
use crate::message::Message;
use crate::node::DhtNode;
use crate::plant::Plant;
use core::time::Duration;
use paxos::Configuration;
use rand_core::RngCore;
use ring::members::MemberState;
use ring::placement::{arcs, choose_end};
use ring::{Extent, NodeId, NodeRef, Offset, Position, Slot};
use std::sync::Arc;

/// Pieces without a known owner that are asked for in one turn.
const UNKNOWN_ASKED_PER_TURN: usize = 16;
/// Reigns begun in one turn without having been asked for.
const REIGNS_PER_TURN: usize = 32;

impl DhtNode {
    /// Members that are to own something: alive, dead ones and those that leave not counted.
    pub(crate) fn stayers(&self) -> Vec<(NodeId, Position)> {
        self.ctx
            .members
            .live_infos()
            .filter(|m| m.state == MemberState::Alive)
            .map(|m| (m.node.id, m.end))
            .collect()
    }

    /// Whether a node may hold two slots of an offset: only in a ring that never had more than it has, or that
    /// shrank by graceful leaves.
    pub(crate) fn may_double(&self) -> bool {
        let n = self.stayers().len();
        n < usize::from(self.ctx.space.replicas()) && usize::from(self.ctx.members.strength().1) <= n
    }

    pub(crate) fn is_gone(&self, id: NodeId) -> bool {
        self.ctx.members.get(id).is_none_or(|m| matches!(m.info.state, MemberState::Dead | MemberState::Left))
    }

    /// One turn.
    pub(crate) fn do_duty(&mut self) {
        let now = self.ctx.now;
        if !matches!(self.phase, Phase::Member | Phase::Leaving) {
            return;
        }
        if self.next_duty > now && !self.is_duty_due {
            return;
        }
        let is_regular = self.next_duty <= now;
        self.is_duty_due = false;
        if is_regular {
            self.next_duty = now + self.ctx.jitter(self.ctx.config.duty_interval);
            self.acceptors.join_neighbours();
            self.tend_strength();
            self.report_load();
            self.scrub();
            self.look_after_transactions();
            if self.next_tend <= now {
                self.next_tend = now + Duration::from_millis(500);
                self.refresh_locations();
                self.ask_about_frozen();
                self.ask_about_configurations();
                self.ask_for_owners();
                self.tend_handovers();
            }
        }
        self.begin_reigns();
        if self.phase == Phase::Leaving && self.try_leave() {
            return;
        }
        let is_settled = now.since(self.ctx.members.changed_at()) >= self.ctx.config.settle_time;
        if !is_settled {
            let settles_at = self.ctx.members.changed_at() + self.ctx.config.settle_time;
            self.next_duty = self.next_duty.min(settles_at);
            return;
        }
        if is_regular {
            self.unite_reigns();
            self.leave_an_empty_arc();
        }
        let desired = self.desired();
        self.give_what_is_not_ours(&desired);
        if is_regular && self.phase == Phase::Member {
            self.replace_what_has_no_owner(&desired);
        }
    }

    /// Wishes for another end where others leave this node nothing: it was told the same end as another, by members
    /// that did not hear each other.
    fn leave_an_empty_arc(&mut self) {
        let me = self.ctx.me.id;
        let stayers = self.stayers();
        if self.phase != Phase::Member
            || !arcs(&self.ctx.space, &stayers).iter().any(|a| a.node == me && a.is_empty)
        {
            return;
        }
        let others: Vec<(NodeId, Position)> = stayers.into_iter().filter(|s| s.0 != me).collect();
        let jitter = self.ctx.rng.next_u64();
        let end = choose_end(&self.ctx.space, &others, me, jitter);
        let now = self.ctx.now;
        self.ctx.members.update_me(now, |m| m.end = end);
    }

    /// Which node should own what.
    fn desired(&self) -> Vec<(Slot, Extent, NodeId)> {
        let space = &self.ctx.space;
        arcs(space, &self.stayers())
            .into_iter()
            .filter(|a| !a.is_empty)
            .flat_map(|a| space.pieces(a.from, a.to).into_iter().map(move |(s, e)| (s, e, a.node)))
            .collect()
    }

    fn give_what_is_not_ours(&mut self, desired: &[(Slot, Extent, NodeId)]) {
        if self.handovers.is_giving() || self.handover_pause_until > self.ctx.now {
            return;
        }
        let me = self.ctx.me.id;
        let mut wanted: Vec<(Slot, Extent, NodeRef)> = Vec::new();
        for (slot, extent, node) in desired.iter().filter(|d| d.2 != me) {
            if !self.ctx.members.is_live(*node) || !self.may_give_to(*node) {
                continue;
            }
            let Some(to) = self.ctx.members.get(*node).map(|m| m.info.node) else { continue };
            for (part, a) in self.acceptors.parts(*slot, *extent) {
                if a.is_active() {
                    wanted.push((*slot, part, to));
                }
            }
        }
        // What is doubled here goes to anybody who has no slot of it, since the one who should have it may hold
        // another until somebody takes that.
        if !self.may_double() && (wanted.is_empty() || self.ctx.rng.next_u64().is_multiple_of(2)) {
            let doubled = self.doubled_parts(desired);
            if !doubled.is_empty() {
                wanted = doubled;
            }
        }
        if wanted.is_empty() {
            return;
        }
        // Any of them: one that is refused must not hold up the others.
        let pick = usize::try_from(self.ctx.rng.next_u64() >> 1).unwrap_or(0) % wanted.len();
        let Some((slot, part, to)) = wanted.get(pick).copied() else { return };
        let chunk = self.chunk(slot, part, to);
        self.begin_handover(slot, chunk, to);
    }

    /// Parts of which this node holds another slot too and which are not meant for it, each with a node that holds
    /// no slot of it.
    fn doubled_parts(&self, desired: &[(Slot, Extent, NodeId)]) -> Vec<(Slot, Extent, NodeRef)> {
        let me = self.ctx.me.id;
        let mut out = Vec::new();
        for a in self.acceptors.owned().filter(|a| a.is_active()) {
            for b in self.acceptors.owned().filter(|b| b.slot != a.slot) {
                let Some(part) = a.extent.intersect(&b.extent) else { continue };
                if desired.iter().any(|(s, e, n)| *s == a.slot && *n == me && e.contains(part.lo)) {
                    continue;
                }
                let mut extent = part;
                for s in self.ctx.space.slots() {
                    extent = self.ctx.locations.around(s, extent.lo, extent);
                }
                let holders: Vec<NodeId> = self
                    .ctx
                    .space
                    .slots()
                    .filter_map(|s| self.ctx.owner(s, extent.lo))
                    .map(|n| n.id)
                    .collect();
                for (id, _) in self.stayers() {
                    if id != me
                        && !holders.contains(&id)
                        && self.ctx.members.is_live(id)
                        && self.may_give_to(id)
                        && let Some(m) = self.ctx.members.get(id)
                    {
                        out.push((a.slot, extent, m.info.node));
                    }
                }
            }
        }
        out
    }

    /// The end of `part` next to what `to` owns, of about a chunk's bytes: so that arcs move by their ends and are
    /// not cut into islands.
    fn chunk(&self, slot: Slot, part: Extent, to: NodeRef) -> Extent {
        let Some(a) = self.acceptors.find(slot, part.lo) else { return part };
        let is_at =
            |o: Option<Offset>| o.and_then(|o| self.ctx.owner(slot, o)).is_some_and(|n| n.id == to.id);
        let is_from_above = is_at(part.hi.checked_add(1)) && !is_at(part.lo.checked_sub(1));
        let bytes_max = self.ctx.config.chunk_bytes_max;
        if is_from_above {
            let lo = a.registers.last_of(part, bytes_max);
            return Extent::new(lo, part.hi);
        }
        Extent::new(part.lo, a.registers.first_of(part, bytes_max))
    }

    /// Asks every member for the owners that nobody told of: what a member tells of itself is limited, and a piece
    /// without a known owner can neither be voted for nor replaced.
    fn ask_for_owners(&mut self) {
        let space = self.ctx.space;
        let mut unknown: Vec<(Slot, Extent)> = Vec::new();
        let mine: Vec<Extent> = self.acceptors.owned().map(|a| a.extent).collect();
        for slot in space.slots() {
            let pieces = self.ctx.locations.pieces(slot, space.whole());
            for (extent, _) in pieces.into_iter().filter(|p| p.1.is_none()) {
                unknown.extend(mine.iter().filter_map(|m| m.intersect(&extent)).map(|part| (slot, part)));
            }
        }
        // Not always the same ones, if there are too many for one turn.
        let from = usize::try_from(self.ctx.rng.next_u64() >> 1).unwrap_or(0) % unknown.len().max(1);
        unknown.rotate_left(from);
        unknown.truncate(UNKNOWN_ASKED_PER_TURN);
        for (slot, extent) in unknown {
            self.ask_for_owner(slot, extent);
        }
    }

    fn ask_for_owner(&mut self, slot: Slot, extent: Extent) {
        let me = self.ctx.me.id;
        let members = self.ctx.members.live_infos().map(|m| m.node);
        let others: Vec<NodeRef> = members.filter(|m| m.id != me).collect();
        for to in others {
            self.ctx.send(to, Message::ConfigurationQuery { rpc: 0, slot, extent });
        }
    }

    /// What a member said that it owns, where nobody is known.
    pub(crate) fn learn_places(
        &mut self,
        from: NodeRef,
        slot: Slot,
        pieces: &[(Extent, Arc<Configuration>, bool)],
    ) {
        for (extent, _, _) in pieces {
            self.learn_place(from, slot, *extent);
        }
    }

    /// An answer showed that `from` owns `extent`: noted where nobody is known.
    pub(crate) fn learn_place(&mut self, from: NodeRef, slot: Slot, extent: Extent) {
        for (part, owner) in self.ctx.locations.pieces(slot, extent) {
            if owner.is_none() {
                self.ctx.locations.set(slot, part, from);
            }
        }
    }

    fn replace_what_has_no_owner(&mut self, desired: &[(Slot, Extent, NodeId)]) {
        let now = self.ctx.now;
        let me = self.ctx.me.id;
        let may_double = self.may_double() || self.ctx.is_planted(Plant::HoldsTwoSlots);
        let mut holes: Vec<(Slot, Extent)> = Vec::new();
        // A chunk whose giver is gone counts as a slot held here: nobody else's arc can come to lie over it, so that
        // whoever should replace it may never be able to.
        let orphans: Vec<(Slot, Extent, NodeId)> =
            self.handovers.received().filter(|r| self.is_gone(r.0)).map(|(_, s, e)| (s, e, me)).collect();
        for (slot, extent, _) in desired.iter().chain(&orphans).filter(|d| d.2 == me) {
            for (part, owner) in self.ctx.locations.pieces(*slot, *extent) {
                if owner.is_some_and(|o| o.id != me && !self.is_gone(o.id)) {
                    continue;
                }
                let mut rest = vec![part];
                let own = self
                    .acceptors
                    .iter()
                    .filter(|a| a.slot == *slot && !a.is_frozen || !may_double && a.slot != *slot);
                for a in own {
                    rest = rest.into_iter().flat_map(|r| r.minus(&a.extent)).collect();
                }
                holes.extend(rest.into_iter().map(|r| (*slot, r)));
            }
        }
        self.holes.retain(|(s, e, _)| holes.iter().any(|(hs, he)| hs == s && he == e));
        let mut asked = 0;
        for (slot, extent) in holes {
            let is_known_dead = self.ctx.owner(slot, extent.lo).is_some();
            let since = self.holes.iter().find(|(s, e, _)| *s == slot && *e == extent).map(|h| h.2);
            // A hole without a known owner may only be news that is late, or a piece that its owner does not tell.
            let Some(since) = since else {
                if !is_known_dead {
                    if asked == UNKNOWN_ASKED_PER_TURN {
                        continue;
                    }
                    asked += 1;
                    self.ask_for_owner(slot, extent);
                }
                self.holes.push((slot, extent, now));
                continue;
            };
            let wait = if is_known_dead { Duration::from_millis(20) } else { self.ctx.config.dead_after };
            if now.since(since) < wait
                || self.replacements.pause_until > now
                || self.replacements.is_full()
                || self.replacements.is_at_work(extent, |_| true)
                || self.handovers.is_receiving(extent, |s| s != slot)
            {
                continue;
            }
            self.begin_replacement(slot, extent);
        }
    }

    /// Gathers the reigns that this node should have, before somebody asks.
    fn begin_reigns(&mut self) {
        let mut wanted: Vec<(Slot, Extent)> = Vec::new();
        let r = self.ctx.space.replicas();
        for a in self.acceptors.owned().filter(|a| a.is_active()) {
            wanted.push((a.slot, a.extent));
            for k in 1..r {
                let home = (a.slot + r - k) % r;
                // Slots from the home to the one before ours must all be without a live owner.
                let is_ours = (0..k).all(|j| self.ctx.live_owner((home + j) % r, a.extent.lo).is_none());
                if !is_ours {
                    break;
                }
                wanted.push((home, a.extent));
            }
        }
        let mut begun = 0;
        for (home, extent) in wanted {
            let mut at = Some(extent.lo);
            while let Some(offset) = at.filter(|o| *o <= extent.hi && begun < REIGNS_PER_TURN) {
                let hi = match self.homes.reigns.find(home, offset) {
                    Some(r) => r.extent.hi,
                    None => {
                        begun += 1;
                        match self.begin_reign(home, offset) {
                            Ok(lo) => self.homes.reigns.get((home, lo)).map_or(extent.hi, |r| r.extent.hi),
                            Err(_) => break,
                        }
                    }
                };
                at = hi.checked_add(1);
            }
        }
    }

    fn tend_strength(&mut self) {
        let n = self.stayers().len();
        let r = usize::from(self.ctx.space.replicas());
        let (version, strength) = self.ctx.members.strength();
        let now = u8::try_from(n.min(r)).unwrap_or(1);
        if now > strength || self.phase == Phase::Leaving && n < r && now < strength {
            self.ctx.members.set_strength((version + 1, now.max(1)));
        }
    }

    fn report_load(&mut self) {
        let (keys, bytes) = (self.acceptors.keys(), self.acceptors.weight());
        self.is_memory_full = bytes > self.ctx.config.memory_bytes_max;
        let (keys, bytes) = (u64::try_from(keys).unwrap_or(0), u64::try_from(bytes).unwrap_or(0));
        // Only changes worth telling: each one travels to every node.
        let old = self.ctx.members.me();
        let is_news = old.keys.abs_diff(keys) > old.keys / 8 + 16;
        if is_news && self.next_load_report <= self.ctx.now {
            self.next_load_report = self.ctx.now + Duration::from_secs(1);
            let now = self.ctx.now;
            self.ctx.members.update_me(now, |m| (m.keys, m.bytes) = (keys, bytes));
        }
    }

    /// A client's or the process' wish to leave.
    pub(crate) fn begin_leave(&mut self, id: crate::api::RequestId) {
        match self.phase {
            Phase::Member | Phase::Leaving => {
                self.leave_requests.push(id);
                if self.phase == Phase::Member {
                    self.phase = Phase::Leaving;
                    let now = self.ctx.now;
                    self.ctx.members.update_me(now, |m| m.state = MemberState::Leaving);
                    self.tend_strength();
                }
                self.is_duty_due = true;
            }
            Phase::Idle | Phase::Joining | Phase::Probation | Phase::Left => {
                self.phase = Phase::Left;
                self.ctx.reply(id, Reply::Left { is_clean: true });
            }
        }
    }

    /// Whether clients may ask for something: a node that leaves is their gateway until it has handed over everything.
    pub(crate) fn takes_requests(&self) -> bool {
        match self.phase {
            Phase::Member => true,
            Phase::Leaving => self.done_since.is_none(),
            Phase::Idle | Phase::Joining | Phase::Probation | Phase::Left => false,
        }
    }

    /// Whether the node has left: everything is handed over, or there is nobody to hand it to.
    fn try_leave(&mut self) -> bool {
        // Memory that is being filled counts, too: who was streamed to it cannot know that it never was complete.
        // Frozen memory, and the news that a member never was complete, may be what somebody needs to be whole.
        let has_nothing = self.acceptors.is_empty()
            && self.acceptors.frozen().is_empty()
            && self.acceptors.unfinished().is_empty()
            && self.handovers.all_arrived()
            && self.handovers.nothing_received();
        // All leave at once. One that only is not heard may be there still: then whoever waits decides how long.
        let has_nobody = self.stayers().is_empty() && self.ctx.members.lost().next().is_none();
        if !(has_nothing || has_nobody) {
            self.done_since = None;
            return false;
        }
        // From here on no new requests are taken, so that those that are open come to their end.
        let since = *self.done_since.get_or_insert(self.ctx.now);
        let is_asked = self.gateway.open_count > 0 || self.tx.open_count() > 0;
        if is_asked && self.ctx.now.since(since) < self.ctx.config.operation_deadline {
            return false;
        }
        self.phase = Phase::Left;
        let now = self.ctx.now;
        let is_clean = has_nothing;
        self.ctx.members.update_me(now, |m| {
            m.state = MemberState::Left;
            m.owned.clear();
        });
        self.publish_leave();
        self.answer_open_requests(is_clean);
        true
    }

    /// The node has ended: whoever asked it for something gets the answer now, since there will be none later.
    pub(crate) fn answer_open_requests(&mut self, is_clean: bool) {
        self.end_operations();
        self.end_transactions();
        for id in std::mem::take(&mut self.leave_requests) {
            self.ctx.reply(id, Reply::Left { is_clean });
        }
    }

    /// Announcements of members that changed.
    pub(crate) fn tell_member(&mut self, id: NodeId, make: impl FnOnce(NodeRef) -> Event) {
        if let Some(node) = self.ctx.members.get(id).map(|m| m.info.node) {
            self.ctx.announce(make(node));
        }
    }
}
