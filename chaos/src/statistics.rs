//! Durations of many rounds, as a distribution.

use core::fmt;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub(crate) struct Distribution(Vec<Duration>);

impl Distribution {
    pub(crate) fn add(&mut self, d: Duration) {
        self.0.push(d);
    }

    fn at(sorted: &[Duration], percent: usize) -> f64 {
        let i = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(i).map_or(0.0, Duration::as_secs_f64)
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |p| Distribution::at(&sorted, p);
        let (min, max) = (at(0), at(100));
        write!(f, "n {}, min {min:.2} s", sorted.len())?;
        write!(f, ", median {:.2} s, 90 % {:.2} s, 99 % {:.2} s, max {max:.2} s", at(50), at(90), at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_values() {
        let mut d = Distribution::default();
        (1..=100).rev().for_each(|i| d.add(Duration::from_millis(i * 10)));
        assert_eq!(d.to_string(), "n 100, min 0.01 s, median 0.51 s, 90 % 0.91 s, 99 % 1.00 s, max 1.00 s");
    }
}
