//! Replacement: a new replica for a slot whose owner is gone.
//!
//! First the next configuration is decided by the members of the present one, by single-decree Paxos; then the
//! new replica is filled (see `fill`). Until it is decided nothing
//! has changed anywhere; a node that cannot reach Q others changes nothing.
//!
//! Keeps:
//! 1. A fresh proposal has promises of Q complete members other than the replaced one; a reported one is
//!    completed first, with Q promises and Q grants of any.
//! 2. A replica id is drawn once and becomes an acceptor at most once for every offset.
//!
//! Source: `docs/protocol.md`, section 6.

use crate::counters::RoundKind;
use crate::fill::Filling;
use crate::frozen::{Resuming, Sighting};
use crate::message::{Denied, Era, Message};
use crate::node::DhtNode;
use crate::plant::Plant;
use core::time::Duration;
use paxos::{Acceptor, Configuration, Member};
use ring::{Extent, NodeRef, Offset, ReplicaId, Slot, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Ballot;

/// Replacements under way at once.
const REPLACING_MAX: usize = 8;
/// A replacement that came no further for this long is given up.
const STALL: Duration = Duration::from_millis(1500);

/// By slot: pieces with their configuration, and whether their memory is whole.
type Answers = BTreeMap<Slot, Vec<(Extent, Arc<Configuration>, bool)>>;
type Promises = BTreeMap<Slot, Option<(Ballot, Vec<Member>)>>;

#[derive(Clone, Debug)]
enum Stage {
    /// Which configuration is in force?
    Asking { answers: Answers },
    /// First phase.
    Preparing { configuration: Arc<Configuration>, ballot: Ballot, promises: Promises },
    /// Second phase.
    Accepting { configuration: Arc<Configuration>, ballot: Ballot, members: Vec<Member>, grants: Vec<Slot> },
}

#[derive(Clone, Debug)]
struct Replacing {
    slot: Slot,
    extent: Extent,
    stage: Stage,
    /// Nobody is asked whether he hears the one to be replaced.
    is_rash: bool,
    resend_at: Time,
    give_up_at: Time,
}

/// The replacements and fills of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replacements {
    replacing: BTreeMap<u64, Replacing>,
    pub(crate) fills: BTreeMap<(Slot, Offset), Filling>,
    pub(crate) sightings: Vec<Sighting>,
    pub(crate) resuming: BTreeMap<u64, Resuming>,
    /// Replica ids drawn for a proposal, with the offsets for which they may still become an acceptor.
    proposed: BTreeMap<u64, (Slot, Vec<Extent>)>,
    /// By slot: the replica id drawn last, with the offsets for which it was proposed.
    named: BTreeMap<Slot, (ReplicaId, Vec<Extent>)>,
    pub(crate) next_scan: Option<Time>,
    pub(crate) pause_until: Time,
}

impl Replacements {
    pub(crate) fn schedule(&mut self, at: Time) {
        self.next_scan = Some(self.next_scan.map_or(at, |n| n.min(at)));
    }

    /// The replica id for a fresh proposal. Neighbouring pieces of a slot get one, so that they can become one: a
    /// replica id is used once for every offset.
    fn name(
        &mut self,
        slot: Slot,
        extent: Extent,
        is_careless: bool,
        draw: impl FnOnce() -> ReplicaId,
    ) -> ReplicaId {
        let replica = match self.named.get_mut(&slot) {
            Some((replica, used)) if is_careless || used.iter().all(|e| e.intersect(&extent).is_none()) => {
                used.push(extent);
                *replica
            }
            _ => {
                let replica = draw();
                self.named.insert(slot, (replica, vec![extent]));
                replica
            }
        };
        self.proposed.entry(replica.counter).or_insert_with(|| (slot, Vec::new())).1.push(extent);
        replica
    }

    /// Whether a replacement of an overlapping piece is under way here.
    pub(crate) fn is_at_work(&self, extent: Extent, slot: impl Fn(Slot) -> bool) -> bool {
        self.replacing.values().any(|r| slot(r.slot) && r.extent.intersect(&extent).is_some())
    }

