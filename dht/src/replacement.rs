//! Replacement: a new replica for a slot whose owner is gone.
//!
//! First the next configuration is decided by the members of the present one, by single-decree Paxos; then the
//! new replica is filled by complete streams of Q other members under the new epoch. Until it is decided nothing
//! has changed anywhere; a node that cannot reach Q others changes nothing.
//!
//! Keeps:
//! 1. A fresh proposal has promises of Q complete members other than the replaced one; a reported one is
//!    completed first, with Q promises and Q grants of any.
//! 2. A replica id is drawn once and becomes an acceptor at most once for every offset.
//! 3. A fill counts streams of one epoch only, and begins again when the epoch changes.
//!
//! Source: `docs/protocol.md`, section 6.

use crate::api::Event;
use crate::message::{Denied, Era, Message, PageEnd, PageEntry};
use crate::node::DhtNode;
use crate::transfer::{acceptor_of, page, state_of, store_entries};
use core::time::Duration;
use paxos::{Acceptor, Configuration, Member};
use ring::{Extent, NodeRef, Offset, Slot, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Ballot, Key, Registers};

/// Replacements under way at once.
const REPLACING_MAX: usize = 8;
/// A replacement that came no further for this long is given up.
const STALL: Duration = Duration::from_millis(1500);
/// A page refused as not ready is asked for again after this.
const NOT_READY_RESEND: Duration = Duration::from_millis(10);

type Promises = BTreeMap<Slot, Option<(Ballot, Vec<Member>)>>;

#[derive(Debug)]
enum Stage {
    /// Which configuration is in force?
    Asking { answers: BTreeMap<Slot, Vec<(Extent, Arc<Configuration>, bool)>> },
    /// First phase.
    Preparing { configuration: Arc<Configuration>, ballot: Ballot, promises: Promises },
    /// Second phase.
    Accepting { configuration: Arc<Configuration>, ballot: Ballot, members: Vec<Member>, grants: Vec<Slot> },
}

#[derive(Debug)]
struct Replacing {
    slot: Slot,
    extent: Extent,
    stage: Stage,
    resend_at: Time,
    give_up_at: Time,
}

#[derive(Debug, Default)]
struct Donor {
    rpc: u64,
    asked: Option<NodeRef>,
    registers: Registers,
    after: Option<(Offset, Key)>,
    end: Option<Acceptor>,
    resend_at: Time,
}

#[derive(Debug)]
struct Filling {
    slot: Slot,
    extent: Extent,
    era: Era,
    donors: BTreeMap<Slot, Donor>,
}

/// The replacements and fills of one node.
#[derive(Debug, Default)]
pub(crate) struct Replacements {
    replacing: BTreeMap<u64, Replacing>,
    fills: BTreeMap<(Slot, Offset), Filling>,
    /// Replica ids drawn for a proposal, with the offsets for which they may still become an acceptor.
    proposed: BTreeMap<u64, (Slot, Vec<Extent>)>,
    pub(crate) next_scan: Option<Time>,
    pub(crate) pause_until: Time,
}

impl Replacements {
    fn schedule(&mut self, at: Time) {
        self.next_scan = Some(self.next_scan.map_or(at, |n| n.min(at)));
    }

    /// Whether a replacement of an overlapping piece is under way here.
    pub(crate) fn is_at_work(&self, extent: Extent, slot: impl Fn(Slot) -> bool) -> bool {
        self.replacing.values().any(|r| slot(r.slot) && r.extent.intersect(&extent).is_some())
    }

    pub(crate) fn describe(&self) -> String {
        let replacing: Vec<String> = self
            .replacing
            .values()
            .map(|r| {
                let stage = match &r.stage {
                    Stage::Asking { answers } => format!("asking, {} answers", answers.len()),
                    Stage::Preparing { promises, .. } => format!("preparing, {} promises", promises.len()),
                    Stage::Accepting { grants, .. } => format!("accepting, {} grants", grants.len()),
                };
                format!("slot {} {:?} {stage}", r.slot, r.extent)
            })
            .collect();
        let fills: Vec<String> = self
            .fills
            .values()
            .map(|f| {
                format!(
                    "fill slot {} {:?} ends {:?}",
                    f.slot,
                    f.extent,
                    f.donors.iter().map(|(s, d)| (*s, d.end.is_some())).collect::<Vec<_>>()
                )
            })
            .collect();
        format!("{replacing:?} {fills:?} proposed {}", self.proposed.len())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.replacing.len() >= REPLACING_MAX
    }
}

