//! One network for a run: a bridge, and a namespace for each node behind it.
//!
//! Clients are in the bridge's own namespace, so that no filter between nodes touches them.
//!
//! Keeps:
//! 1. All filters change in one step, so a partition has no moment at which half of it holds.

use harness::Res;
use std::fmt::Write;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The bridge's address.
const HUB: &str = "10.77.0.1/16";

/// The network of a run.
#[derive(Debug)]
pub(crate) struct Network {
    places: usize,
}

/// A direction in which packets are lost.
pub(crate) type Cut = (Ipv4Addr, Ipv4Addr);

fn ip(args: &str) -> Res<()> {
    let out = Command::new("ip").args(args.split(' ')).output().map_err(|e| format!("ip {args}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("ip {args}: {}", String::from_utf8_lossy(&out.stderr).trim()))
}

/// The name of a node's namespace.
pub(crate) fn namespace(place: usize) -> String {
    format!("n{place}")
}

impl Network {
    /// Builds the bridge and so many namespaces, without addresses yet.
    pub(crate) fn build(places: usize) -> Res<Network> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status();
        if !mounted.is_ok_and(|s| s.success()) {
            return Err("cannot mount a private /run".to_owned());
        }
        ip("link set lo up")?;
        ip("link add br0 type bridge")?;
        ip(&format!("addr add {HUB} dev br0"))?;
        ip("link set br0 up")?;
        for place in 0..places {
            let ns = namespace(place);
            ip(&format!("netns add {ns}"))?;
            ip(&format!("link add v{place} type veth peer name eth0 netns {ns}"))?;
            ip(&format!("link set v{place} master br0 up"))?;
            ip(&format!("-n {ns} link set lo up"))?;
            ip(&format!("-n {ns} link set eth0 up"))?;
        }
        Ok(Network { places })
    }

    /// Gives a node's place this address, and takes away the one before.
    pub(crate) fn set_address(&self, place: usize, address: Ipv4Addr) -> Res<()> {
        let ns = namespace(place);
        ip(&format!("-n {ns} addr flush dev eth0 scope global"))?;
        ip(&format!("-n {ns} addr add {address}/16 dev eth0"))
    }

    /// From now on exactly these directions lose every packet.
    pub(crate) fn cut(&self, cuts: &[Cut]) -> Res<()> {
        let mut rules = String::from("table bridge chaos\ndelete table bridge chaos\ntable bridge chaos {\n");
        rules.push_str("chain forward {\ntype filter hook forward priority 0;\n");
        for (from, to) in cuts {
            let _ = writeln!(rules, "ip saddr {from} ip daddr {to} drop");
        }
        rules.push_str("}\n}\n");
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run nft: {e}"))?;
        if let Some(mut stdin) = nft.stdin.take() {
            stdin.write_all(rules.as_bytes()).map_err(|e| format!("cannot write to nft: {e}"))?;
        }
        match nft.wait() {
            Ok(s) if s.success() => Ok(()),
            other => Err(format!("nft ended with {other:?}")),
        }
    }

    /// Takes every link down, or up again.
    pub(crate) fn set_links(&self, is_up: bool) -> Res<()> {
        let state = if is_up { "up" } else { "down" };
        (0..self.places).try_for_each(|p| ip(&format!("link set v{p} {state}")))
    }
}
