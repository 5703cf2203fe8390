//! Swarms: runs in which the seed draws everything, the kinds of faults among it.
//!
//! Runs that have every fault all the time hide what one of them alone would show: two faults may undo each other, and
//! a ring that is always in trouble never does anything else. So a run has one kind of fault, or two, or a random half
//! of them. Sizes, time-outs and bounds are drawn too, each far from its default now and then.
//!
//! Keeps:
//! 1. The kinds of faults do not depend on the number of nodes, operations or replicas that were asked for.
//! 2. A suspicion comes before a death, both after several pings, and a lock is waited for less long than an attempt.
//!
//! Source: Groce, Zhang, Eide, Chen, Regehr 2012, Swarm Testing; TigerBeetle's simulator for the tunables.

use crate::draw::{Draw, Stream};
use crate::nemesis::Fault;
use crate::network::Weather;
use crate::settings::Settings;
use core::time::Duration;
use dht::Config;

/// The kinds of faults of a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Loss,
    Duplication,
    Replay,
    Reordering,
    /// Of the network or of a node, now and then.
    Of(Fault),
    Churn,
    Drift,
}

const KINDS: [Kind; 17] = [
    Kind::Loss,
    Kind::Duplication,
    Kind::Replay,
    Kind::Reordering,
    Kind::Of(Fault::Isolate),
    Kind::Of(Fault::Halves),
    Kind::Of(Fault::Split),
    Kind::Of(Fault::OneWay),
    Kind::Of(Fault::Partial),
    Kind::Of(Fault::Clog),
    Kind::Of(Fault::Slow),
    Kind::Of(Fault::Pause),
    Kind::Of(Fault::ClockJump),
    Kind::Of(Fault::Crash),
    Kind::Of(Fault::WrongSuspicion),
    Kind::Churn,
    Kind::Drift,
];

/// What the nemesis of a swarm does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// Its faults, as often as each is to be drawn.
    pub faults: Vec<Fault>,
    /// Faults of the network and of nodes at once, crashes apart.
    pub at_once_max: usize,
    /// How much longer than usual faults last, and how much longer it takes to recover from them, in thousandths.
    pub stretch_per_mille: u32,
}

fn kinds(d: &mut Draw) -> Vec<Kind> {
    let mut left = KINDS.to_vec();
    let mut take = |d: &mut Draw| left.swap_remove(d.index(left.len()));
    match d.below(10) {
        0..=1 => vec![take(d)],
        2..=4 => vec![take(d), take(d)],
        _ => KINDS.iter().copied().filter(|_| d.chance(500)).collect(),
    }
}

/// Draws the number of nodes of a swarm.
pub fn nodes(seed: u64) -> u8 {
    let mut d = draw(seed, 1);
    let n = match d.below(20) {
        0 => d.between(1, 2),
        1..=14 => d.between(3, 7),
        15..=18 => d.between(8, 12),
        _ => d.between(13, 20),
    };
    u8::try_from(n).unwrap_or(5)
}

fn draw(seed: u64, concern: u64) -> Draw {
    Draw::new(seed ^ 0x7377_6172_6d00 ^ concern, Stream::Settings)
}

/// Makes a swarm's run of `s`.
pub fn apply(s: &mut Settings) {
    let mut d = draw(s.seed, 2);
    let kinds = kinds(&mut d);
    let has = |k: Kind| kinds.contains(&k);
    let stretch = d.pick(&[500, 700, 1000, 1000, 1500, 2500, 4000, 8000]).unwrap_or(1000);
    s.config = config(&mut d, stretch);
    let weather = weather(&mut d, &has);
    s.weather = weather;
    s.clock_drift_per_mille = if has(Kind::Drift) { d.between(5, 250) } else { 0 };
    s.is_rough_start = d.chance(250);
    let mut faults: Vec<Fault> =
        kinds.iter().filter_map(|k| if let Kind::Of(f) = k { Some(*f) } else { None }).collect();
    if has(Kind::Churn) {
        faults.extend([Fault::Join, Fault::Leave]);
    }
    s.clients = d.index(8) + 2;
    s.think = d.millis(20, 400) * stretch / 1000;
    s.fault_interval = d.millis(200, 3000) * stretch / 1000;
    s.swarm = Some(Swarm { faults, at_once_max: d.index(4) + 1, stretch_per_mille: stretch.max(1000) });
}

