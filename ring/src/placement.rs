//! Where nodes stand: the end each new node asks for, and the arcs that follow from all ends.
//!
//! With at least R nodes every arc must be at most STEP long, so that the R replicas of a key are on R nodes.
//! The wished ends are kept as near as possible; where they leave an arc longer than STEP they are moved,
//! by the same computation at every node that sees the same members. A node hands over what lies outside its
//! arc and replaces what has no live owner inside it; a wrong table therefore costs work, never data.
//!
//! Keeps:
//! 1. With n >= R nodes no arc of [`arcs`] is longer than STEP, and the arcs cover the ring once.
//! 2. Ends that already satisfy 1 are returned unchanged.
//!
//! Source: `docs/protocol.md`, section 1 (placement).

use crate::ident::NodeId;
use crate::space::{Position, Space};

/// Arcs in which ends are tried for a new node.
const ARCS_RATED_MAX: usize = 32;

/// One node's arc (`from`, `to`]; empty if `is_empty`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeArc {
    /// The node that should own it.
    pub node: NodeId,
    /// The position before the first.
    pub from: Position,
    /// The last position.
    pub to: Position,
    /// Whether nothing is left for this node (two nodes wished for the same end).
    pub is_empty: bool,
}

/// The arcs that the nodes with the given wished ends should own, in ring order from the anchor.
///
/// The anchor, the node with the lowest id, keeps its end, so that shifts run away from it and never wait in
/// a circle.
pub fn arcs(space: &Space, ends: &[(NodeId, Position)]) -> Vec<NodeArc> {
    let Some(anchor) = ends.iter().min_by_key(|e| e.0).copied() else { return Vec::new() };
    let n = ends.len();
    // Distances clockwise from the anchor; the anchor itself comes last, a whole circle away.
    let mut rest: Vec<(u128, NodeId)> =
        ends.iter().filter(|e| e.0 != anchor.0).map(|e| (space.distance(anchor.1, e.1), e.0)).collect();
    rest.sort_unstable();
    if n >= usize::from(space.replicas())
        && let Some(step) = space.step()
    {
        let mut before = 0u128;
        for (i, (d, _)) in rest.iter_mut().enumerate() {
            let i = u128::try_from(i + 1).unwrap_or(u128::MAX);
            // What the nodes after this one can cover at most, counted back from the anchor's end.
            let after = u128::try_from(n).unwrap_or(u128::MAX) - i;
            let low = u128::from(space.replicas()).saturating_sub(after) * step;
            let high = i.min(u128::from(space.replicas())).saturating_mul(step);
            *d = (*d).max(low).max(before).min(high).min(before.saturating_add(step));
            before = *d;
        }
    }
    let mut out = Vec::with_capacity(n);
    let mut from = anchor.1;
    for (d, node) in &rest {
        let to = space.add(anchor.1, *d);
        out.push(NodeArc { node: *node, from, to, is_empty: from == to });
        from = to;
    }
    // Where all wished for the anchor's end, it has the whole circle; else the others may have left it nothing.
    let is_empty = from == anchor.1 && rest.last().is_some_and(|(d, _)| *d > 0);
    out.push(NodeArc { node: anchor.0, from, to: anchor.1, is_empty });
    out
}

/// The end that `new` should wish for: STEP after the beginning of the longest arc while there are fewer than R
/// nodes, else a point within an arc that leaves all arcs as equal as can be, which is the middle of the longest
/// one unless ends are shifted. `jitter` breaks ties.
///
/// What counts is the arcs that follow, not those that are: a shifted end goes back when a node comes, and the
/// middle of a shifted arc may be just where its owner wishes to be.
pub fn choose_end(space: &Space, ends: &[(NodeId, Position)], new: NodeId, jitter: u64) -> Position {
    let current = arcs(space, ends);
    let nth = |n: usize| usize::try_from(jitter).ok().and_then(|j| j.checked_rem(n)).unwrap_or(0);
    if current.len() < usize::from(space.replicas())
        && let Some(step) = space.step()
    {
        let longest = current.iter().map(|a| length(space, a)).max().unwrap_or(0);
        // Arcs that differ by rounding only count as equally long.
        let equal: Vec<&NodeArc> =
            current.iter().filter(|a| length(space, a) >= longest - (longest >> 16)).collect();
        return equal.get(nth(equal.len())).map_or(0, |a| space.add(a.from, step));
    }
    // Rating costs a look at all arcs: only points in a few of the longest are rated, of equal ones in any.
    let longest = current.iter().map(|a| length(space, a)).max().unwrap_or(0);
    let mut long: Vec<&NodeArc> = current.iter().filter(|a| !a.is_empty).collect();
    let first = nth(long.len());
    long.rotate_left(first);
    long.sort_by_key(|a| core::cmp::Reverse(length(space, a) / (longest >> 16).max(1)));
    let points = long.into_iter().take(ARCS_RATED_MAX).flat_map(|a| {
        let eighth = length(space, a) / 8;
        (1..8).map(move |k| space.add(a.from, eighth * k))
    });
    let rated: Vec<((usize, u128), Position)> = points
        .map(|p| {
            let with: Vec<(NodeId, Position)> = ends.iter().copied().chain([(new, p)]).collect();
            (rating(space, &arcs(space, &with)), p)
        })
        .collect();
    let (empty, best) = rated.iter().map(|r| r.0).min().unwrap_or((0, 0));
    let is_best = |r: &&((usize, u128), Position)| r.0.0 == empty && r.0.1 <= best + (best >> 16);
    let equal: Vec<Position> = rated.iter().filter(is_best).map(|r| r.1).collect();
    equal.get(nth(equal.len())).copied().unwrap_or(0)
}

