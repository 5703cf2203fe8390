//! Stand-in for the client port.

use crate::grpc::ServerInfo;
use crate::handle::NodeHandle;
use std::io;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Holds the port until `shutdown` is cancelled.
pub async fn serve_clients(
    listener: TcpListener,
    handle: NodeHandle,
    info: ServerInfo,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let _ = (listener, handle, info);
    shutdown.cancelled().await;
    Ok(())
}
