//! What a run is to do.

use std::time::Duration;

pub(crate) const USAGE: &str =
    "kvnode-chaos: real processes under real faults, checked by what their clients saw

  --fault NAME       what happens in each round (all):
                       kill             kill -9 of one node; restarted in several ways
                       pause            SIGSTOP and SIGCONT of one node
                       restart          SIGTERM of one node, restarted at the same address
                       partition-one, partition-halves, partition-one-way, partition-partial
                       all              one of the above, drawn
                     or a campaign of its own:
                       home             kill -9 of the first node, restarted with itself to join
                       stall            all nodes paused at once, or all links down, for --stall
                       rolling          every node in turn stopped and started; no call may fail
                       bank             1 000 accounts under transactions, kills and partitions
                       start            the time from the start of three processes to a committed write
  --rounds N         how many rounds (10)
  --nodes N          how many nodes, 3 to 9 (5)
  --seed S           what is drawn from (1)
  --clients W,M      writers of one key each, and clients that do everything (24,8)
  --stall SECONDS    how long a stall lasts (30)
  --failures N       stop after so many failed rounds (3)
  --limit SECONDS    the run ends after this, whatever happens (3600)

KVNODE_CHAOS_DIR names the directory for logs and evidence (target/chaos), WIRE_TEST_BINARY a program that is
there already. Exit code 77: this machine cannot give the namespaces that a run needs.";

/// What happens in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Pause,
    Restart,
    One,
    Halves,
    OneWay,
    Partial,
    All,
    Home,
    Stall,
    Rolling,
    Bank,
    Start,
}

pub(crate) const NAMES: [(&str, Fault); 13] = [
    ("kill", Fault::Kill),
    ("pause", Fault::Pause),
    ("restart", Fault::Restart),
    ("partition-one", Fault::One),
    ("partition-halves", Fault::Halves),
    ("partition-one-way", Fault::OneWay),
    ("partition-partial", Fault::Partial),
    ("all", Fault::All),
    ("home", Fault::Home),
    ("stall", Fault::Stall),
    ("rolling", Fault::Rolling),
    ("bank", Fault::Bank),
    ("start", Fault::Start),
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) fault: Fault,
    pub(crate) rounds: u64,
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    /// Writers and mixers.
    pub(crate) clients: (usize, usize),
    pub(crate) stall: Duration,
    pub(crate) failures_max: usize,
    pub(crate) limit: Duration,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Options, String> {
        let mut o = Options {
            fault: Fault::All,
            rounds: 10,
            nodes: 5,
            seed: 1,
            clients: (24, 8),
            stall: Duration::from_secs(30),
            failures_max: 3,
            limit: Duration::from_secs(3600),
        };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value\n\n{USAGE}"))?;
            let wrong = || format!("{flag} {value}: not understood\n\n{USAGE}");
            let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
            let size = |text: &str| text.parse::<usize>().map_err(|_| wrong());
            match flag.as_str() {
                "--fault" => o.fault = NAMES.iter().find(|n| n.0 == value).ok_or_else(wrong)?.1,
                "--rounds" => o.rounds = number(value)?,
                "--nodes" => o.nodes = size(value)?.clamp(3, 9),
                "--seed" => o.seed = number(value)?,
                "--stall" => o.stall = Duration::from_secs(number(value)?),
                "--failures" => o.failures_max = size(value)?.max(1),
                "--limit" => o.limit = Duration::from_secs(number(value)?),
                "--clients" => {
                    let (writers, mixers) = value.split_once(',').ok_or_else(wrong)?;
                    o.clients = (size(writers)?, size(mixers)?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(o)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_others_refused() {
        let parse = |text: &str| {
            let args: Vec<String> = text.split(' ').map(str::to_owned).collect();
            Options::parse(&args)
        };
        let o = parse("--fault partition-halves --rounds 7 --clients 3,2").unwrap();
        assert_eq!((o.fault, o.rounds, o.clients), (Fault::Halves, 7, (3, 2)));
        assert!(parse("--fault earthquake").is_err());
        assert!(parse("--rounds").is_err());
        assert!(parse("--round 5").is_err());
    }
}
