//! What a run is: everything that its seed draws before it begins.
//!
//! Keeps:
//! 1. A seed, a profile, a scenario, a number of nodes and of operations name one run.

use crate::draw::{Draw, Stream};
use crate::network::Weather;
use crate::swarm::{self, Swarm};
use core::time::Duration;
use dht::Config;

/// Which faults a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// None.
    Steady,
    /// Of the network, and pauses.
    Messages,
    /// Nodes come and leave, with mild faults of the network.
    Churn,
    /// Nodes crash and are restarted, with all the others.
    Crash,
    /// One kind of fault, or two, or many, and everything else drawn: see [`swarm`].
    Swarm,
    /// One of the others but for the swarm, drawn.
    All,
}

impl Profile {
    /// The profiles by name.
    pub const NAMES: [(&'static str, Profile); 6] = [
        ("steady", Profile::Steady),
        ("messages", Profile::Messages),
        ("churn", Profile::Churn),
        ("crash", Profile::Crash),
        ("swarm", Profile::Swarm),
        ("all", Profile::All),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Profile::NAMES.iter().find(|n| n.1 == self).map_or("all", |n| n.0)
    }
}

/// What the run does besides clients and faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A ring of a given size under load.
    Load,
    /// The same, of few keys that are written and deleted often.
    Hot,
    /// A ring of one grows to `nodes` and shrinks to one again, under load.
    GrowShrink,
    /// A ring that loses more nodes than it can bear, and is salvaged.
    Salvage,
    /// A ring of a given size under transactions.
    Transactions,
}

/// Everything about a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// Whether faults were asked to come thick: see [`Settings::with_harshness`].
    pub is_harsh: bool,
    /// The replication factor that was asked for instead of the one drawn.
    pub replicas_asked: Option<u8>,
    /// Which faults; never [`Profile::All`].
    pub profile: Profile,
    /// The profile that was asked for, for the replay command.
    pub profile_asked: Profile,
    /// What else.
    pub scenario: Scenario,
    /// How many nodes there are at first.
    pub nodes: u8,
    /// How many operations clients begin.
    pub ops: usize,
    /// The settings of every node.
    pub config: Config,
    /// The network while there are faults.
    pub weather: Weather,
    /// Whether there are faults while the ring forms.
    pub is_rough_start: bool,
    /// How far clocks are off in speed.
    pub clock_drift_per_mille: u64,
    /// Registers are looked at once per so many things that a node handled.
    pub registers_look_every: u64,
    /// How many clients.
    pub clients: usize,
    /// How long a client waits between two operations, on average.
    pub think: Duration,
    /// How long between two faults, on average.
    pub fault_interval: Duration,
    /// How many keys are rarely used.
    pub cold_keys: u64,
    /// What a swarm has besides.
    pub swarm: Option<Swarm>,
}

impl Settings {
    /// Draws a run.
    pub fn draw(seed: u64, asked: Profile, scenario: Scenario, nodes: u8, ops: usize) -> Settings {
        let mut d = Draw::new(seed, Stream::Settings);
        let profile = match asked {
            Profile::All => d
                .pick(&[
                    Profile::Steady,
                    Profile::Messages,
                    Profile::Messages,
                    Profile::Churn,
                    Profile::Churn,
                    Profile::Crash,
                    Profile::Crash,
                    Profile::Crash,
                ])
                .unwrap_or(Profile::Crash),
            Profile::Steady | Profile::Messages | Profile::Churn | Profile::Crash | Profile::Swarm => asked,
        };
        let is_dense = matches!(scenario, Scenario::Transactions | Scenario::Hot);
        let delay = Duration::from_micros(d.pick(&[100, 300, 1000, 3000, 8000]).unwrap_or(300));
        let mut s = Settings {
            seed,
            is_harsh: false,
            replicas_asked: None,
            profile,
            profile_asked: asked,
            scenario,
            nodes: nodes.max(1),
            ops,
            config: config(&mut d),
            weather: weather(&mut d, profile, delay),
            is_rough_start: profile != Profile::Steady && d.chance(250),
            clock_drift_per_mille: if d.chance(300) { d.between(1, 80) } else { 0 },
            registers_look_every: 32,
            clients: d.index(6) + 3,
            think: if is_dense { d.millis(2, 60) } else { d.millis(20, 300) },
            fault_interval: d.millis(400, 4000),
            cold_keys: if scenario == Scenario::Hot { d.between(1, 5) } else { d.between(20, 120) },
            swarm: None,
        };
        if profile == Profile::Swarm {
            swarm::apply(&mut s);
        }
        s
    }

    /// The same with another replication factor.
    pub fn with_replicas(mut self, replicas: Option<u8>) -> Settings {
        self.replicas_asked = replicas;
        self.config.replication_factor = replicas.unwrap_or(self.config.replication_factor);
        self
    }

