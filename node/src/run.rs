//! A node's process from its settings to its exit code.
//!
//! Keeps:
//! 1. Nothing is announced to a ring before both ports are bound.
//! 2. The first signal hands everything over and exits with 0 within ten seconds; the second exits at once.
//! 3. A node that names hosts to join never creates a ring because none of them resolved.

use crate::dashboard::{Journal, SettingShown};
use crate::event_loop::{Clock, EventLoop};
use crate::grpc::ServerInfo;
use crate::handle::NodeHandle;
use crate::http;
use crate::listen::{bind, overlay_address};
use crate::peer::{PeerOptions, Peers, serve_peers};
use crate::run_error::RunError;
use crate::scalaris::{Spec, VirtualNodes};
use crate::seeds::{HostPort, StartRequest, start_and_resolve};
use crate::signals::{StopSignal, StopSignals};
use crate::traces::{TraceSettings, Tracer};
use core::time::Duration;
use dht::message::JoinRefusal;
use dht::{Config, DhtNode, Event, Reply, Request};
use parking_lot::Mutex;
use ring::{NodeId, NodeRef};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The client port where nothing else is said.
pub const CLIENT_PORT: u16 = 8000;
/// Batches of a peer that wait for the event loop.
const INPUTS_WAITING_MAX: usize = 256;
/// Calls of clients that wait for the event loop.
const CALLS_WAITING_MAX: usize = 4096;
/// Events that wait to be logged.
const EVENTS_WAITING_MAX: usize = 4096;
/// How long a node that has left still answers what was on its way to it; longer than others need to hear of it.
const LINGER: Duration = Duration::from_millis(250);
/// How long the last messages to peers may take.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(300);
/// Within this after the first signal the process ends.
const STOP_TIMEOUT: Duration = Duration::from_millis(9600);
/// However late it is, open calls of clients get this long.
const DRAIN_MIN: Duration = Duration::from_millis(100);

/// How long open calls of clients may take when the ring is given up.
const DRAIN_ANEW: Duration = Duration::from_millis(500);

/// Where a node listens for peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this address, which it tells others; port 0 takes any.
    At(SocketAddr),
    /// At the source address towards the first join address.
    Auto {
        /// The port.
        port: u16,
    },
}

/// Everything that a node's process is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The overlay address.
    pub listen: Listen,
    /// Known hosts; none creates a ring at once.
    pub join: Vec<HostPort>,
    /// The client port's address; none takes the overlay address and [`CLIENT_PORT`].
    pub http_listen: Option<SocketAddr>,
    /// Creates a ring at once though hosts are named.
    pub create: bool,
    /// The replication factor it insists on, if it was set.
    pub replication_factor: Option<u8>,
    /// The core's bounds and times, the default replication factor among them.
    pub core: Config,
    /// Longer bodies of JSON-RPC are refused.
    pub jsonrpc_bytes_max: usize,
    /// The transport's bounds and times.
    pub peers: PeerOptions,
    /// Connections of clients open at once.
    pub connections_max: usize,
    /// How long joining may take; none tries for ever.
    pub join_timeout: Option<Duration>,
    /// How long handing over may take at the end.
    pub leave_timeout: Duration,
    /// Where spans go, if operations are traced.
    pub traces: Option<TraceSettings>,
    /// The settings as they are shown.
    pub shown: Vec<SettingShown>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], crate::seeds::OVERLAY_PORT))),
            join: Vec::new(),
            http_listen: None,
            create: false,
            replication_factor: None,
            core: Config::default(),
            jsonrpc_bytes_max: 1 << 20,
            peers: PeerOptions::default(),
            connections_max: 10_000,
            join_timeout: Some(Duration::from_secs(60)),
            leave_timeout: Duration::from_secs(9),
            traces: None,
            shown: Vec::new(),
        }
    }
}

/// How a node ended.
#[derive(Debug)]
pub enum End {
    /// The process is to exit with this code at once, without waiting for tasks that are left.
    Exit(u8),
    /// Its ring was given up for another one: the process is to end what is left of it, and to run it anew so.
    Anew(Box<Settings>),
}

/// Runs a node until a signal ends it, or its ring is given up.
pub async fn run(settings: Settings) -> Result<End, RunError> {
    let mut signals = StopSignals::new().map_err(|e| RunError::Internal { cause: e.to_string() })?;
    let prepared = tokio::select! {
        prepared = Process::start(settings) => prepared?,
        signal = signals.next() => return Ok(End::Exit(signal.exit_code())),
    };
    prepared.supervise(signals).await
}

