//! Reigns that a quorum granted, and whether the members still hold to them.
//!
//! A reign of ballot b was granted by Q members. Whoever comes to stand in a member's place knows its promises, or
//! comes when too few of those who do not are left: so there are never Q members of the newest epoch that may vote
//! and promise less than b. If there were, a home that b had deposed could have its Accepts chosen. This is seen long
//! before a client sees anything.
//!
//! Source: `docs/protocol.md`, sections 3 (Reign) and 6 (why this is safe).

use crate::invariants::{Piece, Violation, broken};
use ring::{Extent, NodeId, Offset, RingId, Slot, Space};
use std::collections::BTreeMap;
use store::Ballot;

/// Reigns kept for each home slot; the oldest are forgotten first.
const KEPT_MAX: usize = 256;

/// The highest reigns that began, by ring and home slot.
#[derive(Debug, Default)]
pub struct Reigns {
    all: BTreeMap<(RingId, Slot), Vec<(Extent, Ballot)>>,
}

impl Reigns {
    /// Q members granted a reign.
    pub fn began(&mut self, ring: RingId, home: Slot, extent: Extent, ballot: Ballot) {
        let list = self.all.entry((ring, home)).or_default();
        list.retain(|(e, b)| *b > ballot || !extent.covers(e));
        if list.len() >= KEPT_MAX {
            list.remove(0);
        }
        list.push((extent, ballot));
    }

    /// Looks at the offsets of `changed`, a piece that may vote now, in the pieces of all nodes of its ring.
    pub fn hold<'a>(
        &self,
        space: &Space,
        ring: RingId,
        changed: &Piece,
        nodes: impl Iterator<Item = (NodeId, &'a [Piece])>,
    ) -> Result<(), Violation> {
        let is_near = |p: &&Piece| p.is_active && p.extent.intersect(&changed.extent).is_some();
        let near: Vec<&Piece> = nodes.flat_map(|(_, pieces)| pieces.iter().filter(is_near)).collect();
        for ((_, home), list) in self.all.range((ring, 0)..=(ring, Slot::MAX)) {
            for (extent, ballot) in list {
                let Some(both) = extent.intersect(&changed.extent) else { continue };
                // Mostly all promise as much, and it does not matter where.
                let promises_less = |p: &&&Piece| promise(p, *home).is_some_and(|b| b < *ballot);
                if near.iter().filter(promises_less).count() < space.quorum() {
                    continue;
                }
                for offset in [both.lo, both.hi] {
                    let below = promise_less(offset, *home, *ballot, &near);
                    if below.len() >= space.quorum() {
                        return broken(
                            "reigns",
                            format!(
                                "ballot {ballot:?} was granted for home {home} of offset {offset:#x}, \
                                 and slots {below:?} may vote and promise less"
                            ),
                        );
                    }
                }
            }
        }
        Ok(())
    }
}

/// The slots whose members in the newest epoch of an offset may vote and promise less than `ballot`.
fn promise_less(offset: Offset, home: Slot, ballot: Ballot, near: &[&Piece]) -> Vec<Slot> {
    let here: Vec<&Piece> = near.iter().copied().filter(|p| p.extent.contains(offset)).collect();
    let Some(newest) = here.iter().map(|p| &p.configuration).max_by_key(|c| c.epoch) else {
        return Vec::new();
    };
    let is_member =
        |p: &&&Piece| newest.members.get(usize::from(p.slot)).is_some_and(|m| m.replica == p.replica);
    let promises_less = |p: &&&Piece| promise(p, home).is_some_and(|b| b < ballot);
    here.iter().filter(is_member).filter(promises_less).map(|p| p.slot).collect()
}

fn promise(p: &Piece, home: Slot) -> Option<Ballot> {
    p.homes.get(usize::from(home)).map(|h| h.promised)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos::acceptor::Acceptor;
    use paxos::configuration::{Configuration, Member};
    use ring::ReplicaId;
    use std::sync::Arc;

    fn pieces(promised: [u64; 3]) -> Vec<Piece> {
        let member = |n| Member { replica: ReplicaId { node: NodeId(n), counter: 1 }, since: 1 };
        let c = Arc::new(Configuration::new(RingId(1), 1, (1..=3).map(member).collect()));
        let piece = |(slot, counter): (Slot, u64)| {
            let mut a = Acceptor::new(slot, Extent::new(0, 9), c.clone(), true);
            a.homes[0].promised = Ballot { counter, node: NodeId(1) };
            Piece::of(&a)
        };
        (0..3).zip(promised).map(piece).collect()
    }

    #[test]
    fn a_quorum_that_promises_less_than_a_reign_is_seen() {
        let space = Space::new(3).expect("valid");
        let mut reigns = Reigns::default();
        reigns.began(RingId(1), 0, Extent::new(3, 5), Ballot { counter: 7, node: NodeId(1) });
        let look =
            |pieces: &[Piece]| reigns.hold(&space, RingId(1), &pieces[2], [(NodeId(1), pieces)].into_iter());
        look(&pieces([7, 8, 0])).expect("two promise it");
        assert_eq!(look(&pieces([7, 6, 0])).expect_err("only one does").invariant, "reigns");
    }
}