    /// Replacements and refills under way.
    pub(crate) fn running(&self) -> usize {
        self.replacing.len() + self.fills.len()
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
        let fills: Vec<String> = self.fills.values().map(Filling::describe).collect();
        format!("{replacing:?} {fills:?} proposed {}", self.proposed.len())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.replacing.len() >= REPLACING_MAX
    }
}

impl DhtNode {
    /// Begins to replace the replica of `slot` in (part of) `extent`.
    pub(crate) fn begin_replacement(&mut self, slot: Slot, extent: Extent) {
        self.replace(slot, extent, false);
    }

    /// Begins to replace a replica whose owner is alive, as a wrong suspicion may; `dice` says which.
    pub(crate) fn replace_wrongly(&mut self, dice: u64) {
        let space = self.ctx.space;
        let slot = Slot::try_from(dice % u64::from(space.replicas())).unwrap_or(0);
        let pieces = self.ctx.locations.pieces(slot, space.whole());
        let at = usize::try_from(dice >> 16).unwrap_or(0) % pieces.len().max(1);
        let Some((extent, _)) = pieces.get(at).copied() else { return };
        let mut rest = vec![extent];
        for a in self.acceptors.iter().filter(|a| a.slot != slot || !a.is_frozen) {
            rest = rest.into_iter().flat_map(|r| r.minus(&a.extent)).collect();
        }
        if let Some(extent) = rest.first().filter(|e| !self.handovers.is_receiving(**e, |_| true)) {
            self.replace(slot, *extent, true);
        }
    }

    pub(crate) fn replace(&mut self, slot: Slot, extent: Extent, is_rash: bool) {
        let id = self.ctx.draw_rpc();
        let now = self.ctx.now;
        let resend_at = now + self.ctx.config.vote_timeout;
        self.replacements.schedule(resend_at);
        let stage = Stage::Asking { answers: BTreeMap::new() };
        self.replacements
            .replacing
            .insert(id, Replacing { slot, extent, stage, is_rash, resend_at, give_up_at: now + STALL });
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
                    let owner = self.ctx.owner(r.slot, extent.lo).filter(|_| !r.is_rash);
                    let suspect = owner.map(|n| n.id);
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
        let feasible = feasible_parts(r.extent, answers, quorum);
        if feasible.is_empty() {
            return;
        }
        // Mostly the first, but one that leads nowhere must not hold up the others.
        let pick = if rand_core::RngCore::next_u64(&mut self.ctx.rng).is_multiple_of(2) {
            0
        } else {
            usize::try_from(rand_core::RngCore::next_u64(&mut self.ctx.rng) >> 1).unwrap_or(0)
                % feasible.len()
        };
        let Some((part, configuration)) = feasible.into_iter().nth(pick) else { return };
        r.extent = part;
        if self.ctx.is_planted(Plant::DecidedAlone) {
            let slot = r.slot;
            self.replacements.replacing.remove(&rpc);
            self.acceptors.insert(Acceptor::new(slot, part, configuration, true));
            self.ctx.locations.set(slot, part, self.ctx.me);
            self.is_owned_changed = true;
            return;
        }
        let ballot = self.ctx.draw_ballot();
        self.ctx.rounds.began(RoundKind::Change);
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
        let mut part = extent;
        let answer = match self.acceptors.covering(slot, extent, Some(era)) {
            Err(d) if !self.is_waived(&d) => Err(d),
            _ if suspect.is_some_and(|s| s != from.id && self.ctx.is_live(s)) => Err(Denied::StillHeard),
            _ => {
                self.acceptors.cut_extent(slot, extent);
                let mut said = extent;
                let mut first: Option<Option<(Ballot, Vec<Member>)>> = None;
                let mut refused = None;
                let lows: Vec<Offset> = self.acceptors.parts(slot, extent).map(|(e, _)| e.lo).collect();
                for lo in lows {
                    let Some(a) = self.acceptors.find_mut(slot, lo) else { continue };
                    match a.change_prepare(ballot) {
                        Ok(v) if first.as_ref().is_none_or(|f| *f == v) => first = Some(v),
                        // What was accepted for one part was not for the others: they are not changed with it.
                        Ok(_) if lo <= said.hi => said.hi = lo - 1,
                        Ok(_) => {}
                        Err(_) => refused = Some(Denied::Promised(a.change_promised)),
                    }
                }
                part = said;
                refused.map_or(Ok(first.flatten()), Err)
            }
        };
        self.ctx.send(from, Message::ChangePrepareReply { rpc, slot, extent: part, answer });
    }

