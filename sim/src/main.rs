//! The simulator's command: runs seeds, prints totals, and how to replay what failed.

use dht::DhtNode;
use dht::plant::Plant;
use sim::report::Totals;
use sim::{Outcome, Profile, Scenario, Settings, run, swarm};
use std::cell::RefCell;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "kvnode-sim: seeded simulation of many nodes, with faults, checked

  --seeds N          how many seeds (100)
  --from S           the first seed (1)
  --seed S           one seed only
  --trace            prints what happens; with --seed
  --digests          prints the number of every run's transcript: equal before and after what only makes it faster
  --profile NAME     steady, messages, churn, crash, swarm or all (all)
  --nodes N          nodes at first, 1 to 20 (5; 9 to grow to; in a swarm drawn)
  --ops N            operations of clients in a run (400)
  --scenario NAME    load, hot, grow-shrink, transactions or salvage (load)
  --harsh            faults come thick, and nodes are soon believed dead
  --replicas N       a replication factor instead of the one drawn
  --threads N        seeds run at once (2)
  --failures N       stop after so many failed runs (5)
  --planted NAME     breaks a rule of the protocol; only with the feature `planted`
  --hunt NAME        breaks rules (A,B,C or `all`) one after the other, and tells by which seed of which profile
                     it was noticed, each profile having so many seeds; only with the feature `planted`";

struct Options {
    seeds: u64,
    from: u64,
    is_traced: bool,
    tells_digests: bool,
    profile: Option<Profile>,
    nodes: Option<u8>,
    ops: usize,
    scenario: Scenario,
    is_harsh: bool,
    replicas: Option<u8>,
    planted: Option<String>,
    hunt: Option<String>,
    threads: usize,
    failures_max: u64,
}

fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut o = Options {
        seeds: 100,
        from: 1,
        is_traced: false,
        tells_digests: false,
        profile: None,
        nodes: None,
        ops: 400,
        scenario: Scenario::Load,
        is_harsh: false,
        replicas: None,
        planted: None,
        hunt: None,
        threads: 2,
        failures_max: 5,
    };
    let mut args = args;
    while let Some(flag) = args.next() {
        if flag == "--help" || flag == "-h" {
            return Err(USAGE.to_owned());
        }
        if flag == "--trace" {
            o.is_traced = true;
            continue;
        }
        if flag == "--digests" {
            o.tells_digests = true;
            continue;
        }
        if flag == "--harsh" {
            o.is_harsh = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value, or is unknown\n\n{USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag} {value}: not a number"));
        let size = || usize::try_from(number()?).map_err(|_| format!("{flag} {value}: too large"));
        match flag.as_str() {
            "--seeds" => o.seeds = number()?,
            "--from" => o.from = number()?,
            "--seed" => (o.from, o.seeds) = (number()?, 1),
            "--planted" => o.planted = Some(value),
            "--hunt" => o.hunt = Some(value),
            "--replicas" => {
                let r = u8::try_from(number()?).ok().filter(|r| [1, 3, 4, 5, 7].contains(r));
                o.replicas = Some(r.ok_or("--replicas: 1, 3, 4, 5 or 7")?);
            }
            "--ops" => o.ops = size()?,
            "--threads" => o.threads = size()?.clamp(1, 64),
            "--failures" => o.failures_max = number()?.max(1),
            "--nodes" => {
                let n = u8::try_from(number()?).ok().filter(|n| (1..=20).contains(n));
                o.nodes = Some(n.ok_or("--nodes: 1 to 20")?);
            }
            "--profile" => {
                let p = Profile::NAMES.iter().find(|n| n.0 == value);
                o.profile = Some(p.ok_or_else(|| format!("no profile {value}"))?.1);
            }
            "--scenario" => {
                o.scenario = match value.as_str() {
                    "load" => Scenario::Load,
                    "hot" => Scenario::Hot,
                    "grow-shrink" => Scenario::GrowShrink,
                    "salvage" => Scenario::Salvage,
                    "transactions" => Scenario::Transactions,
                    other => return Err(format!("no scenario {other}")),
                }
            }
            other => return Err(format!("unknown flag {other}\n\n{USAGE}")),
        }
    }
    Ok(o)
}

