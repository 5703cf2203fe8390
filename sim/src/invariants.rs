//! The invariants that are looked at while a run goes, one function each, by their names in
//! `docs/protocol.md`.
//!
//! Keeps:
//! 1. A node is looked at after everything it handled; only what changed is compared with the others.
//! 2. Only nodes that announced their ring count: a creator on probation has a ring that may never be.
//!
//! Source: one file of invariants, each named by its source, as in openraft; `docs/protocol.md`, last section.

use crate::memories::Memories;
use crate::reigns::Reigns;
use core::fmt;
use paxos::acceptor::{Acceptor, HomeState};
use paxos::configuration::Configuration;
use ring::{Extent, NodeId, ReplicaId, RingId, Slot, Space};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Ballot, Key, Record, Stamp};

/// What was found broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}

/// A violation as an error.
pub fn broken<T>(invariant: &'static str, text: String) -> Result<T, Violation> {
    Err(Violation { invariant, text })
}

/// An acceptor without its registers.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Which of the R.
    pub slot: Slot,
    /// For which offsets.
    pub extent: Extent,
    /// The memory's name.
    pub replica: ReplicaId,
    /// The configuration it installed.
    pub configuration: Arc<Configuration>,
    /// Whether it may vote.
    pub is_active: bool,
    /// By home slot.
    pub homes: Vec<HomeState>,
}

impl Piece {
    /// The piece of an acceptor.
    pub fn of(a: &Acceptor) -> Piece {
        Piece {
            slot: a.slot,
            extent: a.extent,
            replica: a.replica,
            configuration: a.configuration.clone(),
            is_active: a.is_active(),
            homes: a.homes.to_vec(),
        }
    }

    fn is_same_memory(&self, other: &Piece) -> bool {
        self.slot == other.slot
            && self.replica == other.replica
            && self.extent.intersect(&other.extent).is_some()
    }

    fn has_shape_of(&self, other: &Piece) -> bool {
        self.slot == other.slot
            && self.extent == other.extent
            && self.replica == other.replica
            && self.is_active == other.is_active
            && self.configuration.epoch == other.configuration.epoch
            && self.configuration.tag == other.configuration.tag
    }

    fn is_shape_of(&self, a: &Acceptor) -> bool {
        self.slot == a.slot
            && self.extent == a.extent
            && self.replica == a.replica
            && self.is_active == a.is_active()
            && (Arc::ptr_eq(&self.configuration, &a.configuration)
                || self.configuration.epoch == a.configuration.epoch
                    && self.configuration.tag == a.configuration.tag)
    }
}

/// What is remembered of all nodes to compare with.
#[derive(Debug)]
pub struct Watch {
    space: Space,
    nodes: BTreeMap<NodeId, (Option<RingId>, Vec<Piece>)>,
    eras: BTreeMap<(RingId, u64), Vec<(Extent, u64)>>,
    memories: Memories,
    retired: BTreeMap<ReplicaId, Vec<Piece>>,
    reigns: Reigns,
}

impl Watch {
    /// Nothing seen yet.
    pub fn new(space: Space) -> Watch {
        Watch {
            space,
            nodes: BTreeMap::new(),
            eras: BTreeMap::new(),
            memories: Memories::default(),
            retired: BTreeMap::new(),
            reigns: Reigns::default(),
        }
    }

