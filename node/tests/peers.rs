//! Transports on the loopback interface: what arrives, and what happens when the other side is not what it
//! should be.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]
use core::time::Duration;
use dht::Message;
use dht::message::{Era, SlotSet};
use kvnode::peer::{PeerError, PeerInput, PeerOptions, Peers, Transport, serve_peers};
use proto::peer::{Hello, Refusal, Welcome, put_message};
use ring::{NodeId, NodeRef};
use std::net::SocketAddr;
use std::sync::Arc;
use store::{Ballot, Key, Record, Stamp, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    me: NodeRef,
    peers: Arc<Peers>,
    transport: Transport,
    inputs: mpsc::Receiver<PeerInput>,
    hearing: JoinHandle<()>,
}

async fn node_at(id: u64, at: SocketAddr, options: PeerOptions) -> Node {
    let listener = TcpListener::bind(at).await.unwrap();
    let me = NodeRef { id: NodeId(id), addr: listener.local_addr().unwrap() };
    let (sender, inputs) = mpsc::channel(64);
    let peers = Peers::new(me, options, sender);
    let hearing = tokio::spawn(serve_peers(listener, Arc::clone(&peers)));
    Node { me, transport: Transport::new(Arc::clone(&peers)), peers, inputs, hearing }
}

async fn node(id: u64) -> Node {
    node_at(id, loopback(), PeerOptions::default()).await
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn abort(attempt: u64) -> Message {
    Message::HandoverAbort { attempt }
}

fn accept(value: Value) -> Message {
    Message::Accept {
        home: 0,
        slots: SlotSet::one(1),
        key: Key::new(b"key"),
        stamp: Stamp { ballot: Ballot { counter: 1, node: NodeId(2) }, n: 3 },
        era: Era { epoch: 1, tag: 2 },
        record: Record { version: 3, value: Some(value), ops: None },
    }
}

impl Node {
    fn send(&mut self, to: NodeRef, message: Message) {
        self.transport.stage(to, message);
        self.transport.flush();
    }

    async fn input(&mut self) -> PeerInput {
        timeout(PATIENCE, self.inputs.recv()).await.expect("an input in time").expect("an input")
    }

    /// Attempts of the next `n` aborts, passing over lost connections.
    async fn attempts(&mut self, n: usize) -> Vec<u64> {
        let mut seen = Vec::new();
        while seen.len() < n {
            if let PeerInput::Messages { messages, .. } = self.input().await {
                seen.extend(messages.iter().map(|m| match m {
                    Message::HandoverAbort { attempt } => *attempt,
                    other => panic!("not an abort: {other:?}"),
                }));
            }
        }
        seen
    }

    async fn lost(&mut self) -> NodeRef {
        loop {
            if let PeerInput::Lost(peer) = self.input().await {
                return peer;
            }
        }
    }

    async fn problem(&self) -> PeerError {
        for _ in 0..2000 {
            if let Some(p) = self.peers.problems().first() {
                return p.clone();
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("no problem was noted");
    }
}

/// Passes bytes on between whoever connects and `to`; what it was given is the end of all connections.
fn proxy(listener: TcpListener, to: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut passing = tokio::task::JoinSet::new();
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            passing.spawn(async move {
                let mut onwards = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut onwards).await;
            });
        }
    })
}

async fn greet_raw(to: SocketAddr, hello: &Hello) -> (TcpStream, Welcome) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let body = hello.encode();
    stream.write_all(&Hello::MAGIC).await.unwrap();
    stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut head = [0u8; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..8], Hello::MAGIC);
    let size = u32::from_le_bytes(head[8..].try_into().unwrap());
    let mut body = vec![0u8; usize::try_from(size).unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (stream, Welcome::decode(body.into()).unwrap())
}

