//! More nodes in this process: each a member of the ring of its own, with an overlay port of its own.
//!
//! The process' first node answers its clients and is not among them. A virtual node joins through the first
//! node, owns positions and replicas like any other, and is told apart by its id alone. All of them end with the
//! process; several replicas of a key may then be lost at once, as in Scalaris.
//!
//! Keeps:
//! 1. A node is named here only after it has joined, and until it was told to end.
//! 2. At most `NODES_MAX` nodes, and one addition or ending at a time.

use crate::event_loop::{Clock, EventLoop};
use crate::handle::NodeHandle;
use crate::listen::bind;
use crate::peer::{PeerOptions, Peers, serve_peers};
use core::time::Duration;
use dht::{Config, DhtNode, Event, Reply, Request};
use ring::{NodeId, NodeRef};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Nodes of one process, the first one aside.
const NODES_MAX: usize = 32;
/// How long one may take to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one may take to hand over.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(9);
/// How long the last messages of one may take.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(300);
/// An answer is on its way before the process ends.
const ANSWER_TIME: Duration = Duration::from_millis(200);
const QUEUE_MAX: usize = 256;

/// What all nodes of the process have in common.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The overlay address of the first node.
    pub overlay: SocketAddr,
    /// Where the process answers clients.
    pub client: SocketAddr,
    /// The core's bounds and times.
    pub core: Config,
    /// The transport's.
    pub peers: PeerOptions,
}

/// The virtual nodes of a process.
#[derive(Debug)]
pub struct VirtualNodes {
    spec: Spec,
    nodes: Mutex<BTreeMap<String, VirtualNode>>,
    stop: CancellationToken,
}

/// A node that has joined. Dropping it ends it without a word.
#[derive(Debug)]
struct VirtualNode {
    handle: NodeHandle,
    peers: Arc<Peers>,
    tasks: JoinSet<()>,
}

impl VirtualNodes {
    /// None yet.
    pub fn new(spec: Spec) -> Arc<VirtualNodes> {
        Arc::new(VirtualNodes { spec, nodes: Mutex::default(), stop: CancellationToken::new() })
    }

    /// Their names.
    pub async fn names(&self) -> Vec<String> {
        self.nodes.lock().await.keys().cloned().collect()
    }

    /// The ways to them.
    pub(super) async fn handles(&self) -> Vec<NodeHandle> {
        self.nodes.lock().await.values().map(|n| n.handle.clone()).collect()
    }

    /// Adds `n` nodes one after the other; gives the names of those that joined, and why the next did
    /// not.
    pub async fn add(&self, n: usize) -> (Vec<String>, Vec<String>) {
        let mut nodes = self.nodes.lock().await;
        let (mut added, mut failed) = (Vec::new(), Vec::new());
        for _ in 0..n {
            if nodes.len() >= NODES_MAX {
                failed.push(format!("this process has {} virtual nodes, the limit", nodes.len()));
                break;
            }
            match VirtualNode::start(&self.spec).await {
                Ok((name, node)) => {
                    nodes.insert(name.clone(), node);
                    added.push(name);
                }
                Err(cause) => {
                    // What hinders one hinders the next.
                    warn!(cause, "a virtual node did not join; no more are tried");
                    failed.push(cause);
                    break;
                }
            }
        }
        (added, failed)
    }

    /// Ends those of these names that there are, and gives their names.
    pub async fn end(&self, names: Vec<String>, hands_over: bool) -> Vec<String> {
        let mut nodes = self.nodes.lock().await;
        let mut ended = Vec::new();
        for name in names {
            if let Some(node) = nodes.remove(&name) {
                node.end(hands_over).await;
                info!(node = name, hands_over, "virtual node ended");
                ended.push(name);
            }
        }
        ended
    }

    /// Ends any `n` of them, fewer if there are fewer, and gives their names.
    pub async fn end_any(&self, n: usize, hands_over: bool) -> Vec<String> {
        let mut names = self.names().await;
        while names.len() > n {
            let at = getrandom::u32().ok().and_then(|r| usize::try_from(r).ok()).unwrap_or(0) % names.len();
            names.swap_remove(at);
        }
        self.end(names, hands_over).await
    }

