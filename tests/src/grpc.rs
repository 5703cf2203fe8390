//! The client API as it is on the wire, without the retries of the Rust client: every failure is seen.

use crate::Res;
use crate::load::{Client, Connect, Fate};
use proto::codec::Codec;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::kv_client::KvClient;
use proto::v1::value::Kind;
use proto::v1::{GetRequest, PutRequest, PutResponse, StatusRequest, StatusResponse, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// Longer than a node tries by default, so that the node's own answer is seen.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that is made at the first call and again after it broke.
fn channel(endpoint: &str) -> Res<Channel> {
    let at = Endpoint::from_shared(format!("http://{endpoint}")).map_err(|e| format!("{endpoint}: {e}"))?;
    Ok(at.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect_lazy())
}

fn runtime() -> Res<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot make a runtime: {e}"))
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn told(endpoint: &str, status: &Status) -> String {
    format!("{endpoint}: {:?}: {}", status.code(), status.message())
}

/// A value of text.
pub fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// What a failed change came to. Only the node's own word counts as *not done*.
pub fn fate(endpoint: &str, status: &Status) -> Fate {
    let details = status.get_error_details();
    let outcome = details.error_info().and_then(|i| i.metadata.get("outcome")).map(String::as_str);
    let reason = told(endpoint, status);
    match outcome {
        Some("not_done") => Fate::NotDone(reason),
        _ => Fate::Unknown(reason),
    }
}

/// Clients that call the node's gRPC interface over one connection each.
pub fn by_grpc() -> Connect {
    Arc::new(|endpoint| Box::new(Grpc::new(endpoint).expect("an endpoint of a started node is an address")))
}

/// A blocking client of one node.
#[derive(Debug)]
pub struct Grpc {
    endpoint: String,
    channel: Channel,
    // Dropped after the channel that lives on it.
    runtime: Runtime,
}

impl Grpc {
    /// A client of the node at `endpoint`, not connected yet.
    pub fn new(endpoint: &str) -> Res<Grpc> {
        let runtime = runtime()?;
        let channel = {
            let _inside = runtime.enter();
            channel(endpoint)?
        };
        Ok(Grpc { endpoint: endpoint.to_owned(), channel, runtime })
    }

    /// The node's view of itself and its ring.
    pub fn status(&self) -> Res<StatusResponse> {
        let mut client = ClusterClient::new(self.channel.clone());
        self.runtime
            .block_on(client.status(call(StatusRequest {})))
            .map(|r| r.into_inner())
            .map_err(|s| told(&self.endpoint, &s))
    }

    /// Writes any value.
    pub fn put_value(&self, key: &str, value: Value) -> Result<u64, Status> {
        let mut client = KvClient::new(self.channel.clone());
        let request = PutRequest { key: key.to_owned(), value: Some(value), condition: None };
        self.runtime.block_on(client.put(call(request))).map(|r| r.into_inner().version)
    }
}

/// Calls Put with a message that is none: where the condition should be stand bytes without meaning.
pub fn put_nonsense(endpoint: &str) -> Res<Status> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut client = tonic::client::Grpc::new(channel(endpoint)?);
        client.ready().await.map_err(|e| format!("{endpoint}: {e}"))?;
        let nonsense = StatusResponse { ring: "\u{7}\u{7}".to_owned(), ..StatusResponse::default() };
        let path = PathAndQuery::from_static("/kvnode.v1.Kv/Put");
        let codec = Codec::<StatusResponse, PutResponse>::default();
        match client.unary(call(nonsense), path, codec).await {
            Ok(_) => Err("a message without meaning was accepted".to_owned()),
            Err(status) => Ok(status),
        }
    })
}

impl Client for Grpc {
    fn put(&mut self, key: &str, value: &str) -> Fate {
        match self.put_value(key, text(value)) {
            Ok(_) => Fate::Done,
            Err(status) => fate(&self.endpoint, &status),
        }
    }

    fn get(&mut self, key: &str) -> Res<Option<String>> {
        let mut client = KvClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.get(call(GetRequest { key: key.to_owned() })));
        match answer.map(|r| r.into_inner().value.and_then(|v| v.kind)) {
            Ok(Some(Kind::StringValue(text))) => Ok(Some(text)),
            Ok(other) => Err(format!("{key} holds {other:?}, not text")),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(told(&self.endpoint, &status)),
        }
    }
}

/// The status of the node at `endpoint`.
pub fn status(endpoint: &str) -> Res<StatusResponse> {
    Grpc::new(endpoint)?.status()
}

/// Whether the node sees exactly `n` live members and nobody lost.
pub fn sees_members(endpoint: &str, n: usize) -> Res<()> {
    let status = status(endpoint)?;
    match usize::try_from(status.members_alive) {
        Ok(seen) if seen == n => Ok(()),
        _ => Err(format!("it sees {} alive, {} lost", status.members_alive, status.members_lost)),
    }
}

/// Whether the node sees every replica of every key alive and complete, and any one node may be lost.
pub fn sees_full_strength(endpoint: &str) -> Res<()> {
    let status = status(endpoint)?;
    if status.fully_replicated && status.tolerated_failures >= 1 {
        return Ok(());
    }
    Err(format!("it can lose {} nodes; findings: {:?}", status.tolerated_failures, status.findings))
}
