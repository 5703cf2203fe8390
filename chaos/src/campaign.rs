//! Rounds of a fault under load: each begins and ends at full strength, and its history is checked by itself.

use crate::cold::Cold;
use crate::fleet::Fleet;
use crate::options::{Fault, Options};
use crate::statistics::Distribution;
use crate::workload::Load;
use harness::Res;
use sim::draw::{Draw, Stream};
use sim::history::{History, Outcome};
use sim::order;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// After a fault has ended, and after a node was lost of more than R, all must be well again this soon.
pub(crate) const HEAL_LIMIT: Duration = Duration::from_secs(10);
/// Who is not well by then will not be.
const PATIENCE: Duration = Duration::from_secs(45);

const DRAWN: [Fault; 8] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Pause,
    Fault::Restart,
    Fault::One,
    Fault::Halves,
    Fault::OneWay,
    Fault::Partial,
];
const DRAWN_FOR_THE_BANK: [Fault; 6] =
    [Fault::Kill, Fault::Kill, Fault::One, Fault::Halves, Fault::OneWay, Fault::Partial];

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: u64,
    pub(crate) distributions: BTreeMap<String, Distribution>,
    pub(crate) counts: BTreeMap<String, u64>,
    /// What must never happen.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) fn time(&mut self, name: &str, d: Duration) {
        self.distributions.entry(name.to_owned()).or_default().add(d);
    }

    pub(crate) fn count(&mut self, name: &str, n: u64) {
        *self.counts.entry(name.to_owned()).or_default() += n;
    }

    pub(crate) fn count_history(&mut self, history: &History) {
        for (_, op) in history.iter() {
            self.count("operations", 1);
            match &op.outcome {
                Outcome::Failed(why) => self.count(&format!("operations not done: {why}"), 1),
                Outcome::Unknown => self.count("operations of unknown outcome", 1),
                Outcome::Value { .. } | Outcome::Changed { .. } | Outcome::Refused { .. } => {
                    self.count("operations answered", 1);
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Campaign {
    pub(crate) options: Options,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) fleet: Fleet,
    pub(crate) draw: Draw,
    pub(crate) cold: Cold,
    pub(crate) tally: Tally,
    /// What happens in the present round, for people.
    pub(crate) story: Vec<String>,
    began: Instant,
}

impl Campaign {
    pub(crate) fn new(options: Options, directory: PathBuf) -> Res<Campaign> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| format!("cannot make a runtime: {e}"))?;
        let runtime = Arc::new(runtime);
        Ok(Campaign {
            options,
            fleet: Fleet::new(options.nodes, Arc::clone(&runtime), directory)?,
            runtime,
            draw: Draw::new(options.seed, Stream::Nemesis),
            cold: Cold::default(),
            tally: Tally::default(),
            story: Vec::new(),
            began: Instant::now(),
        })
    }

    /// Notes what happens, with its time.
    pub(crate) fn tell(&mut self, what: String) {
        self.story.push(format!("{:9.3} {what}", self.began.elapsed().as_secs_f64()));
    }

    pub(crate) fn sleep(&mut self, low_ms: u64, high_ms: u64) {
        std::thread::sleep(self.draw.millis(low_ms, high_ms));
    }

    /// Starts all nodes.
    pub(crate) fn start(&mut self) -> Res<()> {
        self.fleet.start_all()?;
        self.fleet.wait_full_strength(Duration::from_secs(30)).map(|_| ())
    }

    /// All rounds of a run.
    pub(crate) fn rounds(&mut self) -> Res<()> {
        for round in 1..=self.options.rounds {
            self.story.clear();
            let result = self.round(round);
            self.tally.rounds += 1;
            if let Err(why) = result {
                self.fail(round, &why);
                let is_enough = self.tally.failures.len() >= self.options.failures_max;
                // Accounts do not outlive a ring.
                if is_enough || self.options.fault == Fault::Bank {
                    return Ok(());
                }
                self.cold.forget();
                self.fleet.start_over()?;
            }
            if round.is_multiple_of(10) {
                println!("{:6.0} s: {round} rounds", self.began.elapsed().as_secs_f64());
                let last = self.story.last().map(String::as_str).unwrap_or_default();
                println!("  {last}");
            }
        }
        let written = self.cold.len();
        println!("reading the {written} keys that were left alone");
        let all = self.cold.verify(&self.runtime, &self.fleet.doors, &mut self.draw, true);
        if let Err(why) = all {
            self.fail(self.options.rounds, &why);
        }
        Ok(())
    }

    fn round(&mut self, round: u64) -> Res<()> {
        let doors = self.fleet.doors.clone();
        self.cold.write(&self.runtime, &doors, round, &mut self.draw);
        let seed = self.options.seed.wrapping_mul(1_000_003).wrapping_add(round);
        let prefix = format!("{}-{round}", self.options.seed);
        let mut load = Load::start(&self.runtime, &doors, prefix, seed, self.options.clients);
        self.sleep(300, 900);
        let happened = self.inject(&load);
        let strong = match happened {
            Ok(()) => self.heal(),
            Err(e) => Err(e),
        };
        if strong.is_ok() {
            self.sleep(100, 300);
        }
        load.finish(&self.runtime, &doors);
        let history = load.recorder.history();
        self.tally.count_history(&history);
        let checked = order::check(&history).map_err(|v| v.to_string());
        match &checked {
            Ok(undecided) => {
                self.tally.count("keys whose search was given up", u64::try_from(*undecided).unwrap_or(0))
            }
            Err(_) => self.save("history", &history_text(&history)),
        }
        let ended = self.fleet.ended_by_themselves();
        if !ended.is_empty() {
            return Err(ended.join("; "));
        }
        checked?;
        strong?;
        self.cold.verify(&self.runtime, &doors, &mut self.draw, false)
    }

    /// Waits for full strength after the fault has ended.
    fn heal(&mut self) -> Res<()> {
        let took = self.fleet.wait_full_strength(PATIENCE)?;
        let pieces = (0..self.fleet.len()).filter_map(|p| self.fleet.status(p).ok()).map(|s| s.pieces).max();
        self.tell(format!("full strength after {took:?}, at most {pieces:?} pieces at a node"));
        let most = self.tally.counts.entry("pieces at a node at most".to_owned()).or_default();
        *most = (*most).max(u64::from(pieces.unwrap_or(0)));
        self.tally.time("time from the end of the fault to full strength", took);
        if took > HEAL_LIMIT {
            self.tally.count("slow: not healed within 10 s", 1);
            println!("slow: {took:?}\n{}", self.story.join("\n"));
        }
        Ok(())
    }

    fn inject(&mut self, load: &Load) -> Res<()> {
        let drawn: &[Fault] = match self.options.fault {
            Fault::All => &DRAWN,
            Fault::Bank => &DRAWN_FOR_THE_BANK,
            Fault::Kill
            | Fault::Pause
            | Fault::Restart
            | Fault::One
            | Fault::Halves
            | Fault::OneWay
            | Fault::Partial
            | Fault::Home
            | Fault::Stall
            | Fault::Rolling
            | Fault::Start => &[],
        };
        let fault = self.draw.pick(drawn).unwrap_or(self.options.fault);
        match fault {
            Fault::Kill | Fault::All => self.kill(load),
            Fault::Pause => self.pause(load),
            Fault::Restart => self.restart(),
            Fault::One | Fault::Halves | Fault::OneWay | Fault::Partial => self.partition(fault, load),
            Fault::Home => self.home(load),
            Fault::Stall => self.stall(),
            Fault::Rolling | Fault::Bank | Fault::Start => Err("not a fault of rounds".to_owned()),
        }
    }

    /// Keeps what shows a failed round.
    pub(crate) fn fail(&mut self, round: u64, why: &str) {
        let state = self.fleet.describe();
        let story = self.story.join("\n");
        let text = format!("round {round}, {:?}\n{story}\n{why}\n\n{state}", self.options);
        self.save(&format!("failed-{round}"), &text);
        let short: String = why.chars().take(6000).collect();
        println!("FAILED: round {round}\n{story}\n{short}");
        self.tally.failures.push(format!("round {round}: {}", why.lines().next().unwrap_or_default()));
    }

    fn save(&self, name: &str, text: &str) {
        let path = self.fleet.logs().join(format!("{name}.txt"));
        match std::fs::write(&path, text) {
            Ok(()) => println!("see {}", path.display()),
            Err(e) => println!("cannot write {}: {e}", path.display()),
        }
    }

    /// The totals, as a table of the documentation wants them.
    pub(crate) fn report(&self) {
        println!("\n{} rounds in {:.0} s", self.tally.rounds, self.began.elapsed().as_secs_f64());
        for (name, d) in &self.tally.distributions {
            println!("  {name}: {d}");
        }
        for (name, n) in &self.tally.counts {
            println!("  {name}: {n}");
        }
        println!("  failures: {}", self.tally.failures.len());
        for f in &self.tally.failures {
            println!("    {f}");
        }
    }
}

fn history_text(history: &History) -> String {
    let mut out = String::new();
    for (key, ops) in history.by_key() {
        out.push_str(&format!("key {key:?}\n"));
        for op in ops {
            out.push_str(&format!("  {op}\n"));
        }
    }
    out
}
