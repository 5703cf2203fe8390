//! The Rust client of kvnode, a peer-to-peer strongly consistent key-value store.
//!
//! A [`Client`] keeps connections to several nodes, fails over between them, asks the node that serves a key
//! directly where it can, and repeats what is safe to repeat within a deadline. It never repeats a write of
//! which the outcome is not known: that is [`Error::Unknown`], and everything else was definitely not done.
//!
//! ```no_run
//! use client::{Client, Condition, Value};
//!
//! # async fn example() -> Result<(), client::Error> {
//! let kv = Client::connect(["10.2.1.3:8000", "10.2.1.4:8000"]).await?;
//! let version = kv.put("greeting", Value::string("hello")).await?;
//! let entry = kv.get("greeting").await?.expect("it was just written");
//! assert_eq!((entry.value.as_str(), entry.version), (Some("hello"), version));
//!
//! // Replaces the value only if nobody changed it in between.
//! kv.put_if("greeting", Value::string("hello again"), Condition::Version(version)).await?;
//! # Ok(())
//! # }
//! ```

mod batch;
mod calls;
mod error;
mod pool;
mod route;
mod transaction;

pub use batch::{Answer, Operation};
pub use error::{Detail, Error, Outcome};
pub use proto::v1;
pub use store::{Condition, Data, Value};
pub use transaction::Transaction;

use error::Failed;
use parking_lot::RwLock;
use pool::Node;
use proto::v1::cluster_client::ClusterClient;
use route::Routes;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

/// The pause after the first failed attempt; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// The members and the ring are asked for again after this, when the client is used.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);

/// A key's value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Its version; it grows with each change of the key.
    pub version: u64,
}

/// What came of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether the key was there.
    pub existed: bool,
    /// The version of the deletion, or the one remembered.
    pub version: u64,
}

/// How a client is to behave; see [`Client::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    endpoints: Vec<String>,
    deadline: Duration,
    connect_timeout: Duration,
    connections: usize,
    is_routing: bool,
}

impl Builder {
    /// How long an operation may take with all its attempts. Default: 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// How long a connection may take to be made. Default: 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.connect_timeout = timeout;
        self
    }

    /// Connections to each node, used in turn. Default: 1.
    pub fn connections(mut self, connections: usize) -> Builder {
        self.connections = connections;
        self
    }

    /// Whether to learn the members and ask the node that serves a key first. Default: yes. Nodes that cannot
    /// be reached under the address they advertise are left out.
    pub fn routes_to_home(mut self, is_routing: bool) -> Builder {
        self.is_routing = is_routing;
        self
    }

    /// Connects to one of the endpoints.
    pub async fn connect(self) -> Result<Client, Error> {
        let node = |e: &String| Arc::new(Node::new(e, self.connections, self.connect_timeout));
        let given: Vec<Arc<Node>> = self.endpoints.iter().map(node).collect();
        let client = Client(Arc::new(Inner {
            given,
            learned: RwLock::new(BTreeMap::new()),
            routes: RwLock::new(None),
            refreshed: RwLock::new(None),
            turn: AtomicUsize::new(0),
            config: self,
        }));
        let mut tried = Vec::new();
        for node in &client.0.given {
            match node.channel().await {
                Ok(_) => return Ok(client),
                Err(Error::CannotConnect { tried: why }) => tried.extend(why),
                Err(other) => return Err(other),
            }
            node.rest();
        }
        Err(Error::CannotConnect { tried })
    }
}

/// A cloneable client; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    given: Vec<Arc<Node>>,
    /// Members that answered under their advertised address, by node id.
    learned: RwLock<BTreeMap<String, Arc<Node>>>,
    routes: RwLock<Option<Arc<Routes>>>,
    refreshed: RwLock<Option<Instant>>,
    turn: AtomicUsize,
    config: Builder,
}

impl Client {
    /// Connects with the defaults to any of `endpoints`, each `HOST:PORT`.
    pub async fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Client, Error> {
        Client::builder(endpoints).connect().await
    }

    /// A client to be configured before it connects.
    pub fn builder<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Builder {
        Builder {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            connections: 1,
            is_routing: true,
        }
    }

    /// How long a transaction may take with everything that it is begun anew for.
    pub(crate) fn transaction_deadline(&self) -> Duration {
        self.0.config.deadline
    }

