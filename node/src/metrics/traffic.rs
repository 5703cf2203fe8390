//! What the event loop and the transport count.

use crate::dashboard::Recent;
use dht::api::TxOutcome;
use dht::counters::MessageKind;
use dht::{Event, Failure, Reply};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::Refusal;

/// The upper bounds of the latency buckets.
pub const LATENCY_BOUNDS_SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Latencies are told apart up to this many microseconds.
const LATENCY_MICROSECONDS_MAX: u64 = 60_000_000;

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationKind {
    /// A read.
    Get,
    /// A change of one key.
    Change,
    /// A call of a transaction, its commit or a part before it.
    Transaction,
    /// The node's own read, for readiness.
    Probe,
}

impl OperationKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OperationKind::Get => "get",
            OperationKind::Change => "change",
            OperationKind::Transaction => "transaction",
            OperationKind::Probe => "probe",
        }
    }
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutcomeKind {
    /// Done.
    Done,
    /// Not done, for a reason in the key's state.
    Refused,
    /// Not done, for another reason.
    NotDone,
    /// It may have been done.
    Unknown,
}

impl OutcomeKind {
    /// All of them.
    pub const ALL: [OutcomeKind; 4] =
        [OutcomeKind::Done, OutcomeKind::Refused, OutcomeKind::NotDone, OutcomeKind::Unknown];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OutcomeKind::Done => "done",
            OutcomeKind::Refused => "refused",
            OutcomeKind::NotDone => "not_done",
            OutcomeKind::Unknown => "unknown",
        }
    }
}

pub(super) const ABORT_REASONS: [&str; 8] =
    ["exists", "not_found", "version", "value", "type", "size", "locked", "conflict"];
pub(super) const FAILURE_REASONS: [&str; 7] =
    ["not_ready", "unavailable", "busy", "full", "too_long", "wrong_keys", "unknown"];
pub(super) const MEMBER_EVENTS: [&str; 4] = ["up", "suspected", "dead", "left"];

fn abort_reason(r: &Refusal) -> &'static str {
    match r {
        Refusal::Exists => "exists",
        Refusal::NotFound => "not_found",
        Refusal::VersionDiffers | Refusal::Applied | Refusal::Forgotten => "version",
        Refusal::ValueDiffers => "value",
        Refusal::WrongType { .. } => "type",
        Refusal::TooLarge { .. } => "size",
        Refusal::Locked => "locked",
    }
}

fn failure_reason(f: &Failure) -> &'static str {
    match f {
        Failure::NotReady { .. } => "not_ready",
        Failure::Unavailable { .. } => "unavailable",
        Failure::Busy => "busy",
        Failure::Full => "full",
        Failure::KeyTooLong { .. } | Failure::ValueTooLong { .. } => "too_long",
        Failure::KeyReserved | Failure::KeyNotInLog | Failure::TooManyKeys { .. } => "wrong_keys",
        Failure::Unknown { .. } => "unknown",
    }
}

pub(crate) fn outcome(reply: &Reply) -> OutcomeKind {
    if let Reply::Refused { .. } = reply {
        OutcomeKind::Refused
    } else if let Reply::Transacted(t) = reply
        && matches!(t.outcome, TxOutcome::Conflict(_) | TxOutcome::Failed(_))
    {
        OutcomeKind::Refused
    } else if let Reply::Failed(Failure::Unknown { .. }) = reply {
        OutcomeKind::Unknown
    } else if let Reply::Failed(_) = reply {
        OutcomeKind::NotDone
    } else {
        OutcomeKind::Done
    }
}

/// Latencies of one operation since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Latency {
    pub(super) buckets: [u64; LATENCY_BOUNDS_SECONDS.len()],
    pub(super) rest: u64,
    pub(super) sum_seconds: f64,
}

impl Latency {
    fn record(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.sum_seconds += seconds;
        let at = LATENCY_BOUNDS_SECONDS.iter().position(|b| seconds <= *b);
        match at.and_then(|i| self.buckets.get_mut(i)) {
            Some(n) => *n += 1,
            None => self.rest += 1,
        }
    }
}

