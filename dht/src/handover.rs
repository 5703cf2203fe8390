//! Handover: the live owner of a chunk gives it to another live node.
//!
//! The giver serves while it copies, drains what its own reign has under way, stops, sends what changed, and
//! forgets the chunk only when the receiver holds the same count and digest. From then on the receiver is the
//! same replica, so no other replica need know.
//!
//! Keeps:
//! 1. Attempt ids of a giver grow; it begins the next only when the last was aborted or confirmed.
//! 2. The receiver ignores attempts lower than it has seen, and confirms again what it has activated.
//! 3. Before Activate the giver may abort and resume, after it never; the receiver serves only after it.
//!
//! Source: `docs/protocol.md`, section 5.

use crate::api::{Event, Phase};
use crate::message::{AcceptorState, Message, PageEntry};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::transfer::{acceptor_of, page, page_entry, state_of, store_entries};
use core::time::Duration;
use ring::members::MemberState;
use ring::{Extent, NodeId, NodeRef, Offset, Slot, Time};
use std::collections::{BTreeMap, BTreeSet};
use store::{Key, Registers};

/// Without progress for this long before Activate, the giver aborts.
const STALL: Duration = Duration::from_secs(2);
/// How often draining is looked at.
const DRAIN_POLL: Duration = Duration::from_millis(3);
/// Chunks received at once.
const RECEIVING_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Offered,
    Copying {
        after: Option<(Offset, Key)>,
        page: u32,
        is_last: bool,
    },
    Draining,
    /// Stopped; the final message is repeated until the receiver has it.
    Stopped {
        count: u64,
        digest: u64,
    },
    Activating,
}

#[derive(Clone, Debug)]
struct Giving {
    attempt: u64,
    slot: Slot,
    extent: Extent,
    to: NodeRef,
    stage: Stage,
    dirty: BTreeSet<(Offset, Key)>,
    sent: Message,
    resend_at: Time,
    progress_at: Time,
    keys: u64,
    /// The epoch in which the replica came in.
    since: u64,
}

#[derive(Clone, Debug)]
struct Receiving {
    from: NodeRef,
    state: AcceptorState,
    registers: Registers,
    page: u32,
    received: Option<(u64, u64)>,
    /// The question, asked after all had come, whether the replica lives elsewhere.
    query: u64,
}

#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    to: NodeRef,
    slot: Slot,
    extent: Extent,
    since: u64,
}

/// The handovers of one node: one given at a time, several received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handovers {
    attempts: u64,
    giving: Option<Giving>,
    receiving: BTreeMap<NodeId, (u64, Receiving)>,
    /// Activates whose receiver is not heard any more: repeated until they are confirmed.
    unconfirmed: BTreeMap<u64, Unconfirmed>,
    /// By giver: the highest attempt seen, and the last one activated.
    seen: BTreeMap<NodeId, (u64, u64)>,
    pub(crate) next_scan: Option<Time>,
}

impl Handovers {
    fn schedule(&mut self, at: Time) {
        self.next_scan = Some(self.next_scan.map_or(at, |n| n.min(at)));
    }

    pub(crate) fn is_giving(&self) -> bool {
        self.giving.is_some()
    }

    /// Whether all that was given is known to have arrived.
    pub(crate) fn all_arrived(&self) -> bool {
        self.giving.is_none() && self.unconfirmed.is_empty()
    }

    /// Handovers given or received at present.
    pub(crate) fn running(&self) -> usize {
        usize::from(self.giving.is_some()) + self.receiving.len()
    }

    pub(crate) fn describe(&self) -> String {
        let giving = self.giving.as_ref().map(|g| {
            format!("giving #{} slot {} {:?} to {} {:?}", g.attempt, g.slot, g.extent, g.to.addr, g.stage)
        });
        let receiving: Vec<String> = self
            .receiving
            .values()
            .map(|(a, r)| {
                format!(
                    "receiving #{a} slot {} {:?} from {} whole {}",
                    r.state.slot,
                    r.state.extent,
                    r.from.addr,
                    r.received.is_some()
                )
            })
            .collect();
        format!("{giving:?} {receiving:?} unconfirmed {:?}", self.unconfirmed)
    }

