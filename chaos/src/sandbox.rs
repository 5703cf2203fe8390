//! The place where a run takes place: namespaces of its own for network, processes and mounts.
//!
//! The program starts itself a second time inside. There it is process 1, so whichever way it ends (done, a
//! panic, a signal, the death of the one outside), the kernel ends every process of the run, and with the last
//! of them the network and its filters are gone. Nothing is left to clean up, and nothing of the machine is touched.
//!
//! Relies on: root, `unshare`, `ip` and `nft`.

use harness::{Res, binary};
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The first argument of the program inside.
pub(crate) const INSIDE: &str = "--inside";
/// The exit code if the machine cannot give what a run needs.
pub(crate) const SKIPPED: u8 = 77;

const UNSHARE: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Tried once before anything else: what fails here is not to be had on this machine.
const PROBE: &str = "mount -t tmpfs none /run && mkdir /run/netns && ip netns add n0 && ip link add br0 type bridge && \
     ip link add v0 type veth peer name eth0 netns n0 && nft add table bridge chaos && \
     nft add chain bridge chaos forward '{ type filter hook forward priority 0; }'";

/// Why runs are not possible here.
pub(crate) fn missing() -> Option<String> {
    let out = Command::new("unshare").args(UNSHARE).args(["sh", "-c", PROBE]).output();
    match out {
        Err(e) => Some(format!("cannot run unshare: {e}")),
        Ok(out) if !out.status.success() => {
            let said = String::from_utf8_lossy(&out.stderr);
            Some(format!("no network namespaces (needs root, ip and nft): {}", said.trim()))
        }
        Ok(_) => None,
    }
}

/// Runs this program inside, with the same arguments.
pub(crate) fn run_inside(args: &[String]) -> Res<ExitCode> {
    let me = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut child = Command::new("unshare")
        .args(UNSHARE)
        .arg(me)
        .arg(INSIDE)
        .args(args)
        .env("WIRE_TEST_BINARY", binary::kvnode()?)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run unshare: {e}"))?;
    // Held until the end: when it closes, because this process is gone, the one inside ends.
    let pipe = child.stdin.take();
    let status = child.wait().map_err(|e| format!("cannot wait for the run: {e}"))?;
    drop(pipe);
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
}

/// Inside: ends this process, and so the run, when the one outside is gone or the time is over.
pub(crate) fn bind_life(limit: Duration) {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        // Whatever the read says, nobody is at the other end any more.
        let _ = std::io::stdin().read_to_end(&mut rest);
        eprintln!("ended from outside");
        std::process::exit(130);
    });
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("the run did not end within {limit:?}");
        std::process::exit(124);
    });
}
