//! The space of positions: R slots, each a copy of the same range of offsets.
//!
//! A key hashes to an offset; its R replicas lie at that offset in each of the R slots, STEP apart
//! (symmetric replication). An extent is an inclusive range of offsets, so that the whole range needs no
//! special case even where STEP is 2^128 (R = 1).
//!
//! Keeps:
//! 1. `position(slot, offset)` grows with (slot, offset) compared lexicographically.
//! 2. `locate` is a function of the key's bytes and R alone.
//!
//! Source: Ghodsi 2006, symmetric replication; `docs/protocol.md`, section 1.

use core::fmt;
use sha2::{Digest, Sha256};

/// The number of a replica's slot, `0..R`.
pub type Slot = u8;
/// The place of a key within a slot, `0..STEP`.
pub type Offset = u128;
/// A point of the ring, `0..R*STEP`.
pub type Position = u128;

/// An inclusive, non-empty range of offsets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The first offset.
    pub lo: Offset,
    /// The last offset.
    pub hi: Offset,
}

impl Extent {
    /// The extent `lo..=hi`. Panics if it is empty, which is a programmer's error.
    pub fn new(lo: Offset, hi: Offset) -> Extent {
        assert!(lo <= hi, "an extent is never empty");
        Extent { lo, hi }
    }

    /// The extent of one offset.
    pub fn point(offset: Offset) -> Extent {
        Extent { lo: offset, hi: offset }
    }

    /// Whether `offset` lies inside.
    pub fn contains(&self, offset: Offset) -> bool {
        self.lo <= offset && offset <= self.hi
    }

    /// Whether all of `other` lies inside.
    pub fn covers(&self, other: &Extent) -> bool {
        self.lo <= other.lo && other.hi <= self.hi
    }

    /// The common part.
    pub fn intersect(&self, other: &Extent) -> Option<Extent> {
        let (lo, hi) = (self.lo.max(other.lo), self.hi.min(other.hi));
        (lo <= hi).then_some(Extent { lo, hi })
    }

    /// What of `self` is not in `other`: at most one part below and one above.
    pub fn minus(&self, other: &Extent) -> impl Iterator<Item = Extent> + use<> {
        let (s, o) = (*self, *other);
        let parts = match s.intersect(&o) {
            None => [Some(s), None],
            Some(c) => [
                (s.lo < c.lo).then(|| Extent { lo: s.lo, hi: c.lo - 1 }),
                (c.hi < s.hi).then(|| Extent { lo: c.hi + 1, hi: s.hi }),
            ],
        };
        parts.into_iter().flatten()
    }

    /// Whether `other` begins right after `self` ends.
    pub fn is_followed_by(&self, other: &Extent) -> bool {
        self.hi.checked_add(1) == Some(other.lo)
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:08x}..{:08x}]", self.lo >> 96, self.hi >> 96)
    }
}

/// The space of a ring with replication factor R.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    r: u8,
    last_offset: u128,
}

impl Space {
    /// The largest replication factor.
    pub const R_MAX: u8 = 7;

    /// The space for replication factor `r`, one of 1, 3, 4, 5, 7.
    pub fn new(r: u8) -> Option<Space> {
        let last_offset = match r {
            1 => u128::MAX,
            3 | 4 | 5 | 7 => {
                let (whole, rest) = (u128::MAX / u128::from(r), u128::MAX % u128::from(r));
                // floor(2^128 / r) from 2^128 - 1, which fits.
                if rest == u128::from(r) - 1 { whole } else { whole - 1 }
            }
            _ => return None,
        };
        Some(Space { r, last_offset })
    }

    /// The replication factor R.
    pub fn replicas(&self) -> u8 {
        self.r
    }

    /// The slots, `0..R`.
    pub fn slots(&self) -> core::ops::Range<Slot> {
        0..self.r
    }

    /// The quorum Q = R/2 + 1.
    pub fn quorum(&self) -> usize {
        usize::from(self.r / 2) + 1
    }

    /// The extent of all offsets.
    pub fn whole(&self) -> Extent {
        Extent { lo: 0, hi: self.last_offset }
    }

    /// STEP, or nothing where it is 2^128 (R = 1).
    pub fn step(&self) -> Option<u128> {
        self.last_offset.checked_add(1)
    }

    /// R*STEP, or nothing where it is 2^128.
    fn total(&self) -> Option<u128> {
        self.step().and_then(|s| s.checked_mul(u128::from(self.r)))
    }

    /// The home slot and offset of a key: the first 128 bits of SHA-256 of its bytes, divided by STEP.
    pub fn locate(&self, key: &[u8]) -> (Slot, Offset) {
        let digest = Sha256::digest(key);
        let mut first = [0u8; 16];
        first.copy_from_slice(&digest[..16]);
        self.locate_hash(u128::from_be_bytes(first))
    }

    /// The home slot and offset of a key's hash.
    pub fn locate_hash(&self, hash: u128) -> (Slot, Offset) {
        match self.step() {
            None => (0, hash),
            Some(step) => {
                let slot = u8::try_from((hash / step).min(u128::from(self.r - 1))).unwrap_or(self.r - 1);
                (slot, hash % step)
            }
        }
    }

    /// The position of `offset` in `slot`.
    pub fn position(&self, slot: Slot, offset: Offset) -> Position {
        debug_assert!(slot < self.r && offset <= self.last_offset, "a position inside the space");
        self.step().map_or(offset, |s| u128::from(slot) * s + offset)
    }

