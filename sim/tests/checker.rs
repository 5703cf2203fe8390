//! The checkers reject bad histories and accept good ones.

#![allow(clippy::wildcard_enum_match_arm, reason = "toys and written histories know few of the cases")]

use proptest::prelude::*;
use ring::Time;
use sim::history::{Action, History, Outcome};
use sim::linearizability::{self, Verdict};
use sim::order;
use store::{Change, Condition, Data, Key, Outcome as Effect, Record, Refusal, Value};

/// One operation of a written history: from, to (0: never), what, outcome.
type Line = (u64, u64, Action, Outcome);

fn text(s: &str) -> Value {
    Value::string(s)
}
fn put(s: &str) -> Action {
    Action::Change(Change::Put { value: text(s), condition: Condition::Always })
}
fn delete() -> Action {
    Action::Change(Change::Delete { condition: Condition::Always })
}
fn add_one() -> Action {
    Action::Change(Change::AddOnNumber { by: Value::int(1) })
}
fn append(s: &str) -> Action {
    let list = |v: Vec<Data>| Value::encode(&Data::List(v));
    Action::Change(Change::AddDelOnList { add: list(vec![Data::String(s.into())]), remove: list(vec![]) })
}
fn done(version: u64) -> Outcome {
    Outcome::Changed { version, value: None }
}
fn sum(version: u64, i: i64) -> Outcome {
    Outcome::Changed { version, value: Some(Value::int(i)) }
}
fn saw(version: u64, s: &str) -> Outcome {
    Outcome::Value { value: Some(text(s)), version }
}
fn saw_int(version: u64, i: i64) -> Outcome {
    Outcome::Value { value: Some(Value::int(i)), version }
}
fn saw_list(version: u64, newest_first: &[&str]) -> Outcome {
    let l = newest_first.iter().map(|s| Data::String((*s).into())).collect();
    Outcome::Value { value: Some(Value::encode(&Data::List(l))), version }
}
fn absent(version: u64) -> Outcome {
    Outcome::Value { value: None, version }
}
fn failed() -> Outcome {
    Outcome::Failed("Unavailable".into())
}

fn history(lines: &[Line]) -> History {
    let mut h = History::default();
    for (i, (from, _, action, _)) in lines.iter().enumerate() {
        h.invoke(i, Key::new(b"k"), action.clone(), (*from, Time(*from)));
    }
    for (i, (_, to, _, outcome)) in lines.iter().enumerate().filter(|l| l.1.1 > 0) {
        h.complete(i, outcome.clone(), (*to, Time(*to)));
    }
    h
}

/// Rejected by the search alone, and by all checks together.
fn rejected(lines: &[Line]) {
    let h = history(lines);
    let ops: Vec<_> = h.iter().map(|o| o.1.clone()).collect();
    let verdict = linearizability::check(&ops);
    assert!(matches!(verdict, Verdict::Impossible(_)), "{verdict:?}");
    assert!(order::check(&h).is_err());
}

fn accepted(lines: &[Line]) {
    let h = history(lines);
    let ops: Vec<_> = h.iter().map(|o| o.1.clone()).collect();
    assert_eq!(linearizability::check(&ops), Verdict::Linearizable);
    assert_eq!(order::check(&h), Ok(0));
}

#[test]
fn a_stale_read_is_rejected() {
    rejected(&[(1, 2, put("a"), done(1)), (3, 4, put("b"), done(2)), (5, 6, Action::Get, saw(1, "a"))]);
}

#[test]
fn a_lost_write_is_rejected() {
    rejected(&[(1, 2, put("a"), done(1)), (3, 4, Action::Get, absent(0))]);
    rejected(&[
        (1, 2, append("a"), done(1)),
        (3, 4, append("b"), done(2)),
        (5, 6, Action::Get, saw_list(2, &["b"])),
    ]);
}

#[test]
fn a_double_increment_is_rejected() {
    rejected(&[
        (1, 2, add_one(), sum(1, 1)),
        (3, 4, add_one(), sum(2, 2)),
        (5, 6, Action::Get, saw_int(3, 3)),
    ]);
    // An unknown one may have been done once, not twice.
    rejected(&[(1, 0, add_one(), Outcome::Unknown), (5, 6, Action::Get, saw_int(3, 2))]);
}

#[test]
fn a_failed_write_that_is_seen_is_rejected() {
    rejected(&[(1, 2, put("a"), done(1)), (3, 4, put("b"), failed()), (5, 6, Action::Get, saw(2, "b"))]);
    rejected(&[(1, 2, append("a"), failed()), (5, 6, Action::Get, saw_list(2, &["a"]))]);
}

#[test]
fn a_read_that_goes_back_is_rejected() {
    rejected(&[
        (1, 2, put("a"), done(1)),
        (3, 20, put("b"), done(2)),
        (5, 6, Action::Get, saw(2, "b")),
        (7, 8, Action::Get, saw(1, "a")),
    ]);
}

#[test]
fn a_resurrected_delete_is_rejected() {
    rejected(&[(1, 2, put("a"), done(1)), (3, 4, delete(), done(2)), (5, 6, Action::Get, saw(1, "a"))]);
    rejected(&[
        (1, 2, put("a"), done(1)),
        (3, 4, delete(), done(2)),
        (5, 6, Action::Get, absent(2)),
        (7, 8, Action::Get, saw(3, "a")),
    ]);
}

#[test]
fn versions_that_go_back_are_rejected() {
    rejected(&[(1, 2, put("a"), done(5)), (3, 4, put("b"), done(4))]);
    rejected(&[(1, 2, put("a"), done(5)), (3, 4, delete(), done(6)), (5, 6, put("b"), done(6))]);
}

