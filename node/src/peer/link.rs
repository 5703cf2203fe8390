//! One peer's queue, and the task that connects and writes.

use super::handshake::greet;
use super::{PeerError, PeerInput, Peers};
use bytes::{BufMut, BytesMut};
use core::time::Duration;
use dht::counters::MessageKind;
use dht::{Message, Trace};
use parking_lot::Mutex;
use proto::peer::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, put_traced_message, size_estimate};
use ring::{NodeId, NodeRef};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// Ids remembered that are not, and never will be, at this address.
const GONE_MAX: usize = 64;
/// A connection that lasted this long was a good one.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// A write buffer larger than this is not kept for the next batch.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// A message and whom it is for.
#[derive(Debug)]
pub(super) struct Item {
    to: NodeId,
    size: usize,
    message: Message,
    trace: Option<Trace>,
}

impl Item {
    pub(super) fn new(to: NodeId, message: Message, trace: Option<Trace>) -> Item {
        Item { to, size: size_estimate(&message), message, trace }
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    is_closed: bool,
}

/// What waits for the processes at one address.
#[derive(Debug)]
pub(super) struct Link {
    addr: SocketAddr,
    queue: Mutex<Queue>,
    wake: Notify,
}

/// Begins a link: its task connects when there is something to send, and ends when there was nothing for long.
pub(super) fn start(addr: SocketAddr, peers: &Arc<Peers>) -> Arc<Link> {
    let link = Arc::new(Link { addr, queue: Mutex::new(Queue::default()), wake: Notify::new() });
    tokio::spawn(run(Arc::clone(&link), Arc::clone(peers)));
    link
}

impl Link {
    /// Takes all of `items`, dropping the oldest beyond the bound; takes none if the task has ended.
    pub(super) fn push(&self, items: &mut Vec<Item>, peers: &Peers) -> bool {
        let mut dropped = 0usize;
        {
            let mut queue = self.queue.lock();
            if queue.is_closed {
                return false;
            }
            peers.add_waiting(items.len());
            for item in items.drain(..) {
                queue.bytes += item.size;
                queue.items.push_back(item);
            }
            while queue.bytes > peers.options.queue_bytes_max && queue.items.len() > 1 {
                let Some(oldest) = queue.items.pop_front() else { break };
                queue.bytes -= oldest.size;
                dropped += 1;
            }
        }
        if dropped > 0 {
            peers.sub_waiting(dropped);
            debug!(peer = %self.addr, dropped, "messages dropped: the peer takes them too slowly");
        }
        self.wake.notify_one();
        true
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().is_closed
    }

    /// Ends the link; what waits is dropped.
    pub(super) fn close(&self, peers: &Peers) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        peers.sub_waiting(queue.items.len());
        queue.items.clear();
        queue.bytes = 0;
        self.wake.notify_one();
    }

    /// Drops what `is_wanted` does not want and gives back for whom it was.
    fn retain(&self, peers: &Peers, is_wanted: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut gone = Vec::new();
        let mut queue = self.queue.lock();
        let before = queue.items.len();
        queue.items.retain(|i| {
            let keep = is_wanted(i.to);
            if !keep && i.to != NodeId::ANY && !gone.contains(&i.to) {
                gone.push(i.to);
            }
            keep
        });
        queue.bytes = queue.items.iter().map(|i| i.size).sum();
        peers.sub_waiting(before - queue.items.len());
        gone
    }

    /// Whom the first message is for, once there is one; none if the link has ended.
    async fn next_receiver(&self, idle_after: Duration) -> Option<NodeId> {
        loop {
            {
                let queue = self.queue.lock();
                if queue.is_closed {
                    return None;
                }
                if let Some(first) = queue.items.front() {
                    return Some(first.to);
                }
            }
            if timeout(idle_after, self.wake.notified()).await.is_err() {
                let mut queue = self.queue.lock();
                queue.is_closed |= queue.items.is_empty();
            }
        }
    }

    /// The next messages for `peer`, about `bytes_max` of them, and whom the first message after them is for.
    fn take(&self, peer: NodeId, bytes_max: usize) -> (Vec<Item>, Option<NodeId>) {
        let mut queue = self.queue.lock();
        let (mut taken, mut size) = (Vec::new(), 0);
        while let Some(first) = queue.items.front() {
            if first.to != peer && first.to != NodeId::ANY {
                return (taken, Some(first.to));
            }
            if size > 0 && size + first.size > bytes_max {
                break;
            }
            let Some(item) = queue.items.pop_front() else { break };
            size += item.size;
            queue.bytes -= item.size;
            taken.push(item);
        }
        (taken, None)
    }
}

