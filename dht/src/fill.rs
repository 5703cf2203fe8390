//! Fills: how a new replica gets its memory.
//!
//! Either by complete streams of Q other members, all of one epoch, each ended by count and digest (a); or, where
//! those cannot be had, by the exact memory of an earlier holder of its slot (b), see `frozen`.
//!
//! Keeps:
//! 1. A fill counts streams of one epoch only, and begins again when the epoch changes.
//! 2. A donor that has refused a member never streams to it; what it streamed it has noted before the last page.
//!
//! Source: `docs/protocol.md`, section 6.2.

use crate::api::Event;
use crate::frozen::Taking;
use crate::message::{AcceptorState, Denied, Era, Message, PageEnd, PageEntry, SlotSet};
use crate::node::DhtNode;
use crate::plant::{Plant, spoil_fill};
use crate::transfer::{acceptor_of, page, page_digest, state_of, store_entries};
use core::time::Duration;
use paxos::Acceptor;
use ring::{Extent, NodeRef, Offset, Slot, Time};
use std::collections::BTreeMap;
use store::{Key, Registers};

/// A page refused as not ready is asked for again after this.
const NOT_READY_RESEND: Duration = Duration::from_millis(10);

/// A stream on its way here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) rpc: u64,
    pub(crate) registers: Registers,
    pub(crate) after: Option<(Offset, Key)>,
    pub(crate) held: (u64, u64),
    pub(crate) resend_at: Time,
}

impl Stream {
    /// Takes a page in. With the last one: whether all of it is here as the donor sent it.
    pub(crate) fn take(&mut self, extent: Extent, entries: Vec<PageEntry>, end: Option<(u64, u64)>) -> bool {
        if let Some(e) = entries.last() {
            self.after = Some((e.offset, e.key.clone()));
        }
        // The same page may come again.
        self.rpc = 0;
        self.held = page_digest(&entries, self.held);
        store_entries(&mut self.registers, extent, entries);
        end.is_none_or(|sum| self.held == sum && self.registers.digest(extent) == sum)
    }
}

#[derive(Clone, Debug, Default)]
struct Donor {
    asked: Option<NodeRef>,
    stream: Stream,
    end: Option<Acceptor>,
}

/// An incomplete replica and what it has so far.
#[derive(Clone, Debug)]
pub(crate) struct Filling {
    pub(crate) slot: Slot,
    pub(crate) extent: Extent,
    pub(crate) era: Era,
    donors: BTreeMap<Slot, Donor>,
    /// When the next look for frozen memory is due.
    pub(crate) look_at: Time,
    pub(crate) look_rpc: u64,
    /// What other members said under this epoch of whom they donated to.
    pub(crate) donations: BTreeMap<Slot, Vec<u64>>,
    pub(crate) taking: Option<Taking>,
    /// The donors that have refused this member for ever.
    refusals: SlotSet,
}

impl Filling {
    fn new(slot: Slot, extent: Extent, era: Era, look_at: Time) -> Filling {
        Filling {
            slot,
            extent,
            era,
            donors: BTreeMap::new(),
            look_at,
            look_rpc: 0,
            donations: BTreeMap::new(),
            taking: None,
            refusals: SlotSet::default(),
        }
    }

    /// Goes on with a part. Streams begin anew: they are of what they were asked for. What was said of donations is
    /// true of every part.
    pub(crate) fn shrink(&mut self, part: Extent) {
        self.extent = part;
        self.donors.clear();
    }

    pub(crate) fn describe(&self) -> String {
        let ends: Vec<(Slot, bool)> = self.donors.iter().map(|(s, d)| (*s, d.end.is_some())).collect();
        format!(
            "fill slot {} {:?} ends {ends:?} donations {:?} taking {}",
            self.slot,
            self.extent,
            self.donations,
            self.taking.is_some()
        )
    }
}

impl DhtNode {
    /// Asks for the pages that incomplete acceptors here still need.
    pub(crate) fn scan_fills(&mut self) {
        let now = self.ctx.now;
        let incomplete: Vec<(Slot, Extent, Era)> = self
            .acceptors
            .owned()
            .filter(|a| !a.is_complete)
            .map(|a| (a.slot, a.extent, Era::of(&a.configuration)))
            .collect();
        if self.ctx.is_planted(Plant::StreamsOfTwoEpochs) {
            for f in self.replacements.fills.values_mut() {
                let now = incomplete.iter().find(|(s, e, _)| *s == f.slot && *e == f.extent);
                f.era = now.map_or(f.era, |i| i.2);
            }
        }
        self.replacements.fills.retain(|_, f| {
            incomplete.iter().any(|(s, e, era)| *s == f.slot && *e == f.extent && *era == f.era)
        });
        for (slot, whole, era) in incomplete {
            let extent = self.uniform_part(slot, whole);
            if extent != whole {
                self.acceptors.cut_extent(slot, extent);
            }
            let look_at = now + self.ctx.config.vote_timeout * 2;
            let f = self
                .replacements
                .fills
                .entry((slot, extent.lo))
                .or_insert_with(|| Filling::new(slot, extent, era, look_at));
            if f.extent != extent {
                *f = Filling::new(slot, extent, era, look_at);
            }
            for other in self.ctx.space.slots().filter(|s| *s != slot) {
                self.pull(slot, extent, other);
            }
            self.look_for_frozen((slot, extent.lo));
            self.replace_the_refused((slot, extent.lo));
        }
        let fills = self.replacements.fills.values();
        let next = fills
            .flat_map(|f| {
                let pulls = f.donors.values().filter(|d| d.end.is_none()).map(|d| d.stream.resend_at);
                pulls.chain([f.look_at]).chain(f.taking.as_ref().map(|t| t.stream.resend_at))
            })
            .min();
        let is_waiting = self.acceptors.owned().any(|a| !a.is_complete);
        let floor = now + Duration::from_millis(2);
        if let Some(t) = next.or(is_waiting.then_some(now + self.ctx.config.vote_timeout)) {
            self.replacements.schedule(t.max(floor));
        }
    }

