//! Answers to gossip: pings and acks, probes for others, and the comparison of tables.
//!
//! Keeps:
//! 1. A digest is answered with at most one table and, unless one was sent to that node a moment ago, one digest:
//!    no conversation goes on for ever. All strangers together count as one node.
//! 2. A probe for another is reported only if the target answered this very probe.
//!
//! Source: Das, Gupta, Motivala 2002, SWIM; Demers et al. 1987, epidemic algorithms (push-pull anti-entropy).

use super::table::rank;
use super::{Gossip, MemberEvent, MemberInfo, MemberState, Members};
use crate::ident::{NodeId, NodeRef};
use crate::time::Time;
use std::collections::BTreeMap;

/// A probe sent for another node.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    asker: NodeRef,
    probe: u64,
    target: NodeId,
    expires: Time,
}

impl Members {
    /// A message from another node's table. It is a sign of life too.
    pub fn handle_gossip(&mut self, now: Time, from: NodeRef, gossip: Gossip) {
        if from.id == self.me.node.id {
            return;
        }
        self.heard(now, from.id);
        match gossip {
            Gossip::Ping { probe, updates, strength } => {
                self.merge_strength(strength);
                self.take(now, from, updates);
                let updates = self.news_for(from.id);
                self.send(from, Gossip::Ack { probe, updates, strength: self.strength });
                if self.get(from.id).is_none() {
                    self.send_digest(now, from);
                }
            }
            Gossip::Ack { probe, updates, strength } => {
                self.merge_strength(strength);
                self.take(now, from, updates);
                if let Some(m) = self.table.others.get_mut(&from.id) {
                    m.on_ack(now, probe);
                }
                if let Some(relay) = self.relays.remove(&probe)
                    && relay.target == from.id
                {
                    self.send(relay.asker, Gossip::IndirectAck { probe: relay.probe, target: from.id });
                }
            }
            Gossip::PingRequest { probe, target, updates } => {
                self.take(now, from, updates);
                self.on_ping_request(now, from, probe, target);
            }
            Gossip::IndirectAck { probe, target } => self.on_indirect_ack(now, from, probe, target),
            Gossip::Digest { entries, strength } => {
                self.merge_strength(strength);
                self.on_digest(now, from, &entries);
            }
            Gossip::Table { members, strength } => {
                self.merge_strength(strength);
                self.take(now, from, members);
            }
        }
    }

    fn take(&mut self, now: Time, from: NodeRef, updates: Vec<MemberInfo>) {
        for info in updates {
            self.apply(now, Some(from), info);
        }
    }

    fn on_ping_request(&mut self, now: Time, from: NodeRef, probe: u64, target: NodeRef) {
        if target.id == self.me.node.id {
            return self.send(from, Gossip::IndirectAck { probe, target: target.id });
        }
        self.relays.retain(|_, r| r.expires > now);
        if self.relays.len() >= self.config.relays_max {
            return;
        }
        let ours = self.next_probe();
        let expires = now + self.config.dead_after;
        self.relays.insert(ours, Relay { asker: from, probe, target: target.id, expires });
        let updates = self.news_for(target.id);
        self.send(target, Gossip::Ping { probe: ours, updates, strength: self.strength });
    }

    fn on_indirect_ack(&mut self, now: Time, from: NodeRef, probe: u64, target: NodeId) {
        let Some(m) = self.table.others.get_mut(&target) else { return };
        if m.pursuit.as_ref().is_none_or(|p| probe < p.probe_first) {
            return;
        }
        m.pursuit = None;
        m.heard = now;
        m.has_spoken = false;
        m.voucher = Some(from.id);
        if core::mem::take(&mut m.is_suspected) {
            self.event(MemberEvent::Refuted(target));
        }
    }

    /// Entries newer than theirs go out; what they have newer is asked for.
    fn on_digest(&mut self, now: Time, from: NodeRef, entries: &[(NodeId, u64, MemberState)]) {
        let theirs: BTreeMap<NodeId, (u64, MemberState)> =
            entries.iter().map(|(id, incarnation, state)| (*id, (*incarnation, *state))).collect();
        if let Some((incarnation, state)) = theirs.get(&self.me.node.id) {
            self.refute(now, *incarnation, *state);
        }
        let told = self.table.told(&self.config, now).map(|m| &m.info);
        let untold: Vec<&MemberInfo> = core::iter::once(&self.me)
            .chain(told)
            .filter(|info| theirs.get(&info.node.id).is_none_or(|t| rank(info) > *t))
            .collect();
        // Long answers begin anywhere, so that after a few digests everything was sent.
        let begin = Members::draw(&mut self.rng, untold.len());
        let members: Vec<MemberInfo> = untold
            .iter()
            .cycle()
            .skip(begin)
            .take(untold.len().min(self.config.table_members_max))
            .map(|info| (*info).clone())
            .collect();
        if !members.is_empty() {
            self.send(from, Gossip::Table { members, strength: self.strength });
        }
        let is_behind = theirs
            .iter()
            .any(|(id, t)| *id != self.me.node.id && self.get(*id).is_none_or(|m| rank(&m.info) < *t));
        if is_behind {
            self.send_digest(now, from);
        }
    }

    /// Sends all we know in short, unless that was just done.
    pub(super) fn send_digest(&mut self, now: Time, to: NodeRef) {
        let (last, pause) = match self.table.others.get_mut(&to.id) {
            Some(m) => (&mut m.digested, self.config.digest_interval / 2),
            None => (&mut self.stranger_digested, self.config.step() / 4),
        };
        if last.is_some_and(|l| now.since(l) < pause) {
            return;
        }
        *last = Some(now);
        let told = self.table.told(&self.config, now).map(|m| &m.info);
        let entries = core::iter::once(&self.me)
            .chain(told)
            .map(|info| (info.node.id, info.incarnation, info.state))
            .collect();
        self.send(to, Gossip::Digest { entries, strength: self.strength });
    }

    /// The news for one message.
    pub(super) fn news_for(&mut self, to: NodeId) -> Vec<MemberInfo> {
        let members = self.table.others.len() + 1;
        let sends_max = 3 * (usize::BITS - members.leading_zeros()) + 3;
        let ids = self.news.pick(to, self.config.updates_per_message_max, sends_max);
        let info_of = |id: NodeId| {
            if id == self.me.node.id { Some(&self.me) } else { self.get(id).map(|m| &m.info) }
        };
        ids.into_iter().filter_map(info_of).cloned().collect()
    }
}
