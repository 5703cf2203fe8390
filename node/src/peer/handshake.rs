//! Greetings on a socket: magic, length, [`Hello`] or [`Welcome`].

use bytes::Bytes;
use proto::peer::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, Welcome, WireError};
use ring::NodeId;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A greeting is a few dozen bytes; a longer one is something else.
const GREETING_BYTES_MAX: usize = 4096;
/// How much of what something else said is shown.
const SHOWN_BYTES_MAX: usize = 64;

/// Why there is no connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No connection.
    #[error("cannot connect to {addr}: {cause}")]
    Connect {
        /// The peer's overlay address.
        addr: SocketAddr,
        /// What the operating system said.
        cause: String,
    },
    /// The connection ended or nothing came for too long.
    #[error("{addr} took the connection and did not answer as a kvnode does: {cause}")]
    Silent {
        /// The peer's overlay address.
        addr: SocketAddr,
        /// What happened instead.
        cause: String,
    },
    /// Something else answered.
    #[error("{addr} is not the overlay port of a kvnode; it answered {answered}")]
    NotKvnode {
        /// The peer's overlay address.
        addr: SocketAddr,
        /// The first bytes of it.
        answered: String,
    },
    /// A kvnode said something that could not be read.
    #[error("{addr} answered with a greeting that cannot be read: {cause}")]
    Malformed {
        /// The peer's overlay address.
        addr: SocketAddr,
        /// Why.
        cause: WireError,
    },
    /// No common protocol version.
    #[error(
        "{addr} speaks versions {} to {} of the protocol between nodes, this program {PROTOCOL_MIN} to {PROTOCOL_MAX}",
        theirs.0, theirs.1
    )]
    Version {
        /// The peer's overlay address.
        addr: SocketAddr,
        /// Its versions.
        theirs: (u32, u32),
    },
    /// Another process than the one that was meant.
    #[error("{addr} is now {real}, not {expected}")]
    WrongNode {
        /// The peer's overlay address.
        addr: SocketAddr,
        /// Who was meant.
        expected: NodeId,
        /// Who listens there.
        real: NodeId,
    },
    /// It is a kvnode, and takes no connection.
    #[error("{addr} refused the connection: {why}")]
    Refused {
        /// The peer's overlay address.
        addr: SocketAddr,
        /// Why.
        why: &'static str,
    },
}

impl PeerError {
    /// One word for the log to tell kinds apart.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            PeerError::Connect { .. } => "connect",
            PeerError::Silent { .. } => "silent",
            PeerError::NotKvnode { .. } => "not kvnode",
            PeerError::Malformed { .. } => "malformed",
            PeerError::Version { .. } => "version",
            PeerError::WrongNode { .. } => "wrong node",
            PeerError::Refused { .. } => "refused",
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            PeerError::Connect { .. } => {
                "check that a node runs there and that the address and port are right"
            }
            PeerError::Silent { .. } | PeerError::NotKvnode { .. } => {
                "give the overlay address of a node (port 14195 unless set otherwise), not its client port"
            }
            PeerError::Malformed { .. } | PeerError::Version { .. } => "run the same version on every node",
            PeerError::WrongNode { .. } => "nothing: the other process has taken the address",
            PeerError::Refused { .. } => "wait, or look into that node's log",
        }
    }
}

/// Why no greeting could be read.
#[derive(Debug)]
pub(super) enum GreetingError {
    /// The connection broke.
    Io(io::Error),
    /// Something else speaks there; here is what it said.
    Foreign(Vec<u8>),
    /// Magic, but no greeting.
    Malformed(WireError),
}

impl From<io::Error> for GreetingError {
    fn from(e: io::Error) -> GreetingError {
        GreetingError::Io(e)
    }
}

/// Bytes of something else as one line of text.
pub(super) fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    format!("\"{}\"", bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii())
}

/// Sends a greeting.
pub(super) async fn write_greeting(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let size = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut out = Vec::with_capacity(body.len() + 12);
    out.extend_from_slice(&Hello::MAGIC);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(body);
    stream.write_all(&out).await
}

/// Reads a greeting: its body after magic and length.
pub(super) async fn read_greeting(stream: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, GreetingError> {
    let mut head = Vec::with_capacity(SHOWN_BYTES_MAX);
    // As soon as a byte differs, it is something else, and may not send eight of them.
    while head.len() < Hello::MAGIC.len() {
        let mut byte = [0u8; 8];
        let room = Hello::MAGIC.len() - head.len();
        let n = stream.read(&mut byte[..room]).await?;
        head.extend_from_slice(&byte[..n]);
        if n == 0 || !Hello::MAGIC.starts_with(&head) {
            return Err(foreign(stream, head).await);
        }
    }
    let mut size = [0u8; 4];
    stream.read_exact(&mut size).await?;
    let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
    if size > GREETING_BYTES_MAX {
        return Err(GreetingError::Malformed(WireError::OutOfRange("greeting")));
    }
    let mut body = vec![0u8; size];
    stream.read_exact(&mut body).await?;
    Ok(body.into())
}

/// A little more of what something else says, to show it.
async fn foreign(stream: &mut (impl AsyncRead + Unpin), mut head: Vec<u8>) -> GreetingError {
    let mut more = [0u8; SHOWN_BYTES_MAX];
    let wait = core::time::Duration::from_millis(50);
    if let Ok(Ok(n)) = tokio::time::timeout(wait, stream.read(&mut more)).await {
        head.extend_from_slice(&more[..n]);
    }
    GreetingError::Foreign(head)
}

/// Greets a node at `addr` and hears who it is.
pub(super) async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: &Hello,
    addr: SocketAddr,
) -> Result<Welcome, PeerError> {
    let silent = |e: io::Error| PeerError::Silent { addr, cause: e.to_string() };
    write_greeting(stream, &hello.encode()).await.map_err(silent)?;
    let body = read_greeting(stream).await.map_err(|e| match e {
        GreetingError::Io(e) => silent(e),
        GreetingError::Foreign(said) if said.is_empty() => {
            PeerError::Silent { addr, cause: "it closed the connection".to_owned() }
        }
        GreetingError::Foreign(said) => PeerError::NotKvnode { addr, answered: shown(&said) },
        GreetingError::Malformed(cause) => PeerError::Malformed { addr, cause },
    })?;
    let welcome = Welcome::decode(body).map_err(|cause| PeerError::Malformed { addr, cause })?;
    match welcome.answer {
        Ok(_) => Ok(welcome),
        Err(Refusal::Version) => Err(PeerError::Version { addr, theirs: welcome.protocol }),
        Err(Refusal::WrongNode) => {
            Err(PeerError::WrongNode { addr, expected: hello.expected, real: welcome.sender.id })
        }
        Err(Refusal::Malformed) => Err(PeerError::Refused { addr, why: "it could not read the greeting" }),
        Err(Refusal::Busy) => Err(PeerError::Refused { addr, why: "it has too many connections" }),
    }
}
