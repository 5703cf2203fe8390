//! The acceptor: the memory of one slot over one extent, and the votes it may give.
//!
//! Keeps:
//! 1. `promised` of a home slot only grows; an Accept or Sync below it is refused.
//! 2. A key's stamp only grows; a dropped key comes back only above `floor`.
//! 3. A frozen, stopped or incomplete acceptor votes, reads and donates nothing.
//! 4. It changes its epoch only to a decided successor that still names its own replica; otherwise it freezes.
//! 5. `donated` names every (slot, since) to which this memory was completely streamed, itself once complete.
//!
//! Relies on: the caller having compared (epoch, tag) by [`Acceptor::check`] before every vote.
//!
//! Source: in-place registers: CASPaxos (Rystsov 2018), RMWPaxos (Skrzypczak, Schintke, Schütt 2020);
//! `docs/protocol.md`, sections 2, 3, 6 and 7.

use crate::configuration::{Configuration, Member};
use ring::{Extent, Offset, ReplicaId, Slot, Space};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Ballot, Entry, Key, Record, Registers, Stamp};

const HOMES: usize = 7;

/// What an acceptor keeps for the keys of one home slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomeState {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The highest number n granted.
    pub high: u64,
    /// The highest stamp dropped.
    pub floor: Stamp,
}

impl HomeState {
    /// The highest of both, field by field; what a fill merges.
    pub fn merge(&mut self, other: &HomeState) {
        self.promised = self.promised.max(other.promised);
        self.high = self.high.max(other.high);
        self.floor = self.floor.max(other.floor);
    }
}

/// Why an acceptor does not vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not, or no longer, the acceptor there.
    NotOwner,
    /// It is, but its memory is not complete, or is being handed over.
    NotReady,
    /// The request's epoch is older; here is the present configuration.
    StaleEpoch(Arc<Configuration>),
    /// The request's epoch is newer: it must be installed here first.
    NewerEpoch,
    /// A higher ballot was promised.
    Promised(Ballot),
    /// The stamp is not newer than the key's, or not above the floor.
    Low,
}

/// A granted Reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What had been promised before.
    pub old: Ballot,
    /// The highest n granted.
    pub high: u64,
    /// The highest stamp dropped.
    pub floor: Stamp,
}

/// The memory of one slot over one extent.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// Which of the R.
    pub slot: Slot,
    /// For which offsets.
    pub extent: Extent,
    /// This lifetime's name.
    pub replica: ReplicaId,
    /// The newest configuration installed.
    pub configuration: Arc<Configuration>,
    /// Whether the memory is whole; before that it is being filled.
    pub is_complete: bool,
    /// Whether a later configuration names another replica: kept as a source, never votes again.
    pub is_frozen: bool,
    /// Whether it is being handed over and answers nothing.
    pub is_stopped: bool,
    /// (slot, since) of every member to which this memory was completely streamed.
    pub donated: BTreeSet<(Slot, u64)>,
    /// (slot, since) of members to which it will never donate.
    pub refused: BTreeSet<(Slot, u64)>,
    /// Frozen: the epoch in which the member came in to which this memory is being given.
    pub given_to: Option<u64>,
    /// Frozen: the configuration that named another replica here. Nobody else who is alive may know it.
    pub successor: Option<Arc<Configuration>>,
    /// Promise of the instance that decides the next configuration.
    pub change_promised: Ballot,
    /// Vote of that instance.
    pub change_accepted: Option<(Ballot, Vec<Member>)>,
    /// By home slot.
    pub homes: [HomeState; HOMES],
    /// The records.
    pub registers: Registers,
}

impl Acceptor {
    /// An empty acceptor. A ring's first ones are complete, replacements are not.
    pub fn new(slot: Slot, extent: Extent, configuration: Arc<Configuration>, is_complete: bool) -> Acceptor {
        let member = configuration.members[usize::from(slot)];
        let donated = if is_complete { BTreeSet::from([(slot, member.since)]) } else { BTreeSet::new() };
        Acceptor {
            slot,
            extent,
            replica: member.replica,
            configuration,
            is_complete,
            is_frozen: false,
            is_stopped: false,
            donated,
            refused: BTreeSet::new(),
            given_to: None,
            successor: None,
            change_promised: Ballot::ZERO,
            change_accepted: None,
            homes: [HomeState::default(); HOMES],
            registers: Registers::new(),
        }
    }

