//! Salvage: the operator's answer to a lost quorum.
//!
//! Where fewer than Q members of an interval are left, nothing can be decided any more: reads and writes there say
//! `unavailable`. At an operator's command, and never by itself, a node gathers what is left of such intervals from
//! all nodes that answer, and decides their configuration anew. Acknowledged writes that were only at the lost nodes
//! are gone then; the lineage, a counter in the epoch that everybody can read, tells that this may have happened.
//!
//! Keeps:
//! 1. Only intervals without Q complete members that answer are touched.
//! 2. What gave its memory never votes again under its old configuration: it is frozen before it is read.
//! 3. The new epoch is above every epoch of the lineage before, and no two commands ever decide the same one.
//!
//! Source: `docs/protocol.md`, section 6 (Salvage).

use crate::api::{Event, Phase, Reply, RequestId, SalvageReport};
use crate::fill::{Stream, merge_states};
use crate::message::{Denied, MemoryPiece, Message, PageEnd, PageEntry};
use crate::node::DhtNode;
use crate::transfer::{acceptor_of, page, page_digest, state_of};
use core::time::Duration;
use paxos::{Acceptor, Configuration, Member, epoch_of_lineage, lineage_of};
use rand_core::RngCore;
use ring::{Extent, NodeId, NodeRef, Offset, Slot, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::Key;

/// Nodes that have not told of their memory after this are counted as silent.
const SURVEY_WAIT: Duration = Duration::from_secs(2);
/// A source without progress for this long is given up.
const SOURCE_WAIT: Duration = Duration::from_secs(3);
/// Intervals gathered at once.
const GATHERS_MAX: usize = 8;

/// Memory of an interval at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    node: NodeRef,
    slot: Slot,
    /// The epoch in which the member came in.
    since: u64,
}

/// An interval without a quorum.
#[derive(Clone, Debug)]
struct Lost {
    extent: Extent,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Pull {
    source: Source,
    stream: Stream,
    give_up_at: Time,
    end: Option<Acceptor>,
}

/// An interval whose memory is being gathered.
#[derive(Debug)]
struct Gather {
    extent: Extent,
    pulls: Vec<Pull>,
}

/// A command under way.
#[derive(Debug)]
pub(crate) struct Salvage {
    id: RequestId,
    is_dry: bool,
    rpc: u64,
    silent: BTreeSet<NodeId>,
    found: Vec<(NodeRef, MemoryPiece)>,
    survey_ends: Option<Time>,
    todo: Vec<Lost>,
    gathers: Vec<Gather>,
    lineage: u64,
    epoch: u64,
    report: SalvageReport,
}

impl DhtNode {
    /// The command. A dry one only tells what would be done.
    pub(crate) fn begin_salvage(&mut self, id: RequestId, is_dry: bool) {
        if self.salvage.is_some() || self.phase != Phase::Member {
            let report = SalvageReport { is_refused: true, ..SalvageReport::default() };
            self.ctx.reply(id, Reply::Salvaged(Box::new(report)));
            return;
        }
        let rpc = self.ctx.draw_rpc();
        let everybody = self.everybody();
        let now = self.ctx.now;
        self.salvage = Some(Salvage {
            id,
            is_dry,
            rpc,
            silent: everybody.iter().map(|n| n.id).collect(),
            found: Vec::new(),
            survey_ends: Some(now + SURVEY_WAIT),
            todo: Vec::new(),
            gathers: Vec::new(),
            lineage: 0,
            epoch: 0,
            report: SalvageReport::default(),
        });
        for to in everybody {
            self.ctx.send(to, Message::SurveyQuery { rpc });
        }
    }

    /// All memory here, replaced memory too.
    pub(crate) fn serve_survey(&mut self, from: NodeRef, rpc: u64) {
        let pieces = self
            .acceptors
            .iter()
            .map(|a| MemoryPiece {
                slot: a.slot,
                extent: a.extent,
                configuration: a.configuration.clone(),
                is_whole: a.is_complete,
                is_active: a.is_active(),
            })
            .collect();
        self.ctx.send(from, Message::SurveyReply { rpc, pieces });
    }

