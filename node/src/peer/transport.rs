//! The sending half as the event loop sees it, and what all connections share.

use super::link::{self, Item, Link};
use super::{PeerError, PeerInput, PeerOptions};
use crate::metrics::Traffic;
use core::time::Duration;
use dht::{Message, Trace};
use parking_lot::Mutex;
use ring::{NodeId, NodeRef, RingId};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Problems remembered, one per address.
const PROBLEMS_MAX: usize = 64;
/// A complaint about an address is logged again after this.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// Complaints remembered; beyond them the log may repeat itself.
const COMPLAINTS_MAX: usize = 1024;
/// How often links that have ended are looked for.
const FLUSHES_PER_CLEANUP: u32 = 1024;

/// What all connections of a node share.
#[derive(Debug)]
pub struct Peers {
    pub(super) me: NodeRef,
    pub(super) options: PeerOptions,
    pub(super) inputs: mpsc::Sender<PeerInput>,
    ring: AtomicU64,
    waiting: AtomicUsize,
    problems: Mutex<BTreeMap<SocketAddr, PeerError>>,
    traffic: Arc<Traffic>,
    complaints: Mutex<BTreeMap<(IpAddr, &'static str), Instant>>,
}

impl Peers {
    /// The shared part of a transport whose inputs go to `inputs`.
    pub fn new(me: NodeRef, options: PeerOptions, inputs: mpsc::Sender<PeerInput>) -> Arc<Peers> {
        Arc::new(Peers {
            me,
            options,
            inputs,
            ring: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            problems: Mutex::new(BTreeMap::new()),
            traffic: Arc::default(),
            complaints: Mutex::new(BTreeMap::new()),
        })
    }

    /// This node.
    pub fn me(&self) -> NodeRef {
        self.me
    }

    /// What is counted on the way to and from peers.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The ring that is named in handshakes, for the other side's log.
    pub fn set_ring(&self, ring: RingId) {
        self.ring.store(ring.0, Ordering::Relaxed);
    }

    pub(super) fn ring(&self) -> Option<RingId> {
        Some(self.ring.load(Ordering::Relaxed)).filter(|r| *r != 0).map(RingId)
    }

    /// What is wrong with which address at present.
    pub fn problems(&self) -> Vec<PeerError> {
        self.problems.lock().values().cloned().collect()
    }

    /// Notes what is wrong with an address, or that nothing is; tells whether this is news.
    pub(super) fn note(&self, addr: SocketAddr, problem: Option<&PeerError>) -> bool {
        let mut problems = self.problems.lock();
        match problem {
            None => problems.remove(&addr).is_some(),
            Some(p) if problems.get(&addr) == Some(p) => false,
            Some(p) => {
                if problems.len() >= PROBLEMS_MAX && !problems.contains_key(&addr) {
                    problems.pop_first();
                }
                problems.insert(addr, p.clone());
                true
            }
        }
    }

    /// Whether a complaint of this kind about `ip` may be logged: the log gets one a minute of each.
    pub(super) fn may_complain(&self, ip: IpAddr, kind: &'static str) -> bool {
        let now = Instant::now();
        let mut complaints = self.complaints.lock();
        if complaints.get(&(ip, kind)).is_some_and(|last| now.duration_since(*last) < COMPLAINT_PAUSE) {
            return false;
        }
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.retain(|_, last| now.duration_since(*last) < COMPLAINT_PAUSE);
            if complaints.len() >= COMPLAINTS_MAX {
                complaints.clear();
            }
        }
        complaints.insert((ip, kind), now);
        true
    }

    /// Messages that wait or are being written.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn add_waiting(&self, n: usize) {
        self.waiting.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn sub_waiting(&self, n: usize) {
        self.waiting.fetch_sub(n, Ordering::Relaxed);
    }

    /// Waits until everything is written or dropped, or for `limit`; tells which.
    pub async fn flushed(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.waiting() > 0 {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

/// A peer's link and what the present turn of the event loop has for it.
#[derive(Debug)]
struct Outgoing {
    link: Arc<Link>,
    staged: Vec<Item>,
}

/// The sending half. Messages are staged during a turn of the event loop and go out with [`Transport::flush`].
#[derive(Debug)]
pub struct Transport {
    peers: Arc<Peers>,
    links: HashMap<SocketAddr, Outgoing>,
    staged: Vec<SocketAddr>,
    flushes: u32,
}

impl Transport {
    /// A transport without connections. To be used within a runtime: each peer gets a task.
    pub fn new(peers: Arc<Peers>) -> Transport {
        Transport { peers, links: HashMap::new(), staged: Vec::new(), flushes: 0 }
    }

    /// Puts a message beside the others for the same peer. A message to [`NodeId::ANY`] is for whoever listens
    /// at the address.
    pub fn stage(&mut self, to: NodeRef, message: Message) {
        self.stage_traced(to, message, None);
    }

    /// The same for a message that may be part of a trace.
    pub fn stage_traced(&mut self, to: NodeRef, message: Message, trace: Option<Trace>) {
        debug_assert!(to.id != self.peers.me.id, "a node does not send to itself");
        if to.id == NodeId::ANY && to.addr == self.peers.me.addr {
            return;
        }
        let outgoing = self
            .links
            .entry(to.addr)
            .or_insert_with(|| Outgoing { link: link::start(to.addr, &self.peers), staged: Vec::new() });
        if outgoing.staged.is_empty() {
            self.staged.push(to.addr);
        }
        outgoing.staged.push(Item::new(to.id, message, trace));
    }

    /// Hands everything staged to the peers' tasks. Never waits.
    pub fn flush(&mut self) {
        for addr in self.staged.drain(..) {
            let Some(outgoing) = self.links.get_mut(&addr) else { continue };
            if !outgoing.link.push(&mut outgoing.staged, &self.peers) {
                // The task had nothing to do for long and ended; another begins.
                outgoing.link = link::start(addr, &self.peers);
                let taken = outgoing.link.push(&mut outgoing.staged, &self.peers);
                debug_assert!(taken, "a new link takes messages");
            }
        }
        self.flushes = self.flushes.wrapping_add(1);
        if self.flushes.is_multiple_of(FLUSHES_PER_CLEANUP) {
            self.links.retain(|_, o| !o.link.is_closed());
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.links.retain(|_, o| {
            o.link.close(&self.peers);
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test(start_paused = true)]
    async fn a_complaint_is_logged_once_a_minute_for_each_address_and_kind() {
        let me = NodeRef { id: NodeId(1), addr: SocketAddr::from(([127, 0, 0, 1], 1)) };
        let peers = Peers::new(me, PeerOptions::default(), mpsc::channel(1).0);
        let (a, b) = (IpAddr::from(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::from(Ipv4Addr::new(10, 0, 0, 2)));
        assert!(peers.may_complain(a, "foreign") && !peers.may_complain(a, "foreign"));
        assert!(peers.may_complain(a, "malformed") && peers.may_complain(b, "foreign"));
        tokio::time::advance(COMPLAINT_PAUSE).await;
        assert!(peers.may_complain(a, "foreign"));
        for i in 0..3000u32 {
            assert!(peers.may_complain(IpAddr::from(Ipv4Addr::from(i)), "foreign"));
        }
        assert!(peers.complaints.lock().len() <= COMPLAINTS_MAX);
    }
}
