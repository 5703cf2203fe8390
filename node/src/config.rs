//! The server's settings: one table from which flags, environment variables and file keys are made.
//!
//! Keeps:
//! 1. Flag before environment before file before default, and every value knows where it came from.
//! 2. What is unknown is an error with a suggestion, in all three.

mod auto;
mod parse;
mod settings;

pub use auto::reachable;
pub use parse::{Host, Listen, boolean, duration, host, listen, size, socket_addr};
pub use settings::Settings;

use crate::error::{FILE_KEY_UNKNOWN, FILE_UNREADABLE, Report, VARIABLE_UNKNOWN};
use core::fmt;
use std::collections::BTreeMap;
use std::path::Path;

/// The port for other nodes.
pub const OVERLAY_PORT: u16 = 14195;
/// The port for clients.
pub const CLIENT_PORT: u16 = 8000;

/// A setting as the table describes it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes, and the key in the file.
    pub name: &'static str,
    /// The environment variables, the first one set wins.
    pub env: &'static [&'static str],
    /// What stands for its value in the help; none for a switch.
    pub value_name: Option<&'static str>,
    /// The default as text; empty if there is none or it depends on others.
    pub default: &'static str,
    /// The help.
    pub help: &'static str,
}

/// Every setting of the server.
pub const SETTINGS: &[Setting] = &[
    setting(
        "listen",
        &["LISTEN_ADDRESS", "KVNODE_LISTEN"],
        "ADDR[:PORT]",
        "127.0.0.1:14195",
        "Address for other nodes, bound and advertised; 'auto' is the one towards the first known host",
    ),
    setting(
        "join",
        &["JOIN_IP", "KVNODE_JOIN"],
        "HOST[:PORT],...",
        "",
        "Known hosts of the ring to join, names or addresses; without any the node creates a ring",
    ),
    setting(
        "http-listen",
        &["KVNODE_HTTP_LISTEN"],
        "ADDR[:PORT]",
        "",
        "Address for clients: gRPC and HTTP [default: the overlay address, port 8000]",
    ),
    Setting {
        value_name: None,
        ..setting(
            "create",
            &["KVNODE_CREATE"],
            "",
            "false",
            "Create a ring at once, without asking the known hosts first",
        )
    },
    setting(
        "replication-factor",
        &["KVNODE_REPLICATION_FACTOR"],
        "N",
        "3",
        "Replicas of each key, one of 1, 3, 4, 5, 7; the creator of a ring decides for all",
    ),
    setting(
        "max-memory",
        &["KVNODE_MAX_MEMORY"],
        "SIZE",
        "70%",
        "Memory for data, as 2GiB or a percentage of the container's or machine's limit",
    ),
    setting("key-bytes-max", &["KVNODE_KEY_BYTES_MAX"], "SIZE", "64KiB", "Longer keys are refused"),
    setting("value-bytes-max", &["KVNODE_VALUE_BYTES_MAX"], "SIZE", "16MiB", "Longer values are refused"),
    setting(
        "jsonrpc-bytes-max",
        &["KVNODE_JSONRPC_BYTES_MAX"],
        "SIZE",
        "1MiB",
        "Longer bodies of Scalaris' JSON-RPC are refused with 413",
    ),
    setting(
        "operation-deadline",
        &["KVNODE_OPERATION_DEADLINE"],
        "TIME",
        "5s",
        "An operation is answered within this",
    ),
    setting(
        "connections-max",
        &["KVNODE_CONNECTIONS_MAX"],
        "N",
        "10000",
        "Connections of clients open at once; further ones are told so and closed",
    ),
    setting(
        "requests-max",
        &["KVNODE_REQUESTS_MAX"],
        "N",
        "65536",
        "Operations of clients open at once; further ones are refused",
    ),
    setting(
        "ping-interval",
        &["KVNODE_PING_INTERVAL"],
        "TIME",
        "150ms",
        "Other nodes are pinged once in this",
    ),
    setting(
        "suspect-after",
        &["KVNODE_SUSPECT_AFTER"],
        "TIME",
        "500ms",
        "A node that is silent for this is suspected",
    ),
    setting(
        "dead-after",
        &["KVNODE_DEAD_AFTER"],
        "TIME",
        "900ms",
        "A node that is silent for this counts as dead and is replaced",
    ),
    setting(
        "join-timeout",
        &["KVNODE_JOIN_TIMEOUT"],
        "TIME",
        "60s",
        "Give up (exit 11) if no ring lets the node in for this; 0 tries for ever",
    ),
    setting(
        "otlp-endpoint",
        &["KVNODE_OTLP_ENDPOINT"],
        "URL",
        "",
        "The OpenTelemetry collector that gets traces, as http://127.0.0.1:4317 (OTLP over gRPC); none traces nothing",
    ),
    setting(
        "trace-ratio",
        &["KVNODE_TRACE_RATIO"],
        "PART",
        "1",
        "The part of operations that is traced where the client does not say, from 0 to 1",
    ),
    setting(
        "log",
        &["KVNODE_LOG", "RUST_LOG"],
        "FILTER",
        "info",
        "What is logged to stderr: error, warn, info, debug, trace, or a filter by module",
    ),
];

