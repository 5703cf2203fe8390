//! The failure detector of one node: when to ping, when to ask others, when to suspect and when to give up.
//!
//! A member is pursued from the first ping that was not answered at once until anything is heard of it. Silence
//! counts from the last sign of life, but at most one ping interval before the pursuit began: nobody is
//! suspected for a silence in which nobody asked.
//!
//! Keeps:
//! 1. Suspicion follows only unanswered direct probes, and unanswered indirect ones where there is somebody
//!    to ask; death follows only suspicion.
//! 2. Time in which this node itself stood still is nobody's silence.
//!
//! Source: Das, Gupta, Motivala 2002, SWIM; Dadgar, Phillips, Currey 2018, Lifeguard (local health).

use crate::time::Time;
use core::time::Duration;

/// The settings of the member table and its failure detector.
#[derive(Clone, Debug)]
pub struct DetectorConfig {
    /// A member that was not heard for this long is pinged; pings not answered are repeated three times as often.
    pub ping_interval: Duration,
    /// Silence after which a member is suspected.
    pub suspect_after: Duration,
    /// Silence after which a member counts as dead.
    pub dead_after: Duration,
    /// One dead member is pinged in this time, so that a returned one learns that it must refute.
    pub knock_interval: Duration,
    /// Tables are compared with one random member in this time.
    pub digest_interval: Duration,
    /// Members asked for an indirect probe, per direct one.
    pub indirect_probes: usize,
    /// News that rides on one message.
    pub updates_per_message_max: usize,
    /// Random members pinged per ping interval where there is news, or more members than are all watched.
    pub fanout: usize,
    /// Up to this many members, all are watched.
    pub watched_all_max: usize,
    /// In larger rings, the neighbours watched on each side.
    pub neighbours_per_side: usize,
    /// Entries sent in one answer to a digest.
    pub table_members_max: usize,
    /// Entries kept.
    pub members_max: usize,
    /// Indirect probes under way for others.
    pub relays_max: usize,
    /// Members that are dead or have left are forgotten after this; for the second half of it they are not
    /// told of any more.
    pub forget_after: Duration,
}

impl Default for DetectorConfig {
    fn default() -> DetectorConfig {
        DetectorConfig {
            ping_interval: Duration::from_millis(150),
            suspect_after: Duration::from_millis(500),
            dead_after: Duration::from_millis(900),
            knock_interval: Duration::from_millis(200),
            digest_interval: Duration::from_secs(1),
            indirect_probes: 2,
            updates_per_message_max: 16,
            fanout: 3,
            watched_all_max: 12,
            neighbours_per_side: 3,
            table_members_max: 256,
            members_max: 4096,
            relays_max: 256,
            forget_after: Duration::from_secs(3600),
        }
    }
}

impl DetectorConfig {
    /// How often the detector looks at those it pursues.
    pub(super) fn step(&self) -> Duration {
        (self.ping_interval / 3).max(Duration::from_millis(1))
    }
}

/// What the silence of a pursued member means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Open,
    /// It is suspected.
    Suspected,
    /// It counts as dead.
    Dead,
}

/// An unanswered question after a member.
#[derive(Clone, Debug)]
pub(super) struct Pursuit {
    silent_since: Time,
    began: Time,
    hinted: Option<Time>,
    /// Answers to probes before this number say nothing.
    pub(super) probe_first: u64,
    /// Direct probes sent.
    pub(super) pings: u32,
    /// Indirect probes sent.
    pub(super) requests: u32,
}

/// Deaths that were refuted behind our back double the patience, this many times at most.
const PATIENCE_MAX: u32 = 6;

impl Pursuit {
    /// Begins at the first ping after `heard`.
    pub(super) fn new(config: &DetectorConfig, now: Time, heard: Time, probe_first: u64) -> Pursuit {
        let earliest = Time(now.0.saturating_sub(micros(config.ping_interval)));
        let silent_since = heard.max(earliest);
        Pursuit { silent_since, began: now, hinted: None, probe_first, pings: 0, requests: 0 }
    }

