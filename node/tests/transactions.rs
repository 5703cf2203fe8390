//! Transactions through the client port of a ring of three, with real sockets.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, in real time")]

mod common;

use client::{Client, Condition, Data, Error, Value};
use common::three::ring;
use proto::v1;
use proto::v1::operation::Kind as Op;
use proto::v1::transactions_client::TransactionsClient;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn service(at: &str) -> TransactionsClient<Channel> {
    let channel = Channel::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap();
    TransactionsClient::new(channel)
}

fn get(key: &str) -> v1::Operation {
    v1::Operation { kind: Some(Op::Get(v1::GetRequest { key: key.into() })) }
}

fn put(key: &str, value: i64) -> v1::Operation {
    let value = Some(proto::client_api::value_to_wire(&Value::int(value)));
    v1::Operation { kind: Some(Op::Put(v1::PutRequest { key: key.into(), value, condition: None })) }
}

fn number(value: &Option<client::Entry>) -> i64 {
    match value.as_ref().map(|e| e.value.decode()) {
        Some(Data::Int(i)) => i64::try_from(i).unwrap(),
        _ => 0,
    }
}

fn fact(status: &Status, name: &str) -> String {
    status.get_details_error_info().unwrap().metadata.get(name).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_goes_from_node_to_node_and_commits_once() {
    let ring = ring().await;
    let kv = Client::connect(ring.clients.clone()).await.unwrap();
    let mut at = Vec::new();
    for c in &ring.clients {
        at.push(service(c).await);
    }
    let first = v1::ExecuteRequest { operations: vec![get("a"), put("a", 1)], ..Default::default() };
    let first = at[0].execute(first).await.unwrap().into_inner();
    assert!(!first.committed && !first.log.is_empty());
    let second =
        v1::ExecuteRequest { log: first.log, operations: vec![put("b", 2), get("a")], ..Default::default() };
    let second = at[1].execute(second).await.unwrap().into_inner();
    let Some(v1::operation_result::Kind::Get(own)) = &second.results[1].kind else { panic!("{second:?}") };
    assert_eq!(own.version, 0, "its own write");
    assert_eq!(kv.get("a").await.unwrap(), None, "nothing is there before the commit");

    let commit = v1::ExecuteRequest {
        log: second.log,
        commit: true,
        commit_id: vec![7; 16].into(),
        ..Default::default()
    };
    let done = at[2].execute(commit.clone()).await.unwrap().into_inner();
    assert!(done.committed && done.log.is_empty());
    let (a, b) = (kv.get("a").await.unwrap(), kv.get("b").await.unwrap());
    assert_eq!((number(&a), number(&b)), (1, 2));

    // As if the answer had been lost: it is told again, and nothing is done a second time.
    kv.put("b", Value::int(9)).await.unwrap();
    let commit = v1::ExecuteRequest { repeated_commit: true, ..commit };
    assert!(at[0].execute(commit.clone()).await.unwrap().into_inner().committed);
    assert_eq!(number(&kv.get("b").await.unwrap()), 9);
    // Under another id it is another commit of what has changed since.
    let other = v1::ExecuteRequest { commit_id: vec![8; 16].into(), repeated_commit: false, ..commit };
    let e = at[1].execute(other).await.unwrap_err();
    assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::Aborted, "KV-TX-001"));
    assert_eq!(fact(&e, "outcome"), "not_done");
    assert!(fact(&e, "cause").contains("\"a\"") || fact(&e, "cause").contains("\"b\""), "{e:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_operation_keeps_all_from_being_committed() {
    let ring = ring().await;
    let kv = Client::connect(ring.clients.clone()).await.unwrap();
    kv.put("text", Value::string("x")).await.unwrap();
    let by = Some(proto::client_api::value_to_wire(&Value::int(1)));
    let add =
        v1::Operation { kind: Some(Op::AddOnNumber(v1::AddOnNumberRequest { key: "text".into(), by })) };
    let request = v1::ExecuteRequest {
        operations: vec![put("other", 1), add, get("gone")],
        commit: true,
        ..Default::default()
    };
    let done = service(&ring.clients[0]).await.execute(request).await.unwrap().into_inner();
    assert_eq!((done.committed, done.failed_key.as_deref()), (false, Some("text")));
    let Some(v1::operation_result::Kind::Error(e)) = &done.results[1].kind else { panic!("{done:?}") };
    assert_eq!(e.metadata.get("code").map(String::as_str), Some("KV-VAL-003"));
    assert_eq!(kv.get("other").await.unwrap(), None);

    let e = kv
        .transaction(|tx| async move { tx.test_and_set("gone", &Value::int(1), &Value::int(2)).await })
        .await;
    assert!(matches!(e, Err(Error::NotFound(_))), "{e:?}");
    let mut at = service(&ring.clients[1]).await;
    let e =
        at.execute(v1::ExecuteRequest { log: vec![1, 2, 3].into(), ..Default::default() }).await.unwrap_err();
    assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::InvalidArgument, "KV-TX-002"));
}