fn length(space: &Space, arc: &NodeArc) -> u128 {
    match (arc.is_empty, space.distance(arc.from, arc.to)) {
        (true, _) => 0,
        (false, 0) => u128::MAX,
        (false, d) => d,
    }
}

/// How many have nothing, and the sum of the squares of all lengths, in a unit in which it cannot overflow.
fn rating(space: &Space, arcs: &[NodeArc]) -> (usize, u128) {
    let squares = arcs.iter().map(|a| (length(space, a) >> 72).pow(2));
    (arcs.iter().filter(|a| a.is_empty).count(), squares.fold(0, u128::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grow(space: &Space, n: u64) -> Vec<(NodeId, Position)> {
        let mut ends = vec![(NodeId(100), 12345)];
        for i in 1..n {
            let id = NodeId(100 + (i * 31) % 97 + 1000 * i);
            ends.push((id, choose_end(space, &ends, id, i * 7919)));
        }
        ends
    }

    #[test]
    fn of_nodes_that_wished_for_one_end_the_anchor_has_the_whole_circle() {
        let s = Space::new(1).expect("valid");
        let a = arcs(&s, &[(NodeId(1), 77), (NodeId(2), 77)]);
        let empty: Vec<(NodeId, bool)> = a.iter().map(|a| (a.node, a.is_empty)).collect();
        assert_eq!(empty, [(NodeId(2), true), (NodeId(1), false)]);
    }

    #[test]
    fn the_first_r_nodes_stand_step_apart() {
        for r in [3u8, 4, 5, 7] {
            let s = Space::new(r).expect("valid");
            let ends = grow(&s, u64::from(r));
            for a in arcs(&s, &ends) {
                assert_eq!(Some(s.distance(a.from, a.to)), s.step());
            }
        }
    }

    proptest! {
        #[test]
        fn whoever_comes_gets_a_share_whatever_was_lost(
            r in 0usize..4, n in 0u64..12, lost in proptest::collection::vec(0usize..20, 0..8), jitter: u64,
        ) {
            let s = Space::new([3u8, 4, 5, 7][r]).expect("valid");
            let least = usize::from(s.replicas());
            let mut ends = grow(&s, u64::from(s.replicas()) + n);
            for l in lost {
                if ends.len() > least {
                    ends.remove(l % ends.len());
                }
            }
            for i in 0..6u64 {
                let id = NodeId(jitter.rotate_left(7) ^ i);
                ends.push((id, choose_end(&s, &ends, id, jitter)));
                for a in arcs(&s, &ends) {
                    prop_assert!(!a.is_empty, "{:?} has nothing", a);
                }
            }
        }

        #[test]
        fn arcs_cover_the_ring_once_and_are_at_most_step_long(r in 0usize..4, n in 1usize..20, seed: u64) {
            let s = Space::new([3u8, 4, 5, 7][r]).expect("valid");
            let mut x = seed;
            let ends: Vec<(NodeId, Position)> = (0..n).map(|i| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let (sl, o) = s.split(u128::from(x) << 64 | u128::from(x.rotate_left(17)));
                (NodeId(x ^ u64::try_from(i).expect("small")), s.position(sl, o))
            }).collect();
            let got = arcs(&s, &ends);
            prop_assert_eq!(got.len(), n);
            let mut sum = 0u128;
            for a in got.iter().filter(|a| !a.is_empty) {
                let d = s.distance(a.from, a.to);
                if n >= usize::from(s.replicas()) { prop_assert!(d <= s.step().expect("r > 1") && d > 0); }
                sum = sum.wrapping_add(d);
            }
            let total = s.step().expect("r > 1").wrapping_mul(u128::from(s.replicas()));
            prop_assert!(n == 1 || sum == total);
        }

        #[test]
        fn ends_that_are_good_stay_where_they_are(r in 0usize..4, extra in 0u64..12) {
            let s = Space::new([3u8, 4, 5, 7][r]).expect("valid");
            let ends = grow(&s, u64::from(s.replicas()) + extra);
            for a in arcs(&s, &ends) {
                prop_assert!(ends.iter().any(|e| e.0 == a.node && e.1 == a.to));
            }
        }
    }
}
