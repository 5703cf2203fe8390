//! A model of the epoch chain: one register whose homes, members and owners change, searched exhaustively in small
//! scopes.
//!
//! The nodes are whole [`DhtNode`]s with everything that decides: acceptors, homes, gateways, handover, replacement,
//! fills, frozen memory. What is replaced is what lies around them: who begins what (a reign, a replacement, a handover,
//! an attempt repeated) is up to the search, and so is what becomes of every message.
//!
//! Keeps:
//! 1. Messages arrive in the order in which they were sent, and something is begun when none is under way; but a
//!    message may be lost, or arrive at any later time, or twice. Each of these is taken from the scope's budget, and
//!    so is everything that a clock or a failure detector would begin.
//! 2. Within its budget a scope is searched to its end. Left out is only the loss of a message that changes nothing at
//!    its receiver. Where nothing can be chosen, many messages arrive in one step; the laws are looked at after each.
//! 3. The locations that nodes tell each other are messages like others.
//!
//! Relies on: a node being a function of what [`node::Node`] prints. Time stands still but for the steps in which
//! it passes, so that deadlines do not tell states apart.
//!
//! Source: `docs/protocol.md`, sections 2 to 6 and I1 to I5; delay-bounded search: Emmi, Qadeer, Rakamarić 2011.

mod history;
mod laws;
mod node;
pub(crate) mod part;
mod scopes;
mod steps;

use crate::message::Message;
use crate::plant::Plant;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use history::{Kind, Op};
use node::Node;
use part::Part;
use ring::{Extent, Offset, Slot, Space, Time};
use std::collections::VecDeque;
use store::Key;

/// The time when everything begins.
const START: Time = Time(60_000_000);
/// What passes when time passes: questions are asked again, and nothing that came no further is given up at once.
const TICK: Duration = Duration::from_millis(600);

/// How much of what is possible may happen in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    /// Messages that do not arrive in their turn.
    lost: u8,
    /// Of those, and of the doubled ones, how many arrive later.
    arrivals: u8,
    /// Messages of which a copy may arrive later.
    doubled: u8,
    /// Reigns sought without being asked.
    seeks: u8,
    replacements: u8,
    handovers: u8,
    aborts: u8,
    crashes: u8,
    /// Times at which a node finds that time has passed.
    ticks: u8,
    /// Attempts that follow one without an answer.
    retries: u8,
    /// Clients' operations whose deadline comes.
    give_ups: u8,
    scrubs: u8,
    /// Nodes that are taken for dead, or no longer.
    doubts: u8,
    /// Looks after frozen memory and handovers.
    tends: u8,
}

/// The part of a slot that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Whole,
    /// Without the register.
    Low,
    /// With it.
    High,
}

/// What is searched.
#[derive(Clone, Debug)]
struct Scope {
    /// Nodes 0 to 2 have the slots of their number, others nothing.
    nodes: u8,
    budget: Budget,
    /// The clients, each at its gateway, with what each does in turn.
    clients: Vec<(u8, Vec<Kind>)>,
    /// Which messages may be lost or doubled.
    may_lose: fn(&What) -> bool,
    /// Nodes that may seek a reign.
    seekers: Vec<u8>,
    /// Nodes for which time may pass.
    tickers: Vec<u8>,
    /// Who may replace which slot.
    replaces: Vec<(u8, Slot)>,
    /// Who may hand over which slot to whom.
    gives: Vec<(u8, Slot, Chunk, u8)>,
    crashes: Vec<u8>,
    /// Who may take whom for dead.
    doubts: Vec<(u8, u8)>,
    /// Whether members stream to a new one; if not, fills are by frozen memory.
    streams: bool,
    /// Whether nodes are of a version that names another owner for one offset only.
    names_offsets: bool,
    /// Whether states in which there is nothing left to begin are healed and read.
    heals: bool,
    planted: Option<Plant>,
    key: Key,
    offset: Offset,
    space: Space,
}

/// Something under way.
#[derive(Clone, Debug)]
struct Flight {
    from: u8,
    to: u8,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Message(Message),
    /// What the sender owns.
    Owns(Vec<(Slot, Extent)>),
}

/// A state of the model.
#[derive(Clone, Debug)]
struct World {
    /// None is there any more of what crashed.
    nodes: Vec<Option<Part<Node>>>,
    queue: VecDeque<Part<Flight>>,
    /// What did not arrive in its turn, in the order of its prints.
    late: Vec<Part<Flight>>,
    ops: Part<Vec<Op>>,
    /// The law that was broken on the way here.
    broken: Option<&'static str>,
    budget: Budget,
    /// Ticks so far.
    clock: u8,
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    Deliver,
    Lose,
    /// It arrives, and may arrive once more.
    Double,
    /// One that did not arrive in its turn arrives.
    Arrive(usize),
    Begin(usize),
    Seek(u8),
    Replace(u8, Slot),
    Give(u8, Slot, Chunk, u8),
    Abort(u8),
    Crash(u8),
    Doubt(u8, u8),
    Trust(u8, u8),
    Tick(u8),
    Retry(usize),
    GiveUp(usize),
    Scrub(u8),
    Tend(u8),
}

impl World {
    fn press(&mut self) {
        self.nodes.iter_mut().flatten().for_each(Part::press);
        self.queue.iter_mut().for_each(Part::press);
        self.late.iter_mut().for_each(Part::press);
        self.late.sort_by_key(Part::print);
        self.ops.press();
    }

    fn prints(&self) -> impl Iterator<Item = u64> {
        let nodes = self.nodes.iter().map(|n| n.as_ref().map_or(0, Part::print));
        let queue = self.queue.iter().map(Part::print);
        nodes.chain(queue).chain([0]).chain(self.late.iter().map(Part::print)).chain([self.ops.print()])
    }

    fn up(&self) -> impl Iterator<Item = (u8, &Node)> {
        (0..).zip(&self.nodes).filter_map(|(i, n)| Some((i, &**n.as_ref()?)))
    }

    fn node(&self, i: u8) -> Option<&Node> {
        self.nodes.get(usize::from(i))?.as_deref()
    }

    fn time(&self) -> Time {
        START + TICK * u32::from(self.clock)
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.prints().for_each(|p| p.hash(state));
        (self.budget, self.clock, self.broken).hash(state);
    }
}

/// States are the same if they read the same.
impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        self.prints().eq(other.prints())
            && (self.budget, self.clock, self.broken) == (other.budget, other.clock, other.broken)
    }
}
