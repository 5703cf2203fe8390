//! The dashboard in a real Chromium, with a real ring.

use harness::Res;
use harness::binary::{scratch, workspace};
use harness::process::start_ring;
use harness::python::{BROWSER, interpreter, run};
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

/// Keys on two nodes' pages, a conflict in two tabs, hostile values, a node that dies, one that is drained;
/// the script kills the third node itself.
pub(crate) fn dashboard() -> Res<()> {
    let nodes = start_ring(3)?;
    let mut arguments = vec![scratch("screens")?.to_string_lossy().into_owned()];
    arguments.extend(nodes.iter().map(|n| format!("{}={}", n.endpoint(), n.pid())));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let script = workspace().join("tests").join("wire").join("browser.py");
    print!("{}", run(&interpreter(BROWSER)?, &script, &arguments)?);
    Ok(())
}
