//! What happened in a run, as a number that two equal runs share, and as lines for people.

use core::fmt;
use core::hash::Hasher;
use ring::Time;
use std::hash::DefaultHasher;
use std::io::Write;

/// The transcript of a run.
#[derive(Debug)]
pub struct Transcript {
    hasher: DefaultHasher,
    events: u64,
    is_printed: bool,
}

impl Transcript {
    /// An empty transcript; printed line by line if `is_printed`.
    pub fn new(is_printed: bool) -> Transcript {
        Transcript { hasher: DefaultHasher::new(), events: 0, is_printed }
    }

    /// Whether lines are wanted at all.
    pub fn is_printed(&self) -> bool {
        self.is_printed
    }

    /// Adds an event to the number: its time, its kind and what else tells it from others.
    pub fn note(&mut self, now: Time, kind: &str, numbers: &[u64]) {
        self.events += 1;
        self.hasher.write_u64(now.0);
        self.hasher.write(kind.as_bytes());
        for n in numbers {
            self.hasher.write_u64(*n);
        }
    }

    /// Prints a line if lines are wanted.
    pub fn line(&self, now: Time, text: fmt::Arguments<'_>) {
        if self.is_printed {
            // Whoever reads only the first lines closes the pipe; that is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{now} {text}");
        }
    }

    /// The number of all events so far.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }
}
