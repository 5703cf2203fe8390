//! The transport between nodes: who is connected to whom, and what waits to be sent.
//!
//! Every node sends to a peer over a connection that it opens itself, and hears a peer over the connection that
//! the peer opened: one connection per ordered pair, so that what is sent to a peer arrives in order while the
//! connection lasts. Whatever waits for a peer goes out in one write.
//!
//! Keeps:
//! 1. A message for a node id is written only to a process that said in the handshake that it has this id.
//! 2. What waits for a peer is bounded in bytes; the oldest goes first. The protocol above tolerates loss.
//! 3. Nothing here waits for the event loop while the event loop waits for it: sending never blocks.
//!
//! Relies on: node ids never being used again (`ring::ident`).

mod accept;
mod handshake;
mod link;
mod transport;

pub use accept::serve_peers;
pub use handshake::PeerError;
pub use transport::{Peers, Transport};

use core::time::Duration;
use dht::{Message, Trace};
use ring::NodeRef;

/// What the transport tells the event loop.
#[derive(Debug)]
pub enum PeerInput {
    /// Messages of a node, in the order in which it sent them.
    Messages {
        /// The sender, as it said in the handshake.
        from: NodeRef,
        /// What it said.
        messages: Vec<Message>,
        /// The traces of those that are part of one, by their place.
        traces: Vec<(usize, Trace)>,
    },
    /// The connection to a node broke or could not be made.
    Lost(NodeRef),
}

/// The bounds and times of the transport.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// A longer frame is not written, and ends the connection that brings it.
    pub frame_bytes_max: usize,
    /// Messages are put together into frames of about this size.
    pub batch_bytes_max: usize,
    /// What waits for one peer.
    pub queue_bytes_max: usize,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long the other side may take to greet.
    pub handshake_timeout: Duration,
    /// The pause after a failed attempt, doubled each time, with jitter.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Messages that could not be sent for this long are dropped.
    pub unreachable_after: Duration,
    /// A connection over which nothing was sent for this long is closed.
    pub idle_after: Duration,
    /// A connection whose data were not acknowledged for this long is given up.
    pub unacknowledged_max: Duration,
    /// Incoming connections open at once.
    pub connections_max: usize,
}

impl Default for PeerOptions {
    fn default() -> PeerOptions {
        PeerOptions {
            frame_bytes_max: 64 << 20,
            batch_bytes_max: 1 << 20,
            queue_bytes_max: 64 << 20,
            connect_timeout: Duration::from_millis(500),
            handshake_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            unreachable_after: Duration::from_secs(3),
            idle_after: Duration::from_secs(60),
            unacknowledged_max: Duration::from_secs(3),
            connections_max: 4096,
        }
    }
}