impl DhtNode {
    /// Begins to replace the replica of `slot` in (part of) `extent`.
    pub(crate) fn begin_replacement(&mut self, slot: Slot, extent: Extent) {
        let id = self.ctx.draw_rpc();
        let now = self.ctx.now;
        let resend_at = now + self.ctx.config.vote_timeout;
        self.replacements.schedule(resend_at);
        let stage = Stage::Asking { answers: BTreeMap::new() };
        self.replacements
            .replacing
            .insert(id, Replacing { slot, extent, stage, resend_at, give_up_at: now + STALL });
        self.transmit_replacement(id);
    }

    fn transmit_replacement(&mut self, id: u64) {
        let Some(r) = self.replacements.replacing.get(&id) else { return };
        let extent = r.extent;
        let mut out = Vec::new();
        for slot in self.ctx.space.slots() {
            let m = match &r.stage {
                Stage::Asking { answers } if slot != r.slot && !answers.contains_key(&slot) => {
                    Message::ConfigurationQuery { rpc: id, slot, extent }
                }
                Stage::Preparing { configuration, ballot, promises } if !promises.contains_key(&slot) => {
                    let suspect = self.ctx.owner(r.slot, extent.lo).map(|n| n.id);
                    let era = Era::of(configuration);
                    Message::ChangePrepare { rpc: id, slot, extent, era, ballot: *ballot, suspect }
                }
                Stage::Accepting { configuration, ballot, members, grants } if !grants.contains(&slot) => {
                    let (era, members) = (Era::of(configuration), members.clone());
                    Message::ChangeAccept { rpc: id, slot, extent, era, ballot: *ballot, members }
                }
                Stage::Asking { .. } | Stage::Preparing { .. } | Stage::Accepting { .. } => continue,
            };
            out.push((slot, m));
        }
        for (slot, m) in out {
            let here = self.acceptors.find(slot, extent.lo).is_some();
            let to = if here { Some(self.ctx.me) } else { self.ctx.live_owner(slot, extent.lo) };
            if let Some(to) = to.filter(|t| here || t.id != self.ctx.me.id) {
                self.ctx.send(to, m);
            }
        }
    }

    /// Which configurations are in force here?
    pub(crate) fn serve_configuration_query(&mut self, from: NodeRef, rpc: u64, slot: Slot, extent: Extent) {
        let pieces: Vec<_> = self
            .acceptors
            .parts(slot, extent)
            .map(|(e, a)| (e, a.configuration.clone(), a.is_active()))
            .collect();
        self.ctx.send(from, Message::ConfigurationReply { rpc, slot, extent, pieces });
    }

    /// An answer to that.
    pub(crate) fn on_configuration_reply(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        pieces: Vec<(Extent, Arc<Configuration>, bool)>,
    ) {
        if rpc == 0 {
            self.learn_places(from, slot, &pieces);
            self.compare_configurations(from, &pieces);
            return;
        }
        let quorum = self.ctx.space.quorum();
        let replicas = usize::from(self.ctx.space.replicas());
        let Some(r) = self.replacements.replacing.get_mut(&rpc) else { return };
        let Stage::Asking { answers } = &mut r.stage else { return };
        if pieces.iter().any(|(_, c, _)| c.members.len() != replicas) {
            return;
        }
        answers.insert(slot, pieces);
        // The part that begins where the extent begins, over which every answer is uniform.
        let lo = r.extent.lo;
        let mut part = r.extent;
        let mut newest: Option<Arc<Configuration>> = None;
        let mut whole = 0;
        for a in answers.values() {
            let Some((e, c, is_active)) = a.iter().find(|(e, _, _)| e.contains(lo)) else { continue };
            part = part.intersect(e).unwrap_or(part);
            whole += usize::from(*is_active);
            if newest.as_ref().is_none_or(|n| n.epoch < c.epoch) {
                newest = Some(c.clone());
            }
        }
        let Some(configuration) = newest.filter(|_| whole >= quorum) else { return };
        r.extent = part;
        let ballot = self.ctx.draw_ballot();
        r.stage = Stage::Preparing { configuration, ballot, promises: BTreeMap::new() };
        r.give_up_at = self.ctx.now + STALL;
        self.transmit_replacement(rpc);
    }

