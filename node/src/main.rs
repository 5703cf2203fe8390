//! The program `kvnode`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kvnode::cli::main(kvnode::serve::serve)
}
