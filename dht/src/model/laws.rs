//! What has to hold in every state of the model, and in what becomes of it once faults end.
//!
//! Source: `docs/protocol.md`, invariants.

use super::history::{self, Stand};
use super::steps::wake_gateway;
use super::*;
use paxos::Acceptor;
use ring::ReplicaId;
use stateright::Property;
use std::collections::{BTreeMap, BTreeSet};
use store::{Record, Stamp};

/// Rounds of healing after which the register has to be read.
const ROUNDS_MAX: u8 = 24;
/// Between them, more than any pause between attempts.
const ROUND: Duration = Duration::from_millis(900);

pub(super) const SERIAL: &str = "what clients saw has an order (I5)";
const ONE_RECORD: &str = "a stamp has one record (I1)";
const ONE_CONFIGURATION: &str = "an epoch has one configuration (I3)";
const ONE_NODE: &str = "a replica lives at one node (I3)";
const ONE_QUORUM: &str = "one epoch has a quorum (I3)";
const PROMISED: &str = "a reign is promised by a quorum of the newest epoch";
pub(super) const ENDLESS: &str = "messages come to an end";

pub(super) fn properties() -> Vec<Property<Scope>> {
    vec![
        Property::always(SERIAL, |_: &Scope, w: &World| w.broken != Some(SERIAL)),
        Property::always(ONE_RECORD, |_: &Scope, w: &World| w.broken != Some(ONE_RECORD)),
        Property::always(ONE_CONFIGURATION, |_: &Scope, w: &World| w.broken != Some(ONE_CONFIGURATION)),
        Property::always(ONE_NODE, |_: &Scope, w: &World| w.broken != Some(ONE_NODE)),
        Property::always(ONE_QUORUM, |_: &Scope, w: &World| w.broken != Some(ONE_QUORUM)),
        Property::always(PROMISED, |_: &Scope, w: &World| w.broken != Some(PROMISED)),
        Property::always(ENDLESS, |_: &Scope, w: &World| w.broken != Some(ENDLESS)),
        Property::always("after faults it is read (I4b)", |s: &Scope, w: &World| s.is_readable_at_last(w)),
        // The search got to where clients were served after the configuration had changed, if it can change.
        Property::sometimes(SERVED, |s: &Scope, w: &World| {
            let is_over = w.ops.iter().all(|o| matches!(o.stand, Stand::Done | Stand::Seen(_)));
            let epoch = u64::from(s.budget.replacements > 0) + 1;
            is_over && s.acceptors(w).any(|a| a.is_active() && a.configuration.epoch >= epoch)
        }),
    ]
}

/// That the search gets there at all.
pub(super) const SERVED: &str = "all operations are done, after the change of members";

/// Whether equal firsts have equal seconds.
fn is_function<A: Ord, B: PartialEq>(pairs: impl Iterator<Item = (A, B)>) -> bool {
    let mut seen: BTreeMap<A, B> = BTreeMap::new();
    for (a, b) in pairs {
        match seen.get(&a) {
            Some(other) if *other != b => return false,
            Some(_) => {}
            None => drop(seen.insert(a, b)),
        }
    }
    true
}

