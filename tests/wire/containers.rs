//! Containers of the image on 10.2.1.0/24, started as the article on Scalaris over Weave does.

use harness::docker::{Container, Image, Network};
use harness::grpc::{self, by_grpc};
use harness::load::Load;
use harness::poll::{ensure, until};
use harness::{Res, cli};
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

const FIRST: u8 = 3;
const WRITERS: usize = 4;
const KEYS: u64 = 50;
/// Generous: a test machine may be loaded. The figure is printed, and belongs into the measurements.
const FIRST_WRITE_WITHIN: Duration = Duration::from_secs(20);
const GAP_MAX: Duration = Duration::from_secs(2);
const SETTLES_WITHIN: Duration = Duration::from_secs(20);
const STOPS_WITHIN: Duration = Duration::from_secs(10);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 1, last)
}

/// Three nodes; declared in the order in which they must go: containers, network, image.
struct Ring {
    nodes: Vec<Container>,
    network: Network,
    image: Image,
}

impl Ring {
    fn start() -> Res<Ring> {
        let image = Image::build()?;
        let network = Network::create()?;
        let mut ring = Ring { nodes: Vec::new(), network, image };
        for last in FIRST..FIRST + 3 {
            ring.add(last, FIRST)?;
        }
        Ok(ring)
    }

    fn add(&mut self, last: u8, join: u8) -> Res<()> {
        self.nodes.push(Container::start(&self.image, &self.network, ip(last), ip(join))?);
        Ok(())
    }

    fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Container::endpoint).collect()
    }

    fn wait_members(&self, n: usize) -> Res<()> {
        for endpoint in self.endpoints() {
            until(&format!("{endpoint} sees {n} members"), SETTLES_WITHIN, || {
                grpc::sees_members(&endpoint, n)
            })?;
        }
        Ok(())
    }

    fn wait_full_strength(&self) -> Res<()> {
        for endpoint in self.endpoints() {
            until(&format!("{endpoint} sees full strength"), SETTLES_WITHIN, || {
                grpc::sees_full_strength(&endpoint)
            })?;
        }
        Ok(())
    }
}

fn steady() {
    sleep(Duration::from_secs(2));
}

/// From the start of three processes to a committed write, and that write read at each of them.
pub(crate) fn three() -> Res<()> {
    let image = Image::build()?;
    let network = Network::create()?;
    // An engine takes most of a second for each container: it starts them at once, as compose does.
    let start = |last: u8| Container::start(&image, &network, ip(last), ip(FIRST));
    let started = Instant::now();
    let nodes: Vec<Res<Container>> = std::thread::scope(|s| {
        let all: Vec<_> = (FIRST..FIRST + 3).map(|last| s.spawn(move || start(last))).collect();
        all.into_iter().map(|t| t.join().map_err(|_| "a start panicked".to_owned())?).collect()
    });
    let nodes: Vec<Container> = nodes.into_iter().collect::<Res<_>>()?;
    let running = started.elapsed();
    until("the first write", SETTLES_WITHIN, || cli::put(&nodes[2].endpoint(), "first", "write"))?;
    let written = started.elapsed();
    println!("three containers: run returned after {running:?}, first write after {written:?}");
    // What the engine itself needs is not the node's.
    ensure(written.saturating_sub(running) <= FIRST_WRITE_WITHIN, || {
        format!("the first write took {written:?}, {running:?} of it the engine's")
    })?;
    let ring = Ring { nodes, network, image };
    ring.wait_members(3)?;
    for endpoint in ring.endpoints() {
        let read = until("a read", SETTLES_WITHIN, || cli::get(&endpoint, "first"))?;
        ensure(read == "write", || format!("{endpoint} gives {read:?}"))?;
    }
    for node in &ring.nodes {
        node.wait_healthy(SETTLES_WITHIN)?;
    }
    Ok(())
}

/// `docker kill` of each in turn under load; the others go on, and a fourth restores full strength.
pub(crate) fn kill_one() -> Res<()> {
    for victim in 0..3usize {
        let connect = by_grpc();
        let mut ring = Ring::start()?;
        ring.wait_full_strength()?;
        let gone = ring.nodes.remove(victim);
        let load = Load::start("kill", &connect, &ring.endpoints(), WRITERS, KEYS);
        steady();
        let killed_at = Instant::now();
        gone.kill()?;
        steady();
        let through = Instant::now();
        // A newcomer asks whoever is left; 10.2.1.3 may be the one that was killed.
        let known = if victim == 0 { FIRST + 1 } else { FIRST };
        ring.add(FIRST + 3, known)?;
        ring.wait_members(3)?;
        ring.wait_full_strength()?;
        let mut report = load.finish()?;
        let gap = report.longest_gap(killed_at, through);
        println!("container {victim} killed: {} writes, longest gap {gap:?}", report.writes());
        ensure(gap <= GAP_MAX, || format!("no write for {gap:?} after container {victim} was killed"))?;
        report.verify(&connect, &ring.endpoints())?;
    }
    Ok(())
}

/// `docker stop`: exit 0 in time, and no call at the others fails.
pub(crate) fn stop_one() -> Res<()> {
    let connect = by_grpc();
    let mut ring = Ring::start()?;
    ring.wait_full_strength()?;
    let gone = ring.nodes.remove(1);
    let load = Load::start("stop", &connect, &ring.endpoints(), WRITERS, KEYS);
    steady();
    let asked = Instant::now();
    let code = gone.stop()?;
    let took = asked.elapsed();
    steady();
    let mut report = load.finish()?;
    println!("stopped in {took:?}; {} writes at the others", report.writes());
    ensure(code == 0, || format!("it ended with {code}; it said:\n{}", gone.log()))?;
    ensure(took < STOPS_WITHIN, || format!("it took {took:?}"))?;
    ensure(report.failures.is_empty(), || {
        format!("{} calls failed, the first: {:?}", report.failures.len(), report.failures.first())
    })?;
    report.verify(&connect, &ring.endpoints())
}

/// The first node has itself to join: after a crash it finds the others instead of beginning a second ring.
pub(crate) fn first_comes_home() -> Res<()> {
    let mut ring = Ring::start()?;
    ring.wait_full_strength()?;
    cli::put(&ring.nodes[0].endpoint(), "before", "crash")?;
    ring.nodes[0].kill()?;
    ring.nodes[0].restart()?;
    ring.wait_members(3)?;
    ring.wait_full_strength()?;
    let endpoint = ring.nodes[0].endpoint();
    let read = until("a read at the first", SETTLES_WITHIN, || cli::get(&endpoint, "before"))?;
    ensure(read == "crash", || format!("the first gives {read:?}"))
}

/// Neither variable, the default network, a mapped port.
pub(crate) fn lone() -> Res<()> {
    let image = Image::build()?;
    let node = Container::run(&image, &[])?;
    until("a write", SETTLES_WITHIN, || cli::put(&node.endpoint(), "greeting", "hello"))?;
    let read = cli::get(&node.endpoint(), "greeting")?;
    ensure(read == "hello", || format!("it gives {read:?}"))?;
    node.wait_healthy(SETTLES_WITHIN)?;
    let code = node.stop()?;
    ensure(code == 0, || format!("it ended with {code}; it said:\n{}", node.log()))
}