    /// Whether nothing is on its way here.
    pub(crate) fn nothing_received(&self) -> bool {
        self.receiving.values().all(|(_, r)| r.received.is_none())
    }

    /// Chunks that are whole here and whose giver may be gone for good, by giver.
    pub(crate) fn received(&self) -> impl Iterator<Item = (NodeId, Slot, Extent)> {
        let whole = self.receiving.iter().filter(|(_, (_, r))| r.received.is_some());
        whole.map(|(giver, (_, r))| (*giver, r.state.slot, r.state.extent))
    }

    /// Whether a chunk that overlaps is being received, in this slot or in another.
    pub(crate) fn is_receiving(&self, extent: Extent, slot: impl Fn(Slot) -> bool) -> bool {
        self.receiving
            .values()
            .any(|(_, r)| slot(r.state.slot) && r.state.extent.intersect(&extent).is_some())
    }
}

impl DhtNode {
    /// Offers a chunk; it must lie within one complete acceptor here.
    pub(crate) fn begin_handover(&mut self, slot: Slot, extent: Extent, to: NodeRef) {
        let Some(a) = self.acceptors.active(slot, extent.lo).filter(|a| a.extent.covers(&extent)) else {
            return;
        };
        let (since, state) = (a.since(), Box::new(state_of(a, extent, &self.ctx.space)));
        self.handovers.attempts += 1;
        let attempt = self.handovers.attempts;
        let sent = Message::HandoverOffer { attempt, state };
        self.ctx.send(to, sent.clone());
        let now = self.ctx.now;
        let resend_at = now + self.ctx.config.vote_timeout;
        self.handovers.schedule(resend_at);
        self.handovers.giving = Some(Giving {
            attempt,
            slot,
            extent,
            to,
            stage: Stage::Offered,
            dirty: BTreeSet::new(),
            sent,
            resend_at,
            progress_at: now,
            keys: 0,
            since,
        });
    }

    /// A key was written here: if it was copied already, it goes again with the final changes.
    pub(crate) fn note_dirty(&mut self, offset: Offset, key: &Key) {
        if let Some(g) = self.handovers.giving.as_mut().filter(|g| g.extent.contains(offset)) {
            g.dirty.insert((offset, key.clone()));
        }
    }

    /// A key was dropped here.
    pub(crate) fn note_dropped(&mut self, at: &(Offset, Key)) {
        self.note_dirty(at.0, &at.1);
    }

    fn giving(&mut self, from: NodeRef, attempt: u64) -> Option<&mut Giving> {
        let is_any = self.ctx.is_planted(Plant::AttemptsIgnored);
        self.handovers.giving.as_mut().filter(|g| (g.attempt == attempt || is_any) && g.to.id == from.id)
    }

    /// The receiver is ready for the next page.
    pub(crate) fn on_handover_continue(&mut self, from: NodeRef, attempt: u64, page: u32) {
        let now = self.ctx.now;
        if self.giving(from, attempt).is_none() {
            self.tell_what_became_of(from, attempt);
            return;
        }
        let Some(g) = self.giving(from, attempt) else { return };
        let is_next = match &g.stage {
            Stage::Offered => page == 0,
            Stage::Copying { page: sent, .. } => page == *sent,
            Stage::Draining | Stage::Stopped { .. } | Stage::Activating => false,
        };
        if is_next {
            g.progress_at = now;
            self.send_next_page();
        }
    }

    /// A receiver asks about an attempt that is not under way: either its Activate is unconfirmed, or it was
    /// aborted and the receiver did not hear that. (If it was confirmed, the receiver ignores the answer.)
    fn tell_what_became_of(&mut self, from: NodeRef, attempt: u64) {
        let is_unconfirmed = self.handovers.unconfirmed.get(&attempt).is_some_and(|u| u.to.id == from.id);
        let m = if is_unconfirmed {
            Message::HandoverActivate { attempt }
        } else {
            Message::HandoverAbort { attempt }
        };
        self.ctx.send(from, m);
    }

