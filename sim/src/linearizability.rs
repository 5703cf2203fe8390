//! Whether the operations of one key can have taken effect one at a time, each between its invocation and
//! its completion: an exact search over all orders, with memory of what was tried.
//!
//! The search goes through invocations and completions in their order and keeps every pair of (state of the
//! key, open operations that already took effect) that can be. A completion leaves only pairs in which its
//! operation took effect. Where nothing is open all pairs agree but for unknown operations, so the search
//! starts afresh there by itself. An operation of unknown outcome stays open for ever; one that definitely
//! failed takes part in nothing.
//!
//! Keeps:
//! 1. A rejected history has no legal order; an accepted one has one; above [`PAIRS_MAX`] it says neither.
//! 2. Versions of a key only grow, across deletes too; an unknown write has a version nobody knows yet.
//!
//! Source: Wing and Gong 1993; Lowe 2017 (just-in-time linearization); per key by locality (Herlihy and Wing
//! 1990).

use crate::history::{Action, Op, Outcome};
use core::fmt::Write;
use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Condition, Outcome as Effect, Record, Value};

/// More pairs than this are not searched.
pub const PAIRS_MAX: usize = 50_000;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a legal order.
    Linearizable,
    /// There is none; the operations that show it, readable.
    Impossible(String),
    /// There were too many possibilities.
    Undecided,
}

/// The state of a key. With `is_exact` off its version is above `version`, nobody knows how far.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<Value>,
    version: u64,
    is_exact: bool,
}

type Pair = (State, BTreeSet<usize>);

/// Checks the operations of one key, which was absent at first.
pub fn check(ops: &[Op]) -> Verdict {
    let ops = useful(ops);
    match search(&ops) {
        Found::Legal => Verdict::Linearizable,
        Found::TooMany => Verdict::Undecided,
        Found::Stuck { at, states } => Verdict::Impossible(describe(&ops, at, &states)),
    }
}

enum Found {
    Legal,
    TooMany,
    Stuck { at: usize, states: Vec<State> },
}

/// Leaves out what can be left out without changing the verdict: void operations, and blind writes of
/// unknown outcome whose value nobody saw, unless a deletion, or a condition on a version that nobody was told,
/// may have needed one.
fn useful(ops: &[Op]) -> Vec<Op> {
    let told: BTreeSet<u64> = ops.iter().filter_map(|o| o.outcome.version()).collect();
    let is_guess = |o: &Op| match &o.action {
        Action::Change(c) => asked_version(c).is_some_and(|v| !told.contains(&v)),
        Action::Get => false,
    };
    let has_guess = ops.iter().any(is_guess);
    let has_delete = ops.iter().any(|o| matches!(o.action, Action::Change(Change::Delete { .. })));
    let seen: BTreeSet<&Value> =
        ops.iter().filter_map(|o| o.outcome.sight().and_then(|s| s.0.as_ref())).collect();
    let is_expected = |v: &Value| {
        ops.iter().any(|o| matches!(&o.action, Action::Change(Change::TestAndSet { old, .. }) if old == v))
    };
    let is_idle = |o: &Op| match (&o.outcome, &o.action) {
        (Outcome::Unknown, Action::Change(Change::Put { value, .. })) => {
            !has_delete && !has_guess && !seen.contains(value) && !is_expected(value)
        }
        (_, Action::Get | Action::Change(_)) => false,
    };
    let mut out: Vec<Op> = ops.iter().filter(|o| !o.is_void() && !is_idle(o)).cloned().collect();
    out.sort_by_key(|o| o.invoked);
    out
}

fn search(ops: &[Op]) -> Found {
    let mut moments: BTreeMap<(u64, bool), usize> = BTreeMap::new();
    for (i, op) in ops.iter().enumerate() {
        moments.insert((op.invoked, false), i);
        if op.last_moment() < u64::MAX {
            moments.insert((op.last_moment(), true), i);
        }
    }
    let start = State { value: None, version: 0, is_exact: true };
    let mut pairs: BTreeSet<Pair> = BTreeSet::from([(start, BTreeSet::new())]);
    let mut open: BTreeSet<usize> = BTreeSet::new();
    for ((_, is_completion), i) in moments {
        if !is_completion {
            open.insert(i);
            continue;
        }
        let Some(next) = complete(ops, &pairs, &open, i) else { return Found::TooMany };
        if next.is_empty() {
            let states: BTreeSet<State> = pairs.into_iter().map(|p| p.0).collect();
            return Found::Stuck { at: i, states: states.into_iter().take(5).collect() };
        }
        open.remove(&i);
        pairs = without_dominated(ops, next);
    }
    Found::Legal
}

/// The pairs in which operation `i` has taken effect, that operation itself left out; none if too many.
fn complete(ops: &[Op], pairs: &BTreeSet<Pair>, open: &BTreeSet<usize>, i: usize) -> Option<BTreeSet<Pair>> {
    let mut tried: BTreeSet<Pair> = BTreeSet::new();
    let mut work: Vec<Pair> = pairs.iter().cloned().collect();
    let mut out = BTreeSet::new();
    while let Some((state, mut taken)) = work.pop() {
        if taken.remove(&i) {
            out.insert((state, taken));
            continue;
        }
        if !tried.insert((state.clone(), taken.clone())) {
            continue;
        }
        if tried.len() > PAIRS_MAX {
            return None;
        }
        let mut unknown: Vec<&Action> = Vec::new();
        for j in open.iter().filter(|j| !taken.contains(j)) {
            let Some(op) = ops.get(*j) else { continue };
            if op.last_moment() == u64::MAX {
                // Of equal operations that stay open for ever the earliest goes first.
                if unknown.contains(&&op.action) {
                    continue;
                }
                unknown.push(&op.action);
            }
            if let Some(next) = step(&state, op) {
                let mut with = taken.clone();
                with.insert(*j);
                work.push((next, with));
            }
        }
    }
    Some(out)
}