/// What happened since the last interval was taken.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Reads answered.
    pub gets: u64,
    /// Changes done.
    pub changes: u64,
    /// Changes refused for the key's state.
    pub refused: u64,
    /// Operations without an answer about the key.
    pub failed: u64,
    /// Bytes sent to peers.
    pub sent_bytes: u64,
    /// Latencies in microseconds.
    latency: Histogram<u64>,
}

impl Interval {
    fn new() -> Interval {
        let latency = Histogram::new_with_bounds(1, LATENCY_MICROSECONDS_MAX, 2)
            .expect("the bounds and digits are allowed ones");
        Interval { gets: 0, changes: 0, refused: 0, failed: 0, sent_bytes: 0, latency }
    }

    /// The latency in microseconds that this part of the operations did not exceed; none if there were none.
    pub fn latency_microseconds(&self, quantile: f64) -> Option<u64> {
        (!self.latency.is_empty()).then(|| self.latency.value_at_quantile(quantile))
    }
}

#[derive(Debug)]
pub(super) struct Operations {
    pub(super) by_outcome: BTreeMap<(OperationKind, OutcomeKind), u64>,
    pub(super) aborts: BTreeMap<&'static str, u64>,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) latency: BTreeMap<OperationKind, Latency>,
    interval: Interval,
}

/// Messages and bytes of each kind.
#[derive(Debug, Default)]
pub(super) struct PerKind([AtomicU64; MessageKind::ALL.len()]);

impl PerKind {
    fn add(&self, kind: MessageKind, n: u64) {
        for (k, counter) in MessageKind::ALL.iter().zip(&self.0) {
            if *k == kind {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MessageKind, u64)> + '_ {
        MessageKind::ALL.into_iter().zip(self.0.iter().map(|n| n.load(Ordering::Relaxed)))
    }

    fn total(&self) -> u64 {
        self.iter().map(|(_, n)| n).sum()
    }
}

/// What happened, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Happened {
    pub(super) members: BTreeMap<&'static str, u64>,
    pub(super) reigns: u64,
    pub(super) replacements: u64,
    pub(super) handovers: u64,
    pub(super) handover_keys: u64,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl SpanCounts {
    /// The collector has taken so many.
    pub(crate) fn exported(&self, n: u64) {
        self.exported.fetch_add(n, Ordering::Relaxed);
    }

    /// So many were dropped.
    pub(crate) fn dropped(&self, n: u64) {
        self.dropped.fetch_add(n, Ordering::Relaxed);
    }

    /// Those taken and those dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

/// All that is counted between the sockets and the core. Shared by whoever counts and whoever reads.
#[derive(Debug)]
pub struct Traffic {
    pub(super) operations: Mutex<Operations>,
    pub(super) happened: Mutex<Happened>,
    pub(super) sent: PerKind,
    pub(super) sent_bytes: PerKind,
    pub(super) received: PerKind,
    pub(super) received_bytes: AtomicU64,
    /// Spans of traces.
    pub spans: SpanCounts,
    /// Transactions and keys of late, for people; nothing of it becomes a metric.
    pub recent: Recent,
    sent_bytes_taken: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            operations: Mutex::new(Operations {
                by_outcome: BTreeMap::new(),
                aborts: BTreeMap::new(),
                failures: BTreeMap::new(),
                latency: BTreeMap::new(),
                interval: Interval::new(),
            }),
            happened: Mutex::default(),
            sent: PerKind::default(),
            sent_bytes: PerKind::default(),
            received: PerKind::default(),
            received_bytes: AtomicU64::new(0),
            spans: SpanCounts::default(),
            recent: Recent::default(),
            sent_bytes_taken: AtomicU64::new(0),
        }
    }
}

