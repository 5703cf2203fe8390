//! A ring of processes on loopback addresses.

use harness::grpc::by_grpc;
use harness::load::Load;
use harness::poll::{ensure, until};
use harness::process::{Node, READY_WITHIN, ensure_free, loopback, start_ring};
use harness::{Res, cli};
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Writers of a test; with the two cores of a small machine in mind.
const WRITERS: usize = 4;
/// Keys of a writer.
const KEYS: u64 = 50;
/// Three processes that start together must have taken a write this soon.
/// Generous: a test machine may be loaded. The figure is printed, and belongs into the measurements.
const FIRST_WRITE_WITHIN: Duration = Duration::from_secs(20);
/// Writes must go on this soon after a crash.
const GAP_MAX: Duration = Duration::from_secs(2);

fn endpoints<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<String> {
    nodes.into_iter().map(Node::endpoint).collect()
}

/// How long the load runs undisturbed before and after what a test does.
fn steady() {
    sleep(Duration::from_secs(2));
}

/// README's first command: no setting at all.
pub(crate) fn lone() -> Res<()> {
    let home = Ipv4Addr::LOCALHOST;
    ensure_free(home)?;
    let mut node = Node::start_with(home, &[], &[])?;
    node.wait_ready()?;
    // The default endpoint of the command line is the default address of a node.
    let out = cli::run(&["put", "greeting", "hello"])?;
    ensure(out.code == Some(0), || format!("put ended with {:?}: {}", out.code, out.stderr))?;
    let out = cli::run(&["get", "greeting"])?;
    ensure(out.stdout == "hello", || format!("get gave {out:?}"))?;
    let health = cli::run(&["healthcheck"])?;
    ensure(health.code == Some(0), || format!("healthcheck gave {health:?}"))?;
    node.leave().map(|_| ())
}

/// The image sets KVNODE_LISTEN; what is said when a container is started must win over that.
pub(crate) fn listen_address_wins() -> Res<()> {
    let env = [("LISTEN_ADDRESS", "10.2.1.4"), ("KVNODE_LISTEN", "auto")];
    let out = cli::run_with(&["config", "show", "--origin"], &env)?;
    ensure(out.stdout.contains("10.2.1.4"), || format!("the node would listen elsewhere:\n{}", out.stdout))
}

/// One write, read at each of the others; then the time until three fresh processes took their first write.
pub(crate) fn three() -> Res<()> {
    let started = Instant::now();
    let nodes: Vec<Node> = (2..5).map(|last| Node::start(loopback(last), loopback(2))).collect::<Res<_>>()?;
    until("the first write", READY_WITHIN, || cli::put(&nodes[1].endpoint(), "first", "write"))?;
    let took = started.elapsed();
    println!("three processes: first write after {took:?}");
    for node in &nodes {
        node.wait_members(3, READY_WITHIN)?;
        let read = until("a read", READY_WITHIN, || cli::get(&node.endpoint(), "first"))?;
        ensure(read == "write", || format!("{} gives {read:?}", node.ip()))?;
    }
    for (i, writer) in nodes.iter().enumerate() {
        let (key, value) = (format!("from-{i}"), format!("value-{i}"));
        cli::put(&writer.endpoint(), &key, &value)?;
        for reader in &nodes {
            let read = cli::get(&reader.endpoint(), &key)?;
            ensure(read == value, || format!("{} written at {}: {read:?}", key, writer.ip()))?;
        }
    }
    let answer = cli::json(&["get", "--endpoint", &nodes[0].endpoint(), "first"])?;
    ensure(answer["value"] == "write" && answer["version"].is_number(), || format!("get -o json: {answer}"))?;
    ensure(took <= FIRST_WRITE_WITHIN, || format!("the first write took {took:?}"))
}

