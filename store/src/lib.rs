//! What an acceptor remembers: values, records, operation ids, and the registers of one extent of offsets.
//!
//! Nothing here does IO. A record is the whole state of its key, so that one message can carry it and one
//! acceptance can replace it.

pub mod change;
pub mod ledger;
pub mod ops;
pub mod record;
pub mod registers;
pub mod stamp;
pub mod tx;
pub mod value;
mod varint;

pub use change::{Change, Condition, Outcome, Refusal};
pub use ledger::{Ledger, LedgerChange, Verdict};
pub use ops::{OpEntries, OpEntry, OpLog, SessionId};
pub use record::{Key, Record};
pub use registers::{Entry, Registers};
pub use stamp::{Ballot, Stamp};
pub use tx::{Intent, Lock, OpId, Seen, TxChange, TxId, TxStep};
pub use value::{Data, Value, ValueError};
