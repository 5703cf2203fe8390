//! Many member tables on a small network with delay, loss, cuts and pauses, drawn from one seed.

use super::*;
use crate::space::Position;
use core::time::Duration;
use proptest::prelude::*;
use rand_core::RngCore;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

fn node(i: u64) -> NodeRef {
    let port = 1000 + u16::try_from(i).expect("few nodes");
    NodeRef { id: NodeId(i), addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port) }
}

fn info(i: u64, incarnation: u64, state: MemberState) -> MemberInfo {
    let end: Position = u128::from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    MemberInfo {
        node: node(i),
        client_addr: None,
        incarnation,
        state,
        end,
        owned: Vec::new(),
        keys: incarnation,
        bytes: 0,
        extra: Vec::new(),
    }
}

/// Which messages are lost, by (time, from, to).
type Filter = Box<dyn Fn(Time, NodeId, NodeId) -> bool>;

struct Net {
    now: Time,
    nodes: BTreeMap<NodeId, Members>,
    /// Killed nodes, and until when paused ones stand still.
    stopped: BTreeMap<NodeId, Time>,
    /// In order of arrival.
    wire: BTreeMap<(Time, u64), (NodeRef, NodeRef, Gossip)>,
    sent: u64,
    loss_percent: u64,
    is_cut: Filter,
    rng: ChaCha8Rng,
    events: Vec<(Time, NodeId, MemberEvent)>,
    transcript: Vec<String>,
}

const NEVER: Time = Time(u64::MAX);

impl Net {
    /// `n` nodes that all joined through the first.
    fn new(n: u64, seed: u64) -> Net {
        let mut net = Net {
            now: Time::from_millis(1000),
            nodes: BTreeMap::new(),
            stopped: BTreeMap::new(),
            wire: BTreeMap::new(),
            sent: 0,
            loss_percent: 0,
            is_cut: Box::new(|_, _, _| false),
            rng: ChaCha8Rng::seed_from_u64(seed),
            events: Vec::new(),
            transcript: Vec::new(),
        };
        for i in 1..=n {
            net.join(i, if i == 1 { None } else { Some(1) });
        }
        net
    }

    fn join(&mut self, i: u64, through: Option<u64>) {
        let me = info(i, 1, MemberState::Alive);
        let mut members = Members::new(DetectorConfig::default(), me, i * 31, self.now);
        if let Some(t) = through {
            let host = &self.nodes[&NodeId(t)];
            members.merge(self.now, host.live_infos().cloned().collect());
        }
        self.nodes.insert(NodeId(i), members);
        self.flush(NodeId(i));
    }

    fn flush(&mut self, id: NodeId) {
        while let Some(output) = self.nodes.get_mut(&id).and_then(Members::poll_output) {
            match output {
                MembersOutput::Event(e) => {
                    self.transcript.push(format!("{} {id} {e:?}", self.now));
                    self.events.push((self.now, id, e));
                }
                MembersOutput::Send(to, gossip) => {
                    self.sent += 1;
                    let delay = Duration::from_micros(500 + self.rng.next_u64() % 4500);
                    let is_lost = self.rng.next_u64() % 100 < self.loss_percent;
                    if !is_lost && !(self.is_cut)(self.now, id, to.id) {
                        let from = NodeRef { id, addr: node(id.0).addr };
                        self.wire.insert((self.now + delay, self.sent), (from, to, gossip));
                    }
                }
            }
        }
    }

    fn stopped_until(&self, id: NodeId) -> Time {
        self.stopped.get(&id).copied().unwrap_or(Time(0))
    }

    /// Runs for a time. What reaches a paused node is there when it goes on.
    fn run(&mut self, d: Duration) {
        let end = self.now + d;
        loop {
            let timer = self
                .nodes
                .iter()
                .filter_map(|(id, m)| m.next_timeout().map(|t| (t.max(self.stopped_until(*id)), *id)))
                .min();
            let arrival = self.wire.keys().next().copied();
            let next_timer = timer.map_or(NEVER, |t| t.0);
            let next_arrival = arrival.map_or(NEVER, |a| a.0);
            if next_timer.min(next_arrival) > end {
                break;
            }
            if next_timer <= next_arrival {
                let Some((at, id)) = timer else { break };
                self.now = self.now.max(at);
                self.nodes.get_mut(&id).expect("known").handle_timeout(self.now);
                self.flush(id);
            } else if let Some(key) = arrival
                && let Some((from, to, gossip)) = self.wire.remove(&key)
            {
                self.now = self.now.max(key.0);
                let until = self.stopped_until(to.id);
                if until == NEVER || !self.nodes.contains_key(&to.id) {
                    continue;
                }
                if until > self.now {
                    self.wire.insert((until + Duration::from_micros(1), key.1), (from, to, gossip));
                    continue;
                }
                self.transcript.push(format!("{} {from} -> {to} {gossip:?}", self.now));
                self.nodes.get_mut(&to.id).expect("known").handle_gossip(self.now, from, gossip);
                self.flush(to.id);
            }
        }
        self.now = end;
    }

