//! Messages on their way in.

use super::take as t;
use super::{WireError, wire};
use dht::Message;
use dht::message::{Answer, Attempt, ConfirmItem, Era, JoinRefusal, MemoryPiece, Operation, PageEnd};
use paxos::Granted;
use ring::members::Gossip;
use ring::{NodeId, RingId};
use store::{Change, Condition, Refusal, SessionId};
use wire::envelope::Kind;

type Taken<T> = Result<T, WireError>;

/// The message of a wire form; none if it is of a kind that this version does not know.
#[allow(clippy::too_many_lines, reason = "the one table of all messages")]
pub fn from_wire(envelope: wire::Envelope) -> Result<Option<Message>, WireError> {
    let Some(kind) = envelope.kind else { return Ok(None) };
    let message = match kind {
        Kind::Accept(w) => Message::Accept {
            home: t::slot(w.home)?,
            slots: t::slots(w.slots)?,
            key: t::key(&w.key),
            stamp: t::stamp_of(w.stamp_counter, w.stamp_node, w.stamp_n),
            era: Era { epoch: w.epoch, tag: w.tag },
            record: t::record(w.record)?,
        },
        Kind::AcceptReply(w) => Message::AcceptReply {
            stamp: t::stamp_of(w.stamp_counter, w.stamp_node, w.stamp_n),
            slot: t::slot(w.slot)?,
            answer: t::vote(w.granted, w.denied)?,
        },
        Kind::Read(w) => Message::Read {
            rpc: w.rpc,
            slots: t::slots(w.slots)?,
            key: t::key(&w.key),
            wants_record: w.wants_record,
        },
        Kind::ReadReply(w) => Message::ReadReply {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            answer: t::answer(w.denied, w.sighting, t::sighting)?,
        },
        Kind::Operation(w) => Message::Operation(operation(w)?),
        Kind::OperationReply(w) => operation_reply(w)?,
        Kind::Confirm(w) => Message::Confirm { round: w.round, items: t::each(w.items, confirm_item)? },
        Kind::ConfirmReply(w) => {
            let one = |a: wire::ConfirmAnswer| Ok((a.item, t::slot(a.slot)?, t::vote(a.granted, a.denied)?));
            Message::ConfirmReply { round: w.round, answers: t::each(w.answers, one)? }
        }
        Kind::Sync(w) => Message::Sync {
            rpc: w.rpc,
            home: t::slot(w.home)?,
            slots: t::slots(w.slots)?,
            key: t::key(&w.key),
            ballot: t::ballot(w.ballot)?,
            era: t::era(w.era)?,
            have: w.have.map(|s| t::stamp(Some(s))).transpose()?,
        },
        Kind::SyncReply(w) => Message::SyncReply {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            answer: t::answer(w.denied, w.sighting, t::sighting)?,
        },
        Kind::Reign(w) => Message::Reign {
            rpc: w.rpc,
            home: t::slot(w.home)?,
            slots: t::slots(w.slots)?,
            extent: t::extent(w.extent)?,
            ballot: t::ballot(w.ballot)?,
            era: t::era(w.era)?,
        },
        Kind::ReignReply(w) => Message::ReignReply {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            answer: t::answer(w.denied, w.granted, |g| {
                let common = g.common.map(|b| t::ballot(Some(b))).transpose()?;
                Ok((common, Granted { old: t::ballot(g.old)?, high: g.high, floor: t::stamp(g.floor)? }))
            })?,
        },
        Kind::Drop(w) => Message::Drop {
            home: t::slot(w.home)?,
            slots: t::slots(w.slots)?,
            key: t::key(&w.key),
            stamp: t::stamp(w.stamp)?,
            era: t::era(w.era)?,
        },
        Kind::Gossip(w) => match gossip(w)? {
            Some(g) => Message::Gossip(g),
            None => return Ok(None),
        },
        Kind::Join(w) => Message::Join {
            info: t::member_info(t::need(w.info, "info")?)?,
            replication_factor: w.replication_factor.map(t::replication_factor).transpose()?,
        },
        Kind::JoinAccepted(w) => Message::JoinAccepted {
            info: t::ring_info(w.info)?,
            end: t::u128(w.end, "end")?,
            members: t::member_infos(w.members)?,
        },
        Kind::JoinDenied(w) => Message::JoinDenied(join_refusal(w)?),
        Kind::Knock(w) => Message::Knock { info: t::ring_info(w.info)?, members: w.members },
        Kind::KnockDenied(w) => Message::KnockDenied { ring: RingId(w.ring) },
        Kind::Dissolve(w) => Message::Dissolve {
            ring: RingId(w.ring),
            other: RingId(w.other),
            at: t::address(&t::need(w.at, "at")?)?,
        },
        Kind::ConfigurationQuery(w) => {
            Message::ConfigurationQuery { rpc: w.rpc, slot: t::slot(w.slot)?, extent: t::extent(w.extent)? }
        }
        Kind::ConfigurationReply(w) => Message::ConfigurationReply {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            pieces: t::each(w.pieces, |p| {
                Ok((t::extent(p.extent)?, t::configuration(p.configuration)?, p.is_complete))
            })?,
        },
        Kind::ChangePrepare(w) => Message::ChangePrepare {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            era: t::era(w.era)?,
            ballot: t::ballot(w.ballot)?,
            suspect: w.suspect.map(NodeId),
        },
        Kind::ChangePrepareReply(w) => {
            let (vote, extent) = (w.vote, t::extent(w.extent)?);
            let granted = w.granted.then_some(());
            let answer = t::answer(w.denied, granted, |()| vote.map(t::change_vote).transpose())?;
            Message::ChangePrepareReply { rpc: w.rpc, slot: t::slot(w.slot)?, extent, answer }
        }
        Kind::ChangeAccept(w) => Message::ChangeAccept {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            era: t::era(w.era)?,
            ballot: t::ballot(w.ballot)?,
            members: t::members(w.members)?,
        },
        Kind::ChangeAcceptReply(w) => Message::ChangeAcceptReply {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            answer: t::vote(w.granted, w.denied)?,
        },
        Kind::Install(w) => Message::Install {
            extent: t::extent(w.extent)?,
            configuration: t::configuration(w.configuration)?,
        },
        Kind::SurveyQuery(w) => Message::SurveyQuery { rpc: w.rpc },
        Kind::SurveyReply(w) => Message::SurveyReply {
            rpc: w.rpc,
            pieces: t::each(w.pieces, |x| {
                Ok(MemoryPiece {
                    slot: t::slot(x.slot)?,
                    extent: t::extent(x.extent)?,
                    configuration: t::configuration(x.configuration)?,
                    is_whole: x.is_whole,
                    is_active: x.is_active,
                })
            })?,
        },
        Kind::SalvagePull(w) => Message::SalvagePull {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            since: w.since,
            after: w.after.map(t::offset_key).transpose()?,
            held: (w.held_count, w.held_digest),
        },
        Kind::FillPull(w) => Message::FillPull {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            era: t::era(w.era)?,
            target: t::slot_since(t::need(w.target, "target")?)?,
            after: w.after.map(t::offset_key).transpose()?,
            held: (w.held_count, w.held_digest),
        },
        Kind::FillPage(w) => {
            let (entries, end, sum) = (w.entries, w.end, (w.count, w.digest));
            let answer = t::answer(w.denied, w.granted.then_some(()), |()| {
                let state = end.map(|s| t::acceptor_state(Some(s))).transpose()?;
                Ok((t::page(entries)?, state.map(|state| Box::new(PageEnd { state, sum }))))
            })?;
            Message::FillPage { rpc: w.rpc, slot: t::slot(w.slot)?, answer }
        }
        Kind::FrozenQuery(w) => {
            Message::FrozenQuery { slot: t::slot(w.slot)?, extent: t::extent(w.extent)?, since: w.since }
        }
        Kind::FrozenReply(w) => {
            Message::FrozenReply { slot: t::slot(w.slot)?, extent: t::extent(w.extent)?, since: w.since }
        }
        Kind::MemorySeek(w) => Message::MemorySeek { slot: t::slot(w.slot)?, extent: t::extent(w.extent)? },
        Kind::MemoryFound(w) => Message::MemoryFound {
            slot: t::slot(w.slot)?,
            pieces: t::each(w.pieces, |x| Ok((t::extent(x.extent)?, x.since, x.is_whole)))?,
        },
        Kind::DonationQuery(w) => Message::DonationQuery {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            era: t::era(w.era)?,
            of: t::slot(w.of)?,
        },
        Kind::DonationReply(w) => Message::DonationReply {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            answer: t::answer(w.denied, w.granted.then_some(w.donated), Ok)?,
        },
        Kind::FrozenPull(w) => Message::FrozenPull {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            since: w.since,
            receiver: w.receiver,
            after: w.after.map(t::offset_key).transpose()?,
            held: (w.held_count, w.held_digest),
            unfinished: w.unfinished,
        },
        Kind::Refuse(w) => Message::Refuse {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            extent: t::extent(w.extent)?,
            of: t::slot(w.of)?,
            after: w.after,
            unfinished: w.unfinished,
        },
        Kind::RefuseReply(w) => Message::RefuseReply {
            rpc: w.rpc,
            slot: t::slot(w.slot)?,
            pieces: t::each(w.pieces, |x| Ok((t::extent(x.extent)?, t::configuration(x.configuration)?)))?,
        },
        Kind::HandoverOffer(w) => {
            Message::HandoverOffer { attempt: w.attempt, state: Box::new(t::acceptor_state(w.state)?) }
        }
        Kind::HandoverContinue(w) => Message::HandoverContinue { attempt: w.attempt, page: w.page },
        Kind::HandoverPage(w) => {
            Message::HandoverPage { attempt: w.attempt, page: w.page, entries: t::page(w.entries)? }
        }
        Kind::HandoverFinal(w) => Message::HandoverFinal {
            attempt: w.attempt,
            state: Box::new(t::acceptor_state(w.state)?),
            entries: t::page(w.entries)?,
            dropped: t::each(w.dropped, t::offset_key)?,
            count: w.count,
            digest: w.digest,
        },
        Kind::HandoverReceived(w) => {
            Message::HandoverReceived { attempt: w.attempt, count: w.count, digest: w.digest }
        }
        Kind::HandoverActivate(w) => Message::HandoverActivate { attempt: w.attempt },
        Kind::HandoverActivated(w) => Message::HandoverActivated { attempt: w.attempt },
        Kind::HandoverAbort(w) => Message::HandoverAbort { attempt: w.attempt },
    };
    Ok(Some(message))
}

