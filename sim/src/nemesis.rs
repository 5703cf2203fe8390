//! Who makes the faults: which one comes when, and when it ends.
//!
//! Keeps:
//! 1. No crash takes more replicas of an offset than R - Q at once: after it every offset has Q live complete
//!    acceptors left, all of one configuration. Careful runs moreover wait until it had R of them before; bold
//!    runs crash nodes in the middle of handovers and replacements.
//! 2. The last node never leaves.
//! 3. Times in which operations may fail are declared, and end some seconds after the fault.
//!
//! 4. A founder is restarted with only its own address while nothing else is disturbed: it must come home.
//!
//! Source: the fault lists of Jepsen and FoundationDB; TigerBeetle's budget of faults.

use crate::cluster::{Cluster, Note, address};
use crate::draw::Draw;
use crate::invariants::Violation;
use crate::machine::Machine;
use crate::network::FaultId;
use crate::settings::{Profile, Scenario, Settings};
use crate::swarm::Swarm;
use core::time::Duration;
use dht::Request;
use ring::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// After a fault has ended operations may still fail for so long.
pub const RECOVERY: Duration = Duration::from_secs(6);
const DISTURBANCES_MAX: usize = 2;
const HOSTS_MAX: u16 = 30;

/// A fault that comes now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node hears nobody and nobody hears it.
    Isolate,
    /// Two halves do not hear each other.
    Halves,
    /// Two parts of any size do not hear each other.
    Split,
    /// A node hears and is not heard, or the other way round.
    OneWay,
    /// Two nodes do not hear each other, all others hear both.
    Partial,
    /// What goes to a node and comes from it is late.
    Clog,
    /// Whatever a node is given waits its turn, which takes a while each.
    Slow,
    /// A node stands still.
    Pause,
    /// A clock jumps forward, or stands still while its node goes on.
    ClockJump,
    /// A new node comes.
    Join,
    /// A node is asked to leave.
    Leave,
    /// Nodes die, and are restarted with nothing.
    Crash,
    /// Nodes replace one that is alive.
    WrongSuspicion,
}

#[derive(Debug)]
enum Under {
    Network(FaultId),
    Paused(NodeId),
    Slow(NodeId),
    Down(u16),
}

/// The faults of a run.
#[derive(Debug)]
pub struct Nemesis {
    draw: Draw,
    profile: Profile,
    losses_max: usize,
    is_bold: bool,
    is_harsh: bool,
    is_scripted: bool,
    is_lossless: bool,
    quiet_until: Time,
    nodes: u8,
    replicas: u8,
    fault_next: u64,
    under_way: BTreeMap<u64, Under>,
    outages: Vec<(Time, Option<Time>, u64)>,
    tally: BTreeMap<&'static str, u64>,
    swarm: Option<Swarm>,
    last_fault: Option<Time>,
    recovery: Duration,
}

impl Nemesis {
    /// The faults that `settings` ask for.
    pub fn new(settings: &Settings, mut draw: Draw) -> Nemesis {
        Nemesis {
            is_bold: draw.chance(500),
            is_harsh: settings.is_harsh,
            is_scripted: matches!(settings.scenario, Scenario::GrowShrink | Scenario::Salvage),
            // Coming home is a matter of time: a founder whose clock runs away founds another ring.
            is_lossless: settings.weather.loss_per_mille == 0 && settings.clock_drift_per_mille <= 80,
            quiet_until: Time(0),
            draw,
            profile: settings.profile,
            losses_max: settings.losses_max(),
            nodes: settings.nodes,
            replicas: settings.config.replication_factor,
            fault_next: 0,
            under_way: BTreeMap::new(),
            outages: Vec::new(),
            tally: BTreeMap::new(),
            swarm: settings.swarm.clone(),
            last_fault: None,
            recovery: settings.stretched(RECOVERY),
        }
    }

    /// The faults that took effect.
    pub fn tally(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally
    }

    /// Whether an operation between two moments met a time in which it may have failed.
    pub fn is_excused(&self, from: Time, to: Time) -> bool {
        self.outages
            .iter()
            .any(|(begin, end, _)| *begin <= to && end.is_none_or(|e| e + self.recovery >= from))
    }

    /// Whether a fault is in force, or was until a moment ago.
    pub fn is_felt(&self, now: Time) -> bool {
        !self.under_way.is_empty() || self.last_fault.is_some_and(|t| t + self.recovery >= now)
    }

