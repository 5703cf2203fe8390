//! What a node says of itself and its ring, as JSON: the same facts on the command line and in the dashboard.

use proto::v1;
use serde_json::{Value as Json, json};

pub(crate) fn id_of(n: Option<&v1::Node>) -> String {
    n.map_or_else(|| "-".to_owned(), |n| n.id.clone())
}

pub(crate) fn address_of(n: Option<&v1::Node>) -> String {
    n.map_or_else(|| "-".to_owned(), |n| n.overlay_address.clone())
}

pub(crate) fn phase_word(p: i32) -> String {
    let name = v1::Phase::try_from(p).unwrap_or(v1::Phase::Unspecified).as_str_name();
    name.trim_start_matches("PHASE_").to_ascii_lowercase()
}

pub(crate) fn state_word(s: i32) -> String {
    let name = v1::member::State::try_from(s).unwrap_or(v1::member::State::Unspecified).as_str_name();
    name.trim_start_matches("STATE_").to_ascii_lowercase()
}

fn plural(n: u32, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The ring's health in one sentence.
pub fn sentence(s: &v1::StatusResponse) -> String {
    format!(
        "{}, {}, can lose {}",
        plural(s.members_alive, "node"),
        plural(s.replication_factor, "replica"),
        plural(s.tolerated_failures, "node"),
    )
}

/// What is worth knowing and asks for nothing, a sentence each.
pub fn notes(s: &v1::StatusResponse) -> Vec<String> {
    let is_replaced = s.members_lost > 0 && s.fully_replicated && s.findings.is_empty();
    let who = || plural(s.members_lost, "member");
    is_replaced
        .then(|| format!("{} lost in the last hour; all replicas have been replaced", who()))
        .into_iter()
        .collect()
}

/// The node and its ring in short.
pub fn status(s: &v1::StatusResponse) -> Json {
    json!({
        "sentence": sentence(s),
        "node": id_of(s.node.as_ref()), "address": address_of(s.node.as_ref()), "phase": phase_word(s.phase),
        "ring": s.ring, "version": s.version, "uptime_seconds": s.uptime_seconds,
        "members_alive": s.members_alive, "members_lost": s.members_lost,
        "replication_factor": s.replication_factor, "tolerated_failures": s.tolerated_failures,
        "fully_replicated": s.fully_replicated, "keys": s.keys, "bytes": s.bytes, "bytes_max": s.bytes_max,
        "pieces": s.pieces, "operations_open": s.operations_open, "foreign_ring": s.foreign_ring,
        "lineage": s.lineage,
        "findings": s.findings, "notes": notes(s),
    })
}

/// The members.
pub fn members(members: &[v1::Member]) -> Json {
    let one = |m: &v1::Member| {
        json!({
            "node": id_of(m.node.as_ref()), "overlay_address": address_of(m.node.as_ref()),
            "client_address": m.client_address, "state": state_word(m.state), "keys": m.keys, "bytes": m.bytes,
            "heard_ago_milliseconds": m.heard_ago_milliseconds,
            "round_trip_microseconds": m.round_trip_microseconds, "end": m.end, "is_self": m.is_self,
        })
    };
    json!({ "members": members.iter().map(one).collect::<Vec<_>>() })
}

/// Who owns what.
pub fn ring(ring: &v1::RingResponse) -> Json {
    let one = |p: &v1::Piece| {
        json!({
            "slot": p.slot, "first_offset": p.first_offset, "last_offset": p.last_offset,
            "node": id_of(p.owner.as_ref()), "overlay_address": address_of(p.owner.as_ref()), "live": p.live,
        })
    };
    let pieces: Vec<Json> = ring.pieces.iter().map(one).collect();
    json!({ "replication_factor": ring.replication_factor, "pieces": pieces })
}

/// Where a key is.
pub fn location(key: &str, l: &v1::LocateResponse) -> Json {
    let one = |r: &v1::Replica| {
        json!({
            "slot": r.slot, "position": r.position, "node": id_of(r.owner.as_ref()),
            "overlay_address": address_of(r.owner.as_ref()), "home": r.slot == l.home_slot,
        })
    };
    let replicas: Vec<Json> = l.replicas.iter().map(one).collect();
    json!({ "key": key, "home_slot": l.home_slot, "replicas": replicas })
}
