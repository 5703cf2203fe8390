//! Any message, for properties of the codec.

use super::from_wire::TYPE_NAMES;
use dht::Message;
use dht::message::*;
use paxos::{Configuration, Granted, HomeState, Member};
use proptest::collection::vec;
use proptest::option::of as maybe;
use proptest::prelude::*;
use ring::members::{Gossip, MemberInfo, MemberState};
use ring::{Extent, NodeId, NodeRef, ReplicaId, RingId, Slot, Space};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use store::{
    Ballot, Change, Condition, Data, Intent, Key, LedgerChange, Lock, OpEntry, OpId, OpLog, Record, Refusal,
    Seen, SessionId, Stamp, TxChange, TxId, Value,
};

fn addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<(u32, u16)>().prop_map(|(ip, port)| (Ipv4Addr::from(ip), port).into()),
        any::<(u128, u16)>().prop_map(|(ip, port)| (Ipv6Addr::from(ip), port).into()),
    ]
}
fn node() -> impl Strategy<Value = NodeRef> {
    (1u64.., addr()).prop_map(|(id, addr)| NodeRef { id: NodeId(id), addr })
}
fn slot() -> impl Strategy<Value = Slot> {
    0..Space::R_MAX
}
fn slots() -> impl Strategy<Value = SlotSet> {
    (0u8..128).prop_map(SlotSet)
}
fn extent() -> impl Strategy<Value = Extent> {
    any::<(u128, u128)>().prop_map(|(a, b)| Extent::new(a.min(b), a.max(b)))
}
fn ballot() -> impl Strategy<Value = Ballot> {
    any::<(u64, u64)>().prop_map(|(counter, node)| Ballot { counter, node: NodeId(node) })
}
fn stamp() -> impl Strategy<Value = Stamp> {
    (ballot(), any::<u64>()).prop_map(|(ballot, n)| Stamp { ballot, n })
}
fn era() -> impl Strategy<Value = Era> {
    any::<(u64, u64)>().prop_map(|(epoch, tag)| Era { epoch, tag })
}
fn key() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 0..20).prop_map(|k| Key::new(&k))
}
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::int),
        ".{0,20}".prop_map(|s| Value::string(&s)),
        (0usize..9000).prop_map(|n| Value::bytes(&vec![7; n])),
        vec(any::<i64>(), 0..4).prop_map(|l| {
            Value::encode(&Data::List(l.into_iter().map(|i| Data::Int(i.into())).collect()))
        }),
    ]
}
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..9)
}
fn ops() -> impl Strategy<Value = OpLog> {
    let entry = (any::<(u64, u64, u64)>(), maybe(value())).prop_map(|((session, seq, n), result)| OpEntry {
        session: SessionId(session),
        seq,
        n,
        result,
    });
    (any::<u64>(), vec(entry, 0..4), bytes(), maybe(lock())).prop_map(|(floor, entries, extra, lock)| OpLog {
        floor,
        entries: entries.into_iter().collect(),
        lock: lock.map(Box::new),
        extra: extra.into(),
    })
}
fn tx_id() -> impl Strategy<Value = TxId> {
    (key(), any::<u64>()).prop_map(|(ledger, entry)| TxId { ledger, entry })
}
fn op_id() -> impl Strategy<Value = OpId> {
    any::<(u64, u64)>().prop_map(|(session, seq)| OpId { session: SessionId(session), seq })
}
fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![Just(Intent::Keep), Just(Intent::Delete), value().prop_map(Intent::Put)]
}
fn lock() -> impl Strategy<Value = Lock> {
    (tx_id(), any::<u64>(), intent(), any::<bool>(), op_id())
        .prop_map(|(tx, version, intent, validates, op)| Lock { tx, version, intent, validates, op })
}
fn tx_change() -> impl Strategy<Value = TxChange> {
    let seen = || any::<(u64, bool)>().prop_map(|(n, is_present)| Seen::of(n, is_present));
    let commit = (any::<u64>(), vec((key(), any::<u64>()), 0..3));
    let ledger = prop_oneof![
        Just(LedgerChange::Create),
        (vec(commit, 0..3), vec(any::<u64>(), 0..3), any::<u64>())
            .prop_map(|(commits, done, low)| LedgerChange::Decide { commits, done, low }),
        any::<u64>().prop_map(LedgerChange::Abort),
        Just(LedgerChange::Close),
        vec(any::<u64>(), 0..3).prop_map(LedgerChange::Applied),
    ];
    prop_oneof![
        (tx_id(), seen(), intent(), any::<(bool, bool)>(), op_id()).prop_map(
            |(tx, seen, intent, (validates, waits), op)| TxChange::Lock {
                tx,
                seen,
                intent,
                validates,
                op,
                waits
            }
        ),
        (tx_id(), any::<u64>(), any::<bool>()).prop_map(|(tx, version, applies)| TxChange::Settle {
            tx,
            version,
            applies
        }),
        (seen(), intent(), op_id()).prop_map(|(seen, intent, op)| TxChange::Install { seen, intent, op }),
        ledger.prop_map(TxChange::Ledger),
    ]
}
fn record() -> impl Strategy<Value = Record> {
    (any::<u64>(), maybe(value()), maybe(ops().prop_map(Box::new))).prop_map(|(version, value, ops)| Record {
        version,
        value,
        ops,
    })
}
fn members(r: usize) -> impl Strategy<Value = Vec<Member>> {
    let one = any::<(u64, u64, u64)>().prop_map(|(node, counter, since)| Member {
        replica: ReplicaId { node: NodeId(node), counter },
        since,
    });
    vec(one, r)
}
fn r() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1usize, 3, 4, 5, 7])
}
fn any_members() -> impl Strategy<Value = Vec<Member>> {
    r().prop_flat_map(members)
}
fn configuration(r: usize) -> impl Strategy<Value = Arc<Configuration>> {
    (any::<(u64, u64)>(), members(r))
        .prop_map(|((epoch, tag), members)| Arc::new(Configuration { epoch, tag, members }))
}
fn any_configuration() -> impl Strategy<Value = Arc<Configuration>> {
    r().prop_flat_map(configuration)
}
fn denied() -> impl Strategy<Value = Denied> {
    prop_oneof![
        (maybe(node()), maybe(extent())).prop_map(|(hint, extent)| Denied::NotOwner { hint, extent }),
        Just(Denied::NotReady),
        (extent(), any_configuration())
            .prop_map(|(extent, configuration)| Denied::StaleEpoch { extent, configuration }),
        Just(Denied::NewerEpoch),
        ballot().prop_map(Denied::Promised),
        Just(Denied::Low),
        Just(Denied::StillHeard),
    ]
}
fn answer<T: std::fmt::Debug>(granted: impl Strategy<Value = T>) -> impl Strategy<Value = Result<T, Denied>> {
    prop_oneof![granted.prop_map(Ok), denied().prop_map(Err)]
}
fn sighting() -> impl Strategy<Value = Sighting> {
    (era(), maybe((stamp(), any::<bool>())), maybe(record()), stamp())
        .prop_map(|(era, stamp, record, floor)| Sighting { era, stamp, record, floor })
}
fn page() -> impl Strategy<Value = Vec<PageEntry>> {
    let entry = (any::<u128>(), key(), stamp(), any::<bool>(), record())
        .prop_map(|(offset, key, stamp, settled, record)| PageEntry { offset, key, stamp, settled, record });
    vec(entry, 0..4)
}
fn state() -> impl Strategy<Value = AcceptorState> {
    r().prop_flat_map(|r| {
        let r8 = u8::try_from(r).expect("small");
        let last = Space::new(r8).expect("a factor").whole().hi;
        let home = (ballot(), any::<u64>(), stamp()).prop_map(|(promised, high, floor)| HomeState {
            promised,
            high,
            floor,
        });
        let since = || vec((slot(), any::<u64>()), 0..3);
        (
            (0..r8, (0..=last, 0..=last), configuration(r)),
            (since(), since(), ballot(), maybe((ballot(), members(r))), vec(home, r)),
        )
    })
    .prop_map(
        |((slot, (a, b), configuration), (donated, refused, change_promised, change_accepted, homes))| {
            let extent = Extent::new(a.min(b), a.max(b));
            AcceptorState {
                slot,
                extent,
                configuration,
                donated,
                refused,
                change_promised,
                change_accepted,
                homes,
            }
        },
    )
}
fn member_state() -> impl Strategy<Value = MemberState> {
    prop::sample::select(vec![MemberState::Alive, MemberState::Leaving, MemberState::Left, MemberState::Dead])
}
fn info() -> impl Strategy<Value = MemberInfo> {
    let owned = vec((slot(), extent()), 0..4);
    (node(), maybe(addr()), member_state(), owned, any::<(u64, u64, u64, u128)>(), bytes()).prop_map(
        |(node, client_addr, state, owned, (incarnation, keys, bytes, end), extra)| MemberInfo {
            node,
            client_addr,
            incarnation,
            state,
            end,
            owned,
            keys,
            bytes,
            extra,
        },
    )
}
fn infos() -> impl Strategy<Value = Vec<MemberInfo>> {
    vec(info(), 0..3)
}
fn ring_info() -> impl Strategy<Value = RingInfo> {
    (any::<u64>(), r(), any::<(u64, u8)>()).prop_map(|(ring, r, strength)| RingInfo {
        ring: RingId(ring),
        replication_factor: u8::try_from(r).expect("small"),
        strength,
    })
}
fn factor() -> impl Strategy<Value = u8> {
    r().prop_map(|r| u8::try_from(r).expect("small"))
}