    /// What a node has.
    pub(crate) fn on_survey_reply(&mut self, from: NodeRef, rpc: u64, pieces: Vec<MemoryPiece>) {
        let replicas = self.ctx.space.replicas();
        let Some(s) = self.salvage.as_mut().filter(|s| s.rpc == rpc && s.survey_ends.is_some()) else {
            return;
        };
        if !s.silent.remove(&from.id) {
            return;
        }
        let is_sound =
            |p: &MemoryPiece| p.slot < replicas && p.configuration.members.len() == usize::from(replicas);
        s.found.extend(pieces.into_iter().filter(is_sound).map(|p| (from, p)));
        if s.silent.is_empty() {
            self.end_survey();
        }
    }

    fn end_survey(&mut self) {
        let (quorum, whole) = (self.ctx.space.quorum(), self.ctx.space.whole());
        let spread = self.ctx.rng.next_u64();
        let dead = self.ctx.members.lost().count();
        let Some(s) = self.salvage.as_mut() else { return };
        s.survey_ends = None;
        s.report.silent = s.silent.len() + dead;
        let found = std::mem::take(&mut s.found);
        let top = found.iter().map(|(_, p)| lineage_of(p.configuration.epoch)).max().unwrap_or(0);
        s.lineage = top + 1;
        s.epoch = epoch_of_lineage(s.lineage, spread);
        s.todo = lost_intervals(whole, quorum, &found);
        s.report.lineage = if s.is_dry || s.todo.is_empty() { top } else { s.lineage };
        for lost in &s.todo {
            s.report.intervals += 1;
            s.report.lost_whole += usize::from(lost.sources.is_empty());
            let share = (lost.extent.hi - lost.extent.lo) / (whole.hi / 1_000_000).max(1);
            s.report.share_ppm = s.report.share_ppm.saturating_add(u32::try_from(share).unwrap_or(u32::MAX));
        }
        s.report.share_ppm = s.report.share_ppm.min(1_000_000);
        if s.is_dry {
            s.todo.clear();
        } else {
            self.abort_giving();
        }
        self.scan_salvage();
    }

    /// Asks for what is missing, gives up what does not come, ends the command.
    pub(crate) fn scan_salvage(&mut self) {
        let now = self.ctx.now;
        let Some(s) = self.salvage.as_mut() else { return };
        if let Some(at) = s.survey_ends {
            if at <= now {
                self.end_survey();
            }
            return;
        }
        while s.gathers.len() < GATHERS_MAX
            && let Some(lost) = s.todo.pop()
        {
            let pull = |source: &Source| Pull {
                source: *source,
                stream: Stream::default(),
                give_up_at: now + SOURCE_WAIT,
                end: None,
            };
            s.gathers.push(Gather { extent: lost.extent, pulls: lost.sources.iter().map(pull).collect() });
        }
        let mut out = Vec::new();
        for g in &mut s.gathers {
            let before = g.pulls.len();
            g.pulls.retain(|p| p.end.is_some() || p.give_up_at > now);
            s.report.sources_lost += before - g.pulls.len();
            for p in g.pulls.iter_mut().filter(|p| p.end.is_none() && p.stream.resend_at <= now) {
                p.stream.rpc = self.ctx.draw_rpc();
                p.stream.resend_at = now + self.ctx.config.vote_timeout;
                let (rpc, after, held) = (p.stream.rpc, p.stream.after.clone(), p.stream.held);
                let Source { node, slot, since } = p.source;
                out.push((node, Message::SalvagePull { rpc, slot, extent: g.extent, since, after, held }));
            }
        }
        let (ready, rest): (Vec<Gather>, Vec<Gather>) =
            std::mem::take(&mut s.gathers).into_iter().partition(|g| g.pulls.iter().all(|p| p.end.is_some()));
        s.gathers = rest;
        let is_over = s.gathers.is_empty() && s.todo.is_empty();
        for (to, m) in out {
            self.ctx.send(to, m);
        }
        let is_more = !ready.is_empty() && !is_over;
        for g in ready {
            self.decide_anew(g);
        }
        if is_over && let Some(s) = self.salvage.take() {
            self.ctx.reply(s.id, Reply::Salvaged(Box::new(s.report)));
        } else if is_more {
            self.scan_salvage();
        }
    }

    /// When [`DhtNode::scan_salvage`] is due.
    pub(crate) fn next_salvage(&self) -> Option<Time> {
        let s = self.salvage.as_ref()?;
        let waits = s.gathers.iter().flat_map(|g| &g.pulls).filter(|p| p.end.is_none());
        s.survey_ends.or_else(|| waits.map(|p| p.stream.resend_at.min(p.give_up_at)).min())
    }