    /// All hand over at once; for the end of the process.
    pub async fn leave_all(&self) {
        let mut leaving = JoinSet::new();
        for (_, node) in core::mem::take(&mut *self.nodes.lock().await) {
            leaving.spawn(node.end(true));
        }
        while leaving.join_next().await.is_some() {}
    }

    /// Asks the process to hand everything over and end.
    pub fn shut_down_process(&self) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            sleep(ANSWER_TIME).await;
            stop.cancel();
        });
    }

    /// Ends the process without a word to anybody, once the answer is sent.
    pub fn kill_process(&self) {
        warn!("a client ends this process at once by kill_vm");
        tokio::spawn(async {
            sleep(ANSWER_TIME).await;
            std::process::exit(137);
        });
    }

    /// Waits until a client asks the process to end.
    pub async fn asked_to_stop(&self) {
        self.stop.cancelled().await;
    }
}

impl VirtualNode {
    async fn start(spec: &Spec) -> Result<(String, VirtualNode), String> {
        let any_port = SocketAddr::new(spec.overlay.ip(), 0);
        let listener =
            bind(any_port, "overlay", "--listen (LISTEN_ADDRESS)").await.map_err(|e| e.to_string())?;
        let addr = listener.local_addr().map_err(|e| e.to_string())?;
        let random = || getrandom::u64().map_err(|e| format!("no random numbers: {e}"));
        let mut id = NodeId(random()?);
        while id == NodeId::ANY {
            id = NodeId(random()?);
        }
        let me = NodeRef { id, addr };
        let (inputs, inputs_waiting) = mpsc::channel(QUEUE_MAX);
        let (handle, calls) = NodeHandle::channel(QUEUE_MAX);
        let (events_in, events) = mpsc::channel(QUEUE_MAX);
        let peers = Peers::new(me, spec.peers.clone(), inputs);
        let clock = Clock::start();
        let core = DhtNode::new(spec.core.clone(), me, Some(spec.client), random()?, clock.now());
        let (joined, mut is_joined) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(EventLoop::new(core, clock, Arc::clone(&peers), inputs_waiting, calls, events_in).run());
        tasks.spawn(serve_peers(listener, Arc::clone(&peers)));
        tasks.spawn(follow(events, Arc::clone(&peers), joined));
        let node = VirtualNode { handle, peers, tasks };
        let seeds = vec![spec.overlay];
        let start = Request::Start { seeds, creates_at_once: false, replication_factor: None };
        node.handle.request(start).await.map_err(|e| e.to_string())?;
        match timeout(JOIN_TIMEOUT, is_joined.wait_for(|j| *j)).await {
            Ok(Ok(_)) => {
                info!(node = %me, "virtual node joined");
                Ok((id.to_string(), node))
            }
            Ok(Err(_)) => Err(format!("the node at {addr} stopped before it had joined")),
            Err(_) => Err(format!("the node at {addr} did not join within {} s", JOIN_TIMEOUT.as_secs())),
        }
    }

    async fn end(self, hands_over: bool) {
        if hands_over {
            match timeout(LEAVE_TIMEOUT, self.handle.request(Request::Leave)).await {
                Ok(Ok(Reply::Left { is_clean: true })) => {}
                other => {
                    warn!(node = %self.peers.me(), ?other, "a virtual node did not hand everything over")
                }
            }
            let _ = self.peers.flushed(FLUSH_TIMEOUT).await;
        }
        drop(self.tasks);
    }
}

/// Tells the transport the ring and the waiting that the node has joined.
async fn follow(mut events: mpsc::Receiver<Event>, peers: Arc<Peers>, joined: watch::Sender<bool>) {
    while let Some(event) = events.recv().await {
        if let Event::Joined { ring, .. } = event {
            peers.set_ring(ring);
            joined.send_replace(true);
        }
    }
}
