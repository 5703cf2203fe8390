//! Real processes under real faults, in a network of their own, checked by what their clients saw.
//!
//! The histories are judged by the simulator's checkers: a key's operations have an order that agrees with real
//! time, additions count once, lists keep every element, what was reported as not done never shows.

#![allow(clippy::disallowed_methods, reason = "this program lives in real time and uses real threads")]

mod bank;
mod campaign;
mod cold;
mod door;
mod faults;
mod fleet;
mod network;
mod options;
mod recorder;
mod rolling;
mod sandbox;
mod starts;
mod statistics;
mod workload;

use campaign::Campaign;
use harness::{Res, binary};
use options::{Fault, Options, USAGE};
use std::path::PathBuf;
use std::process::ExitCode;

/// Asks whether this machine can run anything.
const CAN_RUN: &str = "--can-run";

fn directory(options: &Options) -> PathBuf {
    let base = std::env::var_os("KVNODE_CHAOS_DIR")
        .map_or_else(|| binary::target_dir().join("chaos"), PathBuf::from);
    base.join(format!("{:?}-{}", options.fault, options.seed).to_lowercase())
}

fn run_here(options: Options) -> Res<ExitCode> {
    sandbox::bind_life(options.limit);
    let mut campaign = Campaign::new(options, directory(&options))?;
    if options.fault == Fault::Bank {
        campaign.bank()?;
    } else if options.fault == Fault::Rolling {
        campaign.rolling()?;
    } else if options.fault == Fault::Start {
        campaign.starts()?;
    } else {
        campaign.start()?;
        campaign.rounds()?;
    }
    campaign.report();
    Ok(ExitCode::from(u8::from(!campaign.tally.failures.is_empty())))
}

fn run(args: &[String]) -> Res<ExitCode> {
    if args.iter().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    if args.first().is_some_and(|a| a == sandbox::INSIDE) {
        return run_here(Options::parse(args.get(1..).unwrap_or_default())?);
    }
    if args.first().is_none_or(|a| a != CAN_RUN) {
        Options::parse(args)?;
    }
    let can_run = sandbox::missing();
    if args.first().is_some_and(|a| a == CAN_RUN) && can_run.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(why) = can_run {
        println!("skipped: {why}");
        return Ok(ExitCode::from(sandbox::SKIPPED));
    }
    sandbox::run_inside(args)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    run(&args).unwrap_or_else(|e| {
        eprintln!("{e}");
        ExitCode::from(2)
    })
}
