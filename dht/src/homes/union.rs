//! How neighbouring reigns of one node become one again.
//!
//! What was cut for a handover or a replacement is led in pieces, each under a ballot of its own, and acceptors join
//! neighbours only where they promised the same. Where nothing else keeps pieces apart, their home asks for one
//! reign over all of them.
//!
//! Keeps:
//! 1. Only reigns with nothing under way are given up for it, so no operation learns of it.
//!
//! Source: `docs/protocol.md`, sections 2 (intervals) and 3 (Reign).

use crate::api::Phase;
use crate::message::Era;
use crate::node::DhtNode;
use crate::reign::Reign;
use core::time::Duration;
use ring::{Extent, Offset, Slot};

/// How often reigns are looked at, on average.
const UNITE_INTERVAL: Duration = Duration::from_millis(1000);
/// Unions begun in one turn.
const UNIONS_PER_TURN: usize = 4;

impl DhtNode {
    /// Asks for one reign where this node has several for no reason; called now and then, in a ring at rest.
    pub(crate) fn unite_reigns(&mut self) {
        let now = self.ctx.now;
        if self.phase != Phase::Member
            || self.homes.next_union > now
            || self.handovers.running() > 0
            || self.replacements.running() > 0
        {
            return;
        }
        self.homes.next_union = now + self.ctx.jitter(UNITE_INTERVAL);
        for (home, anchor, union) in self.unions().into_iter().take(UNIONS_PER_TURN) {
            for at in self.homes.reigns.cut_out(union, |r| r.home == home) {
                self.lose_reign(at, None);
            }
            self.seek_reign(home, anchor, union);
        }
    }

    /// Runs of neighbouring reigns that could be one: (home slot, anchor, all of them together).
    fn unions(&self) -> Vec<(Slot, Slot, Extent)> {
        let mut out: Vec<(Slot, Slot, Extent)> = Vec::new();
        let mut last: Option<&Reign> = None;
        for r in self.homes.reigns.iter() {
            let joins = last.is_some_and(|l| self.could_be_one(l, r));
            match out.last_mut() {
                Some((_, _, union)) if joins && last.is_some_and(|l| union.hi == l.extent.hi) => {
                    union.hi = r.extent.hi;
                }
                _ if joins => {
                    let lo = last.map_or(r.extent.lo, |l| l.extent.lo);
                    out.push((r.home, r.anchor, Extent::new(lo, r.extent.hi)));
                }
                _ => {}
            }
            last = Some(r);
        }
        out.retain(|(_, anchor, union)| self.has_one_owner_each(*anchor, *union));
        out
    }

    fn could_be_one(&self, a: &Reign, b: &Reign) -> bool {
        let is_still = |r: &Reign| r.is_reigning() && !r.is_draining && r.is_quiet();
        a.home == b.home
            && a.anchor == b.anchor
            && a.extent.is_followed_by(&b.extent)
            && a.configuration == b.configuration
            && is_still(a)
            && is_still(b)
            && self.ctx.space.slots().all(|slot| self.is_owner_same(slot, a.extent.lo, b.extent.lo))
            && self
                .acceptors
                .covering(a.anchor, Extent::new(a.extent.lo, b.extent.hi), Some(Era::of(&a.configuration)))
                .is_ok()
    }

    fn is_owner_same(&self, slot: Slot, a: Offset, b: Offset) -> bool {
        match (self.acceptors.find(slot, a), self.acceptors.find(slot, b)) {
            (Some(_), Some(_)) => true,
            (None, None) => {
                self.ctx.live_owner(slot, a).is_some_and(|n| self.ctx.live_owner(slot, b) == Some(n))
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Whether a grant of every other slot would be one answer.
    fn has_one_owner_each(&self, anchor: Slot, union: Extent) -> bool {
        self.ctx.space.slots().filter(|s| *s != anchor).all(|slot| {
            let here: u128 = self.acceptors.parts(slot, union).map(|(e, _)| e.hi - e.lo + 1).sum();
            here == union.hi - union.lo + 1
                || here == 0 && self.ctx.locations.around(slot, union.lo, union) == union
        })
    }
}