    /// Asks other members which configuration they have: one that was replaced while it was not heard may never
    /// be asked anything again, and would not know.
    pub(crate) fn ask_about_configurations(&mut self) {
        let r = self.ctx.space.replicas();
        let turn = u8::try_from(self.ctx.draw_rpc() % u64::from(r.max(2) - 1)).unwrap_or(0) + 1;
        let mut out = Vec::new();
        for a in self.acceptors.owned() {
            let slot = (a.slot + turn) % r;
            for (extent, owner) in self.ctx.locations.pieces(slot, a.extent) {
                if let Some(to) = owner.filter(|o| o.id != self.ctx.me.id) {
                    out.push((to, Message::ConfigurationQuery { rpc: 0, slot, extent }));
                }
            }
        }
        for (to, m) in out {
            self.ctx.send(to, m);
        }
    }

    fn compare_configurations(&mut self, from: NodeRef, pieces: &[(Extent, Arc<Configuration>, bool)]) {
        for (extent, c, _) in pieces {
            if c.members.len() != usize::from(self.ctx.space.replicas()) {
                continue;
            }
            let mut newer: Option<(Extent, Arc<Configuration>)> = None;
            let mut is_older = false;
            for slot in self.ctx.space.slots() {
                for (part, a) in self.acceptors.parts(slot, *extent) {
                    is_older |= a.configuration.epoch < c.epoch;
                    if a.configuration.epoch > c.epoch {
                        newer = Some((part, a.configuration.clone()));
                    }
                }
            }
            if is_older {
                self.learn_configuration(*extent, c);
            }
            if let Some((extent, configuration)) = newer {
                self.ctx.send(from, Message::Install { extent, configuration });
            }
        }
    }

