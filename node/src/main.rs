//! The program `kvnode`.

use kvnode::config::Settings;
use kvnode::error::{NOT_IMPLEMENTED, Report};
use std::process::ExitCode;

fn main() -> ExitCode {
    kvnode::cli::main(serve)
}

fn serve(_: Settings) -> Result<(), Report> {
    Err(Report::new(
        NOT_IMPLEMENTED,
        "this build has no server yet",
        "the event loop is not part of it",
        "use a later build; the client commands work",
    ))
}
