//! What clients do: sequential clients on few hot keys and many cold ones.
//!
//! Keeps:
//! 1. Every value written is written by one operation only, so that a value tells its writer.
//! 2. Counters are only added to, lists only prepended to; registers see every other change.

use crate::draw::Draw;
use crate::history::{Action, Outcome};
use std::collections::BTreeMap;
use store::{Change, Condition, Data, Key, Value};

/// After so many operations all keys are new ones. What becomes of the old ones is still seen at the end, and no key has
/// so many operations that nobody can order them.
const OPS_PER_GENERATION: u64 = 600;
const REGISTERS: u64 = 3;
const COUNTERS: u64 = 2;
const LISTS: u64 = 2;

/// The clients of a run.
#[derive(Debug)]
pub struct Workload {
    draw: Draw,
    cold_keys: u64,
    /// Every key is changed under conditions and deleted as registers are, and more often.
    is_hot: bool,
    /// Whether the first keys are used to the end.
    keeps_keys: bool,
    written: u64,
    asked: u64,
    /// What a client saw last of a key.
    seen: BTreeMap<(usize, Key), (Option<Value>, u64)>,
}

impl Workload {
    /// Clients over so many cold keys.
    pub fn new(draw: Draw, cold_keys: u64, is_hot: bool) -> Workload {
        Workload { draw, cold_keys, is_hot, keeps_keys: false, written: 0, asked: 0, seen: BTreeMap::new() }
    }

    /// The same clients, who use their first keys to the end: what moves with a growing ring is then the same data.
    pub fn keeping_keys(self, keeps_keys: bool) -> Workload {
        Workload { keeps_keys, ..self }
    }

    /// The draws of this workload.
    pub fn draw(&mut self) -> &mut Draw {
        &mut self.draw
    }

    /// The next operation of a client.
    pub fn next(&mut self, client: usize) -> (Key, Action) {
        let (kind, count) = match self.draw.below(10) {
            0..=2 => ('r', REGISTERS),
            3..=4 => ('c', COUNTERS),
            5 => ('l', LISTS),
            _ => ('k', self.cold_keys),
        };
        let generation = if self.keeps_keys { 0 } else { self.asked / OPS_PER_GENERATION };
        self.asked += 1;
        let name = format!("{kind}{}", generation * count + self.draw.below(count));
        let key = Key::new(name.as_bytes());
        let reads = if name.starts_with('k') { 400 } else { 350 };
        if self.draw.chance(reads) {
            return (key, Action::Get);
        }
        let change = if name.starts_with('r') || name.starts_with('k') && self.is_hot {
            self.register(client, &key)
        } else {
            self.plain(&key)
        };
        (key, Action::Change(change))
    }

    /// A change that every state of the key allows.
    pub fn plain(&mut self, key: &Key) -> Change {
        match key.as_bytes().first() {
            Some(b'c') => Change::AddOnNumber { by: Value::int(1) },
            Some(b'l') => Change::AddDelOnList {
                add: Value::encode(&Data::List(vec![self.unique().decode()])),
                remove: Value::encode(&Data::List(Vec::new())),
            },
            Some(_) | None => Change::Put { value: self.unique(), condition: Condition::Always },
        }
    }

    /// Notes what a client saw, for its conditions.
    pub fn saw(&mut self, client: usize, key: &Key, action: &Action, outcome: &Outcome) {
        let sight = match (outcome, action) {
            (Outcome::Value { value, version } | Outcome::Refused { value, version, .. }, _) => {
                (value.clone(), *version)
            }
            (Outcome::Changed { version, .. }, Action::Change(Change::Put { value, .. })) => {
                (Some(value.clone()), *version)
            }
            (Outcome::Changed { version, .. }, Action::Change(Change::TestAndSet { new, .. })) => {
                (Some(new.clone()), *version)
            }
            (Outcome::Changed { .. } | Outcome::Failed(_) | Outcome::Unknown, _) => return,
        };
        self.seen.insert((client, key.clone()), sight);
    }

    fn register(&mut self, client: usize, key: &Key) -> Change {
        let (value, version) = self.seen.get(&(client, key.clone())).cloned().unwrap_or((None, 0));
        let condition = match self.draw.below(4) {
            0 => Condition::Absent,
            1 if version > 0 => Condition::Version(version),
            _ => Condition::Always,
        };
        let deletes = if self.is_hot { 4..=6 } else { 4..=4 };
        match (self.draw.below(10), value) {
            (0..=3, Some(old)) => Change::TestAndSet { old, new: self.unique() },
            (n, _) if deletes.contains(&n) => Change::Delete {
                condition: if condition == Condition::Absent { Condition::Always } else { condition },
            },
            (_, _) => Change::Put { value: self.unique(), condition },
        }
    }

    fn unique(&mut self) -> Value {
        self.written += 1;
        let pad = if self.draw.chance(200) { self.draw.index(200) } else { 0 };
        Value::string(&format!("v{}{}", self.written, "-".repeat(pad)))
    }
}