/// How a connection ended.
enum End {
    /// It broke.
    Broken(String),
    /// Nothing was sent for long, or the link was closed.
    Idle,
    /// A message waits for another process at this address.
    OtherReceiver,
}

async fn run(link: Arc<Link>, peers: Arc<Peers>) {
    let options = &peers.options;
    let mut backoff = options.backoff_min;
    let mut failing_since: Option<Instant> = None;
    let mut gone: VecDeque<NodeId> = VecDeque::new();
    while let Some(expected) = link.next_receiver(options.idle_after).await {
        if gone.contains(&expected) {
            let dropped = link.retain(&peers, |id| !gone.contains(&id));
            lost(&link, &peers, &dropped).await;
            continue;
        }
        match connect(&link, &peers, expected).await {
            Ok((stream, peer)) => {
                let since = Instant::now();
                failing_since = None;
                if peers.note(link.addr, None) && peers.may_complain(link.addr.ip(), "reachable again") {
                    info!(peer = %peer, "peer is reachable again");
                }
                match write_all_messages(&link, &peers, stream, peer).await {
                    End::Idle | End::OtherReceiver => {}
                    End::Broken(cause) => {
                        debug!(peer = %peer, cause, "connection lost");
                        lost(&link, &peers, &[peer.id]).await;
                        // One that breaks as soon as it is made is not to be made in a hurry.
                        if since.elapsed() > STABLE_AFTER {
                            backoff = options.backoff_min;
                        }
                        sleep(jittered(backoff)).await;
                        backoff = (backoff * 2).min(options.backoff_max);
                    }
                }
            }
            Err(e) => {
                report(&link, &peers, &e);
                if let PeerError::WrongNode { real, .. } = e
                    && expected != NodeId::ANY
                {
                    let dropped = link.retain(&peers, |id| id == real || id == NodeId::ANY);
                    gone.extend(&dropped);
                    while gone.len() > GONE_MAX {
                        gone.pop_front();
                    }
                    lost(&link, &peers, &dropped).await;
                    continue;
                }
                lost(&link, &peers, &[expected]).await;
                let since = *failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > options.unreachable_after {
                    link.retain(&peers, |_| false);
                }
                sleep(jittered(backoff)).await;
                backoff = (backoff * 2).min(options.backoff_max);
            }
        }
    }
}

/// Tells the log what is wrong with an address: when that is news, and at most once a minute of each kind.
fn report(link: &Link, peers: &Peers, problem: &PeerError) {
    if !peers.note(link.addr, Some(problem)) || !peers.may_complain(link.addr.ip(), problem.kind()) {
        return;
    }
    match problem {
        PeerError::WrongNode { .. } | PeerError::Connect { .. } => info!(peer = %link.addr, "{problem}"),
        PeerError::Silent { .. }
        | PeerError::NotKvnode { .. }
        | PeerError::Malformed { .. }
        | PeerError::Version { .. }
        | PeerError::Refused { .. } => warn!(peer = %link.addr, fix = problem.fix(), "{problem}"),
    }
}

/// Hints to the event loop; a message by address has nobody to name.
async fn lost(link: &Link, peers: &Peers, ids: &[NodeId]) {
    for id in ids.iter().filter(|id| **id != NodeId::ANY) {
        let hint = PeerInput::Lost(NodeRef { id: *id, addr: link.addr });
        // Without an event loop nobody cares.
        let _ = peers.inputs.send(hint).await;
    }
}

/// Between half of `pause` and all of it, so that nodes that lost the same peer do not return in step.
fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

