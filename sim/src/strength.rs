//! How strongly a ring holds its keys: per offset, which slots have a live complete acceptor, and where.
//!
//! Keeps:
//! 1. Only active acceptors count; a memory that is frozen, filled or handed over does not.

use crate::invariants::Piece;
use ring::{NodeId, Offset, Space};
use std::collections::{BTreeMap, BTreeSet};

/// The strength of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strength {
    /// The fewest slots that any offset has a live complete acceptor for.
    pub slots_min: usize,
    /// A position with two live complete owners, or a slot doubled at one node, if there is one.
    pub overlap: Option<String>,
    /// An offset of which one node holds two slots, if there is one.
    pub doubled: Option<String>,
    /// An offset with a slot that has no live complete owner, if there is one.
    pub gap: Option<String>,
    /// An offset whose live complete acceptors are not all of one configuration, if there is one.
    pub mixed: Option<String>,
}

impl Strength {
    /// Whether every offset has R live complete acceptors.
    pub fn is_full(&self) -> bool {
        self.gap.is_none() && self.overlap.is_none()
    }

    /// Whether moreover all of them are of one configuration, so that none of them is about to be replaced.
    pub fn is_settled(&self) -> bool {
        self.is_full() && self.mixed.is_none()
    }

    /// The strength of the nodes in `nodes`.
    pub fn of<'a>(space: &Space, nodes: impl Iterator<Item = (NodeId, &'a [Piece])>) -> Strength {
        let all: Vec<(NodeId, &Piece)> =
            nodes.flat_map(|(n, ps)| ps.iter().filter(|p| p.is_active).map(move |p| (n, p))).collect();
        let whole = space.whole();
        let mut cuts: BTreeSet<Offset> = BTreeSet::from([whole.lo]);
        for (_, p) in &all {
            cuts.insert(p.extent.lo);
            if p.extent.hi < whole.hi {
                cuts.insert(p.extent.hi + 1);
            }
        }
        let mut out = Strength {
            slots_min: usize::from(space.replicas()),
            overlap: None,
            doubled: None,
            gap: None,
            mixed: None,
        };
        for cut in cuts {
            let mut owners: BTreeMap<u8, NodeId> = BTreeMap::new();
            let mut holders: BTreeSet<NodeId> = BTreeSet::new();
            let mut tags: BTreeSet<u64> = BTreeSet::new();
            for (n, p) in all.iter().filter(|(_, p)| p.extent.contains(cut)) {
                tags.insert(p.configuration.tag);
                if let Some(other) = owners.insert(p.slot, *n) {
                    out.overlap = Some(format!("slot {} of offset {cut:#x} is at {other} and {n}", p.slot));
                } else if !holders.insert(*n) {
                    out.doubled = Some(format!("{n} holds two slots of offset {cut:#x}"));
                }
            }
            if let Some(slot) = space.slots().find(|s| !owners.contains_key(s)) {
                out.gap = Some(format!("slot {slot} of offset {cut:#x} has no live complete owner"));
            }
            if tags.len() > 1 {
                out.mixed = Some(format!("offset {cut:#x} is under {} configurations", tags.len()));
            }
            out.slots_min = out.slots_min.min(owners.len());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos::configuration::{Configuration, Member};
    use ring::{Extent, ReplicaId, RingId};
    use std::sync::Arc;

    fn piece(slot: u8, extent: Extent) -> Piece {
        let member = |n| Member { replica: ReplicaId { node: NodeId(n), counter: 1 }, since: 1 };
        let configuration = Arc::new(Configuration::new(RingId(1), 1, vec![member(1), member(2), member(3)]));
        let replica = ReplicaId { node: NodeId(1), counter: 1 };
        Piece { slot, extent, replica, configuration, is_active: true, homes: Vec::new() }
    }

    #[test]
    fn gaps_overlaps_and_doubled_slots_are_told_apart() {
        let space = Space::new(3).expect("valid");
        let whole = space.whole();
        let mid = whole.hi / 2;
        let (a, b) = (Extent::new(0, mid), Extent::new(mid + 1, whole.hi));
        let one = [piece(0, whole), piece(1, a)];
        let two = [piece(1, b), piece(2, whole)];
        let of =
            |x: &[Piece], y: &[Piece]| Strength::of(&space, [(NodeId(1), x), (NodeId(2), y)].into_iter());
        let s = of(&one, &two);
        assert!(s.is_full() && s.doubled.is_some());
        let s = of(&one, &two[1..]);
        assert!(!s.is_full() && s.slots_min == 2 && s.gap.is_some());
        let s = of(&one, &[piece(1, whole), piece(2, whole)]);
        assert!(s.overlap.is_some());
        assert_eq!(of(&[], &[]).slots_min, 0);
    }
}
