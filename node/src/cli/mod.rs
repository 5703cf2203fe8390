//! The command line: one program that is server, client, benchmark and health check.

mod bench;
mod cluster;
mod dissolve;
mod flags;
mod healthcheck;
pub(crate) mod json;
mod kv;
mod output;
mod salvage;
mod show;
mod trouble;
mod txn;

use crate::config::{Settings, check_variables};
use crate::dashboard::SettingShown;
use crate::error::{self, Exit, Report};
use crate::serve::shown;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use flags::{ServerFlags, environment};
use output::{Format, Output, print_error};
use std::process::ExitCode;
use std::time::Duration;

/// A peer-to-peer, strongly consistent key-value store.
///
/// Without a command this is the server: it creates a ring, or joins the one of
/// the known hosts. Port 14195 talks to other nodes, port 8000 to clients.
#[derive(Debug, Parser)]
#[command(
    name = "kvnode",
    version,
    max_term_width = 80,
    term_width = 80,
    after_help = "Examples:\n  kvnode\n  kvnode --listen 10.2.1.4 --join 10.2.1.3"
)]
struct Cli {
    #[command(flatten)]
    server: ServerFlags,
    /// How results and errors are printed
    #[arg(short, long, global = true, value_enum, env = "KVNODE_OUTPUT", default_value = "plain")]
    output: Format,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How a server is reached, before or after the command.
#[derive(Clone, Debug, Args)]
struct Target {
    /// Client addresses of nodes [default: 127.0.0.1:8000]
    #[arg(
        long,
        global = true,
        env = "KVNODE_ENDPOINT",
        value_delimiter = ',',
        value_name = "HOST:PORT,...",
        help_heading = "Client"
    )]
    endpoint: Vec<String>,
    /// How long an operation may take, with all attempts [default: 10s]
    #[arg(long, global = true, env = "KVNODE_TIMEOUT", value_name = "TIME", help_heading = "Client",
        value_parser = crate::config::duration)]
    timeout: Option<Duration>,
}

impl Target {
    fn endpoints(&self) -> Vec<String> {
        let given: Vec<String> = self.endpoint.iter().filter(|e| !e.is_empty()).cloned().collect();
        if given.is_empty() { vec!["127.0.0.1:8000".to_owned()] } else { given }
    }

    fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(10))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a key
    Get(kv::Get),
    /// Write a key
    Put(kv::Put),
    /// Remove a key
    Del(kv::Del),
    /// Write a key if its value is the expected one
    Cas(kv::Cas),
    /// Add to a number
    Incr(kv::Incr),
    /// Several operations that take effect together or not at all
    Txn(txn::Txn),
    /// The node and its ring in short; exit 8 if something is to be looked at
    Status(cluster::Status),
    /// The members of the ring
    Members(cluster::Members),
    /// Who owns which piece of the ring
    Ring(cluster::Ring),
    /// Where the replicas of a key are
    Locate(cluster::Locate),
    /// Make a node hand over everything and leave its ring
    Leave(cluster::Leave),
    /// Decide anew, from what is left, what has lost its quorum
    Salvage(salvage::Salvage),
    /// Give up this ring's data for those of another ring that it meets
    Dissolve(dissolve::Dissolve),
    /// Measure a running ring
    Bench(bench::Bench),
    /// Exit 0 if the node on this machine is ready, else 1
    Healthcheck(healthcheck::Healthcheck),
    /// The settings of the server
    Config(show::Config),
    /// A completion script for a shell
    Completions(show::Completions),
    /// The version of this program
    #[command(after_help = "Examples:\n  kvnode version\n  kvnode version -o json")]
    Version,
}

/// Runs the program; `serve` runs the server until it is told to stop.
pub fn main(serve: fn(Settings, Vec<SettingShown>) -> Result<(), Report>) -> ExitCode {
    let format = wanted_format();
    let exit = match parse() {
        Err(e) => wrong_usage(&e, format),
        Ok(cli) => {
            let format = cli.output;
            match run(cli, serve) {
                Ok(exit) => exit,
                Err(report) => print_error(&report, format),
            }
        }
    };
    ExitCode::from(exit.number())
}

/// The arguments; a server is not told where a server is.
fn parse() -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    if matches.subcommand().is_none() {
        for flag in ["endpoint", "timeout"] {
            if matches.value_source(flag) == Some(ValueSource::CommandLine) {
                let text = format!("--{flag} is for commands as 'status'; a server is told --join HOST");
                return Err(Cli::command().error(ErrorKind::ArgumentConflict, text));
            }
        }
    }
    Cli::from_arg_matches(&matches)
}

