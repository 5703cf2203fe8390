//! Frozen memory: what a replaced member keeps, and how it becomes a member's memory again.
//!
//! A member that was replaced without being gone keeps its memory until a later member of its slot is complete.
//! Where Q streams cannot be had, the later member gets exactly that memory (b), or, if it is gone itself, the
//! frozen holder goes on in its place (c).
//!
//! Keeps:
//! 1. Frozen memory is used only after R-Q other members, all of one epoch, excluded that a later member of the
//!    slot was complete: none of them donated to one, those not counted that froze unfinished.
//! 2. It is given to one receiver; to another only when the first one is known to have frozen unfinished.
//! 3. The holder goes on itself only if it has not given its memory and R-Q members refused the one it replaces.
//!
//! Source: `docs/protocol.md`, sections 6.2 (b), (c) and 6.3.

use crate::api::Event;
use crate::fill::Stream;
use crate::message::{Denied, Era, Message, PageEnd, PageEntry};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::transfer::{acceptor_of, page, page_digest, state_of};
use core::time::Duration;
use paxos::Configuration;
use ring::{Extent, NodeRef, Offset, Slot, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Key;

/// What was said of frozen memory counts for so long.
const SIGHTING_AGE: Duration = Duration::from_secs(10);
/// Sightings kept.
const SIGHTINGS_MAX: usize = 4096;
/// Intervals for which frozen holders try to go on at once.
const RESUMING_MAX: usize = 64;

/// Frozen memory, or a member that froze unfinished, somewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    slot: Slot,
    extent: Extent,
    since: u64,
    is_whole: bool,
    at: NodeRef,
    seen: Time,
}

/// Frozen memory on its way to an incomplete member here.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    from: NodeRef,
    since: u64,
    unfinished: Vec<u64>,
    pub(crate) stream: Stream,
}

/// A frozen holder here that wants to go on.
#[derive(Clone, Debug)]
pub(crate) struct Resuming {
    slot: Slot,
    extent: Extent,
    since: u64,
    unfinished: Vec<u64>,
    answers: BTreeMap<Slot, Vec<(Extent, Arc<Configuration>)>>,
    until: Time,
}

/// What of a request for frozen memory is more than a cursor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrozenPull {
    pub(crate) slot: Slot,
    pub(crate) extent: Extent,
    pub(crate) since: u64,
    pub(crate) receiver: u64,
    pub(crate) held: (u64, u64),
}

impl DhtNode {
    /// A holder of frozen memory asks whether it is still needed.
    pub(crate) fn serve_frozen_query(&mut self, from: NodeRef, slot: Slot, extent: Extent, since: u64) {
        let newer: Vec<(Extent, u64)> = self
            .acceptors
            .parts(slot, extent)
            .filter(|(_, a)| {
                (a.is_active() || self.ctx.is_planted(Plant::DiscardedEarly)) && a.since() > since
            })
            .map(|(e, a)| (e, a.since()))
            .collect();
        for (extent, since) in newer {
            self.ctx.send(from, Message::FrozenReply { slot, extent, since });
        }
    }

    /// Whoever may own `extent` in `slot`: where no living owner is known, everybody.
    pub(crate) fn possible_owners(&self, slot: Slot, extent: Extent) -> Vec<(Extent, NodeRef)> {
        let mut out = Vec::new();
        for (part, owner) in self.ctx.locations.pieces(slot, extent) {
            match owner.filter(|o| self.ctx.is_live(o.id)) {
                Some(to) => out.push((part, to)),
                None => out.extend(self.everybody().into_iter().map(|to| (part, to))),
            }
        }
        out
    }

    /// This node and all that are in the ring.
    pub(crate) fn everybody(&self) -> Vec<NodeRef> {
        let others = self.ctx.members.iter().filter(|m| m.is_in_ring()).map(|m| m.info.node);
        std::iter::once(self.ctx.me).chain(others).collect()
    }

    /// Asks after the successors of frozen memory here.
    pub(crate) fn ask_about_frozen(&mut self) {
        let frozen = self.acceptors.frozen().iter().map(|a| (a.slot, a.extent, a.since()));
        let kept: Vec<_> = frozen.chain(self.acceptors.unfinished().iter().copied()).collect();
        for (slot, extent, since) in kept {
            for (extent, to) in self.possible_owners(slot, extent) {
                self.ctx.send(to, Message::FrozenQuery { slot, extent, since });
            }
        }
        self.ask_after_doubles();
        self.try_to_resume();
    }

