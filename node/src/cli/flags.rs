//! The server's flags, made from the table of settings.

use crate::config::{Layers, SETTINGS};
use crate::error::Report;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The server's flags as given.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerFlags {
    values: BTreeMap<&'static str, String>,
    config: Option<PathBuf>,
}

impl ServerFlags {
    /// Whether none was given.
    pub(super) fn first(&self) -> Option<&'static str> {
        self.values.keys().next().copied()
    }

    /// The settings that follow from flags, environment and file.
    pub(super) fn layers(&self) -> Result<Layers, Report> {
        let env = environment();
        let path = self
            .config
            .clone()
            .or_else(|| env.get("KVNODE_CONFIG").filter(|p| !p.is_empty()).map(PathBuf::from));
        Layers::resolve(&self.values, &env, path.as_deref())
    }
}

/// The environment variables in UTF-8.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

impl Args for ServerFlags {
    fn augment_args(cmd: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Read settings from this TOML file [env: KVNODE_CONFIG]")
            .help_heading("Server");
        SETTINGS
            .iter()
            .fold(cmd, |cmd, s| {
                let mut help = format!("{} [env: {}]", s.help, s.env.join(", "));
                if !s.default.is_empty() && s.value_name.is_some() {
                    help.push_str(&format!(" [default: {}]", s.default));
                }
                let arg = Arg::new(s.name).long(s.name).help(help).help_heading("Server");
                cmd.arg(match s.value_name {
                    Some(name) => arg.value_name(name),
                    None => arg.action(ArgAction::SetTrue),
                })
            })
            .arg(config)
    }

    fn augment_args_for_update(cmd: Command) -> Command {
        Self::augment_args(cmd)
    }
}

impl FromArgMatches for ServerFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = ServerFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for s in SETTINGS {
            if matches.value_source(s.name) != Some(ValueSource::CommandLine) {
                continue;
            }
            let text = match s.value_name {
                Some(_) => matches.get_one::<String>(s.name).cloned().unwrap_or_default(),
                None => matches.get_flag(s.name).to_string(),
            };
            self.values.insert(s.name, text);
        }
        self.config = matches.get_one::<PathBuf>("config").cloned();
        Ok(())
    }
}
