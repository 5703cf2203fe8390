//! What is done to the nodes in a round.

use crate::campaign::Campaign;
use crate::options::Fault;
use crate::workload::Load;
use client::v1::Phase;
use harness::Res;
use harness::grpc::Grpc;
use harness::load::{Client as _, Fate};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The survivors of a crash must be at full strength again within this.
const SURVIVORS_PATIENCE: Duration = Duration::from_secs(45);
/// A node answers within its `--operation-deadline`, 5 s, and a bit for a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// A partition that lasts so long is long enough for a question to come to its deadline.
const LONG_MS: (u64, u64) = (6700, 7500);
/// A node that is alone knows that it is after this.
const KNOWS_AFTER: Duration = Duration::from_millis(1400);

impl Campaign {
    fn any_place(&mut self) -> usize {
        self.draw.index(self.fleet.len())
    }

    fn note_blocked(&mut self, load: &Load, what: &str, from: Instant, to: Instant) {
        let blocked = load.blocked(from, to);
        self.tell(format!("writes blocked for {blocked:?}"));
        self.tally.time(&format!("writes blocked, {what}"), blocked);
    }

    /// kill -9 of one node, and what may follow it.
    pub(crate) fn kill(&mut self, load: &Load) -> Res<()> {
        let victim = self.any_place();
        let began = Instant::now();
        match self.draw.below(4) {
            0 => {
                let pause = self.draw.millis(0, 400);
                self.tell(format!("kill -9 of {victim}, restarted at its address after {pause:?}"));
                self.fleet.kill(victim)?;
                std::thread::sleep(pause);
                self.fleet.start_at_others(victim)?;
                self.fleet.wait_full_strength(SURVIVORS_PATIENCE)?;
                self.note_blocked(load, "kill -9 and instant restart", began, Instant::now());
                self.tally.time("time from kill -9 and instant restart to full strength", began.elapsed());
            }
            way => {
                self.tell(format!("kill -9 of {victim}"));
                self.fleet.kill(victim)?;
                self.fleet.wait_full_strength(SURVIVORS_PATIENCE)?;
                self.tell("full strength without it".to_owned());
                self.note_blocked(load, "kill -9", began, Instant::now());
                self.tally.time("time from kill -9 to full strength of the others", began.elapsed());
                let began = Instant::now();
                if way == 1 {
                    self.fleet.move_away(victim)?;
                }
                self.tell(format!("a node starts at {}", self.fleet.address(victim)));
                self.fleet.start_at_others(victim)?;
                self.fleet.wait_full_strength(SURVIVORS_PATIENCE)?;
                self.note_blocked(load, "a node joins", began, Instant::now());
                self.tally.time("time from start to full strength with a new node", began.elapsed());
            }
        }
        Ok(())
    }

    /// SIGSTOP of one node, for less or more than every time-out, and SIGCONT.
    pub(crate) fn pause(&mut self, load: &Load) -> Res<()> {
        let victim = self.any_place();
        let length =
            if self.draw.chance(500) { self.draw.millis(100, 1200) } else { self.draw.millis(1200, 6000) };
        self.tell(format!("SIGSTOP of {victim} for {length:?}"));
        let began = Instant::now();
        self.fleet.close(victim);
        self.fleet.signal(victim, "STOP")?;
        std::thread::sleep(length);
        self.fleet.signal(victim, "CONT")?;
        self.tell("SIGCONT".to_owned());
        self.note_blocked(load, "a pause", began, Instant::now());
        Ok(())
    }

    /// SIGTERM of one node and a start at the same address.
    pub(crate) fn restart(&mut self) -> Res<()> {
        let victim = self.any_place();
        self.tell(format!("SIGTERM of {victim}"));
        self.fleet.close(victim);
        self.fleet.signal(victim, "TERM")?;
        let began = Instant::now();
        let status = self.fleet.wait_exit(victim, Duration::from_secs(15))?;
        self.tally.time("time to leave", began.elapsed());
        if status.code() != Some(0) {
            return Err(format!("the node that was told to leave ended with {status}"));
        }
        self.sleep(0, 500);
        self.fleet.start_at_others(victim)
    }

