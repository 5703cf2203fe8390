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

use crate::api::Event;
use crate::message::{Answer, Attempt, ConfirmItem, Denied, Era, Message, Operation, Sighting, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::{Flight, KeyState, Origin, Phase, Reader, Reign, Reigns, SyncSighting, Syncing, Waiter};
use core::time::Duration;
use paxos::Granted;
use ring::{Extent, NodeId, NodeRef, Offset, Slot, Time};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use store::{Ballot, Key, OpEntry, Outcome, Record, Stamp, TxChange, TxStep};

/// A map for look-ups only, with the same hasher in every run.
pub(crate) type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Confirm rounds under way at once.
const ROUNDS_MAX: usize = 3;
/// Sends of one vote before the reign is given up.
const SENDS_MAX: u32 = 12;
/// A tombstone that not all replicas hold is written again after this.
const TOMBSTONE_RESEND: Duration = Duration::from_secs(1);
/// A vote refused as not ready is asked for again after this.
const NOT_READY_RESEND: Duration = Duration::from_millis(5);
/// A home deposed by a live node leaves the reign to it for this long.
const DEPOSED_FOR: Duration = Duration::from_millis(1500);
/// Entries that the scrubber looks at in one turn.
const SCRUB_STEP: usize = 128;

#[derive(Debug)]
struct Round {
    items: Vec<(ConfirmItem, SlotSet)>,
    resend_at: Time,
    sends: u32,
}

/// The homes of one node.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    pub(crate) reigns: Reigns,
    flights: Lookup<u64, (Slot, Offset, Key)>,
    syncs: Lookup<u64, (Slot, Offset, Key)>,
    rounds: BTreeMap<u64, Round>,
    next_round: u64,
    serial: u32,
    pub(crate) next_scan: Option<Time>,
    deposed: Vec<(Slot, Extent, NodeId, Time)>,
    next_scrub: Time,
    has_readers: bool,
}

impl Homes {
    pub(crate) fn schedule(&mut self, at: Time) {
        self.next_scan = Some(self.next_scan.map_or(at, |n| n.min(at)));
    }
}

enum Decision {
    /// Answered now, without a Confirm.
    Now(Answer),
    /// Answered like a read.
    Confirmed(Answer, Answer),
    /// A new record.
    Write(Box<Writing>),
    /// A transaction's lock is in the way.
    Blocked,
}

/// A new record, the n under which it is written, and what is answered once it is chosen.
struct Writing {
    record: Record,
    n: u64,
    version: u64,
    result: Option<store::Value>,
    /// The operation id that the record had to drop for it.
    gone: Option<OpEntry>,
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