fn confirm_item(w: wire::ConfirmItem) -> Taken<ConfirmItem> {
    Ok(ConfirmItem {
        home: t::slot(w.home)?,
        slots: t::slots(w.slots)?,
        extent: t::extent_between(t::joined(w.lo_high, w.lo_low), t::joined(w.hi_high, w.hi_low))?,
        ballot: t::ballot_of(w.ballot_counter, w.ballot_node),
        era: Era { epoch: w.epoch, tag: w.tag },
    })
}

fn join_refusal(w: wire::JoinDenied) -> Taken<JoinRefusal> {
    match wire::JoinRefusal::try_from(w.refusal) {
        // A reason of a later version: ask again.
        Ok(wire::JoinRefusal::NotReady | wire::JoinRefusal::Unspecified) | Err(_) => {
            Ok(JoinRefusal::NotReady)
        }
        Ok(wire::JoinRefusal::IdTaken) => Ok(JoinRefusal::IdTaken),
        Ok(wire::JoinRefusal::ReplicationFactor) => {
            Ok(JoinRefusal::ReplicationFactor { ring: t::replication_factor(w.replication_factor)? })
        }
    }
}

fn gossip(w: wire::Gossip) -> Taken<Option<Gossip>> {
    use wire::gossip::Kind;
    let Some(kind) = w.kind else { return Ok(None) };
    Ok(Some(match kind {
        Kind::Ping(w) => Gossip::Ping {
            probe: w.probe,
            updates: t::member_infos(w.updates)?,
            strength: t::strength(w.strength)?,
        },
        Kind::Ack(w) => Gossip::Ack {
            probe: w.probe,
            updates: t::member_infos(w.updates)?,
            strength: t::strength(w.strength)?,
        },
        Kind::PingRequest(w) => Gossip::PingRequest {
            probe: w.probe,
            target: t::node_ref(w.target, "target")?,
            updates: t::member_infos(w.updates)?,
        },
        Kind::IndirectAck(w) => Gossip::IndirectAck { probe: w.probe, target: NodeId(w.target) },
        Kind::Digest(w) => Gossip::Digest {
            entries: t::each(w.entries, |e| Ok((NodeId(e.node), e.incarnation, t::member_state(e.state)?)))?,
            strength: t::strength(w.strength)?,
        },
        Kind::Table(w) => {
            Gossip::Table { members: t::member_infos(w.members)?, strength: t::strength(w.strength)? }
        }
    }))
}

