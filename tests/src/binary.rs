//! The program under test: built once per test run, in release and static, as it stands in the image.

use crate::Res;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in a workspace")
}

/// Where cargo builds, and where tests may write.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |d| workspace().join(d))
}

/// A directory for what a test writes, made if it is missing.
pub fn scratch(name: &str) -> Res<PathBuf> {
    let dir = target_dir().join("wire").join(name);
    std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    Ok(dir)
}

/// The static program `kvnode`; builds it the first time it is asked for. `WIRE_TEST_BINARY` names one that
/// is there already.
pub fn kvnode() -> Res<&'static Path> {
    static BUILT: OnceLock<Res<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref().map_err(Clone::clone)
}

fn build() -> Res<PathBuf> {
    if let Some(given) = std::env::var_os("WIRE_TEST_BINARY") {
        return Ok(PathBuf::from(given));
    }
    let host = host()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // With --target the flags reach the program but not the procedural macros, which cannot be static.
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "kvnode", "--target", &host])
        .current_dir(workspace())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !status.success() {
        return Err(format!("building the program under test failed: {status}"));
    }
    Ok(target_dir().join(host).join("release").join("kvnode"))
}

fn host() -> Res<String> {
    let out = Command::new("rustc").arg("-vV").output().map_err(|e| format!("cannot run rustc: {e}"))?;
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .find_map(|l| l.strip_prefix("host: ").map(str::to_owned))
        .ok_or_else(|| "rustc -vV names no host".to_owned())
}