/// A started process: its tasks, and what they say.
struct Process {
    settings: Settings,
    node: NodeRef,
    client_addr: SocketAddr,
    handle: NodeHandle,
    peers: Arc<Peers>,
    events: mpsc::Receiver<Event>,
    journal: Journal,
    shutdown: CancellationToken,
    joined: watch::Sender<bool>,
    dns_failures: Arc<Mutex<Vec<String>>>,
    denied: Option<String>,
    /// A member of the ring for which this node's was given up.
    given_up_for: Option<SocketAddr>,
    virtual_nodes: Arc<VirtualNodes>,
    /// What must not end before the process does. Dropping the set ends them.
    tasks: JoinSet<Result<(), RunError>>,
    clients: JoinSet<Result<(), RunError>>,
}

impl Process {
    async fn start(settings: Settings) -> Result<Process, RunError> {
        let overlay = overlay_address(settings.listen, &settings.join, settings.join_timeout).await?;
        let overlay_listener = bind(overlay, "overlay", "--listen (LISTEN_ADDRESS)").await?;
        let addr = local_addr(&overlay_listener)?;
        let http_at = settings.http_listen.unwrap_or(SocketAddr::new(addr.ip(), CLIENT_PORT));
        let client_listener = bind(http_at, "client", "--http-listen (KVNODE_HTTP_LISTEN)").await?;
        let client_addr = advertised(local_addr(&client_listener)?, addr.ip());

        let node = NodeRef { id: draw_node_id()?, addr };
        banner(&settings, node, client_addr);

        let (inputs, inputs_waiting) = mpsc::channel(INPUTS_WAITING_MAX);
        let (handle, calls) = NodeHandle::channel(CALLS_WAITING_MAX);
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let peers = Peers::new(node, settings.peers.clone(), inputs);
        let clock = Clock::start();
        let tracer = match &settings.traces {
            Some(t) => Some(
                Tracer::start(t, node, clock.now(), random()?, Arc::clone(peers.traffic()))
                    .map_err(|cause| RunError::Internal { cause })?,
            ),
            None => None,
        };
        let core = DhtNode::new(settings.core.clone(), node, Some(client_addr), random()?, clock.now());
        let event_loop = EventLoop::new(core, clock, Arc::clone(&peers), inputs_waiting, calls, events_in)
            .with_tracer(tracer);

        let shutdown = CancellationToken::new();
        let (joined, joined_seen) = watch::channel(false);
        let dns_failures = Arc::new(Mutex::new(Vec::new()));
        let start = StartRequest {
            hosts: settings.join.clone(),
            creates_at_once: settings.create || settings.join.is_empty(),
            replication_factor: settings.replication_factor,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            event_loop.run().await;
            Err(RunError::Internal { cause: "the event loop ended".to_owned() })
        });
        let hearing = serve_peers(overlay_listener, Arc::clone(&peers));
        tasks.spawn(async move {
            hearing.await;
            Err(RunError::Internal { cause: "the overlay port is not served any more".to_owned() })
        });
        // The client side: gRPC, HTTP and the dashboard begin here.
        let journal = Journal::default();
        let virtual_nodes = VirtualNodes::new(Spec {
            overlay: addr,
            client: client_addr,
            core: settings.core.clone(),
            peers: settings.peers.clone(),
        });
        let info = ServerInfo {
            virtual_nodes: Some(Arc::clone(&virtual_nodes)),
            jsonrpc_bytes_max: settings.jsonrpc_bytes_max,
            key_bytes_max: settings.core.key_bytes_max,
            value_bytes_max: settings.core.value_bytes_max,
            traffic: Arc::clone(peers.traffic()),
            peers: Some(Arc::clone(&peers)),
            journal: journal.clone(),
            is_tracing: settings.traces.is_some(),
            settings: settings.shown.clone(),
            connections_max: settings.connections_max,
            ..ServerInfo::new(addr, client_addr)
        };
        let serving = http::serve_clients(client_listener, handle.clone(), info, shutdown.clone());
        let mut clients = JoinSet::new();
        clients.spawn(async move {
            serving.await.map_err(|e| RunError::Internal { cause: format!("the client port: {e}") })
        });
        let resolving = start_and_resolve(start, handle.clone(), joined_seen, Arc::clone(&dns_failures));
        tasks.spawn(async move {
            resolving.await;
            Ok(())
        });
        let denied = None;
        Ok(Process {
            settings,
            node,
            client_addr,
            handle,
            peers,
            events,
            journal,
            shutdown,
            joined,
            dns_failures,
            denied,
            given_up_for: None,
            virtual_nodes,
            tasks,
            clients,
        })
    }

    async fn supervise(mut self, mut signals: StopSignals) -> Result<End, RunError> {
        let virtual_nodes = Arc::clone(&self.virtual_nodes);
        let join_timeout = self.settings.join_timeout;
        let join_deadline = Instant::now() + join_timeout.unwrap_or_default();
        loop {
            if let Some(at) = self.given_up_for {
                return Ok(self.begin_anew(at).await);
            }
            let is_joined = *self.joined.borrow();
            tokio::select! {
                signal = signals.next() => return Ok(End::Exit(self.leave(signal, signals).await)),
                () = virtual_nodes.asked_to_stop() => {
                    info!("a client asks this process to end by shutdown_vm");
                    return Ok(End::Exit(self.leave(StopSignal::Terminate, signals).await));
                }
                event = self.events.recv() => match event {
                    Some(event) => self.on_event(event)?,
                    None => return Err(RunError::Internal { cause: "the event loop ended".to_owned() }),
                },
                () = sleep_until(join_deadline), if !is_joined && join_timeout.is_some() => {
                    return Err(self.join_timeout(join_timeout.unwrap_or_default()));
                },
                Some(ended) = self.tasks.join_next() => ended.unwrap_or_else(task_failed)?,
                Some(ended) = self.clients.join_next() => {
                    ended.unwrap_or_else(task_failed)?;
                    return Err(RunError::Internal { cause: "the client port is not served any more".to_owned() });
                }
            }
        }
    }

    fn join_timeout(&self, waited: Duration) -> RunError {
        let mut reasons: Vec<String> = self.dns_failures.lock().clone();
        if !reasons.is_empty() && reasons.len() >= self.settings.join.len() {
            return RunError::Unresolved { waited, reasons };
        }
        let problems = self.peers.problems();
        reasons.extend(problems.iter().map(|p| format!("{p} ({})", p.fix())));
        reasons.extend(self.denied.clone());
        if reasons.is_empty() {
            reasons.push("nobody answered".to_owned());
        }
        let hosts = self.settings.join.iter().map(HostPort::to_string).collect();
        RunError::JoinTimeout { waited, hosts, reasons }
    }

    fn on_event(&mut self, event: Event) -> Result<(), RunError> {
        self.journal.note(&event);
        match event {
            Event::Joined { ring, is_creator } => {
                self.peers.set_ring(ring);
                self.joined.send_replace(true);
                let role = if is_creator { "creator" } else { "member" };
                let client = self.client_addr;
                info!(ring = %ring, role, clients = %client, next = %format!("kvnode --endpoint {client} status"), "in a ring and serving");
            }
            Event::Dissolved { ring } => info!(ring = %ring, "gave up an empty ring to join another"),
            Event::RingGivenUp { ring, other, at } => {
                warn!(ring = %ring, other = %other, at = %at, "the ring and its data were given up for another ring, by command");
                self.given_up_for = Some(at);
            }
            Event::JoinDenied { by, refusal } => self.on_denied(by, refusal)?,
            Event::ForeignRing { by, ring } => {
                let fix = "decide which ring's data shall live and see `kvnode dissolve --help`";
                warn!(by = %by, ring = %ring, fix, "another ring with data answers at an address of ours");
            }
            Event::MemberUp(node) => info!(member = %node, "member came"),
            Event::MemberSuspected(node) => warn!(member = %node, "member does not answer"),
            Event::MemberDead(node) => warn!(member = %node, "member counts as dead"),
            Event::MemberLeft(node) => info!(member = %node, "member left"),
            Event::HandedOver { slot, extent, to, keys } => {
                info!(slot, extent = ?extent, to = %to, keys, "chunk handed over");
            }
            Event::Replaced { slot, extent, configuration } => {
                info!(slot, extent = ?extent, epoch = configuration.epoch, "lost replica replaced");
            }
            Event::Resumed { slot, extent, configuration } => {
                info!(slot, extent = ?extent, epoch = configuration.epoch, "replaced replica goes on");
            }
            Event::Salvaged { extent, configuration, keys } => {
                warn!(extent = ?extent, epoch = configuration.epoch, keys, "interval without a quorum decided anew");
            }
            Event::ReignBegan { home, extent } => tracing::debug!(home, extent = ?extent, "reign began"),
            Event::Refused { node } => warn!(member = %node, "node refused"),
        }
        Ok(())
    }

    fn on_denied(&mut self, by: NodeRef, refusal: JoinRefusal) -> Result<(), RunError> {
        match refusal {
            _ if *self.joined.borrow() => {
                warn!(by = %by, ?refusal, "a ring does not let this node in, which is in one already");
                Ok(())
            }
            JoinRefusal::NotReady => {
                let text = format!("{by} answered that it is not in a ring itself yet");
                if self.denied.as_ref() != Some(&text) {
                    info!(by = %by, "join: not in a ring itself yet, asked again");
                    self.denied = Some(text);
                }
                Ok(())
            }
            JoinRefusal::IdTaken => Err(RunError::IdTaken { by, id: self.node.id }),
            JoinRefusal::ReplicationFactor { ring } => Err(RunError::ReplicationFactor {
                by,
                ring,
                ours: self.settings.replication_factor.unwrap_or(self.settings.core.replication_factor),
            }),
        }
    }

    /// Ends the node, whose ring was given up, and tells how to run it in the other ring. Its known hosts may be members
    /// of the ring that is given up, so it keeps none.
    async fn begin_anew(mut self, at: SocketAddr) -> End {
        if !self.peers.flushed(FLUSH_TIMEOUT).await {
            warn!(messages = self.peers.waiting(), "not every member was told; they may keep the ring");
        }
        self.shutdown.cancel();
        let drained = async { while self.clients.join_next().await.is_some() {} };
        if timeout(DRAIN_ANEW, drained).await.is_err() {
            info!("calls of clients that were open are cut off");
        }
        let join = vec![HostPort { host: at.ip().to_string(), port: at.port() }];
        End::Anew(Box::new(Settings { join, create: false, ..self.settings }))
    }

    /// Hands over and ends; a second signal ends at once.
    async fn leave(mut self, signal: StopSignal, mut signals: StopSignals) -> u8 {
        info!(?signal, "leaving: hands everything over; a second signal ends at once");
        let began = Instant::now();
        let handle = self.handle.clone();
        let virtual_nodes = Arc::clone(&self.virtual_nodes);
        let leave_timeout = self.settings.leave_timeout;
        let leaving = async {
            let first = timeout(leave_timeout, handle.request(Request::Leave));
            tokio::join!(first, virtual_nodes.leave_all()).0
        };
        tokio::pin!(leaving);
        let left = loop {
            tokio::select! {
                left = &mut leaving => break left,
                second = signals.next() => return second.exit_code(),
                Some(event) = self.events.recv() => {
                    if let Err(e) = self.on_event(event) {
                        warn!("{e}");
                    }
                }
            }
        };
        match left {
            Ok(Ok(Reply::Left { is_clean: true })) => info!("left the ring"),
            Ok(Ok(reply)) => {
                warn!(?reply, "left the ring without handing everything over; the replicas elsewhere go on")
            }
            Ok(Err(e)) => warn!("left without handing over: {e}"),
            Err(_) => {
                let waited_s = self.settings.leave_timeout.as_secs();
                warn!(waited_s, "handing over took too long and was given up; the replicas elsewhere go on");
            }
        }
        // What others sent before they heard of it is refused, rather than left in doubt.
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            second = signals.next() => return second.exit_code(),
        }
        if !self.peers.flushed(FLUSH_TIMEOUT).await {
            warn!(messages = self.peers.waiting(), "messages to peers were not sent");
        }
        self.shutdown.cancel();
        let drain = (began + STOP_TIMEOUT).saturating_duration_since(Instant::now()).max(DRAIN_MIN);
        let drained = async { while self.clients.join_next().await.is_some() {} };
        tokio::select! {
            _ = timeout(drain, drained) => {}
            second = signals.next() => return second.exit_code(),
        }
        0
    }
}

