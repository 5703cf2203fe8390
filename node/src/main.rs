//! The program `kvnode`.

use std::process::ExitCode;

/// Nodes allocate on one thread what another one frees, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kvnode::cli::main(kvnode::serve::serve)
}
