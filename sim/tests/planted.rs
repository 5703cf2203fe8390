//! Rules that are broken on purpose and must be noticed: those of the kernel that few runs suffice for (the others are
//! hunted by the command, see docs/simulation.md), and those of transactions.
#![cfg(feature = "planted")]

use dht::DhtNode;
use dht::plant::Plant;
use sim::planted::hunt;
use sim::{Profile, Scenario, Settings, run};
use std::thread;

/// Seeds in every way of looking; what is listed here took one or two when it was listed.
const SEEDS: u64 = 6;

/// Breaks rules one after the other, two at once, and demands that each is noticed.
fn must_be_hunted_down(plants: &[Plant]) {
    let work = |part: &[Plant]| {
        for plant in part {
            let found = hunt(*plant, 1, SEEDS);
            println!("{found}");
            assert!(found.caught.is_some(), "{found}");
        }
    };
    let (a, b) = plants.split_at(plants.len() / 2);
    thread::scope(|t| {
        t.spawn(|| work(a));
        work(b);
    });
}

#[test]
fn rules_of_epochs_and_of_their_change() {
    must_be_hunted_down(&[Plant::NoFreeze, Plant::NoFill, Plant::ReplicaReused, Plant::DecidedAlone]);
}

#[test]
fn rules_of_reigns_and_registers() {
    must_be_hunted_down(&[
        Plant::ReignFewer,
        Plant::ChosenFewer,
        Plant::AcceptBelowPromise,
        Plant::NPerKey,
        Plant::NBelowHigh,
        Plant::SyncNever,
        Plant::SyncFewer,
        Plant::KeysCarriedAlways,
        Plant::ConfirmNever,
        Plant::ConfirmBefore,
        Plant::ReadFewer,
    ]);
}

#[test]
fn rules_of_operation_ids_and_of_deletion() {
    must_be_hunted_down(&[
        Plant::OpsNotLooked,
        Plant::OpsFloorIgnored,
        Plant::AbsentFloorForgotten,
        Plant::OneNegativeIsDefinite,
        Plant::UnknownIsNotDone,
        Plant::DropByQuorum,
        Plant::FloorNotRaised,
    ]);
}

#[test]
fn rules_of_handover() {
    must_be_hunted_down(&[
        Plant::AbortAfterActivate,
        Plant::ServedEarly,
        Plant::GiverKeepsVoting,
        Plant::GiverKeepsReign,
        Plant::ChangesLeftOut,
        Plant::PromisesLeftBehind,
        Plant::DonatedLeftBehind,
    ]);
}

#[test]
fn rules_of_fills_and_frozen_memory() {
    must_be_hunted_down(&[Plant::FillFewer, Plant::DonatedNotNoted, Plant::ResumeUnrefused]);
}

/// Runs until a seed fails; the number of runs, and what was found.
fn caught(plant: Plant, profile: Profile, runs: u64) -> Option<(u64, String)> {
    (1..=runs).find_map(|seed| {
        let mut s = Settings::draw(seed, profile, Scenario::Transactions, 5, 250);
        s.config.planted = Some(plant);
        let violation = run::<DhtNode>(&s, false).violation.filter(|v| v.invariant == "I5")?;
        Some((seed, violation.to_string()))
    })
}

fn must_be_caught(plant: Plant, profile: Profile, runs: u64) {
    match caught(plant, profile, runs) {
        Some((seed, text)) => {
            println!("{plant:?}: seed {seed}: {}", text.lines().next().unwrap_or_default());
        }
        None => panic!("{plant:?} was not noticed in {runs} runs"),
    }
}

#[test]
fn a_pending_lock_must_not_be_released_without_its_ledger() {
    must_be_caught(Plant::PendingReleased, Profile::Messages, 400);
}

#[test]
fn a_pending_lock_of_a_transaction_that_validates_hides_the_old_value() {
    must_be_caught(Plant::PendingAlwaysOld, Profile::Steady, 800);
}

#[test]
fn a_lock_needs_the_version_seen() {
    must_be_caught(Plant::LockWithoutVersion, Profile::Steady, 50);
}

#[test]
fn validation_comes_after_the_locks() {
    must_be_caught(Plant::ValidateFirst, Profile::Steady, 200);
}

#[test]
fn what_was_only_read_is_validated() {
    must_be_caught(Plant::ValidateNever, Profile::Steady, 50);
}

#[test]
fn validation_sees_locks() {
    must_be_caught(Plant::ValidateIgnoresLocks, Profile::Steady, 200);
}

#[test]
fn an_absent_ledger_says_nothing_of_a_commit() {
    must_be_caught(Plant::AbsentIsCommitted, Profile::Crash, 400);
}

#[test]
fn only_what_the_ledger_lists_is_applied() {
    must_be_caught(Plant::ApplyUnlisted, Profile::Messages, 400);
}

#[test]
fn an_entry_is_done_after_its_locks_are_applied() {
    must_be_caught(Plant::DoneBeforeApplied, Profile::Messages, 400);
}

#[test]
fn a_ledger_is_not_closed_over_what_it_committed() {
    must_be_caught(Plant::ClosedUnapplied, Profile::Crash, 400);
}

#[test]
fn a_decision_that_was_not_heard_of_is_not_denied() {
    must_be_caught(Plant::UnknownIsAborted, Profile::Messages, 400);
}

#[test]
fn a_client_is_told_after_the_decision() {
    must_be_caught(Plant::ToldTooEarly, Profile::Messages, 400);
}

#[test]
fn a_read_takes_no_word_from_before_it_came() {
    must_be_caught(Plant::PendingStaleWord, Profile::Messages, 800);
}

#[test]
fn only_the_named_lock_is_ended() {
    must_be_caught(Plant::SettleAnyLock, Profile::Messages, 400);
}

#[test]
fn a_commit_leaves_its_id_with_the_keys() {
    must_be_caught(Plant::ApplyWithoutId, Profile::Messages, 400);
}

#[test]
fn what_may_be_forgotten_is_not_denied() {
    must_be_caught(Plant::ForgottenIsNever, Profile::Messages, 400);
}

#[test]
fn a_decision_makes_no_ledger() {
    must_be_caught(Plant::DecideCreates, Profile::Crash, 400);
}

#[test]
fn a_closed_ledger_says_nothing_of_a_commit_that_was_sent() {
    must_be_caught(Plant::ClosedIsAborted, Profile::Crash, 400);
}
