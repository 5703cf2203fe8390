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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Effect, Request};
    use crate::config::Config;
    use crate::counters::RoundKind;
    use ring::NodeId;
    use store::{Change, Condition, Value};

    struct Alone {
        node: DhtNode,
        now: Time,
        last: u64,
    }

    impl Alone {
        fn ask(&mut self, request: Request) -> Reply {
            self.last += 1;
            let id = RequestId(self.last);
            self.node.handle_request(self.now, id, request);
            for _ in 0..1000 {
                while let Some(effect) = self.node.poll_effect() {
                    if let Effect::Reply { id: of, reply } = effect
                        && of == id
                    {
                        return reply;
                    }
                }
                self.now = self.node.next_timeout().unwrap_or(self.now).max(self.now);
                self.node.handle_timeout(self.now);
            }
            panic!("no reply to request {}", self.last);
        }

        fn insight(&mut self) -> Insight {
            let Reply::Insight(i) = self.ask(Request::Insight) else { panic!("no insight") };
            *i
        }

        fn sights(&mut self, key: &Key) -> Vec<ReplicaSight> {
            let Reply::Inspected(all) = self.ask(Request::Inspect { key: key.clone() }) else {
                panic!("not inspected")
            };
            all.iter().map(|r| r.sight).collect()
        }
    }

    #[test]
    fn an_inspection_tells_versions_and_the_insight_counts_what_led_to_them() {
        let me = NodeRef { id: NodeId(7), addr: ([127, 0, 0, 1], 1).into() };
        let node = DhtNode::new(Config::default(), me, None, 1, Time(0));
        let mut alone = Alone { node, now: Time(0), last: 0 };
        alone.ask(Request::Start { seeds: Vec::new(), creates_at_once: true, replication_factor: None });
        let key = Key::new(b"k");
        assert_eq!(alone.sights(&key), vec![ReplicaSight::Nothing; 3]);

        let put = Change::Put { value: Value::int(1), condition: Condition::Always };
        let Reply::Changed { version, .. } = alone.ask(Request::Change { key: key.clone(), change: put })
        else {
            panic!("not written");
        };
        let seen = alone.sights(&key);
        let is_that = |s: &ReplicaSight| matches!(s, ReplicaSight::Record { version: v, is_there: true, .. } if *v == version);
        assert!(seen.len() == 3 && seen.iter().all(is_that), "{seen:?}");

        let i = alone.insight();
        let rounds = |kind| i.rounds.iter().find(|(k, _)| *k == kind).map_or(0, |(_, n)| n);
        assert!(rounds(RoundKind::Reign) >= 1 && rounds(RoundKind::Accept) == 1, "{i:?}");
        assert_eq!((i.pieces.active, i.reigns >= 1, i.intervals_under_replicated), (3, true, 0));
        assert_eq!((i.operations_open, i.view_disagreements, i.handovers_running), (0, 0, 0));
    }
}
