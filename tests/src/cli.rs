//! The command line, as a person or script uses it.

use crate::Res;
use crate::process::bare_command;
use serde_json::Value;

/// What a run of the program gave.
#[derive(Debug)]
pub struct Output {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output without the last line end.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `kvnode` with these arguments.
pub fn run(args: &[&str]) -> Res<Output> {
    run_with(args, &[])
}

/// Runs `kvnode` with these arguments and variables.
pub fn run_with(args: &[&str], env: &[(&str, &str)]) -> Res<Output> {
    let out = bare_command()?
        .args(args)
        .envs(env.iter().copied())
        .output()
        .map_err(|e| format!("cannot run kvnode: {e}"))?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).trim_end_matches('\n').to_owned();
    Ok(Output { code: out.status.code(), stdout: text(&out.stdout), stderr: text(&out.stderr) })
}

fn done(args: &[&str]) -> Res<Output> {
    let out = run(args)?;
    match out.code {
        Some(0) => Ok(out),
        code => Err(format!("kvnode {} ended with {code:?}: {} {}", args.join(" "), out.stdout, out.stderr)),
    }
}

/// `kvnode put`.
pub fn put(endpoint: &str, key: &str, value: &str) -> Res<()> {
    done(&["put", "--endpoint", endpoint, key, value]).map(|_| ())
}

/// `kvnode get` of a key that is there.
pub fn get(endpoint: &str, key: &str) -> Res<String> {
    done(&["get", "--endpoint", endpoint, key]).map(|o| o.stdout)
}

/// What a command prints with `-o json`; a degraded ring is an answer too.
pub fn json(args: &[&str]) -> Res<Value> {
    let out = run(&[args, &["-o", "json"]].concat())?;
    if !matches!(out.code, Some(0 | 8)) {
        return Err(format!(
            "kvnode {} ended with {:?}: {} {}",
            args.join(" "),
            out.code,
            out.stdout,
            out.stderr
        ));
    }
    serde_json::from_str(&out.stdout)
        .map_err(|e| format!("kvnode {} -o json: {e}: {}", args.join(" "), out.stdout))
}
