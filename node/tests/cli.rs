//! The command line as a process, against the client port of a node without a ring.

#![allow(clippy::unwrap_used)]

mod common;

use common::{DEAD_KEY, FakeNode, LOST_KEY, fake_node};
use std::io::Write;
use std::process::{Command, Stdio};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

async fn kvnode(node: Option<&FakeNode>, env: &[(&str, &str)], args: &[&str], stdin: &[u8]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvnode"));
    command.args(args).env_clear().envs(env.iter().copied());
    if let Some(node) = node {
        command.env("KVNODE_ENDPOINT", node.addr.to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = stdin.to_vec();
    let run = move || {
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(&stdin);
        child.wait_with_output().unwrap()
    };
    let o = tokio::task::spawn_blocking(run).await.unwrap();
    Ran {
        code: o.status.code().unwrap(),
        out: String::from_utf8_lossy(&o.stdout).into_owned(),
        err: String::from_utf8_lossy(&o.stderr).into_owned(),
    }
}

async fn on(node: &FakeNode, args: &[&str]) -> Ran {
    kvnode(Some(node), &[], args, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_written_read_and_removed() {
    let node = fake_node().await;
    let r = on(&node, &["put", "k", "hello"]).await;
    assert_eq!((r.code, r.out.as_str()), (0, ""), "{}", r.err);
    let r = on(&node, &["get", "k"]).await;
    assert_eq!((r.code, r.out.as_str()), (0, "hello\n"));
    let r = on(&node, &["get", "k", "-o", "json"]).await;
    assert_eq!(r.out, "{\"key\":\"k\",\"type\":\"string\",\"value\":\"hello\",\"version\":1}\n");
    let r = on(&node, &["get", "k", "-o", "table"]).await;
    assert!(r.out.starts_with("KEY  VERSION  TYPE"), "{}", r.out);
    assert_eq!(on(&node, &["cas", "k", "hello", "bye"]).await.code, 0);
    let r = on(&node, &["cas", "k", "hello", "bye"]).await;
    assert_eq!(r.code, 4);
    assert!(r.err.contains("KV-CON-003") && r.err.contains("fix"), "{}", r.err);
    assert_eq!(on(&node, &["del", "k"]).await.code, 0);
    let r = on(&node, &["get", "k"]).await;
    assert_eq!((r.code, r.out.as_str()), (3, ""));
    assert!(r.err.contains("KV-KEY-001") && r.err.contains("\"k\" not found"), "{}", r.err);
    assert_eq!(on(&node, &["del", "k"]).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_have_types() {
    let node = fake_node().await;
    on(&node, &["put", "j", "--json", "{\"a\": [1, 2.5, null, 12345678901234567890123]}"]).await;
    let r = on(&node, &["get", "j"]).await;
    assert_eq!(r.out, "{\"a\":[1,2.5,null,12345678901234567890123]}\n");
    assert_eq!(on(&node, &["incr", "n"]).await.out, "1\n");
    assert_eq!(on(&node, &["incr", "n", "-11"]).await.out, "-10\n");
    let r = kvnode(Some(&node), &[], &["put", "b", "--file", "-"], b"\x00\xff raw").await;
    assert_eq!(r.code, 0, "{}", r.err);
    let r = on(&node, &["get", "b", "-o", "json"]).await;
    assert!(r.out.contains("\"$bytes\":\"AP8gcmF3\""), "{}", r.out);
    let r = on(&node, &["put", "j", "--json", "{broken"]).await;
    assert_eq!(r.code, 2);
    assert!(r.err.contains("KV-VAL-002"), "{}", r.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_json_when_asked_for() {
    let node = fake_node().await;
    for (args, code, exit) in [
        (vec!["get", "missing", "-o", "json"], "KV-KEY-001", 3),
        (vec!["-o", "json", "put", LOST_KEY, "x"], "KV-OP-002", 5),
        (vec!["put", DEAD_KEY, "x", "--timeout", "300ms", "--output", "json"], "KV-OP-001", 5),
        (vec!["get", "k", "--endpoint", "127.0.0.1:1", "-o", "json"], "KV-CONN-001", 6),
        (vec!["get", "k", "--endpoint", "no.such.host.invalid:1", "-o", "json"], "KV-CONN-001", 6),
        (vec!["gte", "k", "-o", "json"], "KV-CFG-001", 2),
        (vec!["-o", "json", "--lisen", "10.0.0.1"], "KV-CFG-001", 2),
    ] {
        let r = on(&node, &args).await;
        let json: serde_json::Value =
            serde_json::from_str(&r.err).unwrap_or_else(|e| panic!("{e}: {}", r.err));
        let error = &json["error"];
        assert_eq!(error["code"], code, "{}", r.err);
        assert_eq!((r.code, r.out.as_str()), (exit, ""), "{}", r.err);
        assert!(!error["cause"].as_str().unwrap().is_empty() && !error["fix"].as_str().unwrap().is_empty());
    }
    let r = on(&node, &["put", LOST_KEY, "x", "-o", "json"]).await;
    assert!(r.err.contains("\"outcome\":\"unknown\""), "{}", r.err);
    let r = on(&node, &["--lisen", "10.0.0.1"]).await;
    assert!(r.err.contains("--listen"), "{}", r.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ring_is_shown() {
    let node = fake_node().await;
    let r = on(&node, &["status"]).await;
    assert_eq!(r.code, 0, "{}", r.err);
    assert!(r.out.starts_with("1 node, 3 replicas, can lose 0 nodes\n"), "{}", r.out);
    assert!(on(&node, &["members"]).await.out.contains("alive"));
    assert_eq!(on(&node, &["ring"]).await.out.lines().count(), 4);
    assert!(on(&node, &["locate", "k"]).await.out.contains("home"));
    for what in ["status", "members", "ring"] {
        let r = on(&node, &[what, "-o", "json"]).await;
        serde_json::from_str::<serde_json::Value>(&r.out).unwrap();
    }
    for _ in 0..20 {
        if on(&node, &["healthcheck"]).await.code == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(on(&node, &["healthcheck"]).await.code, 0);
    assert_eq!(on(&node, &["leave"]).await.code, 0);
    assert_eq!(on(&node, &["status"]).await.code, 8);
    let r = on(&node, &["healthcheck"]).await;
    assert_eq!(r.code, 1);
    assert!(r.err.contains("it has left"), "{}", r.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_benchmark_counts() {
    let node = fake_node().await;
    let args = ["bench", "--clients", "4", "--duration", "300ms", "--keys", "50", "-o", "json"];
    let r = on(&node, &args).await;
    assert_eq!(r.code, 0, "{}", r.err);
    let json: serde_json::Value = serde_json::from_str(&r.out).unwrap();
    assert!(json["reads"]["done"].as_u64().unwrap() > 0 && json["writes"]["done"].as_u64().unwrap() > 0);
    assert_eq!(json["writes"]["unknown"], 0);
    assert_eq!(on(&node, &["bench", "--ratio", "2"]).await.code, 2);
}

#[tokio::test]
async fn settings_know_where_they_came_from_and_wrong_ones_are_refused() {
    let env = [("LISTEN_ADDRESS", "10.2.1.4"), ("JOIN_IP", "10.2.1.3")];
    let r = kvnode(None, &env, &["config", "show", "--origin", "--dead-after", "2s"], b"").await;
    assert_eq!(r.code, 0, "{}", r.err);
    let line = |name: &str| r.out.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("listen ").ends_with("LISTEN_ADDRESS"), "{}", r.out);
    assert!(line("dead-after").ends_with("flag") && line("log").ends_with("default"), "{}", r.out);
    let r = kvnode(None, &[("KVNODE_JION", "x")], &["config", "show"], b"").await;
    assert_eq!(r.code, 2);
    assert!(r.err.contains("KV-CFG-002") && r.err.contains("KVNODE_JOIN"), "{}", r.err);
    let r = kvnode(None, &[], &["--replication-factor", "2"], b"").await;
    assert_eq!(r.code, 2);
    assert!(r.err.contains("KV-CFG-004") && r.err.contains("1, 3, 4, 5, 7"), "{}", r.err);
    let r = kvnode(None, &[], &["--listen", "10.0.0.1", "get", "k"], b"").await;
    assert_eq!(r.code, 2, "{}", r.err);
    assert_eq!(kvnode(None, &[], &["version"], b"").await.code, 0);
    assert!(kvnode(None, &[], &["completions", "bash"], b"").await.out.contains("_kvnode"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_may_stand_before_the_command_or_after_it() {
    let node = fake_node().await;
    let at = node.addr.to_string();
    let r = kvnode(None, &[], &["--endpoint", &at, "put", "k", "v"], b"").await;
    assert_eq!(r.code, 0, "{}", r.err);
    let r = kvnode(None, &[], &["get", "k", "--endpoint", &at, "--timeout", "5s"], b"").await;
    assert_eq!((r.code, r.out.as_str()), (0, "v\n"), "{}", r.err);
    let r = kvnode(None, &[], &["--timeout", "5s", "--endpoint", &at, "status"], b"").await;
    assert!(r.code == 0 || r.code == 8, "{}", r.err);
    let r = kvnode(None, &[], &["--endpoint", &at], b"").await;
    assert_eq!(r.code, 2);
    assert!(r.err.contains("--join"), "a server is not told where a server is: {}", r.err);
}