impl Traffic {
    /// An operation was answered.
    pub fn answered(&self, kind: OperationKind, reply: &Reply, took: Duration) {
        let outcome = outcome(reply);
        let mut all = self.operations.lock();
        let all = &mut *all;
        *all.by_outcome.entry((kind, outcome)).or_default() += 1;
        if kind == OperationKind::Probe {
            return;
        }
        all.latency.entry(kind).or_default().record(took);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        all.interval.latency.saturating_record(microseconds);
        match (kind, outcome) {
            (OperationKind::Get, OutcomeKind::Done) => all.interval.gets += 1,
            (_, OutcomeKind::Done) => all.interval.changes += 1,
            (_, OutcomeKind::Refused) => all.interval.refused += 1,
            (_, OutcomeKind::NotDone | OutcomeKind::Unknown) => all.interval.failed += 1,
        }
        if let Reply::Refused { refusal, .. } = reply {
            *all.aborts.entry(abort_reason(refusal)).or_default() += 1;
        }
        if let Reply::Transacted(t) = reply
            && matches!(t.outcome, TxOutcome::Conflict(_))
        {
            *all.aborts.entry("conflict").or_default() += 1;
        }
        if let Reply::Failed(failure) = reply {
            *all.failures.entry(failure_reason(failure)).or_default() += 1;
        }
    }

    /// A message was given to the transport.
    pub fn sent(&self, kind: MessageKind) {
        self.sent.add(kind, 1);
    }

    /// A message was encoded for a connection.
    pub fn encoded(&self, kind: MessageKind, bytes: usize) {
        self.sent_bytes.add(kind, u64::try_from(bytes).unwrap_or(0));
    }

    /// A message came.
    pub fn received(&self, kind: MessageKind) {
        self.received.add(kind, 1);
    }

    /// A frame came.
    pub fn frame_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// The core announced an event.
    pub fn happened(&self, event: &Event) {
        let mut all = self.happened.lock();
        match event {
            Event::MemberUp(_) => *all.members.entry("up").or_default() += 1,
            Event::MemberSuspected(_) => *all.members.entry("suspected").or_default() += 1,
            Event::MemberDead(_) => *all.members.entry("dead").or_default() += 1,
            Event::MemberLeft(_) => *all.members.entry("left").or_default() += 1,
            Event::HandedOver { keys, .. } => {
                all.handovers += 1;
                all.handover_keys += keys;
            }
            Event::Replaced { .. } | Event::Resumed { .. } => all.replacements += 1,
            Event::ReignBegan { .. } => all.reigns += 1,
            Event::Joined { .. }
            | Event::Dissolved { .. }
            | Event::JoinDenied { .. }
            | Event::ForeignRing { .. }
            | Event::RingGivenUp { .. }
            | Event::Salvaged { .. }
            | Event::Refused { .. } => {}
        }
    }

    /// Takes what happened since the last call; one caller only.
    pub fn take_interval(&self) -> Interval {
        let mut taken = Interval::new();
        core::mem::swap(&mut taken, &mut self.operations.lock().interval);
        let total = self.sent_bytes.total();
        taken.sent_bytes = total.saturating_sub(self.sent_bytes_taken.swap(total, Ordering::Relaxed));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_what_came_since_the_last_and_no_probes() {
        let t = Traffic::default();
        let took = Duration::from_millis(2);
        t.answered(OperationKind::Get, &Reply::Value { value: None, version: 0 }, took);
        t.answered(OperationKind::Probe, &Reply::Value { value: None, version: 0 }, took);
        t.answered(OperationKind::Change, &Reply::Failed(Failure::Busy), took);
        let i = t.take_interval();
        assert_eq!((i.gets, i.changes, i.refused, i.failed), (1, 0, 0, 1));
        let p99 = i.latency_microseconds(0.99).expect("there were operations");
        assert!((1900..2100).contains(&p99), "{p99}");
        let empty = t.take_interval();
        assert_eq!((empty.gets, empty.latency_microseconds(0.5)), (0, None));
    }
}
