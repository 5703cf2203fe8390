//! Operation ids: which changes a record already contains.
//!
//! Every change carries (session, seq). A record keeps the highest seq of the last few sessions that changed
//! it, and the number below which it has forgotten some, so that no change is executed twice. Every key of a
//! busy ring has some of them, so they are kept packed ([`OpEntries`]).
//!
//! Keeps:
//! 1. At most [`ENTRIES_MAX`] entries; what is dropped raises `floor` to its n.
//! 2. One entry per session, that of its highest seq.
//!
//! Source: RIFL (Lee et al. 2015); `docs/protocol.md`, section 4.

use crate::tx::Lock;
use crate::value::Value;
use crate::varint;

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

/// Entries one after the other in one allocation, about 14 bytes each instead of 40: the session, then in as few
/// bytes as they need seq, n, and one more than the length of the result, or 0.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OpEntries(Box<[u8]>);

impl OpEntries {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that they take.
    pub fn packed_len(&self) -> usize {
        self.0.len()
    }

    /// The entries in their order.
    pub fn iter(&self) -> OpIter<'_> {
        OpIter(&self.0)
    }
}

impl FromIterator<OpEntry> for OpEntries {
    fn from_iter<I: IntoIterator<Item = OpEntry>>(entries: I) -> OpEntries {
        let mut out = Vec::with_capacity(32);
        for e in entries {
            out.extend_from_slice(&e.session.0.to_le_bytes());
            varint::put(&mut out, e.seq);
            varint::put(&mut out, e.n);
            let result = e.result.as_ref().map(Value::as_bytes);
            varint::put(&mut out, result.map_or(0, |r| varint::of_len(r.len()).saturating_add(1)));
            out.extend_from_slice(result.unwrap_or_default());
        }
        OpEntries(out.into())
    }
}

impl<'a> IntoIterator for &'a OpEntries {
    type Item = OpEntry;
    type IntoIter = OpIter<'a>;

    fn into_iter(self) -> OpIter<'a> {
        self.iter()
    }
}

impl core::fmt::Debug for OpEntries {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Entries being unpacked.
#[derive(Clone, Debug)]
pub struct OpIter<'a>(&'a [u8]);

impl OpIter<'_> {
    fn take(&mut self) -> Option<OpEntry> {
        let (session, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        let (seq, n) = (varint::take(&mut self.0)?, varint::take(&mut self.0)?);
        let result = match varint::take(&mut self.0)?.checked_sub(1) {
            None => None,
            Some(len) => {
                let (value, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
                self.0 = rest;
                Some(Value::from_canonical(value))
            }
        };
        Some(OpEntry { session: SessionId(u64::from_le_bytes(*session)), seq, n, result })
    }
}

impl Iterator for OpIter<'_> {
    type Item = OpEntry;

    fn next(&mut self) -> Option<OpEntry> {
        let was_empty = self.0.is_empty();
        let next = self.take();
        assert!(next.is_some() || was_empty, "only what was packed here is unpacked");
        next
    }
}

/// The operation ids of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpLog {
    /// The highest n of an entry that was dropped, or that may have been.
    pub floor: u64,
    /// Entries in the order of their n.
    pub entries: OpEntries,
    /// A transaction's hold on the key. It stands here because a record at rest has neither.
    pub lock: Option<Box<Lock>>,
    /// Fields of later versions, carried along unread.
    pub extra: Box<[u8]>,
}

impl OpLog {
    /// Whether nothing need be kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.floor == 0 && self.extra.is_empty() && self.lock.is_none()
    }

    /// Whether a record of this version need not keep it: its floor is told by the version.
    pub fn is_at_rest(&self, version: u64) -> bool {
        self.entries.is_empty() && self.extra.is_empty() && self.lock.is_none() && self.floor <= version
    }

    /// The entry of `session`.
    pub fn get(&self, session: SessionId) -> Option<OpEntry> {
        self.entries.iter().find(|e| e.session == session)
    }

    /// Notes an executed change and gives back what had to be dropped for it.
    pub fn note(&mut self, entry: OpEntry) -> Option<OpEntry> {
        let others: Vec<OpEntry> = self.entries.iter().filter(|e| e.session != entry.session).collect();
        let room = ENTRIES_MAX - 1;
        let gone = if others.len() > room { others.first().cloned() } else { None };
        let excess = others.len().saturating_sub(room);
        self.entries = others.into_iter().skip(excess).chain([entry]).collect();
        self.floor = self.floor.max(gone.as_ref().map_or(0, |g| g.n));
        gone
    }

    /// Drops the oldest entry and raises the floor to its n.
    pub fn drop_oldest(&mut self) -> Option<OpEntry> {
        let gone = self.entries.iter().next()?;
        self.entries = self.entries.iter().skip(1).collect();
        self.floor = self.floor.max(gone.n);
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(raw: Vec<(u64, u64, u64, Option<String>)>) {
            let all: Vec<OpEntry> = raw
                .iter()
                .map(|(s, seq, n, r)| OpEntry {
                    session: SessionId(*s), seq: *seq, n: *n, result: r.as_deref().map(Value::string),
                })
                .collect();
            let packed: OpEntries = all.iter().cloned().collect();
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), all);
        }
    }
}
