//! The steps of the model: which are possible, and what they do.

use super::history::{self, Stand};
use super::node::{number, reference};
use super::*;
use crate::api::{Effect, Failure, Reply, Request, RequestId};
use crate::message::Denied;
use crate::node::DhtNode;
use stateright::Model;

/// Later than any pause between attempts.
const PAUSE: Duration = Duration::from_millis(800);
/// Later than any deadline.
const DEADLINE: Duration = Duration::from_secs(60);
/// The seed of steps that draw no identity.
const SEED: u64 = 1;
/// Messages that one step may bring about.
const STEPS_MAX: u32 = 3000;

impl Scope {
    /// The state after a first value was put, with node 0 as home.
    pub(super) fn first(&self) -> World {
        let op = |client, kind| Op { client, kind, stand: Stand::Idle, after: 0 };
        let ops =
            self.clients.iter().enumerate().flat_map(|(c, (_, all))| all.iter().map(move |k| op(c, *k)));
        let first = op(usize::MAX, Kind::Put(1));
        let mut w = World {
            nodes: (0..self.nodes).map(|i| Some(Part::new(Node::new(i, self)))).collect(),
            queue: VecDeque::new(),
            late: Vec::new(),
            ops: Part::new(std::iter::once(first).chain(ops).collect()),
            broken: None,
            budget: Budget::default(),
            clock: 0,
        };
        self.begin(&mut w, 0, 0);
        self.deliver_all(&mut w);
        assert!(w.ops[0].stand == Stand::Done, "the first value was put");
        w.budget = self.budget;
        w.press();
        w
    }

    /// Everything under way arrives in its turn. False if there is no end to it.
    pub(super) fn deliver_all(&self, w: &mut World) -> bool {
        for _ in 0..STEPS_MAX {
            let Some(flight) = w.queue.pop_front() else { return true };
            self.deliver(w, &flight);
        }
        false
    }

    /// The interval of a chunk.
    pub(super) fn extent(&self, chunk: Chunk) -> Extent {
        let whole = self.space.whole();
        match chunk {
            Chunk::Whole => whole,
            Chunk::Low => Extent::new(whole.lo, self.offset - 1),
            Chunk::High => Extent::new(self.offset, whole.hi),
        }
    }

    /// Gives a node an input; what it wants done is under way then.
    pub(super) fn input(&self, w: &mut World, i: u8, seed: u64, f: impl FnOnce(&mut DhtNode)) {
        let now = w.time();
        let Some(node) = w.nodes.get_mut(usize::from(i)).and_then(Option::as_mut) else { return };
        let effects = node.input(now, seed, f);
        if core::mem::take(&mut node.is_owned_changed)
            && let Some(owned) = node.tell_owned()
        {
            for to in (0..self.nodes).filter(|to| *to != i) {
                self.send(w, Flight { from: i, to, what: What::Owns(owned.clone()) });
            }
        }
        for effect in effects {
            match effect {
                Effect::Send { message: Message::Gossip(_), .. } | Effect::Announce(_) => {}
                Effect::Send { to, mut message, trace: _ } => {
                    if let (true, Message::ConfirmReply { answers, .. }) = (self.names_offsets, &mut message)
                    {
                        answers.iter_mut().for_each(|a| forget_part(&mut a.2));
                    }
                    self.send(w, Flight { from: i, to: number(to), what: What::Message(message) });
                }
                Effect::Reply { id, reply } => on_reply(w, usize::try_from(id.0).unwrap_or(0), reply),
            }
        }
    }

    fn send(&self, w: &mut World, flight: Flight) {
        let is_stream = matches!(flight.what, What::Message(Message::FillPull { .. }));
        if w.node(flight.to).is_some() && (self.streams || !is_stream) {
            w.queue.push_back(Part::new(flight));
        }
    }

    fn deliver(&self, w: &mut World, flight: &Flight) {
        let from = reference(flight.from);
        self.input(w, flight.to, SEED, |n| match &flight.what {
            What::Message(m) => n.handle_message(n.ctx.now, from, m.clone()),
            What::Owns(owned) => {
                n.ctx.locations.set_node(from, owned);
                for (slot, extent) in n.acceptors.summary() {
                    n.ctx.locations.set(slot, extent, n.ctx.me);
                }
            }
        });
    }

