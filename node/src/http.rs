//! Stand-in for the client port.

use crate::handle::NodeHandle;
use crate::run::{ProcessInfo, Stage};
use std::io;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Serves clients until the stage is [`Stage::Stopped`].
pub async fn serve_clients(
    listener: TcpListener,
    handle: NodeHandle,
    info: ProcessInfo,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let _ = (listener, handle, info);
    let _ = stage.wait_for(|s| *s == Stage::Stopped).await;
    Ok(())
}
