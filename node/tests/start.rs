//! Wrong starts: each has its exit code, its cause with the actual values, and a fix.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]
use core::time::Duration;
use kvnode::run::{Listen, Settings, run};
use kvnode::run_error::RunError;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::time::timeout;

fn at(addr: &str) -> Settings {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Settings { listen: Listen::At(addr.parse().unwrap()), http_listen: Some(any), ..Settings::default() }
}

async fn refused(settings: Settings) -> RunError {
    timeout(Duration::from_secs(20), run(settings))
        .await
        .expect("a refusal in time")
        .expect_err("a wrong start")
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = other.local_addr().unwrap();
    let e = refused(at(&addr.to_string())).await;
    assert_eq!((e.code(), e.exit_code()), ("KV-BIND-001", 10));
    assert!(e.to_string().contains(&addr.to_string()) && e.fix().contains("--listen"), "{e}");

    let e = refused(Settings { http_listen: Some(addr), ..at("127.0.0.1:0") }).await;
    assert_eq!((e.code(), e.exit_code()), ("KV-BIND-001", 10));
    assert!(e.to_string().contains("client port") && e.fix().contains("--http-listen"), "{e}");
}

#[tokio::test]
async fn an_address_of_another_machine_is_named() {
    let e = refused(at("192.0.2.1:14195")).await;
    assert_eq!((e.code(), e.exit_code()), ("KV-BIND-001", 10));
    assert!(e.to_string().contains("192.0.2.1") && e.fix().contains("auto"), "{e}");
}

#[tokio::test]
async fn an_address_that_cannot_be_told_to_others_is_refused() {
    let e = refused(at("0.0.0.0:14195")).await;
    assert_eq!((e.code(), e.exit_code()), ("KV-CFG-004", 2));
}

#[tokio::test]
async fn auto_without_a_known_host_starts() {
    let settings = Settings { listen: Listen::Auto { port: 0 }, ..at("127.0.0.1:0") };
    assert!(
        timeout(Duration::from_millis(500), run(settings)).await.is_err(),
        "it serves until it is stopped"
    );
}

#[tokio::test]
async fn a_join_that_nobody_answers_ends_in_time_and_says_with_whom() {
    let settings = Settings {
        listen: Listen::Auto { port: 0 },
        join: vec!["127.0.0.1:9".parse().unwrap()],
        join_timeout: Some(Duration::from_millis(500)),
        ..at("127.0.0.1:0")
    };
    let e = refused(settings).await;
    assert_eq!((e.code(), e.exit_code()), ("KV-JOIN-001", 11));
    assert!(e.to_string().contains("127.0.0.1:9") && e.fix().contains("--join"), "{e}");
}
