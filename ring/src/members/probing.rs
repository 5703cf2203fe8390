//! The step of the failure detector: whom to ping now, whom to suspect, whom to give up.
//!
//! All members of a small ring are watched; in a large one the neighbours by end, and a few random ones per
//! interval. Whoever does not answer is pursued at every step.
//!
//! Source: Das, Gupta, Motivala 2002, SWIM, section 3; Dadgar, Phillips, Currey 2018, Lifeguard.

use super::detector::{Pursuit, Verdict, micros};
use super::{Gossip, MemberEvent, MemberInfo, MemberState, Members};
use crate::ident::{NodeId, NodeRef};
use crate::time::Time;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use std::collections::BTreeSet;

/// When the step does what, and to whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    step: Option<Time>,
    round: Time,
    digest: Time,
    knock: Time,
    /// The dead one knocked at last.
    knocked: NodeId,
    /// Whether the two lists below have to be made again.
    pub(super) is_stale: bool,
    /// Members, by id.
    members: Vec<NodeId>,
    /// Those of them that are pinged whenever they are silent.
    watched: Vec<NodeId>,
}

impl Members {
    /// When [`Members::handle_timeout`] is due; none while there is nobody to watch.
    pub fn next_timeout(&self) -> Option<Time> {
        self.schedule.step
    }

    /// The moment of [`Members::next_timeout`] has come. How much later it is counts as this node's own stall.
    pub fn handle_timeout(&mut self, now: Time) {
        let Some(due) = self.schedule.step.filter(|due| *due <= now) else { return };
        if self.table.others.is_empty() || self.me.state == MemberState::Left {
            self.schedule.step = None;
            return;
        }
        self.schedule.step = Some(now + self.config.step());
        let stall = now.since(due);
        if stall >= self.config.step() {
            self.credit(now, stall);
        }
        self.refresh();
        self.pursue(now);
        self.watch(now);
        if now >= self.schedule.round {
            self.schedule.round = now + self.config.ping_interval;
            self.spread(now);
        }
        if now >= self.schedule.knock {
            self.schedule.knock = now + self.config.knock_interval;
            self.knock_at_next(now);
        }
        if now >= self.schedule.digest {
            self.schedule.digest = now + self.config.digest_interval;
            self.compare(now);
        }
    }

    /// The connection to `peer` broke or could not be made: it is probed at once, directly and through others,
    /// and suspected sooner if nothing answers.
    pub fn connection_lost(&mut self, now: Time, peer: NodeId) {
        let probe_first = self.probe + 1;
        let Some(m) = self.table.others.get_mut(&peer).filter(|m| m.is_in_ring()) else { return };
        let heard = m.heard;
        let pursuit = m.pursuit.get_or_insert_with(|| Pursuit::new(&self.config, now, heard, probe_first));
        if pursuit.hint(now) {
            self.pursued.insert(peer);
            self.refresh();
            self.ping(now, peer);
            self.ask_others(peer);
        }
    }

    /// Sets the clock going, if it is not.
    pub(super) fn start(&mut self, now: Time) {
        if self.schedule.step.is_some() || self.me.state == MemberState::Left {
            return;
        }
        // Nodes that start together do not stay in step.
        let spread = micros(self.config.digest_interval).max(1);
        self.schedule.step = Some(now);
        self.schedule.digest = Time(now.0.saturating_add(self.rng.next_u64() % spread));
    }

    fn credit(&mut self, now: Time, stall: core::time::Duration) {
        for id in &self.pursued {
            if let Some(p) = self.table.others.get_mut(id).and_then(|m| m.pursuit.as_mut()) {
                p.credit(&self.config, now, stall);
            }
        }
    }

    /// Makes the lists of members and watched ones again after a change.
    fn refresh(&mut self) {
        if !core::mem::take(&mut self.schedule.is_stale) {
            return;
        }
        let members: Vec<NodeId> = self.iter().filter(|m| m.is_in_ring()).map(|m| m.info.node.id).collect();
        self.schedule.watched =
            if members.len() < self.config.watched_all_max { members.clone() } else { self.neighbours() };
        self.schedule.members = members;
    }

