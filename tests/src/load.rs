//! Writers that remember what was acknowledged, and check that it is still there.
//!
//! Every writer has keys of its own and writes growing numbers to them, one operation at a time. What a read
//! may then give is known exactly: the last acknowledged number, or one whose outcome is not known.
//!
//! Keeps:
//! 1. A number that was reported as not done is never read.
//! 2. A number below the last acknowledged or read one is read only if its own outcome is unknown.
//! 3. Every key that was ever acknowledged is read at the end, through every node named.

use crate::poll::until;
use crate::{Res, cli};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The three outcomes of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was done, once.
    Done,
    /// It was not done and never will be.
    NotDone(String),
    /// It may have been done, or may still be.
    Unknown(String),
}

/// A client that is connected to one node.
pub trait Client: Send {
    /// Writes text.
    fn put(&mut self, key: &str, value: &str) -> Fate;
    /// Reads text.
    fn get(&mut self, key: &str) -> Res<Option<String>>;
}

/// Makes a client for an endpoint.
pub type Connect = Arc<dyn Fn(&str) -> Box<dyn Client> + Send + Sync>;

/// Clients that run the command line once per operation: slow, and exactly what a script does.
pub fn by_command_line() -> Connect {
    Arc::new(|endpoint| Box::new(CommandLine { endpoint: endpoint.to_owned() }))
}

struct CommandLine {
    endpoint: String,
}

impl Client for CommandLine {
    fn put(&mut self, key: &str, value: &str) -> Fate {
        match cli::run(&["put", "--endpoint", &self.endpoint, key, value]) {
            Err(e) => Fate::NotDone(e),
            Ok(out) => match out.code {
                Some(0) => Fate::Done,
                Some(2 | 4 | 6 | 7) => Fate::NotDone(out.stderr),
                _ => Fate::Unknown(out.stderr),
            },
        }
    }

    fn get(&mut self, key: &str) -> Res<Option<String>> {
        let out = cli::run(&["get", "--endpoint", &self.endpoint, key])?;
        match out.code {
            Some(0) => Ok(Some(out.stdout)),
            Some(3) => Ok(None),
            code => Err(format!("get {key} at {}: exit {code:?}: {}", self.endpoint, out.stderr)),
        }
    }
}

/// What a writer knows of one of its keys.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The highest number acknowledged or read.
    sure: u64,
    /// Numbers whose outcome is not known.
    open: BTreeSet<u64>,
}

impl Known {
    fn check(&mut self, key: &str, read: Option<&str>) -> Res<()> {
        let Some(text) = read else {
            return if self.sure == 0 {
                Ok(())
            } else {
                Err(format!("{key} is gone, {} was there", self.sure))
            };
        };
        let number: u64 = text.parse().map_err(|_| format!("{key} holds {text:?}, which nobody wrote"))?;
        if number != self.sure && !self.open.contains(&number) {
            return Err(format!(
                "{key} holds {number}; acknowledged or read: {}, unknown: {:?}",
                self.sure, self.open
            ));
        }
        self.sure = self.sure.max(number);
        Ok(())
    }
}

/// What the writers saw.
#[derive(Debug, Default)]
pub struct Report {
    known: BTreeMap<String, Known>,
    acknowledged_at: Vec<Instant>,
    /// Reads that were answered.
    pub reads: u64,
    /// Operations that failed, with the endpoint and the reason.
    pub failures: Vec<(String, String)>,
    /// What must never happen.
    pub violations: Vec<String>,
}

impl Report {
    /// Writes acknowledged.
    pub fn writes(&self) -> usize {
        self.acknowledged_at.len()
    }

    /// The longest time between `from` and `to` during which no write was acknowledged.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut at: Vec<Instant> =
            self.acknowledged_at.iter().copied().filter(|t| *t > from && *t < to).collect();
        at.extend([from, to]);
        at.sort_unstable();
        at.windows(2).map(|w| w[1].saturating_duration_since(w[0])).max().unwrap_or_default()
    }

    /// Reads every key through every endpoint; an error names what is missing or wrong.
    pub fn verify(&mut self, connect: &Connect, endpoints: &[String]) -> Res<()> {
        let mut wrong = std::mem::take(&mut self.violations);
        for endpoint in endpoints {
            let mut client = connect(endpoint);
            for (key, known) in &mut self.known {
                let read = until(&format!("{key} is read at {endpoint}"), Duration::from_secs(15), || {
                    client.get(key)
                })?;
                if let Err(e) = known.check(key, read.as_deref()) {
                    wrong.push(format!("at {endpoint}: {e}"));
                }
            }
        }
        match wrong.len() {
            0 => Ok(()),
            n => Err(format!("{n} violations, the first: {}", wrong[..n.min(5)].join("; "))),
        }
    }

    fn merge(&mut self, other: Report) {
        self.known.extend(other.known);
        self.acknowledged_at.extend(other.acknowledged_at);
        self.reads += other.reads;
        self.failures.extend(other.failures);
        self.violations.extend(other.violations);
    }
}

