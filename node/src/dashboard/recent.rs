//! Transactions that ended lately and keys that are used much: this node's own, and what it gathered from the
//! others.
//!
//! Keeps:
//! 1. So many transactions of this node, and so many of all others, are held, whatever clients do.

use super::hot_keys::HotKeys;
use super::journal::wall_milliseconds;
use core::time::Duration;
use dht::Failure;
use dht::tx::report::{TxEnd, TxReport};
use parking_lot::Mutex;
use proto::v1::{HotKey, Node, RecentTransaction, TransactionEnd, TransactionKey, TransactionPhase};
use ring::Time;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, VecDeque};
use store::Key;

/// Transactions kept, of this node and of all others.
const TRANSACTIONS_MAX: usize = 200;
/// Transactions of this node that are told to another at once.
const TOLD_MAX: usize = 50;
/// Other nodes whose hot keys are kept.
const NODES_MAX: usize = 200;
/// Bytes of a key that are shown.
const KEY_SHOWN_BYTES_MAX: usize = 96;
/// What others told of their keys counts for so long.
const HOT_MILLISECONDS: u64 = 60_000;
/// Operations of a span are told by the second.
const SPAN_SECONDS: f64 = 5.0;

/// Hot keys as another node told them.
#[derive(Debug)]
struct OfOther {
    address: String,
    at_milliseconds: u64,
    keys: Vec<HotKey>,
}

#[derive(Debug, Default)]
struct Inner {
    own: VecDeque<RecentTransaction>,
    last: u64,
    /// Transactions of others, by the time of their end.
    others: BTreeMap<(u64, String, u64), (String, RecentTransaction)>,
    hot: BTreeMap<String, OfOther>,
}

/// What was done lately, for people. Shared by the event loop, which notes, and whoever shows it.
#[derive(Debug, Default)]
pub struct Recent {
    inner: Mutex<Inner>,
    pub(crate) hot: HotKeys,
}

