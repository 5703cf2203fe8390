//! What a reign that ended leaves to the next one of the same node: which keys it had synced.
//!
//! Nothing happened in between if a quorum of acceptors still promised the ended reign when they granted the new
//! one. What was synced then is synced now, but for keys with an Accept whose outcome is not known.
//!
//! Source: `docs/protocol.md`, section 3 (Sync).

use crate::reign::{Evicted, Reign};
use ring::{Extent, Offset, Slot};
use std::collections::{BTreeMap, VecDeque};
use store::{Ballot, Key, SessionId, Stamp};

/// Ended reigns that are remembered.
const FORMERS_MAX: usize = 64;
/// Absent keys that an ended reign leaves; more are synced again.
const ABSENT_LEFT_MAX: usize = 4096;

#[derive(Clone, Debug)]
struct Former {
    home: Slot,
    extent: Extent,
    ballot: Ballot,
    anchor: Slot,
    serial: u32,
    floor: Stamp,
    first_floor: u64,
    chosen_n: u64,
    evicted: BTreeMap<SessionId, Evicted>,
    floors: BTreeMap<(Offset, Key), u64>,
    absent: BTreeMap<(Offset, Key), ()>,
    /// Keys whose last Accept has an unknown outcome.
    open: Vec<(Offset, Key)>,
}

/// The ended reigns of a node, the latest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Formers {
    all: VecDeque<Former>,
}

impl Formers {
    /// Remembers a reign that ends.
    pub(super) fn remember(&mut self, r: &Reign) {
        if !r.is_reigning() {
            return;
        }
        if self.all.len() >= FORMERS_MAX {
            self.all.pop_front();
        }
        let is_open = |k: &crate::reign::KeyState| k.flights.iter().any(|f| !f.is_chosen);
        let open = r.keys.iter().filter(|(_, k)| is_open(k)).map(|(at, _)| at.clone()).collect();
        self.all.push_back(Former {
            home: r.home,
            extent: r.extent,
            ballot: r.ballot,
            anchor: r.anchor,
            serial: r.serial,
            floor: r.floor,
            first_floor: r.first_floor,
            chosen_n: r.chosen_n,
            evicted: r.evicted.clone(),
            floors: r.floors.clone(),
            absent: if r.absent.len() <= ABSENT_LEFT_MAX { r.absent.clone() } else { BTreeMap::new() },
            open,
        });
    }

    /// The ballot of the last reign over the same.
    pub(super) fn last(&self, r: &Reign) -> Option<Ballot> {
        let is_it = |f: &&Former| f.home == r.home && f.anchor == r.anchor && f.extent.covers(&r.extent);
        self.all.iter().rev().find(is_it).map(|f| f.ballot)
    }

    /// Gives what the reign of ballot `old` had synced to `r`, which followed it; `old` is the former promise that a
    /// quorum named. The keys that are to be synced again are given back.
    pub(super) fn inherit(&self, r: &mut Reign, old: Ballot) -> Vec<(Offset, Key)> {
        let is_it = |f: &&Former| {
            f.ballot == old && f.home == r.home && f.anchor == r.anchor && f.extent.covers(&r.extent)
        };
        let Some(f) = self.all.iter().rev().find(is_it) else { return Vec::new() };
        r.serial = f.serial;
        r.floor = r.floor.max(f.floor);
        r.first_floor = r.first_floor.max(f.first_floor);
        r.chosen_n = r.chosen_n.max(f.chosen_n);
        r.evicted.clone_from(&f.evicted);
        let extent = r.extent;
        let is_here = |at: &(Offset, Key)| extent.contains(at.0);
        r.floors = f.floors.iter().filter(|(at, _)| is_here(at)).map(|(at, f)| (at.clone(), *f)).collect();
        let again: Vec<(Offset, Key)> = f.open.iter().filter(|at| is_here(at)).cloned().collect();
        if !again.is_empty() {
            // What was dropped may have been executed by an Accept that is never chosen.
            r.evicted.values_mut().for_each(|e| e.is_untold = true);
        }
        r.absent = f.absent.iter().filter(|(at, ())| is_here(at)).map(|(at, ())| (at.clone(), ())).collect();
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::SlotSet;
    use crate::reign::{Flight, Phase};
    use paxos::Configuration;
    use ring::{NodeId, RingId, Time};
    use std::sync::Arc;
    use store::{OpEntry, Record};

    fn ballot(counter: u64) -> Ballot {
        Ballot { counter, node: NodeId(1) }
    }

    fn reign(counter: u64, serial: u32, extent: Extent) -> Reign {
        let configuration = Arc::new(Configuration::new(RingId(1), 1, Vec::new()));
        let mut r = Reign::seeking(0, extent, ballot(counter), configuration, 0, serial, 1, Time(0));
        r.phase = Phase::Reigning;
        r
    }

    fn flight(n: u64, is_chosen: bool) -> Flight {
        Flight {
            n,
            record: Record::absent(0),
            granted: SlotSet::default(),
            low: SlotSet::default(),
            is_chosen,
            waiters: Vec::new(),
            resend_at: Time(0),
            sends: 1,
        }
    }

    fn at(offset: Offset) -> (Offset, Key) {
        (offset, Key::new(b"key"))
    }

    #[test]
    fn the_next_reign_inherits_all_but_the_keys_with_an_open_accept() {
        let mut ended = reign(7, 3, Extent::new(0, 99));
        (ended.first_floor, ended.chosen_n) = (40, 50);
        ended.note_absent(at(10));
        ended.note_absent(at(80));
        ended.keys.entry(at(20)).or_default().flights.push_back(flight(51, false));
        ended.keys.entry(at(30)).or_default().flights.push_back(flight(52, true));
        let mut formers = Formers::default();
        formers.remember(&ended);
        let mut next = reign(9, 4, Extent::new(5, 60));
        assert_eq!(formers.inherit(&mut next, ballot(7)), [at(20)]);
        assert_eq!((next.serial, next.first_floor, next.chosen_n), (3, 40, 50));
        assert!(next.is_absent(&at(10)) && !next.is_absent(&at(80)));
    }

    #[test]
    fn what_an_ended_reign_dropped_is_told_only_if_all_of_its_accepts_were_chosen() {
        for is_chosen in [true, false] {
            let mut ended = reign(7, 3, Extent::new(0, 99));
            ended.keys.entry(at(20)).or_default().flights.push_back(flight(51, is_chosen));
            let session = SessionId(5);
            ended.note_evicted(&at(20), 0, &OpEntry { session, seq: 9, n: 40, result: None });
            let mut formers = Formers::default();
            formers.remember(&ended);
            let mut next = reign(9, 4, Extent::new(0, 99));
            formers.inherit(&mut next, ballot(7));
            let dropped = next.evicted_from(session, 9).expect("it was dropped");
            assert_eq!(dropped.is_untold, !is_chosen);
        }
    }

    #[test]
    fn nothing_is_inherited_from_another_ballot_or_a_part() {
        let mut formers = Formers::default();
        formers.remember(&reign(7, 3, Extent::new(0, 99)));
        for (old, extent) in [(8, Extent::new(0, 99)), (7, Extent::new(50, 120))] {
            let mut next = reign(9, 4, extent);
            assert!(formers.inherit(&mut next, ballot(old)).is_empty());
            assert_eq!(next.serial, 4);
        }
    }
}
