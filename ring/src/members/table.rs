//! The member table: one entry per known node, and the rule by which entries replace each other.
//!
//! Keeps:
//! 1. Of two entries of a node the one with the higher (incarnation, state) stays, whatever the order of arrival.
//! 2. Nobody is believed dead on hearsay who was heard here within `suspect_after`.
//! 3. At most `members_max` entries; the longest lost make room for the living.

use crate::ident::NodeId;
use crate::members::detector::{DetectorConfig, Pursuit};
use crate::members::info::{MemberInfo, MemberState};
use crate::time::Time;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Owned intervals kept of one entry.
pub(super) const OWNED_MAX: usize = 32;
/// Pings remembered for their round trip.
const IN_FLIGHT_MAX: usize = 8;

/// A known node.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it says of itself, or others say in its stead when it is dead.
    pub info: MemberInfo,
    /// Whether this node suspects it.
    pub is_suspected: bool,
    /// The last sign of life: a message of its own, one that another node had, or its coming into the table.
    pub heard: Time,
    /// Round-trip time of pings, smoothed.
    pub round_trip: Option<Duration>,
    /// Since when it is in its state, as far as this node knows.
    pub since: Time,
    /// Whether `heard` was a message of its own.
    pub(super) has_spoken: bool,
    pub(super) pursuit: Option<Pursuit>,
    pub(super) knocked: Option<Time>,
    pub(super) digested: Option<Time>,
    /// How often it came back from death without our hearing it.
    pub(super) patience: u32,
    /// Who last had a sign of life of it.
    pub(super) voucher: Option<NodeId>,
    in_flight: VecDeque<(u64, Time)>,
}

impl Member {
    fn new(info: MemberInfo, now: Time) -> Member {
        Member {
            info,
            is_suspected: false,
            heard: now,
            round_trip: None,
            since: now,
            has_spoken: false,
            pursuit: None,
            knocked: None,
            digested: None,
            patience: 0,
            voucher: None,
            in_flight: VecDeque::new(),
        }
    }

    /// Whether it counts as a member: Alive or Leaving.
    pub fn is_in_ring(&self) -> bool {
        is_in_ring(self.info.state)
    }

    /// Notes that a ping was sent.
    pub(super) fn on_pinged(&mut self, now: Time, probe: u64) {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back((probe, now));
    }

    /// Takes the round trip of an answered ping into the mean.
    pub(super) fn on_ack(&mut self, now: Time, probe: u64) {
        let Some(at) = self.in_flight.iter().position(|(p, _)| *p == probe) else { return };
        let Some((_, sent)) = self.in_flight.remove(at) else { return };
        let sample = now.since(sent);
        self.round_trip = Some(self.round_trip.map_or(sample, |old| (old * 7 + sample) / 8));
    }
}

/// Whether a node in this state counts as a member.
pub(super) fn is_in_ring(state: MemberState) -> bool {
    matches!(state, MemberState::Alive | MemberState::Leaving)
}

/// The rank of an entry.
pub(super) fn rank(info: &MemberInfo) -> (u64, MemberState) {
    (info.incarnation, info.state)
}

/// What an entry did to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// Nothing: as new as ours or older.
    Ignored,
    /// Nothing: it says alive of one that counts as dead here, and is not new enough to refute.
    Contradicted,
    /// Nothing: it says dead of one that was just heard.
    Disputed,
    /// An unknown node, in the ring.
    Came,
    /// An unknown node, gone already.
    CameGone,
    /// A member says something new of itself.
    Updated {
        /// Whether only loads and owned intervals changed.
        is_load: bool,
    },
    /// A dead or left node is back.
    Returned,
    /// A member is dead.
    Died,
    /// A node has left.
    Left,
    /// A gone node is gone in another form.
    StillGone,
}

/// All known nodes but this one.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) others: BTreeMap<NodeId, Member>,
    /// When the set, a state or an end last changed.
    pub(super) changed_at: Time,
}

impl Table {
    pub(super) fn new(now: Time) -> Table {
        Table { others: BTreeMap::new(), changed_at: now }
    }

    /// Takes an entry in if it is newer.
    pub(super) fn apply(&mut self, config: &DetectorConfig, now: Time, mut info: MemberInfo) -> Applied {
        info.owned.truncate(OWNED_MAX);
        let Some(m) = self.others.get_mut(&info.node.id) else { return self.insert(config, now, info) };
        if rank(&info) <= rank(&m.info) {
            let is_contradiction = is_in_ring(info.state) && m.info.state == MemberState::Dead;
            return if is_contradiction { Applied::Contradicted } else { Applied::Ignored };
        }
        let was_in = m.is_in_ring();
        let is_heard = m.has_spoken && now.since(m.heard) < config.suspect_after;
        if was_in && info.state == MemberState::Dead && is_heard {
            return Applied::Disputed;
        }
        let is_load = m.info.state == info.state && m.info.end == info.end && m.info.node == info.node;
        let state_before = core::mem::replace(&mut m.info, info).state;
        if state_before != m.info.state {
            m.since = now;
        }
        if !is_load {
            self.changed_at = now;
        }
        match (was_in, m.info.state) {
            (true, MemberState::Alive | MemberState::Leaving) => Applied::Updated { is_load },
            (false, MemberState::Alive | MemberState::Leaving) => {
                if now.since(m.heard) >= config.suspect_after {
                    m.patience = m.patience.saturating_add(1);
                    m.has_spoken = false;
                }
                m.heard = now;
                Applied::Returned
            }
            (_, state) => {
                m.is_suspected = false;
                m.pursuit = None;
                match (was_in || state_before != state, state) {
                    (false, _) => Applied::StillGone,
                    (true, MemberState::Left) => Applied::Left,
                    (true, _) if was_in => Applied::Died,
                    (true, _) => Applied::StillGone,
                }
            }
        }
    }

    fn insert(&mut self, config: &DetectorConfig, now: Time, info: MemberInfo) -> Applied {
        let is_in = is_in_ring(info.state);
        if self.others.len() >= config.members_max && !(is_in && self.make_room()) {
            return Applied::Ignored;
        }
        self.changed_at = now;
        self.others.insert(info.node.id, Member::new(info, now));
        if is_in { Applied::Came } else { Applied::CameGone }
    }

    fn make_room(&mut self) -> bool {
        let gone = self.others.values().filter(|m| !m.is_in_ring());
        let oldest = gone.min_by_key(|m| (m.since, m.info.node.id)).map(|m| m.info.node.id);
        oldest.is_some_and(|id| self.others.remove(&id).is_some())
    }

    /// Forgets who is gone for long enough.
    pub(super) fn forget(&mut self, config: &DetectorConfig, now: Time) {
        let before = self.others.len();
        self.others.retain(|_, m| m.is_in_ring() || now.since(m.since) < config.forget_after);
        if self.others.len() != before {
            self.changed_at = now;
        }
    }

    /// The entries that are told to others: not those that are about to be forgotten.
    pub(super) fn told(&self, config: &DetectorConfig, now: Time) -> impl Iterator<Item = &Member> {
        let half = config.forget_after / 2;
        self.others.values().filter(move |m| m.is_in_ring() || now.since(m.since) < half)
    }
}
