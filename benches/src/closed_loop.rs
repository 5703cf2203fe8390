//! A closed loop: so many clients, each with one call outstanding, for a given time.

use crate::echo::wire::EchoMessage;
use crate::echo::wire::echo_client::EchoClient;
use crate::{VALUE_BYTES, key_text};
use proto::v1::kv_client::KvClient;
use proto::v1::value::Kind;
use proto::v1::{GetRequest, PutRequest, Value};
use std::future::Future;
use std::time::{Duration, Instant};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Calls the plain server.
    Echo,
    /// Writes a key.
    Write,
    /// Reads a key.
    Read,
}

/// The size of the load.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Calls outstanding at once.
    pub clients: usize,
    /// Connections they share, spread over the endpoints.
    pub connections: usize,
    /// Keys, drawn uniformly.
    pub keys: u32,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Calls answered with success.
    pub done: u32,
    /// Calls answered otherwise, and one of the reasons.
    pub failed: u32,
    /// The first failure of some client.
    pub reason: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
    micros: Vec<u32>,
}

impl Outcome {
    /// Successful calls per second.
    pub fn per_second(&self) -> f64 {
        f64::from(self.done) / self.elapsed.as_secs_f64()
    }

    /// The latency below which this share of the calls was answered, in thousandths.
    pub fn latency(&self, per_mille: usize) -> Duration {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
        Duration::from_micros(sorted.get(at).copied().map_or(0, u64::from))
    }

    fn merge(&mut self, other: Outcome) {
        self.done += other.done;
        self.failed += other.failed;
        self.reason = self.reason.take().or(other.reason);
        self.micros.extend(other.micros);
    }
}

/// Connections to the endpoints in turn.
pub async fn connect(endpoints: &[String], connections: usize) -> Result<Vec<Channel>, String> {
    let mut all = Vec::new();
    for endpoint in endpoints.iter().cycle().take(connections) {
        let at =
            Endpoint::from_shared(format!("http://{endpoint}")).map_err(|e| format!("{endpoint}: {e}"))?;
        all.push(at.tcp_nodelay(true).connect().await.map_err(|e| format!("{endpoint}: {e}"))?);
    }
    Ok(all)
}

/// Loads the servers behind `channels` for `time`.
pub async fn run(work: Work, shape: Shape, channels: &[Channel], time: Duration) -> Outcome {
    let started = Instant::now();
    let until = started + time;
    let mut clients = tokio::task::JoinSet::new();
    for (number, channel) in (1u64..).zip(channels.iter().cycle().take(shape.clients)) {
        let mut keys = Keys::new(number, shape.keys);
        match work {
            Work::Echo => {
                let client = EchoClient::new(channel.clone());
                clients.spawn(repeat(until, move || {
                    let message = EchoMessage { key: keys.draw(), value: vec![b'v'; VALUE_BYTES].into() };
                    let mut client = client.clone();
                    async move { client.echo(message).await.map(|_| ()) }
                }));
            }
            Work::Write => {
                let client = KvClient::new(channel.clone());
                clients.spawn(repeat(until, move || {
                    let request = write_of(keys.draw());
                    let mut client = client.clone();
                    async move { client.put(request).await.map(|_| ()) }
                }));
            }
            Work::Read => {
                let client = KvClient::new(channel.clone());
                clients.spawn(repeat(until, move || {
                    let request = GetRequest { key: keys.draw() };
                    let mut client = client.clone();
                    async move { client.get(request).await.map(|_| ()) }
                }));
            }
        }
    }
    let mut sum = Outcome::default();
    while let Some(one) = clients.join_next().await {
        sum.merge(one.unwrap_or_default());
    }
    sum.elapsed = started.elapsed();
    sum
}

/// Writes every key once.
pub async fn fill(keys: u32, shape: Shape, channels: &[Channel]) -> Result<(), String> {
    let mut clients = tokio::task::JoinSet::new();
    for (number, channel) in (0u32..).zip(channels.iter().cycle().take(shape.clients)) {
        let mut client = KvClient::new(channel.clone());
        clients.spawn(async move {
            let step = usize::try_from(keys).unwrap_or(usize::MAX).min(shape.clients);
            for i in (number..keys).step_by(step) {
                client.put(write_of(key_text(i))).await.map_err(|s| format!("filling: {s}"))?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(one) = clients.join_next().await {
        one.map_err(|e| format!("filling: {e}"))??;
    }
    Ok(())
}

fn write_of(key: String) -> PutRequest {
    let value = Value { kind: Some(Kind::BytesValue(vec![b'v'; VALUE_BYTES].into())) };
    PutRequest { key, value: Some(value), condition: None }
}

async fn repeat<F>(until: Instant, mut call: impl FnMut() -> F) -> Outcome
where
    F: Future<Output = Result<(), Status>>,
{
    let mut outcome = Outcome::default();
    let mut now = Instant::now();
    while now < until {
        let answer = call().await;
        let after = Instant::now();
        match answer {
            Ok(()) => {
                outcome.done += 1;
                outcome.micros.push(u32::try_from((after - now).as_micros()).unwrap_or(u32::MAX));
            }
            Err(status) => {
                outcome.failed += 1;
                outcome.reason.get_or_insert_with(|| status.to_string());
                // A server that refuses at once must not be asked in a busy loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        now = after;
    }
    outcome
}

/// Keys drawn uniformly, the same ones in every run.
struct Keys {
    state: u64,
    count: u32,
}

impl Keys {
    fn new(seed: u64, count: u32) -> Keys {
        Keys { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, count: count.max(1) }
    }

    fn draw(&mut self) -> String {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        key_text(u32::try_from(self.state % u64::from(self.count)).unwrap_or(0))
    }
}
