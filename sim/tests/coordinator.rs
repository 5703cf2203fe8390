//! A node is killed after every single message that it sends while a transaction is carried out: the transaction is done
//! as a whole or not at all, its client was told nothing else, and nothing of it is left.

use core::time::Duration;
use dht::api::{Transact, TxOutcome};
use dht::tx::{Step, TxLog};
use dht::{DhtNode, Failure, Reply, Request, RequestId};
use ring::{NodeId, Space};
use sim::cluster::Cluster;
use sim::network::Weather;
use sim::{Profile, Scenario, Settings};
use std::collections::BTreeSet;
use std::thread;
use store::{Change, Condition, Key, OpId, SessionId, Value};

/// Which transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Writes two keys.
    Blind,
    /// Writes two keys and rests on a third.
    Validating,
    /// In two calls; the commit is asked for again at another node if its answer does not come.
    Logged,
}

const LIMIT: Duration = Duration::from_secs(60);

struct Run {
    cluster: Cluster<DhtNode>,
    nodes: Vec<NodeId>,
    done: Vec<(RequestId, Option<Reply>)>,
}

fn put(key: &str, value: i64) -> Step {
    let change = Change::Put { value: Value::int(value), condition: Condition::Always };
    Step { key: Key::new(key.as_bytes()), change: Some(change) }
}

fn get(key: &str) -> Step {
    Step { key: Key::new(key.as_bytes()), change: None }
}

fn whole(steps: Vec<Step>) -> Transact {
    Transact { steps, commit: true, ..Transact::default() }
}

impl Run {
    /// A ring of five with three keys that have the value 0.
    fn new(seed: u64, is_hinted: bool) -> Run {
        let mut s = Settings::draw(seed, Profile::Steady, Scenario::Transactions, 5, 0);
        s.config = dht::Config { ledger_idle_max: Duration::from_millis(50), ..dht::Config::default() };
        let space = Space::new(s.config.replication_factor).expect("the default is valid");
        let cluster = Cluster::new(&s, space, false);
        let mut run = Run { cluster, nodes: Vec::new(), done: Vec::new() };
        for host in 1..=5 {
            let node = run.cluster.start(host, &[1], host == 1).expect("nothing is violated");
            run.nodes.push(node);
        }
        run.until("the ring formed", |r| r.is_whole(5));
        let hint_per_mille = if is_hinted { 1000 } else { 0 };
        let calm = Weather::calm(Duration::from_micros(300));
        run.cluster.network().set_weather(Weather { hint_per_mille, ..calm });
        run.transact(0, whole(vec![put("a", 0), put("b", 0), put("c", 0)]));
        run.until("nothing is under way", |r| r.cluster.unfinished().is_none());
        run
    }

    fn is_whole(&self, nodes: usize) -> bool {
        self.cluster.serving().len() == nodes && self.cluster.strength(&BTreeSet::new()).is_settled()
    }