    /// An operation begins at a gateway.
    pub(super) fn begin(&self, w: &mut World, i: usize, gateway: u8) {
        let after = history::ended(&w.ops);
        let Some(op) = w.ops.get_mut(i) else { return };
        (op.stand, op.after) = (Stand::Running, after);
        let key = self.key.clone();
        let request = match op.kind.change() {
            Some(change) => Request::Change { key, change },
            None => Request::Get { key },
        };
        // What is drawn is the name of the session.
        let id = u64::try_from(i).unwrap_or(0);
        self.input(w, gateway, 100 + id, |n| n.handle_request(n.ctx.now, RequestId(id), request));
    }

    /// The operation that a client is at, or begins next.
    fn current(&self, w: &World, client: usize) -> Option<(usize, u8)> {
        let gateway = self.clients.get(client)?.0;
        let i = w.ops.iter().position(|o| o.client == client && !o.is_over())?;
        w.node(gateway).map(|_| (i, gateway))
    }

    fn believe(&self, w: &mut World, i: u8, whom: u8, is_gone: bool) {
        let Some(node) = w.nodes.get_mut(usize::from(i)).and_then(Option::as_mut) else { return };
        let gone = if is_gone { node.gone() | 1 << whom } else { node.gone() & !(1 << whom) };
        node.believe(gone, self.nodes);
        if is_gone {
            self.input(w, i, SEED, |n| n.on_suspected(reference(whom).id));
        }
    }

    /// A node is gone, and all others know it.
    fn crash(&self, w: &mut World, i: u8) {
        w.budget.crashes -= 1;
        if let Some(node) = w.nodes.get_mut(usize::from(i)) {
            *node = None;
        }
        w.late.retain(|f| f.to != i);
        let others: Vec<u8> = w.up().map(|(j, _)| j).collect();
        for j in others {
            self.believe(w, j, i, true);
        }
    }

    fn act(&self, w: &mut World, action: &Action) {
        match *action {
            Action::Deliver => {
                let Some(flight) = w.queue.pop_front() else { return };
                self.deliver(w, &flight);
            }
            Action::Double => {
                let Some(flight) = w.queue.pop_front() else { return };
                w.budget.doubled -= 1;
                self.deliver(w, &flight);
                w.late.push(flight);
            }
            Action::Lose => {
                let Some(flight) = w.queue.pop_front() else { return };
                w.budget.lost -= 1;
                w.late.push(flight);
            }
            Action::Arrive(k) => {
                w.budget.arrivals -= 1;
                let flight = w.late.remove(k);
                self.deliver(w, &flight);
            }
            Action::Begin(client) => {
                let Some((i, gateway)) = self.current(w, client) else { return };
                self.begin(w, i, gateway);
            }
            Action::Seek(i) => {
                w.budget.seeks -= 1;
                self.input(w, i, SEED, |n| {
                    if let Some((anchor, extent)) = seekable(self, n) {
                        n.seek_reign(0, anchor, extent);
                    }
                });
            }
            Action::Replace(by, slot) => {
                w.budget.replacements -= 1;
                let whole = self.space.whole();
                self.input(w, by, SEED, |n| n.replace(slot, whole, true));
            }
            Action::Give(from, slot, chunk, to) => {
                w.budget.handovers -= 1;
                let extent = self.extent(chunk);
                self.input(w, from, SEED, |n| n.begin_handover(slot, extent, reference(to)));
            }
            Action::Abort(i) => {
                w.budget.aborts -= 1;
                self.input(w, i, SEED, DhtNode::abort_giving);
            }
            Action::Crash(i) => self.crash(w, i),
            Action::Doubt(i, whom) => {
                w.budget.doubts -= 1;
                self.believe(w, i, whom, true);
            }
            Action::Trust(i, whom) => {
                w.budget.doubts -= 1;
                self.believe(w, i, whom, false);
            }
            Action::Tick(i) => {
                w.budget.ticks -= 1;
                w.clock += 1;
                self.input(w, i, SEED, |n| {
                    n.scan_homes();
                    n.scan_handovers();
                    n.scan_replacements();
                });
            }
            Action::Retry(client) => {
                let Some((_, gateway)) = self.current(w, client) else { return };
                w.budget.retries -= 1;
                let times = u32::from(self.budget.retries - w.budget.retries);
                self.input(w, gateway, SEED, |n| wake_gateway(n, PAUSE * times));
            }
            Action::GiveUp(client) => {
                let Some((_, gateway)) = self.current(w, client) else { return };
                w.budget.give_ups -= 1;
                self.input(w, gateway, SEED, |n| wake_gateway(n, DEADLINE));
            }
            Action::Scrub(i) => {
                w.budget.scrubs -= 1;
                self.input(w, i, SEED, DhtNode::scrub);
            }
            Action::Tend(i) => {
                w.budget.tends -= 1;
                self.input(w, i, SEED, |n| {
                    n.ask_about_frozen();
                    n.tend_handovers();
                });
            }
        }
        if w.budget.arrivals == 0 {
            w.late.clear();
        }
    }

