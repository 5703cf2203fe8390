//! Real processes, real containers, real clients.
//!
//! The tests run one after another: they measure times, use the same ports, and share two cores with the
//! nodes they start. What this machine cannot run is listed as ignored, and named with its reason at the end.

#![allow(clippy::disallowed_methods, reason = "these tests live in real time")]

mod browser;
mod containers;
mod malformed;
mod monitoring;
mod processes;
mod reflection;
mod scalaris;
mod seeing;
mod wrong_use;

use harness::python::{BROWSER, GRPC, interpreter};
use harness::{Res, docker};
use libtest_mimic::{Arguments, Failed, Trial};

/// A test, and what it needs that a machine may not have.
struct Case {
    name: &'static str,
    run: fn() -> Res<()>,
    needs: Need,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Loopback addresses only.
    Nothing,
    /// A container engine.
    Engine,
    /// Python with two packages.
    Python,
    /// A browser, and Python that drives it.
    Browser,
    /// Prometheus and its tool.
    Prometheus,
}

const fn case(name: &'static str, run: fn() -> Res<()>, needs: Need) -> Case {
    Case { name, run, needs }
}

const CASES: &[Case] = &[
    case("processes::a_lone_node_answers_without_any_setting", processes::lone, Need::Nothing),
    case("processes::listen_address_wins_over_the_image", processes::listen_address_wins, Need::Nothing),
    case("processes::what_is_written_at_one_is_read_at_the_others", processes::three, Need::Nothing),
    case("processes::a_ring_grows_to_nine_and_shrinks_to_one", processes::grow_and_shrink, Need::Nothing),
    case("processes::writes_go_on_when_any_one_is_killed", processes::kill_one, Need::Nothing),
    case("processes::a_node_told_to_leave_is_not_missed", processes::leave_one, Need::Nothing),
    case("processes::the_first_comes_home_after_a_crash", processes::first_comes_home, Need::Nothing),
    case("wrong_use::a_port_that_is_taken", wrong_use::port_taken, Need::Nothing),
    case("wrong_use::an_address_that_is_not_ours", wrong_use::foreign_address, Need::Nothing),
    case("wrong_use::a_host_that_does_not_resolve", wrong_use::unresolvable_host, Need::Nothing),
    case("wrong_use::a_host_that_is_something_else", wrong_use::host_of_another_kind, Need::Nothing),
    case("wrong_use::another_replication_factor", wrong_use::other_replication_factor, Need::Nothing),
    case("wrong_use::a_key_that_is_too_long", wrong_use::key_too_long, Need::Nothing),
    case("wrong_use::a_value_that_is_too_long", wrong_use::value_too_long, Need::Nothing),
    case("wrong_use::two_rings_with_data", wrong_use::two_rings_with_data, Need::Nothing),
    case("wrong_use::a_flag_or_variable_that_does_not_exist", wrong_use::unknown_setting, Need::Nothing),
    case("wrong_use::a_key_that_is_not_there", wrong_use::missing_key, Need::Nothing),
    case("wrong_use::bytes_that_are_no_request", malformed::garbage, Need::Nothing),
    case("scalaris::what_json_writes_grpc_reads_at_the_others", scalaris::one_store, Need::Nothing),
    case("scalaris::nodes_come_and_go_within_a_process", scalaris::virtual_nodes, Need::Nothing),
    case("scalaris::a_client_ends_a_process", scalaris::shutdown_vm, Need::Nothing),
    case("scalaris::the_example_moves_money_whole", scalaris::example, Need::Nothing),
    case("scalaris::the_grpc_example_moves_money_whole", scalaris::grpc_example, Need::Python),
    case("reflection::a_client_that_knows_nothing_learns_the_interface", reflection::learns, Need::Python),
    case("seeing::an_idle_ring_writes_no_log", seeing::quiet, Need::Nothing),
    case("seeing::command_line_and_dashboard_tell_the_same", seeing::same_facts, Need::Nothing),
    case("seeing::as_many_may_fail_as_it_says", seeing::tolerated_is_true, Need::Nothing),
    case("seeing::a_ring_of_a_thousand_is_told", seeing::large_ring, Need::Nothing),
    case("browser::the_dashboard_does_what_a_reader_does", browser::dashboard, Need::Browser),
    case("monitoring::alert_rules_fire_when_they_should", monitoring::rules, Need::Prometheus),
    case("monitoring::every_panel_has_data", monitoring::panels, Need::Prometheus),
    case("containers::three_serve_within_two_seconds", containers::three, Need::Engine),
    case("containers::writes_go_on_when_any_one_is_killed", containers::kill_one, Need::Engine),
    case("containers::one_that_is_stopped_is_not_missed", containers::stop_one, Need::Engine),
    case("containers::the_first_comes_home_after_a_crash", containers::first_comes_home, Need::Engine),
    case("containers::one_without_settings_is_usable", containers::lone, Need::Engine),
];

/// Why a need is not met here.
fn unmet(need: Need, wanted: bool) -> Option<String> {
    if !wanted {
        return None;
    }
    match need {
        Need::Nothing => None,
        Need::Engine => docker::missing(),
        Need::Python => interpreter(GRPC).err(),
        Need::Browser => browser::missing().or_else(|| interpreter(BROWSER).err()),
        Need::Prometheus => monitoring::missing(),
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let runs = |need| {
        let chosen = |c: &&Case| arguments.filter.as_ref().is_none_or(|f| c.name.contains(f.as_str()));
        !arguments.list && CASES.iter().filter(chosen).any(|c| c.needs == need)
    };
    let no_engine = unmet(Need::Engine, runs(Need::Engine));
    let no_python = unmet(Need::Python, runs(Need::Python));
    let no_browser = unmet(Need::Browser, runs(Need::Browser));
    let no_prometheus = unmet(Need::Prometheus, runs(Need::Prometheus));
    let mut skipped = Vec::new();
    let mut trials = Vec::new();
    for c in CASES {
        let reason = match c.needs {
            Need::Nothing => None,
            Need::Engine => no_engine.as_ref(),
            Need::Python => no_python.as_ref(),
            Need::Browser => no_browser.as_ref(),
            Need::Prometheus => no_prometheus.as_ref(),
        };
        let run = c.run;
        trials.push(
            Trial::test(c.name, move || run().map_err(Failed::from)).with_ignored_flag(reason.is_some()),
        );
        skipped.extend(reason.map(|r| (c.name, r)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for (name, reason) in skipped {
        println!("skipped: {name}: {reason}");
    }
    conclusion.exit();
}