    /// The slot and offset of a position; a position beyond the space counts as its last.
    pub fn split(&self, position: Position) -> (Slot, Offset) {
        match self.step() {
            None => (0, position),
            Some(step) => {
                let slot = position / step;
                if slot >= u128::from(self.r) {
                    return (self.r - 1, self.last_offset);
                }
                (u8::try_from(slot).unwrap_or(0), position % step)
            }
        }
    }

    /// `position + distance` around the ring.
    pub fn add(&self, position: Position, distance: u128) -> Position {
        match self.total() {
            None => position.wrapping_add(distance),
            Some(total) => {
                let (p, d) = (position % total, distance % total);
                if p >= total - d { p - (total - d) } else { p + d }
            }
        }
    }

    /// The distance clockwise from `from` to `to`, zero if they are equal.
    pub fn distance(&self, from: Position, to: Position) -> u128 {
        match self.total() {
            None => to.wrapping_sub(from),
            Some(total) if to >= from => (to - from) % total,
            Some(total) => total - (from - to),
        }
    }

    /// The pieces, by slot and extent, of the arc (`from`, `to`]; the whole ring if both are equal.
    pub fn pieces(&self, from: Position, to: Position) -> Vec<(Slot, Extent)> {
        let first = self.add(from, 1);
        let (fs, fo) = self.split(first);
        let (ts, to_) = self.split(to);
        let mut out = Vec::new();
        let last = self.last_offset;
        if first <= to {
            for s in fs..=ts {
                let lo = if s == fs { fo } else { 0 };
                let hi = if s == ts { to_ } else { last };
                out.push((s, Extent::new(lo, hi)));
            }
        } else {
            // The arc passes the origin.
            for s in 0..self.r {
                if s <= ts {
                    out.push((s, Extent::new(0, if s == ts { to_ } else { last })));
                }
                if s >= fs {
                    let lo = if s == fs { fo } else { 0 };
                    out.push((s, Extent::new(lo, last)));
                }
            }
        }
        out.sort_unstable();
        // Where the two ends of a whole circle meet in one slot they are one piece.
        let mut joined: Vec<(Slot, Extent)> = Vec::new();
        for (s, e) in out {
            match joined.last_mut() {
                Some((ls, le)) if *ls == s && (le.is_followed_by(&e) || le.intersect(&e).is_some()) => {
                    le.hi = le.hi.max(e.hi);
                }
                _ => joined.push((s, e)),
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RS: [u8; 5] = [1, 3, 4, 5, 7];

    #[test]
    fn step_is_the_floor_of_two_to_128_over_r() {
        assert_eq!(Space::new(4).and_then(|s| s.step()), Some(1 << 126));
        assert_eq!(Space::new(3).and_then(|s| s.step()), Some(u128::MAX / 3));
        assert_eq!(Space::new(5).and_then(|s| s.step()), Some(u128::MAX / 5));
        assert_eq!(Space::new(1).and_then(|s| s.step()), None);
        assert!(Space::new(2).is_none() && Space::new(6).is_none() && Space::new(0).is_none());
    }

    #[test]
    fn the_last_hash_belongs_to_the_last_slot() {
        for r in RS {
            let s = Space::new(r).expect("a valid factor");
            assert_eq!(s.locate_hash(u128::MAX).0, r - 1);
        }
    }

    proptest! {
        #[test]
        fn a_position_splits_into_the_slot_and_offset_it_was_made_of(r in 0usize..5, h: u128, i: u8) {
            let s = Space::new(RS[r]).expect("a valid factor");
            let (_, o) = s.locate_hash(h);
            let slot = i % s.replicas();
            prop_assert_eq!(s.split(s.position(slot, o)), (slot, o));
        }

        #[test]
        fn the_pieces_of_an_arc_hold_exactly_its_positions(r in 0usize..5, a: u128, b: u128, x: u128) {
            let s = Space::new(RS[r]).expect("a valid factor");
            let norm = |p: u128| { let (sl, o) = s.split(p); s.position(sl, o) };
            let (a, b, x) = (norm(a), norm(b), norm(x));
            let (slot, off) = s.split(x);
            let inside = a == b || (s.distance(a, x) <= s.distance(a, b) && x != a);
            let n = s.pieces(a, b).iter().filter(|(sl, e)| *sl == slot && e.contains(off)).count();
            prop_assert_eq!(n, usize::from(inside));
        }

        #[test]
        fn distance_undoes_add(r in 0usize..5, a: u128, d: u128) {
            let s = Space::new(RS[r]).expect("a valid factor");
            let (sl, o) = s.split(a);
            let a = s.position(sl, o);
            let b = s.add(a, d);
            prop_assert_eq!(s.add(a, s.distance(a, b)), b);
        }

        #[test]
        fn minus_and_intersect_cut_an_extent_into_disjoint_parts(a: u128, b: u128, c: u128, d: u128, x: u128) {
            let e = Extent::new(a.min(b), a.max(b));
            let f = Extent::new(c.min(d), c.max(d));
            let n = e.minus(&f).filter(|p| p.contains(x)).count()
                + usize::from(e.intersect(&f).is_some_and(|p| p.contains(x)));
            prop_assert_eq!(n, usize::from(e.contains(x)));
        }
    }
}