    fn step(&mut self) {
        self.cluster.step().expect("nothing is violated");
        while let Some(c) = self.cluster.poll_completion() {
            self.done.push((c.id, c.reply));
        }
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Run) -> bool) {
        let end = self.cluster.now() + LIMIT;
        loop {
            // Looked at now and then only: it takes longer than a step.
            for _ in 0..20 {
                self.step();
            }
            if is_so(self) {
                return;
            }
            assert!(
                self.cluster.now() < end,
                "{what}: not within {LIMIT:?}, {:?}, {:?}\n{}",
                self.cluster.unfinished(),
                self.cluster.strength(&BTreeSet::new()),
                self.cluster.processes().map(|p| p.machine.describe()).collect::<String>()
            );
        }
    }

    fn begin(&mut self, node: usize, asked: Transact) -> RequestId {
        let request = Request::Transact(Box::new(asked));
        let is_there = |n: &&NodeId| self.cluster.processes().any(|p| p.me.id == **n);
        let mut others = self.nodes.iter().cycle().skip(node).take(5);
        let node = *others.find(is_there).expect("four nodes live");
        self.cluster.request(node, request).expect("nothing is violated")
    }

    /// The reply to a request, or none if its node died.
    fn reply(&mut self, id: RequestId) -> Option<Reply> {
        let end = self.cluster.now() + LIMIT;
        loop {
            if let Some(i) = self.done.iter().position(|d| d.0 == id) {
                return self.done.swap_remove(i).1;
            }
            self.step();
            assert!(self.cluster.now() < end, "a request was never answered");
        }
    }

    /// A transaction that is tried until it commits; its results.
    fn transact(&mut self, node: usize, asked: Transact) -> Vec<Reply> {
        for _ in 0..20 {
            let id = self.begin(node, asked.clone());
            if let Some(Reply::Transacted(t)) = self.reply(id)
                && matches!(t.outcome, TxOutcome::Committed(_))
            {
                // In whatever order the locks were granted, each write is told its version.
                assert!(!t.results.iter().any(|r| matches!(r, Reply::Changed { version: 0, .. })), "{t:?}");
                return t.results;
            }
        }
        panic!("no transaction succeeds");
    }

    /// What a client was told of its commit: done, not done, or nothing certain.
    fn told(&mut self, id: RequestId) -> (Option<bool>, TxLog) {
        match self.reply(id) {
            Some(Reply::Transacted(t)) => match t.outcome {
                TxOutcome::Open => (None, t.log),
                TxOutcome::Committed(_) => (Some(true), t.log),
                TxOutcome::Failed(_) | TxOutcome::Conflict(_) => (Some(false), t.log),
            },
            Some(Reply::Failed(f)) if !matches!(f, Failure::Unknown { .. }) => {
                (Some(false), TxLog::default())
            }
            _ => (None, TxLog::default()),
        }
    }

    /// The transaction, at the last node.
    fn carry_out(&mut self, shape: Shape) -> Option<bool> {
        let writes = vec![put("a", 1), put("b", 1)];
        let asked = match shape {
            Shape::Blind => whole(writes),
            Shape::Validating => whole([vec![get("c")], writes].concat()),
            Shape::Logged => Transact { steps: vec![get("a"), get("b"), get("c")], ..Transact::default() },
        };
        let id = self.begin(4, asked);
        let (told, log) = self.told(id);
        if shape != Shape::Logged || told.is_some() || log.entries.is_empty() {
            return told;
        }
        let op = Some(OpId { session: SessionId(77), seq: 1 });
        let steps = vec![put("a", 1), put("b", 1)];
        let commit = Transact { log, steps, commit: true, op, is_repeated: false, conflicts: 0 };
        let id = self.begin(4, commit.clone());
        let told = self.told(id).0;
        if told.is_some() {
            return told;
        }
        let id = self.begin(1, Transact { is_repeated: true, ..commit });
        // A second answer that it cannot be done now says nothing of the first.
        match self.reply(id) {
            Some(Reply::Transacted(t)) => Some(matches!(t.outcome, TxOutcome::Committed(_))),
            _ => None,
        }
    }

    fn values(&mut self, node: usize) -> Vec<Option<Value>> {
        let results = self.transact(node, whole(vec![get("a"), get("b"), get("c")]));
        results
            .into_iter()
            .filter_map(|r| if let Reply::Value { value, .. } = r { Some(value) } else { None })
            .collect()
    }
}

/// Kills node `victim` after `effects` messages and replies; false if all was over before.
fn kill(seed: u64, shape: Shape, victim: usize, effects: u64) -> bool {
    let what = format!("seed {seed}, {shape:?}, node {victim} killed after {effects} messages");
    let mut run = Run::new(seed, effects.is_multiple_of(2));
    let node = run.nodes[victim];
    run.cluster.crash_after(node, effects);
    let told = run.carry_out(shape);
    // Somebody looks at once, and may meet what is left.
    let first = run.values(0);
    run.until(&format!("{what}: it came to rest"), |r| {
        r.cluster.unfinished().is_none() && r.is_whole(r.cluster.processes().count())
    });
    let was_killed = run.cluster.processes().all(|p| p.me.id != node);
    run.cluster.crash_after(node, u64::MAX);
    let last = run.values(1);
    let of = |n: i64| Some(Value::int(n));
    let is_done = last == [of(1), of(1), of(0)];
    assert!(is_done || last == [of(0), of(0), of(0)], "{what}: done in part: {last:?}");
    assert!(told.is_none_or(|t| t == is_done), "{what}: told {told:?}, and it shows {last:?}");
    assert!(
        first == last || told.is_none() && first == [of(0), of(0), of(0)],
        "{what}: {first:?}, then {last:?}"
    );
    run.transact(2, whole(vec![put("a", 3), put("b", 3)]));
    was_killed
}

/// Kills a node after each of its messages until the transaction is over; how many there were.
fn kill_everywhere(seed: u64, shape: Shape, victim: usize) -> u64 {
    let one = |from: u64| (from..).step_by(2).find(|k| !kill(seed, shape, victim, *k)).unwrap_or(from);
    thread::scope(|t| {
        let other = t.spawn(|| one(1));
        one(0).max(other.join().expect("no panic in a run"))
    })
}

#[test]
fn a_coordinator_may_die_after_every_message() {
    for (seed, shape) in [(1, Shape::Blind), (2, Shape::Validating), (3, Shape::Logged)] {
        let n = kill_everywhere(seed, shape, 4);
        println!("{shape:?}: {n} messages and replies of the coordinator");
        assert!(n > 10, "{shape:?}: only {n}");
    }
}

#[test]
#[ignore = "minutes; run by hand with --release -- --ignored"]
fn any_node_may_die_after_every_message() {
    for seed in 1..=6 {
        for shape in [Shape::Blind, Shape::Validating, Shape::Logged] {
            for victim in 0..5 {
                let n = kill_everywhere(seed, shape, victim);
                println!("seed {seed}, {shape:?}, node {victim}: {n}");
            }
        }
    }
}
