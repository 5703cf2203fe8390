//! What the ring and this process say of themselves: the page `monitor`, and the ring's size.

use super::{Scalaris, ok, unexpected};
use core::time::Duration;
use dht::api::MemberView;
use dht::{Reply, Request as Ask};
use jsonrpc::Json;
use jsonrpc::call::MonitorCall;
use jsonrpc::envelope::Error;
use ring::members::MemberState;
use tokio::time::{Instant, sleep, timeout};

/// A ring's size is waited for no longer than this, whatever is asked.
const RING_SIZE_WAIT_MAX: Duration = Duration::from_secs(300);
/// Between two looks at the ring's size.
const RING_SIZE_PAUSE: Duration = Duration::from_millis(100);
/// There is no Erlang here; the member has to be a string.
pub(super) const ERLANG_VERSION: &str = "none";

impl Scalaris {
    /// The program as Scalaris' version.
    pub(super) fn version(&self) -> Json {
        Json::String(format!("kvnode {}", self.info.version))
    }

    /// The members that are alive.
    pub(super) async fn members_alive(&self) -> Result<Vec<MemberView>, Error> {
        let reply = self.ask(Ask::Members).await?;
        let Reply::Members(mut members) = reply else { return Err(unexpected(&reply)) };
        members.retain(|m| m.info.state == MemberState::Alive && !m.is_suspected);
        members.sort_by_key(|m| m.info.node.id);
        Ok(members)
    }

    /// The nodes of this process.
    pub(super) async fn nodes_here(&self) -> usize {
        match &self.info.virtual_nodes {
            Some(nodes) => 1 + nodes.names().await.len(),
            None => 1,
        }
    }

    pub(super) async fn monitor(&self, call: MonitorCall) -> Result<Json, Error> {
        match call {
            MonitorCall::NodeInfo => Ok(ok(Json::object([
                ("scalaris_version", self.version()),
                ("erlang_version", Json::string(ERLANG_VERSION)),
                ("dht_nodes", Json::integer(self.nodes_here().await)),
            ]))),
            MonitorCall::ServiceInfo => {
                let members = self.members_alive().await?;
                let load: u64 = members.iter().map(|m| m.info.keys).sum();
                let nodes = members.len();
                Ok(ok(Json::object([("total_load", Json::integer(load)), ("nodes", Json::integer(nodes))])))
            }
            // What other nodes measured is theirs to tell.
            MonitorCall::NodePerformance | MonitorCall::ServicePerformance => Ok(ok(self.latencies.json())),
        }
    }

    async fn size(&self) -> Option<usize> {
        self.status().await.ok().map(|s| s.members_alive)
    }

    pub(super) async fn ring_size(&self, within: Duration) -> Json {
        let within = within.clamp(RING_SIZE_PAUSE, RING_SIZE_WAIT_MAX);
        match timeout(within, self.size()).await {
            Ok(Some(size)) => Json::integer(size),
            Ok(None) | Err(_) => Json::string("failed"),
        }
    }

    pub(super) async fn wait_for_ring_size(&self, wanted: usize, within: Duration) -> Json {
        let deadline = Instant::now() + within.min(RING_SIZE_WAIT_MAX);
        loop {
            if self.size().await == Some(wanted) {
                return Json::string("ok");
            }
            if Instant::now() >= deadline {
                return Json::string("failed");
            }
            sleep(RING_SIZE_PAUSE).await;
        }
    }
}
