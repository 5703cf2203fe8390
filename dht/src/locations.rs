//! Who owns what, as far as is known: hints from the member table, corrected by every answer.
//!
//! Keeps:
//! 1. Pieces of one slot do not overlap.
//! 2. A wrong entry costs a hop: the owner's answer is what counts.
//!
//! Source: `docs/protocol.md`, section 9 (location cache).

use ring::{Extent, NodeId, NodeRef, Offset, Slot, Space};
use std::collections::BTreeMap;

/// The location cache.
#[derive(Clone, Debug, Default)]
pub struct Locations {
    slots: Vec<BTreeMap<Offset, (Offset, NodeRef)>>,
}

impl Locations {
    /// Nothing is known.
    pub fn new(space: &Space) -> Locations {
        Locations { slots: space.slots().map(|_| BTreeMap::new()).collect() }
    }

    /// The owner of an offset in a slot.
    pub fn owner(&self, slot: Slot, offset: Offset) -> Option<NodeRef> {
        let (_, (hi, node)) = self.slots.get(usize::from(slot))?.range(..=offset).next_back()?;
        (offset <= *hi).then_some(*node)
    }

    /// The pieces of `extent` in a slot, gaps included.
    pub fn pieces(&self, slot: Slot, extent: Extent) -> Vec<(Extent, Option<NodeRef>)> {
        let Some(map) = self.slots.get(usize::from(slot)) else { return Vec::new() };
        let start = map.range(..=extent.lo).next_back().map_or(extent.lo, |(lo, _)| *lo);
        let mut out = Vec::new();
        let mut next = Some(extent.lo);
        for (lo, (hi, node)) in map.range(start..=extent.hi) {
            let Some(part) = Extent::new(*lo, *hi).intersect(&extent) else { continue };
            if let Some(at) = next.filter(|at| *at < part.lo) {
                out.push((Extent::new(at, part.lo - 1), None));
            }
            out.push((part, Some(*node)));
            next = part.hi.checked_add(1);
        }
        if let Some(at) = next.filter(|at| *at <= extent.hi) {
            out.push((Extent::new(at, extent.hi), None));
        }
        out
    }

    /// The largest part of `within` around `offset` that has one owner (or none) in the slot.
    pub fn around(&self, slot: Slot, offset: Offset, within: Extent) -> Extent {
        self.pieces(slot, within).into_iter().find(|(e, _)| e.contains(offset)).map_or(within, |(e, _)| e)
    }

    /// Notes that `node` owns `extent` in `slot`.
    pub fn set(&mut self, slot: Slot, extent: Extent, node: NodeRef) {
        self.clear(slot, extent);
        let Some(map) = self.slots.get_mut(usize::from(slot)) else { return };
        let (mut lo, mut hi) = (extent.lo, extent.hi);
        if let Some((l, (h, n))) = map.range(..lo).next_back().map(|(l, v)| (*l, *v))
            && h.checked_add(1) == Some(lo)
            && n == node
        {
            lo = l;
        }
        if let Some(after) = hi.checked_add(1)
            && let Some((h, n)) = map.get(&after).copied()
            && n == node
        {
            map.remove(&after);
            hi = h;
        }
        map.insert(lo, (hi, node));
    }

    /// Forgets who owns `extent`.
    pub fn clear(&mut self, slot: Slot, extent: Extent) {
        let Some(map) = self.slots.get_mut(usize::from(slot)) else { return };
        let start = map.range(..=extent.lo).next_back().map_or(extent.lo, |(lo, _)| *lo);
        let hit: Vec<(Offset, (Offset, NodeRef))> = map
            .range(start..=extent.hi)
            .filter(|(lo, (hi, _))| Extent::new(**lo, *hi).intersect(&extent).is_some())
            .map(|(lo, v)| (*lo, *v))
            .collect();
        for (lo, (hi, node)) in hit {
            map.remove(&lo);
            for rest in Extent::new(lo, hi).minus(&extent) {
                map.insert(rest.lo, (rest.hi, node));
            }
        }
    }

    /// Replaces all that is known of one node.
    pub fn set_node(&mut self, node: NodeRef, owned: &[(Slot, Extent)]) {
        for map in &mut self.slots {
            map.retain(|_, (_, n)| n.id != node.id);
        }
        for (slot, extent) in owned {
            self.set(*slot, *extent, node);
        }
    }

    /// Sets what a node owns, which it knows itself: what it does not own stays known as others'.
    pub fn set_owned_by(&mut self, node: NodeRef, owned: &[(Slot, Extent)]) {
        self.set_node(node, owned);
    }

    /// Whether a node is known to own anything.
    pub fn is_owner_of_anything(&self, node: NodeId) -> bool {
        self.slots.iter().any(|m| m.values().any(|(_, n)| n.id == node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(i: u64) -> NodeRef {
        NodeRef { id: NodeId(i), addr: ([10, 0, 0, 1], 1).into() }
    }

    #[test]
    fn pieces_show_owners_and_gaps() {
        let s = Space::new(3).expect("valid");
        let mut l = Locations::new(&s);
        l.set(0, Extent::new(10, 19), node(1));
        l.set(0, Extent::new(20, 29), node(2));
        l.set(0, Extent::new(15, 24), node(3));
        let got: Vec<(u128, u128, Option<u64>)> = l
            .pieces(0, Extent::new(5, 35))
            .into_iter()
            .map(|(e, n)| (e.lo, e.hi, n.map(|n| n.id.0)))
            .collect();
        assert_eq!(
            got,
            [(5, 9, None), (10, 14, Some(1)), (15, 24, Some(3)), (25, 29, Some(2)), (30, 35, None)]
        );
        assert_eq!(l.owner(0, 24).map(|n| n.id.0), Some(3));
        assert_eq!(l.owner(0, 30), None);
        l.set_node(node(3), &[]);
        assert_eq!(l.owner(0, 20), None);
    }

    #[test]
    fn neighbouring_pieces_of_one_node_become_one() {
        let s = Space::new(3).expect("valid");
        let mut l = Locations::new(&s);
        l.set(0, Extent::new(0, 9), node(1));
        l.set(0, Extent::new(20, 29), node(1));
        l.set(0, Extent::new(10, 19), node(1));
        assert_eq!(l.pieces(0, Extent::new(0, 29)).len(), 1);
    }
}
