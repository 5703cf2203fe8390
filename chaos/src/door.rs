//! The way to one node for clients.

use client::{Client, Error};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Longer than one attempt of a node needs, and short enough to see many calls in a round.
const LOAD_DEADLINE: Duration = Duration::from_secs(2);
/// A status is asked for anew rather than waited for.
const STATUS_DEADLINE: Duration = Duration::from_millis(700);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// One node as clients see it.
#[derive(Debug)]
pub(crate) struct Door {
    /// Where it answers clients.
    pub(crate) endpoint: String,
    /// Whether it is expected to serve now.
    is_open: watch::Sender<bool>,
    /// By deadline.
    clients: Mutex<BTreeMap<Duration, Client>>,
}

impl Door {
    pub(crate) fn new(endpoint: String) -> Arc<Door> {
        Arc::new(Door { endpoint, is_open: watch::Sender::new(false), clients: Mutex::default() })
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.is_open.borrow()
    }

    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    /// Returns when the node is not expected to serve any more.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as this door.
        let _ = self.is_open.subscribe().wait_for(|open| !*open).await;
    }

    /// A client that asks this node and no other.
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        self.client_with(LOAD_DEADLINE).await
    }

    /// The same for questions that are soon asked again.
    pub(crate) async fn status_client(&self) -> Result<Client, Error> {
        self.client_with(STATUS_DEADLINE).await
    }

    /// The same with this deadline.
    pub(crate) async fn client_with(&self, deadline: Duration) -> Result<Client, Error> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&deadline) {
            return Ok(client.clone());
        }
        let made = Client::builder([self.endpoint.clone()])
            .deadline(deadline)
            .connect_timeout(CONNECT_TIMEOUT)
            .routes_to_home(false)
            .connect()
            .await?;
        clients.insert(deadline, made.clone());
        Ok(made)
    }
}

/// The doors of all nodes, by place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doors(Arc<RwLock<Vec<Arc<Door>>>>);

impl Doors {
    pub(crate) fn set(&self, place: usize, door: Arc<Door>) {
        let mut doors = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(d) = doors.get_mut(place) {
            // Who waits for a node that is replaced waits no longer.
            d.set_open(false);
            *d = door;
        } else {
            doors.push(door);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Door>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn open(&self) -> Vec<Arc<Door>> {
        self.all().into_iter().filter(|d| d.is_open()).collect()
    }
}
