//! What clients did and saw: operations with the moments of their invocation and completion.
//!
//! Keeps:
//! 1. Moments are numbers of the run's one sequence of events, so any two are ordered.
//! 2. An outcome is done, definitely not done, or unknown; an operation without an answer is unknown.

use core::fmt;
use dht::{Failure, Reply};
use ring::Time;
use std::collections::BTreeMap;
use store::{Change, Key, Refusal, Value};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A linearizable read.
    Get,
    /// A change.
    Change(Change),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The read answered this state.
    Value {
        /// The value, if the key was there.
        value: Option<Value>,
        /// Its version; 0 if the key was not there and nothing is remembered.
        version: u64,
    },
    /// The change was done.
    Changed {
        /// The version after it.
        version: u64,
        /// The value after it, where it was told.
        value: Option<Value>,
    },
    /// The change was not done, for a reason in the key's state, which was this.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The version.
        version: u64,
        /// The value.
        value: Option<Value>,
    },
    /// Definitely not done.
    Failed(String),
    /// Done, not done, or done later.
    Unknown,
}

impl Outcome {
    /// The outcome that a node's reply tells; an answer that does not fit the request is unknown.
    pub fn of(reply: Option<Reply>) -> Outcome {
        match reply {
            Some(Reply::Value { value, version }) => Outcome::Value { value, version },
            Some(Reply::Changed { version, value }) => Outcome::Changed { version, value },
            Some(Reply::Refused { refusal, version, value }) => Outcome::Refused { refusal, version, value },
            Some(Reply::Failed(Failure::Unknown { .. })) => Outcome::Unknown,
            Some(Reply::Failed(other)) => Outcome::Failed(crate::coverage::variant(&other)),
            Some(
                Reply::Ok
                | Reply::Status(_)
                | Reply::Insight(_)
                | Reply::Inspected(_)
                | Reply::Members(_)
                | Reply::Ring(_)
                | Reply::Transacted(_)
                | Reply::Located(_)
                | Reply::Salvaged(_)
                | Reply::Dissolved(_)
                | Reply::Scanned { .. }
                | Reply::Left { .. },
            )
            | None => Outcome::Unknown,
        }
    }

    /// Whether the client got what it asked for.
    pub fn is_answered(&self) -> bool {
        matches!(self, Outcome::Value { .. } | Outcome::Changed { .. } | Outcome::Refused { .. })
    }

    /// The version it tells, if it tells one.
    pub fn version(&self) -> Option<u64> {
        match self {
            Outcome::Value { version, .. }
            | Outcome::Changed { version, .. }
            | Outcome::Refused { version, .. } => Some(*version).filter(|v| *v > 0),
            Outcome::Failed(_) | Outcome::Unknown => None,
        }
    }

    /// The state of the key that it shows, value and version, if it shows one.
    pub fn sight(&self) -> Option<(&Option<Value>, u64)> {
        match self {
            Outcome::Value { value, version } | Outcome::Refused { value, version, .. } => {
                Some((value, *version))
            }
            Outcome::Changed { .. } | Outcome::Failed(_) | Outcome::Unknown => None,
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who.
    pub client: usize,
    /// What.
    pub action: Action,
    /// When it was asked, in the sequence of all events.
    pub invoked: u64,
    /// When it was answered; none while it was not.
    pub completed: Option<u64>,
    /// The same moments on the clock, for people.
    pub times: (Time, Option<Time>),
    /// What came of it.
    pub outcome: Outcome,
}

impl Op {
    /// When it can have taken effect at the latest: an unknown one at any time.
    pub fn last_moment(&self) -> u64 {
        match (&self.outcome, self.completed) {
            (Outcome::Unknown, _) | (_, None) => u64::MAX,
            (_, Some(at)) => at,
        }
    }

    /// Whether it can never have taken effect nor shown anything.
    pub fn is_void(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
            || (self.outcome == Outcome::Unknown && self.action == Action::Get)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:>6} .. ", self.invoked)?;
        match self.completed {
            Some(c) => write!(f, "{c:>6}] {} .. {}", self.times.0, self.times.1.unwrap_or_default())?,
            None => write!(f, " never] {} .. never", self.times.0)?,
        }
        write!(f, " client {}: {} -> {:?}", self.client, Action::text(&self.action), self.outcome)
    }
}

impl Action {
    fn text(&self) -> String {
        match self {
            Action::Get => "Get".to_owned(),
            Action::Change(c) => format!("{c:?}"),
        }
    }
}

/// All operations of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    ops: Vec<(Key, Op)>,
}

impl History {
    /// Notes an invocation and names it.
    pub fn invoke(&mut self, client: usize, key: Key, action: Action, at: (u64, Time)) -> usize {
        let op = Op {
            client,
            action,
            invoked: at.0,
            completed: None,
            times: (at.1, None),
            outcome: Outcome::Unknown,
        };
        self.ops.push((key, op));
        self.ops.len() - 1
    }

    /// Notes what came of it.
    pub fn complete(&mut self, id: usize, outcome: Outcome, at: (u64, Time)) {
        if let Some((_, op)) = self.ops.get_mut(id) {
            op.outcome = outcome;
            op.completed = Some(at.0);
            op.times.1 = Some(at.1);
        }
    }

    /// All operations in the order of invocation.
    pub fn iter(&self) -> impl Iterator<Item = &(Key, Op)> {
        self.ops.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operations by key, each in the order of invocation.
    pub fn by_key(&self) -> BTreeMap<Key, Vec<Op>> {
        let mut out: BTreeMap<Key, Vec<Op>> = BTreeMap::new();
        for (k, op) in &self.ops {
            out.entry(k.clone()).or_default().push(op.clone());
        }
        out
    }
}
