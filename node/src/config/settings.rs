//! The settings with their types, checked.

use super::{CLIENT_PORT, Host, Layers, Listen, OVERLAY_PORT, Origin, SETTINGS, parse};
use crate::error::{Report, SETTING_INVALID};
use std::net::SocketAddr;
use std::time::Duration;

/// Everything the server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address for other nodes.
    pub listen: Listen,
    /// Known hosts.
    pub join: Vec<Host>,
    /// Address for clients; none means the overlay address, port 8000.
    pub http_listen: Option<SocketAddr>,
    /// Creates a ring at once.
    pub create: bool,
    /// The replication factor of a ring that this node creates.
    pub replication_factor: u8,
    /// Whether the replication factor was said, and another one is a conflict.
    pub replication_factor_is_given: bool,
    /// The limit on memory for data, in bytes.
    pub max_memory_bytes: u64,
    /// Longer keys are refused.
    pub key_bytes_max: usize,
    /// Longer values are refused.
    pub value_bytes_max: usize,
    /// Longer bodies of JSON-RPC are refused.
    pub jsonrpc_bytes_max: usize,
    /// An operation is answered within this.
    pub operation_deadline: Duration,
    /// Connections of clients open at once.
    pub connections_max: usize,
    /// Operations of clients open at once.
    pub requests_max: usize,
    /// Other nodes are pinged once in this.
    pub ping_interval: Duration,
    /// A node that is silent for this is suspected.
    pub suspect_after: Duration,
    /// A node that is silent for this counts as dead.
    pub dead_after: Duration,
    /// The node gives up if it is in no ring after this; none tries for ever.
    pub join_timeout: Option<Duration>,
    /// The collector that gets traces; none traces nothing.
    pub otlp_endpoint: Option<String>,
    /// How many of a million operations are traced where the client does not say.
    pub trace_per_million: u32,
    /// What is logged.
    pub log: String,
}

impl Settings {
    /// Checks the text of all settings.
    pub fn from_layers(layers: &Layers) -> Result<Settings, Report> {
        let time = |name: &str| checked(layers, name, parse::duration);
        let bytes = |name: &str| {
            let n = checked(layers, name, |t| parse::size(t, None))?;
            usize::try_from(n)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| invalid(layers, name, "out of range".into()))
        };
        let count = |t: &str| {
            let n = t.parse::<usize>().ok().filter(|n| (1..=1_000_000).contains(n));
            n.ok_or_else(|| format!("\"{t}\" is not a number from 1 to 1000000"))
        };
        let factor = |t: &str| {
            let r = t.parse::<u8>().ok().filter(|r| ring::Space::new(*r).is_some());
            r.ok_or_else(|| format!("\"{t}\" is not one of 1, 3, 4, 5, 7"))
        };
        let hosts = |t: &str| {
            let names = t.split(',').map(str::trim).filter(|h| !h.is_empty());
            names.map(|h| parse::host(h, OVERLAY_PORT)).collect::<Result<Vec<_>, _>>()
        };
        let client = |t: &str| match t {
            "" => Ok(None),
            t => parse::socket_addr(t, CLIENT_PORT).map(Some),
        };
        let join_timeout = time("join-timeout")?;
        let s = Settings {
            listen: checked(layers, "listen", |t| parse::listen(t, OVERLAY_PORT))?,
            join: checked(layers, "join", hosts)?,
            http_listen: checked(layers, "http-listen", client)?,
            create: checked(layers, "create", parse::boolean)?,
            replication_factor: checked(layers, "replication-factor", factor)?,
            replication_factor_is_given: *layers.get("replication-factor").1 != Origin::Default,
            max_memory_bytes: checked(layers, "max-memory", |t| {
                parse::size(t, Some(machine_memory_bytes()))
            })?,
            key_bytes_max: bytes("key-bytes-max")?,
            value_bytes_max: bytes("value-bytes-max")?,
            jsonrpc_bytes_max: bytes("jsonrpc-bytes-max")?,
            operation_deadline: time("operation-deadline")?,
            connections_max: checked(layers, "connections-max", count)?,
            requests_max: checked(layers, "requests-max", count)?,
            ping_interval: time("ping-interval")?,
            suspect_after: time("suspect-after")?,
            dead_after: time("dead-after")?,
            join_timeout: (!join_timeout.is_zero()).then_some(join_timeout),
            otlp_endpoint: checked(layers, "otlp-endpoint", parse::collector)?,
            trace_per_million: checked(layers, "trace-ratio", parse::per_million)?,
            log: layers.get("log").0.to_owned(),
        };
        s.check(layers)?;
        Ok(s)
    }

    fn check(&self, layers: &Layers) -> Result<(), Report> {
        for (lesser, a, greater, b) in [
            ("ping-interval", self.ping_interval, "suspect-after", self.suspect_after),
            ("suspect-after", self.suspect_after, "dead-after", self.dead_after),
        ] {
            if a >= b || a.is_zero() {
                let cause =
                    format!("{lesser} is {a:?} and {greater} is {b:?}; it must be above 0 and the lesser");
                return Err(invalid(layers, lesser, cause));
            }
        }
        if self.operation_deadline.is_zero() {
            return Err(invalid(layers, "operation-deadline", "it must be above 0".into()));
        }
        Ok(())
    }

    /// The replication factor that the node insists on, if it was told one.
    pub fn replication_factor_wanted(&self) -> Option<u8> {
        self.replication_factor_is_given.then_some(self.replication_factor)
    }

    /// The same settings for the core; what users cannot set stays at its default.
    pub fn core_config(&self) -> dht::Config {
        dht::Config {
            replication_factor: self.replication_factor,
            key_bytes_max: self.key_bytes_max,
            value_bytes_max: self.value_bytes_max,
            memory_bytes_max: usize::try_from(self.max_memory_bytes).unwrap_or(usize::MAX),
            operation_deadline: self.operation_deadline,
            operations_max: self.requests_max,
            ping_interval: self.ping_interval,
            suspect_after: self.suspect_after,
            dead_after: self.dead_after,
            tells_transactions: true,
            ..dht::Config::default()
        }
    }
}

