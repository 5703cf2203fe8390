//! What clients hear when the outcome of a write is in doubt: done or not done where that can be found out, else
//! unknown without waiting for a deadline that brings nothing.

use core::time::Duration;
use dht::api::Failure;
use dht::{DhtNode, Reply, Request, RequestId};
use ring::{NodeId, Space};
use sim::cluster::{Cluster, Note, address};
use sim::draw::{Draw, Stream};
use sim::{Profile, Scenario, Settings, Violation};
use std::collections::BTreeMap;
use store::{Change, Condition, Key, Value};

const HOSTS: [u16; 5] = [1, 2, 3, 4, 5];

fn ring_of_five(seed: u64) -> Result<(Cluster<DhtNode>, Vec<NodeId>), Violation> {
    let mut s = Settings::draw(seed, Profile::Steady, Scenario::Load, 5, 0);
    s.config = dht::Config::default();
    let mut c: Cluster<DhtNode> = Cluster::new(&s, Space::new(3).expect("valid"), false);
    let mut nodes = Vec::new();
    for host in HOSTS {
        nodes.push(c.start(host, &[1], host == 1)?);
        pass(&mut c, Duration::from_secs(1))?;
    }
    pass(&mut c, Duration::from_secs(3))?;
    Ok((c, nodes))
}

/// Lets time pass; gives the replies.
fn pass(c: &mut Cluster<DhtNode>, time: Duration) -> Result<Vec<(RequestId, Option<Reply>)>, Violation> {
    let end = c.now() + time;
    c.remind(time, Note::Look);
    let mut replies = Vec::new();
    while c.now() < end {
        c.step()?;
        replies.extend(std::iter::from_fn(|| c.poll_completion()).map(|done| (done.id, done.reply)));
    }
    Ok(replies)
}

fn put(key: &str, value: i64) -> Request {
    let change = Change::Put { value: Value::int(value), condition: Condition::Always };
    Request::Change { key: Key::new(key.as_bytes()), change }
}

/// Clients in a closed loop, each with a write at a time through any of the nodes that are there.
struct Load {
    draw: Draw,
    open: BTreeMap<RequestId, (usize, NodeId)>,
    keys: Vec<String>,
    written: i64,
    /// How long a write that ended as unknown had been under way.
    unknown: Vec<Duration>,
    done: usize,
    /// The wish of a node to leave, and whether it was fulfilled.
    left: Option<(RequestId, bool)>,
}

impl Load {
    fn write(&mut self, c: &mut Cluster<DhtNode>, nodes: &[NodeId], client: usize) -> Result<(), Violation> {
        self.written += 1;
        let node = nodes[self.draw.index(nodes.len())];
        let id = c.request(node, put(&self.keys[client], self.written))?;
        self.open.insert(id, (client, node));
        Ok(())
    }

    fn go_on(&mut self, c: &mut Cluster<DhtNode>, nodes: &[NodeId], time: Duration) -> Result<(), Violation> {
        let end = c.now() + time;
        while c.now() < end {
            for (id, reply) in pass(c, Duration::from_millis(5))? {
                if let Some((_, has_left)) = self.left.as_mut().filter(|(leave, _)| *leave == id) {
                    *has_left = reply == Some(Reply::Left { is_clean: true });
                }
                let Some((client, node)) = self.open.remove(&id) else { continue };
                match reply {
                    Some(Reply::Failed(Failure::Unknown { waited })) => self.unknown.push(waited),
                    Some(Reply::Changed { .. }) => self.done += 1,
                    // Whoever is dead, or has left, cannot be asked.
                    None => assert!(!nodes.contains(&node) || self.left.is_some(), "a request was forgotten"),
                    Some(_) => {}
                }
                self.write(c, nodes, client)?;
            }
        }
        Ok(())
    }
}