fn gossip() -> impl Strategy<Value = Gossip> {
    let s = any::<(u64, u8)>;
    let entry = (any::<(u64, u64)>(), member_state()).prop_map(|((n, i), s)| (NodeId(n), i, s));
    prop_oneof![
        (any::<u64>(), infos(), s()).prop_map(|(probe, updates, strength)| Gossip::Ping {
            probe,
            updates,
            strength
        }),
        (any::<u64>(), infos(), s()).prop_map(|(probe, updates, strength)| Gossip::Ack {
            probe,
            updates,
            strength
        }),
        (any::<u64>(), node(), infos()).prop_map(|(probe, target, updates)| Gossip::PingRequest {
            probe,
            target,
            updates
        }),
        any::<(u64, u64)>().prop_map(|(probe, t)| Gossip::IndirectAck { probe, target: NodeId(t) }),
        (vec(entry, 0..4), s()).prop_map(|(entries, strength)| Gossip::Digest { entries, strength }),
        (infos(), s()).prop_map(|(members, strength)| Gossip::Table { members, strength }),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![Just(Condition::Always), Just(Condition::Absent), any::<u64>().prop_map(Condition::Version)]
}
fn operation() -> impl Strategy<Value = Operation> {
    let change = prop_oneof![
        (value(), condition()).prop_map(|(value, condition)| Change::Put { value, condition }),
        condition().prop_map(|condition| Change::Delete { condition }),
        (value(), value()).prop_map(|(old, new)| Change::TestAndSet { old, new }),
        value().prop_map(|by| Change::AddOnNumber { by }),
        (value(), value()).prop_map(|(add, remove)| Change::AddDelOnList { add, remove }),
    ];
    prop_oneof![
        Just(Operation::Get),
        Just(Operation::Resync),
        any::<bool>().prop_map(|waits| Operation::Inspect { waits }),
        change.prop_map(Operation::Change),
        tx_change().prop_map(|c| Operation::Tx(Box::new(c))),
    ]
}
fn refusal() -> impl Strategy<Value = Refusal> {
    let name = || prop::sample::select(TYPE_NAMES.to_vec());
    prop_oneof![
        Just(Refusal::NotFound),
        Just(Refusal::Exists),
        Just(Refusal::VersionDiffers),
        Just(Refusal::ValueDiffers),
        Just(Refusal::Locked),
        Just(Refusal::Applied),
        Just(Refusal::Forgotten),
        (name(), name()).prop_map(|(found, needed)| Refusal::WrongType { found, needed }),
        any::<(usize, usize)>()
            .prop_map(|(size_bytes, limit_bytes)| Refusal::TooLarge { size_bytes, limit_bytes }),
    ]
}
fn operation_answer() -> impl Strategy<Value = Answer> {
    let v = || (any::<u64>(), maybe(value()));
    prop_oneof![
        v().prop_map(|(version, result)| Answer::Done { version, result }),
        v().prop_map(|(version, value)| Answer::Nothing { version, value }),
        (refusal(), v()).prop_map(|(refusal, (version, value))| Answer::Refused { refusal, version, value }),
        v().prop_map(|(version, value)| Answer::Value { version, value }),
        maybe((node(), maybe(ballot()))).prop_map(|hint| Answer::NotHome { hint }),
        any::<u64>().prop_map(|floor| Answer::Behind { floor }),
        prop::sample::select(vec![
            Answer::Busy,
            Answer::Full,
            Answer::Locked,
            Answer::Unknown,
            Answer::Forgotten,
        ]),
    ]
}

/// Any message.
pub(super) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        entry_messages(),
        vote_messages(),
        operation_messages(),
        change_messages(),
        frozen_messages(),
        bulk_messages()
    ]
}