    /// Asks whether incomplete members here are complete elsewhere, where a frozen holder went on in their place.
    fn ask_after_doubles(&mut self) {
        let incomplete: Vec<(Slot, Extent)> =
            self.acceptors.owned().filter(|a| !a.is_complete).map(|a| (a.slot, a.extent)).collect();
        let me = self.ctx.me.id;
        for to in self.everybody().into_iter().filter(|n| n.id != me) {
            for (slot, extent) in &incomplete {
                let m = Message::ConfigurationQuery { rpc: 0, slot: *slot, extent: *extent };
                self.ctx.send(to, m);
            }
        }
    }

    /// Drops incomplete memory here whose replica is complete elsewhere.
    pub(crate) fn drop_what_is_complete_elsewhere(
        &mut self,
        from: NodeRef,
        slot: Slot,
        pieces: &[(Extent, Arc<Configuration>, bool)],
    ) {
        if from.id == self.ctx.me.id {
            return;
        }
        for (extent, c, _) in pieces.iter().filter(|p| p.2) {
            let Some(there) = c.members.get(usize::from(slot)).map(|m| m.replica) else { continue };
            let doubles: Vec<Extent> = self
                .acceptors
                .parts(slot, *extent)
                .filter(|(_, a)| !a.is_complete && a.replica == there)
                .map(|(part, _)| part)
                .collect();
            for part in doubles {
                self.acceptors.cut_extent(slot, part);
                self.acceptors.remove_within(slot, part);
                self.ctx.locations.set(slot, part, from);
                self.is_owned_changed = true;
            }
        }
    }

    /// Which replaced memory of the slot is here?
    pub(crate) fn serve_memory_seek(&mut self, from: NodeRef, slot: Slot, extent: Extent) {
        let frozen = self.acceptors.frozen().iter().map(|a| (a.slot, a.extent, a.since(), true));
        let unfinished = self.acceptors.unfinished().iter().map(|(s, e, at)| (*s, *e, *at, false));
        let early = self.acceptors.owned().filter(|a| !a.is_complete);
        let early = early.filter(|_| self.ctx.is_planted(Plant::TestimonyEarly));
        let pieces: Vec<(Extent, u64, bool)> = frozen
            .chain(unfinished)
            .chain(early.map(|a| (a.slot, a.extent, a.since(), false)))
            .filter(|f| f.0 == slot)
            .filter_map(|f| Some((f.1.intersect(&extent)?, f.2, f.3)))
            .collect();
        if !pieces.is_empty() {
            self.ctx.send(from, Message::MemoryFound { slot, pieces });
        }
    }

    /// Replaced memory elsewhere.
    pub(crate) fn on_memory_found(&mut self, from: NodeRef, slot: Slot, pieces: &[(Extent, u64, bool)]) {
        let now = self.ctx.now;
        let found = &mut self.replacements.sightings;
        found.retain(|s| {
            let is_news = |p: &(Extent, u64, bool)| p.1 == s.since && p.0.intersect(&s.extent).is_some();
            let is_of_it = s.slot == slot && s.at.id == from.id;
            now.since(s.seen) < SIGHTING_AGE && !(is_of_it && pieces.iter().any(is_news))
        });
        for (extent, since, is_whole) in pieces {
            if found.len() < SIGHTINGS_MAX {
                let (extent, since, is_whole) = (*extent, *since, *is_whole);
                found.push(Sighting { slot, extent, since, is_whole, at: from, seen: now });
            }
        }
    }

    /// The members of the slot that are known to have frozen unfinished, over all of `extent`.
    fn unfinished_in(&self, slot: Slot, extent: Extent) -> Vec<u64> {
        let seen = self.replacements.sightings.iter().filter(|s| !s.is_whole);
        seen.filter(|s| s.slot == slot && s.extent.covers(&extent)).map(|s| s.since).collect()
    }

    /// An incomplete member that is not filled by streams looks for frozen memory.
    pub(crate) fn look_for_frozen(&mut self, at: (Slot, Offset)) {
        let now = self.ctx.now;
        let again = now + self.ctx.config.vote_timeout * 2;
        let Some(f) = self.replacements.fills.get_mut(&at) else { return };
        if f.taking.is_some() {
            self.pull_frozen(at);
            return;
        }
        if f.look_at > now {
            return;
        }
        f.look_at = again;
        let (slot, extent, era) = (f.slot, f.extent, f.era);
        self.try_frozen(at);
        for to in self.everybody() {
            self.ctx.send(to, Message::MemorySeek { slot, extent });
        }
        let rpc = self.ctx.draw_rpc();
        if let Some(f) = self.replacements.fills.get_mut(&at) {
            f.look_rpc = rpc;
        }
        for other in self.ctx.space.slots().filter(|s| *s != slot) {
            for (_, to) in self.possible_owners(other, Extent::point(extent.lo)) {
                let m = Message::DonationQuery { rpc, slot: other, extent, era, of: slot };
                self.ctx.send(to, m);
            }
        }
    }