fn weather(d: &mut Draw, has: &impl Fn(Kind) -> bool) -> Weather {
    let delay = Duration::from_micros(d.pick(&[100, 300, 1000, 3000, 8000]).unwrap_or(300));
    let mut of = |kind: Kind, low: u64, high: u64| {
        let n = d.between(low, high);
        if has(kind) { n } else { 0 }
    };
    let loss_per_mille = of(Kind::Loss, 10, 300);
    let duplicate_per_mille = of(Kind::Duplication, 10, 300);
    let replay_per_mille = of(Kind::Replay, 1, 40);
    Weather {
        delay,
        loss_per_mille,
        duplicate_per_mille,
        replay_per_mille,
        replay_delay_max: d.millis(1000, 300_000),
        is_ordered: !has(Kind::Reordering),
        hint_per_mille: d.pick(&[0, 300, 1000]).unwrap_or(300),
    }
}

/// Every time is stretched alike, and then some of them each by its own.
fn config(d: &mut Draw, stretch: u32) -> Config {
    let base = Config::default();
    let all = |t: Duration| t * stretch / 1000;
    let mut own = |t: Duration| {
        let by = d.pick(&[1000, 1000, 1000, 1000, 600, 1600]).unwrap_or(1000);
        t * stretch / 1000 * by / 1000
    };
    let attempt_timeout = own(base.attempt_timeout);
    let ping_interval = own(base.ping_interval);
    let suspect_after = own(base.suspect_after).max(ping_interval * 3);
    let (vote_timeout, duty_interval, settle_time) =
        (own(base.vote_timeout), own(base.duty_interval), own(base.settle_time));
    let (lock_age_max, ledger_idle_max) = (own(base.lock_age_max), own(base.ledger_idle_max));
    let (lock_patience, transaction_patience) = (own(base.lock_patience), own(base.transaction_patience));
    Config {
        replication_factor: d.pick(&[3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 4, 4, 1, 7]).unwrap_or(3),
        operation_deadline: base.operation_deadline * stretch.max(1000) / 1000,
        attempt_timeout,
        lock_wait: attempt_timeout * 4 / 7,
        lock_age_max,
        lock_patience,
        transaction_patience,
        ledger_idle_max,
        vote_timeout,
        ping_interval,
        suspect_after,
        dead_after: suspect_after * 9 / 5,
        probation: all(base.probation),
        knock_interval: all(base.knock_interval),
        duty_interval,
        settle_time,
        accepts_in_flight_per_key_max: d.index(6) + 1,
        queue_per_key_max: d.pick(&[8, 64, 4096]).unwrap_or(4096),
        transaction_window: d.pick(&[1, 2, 8, 512, 512]).unwrap_or(512),
        page_bytes_max: d.pick(&[64, 300, 1000, 4096, 64 << 10]).unwrap_or(300),
        chunk_bytes_max: d.pick(&[300, 2000, 8000, 1 << 20]).unwrap_or(2000),
        operation_id_age: d.pick(&[2, 10, 60]).map(Duration::from_secs).unwrap_or(base.operation_id_age),
        ..base
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Profile, Scenario};
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_comes_alone_in_pairs_and_among_others() {
        let (mut alone, mut sizes) = (Vec::new(), BTreeSet::new());
        for seed in 0..2000 {
            let all = kinds(&mut draw(seed, 2));
            sizes.insert(all.len());
            if let [one] = all.as_slice()
                && !alone.contains(one)
            {
                alone.push(*one);
            }
        }
        assert_eq!(alone.len(), KINDS.len());
        assert!(sizes.contains(&2) && sizes.iter().any(|n| *n > 10));
    }

    #[test]
    fn what_is_drawn_is_in_order_whatever_it_is() {
        for seed in 0..500 {
            let s = Settings::draw(seed, Profile::Swarm, Scenario::Load, 5, 100);
            let c = &s.config;
            assert!(c.suspect_after < c.dead_after && c.ping_interval * 3 <= c.suspect_after, "seed {seed}");
            assert!(c.lock_wait < c.attempt_timeout && c.attempt_timeout < c.operation_deadline);
            assert!((1..=20).contains(&nodes(seed)));
        }
    }
}
