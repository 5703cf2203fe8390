//! A few rounds of every kind, as a part of the test suite. Where namespaces cannot be had all of them are
//! ignored, and named with the reason.

use harness::binary;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::Command;

/// A name, and the arguments of the run.
const RUNS: &[(&str, &str)] = &[
    ("chaos::a_crash_loses_nothing_and_heals", "--fault kill --rounds 2 --limit 60"),
    ("chaos::a_partition_loses_nothing_and_heals", "--fault partition-one --rounds 1 --limit 60"),
    ("chaos::the_first_node_comes_home", "--fault home --rounds 1 --nodes 3 --limit 60"),
    ("chaos::a_rolling_restart_is_not_noticed", "--fault rolling --rounds 1 --nodes 3 --limit 60"),
    ("chaos::money_stays_the_same", "--fault bank --rounds 1 --limit 60"),
];

const PROGRAM: &str = env!("CARGO_BIN_EXE_kvnode-chaos");

fn run(args: &str) -> Result<(), Failed> {
    let node = binary::kvnode()?;
    let out = Command::new(PROGRAM)
        .args(args.split(' '))
        .env("WIRE_TEST_BINARY", node)
        .output()
        .map_err(|e| format!("cannot run {PROGRAM}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Err(format!("{PROGRAM} {args} ended with {}:\n{said}{complained}", out.status).into())
}

/// Why nothing can be run here.
fn missing() -> Option<String> {
    match Command::new(PROGRAM).arg("--can-run").output() {
        Ok(out) if out.status.success() => None,
        Ok(out) => Some(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        Err(e) => Some(format!("cannot run {PROGRAM}: {e}")),
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    // They measure times, and share few cores with the nodes they start.
    arguments.test_threads = Some(1);
    let reason = if arguments.list { None } else { missing() };
    let trials = RUNS
        .iter()
        .map(|(name, args)| Trial::test(*name, move || run(args)).with_ignored_flag(reason.is_some()));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Some(reason) = reason {
        for (name, _) in RUNS {
            println!("{name}: {reason}");
        }
    }
    conclusion.exit();
}
