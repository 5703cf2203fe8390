//! Forms a large ring in the simulator, writes keys, and writes to a file what the next node is told when it is let in.
//!
//!     cargo run --release -p kvnode-sim --example large_ring -- 1000 tests/data/ring-1000.bin
//!
//! The file is one frame of the wire between nodes with one `JoinAccepted`. A node that is given it sees the ring as
//! the simulated newcomer saw it, so that a dashboard can be looked at that shows a ring nobody could run here.
//!
//! Keeps:
//! 1. Nodes come in groups that double the ring, all by host 1, as containers do that are started with one address.

use bytes::BytesMut;
use core::time::Duration;
use dht::{Config, DhtNode, Effect, Message, Reply, Request, RequestId};
use paxos::Acceptor;
use proto::peer::put_message;
use ring::{NodeId, NodeRef, Slot, Space, Time};
use sim::cluster::{Cluster, Note};
use sim::draw::{Draw, Stream};
use sim::{Machine, Profile, Scenario, Settings, Violation};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;
use store::{Change, Condition, Key, Value};

/// Keys written for each node of the ring.
const KEYS_PER_NODE: usize = 20;
/// Writes under way at once.
const WINDOW: usize = 256;
/// Nodes of a group come one after the other.
const START_PAUSE: Duration = Duration::from_millis(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A group is let in, gets its arcs and is at rest within this.
const GROUP_TIME_MAX: Duration = Duration::from_secs(300);
/// After it, all members have told how much they hold.
const LOADS_TOLD: Duration = Duration::from_millis(1500);

/// A node that remembers what it was told when it was let in.
#[derive(Debug)]
struct Newcomer {
    node: DhtNode,
    told: Option<Message>,
}

impl Machine for Newcomer {
    const IS_REPLICATED: bool = true;

    fn new(config: Config, me: NodeRef, seed: u64, now: Time) -> Newcomer {
        // Members tell each other where their clients are served, too.
        let client = std::net::SocketAddr::new(me.addr.ip(), 8000);
        Newcomer { node: DhtNode::new(config, me, Some(client), seed, now), told: None }
    }
    fn handle_message(&mut self, now: Time, from: NodeRef, message: Message) {
        if self.told.is_none() && matches!(message, Message::JoinAccepted { .. }) {
            self.told = Some(message.clone());
        }
        self.node.handle_message(now, from, message);
    }
    fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        self.node.handle_request(now, id, request);
    }
    fn handle_connection_lost(&mut self, now: Time, peer: NodeRef) {
        self.node.handle_connection_lost(now, peer);
    }
    fn handle_timeout(&mut self, now: Time) {
        self.node.handle_timeout(now);
    }
    fn poll_effect(&mut self) -> Option<Effect> {
        self.node.poll_effect()
    }
    fn next_timeout(&self) -> Option<Time> {
        self.node.next_timeout()
    }
    fn acceptors(&self) -> impl Iterator<Item = &Acceptor> + Clone {
        self.node.acceptors()
    }
    fn reigns(&self) -> Vec<(Slot, ring::Extent, store::Ballot)> {
        self.node.reigns().collect()
    }
    fn has_no_transactions(&self) -> bool {
        self.node.has_no_transactions()
    }
    fn describe(&self) -> String {
        self.node.describe()
    }
}

struct Large {
    cluster: Cluster<Newcomer>,
    draw: Draw,
    events: u64,
    written: usize,
    began: Instant,
}

fn broken(text: String) -> Violation {
    Violation { invariant: "large ring", text }
}

impl Large {
    fn new() -> Option<Large> {
        let mut settings = Settings::draw(1, Profile::Steady, Scenario::Load, 1, 0);
        settings.config = Config { replication_factor: 3, ..Config::default() };
        settings.clock_drift_per_mille = 0;
        settings.registers_look_every = 1 << 12;
        let cluster = Cluster::new(&settings, Space::new(3)?, false);
        // This is the tool's own watch, no input of a run.
        #[allow(clippy::disallowed_methods, reason = "how long it took is printed for people")]
        let began = Instant::now();
        Some(Large { cluster, draw: Draw::new(1, Stream::Workload), events: 0, written: 0, began })
    }

    fn step(&mut self) -> Result<Option<Note>, Violation> {
        self.events += 1;
        let note = self.cluster.step()?;
        while let Some(done) = self.cluster.poll_completion() {
            match done.reply {
                Some(Reply::Changed { .. }) => self.written += 1,
                Some(Reply::Ok) => {}
                other => return Err(broken(format!("request {} was answered {other:?}", done.id.0))),
            }
        }
        Ok(note)
    }

