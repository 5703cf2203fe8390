//! Whether transactions can have happened one at a time, each between its beginning and its end: by cycles of
//! dependencies, naming what is wrong.
//!
//! The versions that nodes answer give the order of the writes of each key, so the dependencies are known, not
//! guessed: a history without a cycle has a serial order, which respects real time.
//!
//! Keeps:
//! 1. A history that is rejected cannot have come from a strictly serializable store.
//! 2. A transaction of unknown outcome counts as committed as soon as somebody saw a write of it, and not before.
//!
//! Source: Adya 1999 for the names (G0, G1a, G1b, G1c, G-single, G2); Elle (Kingsbury, Alvaro 2020) for the method;
//! real time by barriers, one for each end, so that its edges are few.

use super::graph::{Edge, Graph};
use super::history::{Fate, Txn};
use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use store::Key;

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name.
    pub name: String,
    /// The transactions that show it.
    pub text: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:\n{}", self.name, self.text)
    }
}

fn anomaly<T>(name: &str, text: String) -> Result<T, Anomaly> {
    Err(Anomaly { name: name.to_owned(), text })
}

/// A write: whose, and what is known of it.
#[derive(Clone, Debug)]
struct Known {
    txn: usize,
    version: Option<u64>,
    is_overwritten: bool,
}

struct Facts<'a> {
    txns: &'a [Txn],
    writes: BTreeMap<(Key, u64), Known>,
    /// Transactions that took effect.
    live: BTreeSet<usize>,
}

/// Checks all transactions of a run.
pub fn check(txns: &[Txn]) -> Result<(), Anomaly> {
    let mut facts = Facts { txns, writes: BTreeMap::new(), live: BTreeSet::new() };
    facts.gather()?;
    facts.take_reads()?;
    facts.lists_keep_all()?;
    let order = facts.order()?;
    let graph = facts.dependencies(&order);
    report(txns, &graph)?;
    report(txns, &facts.with_real_time(graph))
}