/// One after the other the nodes are killed while `clients` write, `per_key` of them each key; gives how long the
/// writes took of which nobody knows what became, and how many were done.
fn kills(seed: u64, clients: usize, per_key: usize) -> Result<(Vec<Duration>, usize), Violation> {
    let (mut c, mut nodes) = ring_of_five(seed)?;
    let keys = (0..clients).map(|i| format!("k{}", i / per_key)).collect();
    let draw = Draw::new(seed, Stream::Workload);
    let mut load =
        Load { draw, open: BTreeMap::new(), keys, written: 0, unknown: Vec::new(), done: 0, left: None };
    for client in 0..clients {
        load.write(&mut c, &nodes, client)?;
    }
    load.go_on(&mut c, &nodes, Duration::from_secs(1))?;
    for host in HOSTS.into_iter().take(2) {
        let victim = nodes.remove(0);
        c.crash(victim);
        load.go_on(&mut c, &nodes, Duration::from_secs(6))?;
        let seed = HOSTS[usize::from(host % 5)];
        nodes.push(c.start(host, &[seed], false)?);
        load.go_on(&mut c, &nodes, Duration::from_secs(2))?;
    }
    Ok((load.unknown, load.done))
}

#[test]
fn what_became_of_a_write_of_a_key_of_ones_own_is_known_when_its_home_dies() -> Result<(), Violation> {
    let (unknown, done) = kills(3, 24, 1)?;
    assert!(done > 1000, "hardly anything was written: {done}");
    assert_eq!(unknown, [Duration::ZERO; 0]);
    Ok(())
}

/// Twenty clients change a key more often than a record remembers before a gateway hears of it.
#[test]
fn nobody_waits_for_what_is_forgotten() -> Result<(), Violation> {
    let (unknown, done) = kills(3, 60, 20)?;
    assert!(done > 1000, "hardly anything was written: {done}");
    assert!(unknown.len() * 100 < done, "{} of {done} are unknown", unknown.len());
    let slowest = unknown.iter().max().copied().unwrap_or_default();
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    Ok(())
}

#[test]
fn a_node_that_hears_nobody_refuses_writes_and_does_none_of_them() -> Result<(), Violation> {
    let (mut c, nodes) = ring_of_five(7)?;
    let lonely = nodes[0];
    let cut = HOSTS[1..].iter().flat_map(|h| [(1, *h), (*h, 1)]);
    let fault = c.network().cut(cut.map(|(a, b)| (address(a), address(b))).collect());
    pass(&mut c, Duration::from_secs(2))?;
    let keys: Vec<String> = (0..30).map(|i| format!("lonely-{i}")).collect();
    for key in &keys {
        c.request(lonely, put(key, 1))?;
    }
    let replies = pass(&mut c, Duration::from_secs(6))?;
    assert_eq!(replies.len(), keys.len());
    for (_, reply) in replies {
        assert!(matches!(reply, Some(Reply::Failed(Failure::Unavailable { .. }))), "{reply:?}");
    }
    c.network().end(fault);
    pass(&mut c, Duration::from_secs(5))?;
    for key in &keys {
        c.request(nodes[1], Request::Get { key: Key::new(key.as_bytes()) })?;
    }
    for (_, reply) in pass(&mut c, Duration::from_secs(1))? {
        assert!(matches!(reply, Some(Reply::Value { value: None, .. })), "{reply:?}");
    }
    c.request(lonely, put("lonely-0", 2))?;
    let replies = pass(&mut c, Duration::from_secs(1))?;
    assert!(matches!(replies.last(), Some((_, Some(Reply::Changed { .. })))), "{replies:?}");
    Ok(())
}

/// A node that leaves takes no more requests once it has handed over everything, and ends when those that it has are
/// answered, however many clients keep asking it.
#[test]
fn a_node_that_leaves_answers_what_it_was_asked() -> Result<(), Violation> {
    let (mut c, nodes) = ring_of_five(3)?;
    let keys = (0..60).map(|i| format!("k{i}")).collect();
    let draw = Draw::new(3, Stream::Workload);
    let mut load =
        Load { draw, open: BTreeMap::new(), keys, written: 0, unknown: Vec::new(), done: 0, left: None };
    for client in 0..60 {
        load.write(&mut c, &nodes, client)?;
    }
    load.go_on(&mut c, &nodes, Duration::from_secs(1))?;
    let leave = c.request(nodes[0], Request::Leave)?;
    load.left = Some((leave, false));
    load.go_on(&mut c, &nodes, Duration::from_secs(8))?;
    assert_eq!(load.left, Some((leave, true)), "it has not left");
    assert!(load.done > 1000, "hardly anything was written: {}", load.done);
    assert_eq!(load.unknown, [Duration::ZERO; 0]);
    Ok(())
}