fn entry_messages() -> impl Strategy<Value = Message> {
    let refusal = prop_oneof![
        Just(JoinRefusal::NotReady),
        Just(JoinRefusal::IdTaken),
        factor().prop_map(|ring| JoinRefusal::ReplicationFactor { ring }),
    ];
    prop_oneof![
        (info(), maybe(factor()))
            .prop_map(|(info, replication_factor)| Message::Join { info, replication_factor }),
        (ring_info(), any::<u128>(), infos()).prop_map(|(info, end, members)| Message::JoinAccepted {
            info,
            end,
            members
        }),
        refusal.prop_map(Message::JoinDenied),
        (ring_info(), any::<u32>()).prop_map(|(info, members)| Message::Knock { info, members }),
        any::<u64>().prop_map(|r| Message::KnockDenied { ring: RingId(r) }),
        (any::<u64>(), any::<u64>(), addr()).prop_map(|(r, o, at)| Message::Dissolve {
            ring: RingId(r),
            other: RingId(o),
            at
        }),
        gossip().prop_map(Message::Gossip),
    ]
}

fn vote_messages() -> impl Strategy<Value = Message> {
    let u = any::<u64>;
    let granted = (maybe(ballot()), ballot(), u(), stamp())
        .prop_map(|(common, old, high, floor)| (common, Granted { old, high, floor }));
    let item = (slot(), slots(), extent(), ballot(), era())
        .prop_map(|(home, slots, extent, ballot, era)| ConfirmItem { home, slots, extent, ballot, era });
    prop_oneof![
        (u(), slot(), slots(), extent(), ballot(), era()).prop_map(
            |(rpc, home, slots, extent, ballot, era)| Message::Reign {
                rpc,
                home,
                slots,
                extent,
                ballot,
                era
            }
        ),
        (u(), slot(), answer(granted)).prop_map(|(rpc, slot, answer)| Message::ReignReply {
            rpc,
            slot,
            answer
        }),
        (u(), slot(), slots(), key(), ballot(), era(), maybe(stamp())).prop_map(
            |(rpc, home, slots, key, ballot, era, have)| Message::Sync {
                rpc,
                home,
                slots,
                key,
                ballot,
                era,
                have
            }
        ),
        (u(), slot(), answer(sighting())).prop_map(|(rpc, slot, answer)| Message::SyncReply {
            rpc,
            slot,
            answer
        }),
        (slot(), slots(), key(), stamp(), era(), record()).prop_map(
            |(home, slots, key, stamp, era, record)| Message::Accept { home, slots, key, stamp, era, record }
        ),
        (stamp(), slot(), answer(Just(()))).prop_map(|(stamp, slot, answer)| Message::AcceptReply {
            stamp,
            slot,
            answer
        }),
        (u(), vec(item, 0..4)).prop_map(|(round, items)| Message::Confirm { round, items }),
        (u(), vec((any::<u32>(), slot(), answer(Just(()))), 0..4))
            .prop_map(|(round, answers)| Message::ConfirmReply { round, answers }),
        (u(), slots(), key(), any::<bool>()).prop_map(|(rpc, slots, key, wants_record)| Message::Read {
            rpc,
            slots,
            key,
            wants_record
        }),
        (u(), slot(), answer(sighting())).prop_map(|(rpc, slot, answer)| Message::ReadReply {
            rpc,
            slot,
            answer
        }),
        (slot(), slots(), key(), stamp(), era()).prop_map(|(home, slots, key, stamp, era)| Message::Drop {
            home,
            slots,
            key,
            stamp,
            era
        }),
    ]
}

