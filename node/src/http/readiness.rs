//! Whether the node serves: its phase, its members, and a linearizable read through a quorum, tried by itself.
//!
//! Keeps:
//! 1. Ready means that the last self-probe succeeded and is not older than three intervals.
//! 2. An idle node makes one read per interval, and while it is not ready ten a second.

use crate::grpc::{ServerInfo, phase_text};
use crate::handle::NodeHandle;
use dht::api::{Phase, Status};
use dht::{Reply, Request};
use std::sync::Arc;
use std::time::Duration;
use store::Key;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The time between probes of a node that is not ready.
const EAGER_INTERVAL: Duration = Duration::from_millis(100);
/// How long the event loop may take to say its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// The key that is read; nobody writes it.
pub const PROBE_KEY: &[u8] = b"kvnode/self-probe";

/// One condition of being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub is_ok: bool,
    /// Why, or why not.
    pub reason: String,
}

/// What came of the last read.
#[derive(Clone, Debug)]
struct Probe {
    at: Instant,
    is_ok: bool,
    reason: String,
}

/// Cloneable view of the node's readiness.
#[derive(Clone, Debug)]
pub struct Readiness {
    handle: NodeHandle,
    info: Arc<ServerInfo>,
    last: Arc<watch::Sender<Option<Probe>>>,
}

impl Readiness {
    /// Nothing was probed yet; [`Readiness::run`] probes.
    pub fn new(handle: NodeHandle, info: Arc<ServerInfo>) -> Readiness {
        Readiness { handle, info, last: Arc::new(watch::Sender::new(None)) }
    }

    /// The node's status, if the event loop turns.
    pub async fn status(&self) -> Option<Status> {
        match tokio::time::timeout(STATUS_TIMEOUT, self.handle.request(Request::Status)).await {
            Ok(Ok(Reply::Status(s))) => Some(*s),
            _ => None,
        }
    }

    /// Every condition with its reason; ready if all hold.
    pub async fn checks(&self) -> Vec<Check> {
        self.checks_of(self.status().await.as_ref())
    }

    fn checks_of(&self, status: Option<&Status>) -> Vec<Check> {
        let Some(s) = status else {
            let reason = format!("the event loop did not answer within {STATUS_TIMEOUT:?}");
            return vec![Check { name: "loop", is_ok: false, reason }];
        };
        let joined = match (s.phase, s.ring) {
            (Phase::Member, Some(ring)) => format!("member of ring {ring}"),
            _ => format!("the node is {}", phase_text(s.phase)),
        };
        let members = format!("{} alive, {} lost", s.members_alive, s.members_lost);
        let (probe_ok, probe) = match &*self.last.borrow() {
            None => (false, "no read through a quorum was tried yet".to_owned()),
            Some(p) if !p.is_ok => (false, format!("the last read failed: {}", p.reason)),
            Some(p) if p.at.elapsed() > 3 * self.info.probe_interval => {
                (false, format!("the last read that succeeded was {:?} ago", p.at.elapsed()))
            }
            Some(p) => (true, format!("a read succeeded {} ms ago", p.at.elapsed().as_millis())),
        };
        vec![
            Check { name: "joined", is_ok: s.phase == Phase::Member, reason: joined },
            Check { name: "members", is_ok: s.members_alive > 0, reason: members },
            Check { name: "quorum", is_ok: probe_ok, reason: probe },
        ]
    }

    async fn probe(&self) -> bool {
        let key = Key::new(PROBE_KEY);
        let reply =
            tokio::time::timeout(3 * self.info.probe_interval, self.handle.request(Request::Get { key }));
        let (is_ok, reason) = match reply.await {
            Ok(Ok(Reply::Value { .. })) => (true, String::new()),
            Ok(Ok(Reply::Failed(f))) => {
                let problem = crate::grpc::failure(&f, "");
                (false, problem.report().cause.clone())
            }
            Ok(Ok(other)) => (false, format!("{other:?}").chars().take(100).collect()),
            Ok(Err(closed)) => (false, closed.to_string()),
            Err(_) => (false, "no answer in time".to_owned()),
        };
        self.last.send_replace(Some(Probe { at: Instant::now(), is_ok, reason }));
        is_ok
    }

    /// Probes for ever and tells `health`; `shutdown` makes the node not ready and ends it.
    pub(super) async fn run(self, health: HealthReporter, shutdown: CancellationToken) {
        let mut was_ready = None;
        health.set_service_status("", ServingStatus::Serving).await;
        loop {
            let status = self.status().await;
            if status.as_ref().is_some_and(|s| s.phase == Phase::Member) {
                self.probe().await;
            }
            let is_ready = self.checks_of(status.as_ref()).iter().all(|c| c.is_ok);
            if was_ready != Some(is_ready) {
                let serving = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
                health.set_service_status("kvnode.v1.Kv", serving).await;
                was_ready = Some(is_ready);
            }
            let pause = if is_ready { self.info.probe_interval } else { EAGER_INTERVAL };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        health.set_service_status("kvnode.v1.Kv", ServingStatus::NotServing).await;
    }
}
