//! One node that sees a ring of many members.
//!
//! The node is a real one, with its event loop, client port and dashboard, and has just joined. The others are what
//! it was told when it was let in: their arcs grow by the rules of placement, as if they had come one after
//! another. Nobody else runs, so this node's messages go nowhere and it suspects nobody.

use crate::Res;
use dht::message::RingInfo;
use dht::{Config, DhtNode, Message, Request};
use kvnode::event_loop::{Clock, EventLoop};
use kvnode::grpc::ServerInfo;
use kvnode::handle::NodeHandle;
use kvnode::http::serve_clients;
use kvnode::peer::{PeerInput, PeerOptions, Peers};
use ring::members::{MemberInfo, MemberState};
use ring::placement::{arcs, choose_end};
use ring::{NodeId, NodeRef, Position, RingId, Space};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(86_400);
const QUEUE_MAX: usize = 256;

fn node(i: u32) -> NodeRef {
    let [_, _, b, c] = i.to_be_bytes();
    NodeRef { id: NodeId(u64::from(i) + 1000), addr: SocketAddr::from(([127, 200, b, c], 1)) }
}

/// The members of a ring of so many nodes, and the end that the next one is to wish for.
pub fn members(n: u32) -> Res<(Vec<MemberInfo>, Position)> {
    let space = Space::new(3).ok_or("three is no replication factor")?;
    let mut ends = vec![(node(0).id, 0)];
    for i in 1..n {
        let jitter = u64::from(i).wrapping_mul(7919);
        ends.push((node(i).id, choose_end(&space, &ends, node(i).id, jitter)));
    }
    let placed = arcs(&space, &ends);
    let member = |(i, (id, end)): (u32, &(NodeId, Position))| {
        let arc = placed.iter().find(|a| a.node == *id && !a.is_empty);
        MemberInfo {
            node: node(i),
            client_addr: Some(SocketAddr::new(node(i).addr.ip(), 8000)),
            incarnation: 2,
            state: MemberState::Alive,
            end: *end,
            owned: arc.map_or_else(Vec::new, |a| space.pieces(a.from, a.to)),
            keys: u64::from(i % 97) * 1000,
            bytes: u64::from(i % 89) << 20,
            extra: Vec::new(),
        }
    };
    let next = choose_end(&space, &ends, node(n).id, u64::from(n).wrapping_mul(7919));
    Ok(((0..n).zip(&ends).map(member).collect(), next))
}

/// Runs the last node of a ring of so many until the process ends; gives where it answers clients.
pub fn start(ip: Ipv4Addr, n: u32) -> Res<SocketAddr> {
    let (told, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let done = runtime.map_err(|e| format!("cannot make a runtime: {e}")).and_then(|r| {
            r.block_on(async {
                let addr = serve(ip, n).await?;
                let _ = told.send(Ok(addr));
                std::future::pending::<Res<()>>().await
            })
        });
        if let Err(e) = done {
            let _ = told.send(Err(e));
        }
    });
    ready.recv().map_err(|e| format!("the node of a large ring ended: {e}"))?
}

async fn serve(ip: Ipv4Addr, n: u32) -> Res<SocketAddr> {
    let fail = |e: std::io::Error| format!("cannot listen at {ip}: {e}");
    let listener = tokio::net::TcpListener::bind((ip, 0)).await.map_err(fail)?;
    let client = listener.local_addr().map_err(fail)?;
    let me = NodeRef { id: NodeId(1), addr: SocketAddr::new(ip.into(), client.port()) };
    let (inputs, waiting) = mpsc::channel(QUEUE_MAX);
    let (handle, calls) = NodeHandle::channel(QUEUE_MAX);
    let (events, mut announced) = mpsc::channel(4096);
    // Nobody is there: that no connection can be made is not for the node to know.
    let (unheard, mut lost) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move { while lost.recv().await.is_some() {} });
    let peers = Peers::new(me, PeerOptions::default(), unheard);
    let clock = Clock::start();
    // It pings nobody, moves nothing and takes over nothing: what it sees stays as it was told.
    let config = Config {
        ping_interval: NEVER,
        suspect_after: 2 * NEVER,
        dead_after: 3 * NEVER,
        duty_interval: NEVER,
        settle_time: NEVER,
        ..Config::default()
    };
    let core = DhtNode::new(config, me, Some(client), 7, clock.now());
    tokio::spawn(EventLoop::new(core, clock, peers, waiting, calls, events).run());
    tokio::spawn(async move { while announced.recv().await.is_some() {} });
    let info = ServerInfo::new(me.addr, client);
    tokio::spawn(serve_clients(listener, handle.clone(), info, CancellationToken::new()));
    let ended = |e| format!("the event loop does not answer: {e:?}");
    let seeds = vec![node(0).addr];
    let start = Request::Start { seeds, creates_at_once: false, replication_factor: None };
    handle.request(start).await.map_err(ended)?;
    let (members, end) = members(n - 1)?;
    let info = RingInfo { ring: RingId(7), replication_factor: 3, strength: (1, 7) };
    let messages = vec![Message::JoinAccepted { info, end, members }];
    let let_in = PeerInput::Messages { from: node(0), messages, traces: Vec::new() };
    inputs.send(let_in).await.map_err(|_| "the event loop has ended".to_owned())?;
    // The event loop ends with whoever can speak to it.
    tokio::spawn(async move { inputs.closed().await });
    Ok(client)
}
