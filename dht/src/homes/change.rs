//! Operations of a key that this node leads: performed in order, in batches, queued while they must wait.
//!
//! Source: `docs/protocol.md`, sections 3 (Change) and 4.

use super::decide::{Decision, Room, decide, read_of};
use crate::message::{Answer, Attempt, Operation};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::{Origin, Reader, Waiter};
use crate::tx::Blocked;
use ring::{NodeRef, Offset, Slot};
use std::collections::VecDeque;
use store::{Key, Record};

impl DhtNode {
    /// Performs an operation of a key of a reign that leads.
    pub(super) fn perform(&mut self, home: Slot, lo: Offset, offset: Offset, from: NodeRef, a: Attempt) {
        let Some(r) = self.homes.reigns.get_mut((home, lo)) else { return };
        let is_change = !a.operation.is_read();
        if is_change
            && a.is_first
            && a.addressed != Some(r.ballot)
            && !self.ctx.is_planted(Plant::OldReignExecuted)
        {
            let hint = Some((self.ctx.me, Some(r.ballot)));
            self.answer_for((home, lo), Origin::of(from, &a), Answer::NotHome { hint });
            return;
        }
        let at = (offset, a.key.clone());
        if a.operation == Operation::Resync {
            self.begin_resync((home, lo), &at, from.id);
        }
        let Some(r) = self.homes.reigns.get_mut((home, lo)) else { return };
        let is_synced = self.ctx.is_planted(Plant::SyncNever)
            || r.is_absent(&at)
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
        let is_floor_kept = !self.ctx.is_planted(Plant::AbsentFloorForgotten);
        let (anchor, absent_floor) = (r.anchor, if is_floor_kept { r.floor.n } else { 0 });
        let mut record = self
            .acceptors
            .entry(anchor, at.0, &at.1)
            .map_or_else(|| Record::absent(absent_floor), |e| e.record.clone());
        let mut waiters: Vec<Waiter> = Vec::new();
        let mut last_n = None;
        let mut ops: VecDeque<(NodeRef, Attempt)> = ops.into();
        let mut upto =
            r.keys.get(&at).and_then(|k| k.flights.back()).filter(|f| !f.is_chosen).map_or(0, |f| f.n);
        while let Some((from, a)) = ops.pop_front() {
            let origin = Origin::of(from, &a);
            if !a.operation.is_read() && !self.ctx.is_planted(Plant::KnownAnyN) {
                // A reign that has ended unawares may meet what its successor taught the sender. Executed under a lower n
                // it could be forgotten with a floor that the sender's next attempt passes, and run twice.
                self.ctx.meet_n(a.known);
            }
            let Some(r) = self.homes.reigns.get(rat) else { return };
            let floor = r.floor_of(&at, record.ops_floor());
            let mut room = self.room(floor);
            if self.ctx.is_planted(Plant::NPerKey) {
                room.n = record.version + 1;
            }
            let is_confirm_left_out = self.ctx.is_planted(Plant::RefusalUnconfirmed);
            let is_confirm_early = self.ctx.is_planted(Plant::ConfirmBefore);
            let is_flight_unseen = self.ctx.is_planted(Plant::ReadInFlight);
            let next_round = self.homes.next_round();
            let Some(r) = self.homes.reigns.get_mut(rat) else { return };
            match decide(r, &record, &a, room) {
                Decision::Now(answer) => self.answer_for(rat, origin, answer),
                Decision::Confirmed(answer @ (Answer::Refused { .. } | Answer::Nothing { .. }), _)
                    if is_confirm_left_out =>
                {
                    self.answer_for(rat, origin, answer);
                }
                Decision::Confirmed(answer, otherwise) => {
                    let at = at.clone();
                    let round = if is_confirm_early && r.sent_round > 0 { r.sent_round } else { next_round };
                    let upto = if is_flight_unseen { 0 } else { upto };
                    r.readers.push_back(Reader { origin, answer, otherwise, at, upto, round });
                    self.homes.has_readers = true;
                }
                Decision::Write(w) => {
                    let n = self.ctx.draw_n();
                    let was_locked = record.lock().is_some();
                    let floor = record.ops_floor();
                    record = w.record;
                    upto = n.max(upto);
                    last_n = Some(n);
                    w.gone.iter().for_each(|g| r.note_evicted(&at, floor, g));
                    waiters.push(Waiter { origin, version: w.version, result: w.result });
                    if was_locked && record.lock().is_none() {
                        // Whoever waited behind the lock comes before whoever came later.
                        for b in r.take_blocked(&at).into_iter().rev() {
                            ops.push_front((b.from, b.attempt));
                        }
                    }
                }
                Decision::Blocked => {
                    if let Some(lock) = record.lock().cloned() {
                        self.wait_behind(rat, &at, from, a, &lock);
                    }
                }
            }
        }
        if let Some(n) = last_n {
            self.send_accept(rat, at, n, record, waiters);
        }
        if self.ctx.is_planted(Plant::ConfirmNever) || self.ctx.is_planted(Plant::ConfirmBefore) {
            self.release_readers(rat);
        }
    }