    fn send_next_page(&mut self) {
        let Some(g) = self.handovers.giving.as_mut() else { return };
        let (after, number) = match &g.stage {
            Stage::Offered => (None, 0),
            Stage::Copying { is_last: true, .. } => {
                g.stage = Stage::Draining;
                let (slot, extent) = (g.slot, g.extent);
                self.begin_drain(slot, extent);
                return;
            }
            Stage::Copying { after, page, .. } => (after.clone(), *page),
            Stage::Draining | Stage::Stopped { .. } | Stage::Activating => return,
        };
        let parts = self.acceptors.parts(g.slot, g.extent).map(|(_, a)| a);
        let (entries, is_last) = page(parts, g.extent, after.as_ref(), self.ctx.config.page_bytes_max);
        let after = entries.last().map(|e| (e.offset, e.key.clone())).or(after);
        g.stage = Stage::Copying { after, page: number + 1, is_last };
        g.sent = Message::HandoverPage { attempt: g.attempt, page: number + 1, entries };
        g.resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        let (to, m, at) = (g.to, g.sent.clone(), g.resend_at);
        self.handovers.schedule(at);
        self.ctx.send(to, m);
    }

    fn begin_drain(&mut self, slot: Slot, extent: Extent) {
        for at in self.homes.reigns.cut_out(extent, |r| r.anchor == slot) {
            if let Some(r) = self.homes.reigns.get_mut(at) {
                r.is_draining = !self.ctx.is_planted(Plant::GiverKeepsReign);
            }
        }
        self.try_stop();
    }

    /// Stops the acceptor of the chunk once its own reigns there have nothing under way.
    fn try_stop(&mut self) {
        let Some(g) = self.handovers.giving.as_ref().filter(|g| g.stage == Stage::Draining) else { return };
        let (slot, extent, to, attempt) = (g.slot, g.extent, g.to, g.attempt);
        let reigns = self.homes.reigns.cut_out(extent, |r| r.anchor == slot);
        if !reigns
            .iter()
            .all(|at| self.homes.reigns.get(*at).is_none_or(|r| !r.is_reigning() || r.is_quiet()))
        {
            let at = self.ctx.now + DRAIN_POLL;
            self.handovers.schedule(at);
            return;
        }
        // A Reign may have cut the acceptor meanwhile: what goes is the first piece, as one state.
        self.acceptors.join_neighbours();
        let first = self.acceptors.parts(slot, extent).next().map(|(part, a)| (part, a.is_active()));
        let Some((part, true)) = first.filter(|(p, _)| p.lo == extent.lo) else {
            self.abort_giving();
            return;
        };
        let ending = if self.ctx.is_planted(Plant::GiverKeepsReign) { Vec::new() } else { reigns };
        for at in ending {
            self.lose_reign(at, None);
        }
        self.acceptors.cut_extent(slot, part);
        let Some(a) = self.acceptors.find_mut(slot, part.lo) else { return };
        a.is_stopped = !self.ctx.is_planted(Plant::GiverKeepsVoting);
        let (count, digest) = a.registers.digest(part);
        let state = Box::new(state_of(a, part, &self.ctx.space));
        let (mut entries, mut dropped): (Vec<PageEntry>, Vec<(Offset, Key)>) = (Vec::new(), Vec::new());
        let Some(g) = self.handovers.giving.as_mut() else { return };
        for (o, k) in std::mem::take(&mut g.dirty).into_iter().filter(|d| part.contains(d.0)) {
            match a.registers.get(o, &k) {
                Some(e) => entries.push(page_entry(o, &k, e)),
                None => dropped.push((o, k)),
            }
        }
        if self.ctx.is_planted(Plant::ChangesLeftOut) {
            (entries, dropped) = Default::default();
        }
        g.extent = part;
        g.keys = count;
        g.stage = Stage::Stopped { count, digest };
        g.sent = Message::HandoverFinal { attempt, state, entries, dropped, count, digest };
        g.progress_at = self.ctx.now;
        g.resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        let (m, at) = (g.sent.clone(), g.resend_at);
        self.handovers.schedule(at);
        self.ctx.send(to, m);
    }

