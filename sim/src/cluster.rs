//! The cluster: processes at addresses, one queue of events, one network.
//!
//! Keeps:
//! 1. Events happen in the order of (time, number); nothing else decides an order.
//! 2. After everything that a node handled its effects are drained and its invariants looked at.
//! 3. A message to another process than the one that lives at the address vanishes, and so does one between
//!    members of different rings.
//! 4. Every request is answered once, or its process died.

use crate::coverage::{Coverage, variant};
use crate::draw::{Draw, Stream};
use crate::invariants::{Violation, Watch, broken};
use crate::machine::Machine;
use crate::network::Network;
use crate::process::{Clock, Input, Process};
use crate::settings::Settings;
use crate::strength::Strength;
use crate::transcript::Transcript;
use core::time::Duration;
use dht::plant::Plant;
use dht::{Effect, Event, Message, Reply, Request, RequestId};
use paxos::Acceptor;
use ring::{NodeId, NodeRef, RingId, Space, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use store::{Entry, Key};

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

const LEAVE_AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Queued {
    Input { to: NodeRef, input: Input },
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
    queue: BTreeMap<(Time, u64), Queued>,
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
pub fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 14195))
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
            queue: BTreeMap::new(),
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
    pub fn start(&mut self, host: u8, seeds: &[u8], creates_at_once: bool) -> Result<NodeId, Violation> {
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
            SocketAddr::V4(a) => u64::from(a.ip().octets()[3]),
            SocketAddr::V6(_) => drawn,
        };
        let me = NodeRef { id: NodeId(if is_kept { kept } else { drawn }), addr };
        let clock = Clock {
            offset: self.draw.below(1 << 40),
            rate_per_mille: self.draw.between(
                1000 - self.settings.clock_drift_per_mille,
                1000 + self.settings.clock_drift_per_mille,
            ),
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

    /// Kills a process, its memory gone. Others may get a hint.
    pub fn crash(&mut self, node: NodeId) {
        let Some(me) = self.processes.get(&node).map(|p| p.me) else { return };
        self.transcript.note(self.now, "crash", &[node.0]);
        if let Some(p) = self.processes.get(&node).filter(|_| self.transcript.is_printed()) {
            self.transcript.line(self.now, format_args!("crash {}", p.machine.describe()));
        }
        self.remove(node);
        let others: Vec<NodeRef> = self.processes.values().map(|p| p.me).collect();
        for to in others {
            if self.network.passes(me.addr, to.addr)
                && let Some(at) = self.network.hint(self.now)
            {
                self.queue_at(at, Queued::Input { to, input: Input::Lost { peer: me } });
            }
        }
    }

    /// Kills a process when it has sent `effects` more messages and replies: before the one after them, which may be in
    /// the middle of what one input made it do.
    pub fn crash_after(&mut self, node: NodeId, effects: u64) {
        self.fuse = Some((node, effects));
    }

    /// Counts a message or reply; true if the process crashes before it.
    fn burn_fuse(&mut self, node: NodeId) -> bool {
        match &mut self.fuse {
            Some((victim, 0)) if *victim == node => {
                self.fuse = None;
                self.crash(node);
                true
            }
            Some((victim, left)) if *victim == node => {
                *left -= 1;
                false
            }
            Some(_) | None => false,
        }
    }

    /// Has a process replace a member that is alive, as if it suspected it.
    pub fn replace_wrongly(&mut self, node: NodeId, dice: u64) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&node).filter(|p| !p.is_paused) else { return Ok(()) };
        p.machine.replace_wrongly(p.clock.local(self.now), dice);
        self.transcript.note(self.now, "wrong suspicion", &[node.0]);
        self.settle(node)
    }

    /// Stops a process for a while; its memory stays.
    pub fn pause(&mut self, node: NodeId) {
        if let Some(p) = self.processes.get_mut(&node) {
            p.is_paused = true;
            self.transcript.note(self.now, "pause", &[node.0]);
            self.transcript.line(self.now, format_args!("pause {node}"));
        }
    }

    /// Lets a paused process go on with what waits for it.
    pub fn resume(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&node) else { return Ok(()) };
        p.is_paused = false;
        let me = p.me;
        let mut waiting = core::mem::take(&mut p.waiting);
        self.transcript.note(self.now, "resume", &[node.0]);
        self.transcript.line(self.now, format_args!("resume {node}"));
        waiting.push_back(Input::Timeout);
        for input in waiting {
            self.give(me, input)?;
        }
        Ok(())
    }

    /// Asks to be reminded.
    pub fn remind(&mut self, after: Duration, note: Note) {
        self.queue_at(self.now + after, Queued::Note(note));
    }

    /// Handles the next event; what it gives is a reminder that came due.
    pub fn step(&mut self) -> Result<Option<Note>, Violation> {
        let Some(((at, _), queued)) = self.queue.pop_first() else { return Ok(None) };
        self.now = self.now.max(at);
        self.order += 1;
        match queued {
            Queued::Note(note) => Ok(Some(note)),
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

    /// What is left at rest.
    pub fn residue(&self) -> Residue {
        let mut out = Residue::default();
        for p in self.processes.values() {
            let mut pieces: Vec<&Acceptor> = p.machine.acceptors().filter(|a| !a.is_frozen).collect();
            pieces.sort_by_key(|a| (a.slot, a.extent.lo));
            out.pieces_max = out.pieces_max.max(p.machine.acceptors().count());
            for (a, b) in pieces.iter().zip(pieces.iter().skip(1)) {
                if a.slot == b.slot && a.extent.is_followed_by(&b.extent) {
                    *out.apart.entry(what_differs(a, b)).or_default() += 1;
                }
            }
            let gone = |a: &&Acceptor| a.registers.iter().filter(|e| e.2.record.value.is_none()).count();
            out.tombstones += pieces.iter().map(gone).sum::<usize>();
        }
        out
    }

    /// What transactions left behind: a lock, a ledger, or a job of some node.
    pub fn unfinished(&self) -> Option<String> {
        if let Some(p) = self.processes.values().find(|p| !p.machine.has_no_transactions()) {
            return Some(format!("transactions of {} are not over", p.me));
        }
        let acceptors =
            || self.processes.values().flat_map(|p| p.machine.acceptors()).filter(|a| a.is_active());
        let mut newest: BTreeMap<&Key, &Entry> = BTreeMap::new();
        for a in acceptors() {
            for (offset, key) in a.registers.unfinished(a.extent) {
                // A replica that missed the end shows the lock until its key is written again.
                let all = acceptors().filter_map(|b| b.registers.get(*offset, key));
                if let Some(e) = all.max_by_key(|e| e.stamp) {
                    newest.insert(key, e);
                }
            }
        }
        let is_left = |e: &(&&Key, &&Entry)| e.1.record.lock().is_some() || e.0.is_reserved();
        newest.iter().find(is_left).map(|(k, e)| format!("{k:?} is locked or a ledger: {:?}", e.record))
    }

    fn queue_at(&mut self, at: Time, queued: Queued) {
        self.order += 1;
        self.queue.insert((at, self.order), queued);
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
        if is_timeout && p.wake.is_some_and(|w| w <= self.now) {
            p.wake = None;
        }
        if p.is_paused {
            if !is_timeout {
                p.waiting.push_back(input);
            }
            return Ok(());
        }
        let local = p.clock.local(self.now);
        if is_timeout && p.machine.next_timeout().is_none_or(|t| t > local) {
            return self.settle(to.id);
        }
        match input {
            Input::Message { from, ring, message } => {
                if ring.is_some() && p.ring.is_some() && ring != p.ring && !is_between_rings(&message) {
                    return Ok(());
                }
                let name = variant(&*message);
                self.transcript.note(self.now, &name, &[from.id.0, to.id.0]);
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
        let name = variant(&message);
        self.coverage.message(&name, &message);
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
            self.transcript.line(self.now, format_args!("{} > {} lost {name}", me.addr, to.addr));
        }
        let message = Box::new(message);
        let ring = self.processes.get(&me.id).and_then(|p| p.ring);
        for at in arrivals.drain(..) {
            let input = Input::Message { from: me, ring, message: message.clone() };
            self.queue_at(at, Queued::Input { to, input });
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

/// What is left of a run when it is at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// The most pieces at one node.
    pub pieces_max: usize,
    /// Registers without a value, at all nodes.
    pub tombstones: usize,
    /// Neighbouring pieces of one slot at one node, by what keeps them from being one.
    pub apart: BTreeMap<&'static str, u64>,
}

/// The first thing in which two neighbours differ, from what is hardest to make equal to what is easiest.
fn what_differs(a: &Acceptor, b: &Acceptor) -> &'static str {
    if !a.is_complete || !b.is_complete {
        "not complete"
    } else if a.replica != b.replica {
        "replica"
    } else if a
        .configuration
        .members
        .iter()
        .zip(&b.configuration.members)
        .any(|(x, y)| x.replica != y.replica)
    {
        "another slot's replica"
    } else if a.configuration != b.configuration {
        "epoch"
    } else if a.donated != b.donated || a.refused != b.refused {
        "donated or refused"
    } else if a.change_accepted != b.change_accepted {
        "accepted change"
    } else if a.change_promised != b.change_promised {
        "change promised"
    } else if a.homes.iter().zip(&b.homes).any(|(x, y)| x.promised != y.promised) {
        "promise"
    } else {
        "nothing"
    }
}
