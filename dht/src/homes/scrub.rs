//! The scrubber of the home intervals: tombstones that all replicas hold are forgotten, those left by earlier
//! reigns are written again until they are.
//!
//! Source: `docs/protocol.md`, section 7.

use crate::message::{Message, SlotSet};
use crate::node::DhtNode;
use core::time::Duration;
use ring::{Offset, Slot, Time};
use std::collections::VecDeque;
use store::{Key, Record, Stamp};

/// A tombstone that not all replicas hold is written again after this.
pub(super) const TOMBSTONE_RESEND: Duration = Duration::from_secs(1);
/// How often the scrubber has a turn.
const SCRUB_INTERVAL: Duration = Duration::from_millis(500);
/// Entries of a reign that the scrubber looks at in one turn.
const SCRUB_STEP: usize = 1024;
/// Bytes of the records of a reign that the scrubber writes again in one turn, about.
const SCRUB_BYTES: usize = 64 << 10;

/// How old numbers are: what was drawn or met by when.
#[derive(Clone, Debug, Default)]
pub(super) struct Ages {
    marks: VecDeque<(Time, u64)>,
}

impl Ages {
    /// The highest number that is at least `age` old.
    fn old(&mut self, now: Time, age: Duration, n: u64) -> u64 {
        if self.marks.back().is_none_or(|m| now.since(m.0) >= age / 8) {
            self.marks.push_back((now, n));
        }
        while self.marks.get(1).is_some_and(|m| now.since(m.0) >= age) {
            self.marks.pop_front();
        }
        self.marks.front().filter(|m| now.since(m.0) >= age).map_or(0, |m| m.1)
    }
}

/// What the scrubber is to write again: the record, and whether its key is synced.
struct Found {
    at: (Offset, Key),
    is_synced: bool,
    record: Record,
}

impl DhtNode {
    /// All replicas hold the record: a tombstone may be forgotten.
    pub(super) fn on_accepted_by_all(&mut self, rat: (Slot, Offset), at: &(Offset, Key), stamp: Stamp) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let (home, era) = (r.home, r.era());
        let Some(k) = r.keys.get_mut(at) else { return };
        let is_last = k.flights.len() == 1 && k.flights.front().is_some_and(|f| f.n == stamp.n);
        if !is_last || !k.queue.is_empty() || !k.blocked.is_empty() {
            return;
        }
        let Some(f) = k.flights.pop_front() else { return };
        self.homes.flights.remove(&f.n);
        if !f.record.is_gone() {
            k.flights.push_front(f);
            return;
        }
        r.keys.remove(at);
        r.floor = r.floor.max(stamp);
        let floor = f.record.ops_floor();
        for e in f.record.ops.iter().flat_map(|o| &o.entries) {
            r.note_evicted(at, floor, &e);
        }
        r.note_absent(at.clone());
        let voters = self.voters(at.0, SlotSet::default());
        for slot in voters.here.iter() {
            self.drop_here(slot, home, stamp, at.0, &at.1);
        }
        self.note_dropped(at);
        for (to, slots) in voters.remote() {
            self.ctx.send(to, Message::Drop { home, slots, key: at.1.clone(), stamp, era });
        }
    }

    /// Looks at a few entries of each reign: tombstones left by earlier reigns are written again, and go; operation
    /// ids that are old are forgotten.
    pub(crate) fn scrub(&mut self) {
        let now = self.ctx.now;
        if self.homes.next_scrub > now {
            return;
        }
        self.homes.next_scrub = now + SCRUB_INTERVAL;
        let old = self.homes.ages.old(now, self.ctx.config.operation_id_age, self.ctx.n());
        for rat in self.homes.reigns.keys() {
            for found in self.find_stale(rat, old) {
                if !found.is_synced {
                    self.begin_sync(rat, found.at);
                    continue;
                }
                if let Some(r) = self.homes.reigns.get_mut(rat) {
                    r.first_floor = r.first_floor.max(found.record.ops_floor());
                    // What is forgotten for its age is noted nowhere else.
                    r.floors.remove(&found.at);
                }
                let n = self.ctx.draw_n();
                self.send_accept(rat, found.at, n, found.record, Vec::new());
            }
        }
    }

    /// The next entries of a reign that should not stay as they are.
    fn find_stale(&mut self, rat: (Slot, Offset), old: u64) -> Vec<Found> {
        let mut out = Vec::new();
        let Some(r) = self.homes.reigns.get_mut(rat).filter(|r| r.is_reigning() && !r.is_draining) else {
            return out;
        };
        // The reign may lead over several pieces of the local memory.
        let pieces = self.acceptors.parts(r.anchor, r.extent).map(|(_, a)| a);
        let entries = pieces.flat_map(|a| a.registers.range(r.extent, r.scrub_after.as_ref()));
        let (mut last, mut bytes) = (None, 0);
        for (o, k, e) in entries.take(SCRUB_STEP) {
            if bytes >= SCRUB_BYTES {
                break;
            }
            let at = (o, k.clone());
            last = Some(at.clone());
            let stale = match &e.record.value {
                _ if e.record.lock().is_some() => None,
                None => Some(e.record.clone()),
                Some(_) => e.record.aged(old),
            };
            let is_ours = !r.keys.contains_key(&at) && self.ctx.space.locate(k.as_bytes()).0 == r.home;
            if let Some(record) = stale.filter(|_| is_ours) {
                bytes += record.weight(k);
                out.push(Found { at, is_synced: e.mark == r.serial, record });
            }
        }
        r.scrub_after = last;
        out
    }
}
