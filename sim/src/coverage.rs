//! Which points of the protocol a run reached: counted from messages seen and events announced.
//!
//! Keeps:
//! 1. [`EXPECTED`] names what a thorough set of runs must have reached; what was never reached is printed.

use core::fmt::{self, Debug, Write};
use dht::message::{Answer, Denied};
use dht::{Event, Message};
use ring::{Extent, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// What a thorough set of runs reaches.
pub const EXPECTED: &[&str] = &[
    "accept again of an older version",
    "accept of a tombstone",
    "answer Behind",
    "answer Busy",
    "answer NotHome",
    "answer Refused",
    "answer Unknown",
    "answer from another attempt than the first",
    "attempt after the first",
    "denied Low",
    "denied NewerEpoch",
    "denied NotOwner",
    "denied NotReady",
    "denied Promised",
    "denied StaleEpoch",
    "denied StillHeard",
    "event Dissolved",
    "event HandedOver",
    "event Joined",
    "event MemberDead",
    "event MemberLeft",
    "event MemberSuspected",
    "event MemberUp",
    "event ReignBegan",
    "event Replaced",
    "event Resumed",
    "handover in several pages",
    "handover with changes since the copy",
    "handover with keys",
    "message ChangeAccept",
    "message ChangePrepare",
    "message ConfigurationQuery",
    "message Confirm",
    "message Drop",
    "message FillPage",
    "message FrozenQuery",
    "message FrozenReply",
    "message Gossip",
    "message HandoverAbort",
    "message HandoverActivated",
    "message Install",
    "message Join",
    "message JoinDenied",
    "message Knock",
    "message Read",
    "message Reign",
    "message Sync",
    "reign changed",
    "sync met differing stamps",
];

/// How often each point was reached.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<String, u64>,
    reigned: BTreeSet<(Slot, u128, u128)>,
}

/// The name of an enum's variant, from the beginning of its debug text.
pub fn variant(value: &impl Debug) -> String {
    struct Head(String);
    impl Write for Head {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            for c in s.chars() {
                if !c.is_alphanumeric() {
                    return Err(fmt::Error);
                }
                self.0.push(c);
            }
            Ok(())
        }
    }
    let mut head = Head(String::new());
    // The error is how it stops after the name.
    let _ = write!(head, "{value:?}");
    head.0
}

impl Coverage {
    /// Counts a point.
    pub fn count(&mut self, point: &str) {
        match self.counts.get_mut(point) {
            Some(n) => *n += 1,
            None => {
                self.counts.insert(point.to_owned(), 1);
            }
        }
    }

    /// Counts what a message shows. `name` is its variant.
    pub fn message(&mut self, name: &str, message: &Message) {
        self.count(&format!("message {name}"));
        if let Some(denied) = denial(message) {
            self.count(&format!("denied {}", variant(denied)));
        }
        if let Message::Accept { stamp, record, .. } = message {
            if record.version < stamp.n {
                self.count("accept again of an older version");
            }
            if record.value.is_none() {
                self.count("accept of a tombstone");
            }
        }
        if let Message::SyncReply { answer: Ok(s), .. } = message
            && s.record.is_some()
        {
            self.count("sync met differing stamps");
        }
        if let Message::Operation(a) = message
            && a.attempt > 1
        {
            self.count("attempt after the first");
        }
        if let Message::OperationReply { answer, attempt, .. } = message {
            self.answer(answer);
            if *attempt > 1 {
                self.count("answer from another attempt than the first");
            }
        }
        if let Message::HandoverPage { page: 2, .. } = message {
            self.count("handover in several pages");
        }
        if let Message::HandoverFinal { entries, .. } = message
            && !entries.is_empty()
        {
            self.count("handover with changes since the copy");
        }
    }

    /// Counts an announcement.
    pub fn event(&mut self, event: &Event) {
        self.count(&format!("event {}", variant(event)));
        if let Event::ReignBegan { home, extent } = event {
            let Extent { lo, hi } = *extent;
            if !self.reigned.insert((*home, lo, hi)) {
                self.count("reign changed");
            }
        }
        if let Event::HandedOver { keys, .. } = event
            && *keys > 0
        {
            self.count("handover with keys");
        }
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Coverage) {
        for (k, n) in &other.counts {
            *self.counts.entry(k.clone()).or_default() += n;
        }
    }

    /// The points that were reached.
    pub fn reached(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(k, n)| (k.as_str(), *n))
    }

    /// The expected points that were not.
    pub fn never_reached(&self) -> Vec<&'static str> {
        EXPECTED.iter().filter(|e| !self.counts.contains_key(**e)).copied().collect()
    }

    fn answer(&mut self, answer: &Answer) {
        self.count(&format!("answer {}", variant(answer)));
    }
}

fn denial(message: &Message) -> Option<&Denied> {
    if let Message::ReignReply { answer: Err(d), .. }
    | Message::SyncReply { answer: Err(d), .. }
    | Message::ReadReply { answer: Err(d), .. }
    | Message::AcceptReply { answer: Err(d), .. }
    | Message::ChangePrepareReply { answer: Err(d), .. }
    | Message::ChangeAcceptReply { answer: Err(d), .. }
    | Message::FillPage { answer: Err(d), .. } = message
    {
        return Some(d);
    }
    if let Message::ConfirmReply { answers, .. } = message {
        return answers.iter().find_map(|a| a.2.as_ref().err());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_named_without_its_fields() {
        assert_eq!(variant(&Message::HandoverActivate { attempt: 1 }), "HandoverActivate");
        assert_eq!(variant(&Denied::Low), "Low");
    }
}