    /// The beginning of `whole` in which every other slot has one owner: each donor must own all of a stream.
    fn uniform_part(&self, slot: Slot, whole: Extent) -> Extent {
        let mut extent = whole;
        for other in self.ctx.space.slots().filter(|s| *s != slot) {
            extent = match self.acceptors.find(other, extent.lo) {
                Some(a) => extent.intersect(&a.extent).unwrap_or(extent),
                None => self.ctx.locations.around(other, extent.lo, extent),
            };
        }
        extent
    }

    fn pull(&mut self, slot: Slot, extent: Extent, donor_slot: Slot) {
        let now = self.ctx.now;
        let here = self.acceptors.find(donor_slot, extent.lo).is_some();
        let owner = if here { Some(self.ctx.me) } else { self.ctx.live_owner(donor_slot, extent.lo) };
        let rpc = self.ctx.draw_rpc();
        let Some(f) = self.replacements.fills.get_mut(&(slot, extent.lo)) else { return };
        let d = f.donors.entry(donor_slot).or_default();
        if d.end.is_some() || d.stream.resend_at > now {
            return;
        }
        // Who answers is asked on, whatever the location cache says meanwhile: a stream is of one donor. What was here
        // and was handed over is begun anew at its owner.
        let me = self.ctx.me.id;
        let asked = d.asked.filter(|a| self.ctx.members.is_live(a.id) && (here || a.id != me));
        let Some(owner) = asked.or(owner).filter(|o| here || o.id != me) else { return };
        if d.asked.is_some_and(|a| a.id != owner.id) {
            *d = Donor::default();
        }
        d.asked = Some(owner);
        d.stream.rpc = rpc;
        d.stream.resend_at = now + self.ctx.config.vote_timeout;
        let (after, held, era) = (d.stream.after.clone(), d.stream.held, f.era);
        let Some(since) = self.acceptors.find(slot, extent.lo).map(Acceptor::since) else { return };
        let target = (slot, since);
        self.ctx.send(owner, Message::FillPull { rpc, slot: donor_slot, extent, era, target, after, held });
    }

