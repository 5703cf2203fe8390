//! Logs: text on a terminal, JSON elsewhere, always on standard error.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("`{filter}` is not a log filter: {cause}")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        cause: String,
    },
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the process. `filter` is a level (`info`) or levels by module (`info,kvnode::peer=debug`).
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter_error = |e: String| LogError::Filter { filter: filter.to_owned(), cause: e };
    let filter = EnvFilter::try_new(filter).map_err(|e| filter_error(e.to_string()))?;
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(false);
    let is_json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let done = if is_json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
    done.map_err(|_| LogError::Twice)
}