    fn room(&self, floor: u64) -> Room {
        Room {
            is_memory_full: self.is_memory_full,
            value_bytes_max: self.ctx.config.value_bytes_max,
            n: self.ctx.next_n(),
            floor,
            planted: self.ctx.planted(),
        }
    }

    /// Answers a read with a record of this home, once that is confirmed.
    pub(crate) fn answer_read(
        &mut self,
        rat: (Slot, Offset),
        at: &(Offset, Key),
        b: &Blocked,
        record: &Record,
    ) {
        let round = self.homes.next_round();
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let last = r.keys.get(at).and_then(|k| k.flights.back());
        let upto = last.filter(|f| !f.is_chosen).map_or(0, |f| f.n);
        let (origin, at) = (Origin::of(b.from, &b.attempt), at.clone());
        let (answer, otherwise) = (read_of(record, &b.attempt.operation), Answer::NotHome { hint: None });
        r.readers.push_back(Reader { origin, answer, otherwise, at, upto, round });
        self.homes.has_readers = true;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Effect, Request, RequestId};
    use crate::config::Config;
    use crate::message::Message;
    use ring::{NodeId, Time};
    use store::{Change, Condition, SessionId, Value};

    /// What a ring of one answers to a put of a gateway.
    fn answer(node: &mut DhtNode, now: &mut Time, a: Attempt) -> Answer {
        let gateway = NodeRef { id: NodeId(9), addr: ([127, 0, 0, 1], 9).into() };
        node.handle_message(*now, gateway, Message::Operation(a));
        for _ in 0..1000 {
            while let Some(effect) = node.poll_effect() {
                if let Effect::Send { message: Message::OperationReply { answer, .. }, .. } = effect {
                    return answer;
                }
            }
            *now = node.next_timeout().expect("it is in a ring").max(*now);
            node.handle_timeout(*now);
        }
        panic!("no answer");
    }

    #[test]
    fn what_is_executed_has_a_higher_number_than_its_sender_knew() {
        let mut now = Time(0);
        let me = NodeRef { id: NodeId(1), addr: ([127, 0, 0, 1], 1).into() };
        let mut node = DhtNode::new(Config::default(), me, None, 1, now);
        let start = Request::Start { seeds: Vec::new(), creates_at_once: true, replication_factor: None };
        node.handle_request(now, RequestId(1), start);
        for (seq, known) in [(1, 0), (2, 1_000_000)] {
            let change = Change::Put { value: Value::int(1), condition: Condition::Always };
            let a = Attempt {
                session: SessionId(5),
                seq,
                attempt: 2,
                is_first: false,
                addressed: None,
                known,
                key: Key::new(b"key"),
                operation: Operation::Change(change),
                trace: None,
            };
            let answer = answer(&mut node, &mut now, a);
            let Answer::Done { version, .. } = answer else { panic!("{answer:?}") };
            assert!(version > known, "{version} after {known}");
        }
    }
}
