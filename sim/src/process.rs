//! A process of the cluster: a machine, its clock, and whether it runs.
//!
//! Keeps:
//! 1. Its clock starts anywhere, may run fast or slow and may jump forward or stand still; it never goes back.
//! 2. While it is paused nothing is handled; what arrives waits and is handled in order when it goes on.
//! 3. While it is slow one thing is handled at a time, in order, and each takes a while.

use core::time::Duration;
use dht::{Message, Request, RequestId};
use ring::{NodeRef, RingId, Time};
use std::collections::VecDeque;

/// What a process is given.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message.
    Message {
        /// From whom.
        from: NodeRef,
        /// The ring that the sender was in.
        ring: Option<RingId>,
        /// What.
        message: Box<Message>,
    },
    /// A request of a client or of the operator.
    Request {
        /// Its name.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// A connection broke.
    Lost {
        /// To whom.
        peer: NodeRef,
    },
    /// Its timer fired.
    Timeout,
}

/// A clock that starts at `offset` and runs `rate_per_mille` thousandths as fast as the simulator's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at the beginning of the run.
    pub offset: u64,
    /// Its speed.
    pub rate_per_mille: u64,
    /// What it shows at least: after a jump back it stands still until it has come there again.
    pub reached: Time,
}

impl Clock {
    /// What it shows at `now`.
    pub fn local(&self, now: Time) -> Time {
        let shown = self.offset.saturating_add(now.0.saturating_mul(self.rate_per_mille) / 1000);
        Time(shown).max(self.reached)
    }

    /// Lets it jump forward, or stand still for so long.
    pub fn jump(&mut self, now: Time, by: Duration, is_forward: bool) {
        self.reached = self.local(now);
        let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.offset =
            if is_forward { self.offset.saturating_add(by) } else { self.offset.saturating_sub(by) };
    }

    /// The first moment at which it shows at least `local`.
    pub fn global(&self, local: Time) -> Time {
        let passed = local.0.saturating_sub(self.offset);
        Time(passed.saturating_mul(1000).div_ceil(self.rate_per_mille.max(1)))
    }
}

/// A process.
#[derive(Debug)]
pub struct Process<M> {
    /// Its name.
    pub me: NodeRef,
    /// What it runs.
    pub machine: M,
    /// Its clock.
    pub clock: Clock,
    /// When it was started.
    pub started: Time,
    /// The ring it announced to be in.
    pub ring: Option<RingId>,
    /// Whether it was asked to leave.
    pub is_leaving: bool,
    /// Whether it is stopped for a while.
    pub is_paused: bool,
    /// How long it takes for each thing, while it is slow.
    pub slowness: Option<Duration>,
    /// What arrived while it was paused, or waits for its turn while it is slow.
    pub waiting: VecDeque<Input>,
    /// For when its next timeout is in the queue.
    pub wake: Option<Time>,
    /// How much was handled, to look at registers now and then.
    pub handled: u64,
}

impl<M> Process<M> {
    /// Whether clients may be sent to it.
    pub fn is_serving(&self) -> bool {
        self.ring.is_some() && !self.is_leaving && !self.is_paused
    }

    /// How long it has lived.
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_moment_only_when_it_has_come() {
        for rate_per_mille in [900, 1000, 1037, 1100] {
            let c = Clock { offset: 12345, rate_per_mille, reached: Time(0) };
            for t in [0, 1, 999, 1_000_000] {
                let local = c.local(Time(t)) + Duration::from_micros(777);
                assert!(c.local(c.global(local)) >= local);
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_back_stands_still_instead() {
        let mut c = Clock { offset: 100_000, rate_per_mille: 1000, reached: Time(0) };
        c.jump(Time(50_000), Duration::from_millis(30), false);
        let shown: Vec<u64> = [50_000, 79_999, 80_000, 80_001].map(|t| c.local(Time(t)).0).to_vec();
        assert_eq!(shown, [150_000, 150_000, 150_000, 150_001]);
        assert_eq!(c.global(Time(150_001)), Time(80_001));
        c.jump(Time(90_000), Duration::from_millis(30), true);
        assert_eq!(c.local(Time(90_000)), Time(190_000));
    }
}
