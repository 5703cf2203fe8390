//! What this node's acceptors answer to other nodes.
//!
//! Source: `docs/protocol.md`, sections 2, 3 and 7.

use crate::message::{ConfirmItem, Denied, Era, Message, Sighting, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use ring::{Extent, NodeRef, Slot};
use store::{Ballot, Key, Record, Stamp};

impl DhtNode {
    /// Fills in who is to be asked instead.
    fn with_hint<T>(
        &self,
        answer: Result<T, Denied>,
        slot: Slot,
        offset: u128,
        asker: NodeRef,
    ) -> Result<T, Denied> {
        answer.map_err(|d| match d {
            Denied::NotOwner { hint: None } => {
                let hint =
                    self.ctx.owner(slot, offset).filter(|o| o.id != self.ctx.me.id && o.id != asker.id);
                Denied::NotOwner { hint }
            }
            other @ (Denied::NotOwner { .. }
            | Denied::NotReady
            | Denied::StaleEpoch { .. }
            | Denied::NewerEpoch
            | Denied::Promised(_)
            | Denied::Low
            | Denied::StillHeard) => other,
        })
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_reign(
        &mut self,
        from: NodeRef,
        rpc: u64,
        home: Slot,
        slots: SlotSet,
        extent: Extent,
        ballot: Ballot,
        era: Era,
    ) {
        self.ctx.meet_ballot(ballot);
        for slot in slots.iter() {
            let mut answer = self.acceptors.reign(slot, extent, home, ballot, era);
            if matches!(answer, Err(Denied::NotOwner { hint: None }))
                && let Some(owner) = self.part_owner(slot, extent)
            {
                answer = Err(Denied::NotOwner { hint: Some(owner) });
            }
            let answer = self.with_hint(answer, slot, extent.lo, from);
            self.ctx.send(from, Message::ReignReply { rpc, slot, answer });
        }
        // A reign of ours over the same keys has ended with the promise.
        for at in self.homes.reigns.cut_out(extent, |r| r.home == home && r.ballot < ballot) {
            let is_ours = ballot.node == self.ctx.me.id;
            let held = self.homes.reigns.get(at).is_some_and(|r| {
                self.acceptors
                    .find(r.anchor, r.extent.lo)
                    .is_some_and(|a| a.homes.get(usize::from(home)).is_some_and(|h| h.promised >= ballot))
            });
            if held && !is_ours {
                self.lose_reign(at, Some(ballot));
            }
        }
    }

    /// The owner of the first part of `extent` that is not here.
    fn part_owner(&self, slot: Slot, extent: Extent) -> Option<NodeRef> {
        let missing = self.ctx.locations.pieces(slot, extent);
        missing.into_iter().filter_map(|(_, n)| n).find(|n| n.id != self.ctx.me.id)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_sync(
        &mut self,
        from: NodeRef,
        rpc: u64,
        home: Slot,
        slots: SlotSet,
        key: Key,
        ballot: Ballot,
        era: Era,
        have: Option<Stamp>,
    ) {
        let (_, offset) = self.ctx.space.locate(key.as_bytes());
        let is_unpromised = self.ctx.is_planted(Plant::SyncUnpromised);
        for slot in slots.iter() {
            let answer = self.acceptors.vote(slot, offset, era, |a| {
                let before = a.homes;
                let (e, floor) = a.sync(home, ballot, offset, &key)?;
                let stamp = e.map(|e| (e.stamp, e.settled));
                let record = e.filter(|e| have.is_none_or(|h| e.stamp > h)).map(|e| e.record.clone());
                if is_unpromised {
                    a.homes = before;
                }
                Ok(Sighting { era, stamp, record, floor })
            });
            let answer = self.with_hint(answer, slot, offset, from);
            self.ctx.send(from, Message::SyncReply { rpc, slot, answer });
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn serve_accept(
        &mut self,
        from: NodeRef,
        home: Slot,
        slots: SlotSet,
        key: Key,
        stamp: Stamp,
        era: Era,
        record: Record,
    ) {
        let (_, offset) = self.ctx.space.locate(key.as_bytes());
        let mut granted = false;
        for slot in slots.iter() {
            let era = self.era_tested(slot, offset, era);
            if let Some(h) =
                self.acceptors.find_mut(slot, offset).and_then(|a| a.homes.get_mut(usize::from(home)))
                && self.ctx.is_planted(Plant::AcceptBelowPromise)
            {
                h.promised = Ballot::ZERO;
            }
            let answer =
                self.acceptors.vote(slot, offset, era, |a| a.accept(home, stamp, offset, &key, &record, 0));
            granted |= answer.is_ok();
            let answer = self.with_hint(answer, slot, offset, from);
            self.ctx.send(from, Message::AcceptReply { stamp, slot, answer });
        }
        if granted {
            self.note_dirty(offset, &key);
        }
    }

    pub(crate) fn serve_confirm(&mut self, from: NodeRef, round: u64, items: &[ConfirmItem]) {
        let mut answers = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let i = u32::try_from(i).unwrap_or(u32::MAX);
            for slot in item.slots.iter() {
                let mut answer = self.acceptors.confirm(slot, item.extent, item.home, item.ballot, item.era);
                if matches!(answer, Err(Denied::Promised(_))) && self.ctx.is_planted(Plant::ConfirmUnchecked)
                {
                    answer = Ok(());
                }
                answers.push((i, slot, self.with_hint(answer, slot, item.extent.lo, from)));
            }
        }
        self.ctx.send(from, Message::ConfirmReply { round, answers });
    }

    pub(crate) fn serve_read(
        &mut self,
        from: NodeRef,
        rpc: u64,
        slots: SlotSet,
        key: &Key,
        wants_record: bool,
    ) {
        let (home, offset) = self.ctx.space.locate(key.as_bytes());
        for slot in slots.iter() {
            let answer = match self.acceptors.find(slot, offset) {
                None => Err(Denied::NotOwner { hint: None }),
                Some(a) if !a.is_complete && self.ctx.is_planted(Plant::ReadUnfilled) => {
                    let era = Era::of(&a.configuration);
                    Ok(Sighting { era, stamp: None, record: None, floor: Stamp::ZERO })
                }
                Some(a) => a.check_present().map_err(|r| crate::acceptors::denied(r, a.extent)).map(|()| {
                    let e = a.registers.get(offset, key);
                    Sighting {
                        era: Era::of(&a.configuration),
                        stamp: e.map(|e| (e.stamp, e.settled)),
                        record: e.filter(|_| wants_record).map(|e| e.record.clone()),
                        floor: a.homes.get(usize::from(home)).map_or(Stamp::ZERO, |h| h.floor),
                    }
                }),
            };
            let answer = self.with_hint(answer, slot, offset, from);
            self.ctx.send(from, Message::ReadReply { rpc, slot, answer });
        }
    }

    pub(crate) fn serve_drop(&mut self, home: Slot, slots: SlotSet, key: &Key, stamp: Stamp, era: Era) {
        let (_, offset) = self.ctx.space.locate(key.as_bytes());
        let mut dropped = false;
        for slot in slots.iter() {
            let is_era =
                self.acceptors.find(slot, offset).is_some_and(|a| a.check(era.epoch, era.tag).is_ok());
            dropped |= is_era && self.drop_here(slot, home, stamp, offset, key);
        }
        if dropped {
            self.note_dropped(&(offset, key.clone()));
        }
    }
}
