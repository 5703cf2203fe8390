//! The event loop around a core.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::time::Duration;
use dht::{Config, DhtNode};
use kvnode::event_loop::{Clock, EventLoop};
use kvnode::handle::NodeHandle;
use kvnode::peer::{PeerInput, PeerOptions, Peers};
use ring::{NodeId, NodeRef};
use tokio::sync::mpsc;
use tokio::time::timeout;

#[tokio::test]
async fn the_loop_takes_inputs_and_ends_when_nobody_can_ask_any_more() {
    let me = NodeRef { id: NodeId(1), addr: "127.0.0.1:1".parse().unwrap() };
    let (inputs, waiting) = mpsc::channel(4);
    let (handle, calls) = NodeHandle::channel(4);
    let (events, _announced) = mpsc::channel(4);
    let peers = Peers::new(me, PeerOptions::default(), inputs.clone());
    let clock = Clock::start();
    let node = DhtNode::new(Config::default(), me, None, 7, clock.now());
    let running = tokio::spawn(EventLoop::new(node, clock, peers, waiting, calls, events).run());
    // More than the channel holds, so that they are taken.
    for id in 2..40 {
        inputs.send(PeerInput::Lost(NodeRef { id: NodeId(id), addr: me.addr })).await.unwrap();
    }
    drop(handle);
    timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
}
