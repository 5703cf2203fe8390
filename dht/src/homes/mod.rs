//! The home of a key: reign, sync, change, read.
//!
//! Operations arrive from gateways. A home first gathers a reign over an interval, then syncs each key at its
//! first touch, then turns operations into Accepts, pipelined, and answers when they are chosen; reads are
//! answered after a Confirm that was sent after they arrived.
//!
//! Keeps:
//! 1. A change is executed only on the record of the last Accept sent for its key under this reign.
//! 2. An answer that rests on a record is given when that record is chosen and the reign was confirmed later
//!    than the operation arrived.
//! 3. What is answered `NotHome`, `Behind`, `Busy` or `Full` was not executed and will not be.
//!
//! Source: `docs/protocol.md`, sections 3, 4 and 7.

mod accept;
mod asking;
mod change;
pub(crate) mod decide;
mod former;
mod gather;
mod read;
mod scan;
mod scrub;
mod sync;
mod union;

use crate::message::{Answer, Attempt, ConfirmItem, Message, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::{Flight, Origin, Phase, Reigns};
use crate::trace::Trace;
use ring::{Extent, NodeId, NodeRef, Offset, Slot, Time};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use store::{Ballot, Key};

/// A map for look-ups only, with the same hasher in every run.
pub(crate) type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Sends of one vote before the reign is given up.
const SENDS_MAX: u32 = 12;

#[derive(Clone, Debug)]
struct Round {
    items: Vec<(ConfirmItem, SlotSet)>,
    resend_at: Time,
    sends: u32,
    /// The trace of one of the operations that wait for it.
    trace: Option<Trace>,
}

/// The homes of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Homes {
    pub(crate) reigns: Reigns,
    flights: Lookup<u64, (Slot, Offset, Key)>,
    syncs: Lookup<u64, (Slot, Offset, Key)>,
    rounds: BTreeMap<u64, Round>,
    /// The Confirm round sent last; 0 if there was none, as in reigns that nothing was confirmed of.
    last_round: u64,
    serial: u32,
    pub(crate) next_scan: Option<Time>,
    deposed: Vec<(Slot, Extent, NodeId, Time)>,
    formers: former::Formers,
    next_scrub: Time,
    next_union: Time,
    ages: scrub::Ages,
    has_readers: bool,
}

/// How much homes have to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HomesLoad {
    /// Operations that wait for a reign, a sync or another operation.
    pub(crate) waiting: usize,
    /// Records sent for a vote and not yet forgotten.
    pub(crate) in_flight: usize,
}

impl Homes {
    pub(crate) fn load(&self) -> HomesLoad {
        let mut waiting = 0;
        for r in self.reigns.iter() {
            if let Phase::Seeking { waiting: w, .. } = &r.phase {
                waiting += w.len();
            }
            waiting += r.keys.values().map(|k| k.queue.len()).sum::<usize>();
        }
        HomesLoad { waiting, in_flight: self.flights.len() }
    }

    fn flight_mut(&mut self, rat: (Slot, Offset), at: &(Offset, Key), n: u64) -> Option<&mut Flight> {
        let k = self.reigns.get_mut(rat)?.keys.get_mut(at)?;
        k.flights.iter_mut().find(|f| f.n == n)
    }

    /// The first Confirm round that is sent after what arrives now.
    fn next_round(&self) -> u64 {
        self.last_round + 1
    }

    pub(crate) fn schedule(&mut self, at: Time) {
        self.next_scan = Some(self.next_scan.map_or(at, |n| n.min(at)));
    }
}

impl DhtNode {
    fn answer(
        &mut self,
        to: Origin,
        home: Slot,
        extent: Extent,
        ballot: Option<Ballot>,
        known: u64,
        answer: Answer,
    ) {
        let known = if self.ctx.is_planted(Plant::KnownAnyN) { self.ctx.n() } else { known };
        let m = Message::OperationReply {
            session: to.session,
            seq: to.seq,
            attempt: to.attempt,
            home,
            extent,
            ballot,
            known,
            answer,
        };
        self.ctx.send(to.from, m);
    }

    pub(crate) fn answer_for(&mut self, at: (Slot, Offset), to: Origin, answer: Answer) {
        if let Some(r) = self.homes.reigns.get(at) {
            let (extent, ballot, known) = (r.extent, r.is_reigning().then_some(r.ballot), r.chosen_n);
            self.answer(to, at.0, extent, ballot, known, answer);
        }
    }

    /// An attempt that was on its way when this node left: it was not executed, and whoever asks must know that.
    pub(crate) fn refuse_operation(&mut self, from: NodeRef, a: &Attempt) {
        let (home, offset) = self.ctx.space.locate(a.key.as_bytes());
        let at = Extent::point(offset);
        self.answer(Origin::of(from, a), home, at, None, 0, Answer::NotHome { hint: None });
    }

    /// An attempt of a client's operation.
    pub(crate) fn on_operation(&mut self, from: NodeRef, mut a: Attempt) {
        a.trace = self.ctx.trace;
        let (home, offset) = self.ctx.space.locate(a.key.as_bytes());
        if !a.operation.is_read() && !self.is_quorum_heard(offset) {
            // An Accept would be sent in vain, and make of "not done" an unknown outcome.
            let at = self.homes.reigns.find(home, offset).map_or(Extent::point(offset), |r| r.extent);
            self.answer(Origin::of(from, &a), home, at, None, 0, Answer::NotHome { hint: None });
            return;
        }
        let mut hint = None;
        if self.homes.reigns.find(home, offset).is_none()
            && let Err(other) = self.begin_reign(home, offset)
        {
            hint = other.map(|n| (n, None));
        }
        let queue_max = self.ctx.config.queue_per_key_max;
        // A reign that was begun may be lost already, to a promise of a replica that is here.
        let Some(r) = self.homes.reigns.find_mut(home, offset) else {
            let at = Extent::point(offset);
            self.answer(Origin::of(from, &a), home, at, None, 0, Answer::NotHome { hint });
            return;
        };
        let lo = r.extent.lo;
        if r.is_draining {
            self.answer_for((home, lo), Origin::of(from, &a), Answer::NotHome { hint: None });
            return;
        }
        match &mut r.phase {
            Phase::Seeking { waiting, .. } => {
                if waiting.len() < queue_max.saturating_mul(4) {
                    waiting.push_back((from, a));
                } else {
                    self.answer_for((home, lo), Origin::of(from, &a), Answer::Busy);
                }
            }
            Phase::Reigning => self.perform(home, lo, offset, from, a),
        }
    }
}