fn hello(expected: u64, protocol: (u32, u32)) -> Hello {
    let sender = NodeRef { id: NodeId(77), addr: loopback() };
    Hello { protocol, ring: None, sender, expected: NodeId(expected) }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_in_order_in_both_directions() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    let (to_a, to_b) = (a.me, b.me);
    let n = 20_000u64;
    let sending = async {
        for i in 0..n {
            a.send(to_b, abort(i));
            b.send(to_a, abort(i));
            if i % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    sending.await;
    let (at_a, at_b) = tokio::join!(a.attempts(20_000), b.attempts(20_000));
    let expected: Vec<u64> = (0..n).collect();
    assert!(at_a == expected && at_b == expected);
    assert!(a.peers.flushed(PATIENCE).await);
}

#[tokio::test]
async fn a_message_by_address_reaches_whoever_listens_and_names_its_sender() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    a.send(NodeRef { id: NodeId::ANY, addr: b.me.addr }, abort(5));
    match b.input().await {
        PeerInput::Messages { from, messages, .. } => assert_eq!((from, messages), (a.me, vec![abort(5)])),
        PeerInput::Lost(peer) => panic!("lost {peer}"),
    }
    // To its own address goes nothing.
    a.send(NodeRef { id: NodeId::ANY, addr: a.me.addr }, abort(6));
    assert!(a.peers.flushed(PATIENCE).await);
}

#[tokio::test]
async fn a_broken_connection_is_reported_and_made_again() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let through = NodeRef { id: b.me.id, addr: at };
    let first = proxy(listener, b.me.addr);
    a.send(through, abort(1));
    assert_eq!(b.attempts(1).await, [1]);
    first.abort();
    assert_eq!(a.lost().await, through);
    let listener = TcpListener::bind(at).await.unwrap();
    let second = proxy(listener, b.me.addr);
    a.send(through, abort(2));
    assert_eq!(b.attempts(1).await, [2]);
    second.abort();
}

#[tokio::test]
async fn a_restarted_process_gets_nothing_that_was_for_the_old_one() {
    let mut a = node(1).await;
    let old = node(2).await;
    let old_ref = old.me;
    old.hearing.abort();
    assert!(old.hearing.await.is_err());
    let mut new = node_at(3, old_ref.addr, PeerOptions::default()).await;
    a.send(old_ref, abort(1));
    a.transport.stage(old_ref, abort(2));
    a.send(new.me, abort(3));
    assert_eq!(a.lost().await, old_ref);
    assert_eq!(new.attempts(1).await, [3]);
    // While the connection to the new one is open, too.
    a.send(old_ref, abort(4));
    a.send(new.me, abort(5));
    assert_eq!(a.lost().await, old_ref);
    assert_eq!(new.attempts(1).await, [5]);
    assert!(a.peers.flushed(PATIENCE).await);
}

#[tokio::test]
async fn something_else_at_a_peers_address_is_named_with_what_it_answered() {
    let mut a = node(1).await;
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut s, _) = listener.accept().await.unwrap();
            s.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
            let mut rest = Vec::new();
            let _ = s.read_to_end(&mut rest).await;
        }
    });
    a.send(NodeRef { id: NodeId::ANY, addr }, abort(1));
    let problem = a.problem().await;
    let answered = "\"SSH-2.0-OpenSSH\\r\\n\"".to_owned();
    assert_eq!(problem, PeerError::NotKvnode { addr, answered });
    assert!(problem.to_string().contains(&addr.to_string()) && problem.fix().contains("14195"));
}

#[tokio::test]
async fn nobody_at_a_peers_address_is_reported_and_what_waits_is_dropped_in_the_end() {
    let free = TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap();
    let options = PeerOptions { unreachable_after: Duration::from_millis(100), ..PeerOptions::default() };
    let mut a = node_at(1, loopback(), options).await;
    let nobody = NodeRef { id: NodeId(9), addr: free };
    a.send(nobody, abort(1));
    assert_eq!(a.lost().await, nobody);
    assert!(matches!(a.problem().await, PeerError::Connect { addr, .. } if addr == free));
    let drain = tokio::spawn(async move { while a.inputs.recv().await.is_some() {} });
    assert!(a.peers.flushed(PATIENCE).await);
    drain.abort();
}

#[tokio::test]
async fn a_browser_on_the_overlay_port_is_told_where_it_is() {
    let a = node(1).await;
    let mut s = TcpStream::connect(a.me.addr).await.unwrap();
    s.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = s.read_to_end(&mut said).await;
    assert!(String::from_utf8_lossy(&said).starts_with("HTTP/1.1 421"), "{said:?}");
}

