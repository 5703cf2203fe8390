//! Clients of all nodes at once.
//!
//! *Writers* each write one key of their own, over and over, through nodes that are expected to serve: they tell
//! for how long writes were blocked. *Mixers* do everything to a few shared keys, also through nodes that are cut
//! off or dead. Keys are new in every round, so a round's history is whole.

use crate::door::{Door, Doors};
use crate::recorder::{Recorder, perform};
use sim::draw::{Draw, Stream};
use sim::history::{Action, Outcome};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Change, Condition, Data, Value};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How long a writer waits between two writes.
const WRITER_PAUSE: Duration = Duration::from_millis(25);
const REGISTERS: u64 = 10;
const DELETED: u64 = 3;
const COUNTERS: u64 = 4;
const LISTS: u64 = 4;

/// The load of one round.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) recorder: Arc<Recorder>,
    prefix: String,
    writers: usize,
    stop: Arc<AtomicBool>,
    acks: Arc<Mutex<Vec<(usize, Instant)>>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Worker {
    who: usize,
    prefix: String,
    doors: Doors,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    draw: Draw,
    written: u64,
}

impl Load {
    pub(crate) fn start(
        runtime: &Runtime,
        doors: &Doors,
        prefix: String,
        seed: u64,
        (writers, mixers): (usize, usize),
    ) -> Load {
        let recorder = Arc::new(Recorder::new());
        let stop = Arc::new(AtomicBool::new(false));
        let acks = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for who in 0..writers + mixers {
            let draw_seed = seed.wrapping_mul(1009).wrapping_add(u64::try_from(who).unwrap_or(0));
            let worker = Worker {
                who,
                prefix: prefix.clone(),
                doors: doors.clone(),
                recorder: Arc::clone(&recorder),
                stop: Arc::clone(&stop),
                draw: Draw::new(draw_seed, Stream::Workload),
                written: 0,
            };
            tasks.push(if who < writers {
                runtime.spawn(worker.write_one_key(Arc::clone(&acks)))
            } else {
                runtime.spawn(worker.mix())
            });
        }
        Load { recorder, prefix, writers, stop, acks, tasks }
    }

    /// All keys of the round.
    fn keys(&self) -> Vec<String> {
        let shared = [('r', REGISTERS), ('d', DELETED), ('c', COUNTERS), ('l', LISTS)];
        let mut keys: Vec<String> = (0..self.writers).map(|w| own_key(&self.prefix, w)).collect();
        for (kind, n) in shared {
            keys.extend((0..n).map(|i| format!("{}-{kind}{i}", self.prefix)));
        }
        keys
    }

    /// Ends the clients; then every key is read at every node, as the history's last word.
    pub(crate) fn finish(&mut self, runtime: &Runtime, doors: &Doors) {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for task in self.tasks.drain(..) {
                // A panic of a client was printed where it happened.
                let _ = task.await;
            }
        });
        let keys = self.keys();
        let mut readers = Vec::new();
        for (i, door) in doors.open().into_iter().enumerate() {
            let (keys, recorder) = (keys.clone(), Arc::clone(&self.recorder));
            readers.push(runtime.spawn(async move {
                for key in keys {
                    let id = recorder.invoke(1000 + i, &key, &Action::Get);
                    recorder.complete(id, through(&door, &key, &Action::Get).await);
                }
            }));
        }
        runtime.block_on(async {
            for reader in readers {
                let _ = reader.await;
            }
        });
    }

    /// For how long a key of a writer could not be written between two moments, at the worst.
    pub(crate) fn blocked(&self, from: Instant, to: Instant) -> Duration {
        let acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        (0..self.writers)
            .map(|w| {
                let mut last = from;
                let mut worst = Duration::ZERO;
                for (_, at) in acks.iter().filter(|(who, at)| *who == w && *at > from) {
                    worst = worst.max(at.saturating_duration_since(last));
                    last = *at;
                    if *at > to {
                        break;
                    }
                }
                worst.max(to.saturating_duration_since(last)).saturating_sub(WRITER_PAUSE)
            })
            .max()
            .unwrap_or_default()
    }
}

