//! How long it takes from the start of the processes to the first committed write.

use crate::campaign::Campaign;
use harness::Res;
use harness::grpc::{Grpc, text};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(20);

impl Campaign {
    /// So many starts of a ring, each of nodes that were never there.
    pub(crate) fn starts(&mut self) -> Res<()> {
        for _ in 0..self.options.rounds {
            let began = Instant::now();
            self.fleet.start_all()?;
            let endpoint = self.fleet.doors.all().get(1).map(|d| d.endpoint.clone()).unwrap_or_default();
            let client = Grpc::new(&endpoint)?;
            while client.put_value("first", text("write")).is_err() {
                if began.elapsed() > WITHIN {
                    self.tally.failures.push(format!("no write within {WITHIN:?}"));
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            self.tally
                .time("time from start to the first committed write, at a joining node", began.elapsed());
            self.fleet.wait_full_strength(WITHIN)?;
            self.tally.time("time from start to full strength", began.elapsed());
            self.tally.rounds += 1;
            for place in 0..self.fleet.len() {
                self.fleet.kill(place)?;
                self.fleet.move_away(place)?;
            }
        }
        Ok(())
    }
}
