//! The keys that clients use most at this node, and those at which transactions meet.
//!
//! Operations are counted by weight: all of the first few of a span, one of several after them, so that a busy node
//! pays next to nothing. Counts fade, so that what was hot an hour ago is not shown.
//!
//! Keeps:
//! 1. At most [`KEYS_MAX`] keys are held, however many are used.
//!
//! Source: Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k Elements in Data Streams"
//! (2005), the algorithm Space-Saving.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use store::Key;

/// Keys held.
const KEYS_MAX: usize = 128;
/// Keys told.
const KEYS_TOLD: usize = 20;
/// Operations of a span that are all counted.
const COUNTED_ALL: u64 = 256;
/// After those, one of so many is counted, for all of them: a prime, so that what comes in a regular order is met in
/// each of its places.
const COUNTED_ONE_OF: u32 = 17;
/// What is left of a count after a span.
const FADE: f64 = 0.9;
/// Spans that a count stands for, fading: the sum of the powers of [`FADE`].
const SPANS: f64 = 10.0;
/// Less than this is forgotten.
const COUNT_MIN: f64 = 0.05;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    operations: f64,
    conflicts: f64,
}

/// A key as it is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hot {
    pub(super) key: Key,
    /// Operations in a span.
    pub(super) operations: f64,
    /// Conflicts in all spans that count.
    pub(super) conflicts: f64,
}

/// The keys that are used much.
#[derive(Debug, Default)]
pub(crate) struct HotKeys {
    counts: Mutex<BTreeMap<Key, Count>>,
    in_span: AtomicU64,
}

impl HotKeys {
    /// A client uses a key.
    pub(crate) fn used(&self, key: &Key) {
        let n = self.in_span.fetch_add(1, Ordering::Relaxed);
        if n < COUNTED_ALL {
            self.add(key, Count { operations: 1.0, conflicts: 0.0 });
        } else if n.is_multiple_of(u64::from(COUNTED_ONE_OF)) {
            self.add(key, Count { operations: f64::from(COUNTED_ONE_OF), conflicts: 0.0 });
        }
    }

    /// Transactions met at a key.
    pub(crate) fn met(&self, key: &Key) {
        self.add(key, Count { operations: 0.0, conflicts: 1.0 });
    }

    fn add(&self, key: &Key, more: Count) {
        let mut all = self.counts.lock();
        let mut count = more;
        if let Some(c) = all.get(key) {
            count =
                Count { operations: c.operations + more.operations, conflicts: c.conflicts + more.conflicts };
        } else if all.len() >= KEYS_MAX {
            let weight = |c: &Count| c.operations + c.conflicts;
            let least = all.iter().min_by(|a, b| weight(a.1).total_cmp(&weight(b.1)));
            let Some((least, c)) = least.map(|(k, c)| (k.clone(), *c)) else { return };
            all.remove(&least);
            // Whoever comes in its place may have been here before, uncounted: it takes over the count.
            count.operations += c.operations;
        }
        all.insert(key.clone(), count);
    }

    /// A span is over: what was counted fades.
    pub(crate) fn fade(&self) {
        self.in_span.store(0, Ordering::Relaxed);
        self.counts.lock().retain(|_, c| {
            (c.operations, c.conflicts) = (c.operations * FADE, c.conflicts * FADE);
            c.operations + c.conflicts > COUNT_MIN
        });
    }

    /// The hottest, by conflicts and then by use.
    pub(super) fn top(&self) -> Vec<Hot> {
        let all = self.counts.lock();
        let hot = |(key, c): (&Key, &Count)| Hot {
            key: key.clone(),
            operations: c.operations / SPANS,
            conflicts: c.conflicts,
        };
        let mut all: Vec<Hot> = all.iter().map(hot).collect();
        all.sort_by(|a, b| {
            let weight = |h: &Hot| h.operations + h.conflicts;
            weight(b).total_cmp(&weight(a)).then_with(|| a.key.cmp(&b.key))
        });
        all.truncate(KEYS_TOLD);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_key_is_found_among_many_and_the_memory_is_bounded() {
        let hot = HotKeys::default();
        let key = |i: u32| Key::new(format!("cold {i}").as_bytes());
        for i in 0..40_000u32 {
            hot.used(&key(i));
            // One of four operations, always at the same place among them.
            if i % 3 == 0 {
                hot.used(&Key::new(b"hot"));
            }
        }
        let top = hot.top();
        assert_eq!(top.first().map(|h| h.key.clone()), Some(Key::new(b"hot")));
        assert!(top.len() == KEYS_TOLD && hot.counts.lock().len() == KEYS_MAX);
        // 13 334 of them in one span; the estimate may be off by what the least counted keys have.
        let in_span = top[0].operations * SPANS;
        assert!((9_000.0..18_000.0).contains(&in_span), "{in_span}");
    }

    #[test]
    fn what_is_not_used_any_more_is_forgotten() {
        let hot = HotKeys::default();
        hot.used(&Key::new(b"a"));
        hot.met(&Key::new(b"b"));
        assert_eq!(hot.top().len(), 2);
        (0..60).for_each(|_| hot.fade());
        assert_eq!(hot.top(), Vec::new());
    }
}
