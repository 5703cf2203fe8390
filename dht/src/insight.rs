//! What a node tells of its inside: how much of what it holds and does, and what each replica has of a key.
//!
//! Keeps:
//! 1. An inspection of a key is answered within its time, with what was heard so far.
//! 2. What an inspection says of a key is each replica's own view: for a look at the copies, never for a decision.

use crate::api::{Insight, InspectedReplica, PieceCounts, ReplicaSight, Reply, RequestId};
use crate::message::{Denied, Message, Sighting, SlotSet};
use crate::node::DhtNode;
use core::time::Duration;
use ring::{NodeRef, Slot, Time};
use std::collections::BTreeMap;
use store::Key;

/// How long replicas may take to answer an inspection.
const INSPECTION_WAIT: Duration = Duration::from_millis(700);
/// Inspections under way; more are answered with what is known without asking.
const INSPECTIONS_MAX: usize = 64;

#[derive(Debug)]
struct Inspection {
    id: RequestId,
    until: Time,
    replicas: Vec<InspectedReplica>,
}

/// The inspections under way.
#[derive(Debug, Default)]
pub(crate) struct Inspections {
    open: BTreeMap<u64, Inspection>,
}

impl Inspections {
    pub(crate) fn next_scan(&self) -> Option<Time> {
        self.open.values().map(|i| i.until).min()
    }
}

impl DhtNode {
    pub(crate) fn insight(&self) -> Insight {
        let mut pieces = PieceCounts::default();
        for a in self.acceptors.iter() {
            let count = match (a.is_complete, a.is_frozen, a.is_stopped) {
                (false, _, _) => &mut pieces.incomplete,
                (true, true, _) => &mut pieces.frozen,
                (true, false, true) => &mut pieces.stopped,
                (true, false, false) => &mut pieces.active,
            };
            *count += 1;
        }
        let strength = self.strength_of_pieces();
        let homes = self.homes.load();
        Insight {
            pieces,
            intervals: strength.intervals,
            intervals_under_replicated: strength.under_replicated,
            reigns: self.homes.reigns.iter().filter(|r| r.is_reigning()).count(),
            rounds: self.ctx.rounds,
            operations_open: self.gateway.open_count,
            operations_waiting_at_homes: homes.waiting,
            records_in_flight: homes.in_flight,
            effects_waiting: self.ctx.effects.len(),
            handovers_running: self.handovers.running(),
            replacements_running: self.replacements.running(),
            view_disagreements: self.view_disagreements(),
        }
    }

    /// Owned pieces of live members that this node's locations ascribe to somebody else.
    fn view_disagreements(&self) -> usize {
        let mut count = 0;
        for m in self.ctx.members.iter().filter(|m| m.is_in_ring()) {
            for (slot, extent) in &m.info.owned {
                let is_known = self.ctx.owner(*slot, extent.lo).is_some_and(|o| o.id == m.info.node.id);
                count += usize::from(!is_known);
            }
        }
        count
    }

    pub(crate) fn begin_inspection(&mut self, id: RequestId, key: &Key) {
        let (_, offset) = self.ctx.space.locate(key.as_bytes());
        let mut replicas = Vec::new();
        let mut remote: BTreeMap<NodeRef, SlotSet> = BTreeMap::new();
        for slot in self.ctx.space.slots() {
            let owner = self.ctx.owner(slot, offset);
            let sight = match self.acceptors.active(slot, offset) {
                Some(a) => {
                    let entry = a.registers.get(offset, key);
                    entry.map_or(ReplicaSight::Nothing, |e| ReplicaSight::Record {
                        version: e.record.version,
                        is_there: e.record.value.is_some(),
                        n: e.stamp.n,
                        is_settled: e.settled,
                    })
                }
                None => ReplicaSight::Silent,
            };
            if let (ReplicaSight::Silent, Some(o)) = (sight, owner)
                && self.ctx.is_live(o.id)
                && o.id != self.ctx.me.id
            {
                remote.entry(o).or_default().insert(slot);
            }
            replicas.push(InspectedReplica { slot, owner, sight });
        }
        if remote.is_empty() || self.inspections.open.len() >= INSPECTIONS_MAX {
            self.ctx.reply(id, Reply::Inspected(replicas));
            return;
        }
        let rpc = self.ctx.draw_rpc();
        for (to, slots) in remote {
            self.ctx.send(to, Message::Read { rpc, slots, key: key.clone(), wants_record: true });
        }
        let until = self.ctx.now + INSPECTION_WAIT;
        self.inspections.open.insert(rpc, Inspection { id, until, replicas });
    }

    /// A replica's answer, if it belongs to an inspection; tells whether it did.
    pub(crate) fn on_inspected(
        &mut self,
        rpc: u64,
        slot: Slot,
        answer: &Result<Sighting, Denied>,
        from: NodeRef,
    ) -> bool {
        let Some(inspection) = self.inspections.open.get_mut(&rpc) else { return false };
        if let Some(r) = inspection.replicas.iter_mut().find(|r| r.slot == slot) {
            r.owner = Some(from);
            r.sight = match answer {
                Err(_) => ReplicaSight::Refused,
                Ok(s) => match (&s.stamp, &s.record) {
                    (Some((stamp, is_settled)), Some(record)) => ReplicaSight::Record {
                        version: record.version,
                        is_there: record.value.is_some(),
                        n: stamp.n,
                        is_settled: *is_settled,
                    },
                    _ => ReplicaSight::Nothing,
                },
            };
        }
        if inspection.replicas.iter().all(|r| r.sight != ReplicaSight::Silent) {
            self.finish_inspection(rpc);
        }
        true
    }

    fn finish_inspection(&mut self, rpc: u64) {
        if let Some(i) = self.inspections.open.remove(&rpc) {
            self.ctx.reply(i.id, Reply::Inspected(i.replicas));
        }
    }

    pub(crate) fn scan_inspections(&mut self) {
        let now = self.ctx.now;
        let due: Vec<u64> =
            self.inspections.open.iter().filter(|(_, i)| i.until <= now).map(|(rpc, _)| *rpc).collect();
        for rpc in due {
            self.finish_inspection(rpc);
        }
    }
}
