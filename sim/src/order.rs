//! Cheap checks of one key's history that need no search, and the report of all checks.
//!
//! Keeps:
//! 1. Versions never go back in real time, and a version has one value.
//! 2. A counter counted every acknowledged addition once, and an unknown one at most once.
//! 3. A list that is only added to holds each element at most once and every acknowledged one; this check is
//!    exact, so such keys need no search.

use crate::history::{Action, History, Op, Outcome};
use crate::invariants::{Violation, broken};
use crate::linearizability::{self, Verdict};
use num_bigint::BigInt;
use std::collections::BTreeMap;
use store::{Change, Data, Value};

/// Checks every key of a history; gives the number of keys whose search was given up.
pub fn check(history: &History) -> Result<usize, Violation> {
    let mut undecided = 0;
    for (key, ops) in history.by_key() {
        let named = |e: String| Violation { invariant: "I5", text: format!("key {key:?}: {e}") };
        versions_never_go_back(&ops).map_err(named)?;
        a_version_has_one_value(&ops).map_err(named)?;
        if is_list_of_additions(&ops) {
            list_keeps_all(&ops).map_err(named)?;
            continue;
        }
        counter_counts_once(&ops).map_err(named)?;
        match linearizability::check(&ops) {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Impossible(text) => {
                return broken("I5", format!("key {key:?} is not linearizable:\n{text}"));
            }
        }
    }
    Ok(undecided)
}

/// An operation that began after another one ended shows no lower version.
pub fn versions_never_go_back(ops: &[Op]) -> Result<(), String> {
    let mut ends: Vec<(u64, u64, &Op)> =
        ops.iter().filter_map(|o| Some((o.completed?, o.outcome.version()?, o))).collect();
    ends.sort_by_key(|e| e.0);
    let mut begins: Vec<(u64, &Op)> = ops.iter().filter_map(|o| Some((o.outcome.version()?, o))).collect();
    begins.sort_by_key(|b| b.1.invoked);
    let mut ends = ends.into_iter().peekable();
    let mut highest: Option<(u64, &Op)> = None;
    for (version, op) in begins {
        while let Some(e) = ends.next_if(|e| e.0 < op.invoked) {
            if highest.is_none_or(|h| h.0 < e.1) {
                highest = Some((e.1, e.2));
            }
        }
        if let Some((before, earlier)) = highest
            && before > version
        {
            return Err(format!("version {before} was followed by {version}:\n  {earlier}\n=>{op}"));
        }
    }
    Ok(())
}

/// All who saw a version saw the same value.
pub fn a_version_has_one_value(ops: &[Op]) -> Result<(), String> {
    let mut known: BTreeMap<u64, (Option<Value>, &Op)> = BTreeMap::new();
    for op in ops {
        let Some(version) = op.outcome.version() else { continue };
        let value = match (&op.outcome, &op.action) {
            (Outcome::Changed { value: Some(v), .. }, _) => Some(v.clone()),
            (Outcome::Changed { .. }, Action::Change(Change::Put { value, .. })) => Some(value.clone()),
            (Outcome::Changed { .. }, Action::Change(Change::TestAndSet { new, .. })) => Some(new.clone()),
            (Outcome::Changed { .. }, Action::Change(Change::Delete { .. })) => None,
            (Outcome::Changed { .. }, Action::Change(_) | Action::Get) => continue,
            (outcome, _) => outcome.sight().and_then(|s| s.0.clone()),
        };
        let (first, by) = known.entry(version).or_insert_with(|| (value.clone(), op));
        if *first != value {
            return Err(format!("version {version} has two values:\n  {by}\n=>{op}"));
        }
    }
    Ok(())
}

/// The last read of a counter lies between the acknowledged additions and those that may have been done.
pub fn counter_counts_once(ops: &[Op]) -> Result<(), String> {
    let (mut done, mut maybe) = (BigInt::ZERO, BigInt::ZERO);
    for op in ops {
        match (&op.action, &op.outcome) {
            (Action::Change(Change::AddOnNumber { by }), outcome) => {
                let Data::Int(by) = by.decode() else { return Ok(()) };
                if by < BigInt::ZERO {
                    return Ok(());
                }
                match outcome {
                    Outcome::Changed { .. } => done += by,
                    Outcome::Unknown => maybe += by,
                    Outcome::Value { .. } | Outcome::Refused { .. } | Outcome::Failed(_) => {}
                }
            }
            (Action::Change(_), _) => return Ok(()),
            (Action::Get, _) => {}
        }
    }
    let last_change = ops.iter().filter(|o| o.action != Action::Get).filter_map(|o| o.completed).max();
    let last = ops
        .iter()
        .rfind(|o| matches!(o.outcome, Outcome::Value { .. }) && last_change.is_none_or(|c| c < o.invoked));
    let Some(op) = last else { return Ok(()) };
    let total = match op.outcome.sight().and_then(|s| s.0.as_ref()).map(Value::decode) {
        None => BigInt::ZERO,
        Some(Data::Int(i)) => i,
        Some(other) => return Err(format!("a counter became {other:?}")),
    };
    if total < done || total > &done + &maybe {
        return Err(format!("{done} were counted and {maybe} may have been, but there is {total}:\n=>{op}"));
    }
    Ok(())
}

