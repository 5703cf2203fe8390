//! The acceptors in this node's memory, by slot and extent.
//!
//! Keeps:
//! 1. Acceptors of one slot that are not frozen do not overlap; frozen ones are kept apart.
//! 2. What a node owns changes only by creation, handover and replacement: by `insert` and `take` here.
//! 3. Neighbours with equal state are joined.

use crate::message::{Denied, Era};
use paxos::{Acceptor, Configuration, Granted, Refused};
use ring::{Extent, Offset, Slot};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Ballot, Entry, Key, Stamp};

/// The acceptors of one node.
#[derive(Clone, Debug, Default)]
pub struct Acceptors {
    owned: BTreeMap<(Slot, Offset), Acceptor>,
    frozen: Vec<Acceptor>,
    /// Members that froze before they were complete, and never will be: what was donated or given to them does
    /// not count. (slot, extent, since), kept until a later member of the slot is complete.
    unfinished: Vec<(Slot, Extent, u64)>,
}

/// Turns an acceptor's refusal into the answer to a request; who might be the owner is filled in by the node.
pub(crate) fn denied(refused: Refused, extent: Extent) -> Denied {
    match refused {
        Refused::NotOwner => Denied::ELSEWHERE,
        Refused::NotReady => Denied::NotReady,
        Refused::StaleEpoch(configuration) => Denied::StaleEpoch { extent, configuration },
        Refused::NewerEpoch => Denied::NewerEpoch,
        Refused::Promised(b) => Denied::Promised(b),
        Refused::Low => Denied::Low,
    }
}

impl Acceptors {
    /// Whether there is nothing, frozen memory not counted.
    pub fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// All acceptors, frozen ones too.
    pub fn iter(&self) -> impl Iterator<Item = &Acceptor> + Clone {
        self.owned.values().chain(&self.frozen)
    }

    /// The acceptors that are not frozen.
    pub fn owned(&self) -> impl Iterator<Item = &Acceptor> {
        self.owned.values()
    }

    /// The frozen acceptors.
    pub fn frozen(&self) -> &[Acceptor] {
        &self.frozen
    }

    /// The acceptor of an offset in a slot.
    pub fn find(&self, slot: Slot, offset: Offset) -> Option<&Acceptor> {
        let (_, a) = self.owned.range((slot, 0)..=(slot, offset)).next_back()?;
        a.extent.contains(offset).then_some(a)
    }

    /// The acceptor of an offset in a slot.
    pub fn find_mut(&mut self, slot: Slot, offset: Offset) -> Option<&mut Acceptor> {
        let (_, a) = self.owned.range_mut((slot, 0)..=(slot, offset)).next_back()?;
        a.extent.contains(offset).then_some(a)
    }

    /// The acceptor that may vote for an offset in a slot.
    pub fn active(&self, slot: Slot, offset: Offset) -> Option<&Acceptor> {
        self.find(slot, offset).filter(|a| a.is_active())
    }

