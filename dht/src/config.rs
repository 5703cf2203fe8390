//! Every bound and every time of a node, with its unit in its name.

use core::time::Duration;

/// The settings of one node's core.
#[derive(Clone, Debug)]
pub struct Config {
    /// The replication factor of a ring that this node creates.
    pub replication_factor: u8,
    /// Keys longer than this are refused.
    pub key_bytes_max: usize,
    /// Values longer than this are refused.
    pub value_bytes_max: usize,
    /// Above this weight of all registers, writes that do not shrink are refused.
    pub memory_bytes_max: usize,
    /// A client's operation is answered within this.
    pub operation_deadline: Duration,
    /// An attempt that was not answered for this long is followed by another.
    pub attempt_timeout: Duration,
    /// A vote that was not answered for this long is asked for again.
    pub vote_timeout: Duration,
    /// A node is pinged once in this time.
    pub ping_interval: Duration,
    /// Without any sign of life for this long a node is suspected.
    pub suspect_after: Duration,
    /// Without any sign of life for this long a node counts as dead and is replaced.
    pub dead_after: Duration,
    /// How long a creator waits to be called home before it serves; zero ends the probation at once.
    pub probation: Duration,
    /// A node that lost members, or that is not in a ring, knocks once in this time.
    pub knock_interval: Duration,
    /// Accepts of one key under way at once; further operations wait and go in one batch.
    pub accepts_in_flight_per_key_max: usize,
    /// Operations waiting for one key.
    pub queue_per_key_max: usize,
    /// Client operations open at once at this gateway.
    pub operations_max: usize,
    /// Bytes of a page of a handover or fill.
    pub page_bytes_max: usize,
    /// Bytes of a chunk that is handed over as one.
    pub chunk_bytes_max: usize,
    /// How often a node compares what it owns with what it should own.
    pub duty_interval: Duration,
    /// How long the member table must be unchanged before arcs are moved or replaced.
    pub settle_time: Duration,
    /// How long an operation waits at a key's home behind a transaction's lock; less than `attempt_timeout`.
    pub lock_wait: Duration,
    /// How long a client's operation on one key goes on waiting behind transactions' locks.
    pub lock_patience: Duration,
    /// A transaction that somebody has met and that is undecided for so long is aborted.
    pub lock_age_max: Duration,
    /// How long a transaction is tried again after conflicts.
    pub transaction_patience: Duration,
    /// Transactions under way at once at this gateway.
    pub transactions_max: usize,
    /// Keys of one transaction.
    pub transaction_keys_max: usize,
    /// Operations of one transaction under way at once.
    pub transaction_window: usize,
    /// A ledger that nobody uses for so long is closed.
    pub ledger_idle_max: Duration,
    /// How long operation ids stay in a record that is not written.
    pub operation_id_age: Duration,
    /// Whether what each transaction went through is told afterwards.
    pub tells_transactions: bool,
    /// A rule of the protocol that is broken, for tests of the simulator.
    #[cfg(any(test, feature = "planted"))]
    pub planted: Option<crate::plant::Plant>,
}

impl Config {
    /// The rule that a test breaks, if any.
    pub fn planted(&self) -> Option<crate::plant::Plant> {
        #[cfg(any(test, feature = "planted"))]
        return self.planted;
        #[cfg(not(any(test, feature = "planted")))]
        None
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            replication_factor: 3,
            key_bytes_max: 64 << 10,
            value_bytes_max: 16 << 20,
            memory_bytes_max: usize::MAX,
            operation_deadline: Duration::from_secs(5),
            attempt_timeout: Duration::from_millis(700),
            vote_timeout: Duration::from_millis(250),
            ping_interval: Duration::from_millis(150),
            suspect_after: Duration::from_millis(500),
            dead_after: Duration::from_millis(900),
            probation: Duration::from_millis(600),
            knock_interval: Duration::from_millis(200),
            accepts_in_flight_per_key_max: 4,
            queue_per_key_max: 4096,
            operations_max: 65_536,
            page_bytes_max: 256 << 10,
            chunk_bytes_max: 8 << 20,
            duty_interval: Duration::from_millis(100),
            settle_time: Duration::from_millis(100),
            lock_wait: Duration::from_millis(400),
            lock_patience: Duration::from_secs(3),
            lock_age_max: Duration::from_secs(1),
            transaction_patience: Duration::from_secs(5),
            transactions_max: 4096,
            transaction_keys_max: 10_000,
            transaction_window: 512,
            ledger_idle_max: Duration::from_secs(1),
            operation_id_age: Duration::from_secs(60),
            tells_transactions: false,
            #[cfg(any(test, feature = "planted"))]
            planted: None,
        }
    }
}
