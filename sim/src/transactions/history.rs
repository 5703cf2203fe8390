//! What transactions did and saw.
//!
//! Every write has a number of its own in the whole run, and a value that shows it. So a read tells whose write
//! it saw, and the versions that nodes answer tell the order of the writes of a key.
//!
//! Keeps:
//! 1. Reads are external: of each key the first, before the transaction wrote it.
//! 2. A single operation on one key is a transaction too.

use core::fmt;
use store::Key;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was said to be committed.
    Committed,
    /// It was said not to be done.
    Aborted,
    /// Nobody said.
    Unknown,
}

/// A key as a transaction saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The key.
    pub key: Key,
    /// The write seen; none if the key was not there.
    pub write: Option<u64>,
    /// Its version.
    pub version: u64,
    /// Of a list: the writes that it shows, oldest first.
    pub list: Option<Vec<u64>>,
}

/// What a transaction wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// The number of the write.
    pub write: u64,
    /// Its version, if the transaction was told.
    pub version: Option<u64>,
    /// Whether it is added to a list.
    pub is_append: bool,
    /// Whether the same transaction wrote the key once more, so that nobody may see this.
    pub is_overwritten: bool,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Who.
    pub client: usize,
    /// When it was begun, in the sequence of all events.
    pub invoked: u64,
    /// When its outcome was told.
    pub completed: Option<u64>,
    /// The outcome.
    pub fate: Fate,
    /// What it saw.
    pub reads: Vec<Read>,
    /// What it wrote.
    pub writes: Vec<Write>,
}

impl fmt::Display for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.completed.map_or("never".to_owned(), |c| c.to_string());
        write!(f, "[{:>6} .. {end:>6}] client {} {:?}", self.invoked, self.client, self.fate)?;
        for r in &self.reads {
            match r.write {
                Some(w) => write!(f, ", read {:?} = #{w} v{}", r.key, r.version)?,
                None => write!(f, ", read {:?} = nothing v{}", r.key, r.version)?,
            }
        }
        for w in &self.writes {
            write!(f, ", wrote {:?} = #{}", w.key, w.write)?;
            if let Some(v) = w.version {
                write!(f, " v{v}")?;
            }
        }
        Ok(())
    }
}
