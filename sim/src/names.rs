//! The names of messages and of what they say, without building them anew for every message.
//!
//! Keeps:
//! 1. A name is the variant's own; the compiler sees to it that none is missing.

use dht::Message;
use dht::message::{Answer, Denied};

macro_rules! variants {
    ($doc:literal, $name:ident, $all:ident, $of:ty, $type:ident, $prefix:literal: $($number:literal $variant:ident)*) => {
        #[doc = $doc]
        pub const $all: &[&str] = &[$(concat!($prefix, stringify!($variant))),*];

        #[doc = $doc]
        ///
        /// The place in the list, and the variant's name.
        pub fn $name(value: &$of) -> (usize, &'static str) {
            match value {
                $($type::$variant { .. } => ($number, stringify!($variant)),)*
            }
        }
    };
}

variants! { "Messages.", message, MESSAGES, Message, Message, "message ":
    0 Join 1 JoinAccepted 2 JoinDenied 3 Knock 4 KnockDenied 5 Gossip 6 Reign 7 ReignReply 8 Sync 9 SyncReply
    10 Accept 11 AcceptReply 12 Confirm 13 ConfirmReply 14 Read 15 ReadReply 16 Drop 17 Operation 18 OperationReply
    19 ConfigurationQuery 20 ConfigurationReply 21 ChangePrepare 22 ChangePrepareReply 23 ChangeAccept
    24 ChangeAcceptReply 25 Install 26 SurveyQuery 27 SurveyReply 28 SalvagePull 29 FillPull 30 FillPage
    31 FrozenQuery 32 FrozenReply 33 MemorySeek 34 MemoryFound 35 DonationQuery 36 DonationReply 37 FrozenPull
    38 Refuse 39 RefuseReply 40 HandoverOffer 41 HandoverContinue 42 HandoverPage 43 HandoverFinal
    44 HandoverReceived 45 HandoverActivate 46 HandoverActivated 47 HandoverAbort 48 Dissolve
}

variants! { "Why an acceptor did not grant a request.", denied, DENIED, Denied, Denied, "denied ":
    0 NotOwner 1 NotReady 2 StaleEpoch 3 NewerEpoch 4 Promised 5 Low 6 StillHeard
}

variants! { "Answers of homes.", answer, ANSWERS, Answer, Answer, "answer ":
    0 Done 1 Nothing 2 Refused 3 Value 4 NotHome 5 Behind 6 Busy 7 Full 8 Locked 9 Unknown 10 Forgotten
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::variant;

    #[test]
    fn the_places_of_names_are_those_of_the_list() {
        let m = Message::HandoverAbort { attempt: 1 };
        assert_eq!(message(&m), (47, variant(&m).as_str()));
        assert_eq!(MESSAGES[47], "message HandoverAbort");
        let g = Message::Gossip(ring::members::Gossip::IndirectAck { probe: 1, target: ring::NodeId(1) });
        assert_eq!(message(&g), (5, "Gossip"));
        assert_eq!(MESSAGES[5], "message Gossip");
        assert_eq!((denied(&Denied::StillHeard).0, DENIED.len()), (6, 7));
        assert_eq!((answer(&Answer::Unknown).0, ANSWERS.len()), (9, 11));
    }
}
