//! The Prometheus text format.
//!
//! Source: Prometheus' "Exposition formats", text format 0.0.4.

use super::registry::{METRICS, Metric, MetricKind, find};
use core::fmt::Write;
use std::collections::BTreeMap;

/// Samples by metric, written in the registry's order.
#[derive(Debug, Default)]
pub struct Exposition {
    lines: BTreeMap<&'static str, String>,
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn labels(m: &Metric, values: &[&str], more: Option<(&str, &str)>) -> String {
    let named = m.labels.iter().copied().zip(values.iter().copied()).chain(more);
    let all: Vec<String> = named.map(|(n, v)| format!("{n}=\"{}\"", escaped(v))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

impl Exposition {
    /// Adds a sample. The name must be in the registry, with a value for each of its labels.
    pub fn sample(&mut self, name: &'static str, values: &[&str], value: f64) {
        let m = entry(name, values);
        assert!(m.kind != MetricKind::Histogram, "{name} has buckets");
        let line = self.lines.entry(name).or_default();
        let _ = writeln!(line, "{name}{} {value}", labels(m, values, None));
    }

    /// Adds a sample that is a count.
    pub fn count(&mut self, name: &'static str, values: &[&str], count: u64) {
        let m = entry(name, values);
        let line = self.lines.entry(name).or_default();
        let _ = writeln!(line, "{name}{} {count}", labels(m, values, None));
    }

    /// Adds a histogram: `buckets` are upper bounds with the counts of their own, `rest` is above them.
    pub fn histogram(
        &mut self,
        name: &'static str,
        values: &[&str],
        buckets: &[(f64, u64)],
        rest: u64,
        sum: f64,
    ) {
        let m = entry(name, values);
        assert!(m.kind == MetricKind::Histogram, "{name} has no buckets");
        let line = self.lines.entry(name).or_default();
        let mut total = 0;
        for (bound, count) in buckets {
            total += count;
            let at = bound.to_string();
            let _ = writeln!(line, "{name}_bucket{} {total}", labels(m, values, Some(("le", &at))));
        }
        total += rest;
        let _ = writeln!(line, "{name}_bucket{} {total}", labels(m, values, Some(("le", "+Inf"))));
        let _ = writeln!(line, "{name}_sum{} {sum}", labels(m, values, None));
        let _ = writeln!(line, "{name}_count{} {total}", labels(m, values, None));
    }

    /// The names that have a sample.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.lines.keys().copied()
    }

    /// The text.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        for m in METRICS {
            if let Some(lines) = self.lines.get(m.name) {
                let _ = writeln!(out, "# HELP {} {}", m.name, m.help);
                let _ = writeln!(out, "# TYPE {} {}", m.name, m.kind.name());
                out.push_str(lines);
            }
        }
        out
    }
}

fn entry(name: &str, values: &[&str]) -> &'static Metric {
    let m = find(name).expect("only what is in the registry is written");
    assert!(m.labels.len() == values.len(), "{name} has the labels {:?}", m.labels);
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_labels_are_escaped() {
        let mut e = Exposition::default();
        e.histogram("kvnode_operation_duration_seconds", &["get"], &[(0.1, 2), (1.0, 3)], 1, 2.5);
        e.sample("kvnode_build_info", &["a\"b"], 1.0);
        let text = e.render();
        assert!(text.contains("_bucket{operation=\"get\",le=\"1\"} 5\n"), "{text}");
        assert!(text.contains("_bucket{operation=\"get\",le=\"+Inf\"} 6\n"), "{text}");
        assert!(text.contains("_count{operation=\"get\"} 6\n"), "{text}");
        assert!(text.contains("kvnode_build_info{version=\"a\\\"b\"} 1\n"), "{text}");
    }
}
