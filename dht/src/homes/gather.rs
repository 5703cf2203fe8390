//! How a node comes to lead: it gathers grants for an interval; and how a reign ends.
//!
//! Keeps:
//! 1. Only an owner of a slot of the interval asks, the one of the home slot before others.
//! 2. When a reign ends, what was not sent is answered as not executed, and what was sent as unknown.
//!
//! Source: `docs/protocol.md`, section 3 (Reign, Losing a reign).

use super::asking::{Asked, Refusal, SOON};
use crate::api::Event;
use crate::counters::RoundKind;
use crate::message::{Answer, Denied, Era, Message, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::{Origin, Phase, Reign};
use core::time::Duration;
use paxos::{Configuration, Granted};
use ring::{Extent, NodeId, NodeRef, Offset, Slot, Time};
use std::sync::Arc;
use store::Ballot;

/// A home deposed by a live node leaves the reign to it for this long.
const DEPOSED_FOR: Duration = Duration::from_millis(1500);

impl DhtNode {
    /// Begins to gather a reign around `offset`, if this node is to be home there; else tells who is.
    pub(crate) fn begin_reign(&mut self, home: Slot, offset: Offset) -> Result<Offset, Option<NodeRef>> {
        let now = self.ctx.now;
        self.homes.deposed.retain(|d| d.3 > now);
        if let Some(d) = self.homes.deposed.iter().find(|d| d.0 == home && d.1.contains(offset))
            && self.ctx.is_live(d.2)
        {
            return Err(self.ctx.members.get(d.2).map(|m| m.info.node));
        }
        let anchor = self.anchor_of(home, offset)?;
        let Some(a) = self.acceptors.active(anchor, offset) else { return Err(None) };
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
        self.seek_reign(home, anchor, extent);
        Ok(extent.lo)
    }

    /// Asks for a reign over `extent`, in which there is none of that home slot here.
    pub(crate) fn seek_reign(&mut self, home: Slot, anchor: Slot, extent: Extent) {
        let Some(a) = self.acceptors.active(anchor, extent.lo) else { return };
        let configuration = a.configuration.clone();
        let ballot = self.ctx.draw_ballot();
        let rpc = self.ctx.draw_rpc();
        self.homes.serial = self.homes.serial.wrapping_add(1).max(1);
        let resend_at = self.ctx.now + self.ctx.config.vote_timeout;
        self.homes.schedule(resend_at);
        let serial = self.homes.serial;
        let reign = Reign::seeking(home, extent, ballot, configuration, anchor, serial, rpc, resend_at);
        let era = reign.era();
        self.homes.reigns.insert(reign);
        self.ask_reign(home, extent, ballot, era, rpc, SlotSet::default());
    }

    /// The slot by which this node may lead; else who is to.
    fn anchor_of(&self, home: Slot, offset: Offset) -> Result<Slot, Option<NodeRef>> {
        let r = self.ctx.space.replicas();
        for k in 0..r {
            let slot = (home + k) % r;
            if self.acceptors.active(slot, offset).is_some() {
                return Ok(slot);
            }
            if let Some(owner) = self.ctx.live_owner(slot, offset)
                && owner.id != self.ctx.me.id
            {
                return Err(Some(owner));
            }
        }
        Err(None)
    }

    pub(super) fn ask_reign(
        &mut self,
        home: Slot,
        extent: Extent,
        ballot: Ballot,
        era: Era,
        rpc: u64,
        have: SlotSet,
    ) {
        if have.is_empty() {
            self.ctx.rounds.began(RoundKind::Reign);
        }
        let voters = self.voters(extent.lo, have);
        for (to, slots) in voters.remote() {
            self.ctx.send(to, Message::Reign { rpc, home, slots, extent, ballot, era });
        }
        for slot in voters.here.iter() {
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
        let found = self
            .homes
            .reigns
            .iter_mut()
            .find(|r| matches!(r.phase, Phase::Seeking { rpc: x, .. } if x == rpc));
        let Some(r) = found else { return };
        let (at, extent) = ((r.home, r.extent.lo), r.extent);
        match answer {
            Ok((old, granted)) => {
                self.learn_place(from, slot, extent);
                self.on_reign_granted(at, slot, old, granted);
            }
            Err(denied) => {
                let is_preferred = r.anchor == r.home;
                let configuration = Some(r.configuration.clone());
                let asked = Asked { slot, extent, offset: extent.lo, configuration };
                match self.on_refused(from, asked, denied) {
                    Refusal::Outbid(b) => {
                        // The owner of the home slot was only outnumbered, by whoever led before: it asks again
                        // with a higher ballot. A stand-in gives way.
                        self.lose_reign(at, if is_preferred { None } else { Some(b) });
                        self.is_duty_due = true;
                    }
                    Refusal::Over => {}
                    Refusal::Moved => {
                        self.resend_reign_at(at, self.ctx.now + SOON * 2);
                        // The interval has to be cut otherwise: begin again when somebody asks.
                        if self.ctx.locations.around(slot, extent.lo, extent) != extent {
                            self.lose_reign(at, None);
                        }
                    }
                    Refusal::Later | Refusal::Low => self.resend_reign_at(at, self.ctx.now + SOON),
                }
            }
        }
    }

    fn on_reign_granted(
        &mut self,
        at: (Slot, Offset),
        slot: Slot,
        promised: Option<Ballot>,
        granted: Granted,
    ) {
        let quorum = self.ctx.quorum_unless(Plant::ReignFewer);
        self.ctx.meet_n(granted.high);
        self.ctx.meet_n(granted.floor.n);
        let Some(r) = self.homes.reigns.get_mut(at) else { return };
        r.floor = r.floor.max(granted.floor);
        let Phase::Seeking { grants, old, waiting, .. } = &mut r.phase else { return };
        *old = promised.filter(|p| grants.is_empty() || *old == Some(*p));
        grants.insert(slot);
        if grants.len() < quorum {
            return;
        }
        let (waiting, old) = (std::mem::take(waiting), *old);
        r.phase = Phase::Reigning;
        let anchor = r.anchor;
        let old =
            if self.ctx.is_planted(Plant::KeysCarriedAlways) { self.homes.formers.last(r) } else { old };
        let again = old.map(|old| self.homes.formers.inherit(r, old)).unwrap_or_default();
        let extent = r.extent;
        for (offset, key) in again {
            if !self.ctx.is_planted(Plant::KeysCarriedOpen)
                && let Some(a) = self.acceptors.find_mut(anchor, offset)
            {
                a.registers.set_mark(offset, &key, 0);
            }
        }
        self.ctx.announce(Event::ReignBegan { home: at.0, extent });
        for (from, a) in waiting {
            self.on_operation(from, a);
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
    pub(crate) fn learn_configuration(&mut self, extent: Extent, configuration: &Arc<Configuration>) {
        let r = self.ctx.space.replicas();
        if configuration.members.len() != usize::from(r) {
            return;
        }
        if self.ctx.is_planted(Plant::UnfinishedIsWhole) {
            self.call_whole(extent, configuration);
        }
        if self.acceptors.install(r, extent, configuration) {
            self.is_owned_changed = true;
        }
        if self.ctx.is_planted(Plant::NoFreeze) {
            self.thaw(extent, configuration);
        }
        let epoch = configuration.epoch;
        for at in self.homes.reigns.cut_out(extent, |r| r.configuration.epoch < epoch) {
            if !self.goes_on_in(at, configuration) {
                self.lose_reign(at, None);
            }
        }
        self.on_configuration_learned(extent, configuration);
    }

    /// Ends a reign: what was not sent is definite, what was sent is unknown.
    pub(crate) fn lose_reign(&mut self, at: (Slot, Offset), to: Option<Ballot>) {
        let Some(r) = self.homes.reigns.remove(at) else { return };
        self.homes.formers.remember(&r);
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
                let is_denied = self.ctx.is_planted(Plant::SentIsNotHome);
                for w in f.waiters {
                    say(self, w.origin, if is_denied { not_home.clone() } else { Answer::Unknown });
                }
            }
            for (from, a) in k.queue.into_iter().chain(k.blocked.into_iter().map(|b| (b.from, b.attempt))) {
                say(self, Origin::of(from, &a), not_home.clone());
            }
        }
        for reader in r.readers {
            say(self, reader.origin, reader.otherwise);
        }
        self.drop_rounds_of_nobody();
    }
}
