//! The last hour in numbers: this node's own, and what it gathered from the others.
//!
//! Keeps:
//! 1. What was gathered of a node stays for the hour, also when the node has gone.
//! 2. Gathering costs at most five calls a second, however large the ring is.

use super::journal::wall_milliseconds;
use crate::grpc::{Api, ServerInfo};
use crate::metrics::Traffic;
use dht::{Reply, Request};
use parking_lot::Mutex;
use proto::v1::{Member, Node, Sample};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What one sample covers.
const SPAN: Duration = Duration::from_secs(5);
/// Samples kept: an hour.
const SAMPLES_MAX: usize = 720;
/// Nodes whose history is kept besides the own.
const NODES_MAX: usize = 200;
/// At most one other node is asked in this time.
const CALL_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// How long another node may take.
const CALL_DEADLINE: Duration = Duration::from_millis(900);
const HOUR_MILLISECONDS: u64 = 3_600_000;
/// A sample that is older says nothing of now.
const FRESH_MILLISECONDS: u64 = 20_000;

/// A node's samples.
#[derive(Debug, Default)]
struct OfNode {
    address: String,
    samples: VecDeque<Sample>,
}

impl OfNode {
    fn add(&mut self, sample: Sample) {
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }
}

/// The history of the ring as this node keeps it. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<BTreeMap<String, OfNode>>>);

/// What a node held when it took its latest sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

/// What the nodes did in their latest samples, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    gets: f64,
    changes: f64,
    refused: f64,
    failed: f64,
    p50: Option<u64>,
    p99: Option<u64>,
}

impl Rates {
    pub(super) fn json(&self) -> Json {
        json!({
            "gets": self.gets, "changes": self.changes, "refused": self.refused, "failed": self.failed,
            "p50": self.p50, "p99": self.p99,
        })
    }
}

