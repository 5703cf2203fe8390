//! Sizes of messages, estimated without encoding them, for bounding queues.

use dht::Message;
use dht::message::{Answer, Operation};
use ring::members::Gossip;
use store::{Change, OpLog, Record};

/// About how many bytes a message takes on the wire.
pub fn size_estimate(message: &Message) -> usize {
    const SMALL: usize = 128;
    const MEMBER: usize = 160;
    const STATE: usize = 700;
    let record = |r: &Record| {
        r.value.as_ref().map_or(0, |v| v.as_bytes().len()) + r.ops.as_ref().map_or(0, |o| ops_size(o))
    };
    let page = |entries: &[dht::message::PageEntry]| -> usize {
        entries.iter().map(|e| SMALL + e.key.as_bytes().len() + record(&e.record)).sum()
    };
    SMALL
        + match message {
            Message::Accept { key, record: r, .. } => key.as_bytes().len() + record(r),
            Message::Operation(a) => a.key.as_bytes().len() + operation_size(&a.operation),
            Message::OperationReply { answer, .. } => answer_size(answer),
            Message::ReadReply { answer, .. } | Message::SyncReply { answer, .. } => {
                answer.as_ref().ok().and_then(|s| s.record.as_ref()).map_or(0, record)
            }
            Message::Read { key, .. } | Message::Sync { key, .. } | Message::Drop { key, .. } => {
                key.as_bytes().len()
            }
            Message::FillPage { answer, .. } => answer.as_ref().map_or(0, |(e, _)| page(e) + STATE),
            Message::HandoverPage { entries, .. } => page(entries),
            Message::HandoverFinal { entries, dropped, .. } => {
                STATE + page(entries) + dropped.iter().map(|(_, k)| 32 + k.as_bytes().len()).sum::<usize>()
            }
            Message::HandoverOffer { .. } => STATE,
            Message::JoinAccepted { members, .. } => members.len() * MEMBER,
            Message::Gossip(Gossip::Ping { updates, .. } | Gossip::Ack { updates, .. }) => {
                updates.len() * MEMBER
            }
            Message::Gossip(Gossip::PingRequest { updates, .. }) => updates.len() * MEMBER,
            Message::Gossip(Gossip::Table { members, .. }) => members.len() * MEMBER,
            Message::Gossip(Gossip::Digest { entries, .. }) => entries.len() * 20,
            Message::Confirm { items, .. } => items.len() * 80,
            Message::ConfirmReply { answers, .. } => answers.len() * 16,
            Message::ConfigurationReply { pieces, .. } => pieces.len() * SMALL,
            Message::RefuseReply { pieces, .. } => pieces.len() * SMALL,
            Message::SurveyReply { pieces, .. } => pieces.len() * SMALL,
            Message::MemoryFound { pieces, .. } => pieces.len() * 48,
            Message::DonationReply { answer, .. } => answer.as_ref().map_or(0, |d| d.len() * 10),
            Message::FrozenPull { unfinished, .. } | Message::Refuse { unfinished, .. } => {
                unfinished.len() * 10
            }
            Message::Gossip(Gossip::IndirectAck { .. })
            | Message::Join { .. }
            | Message::JoinDenied(_)
            | Message::Knock { .. }
            | Message::KnockDenied { .. }
            | Message::Dissolve { .. }
            | Message::Reign { .. }
            | Message::ReignReply { .. }
            | Message::AcceptReply { .. }
            | Message::ConfigurationQuery { .. }
            | Message::ChangePrepare { .. }
            | Message::ChangePrepareReply { .. }
            | Message::ChangeAccept { .. }
            | Message::ChangeAcceptReply { .. }
            | Message::Install { .. }
            | Message::SurveyQuery { .. }
            | Message::SalvagePull { .. }
            | Message::FillPull { .. }
            | Message::FrozenQuery { .. }
            | Message::MemorySeek { .. }
            | Message::DonationQuery { .. }
            | Message::FrozenReply { .. }
            | Message::HandoverContinue { .. }
            | Message::HandoverReceived { .. }
            | Message::HandoverActivate { .. }
            | Message::HandoverActivated { .. }
            | Message::HandoverAbort { .. } => 0,
        }
}

fn operation_size(operation: &Operation) -> usize {
    match operation {
        Operation::Get
        | Operation::Inspect { .. }
        | Operation::Resync
        | Operation::Change(Change::Delete { .. }) => 0,
        Operation::Tx(c) => 96 + c.size_bytes(),
        Operation::Change(Change::Put { value: a, .. } | Change::AddOnNumber { by: a }) => a.as_bytes().len(),
        Operation::Change(
            Change::TestAndSet { old: a, new: b } | Change::AddDelOnList { add: a, remove: b },
        ) => a.as_bytes().len() + b.as_bytes().len(),
    }
}

fn answer_size(answer: &Answer) -> usize {
    match answer {
        Answer::Done { result: value, .. }
        | Answer::Nothing { value, .. }
        | Answer::Refused { value, .. }
        | Answer::Value { value, .. } => value.as_ref().map_or(0, |v| v.as_bytes().len()),
        Answer::NotHome { .. }
        | Answer::Behind { .. }
        | Answer::Busy
        | Answer::Full
        | Answer::Locked
        | Answer::Unknown
        | Answer::Forgotten => 0,
    }
}

fn ops_size(log: &OpLog) -> usize {
    // Packed they take about as much as on the wire, without the tags.
    log.extra.len() + log.lock.as_ref().map_or(0, |l| l.weight()) + log.entries.packed_len() * 2
}