    /// The epoch in which this replica came in.
    pub fn since(&self) -> u64 {
        // A frozen acceptor's configuration still names it: it froze instead of installing the next.
        self.configuration.members[usize::from(self.slot)].since
    }

    /// Whether it may vote at all.
    pub fn is_active(&self) -> bool {
        self.is_complete && !self.is_frozen && !self.is_stopped
    }

    /// The four answers to a request's (epoch, tag) before anything else is looked at.
    pub fn check(&self, epoch: u64, tag: u64) -> Result<(), Refused> {
        self.check_present()?;
        let here = &self.configuration;
        if epoch < here.epoch {
            return Err(Refused::StaleEpoch(here.clone()));
        }
        if epoch > here.epoch {
            return Err(Refused::NewerEpoch);
        }
        // The same epoch with another tag is another lineage: it never counts together with this one.
        if tag != here.tag { Err(Refused::NotOwner) } else { Ok(()) }
    }

    /// Whether it is here and whole, whatever the epoch.
    pub fn check_present(&self) -> Result<(), Refused> {
        if self.is_frozen {
            return Err(Refused::NotOwner);
        }
        if self.is_stopped || !self.is_complete {
            return Err(Refused::NotReady);
        }
        Ok(())
    }

    /// Installs a decided configuration; freezes if it names another replica here.
    pub fn install(&mut self, next: &Arc<Configuration>) {
        if next.epoch <= self.configuration.epoch || self.is_frozen || self.is_stopped {
            return;
        }
        if next.members[usize::from(self.slot)].replica != self.replica {
            self.is_frozen = true;
            self.successor = Some(next.clone());
            return;
        }
        self.configuration = next.clone();
        self.change_promised = Ballot::ZERO;
        self.change_accepted = None;
    }

    /// Reign(b, h): granted above every promise.
    pub fn reign(&mut self, home: Slot, ballot: Ballot) -> Result<Granted, Refused> {
        let state = &mut self.homes[usize::from(home)];
        if ballot <= state.promised {
            return Err(Refused::Promised(state.promised));
        }
        let old = std::mem::replace(&mut state.promised, ballot);
        Ok(Granted { old, high: state.high, floor: state.floor })
    }

    /// Sync(b, key): granted like an Accept; the answer is the key's entry and the floor.
    pub fn sync(
        &mut self,
        home: Slot,
        ballot: Ballot,
        offset: Offset,
        key: &Key,
    ) -> Result<(Option<&Entry>, Stamp), Refused> {
        let state = &mut self.homes[usize::from(home)];
        if state.promised > ballot {
            return Err(Refused::Promised(state.promised));
        }
        state.promised = ballot;
        Ok((self.registers.get(offset, key), state.floor))
    }

    /// Accept(b, n, key, record). A repeated one is granted again.
    pub fn accept(
        &mut self,
        home: Slot,
        stamp: Stamp,
        offset: Offset,
        key: &Key,
        record: &Record,
        mark: u32,
    ) -> Result<(), Refused> {
        let state = &mut self.homes[usize::from(home)];
        if state.promised > stamp.ballot {
            return Err(Refused::Promised(state.promised));
        }
        match self.registers.get(offset, key) {
            Some(e) if e.stamp == stamp && e.settled => return Ok(()),
            Some(e) if e.stamp > stamp => return Err(Refused::Low),
            None if stamp <= state.floor => return Err(Refused::Low),
            Some(_) | None => {}
        }
        state.promised = stamp.ballot;
        state.high = state.high.max(stamp.n);
        self.registers.insert(
            offset,
            key.clone(),
            Entry { stamp, record: record.clone(), settled: true, mark },
        );
        Ok(())
    }

    /// Confirm(b): whether `ballot` is still the promise.
    pub fn confirm(&self, home: Slot, ballot: Ballot) -> Result<(), Refused> {
        let promised = self.homes[usize::from(home)].promised;
        if promised == ballot { Ok(()) } else { Err(Refused::Promised(promised)) }
    }

