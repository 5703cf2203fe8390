//! What member tables say to each other, and the queue of news that rides on it.
//!
//! Keeps:
//! 1. A piece of news is sent a bounded number of times; what is lost then, the digests bring.
//! 2. News of coming and going is sent before news of load, and what was sent least is sent first.
//!
//! Source: Das, Gupta, Motivala 2002, SWIM, section 4.1 (dissemination by piggybacking).

use crate::ident::{NodeId, NodeRef};
use crate::members::info::{MemberInfo, MemberState};
use std::collections::{BTreeMap, BTreeSet};

/// A message between two member tables.
#[derive(Clone, Debug, PartialEq)]
pub enum Gossip {
    /// "Are you there?"
    Ping {
        /// Echoed.
        probe: u64,
        /// News.
        updates: Vec<MemberInfo>,
        /// The strength register.
        strength: (u64, u8),
    },
    /// "I am."
    Ack {
        /// From the ping.
        probe: u64,
        /// News.
        updates: Vec<MemberInfo>,
        /// The strength register.
        strength: (u64, u8),
    },
    /// "Ping that one for me."
    PingRequest {
        /// Echoed.
        probe: u64,
        /// Who does not answer the sender.
        target: NodeRef,
        /// News.
        updates: Vec<MemberInfo>,
    },
    /// "It answered me."
    IndirectAck {
        /// From the request.
        probe: u64,
        /// Who answered.
        target: NodeId,
    },
    /// All the sender knows, in short: send what is newer, ask for what is older.
    Digest {
        /// (node, incarnation, state), the sender among them.
        entries: Vec<(NodeId, u64, MemberState)>,
        /// The strength register.
        strength: (u64, u8),
    },
    /// Entries that the receiver does not have or has in an older form.
    Table {
        /// The entries.
        members: Vec<MemberInfo>,
        /// The strength register.
        strength: (u64, u8),
    },
}

/// The news that still has to be sent, by whom it is about.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    /// (whether it is about load only, how often it was sent, about whom).
    queue: BTreeSet<(bool, u32, NodeId)>,
    places: BTreeMap<NodeId, (bool, u32)>,
}

impl News {
    /// Queues what is new about `id`. News of coming and going keeps its rank when a load follows.
    pub(super) fn push(&mut self, id: NodeId, is_load: bool) {
        let was_load = self.remove(id).unwrap_or(true);
        let place = (is_load && was_load, 0);
        self.places.insert(id, place);
        self.queue.insert((place.0, place.1, id));
    }

    /// Takes back what is queued about `id`.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<bool> {
        let (is_load, sent) = self.places.remove(&id)?;
        self.queue.remove(&(is_load, sent, id));
        Some(is_load)
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whom the next message to `to` tells about: at most `count`, each `sends_max` times in all.
    pub(super) fn pick(&mut self, to: NodeId, count: usize, sends_max: u32) -> Vec<NodeId> {
        let picked: Vec<_> = self.queue.iter().filter(|(_, _, id)| *id != to).take(count).copied().collect();
        for (is_load, sent, id) in &picked {
            self.queue.remove(&(*is_load, *sent, *id));
            if sent + 1 < sends_max {
                self.queue.insert((*is_load, sent + 1, *id));
                self.places.insert(*id, (*is_load, sent + 1));
            } else {
                self.places.remove(id);
            }
        }
        picked.into_iter().map(|(_, _, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_sent_a_bounded_number_of_times_and_the_urgent_first() {
        let mut news = News::default();
        news.push(NodeId(1), true);
        news.push(NodeId(2), false);
        assert_eq!(news.pick(NodeId(9), 1, 2), [NodeId(2)]);
        assert_eq!(news.pick(NodeId(9), 2, 2), [NodeId(2), NodeId(1)]);
        assert_eq!(news.pick(NodeId(1), 2, 2), []);
        assert_eq!(news.pick(NodeId(9), 2, 2), [NodeId(1)]);
        assert!(news.is_empty());
    }
}