    /// To whom in a slot did the members here donate?
    pub(crate) fn serve_donation_query(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        extent: Extent,
        era: Era,
        of: Slot,
    ) {
        let answer = self.acceptors.covering(slot, extent, Some(era)).map(|_| {
            let parts = self.acceptors.parts(slot, extent);
            let all = parts.flat_map(|(_, a)| a.donated.iter().filter(|d| d.0 == of).map(|d| d.1));
            all.collect::<Vec<u64>>()
        });
        if let Err(Denied::StaleEpoch { .. }) | Ok(_) = answer {
            self.ctx.send(from, Message::DonationReply { rpc, slot, answer });
        }
    }

    /// An answer to that.
    pub(crate) fn on_donation_reply(&mut self, rpc: u64, slot: Slot, answer: Result<Vec<u64>, Denied>) {
        let Some(f) = self.replacements.fills.values_mut().find(|f| f.look_rpc == rpc) else { return };
        match answer {
            Ok(epochs) => {
                f.donations.insert(slot, epochs);
            }
            Err(Denied::StaleEpoch { extent, configuration }) => {
                self.learn_configuration(extent, &configuration);
            }
            Err(_) => {}
        }
    }

    /// Begins to take frozen memory, if it may be taken.
    fn try_frozen(&mut self, at: (Slot, Offset)) {
        let needed = usize::from(self.ctx.space.replicas()) - self.ctx.space.quorum();
        let Some(f) = self.replacements.fills.get(&at) else { return };
        let Some(since) = self.acceptors.find(f.slot, f.extent.lo).map(paxos::Acceptor::since) else {
            return;
        };
        let (slot, extent) = (f.slot, f.extent);
        // The newest: if even that one may have a complete successor, the older ones do too.
        let newest = self
            .replacements
            .sightings
            .iter()
            .filter(|s| s.is_whole && s.slot == slot && s.since < since && s.extent.contains(extent.lo))
            .max_by_key(|s| s.since)
            .copied();
        let Some(y) = newest else { return };
        let Some(part) = y.extent.intersect(&extent) else { return };
        let unfinished = self.unfinished_in(slot, part);
        let is_between = |e: &u64| *e > y.since && *e < since && !unfinished.contains(e);
        let clear = f.donations.values().filter(|epochs| !epochs.iter().any(is_between)).count();
        if clear < needed && !self.ctx.is_planted(Plant::FrozenUnasked) {
            return;
        }
        if part != extent {
            self.acceptors.cut_extent(slot, part);
            if let Some(f) = self.replacements.fills.get_mut(&at) {
                f.shrink(part);
            }
        }
        if let Some(f) = self.replacements.fills.get_mut(&at) {
            f.taking = Some(Taking { from: y.at, since: y.since, unfinished, stream: Stream::default() });
        }
        self.pull_frozen(at);
    }

    fn pull_frozen(&mut self, at: (Slot, Offset)) {
        let now = self.ctx.now;
        let rpc = self.ctx.draw_rpc();
        let resend_at = now + self.ctx.config.vote_timeout;
        let Some(receiver) = self.acceptors.find(at.0, at.1).map(paxos::Acceptor::since) else { return };
        let is_known = |from: &NodeRef, ctx: &crate::context::Context| {
            from.id == ctx.me.id || ctx.members.get(from.id).is_some_and(|m| m.is_in_ring())
        };
        let Some(f) = self.replacements.fills.get_mut(&at) else { return };
        let Some(t) = f.taking.as_mut().filter(|t| t.stream.resend_at <= now) else { return };
        if !is_known(&t.from, &self.ctx) {
            f.taking = None;
            return;
        }
        t.stream.rpc = rpc;
        t.stream.resend_at = resend_at;
        let m = Message::FrozenPull {
            rpc,
            slot: f.slot,
            extent: f.extent,
            since: t.since,
            receiver,
            after: t.stream.after.clone(),
            held: t.stream.held,
            unfinished: t.unfinished.clone(),
        };
        let to = t.from;
        self.ctx.send(to, m);
    }

