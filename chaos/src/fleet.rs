//! The nodes of a run: real processes, each in its place of the network.

use crate::door::{Door, Doors};
use crate::network::{Cut, Network, namespace};
use client::v1::{Phase, StatusResponse};
use harness::process::CLIENT_PORT;
use harness::{Res, binary};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Member {
    address: Ipv4Addr,
    child: Option<Child>,
}

#[derive(Debug)]
pub(crate) struct Fleet {
    /// Where clients find the nodes.
    pub(crate) doors: Doors,
    network: Network,
    members: Vec<Member>,
    runtime: Arc<Runtime>,
    logs: PathBuf,
    addresses_used: u16,
    starts: u32,
}

impl Fleet {
    /// Places for `n` nodes; none is started yet.
    pub(crate) fn new(n: usize, runtime: Arc<Runtime>, logs: PathBuf) -> Res<Fleet> {
        std::fs::create_dir_all(&logs).map_err(|e| format!("cannot make {}: {e}", logs.display()))?;
        let mut fleet = Fleet {
            doors: Doors::default(),
            network: Network::build(n)?,
            members: Vec::new(),
            runtime,
            logs,
            addresses_used: 0,
            starts: 0,
        };
        for place in 0..n {
            fleet.members.push(Member { address: Ipv4Addr::UNSPECIFIED, child: None });
            fleet.move_away(place)?;
        }
        Ok(fleet)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    pub(crate) fn address(&self, place: usize) -> Ipv4Addr {
        self.members.get(place).map_or(Ipv4Addr::UNSPECIFIED, |m| m.address)
    }

    /// Gives the place an address that no node had before, so that whatever starts there is a stranger.
    pub(crate) fn move_away(&mut self, place: usize) -> Res<()> {
        self.addresses_used += 1;
        let [high, low] = self.addresses_used.to_be_bytes();
        let address = Ipv4Addr::new(10, 77, high + 1, low);
        self.network.set_address(place, address)?;
        if let Some(m) = self.members.get_mut(place) {
            m.address = address;
        }
        self.doors.set(place, Door::new(format!("{address}:{CLIENT_PORT}")));
        Ok(())
    }

    /// Starts a node that joins at these addresses.
    pub(crate) fn start(&mut self, place: usize, join: &[Ipv4Addr]) -> Res<()> {
        let address = self.address(place);
        self.starts += 1;
        let path = self.logs.join(format!("{:04}-{place}-{address}.log", self.starts));
        let log = File::create(&path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let join: Vec<String> = join.iter().map(Ipv4Addr::to_string).collect();
        // `ip netns exec` becomes the program, so signals reach the node itself.
        let child = Command::new("ip")
            .args(["netns", "exec", &namespace(place)])
            .arg(binary::kvnode()?)
            .args(["--listen", &address.to_string(), "--join", &join.join(",")])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("cannot start a node: {e}"))?;
        if let Some(m) = self.members.get_mut(place) {
            m.child = Some(child);
        }
        Ok(())
    }

    /// Starts a node that joins at the others.
    pub(crate) fn start_at_others(&mut self, place: usize) -> Res<()> {
        let others: Vec<Ipv4Addr> =
            (0..self.len()).filter(|p| *p != place).map(|p| self.address(p)).collect();
        self.start(place, &others)
    }

    /// Starts everybody; the first creates the ring.
    pub(crate) fn start_all(&mut self) -> Res<()> {
        let first = self.address(0);
        (0..self.len()).try_for_each(|p| self.start(p, &[first]))
    }

    /// A new ring with new nodes at new addresses, after whatever happened to the one before.
    pub(crate) fn start_over(&mut self) -> Res<()> {
        self.network.set_links(true)?;
        self.network.cut(&[])?;
        for place in 0..self.len() {
            self.kill(place)?;
            self.move_away(place)?;
        }
        self.start_all()?;
        self.wait_full_strength(Duration::from_secs(30)).map(|_| ())
    }

    /// Ends a node at once, without a word to anybody.
    pub(crate) fn kill(&mut self, place: usize) -> Res<()> {
        self.close(place);
        let Some(mut child) = self.members.get_mut(place).and_then(|m| m.child.take()) else { return Ok(()) };
        child.kill().map_err(|e| format!("cannot kill node {place}: {e}"))?;
        child.wait().map(|_| ()).map_err(|e| format!("cannot wait for node {place}: {e}"))
    }

    /// Sends a node a signal by name.
    pub(crate) fn signal(&self, place: usize, name: &str) -> Res<()> {
        let Some(child) = self.members.get(place).and_then(|m| m.child.as_ref()) else {
            return Err(format!("node {place} does not run"));
        };
        let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        match sent {
            Ok(s) if s.success() => Ok(()),
            other => Err(format!("kill -s {name} of node {place}: {other:?}")),
        }
    }

    /// Waits until a node that was told to end has ended.
    pub(crate) fn wait_exit(&mut self, place: usize, limit: Duration) -> Res<ExitStatus> {
        let began = Instant::now();
        let Some(mut child) = self.members.get_mut(place).and_then(|m| m.child.take()) else {
            return Err(format!("node {place} does not run"));
        };
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if began.elapsed() < limit => std::thread::sleep(PAUSE),
                other => {
                    let _ = child.kill();
                    return Err(format!("node {place} did not end within {limit:?}: {other:?}"));
                }
            }
        }
    }

    /// Nodes that ended though nobody ended them.
    pub(crate) fn ended_by_themselves(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        for (place, m) in self.members.iter_mut().enumerate() {
            if let Some(Ok(Some(status))) = m.child.as_mut().map(Child::try_wait) {
                out.push(format!("node {place} at {} ended by itself: {status}", m.address));
                m.child = None;
            }
        }
        out
    }

    /// Packets in these directions, by place, are lost from now on, and no others.
    pub(crate) fn cut(&self, cuts: &[(usize, usize)]) -> Res<()> {
        let cuts: Vec<Cut> = cuts.iter().map(|(a, b)| (self.address(*a), self.address(*b))).collect();
        self.network.cut(&cuts)
    }

    pub(crate) fn set_links(&self, is_up: bool) -> Res<()> {
        self.network.set_links(is_up)
    }

    pub(crate) fn close(&self, place: usize) {
        if let Some(d) = self.doors.all().get(place) {
            d.set_open(false);
        }
    }

    fn running(&self) -> Vec<usize> {
        (0..self.len()).filter(|p| self.members.get(*p).is_some_and(|m| m.child.is_some())).collect()
    }

    fn door(&self, place: usize) -> Res<Arc<Door>> {
        self.doors.all().get(place).cloned().ok_or_else(|| format!("there is no place {place}"))
    }

    /// What a node says of itself.
    pub(crate) fn status(&self, place: usize) -> Res<StatusResponse> {
        let door = self.door(place)?;
        self.runtime.block_on(async {
            let kv = door.status_client().await.map_err(|e| format!("node {place}: {e}"))?;
            kv.status().await.map_err(|e| format!("node {place}: {e}"))
        })
    }

    /// Waits until all that run see each other, and every key has all its replicas; how long that took. Clients
    /// are sent to every node that is a member.
    pub(crate) fn wait_full_strength(&self, limit: Duration) -> Res<Duration> {
        let began = Instant::now();
        loop {
            match self.weakness() {
                None => return Ok(began.elapsed()),
                Some(why) if began.elapsed() >= limit => {
                    return Err(format!("no full strength within {limit:?}: {why}"));
                }
                Some(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// What is missing for full strength.
    fn weakness(&self) -> Option<String> {
        let running = self.running();
        let mut rings = Vec::new();
        let mut first = None;
        for place in &running {
            let s = match self.status(*place) {
                Ok(s) => s,
                Err(e) => {
                    first.get_or_insert(e);
                    continue;
                }
            };
            if s.phase() == Phase::Member
                && let Ok(d) = self.door(*place)
                && !d.is_open()
            {
                d.set_open(true);
            }
            let n = u32::try_from(running.len()).unwrap_or(u32::MAX);
            let tolerated = s.replication_factor.min(n).saturating_sub(1) / 2;
            let is_full = s.phase() == Phase::Member
                && s.members_alive == n
                && s.pieces > 0
                && s.fully_replicated
                && s.tolerated_failures >= tolerated;
            if !is_full {
                first.get_or_insert(format!(
                    "node {place} is {:?}, sees {} alive and {} lost, can lose {}; findings: {:?}",
                    s.phase(),
                    s.members_alive,
                    s.members_lost,
                    s.tolerated_failures,
                    s.findings
                ));
            }
            rings.push(s.ring);
        }
        rings.sort();
        rings.dedup();
        match first {
            None if rings.len() > 1 => Some(format!("there are several rings: {rings:?}")),
            other => other,
        }
    }

    /// Everything that every node says of itself, for people.
    pub(crate) fn describe(&self) -> String {
        let mut out = String::new();
        for place in self.running() {
            let door = self.door(place);
            let said = self.runtime.block_on(async {
                let kv = door?.status_client().await.map_err(|e| e.to_string())?;
                let status = kv.status().await.map_err(|e| e.to_string())?;
                let members = kv.members().await.map_err(|e| e.to_string())?;
                let ring = kv.ring().await.map_err(|e| e.to_string())?;
                Ok::<String, String>(format!("{status:#?}\n{members:#?}\n{ring:#?}"))
            });
            out.push_str(
                &format!("== node {place} at {}\n{said:?}\n", self.address(place)).replace("\\n", "\n"),
            );
        }
        out
    }
}
