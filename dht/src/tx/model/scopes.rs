//! What is searched, and that broken rules are found.

use super::steps::ALL_COMMIT;
use super::*;
use paxos::Configuration;
use ring::{Extent, RingId};
use stateright::{Checker, HasDiscoveries, Model};
use std::sync::Arc;
use store::Ballot;

fn scope(clients: Vec<(u8, Vec<Do>)>) -> Scope {
    let configuration = Arc::new(Configuration::new(RingId(1), 1, Vec::new()));
    let ballot = Ballot { counter: 1, node: NodeId(9) };
    let reign = Reign::seeking(0, Extent::new(0, 99), ballot, configuration, 0, 1, 1, START);
    Scope {
        clients,
        present: "",
        may_crash: true,
        faults: 0,
        again: 0,
        conflicts: 0,
        window: 8,
        planted: None,
        reign,
    }
}

/// Nobody else is there.
fn alone() -> Scope {
    Scope { faults: 1, ..scope(vec![(0, vec![Do::Whole("", "xy")])]) }
}

/// Each reads what the other writes.
fn skew() -> Scope {
    scope(vec![(0, vec![Do::Whole("x", "y")]), (1, vec![Do::Whole("y", "x")])])
}

/// One moves something from x to y, the other looks at both.
fn transfer() -> Scope {
    scope(vec![(0, vec![Do::Whole("xy", "xy")]), (1, vec![Do::Whole("xy", "")])])
}

/// Both change both.
fn increments() -> Scope {
    scope(vec![(0, vec![Do::Whole("xy", "xy")]), (1, vec![Do::Whole("xy", "xy")])])
}

/// What the first has read is written, and then what it writes is read.
fn old_value() -> Scope {
    scope(vec![(0, vec![Do::Whole("x", "y")]), (1, vec![Do::Put('x'), Do::Get('y')])])
}

/// The keys are read one after the other, without a transaction.
fn two_reads() -> Scope {
    scope(vec![(0, vec![Do::Whole("", "xy")]), (1, vec![Do::Get('x'), Do::Get('y')])])
}

/// One of the keys is always there.
fn absent_in_turn() -> Scope {
    let turns = vec![Do::Put('x'), Do::Delete('y'), Do::Put('y'), Do::Delete('x')];
    Scope { present: "y", ..scope(vec![(0, vec![Do::Whole("xy", "")]), (1, turns)]) }
}

/// A commit is asked for again, while one of its keys is written.
fn asked_again() -> Scope {
    scope(vec![(0, vec![Do::Logged("xy", "xy")]), (1, vec![Do::Put('x')])])
}

/// The same, and nobody writes between.
fn asked_again_alone() -> Scope {
    scope(vec![(0, vec![Do::Logged("xy", "xy")])])
}

/// It only reads one of its keys, locks that too because it has met conflicts, and that is written between.
fn asked_again_after_conflicts() -> Scope {
    let put = vec![Do::Put('x'), Do::Get('y')];
    let scope = scope(vec![(0, vec![Do::Logged("xy", "y")]), (1, put)]);
    Scope { conflicts: 2, window: 1, ..scope }
}

/// Searches everything.
fn holds(name: &str, scope: Scope) {
    let checker = scope.checker().threads(2).spawn_bfs().join();
    let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {unique} states, {depth} steps deep");
    checker.assert_properties();
}

/// Searches until something is wrong.
fn fails(planted: Plant, scope: Scope) {
    let scope = Scope { planted: Some(planted), ..scope };
    let checker = scope.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let failed = checker.discoveries().into_iter().find(|d| *d.0 != *ALL_COMMIT);
    let Some((name, path)) = failed else { panic!("{planted:?} was not noticed") };
    println!(
        "{planted:?}: {} steps, {} states: {name}",
        path.into_actions().len(),
        checker.unique_state_count()
    );
}

#[test]
fn a_transaction_alone_is_done_or_not_whatever_is_lost() {
    holds("alone", alone());
}

#[test]
fn two_that_read_what_the_other_writes_have_an_order() {
    holds("skew", skew());
}

#[test]
fn a_reader_sees_all_of_a_transfer_or_nothing() {
    holds("transfer", Scope { window: 1, ..transfer() });
}

#[test]
fn reads_without_a_transaction_are_in_order_with_transactions() {
    holds("old value", old_value());
    holds("two reads", Scope { window: 1, ..two_reads() });
}

#[test]
fn keys_that_were_absent_in_turn_were_not_absent_together() {
    holds("absent in turn", Scope { faults: 1, ..absent_in_turn() });
}

#[test]
fn a_commit_asked_for_again_is_done_once() {
    holds("asked again", Scope { may_crash: false, window: 1, ..asked_again() });
    holds("asked again after a crash", asked_again_alone());
    holds("asked again after conflicts", asked_again_after_conflicts());
}

/// Some minutes, with `--release`.
#[test]
#[ignore = "minutes; run by hand with --release -- --ignored"]
fn larger_scopes() {
    holds("alone and two faults", Scope { faults: 2, may_crash: false, ..alone() });
    holds("old value and a fault", Scope { faults: 1, ..old_value() });
    holds("asked again and a fault", Scope { faults: 1, may_crash: false, ..asked_again() });
    holds("asked again, crash", asked_again());
    holds("transfer, all at once", transfer());
    holds("skew, tried again", Scope { again: 1, may_crash: false, ..skew() });
    holds("skew and a fault", Scope { faults: 1, ..skew() });
    holds("both change both", increments());
}

#[test]
fn broken_rules_are_found() {
    let steady = |s: Scope| Scope { may_crash: false, faults: 0, ..s };
    let faulty = |faults, s: Scope| Scope { may_crash: false, faults, ..s };
    fails(Plant::RepeatedLocksReads, asked_again_after_conflicts());
    fails(Plant::PendingReleased, steady(alone()));
    fails(Plant::PendingAlwaysOld, steady(old_value()));
    fails(Plant::PendingStaleWord, steady(two_reads()));
    fails(Plant::LockWithoutVersion, steady(asked_again()));
    fails(Plant::ValidateFirst, steady(skew()));
    fails(Plant::ValidateNever, steady(skew()));
    fails(Plant::ValidateIgnoresLocks, steady(skew()));
    fails(Plant::AbsentAnytime, steady(absent_in_turn()));
    fails(Plant::AbsentIsCommitted, faulty(1, alone()));
    fails(Plant::ApplyUnlisted, steady(alone()));
    fails(Plant::ApplyWithoutId, asked_again_alone());
    fails(Plant::DoneBeforeApplied, steady(two_reads()));
    fails(Plant::ClosedUnapplied, Scope { faults: 0, ..two_reads() });
    fails(Plant::DecideCreates, faulty(1, alone()));
    fails(Plant::UnknownIsAborted, faulty(1, alone()));
    fails(Plant::ClosedIsAborted, faulty(2, alone()));
    fails(Plant::ToldTooEarly, steady(alone()));
}