    /// An attempt of a client's operation.
    pub(crate) fn on_operation(&mut self, from: NodeRef, a: Attempt) {
        let (home, offset) = self.ctx.space.locate(a.key.as_bytes());
        let found = self.homes.reigns.find(home, offset).map(|r| r.extent.lo);
        let lo = match found {
            Some(lo) => lo,
            None => match self.begin_reign(home, offset) {
                Ok(lo) => lo,
                Err(hint) => {
                    let hint = hint.map(|n| (n, None));
                    let at = Extent::point(offset);
                    self.answer(Origin::of(from, &a), home, at, None, 0, Answer::NotHome { hint });
                    return;
                }
            },
        };
        let queue_max = self.ctx.config.queue_per_key_max;
        let Some(r) = self.homes.reigns.get_mut((home, lo)) else { return };
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

    /// Begins to gather a reign around `offset`, if this node is to be home there; else tells who is.
    pub(crate) fn begin_reign(&mut self, home: Slot, offset: Offset) -> Result<Offset, Option<NodeRef>> {
        let r = self.ctx.space.replicas();
        let now = self.ctx.now;
        self.homes.deposed.retain(|d| d.3 > now);
        if let Some(d) = self.homes.deposed.iter().find(|d| d.0 == home && d.1.contains(offset))
            && self.ctx.is_live(d.2)
        {
            return Err(self.ctx.members.get(d.2).map(|m| m.info.node));
        }
        let mut anchor = None;
        for k in 0..r {
            let slot = (home + k) % r;
            if self.acceptors.active(slot, offset).is_some() {
                anchor = Some(slot);
                break;
            }
            if let Some(owner) = self.ctx.live_owner(slot, offset)
                && owner.id != self.ctx.me.id
            {
                return Err(Some(owner));
            }
        }
        let Some(anchor) = anchor else { return Err(None) };
        let Some(a) = self.acceptors.active(anchor, offset) else { return Err(None) };
        let configuration = a.configuration.clone();
        let mut extent = a.extent;
        for slot in self.ctx.space.slots() {
            if slot == anchor {
                continue;
            }
            // One owner per slot, so that a grant is one answer.
            match self.acceptors.find(slot, offset) {
                Some(own) => extent = extent.intersect(&own.extent).unwrap_or(extent),
                None => extent = self.ctx.locations.around(slot, offset, extent),
            }
        }
        let extent = self.homes.reigns.gap(home, offset, extent);
        let ballot = self.ctx.draw_ballot();
        let rpc = self.ctx.draw_rpc();
        self.homes.serial = self.homes.serial.wrapping_add(1).max(1);
        let resend_at = now + self.ctx.config.vote_timeout;
        self.homes.schedule(resend_at);
        let serial = self.homes.serial;
        let reign = Reign::seeking(home, extent, ballot, configuration, anchor, serial, rpc, resend_at);
        let era = reign.era();
        self.homes.reigns.insert(reign);
        self.ask_reign(home, extent, ballot, era, rpc, SlotSet::default());
        Ok(extent.lo)
    }

    fn ask_reign(&mut self, home: Slot, extent: Extent, ballot: Ballot, era: Era, rpc: u64, have: SlotSet) {
        let mut remote: BTreeMap<NodeRef, SlotSet> = BTreeMap::new();
        let mut here = Vec::new();
        for slot in self.ctx.space.slots().filter(|s| !have.contains(*s)) {
            if self.acceptors.find(slot, extent.lo).is_some() {
                here.push(slot);
            } else if let Some(owner) = self.ctx.owner(slot, extent.lo)
                && owner.id != self.ctx.me.id
            {
                remote.entry(owner).or_default().insert(slot);
            }
        }
        for (to, slots) in remote {
            self.ctx.send(to, Message::Reign { rpc, home, slots, extent, ballot, era });
        }
        for slot in here {
            let answer = self.acceptors.reign(slot, extent, home, ballot, era);
            let me = self.ctx.me;
            self.on_reign_reply(me, rpc, slot, answer);
        }
    }

    /// A grant or refusal of a reign that is being gathered.
    pub(crate) fn on_reign_reply(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slot: Slot,
        answer: Result<(Option<Ballot>, Granted), Denied>,
    ) {
        let quorum = self.ctx.space.quorum();
        let found = self
            .homes
            .reigns
            .iter_mut()
            .find(|r| matches!(r.phase, Phase::Seeking { rpc: x, .. } if x == rpc));
        let Some(r) = found else { return };
        let at = (r.home, r.extent.lo);
        let extent = r.extent;
        match answer {
            Ok((_, g)) => {
                r.floor = r.floor.max(g.floor);
                let Phase::Seeking { grants, waiting, .. } = &mut r.phase else { return };
                grants.insert(slot);
                let is_won = grants.len() >= quorum;
                let waiting = if is_won { std::mem::take(waiting) } else { VecDeque::new() };
                if is_won {
                    r.phase = Phase::Reigning;
                }
                self.ctx.meet_n(g.high);
                self.ctx.meet_n(g.floor.n);
                if is_won {
                    self.ctx.announce(Event::ReignBegan { home: at.0, extent });
                    for (from, a) in waiting {
                        self.on_operation(from, a);
                    }
                }
            }
            Err(Denied::Promised(b)) => {
                let is_preferred = r.anchor == r.home;
                self.ctx.meet_ballot(b);
                // The owner of the home slot was only outnumbered, by whoever led before: it asks again with a
                // higher ballot. A stand-in gives way.
                self.lose_reign(at, if is_preferred { None } else { Some(b) });
                self.is_duty_due = true;
            }
            Err(Denied::StaleEpoch { extent, configuration }) => {
                self.learn_configuration(extent, &configuration)
            }
            Err(Denied::NewerEpoch) => {
                let configuration = r.configuration.clone();
                self.ctx.send(from, Message::Install { extent, configuration });
                self.resend_reign_at(at, self.ctx.now + NOT_READY_RESEND);
            }
            Err(Denied::NotOwner { hint }) => {
                let asked = from.id;
                self.ctx.learn_not_owner(slot, extent.lo, asked, hint);
                // The interval may have to be cut otherwise: begin again when somebody asks.
                let at_once = self.ctx.now + NOT_READY_RESEND * 2;
                self.resend_reign_at(at, at_once);
                if self.ctx.locations.around(slot, extent.lo, extent) != extent {
                    self.lose_reign(at, None);
                }
            }
            Err(Denied::NotReady | Denied::Low | Denied::StillHeard) => {
                let at_once = self.ctx.now + NOT_READY_RESEND;
                self.resend_reign_at(at, at_once);
            }
        }
    }

    fn resend_reign_at(&mut self, at: (Slot, Offset), when: Time) {
        if let Some(r) = self.homes.reigns.get_mut(at)
            && let Phase::Seeking { resend_at, .. } = &mut r.phase
        {
            *resend_at = (*resend_at).min(when);
            self.homes.schedule(when);
        }
    }

    /// A decided configuration became known: install it, and end what rested on the one before.
    pub(crate) fn learn_configuration(
        &mut self,
        extent: Extent,
        configuration: &std::sync::Arc<paxos::Configuration>,
    ) {
        let r = self.ctx.space.replicas();
        if configuration.members.len() != usize::from(r) {
            return;
        }
        if self.acceptors.install(r, extent, configuration) {
            self.is_owned_changed = true;
        }
        let epoch = configuration.epoch;
        for at in self.homes.reigns.cut_out(extent, |r| r.configuration.epoch < epoch) {
            self.lose_reign(at, None);
        }
        self.on_configuration_learned(extent, configuration);
    }

    /// Ends a reign: what was not sent is definite, what was sent is unknown.
    pub(crate) fn lose_reign(&mut self, at: (Slot, Offset), to: Option<Ballot>) {
        let Some(r) = self.homes.reigns.remove(at) else { return };
        if let Some(b) = to.filter(|b| b.node != self.ctx.me.id && b.node != NodeId(0)) {
            let until = self.ctx.now + DEPOSED_FOR;
            self.homes.deposed.push((at.0, r.extent, b.node, until));
        }
        let hint = to
            .filter(|b| b.node != self.ctx.me.id)
            .and_then(|b| self.ctx.members.get(b.node).map(|m| (m.info.node, Some(b))));
        let not_home = Answer::NotHome { hint };
        let (extent, home, known) = (r.extent, r.home, r.chosen_n);
        let say = |node: &mut DhtNode, o: Origin, a: Answer| node.answer(o, home, extent, None, known, a);
        if let Phase::Seeking { waiting, .. } = r.phase {
            for (from, a) in waiting {
                say(self, Origin::of(from, &a), not_home.clone());
            }
        }
        for (_, k) in r.keys {
            if let Some(s) = k.sync {
                self.homes.syncs.remove(&s.rpc);
            }
            for f in k.flights {
                self.homes.flights.remove(&f.n);
                for w in f.waiters {
                    say(self, w.origin, Answer::Unknown);
                }
            }
            for (from, a) in k.queue.into_iter().chain(k.blocked.into_iter().map(|b| (b.from, b.attempt))) {
                say(self, Origin::of(from, &a), not_home.clone());
            }
        }
        for reader in r.readers {
            say(self, reader.origin, reader.otherwise);
        }
    }

    /// Performs an operation of a key of a reign that leads.
    fn perform(&mut self, home: Slot, lo: Offset, offset: Offset, from: NodeRef, a: Attempt) {
        let Some(r) = self.homes.reigns.get_mut((home, lo)) else { return };
        let is_change = !a.operation.is_read();
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
        let mut waiters: Vec<Waiter> = Vec::new();
        let mut last_n = None;
        let mut ops: VecDeque<(NodeRef, Attempt)> = ops.into();
        let mut upto =
            r.keys.get(&at).and_then(|k| k.flights.back()).filter(|f| !f.is_chosen).map_or(0, |f| f.n);
        while let Some((from, a)) = ops.pop_front() {
            let origin = Origin::of(from, &a);
            match self.decide(rat, &record, &a) {
                Decision::Now(answer) => self.answer_for(rat, origin, answer),
                Decision::Confirmed(answer, otherwise) => {
                    self.answer_when_confirmed(rat, &at, origin, answer, otherwise, upto);
                }
                Decision::Write(w) => {
                    let was_locked = record.lock().is_some();
                    record = w.record;
                    upto = w.n.max(upto);
                    last_n = Some(w.n);
                    if let (Some(g), Some(r)) = (w.gone, self.homes.reigns.get_mut(rat)) {
                        r.note_evicted(&g);
                    }
                    waiters.push(Waiter { origin, version: w.version, result: w.result });
                    if was_locked && record.lock().is_none() {
                        self.unblock(rat, &at, &mut ops);
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
    }

    /// The lock is gone: whoever waited comes before whoever came later.
    fn unblock(&mut self, rat: (Slot, Offset), at: &(Offset, Key), ops: &mut VecDeque<(NodeRef, Attempt)>) {
        if let Some(k) = self.homes.reigns.get_mut(rat).and_then(|r| r.keys.get_mut(at)) {
            for b in std::mem::take(&mut k.blocked).into_iter().rev() {
                ops.push_front((b.from, b.attempt));
            }
        }
    }

    /// Gives an answer that rests on the records sent up to `upto`.
    fn answer_when_confirmed(
        &mut self,
        rat: (Slot, Offset),
        at: &(Offset, Key),
        origin: Origin,
        answer: Answer,
        otherwise: Answer,
        upto: u64,
    ) {
        let round = self.homes.next_round;
        self.homes.has_readers = true;
        if let Some(r) = self.homes.reigns.get_mut(rat) {
            r.readers.push_back(Reader { origin, answer, otherwise, at: at.clone(), upto, round });
        }
    }

    /// Answers a read with a record of this home.
    pub(crate) fn answer_read(
        &mut self,
        rat: (Slot, Offset),
        at: &(Offset, Key),
        origin: Origin,
        record: &Record,
        operation: &Operation,
    ) {
        let keys = self.homes.reigns.get(rat).map(|r| &r.keys);
        let last = keys.and_then(|k| k.get(at)).and_then(|k| k.flights.back());
        let upto = last.filter(|f| !f.is_chosen).map_or(0, |f| f.n);
        let not_home = Answer::NotHome { hint: None };
        self.answer_when_confirmed(rat, at, origin, read_of(record, operation), not_home, upto);
    }

    /// What an operation makes of the record that was sent last.
    fn decide(&mut self, rat: (Slot, Offset), record: &Record, a: &Attempt) -> Decision {
        let not_home = Answer::NotHome { hint: None };
        let is_blocked = record.lock().is_some_and(|l| crate::tx::is_in_the_way(l, &a.operation));
        if a.operation.is_read() {
            let sees_past = self.ctx.is_planted(Plant::ValidateIgnoresLocks)
                && matches!(a.operation, Operation::Inspect { .. });
            if is_blocked && !sees_past {
                return Decision::Blocked;
            }
            return Decision::Confirmed(read_of(record, &a.operation), not_home);
        }
        let Some(r) = self.homes.reigns.get(rat) else { return Decision::Now(not_home) };
        if let Some(e) = record.ops.as_ref().and_then(|o| o.get(a.session)) {
            if e.seq == a.seq {
                let done = Answer::Done { version: e.n, result: e.result.clone() };
                return Decision::Confirmed(done, Answer::Unknown);
            }
            if e.seq > a.seq {
                return Decision::Now(Answer::Unknown);
            }
        }
        if a.is_first {
            // Its reign is this one, so only what was executed and forgotten under it can be a repetition.
            if r.was_evicted(a.session, a.seq) {
                return Decision::Now(Answer::Unknown);
            }
            if a.known < r.first_floor {
                return Decision::Confirmed(Answer::Behind { floor: r.first_floor }, not_home);
            }
        } else if !a.operation.is_repeatable()
            && (a.known < record.ops_floor() || r.was_evicted(a.session, a.seq))
        {
            return Decision::Now(Answer::Unknown);
        }
        if is_blocked {
            return Decision::Blocked;
        }
        let change = match &a.operation {
            Operation::Change(c) => c,
            Operation::Tx(c) => return self.decide_tx(record, a, c),
            Operation::Get | Operation::Inspect { .. } => return Decision::Now(not_home),
        };
        let shrinks = matches!(change, store::Change::Delete { .. });
        if !shrinks && self.is_memory_full {
            return Decision::Now(Answer::Full);
        }
        match change.apply(record, self.ctx.config.value_bytes_max) {
            Outcome::Nothing => {
                let value = change.answers_value().then(|| record.value.clone()).flatten();
                Decision::Confirmed(Answer::Nothing { version: record.version, value }, not_home)
            }
            Outcome::Refused(refusal) => {
                let (version, value) = (record.version, record.value.clone());
                Decision::Confirmed(Answer::Refused { refusal, version, value }, not_home)
            }
            Outcome::Write(value) => {
                let n = self.ctx.draw_n();
                let result = change.answers_value().then(|| value.clone()).flatten();
                let mut next = Record { version: n, value, ops: record.ops.clone() };
                let entry = OpEntry { session: a.session, seq: a.seq, n, result: result.clone() };
                let gone = next.ops_mut().note(entry);
                Decision::Write(Box::new(Writing { record: next, n, version: n, result, gone }))
            }
        }
    }

    /// What a transaction's change makes of the record that was sent last.
    fn decide_tx(&mut self, record: &Record, a: &Attempt, change: &TxChange) -> Decision {
        let not_home = Answer::NotHome { hint: None };
        if !change.shrinks() && self.is_memory_full {
            return Decision::Now(Answer::Full);
        }
        // Numbers that nothing is written under are left out of the chain, nothing else.
        let n = self.ctx.draw_n();
        let planted = self.planted_change(record, change);
        match planted.as_ref().unwrap_or(change).apply(record, n) {
            TxStep::Nothing(version) => {
                Decision::Confirmed(Answer::Nothing { version, value: None }, not_home)
            }
            TxStep::Refused(refusal) => {
                let (version, value) = (record.version, None);
                Decision::Confirmed(Answer::Refused { refusal, version, value }, not_home)
            }
            TxStep::Locked => Decision::Now(Answer::Locked),
            TxStep::Write(next, version, result) => {
                let mut record = *next;
                let mut gone = None;
                if !change.is_repeatable() {
                    let entry = OpEntry { session: a.session, seq: a.seq, n, result: result.clone() };
                    gone = record.ops_mut().note(entry);
                }
                Decision::Write(Box::new(Writing { record, n, version, result, gone }))
            }
        }
    }

    /// Sends an Accept; the local acceptors vote first, so that the record is at hand.
    fn send_accept(
        &mut self,
        rat: (Slot, Offset),
        at: (Offset, Key),
        n: u64,
        record: Record,
        waiters: Vec<Waiter>,
    ) {
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

    fn transmit_accept(&mut self, rat: (Slot, Offset), at: &(Offset, Key), n: u64) {
        let Some(r) = self.homes.reigns.get(rat) else { return };
        let Some(f) = r.keys.get(at).and_then(|k| k.flights.iter().find(|f| f.n == n)) else { return };
        let (home, era, serial) = (r.home, r.era(), r.serial);
        let stamp = Stamp { ballot: r.ballot, n };
        let record = f.record.clone();
        let anchor = r.anchor;
        let mut remote: [Option<(NodeRef, SlotSet)>; 7] = [None; 7];
        let mut here = SlotSet::default();
        for slot in self.ctx.space.slots().filter(|s| !f.granted.contains(*s) && !f.low.contains(*s)) {
            if self.acceptors.find(slot, at.0).is_some() {
                here.insert(slot);
            } else if let Some(owner) = self.ctx.owner(slot, at.0)
                && owner.id != self.ctx.me.id
            {
                let same = remote.iter_mut().find(|x| x.is_none_or(|(o, _)| o.id == owner.id));
                if let Some(x) = same {
                    x.get_or_insert((owner, SlotSet::default())).1.insert(slot);
                }
            }
        }
        for (to, slots) in remote.into_iter().flatten() {
            let m = Message::Accept { home, slots, key: at.1.clone(), stamp, era, record: record.clone() };
            self.ctx.send(to, m);
        }
        // The anchor votes first: a quorum of other slots here would let the next operation be performed on what
        // the anchor still holds from before.
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
        let (quorum, replicas) = (self.ctx.space.quorum(), usize::from(self.ctx.space.replicas()));
        let Some(r) = self.homes.reigns.find_mut(home, offset) else { return };
        if r.ballot != stamp.ballot || !r.is_reigning() {
            return;
        }
        let rat = (home, r.extent.lo);
        let at = (offset, key);
        let Some(k) = r.keys.get_mut(&at) else { return };
        let is_last = k.flights.back().is_some_and(|f| f.n == stamp.n);
        let Some(f) = k.flights.iter_mut().find(|f| f.n == stamp.n) else { return };
        match answer {
            Ok(()) => {
                f.granted.insert(slot);
                f.low = SlotSet(f.low.0 & !f.granted.0);
                let (votes, was_chosen) = (f.granted.len(), f.is_chosen);
                if votes >= quorum && !was_chosen {
                    self.on_chosen(rat, &at, stamp.n);
                }
                if votes == replicas {
                    self.on_accepted_by_all(rat, &at, stamp);
                }
            }
            Err(Denied::Promised(b)) => {
                self.ctx.meet_ballot(b);
                self.lose_reign(rat, Some(b));
            }
            Err(Denied::StaleEpoch { extent, configuration }) => {
                self.learn_configuration(extent, &configuration)
            }
            Err(Denied::NewerEpoch) => {
                let m = Message::Install { extent: r.extent, configuration: r.configuration.clone() };
                let when = self.ctx.now + NOT_READY_RESEND;
                f.resend_at = f.resend_at.min(when);
                self.homes.schedule(when);
                self.ctx.send(from, m);
            }
            Err(Denied::NotOwner { hint }) => {
                let when = self.ctx.now + NOT_READY_RESEND;
                f.resend_at = f.resend_at.min(when);
                self.homes.schedule(when);
                self.ctx.learn_not_owner(slot, at.0, from.id, hint);
            }
            Err(Denied::NotReady | Denied::StillHeard) => {
                let when = self.ctx.now + NOT_READY_RESEND;
                f.resend_at = f.resend_at.min(when);
                self.homes.schedule(when);
            }
            Err(Denied::Low) => {
                if !f.is_chosen {
                    f.low.insert(slot);
                    let is_hopeless = replicas - f.low.len() < quorum;
                    if is_last && is_hopeless {
                        self.renumber(rat, &at, stamp.n);
                    }
                }
            }
        }
    }

    /// The last Accept of a key met a floor or a later stamp: sends the same record under a new n.
    fn renumber(&mut self, rat: (Slot, Offset), at: &(Offset, Key), n: u64) {
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
    fn on_chosen(&mut self, rat: (Slot, Offset), at: &(Offset, Key), n: u64) {
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

    /// All replicas hold the record: a tombstone may be forgotten.
    fn on_accepted_by_all(&mut self, rat: (Slot, Offset), at: &(Offset, Key), stamp: Stamp) {
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
            r.note_evicted(e);
        }
        r.note_absent(at.clone());
        let mut remote: BTreeMap<NodeRef, SlotSet> = BTreeMap::new();
        for slot in self.ctx.space.slots() {
            if self.acceptors.find(slot, at.0).is_some() {
                self.acceptors.drop_key(slot, home, stamp, at.0, &at.1);
            } else if let Some(owner) = self.ctx.owner(slot, at.0) {
                remote.entry(owner).or_default().insert(slot);
            }
        }
        self.note_dropped(at);
        for (to, slots) in remote {
            self.ctx.send(to, Message::Drop { home, slots, key: at.1.clone(), stamp, era });
        }
    }

    /// Begins what waited for the key.
    fn drain_queue(&mut self, rat: (Slot, Offset), at: &(Offset, Key)) {
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

    fn begin_sync(&mut self, rat: (Slot, Offset), at: (Offset, Key)) {
        let rpc = self.ctx.draw_rpc();
        let resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        self.homes.schedule(resend_at);
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let k: &mut KeyState = r.keys.entry(at.clone()).or_default();
        k.sync = Some(Syncing { rpc, sightings: Vec::new(), resend_at });
        self.homes.syncs.insert(rpc, (rat.0, at.0, at.1.clone()));
        self.transmit_sync(rat, &at);
    }

    fn transmit_sync(&mut self, rat: (Slot, Offset), at: &(Offset, Key)) {
        let Some(r) = self.homes.reigns.get(rat) else { return };
        let Some(s) = r.keys.get(at).and_then(|k| k.sync.as_ref()) else { return };
        let (rpc, home, ballot, era) = (s.rpc, r.home, r.ballot, r.era());
        let have = self.acceptors.entry(r.anchor, at.0, &at.1).map(|e| e.stamp);
        let mut remote: BTreeMap<NodeRef, SlotSet> = BTreeMap::new();
        let mut here = Vec::new();
        for slot in self.ctx.space.slots().filter(|x| s.sightings.iter().all(|g| g.slot != *x)) {
            if self.acceptors.find(slot, at.0).is_some() {
                here.push(slot);
            } else if let Some(owner) = self.ctx.owner(slot, at.0)
                && owner.id != self.ctx.me.id
            {
                remote.entry(owner).or_default().insert(slot);
            }
        }
        for (to, slots) in remote {
            self.ctx.send(to, Message::Sync { rpc, home, slots, key: at.1.clone(), ballot, era, have });
        }
        for slot in here {
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
        let quorum = self.ctx.space.quorum();
        let Some(r) = self.homes.reigns.find_mut(home, offset) else { return };
        let rat = (home, r.extent.lo);
        let at = (offset, key);
        let anchor = r.anchor;
        let (r_extent, r_configuration) = (r.extent, r.configuration.clone());
        let Some(s) = r.keys.get_mut(&at).and_then(|k| k.sync.as_mut()).filter(|s| s.rpc == rpc) else {
            return;
        };
        match answer {
            Ok(g) => {
                if s.sightings.iter().any(|x| x.slot == slot) {
                    return;
                }
                s.sightings.push(SyncSighting { slot, stamp: g.stamp, record: g.record, floor: g.floor });
                // The local acceptor is one of the quorum: its register is what later operations read.
                if s.sightings.len() >= quorum && s.sightings.iter().any(|x| x.slot == anchor) {
                    self.finish_sync(rat, at);
                }
            }
            Err(Denied::Promised(b)) => {
                self.ctx.meet_ballot(b);
                self.lose_reign(rat, Some(b));
            }
            Err(Denied::StaleEpoch { extent, configuration }) => {
                self.learn_configuration(extent, &configuration)
            }
            Err(other) => {
                let when = self.ctx.now + NOT_READY_RESEND;
                s.resend_at = s.resend_at.min(when);
                self.homes.schedule(when);
                match other {
                    Denied::NotOwner { hint } => self.ctx.learn_not_owner(slot, at.0, from.id, hint),
                    Denied::NewerEpoch => {
                        self.ctx.send(
                            from,
                            Message::Install { extent: r_extent, configuration: r_configuration },
                        );
                    }
                    Denied::NotReady
                    | Denied::Low
                    | Denied::StillHeard
                    | Denied::Promised(_)
                    | Denied::StaleEpoch { .. } => {}
                }
            }
        }
    }

    fn finish_sync(&mut self, rat: (Slot, Offset), at: (Offset, Key)) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let (anchor, serial) = (r.anchor, r.serial);
        let Some(s) = r.keys.get_mut(&at).and_then(|k| k.sync.take()) else { return };
        self.homes.syncs.remove(&s.rpc);
        let floor = s.sightings.iter().map(|g| g.floor).max().unwrap_or(Stamp::ZERO);
        r.floor = r.floor.max(floor);
        let top = s.sightings.iter().filter(|g| g.stamp.is_some()).max_by_key(|g| g.stamp.map(|t| t.0));
        let top_stamp = top.and_then(|t| t.stamp.map(|s| s.0));
        let is_same =
            s.sightings.iter().all(|g| g.stamp.map(|t| t.0) == top_stamp && g.stamp.is_none_or(|t| t.1));
        self.ctx.meet_n(floor.n);
        let Some(top_stamp) = top_stamp else {
            r.first_floor = r.first_floor.max(r.floor.n);
            r.note_absent(at.clone());
            self.drain_queue(rat, &at);
            return;
        };
        self.ctx.meet_n(top_stamp.n);
        // The highest record travelled unless the local one is as new.
        let record = match s
            .sightings
            .iter()
            .find(|g| g.stamp.map(|t| t.0) == Some(top_stamp) && g.record.is_some())
        {
            Some(g) => g.record.clone(),
            None => self
                .acceptors
                .entry(anchor, at.0, &at.1)
                .filter(|e| e.stamp == top_stamp)
                .map(|e| e.record.clone()),
        };
        let Some(record) = record else {
            // The local entry went away meanwhile: ask again.
            self.begin_sync(rat, at);
            return;
        };
        self.ctx.meet_n(record.version);
        r.first_floor = r.first_floor.max(record.ops_floor());
        if is_same {
            if let Some(a) = self.acceptors.find_mut(anchor, at.0) {
                a.registers.set_mark(at.0, &at.1, serial);
            }
            self.drain_queue(rat, &at);
        } else {
            self.is_resynced += 1;
            let n = self.ctx.draw_n();
            self.send_accept(rat, at.clone(), n, record, Vec::new());
            self.drain_queue(rat, &at);
        }
    }

    /// Gives the answers whose record is chosen and whose Confirm was granted.
    fn release_readers(&mut self, rat: (Slot, Offset)) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        if r.readers.is_empty() {
            return;
        }
        let (extent, ballot, known, confirmed) = (r.extent, r.ballot, r.chosen_n, r.confirmed_round);
        let keys = &r.keys;
        let is_ready = |x: &Reader| {
            x.round <= confirmed
                && keys.get(&x.at).is_none_or(|k| k.flights.iter().all(|f| f.is_chosen || f.n > x.upto))
        };
        let mut ready = Vec::new();
        let mut rest = VecDeque::new();
        for x in std::mem::take(&mut r.readers) {
            if is_ready(&x) { ready.push(x) } else { rest.push_back(x) }
        }
        r.readers = rest;
        for x in ready {
            self.answer(x.origin, rat.0, extent, Some(ballot), known, x.answer);
        }
    }

    /// Sends one Confirm for every answer that waits for one; called when a batch of inputs is through.
    pub(crate) fn flush_confirms(&mut self) {
        if !self.homes.has_readers || self.homes.rounds.len() >= ROUNDS_MAX {
            return;
        }
        self.homes.has_readers = false;
        let round = self.homes.next_round;
        let mut items = Vec::new();
        for r in self.homes.reigns.iter_mut() {
            if r.is_reigning() && r.readers.iter().any(|x| x.round == round) {
                r.sent_round = round;
                let item = ConfirmItem {
                    home: r.home,
                    slots: SlotSet::default(),
                    extent: r.extent,
                    ballot: r.ballot,
                    era: r.era(),
                };
                items.push((item, SlotSet::default()));
            }
        }
        if items.is_empty() {
            return;
        }
        self.homes.next_round += 1;
        let resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        self.homes.schedule(resend_at);
        self.homes.rounds.insert(round, Round { items, resend_at, sends: 1 });
        self.transmit_confirm(round);
    }

    fn transmit_confirm(&mut self, round: u64) {
        let Some(r) = self.homes.rounds.get(&round) else { return };
        let mut remote: BTreeMap<NodeRef, Vec<(u32, ConfirmItem)>> = BTreeMap::new();
        let mut here = Vec::new();
        for (i, (item, granted)) in r.items.iter().enumerate() {
            let i = u32::try_from(i).unwrap_or(u32::MAX);
            let mut by_node: BTreeMap<NodeRef, SlotSet> = BTreeMap::new();
            for slot in self.ctx.space.slots().filter(|s| !granted.contains(*s)) {
                if self.acceptors.find(slot, item.extent.lo).is_some() {
                    here.push((i, slot, *item));
                } else if let Some(owner) = self.ctx.owner(slot, item.extent.lo)
                    && owner.id != self.ctx.me.id
                {
                    by_node.entry(owner).or_default().insert(slot);
                }
            }
            for (to, slots) in by_node {
                remote.entry(to).or_default().push((i, ConfirmItem { slots, ..*item }));
            }
        }
        for (to, items) in remote {
            // Items keep their place in the round: what this node is not asked has no slots.
            let mut all: Vec<ConfirmItem> = Vec::new();
            for (i, item) in items {
                let i = usize::try_from(i).unwrap_or(0);
                while all.len() < i {
                    all.push(ConfirmItem { slots: SlotSet::default(), ..item });
                }
                all.push(item);
            }
            self.ctx.send(to, Message::Confirm { round, items: all });
        }
        let mut answers = Vec::new();
        for (i, slot, item) in here {
            answers.push((
                i,
                slot,
                self.acceptors.confirm(slot, item.extent, item.home, item.ballot, item.era),
            ));
        }
        let me = self.ctx.me;
        self.on_confirm_reply(me, round, answers);
    }

    /// Answers to a Confirm.
    pub(crate) fn on_confirm_reply(
        &mut self,
        from: NodeRef,
        round: u64,
        answers: Vec<(u32, Slot, Result<(), Denied>)>,
    ) {
        let quorum = self.ctx.space.quorum();
        for (i, slot, answer) in answers {
            let Some(r) = self.homes.rounds.get_mut(&round) else { return };
            let Some((item, granted)) = usize::try_from(i).ok().and_then(|i| r.items.get_mut(i)) else {
                continue;
            };
            let item = *item;
            match answer {
                Ok(()) => {
                    let before = granted.len();
                    granted.insert(slot);
                    if before < quorum && granted.len() >= quorum {
                        self.on_confirmed(round, &item);
                    }
                }
                Err(Denied::Promised(b)) => {
                    // Lower than ours: an acceptor that has not promised us, which proves nothing.
                    if b > item.ballot {
                        self.ctx.meet_ballot(b);
                        self.lose_reigns_of(&item, Some(b));
                    }
                }
                Err(Denied::StaleEpoch { extent, configuration }) => {
                    self.learn_configuration(extent, &configuration);
                }
                Err(Denied::NewerEpoch) => {
                    let c = self
                        .homes
                        .reigns
                        .find(item.home, item.extent.lo)
                        .filter(|r| r.era() == item.era)
                        .map(|r| r.configuration.clone());
                    if let Some(configuration) = c {
                        self.ctx.send(from, Message::Install { extent: item.extent, configuration });
                    }
                    self.resend_round(round);
                }
                Err(Denied::NotOwner { hint }) => {
                    self.ctx.learn_not_owner(slot, item.extent.lo, from.id, hint);
                    self.resend_round(round);
                    // The slot's interval has another owner in part: ask for the reign by its parts.
                    if self.ctx.locations.around(slot, item.extent.lo, item.extent) != item.extent {
                        self.recut(&item, slot);
                    }
                }
                Err(Denied::NotReady | Denied::Low | Denied::StillHeard) => self.resend_round(round),
            }
        }
        if self.homes.rounds.get(&round).is_some_and(|r| r.items.iter().all(|(_, g)| g.len() >= quorum)) {
            self.homes.rounds.remove(&round);
        }
    }

    fn resend_round(&mut self, round: u64) {
        let when = self.ctx.now + NOT_READY_RESEND;
        if let Some(r) = self.homes.rounds.get_mut(&round) {
            r.resend_at = r.resend_at.min(when);
            self.homes.schedule(when);
        }
    }

    fn on_confirmed(&mut self, round: u64, item: &ConfirmItem) {
        let hit: Vec<(Slot, Offset)> = self
            .homes
            .reigns
            .iter()
            .filter(|r| r.home == item.home && r.ballot == item.ballot && item.extent.covers(&r.extent))
            .map(|r| (r.home, r.extent.lo))
            .collect();
        for at in hit {
            if let Some(r) = self.homes.reigns.get_mut(at) {
                r.confirmed_round = r.confirmed_round.max(round);
            }
            self.release_readers(at);
        }
    }

    fn lose_reigns_of(&mut self, item: &ConfirmItem, to: Option<Ballot>) {
        let hit: Vec<(Slot, Offset)> = self
            .homes
            .reigns
            .iter()
            .filter(|r| r.home == item.home && r.ballot == item.ballot && item.extent.covers(&r.extent))
            .map(|r| (r.home, r.extent.lo))
            .collect();
        for at in hit {
            self.lose_reign(at, to);
        }
    }

    /// Cuts reigns at the boundaries of the owners of a slot; each part is confirmed for itself from now on.
    fn recut(&mut self, item: &ConfirmItem, slot: Slot) {
        for (part, _) in self.ctx.locations.pieces(slot, item.extent) {
            self.homes.reigns.cut_out(part, |r| r.home == item.home && r.ballot == item.ballot);
        }
        let round = self.homes.next_round;
        let mut moved = false;
        for r in self.homes.reigns.iter_mut().filter(|r| r.home == item.home && r.ballot == item.ballot) {
            for x in &mut r.readers {
                x.round = round;
                moved = true;
            }
        }
        self.homes.has_readers |= moved;
    }

    /// Sends again what was not answered, gives up what nobody answers, and looks after tombstones.
    pub(crate) fn scan_homes(&mut self) {
        let now = self.ctx.now;
        if self.homes.next_scan.is_none_or(|t| t > now) {
            return;
        }
        self.homes.next_scan = None;
        let late: Vec<u64> =
            self.homes.rounds.iter().filter(|(_, r)| r.resend_at <= now).map(|(id, _)| *id).collect();
        for id in late {
            let again = now + self.ctx.config.vote_timeout;
            let Some(r) = self.homes.rounds.get_mut(&id) else { continue };
            r.sends += 1;
            r.resend_at = again;
            if r.sends > SENDS_MAX {
                let open: Vec<ConfirmItem> = r
                    .items
                    .iter()
                    .filter(|(_, g)| g.len() < self.ctx.space.quorum())
                    .map(|(i, _)| *i)
                    .collect();
                self.homes.rounds.remove(&id);
                for item in open {
                    self.lose_reigns_of(&item, None);
                }
            } else {
                self.transmit_confirm(id);
            }
        }
        for at in self.homes.reigns.keys() {
            self.scan_reign(at);
        }
        let next = self.homes.rounds.values().map(|r| r.resend_at).min();
        let next = next.into_iter().chain(self.homes.reigns.iter().filter_map(reign_deadline)).min();
        if let Some(t) = next {
            self.homes.schedule(t);
        }
        if self.homes.rounds.len() < ROUNDS_MAX && self.homes.reigns.iter().any(|r| !r.readers.is_empty()) {
            self.homes.has_readers = true;
        }
    }

    fn scan_reign(&mut self, rat: (Slot, Offset)) {
        let now = self.ctx.now;
        let again = now + self.ctx.config.vote_timeout;
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        if let Phase::Seeking { rpc, grants, resend_at, sends, .. } = &mut r.phase {
            if *resend_at > now {
                return;
            }
            *sends += 1;
            *resend_at = again;
            let (rpc, grants, sends) = (*rpc, *grants, *sends);
            let (home, extent, ballot, era) = (r.home, r.extent, r.ballot, r.era());
            if sends > SENDS_MAX / 2 {
                self.lose_reign(rat, None);
            } else {
                self.ask_reign(home, extent, ballot, era, rpc, grants);
            }
            return;
        }
        self.scan_blocked(rat);
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let mut syncs = Vec::new();
        let mut flights = Vec::new();
        let mut is_dead = false;
        for (at, k) in &mut r.keys {
            if let Some(s) = k.sync.as_mut().filter(|s| s.resend_at <= now) {
                s.resend_at = again;
                syncs.push(at.clone());
            }
            if let Some(f) = k.flights.back_mut().filter(|f| f.resend_at <= now) {
                f.sends += 1;
                f.resend_at = if f.is_chosen { now + TOMBSTONE_RESEND } else { again };
                is_dead |= f.sends > SENDS_MAX && !f.is_chosen;
                flights.push((at.clone(), f.n));
            }
        }
        if is_dead {
            self.lose_reign(rat, None);
            return;
        }
        for at in syncs {
            self.transmit_sync(rat, &at);
        }
        for (at, n) in flights {
            self.transmit_accept(rat, &at, n);
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
            if let Some(a) = self.acceptors.find(r.anchor, r.extent.lo) {
                for (o, k, e) in a.registers.range(r.extent, r.scrub_after.as_ref()).take(SCRUB_STEP) {
                    let at = (o, k.clone());
                    if e.record.is_gone()
                        && !r.keys.contains_key(&at)
                        && self.ctx.space.locate(k.as_bytes()).0 == r.home
                    {
                        found.push((at.clone(), e.mark == r.serial, e.record.clone()));
                    }
                    last = Some(at);
                }
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

/// What a read is told of a record. A transaction is told up to which number an absent key is known absent.
fn read_of(record: &Record, operation: &Operation) -> Answer {
    let is_exact = matches!(operation, Operation::Inspect { .. }) && record.value.is_none();
    let version = if is_exact { record.version.max(record.ops_floor()) } else { record.version };
    Answer::Value { version, value: record.value.clone() }
}

fn reign_deadline(r: &Reign) -> Option<Time> {
    if let Phase::Seeking { resend_at, .. } = &r.phase {
        return Some(*resend_at);
    }
    let of_key = |k: &KeyState| {
        k.sync
            .as_ref()
            .map(|s| s.resend_at)
            .into_iter()
            .chain(k.flights.back().map(|f| f.resend_at))
            .chain(k.blocked.front().map(|b| b.until))
            .min()
    };
    r.keys.values().filter_map(of_key).min()
}
