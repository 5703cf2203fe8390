//! `get`, `put`, `del`, `cas`, `incr`.

use super::output::{Output, rows};
use super::trouble::{not_found, report};
use super::{Target, json};
use crate::error::{self, Report};
use clap::Args;
use client::{Client, Condition, Data, Value};
use serde_json::json;
use std::io::Read;
use std::path::PathBuf;

impl Target {
    /// A client for one command.
    pub(super) async fn connect(&self) -> Result<Client, Report> {
        let builder = Client::builder(self.endpoints()).deadline(self.timeout()).routes_to_home(false);
        builder.connect().await.map_err(report)
    }
}

/// Read a key.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode get greeting\n  kvnode get greeting -o json")]
pub(super) struct Get {
    /// The key
    key: String,
}

/// Write a key.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode put greeting hello\n  \
    kvnode put config --json '{\"limit\": 5}' --if-absent")]
pub(super) struct Put {
    /// The key
    key: String,
    /// The value: a text, or JSON with --json
    #[arg(allow_hyphen_values = true, required_unless_present = "file", conflicts_with = "file")]
    value: Option<String>,
    /// Read the value as JSON: numbers, lists and objects keep their types
    #[arg(long)]
    json: bool,
    /// Take the value from a file, as bytes; '-' is stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only if the key is not there
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if the key has this version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// Remove a key.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode del greeting\n  kvnode del greeting --if-version 3")]
pub(super) struct Del {
    /// The key
    key: String,
    /// Only if the key has this version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// Write a key if its value is the expected one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode cas state open closed\n  kvnode cas --json counter 4 5")]
pub(super) struct Cas {
    /// The key
    key: String,
    /// The expected value
    #[arg(allow_hyphen_values = true)]
    old: String,
    /// The new value
    #[arg(allow_hyphen_values = true)]
    new: String,
    /// Read both values as JSON
    #[arg(long)]
    json: bool,
}

/// Add to a number.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode incr counter\n  kvnode incr counter -5")]
pub(super) struct Incr {
    /// The key; if it is not there it counts as zero
    key: String,
    /// What is added, an integer of any size or a double
    #[arg(default_value = "1", allow_hyphen_values = true)]
    by: String,
}

/// A value as the command line gives it.
fn value(text: &str, is_json: bool) -> Result<Value, Report> {
    if !is_json {
        return Ok(Value::string(text));
    }
    json::parse(text).map_err(|e| {
        Report::new(
            error::VALUE_MALFORMED,
            "the value is not JSON",
            e,
            "quote it for the shell: '\"text\"', or drop --json",
        )
    })
}

/// A value as the command line prints it: texts and bytes as they are, everything else as JSON.
fn plain(data: &Data) -> Vec<u8> {
    let mut out = match data {
        Data::Bytes(b) => return b.clone(),
        Data::String(s) => s.clone().into_bytes(),
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Double(_) | Data::List(_) | Data::Object(_) => {
            json::to_json(data).to_string().into_bytes()
        }
    };
    out.push(b'\n');
    out
}

fn written(what: &str, key: &str, version: u64) -> Output {
    let json = json!({ "key": key, "version": version });
    let table = rows(&["KEY", "VERSION"], vec![vec![error::key_text(key), version.to_string()]]);
    let mut output = Output::new("", json, table);
    output.notes.push(format!("{what}, version {version}"));
    output
}

impl Get {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let entry = target.connect().await?.get(&self.key).await.map_err(report)?;
        let Some(entry) = entry else { return Err(not_found(&self.key)) };
        let data = entry.value.decode();
        let kind = entry.value.type_name();
        let shown = json::to_json(&data);
        let json = json!({ "key": self.key, "version": entry.version, "type": kind, "value": shown });
        let row =
            vec![error::key_text(&self.key), entry.version.to_string(), kind.to_owned(), shown.to_string()];
        let table = rows(&["KEY", "VERSION", "TYPE", "VALUE"], vec![row]);
        Ok(Output { plain: plain(&data), ..Output::new("", json, table) })
    }
}

impl Put {
    fn read(&self) -> Result<Value, Report> {
        let Some(path) = &self.file else {
            return value(self.value.as_deref().unwrap_or_default(), self.json);
        };
        let mut bytes = Vec::new();
        let read = match path.as_os_str().to_str() {
            Some("-") => std::io::stdin().lock().read_to_end(&mut bytes),
            _ => std::fs::File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)),
        };
        read.map_err(|e| {
            let message = format!("cannot read the value from {}", path.display());
            Report::new(
                error::FILE_UNREADABLE,
                message,
                e.to_string(),
                "name a readable file, or '-' for stdin",
            )
        })?;
        if self.json {
            return value(&String::from_utf8_lossy(&bytes), true);
        }
        Ok(Value::bytes(&bytes))
    }

    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let value = self.read()?;
        let condition = match (self.if_absent, self.if_version) {
            (true, _) => Condition::Absent,
            (false, Some(v)) => Condition::Version(v),
            (false, None) => Condition::Always,
        };
        let kv = target.connect().await?;
        let version = kv.put_if(&self.key, value, condition).await.map_err(report)?;
        Ok(written("written", &self.key, version))
    }
}

impl Del {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let condition = self.if_version.map_or(Condition::Always, Condition::Version);
        let kv = target.connect().await?;
        let done = kv.delete_if(&self.key, condition).await.map_err(report)?;
        if !done.existed {
            return Err(not_found(&self.key));
        }
        Ok(written("deleted", &self.key, done.version))
    }
}

impl Cas {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let (old, new) = (value(&self.old, self.json)?, value(&self.new, self.json)?);
        let kv = target.connect().await?;
        let version = kv.test_and_set(&self.key, old, new).await.map_err(report)?;
        Ok(written("written", &self.key, version))
    }
}

impl Incr {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let by = json::number(&self.by).map_err(|e| {
            Report::new(
                error::USAGE,
                "the amount is not a number",
                e,
                "give an integer or a double: kvnode incr KEY 5",
            )
        })?;
        let kv = target.connect().await?;
        let (version, sum) = kv.add_on_number(&self.key, Value::encode(&by)).await.map_err(report)?;
        let sum = sum.map(|s| json::to_json(&s.decode()));
        let shown = sum.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let json = json!({ "key": self.key, "version": version, "value": sum });
        let row = vec![error::key_text(&self.key), version.to_string(), shown.clone()];
        Ok(Output::new(shown, json, rows(&["KEY", "VERSION", "VALUE"], vec![row])))
    }
}