impl Facts<'_> {
    fn gather(&mut self) -> Result<(), Anomaly> {
        for (i, t) in self.txns.iter().enumerate() {
            if t.fate == Fate::Committed {
                self.live.insert(i);
            }
            for w in &t.writes {
                let known = Known { txn: i, version: w.version, is_overwritten: w.is_overwritten };
                if self.writes.insert((w.key.clone(), w.write), known).is_some() {
                    return anomaly("a write number was used twice", t.to_string());
                }
            }
        }
        Ok(())
    }

    fn take_reads(&mut self) -> Result<(), Anomaly> {
        for t in self.txns {
            for r in &t.reads {
                let Some(w) = r.write else { continue };
                let Some(known) = self.writes.get_mut(&(r.key.clone(), w)) else {
                    return anomaly("garbage read", format!("  nobody wrote #{w}\n=>{t}"));
                };
                let Some(writer) = self.txns.get(known.txn) else { continue };
                if known.is_overwritten {
                    return anomaly("G1b (intermediate read)", format!("  {writer}\n=>{t}"));
                }
                if writer.fate == Fate::Aborted {
                    return anomaly("G1a (aborted read)", format!("  {writer}\n=>{t}"));
                }
                if *known.version.get_or_insert(r.version) != r.version {
                    return anomaly("a write has two versions", format!("  {writer}\n=>{t}"));
                }
                self.live.insert(known.txn);
            }
        }
        Ok(())
    }

    /// A list shows each addition once, and all reads agree on their order; of a transaction that took effect
    /// the last read of a list shows every addition that ended before it.
    fn lists_keep_all(&mut self) -> Result<(), Anomaly> {
        let mut longest: BTreeMap<&Key, (&Vec<u64>, &Txn)> = BTreeMap::new();
        for t in self.txns {
            for (r, list) in t.reads.iter().filter_map(|r| Some((r, r.list.as_ref()?))) {
                let distinct: BTreeSet<u64> = list.iter().copied().collect();
                if distinct.len() != list.len() {
                    return anomaly("an addition is there twice", format!("=>{t}"));
                }
                match longest.get(&r.key) {
                    Some((l, _)) if l.starts_with(list) => {}
                    Some((l, other)) if !list.starts_with(l) => {
                        let text = format!("  {l:?} {other}\n=>{list:?} {t}");
                        return anomaly("lists disagree", text);
                    }
                    _ => drop(longest.insert(&r.key, (list, t))),
                }
            }
        }
        // What was seen anywhere took effect everywhere.
        for ((key, write), known) in &self.writes {
            if longest.get(key).is_some_and(|(l, _)| l.contains(write)) {
                self.live.insert(known.txn);
            }
        }
        for i in &self.live {
            let Some(t) = self.txns.get(*i) else { continue };
            for w in t.writes.iter().filter(|w| w.is_append) {
                let Some((list, reader)) = longest.get(&w.key) else { continue };
                if t.fate == Fate::Aborted && list.contains(&w.write) {
                    return anomaly("G1a (aborted read)", format!("  {t}\n=>{reader}"));
                }
                let has_ended = t.completed.is_some_and(|c| c < reader.invoked);
                if !list.contains(&w.write)
                    && (has_ended || t.fate == Fate::Unknown && is_last(self.txns, reader))
                {
                    return anomaly(
                        "a transaction took effect in part, or was lost",
                        format!("  {t}\n=>{reader}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// The writes of each key that took effect and whose version is known, in the order of versions.
    fn order(&self) -> Result<BTreeMap<Key, Vec<(u64, usize)>>, Anomaly> {
        let mut out: BTreeMap<Key, BTreeMap<u64, usize>> = BTreeMap::new();
        for ((key, _), known) in &self.writes {
            let Some(version) = known.version.filter(|_| self.live.contains(&known.txn)) else { continue };
            if known.is_overwritten {
                continue;
            }
            if let Some(other) = out.entry(key.clone()).or_default().insert(version, known.txn)
                && let (Some(a), Some(b)) = (self.txns.get(other), self.txns.get(known.txn))
            {
                return anomaly("a version has two writes", format!("  {a}\n=>{b}"));
            }
        }
        Ok(out.into_iter().map(|(k, v)| (k, v.into_iter().collect())).collect())
    }

    fn dependencies(&self, order: &BTreeMap<Key, Vec<(u64, usize)>>) -> Graph {
        let mut graph = Graph::new(self.txns.len());
        for line in order.values() {
            for pair in line.windows(2) {
                if let [a, b] = pair {
                    graph.add(a.1, b.1, Edge::WriteWrite);
                }
            }
        }
        for (i, t) in
            self.txns.iter().enumerate().filter(|(i, t)| t.fate == Fate::Committed || self.live.contains(i))
        {
            for r in &t.reads {
                let Some(line) = order.get(&r.key) else { continue };
                if let Some(w) = r.write.and_then(|w| self.writes.get(&(r.key.clone(), w))) {
                    graph.add(w.txn, i, Edge::WriteRead);
                }
                // A key that is not there shows no version to go by, but it was never deleted here.
                let seen = if r.write.is_some() { r.version } else { 0 };
                let next = line.partition_point(|w| w.0 <= seen);
                if let Some((_, writer)) = line.get(next) {
                    graph.add(i, *writer, Edge::ReadWrite);
                }
            }
        }
        graph
    }

    /// Adds a barrier for each end, in their order: what began after it comes after all that ended before.
    fn with_real_time(&self, mut graph: Graph) -> Graph {
        let mut ends: Vec<(u64, usize)> =
            self.live.iter().filter_map(|i| Some((self.txns.get(*i)?.completed?, *i))).collect();
        ends.sort_unstable();
        let mut barriers: Vec<(u64, usize)> = Vec::new();
        for (end, txn) in ends {
            let barrier = graph.add_node();
            graph.add(txn, barrier, Edge::RealTime);
            if let Some((_, before)) = barriers.last() {
                graph.add(*before, barrier, Edge::RealTime);
            }
            barriers.push((end, barrier));
        }
        for i in &self.live {
            let Some(t) = self.txns.get(*i) else { continue };
            let at = barriers.partition_point(|b| b.0 < t.invoked);
            if let Some((_, barrier)) = at.checked_sub(1).and_then(|i| barriers.get(i)) {
                graph.add(*barrier, *i, Edge::RealTime);
            }
        }
        graph
    }
}

fn is_last(txns: &[Txn], reader: &Txn) -> bool {
    txns.iter().all(|t| t.invoked <= reader.invoked || t.writes.is_empty())
}

fn report(txns: &[Txn], graph: &Graph) -> Result<(), Anomaly> {
    let Some(component) = graph.components().into_iter().min_by_key(Vec::len) else { return Ok(()) };
    let cycle = graph.shortest_cycle(&component);
    let count = |e: Edge| cycle.iter().filter(|c| c.1 == e).count();
    let base = match (count(Edge::ReadWrite), count(Edge::WriteRead)) {
        (0, 0) => "G0 (write cycle)",
        (0, _) => "G1c (circular information flow)",
        (1, _) => "G-single (read skew or lost update)",
        (_, _) => "G2 (write skew or long fork)",
    };
    let real_time = if count(Edge::RealTime) > 0 { "-realtime" } else { "" };
    let mut text = String::new();
    for (node, edge) in &cycle {
        if let Some(t) = txns.get(*node) {
            text.push_str(&format!("  {t}\n    then {edge:?}\n"));
        }
    }
    anomaly(&format!("{base}{real_time}"), text)
}
