//! Which node serves a key: the owner of the key's home, as some node saw the ring lately.
//!
//! All of it is a hint. A wrong one costs a hop, since every node serves every key.

use crate::pool::Node;
use proto::v1;
use ring::Space;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The owners of the home slots.
#[derive(Debug)]
pub(crate) struct Routes {
    space: Space,
    /// By slot and first offset: the last offset and the owner.
    pieces: BTreeMap<(u8, u128), (u128, Arc<Node>)>,
}

impl Routes {
    /// From a node's view of the ring and the nodes that can be reached, by id.
    pub(crate) fn new(ring: &v1::RingResponse, nodes: &BTreeMap<String, Arc<Node>>) -> Option<Routes> {
        let space = Space::new(u8::try_from(ring.replication_factor).ok()?)?;
        let mut pieces = BTreeMap::new();
        for p in ring.pieces.iter().filter(|p| p.live) {
            let Some(node) = p.owner.as_ref().and_then(|o| nodes.get(&o.id)) else { continue };
            let slot = u8::try_from(p.slot).ok()?;
            let first = u128::from_str_radix(&p.first_offset, 16).ok()?;
            let last = u128::from_str_radix(&p.last_offset, 16).ok()?;
            pieces.insert((slot, first), (last, Arc::clone(node)));
        }
        Some(Routes { space, pieces })
    }

    /// The node that serves `key`, if known and reachable.
    pub(crate) fn home(&self, key: &str) -> Option<&Arc<Node>> {
        let (slot, offset) = self.space.locate(key.as_bytes());
        let (&(s, _), (last, node)) = self.pieces.range(..=(slot, offset)).next_back()?;
        (s == slot && offset <= *last && node.is_fit()).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_key_is_routed_to_the_owner_of_its_home() {
        let space = Space::new(3).expect("valid");
        let (slot, offset) = space.locate(b"apple");
        let owner = |id: &str| Some(v1::Node { id: id.into(), overlay_address: String::new() });
        let piece = |first: u128, last: u128, id: &str| v1::Piece {
            slot: u32::from(slot),
            first_offset: format!("{first:032x}"),
            last_offset: format!("{last:032x}"),
            owner: owner(id),
            live: true,
        };
        let ring = v1::RingResponse {
            replication_factor: 3,
            pieces: vec![
                piece(0, offset - 1, "a"),
                piece(offset, offset, "b"),
                piece(offset + 1, u128::MAX, "c"),
            ],
        };
        let node = |a: &str| (a.to_owned(), Arc::new(Node::new(a, 1, Duration::ZERO)));
        let routes = Routes::new(&ring, &BTreeMap::from([node("a"), node("b")])).expect("valid");
        assert_eq!(routes.home("apple").expect("known").address, "b");
        let routes = Routes::new(&ring, &BTreeMap::from([node("a"), node("c")])).expect("valid");
        assert!(routes.home("apple").is_none());
    }
}