    fn kill(&mut self, i: u64) {
        self.stopped.insert(NodeId(i), NEVER);
    }

    fn pause(&mut self, i: u64, d: Duration) {
        self.stopped.insert(NodeId(i), self.now + d);
    }

    /// Events of that kind, by (time, seen by).
    fn seen(&self, event: MemberEvent) -> Vec<(Time, NodeId)> {
        self.events.iter().filter(|e| e.2 == event).map(|e| (e.0, e.1)).collect()
    }

    fn count(&self, is: impl Fn(&MemberEvent) -> bool) -> usize {
        self.events.iter().filter(|e| is(&e.2)).count()
    }

    /// Whether all running nodes see exactly these in the ring, none of them suspected.
    fn agree_on(&self, alive: &[u64]) -> bool {
        let want: BTreeSet<NodeId> = alive.iter().map(|i| NodeId(*i)).collect();
        want.iter().all(|id| {
            let m = &self.nodes[id];
            let have: BTreeSet<NodeId> = m.live_infos().map(|i| i.node.id).collect();
            have == want && want.iter().all(|o| m.is_live(*o))
        })
    }
}

fn is_death(e: &MemberEvent) -> bool {
    matches!(e, MemberEvent::Dead(_))
}

fn is_alarm(e: &MemberEvent) -> bool {
    matches!(e, MemberEvent::Dead(_) | MemberEvent::Suspected(_))
}

#[test]
fn a_killed_node_is_dead_everywhere_within_1200_ms_and_not_before_it_is_suspected() {
    for n in [2u64, 3, 5, 12, 30] {
        for seed in 0..5 {
            let mut net = Net::new(n, seed);
            net.run(Duration::from_secs(5) + Duration::from_millis(seed * 37));
            assert_eq!(net.count(is_alarm), 0, "{n} nodes, seed {seed}");
            let killed = net.now;
            net.kill(2);
            net.run(Duration::from_secs(3));
            let dead = net.seen(MemberEvent::Dead(NodeId(2)));
            assert_eq!(dead.len(), usize::try_from(n).expect("few") - 1, "{n} nodes, seed {seed}");
            for (at, by) in dead {
                let took = at.since(killed);
                assert!(took <= Duration::from_millis(1200), "{by} took {took:?}, {n} nodes, seed {seed}");
                assert!(took >= Duration::from_millis(500), "{by} took {took:?}, {n} nodes, seed {seed}");
            }
            assert_eq!(net.count(is_death), usize::try_from(n).expect("few") - 1);
            assert!(net.nodes[&NodeId(1)].is_suspected_or_dead(NodeId(2)));
            assert_eq!(net.nodes[&NodeId(1)].lost().count(), 1);
        }
    }
}

#[test]
fn nobody_is_called_dead_at_a_loss_of_a_fifth_of_all_messages() {
    for (n, seed) in [(3u64, 1), (5, 2), (8, 3), (40, 4)] {
        let mut net = Net::new(n, seed);
        net.loss_percent = 20;
        net.run(Duration::from_secs(60));
        assert_eq!(net.count(is_death), 0, "{n} nodes");
        assert!(net.count(is_alarm) <= 2, "{n} nodes: {} suspicions", net.count(is_alarm));
    }
}

#[test]
fn a_node_that_was_paused_refutes_its_death_and_calls_nobody_dead() {
    for n in [2u64, 3, 5, 20] {
        let mut net = Net::new(n, n);
        net.run(Duration::from_secs(3));
        net.pause(2, Duration::from_secs(5));
        net.run(Duration::from_secs(4));
        assert_eq!(net.seen(MemberEvent::Dead(NodeId(2))).len(), usize::try_from(n).expect("few") - 1);
        net.run(Duration::from_secs(3));
        let all: Vec<u64> = (1..=n).collect();
        assert!(net.agree_on(&all), "{n} nodes");
        assert_eq!(net.events.iter().filter(|e| e.1 == NodeId(2) && is_alarm(&e.2)).count(), 0);
        assert!(net.nodes[&NodeId(1)].get(NodeId(2)).expect("known").info.incarnation > 1);
        let events = net.events.len();
        net.run(Duration::from_secs(20));
        assert_eq!(net.events.len(), events, "quiet afterwards");
    }
}

