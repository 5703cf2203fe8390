//! Messages on their way out.

use super::parts as p;
use super::wire;
use dht::Message;
use dht::message::{Answer, Attempt, ConfirmItem, Denied, JoinRefusal, MemoryPiece, Operation, Sighting};
use ring::members::Gossip;
use ring::{Extent, Slot};
use store::{Ballot, Change, Condition, Refusal, SessionId, Stamp};
use wire::envelope::Kind;

/// The wire form of a message.
#[allow(clippy::too_many_lines, reason = "the one table of all messages")]
pub fn to_wire(message: &Message) -> wire::Envelope {
    let kind = match message {
        Message::Join { info, replication_factor } => Kind::Join(wire::Join {
            info: Some(p::member_info(info)),
            replication_factor: replication_factor.map(u32::from),
        }),
        Message::JoinAccepted { info, end, members } => Kind::JoinAccepted(wire::JoinAccepted {
            info: Some(p::ring_info(info)),
            end: Some(p::u128(*end)),
            members: p::member_infos(members),
        }),
        Message::JoinDenied(refusal) => Kind::JoinDenied(join_denied(*refusal)),
        Message::Knock { info, members } => {
            Kind::Knock(wire::Knock { info: Some(p::ring_info(info)), members: *members })
        }
        Message::KnockDenied { ring } => Kind::KnockDenied(wire::KnockDenied { ring: ring.0 }),
        Message::Dissolve { ring, other, at } => {
            Kind::Dissolve(wire::Dissolve { ring: ring.0, other: other.0, at: Some(p::address(at)) })
        }
        Message::Gossip(g) => Kind::Gossip(gossip(g)),
        Message::Reign { rpc, home, slots, extent, ballot, era } => Kind::Reign(wire::Reign {
            rpc: *rpc,
            home: u32::from(*home),
            slots: u32::from(slots.0),
            extent: Some(p::extent(extent)),
            ballot: Some(p::ballot(ballot)),
            era: Some(p::era(era)),
        }),
        Message::ReignReply { rpc, slot, answer } => {
            let granted = answer.as_ref().ok().map(|(common, g)| wire::ReignGranted {
                common: common.as_ref().map(p::ballot),
                old: Some(p::ballot(&g.old)),
                high: g.high,
                floor: Some(p::stamp(&g.floor)),
            });
            let denied = answer.as_ref().err().map(p::denied);
            Kind::ReignReply(wire::ReignReply { rpc: *rpc, slot: u32::from(*slot), denied, granted })
        }
        Message::Sync { rpc, home, slots, key, ballot, era, have } => Kind::Sync(wire::Sync {
            rpc: *rpc,
            home: u32::from(*home),
            slots: u32::from(slots.0),
            key: p::key(key),
            ballot: Some(p::ballot(ballot)),
            era: Some(p::era(era)),
            have: have.as_ref().map(p::stamp),
        }),
        Message::SyncReply { rpc, slot, answer } => {
            let (denied, sighting) = sighted(answer);
            Kind::SyncReply(wire::SyncReply { rpc: *rpc, slot: u32::from(*slot), denied, sighting })
        }
        Message::Accept { home, slots, key, stamp, era, record } => Kind::Accept(wire::Accept {
            home: u32::from(*home),
            slots: u32::from(slots.0),
            key: p::key(key),
            stamp_counter: stamp.ballot.counter,
            stamp_node: stamp.ballot.node.0,
            stamp_n: stamp.n,
            epoch: era.epoch,
            tag: era.tag,
            record: Some(p::record(record)),
        }),
        Message::AcceptReply { stamp, slot, answer } => {
            Kind::AcceptReply(accept_reply(*stamp, *slot, answer))
        }
        Message::Confirm { round, items } => {
            Kind::Confirm(wire::Confirm { round: *round, items: items.iter().map(confirm_item).collect() })
        }
        Message::ConfirmReply { round, answers } => Kind::ConfirmReply(wire::ConfirmReply {
            round: *round,
            answers: answers.iter().map(confirm_answer).collect(),
        }),
        Message::Read { rpc, slots, key, wants_record } => Kind::Read(wire::Read {
            rpc: *rpc,
            slots: u32::from(slots.0),
            key: p::key(key),
            wants_record: *wants_record,
        }),
        Message::ReadReply { rpc, slot, answer } => {
            let (denied, sighting) = sighted(answer);
            Kind::ReadReply(wire::ReadReply { rpc: *rpc, slot: u32::from(*slot), denied, sighting })
        }
        Message::Drop { home, slots, key, stamp, era } => Kind::Drop(wire::Drop {
            home: u32::from(*home),
            slots: u32::from(slots.0),
            key: p::key(key),
            stamp: Some(p::stamp(stamp)),
            era: Some(p::era(era)),
        }),
        Message::Operation(attempt) => Kind::Operation(operation(attempt)),
        Message::OperationReply { session, seq, attempt, home, extent, ballot, known, answer } => {
            let to = ReplyTo { session: *session, seq: *seq, attempt: *attempt };
            Kind::OperationReply(operation_reply(to, *home, extent, ballot.as_ref(), *known, answer))
        }
        Message::ConfigurationQuery { rpc, slot, extent } => {
            let extent = Some(p::extent(extent));
            Kind::ConfigurationQuery(wire::ConfigurationQuery { rpc: *rpc, slot: u32::from(*slot), extent })
        }
        Message::ConfigurationReply { rpc, slot, extent, pieces } => {
            let piece = |(e, c, done): &(Extent, std::sync::Arc<_>, bool)| wire::ConfigurationPiece {
                extent: Some(p::extent(e)),
                configuration: Some(p::configuration(c)),
                is_complete: *done,
            };
            Kind::ConfigurationReply(wire::ConfigurationReply {
                rpc: *rpc,
                slot: u32::from(*slot),
                extent: Some(p::extent(extent)),
                pieces: pieces.iter().map(piece).collect(),
            })
        }
        Message::ChangePrepare { rpc, slot, extent, era, ballot, suspect } => {
            Kind::ChangePrepare(wire::ChangePrepare {
                rpc: *rpc,
                slot: u32::from(*slot),
                extent: Some(p::extent(extent)),
                era: Some(p::era(era)),
                ballot: Some(p::ballot(ballot)),
                suspect: suspect.map(|s| s.0),
            })
        }
        Message::ChangePrepareReply { rpc, slot, extent, answer } => {
            Kind::ChangePrepareReply(wire::ChangePrepareReply {
                rpc: *rpc,
                slot: u32::from(*slot),
                granted: answer.is_ok(),
                denied: answer.as_ref().err().map(p::denied),
                vote: answer.as_ref().ok().and_then(Option::as_ref).map(p::change_vote),
                extent: Some(p::extent(extent)),
            })
        }
        Message::ChangeAccept { rpc, slot, extent, era, ballot, members } => {
            Kind::ChangeAccept(wire::ChangeAccept {
                rpc: *rpc,
                slot: u32::from(*slot),
                extent: Some(p::extent(extent)),
                era: Some(p::era(era)),
                ballot: Some(p::ballot(ballot)),
                members: p::members(members),
            })
        }
        Message::ChangeAcceptReply { rpc, slot, answer } => {
            let (granted, denied) = p::vote(answer);
            let slot = u32::from(*slot);
            Kind::ChangeAcceptReply(wire::ChangeAcceptReply { rpc: *rpc, slot, granted, denied })
        }
        Message::Install { extent, configuration } => Kind::Install(wire::Install {
            extent: Some(p::extent(extent)),
            configuration: Some(p::configuration(configuration)),
        }),
        Message::SurveyQuery { rpc } => Kind::SurveyQuery(wire::SurveyQuery { rpc: *rpc }),
        Message::SurveyReply { rpc, pieces } => {
            let piece = |x: &MemoryPiece| wire::SurveyedPiece {
                slot: u32::from(x.slot),
                extent: Some(p::extent(&x.extent)),
                configuration: Some(p::configuration(&x.configuration)),
                is_whole: x.is_whole,
                is_active: x.is_active,
            };
            Kind::SurveyReply(wire::SurveyReply { rpc: *rpc, pieces: pieces.iter().map(piece).collect() })
        }
        Message::SalvagePull { rpc, slot, extent, since, after, held } => {
            Kind::SalvagePull(wire::SalvagePull {
                rpc: *rpc,
                slot: u32::from(*slot),
                extent: Some(p::extent(extent)),
                since: *since,
                after: after.as_ref().map(p::offset_key),
                held_count: held.0,
                held_digest: held.1,
            })
        }
        Message::FillPull { rpc, slot, extent, era, target, after, held } => Kind::FillPull(wire::FillPull {
            rpc: *rpc,
            slot: u32::from(*slot),
            extent: Some(p::extent(extent)),
            era: Some(p::era(era)),
            target: Some(p::slot_since(target)),
            after: after.as_ref().map(p::offset_key),
            held_count: held.0,
            held_digest: held.1,
        }),
        Message::FillPage { rpc, slot, answer } => {
            let (entries, end) =
                answer.as_ref().ok().map_or((&[][..], None), |(e, end)| (&e[..], end.as_ref()));
            Kind::FillPage(wire::FillPage {
                rpc: *rpc,
                slot: u32::from(*slot),
                granted: answer.is_ok(),
                denied: answer.as_ref().err().map(p::denied),
                entries: p::page(entries),
                end: end.map(|end| p::acceptor_state(&end.state)),
                count: end.map_or(0, |end| end.sum.0),
                digest: end.map_or(0, |end| end.sum.1),
            })
        }
        Message::FrozenQuery { slot, extent, since } => {
            let extent = Some(p::extent(extent));
            Kind::FrozenQuery(wire::FrozenQuery { slot: u32::from(*slot), extent, since: *since })
        }
        Message::FrozenReply { slot, extent, since } => {
            let extent = Some(p::extent(extent));
            Kind::FrozenReply(wire::FrozenReply { slot: u32::from(*slot), extent, since: *since })
        }
        Message::MemorySeek { slot, extent } => {
            Kind::MemorySeek(wire::MemorySeek { slot: u32::from(*slot), extent: Some(p::extent(extent)) })
        }
        Message::MemoryFound { slot, pieces } => {
            let piece = |(e, since, is_whole): &(Extent, u64, bool)| wire::MemoryPiece {
                extent: Some(p::extent(e)),
                since: *since,
                is_whole: *is_whole,
            };
            let pieces = pieces.iter().map(piece).collect();
            Kind::MemoryFound(wire::MemoryFound { slot: u32::from(*slot), pieces })
        }
        Message::DonationQuery { rpc, slot, extent, era, of } => Kind::DonationQuery(wire::DonationQuery {
            rpc: *rpc,
            slot: u32::from(*slot),
            extent: Some(p::extent(extent)),
            era: Some(p::era(era)),
            of: u32::from(*of),
        }),
        Message::DonationReply { rpc, slot, answer } => Kind::DonationReply(wire::DonationReply {
            rpc: *rpc,
            slot: u32::from(*slot),
            granted: answer.is_ok(),
            denied: answer.as_ref().err().map(p::denied),
            donated: answer.as_ref().map_or(Vec::new(), Clone::clone),
        }),
        Message::FrozenPull { rpc, slot, extent, since, receiver, after, held, unfinished } => {
            Kind::FrozenPull(wire::FrozenPull {
                rpc: *rpc,
                slot: u32::from(*slot),
                extent: Some(p::extent(extent)),
                since: *since,
                receiver: *receiver,
                after: after.as_ref().map(p::offset_key),
                held_count: held.0,
                held_digest: held.1,
                unfinished: unfinished.clone(),
            })
        }
        Message::Refuse { rpc, slot, extent, of, after, unfinished } => Kind::Refuse(wire::Refuse {
            rpc: *rpc,
            slot: u32::from(*slot),
            extent: Some(p::extent(extent)),
            of: u32::from(*of),
            after: *after,
            unfinished: unfinished.clone(),
        }),
        Message::RefuseReply { rpc, slot, pieces } => {
            let piece = |(e, c): &(Extent, std::sync::Arc<_>)| wire::RefusedPiece {
                extent: Some(p::extent(e)),
                configuration: Some(p::configuration(c)),
            };
            let pieces = pieces.iter().map(piece).collect();
            Kind::RefuseReply(wire::RefuseReply { rpc: *rpc, slot: u32::from(*slot), pieces })
        }
        Message::HandoverOffer { attempt, state } => {
            let state = Some(p::acceptor_state(state));
            Kind::HandoverOffer(wire::HandoverOffer { attempt: *attempt, state })
        }
        Message::HandoverContinue { attempt, page } => {
            Kind::HandoverContinue(wire::HandoverContinue { attempt: *attempt, page: *page })
        }
        Message::HandoverPage { attempt, page, entries } => Kind::HandoverPage(wire::HandoverPage {
            attempt: *attempt,
            page: *page,
            entries: p::page(entries),
        }),
        Message::HandoverFinal { attempt, state, entries, dropped, count, digest } => {
            Kind::HandoverFinal(wire::HandoverFinal {
                attempt: *attempt,
                state: Some(p::acceptor_state(state)),
                entries: p::page(entries),
                dropped: dropped.iter().map(p::offset_key).collect(),
                count: *count,
                digest: *digest,
            })
        }
        Message::HandoverReceived { attempt, count, digest } => {
            Kind::HandoverReceived(wire::HandoverReceived {
                attempt: *attempt,
                count: *count,
                digest: *digest,
            })
        }
        Message::HandoverActivate { attempt } => {
            Kind::HandoverActivate(wire::HandoverActivate { attempt: *attempt })
        }
        Message::HandoverActivated { attempt } => {
            Kind::HandoverActivated(wire::HandoverActivated { attempt: *attempt })
        }
        Message::HandoverAbort { attempt } => Kind::HandoverAbort(wire::HandoverAbort { attempt: *attempt }),
    };
    wire::Envelope { kind: Some(kind), trace: None }
}

