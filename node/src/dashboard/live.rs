//! Server-sent events: what a dashboard sees changes within a second of the node seeing it.
//!
//! Source: WHATWG HTML, "Server-sent events".

use super::Dashboard;
use bytes::Bytes;
use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};
use hyper::body::{Body, Frame};
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// The state is sent again after this.
const INTERVAL: Duration = Duration::from_millis(900);
/// What happens together is told together.
const SETTLE: Duration = Duration::from_millis(60);
/// Pieces that wait for a slow reader before the state is not computed any more.
const WAITING_MAX: usize = 8;

/// A body that ends when its writer or its reader goes.
#[derive(Debug)]
pub(super) struct Stream {
    pieces: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces.poll_recv(cx).map(|piece| piece.map(|p| Ok(Frame::data(p))))
    }
}

fn event(name: &str, data: &Json) -> Bytes {
    // Compact JSON has no line break, so one data line holds it.
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// Begins a stream for one dashboard.
pub(super) fn begin(dashboard: Arc<Dashboard>, place: OwnedSemaphorePermit) -> Stream {
    let (out, pieces) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        let shutdown = dashboard.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = feed(&dashboard, &out) => {}
        }
    });
    Stream { pieces, _place: place }
}

async fn feed(dashboard: &Dashboard, out: &mpsc::Sender<Bytes>) {
    let journal = &dashboard.api.info().journal;
    let mut news = journal.watch();
    let mut told = 0;
    let mut ring = Json::Null;
    loop {
        let Some(state) = dashboard.state().await else { return };
        if out.send(event("state", &state)).await.is_err() {
            return;
        }
        if let Some(now) = dashboard.ring().await
            && now != ring
        {
            ring = now;
            if out.send(event("ring", &ring)).await.is_err() {
                return;
            }
        }
        let entries = journal.after(told);
        if let Some(last) = entries.last() {
            told = last.number;
            let entries: Vec<Json> = entries.iter().map(super::journal::Entry::json).collect();
            if out.send(event("feed", &Json::Array(entries))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = out.closed() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(SETTLE).await;
            }
        }
    }
}