    /// A page for a member that is being filled.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_fill_pull(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        extent: Extent,
        era: Era,
        target: (Slot, u64),
        after: Option<&(Offset, Key)>,
        held: (u64, u64),
    ) {
        let here = self.acceptors.covering(slot, extent, Some(era));
        let answer = match self.with_hint(here, slot, extent, from) {
            Err(d) => Err(d),
            Ok(_)
                if self.acceptors.parts(slot, extent).any(|(_, a)| a.refused.contains(&target))
                    && !self.ctx.is_planted(Plant::RefusalNotBinding) =>
            {
                Err(Denied::StillHeard)
            }
            Ok(lows) => {
                let parts = self.acceptors.parts(slot, extent).map(|(_, a)| a);
                let (entries, is_last) = page(parts, extent, after, self.ctx.config.page_bytes_max);
                let mut end = None;
                if is_last {
                    for lo in &lows {
                        // A claim for more than `extent` only makes others more careful.
                        if let Some(a) = self.acceptors.find_mut(slot, *lo)
                            && !self.ctx.is_planted(Plant::DonatedNotNoted)
                        {
                            a.donated.insert(target);
                        }
                    }
                    let mut state = None;
                    for (_, a) in self.acceptors.parts(slot, extent) {
                        let s = state_of(a, extent, &self.ctx.space);
                        state = Some(match state {
                            None => s,
                            Some(sum) => merge_states(sum, s),
                        });
                    }
                    let sum = page_digest(&entries, held);
                    end = state.map(|state| Box::new(PageEnd { state, sum }));
                }
                Ok((entries, end))
            }
        };
        self.ctx.send(from, Message::FillPage { rpc, slot, answer });
    }

    /// A page of a donor, or of frozen memory.
    pub(crate) fn on_fill_page(
        &mut self,
        from: NodeRef,
        rpc: u64,
        donor_slot: Slot,
        answer: Result<(Vec<PageEntry>, Option<Box<PageEnd>>), Denied>,
    ) {
        if self.on_salvage_page(rpc, &answer) {
            return;
        }
        let fills = &mut self.replacements.fills;
        if let Some(f) = fills.values().find(|f| f.taking.as_ref().is_some_and(|t| t.stream.rpc == rpc)) {
            let at = (f.slot, f.extent.lo);
            self.on_frozen_page(at, answer);
            return;
        }
        let now = self.ctx.now;
        let quorum = self.ctx.quorum_unless(Plant::FillFewer);
        let is_asked = |d: &Donor| d.stream.rpc == rpc && d.end.is_none();
        let found = fills.values_mut().find(|f| f.donors.get(&donor_slot).is_some_and(is_asked));
        let Some(f) = found else { return };
        let (slot, extent, era) = (f.slot, f.extent, f.era);
        let Some(d) = f.donors.get_mut(&donor_slot) else { return };
        match answer {
            Ok((entries, end)) => {
                let is_sound = d.stream.take(extent, entries, end.as_ref().map(|e| e.sum));
                d.stream.resend_at = now;
                let is_of_era = end.as_ref().is_none_or(|e| Era::of(&e.state.configuration) == era);
                if !is_sound || !is_of_era {
                    *d = Donor::default();
                } else if let Some(end) = end {
                    let registers = std::mem::take(&mut d.stream.registers);
                    d.end = acceptor_of(&end.state, registers, &self.ctx.space);
                }
            }
            Err(denied) => {
                if matches!(denied, Denied::NotOwner { .. }) {
                    *d = Donor::default();
                }
                d.stream.resend_at = now + NOT_READY_RESEND;
                self.on_fill_denied(from, slot, extent, donor_slot, denied);
            }
        }
        let Some(f) = self.replacements.fills.get_mut(&(slot, extent.lo)).filter(|f| f.era == era) else {
            return;
        };
        if f.donors.values().filter(|d| d.end.is_some()).count() >= quorum {
            let donors: Vec<Acceptor> =
                std::mem::take(&mut f.donors).into_values().filter_map(|d| d.end).collect();
            self.finish_fill(slot, extent, era, |a| a.fill(donors));
        }
        self.replacements.schedule(now);
    }

    fn on_fill_denied(
        &mut self,
        from: NodeRef,
        slot: Slot,
        extent: Extent,
        donor_slot: Slot,
        denied: Denied,
    ) {
        match denied {
            Denied::NewerEpoch => {
                if let Some(a) = self.acceptors.find(slot, extent.lo) {
                    let configuration = a.configuration.clone();
                    self.ctx.send(from, Message::Install { extent, configuration });
                }
            }
            Denied::StaleEpoch { extent: e, configuration } => {
                if !self.ctx.is_planted(Plant::StreamsOfTwoEpochs) {
                    self.replacements.fills.remove(&(slot, extent.lo));
                }
                self.learn_configuration(e, &configuration);
            }
            Denied::NotOwner { hint, extent: told } => {
                self.ctx.learn_not_owner(donor_slot, extent.lo, told, from.id, hint);
            }
            Denied::StillHeard => {
                if let Some(f) = self.replacements.fills.get_mut(&(slot, extent.lo)) {
                    f.refusals.insert(donor_slot);
                }
            }
            Denied::NotReady | Denied::Promised(_) | Denied::Low => {}
        }
    }

    /// A member that too many donors refused, for a frozen holder that did not go on after all, can never be filled
    /// by streams: it is replaced in its turn.
    fn replace_the_refused(&mut self, at: (Slot, Offset)) {
        let others = usize::from(self.ctx.space.replicas()).saturating_sub(1);
        let quorum = self.ctx.space.quorum();
        let Some(f) = self.replacements.fills.get(&at) else { return };
        let (slot, extent) = (f.slot, f.extent);
        if others.saturating_sub(f.refusals.len()) < quorum
            && f.taking.is_none()
            && self.replacements.pause_until <= self.ctx.now
            && !self.replacements.is_full()
            && !self.replacements.is_at_work(extent, |_| true)
        {
            self.begin_replacement(slot, extent);
        }
    }

    /// The replica of a slot gets its memory by `fill` and is complete.
    pub(crate) fn finish_fill(
        &mut self,
        slot: Slot,
        extent: Extent,
        era: Era,
        fill: impl FnOnce(&mut Acceptor),
    ) {
        self.replacements.fills.remove(&(slot, extent.lo));
        let Some(a) = self.acceptors.find_mut(slot, extent.lo) else { return };
        if a.extent != extent || a.is_complete || Era::of(&a.configuration) != era {
            return;
        }
        fill(a);
        spoil_fill(a, self.ctx.planted());
        let configuration = a.configuration.clone();
        let top = a.homes.iter().map(|h| h.high.max(h.floor.n)).max().unwrap_or(0);
        self.ctx.meet_n(top);
        self.acceptors.join_neighbours();
        self.is_owned_changed = true;
        self.is_duty_due = true;
        self.ctx.announce(Event::Replaced { slot, extent, configuration });
    }
}

pub(crate) fn merge_states(mut a: AcceptorState, b: AcceptorState) -> AcceptorState {
    for (x, y) in a.homes.iter_mut().zip(&b.homes) {
        x.merge(y);
    }
    a.donated.extend(b.donated);
    a.refused.extend(b.refused);
    a
}
