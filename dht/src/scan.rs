//! What this node's memory holds between two positions: for looking in, below replication.
//!
//! An answer says nothing about the ring: another replica may hold a newer record, and this one may be about to
//! be handed over.
//!
//! Source: Scalaris, `api_dht_raw:range_read`.

use crate::api::Held;
use crate::node::DhtNode;
use ring::{Extent, Offset, Position};
use store::Key;

/// Keys of one answer.
const KEYS_MAX: usize = 1000;
/// Bytes of values of one answer, the last one aside.
const BYTES_MAX: usize = 1 << 20;

impl DhtNode {
    /// The keys with a value from `from` to `to`, after `after` if it is given, in the order of (position, key);
    /// and whether there may be more.
    pub(crate) fn scan(
        &self,
        from: Position,
        to: Position,
        after: Option<(Position, Key)>,
    ) -> (Vec<Held>, bool) {
        let space = self.ctx.space;
        let (mut held, mut bytes) = (Vec::new(), 0);
        let start = after.as_ref().map_or(from, |(position, _)| from.max(*position));
        if start > to {
            return (held, false);
        }
        let ((first, low), (last, high)) = (space.split(start), space.split(to));
        for slot in first..=last {
            let lo = if slot == first { low } else { 0 };
            let hi = if slot == last { high } else { space.whole().hi };
            let extent = Extent::new(lo, hi);
            let after_here: Option<(Offset, Key)> =
                after.as_ref().filter(|_| slot == first).map(|(_, key)| (low, key.clone()));
            for (part, acceptor) in self.acceptors.parts(slot, extent) {
                if !acceptor.is_active() {
                    continue;
                }
                for (offset, key, entry) in acceptor.registers.range(part, after_here.as_ref()) {
                    let Some(value) = &entry.record.value else { continue };
                    if held.len() >= KEYS_MAX || bytes >= BYTES_MAX {
                        return (held, true);
                    }
                    bytes += value.as_bytes().len() + key.as_bytes().len();
                    held.push(Held {
                        position: space.position(slot, offset),
                        key: key.clone(),
                        value: value.clone(),
                        version: entry.record.version,
                    });
                }
            }
        }
        (held, false)
    }
}
