//! What a ring costs beside a plain gRPC server, measured in one run on one machine.
//!
//!     cargo run --release -p kvnode-benches --bin compare [-- --seconds 5 --rounds 3 --keys 10000 \
//!         --clients 64 --connections 64 --rest 0]
//!
//! One echo server and three nodes (R = 3) are started; the same clients load them in turn. The figure to
//! compare is the processor time, user and system, of all servers per successful call: it hardly depends on
//! what else the machine does, unlike throughput and latency.

#![allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]

use benches::closed_loop::{Outcome, Shape, Work, connect, fill, run};
use benches::echo;
use benches::usage::{Clock, resident_bytes};
use benches::{KEY_BYTES, VALUE_BYTES};
use harness::poll::until;
use harness::process::{Node, loopback, start_ring};
use harness::{Res, grpc};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tonic::transport::Channel;

const ECHO_PORT: u16 = 50051;
/// The first argument of the process that is the echo server.
const SERVE_ECHO: &str = "--serve-echo";
const WARM_UP: Duration = Duration::from_secs(1);
const REPLICAS: u32 = 3;

/// The most that writes and reads may cost, as multiples of the plain server.
const BUDGET: [(Work, f64); 2] = [(Work::Write, 4.0), (Work::Read, 2.5)];

struct Settings {
    /// Length of a round.
    seconds: u64,
    /// How long to wait, after all rounds, before memory is looked at again.
    rest_seconds: u64,
    rounds: usize,
    shape: Shape,
}

fn settings() -> Res<Settings> {
    let shape = Shape { clients: 64, connections: 64, keys: 10_000 };
    let mut all = Settings { seconds: 5, rest_seconds: 0, rounds: 3, shape };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} needs a number"))?;
        let number: u32 = value.parse().map_err(|_| format!("{flag} needs a number, not {value:?}"))?;
        let size = usize::try_from(number).map_err(|e| e.to_string())?.max(1);
        match flag.as_str() {
            "--seconds" => all.seconds = u64::from(number),
            "--rest" => all.rest_seconds = u64::from(number),
            "--rounds" => all.rounds = size,
            "--clients" => all.shape.clients = size,
            "--connections" => all.shape.connections = size,
            "--keys" => all.shape.keys = number,
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    Ok(all)
}

/// The echo server; ends with this value.
struct Echo {
    child: Child,
    at: SocketAddr,
}