    /// The same with many lost and repeated messages, faults in quick succession, and nodes that are soon believed
    /// dead and replaced.
    pub fn with_harshness(mut self, is_harsh: bool) -> Settings {
        self.is_harsh = is_harsh;
        if is_harsh {
            let mut d = Draw::new(self.seed ^ 0x4a75, Stream::Settings);
            let w = &mut self.weather;
            w.loss_per_mille = d.between(50, 300);
            w.duplicate_per_mille = d.between(0, 300);
            w.replay_per_mille = d.between(0, 50);
            w.replay_delay_max = d.millis(500, 8000);
            w.is_ordered = false;
            self.fault_interval = d.millis(150, 800);
            let soon = d.between(500, 1000);
            let soon = |t: Duration| t * u32::try_from(soon).unwrap_or(1000) / 1000;
            (self.config.suspect_after, self.config.dead_after) =
                (soon(Duration::from_millis(450)), soon(Duration::from_millis(700)));
            self.think = d.millis(10, 120);
        }
        self
    }

    /// The same with a rule of the protocol broken.
    #[cfg(feature = "planted")]
    pub fn with_planted(mut self, planted: Option<dht::plant::Plant>) -> Settings {
        self.config.planted = planted;
        self
    }

    /// The network without faults.
    pub fn weather_calm(&self) -> Weather {
        Weather::calm(self.weather.delay)
    }

    /// How much longer everything takes than usual, for limits of time.
    pub fn stretched(&self, time: Duration) -> Duration {
        time * self.swarm.as_ref().map_or(1000, |s| s.stretch_per_mille) / 1000
    }

    /// How many replicas may be lost at once.
    pub fn losses_max(&self) -> usize {
        let r = usize::from(self.config.replication_factor);
        r - (r / 2 + 1)
    }

    /// The command that runs it again with a transcript.
    pub fn replay_command(&self) -> String {
        let scenario = match self.scenario {
            Scenario::Load => "",
            Scenario::Hot => " --scenario hot",
            Scenario::GrowShrink => " --scenario grow-shrink",
            Scenario::Salvage => " --scenario salvage",
            Scenario::Transactions => " --scenario transactions",
        };
        let replicas = self.replicas_asked.map(|r| format!(" --replicas {r}")).unwrap_or_default();
        let harsh = if self.is_harsh { " --harsh" } else { "" };
        let planted = self.config.planted().map(|p| format!(" --planted {p:?}")).unwrap_or_default();
        let features = if planted.is_empty() { "" } else { " --features planted" };
        format!(
            "cargo run --release -p kvnode-sim{features} -- --seed {} --profile {} --nodes {} --ops {}{scenario}{replicas}{harsh}{planted} --trace",
            self.seed,
            self.profile_asked.name(),
            self.nodes,
            self.ops
        )
    }
}

fn config(d: &mut Draw) -> Config {
    let base = Config::default();
    let scale = d.pick(&[700, 1000, 1000, 1500, 2500]).unwrap_or(1000);
    let scaled = |t: Duration| t * scale / 1000;
    Config {
        replication_factor: d.pick(&[3, 3, 3, 3, 5, 5, 4, 1]).unwrap_or(3),
        attempt_timeout: scaled(base.attempt_timeout),
        lock_wait: scaled(base.lock_wait),
        lock_age_max: scaled(base.lock_age_max),
        vote_timeout: scaled(base.vote_timeout),
        ping_interval: scaled(base.ping_interval),
        suspect_after: scaled(base.suspect_after),
        dead_after: scaled(base.dead_after),
        probation: scaled(base.probation),
        knock_interval: scaled(base.knock_interval),
        duty_interval: scaled(base.duty_interval),
        settle_time: scaled(base.settle_time),
        accepts_in_flight_per_key_max: d.index(4) + 1,
        page_bytes_max: d.pick(&[64, 300, 1000, 4096]).unwrap_or(300),
        chunk_bytes_max: d.pick(&[300, 2000, 8000, 1 << 20]).unwrap_or(2000),
        operation_id_age: d.pick(&[2, 10, 60]).map(Duration::from_secs).unwrap_or(base.operation_id_age),
        ..base
    }
}

fn weather(d: &mut Draw, profile: Profile, delay: Duration) -> Weather {
    let (loss_max, rough) = match profile {
        Profile::Steady => return Weather::calm(delay),
        Profile::Messages => (300, 1),
        Profile::Churn => (50, 2),
        Profile::Crash | Profile::Swarm | Profile::All => (150, 1),
    };
    // Each fault is left out in some runs, so that none hides what another would show.
    let mut some = |max: u64| if d.chance(400) { 0 } else { d.between(0, max / rough) };
    let (loss_per_mille, duplicate_per_mille, replay_per_mille) = (some(loss_max), some(200), some(20));
    Weather {
        delay,
        loss_per_mille,
        duplicate_per_mille,
        replay_per_mille,
        replay_delay_max: d.millis(1000, 60_000),
        is_ordered: d.chance(400),
        hint_per_mille: d.pick(&[0, 300, 1000]).unwrap_or(300),
    }
}
