//! What is left of a run when it is at rest.

use super::Cluster;
use crate::machine::Machine;
use paxos::Acceptor;
use std::collections::BTreeMap;
use store::{Entry, Key};

impl<M: Machine> Cluster<M> {
    /// What is left at rest.
    pub fn residue(&self) -> Residue {
        let mut out = Residue::default();
        for p in self.processes.values() {
            let mut pieces: Vec<&Acceptor> = p.machine.acceptors().filter(|a| !a.is_frozen).collect();
            pieces.sort_by_key(|a| (a.slot, a.extent.lo));
            out.pieces_max = out.pieces_max.max(p.machine.acceptors().count());
            for (a, b) in pieces.iter().zip(pieces.iter().skip(1)) {
                if a.slot == b.slot && a.extent.is_followed_by(&b.extent) {
                    *out.apart.entry(what_differs(a, b)).or_default() += 1;
                }
            }
            let gone = |a: &&Acceptor| a.registers.iter().filter(|e| e.2.record.value.is_none()).count();
            out.tombstones += pieces.iter().map(gone).sum::<usize>();
        }
        out
    }

    /// What transactions left behind: a lock, a ledger, or a job of some node.
    pub fn unfinished(&self) -> Option<String> {
        if let Some(p) = self.processes.values().find(|p| !p.machine.has_no_transactions()) {
            return Some(format!("transactions of {} are not over", p.me));
        }
        let acceptors =
            || self.processes.values().flat_map(|p| p.machine.acceptors()).filter(|a| a.is_active());
        let mut newest: BTreeMap<&Key, &Entry> = BTreeMap::new();
        for a in acceptors() {
            for (offset, key) in a.registers.unfinished(a.extent) {
                // A replica that missed the end shows the lock until its key is written again.
                let all = acceptors().filter_map(|b| b.registers.get(*offset, key));
                if let Some(e) = all.max_by_key(|e| e.stamp) {
                    newest.insert(key, e);
                }
            }
        }
        let is_left = |e: &(&&Key, &&Entry)| e.1.record.lock().is_some() || e.0.is_reserved();
        newest.iter().find(is_left).map(|(k, e)| format!("{k:?} is locked or a ledger: {:?}", e.record))
    }
}

/// What is left of a run when it is at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// The most pieces at one node.
    pub pieces_max: usize,
    /// Registers without a value, at all nodes.
    pub tombstones: usize,
    /// Neighbouring pieces of one slot at one node, by what keeps them from being one.
    pub apart: BTreeMap<&'static str, u64>,
}

/// The first thing in which two neighbours differ, from what is hardest to make equal to what is easiest.
fn what_differs(a: &Acceptor, b: &Acceptor) -> &'static str {
    if !a.is_complete || !b.is_complete {
        "not complete"
    } else if a.replica != b.replica {
        "replica"
    } else if a
        .configuration
        .members
        .iter()
        .zip(&b.configuration.members)
        .any(|(x, y)| x.replica != y.replica)
    {
        "another slot's replica"
    } else if a.configuration != b.configuration {
        "epoch"
    } else if a.donated != b.donated || a.refused != b.refused {
        "donated or refused"
    } else if a.change_accepted != b.change_accepted {
        "accepted change"
    } else if a.change_promised != b.change_promised {
        "change promised"
    } else if a.homes.iter().zip(&b.homes).any(|(x, y)| x.promised != y.promised) {
        "promise"
    } else {
        "nothing"
    }
}
