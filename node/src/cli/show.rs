//! `config show`, `completions`, `version`.

use super::flags::ServerFlags;
use super::output::{Output, columns, rows};
use crate::config::{SETTINGS, Settings};
use crate::error::Report;
use clap::{Args, Subcommand};
use serde_json::{Map, json};

/// The settings of the server.
#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print every setting as a server started now would have it
    #[command(after_help = "Examples:\n  kvnode config show\n  \
        kvnode config show --origin --config kvnode.toml")]
    Show {
        /// Also print where each value came from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        server: ServerFlags,
    },
}

/// A completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode completions bash > /etc/bash_completion.d/kvnode\n  \
    kvnode completions zsh > ~/.zfunc/_kvnode")]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Config {
    pub(super) fn run(self) -> Result<Output, Report> {
        let What::Show { origin, server } = self.what;
        let layers = server.layers()?;
        Settings::from_layers(&layers)?;
        let mut table = Vec::new();
        let mut all = Map::new();
        for s in SETTINGS {
            let (value, from) = layers.get(s.name);
            let shown = if value.is_empty() { "-" } else { value };
            let mut row = vec![s.name.to_owned(), shown.to_owned()];
            if origin {
                row.push(from.to_string());
            }
            table.push(row);
            let json = match origin {
                true => json!({ "value": value, "origin": from.to_string() }),
                false => json!(value),
            };
            all.insert(s.name.to_owned(), json);
        }
        let plain = columns(&table);
        let head: &[&str] = if origin { &["SETTING", "VALUE", "ORIGIN"] } else { &["SETTING", "VALUE"] };
        Ok(Output::new(plain, all.into(), rows(head, table)))
    }
}

impl Completions {
    pub(super) fn run(self, command: &mut clap::Command) -> Output {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "kvnode", &mut script);
        let text = String::from_utf8_lossy(&script).into_owned();
        let json = json!({ "shell": self.shell.to_string(), "script": text });
        Output { plain: script, ..Output::new("", json, vec![vec![text]]) }
    }
}

/// What this program is.
pub(super) fn version() -> Output {
    let version = env!("CARGO_PKG_VERSION");
    let api = "kvnode.v1";
    let table = rows(&["VERSION", "API"], vec![vec![version.to_owned(), api.to_owned()]]);
    Output::new(format!("kvnode {version}"), json!({ "version": version, "api": api }), table)
}
