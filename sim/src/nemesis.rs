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
use core::time::Duration;
use dht::Request;
use ring::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// After a fault has ended operations may still fail for so long.
pub const RECOVERY: Duration = Duration::from_secs(6);
const DISTURBANCES_MAX: usize = 2;
const HOSTS_MAX: u8 = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Isolate,
    Halves,
    OneWay,
    Partial,
    Clog,
    Pause,
    Join,
    Leave,
    Crash,
    WrongSuspicion,
}

#[derive(Debug)]
enum Under {
    Network(FaultId),
    Paused(NodeId),
    Down(u8),
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
}

impl Nemesis {
    /// The faults that `settings` ask for.
    pub fn new(settings: &Settings, mut draw: Draw) -> Nemesis {
        Nemesis {
            is_bold: draw.chance(500),
            is_harsh: settings.is_harsh,
            is_scripted: matches!(settings.scenario, Scenario::GrowShrink | Scenario::Salvage),
            is_lossless: settings.weather.loss_per_mille == 0,
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
        }
    }

    /// The faults that took effect.
    pub fn tally(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally
    }

    /// Whether an operation between two moments met a time in which it may have failed.
    pub fn is_excused(&self, from: Time, to: Time) -> bool {
        self.outages.iter().any(|(begin, end, _)| *begin <= to && end.is_none_or(|e| e + RECOVERY >= from))
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
            Fault::Pause => {
                self.pause(cluster);
                Ok(())
            }
            Fault::Isolate | Fault::Halves | Fault::OneWay | Fault::Partial | Fault::Clog => {
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
                    self.count("founder restarted with its own address");
                    self.quiet_until = cluster.now() + RECOVERY;
                    cluster.start(host, &[host], false)?;
                } else {
                    self.count("restart at the same address");
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
                    self.count("restart at the same address");
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

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn begin<M: Machine>(&mut self, cluster: &mut Cluster<M>, under: Under, lasts: Duration) {
        self.fault_next += 1;
        self.under_way.insert(self.fault_next, under);
        self.outages.push((cluster.now(), None, self.fault_next));
        cluster.remind(lasts, Note::FaultEnds(self.fault_next));
    }

    fn seeds<M: Machine>(&mut self, cluster: &Cluster<M>, without: u8) -> Vec<u8> {
        let own = address(without);
        (1..=HOSTS_MAX)
            .filter(|h| address(*h) != own && cluster.serving().iter().any(|n| n.addr == address(*h)))
            .collect()
    }

    fn disturbances(&self) -> usize {
        self.under_way.values().filter(|u| !matches!(u, Under::Down(_))).count()
    }

    fn disturb<M: Machine>(&mut self, cluster: &mut Cluster<M>, fault: Fault) {
        let mut all: Vec<SocketAddr> = cluster.processes().map(|p| p.me.addr).collect();
        if all.len() < 2 || self.disturbances() >= DISTURBANCES_MAX {
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
        let (left, right) = all.split_at(all.len() / 2);
        let (name, links) = match fault {
            Fault::Isolate => ("isolated node", both(one, rest)),
            Fault::Halves => ("halves", both(left, right)),
            Fault::OneWay if self.draw.chance(500) => ("one-way cut", cross(one, rest)),
            Fault::OneWay => ("one-way cut", cross(rest, one)),
            Fault::Partial => ("partial cut", both(one, rest.get(..1).unwrap_or(rest))),
            Fault::Clog
            | Fault::Pause
            | Fault::Join
            | Fault::Leave
            | Fault::Crash
            | Fault::WrongSuspicion => ("clogged links", both(one, rest)),
        };
        self.count(name);
        let now = cluster.now();
        cluster.transcript().line(now, format_args!("{name}: {links:?}"));
        let id = if fault == Fault::Clog {
            let delay = self.draw.millis(50, 3000);
            cluster.network().clog(links, delay)
        } else {
            cluster.network().cut(links)
        };
        let lasts = self.draw.millis(100, 8000);
        self.begin(cluster, Under::Network(id), lasts);
    }

    fn pause<M: Machine>(&mut self, cluster: &mut Cluster<M>) {
        let running: Vec<NodeId> = cluster.processes().filter(|p| !p.is_paused).map(|p| p.me.id).collect();
        let all_at_once = self.draw.chance(30);
        if running.is_empty() || self.disturbances() >= DISTURBANCES_MAX {
            return;
        }
        let lasts = self.draw.millis(50, 8000);
        let some = if all_at_once { running } else { self.draw.pick(&running).into_iter().collect() };
        for node in some {
            self.count("pause");
            cluster.pause(node);
            self.begin(cluster, Under::Paused(node), lasts);
        }
    }

    /// A node replaces one that is alive, or all do at once.
    fn suspect_wrongly<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        let mut nodes = cluster.serving();
        let dice = self.draw.bits();
        if self.draw.chance(500) {
            nodes = self.draw.pick(&nodes).into_iter().collect();
        }
        for node in nodes {
            self.count("wrong suspicion");
            cluster.replace_wrongly(node.id, dice)?;
        }
        Ok(())
    }

    /// A node at an address that nobody has.
    pub fn join<M: Machine>(&mut self, cluster: &mut Cluster<M>) -> Result<(), Violation> {
        let taken: BTreeSet<SocketAddr> = cluster.processes().map(|p| p.me.addr).collect();
        let down: Vec<u8> = self
            .under_way
            .values()
            .filter_map(|u| if let Under::Down(h) = u { Some(*h) } else { None })
            .collect();
        let host = (1..=HOSTS_MAX).find(|h| !taken.contains(&address(*h)) && !down.contains(h));
        let Some(host) = host.filter(|_| taken.len() < usize::from(self.nodes) + 4) else { return Ok(()) };
        let seeds = self.seeds(cluster, host);
        if !seeds.is_empty() {
            self.count("join");
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
            self.count("leave");
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
            self.count("crash");
            cluster.crash(node);
            let lasts = match self.draw.below(3) {
                0 => self.draw.millis(1, 50),
                1 => self.draw.millis(200, 2000),
                _ => self.draw.millis(2000, 15_000),
            };
            if let Some(host) = host {
                self.begin(cluster, Under::Down(host), lasts);
            }
        }
        Ok(())
    }
}
