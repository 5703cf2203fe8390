//! Every metric there is.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows while the process lives.
    Counter,
    /// It is the present state.
    Gauge,
    /// Counts in buckets, with a sum.
    Histogram,
}

impl MetricKind {
    /// Its name in the text format.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// A metric as it is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn metric(
    kind: MetricKind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

use MetricKind::{Counter, Gauge, Histogram};

/// The entry with this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|m| m.name == name)
}

/// Every metric, in the order in which they are written.
pub const METRICS: &[Metric] = &[
    metric(Gauge, "kvnode_build_info", &["version"], "1, with the program's version"),
    metric(Gauge, "kvnode_uptime_seconds", &[], "Time since the process started"),
    metric(Gauge, "kvnode_up", &[], "1 if the node's event loop answers"),
    metric(Gauge, "kvnode_ready", &[], "1 if the node is ready, as /readyz says"),
    metric(Gauge, "kvnode_member", &[], "1 if the node is a member of a ring and serves"),
    metric(Gauge, "kvnode_replication_factor", &[], "Replicas of each key"),
    metric(Gauge, "kvnode_members", &["state"], "Members by state, as this node sees them: alive or lost"),
    metric(
        Gauge,
        "kvnode_tolerated_failures",
        &[],
        "Nodes that may fail at once before any key loses its quorum, as this node sees it",
    ),
    metric(
        Gauge,
        "kvnode_fully_replicated",
        &[],
        "1 if every interval has a live owner in each slot, as this node sees it",
    ),
    metric(Gauge, "kvnode_intervals", &[], "Intervals into which the nodes' pieces cut the ring"),
    metric(Gauge, "kvnode_intervals_under_replicated", &[], "Intervals with a slot that has no live owner"),
    metric(
        Gauge,
        "kvnode_intervals_without_quorum",
        &[],
        "Intervals whose keys can be neither read nor changed: too few slots have a live owner",
    ),
    metric(
        Gauge,
        "kvnode_foreign_ring",
        &[],
        "1 if another ring with data answers at an address of this one",
    ),
    metric(
        Gauge,
        "kvnode_lineage",
        &[],
        "How often the ring was salvaged, as far as this node's memory tells; acknowledged writes may have been lost then",
    ),
    metric(
        Gauge,
        "kvnode_ring_view_disagreements",
        &[],
        "Pieces that a live member says it owns and this node ascribes to another",
    ),
    metric(
        Gauge,
        "kvnode_pieces",
        &["state"],
        "Pieces in this node's memory: active, incomplete, frozen or stopped",
    ),
    metric(Gauge, "kvnode_reigns", &[], "Intervals that this node is the home of"),
    metric(Gauge, "kvnode_keys", &[], "Keys in this node's memory, every replica counted"),
    metric(Gauge, "kvnode_memory_bytes", &[], "Bytes of data in this node's memory"),
    metric(Gauge, "kvnode_memory_limit_bytes", &[], "The limit on them, --max-memory"),
    metric(
        Gauge,
        "kvnode_process_resident_bytes",
        &[],
        "Resident memory of the process; 0 where it is not told",
    ),
    metric(Gauge, "kvnode_operations_open", &[], "Clients' operations that this node has not answered yet"),
    metric(Gauge, "kvnode_operations_waiting", &[], "Operations that wait at this node's homes"),
    metric(Gauge, "kvnode_records_in_flight", &[], "Records sent for a vote and not yet done with"),
    metric(Gauge, "kvnode_peer_messages_waiting", &[], "Messages that wait to be written to other nodes"),
    metric(Gauge, "kvnode_handovers_running", &[], "Pieces being given or received"),
    metric(Gauge, "kvnode_replacements_running", &[], "Lost replicas being replaced or refilled here"),
    metric(
        Counter,
        "kvnode_operations_total",
        &["operation", "outcome"],
        "Operations answered: get, change or transaction; done, refused, not_done or unknown",
    ),
    metric(
        Counter,
        "kvnode_aborts_total",
        &["reason"],
        "Changes and transactions refused, by reason: exists, not_found, version, value, type, size, locked or conflict",
    ),
    metric(
        Counter,
        "kvnode_failures_total",
        &["reason"],
        "Operations without an answer about the key: not_ready, unavailable, busy, full, too_long, wrong_keys or unknown",
    ),
    metric(
        Histogram,
        "kvnode_operation_duration_seconds",
        &["operation"],
        "Time from taking an operation to its answer, by get, change or transaction",
    ),
    metric(
        Counter,
        "kvnode_probes_total",
        &["outcome"],
        "The node's own reads through a quorum: done or failed",
    ),
    metric(
        Counter,
        "kvnode_rounds_total",
        &["kind"],
        "Rounds of votes begun at this node, by what is voted on",
    ),
    metric(Counter, "kvnode_reign_changes_total", &[], "Reigns begun at this node"),
    metric(
        Counter,
        "kvnode_replacements_total",
        &[],
        "Lost replicas replaced or taken up again at this node",
    ),
    metric(Counter, "kvnode_handovers_total", &[], "Chunks handed over by this node"),
    metric(Counter, "kvnode_handover_keys_total", &[], "Keys in the chunks handed over by this node"),
    metric(
        Counter,
        "kvnode_member_events_total",
        &["event"],
        "What this node saw of members: up, suspected, dead or left",
    ),
    metric(Counter, "kvnode_peer_messages_sent_total", &["kind"], "Messages to other nodes"),
    metric(Counter, "kvnode_peer_messages_received_total", &["kind"], "Messages from other nodes"),
    metric(Counter, "kvnode_peer_sent_bytes_total", &["kind"], "Bytes of messages to other nodes, encoded"),
    metric(Counter, "kvnode_peer_received_bytes_total", &[], "Bytes of frames from other nodes"),
    metric(
        Counter,
        "kvnode_trace_spans_total",
        &["outcome"],
        "Spans of traces: exported to the collector, or dropped because it did not take them in time",
    ),
    metric(
        Gauge,
        "kvnode_peer_round_trip_seconds",
        &["node"],
        "Smoothed round-trip time of pings to a member, 0 to itself",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_carry_the_prefix_and_the_suffix_of_their_kind() {
        for (i, m) in METRICS.iter().enumerate() {
            assert!(m.name.starts_with("kvnode_"), "{}", m.name);
            assert!(METRICS.iter().skip(i + 1).all(|o| o.name != m.name), "{} is there twice", m.name);
            assert_eq!(m.kind == Counter, m.name.ends_with("_total"), "{}", m.name);
        }
    }

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let text = include_str!("../../../docs/metrics.md");
        let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("| `kvnode_")).collect();
        let expected: Vec<String> = METRICS
            .iter()
            .map(|m| {
                let labels: Vec<String> = m.labels.iter().map(|l| format!("`{l}`")).collect();
                format!("| `{}` | {} | {} | {} |", m.name, m.kind.name(), labels.join(", "), m.help)
                    .replace("|  |", "| |")
            })
            .collect();
        assert_eq!(rows, expected, "docs/metrics.md is to have these rows:\n{}", expected.join("\n"));
    }
}