fn name(i: u64) -> String {
    format!("account {i}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_moves_and_is_never_made() {
    const ACCOUNTS: u64 = 20;
    const TRANSFERS: u64 = 25;
    let ring = ring().await;
    let kv = Client::connect(ring.clients.clone()).await.unwrap();
    for i in 0..ACCOUNTS {
        kv.put(&name(i), Value::int(100)).await.unwrap();
    }
    let mut work = JoinSet::new();
    for client in 0..8u64 {
        let at = ring.clients[usize::try_from(client % 3).unwrap()].clone();
        work.spawn(async move {
            let kv = Client::builder([at]).deadline(Duration::from_secs(60)).connect().await.unwrap();
            for n in 0..TRANSFERS {
                let (from, to) = ((client * 7 + n) % ACCOUNTS, (client * 3 + n * 5 + 1) % ACCOUNTS);
                if from == to {
                    continue;
                }
                kv.transaction(|tx| async move {
                    tx.add_on_number(&name(from), &Value::int(-3)).await?;
                    tx.add_on_number(&name(to), &Value::int(3)).await
                })
                .await
                .unwrap();
                if n % 8 == 0 {
                    let total = kv.transaction(|tx| async move {
                        let mut sum = 0;
                        for i in 0..ACCOUNTS {
                            sum += number(&tx.get(&name(i)).await?);
                        }
                        Ok(sum)
                    });
                    assert_eq!(total.await.unwrap(), 100 * i64::try_from(ACCOUNTS).unwrap());
                }
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let mut sum = 0;
    for i in 0..ACCOUNTS {
        sum += number(&kv.get(&name(i)).await.unwrap());
    }
    assert_eq!(sum, 100 * i64::try_from(ACCOUNTS).unwrap());
}

/// Clients that read and write the same keys again and again all get through; what it costs is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_of_the_same_keys_all_finish() {
    let ring = ring().await;
    for keys in [1usize, 10] {
        let began = Instant::now();
        let mut work = JoinSet::new();
        for client in 0..16usize {
            let at = ring.clients[client % 3].clone();
            work.spawn(async move {
                let kv = Client::builder([at]).deadline(Duration::from_secs(60)).connect().await.unwrap();
                let mut attempts = 0u64;
                for _ in 0..10 {
                    let tries = std::sync::atomic::AtomicU64::new(0);
                    kv.transaction(|tx| {
                        tries.fetch_add(1, Ordering::SeqCst);
                        async move {
                            for k in 0..keys {
                                let key = format!("hot {keys} {k}");
                                let n = number(&tx.get(&key).await?);
                                tx.put(&key, &Value::int(n + 1)).await?;
                            }
                            Ok(())
                        }
                    })
                    .await
                    .unwrap();
                    attempts += tries.load(Ordering::SeqCst);
                }
                attempts
            });
        }
        let mut attempts = 0;
        while let Some(done) = work.join_next().await {
            attempts += done.unwrap();
        }
        println!("16 clients on {keys} keys: 160 commits in {attempts} attempts, {:?}", began.elapsed());
        let kv = Client::connect(ring.clients.clone()).await.unwrap();
        for k in 0..keys {
            assert_eq!(number(&kv.get(&format!("hot {keys} {k}")).await.unwrap()), 160);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_keys_commit_together() {
    let ring = ring().await;
    let mut at = service(&ring.clients[0]).await;
    let began = Instant::now();
    let mut log = Vec::new().into();
    for part in 0..10 {
        let operations = (0..1000).map(|i| put(&format!("many {}", part * 1000 + i), i64::from(i))).collect();
        let request = v1::ExecuteRequest { log, operations, ..Default::default() };
        log = at.execute(request).await.unwrap().into_inner().log;
    }
    let commit = v1::ExecuteRequest { log, commit: true, ..Default::default() };
    assert!(at.execute(commit).await.unwrap().into_inner().committed);
    println!("10 000 keys in one transaction: {:?}", began.elapsed());
    let kv = Client::connect(ring.clients.clone()).await.unwrap();
    for i in [0, 4999, 9999] {
        assert_eq!(number(&kv.get(&format!("many {i}")).await.unwrap()), i % 1000);
    }
    let e = kv.put_if("many 0", Value::int(1), Condition::Absent).await.unwrap_err();
    assert!(matches!(e, Error::Conflict { .. }));
}
