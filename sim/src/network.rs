//! The network between nodes: how late, how often and whether a message arrives.
//!
//! Keeps:
//! 1. A message is delayed, lost, duplicated and reordered as the run's settings say, and some copies arrive
//!    very late; an attempt at a client's operation never arrives twice.
//! 2. What a cut blocks does not arrive, whether it was sent before or during the cut.
//! 3. A node reaches itself always and at once.

use crate::draw::Draw;
use core::time::Duration;
use dht::Message;
use ring::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// How the network of a run behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The mean delay of a message.
    pub delay: Duration,
    /// Lost messages of a thousand.
    pub loss_per_mille: u64,
    /// Duplicated messages of a thousand.
    pub duplicate_per_mille: u64,
    /// Messages of a thousand of which a copy arrives very late.
    pub replay_per_mille: u64,
    /// How late such a copy is at most.
    pub replay_delay_max: Duration,
    /// Whether messages of a pair of nodes keep their order, replays apart.
    pub is_ordered: bool,
    /// Hints of a lost connection, of a thousand messages to a dead process.
    pub hint_per_mille: u64,
}

impl Weather {
    /// A network without faults.
    pub fn calm(delay: Duration) -> Weather {
        Weather {
            delay,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            replay_per_mille: 0,
            replay_delay_max: Duration::ZERO,
            is_ordered: true,
            hint_per_mille: 1000,
        }
    }

    /// Whether messages are lost, doubled, very late or out of order.
    pub fn is_faulty(&self) -> bool {
        self.loss_per_mille + self.duplicate_per_mille + self.replay_per_mille > 0 || !self.is_ordered
    }
}

/// The faults of the network that took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Blocked by a cut.
    pub cut: u64,
    /// Copies delivered beside the original.
    pub duplicated: u64,
    /// Copies delivered very late.
    pub replayed: u64,
}

/// Names a cut or clog until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(pub u64);

/// The network.
#[derive(Debug)]
pub struct Network {
    weather: Weather,
    draw: Draw,
    cuts: BTreeMap<FaultId, BTreeSet<(SocketAddr, SocketAddr)>>,
    clogs: BTreeMap<FaultId, (BTreeSet<(SocketAddr, SocketAddr)>, Duration)>,
    newest: BTreeMap<(SocketAddr, SocketAddr), Time>,
    fault_next: u64,
    tally: Tally,
}

impl Network {
    /// A network with this weather.
    pub fn new(weather: Weather, draw: Draw) -> Network {
        Network {
            weather,
            draw,
            cuts: BTreeMap::new(),
            clogs: BTreeMap::new(),
            newest: BTreeMap::new(),
            fault_next: 0,
            tally: Tally::default(),
        }
    }

    /// The faults that took effect so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Changes the weather; cuts and clogs stay.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Ends every cut and clog, and all faults of the weather.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.clogs.clear();
        self.weather = Weather::calm(self.weather.delay);
    }

    /// Blocks these directed links until [`Network::end`].
    pub fn cut(&mut self, links: BTreeSet<(SocketAddr, SocketAddr)>) -> FaultId {
        let id = self.fault_id();
        self.cuts.insert(id, links);
        id
    }

    /// Adds `delay` to every message on these directed links until [`Network::end`].
    pub fn clog(&mut self, links: BTreeSet<(SocketAddr, SocketAddr)>, delay: Duration) -> FaultId {
        let id = self.fault_id();
        self.clogs.insert(id, (links, delay));
        id
    }

    /// Ends a cut or clog.
    pub fn end(&mut self, id: FaultId) {
        self.cuts.remove(&id);
        self.clogs.remove(&id);
    }

    /// Whether any cut or clog is in force.
    pub fn is_disturbed(&self) -> bool {
        !self.cuts.is_empty() || !self.clogs.is_empty()
    }

    /// When the copies of a message arrive; none if it is lost.
    pub fn arrivals(
        &mut self,
        now: Time,
        from: SocketAddr,
        to: SocketAddr,
        message: &Message,
        out: &mut Vec<Time>,
    ) {
        out.clear();
        self.tally.sent += 1;
        if from == to {
            out.push(now + Duration::from_micros(1));
            return;
        }
        let is_once = matches!(message, Message::Operation(_));
        let w = self.weather;
        if self.draw.chance(w.replay_per_mille) {
            // The late copy of what must arrive at most once takes the place of the first.
            out.push(now + w.replay_delay_max.min(self.draw.tailed(w.replay_delay_max / 4)));
            self.tally.replayed += 1;
            if is_once {
                return;
            }
        }
        if self.is_cut(from, to) {
            self.tally.cut += 1;
            return;
        }
        if self.draw.chance(w.loss_per_mille) {
            self.tally.lost += 1;
            return;
        }
        let clog = self.clogs.values().filter(|c| c.0.contains(&(from, to))).map(|c| c.1).max();
        let mut at = now + self.draw.tailed(w.delay) + clog.unwrap_or(Duration::ZERO);
        if w.is_ordered {
            let newest = self.newest.entry((from, to)).or_default();
            at = at.max(*newest);
            *newest = at;
        }
        out.push(at);
        if !is_once && self.draw.chance(w.duplicate_per_mille) {
            out.push(at + self.draw.tailed(w.delay * 2));
            self.tally.duplicated += 1;
        }
    }

    /// Whether a message that arrives now gets through.
    pub fn passes(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        let is_cut = self.is_cut(from, to);
        self.tally.cut += u64::from(is_cut);
        !is_cut
    }

    /// Whether and when the sender hears that nobody was there.
    pub fn hint(&mut self, now: Time) -> Option<Time> {
        let w = self.weather;
        self.draw.chance(w.hint_per_mille).then(|| now + self.draw.tailed(w.delay))
    }

    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.cuts.values().any(|c| c.contains(&(from, to)))
    }

    fn fault_id(&mut self) -> FaultId {
        self.fault_next += 1;
        FaultId(self.fault_next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    fn addr(i: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, i], 14195))
    }

    #[test]
    fn a_cut_is_directed_and_ends() {
        let mut n = Network::new(Weather::calm(Duration::from_millis(1)), Draw::new(1, Stream::Network));
        let m = Message::HandoverActivate { attempt: 1 };
        let mut out = Vec::new();
        let cut = n.cut(BTreeSet::from([(addr(1), addr(2))]));
        n.arrivals(Time(0), addr(1), addr(2), &m, &mut out);
        assert!(out.is_empty() && !n.passes(addr(1), addr(2)));
        n.arrivals(Time(0), addr(2), addr(1), &m, &mut out);
        assert_eq!(out.len(), 1);
        n.end(cut);
        n.arrivals(Time(0), addr(1), addr(2), &m, &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn an_attempt_never_arrives_twice() {
        let weather = Weather {
            duplicate_per_mille: 500,
            replay_per_mille: 500,
            replay_delay_max: Duration::from_secs(9),
            ..Weather::calm(Duration::from_millis(1))
        };
        let mut n = Network::new(weather, Draw::new(1, Stream::Network));
        let m = Message::Operation(dht::message::Attempt {
            session: store::SessionId(1),
            seq: 1,
            attempt: 1,
            is_first: true,
            addressed: None,
            known: 0,
            key: store::Key::new(b"k"),
            operation: dht::message::Operation::Get,
            trace: None,
        });
        let mut out = Vec::new();
        for _ in 0..500 {
            n.arrivals(Time(0), addr(1), addr(2), &m, &mut out);
            assert!(out.len() <= 1);
        }
    }
}
