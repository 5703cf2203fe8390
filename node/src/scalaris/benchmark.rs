//! `run_benchmark_incr` and `run_benchmark_read`: a short load through this node, measured.
//!
//! Source: Scalaris, `bench:increment/2`, `bench:quorum_read/2`, `bench_json_helper`.

use super::Scalaris;
use super::cluster::ERLANG_VERSION;
use core::time::Duration;
use jsonrpc::Json;
use jsonrpc::call::{BenchmarkCall, Edit, Operation};
use jsonrpc::envelope::Error;
use jsonrpc::outcome::Outcome;
use store::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

const THREADS: usize = 10;
const ITERATIONS: usize = 500;
/// A thread that takes longer ends before its last iteration.
const TIME_MAX: Duration = Duration::from_secs(30);
/// One benchmark at a time.
static RUNNING: Mutex<()> = Mutex::const_new(());

/// What the threads did.
#[derive(Default)]
struct Measured {
    times_ms: Vec<f64>,
    aborts: usize,
}

impl Scalaris {
    pub(super) async fn benchmark(&self, call: BenchmarkCall) -> Result<Json, Error> {
        let _one = RUNNING.lock().await;
        let salt = getrandom::u64().unwrap_or(0);
        let keys: Vec<String> = (0..THREADS).map(|i| format!("kvnode-benchmark-{salt:016x}-{i}")).collect();
        let add = Operation::Edit(Edit::AddOnNumber(Some(Value::int(1))));
        for key in &keys {
            self.operation(key, &add).await?;
        }
        let operation = match call {
            BenchmarkCall::Increment => add,
            BenchmarkCall::Read => Operation::Read,
        };
        let began = Instant::now();
        let measured = self.threads(&keys, &operation, began + TIME_MAX).await?;
        let wall_s = began.elapsed().as_secs_f64();
        for key in &keys {
            self.delete(key, Duration::from_secs(2)).await?;
        }
        Ok(self.figures(&measured, wall_s))
    }

    /// All threads in turn: one operation of each is under way at once.
    async fn threads(
        &self,
        keys: &[String],
        operation: &Operation,
        deadline: Instant,
    ) -> Result<Measured, Error> {
        let all: Vec<(String, Operation)> = keys.iter().map(|k| (k.clone(), operation.clone())).collect();
        let mut measured = Measured::default();
        for _ in 0..ITERATIONS {
            let began = Instant::now();
            if began >= deadline {
                break;
            }
            for outcome in self.at_once(&all).await {
                if let Outcome::Ok | Outcome::Value(_) = outcome? {
                    measured.times_ms.push(began.elapsed().as_secs_f64() * 1000.0);
                } else {
                    measured.aborts += 1;
                }
            }
        }
        Ok(measured)
    }

    fn figures(&self, m: &Measured, wall_s: f64) -> Json {
        let number = |d: f64| Json::Number(format!("{:.3}", if d.is_finite() { d } else { 0.0 }).into());
        let count = f64::from(u32::try_from(m.times_ms.len()).unwrap_or(u32::MAX));
        let (min, max) = m.times_ms.iter().fold((f64::MAX, 0.0f64), |(a, b), t| (a.min(*t), b.max(*t)));
        let min = min.min(max);
        let mean = m.times_ms.iter().sum::<f64>() / count.max(1.0);
        let variance = m.times_ms.iter().map(|t| (t - mean) * (t - mean)).sum::<f64>() / count.max(1.0);
        let throughput = count / wall_s;
        let list = |j: Json| Json::Array(vec![j]);
        let aborts = || Json::integer(m.aborts);
        let overlay = self.info.overlay_addr;
        Json::object([
            (
                "servers",
                list(Json::object([
                    ("port", Json::integer(overlay.port())),
                    ("server", Json::string(ERLANG_VERSION)),
                    ("ip", Json::String(overlay.ip().to_string())),
                ])),
            ),
            ("threads_per_vm", Json::integer(THREADS)),
            ("iterations", Json::integer(ITERATIONS)),
            (
                "statistics",
                list(Json::object([
                    ("wall_clock_time", number(wall_s * 1000.0)),
                    ("min_time", number(min)),
                    ("mean_time", number(mean)),
                    ("max_time", number(max)),
                    ("variance", number(variance)),
                    ("aborts", aborts()),
                ])),
            ),
            ("wall_clock_time", number(wall_s * 1000.0)),
            ("wall_clock_throughput", number(throughput)),
            ("wall_clock_latency", number(mean)),
            ("min_throughput_overall", number(throughput)),
            ("min_throughput_each", list(number(throughput))),
            ("mean_throughput_overall", number(throughput)),
            ("mean_throughput_each", list(number(throughput))),
            ("max_throughput_overall", number(throughput)),
            ("max_throughput_each", list(number(throughput))),
            ("min_latency_each", list(number(min))),
            ("avg_latency_each", list(number(mean))),
            ("max_latency_each", list(number(max))),
            ("avg_latency_overall", number(mean)),
            ("avg_exec_time", list(number(mean))),
            ("aborts", list(aborts())),
        ])
    }
}