fn operation_messages() -> impl Strategy<Value = Message> {
    let ids = any::<(u64, u64, u32, bool, u64)>;
    prop_oneof![
        (ids(), maybe(ballot()), key(), operation()).prop_map(
            |((session, seq, attempt, is_first, known), addressed, key, operation)| {
                let session = SessionId(session);
                let a = Attempt {
                    session,
                    seq,
                    attempt,
                    is_first,
                    addressed,
                    known,
                    key,
                    operation,
                    trace: None,
                };
                Message::Operation(a)
            }
        ),
        (ids(), slot(), extent(), maybe(ballot()), operation_answer()).prop_map(
            |((session, seq, attempt, _, known), home, extent, ballot, answer)| {
                let session = SessionId(session);
                Message::OperationReply { session, seq, attempt, home, extent, ballot, known, answer }
            }
        ),
    ]
}

fn change_messages() -> impl Strategy<Value = Message> {
    let u = any::<u64>;
    let pieces = vec((extent(), any_configuration(), any::<bool>()), 0..3);
    prop_oneof![
        (u(), slot(), extent()).prop_map(|(rpc, slot, extent)| Message::ConfigurationQuery {
            rpc,
            slot,
            extent
        }),
        (u(), slot(), extent(), pieces).prop_map(|(rpc, slot, extent, pieces)| Message::ConfigurationReply {
            rpc,
            slot,
            extent,
            pieces
        }),
        (u(), slot(), extent(), era(), ballot(), maybe(u())).prop_map(
            |(rpc, slot, extent, era, ballot, suspect)| {
                let suspect = suspect.map(NodeId);
                Message::ChangePrepare { rpc, slot, extent, era, ballot, suspect }
            }
        ),
        (u(), slot(), extent(), answer(maybe((ballot(), any_members())))).prop_map(
            |(rpc, slot, extent, answer)| Message::ChangePrepareReply { rpc, slot, extent, answer }
        ),
        (u(), slot(), extent(), era(), ballot(), any_members()).prop_map(
            |(rpc, slot, extent, era, ballot, members)| {
                Message::ChangeAccept { rpc, slot, extent, era, ballot, members }
            }
        ),
        (u(), slot(), answer(Just(()))).prop_map(|(rpc, slot, answer)| Message::ChangeAcceptReply {
            rpc,
            slot,
            answer
        }),
        (extent(), any_configuration())
            .prop_map(|(extent, configuration)| Message::Install { extent, configuration }),
        (slot(), extent(), u()).prop_map(|(slot, extent, since)| Message::FrozenQuery {
            slot,
            extent,
            since
        }),
        (slot(), extent(), u()).prop_map(|(slot, extent, since)| Message::FrozenReply {
            slot,
            extent,
            since
        }),
    ]
}

