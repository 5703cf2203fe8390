//! One node as a process of this machine.

use crate::binary::{kvnode, scratch};
use crate::http;
use crate::poll::until;
use crate::{Res, grpc};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The overlay port.
pub const OVERLAY_PORT: u16 = 14195;
/// The clients' port.
pub const CLIENT_PORT: u16 = 8000;
/// Within this a started node must be a ready member.
pub const READY_WITHIN: Duration = Duration::from_secs(20);

/// The settings by which the environment of a test could reach a node.
const SETTINGS: [&str; 2] = ["LISTEN_ADDRESS", "JOIN_IP"];

/// A running node. Ends with this value.
#[derive(Debug)]
pub struct Node {
    child: Child,
    ip: Ipv4Addr,
    log: PathBuf,
}

/// A command for the program without any setting from the tests' own environment.
pub fn bare_command() -> Res<Command> {
    let mut command = Command::new(kvnode()?);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("KVNODE_") || SETTINGS.contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// The loopback address with this last number, in a part of 127.0.0.0/8 that is this test run's own: runs
/// beside each other, and rings that a developer has started, do not meet.
pub fn loopback(last: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, last)
}

/// Checks that nothing listens yet where a node is to be; whoever did would answer in its place.
pub fn ensure_free(ip: Ipv4Addr) -> Res<()> {
    for port in [OVERLAY_PORT, CLIENT_PORT] {
        if TcpStream::connect((ip, port)).is_ok() {
            return Err(format!("something else listens at {ip}:{port}; stop it and test again"));
        }
    }
    Ok(())
}

impl Node {
    /// Starts a node on `ip` that joins at `join`; the first node of a ring joins at itself.
    pub fn start(ip: Ipv4Addr, join: Ipv4Addr) -> Res<Node> {
        ensure_free(ip)?;
        Node::start_with(ip, &["--listen", &ip.to_string(), "--join", &join.to_string()], &[])
    }

    /// Starts a node that will be at `ip`, with these arguments and variables.
    pub fn start_with(ip: Ipv4Addr, args: &[&str], env: &[(&str, &str)]) -> Res<Node> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = scratch("logs")?.join(format!("{}-{number:03}-{ip}.log", std::process::id()));
        let file = File::create(&log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let second = file.try_clone().map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let child = bare_command()?
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .spawn()
            .map_err(|e| format!("cannot start the node at {ip}: {e}"))?;
        Ok(Node { child, ip, log })
    }

    /// Its overlay address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Where it answers clients.
    pub fn client_addr(&self) -> SocketAddr {
        SocketAddr::from((self.ip, CLIENT_PORT))
    }

    /// Where it answers clients, as text.
    pub fn endpoint(&self) -> String {
        self.client_addr().to_string()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it says that it is ready.
    pub fn wait_ready(&mut self) -> Res<()> {
        let addr = self.client_addr();
        until(&format!("{} is ready", self.ip), READY_WITHIN, || {
            if let Some(status) = self.ended() {
                return Err(format!("it ended: {status}; it said:\n{}", self.log()));
            }
            match http::get(addr, "/readyz?verbose")? {
                (200, _) => Ok(()),
                (status, body) => Err(format!("/readyz says {status}: {body}")),
            }
        })
    }

    /// Waits until it counts `n` live members.
    pub fn wait_members(&self, n: usize, limit: Duration) -> Res<()> {
        until(&format!("{} sees {n} members", self.ip), limit, || grpc::sees_members(&self.endpoint(), n))
    }

    /// Waits until it sees that any one node may be lost.
    pub fn wait_full_strength(&self) -> Res<()> {
        until("full strength", READY_WITHIN, || grpc::sees_full_strength(&self.endpoint()))
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) -> Res<()> {
        // Of std only kill(2) with SIGKILL is at hand; every Linux has this command.
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .map_err(|e| format!("cannot run kill: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("kill -s {name} failed: {status}")) }
    }

    /// Waits until it has ended and tells how, and how long that took.
    pub fn wait_exit(&mut self, limit: Duration) -> Res<(ExitStatus, Duration)> {
        let started = Instant::now();
        let status = until(&format!("{} ends", self.ip), limit, || {
            self.ended().ok_or_else(|| format!("it still runs; it said:\n{}", self.log()))
        })?;
        Ok((status, started.elapsed()))
    }

    /// Asks it to leave, and checks that it does so cleanly and in time.
    pub fn leave(mut self) -> Res<Duration> {
        self.signal("TERM")?;
        let (status, took) = self.wait_exit(Duration::from_secs(10))?;
        match status.code() {
            Some(0) => Ok(took),
            _ => Err(format!("{} ended with {status} instead of 0; it said:\n{}", self.ip, self.log())),
        }
    }

    /// Ends it at once, without a word to anybody.
    pub fn kill(mut self) -> Res<()> {
        self.child.kill().map_err(|e| format!("cannot kill {}: {e}", self.ip))?;
        self.child.wait().map(|_| ()).map_err(|e| format!("cannot wait for {}: {e}", self.ip))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing is left to do about a process that cannot be ended or was ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `n` nodes at addresses from .2 upward, and waits until all are ready members; from three nodes on,
/// until they have spread so that any one may be lost.
pub fn start_ring(n: u8) -> Res<Vec<Node>> {
    start_ring_with(n, &[])
}

/// The same with these variables in each node's environment.
pub fn start_ring_with(n: u8, env: &[(&str, &str)]) -> Res<Vec<Node>> {
    let mut nodes = Vec::new();
    let first = loopback(2).to_string();
    for last in 2..2 + n {
        let ip = loopback(last);
        ensure_free(ip)?;
        nodes.push(Node::start_with(ip, &["--listen", &ip.to_string(), "--join", &first], env)?);
    }
    for node in &mut nodes {
        node.wait_ready()?;
    }
    for node in &nodes {
        node.wait_members(usize::from(n), READY_WITHIN)?;
        if n >= 3 {
            node.wait_full_strength()?;
        }
    }
    Ok(nodes)
}