/// Variables of the command line that are not settings of the server.
const OTHER_VARIABLES: &[&str] = &["KVNODE_CONFIG", "KVNODE_ENDPOINT", "KVNODE_OUTPUT", "KVNODE_TIMEOUT"];
/// Variables that container platforms make from a service named kvnode.
const PLATFORM_VARIABLES: &[&str] = &["KVNODE_SERVICE_", "KVNODE_PORT", "KVNODE_ENV_", "KVNODE_NAME"];

const fn setting(
    name: &'static str,
    env: &'static [&'static str],
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, env, value_name: Some(value_name), default, help }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// An environment variable.
    Env(&'static str),
    /// A line of the file.
    File {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => write!(f, "flag"),
            Origin::Env(name) => write!(f, "{name}"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Default => write!(f, "default"),
        }
    }
}

/// The text of every setting and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers(pub BTreeMap<&'static str, (String, Origin)>);

impl Layers {
    /// Puts the layers over each other: `flags` by name, `env` as the process has it, and the file at `path`.
    pub fn resolve(
        flags: &BTreeMap<&'static str, String>,
        env: &BTreeMap<String, String>,
        path: Option<&Path>,
    ) -> Result<Layers, Report> {
        check_variables(env)?;
        let file = match path {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        let mut all = BTreeMap::new();
        for s in SETTINGS {
            let from_env = || {
                let set = |name: &&'static str| env.get(*name).filter(|v| !v.is_empty()).map(|v| (*name, v));
                s.env.iter().find_map(set).map(|(name, v)| (v.clone(), Origin::Env(name)))
            };
            let value = (flags.get(s.name).map(|v| (v.clone(), Origin::Flag)))
                .or_else(from_env)
                .or_else(|| file.get(s.name).cloned())
                .unwrap_or_else(|| (s.default.to_owned(), Origin::Default));
            all.insert(s.name, value);
        }
        Ok(Layers(all))
    }

    /// The text of a setting and its origin.
    pub fn get(&self, name: &str) -> (&str, &Origin) {
        self.0.get(name).map_or(("", &Origin::Default), |(v, o)| (v.as_str(), o))
    }
}

/// The best guess at what was meant by `word`, if any is near.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(word, c), c))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// Refuses `KVNODE_` variables that mean nothing.
pub fn check_variables(env: &BTreeMap<String, String>) -> Result<(), Report> {
    let known = || SETTINGS.iter().flat_map(|s| s.env.iter().copied()).chain(OTHER_VARIABLES.iter().copied());
    for name in env.keys().filter(|n| n.starts_with("KVNODE_")) {
        let is_platform = PLATFORM_VARIABLES.iter().any(|p| name.starts_with(p));
        if is_platform || known().any(|k| k == name) {
            continue;
        }
        let fix = match suggestion(name, known()) {
            Some(near) => format!("did you mean {near}? Otherwise: unset {name}"),
            None => format!("unset {name}; 'kvnode --help' lists the variables"),
        };
        return Err(Report::new(
            VARIABLE_UNKNOWN,
            format!("unknown environment variable {name}"),
            "no setting has this variable",
            fix,
        ));
    }
    Ok(())
}

type FileValues = BTreeMap<&'static str, (String, Origin)>;

fn read_file(path: &Path) -> Result<FileValues, Report> {
    let shown = path.display().to_string();
    let unreadable = |cause: String, fix: String| {
        Report::new(FILE_UNREADABLE, format!("cannot use the configuration file {shown}"), cause, fix)
    };
    let text = std::fs::read_to_string(path).map_err(|e| {
        unreadable(e.to_string(), "name a readable file with --config FILE (KVNODE_CONFIG)".into())
    })?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let line =
            e.span().and_then(|s| text.get(..s.start)).map_or(1, |before| before.lines().count().max(1));
        unreadable(format!("line {line}: {}", e.message()), "write it as TOML: listen = \"10.2.1.3\"".into())
    })?;
    let mut values = FileValues::new();
    for (key, value) in &table {
        let name = key.replace('_', "-");
        let line = line_of(&text, key);
        let Some(s) = SETTINGS.iter().find(|s| s.name == name) else {
            let fix = match suggestion(&name, SETTINGS.iter().map(|s| s.name)) {
                Some(near) => format!("did you mean \"{near}\"? 'kvnode config show' lists all keys"),
                None => "remove it; 'kvnode config show' lists all keys".to_owned(),
            };
            let message = format!("unknown key \"{key}\" in {shown}:{line}");
            return Err(Report::new(FILE_KEY_UNKNOWN, message, "no setting has this name", fix));
        };
        let Some(text) = file_text(value) else {
            let cause = format!("line {line}: \"{key}\" is a {}", value.type_str());
            return Err(unreadable(cause, format!("write a string, number or list: {key} = \"...\"")));
        };
        values.insert(s.name, (text, Origin::File { path: shown.clone(), line }));
    }
    Ok(values)
}