thread_local! {
    /// The command that repeats the run under way.
    static UNDER_WAY: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(o) => o,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let is_growing = options.scenario == Scenario::GrowShrink;
    let is_steady = is_growing || options.scenario == Scenario::Salvage;
    let profile = options.profile.unwrap_or(if is_steady { Profile::Steady } else { Profile::All });
    let nodes = |seed| match profile {
        _ if is_growing => 9,
        Profile::Swarm => swarm::nodes(seed),
        Profile::Steady | Profile::Messages | Profile::Churn | Profile::Crash | Profile::All => 5,
    };
    let settings = |seed| {
        let nodes = options.nodes.unwrap_or_else(|| nodes(seed));
        let s = Settings::draw(seed, profile, options.scenario, nodes, options.ops);
        plant(s.with_replicas(options.replicas).with_harshness(options.is_harsh), options.planted.as_deref())
    };
    if let Some(text) = unknown_plant(&options) {
        eprintln!("{text}");
        return ExitCode::from(2);
    }
    #[cfg(feature = "planted")]
    if let Some(name) = &options.hunt {
        return hunt(name, &options);
    }
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("a run panicked\n  {}", UNDER_WAY.with_borrow(Clone::clone));
        default_hook(info);
    }));
    // This is the tool's own watch, no input of a run.
    #[allow(clippy::disallowed_methods, reason = "how long the runs took is printed for people")]
    let began = Instant::now();
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(options.from);
    let end = options.from.saturating_add(options.seeds);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let settings = settings(seed);
            UNDER_WAY.set(settings.replay_command());
            let outcome = run::<DhtNode>(&settings, options.is_traced && options.seeds == 1);
            let Ok(mut totals) = totals.lock() else { return };
            totals.add(&outcome);
            if options.tells_digests {
                let Outcome { digest, events, ops, transactions, .. } = &outcome;
                say(format_args!("digest {seed} {digest:016x} {events} {ops:?} {transactions:?}"));
            }
            print_failure(&outcome);
            if totals.failed() >= options.failures_max {
                next.store(end, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(work);
        }
    });
    let Ok(totals) = totals.into_inner() else { return ExitCode::FAILURE };
    say(format_args!("{totals}\nwall time: {} s", began.elapsed().as_secs()));
    if totals.failed() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What is wrong with the names of the rules to break.
fn unknown_plant(options: &Options) -> Option<String> {
    let name = options.planted.as_ref().or(options.hunt.as_ref())?;
    if !cfg!(feature = "planted") {
        return Some("rules are broken only with --features planted".to_owned());
    }
    let is_all = options.hunt.is_some() && name == "all";
    let is_known = |n: &str| is_all || Plant::ALL.iter().any(|p| format!("{p:?}") == n);
    (!name.split(',').all(is_known)).then(|| format!("no rule {name}; there are {:?}", Plant::ALL))
}

#[cfg(feature = "planted")]
fn plant(settings: Settings, name: Option<&str>) -> Settings {
    let is_it = |p: &&Plant| name.is_some_and(|n| format!("{p:?}") == n);
    settings.with_planted(Plant::ALL.iter().find(is_it).copied())
}

#[cfg(not(feature = "planted"))]
fn plant(settings: Settings, _: Option<&str>) -> Settings {
    settings
}

#[cfg(feature = "planted")]
fn hunt(name: &str, options: &Options) -> ExitCode {
    let mut is_any_unnoticed = false;
    for p in Plant::ALL.iter().filter(|p| name == "all" || name.split(',').any(|n| format!("{p:?}") == n)) {
        let found = sim::planted::hunt(*p, options.from, options.seeds);
        is_any_unnoticed |= found.caught.is_none();
        say(format_args!("{found}"));
    }
    if is_any_unnoticed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints; whoever reads only the first lines may close the pipe.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn print_failure(outcome: &Outcome) {
    if let Some(v) = &outcome.violation {
        say(format_args!(
            "seed {} failed: {v}\n  {}",
            outcome.settings.seed,
            outcome.settings.replay_command()
        ));
    }
}
