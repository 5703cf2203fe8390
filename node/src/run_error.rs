//! Why a node's process ends by itself: code, cause with the actual values, fix.

use core::time::Duration;
use ring::{NodeId, NodeRef};
use std::net::SocketAddr;

/// Why a node's process ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Something listens there already.
    #[error("the {port} port {addr} is taken by another process")]
    PortTaken {
        /// Which port.
        port: &'static str,
        /// The address.
        addr: SocketAddr,
        /// How it is set.
        setting: &'static str,
    },
    /// The address is not one of this machine's.
    #[error("{} is not an address of this machine, so that the {port} port {addr} cannot be bound", addr.ip())]
    NotOurs {
        /// Which port.
        port: &'static str,
        /// The address.
        addr: SocketAddr,
        /// How it is set.
        setting: &'static str,
    },
    /// The operating system refuses it for another reason.
    #[error("the {port} port {addr} cannot be bound: {cause}")]
    Bind {
        /// Which port.
        port: &'static str,
        /// The address.
        addr: SocketAddr,
        /// How it is set.
        setting: &'static str,
        /// What the operating system said.
        cause: String,
    },
    /// The overlay address would mean nothing to others.
    #[error("the overlay address {addr} cannot be told to other nodes")]
    NotAdvertisable {
        /// The address.
        addr: SocketAddr,
    },
    /// No ring took the node.
    #[error("could not join a ring within {} s through {}: {}", waited.as_secs(), hosts.join(", "), reasons.join("; "))]
    JoinTimeout {
        /// How long it tried.
        waited: Duration,
        /// The known hosts.
        hosts: Vec<String>,
        /// What went wrong with each.
        reasons: Vec<String>,
    },
    /// None of the known hosts has an address.
    #[error("could not join a ring within {} s: {}", waited.as_secs(), reasons.join("; "))]
    Unresolved {
        /// How long it tried.
        waited: Duration,
        /// What went wrong with each.
        reasons: Vec<String>,
    },
    /// The ring has another replication factor than the one insisted on.
    #[error("the ring of {by} has replication factor {ring}, this node was told {ours}")]
    ReplicationFactor {
        /// Who said so.
        by: NodeRef,
        /// The ring's.
        ring: u8,
        /// This node's.
        ours: u8,
    },
    /// A member has this node's id.
    #[error("{by} says that a member of its ring has this node's id {id} already")]
    IdTaken {
        /// Who said so.
        by: NodeRef,
        /// The id.
        id: NodeId,
    },
    /// An error of the program or the machine.
    #[error("{cause}")]
    Internal {
        /// What happened.
        cause: String,
    },
}

impl RunError {
    /// The stable code, as in the catalogue of all errors.
    pub fn code(&self) -> &'static str {
        match self {
            RunError::PortTaken { .. } | RunError::NotOurs { .. } | RunError::Bind { .. } => "KV-BIND-001",
            RunError::NotAdvertisable { .. } => "KV-CFG-004",
            RunError::JoinTimeout { .. } => "KV-JOIN-001",
            RunError::Unresolved { .. } => "KV-JOIN-002",
            RunError::ReplicationFactor { .. } | RunError::IdTaken { .. } => "KV-JOIN-003",
            RunError::Internal { .. } => "KV-INT-001",
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            RunError::PortTaken { addr, setting, .. } => {
                format!("end the process that listens there (`ss -ltnp 'sport = :{}'` names it) or set another port with {setting}", addr.port())
            }
            RunError::NotOurs { setting, .. } => {
                format!("set {setting} to an address that `ip address` shows, or --listen auto")
            }
            RunError::Bind { setting, .. } => format!("set another address or port with {setting}"),
            RunError::NotAdvertisable { .. } => {
                "set --listen (LISTEN_ADDRESS) to the one address at which other nodes reach this one, or to auto".to_owned()
            }
            RunError::JoinTimeout { .. } => {
                "start a node at one of these addresses, correct --join (JOIN_IP), or wait longer with --join-timeout".to_owned()
            }
            RunError::Unresolved { .. } => {
                "correct the names in --join (JOIN_IP) or give addresses, and check the name server".to_owned()
            }
            RunError::ReplicationFactor { ring, .. } => {
                format!("start with --replication-factor {ring} or without it; a ring's factor is set by its creator")
            }
            RunError::IdTaken { .. } => "start again: an id is drawn anew at every start".to_owned(),
            RunError::Internal { .. } => "start again; if it happens again, report it with the log".to_owned(),
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::PortTaken { .. } | RunError::NotOurs { .. } | RunError::Bind { .. } => 10,
            RunError::NotAdvertisable { .. } => 2,
            RunError::JoinTimeout { .. } | RunError::Unresolved { .. } => 11,
            RunError::ReplicationFactor { .. } | RunError::IdTaken { .. } => 12,
            RunError::Internal { .. } => 1,
        }
    }
}
