//! The known hosts: resolved at the start, and again for as long as they are needed.

use crate::handle::NodeHandle;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use dht::Request;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// The overlay port of a node that says nothing else.
pub const OVERLAY_PORT: u16 = 14195;

const RESOLVE_INTERVAL_JOINING: Duration = Duration::from_secs(1);
const RESOLVE_INTERVAL_JOINED: Duration = Duration::from_secs(30);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A host by name or address, and an overlay port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a text is not a host with or without a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST or HOST:PORT (an IPv6 address with a port is [ADDR]:PORT)")]
pub struct HostPortError(String);

impl FromStr for HostPort {
    type Err = HostPortError;
    fn from_str(text: &str) -> Result<HostPort, HostPortError> {
        let text = text.trim();
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(HostPort { host: addr.ip().to_string(), port: addr.port() });
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(HostPort { host: ip.to_string(), port: OVERLAY_PORT });
        }
        let bad = || HostPortError(text.to_owned());
        let (host, port) = match text.split_once(':') {
            None => (text, OVERLAY_PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        };
        let is_name =
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if is_name && port > 0 { Ok(HostPort { host: host.to_owned(), port }) } else { Err(bad()) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The addresses of `hosts`, and a sentence for each that has none.
pub async fn resolve(hosts: &[HostPort]) -> (Vec<SocketAddr>, Vec<String>) {
    let (mut found, mut failed) = (BTreeSet::new(), Vec::new());
    for h in hosts {
        match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((h.host.as_str(), h.port))).await {
            Ok(Ok(addrs)) => found.extend(addrs),
            Ok(Err(e)) => failed.push(format!("the host name `{}` does not resolve: {e}", h.host)),
            Err(_) => failed.push(format!(
                "the host name `{}` does not resolve: no answer from DNS within {} s",
                h.host,
                RESOLVE_TIMEOUT.as_secs()
            )),
        }
    }
    (found.into_iter().collect(), failed)
}

/// What the start asks of the core once a host is known.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The known hosts.
    pub hosts: Vec<HostPort>,
    /// Creates a ring without waiting for one of them.
    pub creates_at_once: bool,
    /// The replication factor it insists on.
    pub replication_factor: Option<u8>,
}

/// Starts the core as soon as a host resolves, and gives it the hosts' addresses again and again.
pub async fn start_and_resolve(
    start: StartRequest,
    handle: NodeHandle,
    joined: watch::Receiver<bool>,
    failures: Arc<Mutex<Vec<String>>>,
) {
    let mut is_started = false;
    let mut known = Vec::new();
    loop {
        let (seeds, failed) = resolve(&start.hosts).await;
        note(&failures, failed);
        // Without any address the core would take itself for the first node.
        if start.creates_at_once || !seeds.is_empty() {
            if seeds != known {
                info!(addresses = ?seeds, "join addresses");
                known.clone_from(&seeds);
            }
            let request = if is_started {
                Request::Seeds(seeds)
            } else {
                let StartRequest { creates_at_once, replication_factor, .. } = start;
                Request::Start { seeds, creates_at_once, replication_factor }
            };
            if handle.request(request).await.is_err() {
                return;
            }
            is_started = true;
        }
        if start.hosts.is_empty() {
            return;
        }
        sleep(if *joined.borrow() { RESOLVE_INTERVAL_JOINED } else { RESOLVE_INTERVAL_JOINING }).await;
    }
}

fn note(failures: &Mutex<Vec<String>>, failed: Vec<String>) {
    let mut last = failures.lock();
    for f in failed.iter().filter(|f| !last.contains(f)) {
        warn!(
            fix = "check the name given with --join (JOIN_IP) and the name server; it is tried again",
            "{f}"
        );
    }
    *last = failed;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_or_addresses_and_perhaps_a_port() {
        let shown = |t: &str| t.parse::<HostPort>().map(|h| h.to_string());
        assert_eq!(shown("10.2.1.3"), Ok("10.2.1.3:14195".to_owned()));
        assert_eq!(shown("10.2.1.3:99"), Ok("10.2.1.3:99".to_owned()));
        assert_eq!(shown("node-1.example:99"), Ok("node-1.example:99".to_owned()));
        assert_eq!(shown("::1"), Ok("[::1]:14195".to_owned()));
        assert_eq!(shown("[::1]"), Ok("[::1]:14195".to_owned()));
        assert_eq!(shown("[::1]:99"), Ok("[::1]:99".to_owned()));
        for bad in ["", ":99", "a b", "host:port", "host:0", "http://host", "1:2:3:zz"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