fn file_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(i) => Some(i.to_string()),
        toml::Value::Float(f) => Some(f.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        toml::Value::Array(a) => Some(a.iter().map(file_text).collect::<Option<Vec<_>>>()?.join(",")),
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn line_of(text: &str, key: &str) -> usize {
    let is_it = |l: &str| {
        let l = l.trim_start().trim_start_matches('"');
        l.strip_prefix(key)
            .is_some_and(|r| r.trim_start_matches('"').trim_start().starts_with(['=', '.', ']']))
    };
    text.lines().position(is_it).map_or(1, |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let flags = BTreeMap::from([("listen", "10.0.0.1".to_owned())]);
        let e = env(&[("LISTEN_ADDRESS", "10.0.0.2"), ("JOIN_IP", "10.0.0.3"), ("KVNODE_LOG", "")]);
        let l = Layers::resolve(&flags, &e, None).expect("valid");
        assert_eq!(l.get("listen"), ("10.0.0.1", &Origin::Flag));
        assert_eq!(l.get("join"), ("10.0.0.3", &Origin::Env("JOIN_IP")));
        assert_eq!(l.get("log"), ("info", &Origin::Default));
    }

    #[test]
    fn an_unknown_variable_is_refused_with_a_suggestion_and_those_of_platforms_are_not() {
        let bad =
            Layers::resolve(&BTreeMap::new(), &env(&[("KVNODE_LISTN", "x")]), None).expect_err("refused");
        assert_eq!(bad.code, VARIABLE_UNKNOWN);
        assert!(bad.fix.contains("KVNODE_LISTEN"), "{bad}");
        let e =
            env(&[("KVNODE_SERVICE_HOST", "10.0.0.9"), ("KVNODE_PORT_8000_TCP", "tcp://x"), ("OTHER", "y")]);
        assert!(check_variables(&e).is_ok());
    }

    #[test]
    fn the_file_is_read_with_lines_and_unknown_keys_are_refused() {
        let path = std::env::temp_dir().join(format!("kvnode-config-{}.toml", std::process::id()));
        std::fs::write(
            &path,
            "# c\nlisten = \"10.0.0.1\"\njoin = [\"a\", \"b:1\"]\nreplication_factor = 5\n",
        )
        .unwrap();
        let l = Layers::resolve(&BTreeMap::new(), &env(&[]), Some(&path)).expect("valid");
        assert_eq!(l.get("join").0, "a,b:1");
        assert!(matches!(l.get("replication-factor"), ("5", Origin::File { line: 4, .. })));
        std::fs::write(&path, "listen = \"10.0.0.1\"\njion = \"a\"\n").unwrap();
        let bad = Layers::resolve(&BTreeMap::new(), &env(&[]), Some(&path)).expect_err("refused");
        assert!(bad.message.contains(":2") && bad.fix.contains("\"join\""), "{bad}");
        std::fs::write(&path, "listen = \n").unwrap();
        let bad = Layers::resolve(&BTreeMap::new(), &env(&[]), Some(&path)).expect_err("refused");
        assert_eq!(bad.code, FILE_UNREADABLE);
        std::fs::remove_file(&path).unwrap();
    }
}
