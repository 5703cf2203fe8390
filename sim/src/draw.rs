//! Draws from one named generator, in integers only, so that every machine draws the same.
//!
//! Keeps:
//! 1. No floating point: a run must not depend on the rounding of a library.
//! 2. Every concern has its own stream, so that a change of one does not shift the draws of another.

use core::time::Duration;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// What a stream is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Sizes, times and limits of a run.
    Settings,
    /// Delays, losses, duplicates.
    Network,
    /// Which fault comes when.
    Nemesis,
    /// What clients do.
    Workload,
    /// Node ids and the seeds of nodes.
    Nodes,
    /// What transactional clients do.
    Transactions,
}

/// A stream of draws.
#[derive(Clone, Debug)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of `seed` for one concern.
    pub fn new(seed: u64, stream: Stream) -> Draw {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(match stream {
            Stream::Settings => 1,
            Stream::Network => 2,
            Stream::Nemesis => 3,
            Stream::Workload => 4,
            Stream::Nodes => 5,
            Stream::Transactions => 6,
        });
        Draw(rng)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.bits() % n }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// An index below `len`; 0 if `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap_or(u64::MAX))).unwrap_or(0)
    }

    /// One of `items`.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.index(items.len())).cloned()
    }

    /// A time around `mean` with a heavy tail: one in a hundred is up to 30 times as long.
    pub fn tailed(&mut self, mean: Duration) -> Duration {
        let mean = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX);
        let micros = match self.below(100) {
            0 => self.between(mean, mean.saturating_mul(30)),
            1..=9 => self.between(mean, mean.saturating_mul(5)),
            _ => self.between(mean / 2, mean.saturating_add(mean / 2)),
        };
        Duration::from_micros(micros.max(1))
    }

    /// A duration between two, in milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_streams_differ() {
        let (mut a, mut b) = (Draw::new(7, Stream::Network), Draw::new(7, Stream::Network));
        assert!((0..100).all(|_| a.bits() == b.bits()));
        assert_ne!(Draw::new(7, Stream::Network).bits(), Draw::new(7, Stream::Nemesis).bits());
    }
}
