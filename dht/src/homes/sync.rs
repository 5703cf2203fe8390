//! Sync: what the replicas of a key hold is met before a home touches the key.
//!
//! Keeps:
//! 1. One Sync of a key is under way at a time.
//! 2. The anchor's own answer is one of the quorum: later operations read its register.
//!
//! Source: `docs/protocol.md`, section 3 (Sync).

use super::asking::{Asked, Refusal, SOON};
use crate::counters::RoundKind;
use crate::message::{Denied, Message, Sighting, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::{SyncSighting, Syncing};
use ring::{NodeId, NodeRef, Offset, Slot};
use store::{Key, Record, Stamp};

/// What the answers of a quorum say.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The highest floor.
    floor: Stamp,
    /// The highest stamp, if anybody holds the key.
    top: Option<Stamp>,
    /// Everybody has the highest stamp, settled.
    is_same: bool,
    /// The record of the highest stamp, if it travelled.
    record: Option<Record>,
}

fn found(sightings: &[SyncSighting], is_any_settled: bool) -> Found {
    let floor = sightings.iter().map(|g| g.floor).max().unwrap_or(Stamp::ZERO);
    let top = sightings.iter().filter_map(|g| g.stamp.map(|s| s.0)).max();
    let is_same = sightings
        .iter()
        .all(|g| g.stamp.map(|s| s.0) == top && g.stamp.is_none_or(|s| s.1 || is_any_settled));
    let of_top = |g: &&SyncSighting| g.stamp.map(|s| s.0) == top && g.record.is_some();
    let record = sightings.iter().find(of_top).and_then(|g| g.record.clone());
    Found { floor, top, is_same, record }
}

impl DhtNode {
    pub(crate) fn begin_sync(&mut self, rat: (Slot, Offset), at: (Offset, Key)) {
        self.ctx.rounds.began(RoundKind::Sync);
        let rpc = self.ctx.draw_rpc();
        let resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        self.homes.schedule(resend_at);
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let k = r.keys.entry(at.clone()).or_default();
        k.sync = Some(Syncing { rpc, sightings: Vec::new(), wanted: None, resend_at });
        self.homes.syncs.insert(rpc, (rat.0, at.0, at.1.clone()));
        self.transmit_sync(rat, &at);
    }