fn real(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

impl History {
    /// A node's samples after a time.
    pub fn of_node(&self, node: &str, after_milliseconds: u64) -> Vec<Sample> {
        let all = self.0.lock();
        let Some(n) = all.get(node) else { return Vec::new() };
        n.samples.iter().filter(|s| s.at_milliseconds > after_milliseconds).copied().collect()
    }

    /// Nodes that have samples, with their addresses.
    pub(super) fn nodes(&self) -> Vec<(String, String)> {
        self.0.lock().iter().map(|(id, n)| (id.clone(), n.address.clone())).collect()
    }

    fn add(&self, node: &Node, samples: impl IntoIterator<Item = Sample>) {
        let mut all = self.0.lock();
        if !all.contains_key(&node.id) && all.len() > NODES_MAX {
            return;
        }
        let of_node = all.entry(node.id.clone()).or_default();
        of_node.address.clone_from(&node.overlay_address);
        for sample in samples {
            of_node.add(sample);
        }
        let since = wall_milliseconds().saturating_sub(HOUR_MILLISECONDS);
        all.retain(|_, n| n.samples.back().is_some_and(|s| s.at_milliseconds > since));
    }

    fn last_of(&self, node: &str) -> u64 {
        self.0.lock().get(node).and_then(|n| n.samples.back()).map_or(0, |s| s.at_milliseconds)
    }

    /// Keys and bytes held by the nodes that still send samples.
    pub(crate) fn loads(&self) -> BTreeMap<String, Load> {
        let since = wall_milliseconds().saturating_sub(FRESH_MILLISECONDS);
        let all = self.0.lock();
        let latest = all.iter().filter_map(|(id, n)| n.samples.back().map(|s| (id, s)));
        latest
            .filter(|(_, s)| s.at_milliseconds > since)
            .map(|(id, s)| (id.clone(), Load { keys: s.keys, bytes: s.bytes }))
            .collect()
    }

    /// The latest samples of all nodes that still send some.
    pub(super) fn rates(&self) -> Rates {
        let all = self.0.lock();
        let since = wall_milliseconds().saturating_sub(FRESH_MILLISECONDS);
        let latest = all.values().filter_map(|n| n.samples.back()).filter(|s| s.at_milliseconds > since);
        let mut rates = Rates::default();
        for s in latest {
            let seconds = (f64::from(s.span_milliseconds) / 1000.0).max(0.001);
            rates.gets += real(s.gets) / seconds;
            rates.changes += real(s.changes) / seconds;
            rates.refused += real(s.refused) / seconds;
            rates.failed += real(s.failed) / seconds;
            rates.p50 = rates.p50.max(s.latency_p50_microseconds);
            rates.p99 = rates.p99.max(s.latency_p99_microseconds);
        }
        rates
    }

    /// Samples of one node, or of all added up, in steps of one sample's span.
    pub(super) fn json(&self, node: Option<&str>) -> Json {
        let all = self.0.lock();
        let span = u64::try_from(SPAN.as_millis()).unwrap_or(5000);
        let chosen = || all.iter().filter(|(id, _)| node.is_none_or(|n| n == id.as_str())).map(|(_, n)| n);
        // Others are heard a little later: what is not yet known of all that still talk would look like a fall.
        let talks = wall_milliseconds().saturating_sub(4 * span);
        let latest = chosen().filter_map(|n| n.samples.back()).map(|s| s.at_milliseconds);
        let last_step = latest.filter(|at| *at > talks).min().map_or(u64::MAX, |at| at / span);
        let mut steps: BTreeMap<u64, Step> = BTreeMap::new();
        for n in chosen() {
            let mut last: Option<(u64, &Sample)> = None;
            for s in n.samples.iter().filter(|s| s.at_milliseconds / span <= last_step) {
                let step = s.at_milliseconds / span;
                // Two samples in one step count once, and a step between two samples is as the one before it.
                if let Some((before, previous)) = last {
                    let from = if step - before.min(step) == 2 { before + 1 } else { step };
                    if from < step {
                        steps.entry(from * span).or_default().add(previous);
                    }
                }
                if last.is_none_or(|(before, _)| step > before) {
                    steps.entry(step * span).or_default().add(s);
                    last = Some((step, s));
                }
            }
        }
        let points: Vec<Json> = steps.iter().map(|(at, s)| s.json(*at)).collect();
        json!({ "span": span, "points": points })
    }
}

/// Samples of about the same time, added up.
#[derive(Debug, Default)]
struct Step {
    gets: f64,
    changes: f64,
    refused: f64,
    failed: f64,
    p50: Option<u64>,
    p99: Option<u64>,
    keys: u64,
    bytes: u64,
    sent: f64,
    tolerated: Option<u32>,
}

impl Step {
    fn add(&mut self, s: &Sample) {
        let seconds = (f64::from(s.span_milliseconds) / 1000.0).max(0.001);
        self.gets += real(s.gets) / seconds;
        self.changes += real(s.changes) / seconds;
        self.refused += real(s.refused) / seconds;
        self.failed += real(s.failed) / seconds;
        self.sent += real(s.sent_bytes) / seconds;
        self.p50 = self.p50.max(s.latency_p50_microseconds);
        self.p99 = self.p99.max(s.latency_p99_microseconds);
        self.keys += s.keys;
        self.bytes += s.bytes;
        self.tolerated = Some(self.tolerated.map_or(s.tolerated_failures, |t| t.min(s.tolerated_failures)));
    }

    fn json(&self, at: u64) -> Json {
        json!({
            "at": at, "gets": self.gets, "changes": self.changes, "refused": self.refused,
            "failed": self.failed, "p50": self.p50, "p99": self.p99, "keys": self.keys, "bytes": self.bytes,
            "sent": self.sent, "tolerated": self.tolerated,
        })
    }
}

/// Takes this node's samples until `shutdown`.
pub(super) async fn keep_own(api: Api, traffic: Arc<Traffic>, shutdown: CancellationToken) {
    let history = api.info().history.clone();
    let mut last = wall_milliseconds();
    // The first sample comes soon, so that a node just started has something to show.
    let mut pause = Duration::from_secs(1);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = SPAN;
        let Ok(Reply::Status(s)) = api.handle().request(Request::Status).await else { return };
        let taken = traffic.take_interval();
        traffic.recent.hot.fade();
        let now = wall_milliseconds();
        let sample = Sample {
            at_milliseconds: now,
            span_milliseconds: u32::try_from(now.saturating_sub(last)).unwrap_or(u32::MAX),
            gets: taken.gets,
            changes: taken.changes,
            refused: taken.refused,
            failed: taken.failed,
            latency_p50_microseconds: taken.latency_microseconds(0.5),
            latency_p99_microseconds: taken.latency_microseconds(0.99),
            keys: s.keys,
            bytes: s.bytes,
            sent_bytes: taken.sent_bytes,
            operations_open: u32::try_from(s.operations_open).unwrap_or(u32::MAX),
            tolerated_failures: u32::try_from(s.tolerated_failures).unwrap_or(u32::MAX),
        };
        last = now;
        let node = Node { id: s.node.id.to_string(), overlay_address: s.node.addr.to_string() };
        history.add(&node, [sample]);
    }
}