fn run(cli: Cli, serve: fn(Settings, Vec<SettingShown>) -> Result<(), Report>) -> Result<Exit, Report> {
    check_variables(&environment())?;
    let Some(command) = cli.command else {
        let layers = cli.server.layers()?;
        serve(Settings::from_layers(&layers)?, shown(&layers))?;
        return Ok(Exit::Done);
    };
    if let Some(flag) = cli.server.first() {
        return Err(Report::new(
            error::USAGE,
            format!("--{flag} is a flag of the server"),
            "it was given together with a command that is not the server",
            "drop it, or drop the command to start a server",
        ));
    }
    let target = cli.target;
    let output = match command {
        Command::Config(c) => c.run()?,
        Command::Completions(c) => c.run(&mut Cli::command()),
        Command::Version => show::version(),
        Command::Bench(c) => block_on(true, c.run(&target))??,
        Command::Healthcheck(c) => block_on(false, c.run(&target))??,
        Command::Get(c) => block_on(false, c.run(&target))??,
        Command::Put(c) => block_on(false, c.run(&target))??,
        Command::Del(c) => block_on(false, c.run(&target))??,
        Command::Cas(c) => block_on(false, c.run(&target))??,
        Command::Incr(c) => block_on(false, c.run(&target))??,
        Command::Txn(c) => block_on(false, c.run(&target))??,
        Command::Status(c) => block_on(false, c.run(&target))??,
        Command::Members(c) => block_on(false, c.run(&target))??,
        Command::Ring(c) => block_on(false, c.run(&target))??,
        Command::Locate(c) => block_on(false, c.run(&target))??,
        Command::Leave(c) => block_on(false, c.run(&target))??,
        Command::Salvage(c) => block_on(false, c.run(&target))??,
        Command::Dissolve(c) => block_on(false, c.run(&target))??,
    };
    print(&output, cli.output)
}

fn print(output: &Output, format: Format) -> Result<Exit, Report> {
    output.print(format).or_else(|e| {
        // Whoever read has seen enough.
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            return Ok(output.exit);
        }
        Err(Report::new(error::INTERNAL, "cannot print the result", e.to_string(), "check where stdout goes"))
    })
}

fn block_on<T>(is_parallel: bool, work: impl Future<Output = T>) -> Result<T, Report> {
    let mut builder = if is_parallel {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().map_err(|e| {
        Report::new(
            error::INTERNAL,
            "cannot start the runtime",
            e.to_string(),
            "check the limits on threads and files",
        )
    })?;
    Ok(runtime.block_on(work))
}

/// The format asked for, as far as it can be seen in arguments that may be wrong.
fn wanted_format() -> Format {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).cloned();
    let joined = args.iter().find_map(|a| a.strip_prefix("--output=").or_else(|| a.strip_prefix("-o")));
    let joined = joined.filter(|v| !v.is_empty()).map(|v| v.trim_start_matches('=').to_owned());
    let said =
        after("-o").or_else(|| after("--output")).or(joined).or_else(|| std::env::var("KVNODE_OUTPUT").ok());
    match said.as_deref() {
        Some("json") => Format::Json,
        Some("table") => Format::Table,
        _ => Format::Plain,
    }
}

fn wrong_usage(e: &clap::Error, format: Format) -> Exit {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = e.print();
        return Exit::Done;
    }
    let text = e.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let message = lines.next().unwrap_or("wrong usage").trim_start_matches("error: ").to_owned();
    let rest: Vec<&str> = lines.collect();
    let tip = rest.iter().find_map(|l| l.strip_prefix("tip: "));
    let usage = rest.iter().find_map(|l| l.strip_prefix("Usage: "));
    let details: Vec<&str> = rest
        .iter()
        .filter(|l| !["tip: ", "Usage: ", "For more"].iter().any(|p| l.starts_with(p)))
        .copied()
        .collect();
    let cause =
        if details.is_empty() { "the command line cannot be understood".into() } else { details.join(" ") };
    let fix = match (tip, usage) {
        (Some(tip), _) => format!("{tip}; 'kvnode --help' lists everything"),
        (None, Some(usage)) => format!("use it as: {usage}"),
        (None, None) => "'kvnode --help' lists everything".to_owned(),
    };
    print_error(&Report::new(error::USAGE, message, cause, fix), format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_at_most_80_columns_wide_and_has_examples() {
        let mut all = vec![Cli::command()];
        while let Some(c) = all.pop() {
            all.extend(c.get_subcommands().filter(|s| s.get_name() != "help").cloned());
            let has_examples = !c.has_subcommands() || c.get_name() == "kvnode";
            let help = c.term_width(80).render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
            assert!(!has_examples || help.matches("\n  kvnode").count() >= 2, "{help}");
        }
    }
}
