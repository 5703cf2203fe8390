//! Wrong use: a clear error, the right exit code, and nothing changed.

use harness::grpc::{self, Grpc};
use harness::load::Client;
use harness::poll::{ensure, until};
use harness::process::{CLIENT_PORT, Node, OVERLAY_PORT, loopback, start_ring};
use harness::{Res, cli, http};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;
use tonic::Code;

/// A node that cannot begin says so within this.
const SAYS_SO_WITHIN: Duration = Duration::from_secs(20);

fn fails_with(mut node: Node, code: i32, words: &[&str]) -> Res<()> {
    let (status, _) = node.wait_exit(SAYS_SO_WITHIN)?;
    let said = node.log();
    ensure(status.code() == Some(code), || format!("it ended with {status}, not {code}; it said:\n{said}"))?;
    mentions(&said, words)
}

fn mentions(said: &str, words: &[&str]) -> Res<()> {
    for word in words {
        ensure(said.contains(word), || format!("{word:?} is not in what it said:\n{said}"))?;
    }
    Ok(())
}

/// It may go on trying, or end with 6 or 11; but it names the cause and is not ready.
fn cannot_join(mut node: Node, words: &[&str]) -> Res<()> {
    until("it says why it cannot join", SAYS_SO_WITHIN, || mentions(&node.log(), words))?;
    match node.ended() {
        None => {
            let answer = http::get(node.client_addr(), "/readyz");
            ensure(!matches!(answer, Ok((200, _))), || "it says that it is ready".to_owned())
        }
        Some(status) => ensure(matches!(status.code(), Some(6 | 11)), || {
            format!("it ended with {status}: {}", node.log())
        }),
    }
}

pub(crate) fn port_taken() -> Res<()> {
    for port in [OVERLAY_PORT, CLIENT_PORT] {
        let _holder =
            TcpListener::bind((loopback(2), port)).map_err(|e| format!("cannot take {port}: {e}"))?;
        let ip = loopback(2).to_string();
        let node = Node::start_with(loopback(2), &["--listen", &ip, "--join", &ip], &[])?;
        fails_with(node, 10, &[&format!("{ip}:{port}")])?;
    }
    Ok(())
}

pub(crate) fn foreign_address() -> Res<()> {
    // Reserved for documentation: never an address of a machine.
    let ip = Ipv4Addr::new(192, 0, 2, 1);
    fails_with(Node::start(ip, ip)?, 10, &["192.0.2.1"])
}

pub(crate) fn unresolvable_host() -> Res<()> {
    let args = ["--listen", &loopback(2).to_string(), "--join", "no-such-host.invalid"];
    cannot_join(Node::start_with(loopback(2), &args, &[])?, &["no-such-host.invalid"])
}