    /// The slots of an offset that are here and may vote.
    pub fn active_slots(&self, replicas: u8, offset: Offset) -> impl Iterator<Item = Slot> + '_ {
        (0..replicas).filter(move |s| self.active(*s, offset).is_some())
    }

    /// The keys of the acceptors that overlap `extent`, in order.
    fn overlapping(&self, slot: Slot, extent: Extent) -> Vec<Offset> {
        let start =
            self.owned.range((slot, 0)..=(slot, extent.lo)).next_back().map_or(extent.lo, |((_, lo), _)| *lo);
        self.owned
            .range((slot, start)..=(slot, extent.hi))
            .filter(|(_, a)| a.extent.intersect(&extent).is_some())
            .map(|((_, lo), _)| *lo)
            .collect()
    }

    /// The parts of `extent` that are here in `slot`, with their acceptors.
    pub fn parts(&self, slot: Slot, extent: Extent) -> impl Iterator<Item = (Extent, &Acceptor)> {
        self.overlapping(slot, extent).into_iter().filter_map(move |lo| {
            let a = self.owned.get(&(slot, lo))?;
            Some((a.extent.intersect(&extent)?, a))
        })
    }

    /// The first part of `extent` that is not here in `slot`.
    pub fn first_missing(&self, slot: Slot, extent: Extent) -> Option<Extent> {
        let mut rest = vec![extent];
        for (here, _) in self.parts(slot, extent) {
            rest = rest.into_iter().flat_map(|r| r.minus(&here)).collect();
        }
        rest.into_iter().next()
    }

    /// The keys of the acceptors that cover all of `extent` and pass the test of (epoch, tag).
    pub fn covering(&self, slot: Slot, extent: Extent, era: Option<Era>) -> Result<Vec<Offset>, Denied> {
        let keys = self.overlapping(slot, extent);
        let mut next = Some(extent.lo);
        for lo in &keys {
            let Some(a) = self.owned.get(&(slot, *lo)) else { continue };
            if next.is_none_or(|n| a.extent.lo > n) {
                return Err(Denied::ELSEWHERE);
            }
            let here = match era {
                Some(era) => a.check(era.epoch, era.tag),
                None => a.check_present(),
            };
            here.map_err(|r| denied(r, a.extent))?;
            next = a.extent.hi.checked_add(1);
        }
        if next.is_some_and(|n| n <= extent.hi) {
            return Err(Denied::ELSEWHERE);
        }
        Ok(keys)
    }

    /// Cuts the acceptor that spans `at`, so that one begins there.
    pub fn cut(&mut self, slot: Slot, at: Offset) {
        if let Some(a) = self.find_mut(slot, at)
            && a.extent.lo < at
        {
            let high = a.split_off(at);
            self.owned.insert((slot, at), high);
        }
    }

    /// Cuts at both ends of `extent`.
    pub fn cut_extent(&mut self, slot: Slot, extent: Extent) {
        self.cut(slot, extent.lo);
        if let Some(after) = extent.hi.checked_add(1) {
            self.cut(slot, after);
        }
    }

    /// Asks for a reign over the whole of `extent`: granted by all its acceptors or by none.
    pub fn reign(
        &mut self,
        slot: Slot,
        extent: Extent,
        home: Slot,
        ballot: Ballot,
        era: Era,
    ) -> Result<(Option<Ballot>, Granted), Denied> {
        let keys = self.covering(slot, extent, Some(era))?;
        let promised = keys.iter().filter_map(|lo| self.owned.get(&(slot, *lo)));
        if let Some(b) = promised.map(|a| a.homes[usize::from(home)].promised).max()
            && b >= ballot
        {
            return Err(Denied::Promised(b));
        }
        self.cut_extent(slot, extent);
        let mut out: Option<(Option<Ballot>, Granted)> = None;
        for lo in self.overlapping(slot, extent) {
            let Some(a) = self.owned.get_mut(&(slot, lo)) else { continue };
            let g = a.reign(home, ballot).map_err(|r| denied(r, a.extent))?;
            out = Some(match out {
                None => (Some(g.old), g),
                Some((old, sum)) => (
                    old.filter(|o| *o == g.old),
                    Granted {
                        old: sum.old.max(g.old),
                        high: sum.high.max(g.high),
                        floor: sum.floor.max(g.floor),
                    },
                ),
            });
        }
        out.ok_or(Denied::ELSEWHERE)
    }

    /// Runs one vote at the acceptor of an offset, after the test of (epoch, tag).
    pub fn vote<T>(
        &mut self,
        slot: Slot,
        offset: Offset,
        era: Era,
        f: impl FnOnce(&mut Acceptor) -> Result<T, Refused>,
    ) -> Result<T, Denied> {
        let a = self.find_mut(slot, offset).ok_or(Denied::ELSEWHERE)?;
        let extent = a.extent;
        a.check(era.epoch, era.tag).and_then(|()| f(a)).map_err(|r| denied(r, extent))
    }

    /// Whether a reign still holds over the whole of `extent`.
    pub fn confirm(
        &self,
        slot: Slot,
        extent: Extent,
        home: Slot,
        ballot: Ballot,
        era: Era,
    ) -> Result<(), Denied> {
        for lo in self.covering(slot, extent, Some(era))? {
            if let Some(a) = self.owned.get(&(slot, lo)) {
                a.confirm(home, ballot).map_err(|r| denied(r, a.extent))?;
            }
        }
        Ok(())
    }

    /// Installs a decided configuration over `extent`. Returns whether anything changed.
    pub fn install(&mut self, replicas: u8, extent: Extent, configuration: &Arc<Configuration>) -> bool {
        let mut changed = false;
        for slot in 0..replicas {
            let stale = self
                .parts(slot, extent)
                .any(|(_, a)| a.configuration.epoch < configuration.epoch && !a.is_stopped);
            if !stale {
                continue;
            }
            self.cut_extent(slot, extent);
            for lo in self.overlapping(slot, extent) {
                let Some(a) = self.owned.get_mut(&(slot, lo)) else { continue };
                let before = a.configuration.epoch;
                a.install(configuration);
                changed |= a.configuration.epoch != before || a.is_frozen;
                if a.is_frozen
                    && let Some(a) = self.owned.remove(&(slot, lo))
                {
                    self.freeze(a);
                }
            }
        }
        changed
    }

    /// Freezes the member of `slot` that came in at `since` within `extent`, for a salvage. Returns whether there was
    /// something to freeze.
    pub fn freeze_within(&mut self, slot: Slot, since: u64, extent: Extent) -> bool {
        let is_it = |a: &Acceptor| a.is_active() && a.since() == since;
        if !self.parts(slot, extent).any(|(_, a)| is_it(a)) {
            return false;
        }
        self.cut_extent(slot, extent);
        for lo in self.overlapping(slot, extent) {
            if self.owned.get(&(slot, lo)).is_some_and(is_it)
                && let Some(mut a) = self.owned.remove(&(slot, lo))
            {
                a.is_frozen = true;
                self.freeze(a);
            }
        }
        true
    }

    /// The frozen pieces of a member that cover `extent` together, in order; none if something is missing.
    pub fn frozen_parts(&self, slot: Slot, since: u64, extent: Extent) -> Option<Vec<&Acceptor>> {
        let is_it = |a: &&Acceptor| a.slot == slot && a.since() == since;
        let mut parts: Vec<&Acceptor> =
            self.frozen.iter().filter(is_it).filter(|a| a.extent.intersect(&extent).is_some()).collect();
        parts.sort_unstable_by_key(|a| a.extent.lo);
        let mut next = Some(extent.lo);
        for a in &parts {
            if next.is_none_or(|n| a.extent.lo > n) {
                return None;
            }
            next = a.extent.hi.checked_add(1);
        }
        next.is_none_or(|n| n > extent.hi).then_some(parts)
    }

    /// Adds an acceptor where there is none.
    pub fn insert(&mut self, acceptor: Acceptor) {
        assert!(
            self.overlapping(acceptor.slot, acceptor.extent).is_empty(),
            "acceptors of one slot never overlap"
        );
        self.owned.insert((acceptor.slot, acceptor.extent.lo), acceptor);
    }

    /// Removes what lies within `extent`, whose ends must have been cut.
    pub fn remove_within(&mut self, slot: Slot, extent: Extent) {
        for lo in self.overlapping(slot, extent) {
            if self.owned.get(&(slot, lo)).is_some_and(|a| extent.covers(&a.extent)) {
                self.owned.remove(&(slot, lo));
            }
        }
    }

    /// Joins neighbours with equal state.
    pub fn join_neighbours(&mut self) {
        let keys: Vec<(Slot, Offset)> = self.owned.keys().copied().collect();
        let mut last: Option<(Slot, Offset)> = None;
        for at in keys {
            let joins = last
                .and_then(|l| self.owned.get(&l))
                .zip(self.owned.get(&at))
                .is_some_and(|(a, b)| a.can_join(b));
            match last {
                Some(l) if joins => {
                    if let Some(next) = self.owned.remove(&at)
                        && let Some(a) = self.owned.get_mut(&l)
                    {
                        a.join(next);
                    }
                }
                _ => last = Some(at),
            }
        }
    }

    /// Forgets frozen memory of `slot` within `extent` that came in before `since`.
    pub fn discard_frozen(&mut self, slot: Slot, extent: Extent, since: u64) {
        let mut kept = Vec::new();
        for mut a in std::mem::take(&mut self.frozen) {
            if a.slot != slot || a.since() >= since || a.extent.intersect(&extent).is_none() {
                kept.push(a);
                continue;
            }
            if a.extent.lo < extent.lo {
                let rest = a.split_off(extent.lo);
                kept.push(std::mem::replace(&mut a, rest));
            }
            if a.extent.hi > extent.hi
                && let Some(after) = extent.hi.checked_add(1)
            {
                kept.push(a.split_off(after));
            }
        }
        self.frozen = kept;
        let unfinished = std::mem::take(&mut self.unfinished);
        self.unfinished = unfinished
            .into_iter()
            .flat_map(|(s, e, at)| {
                let rest: Vec<Extent> =
                    if s == slot && at < since { e.minus(&extent).collect() } else { vec![e] };
                rest.into_iter().map(move |e| (s, e, at))
            })
            .collect();
    }

    /// What is owned, by slot and extent, joined where adjacent whatever the state.
    pub fn summary(&self) -> Vec<(Slot, Extent)> {
        let mut out: Vec<(Slot, Extent)> = Vec::new();
        for a in self.owned.values() {
            match out.last_mut() {
                Some((s, e)) if *s == a.slot && e.is_followed_by(&a.extent) => e.hi = a.extent.hi,
                _ => out.push((a.slot, a.extent)),
            }
        }
        out
    }

    /// Whether another slot of any offset of `extent` is here, frozen memory included.
    pub fn holds_other_slot(&self, slot: Slot, extent: Extent) -> bool {
        self.iter().any(|a| a.slot != slot && a.extent.intersect(&extent).is_some())
    }

    /// Estimated bytes of everything here.
    pub fn weight(&self) -> usize {
        self.iter().map(|a| a.registers.weight()).sum()
    }

    /// Keys of all slots together.
    pub fn keys(&self) -> usize {
        self.iter().map(|a| a.registers.len()).sum()
    }

    /// The entry of a key in a slot that may vote.
    pub fn entry(&self, slot: Slot, offset: Offset, key: &Key) -> Option<&Entry> {
        self.find(slot, offset)?.registers.get(offset, key)
    }

    /// Drops a key that all replicas hold as this tombstone.
    pub fn drop_key(&mut self, slot: Slot, home: Slot, stamp: Stamp, offset: Offset, key: &Key) -> bool {
        self.find_mut(slot, offset).is_some_and(|a| a.drop_key(home, stamp, offset, key))
    }
}

