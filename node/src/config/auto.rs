//! Which addresses follow from the settings.

use super::{CLIENT_PORT, Listen, Settings};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

impl Settings {
    /// The overlay address. For `auto` it is the source address towards the first known host that resolves, else
    /// that of the default route, else loopback; asked anew at each call. Resolves names and blocks.
    pub fn overlay_addr(&self) -> SocketAddr {
        let port = match self.listen {
            Listen::Addr(a) => return a,
            Listen::Auto { port } => port,
        };
        let known =
            self.join.iter().filter_map(|h| (h.host.as_str(), h.port).to_socket_addrs().ok()).flatten();
        // An address reserved for documentation: it is routed by default, and nothing is sent to it.
        let anywhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port));
        let ip = known.chain([anywhere]).find_map(source_towards);
        SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port)
    }

    /// The client address to bind when the overlay address is `overlay`.
    pub fn client_addr(&self, overlay: SocketAddr) -> SocketAddr {
        self.http_listen.unwrap_or_else(|| SocketAddr::new(overlay.ip(), CLIENT_PORT))
    }
}

/// The address from which this machine would talk to `to`; no packet is sent.
fn source_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// An address to connect to for one that is bound: loopback for "all interfaces".
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, bound.port())
}