fn sighted(answer: &Result<Sighting, Denied>) -> (Option<wire::Denied>, Option<wire::Sighting>) {
    (answer.as_ref().err().map(p::denied), answer.as_ref().ok().map(p::sighting))
}

fn accept_reply(stamp: Stamp, slot: Slot, answer: &Result<(), Denied>) -> wire::AcceptReply {
    let (granted, denied) = p::vote(answer);
    wire::AcceptReply {
        stamp_counter: stamp.ballot.counter,
        stamp_node: stamp.ballot.node.0,
        stamp_n: stamp.n,
        slot: u32::from(slot),
        granted,
        denied,
    }
}

fn confirm_item(i: &ConfirmItem) -> wire::ConfirmItem {
    let e = p::extent(&i.extent);
    wire::ConfirmItem {
        home: u32::from(i.home),
        slots: u32::from(i.slots.0),
        lo_high: e.lo_high,
        lo_low: e.lo_low,
        hi_high: e.hi_high,
        hi_low: e.hi_low,
        ballot_counter: i.ballot.counter,
        ballot_node: i.ballot.node.0,
        epoch: i.era.epoch,
        tag: i.era.tag,
    }
}

fn confirm_answer((item, slot, answer): &(u32, Slot, Result<(), Denied>)) -> wire::ConfirmAnswer {
    let (granted, denied) = p::vote(answer);
    wire::ConfirmAnswer { item: *item, slot: u32::from(*slot), granted, denied }
}

