//! The hearing half: connections that peers opened.

use super::handshake::{GreetingError, read_greeting, shown, write_greeting};
use super::{PeerInput, Peers};
use bytes::{Buf, BytesMut};
use core::time::Duration;
use proto::peer::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, Welcome, take_traced_frame};
use ring::NodeRef;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

const READ_BYTES_MIN: usize = 64 << 10;

/// What a browser or a client of the other port is told.
const HTTP_ANSWER: &[u8] =
    b"HTTP/1.1 421 Misdirected Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
This port is for kvnode's nodes among themselves. Clients use the client port, 8000 unless set otherwise.\n";

/// Takes connections of peers for as long as it is polled.
pub async fn serve_peers(listener: TcpListener, peers: Arc<Peers>) {
    let room = Arc::new(Semaphore::new(peers.options.connections_max));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                warn!("a connection of a peer could not be taken: {e}");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let permit = Arc::clone(&room).try_acquire_owned();
        let peers = Arc::clone(&peers);
        tokio::spawn(async move {
            if let Err(e) = hear(stream, from, &peers, permit.is_ok()).await {
                debug!(%from, "connection of a peer ended: {e}");
            }
            drop(permit);
        });
    }
}

async fn hear(mut stream: TcpStream, from: SocketAddr, peers: &Peers, has_room: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let greeting = welcome(&mut stream, from, peers, has_room);
    match timeout(peers.options.handshake_timeout, greeting).await {
        Ok(Ok(Some(sender))) => frames(stream, sender, peers).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no greeting came")),
    }
}

/// Hears who connects and answers; gives the sender if it is let in.
async fn welcome(
    stream: &mut TcpStream,
    from: SocketAddr,
    peers: &Peers,
    has_room: bool,
) -> io::Result<Option<NodeRef>> {
    let refusal = |why| Welcome {
        protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
        ring: peers.ring(),
        sender: peers.me,
        answer: Err(why),
    };
    let hello = match read_greeting(stream).await {
        Ok(body) => Hello::decode(body),
        Err(GreetingError::Io(e)) => return Err(e),
        Err(GreetingError::Malformed(e)) => Err(e),
        Err(GreetingError::Foreign(said)) => {
            if !said.is_empty() {
                if peers.may_complain(from.ip(), "foreign") {
                    warn!(%from, "something that is not a kvnode connected to the overlay port and said {}", shown(&said));
                }
                let is_http =
                    [&b"GET "[..], b"POST", b"HEAD", b"PUT ", b"PRI "].iter().any(|m| said.starts_with(m));
                if is_http {
                    stream.write_all(HTTP_ANSWER).await?;
                    stream.shutdown().await?;
                }
            }
            return Ok(None);
        }
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(e) => {
            if peers.may_complain(from.ip(), "greeting") {
                warn!(%from, "a peer's greeting cannot be read: {e}");
            }
            write_greeting(stream, &refusal(Refusal::Malformed).encode()).await?;
            return Ok(None);
        }
    };
    let answer = if has_room { hello.answer(peers.me, peers.ring()) } else { refusal(Refusal::Busy) };
    write_greeting(stream, &answer.encode()).await?;
    match answer.answer {
        Ok(_) => Ok(Some(hello.sender)),
        Err(why) => {
            let theirs = format!("{} to {}", hello.protocol.0, hello.protocol.1);
            debug!(peer = %hello.sender, expected = %hello.expected, theirs, "connection refused: {why:?}");
            Ok(None)
        }
    }
}

/// Reads frames; all that came at once goes to the event loop as one input.
async fn frames(mut stream: TcpStream, sender: NodeRef, peers: &Peers) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let (mut messages, mut traces) = (Vec::new(), Vec::new());
        while let Some(size) = frame_size(&buffer) {
            if size > peers.options.frame_bytes_max {
                let limit_bytes = peers.options.frame_bytes_max;
                if peers.may_complain(sender.addr.ip(), "frame too long") {
                    warn!(peer = %sender, size_bytes = size, limit_bytes, "a peer sends a frame that is too long");
                }
                return Ok(());
            }
            if buffer.len() < size + 4 {
                break;
            }
            buffer.advance(4);
            peers.traffic().frame_received(size + 4);
            match take_traced_frame(buffer.split_to(size).freeze()) {
                Ok(taken) => {
                    if taken.unknown > 0 {
                        let unknown = taken.unknown;
                        debug!(peer = %sender, unknown, "messages of a later version were passed over");
                    }
                    let before = messages.len();
                    traces.extend(taken.traces.into_iter().map(|(i, t)| (before + i, t)));
                    messages.extend(taken.messages);
                }
                Err(e) => {
                    if peers.may_complain(sender.addr.ip(), "unreadable") {
                        warn!(peer = %sender, "a peer sends what cannot be read: {e}");
                    }
                    return Ok(());
                }
            }
        }
        if !messages.is_empty() {
            let input = PeerInput::Messages { from: sender, messages, traces };
            if peers.inputs.send(input).await.is_err() {
                return Ok(());
            }
        }
        // Grows with what has come, not with what was announced.
        let wanted = frame_size(&buffer).map_or(0, |size| (size + 4).saturating_sub(buffer.len()));
        buffer.reserve(wanted.min(buffer.len()).max(READ_BYTES_MIN));
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

fn frame_size(buffer: &BytesMut) -> Option<usize> {
    let head: [u8; 4] = buffer.get(..4)?.try_into().ok()?;
    Some(usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX))
}