/// Leaves out a pair if another has the same state and used fewer of the unknown operations.
fn without_dominated(ops: &[Op], pairs: BTreeSet<Pair>) -> BTreeSet<Pair> {
    if pairs.len() < 2 || pairs.len() > 2000 {
        return pairs;
    }
    let is_for_ever = |j: &usize| ops.get(*j).is_some_and(|o| o.last_moment() == u64::MAX);
    let all: Vec<Pair> = pairs.into_iter().collect();
    let is_dominated = |p: &Pair| {
        all.iter().any(|q| {
            q.0 == p.0
                && q.1.len() < p.1.len()
                && q.1.is_subset(&p.1)
                && p.1.difference(&q.1).all(is_for_ever)
        })
    };
    let keep: Vec<bool> = all.iter().map(|p| !is_dominated(p)).collect();
    all.iter().zip(keep).filter(|(_, k)| *k).map(|(p, _)| p.clone()).collect()
}

/// The state after an operation took effect with its outcome, if it can have.
fn step(state: &State, op: &Op) -> Option<State> {
    match (&op.action, &op.outcome) {
        (Action::Get, Outcome::Value { value, version }) => observe(state, value, *version),
        (Action::Change(change), Outcome::Changed { version, value }) => {
            match change.apply(&record_for(state, change), usize::MAX) {
                Effect::Write(new) => {
                    let is_told = value.is_none() || *value == new || !change.answers_value();
                    let is_legal = is_told && *version > state.version;
                    is_legal.then_some(State { value: new, version: *version, is_exact: true })
                }
                Effect::Nothing => observe(state, &state.value, *version),
                Effect::Refused(_) => None,
            }
        }
        (Action::Change(change), Outcome::Refused { refusal, version, value }) => {
            let state = observe(state, value, *version)?;
            let record = Record { version: state.version, value: state.value.clone(), ops: None };
            match change.apply(&record, usize::MAX) {
                Effect::Refused(r) if r == *refusal => Some(state),
                Effect::Refused(_) | Effect::Write(_) | Effect::Nothing => None,
            }
        }
        (Action::Change(change), Outcome::Unknown) => {
            let record = record_for(state, change);
            match change.apply(&record, usize::MAX) {
                Effect::Write(value) => {
                    Some(State { value, version: record.version.max(state.version), is_exact: false })
                }
                Effect::Nothing | Effect::Refused(_) => None,
            }
        }
        (Action::Get | Action::Change(_), _) => None,
    }
}

/// The version that a change is conditional on.
fn asked_version(change: &Change) -> Option<u64> {
    match change {
        Change::Put { condition: Condition::Version(v), .. }
        | Change::Delete { condition: Condition::Version(v) } => Some(*v),
        Change::Put { .. }
        | Change::Delete { .. }
        | Change::TestAndSet { .. }
        | Change::AddOnNumber { .. }
        | Change::AddDelOnList { .. } => None,
    }
}

/// The record in which `change` is tried: a version nobody knows is the one that the change asks for.
fn record_for(state: &State, change: &Change) -> Record {
    let version = match asked_version(change) {
        Some(v) if !state.is_exact && v > state.version => v,
        Some(_) | None => state.version,
    };
    Record { version, value: state.value.clone(), ops: None }
}

/// The state after a client saw the key with this value and version, if it can have.
fn observe(state: &State, value: &Option<Value>, version: u64) -> Option<State> {
    if state.value != *value {
        return None;
    }
    // A key that is not there may have been forgotten, and its version with it.
    if value.is_none() && version == 0 {
        return Some(state.clone());
    }
    let fits = if state.is_exact { version == state.version } else { version > state.version };
    fits.then(|| State { version, is_exact: true, ..state.clone() })
}

/// The operations that show the impossibility: what began before the stuck completion, reads left out as
/// long as it stays impossible.
fn describe(ops: &[Op], at: usize, states: &[State]) -> String {
    let Some(stuck) = ops.get(at) else { return String::new() };
    let mut shown: Vec<Op> = ops.iter().filter(|o| o.invoked <= stuck.last_moment()).cloned().collect();
    if shown.len() <= 300 {
        let mut i = 0;
        while i < shown.len() {
            let can_go = shown.get(i).is_some_and(|o| o.outcome.sight().is_some() && o != stuck);
            let gone = can_go.then(|| shown.remove(i));
            match gone {
                Some(op) if !matches!(search(&shown), Found::Stuck { .. }) => {
                    shown.insert(i, op);
                    i += 1;
                }
                Some(_) => {}
                None => i += 1,
            }
        }
    }
    let mut text = String::new();
    let skip = shown.len().saturating_sub(40);
    if skip > 0 {
        let _ = writeln!(text, "  ({skip} earlier operations left out)");
    }
    for op in shown.iter().skip(skip) {
        let mark = if op == stuck { "=>" } else { "  " };
        let _ = writeln!(text, "{mark}{op}");
    }
    let _ = write!(text, "  no order allows the marked one; the key could have been:");
    for s in states {
        let above = if s.is_exact { "" } else { "above " };
        let _ = write!(text, "\n    {:?} version {above}{}", s.value, s.version);
    }
    text
}
