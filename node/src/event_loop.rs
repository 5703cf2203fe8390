//! The one task that owns the node's state.
//!
//! A turn takes what has come, messages, calls and a due timer, up to a bound; gives it to the core; and then
//! carries out every effect. What a turn sends to one peer is one batch. Sockets, parsing and encoding run
//! beside this task.
//!
//! Keeps:
//! 1. Only this task touches the [`DhtNode`]; it never waits for a socket or a client.
//! 2. Time given to the core never runs backwards.
//! 3. Every call is answered, or its asker sees that the loop has ended.

use crate::handle::Call;
use crate::http::PROBE_KEY;
use crate::metrics::{OperationKind, Traffic, outcome};
use crate::peer::{PeerInput, Peers, Transport};
use crate::traces::{Open, Tracer};
use dht::counters::MessageKind;
use dht::{DhtNode, Effect, Event, Message, Reply, Request, RequestId, Trace};
use ring::{NodeRef, Time};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

/// Messages and calls taken in one turn.
const INPUTS_PER_TURN_MAX: usize = 512;

/// The microseconds since a start, which are the core's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// The core's time.
    pub fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn instant(&self, time: Time) -> Instant {
        self.0 + core::time::Duration::from_micros(time.0)
    }
}

/// Who waits for a reply, and what is to be counted when it comes.
#[derive(Debug)]
struct Asker {
    reply: oneshot::Sender<Reply>,
    operation: Option<(OperationKind, Time)>,
    span: Option<Open>,
}

fn operation_kind(request: &Request) -> Option<OperationKind> {
    match request {
        Request::Get { key } if key.as_bytes() == PROBE_KEY => Some(OperationKind::Probe),
        Request::Get { .. } => Some(OperationKind::Get),
        Request::Change { .. } => Some(OperationKind::Change),
        Request::Transact(_) => Some(OperationKind::Transaction),
        Request::Start { .. }
        | Request::Seeds(_)
        | Request::Status
        | Request::Insight
        | Request::Inspect { .. }
        | Request::Members
        | Request::Ring
        | Request::Locate { .. }
        | Request::Scan { .. }
        | Request::Salvage { .. }
        | Request::Dissolve { .. }
        | Request::Leave => None,
    }
}

/// The owner of a node's core, and everything that leads to it.
#[derive(Debug)]
pub struct EventLoop {
    node: DhtNode,
    me: NodeRef,
    clock: Clock,
    transport: Transport,
    inputs: mpsc::Receiver<PeerInput>,
    calls: mpsc::Receiver<Call>,
    events: mpsc::Sender<Event>,
    askers: HashMap<RequestId, Asker>,
    traffic: Arc<Traffic>,
    tracer: Option<Tracer>,
    request_last: u64,
    to_self: VecDeque<(Message, Option<Trace>)>,
}

impl EventLoop {
    /// A loop around `node`, which has been made with the time of `clock`. `inputs` is what `peers` sends.
    pub fn new(
        node: DhtNode,
        clock: Clock,
        peers: Arc<Peers>,
        inputs: mpsc::Receiver<PeerInput>,
        calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<Event>,
    ) -> EventLoop {
        EventLoop {
            node,
            me: peers.me(),
            clock,
            traffic: Arc::clone(peers.traffic()),
            transport: Transport::new(peers),
            inputs,
            calls,
            events,
            askers: HashMap::new(),
            tracer: None,
            request_last: 0,
            to_self: VecDeque::new(),
        }
    }

    /// The same loop, which tells of its operations.
    pub fn with_tracer(self, tracer: Option<Tracer>) -> EventLoop {
        EventLoop { tracer, ..self }
    }

    /// Runs until every [`crate::handle::NodeHandle`] is gone.
    pub async fn run(mut self) {
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        let mut armed: Option<Time> = None;
        loop {
            let due = self.node.next_timeout();
            if due != armed {
                armed = due;
                if let Some(at) = due {
                    timer.as_mut().reset(self.clock.instant(at));
                }
            }
            let mut taken = 0;
            if self.to_self.is_empty() {
                tokio::select! {
                    input = self.inputs.recv() => match input {
                        Some(input) => taken += self.take_input(input),
                        None => return,
                    },
                    call = self.calls.recv() => match call {
                        Some(call) => taken += self.take_call(call),
                        None => return,
                    },
                    () = &mut timer, if armed.is_some() => armed = None,
                }
            }
            if taken > 0 {
                // Whoever else can run now may have more for this turn: one Accept, one Confirm and one packet
                // for all of it. Costs nothing where nobody else can run.
                tokio::task::yield_now().await;
            }
            self.take_waiting(taken);
            let now = self.clock.now();
            if self.node.next_timeout().is_some_and(|at| at <= now) {
                self.node.handle_timeout(now);
            }
            self.carry_out();
        }
    }