    /// Asks the replicas of a key anew, `wanted` among them, if nothing of it is under way.
    pub(super) fn begin_resync(&mut self, rat: (Slot, Offset), at: &(Offset, Key), wanted: NodeId) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        if r.keys.get(at).is_some_and(|k| k.sync.is_some() || !k.flights.is_empty()) {
            return;
        }
        r.note_present(at);
        let k = r.keys.entry(at.clone()).or_default();
        let (rpc, resend_at) = (self.ctx.draw_rpc(), self.ctx.now + self.ctx.config.vote_timeout);
        let wanted = Some(wanted).filter(|w| *w != self.ctx.me.id);
        k.sync = Some(Syncing { rpc, sightings: Vec::new(), wanted, resend_at });
        self.homes.schedule(resend_at);
        self.homes.syncs.insert(rpc, (rat.0, at.0, at.1.clone()));
        self.transmit_sync(rat, at);
    }

    pub(super) fn transmit_sync(&mut self, rat: (Slot, Offset), at: &(Offset, Key)) {
        let Some(r) = self.homes.reigns.get(rat) else { return };
        let Some(s) = r.keys.get(at).and_then(|k| k.sync.as_ref()) else { return };
        let (rpc, home, ballot, era) = (s.rpc, r.home, r.ballot, r.era());
        let have = self.acceptors.entry(r.anchor, at.0, &at.1).map(|e| e.stamp);
        let seen =
            s.sightings.iter().fold(SlotSet::default(), |seen, g| SlotSet(seen.0 | SlotSet::one(g.slot).0));
        let trace = r.keys.get(at).and_then(|k| k.queue.iter().find_map(|(_, a)| a.trace));
        let voters = self.voters(at.0, seen);
        for (to, slots) in voters.remote() {
            let m = Message::Sync { rpc, home, slots, key: at.1.clone(), ballot, era, have };
            self.ctx.send_in(trace, to, m);
        }
        for slot in voters.here.iter() {
            let answer = self.acceptors.vote(slot, at.0, era, |a| {
                let (e, floor) = a.sync(home, ballot, at.0, &at.1)?;
                let stamp = e.map(|e| (e.stamp, e.settled));
                Ok(Sighting { era, stamp, record: e.map(|e| e.record.clone()), floor })
            });
            let me = self.ctx.me;
            self.on_sync_reply(me, rpc, slot, answer);
        }
    }

    /// What an acceptor holds of a key that is being synced.
    pub(crate) fn on_sync_reply(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        answer: Result<Sighting, Denied>,
    ) {
        let Some((home, offset, key)) = self.homes.syncs.get(&rpc).cloned() else { return };
        let quorum = self.ctx.quorum_unless(Plant::SyncFewer);
        let Some(r) = self.homes.reigns.find_mut(home, offset) else { return };
        let (rat, anchor, extent) = ((home, r.extent.lo), r.anchor, r.extent);
        let configuration = Some(r.configuration.clone());
        let at = (offset, key);
        let Some(s) = r.syncing_mut(&at).filter(|s| s.rpc == rpc) else { return };
        let denied = match answer {
            Ok(g) => {
                if s.sightings.iter().any(|x| x.slot == slot) {
                    return;
                }
                s.sightings.push(SyncSighting { slot, stamp: g.stamp, record: g.record, floor: g.floor });
                s.wanted = s.wanted.filter(|w| *w != from.id);
                if s.is_enough(quorum, anchor) {
                    self.finish_sync(rat, at);
                }
                return;
            }
            Err(denied) => denied,
        };
        match self.on_refused(from, Asked { slot, extent, offset, configuration }, denied) {
            Refusal::Outbid(b) => self.lose_reign(rat, Some(b)),
            Refusal::Over => {}
            Refusal::Moved | Refusal::Later | Refusal::Low => {
                let when = self.ctx.now + SOON;
                let r = self.homes.reigns.get_mut(rat);
                if let Some(s) = r.and_then(|r| r.syncing_mut(&at)) {
                    s.resend_at = s.resend_at.min(when);
                    self.homes.schedule(when);
                }
            }
        }
    }

    pub(super) fn finish_sync(&mut self, rat: (Slot, Offset), at: (Offset, Key)) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let (anchor, serial) = (r.anchor, r.serial);
        let Some(s) = r.keys.get_mut(&at).and_then(|k| k.sync.take()) else { return };
        self.homes.syncs.remove(&s.rpc);
        let Found { floor, top, is_same, record } =
            found(&s.sightings, self.ctx.is_planted(Plant::SyncIgnoresUnsettled));
        r.floor = r.floor.max(floor);
        self.ctx.meet_n(floor.n);
        if top.is_none_or(|top| top.ballot != r.ballot) {
            // Nothing of the key was written under this reign, so the record that is met has a floor of its own.
            r.floors.remove(&at);
        }
        let Some(top) = top else {
            r.first_floor = r.first_floor.max(r.floor.n);
            r.note_absent(at.clone());
            self.drain_queue(rat, &at);
            return;
        };
        self.ctx.meet_n(top.n);
        // The highest record travelled unless the local one is as new.
        let here = || self.acceptors.entry(anchor, at.0, &at.1).filter(|e| e.stamp == top);
        let Some(record) = record.or_else(|| here().map(|e| e.record.clone())) else {
            // The local entry went away meanwhile: ask again.
            self.begin_sync(rat, at);
            return;
        };
        self.ctx.meet_n(record.version);
        r.first_floor = r.first_floor.max(record.ops_floor());
        if is_same {
            // A quorum holds it settled.
            r.chosen_n = r.chosen_n.max(top.n);
            if let Some(a) = self.acceptors.find_mut(anchor, at.0) {
                a.registers.set_mark(at.0, &at.1, serial);
            }
        } else {
            self.is_resynced += 1;
            let n = self.ctx.draw_n();
            self.send_accept(rat, at.clone(), n, record, Vec::new());
        }
        self.drain_queue(rat, &at);
    }
}
