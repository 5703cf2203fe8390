//! How long operations took, for the last hour: count, sum and sum of squares in slots of ten seconds.

use core::time::Duration;
use jsonrpc::Json;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

const SLOT_SECONDS: u64 = 10;
const SPAN_SECONDS: u64 = 3600;
const SLOTS_MAX: usize = 361;

#[derive(Clone, Copy, Debug)]
struct Slot {
    start_s: u64,
    count: f64,
    sum_ms: f64,
    squares: f64,
}

/// The slots that are not empty, oldest first.
#[derive(Debug, Default)]
pub(super) struct Latencies(Mutex<VecDeque<Slot>>);

impl Latencies {
    /// Notes an operation that took so long.
    pub(super) fn note(&self, took: Duration) {
        let start_s = wall_seconds() / SLOT_SECONDS * SLOT_SECONDS;
        self.note_at(start_s, took.as_secs_f64() * 1000.0);
    }

    fn note_at(&self, start_s: u64, ms: f64) {
        let mut slots = self.0.lock();
        match slots.back_mut() {
            Some(last) if last.start_s >= start_s => {
                last.count += 1.0;
                last.sum_ms += ms;
                last.squares += ms * ms;
            }
            _ => {
                slots.push_back(Slot { start_s, count: 1.0, sum_ms: ms, squares: ms * ms });
                while slots.len() > SLOTS_MAX {
                    slots.pop_front();
                }
            }
        }
    }

    /// Averages and deviations in milliseconds, by the second in which their slot began.
    pub(super) fn json(&self) -> Json {
        self.json_since(wall_seconds().saturating_sub(SPAN_SECONDS))
    }

    fn json_since(&self, from_s: u64) -> Json {
        let slots = self.0.lock();
        let slots = || slots.iter().filter(|s| s.start_s >= from_s);
        let by_slot = |f: fn(&Slot) -> f64| {
            let number = |s: &Slot| Json::Number(format!("{:.3}", f(s)).into());
            Json::Object(slots().map(|s| (s.start_s.to_string(), number(s))).collect())
        };
        let deviation = |s: &Slot| {
            let mean = s.sum_ms / s.count;
            (s.squares / s.count - mean * mean).max(0.0).sqrt()
        };
        Json::object([
            ("latency_avg", by_slot(|s| s.sum_ms / s.count)),
            ("latency_stddev", by_slot(deviation)),
        ])
    }
}

#[expect(clippy::disallowed_methods, reason = "names for people to read; nothing is decided by them")]
fn wall_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_means_and_deviations_and_old_ones_go() {
        let l = Latencies::default();
        l.note_at(100, 1.0);
        l.note_at(100, 3.0);
        l.note_at(110, 5.0);
        let expected =
            r#"{"latency_avg":{"100":2.000,"110":5.000},"latency_stddev":{"100":1.000,"110":0.000}}"#;
        assert_eq!(l.json_since(0).write(), expected);
        let late = r#"{"latency_avg":{"110":5.000},"latency_stddev":{"110":0.000}}"#;
        assert_eq!(l.json_since(110).write(), late);
        (0..1000).for_each(|i| l.note_at(200 + 10 * i, 1.0));
        assert_eq!(l.0.lock().len(), SLOTS_MAX);
    }
}
