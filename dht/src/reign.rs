//! What a home keeps: its reigns, and for each key with something under way the flights and queues.
//!
//! The record of a key is not here but in the local acceptor; what was accepted last under the reign is what
//! the home has decided last. A key without anything under way costs nothing here.
//!
//! Keeps:
//! 1. Reigns of one home slot do not overlap.
//! 2. A key has at most one Sync under way.
//! 3. Flights of a key are ordered by n; what is chosen resolves all before it.
//!
//! Source: `docs/protocol.md`, sections 3 and 4.

use crate::message::{Answer, Attempt, Era, SlotSet};
use crate::trace::Trace;
use crate::tx::Blocked;
use paxos::Configuration;
use ring::{Extent, NodeId, NodeRef, Offset, Slot, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use store::{Ballot, Key, OpEntry, Record, SessionId, Stamp, Value};

/// Sessions whose dropped operation ids a reign remembers, and keys whose former floor.
const EVICTED_MAX: usize = 65_536;
/// Keys that a reign remembers to be absent.
const ABSENT_MAX: usize = 65_536;

/// Whose operation it is, to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) from: NodeRef,
    pub(crate) session: SessionId,
    pub(crate) seq: u64,
    pub(crate) attempt: u32,
    pub(crate) trace: Option<Trace>,
}

impl Origin {
    pub(crate) fn of(from: NodeRef, a: &Attempt) -> Origin {
        Origin { from, session: a.session, seq: a.seq, attempt: a.attempt, trace: a.trace }
    }
}

/// A change that waits for its Accept to be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) origin: Origin,
    pub(crate) version: u64,
    pub(crate) result: Option<Value>,
}

/// A read, or an answer that is given like one.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) origin: Origin,
    pub(crate) answer: Answer,
    /// What is said instead if the reign is lost before.
    pub(crate) otherwise: Answer,
    pub(crate) at: (Offset, Key),
    /// The last n sent for the key when it arrived; 0 if nothing was under way.
    pub(crate) upto: u64,
    /// The first Confirm sent after it arrived.
    pub(crate) round: u64,
}

/// An Accept under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) n: u64,
    pub(crate) record: Record,
    pub(crate) granted: SlotSet,
    pub(crate) low: SlotSet,
    pub(crate) is_chosen: bool,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) resend_at: Time,
    pub(crate) sends: u32,
}

/// One replica's answer to a Sync.
#[derive(Clone, Debug)]
pub(crate) struct SyncSighting {
    pub(crate) slot: Slot,
    pub(crate) stamp: Option<(Stamp, bool)>,
    pub(crate) record: Option<Record>,
    pub(crate) floor: Stamp,
}

/// A Sync under way.
#[derive(Clone, Debug)]
pub(crate) struct Syncing {
    pub(crate) rpc: u64,
    pub(crate) sightings: Vec<SyncSighting>,
    /// Whoever has to be among those who answered, unless it stays silent.
    pub(crate) wanted: Option<NodeId>,
    pub(crate) resend_at: Time,
}

impl Syncing {
    /// Whether enough acceptors have answered, the local one among them.
    pub(crate) fn is_enough(&self, quorum: usize, anchor: Slot) -> bool {
        self.wanted.is_none()
            && self.sightings.len() >= quorum
            && self.sightings.iter().any(|x| x.slot == anchor)
    }
}

/// A key with something under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyState {
    pub(crate) sync: Option<Syncing>,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) queue: VecDeque<(NodeRef, Attempt)>,
    /// What waits behind a transaction's lock, in the order of arrival.
    pub(crate) blocked: VecDeque<Blocked>,
}

impl KeyState {
    pub(crate) fn is_idle(&self) -> bool {
        self.sync.is_none() && self.flights.is_empty() && self.queue.is_empty() && self.blocked.is_empty()
    }
}