    /// Takes what else has come, from both sides in turn.
    fn take_waiting(&mut self, mut taken: usize) {
        let mut own = self.to_self.len().min(INPUTS_PER_TURN_MAX);
        while own > 0 {
            own -= 1;
            let Some((message, trace)) = self.to_self.pop_front() else { break };
            self.node.set_trace(trace);
            self.node.handle_message(self.clock.now(), self.me, message);
            taken += 1;
        }
        let mut is_empty = false;
        while !is_empty && taken < INPUTS_PER_TURN_MAX {
            is_empty = true;
            if let Ok(input) = self.inputs.try_recv() {
                taken += self.take_input(input);
                is_empty = false;
            }
            if let Ok(call) = self.calls.try_recv() {
                taken += self.take_call(call);
                is_empty = false;
            }
        }
    }

    /// Gives an input of the transport to the core; tells how much it was.
    fn take_input(&mut self, input: PeerInput) -> usize {
        let now = self.clock.now();
        match input {
            PeerInput::Messages { from, messages, traces } => {
                let count = messages.len();
                let mut traces = traces.into_iter().peekable();
                for (i, message) in messages.into_iter().enumerate() {
                    self.traffic.received(MessageKind::of(&message));
                    match traces.next_if(|(at, _)| *at == i) {
                        Some((_, trace)) => self.take_traced(from, message, trace),
                        None => self.node.handle_message(now, from, message),
                    }
                }
                count
            }
            PeerInput::Lost(peer) => {
                self.node.handle_connection_lost(now, peer);
                1
            }
        }
    }

    /// A message that is part of a trace: what it causes is part of its span here, or, where this node does not
    /// trace, of the span it came from.
    fn take_traced(&mut self, from: NodeRef, message: Message, trace: Trace) {
        let now = self.clock.now();
        let tracer = self.tracer.as_mut();
        let span = tracer.and_then(|t| t.begin_message(from, &message, trace, now));
        self.node.set_trace(Some(span.map_or(trace, |s| s.trace())));
        self.node.handle_message(now, from, message);
        if let (Some(tracer), Some(span)) = (&self.tracer, span) {
            tracer.end_message(span, self.clock.now());
        }
    }

    fn take_call(&mut self, call: Call) -> usize {
        self.request_last += 1;
        let id = RequestId(self.request_last);
        let now = self.clock.now();
        let operation = operation_kind(&call.request).map(|kind| (kind, now));
        if operation.is_some_and(|(kind, _)| kind != OperationKind::Probe) {
            self.note_keys(&call.request);
        }
        let tracer = self.tracer.as_mut();
        let span = tracer.zip(operation).and_then(|(t, (kind, _))| t.begin_operation(kind, call.parent, now));
        self.node.set_trace(span.map(|s| s.trace()));
        self.askers.insert(id, Asker { reply: call.reply, operation, span });
        self.node.handle_request(now, id, call.request);
        1
    }

    /// Counts the keys that a client uses.
    fn note_keys(&self, request: &Request) {
        let hot = &self.traffic.recent.hot;
        if let Request::Get { key } | Request::Change { key, .. } = request {
            hot.used(key);
        } else if let Request::Transact(t) = request {
            t.steps.iter().for_each(|s| hot.used(&s.key));
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Send { to, message, trace } if to.id == self.me.id => {
                    self.to_self.push_back((message, trace));
                }
                Effect::Send { to, message, trace } => {
                    self.traffic.sent(MessageKind::of(&message));
                    if let Some(tracer) = &mut self.tracer {
                        tracer.sends(&message, self.clock.now());
                    }
                    self.transport.stage_traced(to, message, trace);
                }
                Effect::Reply { id, reply } => {
                    if let Some(asker) = self.askers.remove(&id) {
                        if let Some((kind, began)) = asker.operation {
                            self.traffic.answered(kind, &reply, self.clock.now().since(began));
                        }
                        if let (Some(tracer), Some(span)) = (&self.tracer, asker.span) {
                            tracer.end_operation(span, outcome(&reply), self.clock.now());
                        }
                        // Whoever does not wait any more does not want to know.
                        let _ = asker.reply.send(reply);
                    }
                }
                Effect::Announce(event) => {
                    self.traffic.happened(&event);
                    if let Err(e) = self.events.try_send(event) {
                        warn!("an event was not announced: {e}");
                    }
                }
            }
        }
        while let Some(report) = self.node.poll_report() {
            self.traffic.recent.note(&report);
        }
        self.transport.flush();
    }
}