    /// Drop(key, stamp): forgets the entry if it still has that stamp, and raises the floor in the same step.
    pub fn drop_key(&mut self, home: Slot, stamp: Stamp, offset: Offset, key: &Key) -> bool {
        if !self.is_active() || self.registers.get(offset, key).is_none_or(|e| e.stamp != stamp) {
            return false;
        }
        self.registers.remove(offset, key);
        let state = &mut self.homes[usize::from(home)];
        state.floor = state.floor.max(stamp);
        true
    }

    /// ChangePrepare(b) of the instance for the next configuration: what was accepted, and donated.
    pub fn change_prepare(&mut self, ballot: Ballot) -> Result<Option<(Ballot, Vec<Member>)>, Refused> {
        if ballot <= self.change_promised {
            return Err(Refused::Promised(self.change_promised));
        }
        self.change_promised = ballot;
        Ok(self.change_accepted.clone())
    }

    /// ChangeAccept(b, members).
    pub fn change_accept(&mut self, ballot: Ballot, members: Vec<Member>) -> Result<(), Refused> {
        if ballot < self.change_promised {
            return Err(Refused::Promised(self.change_promised));
        }
        self.change_promised = ballot;
        self.change_accepted = Some((ballot, members));
        Ok(())
    }

    /// Cuts the acceptor: `self` keeps what is below `offset`, the rest is returned.
    pub fn split_off(&mut self, offset: Offset) -> Acceptor {
        assert!(self.extent.lo < offset && offset <= self.extent.hi, "the cut lies inside");
        let registers = self.registers.split_off(offset);
        let high = Acceptor {
            extent: Extent::new(offset, self.extent.hi),
            registers,
            configuration: self.configuration.clone(),
            donated: self.donated.clone(),
            refused: self.refused.clone(),
            successor: self.successor.clone(),
            change_accepted: self.change_accepted.clone(),
            ..*self
        };
        self.extent.hi = offset - 1;
        high
    }

    /// Whether `next` continues this acceptor with an equal state, so that both can be one again.
    pub fn can_join(&self, next: &Acceptor) -> bool {
        self.slot == next.slot
            && self.extent.is_followed_by(&next.extent)
            && self.replica == next.replica
            && self.configuration == next.configuration
            // What is being filled is filled in the pieces for which streams were begun.
            && self.is_complete
            && next.is_complete
            && self.is_frozen == next.is_frozen
            && self.is_stopped == next.is_stopped
            && self.donated == next.donated
            && self.refused == next.refused
            && self.given_to == next.given_to
            && self.change_accepted == next.change_accepted
            && self.homes.iter().zip(&next.homes).all(|(a, b)| a.promised == b.promised)
    }

    /// Joins `next`, for which [`Acceptor::can_join`] holds. Highs, floors and the promise of the next configuration may
    /// rise: that only makes it refuse more.
    pub fn join(&mut self, next: Acceptor) {
        assert!(self.can_join(&next), "only equal neighbours are joined");
        self.extent.hi = next.extent.hi;
        self.change_promised = self.change_promised.max(next.change_promised);
        for (a, b) in self.homes.iter_mut().zip(&next.homes) {
            a.merge(b);
        }
        self.registers.append(next.registers);
    }

    /// Fill (a): takes over complete streams of Q other members, all of one epoch.
    ///
    /// Promises, highs and floors become the highest of all; `donated` and `refused` of all are kept; a key
    /// gets its highest stamp and is settled only if every donor reported that stamp settled.
    pub fn fill(&mut self, donors: Vec<Acceptor>) {
        let count = donors.len();
        let mut reported: std::collections::BTreeMap<(Offset, Key), (Entry, usize)> = Default::default();
        for d in donors {
            for (a, b) in self.homes.iter_mut().zip(&d.homes) {
                a.merge(b);
            }
            self.donated.extend(d.donated.iter().copied());
            self.refused.extend(d.refused.iter().copied());
            for (o, k, e) in d.registers.iter() {
                let votes = usize::from(e.settled);
                match reported.get_mut(&(o, k.clone())) {
                    Some((best, n)) if best.stamp == e.stamp => *n += votes,
                    Some((best, n)) if best.stamp < e.stamp => (*best, *n) = (e.clone(), votes),
                    Some(_) => {}
                    None => {
                        reported.insert((o, k.clone()), (e.clone(), votes));
                    }
                }
            }
        }
        for ((o, k), (e, n)) in reported {
            // A donor that promised more meanwhile is no problem: being behind is always safe.
            self.registers.insert(o, k, Entry { settled: n == count, mark: 0, ..e });
        }
        self.donated.insert((self.slot, self.since()));
        self.is_complete = true;
    }

