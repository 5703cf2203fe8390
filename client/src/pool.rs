//! Endpoints and their connections.

use crate::error::Error;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// An endpoint that could not be connected to is not tried first again for this long.
const REST: Duration = Duration::from_secs(2);

/// One server and the connections to it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: String,
    channels: Mutex<Vec<Channel>>,
    next: AtomicUsize,
    rests_until: Mutex<Option<Instant>>,
    connections: usize,
    connect_timeout: Duration,
}

impl Node {
    /// An endpoint `HOST:PORT` or `http://HOST:PORT`, not connected yet.
    pub(crate) fn new(address: &str, connections: usize, connect_timeout: Duration) -> Node {
        let address = address.trim().trim_end_matches('/');
        Node {
            address: address.strip_prefix("http://").unwrap_or(address).to_owned(),
            channels: Mutex::new(Vec::new()),
            next: AtomicUsize::new(0),
            rests_until: Mutex::new(None),
            connections: connections.max(1),
            connect_timeout,
        }
    }

    /// Whether it may be tried first.
    pub(crate) fn is_fit(&self) -> bool {
        self.rests_until.lock().is_none_or(|t| t <= Instant::now())
    }

    /// It could not be reached.
    pub(crate) fn rest(&self) {
        *self.rests_until.lock() = Some(Instant::now() + REST);
    }

    /// One of its connections; makes them if there are none.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        let ready = {
            let channels = self.channels.lock();
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            channels.get(i.checked_rem(channels.len()).unwrap_or(0)).cloned()
        };
        match ready {
            Some(channel) => Ok(channel),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> Result<Channel, Error> {
        let refused = |why: String| Error::CannotConnect { tried: vec![(self.address.clone(), why)] };
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|e| refused(format!("not an address: {e}")))?
            .tcp_nodelay(true)
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        let mut made = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let connecting = tokio::time::timeout(self.connect_timeout, endpoint.connect());
            match connecting.await {
                Ok(Ok(channel)) => made.push(channel),
                Ok(Err(e)) => return Err(refused(innermost(&e))),
                Err(_) => return Err(refused(format!("no connection within {:?}", self.connect_timeout))),
            }
        }
        let first = made.first().cloned().ok_or_else(|| refused("no connection".into()))?;
        let mut channels = self.channels.lock();
        if channels.is_empty() {
            *channels = made;
        }
        *self.rests_until.lock() = None;
        Ok(first)
    }
}

fn innermost(e: &dyn std::error::Error) -> String {
    let mut e = e;
    while let Some(inner) = e.source() {
        e = inner;
    }
    e.to_string()
}