fn own_key(prefix: &str, who: usize) -> String {
    format!("{prefix}-w{who}")
}

/// One operation through a node, as far as it can be reached.
async fn through(door: &Door, key: &str, action: &Action) -> Outcome {
    match door.client().await {
        Ok(kv) => perform(&kv, key, action).await,
        Err(_) => Outcome::Failed("cannot connect".to_owned()),
    }
}

impl Worker {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// A value that nobody else writes.
    fn value(&mut self) -> Value {
        self.written += 1;
        Value::string(&format!("{}.{}", self.who, self.written))
    }

    async fn write_one_key(mut self, acks: Arc<Mutex<Vec<(usize, Instant)>>>) {
        let key = own_key(&self.prefix, self.who);
        while self.goes_on() {
            tokio::time::sleep(WRITER_PAUSE).await;
            let Some(door) = self.draw.pick(&self.doors.open()) else { continue };
            let action = if self.draw.chance(150) {
                Action::Get
            } else {
                Action::Change(Change::Put { value: self.value(), condition: Condition::Always })
            };
            let id = self.recorder.invoke(self.who, &key, &action);
            let outcome = tokio::select! {
                outcome = through(&door, &key, &action) => outcome,
                // Nothing is to be expected any more of a node that is known to be gone.
                () = door.closed() => Outcome::Unknown,
            };
            if matches!(outcome, Outcome::Changed { .. }) {
                let mut acks = acks.lock().unwrap_or_else(PoisonError::into_inner);
                acks.push((self.who, Instant::now()));
            }
            self.recorder.complete(id, outcome);
        }
    }

    async fn mix(mut self) {
        let mut seen: Option<Value> = None;
        while self.goes_on() {
            tokio::time::sleep(self.draw.millis(2, 30)).await;
            let open = self.doors.open();
            let is_any = open.is_empty() || self.draw.chance(100);
            let doors = if is_any { self.doors.all() } else { open };
            let Some(door) = self.draw.pick(&doors) else { continue };
            let (key, action) = self.plan(&mut seen);
            let id = self.recorder.invoke(self.who, &key, &action);
            let outcome = through(&door, &key, &action).await;
            if let Some((Some(value), _)) = outcome.sight() {
                seen = Some(value.clone());
            }
            let is_failed = matches!(outcome, Outcome::Failed(_));
            self.recorder.complete(id, outcome);
            if is_failed {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn plan(&mut self, seen: &mut Option<Value>) -> (String, Action) {
        let key = |kind: char, n: u64| format!("{}-{kind}{n}", self.prefix);
        let list = |items: Vec<Data>| Value::encode(&Data::List(items));
        let put = |value| Action::Change(Change::Put { value, condition: Condition::Always });
        match self.draw.below(20) {
            0..=9 => {
                let key = key('r', self.draw.below(REGISTERS));
                let action = match (self.draw.below(10), seen.take()) {
                    (0..=3, _) => put(self.value()),
                    (4..=5, Some(old)) => Action::Change(Change::TestAndSet { old, new: self.value() }),
                    (_, _) => Action::Get,
                };
                (key, action)
            }
            10..=11 => {
                let key = key('d', self.draw.below(DELETED));
                let action = match self.draw.below(4) {
                    0..=1 => put(self.value()),
                    2 => Action::Change(Change::Delete { condition: Condition::Always }),
                    _ => Action::Get,
                };
                (key, action)
            }
            12..=15 => {
                let key = key('c', self.draw.below(COUNTERS));
                let add = Action::Change(Change::AddOnNumber { by: Value::int(1) });
                (key, if self.draw.chance(700) { add } else { Action::Get })
            }
            _ => {
                let key = key('l', self.draw.below(LISTS));
                if self.draw.chance(400) {
                    return (key, Action::Get);
                }
                let add = list(vec![self.value().decode()]);
                (key, Action::Change(Change::AddDelOnList { add, remove: list(Vec::new()) }))
            }
        }
    }
}
