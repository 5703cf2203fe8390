//! Two rings that both have data meet: both say so, and one of them is given up at an operator's command.

use core::time::Duration;
use dht::{DhtNode, Failure, Reply, Request, RequestId};
use ring::{NodeId, Space};
use sim::cluster::{Cluster, Completion};
use sim::{Profile, Scenario, Settings};
use store::{Change, Condition, Key, Value};

const LIMIT: Duration = Duration::from_secs(60);

struct Rings {
    cluster: Cluster<DhtNode>,
    done: Vec<(RequestId, Option<Reply>)>,
}

impl Rings {
    /// Hosts 1 to 3 are one ring, hosts 4 and 5 another one whose founder knows the first, each with a key of its own.
    fn new(seed: u64) -> Rings {
        let settings = Settings::draw(seed, Profile::Steady, Scenario::Load, 5, 0);
        let settings = Settings { config: dht::Config::default(), ..settings };
        let space = Space::new(settings.config.replication_factor).expect("the default is valid");
        let mut rings = Rings { cluster: Cluster::new(&settings, space, false), done: Vec::new() };
        let first = rings.start(1, &[1], true);
        rings.put(first, "first");
        rings.start(2, &[1], false);
        rings.start(3, &[1], false);
        let founder = rings.start(4, &[1], true);
        rings.put(founder, "second");
        rings.start(5, &[4], false);
        rings.until("both rings formed", |r| r.sizes() == [3, 2]);
        rings
    }

    fn start(&mut self, host: u16, seeds: &[u16], creates_at_once: bool) -> NodeId {
        self.cluster.start(host, seeds, creates_at_once).expect("nothing is violated")
    }

    /// The members that each ring's nodes serve as, the larger ring first.
    fn sizes(&self) -> Vec<usize> {
        let mut rings: std::collections::BTreeMap<_, usize> = Default::default();
        for p in self.cluster.processes().filter(|p| p.is_serving()) {
            *rings.entry(p.ring).or_default() += 1;
        }
        let mut sizes: Vec<usize> = rings.into_values().collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }

    fn at(&self, host: u16) -> NodeId {
        let addr = sim::cluster::address(host);
        self.cluster.processes().find(|p| p.me.addr == addr).expect("it runs").me.id
    }

    fn step(&mut self) {
        self.cluster.step().expect("nothing is violated");
        while let Some(Completion { id, reply }) = self.cluster.poll_completion() {
            self.done.push((id, reply));
        }
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Rings) -> bool) {
        let end = self.cluster.now() + LIMIT;
        while !is_so(self) {
            self.step();
            assert!(self.cluster.now() < end, "{what}: not in time");
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.cluster.now() + time;
        while self.cluster.now() < end {
            self.step();
        }
    }

    fn ask(&mut self, node: NodeId, request: Request) -> Option<Reply> {
        let id = self.cluster.request(node, request).expect("nothing is violated");
        self.until("an answer", |r| r.done.iter().any(|d| d.0 == id));
        self.done.iter().find(|d| d.0 == id).and_then(|d| d.1.clone())
    }

    fn put(&mut self, node: NodeId, key: &str) {
        let change = Change::Put { value: Value::int(1), condition: Condition::Always };
        let put = Request::Change { key: Key::new(key.as_bytes()), change };
        for _ in 0..100 {
            match self.ask(node, put.clone()) {
                Some(Reply::Changed { .. }) => return,
                Some(Reply::Failed(Failure::Unavailable { .. })) => self.pass(Duration::from_millis(100)),
                other => panic!("{other:?}"),
            }
        }
        panic!("{key} was never written");
    }

    fn has(&mut self, node: NodeId, key: &str) -> bool {
        match self.ask(node, Request::Get { key: Key::new(key.as_bytes()) }) {
            Some(Reply::Value { value, .. }) => value.is_some(),
            other => panic!("{other:?}"),
        }
    }

    fn dissolve(&mut self, host: u16, is_dry: bool) -> dht::api::DissolveReport {
        let node = self.at(host);
        match self.ask(node, Request::Dissolve { is_dry }) {
            Some(Reply::Dissolved(report)) => *report,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_members_of_a_ring_that_is_given_up_join_the_other_one() {
    for seed in 1..20 {
        let mut rings = Rings::new(seed);
        rings.pass(Duration::from_secs(2));
        let told = rings.dissolve(4, true);
        assert_eq!((told.members, told.keys), (2, 1), "{told:?}");
        let (other, at) = told.other.expect("the first ring is heard");
        assert_ne!(Some(other), told.ring);
        rings.pass(Duration::from_secs(2));
        assert_eq!(rings.sizes(), [3, 2], "a dry command changes nothing");

        assert_eq!(rings.dissolve(4, false).other.map(|o| o.0), Some(other), "{at}");
        rings.until("one ring of five", |r| r.sizes() == [5]);
        rings.pass(Duration::from_secs(5));
        for host in 1..=5 {
            let node = rings.at(host);
            assert!(rings.has(node, "first"), "seed {seed}: what the other ring had is at every node");
            assert!(!rings.has(node, "second"), "seed {seed}: what was given up is gone");
            let Some(Reply::Status(status)) = rings.ask(node, Request::Status) else { panic!("no status") };
            assert!(status.is_fully_replicated, "{status:?}");
        }
        rings.pass(Duration::from_secs(10));
        let founder = rings.at(4);
        let Some(Reply::Status(status)) = rings.ask(founder, Request::Status) else { panic!("no status") };
        assert_eq!(status.foreign_ring, None, "the other ring is not foreign any more");
    }
}

#[test]
fn a_ring_is_not_given_up_for_one_that_is_not_heard() {
    let mut rings = Rings::new(1);
    rings.pass(Duration::from_secs(2));
    for host in 1..=3 {
        let node = rings.at(host);
        rings.cluster.crash(node);
    }
    rings.pass(Duration::from_secs(11));
    let told = rings.dissolve(4, false);
    assert_eq!(told.other, None);
    rings.pass(Duration::from_secs(2));
    assert_eq!(rings.sizes(), [2], "it goes on as before");
    let founder = rings.at(4);
    assert!(rings.has(founder, "second"));
}

/// Everybody who asked for something before the ring ended is answered, a node that was leaving it among them.
#[test]
fn who_waits_for_a_node_of_a_ring_that_is_given_up_is_answered() {
    let mut rings = Rings::new(3);
    rings.pass(Duration::from_secs(2));
    let leaving = rings.at(5);
    let leave = rings.cluster.request(leaving, Request::Leave).expect("nothing is violated");
    let put = Change::Put { value: Value::int(2), condition: Condition::Always };
    let change = Request::Change { key: Key::new(b"second"), change: put };
    let change = rings.cluster.request(leaving, change).expect("nothing is violated");
    rings.dissolve(4, false);
    rings.until("one ring of five", |r| r.sizes() == [5]);
    let reply = |id| rings.done.iter().find(|d| d.0 == id).map(|d| d.1.clone());
    assert_eq!(reply(leave), Some(Some(Reply::Left { is_clean: false })));
    let changed = reply(change).flatten().expect("an answer, not just an end");
    assert!(matches!(changed, Reply::Failed(_) | Reply::Changed { .. }), "{changed:?}");
}