    /// Whether the search may choose what becomes of the next message.
    fn is_choice(&self, w: &World, head: &Flight) -> bool {
        let may_happen = w.budget.lost > 0 || self.may_double(w, head);
        may_happen && (self.may_lose)(&head.what) && self.has_effect(w)
    }

    /// A transport delivers an attempt at most once.
    fn may_double(&self, w: &World, head: &Flight) -> bool {
        let is_attempt = matches!(head.what, What::Message(Message::Operation(_)));
        w.budget.doubled > 0 && w.budget.arrivals > 0 && !is_attempt
    }

    /// Lets arrive what must, up to the next choice, and looks at the laws.
    fn go_on(&self, w: &mut World) {
        for _ in 0..STEPS_MAX {
            w.broken = w.broken.or_else(|| self.broken(w));
            let Some(head) = w.queue.front() else { return };
            if w.broken.is_some() || self.is_choice(w, head) {
                return;
            }
            if let Some(flight) = w.queue.pop_front() {
                self.deliver(w, &flight);
            }
        }
        w.broken = w.broken.or(Some(laws::ENDLESS));
    }

    fn begin_something(&self, w: &World, out: &mut Vec<Action>) {
        let b = &w.budget;
        for client in 0..self.clients.len() {
            let Some((i, _)) = self.current(w, client) else { continue };
            let is_running = w.ops.get(i).is_some_and(|o| o.stand == Stand::Running);
            if !is_running {
                out.push(Action::Begin(client));
                continue;
            }
            out.extend((b.retries > 0).then_some(Action::Retry(client)));
            out.extend((b.give_ups > 0).then_some(Action::GiveUp(client)));
        }
        if b.replacements > 0 {
            let replaces = self.replaces.iter().filter(|(by, slot)| {
                w.node(*by).is_some_and(|n| {
                    n.acceptors.find(*slot, self.offset).is_none()
                        && !n.replacements.is_at_work(self.space.whole(), |_| true)
                })
            });
            out.extend(replaces.map(|(by, slot)| Action::Replace(*by, *slot)));
        }
        if b.handovers > 0 {
            let gives = self.gives.iter().filter(|(from, slot, chunk, to)| {
                w.node(*from).is_some_and(|n| {
                    let a = n.acceptors.active(*slot, self.extent(*chunk).lo);
                    a.is_some() && n.may_give_to(reference(*to).id) && !n.is_gone(reference(*to).id)
                })
            });
            out.extend(gives.map(|(from, slot, chunk, to)| Action::Give(*from, *slot, *chunk, *to)));
        }
        if b.crashes > 0 {
            out.extend(self.crashes.iter().filter(|i| w.node(**i).is_some()).map(|i| Action::Crash(*i)));
        }
    }
}

