//! Operations of a key that this node leads: performed in order, in batches, queued while they must wait.
//!
//! Source: `docs/protocol.md`, sections 3 (Change) and 4.

use super::decide::{Decision, Room, decide, written};
use crate::message::{Answer, Attempt, Operation};
use crate::node::DhtNode;
use crate::reign::{Origin, Reader, Waiter};
use ring::{NodeRef, Offset, Slot};
use store::{Key, Record};

impl DhtNode {
    /// Performs an operation of a key of a reign that leads.
    pub(super) fn perform(&mut self, home: Slot, lo: Offset, offset: Offset, from: NodeRef, a: Attempt) {
        let Some(r) = self.homes.reigns.get_mut((home, lo)) else { return };
        let is_change = matches!(a.operation, Operation::Change(_));
        if is_change && a.is_first && a.addressed != Some(r.ballot) {
            let hint = Some((self.ctx.me, Some(r.ballot)));
            self.answer_for((home, lo), Origin::of(from, &a), Answer::NotHome { hint });
            return;
        }
        let at = (offset, a.key.clone());
        let is_synced = r.is_absent(&at)
            || self
                .acceptors
                .entry(r.anchor, offset, &a.key)
                .is_some_and(|e| e.mark == r.serial && e.stamp.ballot <= r.ballot);
        let busy = r.keys.get(&at).is_some_and(|k| {
            k.sync.is_some()
                || !k.queue.is_empty()
                || is_change
                    && k.flights.iter().filter(|f| !f.is_chosen).count()
                        >= self.ctx.config.accepts_in_flight_per_key_max
        });
        if is_synced && !busy {
            self.perform_batch((home, lo), at, vec![(from, a)]);
            return;
        }
        let queue_max = self.ctx.config.queue_per_key_max;
        let k = r.keys.entry(at.clone()).or_default();
        if k.queue.len() >= queue_max {
            self.answer_for((home, lo), Origin::of(from, &a), Answer::Busy);
            return;
        }
        k.queue.push_back((from, a));
        if !is_synced && k.sync.is_none() {
            self.begin_sync((home, lo), at);
        }
    }

    /// Applies operations of one synced key in order and sends at most one Accept for all of them.
    fn perform_batch(&mut self, rat: (Slot, Offset), at: (Offset, Key), ops: Vec<(NodeRef, Attempt)>) {
        let Some(r) = self.homes.reigns.get(rat) else { return };
        let (anchor, absent_floor) = (r.anchor, r.floor.n);
        let mut record = self
            .acceptors
            .entry(anchor, at.0, &at.1)
            .map_or_else(|| Record::absent(absent_floor), |e| e.record.clone());
        let room =
            Room { is_memory_full: self.is_memory_full, value_bytes_max: self.ctx.config.value_bytes_max };
        let mut waiters: Vec<Waiter> = Vec::new();
        let mut upto =
            r.keys.get(&at).and_then(|k| k.flights.back()).filter(|f| !f.is_chosen).map_or(0, |f| f.n);
        for (from, a) in ops {
            let origin = Origin::of(from, &a);
            let Some(r) = self.homes.reigns.get_mut(rat) else { return };
            match decide(r, &record, &a, room) {
                Decision::Now(answer) => self.answer_for(rat, origin, answer),
                Decision::Confirmed(answer, otherwise) => {
                    let round = self.homes.next_round;
                    let at = at.clone();
                    r.readers.push_back(Reader { origin, answer, otherwise, at, upto, round });
                    self.homes.has_readers = true;
                }
                Decision::Write(value, result) => {
                    let n = self.ctx.draw_n();
                    let (next, gone) = written(record, &a, n, value, result.clone());
                    record = next;
                    upto = n.max(upto);
                    if let Some(g) = gone {
                        r.note_evicted(&g);
                    }
                    waiters.push(Waiter { origin, version: n, result });
                }
            }
        }
        if let Some(last) = waiters.last() {
            let n = last.version;
            self.send_accept(rat, at, n, record, waiters);
        }
    }

    /// Begins what waited for the key.
    pub(super) fn drain_queue(&mut self, rat: (Slot, Offset), at: &(Offset, Key)) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let Some(k) = r.keys.get_mut(at) else { return };
        if k.sync.is_some() {
            return;
        }
        let ops: Vec<(NodeRef, Attempt)> = std::mem::take(&mut k.queue).into();
        if k.is_idle() {
            r.keys.remove(at);
        }
        if !ops.is_empty() {
            self.perform_batch(rat, at.clone(), ops);
        }
    }
}