    /// The pieces of all processes, with their ring.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Option<RingId>, &[Piece])> + Clone {
        self.nodes.iter().map(|(n, (r, p))| (*n, *r, p.as_slice()))
    }

    /// A process is gone, with its memory.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Looks at a node after it handled something.
    pub fn look<'a>(
        &mut self,
        node: NodeId,
        ring: Option<RingId>,
        acceptors: impl Iterator<Item = &'a Acceptor> + Clone,
    ) -> Result<(), Violation> {
        if let Some((known, pieces)) = self.nodes.get_mut(&node)
            && *known == ring
            && have_same_shapes(pieces, acceptors.clone())
        {
            return promises_grow_in_place(node, usize::from(self.space.replicas()), pieces, acceptors);
        }
        let now: Vec<Piece> = acceptors.map(Piece::of).collect();
        let (ring_before, before) = self.nodes.remove(&node).unwrap_or_default();
        promises_never_go_back(node, &before, &now)?;
        self.memory_moves_whole(node, &before, &now)?;
        let is_new = |p: &Piece| ring_before != ring || !before.iter().any(|b| b.has_shape_of(p));
        let gone: Vec<Extent> =
            before.iter().filter(|b| !now.iter().any(|p| b.has_shape_of(p))).map(|b| b.extent).collect();
        let is_touched = |p: &Piece| is_new(p) || gone.iter().any(|e| e.intersect(&p.extent).is_some());
        let touched: Vec<bool> = now.iter().map(|p| p.is_active && is_touched(p)).collect();
        for p in &now {
            self.i3_a_replica_is_live_at_one_node(node, p)?;
            if let Some(ring) = ring {
                self.i3_an_epoch_has_one_configuration(ring, &p.extent, &p.configuration)?;
            }
        }
        self.nodes.insert(node, (ring, now));
        self.reigns_hold(node, &touched)
    }

    /// Q members granted a reign.
    pub fn reign_began(&mut self, ring: RingId, home: Slot, extent: Extent, ballot: Ballot) {
        self.reigns.began(ring, home, extent, ballot);
    }

    /// No quorum promises less than a reign that began, where a node's memory changed.
    fn reigns_hold(&self, node: NodeId, touched: &[bool]) -> Result<(), Violation> {
        let Some((Some(ring), pieces)) = self.nodes.get(&node) else { return Ok(()) };
        let of_ring = self.nodes().filter(|(_, r, _)| *r == Some(*ring)).map(|(n, _, p)| (n, p));
        for (p, _) in pieces.iter().zip(touched).filter(|(_, is_touched)| **is_touched) {
            self.reigns.hold(&self.space, *ring, p, of_ring.clone())?;
        }
        Ok(())
    }

    /// I1: one record per key and stamp, in every Accept that is sent.
    pub fn i1_one_record_per_accept(
        &mut self,
        key: &Key,
        stamp: Stamp,
        record: &Record,
    ) -> Result<(), Violation> {
        self.memories.i1_one_record_per_accept(key, stamp, record)
    }

    /// Looks at every register of a node: I1, and that no stamp goes back in one memory.
    pub fn look_at_registers<'a>(
        &mut self,
        acceptors: impl Iterator<Item = &'a Acceptor>,
    ) -> Result<(), Violation> {
        self.memories.look(&self.space, acceptors)
    }

    /// I3: a replica id is complete and active at one live node.
    fn i3_a_replica_is_live_at_one_node(&self, node: NodeId, p: &Piece) -> Result<(), Violation> {
        if !p.is_active {
            return Ok(());
        }
        for (other, (_, pieces)) in &self.nodes {
            if let Some(q) = pieces.iter().find(|q| q.is_active && q.is_same_memory(p)) {
                return broken(
                    "I3",
                    format!(
                        "replica {} of slot {} is live at {node} for {:?} and at {other} for {:?}",
                        p.replica, p.slot, p.extent, q.extent
                    ),
                );
            }
        }
        Ok(())
    }

    /// I3: per offset an epoch has one configuration, so every epoch has one decided successor.
    pub fn i3_an_epoch_has_one_configuration(
        &mut self,
        ring: RingId,
        extent: &Extent,
        configuration: &Configuration,
    ) -> Result<(), Violation> {
        let known = self.eras.entry((ring, configuration.epoch)).or_default();
        let mut is_covered = false;
        for (e, tag) in known.iter() {
            if *tag != configuration.tag
                && let Some(both) = e.intersect(extent)
            {
                return broken(
                    "I3",
                    format!(
                        "epoch {} of {both:?} has two configurations, one is {configuration:?}",
                        configuration.epoch
                    ),
                );
            }
            is_covered |= *tag == configuration.tag && e.covers(extent);
        }
        if !is_covered {
            known.retain(|(e, tag)| *tag != configuration.tag || !extent.covers(e));
            known.push((*extent, configuration.tag));
        }
        Ok(())
    }

    /// What a memory promised where it was live before holds where it is live now.
    fn memory_moves_whole(&mut self, node: NodeId, before: &[Piece], now: &[Piece]) -> Result<(), Violation> {
        for old in before.iter().filter(|p| p.is_active) {
            if now.iter().any(|n| n.is_active && n.is_same_memory(old) && n.extent.covers(&old.extent)) {
                continue;
            }
            let list = self.retired.entry(old.replica).or_default();
            list.retain(|r| r.slot != old.slot || !old.extent.covers(&r.extent));
            list.push(old.clone());
        }
        for new in now.iter().filter(|p| p.is_active) {
            if before.iter().any(|o| o.is_active && o.is_same_memory(new) && o.extent.covers(&new.extent)) {
                continue;
            }
            for old in self.retired.get(&new.replica).into_iter().flatten().filter(|o| o.is_same_memory(new))
            {
                keeps_promises(node, old, new)?;
            }
        }
        Ok(())
    }
}

/// Whether nothing was cut, joined, moved, or put under another configuration.
fn have_same_shapes<'a>(pieces: &[Piece], mut acceptors: impl Iterator<Item = &'a Acceptor>) -> bool {
    pieces.iter().all(|p| acceptors.next().is_some_and(|a| p.is_shape_of(a))) && acceptors.next().is_none()
}