/// What a reign remembers of the operation ids of one session that records dropped under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// The highest seq that was dropped.
    pub(crate) seq: u64,
    /// The n under which that was executed.
    pub(crate) n: u64,
    /// Whether its answer is not known: there was more than n in it, which is not kept, or it may not be chosen.
    pub(crate) is_untold: bool,
    /// The highest n of any that was dropped.
    top: u64,
}

/// Where a reign stands.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Grants are gathered; operations wait.
    Seeking {
        /// The question that was asked; 0 after a cut, until the part is asked for.
        rpc: u64,
        grants: SlotSet,
        /// The former promise that all grants so far named; none if they differ.
        old: Option<Ballot>,
        waiting: VecDeque<(NodeRef, Attempt)>,
        resend_at: Time,
        sends: u32,
    },
    /// It leads.
    Reigning,
}

/// Leadership over the keys of one home slot in an interval.
#[derive(Clone, Debug)]
pub(crate) struct Reign {
    pub(crate) home: Slot,
    pub(crate) extent: Extent,
    pub(crate) ballot: Ballot,
    pub(crate) configuration: Arc<Configuration>,
    /// The local slot whose registers are read.
    pub(crate) anchor: Slot,
    pub(crate) phase: Phase,
    /// Marks the local entries that this reign has synced.
    pub(crate) serial: u32,
    /// The highest floor met: what is absent was dropped at most there.
    pub(crate) floor: Stamp,
    /// First attempts that know less may be repetitions of what was executed and forgotten under this reign.
    pub(crate) first_floor: u64,
    /// Operation ids that records dropped under this reign, by session.
    pub(crate) evicted: BTreeMap<SessionId, Evicted>,
    /// The floors that keys had before they dropped their first operation id under this reign: of what was executed
    /// above, all that the record does not have is in `evicted`.
    pub(crate) floors: BTreeMap<(Offset, Key), u64>,
    /// Keys known to be absent.
    pub(crate) absent: BTreeMap<(Offset, Key), ()>,
    pub(crate) keys: BTreeMap<(Offset, Key), KeyState>,
    pub(crate) readers: VecDeque<Reader>,
    /// The last Confirm round granted by a quorum; 0 if there was none.
    pub(crate) confirmed_round: u64,
    pub(crate) sent_round: u64,
    pub(crate) chosen_n: u64,
    /// Takes no operations: the chunk is about to be handed over.
    pub(crate) is_draining: bool,
    /// Where the scrubber is.
    pub(crate) scrub_after: Option<(Offset, Key)>,
}

impl Reign {
    #[allow(clippy::too_many_arguments, reason = "all of them differ for every reign")]
    pub(crate) fn seeking(
        home: Slot,
        extent: Extent,
        ballot: Ballot,
        configuration: Arc<Configuration>,
        anchor: Slot,
        serial: u32,
        rpc: u64,
        resend_at: Time,
    ) -> Reign {
        Reign {
            home,
            extent,
            ballot,
            configuration,
            anchor,
            phase: Phase::Seeking {
                rpc,
                grants: SlotSet::default(),
                old: None,
                waiting: VecDeque::new(),
                resend_at,
                sends: 1,
            },
            serial,
            floor: Stamp::ZERO,
            first_floor: 0,
            evicted: BTreeMap::new(),
            floors: BTreeMap::new(),
            absent: BTreeMap::new(),
            keys: BTreeMap::new(),
            readers: VecDeque::new(),
            confirmed_round: 0,
            sent_round: 0,
            chosen_n: 0,
            is_draining: false,
            scrub_after: None,
        }
    }

    pub(crate) fn era(&self) -> Era {
        Era::of(&self.configuration)
    }

    pub(crate) fn is_reigning(&self) -> bool {
        matches!(self.phase, Phase::Reigning)
    }

    pub(crate) fn is_absent(&self, at: &(Offset, Key)) -> bool {
        self.absent.contains_key(at)
    }

    pub(crate) fn note_absent(&mut self, at: (Offset, Key)) {
        if self.absent.len() >= ABSENT_MAX {
            // Forgetting costs a Sync each, nothing else.
            self.absent.clear();
        }
        self.absent.insert(at, ());
    }