    /// The receiver holds the chunk.
    pub(crate) fn on_handover_received(&mut self, from: NodeRef, attempt: u64, count: u64, digest: u64) {
        let now = self.ctx.now;
        if self.giving(from, attempt).is_none() {
            self.tell_what_became_of(from, attempt);
            return;
        }
        let is_any_digest = self.ctx.is_planted(Plant::ChangesLeftOut);
        let Some(g) = self.giving(from, attempt) else { return };
        let Stage::Stopped { count: c, digest: d } = g.stage else { return };
        if (count, digest) != (c, d) && !is_any_digest {
            tracing::warn!(%from, attempt, count, digest, "the receiver of a chunk holds something else; aborting");
            self.abort_giving();
            return;
        }
        let (slot, extent, to, keys) = (g.slot, g.extent, g.to, g.keys);
        g.stage = Stage::Activating;
        g.sent = Message::HandoverActivate { attempt };
        g.progress_at = now;
        let m = g.sent.clone();
        if !self.ctx.is_planted(Plant::AbortAfterActivate) {
            self.acceptors.remove_within(slot, extent);
        }
        self.ctx.locations.set(slot, extent, to);
        self.is_owned_changed = true;
        self.ctx.announce(Event::HandedOver { slot, extent, to, keys });
        self.ctx.send(to, m);
    }

    /// The receiver serves the chunk: the handover is over.
    pub(crate) fn on_handover_activated(&mut self, from: NodeRef, attempt: u64) {
        if let Some(g) = self.giving(from, attempt).filter(|g| g.stage == Stage::Activating) {
            let (slot, extent) = (g.slot, g.extent);
            if self.ctx.is_planted(Plant::AbortAfterActivate) {
                self.acceptors.remove_within(slot, extent);
            }
            self.handovers.giving = None;
            self.is_duty_due = true;
        }
        if self.handovers.unconfirmed.get(&attempt).is_some_and(|u| u.to.id == from.id) {
            self.handovers.unconfirmed.remove(&attempt);
        }
    }

    /// Gives the attempt up and resumes; only before Activate.
    pub(crate) fn abort_giving(&mut self) {
        let Some(g) = self.handovers.giving.take() else { return };
        if g.stage == Stage::Activating {
            self.handovers.giving = Some(g);
            return;
        }
        for lo in self.acceptors.parts(g.slot, g.extent).map(|(e, _)| e.lo).collect::<Vec<_>>() {
            if let Some(a) = self.acceptors.find_mut(g.slot, lo) {
                a.is_stopped = false;
            }
        }
        for r in self.homes.reigns.iter_mut().filter(|r| r.anchor == g.slot && g.extent.covers(&r.extent)) {
            r.is_draining = false;
        }
        self.handover_pause_until = self.ctx.now + self.ctx.jitter(Duration::from_millis(150));
        self.ctx.send(g.to, Message::HandoverAbort { attempt: g.attempt });
    }

    /// Either side gives up.
    pub(crate) fn on_handover_abort(&mut self, from: NodeRef, attempt: u64) {
        if self.giving(from, attempt).is_some() {
            self.abort_giving();
            return;
        }
        if self.handovers.receiving.get(&from.id).is_some_and(|(a, _)| *a == attempt) {
            self.handovers.receiving.remove(&from.id);
        }
    }

    /// An offer: taken if the placement rule allows it.
    pub(crate) fn on_handover_offer(&mut self, from: NodeRef, attempt: u64, state: AcceptorState) {
        let seen = self.handovers.seen.entry(from.id).or_default();
        let is_unordered = self.ctx.is_planted(Plant::AttemptsUnordered);
        if (attempt < seen.0 || attempt <= seen.1) && !is_unordered {
            return;
        }
        if let Some((a, r)) = self.handovers.receiving.get(&from.id)
            && *a == attempt
        {
            let page = r.page;
            self.ctx.send(from, Message::HandoverContinue { attempt, page });
            return;
        }
        if attempt == seen.0 && !is_unordered {
            return;
        }
        seen.0 = attempt;
        // A lower attempt of this giver is over.
        self.handovers.receiving.remove(&from.id);
        let (slot, extent) = (state.slot, state.extent);
        let is_welcome = self.phase == Phase::Member
            && slot < self.ctx.space.replicas()
            && self.ctx.space.whole().covers(&extent)
            && self.handovers.receiving.len() < RECEIVING_MAX
            && !self.acceptors.overlaps(slot, extent)
            && !self.handovers.is_receiving(extent, |_| true)
            && !self.replacements.is_at_work(extent, |_| true)
            && (self.may_double()
                || self.ctx.is_planted(Plant::HoldsTwoSlots)
                || !self.acceptors.holds_other_slot(slot, extent));
        if !is_welcome {
            self.ctx.send(from, Message::HandoverAbort { attempt });
            return;
        }
        let receiving =
            Receiving { from, state, registers: Registers::new(), page: 0, received: None, query: 0 };
        self.handovers.receiving.insert(from.id, (attempt, receiving));
        self.ctx.send(from, Message::HandoverContinue { attempt, page: 0 });
    }

