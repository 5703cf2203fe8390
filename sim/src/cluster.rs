//! The cluster: processes at addresses, one queue of events, one network.
//!
//! Keeps:
//! 1. Events happen in the order of (time, number); nothing else decides an order.
//! 2. After everything that a node handled its effects are drained and its invariants looked at.
//! 3. A message to another process than the one that lives at the address vanishes, and so does one between
//!    members of different rings.
//! 4. Every request is answered once, or its process died.

mod mishaps;
mod residue;

pub use residue::Residue;

use crate::coverage::{Coverage, variant};
use crate::draw::{Draw, Stream};
use crate::invariants::{Violation, Watch, broken};
use crate::machine::Machine;
use crate::names;
use crate::network::Network;
use crate::process::{Clock, Input, Process};
use crate::queue::Queue;
use crate::settings::Settings;
use crate::strength::Strength;
use crate::transcript::Transcript;
use core::time::Duration;
use dht::plant::Plant;
use dht::{Effect, Event, Message, Reply, Request, RequestId};
use ring::{NodeId, NodeRef, RingId, Space, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// What the driver of the run asked to be reminded of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A client's next operation.
    Client(usize),
    /// The next fault.
    Nemesis,
    /// The end of fault number n.
    FaultEnds(u64),
    /// A node could not leave: it is asked again.
    LeaveAgain(NodeId),
    /// Look how things are.
    Look,
}

/// What a slow process has waiting; more does not arrive, as from a connection that nobody reads.
const WAITING_MAX: usize = 2000;

const LEAVE_AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Queued {
    Input {
        to: NodeRef,
        input: Input,
    },
    /// A slow process handles the next of what waits.
    Turn(NodeId),
    Note(Note),
}

/// A reply to a request, or the news that its process is gone.
#[derive(Debug)]
pub struct Completion {
    /// The request.
    pub id: RequestId,
    /// The reply; none if the process died.
    pub reply: Option<Reply>,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster<M> {
    settings: Settings,
    space: Space,
    now: Time,
    order: u64,
    queue: Queue<Queued>,
    processes: BTreeMap<NodeId, Process<M>>,
    at_address: BTreeMap<SocketAddr, NodeId>,
    network: Network,
    watch: Watch,
    coverage: Coverage,
    transcript: Transcript,
    draw: Draw,
    requests: BTreeMap<RequestId, (NodeId, Time)>,
    completions: VecDeque<Completion>,
    request_next: u64,
    lived: Duration,
    arrivals: Vec<Time>,
    /// A process, and after how many more messages and replies it crashes.
    fuse: Option<(NodeId, u64)>,
    /// Processes whose ring was given up, and a member of the ring that they join.
    given_up: Vec<(NodeRef, SocketAddr)>,
}

/// The overlay address of host number `host`.
pub fn address(host: u16) -> SocketAddr {
    let [high, low] = host.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 14195))
}

/// Whether members of different rings say this to each other; connections are refused for all else.
fn is_between_rings(message: &Message) -> bool {
    matches!(
        message,
        Message::Join { .. }
            | Message::JoinAccepted { .. }
            | Message::JoinDenied(_)
            | Message::Knock { .. }
            | Message::KnockDenied { .. }
    )
}