#[test]
fn a_refusal_that_no_state_gives_is_rejected() {
    let absent_only = Action::Change(Change::Put { value: text("x"), condition: Condition::Absent });
    let exists = Outcome::Refused { refusal: Refusal::Exists, version: 1, value: Some(text("a")) };
    accepted(&[(1, 2, put("a"), done(1)), (3, 4, absent_only.clone(), exists.clone())]);
    rejected(&[(1, 2, put("a"), done(1)), (3, 4, delete(), done(2)), (5, 6, absent_only, exists)]);
}

#[test]
fn an_element_twice_is_rejected() {
    rejected(&[(1, 2, append("a"), done(1)), (3, 4, Action::Get, saw_list(2, &["a", "a"]))]);
}

#[test]
fn overlapping_operations_may_take_either_order() {
    accepted(&[
        (1, 10, put("a"), done(2)),
        (2, 11, put("b"), done(1)),
        (3, 4, Action::Get, absent(0)),
        (5, 6, Action::Get, saw(1, "b")),
        (12, 13, Action::Get, saw(2, "a")),
    ]);
}

#[test]
fn an_unknown_write_may_come_late_or_never() {
    accepted(&[
        (1, 0, put("u"), Outcome::Unknown),
        (2, 3, put("a"), done(1)),
        (4, 5, Action::Get, saw(1, "a")),
        (6, 7, Action::Get, saw(9, "u")),
        (8, 9, put("b"), done(10)),
    ]);
    accepted(&[(1, 0, put("u"), Outcome::Unknown), (2, 3, Action::Get, absent(0))]);
    accepted(&[
        (1, 0, append("u"), Outcome::Unknown),
        (2, 3, append("a"), done(1)),
        (4, 5, Action::Get, saw_list(4, &["u", "a"])),
    ]);
    // But once only.
    rejected(&[
        (1, 0, put("u"), Outcome::Unknown),
        (4, 5, Action::Get, saw(1, "u")),
        (6, 7, put("a"), done(2)),
        (8, 9, Action::Get, saw(3, "u")),
    ]);
}

#[test]
fn many_unknown_increments_are_no_burden() {
    let mut lines: Vec<Line> = (0..40).map(|i| (i + 1, 0, add_one(), Outcome::Unknown)).collect();
    for i in 0..20u64 {
        let t = 100 + 10 * i;
        lines.push((t, t + 1, add_one(), sum(100 + 10 * i, 1 + i64::try_from(i * 2).expect("small"))));
    }
    accepted(&lines);
}

/// A real register under random overlap: each operation takes effect at its own moment inside its interval,
/// and some outcomes are hidden.
fn real(choices: &[(u8, u8, u8, u8)], kind: u8) -> Vec<Line> {
    let mut record = Record::default();
    let mut lines: Vec<Line> = Vec::new();
    for (i, (what, before, after, fate)) in choices.iter().enumerate() {
        let n = u64::try_from(i).expect("small") + 1;
        let moment = n * 100;
        // Odd numbers apart from each other keep all moments different.
        let from = (moment - u64::from(*before).min(99 + moment - 100)).saturating_mul(1000) + n * 2;
        let to = (moment + u64::from(*after)) * 1000 + n * 2 + 1;
        let action = match (kind, what % 8) {
            (_, 0..=2) => Action::Get,
            (0, _) => add_one(),
            (1, _) => append(&format!("e{i}")),
            (_, 3) => delete(),
            (_, 4) => Action::Change(Change::Put {
                value: text(&format!("v{i}")),
                condition: Condition::Version(record.version),
            }),
            (_, 5) => Action::Change(Change::TestAndSet {
                old: record.value.clone().unwrap_or(text("none")),
                new: text(&format!("v{i}")),
            }),
            (_, 6) => {
                Action::Change(Change::Put { value: text(&format!("v{i}")), condition: Condition::Absent })
            }
            (_, _) => put(&format!("v{i}")),
        };
        let is_failed = fate % 16 == 1 && action != Action::Get;
        let outcome = match &action {
            _ if is_failed => failed(),
            Action::Get => Outcome::Value { value: record.value.clone(), version: record.version },
            Action::Change(c) => match c.apply(&record, usize::MAX) {
                Effect::Write(value) => {
                    let told = value.clone().filter(|_| c.answers_value());
                    record = Record { version: n, value, ops: None };
                    Outcome::Changed { version: n, value: told }
                }
                Effect::Nothing => Outcome::Changed { version: record.version, value: None },
                Effect::Refused(refusal) => {
                    Outcome::Refused { refusal, version: record.version, value: record.value.clone() }
                }
            },
        };
        if fate % 8 == 0 {
            lines.push((from, 0, action, Outcome::Unknown));
        } else {
            lines.push((from, to, action, outcome));
        }
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_a_real_register_does_is_accepted(
        choices in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..60), kind in 0u8..3,
    ) {
        let h = history(&real(&choices, kind));
        prop_assert_eq!(order::check(&h), Ok(0));
    }

    #[test]
    fn a_read_of_what_was_overwritten_is_rejected(
        choices in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 5..40), kind in 0u8..3,
    ) {
        let mut lines = real(&choices, kind);
        let end = lines.iter().map(|l| l.1.max(l.0)).max().unwrap_or(0) + 10;
        let versions: Vec<u64> = lines.iter().filter_map(|l| l.3.version()).collect();
        let Some(old) = lines.iter().find_map(|l| match &l.3 {
            Outcome::Value { value: Some(v), version }
                if versions.iter().any(|w| w > version) => Some((v.clone(), *version)),
            _ => None,
        }) else { return Ok(()) };
        lines.push((end, end + 1, Action::Get, Outcome::Value { value: Some(old.0), version: old.1 }));
        prop_assert!(order::check(&history(&lines)).is_err());
    }
}
