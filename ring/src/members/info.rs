//! What a node says of itself, spread by gossip. All of it is a hint.

use crate::ident::NodeRef;
use crate::space::{Extent, Position, Slot};
use std::net::SocketAddr;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// In the ring and answering.
    Alive,
    /// In the ring, handing over what it has before it goes.
    Leaving,
    /// Gone after it handed over everything.
    Left,
    /// Nobody has heard it for long enough; it may come back with a higher incarnation.
    Dead,
}

/// A node's entry in the member table. The one with the higher (incarnation, state) replaces the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// The node.
    pub node: NodeRef,
    /// Where it answers clients.
    pub client_addr: Option<SocketAddr>,
    /// Counted up by the node itself at every change of its entry, and to refute that it is dead.
    pub incarnation: u64,
    /// Its state.
    pub state: MemberState,
    /// The end of the arc it wants (see `placement`).
    pub end: Position,
    /// What it owns, joined where adjacent; the newest of at most 32.
    pub owned: Vec<(Slot, Extent)>,
    /// Keys in its memory, all slots together.
    pub keys: u64,
    /// Bytes in its memory.
    pub bytes: u64,
    /// Fields of later versions, carried along unread.
    pub extra: Vec<u8>,
}