#[test]
fn a_short_stall_is_no_alarm() {
    let mut net = Net::new(5, 9);
    net.run(Duration::from_secs(3));
    for _ in 0..20 {
        net.pause(2, Duration::from_millis(300));
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.count(is_alarm), 0);
}

#[test]
fn two_halves_cut_apart_merge_again() {
    for n in [2u64, 4, 6, 30] {
        let mut net = Net::new(n, n);
        net.run(Duration::from_secs(3));
        let (from, to) = (net.now, net.now + Duration::from_secs(10));
        net.is_cut = Box::new(move |now, a, b| now >= from && now < to && a.0 % 2 != b.0 % 2);
        net.run(Duration::from_secs(9));
        let odd: Vec<u64> = (1..=n).filter(|i| i % 2 == 1).collect();
        assert!(net.agree_on(&odd), "{n} nodes, cut");
        net.run(Duration::from_secs(1 + 5));
        assert!(net.agree_on(&(1..=n).collect::<Vec<_>>()), "{n} nodes, healed");
    }
}

#[test]
fn a_hundred_nodes_know_each_other_soon_after_they_joined() {
    let mut net = Net::new(1, 5);
    for i in 2..=100 {
        net.join(i, Some(1 + (i * 7) % (i - 1)));
        net.run(Duration::from_millis(5));
    }
    net.run(Duration::from_secs(4));
    assert!(net.agree_on(&(1..=100).collect::<Vec<_>>()));
    assert_eq!(net.count(is_alarm), 0);
    let before = net.sent;
    net.run(Duration::from_secs(10));
    let per_node_second = (net.sent - before) / 1000;
    assert!(per_node_second < 150, "{per_node_second} messages per node and second");
    net.kill(50);
    net.run(Duration::from_secs(2));
    assert_eq!(net.seen(MemberEvent::Dead(NodeId(50))).len(), 99);
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    let run = |seed| {
        let mut net = Net::new(15, seed);
        net.loss_percent = 5;
        net.run(Duration::from_secs(2));
        net.kill(3);
        net.pause(4, Duration::from_secs(2));
        net.run(Duration::from_secs(5));
        net.transcript
    };
    assert!(run(7) == run(7));
    assert!(run(7) != run(8));
}

#[test]
fn a_one_way_cut_ends_in_peace_where_somebody_else_hears_both() {
    let mut net = Net::new(4, 3);
    net.run(Duration::from_secs(2));
    net.is_cut = Box::new(|_, a, b| a == NodeId(1) && b == NodeId(2));
    net.run(Duration::from_secs(60));
    assert_eq!(net.count(is_alarm), 0);
    assert!(net.agree_on(&[1, 2, 3, 4]));
}

#[test]
fn a_one_way_cut_between_two_gives_one_death_and_no_flapping() {
    let mut net = Net::new(2, 3);
    net.run(Duration::from_secs(2));
    net.is_cut = Box::new(|_, a, b| a == NodeId(1) && b == NodeId(2));
    net.run(Duration::from_secs(60));
    assert_eq!(net.seen(MemberEvent::Dead(NodeId(1))).len(), 1);
    assert_eq!(net.count(is_alarm), 2);
    assert!(net.nodes[&NodeId(1)].me().incarnation <= 3);
    net.is_cut = Box::new(|_, _, _| false);
    net.run(Duration::from_secs(2));
    assert!(net.agree_on(&[1, 2]));
}

#[test]
fn a_node_that_only_one_other_hears_does_not_flap_for_ever() {
    let mut net = Net::new(10, 3);
    net.run(Duration::from_secs(2));
    net.is_cut = Box::new(|_, a, b| (a.0 == 1 && b.0 != 2) || (b.0 == 1 && a.0 != 2));
    net.run(Duration::from_secs(60));
    let early = net.events.len();
    net.run(Duration::from_secs(120));
    let late = net.events.len() - early;
    assert!(late < 200, "{early} events in the first minute, {late} in the next two");
}

