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
/// Up to so many members are told with each state.
const MEMBERS_ALWAYS_MAX: usize = 100;
/// More are told when something lasting of one has changed, and once in so many states for their times.
const STATES_PER_MEMBERS: u32 = 6;
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

/// Leaves the members of a large ring out of a state, unless it is time for them or one has changed its state.
#[derive(Debug, Default)]
struct Thinning {
    states: u32,
    told: Vec<[Json; 2]>,
}

impl Thinning {
    fn thin(&mut self, state: &mut Json) {
        let Some(members) = state.get("members").and_then(Json::as_array) else { return };
        if members.len() <= MEMBERS_ALWAYS_MAX {
            return;
        }
        let lasting = ["node", "state"];
        let now: Vec<[Json; 2]> = members.iter().map(|m| lasting.map(|name| m[name].clone())).collect();
        self.states = (self.states + 1) % STATES_PER_MEMBERS;
        if now == self.told && self.states != 0 {
            if let Some(o) = state.as_object_mut() {
                o.remove("members");
            }
        } else {
            (self.told, self.states) = (now, 0);
        }
    }
}

async fn feed(dashboard: &Dashboard, out: &mpsc::Sender<Bytes>) {
    let journal = &dashboard.api.info().journal;
    let mut news = journal.watch();
    let mut told = 0;
    let mut ring = Json::Null;
    let mut thinning = Thinning::default();
    loop {
        let Some(mut state) = dashboard.state().await else { return };
        thinning.thin(&mut state);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(n: usize, dead: usize, keys: u64) -> Json {
        let one = |i| json!({ "node": i, "state": if i < dead { "dead" } else { "alive" }, "keys": keys });
        json!({ "status": 1, "members": (0..n).map(one).collect::<Vec<_>>() })
    }

    #[test]
    fn the_members_of_a_large_ring_are_told_when_one_has_changed_and_now_and_then() {
        let told = |n: usize, steps: &[(usize, u64)]| -> Vec<bool> {
            let mut thinning = Thinning::default();
            let one = |(dead, keys): &(usize, u64)| {
                let mut s = state(n, *dead, *keys);
                thinning.thin(&mut s);
                assert_eq!(s["status"], 1);
                s.get("members").is_some()
            };
            steps.iter().map(one).collect()
        };
        let steps = [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6), (2, 7), (2, 8), (2, 9), (2, 10)];
        assert_eq!(told(100, &steps), [true; 10]);
        assert_eq!(told(101, &steps), [true, false, false, true, false, false, false, false, false, true]);
    }
}