    /// A page of frozen memory for the one receiver it is given to.
    pub(crate) fn serve_frozen_pull(
        &mut self,
        from: NodeRef,
        rpc: u64,
        pull: FrozenPull,
        after: Option<&(Offset, Key)>,
        unfinished: &[u64],
    ) {
        let FrozenPull { slot, extent, since, receiver, held } = pull;
        let (space, bytes_max) = (self.ctx.space, self.ctx.config.page_bytes_max);
        let answer = match self.acceptors.frozen_part(slot, since, extent) {
            None => Err(Denied::ELSEWHERE),
            Some(_) if receiver <= since => Err(Denied::Low),
            Some(y)
                if y.given_to.is_some_and(|g| g != receiver && !unfinished.contains(&g))
                    && !self.ctx.is_planted(Plant::FrozenGivenTwice) =>
            {
                Err(Denied::NotReady)
            }
            Some(y) => {
                let (entries, is_last) = page(std::iter::once(&*y), extent, after, bytes_max);
                if is_last {
                    // Without the last page nobody becomes complete by it.
                    y.given_to = Some(receiver);
                }
                let sum = page_digest(&entries, held);
                let end = is_last.then(|| Box::new(PageEnd { state: state_of(y, extent, &space), sum }));
                Ok((entries, end))
            }
        };
        self.ctx.send(from, Message::FillPage { rpc, slot, answer });
    }

    /// A page of frozen memory.
    pub(crate) fn on_frozen_page(
        &mut self,
        at: (Slot, Offset),
        answer: Result<(Vec<PageEntry>, Option<Box<PageEnd>>), Denied>,
    ) {
        let now = self.ctx.now;
        let space = self.ctx.space;
        let Some(f) = self.replacements.fills.get_mut(&at) else { return };
        let (extent, era) = (f.extent, f.era);
        let Some(t) = f.taking.as_mut() else { return };
        self.replacements.next_scan = Some(now);
        let Ok((entries, end)) = answer else {
            f.taking = None;
            return;
        };
        t.stream.resend_at = now;
        if !t.stream.take(extent, entries, end.as_ref().map(|e| e.sum)) {
            f.taking = None;
            return;
        }
        let Some(end) = end else { return };
        let (from, since) = (t.from, t.since);
        let registers = std::mem::take(&mut t.stream.registers);
        f.taking = None;
        let is_that = end.state.slot == at.0 && end.state.extent == extent;
        let Some(earlier) = acceptor_of(&end.state, registers, &space).filter(|_| is_that) else { return };
        if earlier.since() != since {
            return;
        }
        self.finish_fill(at.0, extent, era, |a| a.fill_exactly(earlier));
        if let Some(a) = self.acceptors.active(at.0, extent.lo) {
            let since = a.since();
            self.ctx.send(from, Message::FrozenReply { slot: at.0, extent, since });
        }
    }

    /// Frozen holders whose successor is gone try to go on in its place.
    fn try_to_resume(&mut self) {
        let now = self.ctx.now;
        self.replacements.resuming.retain(|_, r| r.until > now);
        let mut wanted = Vec::new();
        for a in self.acceptors.frozen() {
            for (part, owner) in self.ctx.locations.pieces(a.slot, a.extent) {
                let is_gone = owner.is_none_or(|o| o.id != self.ctx.me.id && self.is_gone(o.id));
                let unfinished = self.unfinished_in(a.slot, part);
                let is_free = a.given_to.is_none_or(|g| unfinished.contains(&g))
                    || self.ctx.is_planted(Plant::ResumeAfterGiven);
                if is_gone && is_free && !self.acceptors.overlaps(a.slot, part) {
                    wanted.push((a.slot, part, a.since(), unfinished, a.successor.clone()));
                }
            }
        }
        for (slot, extent, since, unfinished, successor) in wanted.into_iter().take(RESUMING_MAX) {
            if let Some(c) = successor.as_ref().filter(|_| self.ctx.is_planted(Plant::ResumeUnrefused)) {
                self.resume(slot, extent, since, &unfinished, c);
                continue;
            }
            for to in self.everybody() {
                self.ctx.send(to, Message::MemorySeek { slot, extent });
            }
            let rpc = self.ctx.draw_rpc();
            let until = now + self.ctx.config.vote_timeout * 8;
            for other in self.ctx.space.slots().filter(|s| *s != slot) {
                for (part, to) in self.possible_owners(other, extent) {
                    if let Some(configuration) = successor.clone() {
                        self.ctx.send(to, Message::Install { extent: part, configuration });
                    }
                    let m = Message::Refuse {
                        rpc,
                        slot: other,
                        extent: part,
                        of: slot,
                        after: since,
                        unfinished: unfinished.clone(),
                    };
                    self.ctx.send(to, m);
                }
            }
            let answers = BTreeMap::new();
            let resuming = Resuming { slot, extent, since, unfinished, answers, until };
            self.replacements.resuming.insert(rpc, resuming);
        }
    }