/// Promises, highs and floors of pieces that are where they were only grow.
fn promises_grow_in_place<'a>(
    node: NodeId,
    homes: usize,
    pieces: &mut [Piece],
    acceptors: impl Iterator<Item = &'a Acceptor>,
) -> Result<(), Violation> {
    for (p, a) in pieces.iter_mut().zip(acceptors) {
        if p.homes.iter().take(homes).ne(a.homes.iter().take(homes)) {
            let now = Piece::of(a);
            if p.is_active {
                keeps_promises(node, p, &now)?;
            }
            *p = now;
        }
    }
    Ok(())
}

/// Promises, highs, floors and the epoch of one memory only grow.
fn promises_never_go_back(node: NodeId, before: &[Piece], now: &[Piece]) -> Result<(), Violation> {
    for (i, new) in now.iter().enumerate().filter(|(_, p)| p.is_active) {
        // Mostly nothing was cut or joined, and the piece is where it was.
        if let Some(old) = before.get(i)
            && old.extent == new.extent
            && old.is_same_memory(new)
        {
            if old.is_active {
                keeps_promises(node, old, new)?;
            }
            continue;
        }
        for old in before.iter().filter(|p| p.is_active && p.is_same_memory(new)) {
            keeps_promises(node, old, new)?;
        }
    }
    Ok(())
}

fn keeps_promises(node: NodeId, old: &Piece, new: &Piece) -> Result<(), Violation> {
    let is_kept = new.configuration.epoch >= old.configuration.epoch
        && old
            .homes
            .iter()
            .zip(&new.homes)
            .all(|(a, b)| b.promised >= a.promised && b.high >= a.high && b.floor >= a.floor);
    if is_kept {
        return Ok(());
    }
    broken(
        "promises",
        format!(
            "replica {} of slot {} at {node} went back\n  from {:?} epoch {} {:?}\n  to   {:?} epoch {} {:?}",
            new.replica,
            new.slot,
            old.extent,
            old.configuration.epoch,
            old.homes,
            new.extent,
            new.configuration.epoch,
            new.homes
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos::configuration::Member;

    fn configuration(epoch: u64, nodes: [u64; 3]) -> Arc<Configuration> {
        let members = nodes
            .iter()
            .map(|n| Member { replica: ReplicaId { node: NodeId(*n), counter: 1 }, since: 1 })
            .collect();
        Arc::new(Configuration::new(RingId(1), epoch, members))
    }
    fn acceptor(lo: u128, hi: u128) -> Acceptor {
        Acceptor::new(0, Extent::new(lo, hi), configuration(1, [1, 2, 3]), true)
    }
    fn watch() -> Watch {
        Watch::new(Space::new(3).expect("valid"))
    }

    #[test]
    fn a_replica_live_at_two_nodes_is_seen_only_where_offsets_meet() {
        let mut w = watch();
        let ring = Some(RingId(1));
        w.look(NodeId(1), ring, [acceptor(0, 9)].iter()).expect("alone");
        w.look(NodeId(2), ring, [acceptor(10, 20)].iter()).expect("apart");
        let e = w.look(NodeId(3), ring, [acceptor(5, 7)].iter()).expect_err("twice");
        assert_eq!(e.invariant, "I3");
    }

    #[test]
    fn two_successors_of_an_epoch_are_seen() {
        let mut w = watch();
        let ext = Extent::new(0, 9);
        w.i3_an_epoch_has_one_configuration(RingId(1), &ext, &configuration(2, [1, 2, 4])).expect("first");
        w.i3_an_epoch_has_one_configuration(RingId(1), &ext, &configuration(2, [1, 2, 4])).expect("same");
        assert!(w.i3_an_epoch_has_one_configuration(RingId(1), &ext, &configuration(2, [1, 5, 3])).is_err());
    }

    #[test]
    fn a_promise_that_goes_back_is_seen_even_after_a_move() {
        let mut w = watch();
        let ring = Some(RingId(1));
        let mut a = acceptor(0, 9);
        a.reign(0, Ballot { counter: 5, node: NodeId(1) }).expect("granted");
        w.look(NodeId(1), ring, [a.clone()].iter()).expect("fine");
        assert!(w.look(NodeId(1), ring, [acceptor(0, 9)].iter()).is_err());
        let mut w = watch();
        w.look(NodeId(1), ring, [a].iter()).expect("fine");
        w.look(NodeId(1), ring, [].iter()).expect("given away");
        assert!(w.look(NodeId(2), ring, [acceptor(0, 9)].iter()).is_err(), "the promise was lost on the way");
    }
}