fn join_denied(refusal: JoinRefusal) -> wire::JoinDenied {
    let (refusal, replication_factor) = match refusal {
        JoinRefusal::NotReady => (wire::JoinRefusal::NotReady, 0),
        JoinRefusal::IdTaken => (wire::JoinRefusal::IdTaken, 0),
        JoinRefusal::ReplicationFactor { ring } => (wire::JoinRefusal::ReplicationFactor, u32::from(ring)),
    };
    wire::JoinDenied { refusal: i32::from(refusal), replication_factor }
}

fn gossip(g: &Gossip) -> wire::Gossip {
    use wire::gossip::Kind;
    let kind = match g {
        Gossip::Ping { probe, updates, strength } => Kind::Ping(wire::GossipPing {
            probe: *probe,
            updates: p::member_infos(updates),
            strength: Some(p::strength(*strength)),
        }),
        Gossip::Ack { probe, updates, strength } => Kind::Ack(wire::GossipAck {
            probe: *probe,
            updates: p::member_infos(updates),
            strength: Some(p::strength(*strength)),
        }),
        Gossip::PingRequest { probe, target, updates } => Kind::PingRequest(wire::GossipPingRequest {
            probe: *probe,
            target: Some(p::node_ref(target)),
            updates: p::member_infos(updates),
        }),
        Gossip::IndirectAck { probe, target } => {
            Kind::IndirectAck(wire::GossipIndirectAck { probe: *probe, target: target.0 })
        }
        Gossip::Digest { entries, strength } => {
            let one = |(node, incarnation, state): &(ring::NodeId, u64, _)| wire::DigestEntry {
                node: node.0,
                incarnation: *incarnation,
                state: p::member_state(*state),
            };
            let entries = entries.iter().map(one).collect();
            Kind::Digest(wire::GossipDigest { entries, strength: Some(p::strength(*strength)) })
        }
        Gossip::Table { members, strength } => Kind::Table(wire::GossipTable {
            members: p::member_infos(members),
            strength: Some(p::strength(*strength)),
        }),
    };
    wire::Gossip { kind: Some(kind) }
}

