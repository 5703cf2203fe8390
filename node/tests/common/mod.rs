//! A node without a ring: the client port in front of a map that answers as the core would.

#![allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

pub(crate) mod three;

use dht::api::{
    Held, Insight, Location, MemberView, Phase, PieceCounts, PieceView, Status, Transact, Transacted,
    TxOutcome,
};
use dht::counters::Rounds;
use dht::tx::{LogEntry, TxLog};
use dht::{Failure, Reply, Request};
use kvnode::grpc::ServerInfo;
use kvnode::handle::{Call, NodeHandle};
use kvnode::http::serve_clients;
use ring::members::{MemberInfo, MemberState};
use ring::{NodeId, NodeRef, Position, RingId, Space};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Key, Outcome, Record, Seen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Changes of this key have an unknown outcome.
pub(crate) const LOST_KEY: &str = "lost";
/// Operations on this key find no quorum.
pub(crate) const DEAD_KEY: &str = "dead";
/// Operations on this key are never answered.
pub(crate) const SILENT_KEY: &str = "silent";
/// Operations on this key find no quorum the first two times.
pub(crate) const SHAKY_KEY: &str = "shaky";

pub(crate) struct FakeNode {
    pub(crate) addr: SocketAddr,
    pub(crate) phase: Arc<Mutex<Phase>>,
    pub(crate) changes: Arc<AtomicU64>,
    pub(crate) stop: CancellationToken,
}

struct Map {
    me: NodeRef,
    client: SocketAddr,
    records: BTreeMap<Key, Record>,
    n: u64,
    shaky: u32,
    phase: Arc<Mutex<Phase>>,
    changes: Arc<AtomicU64>,
}

/// What is answered to a request of HTTP/1.1 that closes the connection.
pub(crate) async fn http_exchange(addr: SocketAddr, request: String) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The body of a page.
pub(crate) async fn http_get(addr: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    http_exchange(addr, request).await.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Starts one on a free port of loopback.
pub(crate) async fn fake_node() -> FakeNode {
    fake_node_of(10_000).await
}

/// Starts one that serves so many connections.
pub(crate) async fn fake_node_of(connections_max: usize) -> FakeNode {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (handle, mut calls) = NodeHandle::channel(64);
    let me = NodeRef { id: NodeId(u64::from(addr.port())), addr: "127.0.0.1:14195".parse().unwrap() };
    let phase = Arc::new(Mutex::new(Phase::Member));
    let changes = Arc::new(AtomicU64::new(0));
    let mut map = Map {
        me,
        client: addr,
        records: BTreeMap::new(),
        n: 0,
        shaky: 2,
        phase: Arc::clone(&phase),
        changes: Arc::clone(&changes),
    };
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Some(Call { request, reply, .. }) = calls.recv().await {
            match map.answer(request) {
                Some(answer) => drop(reply.send(answer)),
                None => silent.push(reply),
            }
        }
    });
    let stop = CancellationToken::new();
    let info = ServerInfo {
        probe_interval: Duration::from_millis(100),
        value_bytes_max: 1 << 20,
        key_bytes_max: 1 << 10,
        connections_max,
        ..ServerInfo::new(me.addr, addr)
    };
    tokio::spawn(serve_clients(listener, handle, info, stop.clone()));
    FakeNode { addr, phase, changes, stop }
}

impl Map {
    fn answer(&mut self, request: Request) -> Option<Reply> {
        let key = match &request {
            Request::Get { key } | Request::Change { key, .. } => key.clone(),
            _ => Key::new(b""),
        };
        let waited = Duration::from_millis(700);
        let (size_bytes, limit_bytes) = (key.as_bytes().len(), 1 << 10);
        if size_bytes > limit_bytes {
            return Some(Reply::Failed(Failure::KeyTooLong { size_bytes, limit_bytes }));
        }
        if key == Key::new(SILENT_KEY.as_bytes()) {
            return None;
        }
        if key == Key::new(DEAD_KEY.as_bytes()) {
            return Some(Reply::Failed(Failure::Unavailable { waited }));
        }
        if key == Key::new(SHAKY_KEY.as_bytes()) && self.shaky > 0 {
            self.shaky -= 1;
            return Some(Reply::Failed(Failure::Unavailable { waited }));
        }
        Some(match request {
            Request::Get { key } => {
                let r = self.records.get(&key).cloned().unwrap_or_default();
                Reply::Value { value: r.value, version: r.version }
            }
            Request::Change { key, .. } if key == Key::new(LOST_KEY.as_bytes()) => {
                self.changes.fetch_add(1, Ordering::SeqCst);
                Reply::Failed(Failure::Unknown { waited })
            }
            Request::Change { key, change } => {
                self.changes.fetch_add(1, Ordering::SeqCst);
                let record = self.records.entry(key).or_default();
                match change.apply(record, 1 << 20) {
                    Outcome::Write(value) => {
                        self.n += 1;
                        record.version = self.n;
                        record.value = value;
                        let value = record.value.clone().filter(|_| change.answers_value());
                        Reply::Changed { version: self.n, value }
                    }
                    Outcome::Nothing => Reply::Changed { version: record.version, value: None },
                    Outcome::Refused(refusal) => {
                        Reply::Refused { refusal, version: record.version, value: record.value.clone() }
                    }
                }
            }
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Members => Reply::Members(vec![self.member()]),
            Request::Ring => Reply::Ring(self.pieces()),
            Request::Locate { key } => Reply::Located(Box::new(self.locate(&key))),
            Request::Transact(t) => Reply::Transacted(Box::new(self.transact(*t))),
            Request::Scan { from, to, .. } => Reply::Scanned { held: self.held(from, to), is_more: false },
            Request::Leave => {
                *self.phase.lock().unwrap() = Phase::Left;
                Reply::Left { is_clean: true }
            }
            Request::Start { .. } | Request::Seeds(_) => Reply::Ok,
            Request::Insight => Reply::Insight(Box::new(self.insight())),
            Request::Inspect { .. } => Reply::Inspected(Vec::new()),
            Request::Salvage { .. } => Reply::Salvaged(Box::default()),
            Request::Dissolve { .. } => Reply::Dissolved(Box::default()),
        })
    }

