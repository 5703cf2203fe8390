//! Operation ids: which changes a record already contains.
//!
//! Every change carries (session, seq). A record keeps the highest seq of the last few sessions that changed
//! it, and the number below which it has forgotten some, so that no change is executed twice.
//!
//! Keeps:
//! 1. At most [`ENTRIES_MAX`] entries; what is dropped raises `floor` to its n.
//! 2. One entry per session, that of its highest seq.
//!
//! Source: RIFL (Lee et al. 2015); `docs/protocol.md`, section 4.

use crate::tx::Lock;
use crate::value::Value;
use smallvec::SmallVec;

/// The most entries a record keeps.
pub const ENTRIES_MAX: usize = 8;

/// 64 random bits drawn by whoever numbers its operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The newest change of one session that this record contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpEntry {
    /// Whose change.
    pub session: SessionId,
    /// Its number in that session.
    pub seq: u64,
    /// The number under which it was executed; the version it wrote.
    pub n: u64,
    /// What it answered beyond the version, where that cannot be seen from the request (a sum).
    pub result: Option<Value>,
}

/// The operation ids of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpLog {
    /// The highest n of an entry that was dropped, or that may have been.
    pub floor: u64,
    /// Entries in the order of their n.
    pub entries: SmallVec<[OpEntry; 1]>,
    /// A transaction's hold on the key. It stands here because a record at rest has neither.
    pub lock: Option<Box<Lock>>,
    /// Fields of later versions, carried along unread.
    pub extra: Vec<u8>,
}

impl OpLog {
    /// Whether nothing need be kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.floor == 0 && self.extra.is_empty() && self.lock.is_none()
    }

    /// The entry of `session`.
    pub fn get(&self, session: SessionId) -> Option<&OpEntry> {
        self.entries.iter().find(|e| e.session == session)
    }

    /// Notes an executed change and gives back what had to be dropped for it.
    pub fn note(&mut self, entry: OpEntry) -> Option<OpEntry> {
        self.entries.retain(|e| e.session != entry.session);
        self.entries.push(entry);
        if self.entries.len() > ENTRIES_MAX { self.drop_oldest() } else { None }
    }

    /// Drops the oldest entry and raises the floor to its n.
    pub fn drop_oldest(&mut self) -> Option<OpEntry> {
        if self.entries.is_empty() {
            return None;
        }
        let gone = self.entries.remove(0);
        self.floor = self.floor.max(gone.n);
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ninth_session_drops_the_oldest_and_raises_the_floor() {
        let mut log = OpLog::default();
        for i in 1..=9u64 {
            let gone = log.note(OpEntry { session: SessionId(i), seq: 1, n: i * 10, result: None });
            assert_eq!(gone.map(|g| g.n), (i == 9).then_some(10));
        }
        assert_eq!(log.floor, 10);
        assert!(log.get(SessionId(1)).is_none() && log.get(SessionId(2)).is_some());
    }

    #[test]
    fn a_session_has_one_entry() {
        let mut log = OpLog::default();
        for seq in 1..5 {
            log.note(OpEntry { session: SessionId(7), seq, n: seq, result: None });
        }
        assert_eq!((log.entries.len(), log.floor), (1, 0));
    }
}