impl<M: Machine> Cluster<M> {
    /// No process yet.
    pub fn new(settings: &Settings, space: Space, is_printed: bool) -> Cluster<M> {
        let seed = settings.seed;
        Cluster {
            space,
            now: Time(0),
            order: 0,
            queue: Queue::default(),
            processes: BTreeMap::new(),
            at_address: BTreeMap::new(),
            network: Network::new(settings.weather_calm(), Draw::new(seed, Stream::Network)),
            watch: Watch::new(space),
            coverage: Coverage::default(),
            transcript: Transcript::new(is_printed),
            draw: Draw::new(seed, Stream::Nodes),
            requests: BTreeMap::new(),
            completions: VecDeque::new(),
            request_next: 0,
            lived: Duration::ZERO,
            arrivals: Vec::new(),
            fuse: None,
            given_up: Vec::new(),
            settings: settings.clone(),
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The moment of a client's act: its number in the sequence of all events, and the time.
    pub fn moment(&mut self) -> (u64, Time) {
        self.order += 1;
        (self.order, self.now)
    }

    /// The network.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// What was reached so far.
    pub fn coverage(&mut self) -> &mut Coverage {
        &mut self.coverage
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// The processes that exist, paused ones too.
    pub fn processes(&self) -> impl Iterator<Item = &Process<M>> {
        self.processes.values()
    }

    /// The processes that serve clients.
    pub fn serving(&self) -> Vec<NodeRef> {
        self.processes.values().filter(|p| p.is_serving()).map(|p| p.me).collect()
    }

    /// Replies and deaths since it was last asked.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// The time that all processes lived together.
    pub fn lived(&self) -> Duration {
        self.processes.values().fold(self.lived, |sum, p| sum + p.age(self.now))
    }

    /// The oldest request that a running process should have answered before `deadline`.
    pub fn overdue(&self, deadline: Duration) -> Option<(RequestId, NodeId)> {
        let is_running = |n: &NodeId| self.processes.get(n).is_some_and(|p| !p.is_paused);
        self.requests
            .iter()
            .find(|(_, (node, asked))| self.now.since(*asked) > deadline && is_running(node))
            .map(|(id, (node, _))| (*id, *node))
    }

    /// The strength of the ring that most processes are in, some of them left out.
    pub fn strength(&self, without: &BTreeSet<NodeId>) -> Strength {
        let ring = self.ring();
        Strength::of(
            &self.space,
            self.watch.nodes().filter(|(n, r, _)| *r == ring && !without.contains(n)).map(|(n, _, p)| (n, p)),
        )
    }

    /// The ring that most processes are in.
    pub fn ring(&self) -> Option<RingId> {
        let mut votes: BTreeMap<RingId, usize> = BTreeMap::new();
        for ring in self.processes.values().filter_map(|p| p.ring) {
            *votes.entry(ring).or_default() += 1;
        }
        votes.into_iter().max_by_key(|v| v.1).map(|v| v.0)
    }

    /// Starts a process at `host`, knowing `seeds`.
    pub fn start(&mut self, host: u16, seeds: &[u16], creates_at_once: bool) -> Result<NodeId, Violation> {
        let seeds = seeds.iter().map(|h| address(*h)).collect();
        self.start_at(address(host), seeds, creates_at_once)
    }

    fn start_at(
        &mut self,
        addr: SocketAddr,
        seeds: Vec<SocketAddr>,
        creates_at_once: bool,
    ) -> Result<NodeId, Violation> {
        let drawn = self.draw.bits() | 1;
        let is_kept = self.settings.config.planted() == Some(Plant::IdentityKept);
        let kept = match addr {
            SocketAddr::V4(a) => u64::from(a.ip().to_bits() & 0xffff),
            SocketAddr::V6(_) => drawn,
        };
        let me = NodeRef { id: NodeId(if is_kept { kept } else { drawn }), addr };
        let clock = Clock {
            offset: self.draw.below(1 << 40),
            rate_per_mille: self.draw.between(
                1000 - self.settings.clock_drift_per_mille,
                1000 + self.settings.clock_drift_per_mille,
            ),
            reached: Time(0),
        };
        let seed = self.draw.bits();
        let machine = M::new(self.settings.config.clone(), me, seed, clock.local(self.now));
        self.transcript.note(self.now, "start", &[me.id.0]);
        self.transcript.line(self.now, format_args!("start {me}"));
        if let Some(old) = self.at_address.insert(me.addr, me.id) {
            self.remove(old);
            self.at_address.insert(me.addr, me.id);
        }
        self.processes.insert(
            me.id,
            Process {
                me,
                machine,
                clock,
                started: self.now,
                ring: None,
                is_leaving: false,
                is_paused: false,
                slowness: None,
                waiting: VecDeque::new(),
                wake: None,
                handled: 0,
            },
        );
        self.request(me.id, Request::Start { seeds, creates_at_once, replication_factor: None })?;
        Ok(me.id)
    }

    /// Gives a request to a process, at once.
    pub fn request(&mut self, node: NodeId, request: Request) -> Result<RequestId, Violation> {
        self.request_next += 1;
        let id = RequestId(self.request_next);
        self.requests.insert(id, (node, self.now));
        match self.processes.get_mut(&node) {
            None => self.give_up(id),
            Some(p) => {
                p.is_leaving |= request == Request::Leave;
                let to = p.me;
                self.give(to, Input::Request { id, request })?;
            }
        }
        Ok(id)
    }

    /// Asks to be reminded.
    pub fn remind(&mut self, after: Duration, note: Note) {
        self.queue_at(self.now + after, Queued::Note(note));
    }

    /// Handles the next event; what it gives is a reminder that came due.
    pub fn step(&mut self) -> Result<Option<Note>, Violation> {
        let Some((at, queued)) = self.queue.pop() else { return Ok(None) };
        self.now = self.now.max(at);
        self.order += 1;
        match queued {
            Queued::Note(note) => Ok(Some(note)),
            Queued::Turn(node) => {
                self.take_turn(node)?;
                Ok(None)
            }
            Queued::Input { to, input } => {
                self.arrive(to, input)?;
                Ok(None)
            }
        }
    }

    /// Looks at all registers of all processes.
    pub fn look_at_all(&mut self) -> Result<(), Violation> {
        for p in self.processes.values() {
            self.watch.look_at_registers(p.machine.acceptors())?;
        }
        Ok(())
    }

    fn queue_at(&mut self, at: Time, queued: Queued) {
        self.order += 1;
        self.queue.push(at, self.order, queued);
    }

    fn arrive(&mut self, to: NodeRef, input: Input) -> Result<(), Violation> {
        let here = self.at_address.get(&to.addr).copied();
        let to = match here {
            Some(id) if to.id == NodeId::ANY || to.id == id => NodeRef { id, addr: to.addr },
            Some(_) | None => {
                if let Input::Message { from, .. } = &input
                    && let Some(at) = self.network.hint(self.now)
                {
                    let from = *from;
                    self.queue_at(at, Queued::Input { to: from, input: Input::Lost { peer: to } });
                }
                return Ok(());
            }
        };
        if let Input::Message { from, .. } = &input
            && !self.network.passes(from.addr, to.addr)
        {
            return Ok(());
        }
        self.give(to, input)
    }

    fn give(&mut self, to: NodeRef, input: Input) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&to.id) else { return Ok(()) };
        let is_timeout = matches!(input, Input::Timeout);
        let is_due = is_timeout && p.wake.is_some_and(|w| w <= self.now);
        if let Some(each) = p.slowness.filter(|_| !p.is_paused) {
            // A timeout that waits for its turn is still to come, so that no other is asked for.
            let is_kept = match &input {
                Input::Timeout => is_due,
                Input::Request { .. } => true,
                Input::Message { .. } | Input::Lost { .. } => p.waiting.len() < WAITING_MAX,
            };
            if is_kept {
                p.waiting.push_back(input);
                if p.waiting.len() == 1 {
                    self.queue_at(self.now + each, Queued::Turn(to.id));
                }
            }
            return Ok(());
        }
        if is_due {
            p.wake = None;
        }
        if p.is_paused {
            if !is_timeout {
                p.waiting.push_back(input);
            }
            return Ok(());
        }
        self.handle(to, input)
    }

    fn handle(&mut self, to: NodeRef, input: Input) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&to.id) else { return Ok(()) };
        let is_timeout = matches!(input, Input::Timeout);
        let local = p.clock.local(self.now);
        if is_timeout && p.machine.next_timeout().is_none_or(|t| t > local) {
            return self.settle(to.id);
        }
        match input {
            Input::Message { from, ring, message } => {
                if ring.is_some() && p.ring.is_some() && ring != p.ring && !is_between_rings(&message) {
                    return Ok(());
                }
                let (_, name) = names::message(&message);
                self.transcript.note(self.now, name, &[from.id.0, to.id.0]);
                self.transcript.line(self.now, format_args!("{} > {} {message:?}", from.addr, to.addr));
                p.machine.handle_message(local, from, *message);
            }
            Input::Request { id, request } => {
                self.transcript.note(self.now, "request", &[to.id.0, id.0]);
                self.transcript.line(self.now, format_args!("request {} at {to}: {request:?}", id.0));
                p.machine.handle_request(local, id, request);
            }
            Input::Lost { peer } => {
                self.transcript.note(self.now, "lost", &[to.id.0, peer.id.0]);
                p.machine.handle_connection_lost(local, peer);
            }
            Input::Timeout => {
                self.transcript.note(self.now, "timeout", &[to.id.0]);
                p.machine.handle_timeout(local);
            }
        }
        self.settle(to.id)
    }

    /// Drains a node's effects, looks at its invariants and notes its next timeout.
    fn settle(&mut self, node: NodeId) -> Result<(), Violation> {
        let mut has_left = false;
        while let Some(p) = self.processes.get_mut(&node) {
            let me = p.me;
            let effect = p.machine.poll_effect();
            if matches!(effect, Some(Effect::Send { .. } | Effect::Reply { .. })) && self.burn_fuse(node) {
                return Ok(());
            }
            match effect {
                None => break,
                Some(Effect::Send { to, message, .. }) => self.send(me, to, message)?,
                Some(Effect::Reply { id, reply }) => has_left |= self.reply(node, id, reply)?,
                Some(Effect::Announce(event)) => self.announce(node, event),
            }
        }
        let Some(p) = self.processes.get_mut(&node) else { return Ok(()) };
        self.watch.look(node, p.ring, p.machine.acceptors())?;
        p.handled += 1;
        if p.handled.is_multiple_of(self.settings.registers_look_every)
            && let Err(v) = self.watch.look_at_registers(p.machine.acceptors())
        {
            self.transcript.line(self.now, format_args!("at {}", p.machine.describe()));
            return Err(v);
        }
        if let Some(at) = self.given_up.iter().position(|g| g.0.id == node) {
            let (me, seed) = self.given_up.swap_remove(at);
            self.coverage.count("ring given up");
            return self.start_at(me.addr, vec![seed], false).map(|_| ());
        }
        if has_left {
            self.coverage.count("left");
            self.remove(node);
            return Ok(());
        }
        if let Some(next) = p.machine.next_timeout() {
            let at = p.clock.global(next).max(self.now + Duration::from_micros(1));
            if p.wake.is_none_or(|w| w > at) {
                p.wake = Some(at);
                let to = p.me;
                self.queue_at(at, Queued::Input { to, input: Input::Timeout });
            }
        }
        Ok(())
    }

    fn send(&mut self, me: NodeRef, to: NodeRef, message: Message) -> Result<(), Violation> {
        self.coverage.message(&message);
        if let Message::Accept { key, stamp, record, .. } = &message {
            self.watch.i1_one_record_per_accept(key, *stamp, record)?;
        }
        if let Message::Install { extent, configuration } = &message
            && let Some(ring) = self.processes.get(&me.id).and_then(|p| p.ring)
        {
            self.watch.i3_an_epoch_has_one_configuration(ring, extent, configuration)?;
        }
        let mut arrivals = core::mem::take(&mut self.arrivals);
        self.network.arrivals(self.now, me.addr, to.addr, &message, &mut arrivals);
        if self.transcript.is_printed() && arrivals.is_empty() {
            self.transcript.line(
                self.now,
                format_args!("{} > {} lost {}", me.addr, to.addr, names::message(&message).1),
            );
        }
        let ring = self.processes.get(&me.id).and_then(|p| p.ring);
        let mut copies = Some(Box::new(message));
        for (i, at) in arrivals.iter().enumerate() {
            // Mostly there is one arrival, which needs no copy.
            let is_last = i + 1 == arrivals.len();
            let Some(message) = (if is_last { copies.take() } else { copies.clone() }) else { break };
            self.queue_at(*at, Queued::Input { to, input: Input::Message { from: me, ring, message } });
        }
        self.arrivals = arrivals;
        Ok(())
    }

    /// Takes a reply; true if it says that the node has left.
    fn reply(&mut self, node: NodeId, id: RequestId, reply: Reply) -> Result<bool, Violation> {
        if self.requests.remove(&id).is_none_or(|r| r.0 != node) {
            return broken(
                "replies",
                format!("{node} replied twice, or to what it was not asked: {reply:?}"),
            );
        }
        self.transcript.note(self.now, &variant(&reply), &[node.0, id.0]);
        self.transcript.line(self.now, format_args!("reply {} of {node}: {reply:?}", id.0));
        let has_left = reply == Reply::Left { is_clean: true };
        if reply == (Reply::Left { is_clean: false }) {
            self.coverage.count("left unclean");
            self.remind(LEAVE_AGAIN, Note::LeaveAgain(node));
        }
        self.completions.push_back(Completion { id, reply: Some(reply) });
        Ok(has_left)
    }

    fn announce(&mut self, node: NodeId, event: Event) {
        self.transcript.note(self.now, &variant(&event), &[node.0]);
        self.transcript.line(self.now, format_args!("{node} announces {event:?}"));
        self.coverage.event(&event);
        let Some(p) = self.processes.get_mut(&node) else { return };
        if let Event::Joined { ring, .. } = event {
            p.ring = Some(ring);
        } else if let Event::Dissolved { .. } = event {
            p.ring = None;
        } else if let Event::RingGivenUp { at, .. } = event {
            self.given_up.push((p.me, at));
        } else if let (Event::ReignBegan { home, extent }, Some(ring)) = (&event, p.ring)
            && let Some(r) = p.machine.reigns().into_iter().find(|r| r.0 == *home && r.1.lo == extent.lo)
        {
            self.watch.reign_began(ring, *home, r.1, r.2);
        }
    }

    fn remove(&mut self, node: NodeId) {
        let Some(p) = self.processes.remove(&node) else { return };
        self.at_address.remove(&p.me.addr);
        self.watch.forget(node);
        self.lived += p.age(self.now);
        let open: Vec<RequestId> = self.requests.iter().filter(|r| r.1.0 == node).map(|r| *r.0).collect();
        for id in open {
            self.give_up(id);
        }
    }

    fn give_up(&mut self, id: RequestId) {
        self.requests.remove(&id);
        self.completions.push_back(Completion { id, reply: None });
    }
}