impl Echo {
    fn start() -> Res<Echo> {
        // This program is the echo server, too: nothing has to be built first, and it is never an older one.
        let program = std::env::current_exe().map_err(|e| format!("cannot name this program: {e}"))?;
        let at = SocketAddr::from((loopback(250), ECHO_PORT));
        let child = Command::new(program)
            .args([SERVE_ECHO, &at.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start the echo server: {e}"))?;
        let echo = Echo { child, at };
        until("the echo server listens", Duration::from_secs(10), || {
            TcpStream::connect(at).map(|_| ()).map_err(|e| e.to_string())
        })?;
        Ok(echo)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Nothing is left to do about a process that ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Row {
    work: Work,
    micros_per_call: f64,
    outcome: Outcome,
}

async fn measure(
    work: Work,
    settings: &Settings,
    channels: &[Channel],
    pids: &[u32],
    clock: Clock,
) -> Res<Row> {
    run(work, settings.shape, channels, WARM_UP).await;
    let before = clock.processor_time(pids)?;
    let outcome = run(work, settings.shape, channels, Duration::from_secs(settings.seconds)).await;
    let used = clock.processor_time(pids)?.saturating_sub(before);
    if outcome.done == 0 {
        return Err(format!("{work:?}: no call succeeded; {:?}", outcome.reason));
    }
    let micros_per_call = used.as_secs_f64() * 1e6 / f64::from(outcome.done);
    Ok(Row { work, micros_per_call, outcome })
}

fn median(rows: &[Row], work: Work) -> f64 {
    let mut all: Vec<f64> = rows.iter().filter(|r| r.work == work).map(|r| r.micros_per_call).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn per_copy(before: u64, after: u64, settings: &Settings) -> f64 {
    let grown_kib = u32::try_from(after.saturating_sub(before) >> 10).unwrap_or(u32::MAX);
    f64::from(grown_kib) * 1024.0 / f64::from(settings.shape.keys) / f64::from(REPLICAS)
}

fn print_row(row: &Row) {
    let o = &row.outcome;
    println!(
        "{:<6} {:>9.0} calls/s   p50 {:>9.3?}   p99 {:>9.3?}   servers {:>7.1} µs/call   {} failed{}",
        format!("{:?}", row.work).to_lowercase(),
        o.per_second(),
        o.latency(500),
        o.latency(990),
        row.micros_per_call,
        o.failed,
        o.reason.as_ref().map(|r| format!(", for example: {r}")).unwrap_or_default(),
    );
}

/// The servers under load: one plain, three of a ring.
struct Servers {
    echo: Echo,
    nodes: Vec<Node>,
}

impl Servers {
    fn start() -> Res<Servers> {
        let (echo, nodes) = (Echo::start()?, start_ring(3)?);
        for node in &nodes {
            until("full strength", Duration::from_secs(20), || grpc::sees_full_strength(&node.endpoint()))?;
        }
        Ok(Servers { echo, nodes })
    }
}

async fn compare(settings: &Settings, servers: &Servers) -> Res<()> {
    let clock = Clock::new()?;
    let endpoints: Vec<String> = servers.nodes.iter().map(Node::endpoint).collect();
    let ring_pids: Vec<u32> = servers.nodes.iter().map(Node::pid).collect();
    let echo_pids = [servers.echo.child.id()];
    let connections = settings.shape.connections;
    let to_echo = connect(&[servers.echo.at.to_string()], connections).await?;
    let to_ring = connect(&endpoints, connections).await?;

    let empty = resident_bytes(&ring_pids)?;
    fill(settings.shape.keys, settings.shape, &to_ring).await?;
    let filled = resident_bytes(&ring_pids)?;

    println!(
        "{} clients on {connections} connections, {} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES} bytes, \
         {} rounds of {} s",
        settings.shape.clients, settings.shape.keys, settings.rounds, settings.seconds,
    );
    let mut rows = Vec::new();
    for _ in 0..settings.rounds {
        for (work, channels, pids) in [
            (Work::Echo, &to_echo, &echo_pids[..]),
            (Work::Write, &to_ring, &ring_pids[..]),
            (Work::Read, &to_ring, &ring_pids[..]),
        ] {
            let row = measure(work, settings, channels, pids, clock).await?;
            print_row(&row);
            rows.push(row);
        }
    }
    let floor = median(&rows, Work::Echo);
    println!("\nmedian of the servers' processor time per call; echo: {floor:.1} µs");
    for (work, allowed) in BUDGET {
        let cost = median(&rows, work);
        let verdict = if cost <= floor * allowed { "within" } else { "OVER" };
        println!("{work:?}: {cost:.1} µs, {:.2} times echo, {verdict} the budget of {allowed}", cost / floor);
    }
    tokio::time::sleep(Duration::from_secs(settings.rest_seconds)).await;
    let at_rest = resident_bytes(&ring_pids)?;
    println!(
        "memory per key and replica, with its {} bytes: {:.0} bytes after one write each, {:.0} at the end",
        KEY_BYTES + VALUE_BYTES,
        per_copy(empty, filled, settings),
        per_copy(empty, at_rest, settings),
    );
    Ok(())
}

fn start_and_compare() -> Res<()> {
    let settings = settings()?;
    let servers = Servers::start()?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("cannot make a runtime: {e}"))?;
    runtime.block_on(compare(&settings, &servers))
}

/// The echo server's process.
fn serve_echo(at: &str) -> Res<()> {
    let at = at.parse().map_err(|e| format!("{at} is not an address: {e}"))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("cannot make a runtime: {e}"))?;
    runtime.block_on(echo::serve(at)).map_err(|e| format!("the echo server does not run: {e}"))
}

fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let ended = match words.as_slice() {
        [first, at] if first == SERVE_ECHO => serve_echo(at),
        _ => start_and_compare(),
    };
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("compare: {reason}");
            std::process::ExitCode::FAILURE
        }
    }
}
