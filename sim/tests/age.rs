//! What a ring at rest holds: live values, without operation ids.

use core::time::Duration;
use dht::{DhtNode, Reply, Request};
use ring::Space;
use sim::cluster::{Cluster, Note};
use sim::{Profile, Scenario, Settings, Violation};
use store::{Change, Condition, Key, Value};

const KEYS: usize = 40;

/// Lets time pass; gives the replies.
fn pass(c: &mut Cluster<DhtNode>, time: Duration) -> Result<Vec<Option<Reply>>, Violation> {
    let end = c.now() + time;
    c.remind(time, Note::Look);
    let mut replies = Vec::new();
    while c.now() < end {
        c.step()?;
        replies.extend(std::iter::from_fn(|| c.poll_completion()).map(|done| done.reply));
    }
    Ok(replies)
}

/// Registers at all nodes, and how many of them have operation ids.
fn registers(c: &Cluster<DhtNode>) -> (usize, usize) {
    let acceptors = || c.processes().flat_map(|p| p.machine.acceptors());
    let all = acceptors().map(|a| a.registers.len()).sum();
    let has_ids = |a: &paxos::Acceptor| a.registers.iter().filter(|e| e.2.record.ops.is_some()).count();
    (all, acceptors().map(has_ids).sum())
}

#[test]
fn operation_ids_are_forgotten_when_they_are_old_and_not_before() -> Result<(), Violation> {
    let mut s = Settings::draw(1, Profile::Steady, Scenario::Load, 3, 0);
    s.config = dht::Config { operation_id_age: Duration::from_secs(4), ..dht::Config::default() };
    let mut c: Cluster<DhtNode> = Cluster::new(&s, Space::new(3).expect("valid"), false);
    let first = c.start(1, &[1], true)?;
    c.start(2, &[1], false)?;
    c.start(3, &[1], false)?;
    pass(&mut c, Duration::from_secs(3))?;
    for i in 0..KEYS {
        let change = Change::Put { value: Value::int(7), condition: Condition::Always };
        c.request(first, Request::Change { key: Key::new(format!("k{i}").as_bytes()), change })?;
    }
    let replies = pass(&mut c, Duration::from_secs(2))?;
    assert_eq!(replies.iter().filter(|r| matches!(r, Some(Reply::Changed { .. }))).count(), KEYS);
    assert_eq!(registers(&c), (3 * KEYS, 3 * KEYS));
    pass(&mut c, Duration::from_secs(12))?;
    assert_eq!(registers(&c), (3 * KEYS, 0));
    // The floor that is left of them is met by a sender that knows nothing: it learns it, and is not refused.
    let change = Change::AddOnNumber { by: Value::int(1) };
    c.request(first, Request::Change { key: Key::new(b"k0"), change })?;
    let replies = pass(&mut c, Duration::from_secs(1))?;
    assert!(
        matches!(replies.last(), Some(Some(Reply::Changed { value: Some(v), .. })) if *v == Value::int(8))
    );
    Ok(())
}