/// The one element that an operation adds, if it is a plain addition.
fn added(op: &Op) -> Option<Value> {
    let Action::Change(Change::AddDelOnList { add, remove }) = &op.action else { return None };
    match (add.decode(), remove.decode()) {
        (Data::List(a), Data::List(r)) if a.len() == 1 && r.is_empty() => a.first().map(Value::encode),
        (_, _) => None,
    }
}

fn is_list_of_additions(ops: &[Op]) -> bool {
    ops.iter().any(|o| o.action != Action::Get)
        && ops.iter().all(|o| {
            (o.action == Action::Get || added(o).is_some()) && !matches!(o.outcome, Outcome::Refused { .. })
        })
}

/// The elements that a read saw, oldest first.
fn elements(op: &Op) -> Option<Result<Vec<Value>, String>> {
    let Outcome::Value { value, .. } = &op.outcome else { return None };
    Some(match value.as_ref().map(Value::decode) {
        None => Ok(Vec::new()),
        Some(Data::List(l)) => Ok(l.iter().rev().map(Value::encode).collect()),
        Some(other) => Err(format!("a list became {other:?}:\n=>{op}")),
    })
}

/// A list that is only added to: the longest read tells the order of all additions.
pub fn list_keeps_all(ops: &[Op]) -> Result<(), String> {
    let mut reads: Vec<(&Op, Vec<Value>)> = Vec::new();
    for op in ops {
        if let Some(l) = elements(op) {
            reads.push((op, l?));
        }
    }
    let Some(order) = reads.iter().map(|r| &r.1).max_by_key(|l| l.len()).cloned() else { return Ok(()) };
    let mut place: BTreeMap<&Value, usize> = BTreeMap::new();
    for (i, e) in order.iter().enumerate() {
        if place.insert(e, i + 1).is_some() {
            return Err(format!("element {e:?} is there twice"));
        }
    }
    // Writes stand at their place, reads after the last one that they saw, what nobody saw at the end.
    let mut line: Vec<((usize, bool), u64, &Op)> = Vec::new();
    let mut adders: BTreeMap<Value, &Op> = BTreeMap::new();
    for op in ops {
        let Some(e) = added(op) else { continue };
        match (place.get(&e), &op.outcome) {
            (Some(_), Outcome::Failed(_)) => return Err(format!("a failed addition is there:\n=>{op}")),
            (Some(p), _) => line.push(((*p, false), 0, op)),
            (None, Outcome::Changed { version, .. }) => line.push(((usize::MAX, false), *version, op)),
            (None, _) => {}
        }
        adders.insert(e, op);
    }
    if let Some(e) = order.iter().find(|e| !adders.contains_key(*e)) {
        return Err(format!("element {e:?} was never added"));
    }
    for (op, list) in &reads {
        if !order.starts_with(list) {
            return Err(format!("a read saw another order than the longest one, {order:?}:\n=>{op}"));
        }
        line.push(((list.len(), true), op.invoked, op));
    }
    line.sort_by_key(|l| (l.0, l.1));
    let mut begun: Option<&Op> = None;
    let mut version = 0;
    for (_, _, op) in line {
        if let Some(b) = begun
            && op.last_moment() < b.invoked
        {
            return Err(format!(
                "the first ended before the second began, but came after it:\n=>{op}\n  {b}"
            ));
        }
        if let Some(v) = op.outcome.version() {
            if v < version || (v == version && op.action != Action::Get) {
                return Err(format!("version {v} after {version} in the order of the list:\n=>{op}"));
            }
            version = v;
        }
        if begun.is_none_or(|b| b.invoked < op.invoked) {
            begun = Some(op);
        }
    }
    Ok(())
}