pub(crate) fn host_of_another_kind() -> Res<()> {
    let listener =
        TcpListener::bind((loopback(7), OVERLAY_PORT)).map_err(|e| format!("cannot listen: {e}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0u8; 64];
            // The asker may be gone already; then there is nobody to answer.
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    cannot_join(Node::start(loopback(2), loopback(7))?, &[&loopback(7).to_string()])
}

pub(crate) fn other_replication_factor() -> Res<()> {
    let nodes = start_ring(1)?;
    let (ip, join) = (loopback(3).to_string(), loopback(2).to_string());
    let args = ["--listen", &ip, "--join", &join, "--replication-factor", "5"];
    let mut node = Node::start_with(loopback(3), &args, &[])?;
    let (status, _) = node.wait_exit(SAYS_SO_WITHIN)?;
    let said = node.log();
    ensure(matches!(status.code(), Some(11 | 12)), || format!("it ended with {status}:\n{said}"))?;
    mentions(&said, &["3", "5", "replication"])?;
    nodes[0].wait_members(1, SAYS_SO_WITHIN)
}

pub(crate) fn key_too_long() -> Res<()> {
    let nodes = start_ring(1)?;
    let key = "k".repeat((64 << 10) + 1);
    let out = cli::run(&["put", "--endpoint", &nodes[0].endpoint(), &key, "v"])?;
    ensure(!matches!(out.code, Some(0 | 1) | None), || format!("put ended with {:?}", out.code))?;
    mentions(&out.stderr, &["65537", "64KiB"])
}

pub(crate) fn value_too_long() -> Res<()> {
    let nodes = start_ring(1)?;
    let mut client = Grpc::new(&nodes[0].endpoint())?;
    client.put_value("key", grpc::text("kept")).map_err(|s| s.to_string())?;
    let long = "v".repeat((16 << 20) + 1);
    match client.put_value("key", grpc::text(&long)) {
        Ok(version) => return Err(format!("it was written as version {version}")),
        Err(status) => {
            let code = status.code();
            ensure(matches!(code, Code::ResourceExhausted | Code::InvalidArgument), || status.to_string())?;
            mentions(status.message(), &["16777218", "16MiB"])?;
        }
    }
    let read = client.get("key")?;
    ensure(read.as_deref() == Some("kept"), || format!("the key holds {read:?}"))
}

/// Two rings that both have data meet: both say so, and neither gives up what it has.
pub(crate) fn two_rings_with_data() -> Res<()> {
    let put =
        |node: &Node, value| until("a write", SAYS_SO_WITHIN, || cli::put(&node.endpoint(), "whose", value));
    let other = Node::start(loopback(4), loopback(4))?;
    put(&other, "other")?;
    let (ip, join) = (loopback(2).to_string(), format!("{},{}", loopback(2), loopback(4)));
    let args = ["--listen", &ip, "--join", &join, "--create"];
    let one = Node::start_with(loopback(2), &args, &[])?;
    put(&one, "one")?;
    // A ring that lost a member knocks at its join addresses.
    let mut third = Node::start(loopback(3), loopback(2))?;
    third.wait_ready()?;
    third.kill()?;
    for (node, value) in [(&other, "other"), (&one, "one")] {
        until("it tells of the other ring", SAYS_SO_WITHIN, || {
            let status = grpc::status(&node.endpoint())?;
            ensure(!status.foreign_ring.is_empty(), || format!("{}: {status:?}", node.ip()))
        })?;
        let read = until("a read", SAYS_SO_WITHIN, || cli::get(&node.endpoint(), "whose"))?;
        ensure(read == value, || format!("{} gives {read:?}", node.ip()))?;
    }
    dissolves(&one, &other)
}

/// The operator gives up the second ring; its process goes on, as a member of the first.
fn dissolves(lives: &Node, goes: &Node) -> Res<()> {
    let told = cli::run(&["dissolve", "--endpoint", &goes.endpoint()])?;
    ensure(told.code == Some(8), || format!("dissolve ended with {:?}: {}", told.code, told.stderr))?;
    mentions(&told.stdout, &["about 1 keys", "nothing was done"])?;
    let kept = cli::get(&goes.endpoint(), "whose")?;
    ensure(kept == "other", || format!("a dry dissolve left {kept:?}"))?;
    let done = cli::run(&["dissolve", "--endpoint", &goes.endpoint(), "--yes"])?;
    ensure(done.code == Some(0), || format!("dissolve ended with {:?}: {}", done.code, done.stderr))?;
    until("its node is a member of the other ring", SAYS_SO_WITHIN, || {
        let read = cli::get(&goes.endpoint(), "whose")?;
        ensure(read == "one", || format!("it gives {read:?}"))
    })?;
    let (a, b) = (grpc::status(&lives.endpoint())?, grpc::status(&goes.endpoint())?);
    ensure(a.ring == b.ring, || format!("two rings: {a:?} and {b:?}"))?;
    let again = cli::run(&["dissolve", "--endpoint", &goes.endpoint(), "--yes"])?;
    ensure(again.code == Some(12), || format!("dissolve ended with {:?}: {}", again.code, again.stderr))?;
    mentions(&again.stderr, &["KV-NODE-006", "heard of no other ring"])
}

pub(crate) fn unknown_setting() -> Res<()> {
    let out = cli::run(&["--lisen", "127.0.0.1"])?;
    ensure(out.code == Some(2), || format!("it ended with {:?}: {}", out.code, out.stderr))?;
    mentions(&out.stderr, &["--lisen", "--listen"])?;
    let out = cli::run_with(&[], &[("KVNODE_LISEN", "127.0.0.1")])?;
    ensure(out.code == Some(2), || format!("it ended with {:?}: {}", out.code, out.stderr))?;
    mentions(&out.stderr, &["KVNODE_LISEN", "KVNODE_LISTEN"])
}

pub(crate) fn missing_key() -> Res<()> {
    let nodes = start_ring(1)?;
    for format in ["plain", "json"] {
        let out = cli::run(&["get", "--endpoint", &nodes[0].endpoint(), "nobody-wrote-this", "-o", format])?;
        ensure(out.code == Some(3), || format!("get ended with {:?}: {}", out.code, out.stderr))?;
        mentions(&format!("{}{}", out.stdout, out.stderr), &["nobody-wrote-this"])?;
    }
    Ok(())
}
