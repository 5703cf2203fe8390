//! What a gateway has heard of home intervals: who leads there under which ballot, and the highest chosen n.
//!
//! Keeps:
//! 1. A hint costs at most a hop when it is outdated.
//! 2. A chosen n stays known for every offset of which it was said.
//!
//! Source: `docs/protocol.md`, section 4 (`known`).

use crate::message::Answer;
use ring::{Extent, NodeId, NodeRef, Offset, Slot};
use std::collections::BTreeMap;
use store::Ballot;

/// What is known of a home interval, which begins where it stands in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HomeHint {
    hi: Offset,
    /// Who leads, if anybody is believed to.
    pub(crate) node: Option<NodeRef>,
    /// Under which ballot.
    pub(crate) ballot: Option<Ballot>,
    /// The highest chosen n heard of; 0 if none.
    pub(crate) known: u64,
}

/// The hints of one gateway, by home slot and first offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    maps: Vec<BTreeMap<Offset, HomeHint>>,
}

impl Hints {
    /// What is known of the home of an offset.
    pub(crate) fn get(&self, home: Slot, offset: Offset) -> Option<HomeHint> {
        let (_, h) = self.maps.get(usize::from(home))?.range(..=offset).next_back()?;
        (offset <= h.hi).then_some(*h)
    }

    /// Notes what an answer says of a home interval.
    pub(crate) fn learn(
        &mut self,
        home: Slot,
        extent: Extent,
        node: Option<NodeRef>,
        ballot: Option<Ballot>,
        known: u64,
    ) {
        while self.maps.len() <= usize::from(home) {
            self.maps.push(BTreeMap::new());
        }
        let Some(map) = self.maps.get_mut(usize::from(home)) else { return };
        if let Some(h) = map.get_mut(&extent.lo)
            && h.hi == extent.hi
        {
            (h.node, h.ballot, h.known) = (node, ballot, h.known.max(known));
            return;
        }
        let start = map.range(..=extent.lo).next_back().map_or(extent.lo, |(lo, _)| *lo);
        let hit: Vec<(Offset, HomeHint)> = map
            .range(start..=extent.hi)
            .filter(|(lo, h)| Extent::new(**lo, h.hi).intersect(&extent).is_some())
            .map(|(lo, h)| (*lo, *h))
            .collect();
        let known = known.max(known_everywhere(&hit, extent));
        for (lo, h) in hit {
            map.remove(&lo);
            for rest in Extent::new(lo, h.hi).minus(&extent) {
                map.insert(rest.lo, HomeHint { hi: rest.hi, ..h });
            }
        }
        map.insert(extent.lo, HomeHint { hi: extent.hi, node, ballot, known });
    }

    /// Notes what the answer to an attempt says of the home interval of its key.
    pub(crate) fn learn_of(
        &mut self,
        home: Slot,
        extent: Extent,
        from: NodeRef,
        ballot: Option<Ballot>,
        known: u64,
        answer: &Answer,
    ) {
        let (node, ballot, known) = match answer {
            Answer::NotHome { hint } => (hint.map(|h| h.0), hint.and_then(|h| h.1), known),
            Answer::Behind { floor } => (Some(from), ballot, known.max(*floor)),
            Answer::Done { .. }
            | Answer::Nothing { .. }
            | Answer::Refused { .. }
            | Answer::Value { .. }
            | Answer::Busy
            | Answer::Full
            | Answer::Locked
            | Answer::Unknown
            | Answer::Forgotten => (ballot.map(|_| from), ballot, known),
        };
        self.learn(home, extent, node, ballot, known);
    }

    /// Forgets that a node is home of anything.
    pub(crate) fn forget_node(&mut self, id: NodeId) {
        for h in self.maps.iter_mut().flat_map(|m| m.values_mut()) {
            if h.node.is_some_and(|n| n.id == id) {
                (h.node, h.ballot) = (None, None);
            }
        }
    }
}

/// What hints, in their order, know of every offset of `extent`; 0 if there are offsets without one.
fn known_everywhere(hints: &[(Offset, HomeHint)], extent: Extent) -> u64 {
    let mut known = u64::MAX;
    let mut next = Some(extent.lo);
    for (lo, h) in hints {
        if next.is_none_or(|next| *lo > next) {
            break;
        }
        known = known.min(h.known);
        next = h.hi.checked_add(1);
    }
    if next.is_none_or(|next| next > extent.hi) { known } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(hints: &Hints, offset: Offset) -> u64 {
        hints.get(0, offset).map_or(0, |h| h.known)
    }

    #[test]
    fn what_was_said_of_the_parts_is_known_of_the_whole() {
        let mut hints = Hints::default();
        hints.learn(0, Extent::new(0, 99), None, None, 50);
        // A node that is not home answers for the one offset it was asked of.
        hints.learn(0, Extent::point(30), None, None, 0);
        hints.learn(0, Extent::new(60, 99), None, None, 70);
        assert_eq!([0, 30, 31, 60].map(|o| known(&hints, o)), [50, 50, 50, 70]);
        // A reign that is new has chosen nothing.
        hints.learn(0, Extent::new(0, 99), None, None, 0);
        assert_eq!([0, 30, 60].map(|o| known(&hints, o)), [50; 3]);
    }

    #[test]
    fn what_was_said_of_a_part_is_not_known_of_the_whole() {
        let mut hints = Hints::default();
        hints.learn(0, Extent::new(0, 49), None, None, 50);
        hints.learn(0, Extent::new(60, 99), None, None, 70);
        hints.learn(0, Extent::new(0, 99), None, None, 0);
        assert_eq!([0, 55, 99].map(|o| known(&hints, o)), [0; 3]);
    }
}
