//! A Python of its own under the target directory, with the packages the tests need.

use crate::Res;
use crate::binary::scratch;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: [&str; 3] = ["grpcio", "grpcio-reflection", "grpcio-tools"];

fn runs(program: &Path, args: &[&str]) -> Res<()> {
    let out = Command::new(program)
        .args(args)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .output()
        .map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    if out.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&out.stderr);
    Err(text.lines().last().unwrap_or("it gave no reason").to_owned())
}

/// A Python interpreter that has the gRPC packages, or why there is none.
pub fn interpreter() -> Res<PathBuf> {
    let dir = scratch("python")?;
    let python = dir.join("bin").join("python");
    let check = ["-c", "import grpc, grpc_tools, grpc_reflection.v1alpha.reflection_pb2"];
    if runs(&python, &check).is_ok() {
        return Ok(python);
    }
    let at = dir.to_string_lossy();
    runs(Path::new("python3"), &["-m", "venv", &at]).map_err(|e| format!("python3 -m venv: {e}"))?;
    let install = [&["-m", "pip", "install", "--quiet"], &PACKAGES[..]].concat();
    runs(&python, &install).map_err(|e| format!("pip install {}: {e}", PACKAGES.join(" ")))?;
    runs(&python, &check)?;
    Ok(python)
}

/// Runs a script and gives what it printed; its last line of complaint is the error.
pub fn run(python: &Path, script: &Path, args: &[&str]) -> Res<String> {
    let out = Command::new(python)
        .arg(script)
        .args(args)
        .output()
        .map_err(|e| format!("cannot run Python: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    Err(format!("{text}{}", String::from_utf8_lossy(&out.stderr)))
}
