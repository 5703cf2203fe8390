//! Waiting: for a condition, never for a time.

use crate::Res;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(25);

/// Asks until it is answered or `limit` has passed; then the last reason given is the error.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Res<T>) -> Res<T> {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) if started.elapsed() >= limit => {
                return Err(format!("{what}: not within {limit:?}; {reason}"));
            }
            Err(_) => sleep(PAUSE),
        }
    }
}

/// Checks a condition, with a sentence for when it does not hold.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Res<()> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
