//! Which points of the protocol a run reached: counted from messages seen and events announced.
//!
//! Keeps:
//! 1. [`EXPECTED`] names what a thorough set of runs must have reached; what was never reached is printed.

use crate::names::{self, ANSWERS, DENIED, MESSAGES};
use core::fmt::{self, Debug, Write};
use dht::message::Denied;
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
#[derive(Clone, Debug)]
pub struct Coverage {
    /// By place in the lists of names, since every message is counted.
    messages: [u64; MESSAGES.len()],
    denied: [u64; DENIED.len()],
    answers: [u64; ANSWERS.len()],
    others: BTreeMap<String, u64>,
    reigned: BTreeSet<(Slot, u128, u128)>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage {
            messages: [0; MESSAGES.len()],
            denied: [0; DENIED.len()],
            answers: [0; ANSWERS.len()],
            others: BTreeMap::new(),
            reigned: BTreeSet::new(),
        }
    }
}

fn add(counts: &mut [u64], place: usize) {
    if let Some(n) = counts.get_mut(place) {
        *n += 1;
    }
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
        match self.others.get_mut(point) {
            Some(n) => *n += 1,
            None => {
                self.others.insert(point.to_owned(), 1);
            }
        }
    }

    /// Counts what a message shows.
    pub fn message(&mut self, message: &Message) {
        add(&mut self.messages, names::message(message).0);
        if let Some(denied) = denial(message) {
            add(&mut self.denied, names::denied(denied).0);
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
            add(&mut self.answers, names::answer(answer).0);
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
        for (mine, theirs) in [
            (&mut self.messages[..], &other.messages[..]),
            (&mut self.denied[..], &other.denied[..]),
            (&mut self.answers[..], &other.answers[..]),
        ] {
            for (a, b) in mine.iter_mut().zip(theirs) {
                *a += b;
            }
        }
        for (k, n) in &other.others {
            *self.others.entry(k.clone()).or_default() += n;
        }
    }

    /// The points that were reached, by name.
    pub fn reached(&self) -> BTreeMap<&str, u64> {
        let of = |names: &[&'static str], counts: &[u64]| -> Vec<(&'static str, u64)> {
            names.iter().copied().zip(counts.iter().copied()).collect()
        };
        let listed = of(MESSAGES, &self.messages)
            .into_iter()
            .chain(of(DENIED, &self.denied))
            .chain(of(ANSWERS, &self.answers));
        let others = self.others.iter().map(|(k, n)| (k.as_str(), *n));
        listed.chain(others).filter(|(_, n)| *n > 0).collect()
    }

    /// The expected points that were not.
    pub fn never_reached(&self) -> Vec<&'static str> {
        let reached = self.reached();
        EXPECTED.iter().filter(|e| !reached.contains_key(**e)).copied().collect()
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
