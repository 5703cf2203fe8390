//! Finding and binding the addresses of a node.

use crate::run::Listen;
use crate::run_error::RunError;
use crate::seeds::{HostPort, resolve};
use core::time::Duration;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{Instant, sleep};
use tracing::warn;

/// The overlay address to bind and to tell others.
pub(crate) async fn overlay_address(
    listen: Listen,
    join: &[HostPort],
    join_timeout: Option<Duration>,
) -> Result<SocketAddr, RunError> {
    match listen {
        Listen::At(addr) if addr.ip().is_unspecified() || addr.ip().is_multicast() => {
            Err(RunError::NotAdvertisable { addr })
        }
        Listen::At(addr) => Ok(addr),
        Listen::Auto { port } if join.is_empty() => {
            // No packet is sent: the address, of a network kept for documents, only picks the default route.
            let outside = SocketAddr::from(([192, 0, 2, 1], 9));
            let ip = source_towards(outside).await.unwrap_or(IpAddr::from([127, 0, 0, 1]));
            Ok(SocketAddr::new(ip, port))
        }
        Listen::Auto { port } => {
            let began = Instant::now();
            loop {
                let (seeds, mut reasons) = resolve(join).await;
                for seed in &seeds {
                    match source_towards(*seed).await {
                        Ok(ip) => return Ok(SocketAddr::new(ip, port)),
                        Err(e) => reasons.push(format!("there is no way to {seed}: {e}")),
                    }
                }
                if let Some(waited) = join_timeout.filter(|t| began.elapsed() >= *t) {
                    if seeds.is_empty() {
                        return Err(RunError::Unresolved { waited, reasons });
                    }
                    let hosts = join.iter().map(HostPort::to_string).collect();
                    return Err(RunError::JoinTimeout { waited, hosts, reasons });
                }
                warn!(reasons = reasons.join("; "), "no overlay address found yet; tried again");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// The address from which this machine would send to `target`. Nothing is sent.
async fn source_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr =
        if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

/// Listens at `addr`. `port` and `setting` are for the error.
pub(crate) async fn bind(
    addr: SocketAddr,
    port: &'static str,
    setting: &'static str,
) -> Result<TcpListener, RunError> {
    TcpListener::bind(addr).await.map_err(|e| {
        if e.kind() == io::ErrorKind::AddrInUse {
            RunError::PortTaken { port, addr, setting }
        } else if e.kind() == io::ErrorKind::AddrNotAvailable {
            RunError::NotOurs { port, addr, setting }
        } else {
            RunError::Bind { port, addr, setting, cause: e.to_string() }
        }
    })
}