#[tokio::test]
async fn another_protocol_version_is_refused_by_both_sides() {
    let mut a = node(1).await;
    let (_, welcome) = greet_raw(a.me.addr, &hello(0, (2, 9))).await;
    assert_eq!(welcome.answer, Err(Refusal::Version));
    let (_, welcome) = greet_raw(a.me.addr, &hello(0, (1, 9))).await;
    assert_eq!(welcome.answer, Ok(1));

    let listener = TcpListener::bind(loopback()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let sender = NodeRef { id: NodeId(5), addr };
        let later = Welcome { protocol: (2, 9), ring: None, sender, answer: Err(Refusal::Version) };
        let body = later.encode();
        loop {
            let (mut s, _) = listener.accept().await.unwrap();
            s.write_all(&Hello::MAGIC).await.unwrap();
            s.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).await.unwrap();
            s.write_all(&body).await.unwrap();
            let mut rest = Vec::new();
            let _ = s.read_to_end(&mut rest).await;
        }
    });
    a.send(NodeRef { id: NodeId(5), addr }, abort(1));
    assert_eq!(a.problem().await, PeerError::Version { addr, theirs: (2, 9) });
}

#[tokio::test]
async fn a_frame_that_is_too_long_or_cannot_be_read_ends_its_connection_only() {
    let mut a = node(1).await;
    let mut good = bytes::BytesMut::new();
    put_message(&mut good, &abort(8));
    for bad in [&u32::MAX.to_le_bytes()[..], &[3, 0, 0, 0, 0x0a, 200, 1], &[1, 0, 0, 0, 0x07]] {
        let (mut s, welcome) = greet_raw(a.me.addr, &hello(1, (1, 1))).await;
        assert_eq!(welcome.answer, Ok(1));
        s.write_all(&u32::try_from(good.len()).unwrap().to_le_bytes()).await.unwrap();
        s.write_all(&good).await.unwrap();
        assert_eq!(a.attempts(1).await, [8]);
        s.write_all(bad).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, s.read_to_end(&mut rest)).await.expect("closed in time");
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn a_wrong_destination_is_refused_with_the_real_id() {
    let a = node(1).await;
    let (_, welcome) = greet_raw(a.me.addr, &hello(4, (1, 1))).await;
    assert_eq!((welcome.answer, welcome.sender), (Err(Refusal::WrongNode), a.me));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_16_mib_arrives() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    let big = accept(Value::bytes(&vec![7u8; 16 << 20]));
    a.transport.stage(b.me, abort(1));
    a.transport.stage(b.me, big.clone());
    a.send(b.me, abort(2));
    let mut got = Vec::new();
    while got.len() < 3 {
        if let PeerInput::Messages { messages, .. } = b.input().await {
            got.extend(messages);
        }
    }
    assert!(got == [abort(1), big, abort(2)]);
}

#[tokio::test]
async fn a_message_longer_than_a_frame_is_left_out() {
    let options = PeerOptions { frame_bytes_max: 1000, ..PeerOptions::default() };
    let (mut a, mut b) = (node_at(1, loopback(), options).await, node(2).await);
    a.transport.stage(b.me, abort(1));
    a.transport.stage(b.me, accept(Value::bytes(&[7u8; 2000])));
    a.send(b.me, abort(2));
    assert_eq!(b.attempts(2).await, [1, 2]);
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest() {
    let options = PeerOptions { queue_bytes_max: 10_000, ..PeerOptions::default() };
    let (mut a, mut b) = (node_at(1, loopback(), options).await, node(2).await);
    // In one turn, so that nothing is written in between.
    for i in 0..1000 {
        a.transport.stage(b.me, abort(i));
    }
    a.transport.flush();
    let first = b.attempts(1).await;
    assert!(first[0] > 800, "{first:?}");
    assert!(a.peers.flushed(PATIENCE).await);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_made_again_when_needed() {
    let options = PeerOptions { idle_after: Duration::from_millis(30), ..PeerOptions::default() };
    let (mut a, mut b) = (node_at(1, loopback(), options).await, node(2).await);
    for i in 0..3 {
        a.send(b.me, abort(i));
        assert_eq!(b.attempts(1).await, [i]);
        sleep(Duration::from_millis(150)).await;
    }
    assert!(a.inputs.try_recv().is_err(), "an idle end is not a loss");
}