    /// A page of a chunk.
    pub(crate) fn on_handover_page(
        &mut self,
        from: NodeRef,
        attempt: u64,
        page: u32,
        entries: Vec<PageEntry>,
    ) {
        let is_any = self.ctx.is_planted(Plant::AttemptsIgnored);
        let Some((a, r)) = self.handovers.receiving.get_mut(&from.id) else { return };
        if *a != attempt && !is_any || r.received.is_some() {
            return;
        }
        if page == r.page + 1 {
            r.page = page;
            store_entries(&mut r.registers, r.state.extent, entries);
        }
        let page = r.page;
        self.ctx.send(from, Message::HandoverContinue { attempt, page });
    }

    /// The giver has stopped.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_handover_final(
        &mut self,
        from: NodeRef,
        attempt: u64,
        state: AcceptorState,
        entries: Vec<PageEntry>,
        dropped: &[(Offset, Key)],
    ) {
        let is_any = self.ctx.is_planted(Plant::AttemptsIgnored);
        let Some((a, r)) = self.handovers.receiving.get_mut(&from.id) else { return };
        if *a != attempt && !is_any || !r.state.extent.covers(&state.extent) || state.slot != r.state.slot {
            return;
        }
        if r.received.is_none() {
            let extent = state.extent;
            let mut registers = std::mem::take(&mut r.registers).split_off(extent.lo);
            if let Some(after) = extent.hi.checked_add(1) {
                drop(registers.split_off(after));
            }
            for (o, k) in dropped {
                registers.remove(*o, k);
            }
            store_entries(&mut registers, extent, entries);
            r.received = Some(registers.digest(extent));
            r.registers = registers;
            r.state = state;
        }
        let (count, digest) = r.received.unwrap_or((0, 0));
        self.ctx.send(from, Message::HandoverReceived { attempt, count, digest });
        if self.ctx.is_planted(Plant::ServedEarly) {
            self.on_handover_activate(from, attempt);
        }
    }

    /// The giver has forgotten the chunk: it is ours.
    pub(crate) fn on_handover_activate(&mut self, from: NodeRef, attempt: u64) {
        let seen = self.handovers.seen.entry(from.id).or_default();
        if attempt <= seen.1 {
            self.ctx.send(from, Message::HandoverActivated { attempt });
            return;
        }
        let is_any = self.ctx.is_planted(Plant::AttemptsIgnored);
        let here = self.handovers.receiving.get(&from.id).filter(|(a, _)| *a == attempt || is_any);
        match here.map(|(_, r)| r.received.is_some()) {
            Some(true) => seen.1 = attempt,
            Some(false) => return,
            None => {
                // It was whole here, since the giver was told so, and was discarded for a later member of its slot:
                // nothing is left to serve, and the giver need not wait.
                if attempt <= seen.0 {
                    seen.1 = attempt;
                    self.ctx.send(from, Message::HandoverActivated { attempt });
                }
                return;
            }
        }
        if let Some((_, r)) = self.handovers.receiving.remove(&from.id)
            && let Some(mut a) = acceptor_of(&r.state, r.registers, &self.ctx.space)
        {
            if self.ctx.is_planted(Plant::PromisesLeftBehind) {
                a.homes = Default::default();
            }
            if self.ctx.is_planted(Plant::DonatedLeftBehind) {
                (a.donated, a.refused) = Default::default();
            }
            self.ctx.meet_n(a.homes.iter().map(|h| h.high.max(h.floor.n)).max().unwrap_or(0));
            self.ctx.locations.set(a.slot, a.extent, self.ctx.me);
            if self.acceptors.overlaps(a.slot, a.extent) {
                // The member was replaced by one of ours while its memory was on the way.
                self.acceptors.insert_frozen(a);
            } else {
                self.acceptors.insert(a);
                self.acceptors.join_neighbours();
            }
            self.is_owned_changed = true;
        }
        self.ctx.send(from, Message::HandoverActivated { attempt });
    }

    /// Whether a chunk may be offered to this node: not while an Activate to it is unconfirmed, since a new
    /// offer tells it that the last attempt is over.
    pub(crate) fn may_give_to(&self, to: NodeId) -> bool {
        self.handovers.giving.is_none()
            && (self.handovers.unconfirmed.values().all(|u| u.to.id != to)
                || self.ctx.is_planted(Plant::NextBeforeConfirmed))
    }

    /// Repeats Activates, and asks after chunks whose giver is gone; called now and then.
    pub(crate) fn tend_handovers(&mut self) {
        let mut out = Vec::new();
        for (attempt, u) in self.handovers.unconfirmed.clone() {
            let state = self.ctx.members.get(u.to.id).map(|m| m.info.state);
            if state == Some(MemberState::Left) {
                // It leaves only when it has nothing on its way to it: the chunk had arrived.
                self.handovers.unconfirmed.remove(&attempt);
                continue;
            }
            self.ctx.send(u.to, Message::HandoverActivate { attempt });
            for (extent, owner) in self.ctx.locations.pieces(u.slot, u.extent) {
                if let Some(to) = owner {
                    out.push((to, Message::FrozenQuery { slot: u.slot, extent, since: u.since }));
                }
            }
        }
        let mut queries: Vec<(u64, Slot, Extent)> = Vec::new();
        let gone: Vec<NodeId> =
            self.handovers.receiving.keys().copied().filter(|id| self.is_gone(*id)).collect();
        for id in gone {
            let rpc = self.ctx.draw_rpc();
            if let Some((_, r)) = self.handovers.receiving.get_mut(&id).filter(|(_, r)| r.received.is_some())
            {
                r.query = rpc;
                queries.push((rpc, r.state.slot, r.state.extent));
            }
        }
        for (rpc, slot, extent) in queries {
            for (extent, to) in self.possible_owners(slot, extent) {
                self.ctx.send(to, Message::ConfigurationQuery { rpc, slot, extent });
            }
        }
        for (attempt, r) in self.handovers.receiving.values() {
            if !self.is_gone(r.from.id) {
                // An Abort may have been lost; the giver says so again.
                let attempt = *attempt;
                out.push((
                    r.from,
                    match r.received {
                        Some((count, digest)) => Message::HandoverReceived { attempt, count, digest },
                        None => Message::HandoverContinue { attempt, page: r.page },
                    },
                ));
                continue;
            }
            if r.received.is_none() {
                continue;
            }
            let (slot, extent) = (r.state.slot, r.state.extent);
            let since = r.state.configuration.members.get(usize::from(slot)).map_or(0, |m| m.since);
            for (extent, owner) in self.ctx.locations.pieces(slot, extent) {
                if let Some(to) = owner {
                    out.push((to, Message::FrozenQuery { slot, extent, since }));
                }
            }
        }
        for (to, m) in out {
            self.ctx.send(to, m);
        }
    }

    /// The replica of a chunk whose giver is gone lives elsewhere: this attempt had been aborted, and another came
    /// to its end. Counts only as an answer to what was asked after the chunk had come.
    pub(crate) fn discard_what_lives_elsewhere(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        pieces: &[(Extent, std::sync::Arc<paxos::Configuration>, bool)],
    ) {
        let found = self.handovers.receiving.iter_mut().find(|(_, (_, r))| rpc != 0 && r.query == rpc);
        let Some((giver, (_, r))) = found else { return };
        let replica = |c: &paxos::Configuration| c.members.get(usize::from(slot)).map(|m| m.replica);
        let ours = replica(&r.state.configuration);
        if from.id == *giver || slot != r.state.slot || from.id == self.ctx.me.id {
            return;
        }
        let giver = *giver;
        for (extent, c, is_active) in pieces {
            if !is_active || replica(c) != ours || !extent.contains(r.state.extent.lo) {
                continue;
            }
            match extent.hi.checked_add(1).filter(|lo| *lo <= r.state.extent.hi) {
                Some(lo) => {
                    r.state.extent.lo = lo;
                    r.registers = r.registers.split_off(lo);
                }
                None => {
                    self.handovers.receiving.remove(&giver);
                    return;
                }
            }
        }
    }

    /// A later member of the slot is complete: a chunk whose giver is gone need not be kept for it.
    pub(crate) fn discard_received(&mut self, slot: Slot, extent: Extent, since: u64) {
        let mut gone: Vec<NodeId> = Vec::new();
        let givers: Vec<NodeId> =
            self.handovers.receiving.keys().copied().filter(|id| self.is_gone(*id)).collect();
        for id in givers {
            let Some((_, r)) = self.handovers.receiving.get_mut(&id) else { continue };
            let came = r.state.configuration.members.get(usize::from(slot)).map_or(0, |m| m.since);
            let is_it = r.received.is_some() && r.state.slot == slot && came < since;
            if !is_it || !extent.contains(r.state.extent.lo) {
                continue;
            }
            match extent.hi.checked_add(1).filter(|lo| *lo <= r.state.extent.hi) {
                Some(lo) => {
                    r.state.extent.lo = lo;
                    r.registers = r.registers.split_off(lo);
                }
                None => gone.push(id),
            }
        }
        for id in gone {
            self.handovers.receiving.remove(&id);
        }
        for u in self.handovers.unconfirmed.values_mut() {
            // What of the chunk has a successor need not arrive any more.
            if u.slot == slot && u.since < since && extent.contains(u.extent.lo) {
                match extent.hi.checked_add(1).filter(|lo| *lo <= u.extent.hi) {
                    Some(lo) => u.extent.lo = lo,
                    None => u.since = u64::MAX,
                }
            }
        }
        self.handovers.unconfirmed.retain(|_, u| u.since != u64::MAX);
    }

    /// Repeats what was not answered, ends what leads nowhere.
    pub(crate) fn scan_handovers(&mut self) {
        let now = self.ctx.now;
        // What is whole stays: its giver may only be paused, and send Activate when it goes on.
        let dead: Vec<NodeId> = self
            .handovers
            .receiving
            .values()
            .filter(|(_, r)| r.received.is_none())
            .map(|(_, r)| r.from.id)
            .filter(|id| self.is_gone(*id))
            .collect();
        for id in dead {
            self.handovers.receiving.remove(&id);
        }
        if self.handovers.next_scan.is_none_or(|t| t > now) {
            return;
        }
        self.handovers.next_scan = None;
        let to = self.handovers.giving.as_ref().map(|g| g.to.id);
        let is_receiver_gone = to.is_some_and(|id| self.is_gone(id));
        let Some(g) = self.handovers.giving.as_mut() else { return };
        let again = now + self.ctx.config.vote_timeout;
        let is_late = is_receiver_gone || now.since(g.progress_at) > STALL;
        if g.stage == Stage::Activating && self.ctx.is_planted(Plant::AbortAfterActivate) && is_late {
            g.stage = Stage::Offered;
            self.abort_giving();
            return;
        }
        if g.stage == Stage::Activating {
            if is_receiver_gone {
                // Perhaps it only is not heard: what it holds would be lost if Activate were not repeated.
                let (attempt, to, slot, extent, since) = (g.attempt, g.to, g.slot, g.extent, g.since);
                self.handovers.giving = None;
                self.handovers.unconfirmed.insert(attempt, Unconfirmed { to, slot, extent, since });
                return;
            }
        } else if is_late {
            self.abort_giving();
            return;
        }
        if g.stage == Stage::Draining {
            self.try_stop();
            return;
        }
        if g.resend_at <= now {
            g.resend_at = again;
            let (to, m) = (g.to, g.sent.clone());
            self.ctx.send(to, m);
        }
        if let Some(g) = self.handovers.giving.as_ref() {
            let at = g.resend_at;
            self.handovers.schedule(at);
        }
    }
}