fn epochs() -> impl Strategy<Value = Vec<u64>> {
    vec(any::<u64>(), 0..3)
}

fn surveyed() -> impl Strategy<Value = MemoryPiece> {
    (slot(), extent(), any_configuration(), any::<bool>(), any::<bool>()).prop_map(
        |(slot, extent, configuration, is_whole, is_active)| MemoryPiece {
            slot,
            extent,
            configuration,
            is_whole,
            is_active,
        },
    )
}

fn frozen_messages() -> impl Strategy<Value = Message> {
    let u = any::<u64>;
    let found = vec((extent(), u(), any::<bool>()), 0..3);
    let refused = vec((extent(), any_configuration()), 0..3);
    prop_oneof![
        (slot(), extent()).prop_map(|(slot, extent)| Message::MemorySeek { slot, extent }),
        u().prop_map(|rpc| Message::SurveyQuery { rpc }),
        (u(), vec(surveyed(), 0..3)).prop_map(|(rpc, pieces)| Message::SurveyReply { rpc, pieces }),
        (u(), slot(), extent(), u(), maybe((any::<u128>(), key())), any::<(u64, u64)>()).prop_map(
            |(rpc, slot, extent, since, after, held)| Message::SalvagePull {
                rpc,
                slot,
                extent,
                since,
                after,
                held
            }
        ),
        (slot(), found).prop_map(|(slot, pieces)| Message::MemoryFound { slot, pieces }),
        (u(), slot(), extent(), era(), slot()).prop_map(|(rpc, slot, extent, era, of)| {
            Message::DonationQuery { rpc, slot, extent, era, of }
        }),
        (u(), slot(), answer(epochs())).prop_map(|(rpc, slot, answer)| Message::DonationReply {
            rpc,
            slot,
            answer
        }),
        (u(), slot(), extent(), slot(), u(), epochs()).prop_map(
            |(rpc, slot, extent, of, after, unfinished)| Message::Refuse {
                rpc,
                slot,
                extent,
                of,
                after,
                unfinished
            }
        ),
        (u(), slot(), refused).prop_map(|(rpc, slot, pieces)| Message::RefuseReply { rpc, slot, pieces }),
    ]
}

