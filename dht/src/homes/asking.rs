//! Whom to ask for the votes of an offset, and what a refused vote means.
//!
//! Keeps:
//! 1. What a refusal teaches (a ballot, a configuration, an owner) is learned here, for every kind of vote.
//!
//! Source: `docs/protocol.md`, section 2 (Requests).

use crate::message::{Answer, Attempt, Denied, Message, SlotSet};
use crate::node::DhtNode;
use crate::reign::{Origin, Phase};
use core::time::Duration;
use paxos::Configuration;
use ring::{Extent, NodeRef, Offset, Slot};
use std::sync::Arc;
use store::Ballot;

/// A vote that may be granted in a moment is asked for again after this.
pub(super) const SOON: Duration = Duration::from_millis(5);

/// The acceptors of an offset whose votes are missing: the slots here, and by node those elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Voters {
    pub(super) here: SlotSet,
    remote: [Option<(NodeRef, SlotSet)>; 7],
}

impl Voters {
    fn add(&mut self, owner: NodeRef, slot: Slot) {
        let same = self.remote.iter_mut().find(|x| x.is_none_or(|(o, _)| o.id == owner.id));
        if let Some(x) = same {
            x.get_or_insert((owner, SlotSet::default())).1.insert(slot);
        }
    }

    /// The other nodes, each with its slots.
    pub(super) fn remote(&self) -> impl Iterator<Item = (NodeRef, SlotSet)> {
        self.remote.into_iter().flatten()
    }
}

/// A vote that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) slot: Slot,
    /// The interval that the request was about.
    pub(super) extent: Extent,
    /// The offset whose owner was asked.
    pub(super) offset: Offset,
    /// Under which configuration, for an acceptor that does not know it yet.
    pub(super) configuration: Option<Arc<Configuration>>,
}

/// What is left to do for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Somebody has promised a higher ballot.
    Outbid(Ballot),
    /// The request's configuration is over, and what rested on it has ended.
    Over,
    /// Another node is the acceptor: ask it.
    Moved,
    /// Ask the same one again soon.
    Later,
    /// The stamp is too low for this acceptor.
    Low,
}

impl DhtNode {
    /// The acceptors of `offset` that are known, without those of the slots in `except`.
    pub(super) fn voters(&self, offset: Offset, except: SlotSet) -> Voters {
        let mut voters = Voters::default();
        for slot in self.ctx.space.slots().filter(|s| !except.contains(*s)) {
            if self.acceptors.find(slot, offset).is_some() {
                voters.here.insert(slot);
            } else if let Some(owner) = self.ctx.owner_or_guess(slot, offset)
                && owner.id != self.ctx.me.id
            {
                voters.add(owner, slot);
            }
        }
        voters
    }

    /// Whether a quorum of the acceptors of `offset` is here or not suspected.
    pub(super) fn is_quorum_heard(&self, offset: Offset) -> bool {
        let is_heard = |slot: &Slot| {
            self.acceptors.find(*slot, offset).is_some()
                || self.ctx.owner_or_guess(*slot, offset).is_some_and(|o| self.ctx.is_live(o.id))
        };
        self.ctx.space.slots().filter(is_heard).count() >= self.ctx.space.quorum()
    }

    /// Answers what waits and was not sent in an Accept as not executed, where no quorum is heard any more.
    pub(crate) fn refuse_unheard(&mut self) {
        for rat in self.homes.reigns.keys() {
            let Some(lo) = self.homes.reigns.get(rat).map(|r| r.extent.lo) else { continue };
            if self.is_quorum_heard(lo) {
                continue;
            }
            let Some(r) = self.homes.reigns.get_mut(rat) else { continue };
            let mut waiting: Vec<(NodeRef, Attempt)> = Vec::new();
            if let Phase::Seeking { waiting: w, .. } = &mut r.phase {
                waiting.extend(w.drain(..));
            }
            for k in r.keys.values_mut() {
                waiting.extend(k.queue.drain(..));
            }
            for (from, a) in waiting {
                self.answer_for(rat, Origin::of(from, &a), Answer::NotHome { hint: None });
            }
        }
    }

    /// Learns what a refusal teaches, and says what is left to do.
    pub(super) fn on_refused(&mut self, from: NodeRef, asked: Asked, denied: Denied) -> Refusal {
        match denied {
            Denied::Promised(b) => {
                self.ctx.meet_ballot(b);
                Refusal::Outbid(b)
            }
            Denied::StaleEpoch { extent, configuration } => {
                self.learn_configuration(extent, &configuration);
                Refusal::Over
            }
            Denied::NewerEpoch => {
                if let Some(configuration) = asked.configuration {
                    self.ctx.send(from, Message::Install { extent: asked.extent, configuration });
                }
                Refusal::Later
            }
            Denied::NotOwner { hint, extent } => {
                self.ctx.learn_not_owner(asked.slot, asked.offset, extent, from.id, hint);
                Refusal::Moved
            }
            Denied::NotReady | Denied::StillHeard => Refusal::Later,
            Denied::Low => Refusal::Low,
        }
    }
}