async fn connect(link: &Link, peers: &Peers, expected: NodeId) -> Result<(TcpStream, NodeRef), PeerError> {
    let (addr, options) = (link.addr, &peers.options);
    let failed = |cause: String| PeerError::Connect { addr, cause };
    let connecting = timeout(options.connect_timeout, TcpStream::connect(addr)).await;
    let mut stream = connecting
        .map_err(|_| failed(format!("no answer within {} ms", options.connect_timeout.as_millis())))?
        .map_err(|e| failed(e.to_string()))?;
    let prepared = stream.set_nodelay(true).and_then(|()| {
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(options.unacknowledged_max))
    });
    if let Err(e) = prepared {
        debug!(peer = %addr, "a socket option could not be set: {e}");
    }
    let protocol = (PROTOCOL_MIN, PROTOCOL_MAX);
    let hello = Hello { protocol, ring: peers.ring(), sender: peers.me, expected };
    let greeting = timeout(options.handshake_timeout, greet(&mut stream, &hello, addr)).await;
    let welcome = greeting.map_err(|_| {
        let cause = format!("nothing came within {} ms", options.handshake_timeout.as_millis());
        PeerError::Silent { addr, cause }
    })??;
    if welcome.sender.id == peers.me.id {
        return Err(PeerError::Refused { addr, why: "it is this node itself" });
    }
    Ok((stream, NodeRef { id: welcome.sender.id, addr }))
}

/// Writes what comes until the connection ends.
async fn write_all_messages(link: &Link, peers: &Peers, stream: TcpStream, peer: NodeRef) -> End {
    let options = &peers.options;
    let (mut reader, mut writer) = stream.into_split();
    let ended = wait_for_end(&mut reader);
    let idle = sleep(options.idle_after);
    tokio::pin!(ended, idle);
    let (mut buffer, mut has_sent) = (BytesMut::new(), false);
    loop {
        let (items, other) = link.take(peer.id, options.batch_bytes_max);
        if items.is_empty() {
            if other.is_some() {
                return End::OtherReceiver;
            }
            if link.is_closed() {
                return End::Idle;
            }
            tokio::select! {
                () = link.wake.notified() => {}
                cause = &mut ended => return End::Broken(cause),
                () = &mut idle => {
                    if !has_sent {
                        return End::Idle;
                    }
                    has_sent = false;
                    idle.as_mut().reset(Instant::now() + options.idle_after);
                }
            }
            continue;
        }
        let count = items.len();
        encode(&mut buffer, items, peers, peer);
        let written = tokio::select! {
            done = writer.write_all(&buffer) => done.map_err(|e| e.to_string()),
            cause = &mut ended => Err(cause),
        };
        peers.sub_waiting(count);
        if let Err(cause) = written {
            return End::Broken(cause);
        }
        buffer.clear();
        if buffer.capacity() > BUFFER_KEPT_BYTES {
            buffer = BytesMut::new();
        }
        has_sent = true;
    }
}

/// One frame of all items, or several where one would be too long.
fn encode(buffer: &mut BytesMut, items: Vec<Item>, peers: &Peers, peer: NodeRef) {
    let frame_bytes_max = peers.options.frame_bytes_max;
    let mut begin = begin_frame(buffer);
    for item in items {
        let before = buffer.len();
        put_traced_message(buffer, &item.message, item.trace);
        peers.traffic().encoded(MessageKind::of(&item.message), buffer.len() - before);
        if buffer.len() - begin - 4 <= frame_bytes_max {
            continue;
        }
        let last = buffer.split_off(before);
        end_frame(buffer, begin);
        begin = begin_frame(buffer);
        if last.len() <= frame_bytes_max {
            buffer.unsplit(last);
        } else {
            let size_bytes = last.len();
            // Rare: the core bounds what it puts into one message.
            warn!(peer = %peer, size_bytes, limit_bytes = frame_bytes_max, "a message is too long and was not sent");
        }
    }
    end_frame(buffer, begin);
}

fn begin_frame(buffer: &mut BytesMut) -> usize {
    let begin = buffer.len();
    buffer.put_u32_le(0);
    begin
}

fn end_frame(buffer: &mut BytesMut, begin: usize) {
    let size = u32::try_from(buffer.len() - begin - 4).unwrap_or(u32::MAX);
    buffer[begin..begin + 4].copy_from_slice(&size.to_le_bytes());
}

/// The other side says nothing after its welcome; it is read to notice that it goes.
async fn wait_for_end(reader: &mut OwnedReadHalf) -> String {
    let mut ignored = [0u8; 64];
    loop {
        match reader.read(&mut ignored).await {
            Ok(0) => return "the peer closed it".to_owned(),
            Ok(_) => {}
            Err(e) => return e.to_string(),
        }
    }
}