    pub(crate) fn note_present(&mut self, at: &(Offset, Key)) {
        self.absent.remove(at);
    }

    /// Remembers an operation id that the record of a key forgets under this reign; `floor` is its floor before.
    pub(crate) fn note_evicted(&mut self, at: &(Offset, Key), floor: u64, gone: &OpEntry) {
        if self.evicted.len() >= EVICTED_MAX || self.floors.len() >= EVICTED_MAX {
            let top = self.evicted.values().map(|e| e.top).max().unwrap_or(0);
            self.first_floor = self.first_floor.max(top);
            self.evicted.clear();
            self.floors.clear();
        }
        // The floor of the moment is as good as an earlier one, and no worse for being noted late.
        if !self.floors.contains_key(at) {
            self.floors.insert(at.clone(), floor);
        }
        let e = self.evicted.entry(gone.session).or_default();
        if gone.seq > e.seq {
            (e.seq, e.n, e.is_untold) = (gone.seq, gone.n, gone.result.is_some());
        }
        e.top = e.top.max(gone.n);
    }

    /// What was forgotten under this reign of an operation, or of a later one of its session.
    pub(crate) fn evicted_from(&self, session: SessionId, seq: u64) -> Option<Evicted> {
        self.evicted.get(&session).copied().filter(|e| e.seq >= seq)
    }

    /// The n above which nothing that was executed on the key is forgotten without being in `evicted`; `floor` is
    /// that of its record.
    pub(crate) fn floor_of(&self, at: &(Offset, Key), floor: u64) -> u64 {
        self.floors.get(at).map_or(floor, |f| floor.min(*f))
    }

    /// Takes out what waits behind a lock.
    pub(crate) fn take_blocked(&mut self, at: &(Offset, Key)) -> VecDeque<Blocked> {
        self.keys.get_mut(at).map(|k| std::mem::take(&mut k.blocked)).unwrap_or_default()
    }

    /// The Sync of a key, if one is under way.
    pub(crate) fn syncing_mut(&mut self, at: &(Offset, Key)) -> Option<&mut Syncing> {
        self.keys.get_mut(at)?.sync.as_mut()
    }

    /// Whether nothing is under way; what waits behind locks may wait elsewhere.
    pub(crate) fn is_quiet(&self) -> bool {
        self.readers.is_empty()
            && self
                .keys
                .values()
                .all(|k| k.sync.is_none() && k.queue.is_empty() && k.flights.iter().all(|f| f.is_chosen))
    }

    /// Cuts the reign: `self` keeps what is below `at`. Both go on under the same ballot.
    ///
    /// An answer does not say for which of them it is, so neither waits for one any more: both ask anew.
    fn split_off(&mut self, at: Offset) -> Reign {
        let cut = (at, Key::new(b""));
        let phase = match &mut self.phase {
            Phase::Reigning => Phase::Reigning,
            Phase::Seeking { rpc, grants, old, waiting: _, resend_at, sends } => {
                *rpc = 0;
                Phase::Seeking {
                    rpc: 0,
                    grants: *grants,
                    old: *old,
                    waiting: VecDeque::new(),
                    resend_at: *resend_at,
                    sends: *sends,
                }
            }
        };
        let (low, high): (VecDeque<Reader>, VecDeque<Reader>) =
            std::mem::take(&mut self.readers).into_iter().partition(|r| r.at.0 < at);
        self.readers = low;
        let high = Reign {
            extent: Extent::new(at, self.extent.hi),
            configuration: self.configuration.clone(),
            phase,
            evicted: self.evicted.clone(),
            floors: self.floors.split_off(&cut),
            absent: self.absent.split_off(&cut),
            keys: self.keys.split_off(&cut),
            readers: high,
            scrub_after: None,
            ..*self
        };
        self.extent.hi = at - 1;
        self.scrub_after = None;
        high
    }
}

