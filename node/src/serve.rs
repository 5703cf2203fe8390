//! The server command: from checked settings to the running process.

use crate::config::{Host, Layers, Listen as ListenSetting, SETTINGS, Setting, Settings};
use crate::dashboard::SettingShown;
use crate::error::{INTERNAL, Report, SETTING_INVALID, lookup};
use crate::logging::{self, LogFormat};
use crate::run::{self, End, Listen};
use crate::run_error::RunError;
use crate::seeds::HostPort;
use crate::traces::TraceSettings;
use core::time::Duration;

/// How long the tasks of a node may take to end before it is begun anew.
const ANEW_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the server until it is told to stop. Does not return after a clean end: the process exits at once,
/// without waiting for tasks that are left.
pub fn serve(settings: Settings, shown: Vec<SettingShown>) -> Result<(), Report> {
    logging::init(LogFormat::Auto, &settings.log).map_err(|e| {
        Report::new(
            SETTING_INVALID,
            "the log cannot be set up",
            e.to_string(),
            "set --log to a level, as info",
        )
    })?;
    let mut settings = run::Settings { shown, ..process_settings(settings) };
    loop {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| {
            Report::new(INTERNAL, "the runtime does not start", e.to_string(), "raise the limit on threads")
        })?;
        let ended = runtime.block_on(run::run(settings));
        match ended {
            // Nothing of the node may be left: ports, connections, memory.
            Ok(End::Anew(anew)) => {
                runtime.shutdown_timeout(ANEW_TIMEOUT);
                settings = *anew;
            }
            Ok(End::Exit(code)) => {
                runtime.shutdown_background();
                // A second signal: the code says which, and nothing is left to be done.
                return if code == 0 { Ok(()) } else { std::process::exit(i32::from(code)) };
            }
            Err(e) => {
                runtime.shutdown_background();
                return Err(report(&e));
            }
        }
    }
}

/// Every setting as the dashboard shows it.
pub fn shown(layers: &Layers) -> Vec<SettingShown> {
    let one = |s: &Setting| {
        let (value, origin) = layers.get(s.name);
        SettingShown { name: s.name, value: value.to_owned(), origin: origin.to_string(), help: s.help }
    };
    SETTINGS.iter().map(one).collect()
}

fn process_settings(s: Settings) -> run::Settings {
    let core = s.core_config();
    run::Settings {
        listen: match s.listen {
            ListenSetting::Addr(a) => Listen::At(a),
            ListenSetting::Auto { port } => Listen::Auto { port },
        },
        join: s.join.into_iter().map(|Host { host, port }| HostPort { host, port }).collect(),
        http_listen: s.http_listen,
        create: s.create,
        replication_factor: s.replication_factor_is_given.then_some(s.replication_factor),
        core,
        connections_max: s.connections_max,
        jsonrpc_bytes_max: s.jsonrpc_bytes_max,
        join_timeout: s.join_timeout,
        traces: s.otlp_endpoint.map(|endpoint| TraceSettings { endpoint, per_million: s.trace_per_million }),
        ..run::Settings::default()
    }
}

fn report(e: &RunError) -> Report {
    let code = lookup(e.code()).unwrap_or(INTERNAL);
    Report::new(code, "the node does not run", e.to_string(), e.fix())
}