impl Scope {
    /// The law about memory and reigns that does not hold, if any.
    pub(super) fn broken(&self, w: &World) -> Option<&'static str> {
        let configurations =
            self.acceptors(w).flat_map(|a| [Some(&a.configuration), a.successor.as_ref()]).flatten();
        let mut live: Vec<ReplicaId> =
            self.acceptors(w).filter(|a| a.is_active()).map(|a| a.replica).collect();
        live.sort_unstable();
        let laws = [
            (ONE_RECORD, self.has_one_record_each(w)),
            (ONE_CONFIGURATION, is_function(configurations.map(|c| (c.epoch, c.tag)))),
            (ONE_NODE, live.windows(2).all(|two| two[0] != two[1])),
            (ONE_QUORUM, self.able_epochs(w) <= 1),
            (PROMISED, self.is_every_reign_promised(w)),
        ];
        laws.into_iter().find(|(_, holds)| !holds).map(|(law, _)| law)
    }

    /// All memory of the register's offset.
    fn acceptors<'w>(&self, w: &'w World) -> impl Iterator<Item = &'w Acceptor> {
        let offset = self.offset;
        w.up().flat_map(|(_, n)| n.acceptors.iter()).filter(move |a| a.extent.contains(offset))
    }

    fn has_one_record_each(&self, w: &World) -> bool {
        let held = self.acceptors(w).filter_map(|a| a.registers.get(self.offset, &self.key));
        let sent = w.queue.iter().chain(&w.late).filter_map(|f| match &f.what {
            What::Message(Message::Accept { stamp, record, .. }) => Some((*stamp, record)),
            What::Message(_) | What::Owns(_) => None,
        });
        let all: Vec<(Stamp, &Record)> = held.map(|e| (e.stamp, &e.record)).chain(sent).collect();
        is_function(all.into_iter())
    }

    /// How many epochs could decide something.
    fn able_epochs(&self, w: &World) -> usize {
        let mut voters: BTreeMap<u64, BTreeSet<Slot>> = BTreeMap::new();
        for a in self.acceptors(w).filter(|a| a.is_active()) {
            voters.entry(a.configuration.epoch).or_default().insert(a.slot);
        }
        voters.values().filter(|slots| slots.len() >= self.space.quorum()).count()
    }

    fn is_every_reign_promised(&self, w: &World) -> bool {
        let active = || self.acceptors(w).filter(|a| a.is_active());
        let Some(newest) = active().map(|a| a.configuration.epoch).max() else { return true };
        let reigns =
            w.up().filter_map(|(_, n)| n.homes.reigns.find(0, self.offset)).filter(|r| r.is_reigning());
        reigns.into_iter().all(|r| {
            let is_less = |a: &&Acceptor| a.configuration.epoch == newest && a.homes[0].promised < r.ballot;
            active().filter(is_less).count() < self.space.quorum()
        })
    }

    /// Where nothing is left to begin, faults end, and the register is read within a bounded time.
    fn is_readable_at_last(&self, w: &World) -> bool {
        let b = &w.budget;
        let is_at_rest = w.queue.is_empty() && w.ops.iter().all(|o| o.is_over() || o.stand == Stand::Running);
        if !self.heals || !is_at_rest || b.replacements + b.handovers + b.crashes + b.seeks > 0 {
            return true;
        }
        let gone = (0..self.nodes).filter(|i| w.node(*i).is_none()).fold(0, |gone, i| gone | 1 << i);
        let mut w = w.clone();
        w.late.clear();
        let up: Vec<u8> = w.up().map(|(i, _)| i).collect();
        for node in w.nodes.iter_mut().flatten() {
            node.believe(gone, self.nodes);
            node.forget_told();
        }
        let Some(gateway) = up.last().copied() else { return true };
        let reader = w.ops.len();
        w.ops.push(Op { client: usize::MAX, kind: Kind::Get, stand: Stand::Idle, after: 0 });
        for round in 0..ROUNDS_MAX {
            w.clock += 2;
            for i in &up {
                self.input(&mut w, *i, 1, |n| {
                    wake_gateway(n, ROUND);
                    n.scan_homes();
                    n.scan_handovers();
                    n.scan_replacements();
                    n.ask_about_frozen();
                    n.ask_about_configurations();
                    n.tend_handovers();
                });
            }
            let is_settled = self.deliver_all(&mut w);
            let is_tried = w.ops.get(reader).is_some_and(|o| o.stand == Stand::Running);
            if round % 4 == 3 && !is_tried {
                self.begin(&mut w, reader, gateway);
            }
            if !self.deliver_all(&mut w) || !is_settled {
                return false;
            }
            if w.ops.get(reader).is_some_and(|o| matches!(o.stand, Stand::Seen(_))) {
                return history::is_serial(&w.ops);
            }
        }
        false
    }
}