fn banner(settings: &Settings, node: NodeRef, client: SocketAddr) {
    let own = node.addr;
    let is_own =
        |h: &HostPort| h.port == own.port() && h.host.parse::<IpAddr>().is_ok_and(|ip| ip == own.ip());
    let role = match settings.join.as_slice() {
        _ if settings.create => "creates a ring".to_owned(),
        [] => "creates a ring".to_owned(),
        hosts if hosts.iter().any(is_own) => "creates a ring unless one calls it home".to_owned(),
        hosts => {
            let names: Vec<String> = hosts.iter().map(HostPort::to_string).collect();
            format!("joins a ring through {}", names.join(", "))
        }
    };
    let version = env!("CARGO_PKG_VERSION");
    info!(version, node = %node.id, overlay = %own, clients = %format!("http://{client}"), role, "kvnode starts");
}

/// The address to reach a listener at: one that is bound to every address is reached at the overlay's.
fn advertised(bound: SocketAddr, overlay: IpAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { SocketAddr::new(overlay, bound.port()) } else { bound }
}

fn task_failed(e: tokio::task::JoinError) -> Result<(), RunError> {
    Err(RunError::Internal { cause: e.to_string() })
}

fn local_addr(listener: &tokio::net::TcpListener) -> Result<SocketAddr, RunError> {
    listener.local_addr().map_err(|e| RunError::Internal { cause: e.to_string() })
}

fn random() -> Result<u64, RunError> {
    getrandom::u64().map_err(|e| RunError::Internal { cause: format!("no random numbers: {e}") })
}

fn draw_node_id() -> Result<NodeId, RunError> {
    loop {
        let id = NodeId(random()?);
        if id != NodeId::ANY {
            return Ok(id);
        }
    }
}