fn operation(a: &Attempt) -> wire::Operation {
    use wire::OperationKind as Kind;
    let addressed = a.addressed.unwrap_or(Ballot::ZERO);
    let mut out = wire::Operation {
        session: a.session.0,
        seq: a.seq,
        attempt: a.attempt,
        is_first: a.is_first,
        has_addressed: a.addressed.is_some(),
        addressed_counter: addressed.counter,
        addressed_node: addressed.node.0,
        known: a.known,
        key: p::key(&a.key),
        ..wire::Operation::default()
    };
    let kind = match &a.operation {
        Operation::Get => Kind::Get,
        Operation::Resync => Kind::Resync,
        Operation::Inspect { waits } => {
            out.waits = *waits;
            Kind::Inspect
        }
        Operation::Tx(c) => {
            out.tx = Some(super::transaction::change_to_wire(c));
            Kind::Tx
        }
        Operation::Change(Change::Put { value, condition }) => {
            out.first = p::value(value);
            set_condition(&mut out, *condition);
            Kind::Put
        }
        Operation::Change(Change::Delete { condition }) => {
            set_condition(&mut out, *condition);
            Kind::Delete
        }
        Operation::Change(Change::TestAndSet { old, new }) => {
            out.first = p::value(old);
            out.second = p::value(new);
            Kind::TestAndSet
        }
        Operation::Change(Change::AddOnNumber { by }) => {
            out.first = p::value(by);
            Kind::AddOnNumber
        }
        Operation::Change(Change::AddDelOnList { add, remove }) => {
            out.first = p::value(add);
            out.second = p::value(remove);
            Kind::AddDelOnList
        }
    };
    out.kind = i32::from(kind);
    out
}

