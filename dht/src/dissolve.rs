//! Dissolving a ring: the operator's answer to two rings that both have data.
//!
//! Such rings never become one by themselves, since nobody but an operator can say whose data shall live. At the command,
//! given at a member of the ring whose data shall not, every member ends its life in it, and its process begins the node
//! anew: empty, with another node id, and with the other ring as known host.
//!
//! Keeps:
//! 1. A node that was told has ended: it votes, acknowledges and answers nothing of its ring any more.
//! 2. Whoever is told tells everybody it knows before it ends.
//! 3. Nothing is taken along. For the other ring this is a process that starts, for what is left of the ring a crash.
//! 4. Only while another ring with data is heard: a ring is not given up for one that is not there.
//!
//! Source: `docs/protocol.md`, section 9.

use crate::api::{DissolveReport, Event, Phase, Reply, RequestId};
use crate::message::Message;
use crate::node::DhtNode;
use core::time::Duration;
use ring::{NodeRef, RingId, Time};
use std::net::SocketAddr;

/// A ring that was not heard for this long may be gone: rings that know of each other knock several times a second.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Another ring with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRing {
    /// Which.
    pub(crate) ring: RingId,
    /// The member that was heard last.
    pub(crate) by: NodeRef,
    /// When.
    pub(crate) heard: Time,
}

impl DhtNode {
    /// The other ring with data, if it was heard lately.
    pub(crate) fn foreign_ring(&self) -> Option<ForeignRing> {
        let fresh = |f: &ForeignRing| self.ctx.now.since(f.heard) <= HEARD_WITHIN;
        self.joining.foreign_ring.filter(fresh).filter(|f| Some(f.ring) != self.ctx.ring)
    }

    /// The command. A dry one only tells what would be given up.
    pub(crate) fn begin_dissolve(&mut self, id: RequestId, is_dry: bool) {
        let replicas = u64::from(self.ctx.space.replicas());
        let held: u64 = self.member_views().iter().map(|m| m.info.keys).sum();
        let other = self.foreign_ring();
        let report = DissolveReport {
            ring: self.ctx.ring.filter(|_| self.phase == Phase::Member),
            members: self.everybody().len(),
            keys: held.div_ceil(replicas),
            other: other.map(|f| (f.ring, f.by.addr)),
        };
        if let (Some(ring), Some(other), false) = (report.ring, other, is_dry) {
            self.give_up_ring(ring, other.ring, other.by.addr);
        }
        self.ctx.reply(id, Reply::Dissolved(Box::new(report)));
    }

    /// A member was told to give the ring up.
    pub(crate) fn on_dissolve(&mut self, ring: RingId, other: RingId, at: SocketAddr) {
        if self.ctx.ring == Some(ring) && ring != other {
            self.give_up_ring(ring, other, at);
        }
    }

    fn give_up_ring(&mut self, ring: RingId, other: RingId, at: SocketAddr) {
        let me = self.ctx.me;
        for to in self.everybody().into_iter().filter(|n| n.id != me.id) {
            self.ctx.send(to, Message::Dissolve { ring, other, at });
        }
        self.phase = Phase::Left;
        self.answer_open_requests(false);
        self.ctx.announce(Event::RingGivenUp { ring, other, at });
    }
}