impl Acceptors {
    /// Keeps memory whose member was replaced while it was on its way here.
    pub fn insert_frozen(&mut self, mut acceptor: Acceptor) {
        acceptor.is_frozen = true;
        self.freeze(acceptor);
    }

    fn freeze(&mut self, acceptor: Acceptor) {
        if acceptor.is_complete {
            self.frozen.push(acceptor);
        } else {
            self.unfinished.push((acceptor.slot, acceptor.extent, acceptor.since()));
        }
    }

    /// Members that froze here before they were complete.
    pub fn unfinished(&self) -> &[(Slot, Extent, u64)] {
        &self.unfinished
    }

    /// The frozen memory of a member over exactly `extent`, cut out of what there is.
    pub fn frozen_part(&mut self, slot: Slot, since: u64, extent: Extent) -> Option<&mut Acceptor> {
        let i = self
            .frozen
            .iter()
            .position(|a| a.slot == slot && a.since() == since && a.extent.covers(&extent))?;
        if self.frozen.get(i)?.extent.lo < extent.lo {
            let high = self.frozen.get_mut(i)?.split_off(extent.lo);
            let low = std::mem::replace(self.frozen.get_mut(i)?, high);
            self.frozen.push(low);
        }
        if let Some(after) = extent.hi.checked_add(1).filter(|_| self.frozen[i].extent.hi > extent.hi) {
            let high = self.frozen.get_mut(i)?.split_off(after);
            self.frozen.push(high);
        }
        self.frozen.get_mut(i)
    }

    /// Takes frozen memory over exactly `extent` out.
    pub fn take_frozen(&mut self, slot: Slot, since: u64, extent: Extent) -> Option<Acceptor> {
        self.frozen_part(slot, since, extent)?;
        let i =
            self.frozen.iter().position(|a| a.slot == slot && a.since() == since && a.extent == extent)?;
        Some(self.frozen.swap_remove(i))
    }

    /// Whether any acceptor of the slot that is not frozen overlaps `extent`.
    pub fn overlaps(&self, slot: Slot, extent: Extent) -> bool {
        !self.overlapping(slot, extent).is_empty()
    }
}