    fn pass(&mut self, time: Duration) -> Result<(), Violation> {
        self.cluster.remind(time, Note::Look);
        while self.step()? != Some(Note::Look) {}
        Ok(())
    }

    /// Lets time pass until it is done, which is looked at now and then.
    fn until(&mut self, what: &str, is_done: impl Fn(&Large) -> bool) -> Result<(), Violation> {
        let end = self.cluster.now() + GROUP_TIME_MAX;
        while !is_done(self) {
            if self.cluster.now() > end {
                return Err(broken(format!("{what} did not come within {GROUP_TIME_MAX:?}")));
            }
            self.pass(LOOK_INTERVAL)?;
        }
        Ok(())
    }

    /// Whether that many nodes serve, each offset has three owners, and no node two slots of one.
    fn is_whole(&self, nodes: u16) -> bool {
        let strength = || self.cluster.strength(&BTreeSet::new());
        self.cluster.serving().len() == usize::from(nodes)
            && (nodes < 3 || strength().is_full() && strength().doubled.is_none())
    }

    fn grow(&mut self, nodes: u16) -> Result<(), Violation> {
        self.cluster.start(1, &[1], true)?;
        let mut there = 1;
        while there < nodes {
            self.pass(LOOK_INTERVAL)?;
            let group = there.min(nodes - there);
            for host in there + 1..=there + group {
                self.cluster.start(host, &[1], false)?;
                self.pass(START_PAUSE)?;
            }
            there += group;
            self.until(&format!("a ring of {there}"), |l| l.is_whole(there))?;
            self.tell(&format!("{there} nodes"));
        }
        Ok(())
    }

    fn write(&mut self, count: usize) -> Result<(), Violation> {
        let serving = self.cluster.serving();
        for i in 0..count {
            while i >= self.written + WINDOW {
                self.step()?;
            }
            let Some(at) = self.draw.pick(&serving) else { break };
            let key = Key::new(format!("key {i}").as_bytes());
            let value = Value::string(&"-".repeat(self.draw.index(2000)));
            self.cluster.request(
                at.id,
                Request::Change { key, change: Change::Put { value, condition: Condition::Always } },
            )?;
        }
        self.until("an answer to each write", |l| l.written == count)?;
        self.pass(LOADS_TOLD)?;
        self.tell(&format!("{count} keys"));
        Ok(())
    }

    /// What one more node is told when it is let in.
    fn told(&mut self, host: u16) -> Result<Message, Violation> {
        let id = self.cluster.start(host, &[1], false)?;
        let told = |l: &Large, id: NodeId| {
            l.cluster.processes().find(|p| p.me.id == id).and_then(|p| p.machine.told.clone())
        };
        self.until("the last node's entry", |l| told(l, id).is_some())?;
        told(self, id).ok_or_else(|| broken("the last node is gone".to_owned()))
    }

    fn tell(&self, what: &str) {
        println!(
            "{what}: {} s simulated, {:.1?} of work, {} events",
            self.cluster.now(),
            self.began.elapsed(),
            self.events
        );
    }
}

fn form(nodes: u16) -> Result<Message, Violation> {
    let mut large = Large::new().ok_or_else(|| broken("three is no replication factor".to_owned()))?;
    // The one that is let in last is the thousandth.
    let before = nodes.saturating_sub(1).max(1);
    large.grow(before)?;
    large.write(usize::from(before) * KEYS_PER_NODE)?;
    large.told(nodes)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (nodes, file) = match arguments.as_slice() {
        [nodes, file] => (nodes.parse::<u16>().ok().filter(|n| *n > 1), file),
        _ => (None, &String::new()),
    };
    let Some(nodes) = nodes else {
        eprintln!(
            "large_ring NODES FILE: forms a ring and writes what its last node is told when it is let in"
        );
        return ExitCode::from(2);
    };
    let told = match form(nodes) {
        Ok(told) => told,
        Err(violation) => {
            eprintln!("{violation}");
            return ExitCode::FAILURE;
        }
    };
    let mut frame = BytesMut::new();
    put_message(&mut frame, &told);
    match std::fs::write(file, &frame) {
        Ok(()) => {
            println!("{file}: {} bytes", frame.len());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{file}: {e}");
            ExitCode::FAILURE
        }
    }
}