/// All reigns of a node, by home slot and interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reigns {
    map: BTreeMap<(Slot, Offset), Reign>,
}

impl Reigns {
    pub(crate) fn find(&self, home: Slot, offset: Offset) -> Option<&Reign> {
        let (_, r) = self.map.range((home, 0)..=(home, offset)).next_back()?;
        r.extent.contains(offset).then_some(r)
    }

    pub(crate) fn find_mut(&mut self, home: Slot, offset: Offset) -> Option<&mut Reign> {
        let (_, r) = self.map.range_mut((home, 0)..=(home, offset)).next_back()?;
        r.extent.contains(offset).then_some(r)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Reign> {
        self.map.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reign> {
        self.map.values_mut()
    }

    pub(crate) fn keys(&self) -> Vec<(Slot, Offset)> {
        self.map.keys().copied().collect()
    }

    pub(crate) fn get(&self, at: (Slot, Offset)) -> Option<&Reign> {
        self.map.get(&at)
    }

    pub(crate) fn get_mut(&mut self, at: (Slot, Offset)) -> Option<&mut Reign> {
        self.map.get_mut(&at)
    }

    pub(crate) fn insert(&mut self, reign: Reign) {
        self.map.insert((reign.home, reign.extent.lo), reign);
    }

    pub(crate) fn remove(&mut self, at: (Slot, Offset)) -> Option<Reign> {
        self.map.remove(&at)
    }

    /// The largest part of `within` around `offset` that no reign of `home` covers.
    pub(crate) fn gap(&self, home: Slot, offset: Offset, within: Extent) -> Extent {
        let mut out = within;
        if let Some((_, r)) = self.map.range((home, 0)..=(home, offset)).next_back()
            && r.extent.hi < offset
        {
            out.lo = out.lo.max(r.extent.hi + 1);
        }
        if let Some(((_, lo), _)) = self.map.range((home, offset)..=(home, Offset::MAX)).next() {
            out.hi = out.hi.min(lo.saturating_sub(1).max(offset));
        }
        out
    }

    /// The keys of the reigns of any home slot for which `f` holds, cut to `extent`.
    pub(crate) fn cut_out(&mut self, extent: Extent, f: impl Fn(&Reign) -> bool) -> Vec<(Slot, Offset)> {
        let hit: Vec<(Slot, Offset)> = self
            .map
            .iter()
            .filter(|(_, r)| r.extent.intersect(&extent).is_some() && f(r))
            .map(|(at, _)| *at)
            .collect();
        let mut out = Vec::new();
        for (home, lo) in hit {
            let mut at = (home, lo);
            let Some(r) = self.map.get_mut(&at) else { continue };
            if r.extent.lo < extent.lo {
                let high = r.split_off(extent.lo);
                at = (home, extent.lo);
                self.map.insert(at, high);
            }
            let Some(r) = self.map.get_mut(&at) else { continue };
            if r.extent.hi > extent.hi {
                let high = r.split_off(extent.hi + 1);
                self.map.insert((home, extent.hi + 1), high);
            }
            out.push(at);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::RingId;

    #[test]
    fn what_is_cut_while_grants_are_gathered_takes_no_answer_for_the_other_part() {
        let configuration = Arc::new(Configuration::new(RingId(1), 1, Vec::new()));
        let ballot = Ballot { counter: 1, node: NodeId(1) };
        let mut reigns = Reigns::default();
        reigns.insert(Reign::seeking(0, Extent::new(0, 99), ballot, configuration, 0, 1, 7, Time(0)));
        reigns.cut_out(Extent::new(40, 59), |_| true);
        let asked: Vec<u64> = reigns
            .iter()
            .filter_map(|r| if let Phase::Seeking { rpc, .. } = r.phase { Some(rpc) } else { None })
            .collect();
        assert_eq!(asked, [0, 0, 0], "an answer to question 7 does not say of which part it is");
    }
}