    fn space() -> Space {
        Space::new(3).unwrap()
    }

    fn status(&self) -> Status {
        Status {
            node: self.me,
            phase: *self.phase.lock().unwrap(),
            ring: Some(RingId(7)),
            replication_factor: 3,
            members_alive: 1,
            members_lost: 0,
            members_suspected: 0,
            tolerated_failures: 0,
            is_fully_replicated: true,
            keys: u64::try_from(self.records.len()).unwrap(),
            bytes: 100,
            bytes_max: 1 << 30,
            pieces: 3,
            operations_open: 0,
            foreign_ring: None,
            lineage: 0,
        }
    }

    fn insight(&self) -> Insight {
        Insight {
            pieces: PieceCounts { active: 3, ..PieceCounts::default() },
            intervals: 1,
            intervals_under_replicated: 0,
            reigns: 1,
            rounds: Rounds::default(),
            operations_open: 0,
            operations_waiting_at_homes: 0,
            records_in_flight: 0,
            effects_waiting: 0,
            handovers_running: 0,
            replacements_running: 0,
            view_disagreements: 0,
        }
    }

    fn member(&self) -> MemberView {
        MemberView {
            info: MemberInfo {
                node: self.me,
                client_addr: Some(self.client),
                incarnation: 1,
                state: MemberState::Alive,
                end: 42,
                owned: Vec::new(),
                keys: 0,
                bytes: 0,
                extra: Vec::new(),
            },
            is_suspected: false,
            heard_ago: Duration::from_millis(3),
            round_trip: None,
        }
    }

    fn pieces(&self) -> Vec<PieceView> {
        let whole = Map::space().whole();
        let piece = |slot| PieceView { slot, extent: whole, owner: Some(self.me), is_live: true };
        Map::space().slots().map(piece).collect()
    }

    fn seen(&self, key: &Key) -> Seen {
        self.records.get(key).map_or(Seen::Absent(0), |r| Seen::of(r.version, r.value.is_some()))
    }

    fn transact(&mut self, t: Transact) -> Transacted {
        let mut log = t.log;
        for key in log.missing(&t.steps) {
            let r = self.records.get(&key).cloned().unwrap_or_default();
            log.note(&key, r.version, r.value);
        }
        let results = log.execute(&t.steps, 1 << 20);
        if !t.commit {
            return Transacted { log, results, outcome: TxOutcome::Open };
        }
        let log = core::mem::take(&mut log);
        let is_stale =
            |(key, e): (&Key, &LogEntry)| (!e.seen.still_holds(self.seen(key))).then(|| key.clone());
        let conflicts: Vec<Key> = log.entries.iter().filter_map(is_stale).collect();
        let outcome = match log.failed {
            Some(key) => TxOutcome::Failed(key),
            None if !conflicts.is_empty() => TxOutcome::Conflict(conflicts),
            None => {
                self.n += 1;
                let mut written = Vec::new();
                for (key, entry) in log.entries {
                    let Some(value) = entry.write else { continue };
                    written.push((key.clone(), self.n));
                    self.records.insert(key, Record { version: self.n, value, ops: None });
                }
                TxOutcome::Committed(written)
            }
        };
        Transacted { log: TxLog::default(), results, outcome }
    }

    fn held(&self, from: Position, to: Position) -> Vec<Held> {
        let mut held = Vec::new();
        for (key, record) in &self.records {
            let Some(value) = &record.value else { continue };
            let replicas = self.locate(key).replicas;
            for (position, _) in replicas.into_iter().filter(|(p, _)| (from..=to).contains(p)) {
                held.push(Held { position, key: key.clone(), value: value.clone(), version: record.version });
            }
        }
        held
    }

    fn locate(&self, key: &Key) -> Location {
        let space = Map::space();
        let (home, offset) = space.locate(key.as_bytes());
        Location {
            home,
            replicas: space.slots().map(|s| (space.position(s, offset), Some(self.me))).collect(),
        }
    }
}
