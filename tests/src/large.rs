//! One node that sees a ring of many members.
//!
//! The node is a real one, with its event loop, client port and dashboard, and has just joined. The others are what
//! it was told when it was let in: a ring that the simulator formed and wrote keys to. Nobody else runs, so this node's
//! messages go nowhere and it suspects nobody.

use crate::Res;
use bytes::Bytes;
use dht::{Config, DhtNode, Message, Request};
use kvnode::event_loop::{Clock, EventLoop};
use kvnode::grpc::ServerInfo;
use kvnode::handle::NodeHandle;
use kvnode::http::serve_clients;
use kvnode::peer::{PeerInput, PeerOptions, Peers};
use proto::peer::take_frame;
use ring::{NodeId, NodeRef};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(86_400);
const QUEUE_MAX: usize = 256;

/// What the simulator's newcomer was told: `sim/examples/large_ring.rs` says how it is made.
const TOLD: &[u8] = include_bytes!("../data/ring-1000.bin");

/// Where nobody is: the simulator's hosts, as addresses of this machine only.
fn nowhere(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => {
            let [_, _, high, low] = ip.octets();
            SocketAddr::from(([127, 200, high, low], addr.port()))
        }
        IpAddr::V6(_) => addr,
    }
}

/// The message that let the simulator's last node in, and who sent it.
fn told() -> Res<(NodeRef, Message)> {
    let (messages, _) = take_frame(Bytes::from_static(TOLD)).map_err(|e| format!("the large ring: {e}"))?;
    let Some(Message::JoinAccepted { info, end, mut members }) = messages.into_iter().next() else {
        return Err("the large ring's file holds no JoinAccepted".to_owned());
    };
    for m in &mut members {
        m.node.addr = nowhere(m.node.addr);
        m.client_addr = m.client_addr.map(nowhere);
    }
    let from = members.first().ok_or("the large ring has no members")?.node;
    Ok((from, Message::JoinAccepted { info, end, members }))
}

/// Runs the last node of a ring of a thousand until the process ends; gives where it answers clients.
pub fn start(ip: Ipv4Addr) -> Res<SocketAddr> {
    let (told, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let done = runtime.map_err(|e| format!("cannot make a runtime: {e}")).and_then(|r| {
            r.block_on(async {
                let addr = serve(ip).await?;
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

async fn serve(ip: Ipv4Addr) -> Res<SocketAddr> {
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
    let (from, message) = told()?;
    let seeds = vec![from.addr];
    let start = Request::Start { seeds, creates_at_once: false, replication_factor: None };
    handle.request(start).await.map_err(ended)?;
    let let_in = PeerInput::Messages { from, messages: vec![message], traces: Vec::new() };
    inputs.send(let_in).await.map_err(|_| "the event loop has ended".to_owned())?;
    // The event loop ends with whoever can speak to it.
    tokio::spawn(async move { inputs.closed().await });
    Ok(client)
}