    /// Fill (b): takes over the exact memory of an earlier, frozen holder of the slot.
    pub fn fill_exactly(&mut self, earlier: Acceptor) {
        for (a, b) in self.homes.iter_mut().zip(&earlier.homes) {
            a.merge(b);
        }
        self.donated.extend(earlier.donated);
        self.refused.extend(earlier.refused);
        self.registers = earlier.registers;
        self.donated.insert((self.slot, self.since()));
        self.is_complete = true;
    }

    /// Fill (c): frozen memory goes on as the member that replaced it, under its configuration.
    ///
    /// It keeps the refusal too: a member that refused may itself be replaced and filled from this memory, and
    /// would else donate to the unfinished member after all.
    pub fn resume_as(&mut self, configuration: Arc<Configuration>) {
        self.replica = configuration.members[usize::from(self.slot)].replica;
        self.configuration = configuration;
        self.is_frozen = false;
        self.given_to = None;
        self.successor = None;
        self.change_promised = Ballot::ZERO;
        self.change_accepted = None;
        self.donated.insert((self.slot, self.since()));
        self.refused.insert((self.slot, self.since()));
    }

    /// Whether this memory was completely streamed to a member of `slot` that came in after `after` and not
    /// after `until`, those not counted that froze unfinished.
    pub fn has_donated_between(&self, slot: Slot, after: u64, until: u64, unfinished: &[u64]) -> bool {
        after < until
            && self
                .donated
                .range((slot, after.saturating_add(1))..=(slot, until))
                .any(|(_, since)| !unfinished.contains(since))
    }

    /// Promises never to donate to the member of `slot` that came in at `since`. Not given by one that has
    /// donated to it or to another that came in after `after`.
    pub fn refuse(&mut self, slot: Slot, after: u64, since: u64, unfinished: &[u64]) -> bool {
        let may = self.is_active() && !self.has_donated_between(slot, after, since, unfinished);
        if may {
            self.refused.insert((slot, since));
        }
        may
    }