/// 1 to 9 nodes and back to 1 under load: nothing lost.
pub(crate) fn grow_and_shrink() -> Res<()> {
    let connect = by_grpc();
    let mut nodes = start_ring(1)?;
    let load = Load::start("grow", &connect, &endpoints(&nodes), WRITERS, KEYS);
    for last in 3..11u8 {
        let mut node = Node::start(loopback(last), loopback(2))?;
        node.wait_ready()?;
        nodes.push(node);
        for seen_by in &nodes {
            seen_by.wait_members(nodes.len(), READY_WITHIN)?;
        }
        load.use_endpoints(&endpoints(&nodes));
    }
    println!("grown to {} nodes", nodes.len());
    steady();
    // The oldest leaves first, so that the last one never saw the beginning.
    while nodes.len() > 1 {
        load.use_endpoints(&endpoints(&nodes[1..]));
        let oldest = nodes.remove(0);
        let (ip, took) = (oldest.ip(), oldest.leave()?);
        println!("{ip} left in {took:?}");
        for seen_by in &nodes {
            seen_by.wait_members(nodes.len(), READY_WITHIN)?;
        }
    }
    steady();
    let mut report = load.finish()?;
    println!("{} writes, {} reads, {} failures", report.writes(), report.reads, report.failures.len());
    ensure(report.writes() > 100, || format!("hardly anything was written: {:?}", report.failures.first()))?;
    report.verify(&connect, &endpoints(&nodes))
}

/// Each of the three in turn is killed under load; the others go on, and a fourth restores full strength.
pub(crate) fn kill_one() -> Res<()> {
    for victim in 0..3usize {
        let connect = by_grpc();
        let mut nodes = start_ring(3)?;
        let survivors: Vec<String> =
            endpoints(nodes.iter().enumerate().filter(|(i, _)| *i != victim).map(|(_, n)| n));
        let load = Load::start("kill", &connect, &survivors, WRITERS, KEYS);
        steady();
        let killed_at = Instant::now();
        nodes.remove(victim).kill()?;
        steady();
        let through = Instant::now();
        let mut fourth = Node::start(loopback(9), nodes[0].ip())?;
        fourth.wait_ready()?;
        nodes.push(fourth);
        for node in &nodes {
            node.wait_members(3, READY_WITHIN)?;
            node.wait_full_strength()?;
        }
        let mut report = load.finish()?;
        let gap = report.longest_gap(killed_at, through);
        println!("node {victim} killed: {} writes, longest gap {gap:?}", report.writes());
        ensure(gap <= GAP_MAX, || format!("no write for {gap:?} after the crash of node {victim}"))?;
        report.verify(&connect, &endpoints(&nodes))?;
    }
    Ok(())
}

/// The first node has itself to join. After a crash it finds the others, and never answers from a ring of its
/// own that it began meanwhile.
pub(crate) fn first_comes_home() -> Res<()> {
    let mut nodes = start_ring(3)?;
    cli::put(&nodes[1].endpoint(), "before", "crash")?;
    let ip = nodes[0].ip();
    nodes.remove(0).kill()?;
    let first = Node::start(ip, ip)?;
    let read = until("a read at the first", READY_WITHIN, || {
        let out = cli::run(&["get", "--endpoint", &first.endpoint(), "before"])?;
        match out.code {
            Some(0 | 3) => Ok(out),
            code => Err(format!("get ended with {code:?}: {}", out.stderr)),
        }
    })?;
    ensure(read.stdout == "crash", || format!("the first answered from an empty ring: {}", read.stderr))?;
    nodes.push(first);
    nodes
        .iter()
        .try_for_each(|node| node.wait_members(3, READY_WITHIN).and_then(|()| node.wait_full_strength()))?;
    // The process before it is not missed any more.
    nodes.iter().try_for_each(|node| {
        until("nothing is amiss", READY_WITHIN, || {
            let out = cli::run(&["status", "--endpoint", &node.endpoint()])?;
            ensure(out.code == Some(0), || format!("status at {}: {out:?}", node.ip()))
        })
    })
}

/// SIGTERM: exit 0 in time, and no call at the others fails.
pub(crate) fn leave_one() -> Res<()> {
    let connect = by_grpc();
    let mut nodes = start_ring(4)?;
    let others = endpoints(&nodes[1..]);
    let load = Load::start("leave", &connect, &others, WRITERS, KEYS);
    steady();
    let took = nodes.remove(0).leave()?;
    steady();
    let mut report = load.finish()?;
    println!("left in {took:?}; {} writes at the others", report.writes());
    ensure(report.failures.is_empty(), || {
        format!("{} calls failed, the first: {:?}", report.failures.len(), report.failures.first())
    })?;
    report.verify(&connect, &others)
}
