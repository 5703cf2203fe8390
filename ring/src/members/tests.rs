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
    /// Kept if `is_recorded`.
    transcript: Vec<String>,
    is_recorded: bool,
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
            is_recorded: false,
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
                if self.is_recorded {
                    self.transcript.push(format!("{} {from} -> {to} {gossip:?}", self.now));
                }
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
        net.is_recorded = true;
        net.loss_percent = 5;
        net.run(Duration::from_secs(2));
        net.kill(3);
        net.pause(4, Duration::from_secs(2));
        net.run(Duration::from_secs(5));
        net.transcript
    };
    assert!(run(7).len() > 1000 && run(7) == run(7));
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
    net.run(Duration::from_millis(10));
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

/// One table that knows some others, alive.
fn lone(config: DetectorConfig, i: u64, others: impl Iterator<Item = u64>) -> Members {
    let mut m = Members::new(config, info(i, 1, MemberState::Alive), i, Time::from_millis(1000));
    m.merge(Time::from_millis(1000), others.map(|o| info(o, 1, MemberState::Alive)).collect());
    m
}

/// Runs one table alone until `end`. Returns its events.
fn run_alone(
    m: &mut Members,
    end: Time,
    mut each: impl FnMut(&mut Members, Time),
) -> Vec<(Time, MemberEvent)> {
    let mut events = Vec::new();
    while let Some(now) = m.next_timeout().filter(|t| *t <= end) {
        m.handle_timeout(now);
        each(m, now);
        while let Some(output) = m.poll_output() {
            if let MembersOutput::Event(e) = output {
                events.push((now, e));
            }
        }
    }
    events
}

#[test]
fn the_silence_of_a_stall_of_our_own_is_not_counted() {
    let mut m = lone(DetectorConfig::default(), 1, 2..5);
    run_alone(&mut m, Time::from_millis(1400), |_, _| ());
    let late = Time::from_millis(6400);
    m.handle_timeout(late);
    let events = run_alone(&mut m, late + Duration::from_secs(2), |_, _| ());
    let first = events.iter().find(|e| is_alarm(&e.1)).expect("they are silent still");
    assert!(first.0.since(late) >= Duration::from_millis(500), "{first:?}");
    assert_eq!(events.iter().filter(|e| is_death(&e.1)).count(), 3);
}

#[test]
fn a_death_is_not_believed_of_one_who_was_just_heard() {
    let mut m = lone(DetectorConfig::default(), 1, 2..5);
    while m.poll_output().is_some() {}
    let now = Time::from_millis(1100);
    m.heard(now, NodeId(2));
    let dead = info(2, 1, MemberState::Dead);
    let rumour = Gossip::Table { members: vec![dead.clone()], strength: (0, 0) };
    m.handle_gossip(now + Duration::from_millis(400), node(3), rumour.clone());
    let outputs: Vec<_> = core::iter::from_fn(|| m.poll_output()).collect();
    let [
        MembersOutput::Send(a, Gossip::Ping { updates, .. }),
        MembersOutput::Send(b, Gossip::Table { members, .. }),
    ] = outputs.as_slice()
    else {
        panic!("{outputs:?}");
    };
    assert_eq!((*a, *b), (node(2), node(3)));
    assert!(updates.contains(&dead));
    assert_eq!(*members, [info(2, 1, MemberState::Alive)]);
    assert!(m.is_live(NodeId(2)));
    m.handle_gossip(now + Duration::from_millis(600), node(3), rumour);
    assert!(!m.is_live(NodeId(2)), "believed after a silence");
}

#[test]
fn a_death_refuted_again_and_again_by_others_is_declared_ever_later() {
    let mut m = lone(DetectorConfig::default(), 1, 2..4);
    let mut incarnation = 1;
    let events = run_alone(&mut m, Time::from_millis(600_000), |m, now| {
        m.heard(now, NodeId(3));
        if m.lost().count() == 1 {
            incarnation += 1;
            let members = vec![info(2, incarnation, MemberState::Alive)];
            m.handle_gossip(now, node(3), Gossip::Table { members, strength: (0, 0) });
        }
    });
    let deaths = events.iter().filter(|e| is_death(&e.1)).count();
    assert!((5..25).contains(&deaths), "{deaths} deaths in ten minutes");
}

/// Delivers what two tables say to each other until they are silent, or `max` messages went by.
fn talk(now: Time, a: &mut Members, b: &mut Members, max: usize) -> usize {
    let mut count = 0;
    loop {
        let before = count;
        for _ in 0..2 {
            while let Some(output) = a.poll_output() {
                if let MembersOutput::Send(to, gossip) = output
                    && to == b.me().node
                    && count < max
                {
                    count += 1;
                    b.handle_gossip(now, a.me().node, gossip);
                }
            }
            core::mem::swap(a, b);
        }
        if count == before {
            return count;
        }
    }
}

