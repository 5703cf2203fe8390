//! Reads at the home: one Confirm for every answer that waits for one, and what a round of them brings.
//!
//! Keeps:
//! 1. An answer is given when its record is chosen and a Confirm sent after it arrived was granted by a quorum.
//!
//! Source: `docs/protocol.md`, section 3 (Read at the home).

use super::Round;
use super::asking::{Asked, Refusal, SOON};
use crate::counters::RoundKind;
use crate::message::{ConfirmItem, Denied, Message, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::{Reader, Reign};
use ring::{NodeRef, Offset, Slot};
use std::collections::{BTreeMap, VecDeque};
use store::Ballot;

/// Confirm rounds under way at once.
pub(super) const ROUNDS_MAX: usize = 3;

impl DhtNode {
    /// Gives the answers whose record is chosen and whose Confirm was granted.
    pub(super) fn release_readers(&mut self, rat: (Slot, Offset)) {
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        if r.readers.is_empty() {
            return;
        }
        let (extent, ballot, known) = (r.extent, r.ballot, r.chosen_n);
        let confirmed = if self.ctx.is_planted(Plant::ConfirmNever) { u64::MAX } else { r.confirmed_round };
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
        let round = self.homes.next_round();
        let mut items = Vec::new();
        let mut trace = None;
        for r in self.homes.reigns.iter_mut() {
            if r.is_reigning() && r.readers.iter().any(|x| x.round == round) {
                r.sent_round = round;
                trace = trace.or_else(|| r.readers.iter().find_map(|x| x.origin.trace));
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
        self.ctx.rounds.began(RoundKind::Confirm);
        self.homes.last_round = round;
        let resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        self.homes.schedule(resend_at);
        self.homes.rounds.insert(round, Round { items, resend_at, sends: 1, trace });
        self.transmit_confirm(round);
    }

    pub(super) fn transmit_confirm(&mut self, round: u64) {
        let Some(r) = self.homes.rounds.get(&round) else { return };
        let mut remote: BTreeMap<NodeRef, Vec<(u32, ConfirmItem)>> = BTreeMap::new();
        let mut here = Vec::new();
        let trace = r.trace;
        for (i, (item, granted)) in r.items.iter().enumerate() {
            let i = u32::try_from(i).unwrap_or(u32::MAX);
            let voters = self.voters(item.extent.lo, *granted);
            here.extend(voters.here.iter().map(|slot| (i, slot, *item)));
            for (to, slots) in voters.remote() {
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
            self.ctx.send_in(trace, to, Message::Confirm { round, items: all });
        }
        let vote = |(i, slot, item): (u32, Slot, ConfirmItem)| {
            (i, slot, self.acceptors.confirm(slot, item.extent, item.home, item.ballot, item.era))
        };
        let answers = here.into_iter().map(vote).collect();
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
        let quorum = self.ctx.quorum_unless(Plant::ConfirmFewer);
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
                Err(denied) => self.on_confirm_refused(from, round, slot, item, denied),
            }
        }
        if self.homes.rounds.get(&round).is_some_and(|r| r.items.iter().all(|(_, g)| g.len() >= quorum)) {
            self.homes.rounds.remove(&round);
        }
    }

    fn on_confirm_refused(
        &mut self,
        from: NodeRef,
        round: u64,
        slot: Slot,
        item: ConfirmItem,
        denied: Denied,
    ) {
        let (extent, offset) = (item.extent, item.extent.lo);
        let r = self.homes.reigns.find(item.home, offset).filter(|r| r.era() == item.era);
        let configuration = r.map(|r| r.configuration.clone());
        match self.on_refused(from, Asked { slot, extent, offset, configuration }, denied) {
            // Lower than ours: an acceptor that has not promised us, which proves nothing.
            Refusal::Outbid(b) if b > item.ballot => self.lose_reigns_of(&item, Some(b)),
            Refusal::Outbid(_) | Refusal::Over => {}
            Refusal::Moved => {
                // The slot's interval has another owner in part: ask for the reign by its parts.
                if self.ctx.locations.around(slot, offset, extent) != extent {
                    self.recut(&item, slot);
                    self.close_item(round, &item);
                }
                self.resend_round(round);
            }
            Refusal::Later | Refusal::Low => self.resend_round(round),
        }
    }

    fn resend_round(&mut self, round: u64) {
        let when = self.ctx.now + SOON;
        if let Some(r) = self.homes.rounds.get_mut(&round) {
            r.resend_at = r.resend_at.min(when);
            self.homes.schedule(when);
        }
    }

    /// Gives up the rounds in which all that is open is of reigns that have ended: they would keep the next ones of
    /// other reigns waiting until nobody asks any more.
    pub(super) fn drop_rounds_of_nobody(&mut self) {
        let quorum = self.ctx.space.quorum();
        let is_idle = |r: &Round| {
            r.items.iter().all(|(item, granted)| granted.len() >= quorum || self.reigns_of(item).is_empty())
        };
        let idle: Vec<u64> =
            self.homes.rounds.iter().filter(|(_, r)| is_idle(r)).map(|(id, _)| *id).collect();
        for id in idle {
            self.homes.rounds.remove(&id);
            self.homes.has_readers = true;
        }
    }

    fn reigns_of(&self, item: &ConfirmItem) -> Vec<(Slot, Offset)> {
        let is_hit =
            |r: &&Reign| r.home == item.home && r.ballot == item.ballot && item.extent.covers(&r.extent);
        self.homes.reigns.iter().filter(is_hit).map(|r| (r.home, r.extent.lo)).collect()
    }

    fn on_confirmed(&mut self, round: u64, item: &ConfirmItem) {
        for at in self.reigns_of(item) {
            if let Some(r) = self.homes.reigns.get_mut(at) {
                r.confirmed_round = r.confirmed_round.max(round);
            }
            self.release_readers(at);
        }
    }

    pub(super) fn lose_reigns_of(&mut self, item: &ConfirmItem, to: Option<Ballot>) {
        for at in self.reigns_of(item) {
            self.lose_reign(at, to);
        }
    }

    /// Asks no more for what is confirmed by its parts: whoever waited for it waits for those.
    fn close_item(&mut self, round: u64, item: &ConfirmItem) {
        let all = self.ctx.space.slots();
        let Some(r) = self.homes.rounds.get_mut(&round) else { return };
        for (_, granted) in r.items.iter_mut().filter(|(i, _)| i == item) {
            all.clone().for_each(|slot| granted.insert(slot));
        }
    }

    /// Cuts reigns at the boundaries of the owners of a slot; each part is confirmed for itself from now on, in a moment:
    /// whatever the answers, there is a pause between a refusal and the next question.
    fn recut(&mut self, item: &ConfirmItem, slot: Slot) {
        for (part, _) in self.ctx.locations.pieces(slot, item.extent) {
            self.homes.reigns.cut_out(part, |r| r.home == item.home && r.ballot == item.ballot);
        }
        let round = self.homes.next_round();
        for r in self.homes.reigns.iter_mut().filter(|r| r.home == item.home && r.ballot == item.ballot) {
            r.readers.iter_mut().for_each(|x| x.round = round);
        }
        self.homes.schedule(self.ctx.now + SOON);
    }
}