    /// The node to try in attempt number `attempt`.
    fn pick(&self, key: Option<&str>, attempt: usize) -> Option<Arc<Node>> {
        let inner = &self.0;
        if attempt == 0
            && let Some(key) = key
            && let Some(home) = inner.routes.read().as_ref().and_then(|r| r.home(key))
        {
            return Some(Arc::clone(home));
        }
        let learned = inner.learned.read();
        let all = || inner.given.iter().chain(learned.values());
        // The endpoints in the order given, from the one that answered last; those that rest come last.
        let turn = inner.turn.load(Ordering::Relaxed);
        let n = inner.given.len() + learned.len();
        let rotated = || all().cycle().skip(turn % n.max(1)).take(n);
        let fit = rotated().find(|node| node.is_fit());
        fit.or_else(|| rotated().next()).cloned()
    }

    /// Runs `call` until it has an answer, a failure that must not be repeated, or the deadline passes.
    async fn run<T, F, A>(&self, key: Option<&str>, is_read: bool, call: F) -> Result<(T, Arc<Node>), Error>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<T, Status>>,
    {
        self.refresh_in_background();
        let begin = Instant::now();
        let deadline = begin + self.0.config.deadline;
        let mut pause = BACKOFF_MIN;
        let mut attempt = 0;
        loop {
            let Some(node) = self.pick(key, attempt) else {
                return Err(Error::CannotConnect { tried: Vec::new() });
            };
            let failed = match node.channel().await {
                Err(error) => Failed { error, is_safe_to_retry: true, is_connection: true },
                Ok(channel) => match tokio::time::timeout_at(deadline, call(channel)).await {
                    Ok(Ok(answer)) => return Ok((answer, node)),
                    Ok(Err(status)) => error::failed(&status, &node.address, is_read),
                    Err(_) => return Err(Error::timed_out(&node.address, begin.elapsed())),
                },
            };
            if failed.is_connection {
                node.rest();
            }
            let at_home = attempt == 0 && !self.0.given.iter().any(|g| Arc::ptr_eq(g, &node));
            if !at_home {
                self.0.turn.fetch_add(1, Ordering::Relaxed);
            }
            attempt += 1;
            let is_untried = failed.is_connection && attempt <= self.0.given.len();
            let wait = if is_untried { Duration::ZERO } else { jittered(pause) };
            if !failed.is_safe_to_retry || Instant::now() + wait >= deadline {
                return Err(failed.error);
            }
            if !is_untried {
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        }
    }

    /// Learns members and ring anew if that was long ago, beside the operation that is going on.
    fn refresh_in_background(&self) {
        if !self.0.config.is_routing {
            return;
        }
        let is_fresh = |r: &Option<Instant>| r.is_some_and(|t| t.elapsed() < REFRESH_INTERVAL);
        if is_fresh(&self.0.refreshed.read()) {
            return;
        }
        {
            let mut refreshed = self.0.refreshed.write();
            if is_fresh(&refreshed) {
                return;
            }
            *refreshed = Some(Instant::now());
        }
        let client = self.clone();
        tokio::spawn(async move { client.refresh().await });
    }

    async fn refresh(&self) {
        let Some(node) = self.pick(None, 0) else { return };
        let Ok(channel) = node.channel().await else { return };
        let mut cluster = ClusterClient::new(channel);
        let Ok(members) = cluster.members(v1::MembersRequest {}).await else { return };
        let Ok(ring) = cluster.ring(v1::RingRequest {}).await else { return };
        let mut present = BTreeMap::new();
        for member in members.into_inner().members {
            let Some(id) = member.node.map(|n| n.id) else { continue };
            let is_up = member.state == i32::from(v1::member::State::Alive);
            if !is_up || member.client_address.is_empty() {
                continue;
            }
            let known = self.0.learned.read().get(&id).cloned();
            let node = match known {
                Some(node) => Some(node),
                None => self.meet(&id, &member.client_address).await,
            };
            if let Some(node) = node {
                present.insert(id, node);
            }
        }
        let routes = Routes::new(ring.get_ref(), &present).map(Arc::new);
        *self.0.learned.write() = present;
        *self.0.routes.write() = routes;
    }

    /// Connects to a member under its advertised address and makes sure that it is the one.
    async fn meet(&self, id: &str, address: &str) -> Option<Arc<Node>> {
        let config = &self.0.config;
        let given = self.0.given.iter().find(|n| n.address == address).cloned();
        let node =
            given.unwrap_or_else(|| Arc::new(Node::new(address, config.connections, config.connect_timeout)));
        let channel = node.channel().await.ok()?;
        let mut cluster = ClusterClient::new(channel);
        let status = cluster.status(v1::StatusRequest {});
        let status = tokio::time::timeout(config.connect_timeout, status).await.ok()?.ok()?.into_inner();
        (status.node?.id == id).then_some(node)
    }
}

fn jittered(pause: Duration) -> Duration {
    let percent = RandomState::new().hash_one(0u8) % 50;
    pause + pause * u32::try_from(percent).unwrap_or(0) / 100
}