    /// A page for a salvage. Whoever gives for one stops voting.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_salvage_pull(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        extent: Extent,
        since: u64,
        after: Option<&(Offset, Key)>,
        held: (u64, u64),
    ) {
        // What is stopped for a handover would else be counted as lost, though it is here: before Activate it may be
        // taken back.
        if self.acceptors.parts(slot, extent).any(|(_, a)| a.is_stopped) {
            self.abort_giving();
        }
        if self.acceptors.freeze_within(slot, since, extent) {
            for at in self.homes.reigns.cut_out(extent, |r| r.anchor == slot) {
                self.lose_reign(at, None);
            }
            self.is_owned_changed = true;
        }
        let (space, bytes_max) = (self.ctx.space, self.ctx.config.page_bytes_max);
        let answer = match self.acceptors.frozen_parts(slot, since, extent) {
            None => Err(Denied::ELSEWHERE),
            Some(parts) => {
                let (entries, is_last) = page(parts.iter().copied(), extent, after, bytes_max);
                let states = parts.iter().map(|a| state_of(a, extent, &space)).reduce(merge_states);
                let sum = page_digest(&entries, held);
                let end = states.filter(|_| is_last).map(|state| Box::new(PageEnd { state, sum }));
                Ok((entries, end))
            }
        };
        self.ctx.send(from, Message::FillPage { rpc, slot, answer });
    }

    /// A page for a salvage here; tells whether it was one.
    pub(crate) fn on_salvage_page(
        &mut self,
        rpc: u64,
        answer: &Result<(Vec<PageEntry>, Option<Box<PageEnd>>), Denied>,
    ) -> bool {
        let now = self.ctx.now;
        let space = self.ctx.space;
        let Some(s) = self.salvage.as_mut() else { return false };
        let pulls = s.gathers.iter_mut().flat_map(|g| g.pulls.iter_mut().map(|p| (g.extent, p)));
        let Some((extent, p)) =
            pulls.into_iter().find(|(_, p)| p.end.is_none() && p.stream.rpc == rpc && rpc != 0)
        else {
            return false;
        };
        p.stream.resend_at = now;
        match answer {
            // It is not there any more: handed over or forgotten since the survey.
            Err(_) => p.give_up_at = now,
            Ok((entries, end)) => {
                p.give_up_at = now + SOURCE_WAIT;
                let sum = end.as_ref().map(|e| e.sum);
                if !p.stream.take(extent, entries.clone(), sum) {
                    p.stream = Stream::default();
                } else if let Some(end) = end {
                    let registers = std::mem::take(&mut p.stream.registers);
                    p.end = acceptor_of(&end.state, registers, &space);
                    if p.end.is_none() {
                        p.give_up_at = now;
                    }
                }
            }
        }
        self.scan_salvage();
        true
    }

    /// All that could be had of an interval is here: this node holds all its slots, under a new lineage. Duty gives
    /// them to others.
    fn decide_anew(&mut self, g: Gather) {
        let extent = g.extent;
        let Some((epoch, ring)) = self.salvage.as_ref().map(|s| s.epoch).zip(self.ctx.ring) else { return };
        let slots: Vec<Slot> = self.ctx.space.slots().collect();
        let members: Vec<Member> =
            slots.iter().map(|_| Member { replica: self.ctx.draw_replica(), since: epoch }).collect();
        let configuration = Arc::new(Configuration::new(ring, epoch, members));
        self.learn_configuration(extent, &configuration);
        let is_free = slots.iter().all(|s| !self.acceptors.overlaps(*s, extent));
        let mut all = Acceptor::new(0, extent, configuration.clone(), true);
        all.fill(g.pulls.into_iter().filter_map(|p| p.end).collect());
        self.ctx.meet_n(all.homes.iter().map(|h| h.high.max(h.floor.n)).max().unwrap_or(0));
        self.ctx
            .meet_n(all.registers.iter().map(|(_, _, e)| e.stamp.n.max(e.record.version)).max().unwrap_or(0));
        let keys = all.registers.len();
        if let Some(s) = self.salvage.as_mut() {
            s.report.keys += keys;
            s.report.failed += usize::from(!is_free);
        }
        if !is_free {
            return;
        }
        all.donated.extend(slots.iter().map(|s| (*s, epoch)));
        for slot in slots {
            let mut a = all.clone();
            a.slot = slot;
            a.replica = configuration.members.get(usize::from(slot)).map_or(a.replica, |m| m.replica);
            self.acceptors.insert(a);
            self.ctx.locations.set(slot, extent, self.ctx.me);
        }
        self.is_owned_changed = true;
        self.is_duty_due = true;
        for to in self.everybody() {
            self.ctx.send(to, Message::Install { extent, configuration: configuration.clone() });
        }
        self.ctx.announce(Event::Salvaged { extent, configuration, keys });
    }
}

