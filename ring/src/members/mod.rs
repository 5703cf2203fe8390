//! The member table: who is in the ring, what each says of itself, and who still answers.
//!
//! One machine without IO per node. It pings, asks others to ping, suspects and gives up; it spreads news on
//! these messages and compares whole tables now and then. What it says is a hint whom to ask and whom to
//! replace: a wrong entry costs a hop or a handover, never a wrong answer.
//!
//! Keeps:
//! 1. Tables merge by union; of two entries of a node the one with the higher (incarnation, state) stays, so
//!    that all tables that hear of each other become equal.
//! 2. Only the node itself raises its incarnation; one that is called dead, or left while it has not, does so.
//! 3. Suspicion is a node's own and not spread. Death is spread, and not believed by one who just heard the node.
//! 4. The cost per node and second does not grow with the ring but for the digests.
//! 5. The same inputs and seed give the same outputs.
//!
//! Relies on: inputs in the order of their times; at most a few messages lost in a row between live nodes.
//!
//! Source: Das, Gupta, Motivala 2002, SWIM; Dadgar, Phillips, Currey 2018, Lifeguard; `docs/protocol.md`,
//! section 9. Differs from Scalaris: one detector with indirect probes in place of one heartbeat process per
//! watched node.

mod detector;
mod exchange;
mod gossip;
pub mod info;
mod probing;
mod table;
#[cfg(test)]
mod tests;

pub use detector::DetectorConfig;
pub use gossip::Gossip;
pub use info::{MemberInfo, MemberState};
pub use table::Member;

use crate::ident::{NodeId, NodeRef};
use crate::time::Time;
use exchange::Relay;
use gossip::News;
use probing::Schedule;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use table::{Applied, Table};

/// What changed about a member, for the node around the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// An unknown node is in the ring.
    Up(NodeId),
    /// A member says something new of itself.
    Updated(NodeId),
    /// A member is silent; only this node thinks so.
    Suspected(NodeId),
    /// A suspected member was heard, or one that was dead or had left is back.
    Refuted(NodeId),
    /// A member counts as dead.
    Dead(NodeId),
    /// A member left after handing over.
    Left(NodeId),
}

/// What the member table wants done or known outside.
#[derive(Clone, Debug, PartialEq)]
pub enum MembersOutput {
    /// Send a message.
    Send(NodeRef, Gossip),
    /// Something changed.
    Event(MemberEvent),
}

/// The member table of one node, with its failure detector.
#[derive(Clone, Debug)]
pub struct Members {
    config: DetectorConfig,
    me: MemberInfo,
    table: Table,
    news: News,
    strength: (u64, u8),
    /// The last probe's number.
    probe: u64,
    /// Probes sent for others, by our number.
    relays: BTreeMap<u64, Relay>,
    /// Those with an open pursuit, and perhaps some without.
    pursued: BTreeSet<NodeId>,
    /// When a digest was last sent to one who is not in the table.
    stranger_digested: Option<Time>,
    schedule: Schedule,
    rng: ChaCha8Rng,
    outputs: VecDeque<MembersOutput>,
}

impl Members {
    /// A table that knows only `me`. `seed` is all the randomness it will ever use.
    pub fn new(config: DetectorConfig, mut me: MemberInfo, seed: u64, now: Time) -> Members {
        me.owned.truncate(table::OWNED_MAX);
        Members {
            config,
            me,
            table: Table::new(now),
            news: News::default(),
            strength: (0, 0),
            probe: 0,
            relays: BTreeMap::new(),
            pursued: BTreeSet::new(),
            stranger_digested: None,
            schedule: Schedule::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            outputs: VecDeque::new(),
        }
    }

    /// This node's own entry.
    pub fn me(&self) -> &MemberInfo {
        &self.me
    }

    /// Changes this node's own entry. If `f` changed something, the incarnation grows and the entry is spread;
    /// an incarnation set by `f` is kept if it is higher still. A node that sets Left tells it at once and then
    /// falls silent. Panics if `f` changes the node's id, which is a programmer's error.
    pub fn update_me(&mut self, now: Time, f: impl FnOnce(&mut MemberInfo)) {
        let before = self.me.clone();
        f(&mut self.me);
        self.me.owned.truncate(table::OWNED_MAX);
        assert!(self.me.node.id == before.node.id, "a node keeps its id for life");
        if self.me == before {
            return;
        }
        self.me.incarnation = self.me.incarnation.max(before.incarnation.saturating_add(1));
        let is_load = self.me.state == before.state && self.me.end == before.end;
        if !is_load {
            self.table.changed_at = now;
            self.schedule.is_stale = true;
        }
        self.news.push(self.me.node.id, is_load);
        if self.me.state == MemberState::Left && before.state != MemberState::Left {
            self.say_goodbye(now);
        } else if !self.table.others.is_empty() {
            self.start(now);
        }
    }

