//! A Python of its own under the target directory, with the packages the tests need.

use crate::Res;
use crate::binary::scratch;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages from PyPI, and the modules by which they are known to be there.
#[derive(Clone, Copy, Debug)]
pub struct Packages {
    /// What is installed.
    pub names: &'static [&'static str],
    /// What is imported.
    pub modules: &'static str,
}

/// What a gRPC client needs.
pub const GRPC: Packages = Packages {
    names: &["grpcio", "grpcio-reflection", "grpcio-tools"],
    modules: "grpc, grpc_tools, grpc_reflection.v1alpha.reflection_pb2",
};
/// What drives a browser and looks for obstacles to people.
pub const BROWSER: Packages = Packages {
    names: &["playwright", "axe-playwright-python"],
    modules: "playwright.sync_api, axe_playwright_python.sync_playwright",
};

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

/// A Python interpreter that has these packages, or why there is none.
pub fn interpreter(packages: Packages) -> Res<PathBuf> {
    let dir = scratch("python")?;
    let python = dir.join("bin").join("python");
    let import = format!("import {}", packages.modules);
    let check = ["-c", &import];
    if runs(&python, &check).is_ok() {
        return Ok(python);
    }
    let at = dir.to_string_lossy();
    runs(Path::new("python3"), &["-m", "venv", &at]).map_err(|e| format!("python3 -m venv: {e}"))?;
    let install = [&["-m", "pip", "install", "--quiet"], packages.names].concat();
    runs(&python, &install).map_err(|e| format!("pip install {}: {e}", packages.names.join(" ")))?;
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