#[test]
fn no_conversation_goes_on_for_ever_even_between_full_tables() {
    for knows in [true, false] {
        let config = DetectorConfig { members_max: 3, ..DetectorConfig::default() };
        let mut a = lone(config.clone(), 1, if knows { 2..5 } else { 10..13 });
        let mut b = lone(config, 2, if knows { [1, 20, 21] } else { [20, 21, 22] }.into_iter());
        talk(Time::from_millis(1001), &mut a, &mut b, 1000);
        let now = Time::from_millis(2000);
        a.handle_gossip(
            now,
            node(2),
            Gossip::Digest { entries: vec![(NodeId(9), 1, MemberState::Alive)], strength: (0, 0) },
        );
        let count = talk(now, &mut a, &mut b, 1000);
        assert!((1..10).contains(&count), "{count} messages");
        assert_eq!(a.iter().count(), 3);
    }
}

#[test]
fn long_tables_become_equal_in_parts() {
    let config = DetectorConfig { table_members_max: 64, ..DetectorConfig::default() };
    let mut a = lone(config.clone(), 1, 2..500);
    let mut b = lone(config, 2, 1..2);
    let mut now = Time::from_millis(1000);
    for _ in 0..200 {
        now = now + Duration::from_secs(1);
        let digest = Gossip::Digest {
            entries: b.live_infos().map(|i| (i.node.id, i.incarnation, i.state)).collect(),
            strength: (0, 0),
        };
        a.handle_gossip(now, node(2), digest);
        talk(now, &mut a, &mut b, 1000);
        if b.iter().count() == 498 {
            return;
        }
    }
    panic!("{} entries", b.iter().count());
}

#[test]
fn entries_are_cut_to_their_bound() {
    let mut m = lone(DetectorConfig::default(), 1, 2..3);
    let mut long = info(3, 1, MemberState::Alive);
    long.owned = vec![(0, crate::space::Extent::point(1)); 100];
    m.merge(Time::from_millis(1001), vec![long]);
    assert_eq!(m.get(NodeId(3)).expect("known").info.owned.len(), 32);
}

#[test]
fn a_leaver_tells_it_at_once_and_falls_silent() {
    let mut m = lone(DetectorConfig::default(), 1, 2..6);
    m.handle_timeout(Time::from_millis(1000));
    while m.poll_output().is_some() {}
    m.update_me(Time::from_millis(1001), |me| me.state = MemberState::Left);
    let me = m.me().clone();
    let told: Vec<u64> = core::iter::from_fn(|| m.poll_output())
        .map(|output| match output {
            MembersOutput::Send(to, Gossip::Ping { updates, .. }) if updates == [me.clone()] => to.id.0,
            other @ (MembersOutput::Send(..) | MembersOutput::Event(_)) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [2, 3, 4, 5]);
    assert_eq!(m.next_timeout(), None);
}

#[test]
fn in_a_large_ring_the_neighbours_by_end_are_watched() {
    let config =
        DetectorConfig { fanout: 0, digest_interval: Duration::from_secs(3600), ..Default::default() };
    let mut m = lone(config, 1, 2..100);
    let events = run_alone(&mut m, Time::from_millis(2500), |_, _| ());
    let dead: BTreeSet<u64> = events
        .iter()
        .filter_map(|e| if let MemberEvent::Dead(id) = e.1 { Some(id.0) } else { None })
        .collect();
    let mut ring: Vec<(Position, u64)> = (1..100).map(|i| (info(i, 1, MemberState::Alive).end, i)).collect();
    ring.sort_unstable();
    let here = ring.iter().position(|(_, i)| *i == 1).expect("in it");
    let near = [1, 2, 3, 96, 97, 98].map(|d| ring[(here + d) % 99].1);
    assert!(near.iter().all(|i| dead.contains(i)), "{near:?} {dead:?}");
    assert!(dead.len() <= 14, "and the neighbours' neighbours once those were dead: {dead:?}");
}

#[test]
fn an_answer_to_an_old_indirect_probe_is_no_sign_of_life() {
    let mut m = lone(DetectorConfig::default(), 1, 2..4);
    let mut old = None;
    while old.is_none() {
        let now = m.next_timeout().expect("others are known");
        m.handle_timeout(now);
        while let Some(output) = m.poll_output() {
            if let MembersOutput::Send(_, Gossip::PingRequest { probe, .. }) = output {
                old = Some(probe);
            }
        }
    }
    let heard = Time::from_millis(1450);
    m.heard(heard, NodeId(2));
    run_alone(&mut m, Time::from_millis(1800), |_, _| ());
    let probe = old.expect("asked");
    m.handle_gossip(Time::from_millis(1800), node(3), Gossip::IndirectAck { probe, target: NodeId(2) });
    assert_eq!(m.get(NodeId(2)).expect("known").heard, heard);
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