    /// The nearest members by end, on both sides.
    fn neighbours(&self) -> Vec<NodeId> {
        let mut ring: Vec<_> = self.live_infos().map(|i| (i.end, i.node.id)).collect();
        ring.sort_unstable();
        let n = ring.len();
        let here = ring.iter().position(|(_, id)| *id == self.me.node.id).unwrap_or(0);
        let near: BTreeSet<NodeId> = (1..=self.config.neighbours_per_side)
            .flat_map(|d| [here + d, here + n.saturating_sub(d)])
            .filter_map(|at| ring.get(at % n).map(|(_, id)| *id))
            .filter(|id| *id != self.me.node.id)
            .collect();
        near.into_iter().collect()
    }

    fn pursue(&mut self, now: Time) {
        for id in core::mem::take(&mut self.pursued) {
            let relays = self.schedule.members.len();
            let Some(m) = self.table.others.get_mut(&id) else { continue };
            let Some(pursuit) = m.pursuit.as_ref() else { continue };
            let wants_indirect = pursuit.wants_indirect(&self.config, now);
            match pursuit.verdict(&self.config, now, m.is_suspected, m.patience, relays > 1) {
                Verdict::Dead => {
                    self.declare_dead(now, id);
                    continue;
                }
                Verdict::Suspected if !m.is_suspected => {
                    m.is_suspected = true;
                    self.event(MemberEvent::Suspected(id));
                }
                Verdict::Suspected | Verdict::Open => {}
            }
            self.pursued.insert(id);
            self.ping(now, id);
            if wants_indirect {
                self.ask_others(id);
            }
        }
    }

    fn declare_dead(&mut self, now: Time, id: NodeId) {
        let Some(m) = self.table.others.get_mut(&id) else { return };
        m.info.state = MemberState::Dead;
        m.since = now;
        m.is_suspected = false;
        m.pursuit = None;
        self.table.changed_at = now;
        self.schedule.is_stale = true;
        self.news.push(id, false);
        self.event(MemberEvent::Dead(id));
    }

    fn watch(&mut self, now: Time) {
        let is_silent = |id: &NodeId| {
            self.get(*id).is_some_and(|m| {
                m.is_in_ring() && m.pursuit.is_none() && now.since(m.heard) >= self.config.ping_interval
            })
        };
        let silent: Vec<NodeId> = self.schedule.watched.iter().filter(|id| is_silent(id)).copied().collect();
        for id in silent {
            self.ping(now, id);
        }
    }

    /// Carries news to random members; in large rings it is also how those are watched that nobody neighbours.
    fn spread(&mut self, now: Time) {
        let is_large = self.schedule.members.len() > self.schedule.watched.len();
        if self.news.is_empty() && !is_large {
            return;
        }
        for id in self.sample(self.config.fanout, self.me.node.id) {
            self.ping(now, id);
        }
    }

    /// Compares tables with one random member, and takes the round trip to it.
    fn compare(&mut self, now: Time) {
        self.table.forget(&self.config, now);
        for id in self.sample(1, self.me.node.id) {
            let Some(to) = self.get(id).map(|m| m.info.node) else { continue };
            self.ping(now, id);
            self.send_digest(now, to);
        }
    }

    /// Pings a member; from then on it is pursued until it is heard.
    fn ping(&mut self, now: Time, id: NodeId) {
        let probe = self.next_probe();
        let Some(m) = self.table.others.get_mut(&id).filter(|m| m.is_in_ring()) else { return };
        let heard = m.heard;
        let pursuit = m.pursuit.get_or_insert_with(|| Pursuit::new(&self.config, now, heard, probe));
        pursuit.pings = pursuit.pings.saturating_add(1);
        m.on_pinged(now, probe);
        let to = m.info.node;
        self.pursued.insert(id);
        let updates = self.news_for(id);
        self.send(to, Gossip::Ping { probe, updates, strength: self.strength });
    }

    /// Asks others to ping a member: first the one who last had an answer, then random ones.
    fn ask_others(&mut self, id: NodeId) {
        let Some(target) = self.get(id).map(|m| m.info.node) else { return };
        let voucher = self.get(id).and_then(|m| m.voucher).filter(|v| *v != id && self.is_live(*v));
        let mut relays: Vec<NodeId> = voucher.into_iter().collect();
        for relay in self.sample(self.config.indirect_probes, id) {
            if relays.len() < self.config.indirect_probes && !relays.contains(&relay) {
                relays.push(relay);
            }
        }
        for relay in relays {
            let Some(to) = self.get(relay).map(|m| m.info.node) else { continue };
            let probe = self.next_probe();
            if let Some(p) = self.table.others.get_mut(&id).and_then(|m| m.pursuit.as_mut()) {
                p.requests = p.requests.saturating_add(1);
            }
            let updates = self.news_for(relay);
            self.send(to, Gossip::PingRequest { probe, target, updates });
        }
    }

