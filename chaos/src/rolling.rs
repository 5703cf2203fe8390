//! A rolling restart as an operator does it: one node after the other is told to leave, started again, and the
//! next one waits until it is ready. Clients of the project's own kind must not notice.

use crate::campaign::Campaign;
use crate::recorder::{Recorder, attempt, failed};
use client::Client;
use harness::process::CLIENT_PORT;
use harness::{Res, http};
use sim::draw::{Draw, Stream};
use sim::history::Action;
use sim::order;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Change, Condition, Value};

const KEYS: u64 = 40;
const READY_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Caller {
    who: usize,
    prefix: String,
    kv: Client,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
    draw: Draw,
}

impl Caller {
    async fn call(mut self) {
        let mut written = 0u64;
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(self.draw.millis(1, 20)).await;
            let n = self.draw.below(KEYS);
            written += 1;
            let (kind, action) = match self.draw.below(4) {
                0 => ('c', Action::Change(Change::AddOnNumber { by: Value::int(1) })),
                1 | 2 => {
                    let value = Value::string(&format!("{}.{written}", self.who));
                    ('r', Action::Change(Change::Put { value, condition: Condition::Always }))
                }
                _ => ('r', Action::Get),
            };
            let key = format!("{}-{kind}{n}", self.prefix);
            let began = Instant::now();
            let id = self.recorder.invoke(self.who, &key, &action);
            let outcome = attempt(&self.kv, &key, &action).await.unwrap_or_else(|e| {
                let text = format!("client {} after {:?}: {key}: {e:?}", self.who, began.elapsed());
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                failed(&e)
            });
            self.recorder.complete(id, outcome);
        }
    }
}

impl Campaign {
    /// So many passes over all nodes.
    pub(crate) fn rolling(&mut self) -> Res<()> {
        self.start()?;
        for pass in 1..=self.options.rounds {
            self.story.clear();
            if let Err(why) = self.pass(pass) {
                self.fail(pass, &why);
                if self.tally.failures.len() >= self.options.failures_max {
                    return Ok(());
                }
                self.fleet.start_over()?;
            }
            self.tally.rounds += 1;
        }
        Ok(())
    }

    fn pass(&mut self, pass: u64) -> Res<()> {
        let endpoints: Vec<String> = self.fleet.doors.all().iter().map(|d| d.endpoint.clone()).collect();
        let (recorder, stop) = (Arc::new(Recorder::new()), Arc::new(AtomicBool::new(false)));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for who in 0..self.options.clients.0 {
            // Half of the clients ask whom they were told of, the others go to the home of a key.
            let connecting = Client::builder(endpoints.clone()).routes_to_home(who % 2 == 0).connect();
            let caller = Caller {
                who,
                prefix: format!("{}-{pass}", self.options.seed),
                kv: self.runtime.block_on(connecting).map_err(|e| e.to_string())?,
                recorder: Arc::clone(&recorder),
                stop: Arc::clone(&stop),
                failures: Arc::clone(&failures),
                draw: Draw::new(
                    pass.wrapping_mul(4099).wrapping_add(u64::try_from(who).unwrap_or(0)),
                    Stream::Workload,
                ),
            };
            tasks.push(self.runtime.spawn(caller.call()));
        }
        self.sleep(500, 1000);
        let result = (0..self.fleet.len()).try_for_each(|place| self.roll(place));
        self.sleep(500, 1000);
        stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            for task in tasks {
                let _ = task.await;
            }
        });
        let history = recorder.history();
        self.tally.count_history(&history);
        order::check(&history).map_err(|v| v.to_string())?;
        result?;
        let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.len() {
            0 => Ok(()),
            n => {
                let shown: Vec<String> = failures.iter().take(10).cloned().collect();
                Err(format!("{n} calls failed:\n{}", shown.join("\n")))
            }
        }
    }

    fn roll(&mut self, place: usize) -> Res<()> {
        self.tell(format!("SIGTERM of {place}"));
        self.fleet.signal(place, "TERM")?;
        let began = Instant::now();
        let status = self.fleet.wait_exit(place, Duration::from_secs(15))?;
        self.tally.time("time to leave", began.elapsed());
        if status.code() != Some(0) {
            return Err(format!("node {place}, told to leave, ended with {status}"));
        }
        self.tell(format!("{place} has left; it is started again"));
        let began = Instant::now();
        self.fleet.start_at_others(place)?;
        let at = SocketAddr::from((self.fleet.address(place), CLIENT_PORT));
        while !http::get(at, "/readyz").is_ok_and(|(status, _)| status == 200) {
            if began.elapsed() > READY_WITHIN {
                return Err(format!("node {place} is not ready within {READY_WITHIN:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.tell(format!("{place} is ready"));
        self.tally.time("time from start to ready", began.elapsed());
        Ok(())
    }
}