/// Asks the other members for theirs, one after another, until `shutdown`.
pub(super) async fn gather(info: Arc<ServerInfo>, api: Api, shutdown: CancellationToken) {
    let mut clients: BTreeMap<String, client::Client> = BTreeMap::new();
    loop {
        let members = super::members(&api).await.unwrap_or_default();
        let others: Vec<Member> = members
            .into_iter()
            .filter(|m| !m.is_self && !m.client_address.is_empty() && is_alive(m))
            .take(NODES_MAX)
            .collect();
        clients.retain(|address, _| others.iter().any(|m| &m.client_address == address));
        let count = u32::try_from(others.len()).unwrap_or(1).max(1);
        let pause = (SPAN / count).max(CALL_INTERVAL_MIN);
        if others.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        for m in others {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let Some(node) = &m.node else { continue };
            let after = info.history.last_of(&node.id);
            match ask(&mut clients, &m.client_address, after).await {
                Some(answer) if answer.node.as_ref() == Some(node) => {
                    info.traffic.recent.add(node, answer.transactions, answer.hot_keys);
                    info.history.add(node, answer.samples);
                }
                _ => {
                    clients.remove(&m.client_address);
                }
            }
        }
    }
}

fn is_alive(m: &Member) -> bool {
    use proto::v1::member::State;
    matches!(m.state(), State::Alive | State::Leaving)
}

async fn ask(
    clients: &mut BTreeMap<String, client::Client>,
    address: &str,
    after: u64,
) -> Option<proto::v1::HistoryResponse> {
    if !clients.contains_key(address) {
        let builder = client::Client::builder([address.to_owned()])
            .deadline(CALL_DEADLINE)
            .connect_timeout(CALL_DEADLINE)
            .routes_to_home(false);
        clients.insert(address.to_owned(), builder.connect().await.ok()?);
    }
    clients.get(address)?.history(after).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> Node {
        Node { id: id.to_owned(), overlay_address: "127.0.0.1:1".to_owned() }
    }

    fn sample(at_milliseconds: u64, gets: u64, p99: Option<u64>) -> Sample {
        Sample {
            at_milliseconds,
            span_milliseconds: 5000,
            gets,
            latency_p99_microseconds: p99,
            ..Sample::default()
        }
    }

    #[test]
    fn rates_add_up_over_nodes_and_the_slowest_counts() {
        let h = History::default();
        let now = wall_milliseconds();
        h.add(&node("a"), [sample(now, 50, Some(100))]);
        h.add(&node("b"), [sample(now - 60_000, 9000, None), sample(now, 100, Some(900))]);
        h.add(&node("gone"), [sample(now - 60_000, 1000, Some(7))]);
        let r = h.rates();
        assert_eq!((r.gets, r.p99), (30.0, Some(900)));
        let total = h.json(None);
        assert_eq!(total["points"].as_array().map(Vec::len), Some(2));
        assert_eq!(h.json(Some("a"))["points"][0]["gets"], 10.0);
    }

    #[test]
    fn what_a_node_holds_is_in_its_latest_sample_while_that_is_fresh() {
        let h = History::default();
        let now = wall_milliseconds();
        let holds =
            |at_milliseconds, keys| Sample { keys, bytes: 2 * keys, ..sample(at_milliseconds, 0, None) };
        h.add(&node("a"), [holds(now - 5000, 7), holds(now, 8)]);
        h.add(&node("gone"), [holds(now - FRESH_MILLISECONDS - 1000, 9)]);
        assert_eq!(h.loads(), BTreeMap::from([("a".to_owned(), Load { keys: 8, bytes: 16 })]));
    }

    #[test]
    fn steps_are_even_though_samples_drift_and_others_are_heard_later() {
        let h = History::default();
        let step = wall_milliseconds() / 5000 * 5000;
        let at = |i: u64, drift: u64| step - 50_000 + 5000 * i + drift;
        h.add(&node("a"), (0..10).map(|i| sample(at(i, 10), 50, None)));
        // Its clock drifts over the edge of a step, and its last two samples are not here yet.
        h.add(&node("b"), (0..8).map(|i| sample(at(i, if i < 4 { 4990 } else { 5010 }), 50, None)));
        let all = h.json(None);
        let gets: Vec<f64> =
            all["points"].as_array().unwrap().iter().map(|p| p["gets"].as_f64().unwrap()).collect();
        assert!(gets.iter().all(|g| *g == 20.0), "{gets:?}");
        assert!(gets.len() >= 8, "{gets:?}");
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let h = History::default();
        let now = wall_milliseconds();
        h.add(&node("old"), [sample(now - HOUR_MILLISECONDS - 1, 1, None)]);
        assert!(h.nodes().is_empty());
        let many = u64::try_from(SAMPLES_MAX).unwrap() + 5;
        h.add(&node("a"), (0..many).map(|i| sample(now - many + i, i, None)));
        assert_eq!(h.of_node("a", 0).len(), SAMPLES_MAX);
    }
}