    /// Draws the next fault and makes it, if it can be now.
    pub fn act<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        if cluster.now() < self.quiet_until {
            return Ok(());
        }
        let network =
            [Fault::Isolate, Fault::Halves, Fault::OneWay, Fault::Partial, Fault::Clog, Fault::Pause];
        let mut faults: Vec<Fault> = match self.profile {
            Profile::Steady => return Ok(()),
            Profile::Messages => network.to_vec(),
            Profile::Churn => vec![Fault::Clog, Fault::Pause, Fault::OneWay],
            Profile::Crash | Profile::All => network.to_vec(),
            Profile::Swarm => self.swarm.as_ref().map(|s| s.faults.clone()).unwrap_or_default(),
        };
        if matches!(self.profile, Profile::Churn | Profile::Crash) && !self.is_scripted {
            faults.extend([Fault::Join, Fault::Join, Fault::Leave, Fault::Leave]);
        }
        if self.profile == Profile::Crash && !self.is_scripted {
            faults.extend([Fault::Crash; 6]);
        }
        if self.is_harsh {
            faults.extend([Fault::WrongSuspicion; 12]);
        }
        let Some(fault) = self.draw.pick(&faults) else { return Ok(()) };
        match fault {
            Fault::Join => self.join(cluster),
            Fault::Leave => self.leave(cluster),
            Fault::Crash => self.crash(cluster),
            Fault::WrongSuspicion => self.suspect_wrongly(cluster),
            Fault::ClockJump => self.jump_clock(cluster),
            Fault::Pause => {
                self.pause(cluster);
                Ok(())
            }
            Fault::Slow => {
                self.slow_down(cluster);
                Ok(())
            }
            Fault::Isolate | Fault::Halves | Fault::Split | Fault::OneWay | Fault::Partial | Fault::Clog => {
                self.disturb(cluster, fault);
                Ok(())
            }
        }
    }

    /// Ends a fault.
    pub fn end<M: Machine>(&mut self, cluster: &mut Cluster<M>, fault: u64) -> Result<(), Violation> {
        match self.under_way.remove(&fault) {
            Some(Under::Network(id)) => cluster.network().end(id),
            Some(Under::Paused(node)) => cluster.resume(node)?,
            Some(Under::Slow(node)) => cluster.slow_down(node, None)?,
            Some(Under::Down(host)) => {
                let seeds = self.seeds(cluster, host);
                if seeds.is_empty() {
                    // Nobody to join now: later.
                    self.under_way.insert(fault, Under::Down(host));
                    cluster.remind(Duration::from_secs(1), Note::FaultEnds(fault));
                    return Ok(());
                }
                let is_alone = host == 1 && self.is_lossless && self.draw.chance(600);
                if is_alone && self.disturbances() > 0 {
                    self.under_way.insert(fault, Under::Down(host));
                    cluster.remind(Duration::from_secs(1), Note::FaultEnds(fault));
                    return Ok(());
                }
                if is_alone {
                    self.count(cluster, "founder restarted with its own address");
                    self.quiet_until = cluster.now() + self.recovery;
                    cluster.start(host, &[host], false)?;
                } else {
                    self.count(cluster, "restart at the same address");
                    cluster.start(host, &seeds, false)?;
                }
            }
            None => {}
        }
        for o in self.outages.iter_mut().filter(|o| o.2 == fault) {
            o.1.get_or_insert(cluster.now());
        }
        Ok(())
    }

    /// Ends all faults and brings enough nodes.
    pub fn heal<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        cluster.network().heal();
        let is_down = |u: &Under| matches!(u, Under::Down(_));
        let others: Vec<u64> = self.under_way.iter().filter(|u| !is_down(u.1)).map(|u| *u.0).collect();
        for fault in others {
            self.end(cluster, fault)?;
        }
        // All that can be joined runs again now.
        for under in core::mem::take(&mut self.under_way).into_values() {
            if let Under::Down(host) = under {
                let seeds = self.seeds(cluster, host);
                if !seeds.is_empty() {
                    self.count(cluster, "restart at the same address");
                    cluster.start(host, &seeds, false)?;
                }
            }
        }
        for o in &mut self.outages {
            o.1.get_or_insert(cluster.now());
        }
        let staying = cluster.processes().filter(|p| !p.is_leaving).count();
        for _ in staying..usize::from(self.replicas) {
            self.join(cluster)?;
        }
        Ok(())
    }

    fn count<M: Machine>(&mut self, cluster: &Cluster<M>, what: &'static str) {
        self.last_fault = Some(cluster.now());
        *self.tally.entry(what).or_default() += 1;
    }

    fn begin<M: Machine>(&mut self, cluster: &mut Cluster<M>, under: Under, lasts: Duration) {
        self.fault_next += 1;
        self.under_way.insert(self.fault_next, under);
        self.outages.push((cluster.now(), None, self.fault_next));
        cluster.remind(lasts, Note::FaultEnds(self.fault_next));
    }

    fn seeds<M: Machine>(&mut self, cluster: &Cluster<M>, without: u16) -> Vec<u16> {
        let own = address(without);
        (1..=HOSTS_MAX)
            .filter(|h| address(*h) != own && cluster.serving().iter().any(|n| n.addr == address(*h)))
            .collect()
    }

    /// How long a fault lasts that usually lasts so long.
    fn lasting(&mut self, low_millis: u64, high_millis: u64) -> Duration {
        let usual = self.draw.millis(low_millis, high_millis);
        usual * self.swarm.as_ref().map_or(1000, |s| s.stretch_per_mille) / 1000
    }

    fn is_disturbed_enough(&self) -> bool {
        self.disturbances() >= self.swarm.as_ref().map_or(DISTURBANCES_MAX, |s| s.at_once_max)
    }

    fn disturbances(&self) -> usize {
        self.under_way.values().filter(|u| !matches!(u, Under::Down(_))).count()
    }

    fn disturb<M: Machine>(&mut self, cluster: &mut Cluster<M>, fault: Fault) {
        let mut all: Vec<SocketAddr> = cluster.processes().map(|p| p.me.addr).collect();
        if all.len() < 2 || self.is_disturbed_enough() {
            return;
        }
        for i in (1..all.len()).rev() {
            all.swap(i, self.draw.index(i + 1));
        }
        let cross = |a: &[SocketAddr], b: &[SocketAddr]| -> BTreeSet<(SocketAddr, SocketAddr)> {
            a.iter().flat_map(|x| b.iter().map(move |y| (*x, *y))).collect()
        };
        let both = |a: &[SocketAddr], b: &[SocketAddr]| &cross(a, b) | &cross(b, a);
        let (one, rest) = all.split_at(1);
        let at = if fault == Fault::Split { self.draw.index(all.len() - 1) + 1 } else { all.len() / 2 };
        let (left, right) = all.split_at(at);
        let (name, links) = match fault {
            Fault::Isolate => ("isolated node", both(one, rest)),
            Fault::Halves => ("halves", both(left, right)),
            Fault::Split => ("split", both(left, right)),
            Fault::OneWay if self.draw.chance(500) => ("one-way cut", cross(one, rest)),
            Fault::OneWay => ("one-way cut", cross(rest, one)),
            Fault::Partial => ("partial cut", both(one, rest.get(..1).unwrap_or(rest))),
            Fault::Clog
            | Fault::Slow
            | Fault::Pause
            | Fault::ClockJump
            | Fault::Join
            | Fault::Leave
            | Fault::Crash
            | Fault::WrongSuspicion => ("clogged links", both(one, rest)),
        };
        self.count(cluster, name);
        let now = cluster.now();
        cluster.transcript().line(now, format_args!("{name}: {links:?}"));
        let id = if fault == Fault::Clog {
            let delay = self.draw.millis(50, 3000);
            cluster.network().clog(links, delay)
        } else {
            cluster.network().cut(links)
        };
        let lasts = self.lasting(100, 8000);
        self.begin(cluster, Under::Network(id), lasts);
    }

    fn pause<M: Machine>(&mut self, cluster: &mut Cluster<M>) {
        let running: Vec<NodeId> = cluster.processes().filter(|p| !p.is_paused).map(|p| p.me.id).collect();
        let all_at_once = self.draw.chance(30);
        if running.is_empty() || self.is_disturbed_enough() {
            return;
        }
        let lasts = self.lasting(50, 8000);
        let some = if all_at_once { running } else { self.draw.pick(&running).into_iter().collect() };
        for node in some {
            self.count(cluster, "pause");
            cluster.pause(node);
            self.begin(cluster, Under::Paused(node), lasts);
        }
    }

    /// A node takes a while for everything it is given.
    fn slow_down<M: Machine>(&mut self, cluster: &mut Cluster<M>) {
        let nodes: Vec<NodeId> = cluster.processes().map(|p| p.me.id).collect();
        let Some(node) = self.draw.pick(&nodes).filter(|_| !self.is_disturbed_enough()) else { return };
        let each = Duration::from_micros(self.draw.between(500, 30_000));
        self.count(cluster, "slow node");
        if cluster.slow_down(node, Some(each)).is_ok() {
            let lasts = self.lasting(100, 8000);
            self.begin(cluster, Under::Slow(node), lasts);
        }
    }

    /// The clock of a node jumps, or those of all.
    fn jump_clock<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        let mut nodes: Vec<NodeId> = cluster.processes().map(|p| p.me.id).collect();
        if self.draw.chance(800) {
            nodes = self.draw.pick(&nodes).into_iter().collect();
        }
        for node in nodes {
            let by = self.lasting(10, 10_000);
            let is_forward = self.draw.chance(500);
            self.count(cluster, if is_forward { "clock jumped forward" } else { "clock stood still" });
            self.fault_next += 1;
            self.outages.push((cluster.now(), Some(cluster.now() + by), self.fault_next));
            cluster.jump_clock(node, by, is_forward)?;
        }
        Ok(())
    }

    /// A node replaces one that is alive, or all do at once.
    fn suspect_wrongly<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        let mut nodes = cluster.serving();
        let dice = self.draw.bits();
        if self.draw.chance(500) {
            nodes = self.draw.pick(&nodes).into_iter().collect();
        }
        for node in nodes {
            self.count(cluster, "wrong suspicion");
            cluster.replace_wrongly(node.id, dice)?;
        }
        Ok(())
    }

    /// A node at an address that nobody has.
    pub fn join<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        let taken: BTreeSet<SocketAddr> = cluster.processes().map(|p| p.me.addr).collect();
        let down: Vec<u16> = self
            .under_way
            .values()
            .filter_map(|u| if let Under::Down(h) = u { Some(*h) } else { None })
            .collect();
        let host = (1..=HOSTS_MAX).find(|h| !taken.contains(&address(*h)) && !down.contains(h));
        let Some(host) = host.filter(|_| taken.len() < usize::from(self.nodes) + 4) else { return Ok(()) };
        let seeds = self.seeds(cluster, host);
        if !seeds.is_empty() {
            self.count(cluster, "join");
            cluster.start(host, &seeds, false)?;
        }
        Ok(())
    }

    /// A node leaves by request.
    pub fn leave<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        let serving = cluster.serving();
        let below = if self.draw.chance(900) { usize::from(self.replicas) } else { 1 };
        if serving.len() > below.max(1)
            && let Some(node) = self.draw.pick(&serving)
        {
            self.count(cluster, "leave");
            cluster.request(node.id, Request::Leave)?;
        }
        Ok(())
    }

    fn crash<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        let is_ready = !M::IS_REPLICATED || self.is_bold || cluster.strength(&BTreeSet::new()).is_settled();
        if self.losses_max == 0 || !is_ready {
            return Ok(());
        }
        let wanted = self.draw.index(self.losses_max) + 1;
        let mut victims: BTreeSet<NodeId> = BTreeSet::new();
        let is_founder_meant = self.draw.chance(250);
        let mut all: Vec<NodeId> = cluster.processes().map(|p| p.me.id).collect();
        if let Some(p) = cluster.processes().find(|p| is_founder_meant && p.me.addr == address(1)) {
            all = vec![p.me.id];
        }
        let quorum = usize::from(self.replicas) - self.losses_max;
        while victims.len() < wanted
            && let Some(node) = self.draw.pick(&all)
            && victims.insert(node)
        {
            let left = cluster.strength(&victims);
            let is_safe = cluster.serving().iter().any(|n| !victims.contains(&n.id))
                && (!M::IS_REPLICATED || left.slots_min >= quorum && left.mixed.is_none());
            if !is_safe {
                victims.remove(&node);
                break;
            }
        }
        for node in victims {
            let host = (1..=HOSTS_MAX)
                .find(|h| cluster.processes().any(|p| p.me.id == node && p.me.addr == address(*h)));
            self.count(cluster, "crash");
            cluster.crash(node);
            let lasts = match self.draw.below(3) {
                0 => self.draw.millis(1, 50),
                1 => self.lasting(200, 2000),
                _ => self.lasting(2000, 15_000),
            };
            if lasts <= Duration::from_millis(50) {
                self.count(cluster, "restart at once");
            }
            if let Some(host) = host {
                self.begin(cluster, Under::Down(host), lasts);
            }
        }
        Ok(())
    }
}