    /// A promise.
    pub(crate) fn on_change_prepare_reply(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        part: Extent,
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
        // Only where every answer is the same over the whole of what is decided: an accepted proposal is for the
        // offsets for which it was made, and a replica id may have been used at its neighbours.
        let Some(extent) = r.extent.intersect(&part).filter(|e| e.lo == r.extent.lo) else { return };
        r.extent = extent;
        promises.insert(slot, accepted);
        let is_any = self.ctx.is_planted(Plant::FreshByAny);
        let others = promises.keys().filter(|s| **s != r.slot || is_any).count();
        let reported = promises.values().flatten().max_by_key(|(b, _)| *b).map(|(_, m)| m.clone());
        let reported = reported.filter(|_| !self.ctx.is_planted(Plant::AcceptedIgnored));
        let (slot, extent, ballot, configuration) = (r.slot, r.extent, *ballot, configuration.clone());
        let members = match reported {
            Some(m) if promises.len() >= quorum => m,
            None if others >= quorum => {
                let mut m = configuration.members.clone();
                let since = configuration.epoch + 1;
                let is_careless = self.ctx.is_planted(Plant::ReplicaReused);
                let replica = self.replacements.name(slot, extent, is_careless, || self.ctx.draw_replica());
                if let Some(x) = m.get_mut(usize::from(slot)) {
                    *x = Member { replica, since };
                }
                m
            }
            _ => return,
        };
        let Some(r) = self.replacements.replacing.get_mut(&rpc) else { return };
        r.stage = Stage::Accepting { configuration, ballot, members, grants: Vec::new() };
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
            Denied::NotOwner { hint, extent: told } => {
                self.ctx.learn_not_owner(slot, extent.lo, told, from.id, hint);
            }
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
            Err(d) if !self.is_waived(&d) => Err(d),
            _ => {
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
        let quorum = self.ctx.quorum_unless(Plant::ChangeFewer);
        let Some(r) = self.replacements.replacing.get_mut(&rpc) else { return };
        let (extent, replaced) = (r.extent, r.slot);
        let Stage::Accepting { configuration, members, grants, .. } = &mut r.stage else { return };
        if let Err(d) = answer {
            let configuration = configuration.clone();
            self.on_change_denied(from, rpc, slot, extent, configuration, d);
            return;
        }
        if !grants.contains(&slot) && (slot != replaced || !self.ctx.is_planted(Plant::ReportedByOthers)) {
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
                self.acceptors.insert(Acceptor::new(
                    slot,
                    part,
                    c.clone(),
                    self.ctx.is_planted(Plant::NoFill),
                ));
                self.ctx.locations.set(slot, part, self.ctx.me);
                self.is_owned_changed = true;
                let now = self.ctx.now;
                self.replacements.schedule(now);
            }
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

/// The parts of `extent` over which every answer is uniform and at least `quorum` of them come from whole memory,
/// each with the newest configuration; neighbours under one configuration are one part.
fn feasible_parts(extent: Extent, answers: &Answers, quorum: usize) -> Vec<(Extent, Arc<Configuration>)> {
    let mut cuts: Vec<Offset> = vec![extent.lo];
    for (e, _, _) in answers.values().flatten() {
        cuts.extend([Some(e.lo), e.hi.checked_add(1)].into_iter().flatten().filter(|c| extent.contains(*c)));
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut out: Vec<(Extent, Arc<Configuration>)> = Vec::new();
    for (i, lo) in cuts.iter().enumerate() {
        let hi = cuts.get(i + 1).map_or(extent.hi, |next| next - 1);
        let here = || answers.values().filter_map(|a| a.iter().find(|(e, _, _)| e.contains(*lo)));
        let Some((_, newest, _)) = here().max_by_key(|(_, c, _)| c.epoch) else { continue };
        if here().filter(|(_, _, is_whole)| *is_whole).count() < quorum {
            continue;
        }
        match out.last_mut() {
            Some((e, c)) if e.hi.checked_add(1) == Some(*lo) && c == newest => e.hi = hi,
            _ => out.push((Extent::new(*lo, hi), newest.clone())),
        }
    }
    out
}
