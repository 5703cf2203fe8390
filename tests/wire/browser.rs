//! The dashboard in a real Chromium, with a real ring.

use harness::binary::{kvnode, scratch, workspace};
use harness::process::{ensure_free, loopback, start_ring};
use harness::python::{BROWSER, interpreter, run};
use harness::{Res, large};
use std::process::Command;

/// Why no browser can be driven here.
pub(crate) fn missing() -> Option<String> {
    let out = Command::new("chromium").arg("--version").output();
    match out {
        Ok(o) if o.status.success() => None,
        Ok(o) => Some(format!("chromium --version: {}", o.status)),
        Err(e) => Some(format!("chromium: {e}")),
    }
}

/// Keys on two nodes' pages, a conflict in two tabs, hostile values, a node that dies and one that comes in
/// its place, one that is drained. The script kills the third node and starts the other itself.
pub(crate) fn dashboard() -> Res<()> {
    let nodes = start_ring(3)?;
    let spare = loopback(9);
    ensure_free(spare)?;
    let large = large::start(loopback(10))?.to_string();
    let program = kvnode()?.to_string_lossy().into_owned();
    let mut arguments =
        vec![scratch("screens")?.to_string_lossy().into_owned(), program, spare.to_string(), large];
    arguments.extend(nodes.iter().map(|n| format!("{}={}", n.endpoint(), n.pid())));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let script = workspace().join("tests").join("wire").join("browser.py");
    print!("{}", run(&interpreter(BROWSER)?, &script, &arguments)?);
    Ok(())
}
