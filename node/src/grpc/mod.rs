//! The gRPC services of package `kvnode.v1` over the event loop.
//!
//! A call is turned into a request of the core, handed to the event loop, and its reply into an answer or a
//! status. If the client goes away the future is dropped and the core finishes the operation on its own.

mod cluster;
mod kv;
mod problem;
mod transactions;

pub(crate) use problem::phase_text;
pub use problem::{Problem, closed, failure, refusal, unexpected};

use crate::dashboard::{History, Journal, SettingShown};
use crate::handle::NodeHandle;
use crate::metrics::Traffic;
use crate::peer::Peers;
use crate::scalaris::VirtualNodes;
use crate::traces::{Parent, parent_of};
use proto::v1::cluster_server::ClusterServer;
use proto::v1::kv_server::KvServer;
use proto::v1::transactions_server::TransactionsServer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What the client interfaces know of the process they belong to.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// The program's version.
    pub version: &'static str,
    /// Where the node talks to other nodes.
    pub overlay_addr: SocketAddr,
    /// Where it answers clients.
    pub client_addr: SocketAddr,
    /// When the process started.
    pub started: Instant,
    /// Keys longer than this are refused.
    pub key_bytes_max: usize,
    /// Values longer than this are refused.
    pub value_bytes_max: usize,
    /// Longer lists of operations are refused.
    pub batch_operations_max: usize,
    /// Connections open at once; further ones are told so.
    pub connections_max: usize,
    /// Longer bodies of JSON-RPC are refused.
    pub jsonrpc_bytes_max: usize,
    /// The nodes that the process has besides its first; none if it cannot have any.
    pub virtual_nodes: Option<Arc<VirtualNodes>>,
    /// A read through a quorum is tried once in this time, for readiness.
    pub probe_interval: Duration,
    /// What the event loop and the transport count.
    pub traffic: Arc<Traffic>,
    /// The transport, if there is one.
    pub peers: Option<Arc<Peers>>,
    /// What happened lately.
    pub journal: Journal,
    /// The last hour in numbers.
    pub history: History,
    /// Whether operations may be traced, and clients' spans are looked for.
    pub is_tracing: bool,
    /// The settings, to be shown.
    pub settings: Vec<SettingShown>,
}

impl ServerInfo {
    /// The program's version and the default limits; started now.
    pub fn new(overlay_addr: SocketAddr, client_addr: SocketAddr) -> ServerInfo {
        let core = dht::Config::default();
        ServerInfo {
            version: env!("CARGO_PKG_VERSION"),
            overlay_addr,
            client_addr,
            started: Instant::now(),
            key_bytes_max: core.key_bytes_max,
            value_bytes_max: core.value_bytes_max,
            batch_operations_max: 1000,
            connections_max: 10_000,
            jsonrpc_bytes_max: 1 << 20,
            virtual_nodes: None,
            probe_interval: Duration::from_secs(1),
            traffic: Arc::default(),
            peers: None,
            journal: Journal::default(),
            history: History::default(),
            is_tracing: false,
            settings: Vec::new(),
        }
    }

    /// Messages that wait to be written to peers.
    pub fn messages_waiting(&self) -> usize {
        self.peers.as_ref().map_or(0, |p| p.waiting())
    }

    /// The longest gRPC message that is read: the largest key and value, and a little around them.
    pub fn message_bytes_max(&self) -> usize {
        self.key_bytes_max + self.value_bytes_max + (64 << 10)
    }
}

/// The implementation of all services. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Api {
    handle: NodeHandle,
    info: Arc<ServerInfo>,
}

impl Api {
    /// The services of the node behind `handle`.
    pub fn new(handle: NodeHandle, info: Arc<ServerInfo>) -> Api {
        Api { handle, info }
    }

    /// The event loop behind them.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// The client's span that a call is part of.
    fn parent<T>(&self, call: &tonic::Request<T>) -> Option<Parent> {
        self.info.is_tracing.then(|| parent_of(call.metadata())).flatten()
    }

    /// What they know of the process.
    pub fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// The same, shared.
    pub fn info_shared(&self) -> Arc<ServerInfo> {
        Arc::clone(&self.info)
    }

    /// `kvnode.v1.Kv`.
    pub fn kv(&self) -> KvServer<Api> {
        let max = self.info.message_bytes_max();
        KvServer::new(self.clone()).max_decoding_message_size(max).max_encoding_message_size(usize::MAX)
    }

    /// `kvnode.v1.Transactions`.
    pub fn transactions(&self) -> TransactionsServer<Api> {
        let max = self.info.message_bytes_max();
        TransactionsServer::new(self.clone())
            .max_decoding_message_size(max)
            .max_encoding_message_size(usize::MAX)
    }

    /// `kvnode.v1.Cluster`.
    pub fn cluster(&self) -> ClusterServer<Api> {
        ClusterServer::new(self.clone())
    }
}
