//! What this node's acceptors answer to other nodes.
//!
//! Source: `docs/protocol.md`, sections 2, 3 and 7.

use crate::message::{ConfirmItem, Denied, Era, Message, Sighting, SlotSet};
use crate::node::DhtNode;
use crate::plant::Plant;
use ring::{Extent, NodeRef, Slot};
use store::{Ballot, Key, Record, Stamp};

impl DhtNode {
    /// Fills in who is to be asked instead, and for which part of what was asked.
    pub(crate) fn with_hint<T>(
        &self,
        answer: Result<T, Denied>,
        slot: Slot,
        asked: Extent,
        asker: NodeRef,
    ) -> Result<T, Denied> {
        answer.map_err(|d| {
            if d != Denied::ELSEWHERE {
                return d;
            }
            let Some(missing) = self.acceptors.first_missing(slot, asked) else { return d };
            let extent = self.ctx.locations.around(slot, missing.lo, missing);
            let hint = self.ctx.owner(slot, extent.lo).filter(|o| o.id != self.ctx.me.id && o.id != asker.id);
            Denied::NotOwner { hint, extent: Some(extent) }
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
            let answer = self.acceptors.reign(slot, extent, home, ballot, era);
            let answer = self.with_hint(answer, slot, extent, from);
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
            let answer = self.with_hint(answer, slot, Extent::point(offset), from);
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
            let answer = self.with_hint(answer, slot, Extent::point(offset), from);
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
                answers.push((i, slot, self.with_hint(answer, slot, item.extent, from)));
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
                None => Err(Denied::ELSEWHERE),
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
            let answer = self.with_hint(answer, slot, Extent::point(offset), from);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use paxos::{Acceptor, Configuration, Member};
    use ring::{NodeId, ReplicaId, RingId, Time};
    use std::sync::Arc;

    fn node(i: u8) -> NodeRef {
        NodeRef { id: NodeId(i.into()), addr: ([10, 0, 0, i], 1).into() }
    }

    /// Node 1 has gone from 100 on, which node 2 has, and from 200 on node 3.
    fn former_owner() -> DhtNode {
        let mut n = DhtNode::new(Config::default(), node(1), None, 1, Time(0));
        let member = |i| Member { replica: ReplicaId { node: node(i).id, counter: 1 }, since: 1 };
        let configuration = Arc::new(Configuration::new(RingId(1), 1, [1, 5, 6].map(member).to_vec()));
        n.acceptors.insert(Acceptor::new(0, Extent::new(0, 99), configuration, true));
        for (lo, owner) in [(0, 1), (100, 2), (200, 3)] {
            n.ctx.locations.set(0, Extent::new(lo, lo + 99), node(owner));
        }
        n
    }

    #[test]
    fn whoever_asks_a_former_owner_knows_then_where_the_rest_is() {
        let asked = former_owner();
        let mut asker = DhtNode::new(Config::default(), node(9), None, 1, Time(0));
        let whole = Extent::new(0, 299);
        asker.ctx.locations.set(0, whole, node(1));
        for question in 0..3 {
            let answer = asked.acceptors.covering(0, whole, None).map(|_| ());
            let answer = asked.with_hint(answer, 0, Extent::new(100 * question, 299), node(9));
            let Err(Denied::NotOwner { hint, extent }) = answer else { panic!("it has a part only") };
            asker.ctx.learn_not_owner(0, 100 * question, extent, node(1).id, hint);
        }
        let owners: Vec<(u128, Option<NodeRef>)> =
            asker.ctx.locations.pieces(0, whole).into_iter().map(|(e, n)| (e.lo, n)).collect();
        assert_eq!(owners, [(0, Some(node(1))), (100, Some(node(2))), (200, Some(node(3)))]);
    }

    #[test]
    fn a_hint_changes_what_is_known_of_the_node_that_gave_it_only() {
        let mut asker = DhtNode::new(Config::default(), node(9), None, 1, Time(0));
        let whole = Extent::new(0, 299);
        asker.ctx.locations.set(0, whole, node(1));
        asker.ctx.locations.set(0, Extent::new(150, 159), node(4));
        asker.ctx.learn_not_owner(0, 100, Some(Extent::new(100, 199)), node(1).id, Some(node(2)));
        let owners: Vec<(u128, Option<NodeRef>)> =
            asker.ctx.locations.pieces(0, whole).into_iter().map(|(e, n)| (e.lo, n)).collect();
        let known = [(0, 1), (100, 2), (150, 4), (160, 2), (200, 1)].map(|(lo, i)| (lo, Some(node(i))));
        assert_eq!(owners, known);
        asker.ctx.learn_not_owner(0, 0, None, node(1).id, Some(node(2)));
        assert_eq!(asker.ctx.owner(0, 0), Some(node(2)));
        assert_eq!(asker.ctx.owner(0, 1), Some(node(1)), "of an earlier version: of one offset only");
    }
}