/// The parts of `whole` for which fewer than `quorum` slots of the newest configuration have memory that votes.
fn lost_intervals(whole: Extent, quorum: usize, found: &[(NodeRef, MemoryPiece)]) -> Vec<Lost> {
    let mut cuts: BTreeSet<Offset> = BTreeSet::from([whole.lo]);
    for (_, p) in found {
        cuts.extend([Some(p.extent.lo), p.extent.hi.checked_add(1)].into_iter().flatten());
    }
    let cuts: Vec<Offset> = cuts.into_iter().filter(|c| whole.contains(*c)).collect();
    let mut out: Vec<Lost> = Vec::new();
    for (i, lo) in cuts.iter().enumerate() {
        let extent = Extent::new(*lo, cuts.get(i + 1).map_or(whole.hi, |next| next - 1));
        let here = || found.iter().filter(|(_, p)| p.extent.contains(*lo));
        let newest = here().map(|(_, p)| &p.configuration).max_by_key(|c| c.epoch);
        let mut voters: BTreeSet<Slot> = BTreeSet::new();
        let mut sources: BTreeMap<(Slot, u64, NodeId), Source> = BTreeMap::new();
        for (node, p) in here() {
            let member = |c: &Configuration| c.members.get(usize::from(p.slot)).copied();
            let Some(m) = member(&p.configuration) else { continue };
            if p.is_active && newest.and_then(|c| member(c)) == Some(m) {
                voters.insert(p.slot);
            }
            if p.is_whole {
                sources
                    .insert((p.slot, m.since, node.id), Source { node: *node, slot: p.slot, since: m.since });
            }
        }
        if voters.len() >= quorum {
            continue;
        }
        let sources: Vec<Source> = sources.into_values().collect();
        match out.last_mut() {
            Some(l) if l.extent.is_followed_by(&extent) && l.sources == sources => l.extent.hi = extent.hi,
            _ => out.push(Lost { extent, sources }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{ReplicaId, RingId};

    fn piece(
        node: u64,
        slot: Slot,
        lo: u128,
        hi: u128,
        epoch: u64,
        is_active: bool,
    ) -> (NodeRef, MemoryPiece) {
        let at = NodeRef { id: NodeId(node), addr: ([127, 0, 0, 1], 1).into() };
        let members = (0..3u64)
            .map(|s| Member { replica: ReplicaId { node: NodeId(s), counter: epoch }, since: epoch })
            .collect();
        let configuration = Arc::new(Configuration::new(RingId(1), epoch, members));
        let extent = Extent::new(lo, hi);
        (at, MemoryPiece { slot, extent, configuration, is_whole: true, is_active })
    }

    #[test]
    fn only_what_has_no_quorum_is_lost_and_everything_left_of_it_is_a_source() {
        let found = [
            piece(1, 0, 0, 49, 1, true),
            piece(1, 1, 0, 19, 1, true),
            piece(1, 2, 30, 49, 1, true),
            piece(2, 1, 20, 29, 1, false),
        ];
        let lost = lost_intervals(Extent::new(0, 99), 2, &found);
        let extents: Vec<(u128, u128)> = lost.iter().map(|l| (l.extent.lo, l.extent.hi)).collect();
        assert_eq!(extents, [(20, 29), (50, 99)]);
        let sources: Vec<Vec<(Slot, u64)>> =
            lost.iter().map(|l| l.sources.iter().map(|s| (s.slot, s.node.id.0)).collect()).collect();
        assert_eq!(sources, [vec![(0, 1), (1, 2)], vec![]]);
    }

    #[test]
    fn members_of_an_older_configuration_are_no_voters() {
        let found = [piece(1, 0, 0, 9, 1, true), piece(2, 1, 0, 9, 1, true), piece(3, 2, 0, 9, 2, true)];
        assert_eq!(lost_intervals(Extent::new(0, 9), 2, &found).len(), 1);
    }
}