fn bulk_messages() -> impl Strategy<Value = Message> {
    let u = any::<u64>;
    let end = maybe((state(), any::<(u64, u64)>()).prop_map(|(state, sum)| Box::new(PageEnd { state, sum })));
    prop_oneof![
        (u(), slot(), extent(), era(), (slot(), u()), maybe((any::<u128>(), key())), any::<(u64, u64)>())
            .prop_map(|(rpc, slot, extent, era, target, after, held)| Message::FillPull {
                rpc,
                slot,
                extent,
                era,
                target,
                after,
                held
            }),
        (
            u(),
            slot(),
            extent(),
            any::<(u64, u64)>(),
            maybe((any::<u128>(), key())),
            any::<(u64, u64)>(),
            epochs()
        )
            .prop_map(|(rpc, slot, extent, (since, receiver), after, held, unfinished)| {
                Message::FrozenPull { rpc, slot, extent, since, receiver, after, held, unfinished }
            }),
        (u(), slot(), answer((page(), end))).prop_map(|(rpc, slot, answer)| Message::FillPage {
            rpc,
            slot,
            answer
        }),
        (u(), state().prop_map(Box::new))
            .prop_map(|(attempt, state)| Message::HandoverOffer { attempt, state }),
        any::<(u64, u32)>().prop_map(|(attempt, page)| Message::HandoverContinue { attempt, page }),
        (u(), any::<u32>(), page()).prop_map(|(attempt, page, entries)| Message::HandoverPage {
            attempt,
            page,
            entries
        }),
        (any::<(u64, u64, u64)>(), state().prop_map(Box::new), page(), vec((any::<u128>(), key()), 0..3))
            .prop_map(|((attempt, count, digest), state, entries, dropped)| {
                Message::HandoverFinal { attempt, state, entries, dropped, count, digest }
            }),
        any::<(u64, u64, u64)>().prop_map(|(attempt, count, digest)| Message::HandoverReceived {
            attempt,
            count,
            digest
        }),
        u().prop_map(|attempt| Message::HandoverActivate { attempt }),
        u().prop_map(|attempt| Message::HandoverActivated { attempt }),
        u().prop_map(|attempt| Message::HandoverAbort { attempt }),
    ]
}