    /// Notes that the connection broke. False if that was known.
    pub(super) fn hint(&mut self, now: Time) -> bool {
        let is_new = self.hinted.is_none();
        self.hinted.get_or_insert(now);
        is_new
    }

    /// Whether it is time to ask others.
    pub(super) fn wants_indirect(&self, config: &DetectorConfig, now: Time) -> bool {
        self.hinted.is_some() || now.since(self.began) >= config.step()
    }

    /// This node stood still for `stall`: that much silence is its own.
    pub(super) fn credit(&mut self, config: &DetectorConfig, now: Time, stall: Duration) {
        self.silent_since = (self.silent_since + stall).min(now);
        self.hinted = self.hinted.map(|h| (h + stall).min(now));
        if stall >= config.suspect_after {
            self.silent_since = now;
            (self.pings, self.requests) = (0, 0);
        }
    }

    /// What the silence means now. `patience` counts deaths that were refuted without our hearing it.
    pub(super) fn verdict(
        &self,
        config: &DetectorConfig,
        now: Time,
        is_suspected: bool,
        patience: u32,
        has_relays: bool,
    ) -> Verdict {
        let silence = now.since(self.silent_since);
        let is_probed = self.pings >= 2 && (self.requests >= 1 || !has_relays);
        let is_hinted = self.hinted.is_some_and(|h| now.since(h) >= config.suspect_after / 2);
        if !is_probed {
            Verdict::Open
        } else if is_suspected && silence >= config.dead_after.saturating_mul(1 << patience.min(PATIENCE_MAX))
        {
            Verdict::Dead
        } else if silence >= config.suspect_after || is_hinted {
            Verdict::Suspected
        } else {
            Verdict::Open
        }
    }
}

/// A duration in the unit of [`Time`].
pub(super) fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pursued() -> (DetectorConfig, Pursuit) {
        let config = DetectorConfig::default();
        let mut p = Pursuit::new(&config, Time::from_millis(1000), Time::from_millis(900), 1);
        (p.pings, p.requests) = (5, 5);
        (config, p)
    }

    #[test]
    fn silence_counts_from_the_last_sign_of_life() {
        let (c, p) = pursued();
        assert_eq!(p.verdict(&c, Time::from_millis(1399), false, 0, true), Verdict::Open);
        assert_eq!(p.verdict(&c, Time::from_millis(1400), false, 0, true), Verdict::Suspected);
        assert_eq!(p.verdict(&c, Time::from_millis(1800), true, 0, true), Verdict::Dead);
    }

    #[test]
    fn nobody_is_suspected_before_others_were_asked() {
        let (c, mut p) = pursued();
        p.requests = 0;
        assert_eq!(p.verdict(&c, Time::from_millis(9000), false, 0, true), Verdict::Open);
        assert_eq!(p.verdict(&c, Time::from_millis(9000), false, 0, false), Verdict::Suspected);
    }

    #[test]
    fn nobody_dies_unsuspected() {
        let (c, p) = pursued();
        assert_eq!(p.verdict(&c, Time::from_millis(9000), false, 0, true), Verdict::Suspected);
    }

    #[test]
    fn a_broken_connection_brings_suspicion_sooner() {
        let (c, mut p) = pursued();
        p.hint(Time::from_millis(1000));
        assert_eq!(p.verdict(&c, Time::from_millis(1249), false, 0, true), Verdict::Open);
        assert_eq!(p.verdict(&c, Time::from_millis(1250), false, 0, true), Verdict::Suspected);
    }

    #[test]
    fn a_stall_of_our_own_is_nobodys_silence() {
        let (c, mut p) = pursued();
        p.credit(&c, Time::from_millis(6000), Duration::from_secs(5));
        assert_eq!(p.verdict(&c, Time::from_millis(6000), true, 0, true), Verdict::Open);
        p.pings = 2;
        p.requests = 2;
        assert_eq!(p.verdict(&c, Time::from_millis(6500), false, 0, true), Verdict::Suspected);
    }
}