    /// Takes in a whole table, as from the answer to a join, and makes this node known to its members.
    pub fn merge(&mut self, now: Time, members: Vec<MemberInfo>) {
        self.news.push(self.me.node.id, false);
        for info in members {
            self.apply(now, None, info);
        }
    }

    /// Notes a sign of life: any message of that node. Cheap.
    pub fn heard(&mut self, now: Time, from: NodeId) {
        let Some(m) = self.table.others.get_mut(&from) else { return };
        m.heard = m.heard.max(now);
        m.has_spoken = true;
        m.patience = 0;
        if m.pursuit.take().is_some() && core::mem::take(&mut m.is_suspected) {
            self.event(MemberEvent::Refuted(from));
        } else if m.info.state == MemberState::Dead {
            self.knock(now, from);
        }
    }

    /// What to do next outside. Ask until there is none after every input.
    pub fn poll_output(&mut self) -> Option<MembersOutput> {
        self.outputs.pop_front()
    }

    /// All other nodes known, dead and left ones too, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.table.others.values()
    }

    /// Another node's entry.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.table.others.get(&id)
    }

    /// Whether it is this node, or a member that is not suspected.
    pub fn is_live(&self, id: NodeId) -> bool {
        id == self.me.node.id || self.get(id).is_some_and(|m| m.is_in_ring() && !m.is_suspected)
    }

    /// Whether it is a member that is suspected, or dead.
    pub fn is_suspected_or_dead(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|m| m.is_suspected || m.info.state == MemberState::Dead)
    }

    /// This node and every member, suspected ones too: they count until they are dead.
    pub fn live_infos(&self) -> impl Iterator<Item = &MemberInfo> {
        core::iter::once(&self.me).chain(self.iter().filter(|m| m.is_in_ring()).map(|m| &m.info))
    }

    /// The dead that are not forgotten.
    pub fn lost(&self) -> impl Iterator<Item = &MemberInfo> {
        self.iter().filter(|m| m.info.state == MemberState::Dead).map(|m| &m.info)
    }

    /// When the set of members, a state or an end last changed.
    pub fn changed_at(&self) -> Time {
        self.table.changed_at
    }

    /// The strength register: gossiped, the higher one wins.
    pub fn strength(&self) -> (u64, u8) {
        self.strength
    }

    /// Takes in another's strength register.
    pub fn merge_strength(&mut self, strength: (u64, u8)) {
        self.strength = self.strength.max(strength);
    }

    /// Sets the strength register, whatever it was.
    pub fn set_strength(&mut self, strength: (u64, u8)) {
        self.strength = strength;
    }

    fn event(&mut self, event: MemberEvent) {
        self.outputs.push_back(MembersOutput::Event(event));
    }

    fn send(&mut self, to: NodeRef, gossip: Gossip) {
        self.outputs.push_back(MembersOutput::Send(to, gossip));
    }

    /// Takes in what somebody said of a node, and draws the consequences.
    fn apply(&mut self, now: Time, teller: Option<NodeRef>, info: MemberInfo) {
        let id = info.node.id;
        if id == self.me.node.id {
            return self.refute(now, info.incarnation, info.state);
        }
        let incarnation = info.incarnation;
        let applied = self.table.apply(&self.config, now, info);
        match applied {
            Applied::Ignored => return,
            Applied::Contradicted => return self.knock(now, id),
            Applied::Disputed => return self.dispute(now, teller, id, incarnation),
            Applied::Came => self.event(MemberEvent::Up(id)),
            Applied::Updated { .. } => self.event(MemberEvent::Updated(id)),
            Applied::Returned => {
                if let Some(m) = self.table.others.get_mut(&id) {
                    m.voucher = teller.map(|t| t.id).filter(|t| *t != id);
                }
                self.event(MemberEvent::Refuted(id));
            }
            Applied::Died => self.event(MemberEvent::Dead(id)),
            Applied::Left => self.event(MemberEvent::Left(id)),
            Applied::CameGone | Applied::StillGone => {}
        }
        let is_load = applied == Applied::Updated { is_load: true };
        self.schedule.is_stale |= !is_load;
        self.news.push(id, is_load);
        self.start(now);
    }

    /// Somebody says of this node what it does not say of itself.
    fn refute(&mut self, now: Time, incarnation: u64, state: MemberState) {
        if (incarnation, state) <= (self.me.incarnation, self.me.state) {
            return;
        }
        self.me.incarnation = incarnation.saturating_add(1);
        self.table.changed_at = now;
        self.news.push(self.me.node.id, false);
    }
}