    /// Promises not to donate to the member that replaced a frozen holder, where nothing was donated yet.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_refuse(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        extent: Extent,
        of: Slot,
        after: u64,
        unfinished: &[u64],
    ) {
        if of >= self.ctx.space.replicas() || of == slot {
            return;
        }
        let target =
            |a: &paxos::Acceptor| a.configuration.members.get(usize::from(of)).map_or(0, |m| m.since);
        let fit: Vec<(Extent, u64, Arc<Configuration>)> = self
            .acceptors
            .parts(slot, extent)
            .filter(|(_, a)| {
                let until = target(a);
                a.is_active() && until > after && !a.has_donated_between(of, after, until, unfinished)
            })
            .map(|(part, a)| (part, target(a), a.configuration.clone()))
            .collect();
        let mut pieces = Vec::new();
        for (part, since, configuration) in fit {
            self.acceptors.cut_extent(slot, part);
            if let Some(a) = self.acceptors.find_mut(slot, part.lo)
                && a.refuse(of, after, since, unfinished)
            {
                pieces.push((part, configuration));
            }
        }
        if !pieces.is_empty() {
            self.ctx.send(from, Message::RefuseReply { rpc, slot, pieces });
        }
    }

    /// A member refused: with R-Q of them under one configuration the frozen holder goes on.
    pub(crate) fn on_refuse_reply(
        &mut self,
        rpc: u64,
        slot: Slot,
        pieces: Vec<(Extent, Arc<Configuration>)>,
    ) {
        let replicas = usize::from(self.ctx.space.replicas());
        let needed = replicas - self.ctx.space.quorum();
        let Some(r) = self.replacements.resuming.get_mut(&rpc) else { return };
        if slot == r.slot || pieces.iter().any(|(_, c)| c.members.len() != replicas) {
            return;
        }
        // Of several owners each answers for its part.
        r.answers.entry(slot).or_default().extend(pieces);
        let mut ready: Vec<(Extent, Arc<Configuration>)> = Vec::new();
        for (part, c) in r.answers.values().flatten() {
            let same = |list: &Vec<(Extent, Arc<Configuration>)>| {
                let mut both = list.iter().filter(|(_, d)| d == c);
                both.find_map(|(e, _)| e.intersect(part).filter(|e| e.contains(part.lo)))
            };
            let agreeing: Vec<Extent> = r.answers.values().filter_map(same).collect();
            if agreeing.len() >= needed {
                let hi = agreeing.iter().map(|e| e.hi).min().unwrap_or(part.hi);
                if let Some(e) = Extent::new(part.lo, hi).intersect(&r.extent) {
                    ready.push((e, c.clone()));
                }
            }
        }
        let (of, since, unfinished) = (r.slot, r.since, r.unfinished.clone());
        for (extent, c) in ready {
            self.resume(of, extent, since, &unfinished, &c);
        }
    }

    fn resume(&mut self, slot: Slot, extent: Extent, since: u64, unfinished: &[u64], c: &Arc<Configuration>) {
        let is_later = c.members.get(usize::from(slot)).is_some_and(|m| m.since > since);
        if !is_later || self.acceptors.overlaps(slot, extent) {
            return;
        }
        let Some(y) = self.acceptors.frozen_part(slot, since, extent) else { return };
        let is_given = y.given_to.is_some_and(|g| !unfinished.contains(&g));
        if is_given && !self.ctx.is_planted(Plant::ResumeAfterGiven) {
            return;
        }
        let Some(mut y) = self.acceptors.take_frozen(slot, since, extent) else { return };
        y.resume_as(c.clone());
        if self.ctx.is_planted(Plant::RefusalForgotten) {
            y.refused.remove(&(slot, y.since()));
        }
        self.acceptors.insert(y);
        self.ctx.locations.set(slot, extent, self.ctx.me);
        self.acceptors.join_neighbours();
        self.is_owned_changed = true;
        self.is_duty_due = true;
        let configuration = c.clone();
        self.ctx.announce(Event::Resumed { slot, extent, configuration });
    }
}