    /// First phase, at a member.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_change_prepare(
        &mut self,
        from: NodeRef,
        slot: Slot,
        rpc: u64,
        extent: Extent,
        era: Era,
        ballot: Ballot,
        suspect: Option<ring::NodeId>,
    ) {
        self.ctx.meet_ballot(ballot);
        let answer = match self.acceptors.covering(slot, extent, Some(era)) {
            Err(d) => Err(d),
            Ok(_) if suspect.is_some_and(|s| s != from.id && self.ctx.is_live(s)) => Err(Denied::StillHeard),
            Ok(keys) => {
                self.acceptors.cut_extent(slot, extent);
                let mut best: Option<(Ballot, Vec<Member>)> = None;
                let mut refused = None;
                let lows: Vec<Offset> = self.acceptors.parts(slot, extent).map(|(e, _)| e.lo).collect();
                debug_assert!(lows.len() >= keys.len().min(1));
                for lo in lows {
                    let Some(a) = self.acceptors.find_mut(slot, lo) else { continue };
                    match a.change_prepare(ballot) {
                        Ok(Some(v)) if best.as_ref().is_none_or(|b| b.0 < v.0) => best = Some(v),
                        Ok(_) => {}
                        Err(_) => refused = Some(Denied::Promised(a.change_promised)),
                    }
                }
                refused.map_or(Ok(best), Err)
            }
        };
        self.ctx.send(from, Message::ChangePrepareReply { rpc, slot, answer });
    }

    /// A promise.
    pub(crate) fn on_change_prepare_reply(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        answer: Result<Option<(Ballot, Vec<Member>)>, Denied>,
    ) {
        let quorum = self.ctx.space.quorum();
        let Some(r) = self.replacements.replacing.get_mut(&rpc) else { return };
        let Stage::Preparing { configuration, ballot, promises } = &mut r.stage else { return };
        let accepted = match answer {
            Ok(a) => a,
            Err(d) => {
                let (extent, configuration) = (r.extent, configuration.clone());
                self.on_change_denied(from, rpc, slot, extent, configuration, d);
                return;
            }
        };
        promises.insert(slot, accepted);
        let others = promises.keys().filter(|s| **s != r.slot).count();
        let reported = promises.values().flatten().max_by_key(|(b, _)| *b).map(|(_, m)| m.clone());
        let members = match reported {
            Some(m) if promises.len() >= quorum => m,
            None if others >= quorum => {
                let mut m = configuration.members.clone();
                let epoch = configuration.epoch + 1;
                let replica = self.ctx.draw_replica();
                if let Some(x) = m.get_mut(usize::from(r.slot)) {
                    *x = Member { replica, since: epoch };
                }
                self.replacements.proposed.insert(replica.counter, (r.slot, vec![r.extent]));
                m
            }
            _ => return,
        };
        r.stage = Stage::Accepting {
            configuration: configuration.clone(),
            ballot: *ballot,
            members,
            grants: Vec::new(),
        };
        r.give_up_at = self.ctx.now + STALL;
        self.transmit_replacement(rpc);
    }

    fn on_change_denied(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        extent: Extent,
        configuration: Arc<Configuration>,
        denied: Denied,
    ) {
        match denied {
            Denied::Promised(b) => {
                self.ctx.meet_ballot(b);
                self.replacements.replacing.remove(&rpc);
            }
            Denied::StaleEpoch { extent, configuration } => {
                self.replacements.replacing.remove(&rpc);
                self.learn_configuration(extent, &configuration);
            }
            Denied::StillHeard => {
                self.replacements.replacing.remove(&rpc);
            }
            Denied::NewerEpoch => self.ctx.send(from, Message::Install { extent, configuration }),
            Denied::NotOwner { hint } => self.ctx.learn_not_owner(slot, extent.lo, from.id, hint),
            Denied::NotReady | Denied::Low => {}
        }
    }

    /// Second phase, at a member.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_change_accept(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        extent: Extent,
        era: Era,
        ballot: Ballot,
        members: &[Member],
    ) {
        let answer = match self.acceptors.covering(slot, extent, Some(era)) {
            _ if members.len() != usize::from(self.ctx.space.replicas()) => Err(Denied::Low),
            Err(d) => Err(d),
            Ok(_) => {
                let promised = self.acceptors.parts(slot, extent).map(|(_, a)| a.change_promised).max();
                match promised.filter(|p| *p > ballot) {
                    Some(p) => Err(Denied::Promised(p)),
                    None => {
                        self.acceptors.cut_extent(slot, extent);
                        let lows: Vec<Offset> =
                            self.acceptors.parts(slot, extent).map(|(e, _)| e.lo).collect();
                        for lo in lows {
                            if let Some(a) = self.acceptors.find_mut(slot, lo) {
                                // Not refused: no promise here is higher.
                                let _ = a.change_accept(ballot, members.to_vec());
                            }
                        }
                        Ok(())
                    }
                }
            }
        };
        self.ctx.send(from, Message::ChangeAcceptReply { rpc, slot, answer });
    }

    /// A grant; with Q of them the next epoch is decided.
    pub(crate) fn on_change_accept_reply(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        answer: Result<(), Denied>,
    ) {
        let quorum = self.ctx.space.quorum();
        let Some(r) = self.replacements.replacing.get_mut(&rpc) else { return };
        let extent = r.extent;
        let Stage::Accepting { configuration, members, grants, .. } = &mut r.stage else { return };
        if let Err(d) = answer {
            let configuration = configuration.clone();
            self.on_change_denied(from, rpc, slot, extent, configuration, d);
            return;
        }
        if !grants.contains(&slot) {
            grants.push(slot);
        }
        if grants.len() < quorum {
            return;
        }
        let Some(ring) = self.ctx.ring else { return };
        let next = Arc::new(Configuration::new(ring, configuration.epoch + 1, members.clone()));
        self.replacements.replacing.remove(&rpc);
        let mut told: Vec<NodeRef> = Vec::new();
        let owners = self.ctx.space.slots().filter_map(|s| self.ctx.owner(s, extent.lo));
        let newcomers = next
            .members
            .iter()
            .filter(|m| m.since == next.epoch)
            .filter_map(|m| self.ctx.members.get(m.replica.node).map(|m| m.info.node));
        for to in owners.chain(newcomers) {
            if to.id != self.ctx.me.id && !told.contains(&to) {
                told.push(to);
            }
        }
        for to in told {
            self.ctx.send(to, Message::Install { extent, configuration: next.clone() });
        }
        self.learn_configuration(extent, &next);
    }

    /// Makes the acceptors of replicas of ours that a decided configuration names for the first time.
    pub(crate) fn on_configuration_learned(&mut self, extent: Extent, c: &Arc<Configuration>) {
        for (slot, m) in self.ctx.space.slots().zip(&c.members) {
            if m.replica.node != self.ctx.me.id || m.since != c.epoch {
                continue;
            }
            let Some((proposed_slot, extents)) = self.replacements.proposed.get_mut(&m.replica.counter)
            else {
                continue;
            };
            if *proposed_slot != slot {
                continue;
            }
            let mut rest = Vec::new();
            let mut made = Vec::new();
            for e in std::mem::take(extents) {
                match e.intersect(&extent) {
                    Some(part) => {
                        rest.extend(e.minus(&extent));
                        made.push(part);
                    }
                    None => rest.push(e),
                }
            }
            *extents = rest;
            if extents.is_empty() {
                self.replacements.proposed.remove(&m.replica.counter);
            }
            for part in made {
                if self.acceptors.overlaps(slot, part) {
                    continue;
                }
                self.acceptors.insert(Acceptor::new(slot, part, c.clone(), false));
                self.ctx.locations.set(slot, part, self.ctx.me);
                self.is_owned_changed = true;
                let now = self.ctx.now;
                self.replacements.schedule(now);
            }
        }
    }

    /// Asks for the pages that incomplete acceptors here still need.
    fn scan_fills(&mut self) {
        let now = self.ctx.now;
        let incomplete: Vec<(Slot, Extent, Era)> = self
            .acceptors
            .owned()
            .filter(|a| !a.is_complete && !a.is_frozen)
            .map(|a| (a.slot, a.extent, Era::of(&a.configuration)))
            .collect();
        self.replacements.fills.retain(|_, f| {
            incomplete.iter().any(|(s, e, era)| *s == f.slot && *e == f.extent && *era == f.era)
        });
        for (slot, whole, _) in incomplete {
            // Each donor must own the whole extent of a stream.
            let mut extent = whole;
            for other in self.ctx.space.slots().filter(|s| *s != slot) {
                extent = match self.acceptors.find(other, extent.lo) {
                    Some(a) => extent.intersect(&a.extent).unwrap_or(extent),
                    None => self.ctx.locations.around(other, extent.lo, extent),
                };
            }
            if extent != whole {
                self.acceptors.cut_extent(slot, extent);
            }
            let Some(era) = self.acceptors.find(slot, extent.lo).map(|a| Era::of(&a.configuration)) else {
                continue;
            };
            let f = self.replacements.fills.entry((slot, extent.lo)).or_insert_with(|| Filling {
                slot,
                extent,
                era,
                donors: BTreeMap::new(),
            });
            if f.extent != extent {
                *f = Filling { slot, extent, era, donors: BTreeMap::new() };
            }
            for other in self.ctx.space.slots().filter(|s| *s != slot) {
                self.pull(slot, extent, other);
            }
        }
        let next = self
            .replacements
            .fills
            .values()
            .flat_map(|f| f.donors.values().filter(|d| d.end.is_none()).map(|d| d.resend_at))
            .min();
        let is_waiting = self.acceptors.owned().any(|a| !a.is_complete);
        let floor = now + Duration::from_millis(2);
        if let Some(t) = next.or(is_waiting.then_some(now + self.ctx.config.vote_timeout)) {
            self.replacements.schedule(t.max(floor));
        }
    }

    fn pull(&mut self, slot: Slot, extent: Extent, donor_slot: Slot) {
        let now = self.ctx.now;
        let here = self.acceptors.find(donor_slot, extent.lo).is_some();
        let owner = if here { Some(self.ctx.me) } else { self.ctx.live_owner(donor_slot, extent.lo) };
        let rpc = self.ctx.draw_rpc();
        let Some(f) = self.replacements.fills.get_mut(&(slot, extent.lo)) else { return };
        let d = f.donors.entry(donor_slot).or_default();
        if d.end.is_some() || d.resend_at > now {
            return;
        }
        let Some(owner) = owner.filter(|o| here || o.id != self.ctx.me.id) else { return };
        if d.asked.is_some_and(|a| a.id != owner.id) {
            // Another owner, the same replica perhaps: its stream is its own.
            *d = Donor::default();
        }
        d.rpc = rpc;
        d.asked = Some(owner);
        d.resend_at = now + self.ctx.config.vote_timeout;
        let after = d.after.clone();
        let era = f.era;
        let Some(since) = self.acceptors.find(slot, extent.lo).map(Acceptor::since) else { return };
        self.ctx.send(
            owner,
            Message::FillPull { rpc, slot: donor_slot, extent, era, target: (slot, since), after },
        );
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
    ) {
        let answer = match self.acceptors.covering(slot, extent, Some(era)) {
            Err(Denied::NotOwner { hint: None }) => {
                let hint = self.ctx.owner(slot, extent.lo).filter(|o| o.id != self.ctx.me.id);
                Err(Denied::NotOwner { hint })
            }
            Err(d) => Err(d),
            Ok(_) if self.acceptors.parts(slot, extent).any(|(_, a)| a.refused.contains(&target)) => {
                Err(Denied::StillHeard)
            }
            Ok(lows) => {
                let parts = self.acceptors.parts(slot, extent).map(|(_, a)| a);
                let (entries, is_last) = page(parts, extent, after, self.ctx.config.page_bytes_max);
                let mut end = None;
                if is_last {
                    for lo in &lows {
                        // A claim for more than `extent` only makes others more careful.
                        if let Some(a) = self.acceptors.find_mut(slot, *lo) {
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
                    end = state.map(|state| Box::new(PageEnd { state }));
                }
                Ok((entries, end))
            }
        };
        self.ctx.send(from, Message::FillPage { rpc, slot, answer });
    }

    /// A page of a donor.
    pub(crate) fn on_fill_page(
        &mut self,
        from: NodeRef,
        rpc: u64,
        donor_slot: Slot,
        answer: Result<(Vec<PageEntry>, Option<Box<PageEnd>>), Denied>,
    ) {
        let now = self.ctx.now;
        let quorum = self.ctx.space.quorum();
        let found = self
            .replacements
            .fills
            .values_mut()
            .find(|f| f.donors.get(&donor_slot).is_some_and(|d| d.rpc == rpc && d.end.is_none()));
        let Some(f) = found else { return };
        let (slot, extent, era) = (f.slot, f.extent, f.era);
        let Some(d) = f.donors.get_mut(&donor_slot) else { return };
        match answer {
            Ok((entries, end)) => {
                if let Some(e) = entries.last() {
                    d.after = Some((e.offset, e.key.clone()));
                }
                store_entries(&mut d.registers, extent, entries);
                d.resend_at = now;
                if let Some(end) = end {
                    if Era::of(&end.state.configuration) == era {
                        d.end = acceptor_of(&end.state, std::mem::take(&mut d.registers), &self.ctx.space);
                    } else {
                        *d = Donor::default();
                    }
                }
            }
            Err(Denied::NewerEpoch) => {
                d.resend_at = now + NOT_READY_RESEND;
                if let Some(a) = self.acceptors.find(slot, extent.lo) {
                    let configuration = a.configuration.clone();
                    self.ctx.send(from, Message::Install { extent, configuration });
                }
            }
            Err(Denied::StaleEpoch { extent, configuration }) => {
                self.replacements.fills.remove(&(slot, extent.lo));
                self.learn_configuration(extent, &configuration);
            }
            Err(Denied::NotOwner { hint }) => {
                d.resend_at = now + NOT_READY_RESEND;
                self.ctx.learn_not_owner(donor_slot, extent.lo, from.id, hint);
            }
            Err(Denied::NotReady | Denied::Promised(_) | Denied::Low | Denied::StillHeard) => {
                d.resend_at = now + NOT_READY_RESEND;
            }
        }
        let Some(f) = self.replacements.fills.get_mut(&(slot, extent.lo)).filter(|f| f.era == era) else {
            return;
        };
        if f.donors.values().filter(|d| d.end.is_some()).count() >= quorum {
            let donors: Vec<Acceptor> =
                std::mem::take(&mut f.donors).into_values().filter_map(|d| d.end).collect();
            self.replacements.fills.remove(&(slot, extent.lo));
            self.finish_fill(slot, extent, era, donors);
        }
        self.replacements.schedule(now);
    }

    fn finish_fill(&mut self, slot: Slot, extent: Extent, era: Era, donors: Vec<Acceptor>) {
        let Some(a) = self.acceptors.find_mut(slot, extent.lo) else { return };
        if a.extent != extent || a.is_complete || Era::of(&a.configuration) != era {
            return;
        }
        a.fill(donors);
        let configuration = a.configuration.clone();
        let top = a.homes.iter().map(|h| h.high.max(h.floor.n)).max().unwrap_or(0);
        self.ctx.meet_n(top);
        self.acceptors.join_neighbours();
        self.is_owned_changed = true;
        self.is_duty_due = true;
        self.ctx.announce(Event::Replaced { slot, extent, configuration });
    }

    /// A holder of frozen memory asks whether it is still needed.
    pub(crate) fn serve_frozen_query(&mut self, from: NodeRef, slot: Slot, extent: Extent, since: u64) {
        let newer: Vec<(Extent, u64)> = self
            .acceptors
            .parts(slot, extent)
            .filter(|(_, a)| a.is_active() && a.since() > since)
            .map(|(e, a)| (e, a.since()))
            .collect();
        for (extent, since) in newer {
            self.ctx.send(from, Message::FrozenReply { slot, extent, since });
        }
    }

    /// Asks after the successors of frozen memory here.
    pub(crate) fn ask_about_frozen(&mut self) {
        let mut out = Vec::new();
        for a in self.acceptors.frozen() {
            for (part, owner) in self.ctx.locations.pieces(a.slot, a.extent) {
                if let Some(to) = owner {
                    out.push((to, Message::FrozenQuery { slot: a.slot, extent: part, since: a.since() }));
                }
            }
        }
        for (to, m) in out {
            self.ctx.send(to, m);
        }
    }

    /// Repeats what was not answered, gives up what leads nowhere.
    pub(crate) fn scan_replacements(&mut self) {
        let now = self.ctx.now;
        if self.replacements.next_scan.is_none_or(|t| t > now) {
            return;
        }
        self.replacements.next_scan = None;
        let again = now + self.ctx.config.vote_timeout;
        let mut late = Vec::new();
        let before = self.replacements.replacing.len();
        self.replacements.replacing.retain(|id, r| {
            if r.resend_at <= now {
                r.resend_at = again;
                late.push(*id);
            }
            r.give_up_at > now
        });
        if self.replacements.replacing.len() < before {
            self.replacements.pause_until = now + self.ctx.jitter(Duration::from_millis(200));
        }
        for id in late {
            self.transmit_replacement(id);
        }
        if let Some(t) = self.replacements.replacing.values().map(|r| r.resend_at.min(r.give_up_at)).min() {
            self.replacements.schedule(t);
        }
        self.scan_fills();
    }
}

fn merge_states(
    mut a: crate::message::AcceptorState,
    b: crate::message::AcceptorState,
) -> crate::message::AcceptorState {
    for (x, y) in a.homes.iter_mut().zip(&b.homes) {
        x.merge(y);
    }
    a.donated.extend(b.donated);
    a.refused.extend(b.refused);
    a
}
