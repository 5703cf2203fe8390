//! One answer to `/metrics`.

use super::exposition::Exposition;
use super::traffic::{
    ABORT_REASONS, FAILURE_REASONS, LATENCY_BOUNDS_SECONDS, MEMBER_EVENTS, OperationKind, OutcomeKind,
    Traffic,
};
use dht::api::{Insight, MemberView, Phase, Status};
use ring::members::MemberState;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What the event loop said of itself, if it answered.
#[derive(Debug)]
pub struct Said {
    /// The status.
    pub status: Status,
    /// The insight.
    pub insight: Insight,
    /// The members.
    pub members: Vec<MemberView>,
}

/// All samples. `said` is none if the event loop does not answer.
pub fn scrape(
    version: &str,
    uptime: Duration,
    is_ready: bool,
    messages_waiting: usize,
    said: Option<&Said>,
    traffic: &Traffic,
) -> Exposition {
    let mut e = Exposition::default();
    e.count("kvnode_build_info", &[version], 1);
    e.sample("kvnode_uptime_seconds", &[], uptime.as_secs_f64());
    e.count("kvnode_up", &[], u64::from(said.is_some()));
    e.count("kvnode_ready", &[], u64::from(is_ready));
    e.count("kvnode_peer_messages_waiting", &[], wide(messages_waiting));
    e.count("kvnode_process_resident_bytes", &[], resident_bytes().unwrap_or(0));
    if let Some(said) = said {
        status(&mut e, &said.status);
        insight(&mut e, &said.insight);
        for m in said.members.iter().filter(|m| m.info.state == MemberState::Alive) {
            let trip = m.round_trip.unwrap_or_default().as_secs_f64();
            e.sample("kvnode_peer_round_trip_seconds", &[&m.info.node.addr.to_string()], trip);
        }
    }
    operations(&mut e, traffic);
    happenings(&mut e, traffic);
    peers(&mut e, traffic);
    e
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn status(e: &mut Exposition, s: &Status) {
    e.count("kvnode_member", &[], u64::from(s.phase == Phase::Member));
    e.count("kvnode_replication_factor", &[], u64::from(s.replication_factor));
    e.count("kvnode_members", &["alive"], wide(s.members_alive));
    e.count("kvnode_members", &["lost"], wide(s.members_lost));
    e.count("kvnode_tolerated_failures", &[], wide(s.tolerated_failures));
    e.count("kvnode_fully_replicated", &[], u64::from(s.is_fully_replicated));
    e.count("kvnode_intervals_without_quorum", &[], wide(s.intervals_without_quorum));
    e.count("kvnode_lineage", &[], s.lineage);
    e.count("kvnode_foreign_ring", &[], u64::from(s.foreign_ring.is_some()));
    e.count("kvnode_keys", &[], s.keys);
    e.count("kvnode_memory_bytes", &[], s.bytes);
    e.count("kvnode_memory_limit_bytes", &[], s.bytes_max);
}

fn insight(e: &mut Exposition, i: &Insight) {
    e.count("kvnode_intervals", &[], wide(i.intervals));
    e.count("kvnode_intervals_under_replicated", &[], wide(i.intervals_under_replicated));
    e.count("kvnode_ring_view_disagreements", &[], wide(i.view_disagreements));
    e.count("kvnode_pieces", &["active"], wide(i.pieces.active));
    e.count("kvnode_pieces", &["incomplete"], wide(i.pieces.incomplete));
    e.count("kvnode_pieces", &["frozen"], wide(i.pieces.frozen));
    e.count("kvnode_pieces", &["stopped"], wide(i.pieces.stopped));
    e.count("kvnode_reigns", &[], wide(i.reigns));
    e.count("kvnode_operations_open", &[], wide(i.operations_open));
    e.count("kvnode_operations_waiting", &[], wide(i.operations_waiting_at_homes));
    e.count("kvnode_records_in_flight", &[], wide(i.records_in_flight));
    e.count("kvnode_handovers_running", &[], wide(i.handovers_running));
    e.count("kvnode_replacements_running", &[], wide(i.replacements_running));
    for (kind, n) in i.rounds.iter() {
        e.count("kvnode_rounds_total", &[kind.name()], n);
    }
}

fn operations(e: &mut Exposition, traffic: &Traffic) {
    let all = traffic.operations.lock();
    let count = |kind, outcome| all.by_outcome.get(&(kind, outcome)).copied().unwrap_or(0);
    for kind in [OperationKind::Get, OperationKind::Change, OperationKind::Transaction] {
        for outcome in OutcomeKind::ALL {
            e.count("kvnode_operations_total", &[kind.name(), outcome.name()], count(kind, outcome));
        }
        let latency = all.latency.get(&kind).cloned().unwrap_or_default();
        let buckets: Vec<(f64, u64)> = LATENCY_BOUNDS_SECONDS.into_iter().zip(latency.buckets).collect();
        let name = "kvnode_operation_duration_seconds";
        e.histogram(name, &[kind.name()], &buckets, latency.rest, latency.sum_seconds);
    }
    for reason in ABORT_REASONS {
        e.count("kvnode_aborts_total", &[reason], all.aborts.get(reason).copied().unwrap_or(0));
    }
    for reason in FAILURE_REASONS {
        e.count("kvnode_failures_total", &[reason], all.failures.get(reason).copied().unwrap_or(0));
    }
    let failed = OutcomeKind::ALL.into_iter().filter(|o| *o != OutcomeKind::Done);
    let failed = failed.map(|o| count(OperationKind::Probe, o)).sum();
    e.count("kvnode_probes_total", &["done"], count(OperationKind::Probe, OutcomeKind::Done));
    e.count("kvnode_probes_total", &["failed"], failed);
}

fn happenings(e: &mut Exposition, traffic: &Traffic) {
    let all = traffic.happened.lock().clone();
    e.count("kvnode_reign_changes_total", &[], all.reigns);
    e.count("kvnode_replacements_total", &[], all.replacements);
    e.count("kvnode_handovers_total", &[], all.handovers);
    e.count("kvnode_handover_keys_total", &[], all.handover_keys);
    for event in MEMBER_EVENTS {
        e.count("kvnode_member_events_total", &[event], all.members.get(event).copied().unwrap_or(0));
    }
}

fn peers(e: &mut Exposition, traffic: &Traffic) {
    for (kind, n) in traffic.sent.iter() {
        e.count("kvnode_peer_messages_sent_total", &[kind.name()], n);
    }
    for (kind, n) in traffic.received.iter() {
        e.count("kvnode_peer_messages_received_total", &[kind.name()], n);
    }
    for (kind, n) in traffic.sent_bytes.iter() {
        e.count("kvnode_peer_sent_bytes_total", &[kind.name()], n);
    }
    let received = traffic.received_bytes.load(Ordering::Relaxed);
    e.count("kvnode_peer_received_bytes_total", &[], received);
    let (exported, dropped) = traffic.spans.counts();
    e.count("kvnode_trace_spans_total", &["exported"], exported);
    e.count("kvnode_trace_spans_total", &["dropped"], dropped);
}

/// Resident memory, where the operating system tells it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
