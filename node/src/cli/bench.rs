//! `bench`: a closed loop against a running ring.
//!
//! Each client has one operation open at a time, so that latencies are those of that many clients and nothing
//! is left out while the ring is slow.

use super::Target;
use super::output::{Output, rows};
use super::trouble::report;
use crate::error::{self, Report};
use clap::Args;
use client::{Client, Condition, Error, Operation, Outcome, Value};
use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};
use std::time::Duration;
use tokio::time::Instant;

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Measure a running ring.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kvnode bench --clients 64 --duration 10s\n  \
    kvnode bench --endpoint 10.2.1.3:8000,10.2.1.4:8000 --ratio 0.9 -o json")]
pub(super) struct Bench {
    /// Clients, each with one operation at a time
    #[arg(long, default_value_t = 64, value_name = "N")]
    clients: u32,
    /// How long to measure
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = crate::config::duration)]
    duration: Duration,
    /// The share of reads, from 0 to 1
    #[arg(long, default_value_t = 0.5, value_name = "RATIO")]
    ratio: f64,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_name = "N")]
    value_size: usize,
    /// Keys, of 16 bytes each, used evenly
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    keys: u64,
    /// Connections to each endpoint
    #[arg(long, default_value_t = 4, value_name = "N")]
    connections: usize,
    /// Do not write every key before the measurement
    #[arg(long)]
    no_preload: bool,
    /// Learn the members and ask the node that serves a key first
    #[arg(long)]
    route: bool,
}

/// What one client, and then all together, saw of one kind of operation.
struct Tally {
    latency_us: Histogram<u64>,
    done: u64,
    not_done: u64,
    unknown: u64,
    first_error: Option<String>,
}

impl Tally {
    fn new() -> Result<Tally, Report> {
        let latency_us = Histogram::new_with_max(LATENCY_US_MAX, 3).map_err(|e| {
            Report::new(error::INTERNAL, "cannot make a histogram", e.to_string(), "please report this")
        })?;
        Ok(Tally { latency_us, done: 0, not_done: 0, unknown: 0, first_error: None })
    }