fn set_condition(out: &mut wire::Operation, condition: Condition) {
    let (kind, version) = match condition {
        Condition::Always => (wire::ConditionKind::Always, 0),
        Condition::Absent => (wire::ConditionKind::Absent, 0),
        Condition::Version(v) => (wire::ConditionKind::Version, v),
    };
    out.condition = i32::from(kind);
    out.condition_version = version;
}

/// Which attempt an answer is for.
struct ReplyTo {
    session: SessionId,
    seq: u64,
    attempt: u32,
}

fn operation_reply(
    to: ReplyTo,
    home: Slot,
    extent: &Extent,
    ballot: Option<&Ballot>,
    known: u64,
    answer: &Answer,
) -> wire::OperationReply {
    use wire::AnswerKind as Kind;
    let e = p::extent(extent);
    let mut out = wire::OperationReply {
        session: to.session.0,
        seq: to.seq,
        attempt: to.attempt,
        home: u32::from(home),
        lo_high: e.lo_high,
        lo_low: e.lo_low,
        hi_high: e.hi_high,
        hi_low: e.hi_low,
        has_ballot: ballot.is_some(),
        ballot_counter: ballot.map_or(0, |b| b.counter),
        ballot_node: ballot.map_or(0, |b| b.node.0),
        known,
        ..wire::OperationReply::default()
    };
    let kind = match answer {
        Answer::Done { version, result: value } => {
            (out.version, out.value) = (*version, value.as_ref().map(p::value));
            Kind::Done
        }
        Answer::Nothing { version, value } => {
            (out.version, out.value) = (*version, value.as_ref().map(p::value));
            Kind::Nothing
        }
        Answer::Refused { refusal: r, version, value } => {
            (out.version, out.value) = (*version, value.as_ref().map(p::value));
            out.refusal = Some(refusal(r));
            Kind::Refused
        }
        Answer::Value { version, value } => {
            (out.version, out.value) = (*version, value.as_ref().map(p::value));
            Kind::Value
        }
        Answer::NotHome { hint } => {
            out.hint = hint.as_ref().map(|(node, _)| p::node_ref(node));
            out.hint_ballot = hint.as_ref().and_then(|(_, b)| b.as_ref()).map(p::ballot);
            Kind::NotHome
        }
        Answer::Behind { floor } => {
            out.version = *floor;
            Kind::Behind
        }
        Answer::Busy => Kind::Busy,
        Answer::Full => Kind::Full,
        Answer::Locked => Kind::Locked,
        Answer::Unknown => Kind::Unknown,
        Answer::Forgotten => Kind::Forgotten,
    };
    out.kind = i32::from(kind);
    out
}

fn refusal(r: &Refusal) -> wire::Refusal {
    use wire::RefusalKind as Kind;
    let of = |kind: Kind| wire::Refusal { kind: i32::from(kind), ..wire::Refusal::default() };
    let bytes = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    match r {
        Refusal::NotFound => of(Kind::NotFound),
        Refusal::Exists => of(Kind::Exists),
        Refusal::VersionDiffers => of(Kind::VersionDiffers),
        Refusal::ValueDiffers => of(Kind::ValueDiffers),
        Refusal::Locked => of(Kind::Locked),
        Refusal::Applied => of(Kind::Applied),
        Refusal::Forgotten => of(Kind::Forgotten),
        Refusal::WrongType { found, needed } => {
            wire::Refusal { found: (*found).into(), needed: (*needed).into(), ..of(Kind::WrongType) }
        }
        Refusal::TooLarge { size_bytes, limit_bytes } => wire::Refusal {
            size_bytes: bytes(*size_bytes),
            limit_bytes: bytes(*limit_bytes),
            ..of(Kind::TooLarge)
        },
    }
}