impl Model for Scope {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, w: &World, out: &mut Vec<Action>) {
        // What is broken stays broken: nothing is looked for behind it.
        if w.broken.is_some() {
            return;
        }
        let b = &w.budget;
        if let Some(head) = w.queue.front() {
            out.push(Action::Deliver);
            out.extend((b.lost > 0).then_some(Action::Lose));
            out.extend(self.may_double(w, head).then_some(Action::Double));
            return;
        }
        self.begin_something(w, out);
        if b.arrivals > 0 {
            let is_new = |k: &usize| *k == 0 || w.late[*k - 1].print() != w.late[*k].print();
            out.extend((0..w.late.len()).filter(is_new).map(Action::Arrive));
        }
        for (i, n) in w.up() {
            if b.seeks > 0 && self.seekers.contains(&i) && seekable(self, n).is_some() {
                out.push(Action::Seek(i));
            }
            if b.aborts > 0 && n.handovers.is_giving() {
                out.push(Action::Abort(i));
            }
            if b.ticks > 0 && self.tickers.contains(&i) {
                out.push(Action::Tick(i));
            }
            if b.scrubs > 0 && n.homes.reigns.find(0, self.offset).is_some_and(|r| r.is_reigning()) {
                out.push(Action::Scrub(i));
            }
            let has_left = |n: &Node| !n.acceptors.frozen().is_empty() || !n.handovers.all_arrived();
            if b.tends > 0 && (has_left(n) || n.handovers.running() > 0) {
                out.push(Action::Tend(i));
            }
        }
        if b.doubts > 0 {
            for (i, whom) in &self.doubts {
                let Some(n) = w.node(*i).filter(|_| w.node(*whom).is_some()) else { continue };
                let is_gone = n.gone() >> whom & 1 == 1;
                out.push(if is_gone { Action::Trust(*i, *whom) } else { Action::Doubt(*i, *whom) });
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut w = last.clone();
        self.act(&mut w, &action);
        self.go_on(&mut w);
        w.press();
        // What changes nothing but the budget leads nowhere.
        let is_asked = matches!(action, Action::Deliver | Action::Begin(_));
        (is_asked || !w.prints().eq(last.prints())).then_some(w)
    }

    fn properties(&self) -> Vec<stateright::Property<Scope>> {
        laws::properties()
    }
}

impl Scope {
    /// Whether the next message changes anything where it arrives.
    fn has_effect(&self, last: &World) -> bool {
        let mut w = last.clone();
        let Some(flight) = w.queue.pop_front() else { return false };
        let under_way = w.queue.len();
        self.deliver(&mut w, &flight);
        let print = |w: &mut World| {
            let node = w.nodes.get_mut(usize::from(flight.to)).and_then(Option::as_mut)?;
            node.press();
            Some(node.print())
        };
        let after = print(&mut w);
        w.queue.len() != under_way || after != print(&mut last.clone())
    }
}

/// Where a node may seek a reign: it has a slot of the register, and no reign.
fn seekable(scope: &Scope, n: &DhtNode) -> Option<(Slot, Extent)> {
    let anchor = n.acceptors.active_slots(scope.space.replicas(), scope.offset).next()?;
    let extent = n.acceptors.active(anchor, scope.offset)?.extent;
    let is_free = n.homes.reigns.iter().all(|r| r.home != 0 || r.extent.intersect(&extent).is_none());
    is_free.then_some((anchor, extent))
}

fn forget_part(answer: &mut Result<(), Denied>) {
    if let Err(Denied::NotOwner { extent, .. }) = answer {
        *extent = None;
    }
}

pub(super) fn wake_gateway(n: &mut DhtNode, after: Duration) {
    let now = n.ctx.now;
    n.ctx.now = now + after;
    n.scan_gateway();
    n.ctx.now = now;
}

fn on_reply(w: &mut World, i: usize, reply: Reply) {
    let stand = if let Reply::Value { value, .. } = &reply {
        Stand::Seen(history::content(value.as_ref()))
    } else if matches!(reply, Reply::Changed { .. }) {
        Stand::Done
    } else if matches!(reply, Reply::Failed(Failure::Unknown { .. })) {
        Stand::Unknown
    } else {
        Stand::NotDone
    };
    let Some(op) = w.ops.get_mut(i) else { return };
    op.stand = stand;
    if !history::is_serial(&w.ops) {
        w.broken = w.broken.or(Some(laws::SERIAL));
    }
}
