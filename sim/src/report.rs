//! The totals of many runs, as text.

use crate::cluster::Residue;
use crate::coverage::Coverage;
use crate::run::Outcome;
use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

/// The totals of many runs.
#[derive(Debug, Default)]
pub struct Totals {
    runs: u64,
    failed: u64,
    ops: [u64; 4],
    transactions: [u64; 3],
    undisturbed: (u64, u64),
    faults: BTreeMap<&'static str, u64>,
    messages: u64,
    events: u64,
    lived: Duration,
    lived_in_faults: Duration,
    undecided: usize,
    residue: Residue,
    coverage: Coverage,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, o: &Outcome) {
        self.runs += 1;
        self.failed += u64::from(o.violation.is_some());
        for (a, b) in self.ops.iter_mut().zip(o.ops) {
            *a += b;
        }
        for (a, b) in self.transactions.iter_mut().zip(o.transactions) {
            *a += b;
        }
        self.undisturbed.0 += o.undisturbed.0;
        self.undisturbed.1 += o.undisturbed.1;
        for (k, n) in &o.faults {
            *self.faults.entry(k).or_default() += n;
        }
        for (k, n) in [
            ("messages lost", o.network.lost),
            ("messages cut", o.network.cut),
            ("messages duplicated", o.network.duplicated),
            ("messages replayed late", o.network.replayed),
        ] {
            *self.faults.entry(k).or_default() += n;
        }
        self.messages += o.network.sent;
        self.events += o.events;
        self.lived += o.lived;
        self.lived_in_faults += o.lived_in_faults;
        self.undecided += o.undecided;
        self.residue.pieces_max = self.residue.pieces_max.max(o.residue.pieces_max);
        self.residue.tombstones += o.residue.tombstones;
        for (k, n) in &o.residue.apart {
            *self.residue.apart.entry(k).or_default() += n;
        }
        self.coverage.merge(&o.coverage);
    }

    /// How many runs failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }
}

fn percent(part: u64, whole: u64) -> String {
    match part.saturating_mul(1000).checked_div(whole) {
        None => "-".to_owned(),
        Some(p) => format!("{}.{} %", p / 10, p % 10),
    }
}

fn hours(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    format!("{}.{:02}", minutes / 60, minutes % 60 * 100 / 60)
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [answered, refused, failed, unknown] = self.ops;
        let all = answered + refused + failed + unknown;
        writeln!(f, "runs: {}, failed: {}", self.runs, self.failed)?;
        writeln!(
            f,
            "operations: {all}; done {answered}, refused by state {refused}, not done {failed}, unknown {unknown}; \
             {} answered, outside of outages {} of {}",
            percent(answered + refused, all),
            percent(self.undisturbed.1, self.undisturbed.0),
            self.undisturbed.0,
        )?;
        let [committed, aborted, lost] = self.transactions;
        if committed + aborted + lost > 0 {
            writeln!(
                f,
                "transactions: {}; committed {committed}, aborted {aborted}, unknown {lost}",
                committed + aborted + lost
            )?;
        }
        writeln!(
            f,
            "simulated node-hours: {}, of these under faults {}; messages {}, events {}; keys too hard to search: {}",
            hours(self.lived),
            hours(self.lived_in_faults),
            self.messages,
            self.events,
            self.undecided
        )?;
        writeln!(
            f,
            "at the end of runs: at most {} pieces at a node, {} registers without a value in all",
            self.residue.pieces_max, self.residue.tombstones
        )?;
        if !self.residue.apart.is_empty() {
            writeln!(f, "neighbouring pieces at a node, by what keeps them apart:")?;
            for (k, n) in &self.residue.apart {
                writeln!(f, "  {n:>10} {k}")?;
            }
        }
        writeln!(f, "faults that took effect:")?;
        for (k, n) in &self.faults {
            writeln!(f, "  {n:>10} {k}")?;
        }
        writeln!(f, "reached:")?;
        for (k, n) in self.coverage.reached() {
            writeln!(f, "  {n:>10} {k}")?;
        }
        let never = self.coverage.never_reached();
        if never.is_empty() {
            return write!(f, "never reached: nothing that is expected");
        }
        write!(f, "never reached: {}", never.join(", "))
    }
}