fn checked<T>(layers: &Layers, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Report> {
    parse(layers.get(name).0).map_err(|cause| invalid(layers, name, cause))
}

fn invalid(layers: &Layers, name: &str, cause: String) -> Report {
    let (_, origin) = layers.get(name);
    let env = SETTINGS.iter().find(|s| s.name == name).and_then(|s| s.env.first()).unwrap_or(&"");
    let fix = format!("set --{name} ({env}) to a valid value; 'kvnode config show --origin' shows all");
    Report::new(SETTING_INVALID, format!("the setting {name} (from {origin}) is not valid"), cause, fix)
}

/// The memory that the container or the machine allows.
fn machine_memory_bytes() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|t| {
        let line = t.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
        line.trim().parse::<u64>().ok().map(|kib| kib << 10)
    });
    [machine, number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn with(flags: &[(&'static str, &str)]) -> Result<Settings, Report> {
        let flags = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        Settings::from_layers(&Layers::resolve(&flags, &BTreeMap::new(), None).expect("known flags"))
    }

    #[test]
    fn the_defaults_are_those_of_the_core() {
        let s = with(&[]).expect("valid");
        let (ours, core) = (s.core_config(), dht::Config::default());
        assert_eq!(ours.operation_deadline, core.operation_deadline);
        assert_eq!(ours.suspect_after, core.suspect_after);
        assert_eq!(ours.dead_after, core.dead_after);
        assert_eq!(ours.ping_interval, core.ping_interval);
        assert_eq!((ours.key_bytes_max, ours.value_bytes_max), (core.key_bytes_max, core.value_bytes_max));
        assert_eq!(ours.operations_max, core.operations_max);
        assert_eq!(s.replication_factor_wanted(), None);
        assert!(s.max_memory_bytes > 0);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (name, value) in [
            ("replication-factor", "2"),
            ("listen", "somewhere"),
            ("join", "a b"),
            ("max-memory", "lots"),
            ("ping-interval", "10s"),
            ("dead-after", "fast"),
            ("connections-max", "0"),
            ("requests-max", "many"),
            ("create", "perhaps"),
            ("otlp-endpoint", "127.0.0.1:4317"),
            ("otlp-endpoint", "https://127.0.0.1:4317"),
            ("trace-ratio", "2"),
        ] {
            let bad = with(&[(name, value)]).expect_err("refused");
            assert!(bad.message.contains(name) && bad.fix.contains("--"), "{bad}");
        }
    }
}
