//! Accepts under way: sent to all replicas of a key, counted, and answered when chosen.
//!
//! Keeps:
//! 1. The anchor votes before the other slots here: it is what the next operation of the key reads.
//! 2. A record that is chosen resolves every earlier one of its key.
//!
//! Source: `docs/protocol.md`, section 3 (Change).

use super::asking::{Asked, Refusal, SOON};
use super::scrub::TOMBSTONE_RESEND;
use crate::counters::RoundKind;
use crate::message::{Answer, Denied, Message, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::{Flight, Waiter};
use ring::{NodeRef, Offset, Slot};
use store::{Key, Record, Stamp};

impl DhtNode {
    /// Sends an Accept; the local acceptors vote first, so that the record is at hand.
    pub(super) fn send_accept(
        &mut self,
        rat: (Slot, Offset),
        at: (Offset, Key),
        n: u64,
        record: Record,
        waiters: Vec<Waiter>,
    ) {
        self.ctx.rounds.began(RoundKind::Accept);
        let resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        self.homes.schedule(resend_at);
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        r.note_present(&at);
        let flight = Flight {
            n,
            record,
            granted: SlotSet::default(),
            low: SlotSet::default(),
            is_chosen: false,
            waiters,
            resend_at,
            sends: 1,
        };
        self.homes.flights.insert(n, (rat.0, at.0, at.1.clone()));
        r.keys.entry(at.clone()).or_default().flights.push_back(flight);
        self.transmit_accept(rat, &at, n);
    }

    pub(super) fn transmit_accept(&mut self, rat: (Slot, Offset), at: &(Offset, Key), n: u64) {
        let Some(r) = self.homes.reigns.get(rat) else { return };
        let Some(f) = r.keys.get(at).and_then(|k| k.flights.iter().find(|f| f.n == n)) else { return };
        let (home, era, serial) = (r.home, r.era(), r.serial);
        let stamp = Stamp { ballot: r.ballot, n };
        let record = f.record.clone();
        let trace = f.waiters.iter().find_map(|w| w.origin.trace);
        let (anchor, counted) = (r.anchor, SlotSet(f.granted.0 | f.low.0));
        let voters = self.voters(at.0, counted);
        for (to, slots) in voters.remote() {
            let m = Message::Accept { home, slots, key: at.1.clone(), stamp, era, record: record.clone() };
            self.ctx.send_in(trace, to, m);
        }
        // The anchor votes first: a quorum of other slots here would let the next operation be performed on what
        // the anchor still holds from before.
        let here = voters.here;
        for slot in here.iter().filter(|s| *s == anchor).chain(here.iter().filter(|s| *s != anchor)) {
            let answer =
                self.acceptors.vote(slot, at.0, era, |a| a.accept(home, stamp, at.0, &at.1, &record, serial));
            if answer.is_ok() {
                self.note_dirty(at.0, &at.1);
            }
            let me = self.ctx.me;
            self.on_accept_reply(me, stamp, slot, answer);
        }
    }

    /// The vote of an acceptor.
    pub(crate) fn on_accept_reply(
        &mut self,
        from: NodeRef,
        stamp: Stamp,
        slot: Slot,
        answer: Result<(), Denied>,
    ) {
        let Some((home, offset, key)) = self.homes.flights.get(&stamp.n).cloned() else { return };
        let replicas = usize::from(self.ctx.space.replicas());
        let quorum = self.ctx.quorum_unless(Plant::ChosenFewer);
        let all = if self.ctx.is_planted(Plant::DropByQuorum) { quorum } else { replicas };
        let Some(r) = self.homes.reigns.find_mut(home, offset) else { return };
        if r.ballot != stamp.ballot || !r.is_reigning() {
            return;
        }
        let rat = (home, r.extent.lo);
        let at = (offset, key);
        let Some(k) = r.keys.get_mut(&at) else { return };
        let is_last = k.flights.back().is_some_and(|f| f.n == stamp.n);
        let Some(f) = k.flights.iter_mut().find(|f| f.n == stamp.n) else { return };
        let Err(denied) = answer else {
            f.granted.insert(slot);
            f.low = SlotSet(f.low.0 & !f.granted.0);
            let (votes, was_chosen) = (f.granted.len(), f.is_chosen);
            if votes >= quorum && !was_chosen {
                self.on_chosen(rat, &at, stamp.n);
            }
            if votes == all {
                self.on_accepted_by_all(rat, &at, stamp);
            }
            return;
        };
        let configuration = Some(r.configuration.clone());
        let asked = Asked { slot, extent: r.extent, offset, configuration };
        match self.on_refused(from, asked, denied) {
            Refusal::Outbid(b) => self.lose_reign(rat, Some(b)),
            Refusal::Over => {}
            Refusal::Moved | Refusal::Later => {
                let when = self.ctx.now + SOON;
                if let Some(f) = self.homes.flight_mut(rat, &at, stamp.n) {
                    f.resend_at = f.resend_at.min(when);
                    self.homes.schedule(when);
                }
            }
            Refusal::Low => {
                let Some(f) = self.homes.flight_mut(rat, &at, stamp.n) else { return };
                f.low.insert(slot);
                let is_hopeless = replicas - f.low.len() < quorum;
                if is_last && is_hopeless && !f.is_chosen {
                    self.renumber(rat, &at, stamp.n);
                }
            }
        }
    }

    /// The last Accept of a key met a floor or a later stamp: sends the same record under a new n.
    pub(super) fn renumber(&mut self, rat: (Slot, Offset), at: &(Offset, Key), n: u64) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let Some(k) = r.keys.get_mut(at) else { return };
        let Some(f) = k.flights.pop_back() else { return };
        debug_assert_eq!(f.n, n, "only the last flight is numbered anew");
        self.homes.flights.remove(&n);
        let next = self.ctx.draw_n();
        for x in r.readers.iter_mut().filter(|x| x.upto >= n && x.at == *at) {
            x.upto = next;
        }
        self.send_accept(rat, at.clone(), next, f.record, f.waiters);
    }

    /// A quorum granted: this record and all before it are in the chain.
    pub(super) fn on_chosen(&mut self, rat: (Slot, Offset), at: &(Offset, Key), n: u64) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        r.chosen_n = r.chosen_n.max(n);
        let (extent, ballot, known) = (r.extent, r.ballot, r.chosen_n);
        let Some(k) = r.keys.get_mut(at) else { return };
        let mut done = Vec::new();
        while let Some(f) = k.flights.front_mut() {
            if f.n > n {
                break;
            }
            done.append(&mut f.waiters);
            f.is_chosen = true;
            // The last one of a key stays while it is a tombstone that some replica may not hold yet.
            if f.n == n && f.record.is_gone() && k.flights.len() == 1 {
                if let Some(f) = k.flights.front_mut() {
                    f.resend_at = self.ctx.now + TOMBSTONE_RESEND;
                    let when = f.resend_at;
                    self.homes.schedule(when);
                }
                break;
            }
            if let Some(f) = k.flights.pop_front() {
                self.homes.flights.remove(&f.n);
            }
        }
        for w in done {
            let answer = Answer::Done { version: w.version, result: w.result };
            self.has_acknowledged = true;
            self.answer(w.origin, rat.0, extent, Some(ballot), known, answer);
        }
        self.release_readers(rat);
        self.drain_queue(rat, at);
    }
}
