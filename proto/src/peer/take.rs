//! Parts of messages on their way in. Every check of what a peer says is here.

use super::{WireError, wire};
use dht::message::{AcceptorState, Denied, Era, PageEntry, RingInfo, Sighting, SlotSet};
use paxos::{Configuration, HomeState, Member};
use ring::members::{MemberInfo, MemberState};
use ring::{Extent, NodeId, NodeRef, Offset, ReplicaId, RingId, Slot, Space};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use store::{Ballot, Key, OpEntry, OpLog, Record, SessionId, Stamp, Value};

type Taken<T> = Result<T, WireError>;

/// A field that must be there.
pub(super) fn need<T>(field: Option<T>, name: &'static str) -> Taken<T> {
    field.ok_or(WireError::Missing(name))
}

pub(super) fn each<W, T>(list: Vec<W>, one: impl Fn(W) -> Taken<T>) -> Taken<Vec<T>> {
    list.into_iter().map(one).collect()
}

pub(super) fn joined(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

pub(super) fn u128(x: Option<wire::U128>, name: &'static str) -> Taken<u128> {
    need(x, name).map(|x| joined(x.high, x.low))
}

pub(super) fn slot(s: u32) -> Taken<Slot> {
    let s = Slot::try_from(s).map_err(|_| WireError::OutOfRange("slot"))?;
    if s < Space::R_MAX { Ok(s) } else { Err(WireError::OutOfRange("slot")) }
}

pub(super) fn slots(s: u32) -> Taken<SlotSet> {
    let s = u8::try_from(s).map_err(|_| WireError::OutOfRange("slots"))?;
    if s >> Space::R_MAX == 0 { Ok(SlotSet(s)) } else { Err(WireError::OutOfRange("slots")) }
}

pub(super) fn extent_between(lo: u128, hi: u128) -> Taken<Extent> {
    if lo <= hi { Ok(Extent { lo, hi }) } else { Err(WireError::OutOfRange("extent")) }
}

pub(super) fn extent(e: Option<wire::Extent>) -> Taken<Extent> {
    let e = need(e, "extent")?;
    extent_between(joined(e.lo_high, e.lo_low), joined(e.hi_high, e.hi_low))
}

pub(super) fn address(a: &wire::Address) -> Taken<SocketAddr> {
    let port = u16::try_from(a.port).map_err(|_| WireError::OutOfRange("port"))?;
    let bad = WireError::OutOfRange("ip");
    match a.ip.len() {
        4 => {
            let ip: [u8; 4] = a.ip[..].try_into().map_err(|_| bad)?;
            Ok(SocketAddr::new(IpAddr::from(ip), port))
        }
        16 => {
            let ip: [u8; 16] = a.ip[..].try_into().map_err(|_| bad)?;
            Ok(SocketAddr::V6(SocketAddrV6::new(ip.into(), port, 0, a.scope)))
        }
        _ => Err(bad),
    }
}

/// A node with an address. Its id is not [`NodeId::ANY`]: nobody is called that.
pub(super) fn node_ref(n: Option<wire::NodeRef>, name: &'static str) -> Taken<NodeRef> {
    let n = need(n, name)?;
    if NodeId(n.id) == NodeId::ANY {
        return Err(WireError::OutOfRange(name));
    }
    Ok(NodeRef { id: NodeId(n.id), addr: address(&need(n.address, name)?)? })
}

pub(super) fn optional_node_ref(n: Option<wire::NodeRef>, name: &'static str) -> Taken<Option<NodeRef>> {
    n.map(|n| node_ref(Some(n), name)).transpose()
}

pub(super) fn ballot_of(counter: u64, node: u64) -> Ballot {
    Ballot { counter, node: NodeId(node) }
}

pub(super) fn ballot(b: Option<wire::Ballot>) -> Taken<Ballot> {
    need(b, "ballot").map(|b| ballot_of(b.counter, b.node))
}

pub(super) fn stamp_of(counter: u64, node: u64, n: u64) -> Stamp {
    Stamp { ballot: ballot_of(counter, node), n }
}

pub(super) fn stamp(s: Option<wire::Stamp>) -> Taken<Stamp> {
    need(s, "stamp").map(|s| stamp_of(s.counter, s.node, s.n))
}

pub(super) fn era(e: Option<wire::Era>) -> Taken<Era> {
    need(e, "era").map(|e| Era { epoch: e.epoch, tag: e.tag })
}

pub(super) fn key(k: &[u8]) -> Key {
    Key::new(k)
}

pub(super) fn value(v: &[u8]) -> Taken<Value> {
    Ok(Value::try_from_bytes(v)?)
}

pub(super) fn optional_value(v: Option<bytes::Bytes>) -> Taken<Option<Value>> {
    v.map(|v| value(&v)).transpose()
}

/// The members of a configuration: as many as a ring may have replicas.
pub(super) fn members(list: Vec<wire::Member>) -> Taken<Vec<Member>> {
    space_of(list.len())?;
    let one = |m: wire::Member| Member {
        replica: ReplicaId { node: NodeId(m.replica_node), counter: m.replica_counter },
        since: m.since,
    };
    Ok(list.into_iter().map(one).collect())
}

/// The space of a ring with this many replicas.
fn space_of(replicas: usize) -> Taken<Space> {
    let bad = WireError::OutOfRange("members");
    u8::try_from(replicas).ok().and_then(Space::new).ok_or(bad)
}

pub(super) fn configuration(c: Option<wire::Configuration>) -> Taken<Arc<Configuration>> {
    let c = need(c, "configuration")?;
    Ok(Arc::new(Configuration { epoch: c.epoch, tag: c.tag, members: members(c.members)? }))
}

fn op_log(log: wire::OpLog) -> Taken<Box<OpLog>> {
    if log.entries.len() > store::ops::ENTRIES_MAX {
        return Err(WireError::OutOfRange("entries"));
    }
    let entry = |e: wire::OpEntry| {
        let result = optional_value(e.result)?;
        Ok(OpEntry { session: SessionId(e.session), seq: e.seq, n: e.n, result })
    };
    let entries = log.entries.into_iter().map(entry).collect::<Taken<_>>()?;
    let lock = log.lock.map(super::transaction::lock).transpose()?.map(Box::new);
    Ok(Box::new(OpLog { floor: log.floor, entries, lock, extra: log.extra.as_ref().into() }))
}

pub(super) fn some_record(r: wire::Record) -> Taken<Record> {
    Ok(Record { version: r.version, value: optional_value(r.value)?, ops: r.ops.map(op_log).transpose()? })
}

pub(super) fn record(r: Option<wire::Record>) -> Taken<Record> {
    some_record(need(r, "record")?)
}

pub(super) fn denied(d: wire::Denied) -> Taken<Denied> {
    use wire::DeniedKind as Kind;
    let kind = Kind::try_from(d.kind).unwrap_or(Kind::Unspecified);
    Ok(match kind {
        Kind::NotOwner => Denied::NotOwner {
            hint: optional_node_ref(d.hint, "hint")?,
            extent: d.extent.map(|e| extent(Some(e))).transpose()?,
        },
        // A reason of a later version: not granted, for now.
        Kind::Unspecified | Kind::NotReady => Denied::NotReady,
        Kind::StaleEpoch => {
            Denied::StaleEpoch { extent: extent(d.extent)?, configuration: configuration(d.configuration)? }
        }
        Kind::NewerEpoch => Denied::NewerEpoch,
        Kind::Promised => Denied::Promised(ballot(d.promised)?),
        Kind::Low => Denied::Low,
        Kind::StillHeard => Denied::StillHeard,
    })
}

/// A grant with content, or why there is none.
pub(super) fn answer<W, T>(
    refused: Option<wire::Denied>,
    granted: Option<W>,
    take: impl FnOnce(W) -> Taken<T>,
) -> Taken<Result<T, Denied>> {
    match (refused, granted) {
        (Some(d), _) => Ok(Err(denied(d)?)),
        (None, Some(g)) => Ok(Ok(take(g)?)),
        (None, None) => Err(WireError::Missing("granted")),
    }
}

/// A grant without content, or why there is none.
pub(super) fn vote(granted: bool, refused: Option<wire::Denied>) -> Taken<Result<(), Denied>> {
    answer(refused, granted.then_some(()), Ok)
}

pub(super) fn sighting(s: wire::Sighting) -> Taken<Sighting> {
    let stamp = stamp_of(s.stamp_counter, s.stamp_node, s.stamp_n);
    Ok(Sighting {
        era: Era { epoch: s.epoch, tag: s.tag },
        stamp: s.has_stamp.then_some((stamp, s.settled)),
        record: s.record.map(some_record).transpose()?,
        floor: stamp_of(s.floor_counter, s.floor_node, s.floor_n),
    })
}

pub(super) fn offset_key(at: wire::OffsetKey) -> Taken<(Offset, Key)> {
    Ok((u128(at.offset, "offset")?, key(&at.key)))
}

pub(super) fn page(entries: Vec<wire::PageEntry>) -> Taken<Vec<PageEntry>> {
    each(entries, |e| {
        Ok(PageEntry {
            offset: u128(e.offset, "offset")?,
            key: key(&e.key),
            stamp: stamp(e.stamp)?,
            settled: e.settled,
            record: record(e.record)?,
        })
    })
}

pub(super) fn slot_since(s: wire::SlotSince) -> Taken<(Slot, u64)> {
    Ok((slot(s.slot)?, s.since))
}

pub(super) fn change_vote(v: wire::ChangeVote) -> Taken<(Ballot, Vec<Member>)> {
    Ok((ballot(v.ballot)?, members(v.members)?))
}

/// A state that fits its own configuration: a slot, an extent and homes of a ring with that many replicas.
pub(super) fn acceptor_state(s: Option<wire::AcceptorState>) -> Taken<AcceptorState> {
    let s = need(s, "state")?;
    let home = |h: wire::HomeState| {
        Ok(HomeState { promised: ballot(h.promised)?, high: h.high, floor: stamp(h.floor)? })
    };
    let configuration = configuration(s.configuration)?;
    let space = space_of(configuration.members.len())?;
    let state = AcceptorState {
        slot: slot(s.slot)?,
        extent: extent(s.extent)?,
        configuration,
        donated: each(s.donated, slot_since)?,
        refused: each(s.refused, slot_since)?,
        change_promised: ballot(s.change_promised)?,
        change_accepted: s.change_accepted.map(change_vote).transpose()?,
        homes: each(s.homes, home)?,
    };
    let votes = state.change_accepted.as_ref().map_or(state.configuration.members.len(), |v| v.1.len());
    if state.slot >= space.replicas() {
        return Err(WireError::OutOfRange("slot"));
    }
    if !space.whole().covers(&state.extent) {
        return Err(WireError::OutOfRange("extent"));
    }
    if state.homes.len() != usize::from(space.replicas()) || votes != state.homes.len() {
        return Err(WireError::OutOfRange("homes"));
    }
    Ok(state)
}

pub(super) fn replication_factor(r: u32) -> Taken<u8> {
    let bad = WireError::OutOfRange("replication_factor");
    u8::try_from(r).ok().filter(|r| Space::new(*r).is_some()).ok_or(bad)
}

pub(super) fn strength(s: Option<wire::Strength>) -> Taken<(u64, u8)> {
    let s = need(s, "strength")?;
    Ok((s.changes, u8::try_from(s.nodes).map_err(|_| WireError::OutOfRange("strength"))?))
}

pub(super) fn ring_info(i: Option<wire::RingInfo>) -> Taken<RingInfo> {
    let i = need(i, "info")?;
    Ok(RingInfo {
        ring: RingId(i.ring),
        replication_factor: replication_factor(i.replication_factor)?,
        strength: strength(i.strength)?,
    })
}

pub(super) fn member_state(s: i32) -> Taken<MemberState> {
    let bad = Err(WireError::OutOfRange("state"));
    match wire::MemberState::try_from(s) {
        Ok(wire::MemberState::Alive) => Ok(MemberState::Alive),
        Ok(wire::MemberState::Leaving) => Ok(MemberState::Leaving),
        Ok(wire::MemberState::Left) => Ok(MemberState::Left),
        Ok(wire::MemberState::Dead) => Ok(MemberState::Dead),
        Ok(wire::MemberState::Unspecified) | Err(_) => bad,
    }
}

pub(super) fn member_info(m: wire::MemberInfo) -> Taken<MemberInfo> {
    Ok(MemberInfo {
        node: node_ref(m.node, "node")?,
        client_addr: m.client_address.as_ref().map(address).transpose()?,
        incarnation: m.incarnation,
        state: member_state(m.state)?,
        end: u128(m.end, "end")?,
        owned: each(m.owned, |o| Ok((slot(o.slot)?, extent(o.extent)?)))?,
        keys: m.keys,
        bytes: m.bytes,
        extra: m.extra.to_vec(),
    })
}

pub(super) fn member_infos(list: Vec<wire::MemberInfo>) -> Taken<Vec<MemberInfo>> {
    each(list, member_info)
}
