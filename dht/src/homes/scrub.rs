//! The scrubber of the home intervals: tombstones that all replicas hold are forgotten, those left by earlier
//! reigns are written again until they are.
//!
//! Source: `docs/protocol.md`, section 7.

use crate::message::{Message, SlotSet};
use crate::node::DhtNode;
use core::time::Duration;
use ring::{Offset, Slot};
use store::{Key, Stamp};

/// A tombstone that not all replicas hold is written again after this.
pub(super) const TOMBSTONE_RESEND: Duration = Duration::from_secs(1);
/// Entries that the scrubber looks at in one turn.
const SCRUB_STEP: usize = 128;

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
        for e in f.record.ops.iter().flat_map(|o| &o.entries) {
            r.note_evicted(&e);
        }
        r.note_absent(at.clone());
        let voters = self.voters(at.0, SlotSet::default());
        for slot in voters.here.iter() {
            self.acceptors.drop_key(slot, home, stamp, at.0, &at.1);
        }
        self.note_dropped(at);
        for (to, slots) in voters.remote() {
            self.ctx.send(to, Message::Drop { home, slots, key: at.1.clone(), stamp, era });
        }
    }

    /// Looks at a few entries of each reign: tombstones left by earlier reigns are written again, and go.
    pub(crate) fn scrub(&mut self) {
        if self.homes.next_scrub > self.ctx.now {
            return;
        }
        self.homes.next_scrub = self.ctx.now + Duration::from_millis(500);
        for rat in self.homes.reigns.keys() {
            let Some(r) = self.homes.reigns.get(rat).filter(|r| r.is_reigning() && !r.is_draining) else {
                continue;
            };
            let mut last = None;
            let mut found = Vec::new();
            // The reign may lead over several pieces of the local memory.
            let pieces = self.acceptors.parts(r.anchor, r.extent).map(|(_, a)| a);
            let entries = pieces.flat_map(|a| a.registers.range(r.extent, r.scrub_after.as_ref()));
            for (o, k, e) in entries.take(SCRUB_STEP) {
                let at = (o, k.clone());
                if e.record.is_gone()
                    && !r.keys.contains_key(&at)
                    && self.ctx.space.locate(k.as_bytes()).0 == r.home
                {
                    found.push((at.clone(), e.mark == r.serial, e.record.clone()));
                }
                last = Some(at);
            }
            if let Some(r) = self.homes.reigns.get_mut(rat) {
                r.scrub_after = last;
            }
            for (at, is_synced, record) in found {
                if is_synced {
                    let n = self.ctx.draw_n();
                    self.send_accept(rat, at, n, record, Vec::new());
                } else {
                    self.begin_sync(rat, at);
                }
            }
        }
    }
}