fn shown(key: &Key) -> String {
    let text = String::from_utf8_lossy(key.as_bytes());
    if text.len() <= KEY_SHOWN_BYTES_MAX {
        return text.into_owned();
    }
    let mut end = KEY_SHOWN_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn microseconds(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn end_of(r: &TxReport) -> (TransactionEnd, String) {
    let not_done = |reason: &str| (TransactionEnd::NotDone, reason.to_owned());
    match &r.end {
        TxEnd::Committed => (TransactionEnd::Committed, String::new()),
        TxEnd::Failed(key) => (TransactionEnd::Failed, format!("the operation on {} failed", shown(key))),
        TxEnd::Conflict if r.met.is_empty() => {
            (TransactionEnd::Conflict, "others took this node for dead and aborted it".to_owned())
        }
        TxEnd::Conflict => (TransactionEnd::Conflict, "others changed or held its keys".to_owned()),
        TxEnd::Unanswered(f) => match f {
            Failure::NotReady { .. } => not_done("the node does not serve"),
            Failure::Unavailable { .. } => not_done("no quorum answered"),
            Failure::Busy => not_done("a queue is full"),
            Failure::Full => not_done("memory is full"),
            Failure::KeyReserved | Failure::KeyNotInLog | Failure::TooManyKeys { .. } => {
                not_done("wrong keys")
            }
            Failure::KeyTooLong { .. } | Failure::ValueTooLong { .. } => not_done("too long"),
            Failure::Unknown { .. } => (TransactionEnd::Unknown, "nobody could be asked whether".to_owned()),
        },
    }
}

fn of_report(number: u64, at_milliseconds: u64, r: &TxReport) -> RecentTransaction {
    let (end, reason) = end_of(r);
    let phase = |(phase, at): &(dht::tx::report::TxPhase, Time)| TransactionPhase {
        name: phase.name().to_owned(),
        after_microseconds: microseconds(at.since(r.began)),
    };
    let key = |(key, written): &(Key, bool)| TransactionKey { key: shown(key), written: *written };
    RecentTransaction {
        number,
        at_milliseconds,
        took_microseconds: microseconds(r.ended.since(r.began)),
        end: i32::from(end),
        reason,
        phases: r.phases.iter().map(phase).collect(),
        conflicts: r.conflicts,
        conflict_keys: r.met.iter().map(shown).collect(),
        keys: r.keys.iter().map(key).collect(),
        keys_count: small(r.keys_count),
        writes_count: small(r.writes_count),
    }
}

impl Recent {
    /// A transaction of a client ended.
    pub fn note(&self, report: &TxReport) {
        report.met.iter().for_each(|k| self.hot.met(k));
        let mut inner = self.inner.lock();
        inner.last += 1;
        if inner.own.len() >= TRANSACTIONS_MAX {
            inner.own.pop_front();
        }
        let transaction = of_report(inner.last, wall_milliseconds(), report);
        inner.own.push_back(transaction);
    }

    /// The latest of this node after a time.
    pub fn after(&self, milliseconds: u64) -> Vec<RecentTransaction> {
        let inner = self.inner.lock();
        let skipped = inner.own.len().saturating_sub(TOLD_MAX);
        inner.own.iter().skip(skipped).filter(|t| t.at_milliseconds > milliseconds).cloned().collect()
    }

    /// The hot keys of this node.
    pub fn hot_keys(&self) -> Vec<HotKey> {
        let told = |h: super::hot_keys::Hot| HotKey {
            key: shown(&h.key),
            operations_per_second: h.operations / SPAN_SECONDS,
            conflicts: h.conflicts,
        };
        self.hot.top().into_iter().map(told).collect()
    }

    /// What another node told.
    pub(super) fn add(&self, node: &Node, transactions: Vec<RecentTransaction>, keys: Vec<HotKey>) {
        let mut inner = self.inner.lock();
        for t in transactions.into_iter().take(TOLD_MAX) {
            let at = (t.at_milliseconds, node.id.clone(), t.number);
            inner.others.insert(at, (node.overlay_address.clone(), t));
        }
        while inner.others.len() > TRANSACTIONS_MAX {
            inner.others.pop_first();
        }
        let now = wall_milliseconds();
        inner.hot.retain(|_, o| o.at_milliseconds + HOT_MILLISECONDS > now);
        if inner.hot.len() < NODES_MAX || inner.hot.contains_key(&node.id) {
            let address = node.overlay_address.clone();
            inner.hot.insert(node.id.clone(), OfOther { address, at_milliseconds: now, keys });
        }
    }

    /// Everything, the newest transaction first; `me` is this node.
    pub(super) fn json(&self, me: &Node) -> Json {
        let own_keys = self.hot_keys();
        let inner = self.inner.lock();
        let own = inner.own.iter().map(|t| (me.id.as_str(), me.overlay_address.as_str(), t));
        let others = inner.others.iter().map(|((_, id, _), (address, t))| (id.as_str(), address.as_str(), t));
        let mut all: Vec<_> = own.chain(others).collect();
        all.sort_by_key(|(id, _, t)| {
            (std::cmp::Reverse(t.at_milliseconds), *id, std::cmp::Reverse(t.number))
        });
        all.truncate(TRANSACTIONS_MAX);
        let transactions: Vec<Json> =
            all.into_iter().map(|(id, address, t)| transaction(id, address, t)).collect();
        let own = own_keys.iter().map(|k| (me.overlay_address.as_str(), k));
        let others = inner.hot.values().flat_map(|o| o.keys.iter().map(|k| (o.address.as_str(), k)));
        json!({ "transactions": transactions, "hot_keys": hottest(own.chain(others)) })
    }
}

fn transaction(id: &str, address: &str, t: &RecentTransaction) -> Json {
    let phases: Vec<Json> =
        t.phases.iter().map(|p| json!({ "name": p.name, "after": p.after_microseconds })).collect();
    let keys: Vec<Json> = t.keys.iter().map(|k| json!({ "key": k.key, "written": k.written })).collect();
    let end = t.end().as_str_name().trim_start_matches("TRANSACTION_END_").to_ascii_lowercase();
    json!({
        "node": id, "overlay_address": address, "number": t.number, "at": t.at_milliseconds,
        "took": t.took_microseconds, "end": end, "reason": t.reason, "phases": phases,
        "conflicts": t.conflicts, "conflict_keys": t.conflict_keys, "keys": keys,
        "keys_count": t.keys_count, "writes_count": t.writes_count,
    })
}

/// What all nodes tell of a key, added up.
fn hottest<'a>(told: impl Iterator<Item = (&'a str, &'a HotKey)>) -> Vec<Json> {
    let mut by_key: BTreeMap<&str, (f64, f64, Vec<&str>)> = BTreeMap::new();
    for (address, k) in told {
        let all = by_key.entry(k.key.as_str()).or_default();
        all.0 += k.operations_per_second;
        all.1 += k.conflicts;
        all.2.push(address);
    }
    let mut all: Vec<_> = by_key.into_iter().collect();
    let weight = |x: &(&str, (f64, f64, Vec<&str>))| x.1.0 + x.1.1;
    all.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    let one = |(key, (operations, conflicts, nodes)): (&str, (f64, f64, Vec<&str>))| json!({ "key": key, "operations": operations, "conflicts": conflicts, "nodes": nodes });
    all.into_iter().take(20).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dht::tx::report::TxPhase;

    fn report(end: TxEnd) -> TxReport {
        TxReport {
            began: Time(1000),
            ended: Time(4000),
            phases: vec![(TxPhase::Read, Time(1000)), (TxPhase::Lock, Time(2500))],
            conflicts: 1,
            met: vec![Key::new(b"k")],
            keys: vec![(Key::new("ü".repeat(100).as_bytes()), true)],
            keys_count: 3,
            writes_count: 1,
            end,
        }
    }

    fn node(id: &str) -> Node {
        Node { id: id.to_owned(), overlay_address: format!("{id}:1") }
    }

    #[test]
    fn own_transactions_and_those_of_others_are_shown_together_and_once() {
        let recent = Recent::default();
        recent.note(&report(TxEnd::Conflict));
        let other = Recent::default();
        other.note(&report(TxEnd::Committed));
        for _ in 0..2 {
            recent.add(&node("b"), other.after(0), other.hot_keys());
        }
        let all = recent.json(&node("a"));
        let transactions = all["transactions"].as_array().expect("a list");
        assert_eq!(transactions.len(), 2, "{all}");
        let own = transactions.iter().find(|t| t["node"] == "a").expect("the own one");
        assert_eq!(
            (&own["end"], &own["took"], &own["conflict_keys"][0]),
            (&json!("conflict"), &json!(3000), &json!("k"))
        );
        assert_eq!(own["phases"][1], json!({ "name": "lock", "after": 1500 }));
        assert!(own["keys"][0]["key"].as_str().is_some_and(|k| k.len() <= 99 && k.ends_with('…')), "{own}");
        let hot = &all["hot_keys"][0];
        assert_eq!(
            (&hot["key"], &hot["conflicts"], &hot["nodes"]),
            (&json!("k"), &json!(2.0), &json!(["a:1", "b:1"]))
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recent = Recent::default();
        for i in 0..1000 {
            recent.note(&report(TxEnd::Committed));
            let one = RecentTransaction { number: i, at_milliseconds: i, ..RecentTransaction::default() };
            recent.add(&node(&format!("n{i}")), vec![one], Vec::new());
        }
        let inner = recent.inner.lock();
        assert_eq!((inner.own.len(), inner.others.len()), (TRANSACTIONS_MAX, TRANSACTIONS_MAX));
        assert_eq!((inner.hot.len(), inner.last), (NODES_MAX, 1000));
    }
}