fn operation(w: wire::Operation) -> Taken<Attempt> {
    use wire::OperationKind as Kind;
    let condition = || match wire::ConditionKind::try_from(w.condition) {
        Ok(wire::ConditionKind::Always) => Ok(Condition::Always),
        Ok(wire::ConditionKind::Absent) => Ok(Condition::Absent),
        Ok(wire::ConditionKind::Version) => Ok(Condition::Version(w.condition_version)),
        // Not to be ignored: the change would be done without its condition.
        Err(_) => Err(WireError::OutOfRange("condition")),
    };
    let operation = match Kind::try_from(w.kind) {
        Ok(Kind::Get) => Operation::Get,
        Ok(Kind::Put) => {
            Operation::Change(Change::Put { value: t::value(&w.first)?, condition: condition()? })
        }
        Ok(Kind::Delete) => Operation::Change(Change::Delete { condition: condition()? }),
        Ok(Kind::TestAndSet) => {
            Operation::Change(Change::TestAndSet { old: t::value(&w.first)?, new: t::value(&w.second)? })
        }
        Ok(Kind::AddOnNumber) => Operation::Change(Change::AddOnNumber { by: t::value(&w.first)? }),
        Ok(Kind::AddDelOnList) => {
            Operation::Change(Change::AddDelOnList { add: t::value(&w.first)?, remove: t::value(&w.second)? })
        }
        Ok(Kind::Resync) => Operation::Resync,
        Ok(Kind::Inspect) => Operation::Inspect { waits: w.waits },
        Ok(Kind::Tx) => Operation::Tx(Box::new(super::transaction::change(t::need(w.tx, "tx")?)?)),
        Ok(Kind::Unspecified) | Err(_) => return Err(WireError::OutOfRange("Operation.kind")),
    };
    Ok(Attempt {
        session: SessionId(w.session),
        seq: w.seq,
        attempt: w.attempt,
        is_first: w.is_first,
        addressed: w.has_addressed.then(|| t::ballot_of(w.addressed_counter, w.addressed_node)),
        known: w.known,
        key: t::key(&w.key),
        operation,
        trace: None,
    })
}

