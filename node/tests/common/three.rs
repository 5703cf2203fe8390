//! A ring of three nodes in this process, with real sockets.

use client::{Client, Value};
use kvnode::run::{Listen, Settings, run};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Three nodes in this process; they end with it.
pub(crate) struct Ring {
    pub(crate) nodes: JoinSet<()>,
    /// Where they answer clients.
    pub(crate) clients: Vec<String>,
}

/// Starts one and waits until it takes a write.
pub(crate) async fn ring() -> Ring {
    ring_with(|_, settings| settings).await
}

/// Starts one of nodes with other settings, by their number from 1.
pub(crate) async fn ring_with(change: impl Fn(u8, Settings) -> Settings) -> Ring {
    // Rings of tests that run at the same time do not share addresses.
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, _, low] = std::process::id().to_be_bytes();
    let third = NEXT.fetch_add(1, Ordering::SeqCst);
    let ip = |i: u8| IpAddr::V4(Ipv4Addr::new(127, 50, low, third.wrapping_mul(8) + i));
    let mut ring = Ring { nodes: JoinSet::new(), clients: Vec::new() };
    for i in 1..=3 {
        let client = SocketAddr::new(ip(i), 8000);
        let join = if i == 1 {
            Vec::new()
        } else {
            vec![format!("{}", SocketAddr::new(ip(1), 14195)).parse().unwrap()]
        };
        let settings = Settings {
            listen: Listen::At(SocketAddr::new(ip(i), 14195)),
            http_listen: Some(client),
            join,
            create: i == 1,
            ..Settings::default()
        };
        let settings = change(i, settings);
        ring.nodes.spawn(async move {
            let _ = run(settings).await;
        });
        ring.clients.push(client.to_string());
    }
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(kv) = Client::connect(ring.clients.clone()).await
            && let Ok(status) = kv.status().await
            && status.members_alive == 3
            && kv.put("ready", Value::int(1)).await.is_ok()
        {
            return ring;
        }
        assert!(Instant::now() < until, "the ring did not form");
        sleep(Duration::from_millis(50)).await;
    }
}
