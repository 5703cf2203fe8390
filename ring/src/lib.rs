//! The ring: positions and arcs, placement of nodes, the member table with its failure detector.
//!
//! Nothing here does IO, reads a clock or draws randomness of its own. What the ring says is a hint whom to
//! ask; who owns a position is decided by the owner's own memory (see `docs/protocol.md`, section 1).

pub mod ident;
pub mod members;
pub mod placement;
pub mod space;
pub mod time;

pub use ident::{NodeId, NodeRef, ReplicaId, RingId};
pub use space::{Extent, Offset, Position, Slot, Space};
pub use time::Time;
