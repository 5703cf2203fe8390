//! How everything in the process talks to the one event loop that owns the node's state.
//!
//! Keeps:
//! 1. A request that was handed over is answered by the event loop or its outcome is not known; one that was
//!    not handed over was not done. [`Closed`] tells the two apart.
//! 2. Dropping a waiting future never cancels an operation: the core finishes it on its own and the reply goes
//!    nowhere.

use crate::traces::Parent;
use dht::{Reply, Request};
use tokio::sync::{mpsc, oneshot};

/// Cloneable access to the node's event loop.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    calls: mpsc::Sender<Call>,
}

/// One request on its way to the event loop.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// The client's span that it is part of.
    pub parent: Option<Parent>,
    /// Where the answer goes; the asker may have gone.
    pub reply: oneshot::Sender<Reply>,
}

/// The event loop does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// It did not take the request: nothing was done.
    #[error("the node has stopped and did not take the request")]
    NotTaken,
    /// It took the request and stopped before it answered: the outcome is not known.
    #[error("the node stopped before it answered")]
    NotAnswered,
}

/// The answer that is on its way to a submitted request.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Reply>);

impl Pending {
    /// Waits for the answer.
    pub async fn answer(self) -> Result<Reply, Closed> {
        self.0.await.map_err(|_| Closed::NotAnswered)
    }
}

impl NodeHandle {
    /// A handle, and the queue that the event loop takes calls from; `capacity` calls wait in it at most, more
    /// askers wait before it.
    pub fn channel(capacity: usize) -> (NodeHandle, mpsc::Receiver<Call>) {
        let (calls, queue) = mpsc::channel(capacity);
        (NodeHandle { calls }, queue)
    }

    /// Hands `request` over, waits for room if necessary, and does not wait for the answer.
    pub async fn submit(&self, request: Request) -> Result<Pending, Closed> {
        self.submit_in(None, request).await
    }

    /// The same for what is part of a client's span.
    pub async fn submit_in(&self, parent: Option<Parent>, request: Request) -> Result<Pending, Closed> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { request, parent, reply }).await.map_err(|_| Closed::NotTaken)?;
        Ok(Pending(answer))
    }

    /// Asks and waits for the answer.
    pub async fn request(&self, request: Request) -> Result<Reply, Closed> {
        self.submit(request).await?.answer().await
    }
}
