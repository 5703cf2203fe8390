//! Stand-in for the client services.

use std::net::SocketAddr;

/// What the client interfaces know of the process.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Where the node talks to other nodes.
    pub overlay_addr: SocketAddr,
    /// Where it answers clients.
    pub client_addr: SocketAddr,
    /// Keys longer than this are refused.
    pub key_bytes_max: usize,
    /// Values longer than this are refused.
    pub value_bytes_max: usize,
}

impl ServerInfo {
    /// The default limits.
    pub fn new(overlay_addr: SocketAddr, client_addr: SocketAddr) -> ServerInfo {
        ServerInfo { overlay_addr, client_addr, key_bytes_max: 0, value_bytes_max: 0 }
    }
}