    fn count(&mut self, began: Instant, result: Result<(), Error>) {
        let e = match result {
            Ok(()) => {
                self.done += 1;
                let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.latency_us.saturating_record(us);
                return;
            }
            Err(e) => e,
        };
        match e.outcome() {
            Outcome::NotDone => self.not_done += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        self.first_error.get_or_insert_with(|| e.to_string());
    }

    fn add(&mut self, other: Tally) {
        // Both were made with the same bounds.
        let _ = self.latency_us.add(&other.latency_us);
        self.done += other.done;
        self.not_done += other.not_done;
        self.unknown += other.unknown;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn per_second(&self, took: Duration) -> u64 {
        let micros = u128::max(took.as_micros(), 1);
        u64::try_from(u128::from(self.done) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    fn quantiles(&self) -> [(&'static str, u64); 5] {
        let at = |q| self.latency_us.value_at_quantile(q);
        [
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("max", self.latency_us.max()),
        ]
    }

    fn json(&self, took: Duration) -> Json {
        let latency: serde_json::Map<String, Json> =
            self.quantiles().into_iter().map(|(n, v)| (n.to_owned(), v.into())).collect();
        json!({
            "done": self.done, "not_done": self.not_done, "unknown": self.unknown,
            "per_second": self.per_second(took), "latency_us": latency,
            "first_error": self.first_error,
        })
    }

    fn row(&self, name: &str, took: Duration) -> Vec<String> {
        let mut row = vec![name.to_owned(), self.done.to_string(), self.per_second(took).to_string()];
        row.extend(self.quantiles().iter().map(|(_, us)| format!("{us}")));
        row.extend([self.not_done.to_string(), self.unknown.to_string()]);
        row
    }
}

/// A small generator (xorshift64*): the load needs no better.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn key(i: u64) -> String {
    format!("bench-{i:010}")
}

impl Bench {
    fn check(&self) -> Result<(), Report> {
        let wrong = |what: &str, cause: String| {
            Err(Report::new(
                error::USAGE,
                format!("--{what} is not valid"),
                cause,
                "'kvnode bench --help' explains it",
            ))
        };
        if !(0.0..=1.0).contains(&self.ratio) {
            return wrong("ratio", format!("{} is not between 0 and 1", self.ratio));
        }
        if self.keys == 0 || self.clients == 0 {
            return wrong(if self.keys == 0 { "keys" } else { "clients" }, "0 is too few".to_owned());
        }
        Ok(())
    }

    /// One client per endpoint; the loops take them in turn.
    async fn connect(&self, target: &Target) -> Result<Vec<Client>, Report> {
        let mut clients = Vec::new();
        let endpoints = target.endpoints();
        for endpoint in &endpoints {
            let others = endpoints.iter().filter(|e| *e != endpoint);
            let builder = Client::builder([endpoint].into_iter().chain(others).cloned())
                .deadline(target.timeout())
                .connections(self.connections)
                .routes_to_home(self.route);
            clients.push(builder.connect().await.map_err(report)?);
        }
        Ok(clients)
    }

    async fn preload(&self, client: &Client, value: &Value) -> Result<(), Report> {
        let batch = u64::try_from((1 << 20) / (self.value_size + 64)).unwrap_or(1).clamp(1, 200);
        let mut first = 0;
        while first < self.keys {
            let last = (first + batch).min(self.keys);
            let operations: Vec<_> =
                (first..last).map(|i| Operation::put(&key(i), value, Condition::Always)).collect();
            for result in client.batch(&operations).await.map_err(report)? {
                result.map_err(report)?;
            }
            first = last;
        }
        Ok(())
    }

    async fn one(
        self,
        client: Client,
        value: Value,
        seed: u64,
        until: Instant,
    ) -> Result<[Tally; 2], Report> {
        let mut dice = Dice(seed | 1);
        let (mut reads, mut writes) = (Tally::new()?, Tally::new()?);
        // Thousandths are fine enough to share out reads and writes.
        let share = (0..=1000u32).rev().find(|n| f64::from(*n) <= self.ratio * 1000.0).unwrap_or(0);
        while Instant::now() < until {
            let key = key((dice.roll() >> 16) % self.keys);
            let is_read = (dice.roll() >> 20) % 1000 < u64::from(share);
            let began = Instant::now();
            if is_read {
                let result = client.get(&key).await.map(|_| ());
                reads.count(began, result);
            } else {
                let result = client.put(&key, value.clone()).await.map(|_| ());
                writes.count(began, result);
            }
        }
        Ok([reads, writes])
    }

    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        self.check()?;
        let clients = self.connect(target).await?;
        let value = Value::bytes(&vec![b'x'; self.value_size]);
        if let (Some(first), false) = (clients.first(), self.no_preload) {
            self.preload(first, &value).await?;
        }
        let began = Instant::now();
        let until = began + self.duration;
        let loops: Vec<_> = (0..self.clients)
            .zip(clients.iter().cycle())
            .map(|(i, c)| {
                let seed = u64::from(i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                tokio::spawn(self.clone().one(c.clone(), value.clone(), seed, until))
            })
            .collect();
        let (mut reads, mut writes) = (Tally::new()?, Tally::new()?);
        for l in loops {
            let [r, w] = l.await.map_err(|e| {
                Report::new(
                    error::INTERNAL,
                    "a client of the benchmark failed",
                    e.to_string(),
                    "please report this",
                )
            })??;
            reads.add(r);
            writes.add(w);
        }
        Ok(self.result(&target.endpoints(), &reads, &writes, began.elapsed()))
    }

    fn result(&self, endpoints: &[String], reads: &Tally, writes: &Tally, took: Duration) -> Output {
        let head = [
            "",
            "DONE",
            "PER SECOND",
            "P50 us",
            "P90 us",
            "P99 us",
            "P99.9 us",
            "MAX us",
            "NOT DONE",
            "UNKNOWN",
        ];
        let table = rows(&head, vec![reads.row("reads", took), writes.row("writes", took)]);
        let all =
            format!("{} clients, {} keys, values of {} bytes", self.clients, self.keys, self.value_size);
        let plain = format!("{all}, {:.1} s\n{}", took.as_secs_f64(), super::output::columns(&table));
        let json = json!({
            "clients": self.clients, "keys": self.keys, "value_size": self.value_size, "ratio": self.ratio,
            "endpoints": endpoints, "seconds": took.as_secs_f64(),
            "per_second": reads.per_second(took) + writes.per_second(took),
            "reads": reads.json(took), "writes": writes.json(took),
        });
        let mut output = Output::new(plain, json, table);
        let first = reads.first_error.as_ref().or(writes.first_error.as_ref());
        output.notes.extend(first.map(|e| format!("first error: {e}")));
        output
    }
}