    /// Tells one that counts as dead here that it does, at most once per interval.
    pub(super) fn knock(&mut self, now: Time, id: NodeId) {
        if let Some(info) = self.get(id).map(|m| m.info.clone()) {
            self.tell_dead(now, info);
        }
    }

    /// Somebody calls dead whom we just heard: it is told, so that it refutes, and so is the teller.
    pub(super) fn dispute(&mut self, now: Time, teller: Option<NodeRef>, id: NodeId, incarnation: u64) {
        let Some(ours) = self.get(id).map(|m| m.info.clone()) else { return };
        let is_told =
            self.tell_dead(now, MemberInfo { incarnation, state: MemberState::Dead, ..ours.clone() });
        if let Some(teller) = teller.filter(|t| is_told && t.id != id) {
            self.send(teller, Gossip::Table { members: vec![ours], strength: self.strength });
        }
    }

    fn tell_dead(&mut self, now: Time, about: MemberInfo) -> bool {
        let Some(m) = self.table.others.get_mut(&about.node.id) else { return false };
        if m.knocked.is_some_and(|k| now.since(k) < self.config.knock_interval) {
            return false;
        }
        m.knocked = Some(now);
        let to = m.info.node;
        let probe = self.next_probe();
        let mut updates = vec![self.me.clone(), about];
        updates.extend(self.news_for(to.id).into_iter().filter(|i| i.node.id != self.me.node.id));
        self.send(to, Gossip::Ping { probe, updates, strength: self.strength });
        true
    }

    fn knock_at_next(&mut self, now: Time) {
        let dead = |id: &NodeId| self.get(*id).is_some_and(|m| m.info.state == MemberState::Dead);
        let after = (core::ops::Bound::Excluded(self.schedule.knocked), core::ops::Bound::Unbounded);
        let ids = self.table.others.range(after).chain(self.table.others.iter());
        let Some(next) = ids.map(|(id, _)| *id).find(dead) else { return };
        self.schedule.knocked = next;
        self.knock(now, next);
    }

    /// Tells as many members as there are news slots that this node has left.
    pub(super) fn say_goodbye(&mut self, now: Time) {
        self.schedule.is_stale = true;
        self.refresh();
        let mut to: BTreeSet<NodeId> = self.schedule.watched.iter().copied().collect();
        to.extend(self.sample(self.config.updates_per_message_max, self.me.node.id));
        for id in to {
            let Some(node) = self.get(id).map(|m| m.info.node) else { continue };
            let probe = self.next_probe();
            let updates = vec![self.me.clone()];
            self.send(node, Gossip::Ping { probe, updates, strength: self.strength });
        }
        self.schedule.step = None;
        tracing::debug!(node = %self.me.node, %now, "left the ring");
    }

    pub(super) fn next_probe(&mut self) -> u64 {
        self.probe = self.probe.saturating_add(1);
        self.probe
    }

    /// A random index below `n`, 0 if there is none.
    pub(super) fn draw(rng: &mut ChaCha8Rng, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX).max(1);
        usize::try_from(rng.next_u64() % n).unwrap_or(0)
    }

    /// Up to `count` different random members without `except`, those not suspected first.
    fn sample(&mut self, count: usize, except: NodeId) -> Vec<NodeId> {
        let mut picked: Vec<NodeId> = Vec::with_capacity(count);
        let n = self.schedule.members.len();
        for attempt in 0..4 * count {
            let at = Members::draw(&mut self.rng, n);
            let Some(id) = self.schedule.members.get(at).copied() else { break };
            let is_fit =
                self.is_live(id) || (attempt >= 3 * count && self.get(id).is_some_and(|m| m.is_in_ring()));
            if picked.len() < count && id != except && is_fit && !picked.contains(&id) {
                picked.push(id);
            }
        }
        picked
    }
}