    /// Checks that an acceptor from outside makes sense in `space`.
    pub fn is_valid_in(&self, space: &Space) -> bool {
        self.slot < space.replicas()
            && self.configuration.members.len() == usize::from(space.replicas())
            && space.whole().covers(&self.extent)
            && self.registers.iter().all(|(o, _, _)| self.extent.contains(o))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{NodeId, RingId};
    use store::Value;

    fn config(epoch: u64, counters: [u64; 3]) -> Arc<Configuration> {
        let members = counters
            .iter()
            .map(|c| Member { replica: ReplicaId { node: NodeId(1), counter: *c }, since: 1 })
            .collect();
        Arc::new(Configuration::new(RingId(9), epoch, members))
    }
    fn acceptor() -> Acceptor {
        Acceptor::new(0, Extent::new(0, 999), config(1, [1, 2, 3]), true)
    }
    fn b(counter: u64) -> Ballot {
        Ballot { counter, node: NodeId(5) }
    }
    fn stamp(counter: u64, n: u64) -> Stamp {
        Stamp { ballot: b(counter), n }
    }
    fn record(n: u64) -> Record {
        Record { version: n, value: Some(Value::string("v")), ops: None }
    }

    #[test]
    fn a_reign_is_granted_only_above_the_promise() {
        let mut a = acceptor();
        assert!(a.reign(0, b(2)).is_ok());
        assert_eq!(a.reign(0, b(2)), Err(Refused::Promised(b(2))));
        assert_eq!(a.reign(0, b(3)).map(|g| g.old), Ok(b(2)));
        assert!(a.reign(1, b(1)).is_ok(), "home slots are independent");
    }

    #[test]
    fn a_sync_raises_the_promise_so_that_an_older_accept_is_refused() {
        let mut a = acceptor();
        let k = Key::new(b"k");
        a.sync(0, b(5), 1, &k).expect("granted");
        assert_eq!(a.accept(0, stamp(4, 9), 1, &k, &record(9), 0), Err(Refused::Promised(b(5))));
    }

    #[test]
    fn a_repeated_accept_is_granted_and_an_older_one_is_not() {
        let mut a = acceptor();
        let k = Key::new(b"k");
        assert_eq!(a.accept(0, stamp(1, 2), 1, &k, &record(2), 0), Ok(()));
        assert_eq!(a.accept(0, stamp(1, 2), 1, &k, &record(2), 0), Ok(()));
        assert_eq!(a.accept(0, stamp(1, 1), 1, &k, &record(1), 0), Err(Refused::Low));
    }

    #[test]
    fn a_dropped_key_comes_back_only_above_the_floor() {
        let mut a = acceptor();
        let k = Key::new(b"k");
        a.accept(0, stamp(1, 5), 1, &k, &record(5), 0).expect("granted");
        assert!(!a.drop_key(0, stamp(1, 4), 1, &k), "another stamp drops nothing");
        assert!(a.drop_key(0, stamp(1, 5), 1, &k));
        assert_eq!(a.accept(0, stamp(1, 5), 1, &k, &record(5), 0), Err(Refused::Low));
        assert_eq!(a.accept(0, stamp(1, 6), 1, &k, &record(6), 0), Ok(()));
    }

    #[test]
    fn a_replaced_acceptor_freezes_and_says_that_it_is_no_owner() {
        let mut a = acceptor();
        a.install(&config(2, [1, 2, 9]));
        assert!(a.is_active() && a.configuration.epoch == 2);
        a.install(&config(3, [8, 2, 9]));
        assert_eq!(a.check(3, 0), Err(Refused::NotOwner));
        assert_eq!(a.configuration.epoch, 2, "it keeps the epoch in which it last voted");
    }

    #[test]
    fn requests_of_other_epochs_are_not_counted() {
        let a = acceptor();
        let tag = a.configuration.tag;
        assert_eq!(a.check(1, tag), Ok(()));
        assert_eq!(a.check(2, tag), Err(Refused::NewerEpoch));
        assert!(matches!(a.check(0, tag), Err(Refused::StaleEpoch(_))));
        assert_eq!(a.check(1, tag + 1), Err(Refused::NotOwner));
    }

    #[test]
    fn a_fill_takes_the_highest_and_settles_only_what_all_donors_settled() {
        let k = Key::new(b"k");
        let (mut x, mut y) = (acceptor(), acceptor());
        x.accept(0, stamp(1, 5), 1, &k, &record(5), 0).expect("granted");
        y.accept(0, stamp(1, 4), 1, &k, &record(4), 0).expect("granted");
        y.reign(0, b(7)).expect("granted");
        let mut z = Acceptor::new(2, Extent::new(0, 999), config(2, [1, 2, 9]), false);
        z.fill(vec![x, y]);
        let e = z.registers.get(1, &k).expect("filled");
        assert_eq!((e.stamp, e.settled), (stamp(1, 5), false));
        assert_eq!(z.homes[0].promised, b(7));
        assert!(z.is_active() && z.donated.contains(&(2, 1)));
    }

    #[test]
    fn split_and_join_give_back_the_same_acceptor() {
        let mut a = acceptor();
        for i in 0..50u64 {
            a.accept(0, stamp(1, i + 1), u128::from(i) * 20, &Key::new(&i.to_be_bytes()), &record(i), 0)
                .expect("granted");
        }
        let before = a.registers.digest(a.extent);
        let high = a.split_off(500);
        assert!(a.registers.len() == 25 && high.registers.len() == 25);
        a.join(high);
        assert_eq!((a.registers.digest(a.extent), a.extent), (before, Extent::new(0, 999)));
    }
}