    /// Cuts some links for a while.
    pub(crate) fn partition(&mut self, shape: Fault, load: &Load) -> Res<()> {
        let (cuts, closed, what) = self.shape(shape);
        let is_long = self.draw.chance(300);
        let (low, high) = if is_long { LONG_MS } else { (300, 3500) };
        let length = self.draw.millis(low, high);
        self.tell(format!("{what} for {length:?}"));
        for place in &closed {
            self.fleet.close(*place);
        }
        let began = Instant::now();
        self.fleet.cut(&cuts)?;
        if is_long && shape == Fault::One {
            let lonely = closed.first().copied().unwrap_or(0);
            self.ask_lonely(lonely)?;
        }
        std::thread::sleep(length.saturating_sub(began.elapsed()));
        let healed = Instant::now();
        self.fleet.cut(&[])?;
        self.tell("healed".to_owned());
        // Where no side has a majority of the nodes, keys may have no quorum on either.
        if !matches!(shape, Fault::Halves | Fault::Partial) {
            self.note_blocked(load, "at the majority of a partition", began, healed);
        }
        Ok(())
    }

    /// The directions that are cut, the places that clients should not count on, and a sentence.
    fn shape(&mut self, shape: Fault) -> (Vec<(usize, usize)>, Vec<usize>, String) {
        let n = self.fleet.len();
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.draw.index(i + 1));
        }
        let (a, b) = (order[0], order[1]);
        let others = || order[1..].iter().copied();
        match shape {
            Fault::Halves => {
                let (few, many) = order.split_at(n / 2);
                (both_ways(few, many), few.to_vec(), format!("{few:?} and {many:?} are apart"))
            }
            Fault::OneWay => match self.draw.below(3) {
                0 => (others().map(|o| (a, o)).collect(), vec![a], format!("nobody hears {a}")),
                1 => (others().map(|o| (o, a)).collect(), vec![a], format!("{a} hears nobody")),
                _ => (vec![(a, b)], vec![a, b], format!("{b} does not hear {a}")),
            },
            Fault::Partial if self.draw.chance(500) && n >= 5 => {
                let (left, right) = order[1..].split_at(n / 2);
                let what = format!("{left:?} and {right:?} are apart, both see {a}");
                (both_ways(left, right), left.to_vec(), what)
            }
            Fault::Partial => {
                (both_ways(&[a], &[b]), vec![a], format!("{a} and {b} are apart, others see both"))
            }
            Fault::One
            | Fault::Kill
            | Fault::Pause
            | Fault::Restart
            | Fault::All
            | Fault::Home
            | Fault::Stall
            | Fault::Rolling
            | Fault::Bank
            | Fault::Start => (both_ways(&[a], &order[1..]), vec![a], format!("{a} is alone")),
        }
    }

    /// A node that is alone has at most one replica of a key: it must say so, in time, and do nothing.
    fn ask_lonely(&mut self, place: usize) -> Res<()> {
        let Some(key) = self.cold.any() else { return Ok(()) };
        // What the others have not missed yet may still be answered from before.
        std::thread::sleep(Duration::from_millis(200));
        let endpoint = format!("{}:{}", self.fleet.address(place), harness::process::CLIENT_PORT);
        let asked = |change: bool, after: Duration| {
            let (endpoint, key) = (endpoint.clone(), key.clone());
            std::thread::spawn(move || -> Res<(String, Duration)> {
                std::thread::sleep(after);
                let mut client = Grpc::new(&endpoint)?;
                let began = Instant::now();
                let said = if change {
                    match client.put(&format!("{key}-lonely-{}", after.as_millis()), "x") {
                        Fate::Done => "done".to_owned(),
                        Fate::NotDone(e) | Fate::Unknown(e) => e,
                    }
                } else {
                    client.get(&key).map_or_else(|e| e, |v| format!("answered {v:?}"))
                };
                Ok((said, began.elapsed()))
            })
        };
        let questions = [
            ("read", asked(false, Duration::ZERO)),
            ("early write", asked(true, Duration::ZERO)),
            ("late write", asked(true, KNOWS_AFTER)),
        ];
        for (what, thread) in questions {
            let (said, took) = thread.join().map_err(|_| "a question panicked".to_owned())??;
            let is_refused = said.contains("Unavailable");
            // What is asked before the others are missed may be on its way to them.
            let is_unknown = what == "early write" && said.contains("DeadlineExceeded");
            if !(is_refused || is_unknown) || took > ANSWER_LIMIT {
                return Err(format!("{what} at node {place}, which is alone, after {took:?}: {said}"));
            }
            let word = if is_refused { "unavailable" } else { "unknown" };
            self.tally.count(&format!("{what}s at a lonely node answered {word}"), 1);
            self.tally.time(&format!("time until a lonely node answers a {what}"), took);
        }
        Ok(())
    }

    /// The first node is killed and started again with itself to join, as a container's restart does.
    pub(crate) fn home(&mut self, load: &Load) -> Res<()> {
        let ring = self.fleet.status(1)?.ring;
        let pause = if self.draw.chance(300) { Duration::ZERO } else { self.draw.millis(0, 3000) };
        self.tell(format!("kill -9 of the first node, restarted after {pause:?}"));
        let began = Instant::now();
        self.fleet.kill(0)?;
        std::thread::sleep(pause);
        let own = self.fleet.address(0);
        self.fleet.start(0, &[own])?;
        let restarted = Instant::now();
        let mut seen = BTreeSet::new();
        // Clients that know only the first node do not wait until all is well.
        if let Some(d) = self.fleet.doors.all().first() {
            d.set_open(true);
        }
        let limit = Duration::from_secs(30);
        loop {
            let status = self.fleet.status(0);
            if let Ok(s) = &status
                && s.phase() == Phase::Member
                && seen.insert(s.ring.clone())
            {
                self.tell(format!("the first node is in ring {}", s.ring));
            }
            if self.fleet.wait_full_strength(Duration::ZERO).is_ok() {
                break;
            }
            if restarted.elapsed() > limit {
                return Err(format!("the first node did not come home within {limit:?}; rings: {seen:?}"));
            }
        }
        self.tally.time("time from its start to full strength", restarted.elapsed());
        self.note_blocked(load, "the first node restarts", began, Instant::now());
        if seen.iter().any(|r| *r != ring) {
            self.tally.count("the first node served in a ring of its own for a moment", 1);
        }
        let now = self.fleet.status(0)?.ring;
        if now == ring { Ok(()) } else { Err(format!("the ring is {now}, and was {ring}")) }
    }

    /// Nobody runs, or nobody hears anybody, for long.
    pub(crate) fn stall(&mut self) -> Res<()> {
        let places: Vec<usize> = (0..self.fleet.len()).collect();
        let length = self.options.stall;
        if self.draw.chance(500) {
            self.tell(format!("SIGSTOP of all for {length:?}"));
            places.iter().try_for_each(|p| self.fleet.signal(*p, "STOP"))?;
            std::thread::sleep(length);
            places.iter().try_for_each(|p| self.fleet.signal(*p, "CONT"))?;
        } else {
            self.tell(format!("all links down for {length:?}"));
            self.fleet.set_links(false)?;
            std::thread::sleep(length);
            self.fleet.set_links(true)?;
        }
        self.tell("over".to_owned());
        Ok(())
    }
}

fn both_ways(some: &[usize], others: &[usize]) -> Vec<(usize, usize)> {
    some.iter().flat_map(|a| others.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect()
}
