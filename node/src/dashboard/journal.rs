//! What happened on this node, for the event feed.

use dht::Event;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Entries kept.
const ENTRIES_MAX: usize = 200;

/// An event as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_milliseconds: u64,
    /// How bad: good, note or bad.
    pub tone: &'static str,
    /// What.
    pub text: String,
}

impl Entry {
    pub(super) fn json(&self) -> Json {
        json!({ "number": self.number, "at": self.at_milliseconds, "tone": self.tone, "text": self.text })
    }
}

/// The latest events. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: Mutex<VecDeque<Entry>>,
    last: watch::Sender<u64>,
}

/// The wall clock, to be shown.
#[allow(clippy::disallowed_methods, reason = "a time for people; nothing is decided by it")]
pub(super) fn wall_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Journal {
    /// Notes an event, if it is one for people.
    pub fn note(&self, event: &Event) {
        let (tone, text) = match event {
            Event::Joined { ring, is_creator: true } => ("good", format!("created ring {ring}")),
            Event::Joined { ring, is_creator: false } => ("good", format!("joined ring {ring}")),
            Event::Dissolved { ring } => ("note", format!("gave up the empty ring {ring} to join another")),
            Event::ForeignRing { by, ring } => {
                ("bad", format!("{} belongs to another ring, {ring}", by.addr))
            }
            Event::RingGivenUp { ring, other, at } => {
                ("bad", format!("gave up ring {ring} with its data for ring {other}, at {at}"))
            }
            Event::MemberUp(n) => ("good", format!("{} is in the ring", n.addr)),
            Event::MemberSuspected(n) => ("bad", format!("{} does not answer", n.addr)),
            Event::MemberDead(n) => ("bad", format!("{} counts as dead", n.addr)),
            Event::MemberLeft(n) => ("note", format!("{} has left", n.addr)),
            Event::HandedOver { slot, to, keys, .. } => {
                ("note", format!("handed a piece of replica {slot} with {keys} keys to {}", to.addr))
            }
            Event::Replaced { slot, .. } => ("good", format!("replaced a lost part of replica {slot}")),
            Event::Resumed { slot, .. } => {
                ("good", format!("went on with a replaced part of replica {slot}, its successor being gone"))
            }
            Event::Salvaged { keys, .. } => {
                ("bad", format!("decided a piece without a quorum anew, with {keys} keys that were left"))
            }
            Event::JoinDenied { by, .. } => ("note", format!("{} did not let this node in yet", by.addr)),
            Event::Refused { node } => ("note", format!("node {node} was refused")),
            // Several a second while a ring grows; the metrics count them.
            Event::ReignBegan { .. } => return,
        };
        self.add(tone, text);
    }

    fn add(&self, tone: &'static str, text: String) {
        let mut entries = self.0.entries.lock();
        let number = entries.back().map_or(1, |e| e.number + 1);
        if entries.len() >= ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(Entry { number, at_milliseconds: wall_milliseconds(), tone, text });
        drop(entries);
        self.0.last.send_replace(number);
    }

    /// The entries after a number.
    pub fn after(&self, number: u64) -> Vec<Entry> {
        self.0.entries.lock().iter().filter(|e| e.number > number).cloned().collect()
    }

    /// Told when an entry comes.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.0.last.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_go_and_numbers_go_on() {
        let j = Journal::default();
        for i in 0..=ENTRIES_MAX {
            j.add("note", i.to_string());
        }
        let all = j.after(0);
        assert_eq!((all.len(), all[0].number, all[0].text.as_str()), (ENTRIES_MAX, 2, "1"));
        assert_eq!(j.after(ENTRIES_MAX.try_into().unwrap()).len(), 1);
    }
}
