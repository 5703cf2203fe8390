//! Parts of messages on their way out.

use super::wire;
use bytes::Bytes;
use dht::message::{AcceptorState, Denied, Era, PageEntry, RingInfo, Sighting};
use paxos::{Configuration, HomeState, Member};
use ring::members::{MemberInfo, MemberState};
use ring::{Extent, NodeRef, Offset, Slot};
use std::net::{IpAddr, SocketAddr};
use store::{Ballot, Key, OpLog, Record, Stamp, Value};

/// From this size on bytes are shared with the store, below they are copied: a copy of a few lines of cache
/// costs less than an owner's counter.
const SHARED_BYTES_MIN: usize = 4096;

struct SharedValue(Value);

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The two halves of a number.
pub(super) fn halves(x: u128) -> (u64, u64) {
    let low = u64::try_from(x & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    (u64::try_from(x >> 64).unwrap_or(u64::MAX), low)
}

pub(super) fn u128(x: u128) -> wire::U128 {
    let (high, low) = halves(x);
    wire::U128 { high, low }
}

pub(super) fn key(k: &Key) -> Bytes {
    Bytes::copy_from_slice(k.as_bytes())
}

pub(super) fn value(v: &Value) -> Bytes {
    if v.as_bytes().len() < SHARED_BYTES_MIN {
        Bytes::copy_from_slice(v.as_bytes())
    } else {
        Bytes::from_owner(SharedValue(v.clone()))
    }
}

pub(super) fn address(a: &SocketAddr) -> wire::Address {
    let (ip, scope) = match a {
        SocketAddr::V4(v4) => (Bytes::copy_from_slice(&v4.ip().octets()), 0),
        SocketAddr::V6(v6) => (Bytes::copy_from_slice(&v6.ip().octets()), v6.scope_id()),
    };
    debug_assert!(matches!(a.ip(), IpAddr::V4(_)) == (ip.len() == 4), "4 or 16 bytes");
    wire::Address { ip, port: u32::from(a.port()), scope }
}

pub(super) fn node_ref(n: &NodeRef) -> wire::NodeRef {
    wire::NodeRef { id: n.id.0, address: Some(address(&n.addr)) }
}

pub(super) fn extent(e: &Extent) -> wire::Extent {
    let ((lo_high, lo_low), (hi_high, hi_low)) = (halves(e.lo), halves(e.hi));
    wire::Extent { lo_high, lo_low, hi_high, hi_low }
}

pub(super) fn ballot(b: &Ballot) -> wire::Ballot {
    wire::Ballot { counter: b.counter, node: b.node.0 }
}

pub(super) fn stamp(s: &Stamp) -> wire::Stamp {
    wire::Stamp { counter: s.ballot.counter, node: s.ballot.node.0, n: s.n }
}

pub(super) fn era(e: &Era) -> wire::Era {
    wire::Era { epoch: e.epoch, tag: e.tag }
}

pub(super) fn members(list: &[Member]) -> Vec<wire::Member> {
    let one = |m: &Member| wire::Member {
        replica_node: m.replica.node.0,
        replica_counter: m.replica.counter,
        since: m.since,
    };
    list.iter().map(one).collect()
}

pub(super) fn configuration(c: &Configuration) -> wire::Configuration {
    wire::Configuration { epoch: c.epoch, tag: c.tag, members: members(&c.members) }
}

fn op_log(log: &OpLog) -> wire::OpLog {
    let entry = |e: store::OpEntry| wire::OpEntry {
        session: e.session.0,
        seq: e.seq,
        n: e.n,
        result: e.result.as_ref().map(value),
    };
    wire::OpLog {
        floor: log.floor,
        entries: log.entries.iter().map(entry).collect(),
        lock: log.lock.as_deref().map(super::transaction::lock_to_wire),
        extra: Bytes::copy_from_slice(&log.extra),
    }
}

pub(super) fn record(r: &Record) -> wire::Record {
    wire::Record { version: r.version, value: r.value.as_ref().map(value), ops: r.ops.as_deref().map(op_log) }
}

pub(super) fn denied(d: &Denied) -> wire::Denied {
    use wire::DeniedKind as Kind;
    let of = |kind: Kind| wire::Denied { kind: i32::from(kind), ..wire::Denied::default() };
    match d {
        Denied::NotOwner { hint, extent: part } => wire::Denied {
            hint: hint.as_ref().map(node_ref),
            extent: part.as_ref().map(extent),
            ..of(Kind::NotOwner)
        },
        Denied::NotReady => of(Kind::NotReady),
        Denied::StaleEpoch { extent: e, configuration: c } => wire::Denied {
            extent: Some(extent(e)),
            configuration: Some(configuration(c)),
            ..of(Kind::StaleEpoch)
        },
        Denied::NewerEpoch => of(Kind::NewerEpoch),
        Denied::Promised(b) => wire::Denied { promised: Some(ballot(b)), ..of(Kind::Promised) },
        Denied::Low => of(Kind::Low),
        Denied::StillHeard => of(Kind::StillHeard),
    }
}

/// A grant without content, or why there is none.
pub(super) fn vote(answer: &Result<(), Denied>) -> (bool, Option<wire::Denied>) {
    (answer.is_ok(), answer.as_ref().err().map(denied))
}

pub(super) fn sighting(s: &Sighting) -> wire::Sighting {
    let (stamp, settled) = s.stamp.unwrap_or((Stamp::ZERO, false));
    wire::Sighting {
        epoch: s.era.epoch,
        tag: s.era.tag,
        has_stamp: s.stamp.is_some(),
        stamp_counter: stamp.ballot.counter,
        stamp_node: stamp.ballot.node.0,
        stamp_n: stamp.n,
        settled,
        record: s.record.as_ref().map(record),
        floor_counter: s.floor.ballot.counter,
        floor_node: s.floor.ballot.node.0,
        floor_n: s.floor.n,
    }
}

pub(super) fn offset_key(at: &(Offset, Key)) -> wire::OffsetKey {
    wire::OffsetKey { offset: Some(u128(at.0)), key: key(&at.1) }
}

pub(super) fn page(entries: &[PageEntry]) -> Vec<wire::PageEntry> {
    let one = |e: &PageEntry| wire::PageEntry {
        offset: Some(u128(e.offset)),
        key: key(&e.key),
        stamp: Some(stamp(&e.stamp)),
        settled: e.settled,
        record: Some(record(&e.record)),
    };
    entries.iter().map(one).collect()
}

pub(super) fn slot_since(s: &(Slot, u64)) -> wire::SlotSince {
    wire::SlotSince { slot: u32::from(s.0), since: s.1 }
}

pub(super) fn change_vote(v: &(Ballot, Vec<Member>)) -> wire::ChangeVote {
    wire::ChangeVote { ballot: Some(ballot(&v.0)), members: members(&v.1) }
}

pub(super) fn acceptor_state(s: &AcceptorState) -> wire::AcceptorState {
    let home = |h: &HomeState| wire::HomeState {
        promised: Some(ballot(&h.promised)),
        high: h.high,
        floor: Some(stamp(&h.floor)),
    };
    wire::AcceptorState {
        slot: u32::from(s.slot),
        extent: Some(extent(&s.extent)),
        configuration: Some(configuration(&s.configuration)),
        donated: s.donated.iter().map(slot_since).collect(),
        refused: s.refused.iter().map(slot_since).collect(),
        change_promised: Some(ballot(&s.change_promised)),
        change_accepted: s.change_accepted.as_ref().map(change_vote),
        homes: s.homes.iter().map(home).collect(),
    }
}

pub(super) fn strength(s: (u64, u8)) -> wire::Strength {
    wire::Strength { changes: s.0, nodes: u32::from(s.1) }
}

pub(super) fn ring_info(i: &RingInfo) -> wire::RingInfo {
    wire::RingInfo {
        ring: i.ring.0,
        replication_factor: u32::from(i.replication_factor),
        strength: Some(strength(i.strength)),
    }
}

pub(super) fn member_state(s: MemberState) -> i32 {
    i32::from(match s {
        MemberState::Alive => wire::MemberState::Alive,
        MemberState::Leaving => wire::MemberState::Leaving,
        MemberState::Left => wire::MemberState::Left,
        MemberState::Dead => wire::MemberState::Dead,
    })
}

pub(super) fn member_info(m: &MemberInfo) -> wire::MemberInfo {
    let owned = |o: &(Slot, Extent)| wire::Owned { slot: u32::from(o.0), extent: Some(extent(&o.1)) };
    wire::MemberInfo {
        node: Some(node_ref(&m.node)),
        client_address: m.client_addr.as_ref().map(address),
        incarnation: m.incarnation,
        state: member_state(m.state),
        end: Some(u128(m.end)),
        owned: m.owned.iter().map(owned).collect(),
        keys: m.keys,
        bytes: m.bytes,
        extra: Bytes::copy_from_slice(&m.extra),
    }
}

pub(super) fn member_infos(list: &[MemberInfo]) -> Vec<wire::MemberInfo> {
    list.iter().map(member_info).collect()
}