/// Writers at work. They stop with this value.
pub struct Load {
    stop: Arc<AtomicBool>,
    endpoints: Arc<Mutex<Vec<String>>>,
    writers: Vec<JoinHandle<Report>>,
}

impl Load {
    /// Starts `writers` writers with `keys` keys each, named after `name`; they go round the endpoints.
    pub fn start(name: &str, connect: &Connect, endpoints: &[String], writers: usize, keys: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Mutex::new(endpoints.to_vec()));
        let writers = (0..writers)
            .map(|w| {
                let writer = Writer {
                    prefix: format!("{name}-{w}"),
                    keys,
                    first: w,
                    connect: connect.clone(),
                    endpoints: shared.clone(),
                    stop: stop.clone(),
                    clients: BTreeMap::new(),
                    report: Report::default(),
                };
                std::thread::spawn(move || writer.run())
            })
            .collect();
        Load { stop, endpoints: shared, writers }
    }

    /// From now on these endpoints are used.
    pub fn use_endpoints(&self, endpoints: &[String]) {
        *self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = endpoints.to_vec();
    }

    /// Ends the writers and tells what they saw.
    pub fn finish(mut self) -> Res<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for writer in self.writers.drain(..) {
            report.merge(writer.join().map_err(|_| "a writer panicked".to_owned())?);
        }
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            // A panic of a writer was printed where it happened.
            let _ = writer.join();
        }
    }
}

struct Writer {
    prefix: String,
    keys: u64,
    first: usize,
    connect: Connect,
    endpoints: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    clients: BTreeMap<String, Box<dyn Client>>,
    report: Report,
}

impl Writer {
    fn run(mut self) -> Report {
        let mut number = 0u64;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let key = format!("{}-{}", self.prefix, number % self.keys);
            self.write(&key, number);
            if number.is_multiple_of(4) {
                self.read(&key, number);
            }
        }
        self.report
    }

    fn endpoint(&self, turn: u64) -> String {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.first.wrapping_add(usize::try_from(turn).unwrap_or(0)) % endpoints.len();
        endpoints[at].clone()
    }

    fn write(&mut self, key: &str, number: u64) {
        let endpoint = self.endpoint(number);
        let connect = &self.connect;
        let client = self.clients.entry(endpoint.clone()).or_insert_with(|| connect(&endpoint));
        let known = self.report.known.entry(key.to_owned()).or_default();
        match client.put(key, &number.to_string()) {
            Fate::Done => {
                known.sure = number;
                self.report.acknowledged_at.push(Instant::now());
            }
            Fate::NotDone(reason) => self.report.failures.push((endpoint, reason)),
            Fate::Unknown(reason) => {
                known.open.insert(number);
                self.report.failures.push((endpoint, reason));
            }
        }
    }

    fn read(&mut self, key: &str, number: u64) {
        let endpoint = self.endpoint(number + 1);
        let connect = &self.connect;
        let client = self.clients.entry(endpoint.clone()).or_insert_with(|| connect(&endpoint));
        match client.get(key) {
            Ok(read) => {
                self.report.reads += 1;
                let known = self.report.known.entry(key.to_owned()).or_default();
                if let Err(e) = known.check(key, read.as_deref()) {
                    self.report.violations.push(format!("at {endpoint}: {e}"));
                }
            }
            Err(reason) => self.report.failures.push((endpoint, reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(sure: u64, open: &[u64]) -> Known {
        Known { sure, open: open.iter().copied().collect() }
    }

    #[test]
    fn a_lost_write_is_noticed() {
        assert!(known(7, &[]).check("k", None).is_err());
        assert!(known(7, &[]).check("k", Some("6")).is_err());
        assert!(known(0, &[3]).check("k", None).is_ok());
    }

    #[test]
    fn an_unknown_write_may_show_or_not_but_one_never_made_may_not() {
        assert!(known(7, &[8]).check("k", Some("7")).is_ok());
        assert!(known(7, &[8]).check("k", Some("8")).is_ok());
        assert!(known(7, &[8]).check("k", Some("9")).is_err());
        assert!(known(7, &[8]).check("k", Some("other")).is_err());
    }

    #[test]
    fn what_was_read_once_is_not_unread() {
        let mut k = known(7, &[8]);
        assert!(k.check("k", Some("8")).is_ok());
        assert!(k.check("k", Some("7")).is_err());
    }

    #[test]
    fn the_longest_gap_counts_from_the_beginning_to_the_end() {
        let t = Instant::now();
        let at = |ms| t + Duration::from_millis(ms);
        let report = Report { acknowledged_at: vec![at(100), at(150), at(400)], ..Report::default() };
        assert_eq!(report.longest_gap(t, at(500)), Duration::from_millis(250));
        assert_eq!(report.longest_gap(t, at(1000)), Duration::from_millis(600));
    }
}
