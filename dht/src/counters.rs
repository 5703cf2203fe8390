//! What a node counts while it works: numbers that only grow, for whoever watches it.
//!
//! Relies on: nothing reads a counter to decide anything.

use crate::message::Message;

/// A round of votes, by what is voted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoundKind {
    /// A reign is sought.
    Reign,
    /// A key's newest record is looked for.
    Sync,
    /// A record is to be chosen.
    Accept,
    /// Reigns are confirmed for the reads that wait.
    Confirm,
    /// Replicas are read without their home.
    Read,
    /// A configuration is to be changed.
    Change,
}

impl RoundKind {
    /// All of them.
    pub const ALL: [RoundKind; 6] = [
        RoundKind::Reign,
        RoundKind::Sync,
        RoundKind::Accept,
        RoundKind::Confirm,
        RoundKind::Read,
        RoundKind::Change,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            RoundKind::Reign => "reign",
            RoundKind::Sync => "sync",
            RoundKind::Accept => "accept",
            RoundKind::Confirm => "confirm",
            RoundKind::Read => "read",
            RoundKind::Change => "change",
        }
    }
}

/// Rounds begun, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounds([u64; RoundKind::ALL.len()]);

impl Rounds {
    /// Notes that a round began.
    pub(crate) fn began(&mut self, kind: RoundKind) {
        for (k, n) in RoundKind::ALL.iter().zip(&mut self.0) {
            *n += u64::from(*k == kind);
        }
    }

    /// The kinds with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (RoundKind, u64)> + '_ {
        RoundKind::ALL.into_iter().zip(self.0)
    }
}

/// What a message is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// Joining a ring, or calling another one home.
    Join,
    /// Pings and news of members.
    Gossip,
    /// Votes for a reign.
    Reign,
    /// Reading a key's records before its first change or read.
    Sync,
    /// Votes for a record.
    Accept,
    /// Confirmations of reigns.
    Confirm,
    /// Reads of replicas.
    Read,
    /// Tidying away what was deleted.
    Drop,
    /// Operations on their way to and from homes.
    Operation,
    /// Questions for, and votes on, configurations.
    Configuration,
    /// Refilling a replacement.
    Fill,
    /// Handing over pieces.
    Handover,
}

impl MessageKind {
    /// All of them.
    pub const ALL: [MessageKind; 12] = [
        MessageKind::Join,
        MessageKind::Gossip,
        MessageKind::Reign,
        MessageKind::Sync,
        MessageKind::Accept,
        MessageKind::Confirm,
        MessageKind::Read,
        MessageKind::Drop,
        MessageKind::Operation,
        MessageKind::Configuration,
        MessageKind::Fill,
        MessageKind::Handover,
    ];

    /// What a message is part of.
    pub fn of(message: &Message) -> MessageKind {
        match message {
            Message::Join { .. }
            | Message::JoinAccepted { .. }
            | Message::JoinDenied(_)
            | Message::Knock { .. }
            | Message::KnockDenied { .. }
            | Message::Dissolve { .. } => MessageKind::Join,
            Message::Gossip(_) => MessageKind::Gossip,
            Message::Reign { .. } | Message::ReignReply { .. } => MessageKind::Reign,
            Message::Sync { .. } | Message::SyncReply { .. } => MessageKind::Sync,
            Message::Accept { .. } | Message::AcceptReply { .. } => MessageKind::Accept,
            Message::Confirm { .. } | Message::ConfirmReply { .. } => MessageKind::Confirm,
            Message::Read { .. } | Message::ReadReply { .. } => MessageKind::Read,
            Message::Drop { .. } => MessageKind::Drop,
            Message::Operation(_) | Message::OperationReply { .. } => MessageKind::Operation,
            Message::ConfigurationQuery { .. }
            | Message::ConfigurationReply { .. }
            | Message::ChangePrepare { .. }
            | Message::ChangePrepareReply { .. }
            | Message::ChangeAccept { .. }
            | Message::ChangeAcceptReply { .. }
            | Message::Install { .. } => MessageKind::Configuration,
            Message::FillPull { .. }
            | Message::FillPage { .. }
            | Message::FrozenQuery { .. }
            | Message::FrozenReply { .. }
            | Message::MemorySeek { .. }
            | Message::MemoryFound { .. }
            | Message::DonationQuery { .. }
            | Message::DonationReply { .. }
            | Message::FrozenPull { .. }
            | Message::Refuse { .. }
            | Message::RefuseReply { .. }
            | Message::SurveyQuery { .. }
            | Message::SurveyReply { .. }
            | Message::SalvagePull { .. } => MessageKind::Fill,
            Message::HandoverOffer { .. }
            | Message::HandoverContinue { .. }
            | Message::HandoverPage { .. }
            | Message::HandoverFinal { .. }
            | Message::HandoverReceived { .. }
            | Message::HandoverActivate { .. }
            | Message::HandoverActivated { .. }
            | Message::HandoverAbort { .. } => MessageKind::Handover,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            MessageKind::Join => "join",
            MessageKind::Gossip => "gossip",
            MessageKind::Reign => "reign",
            MessageKind::Sync => "sync",
            MessageKind::Accept => "accept",
            MessageKind::Confirm => "confirm",
            MessageKind::Read => "read",
            MessageKind::Drop => "drop",
            MessageKind::Operation => "operation",
            MessageKind::Configuration => "configuration",
            MessageKind::Fill => "fill",
            MessageKind::Handover => "handover",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_counted_under_its_own_kind() {
        let mut rounds = Rounds::default();
        for (i, kind) in RoundKind::ALL.into_iter().enumerate() {
            (0..=i).for_each(|_| rounds.began(kind));
        }
        let counted: Vec<(RoundKind, u64)> = rounds.iter().collect();
        assert_eq!(counted, RoundKind::ALL.into_iter().zip(1..).collect::<Vec<_>>());
    }
}