fn operation_reply(w: wire::OperationReply) -> Taken<Message> {
    use wire::AnswerKind as Kind;
    let version = w.version;
    let answer = match Kind::try_from(w.kind) {
        Ok(Kind::Done) => Answer::Done { version, result: t::optional_value(w.value)? },
        Ok(Kind::Nothing) => Answer::Nothing { version, value: t::optional_value(w.value)? },
        Ok(Kind::Refused) => {
            let refusal = refusal(t::need(w.refusal, "refusal")?)?;
            Answer::Refused { refusal, version, value: t::optional_value(w.value)? }
        }
        Ok(Kind::Value) => Answer::Value { version, value: t::optional_value(w.value)? },
        Ok(Kind::NotHome) => {
            let ballot = w.hint_ballot.map(|b| t::ballot(Some(b))).transpose()?;
            Answer::NotHome { hint: t::optional_node_ref(w.hint, "hint")?.map(|node| (node, ballot)) }
        }
        Ok(Kind::Behind) => Answer::Behind { floor: version },
        Ok(Kind::Busy) => Answer::Busy,
        Ok(Kind::Full) => Answer::Full,
        Ok(Kind::Locked) => Answer::Locked,
        Ok(Kind::Forgotten) => Answer::Forgotten,
        // What cannot be understood says nothing about what was done.
        Ok(Kind::Unknown | Kind::Unspecified) | Err(_) => Answer::Unknown,
    };
    Ok(Message::OperationReply {
        session: SessionId(w.session),
        seq: w.seq,
        attempt: w.attempt,
        home: t::slot(w.home)?,
        extent: t::extent_between(t::joined(w.lo_high, w.lo_low), t::joined(w.hi_high, w.hi_low))?,
        ballot: w.has_ballot.then(|| t::ballot_of(w.ballot_counter, w.ballot_node)),
        known: w.known,
        answer,
    })
}

fn refusal(w: wire::Refusal) -> Taken<Refusal> {
    use wire::RefusalKind as Kind;
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    match Kind::try_from(w.kind) {
        Ok(Kind::NotFound) => Ok(Refusal::NotFound),
        Ok(Kind::Exists) => Ok(Refusal::Exists),
        Ok(Kind::VersionDiffers) => Ok(Refusal::VersionDiffers),
        Ok(Kind::ValueDiffers) => Ok(Refusal::ValueDiffers),
        Ok(Kind::WrongType) => {
            Ok(Refusal::WrongType { found: type_name(&w.found), needed: type_name(&w.needed) })
        }
        Ok(Kind::TooLarge) => {
            Ok(Refusal::TooLarge { size_bytes: bytes(w.size_bytes), limit_bytes: bytes(w.limit_bytes) })
        }
        Ok(Kind::Locked) => Ok(Refusal::Locked),
        Ok(Kind::Applied) => Ok(Refusal::Applied),
        Ok(Kind::Forgotten) => Ok(Refusal::Forgotten),
        Ok(Kind::Unspecified) | Err(_) => Err(WireError::OutOfRange("refusal")),
    }
}

/// The names that `store` gives to types, see [`store::Value::type_name`] and the refusals of [`Change`].
pub(super) const TYPE_NAMES: [&str; 10] = [
    "null",
    "bool",
    "integer",
    "double",
    "string",
    "bytes",
    "list",
    "object",
    "integer or double",
    "unknown",
];

fn type_name(name: &str) -> &'static str {
    TYPE_NAMES.iter().find(|n| **n == name).copied().unwrap_or("unknown")
}