#[test]
fn a_leave_is_no_death_and_refutes_no_more() {
    let mut net = Net::new(5, 3);
    net.run(Duration::from_secs(2));
    let now = net.now;
    let leaver = net.nodes.get_mut(&NodeId(2)).expect("known");
    leaver.update_me(now, |me| me.state = MemberState::Leaving);
    net.flush(NodeId(2));
    net.run(Duration::from_secs(1));
    assert!(net.agree_on(&[1, 2, 3, 4, 5]));
    let now = net.now;
    net.nodes.get_mut(&NodeId(2)).expect("known").update_me(now, |me| me.state = MemberState::Left);
    net.flush(NodeId(2));
    net.run(Duration::from_millis(100));
    net.kill(2);
    net.run(Duration::from_secs(5));
    assert_eq!(net.seen(MemberEvent::Left(NodeId(2))).len(), 4);
    assert_eq!(net.count(is_alarm), 0);
    assert!(net.agree_on(&[1, 3, 4, 5]));
    assert_eq!(net.nodes[&NodeId(1)].lost().count(), 0);
}

#[test]
fn news_and_strength_reach_everybody_also_where_ordinary_traffic_needs_no_pings() {
    let mut net = Net::new(5, 3);
    net.run(Duration::from_secs(2));
    let now = net.now;
    let one = net.nodes.get_mut(&NodeId(1)).expect("known");
    one.update_me(now, |me| me.bytes = 77);
    one.set_strength((4, 3));
    net.flush(NodeId(1));
    for _ in 0..100 {
        net.run(Duration::from_millis(10));
        let now = net.now;
        for m in net.nodes.values_mut() {
            (1..=5).for_each(|i| m.heard(now, NodeId(i)));
        }
    }
    for i in 2..=5 {
        let m = &net.nodes[&NodeId(i)];
        assert_eq!(m.get(NodeId(1)).expect("known").info.bytes, 77);
        assert_eq!(m.strength(), (4, 3));
    }
    net.run(Duration::from_secs(10));
    assert!(net.nodes.values().all(|m| m.iter().all(|o| o.round_trip.is_some())));
}

#[test]
fn a_lost_connection_brings_suspicion_sooner_for_the_dead_only() {
    let mut net = Net::new(3, 3);
    net.run(Duration::from_secs(2));
    let now = net.now;
    net.nodes.get_mut(&NodeId(1)).expect("known").connection_lost(now, NodeId(2));
    net.flush(NodeId(1));
    net.run(Duration::from_secs(1));
    assert_eq!(net.count(is_alarm), 0);
    net.kill(2);
    let now = net.now;
    net.nodes.get_mut(&NodeId(1)).expect("known").connection_lost(now, NodeId(2));
    net.flush(NodeId(1));
    net.run(Duration::from_secs(1));
    let suspected = net.seen(MemberEvent::Suspected(NodeId(2)));
    let by_one = suspected.iter().find(|s| s.1 == NodeId(1)).expect("suspected");
    assert!(by_one.0.since(now) <= Duration::from_millis(350));
}

#[test]
fn the_gone_are_forgotten_and_stay_forgotten() {
    let mut net = Net::new(3, 3);
    net.run(Duration::from_secs(2));
    net.kill(2);
    net.run(Duration::from_secs(3590));
    assert_eq!(net.nodes[&NodeId(1)].iter().count(), 2);
    net.run(Duration::from_secs(60));
    for i in [1, 3] {
        assert_eq!(net.nodes[&NodeId(i)].iter().count(), 1);
    }
}

fn table(entries: &[(u64, u64, u8)]) -> Vec<MemberInfo> {
    let states = [MemberState::Alive, MemberState::Leaving, MemberState::Left, MemberState::Dead];
    entries.iter().map(|(i, inc, s)| info(*i, *inc, states[usize::from(*s)])).collect()
}

proptest! {
    #[test]
    fn merging_is_commutative_and_idempotent(
        a in proptest::collection::vec((2u64..9, 0u64..4, 0u8..4), 0..20),
        b in proptest::collection::vec((2u64..9, 0u64..4, 0u8..4), 0..20),
    ) {
        let merged = |parts: &[&[(u64, u64, u8)]]| {
            let me = info(1, 1, MemberState::Alive);
            let mut m = Members::new(DetectorConfig::default(), me, 0, Time(0));
            for (at, part) in (1000..).zip(parts) {
                m.merge(Time::from_millis(at), table(part));
            }
            m.iter().map(|m| m.info.clone()).collect::<Vec<_>>()
        };
        prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
        prop_assert_eq!(merged(&[&a, &b]), merged(&[&a, &b, &a, &b, &b]));
    }
}
