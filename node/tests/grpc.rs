//! The client port with real sockets: gRPC, pages, and the Rust client.

#![allow(clippy::unwrap_used)]

mod common;

use client::{Client, Condition, Data, Error, Operation, Outcome, Value};
use common::{DEAD_KEY, LOST_KEY, SHAKY_KEY, SILENT_KEY, fake_node, fake_node_of};
use dht::api::Phase;
use proto::v1;
use proto::v1::kv_client::KvClient;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn channel(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

fn fact(status: &Status, name: &str) -> String {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "kvnode");
    info.metadata.get(name).cloned().unwrap_or_default()
}

/// A plain HTTP/1.1 request: the status and the body.
async fn http(addr: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut s = TcpStream::connect(addr).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    s.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    s.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn what_is_put_is_read_back_and_versions_grow() {
    let node = fake_node().await;
    let kv = Client::connect([node.addr.to_string()]).await.unwrap();
    assert_eq!(kv.get("k").await.unwrap(), None);
    let v1 = kv.put("k", Value::string("a")).await.unwrap();
    let v2 = kv.put_if("k", Value::string("b"), Condition::Version(v1)).await.unwrap();
    assert!(v2 > v1);
    let entry = kv.get("k").await.unwrap().unwrap();
    assert_eq!((entry.value.as_str(), entry.version), (Some("b"), v2));
    assert_eq!(kv.add_on_number("n", Value::int(5)).await.unwrap().1, Some(Value::int(5)));
    kv.add_del_on_list("l", &[Value::int(1), Value::string("x")], &[Value::int(1)]).await.unwrap();
    let list = kv.get("l").await.unwrap().unwrap().value.decode();
    assert_eq!(list, Data::List(vec![Data::String("x".into())]));
    let first = kv.delete("k").await.unwrap();
    assert!(first.existed);
    let second = kv.delete("k").await.unwrap();
    assert_eq!((second.existed, second.version), (false, first.version));
}

#[tokio::test]
async fn conflicts_are_aborted_with_the_present_state() {
    let node = fake_node().await;
    let kv = Client::connect([node.addr.to_string()]).await.unwrap();
    let version = kv.put("k", Value::string("a")).await.unwrap();
    let e = kv.test_and_set("k", Value::string("z"), Value::string("b")).await.unwrap_err();
    let Error::Conflict { version: present, value, detail } = &e else { panic!("{e:?}") };
    assert_eq!((*present, value.as_ref().unwrap().as_str()), (version, Some("a")));
    assert_eq!((detail.code.as_str(), detail.status), ("KV-CON-003", Code::Aborted));
    assert_eq!(e.outcome(), Outcome::NotDone);
    let e = kv.put_if("k", Value::int(1), Condition::Absent).await.unwrap_err();
    assert!(matches!(e, Error::Conflict { .. }), "{e:?}");
    let e = kv.put_if("gone", Value::int(1), Condition::Version(3)).await.unwrap_err();
    assert!(matches!(e, Error::Conflict { version: 0, .. }), "{e:?}");
    let e = kv.test_and_set("gone", Value::int(1), Value::int(2)).await.unwrap_err();
    assert!(matches!(e, Error::NotFound(_)), "{e:?}");
    let e = kv.add_on_number("k", Value::int(1)).await.unwrap_err();
    assert!(matches!(&e, Error::WrongType(d) if d.cause.contains("found string")), "{e:?}");
}

#[tokio::test]
async fn an_unknown_outcome_is_never_repeated_and_what_was_not_done_is() {
    let node = fake_node().await;
    let builder = Client::builder([node.addr.to_string()]).deadline(Duration::from_secs(1));
    let kv = builder.routes_to_home(false).connect().await.unwrap();
    let e = kv.put(LOST_KEY, Value::int(1)).await.unwrap_err();
    assert_eq!(e.outcome(), Outcome::Unknown);
    assert_eq!(node.changes.load(Ordering::SeqCst), 1);
    let e = kv.put(DEAD_KEY, Value::int(1)).await.unwrap_err();
    assert!(matches!(e, Error::Unavailable(_)), "{e:?}");
    kv.put(SHAKY_KEY, Value::int(1)).await.unwrap();
    let e = kv.put(SILENT_KEY, Value::int(1)).await.unwrap_err();
    assert_eq!(e.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn the_client_fails_over_and_learns_the_ring() {
    let (a, b) = (fake_node().await, fake_node().await);
    let nobody = "127.0.0.1:1".to_owned();
    let kv = Client::connect([nobody.clone(), a.addr.to_string(), b.addr.to_string()]).await.unwrap();
    kv.put("k", Value::int(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    kv.put("k", Value::int(2)).await.unwrap();
    a.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for i in 0..5 {
        kv.put("k", Value::int(i)).await.unwrap();
    }
    assert!(b.changes.load(Ordering::SeqCst) >= 5);
    let e = Client::connect([nobody]).await.unwrap_err();
    assert!(matches!(&e, Error::CannotConnect { tried } if tried.len() == 1), "{e:?}");
}

#[tokio::test]
async fn each_operation_of_a_batch_has_its_own_result() {
    let node = fake_node().await;
    let kv = Client::connect([node.addr.to_string()]).await.unwrap();
    let v = Value::string("x");
    let results = kv
        .batch(&[
            Operation::put("k", &v, Condition::Always),
            Operation::get("k"),
            Operation::get("missing"),
            Operation::add_on_number("k", &Value::int(1)),
            Operation::delete("missing", Condition::Always),
            Operation::put(LOST_KEY, &v, Condition::Always),
        ])
        .await
        .unwrap();
    assert_eq!(results[1].as_ref().unwrap().value, Some(v));
    assert!(matches!(results[2], Err(Error::NotFound(_))));
    assert!(matches!(results[3], Err(Error::WrongType(_))));
    assert!(!results[4].as_ref().unwrap().existed);
    assert!(matches!(results[5], Err(Error::Unknown(_))));
    let many = vec![Operation::get("k"); 1001];
    let e = kv.batch(&many).await.unwrap_err();
    assert!(matches!(&e, Error::Rejected(d) if d.code == "KV-REQ-002" && d.cause.contains("1001")), "{e:?}");
}

#[tokio::test]
async fn wrong_requests_get_clear_errors_and_change_nothing() {
    let node = fake_node().await;
    let mut kv = KvClient::new(channel(node.addr).await);
    let put = |key: &str, value| v1::PutRequest { key: key.into(), value, condition: None };
    let string = |n| Some(v1::Value { kind: Some(v1::value::Kind::StringValue("x".repeat(n))) });
    let e = kv.put(put(&"k".repeat(1025), string(1))).await.unwrap_err();
    assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::ResourceExhausted, "KV-KEY-002"));
    assert!(fact(&e, "cause").contains("1025"), "{}", fact(&e, "cause"));
    let e = kv.put(put("k", None)).await.unwrap_err();
    assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::InvalidArgument, "KV-VAL-002"));
    // A little and far above the limit.
    for size in [(1 << 20) + 1, 3 << 20] {
        let e = kv.put(put("k", string(size))).await.unwrap_err();
        assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::ResourceExhausted, "KV-VAL-001"));
    }
    let e = kv.get(v1::GetRequest { key: "k".into() }).await.unwrap_err();
    assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::NotFound, "KV-KEY-001"));
    assert_eq!(node.changes.load(Ordering::SeqCst), 0);
}

/// Sends a hand-made message to a method.
async fn raw(addr: SocketAddr, path: &'static str, message: Vec<u8>) -> Status {
    #[derive(Default)]
    struct Raw;
    impl tonic::codec::Codec for Raw {
        type Encode = Vec<u8>;
        type Decode = ();
        type Encoder = Raw;
        type Decoder = Raw;
        fn encoder(&mut self) -> Raw {
            Raw
        }
        fn decoder(&mut self) -> Raw {
            Raw
        }
    }
    impl tonic::codec::Encoder for Raw {
        type Item = Vec<u8>;
        type Error = Status;
        fn encode(&mut self, item: Vec<u8>, buf: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
            bytes::BufMut::put_slice(buf, &item);
            Ok(())
        }
    }
    impl tonic::codec::Decoder for Raw {
        type Item = ();
        type Error = Status;
        fn decode(&mut self, _: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<()>, Status> {
            Ok(None)
        }
    }
    let mut grpc = tonic::client::Grpc::new(channel(addr).await);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(tonic::Request::new(message), path, Raw).await.unwrap_err()
}

#[tokio::test]
async fn malformed_grpc_is_refused_with_a_code() {
    let node = fake_node().await;
    for bad in [vec![0xff; 40], vec![0x0a, 0x02, 0xff, 0xfe], vec![0x0a, 0x7f, 0x61]] {
        let e = raw(node.addr, "/kvnode.v1.Kv/Put", bad).await;
        assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::InvalidArgument, "KV-REQ-001"));
    }
    let e = raw(node.addr, "/kvnode.v1.Kv/Nothing", Vec::new()).await;
    assert_eq!(e.code(), Code::Unimplemented);
    let e = raw(node.addr, "/some.Other/Method", Vec::new()).await;
    assert_eq!((e.code(), fact(&e, "code").as_str()), (Code::Unimplemented, "KV-REQ-004"));
    // Neither HTTP/1.1 nor HTTP/2: the connection ends and the server goes on.
    let mut s = TcpStream::connect(node.addr).await.unwrap();
    s.write_all(b"\x00\x01\x02 garbage\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = s.read_to_end(&mut rest).await;
    assert_eq!(http(node.addr, "GET", "/livez").await.0, 200);
}

#[tokio::test]
async fn pages_answer_and_readiness_follows_the_node() {
    let node = fake_node().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(http(node.addr, "GET", "/livez").await, (200, "ok\n".to_owned()));
    let (code, text) = http(node.addr, "GET", "/readyz?verbose").await;
    assert_eq!(code, 200, "{text}");
    for check in ["joined: ok", "members: ok", "quorum: ok"] {
        assert!(text.contains(check), "{text}");
    }
    let (code, text) = http(node.addr, "GET", "/").await;
    assert!(code == 200 && text.contains("<title>kvnode</title>"), "{text}");
    let (code, text) = http(node.addr, "GET", "/nothing").await;
    assert!(code == 404 && text.contains("KV-REQ-004") && text.contains("/readyz"), "{text}");
    assert_eq!(http(node.addr, "POST", "/readyz").await.0, 405);
    *node.phase.lock().unwrap() = Phase::Leaving;
    let (code, text) = http(node.addr, "GET", "/readyz").await;
    assert!(code == 503 && text.contains("joined: not ok: the node is leaving"), "{text}");
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

    let node = fake_node().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut health = HealthClient::new(channel(node.addr).await);
    for service in ["", "kvnode.v1.Kv"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "{service}");
    }
    let mut reflection = ServerReflectionClient::new(channel(node.addr).await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!() };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    for name in ["kvnode.v1.Kv", "kvnode.v1.Transactions", "kvnode.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_shutdown_lets_open_calls_end() {
    let node = fake_node().await;
    let kv = Client::connect([node.addr.to_string()]).await.unwrap();
    kv.put("k", Value::int(1)).await.unwrap();
    node.stop.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(node.addr).await.is_err());
}

#[tokio::test]
async fn the_deadline_of_a_call_is_kept_and_the_outcome_is_unknown() {
    let node = fake_node().await;
    // By hand, because tonic's client would keep the deadline itself.
    let mut message = vec![0, 0, 0, 0, 8, 10, 6];
    message.extend_from_slice(SILENT_KEY.as_bytes());
    let head = "POST /kvnode.v1.Kv/Get HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTE: trailers\r\n\
                Content-Type: application/grpc\r\nGrpc-Timeout: 80m\r\nContent-Length: 13\r\n\r\n";
    let mut s = TcpStream::connect(node.addr).await.unwrap();
    s.write_all(&[head.as_bytes(), &message].concat()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), s.read_to_string(&mut answer)).await;
    assert!(read.is_ok(), "the key is never answered, the call is");
    assert!(answer.to_lowercase().contains("grpc-status: 4\r\n") && answer.contains("KV-OP-002"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_make_room_for_others() {
    let node = fake_node_of(2).await;
    let get = || v1::GetRequest { key: "k".into() };
    let (mut a, b) = (KvClient::new(channel(node.addr).await), channel(node.addr).await);
    let mut c = KvClient::new(channel(node.addr).await);
    assert_eq!(a.get(get()).await.unwrap_err().code(), Code::NotFound);
    let e = c.get(get()).await.unwrap_err();
    assert_eq!((e.code(), fact(&e, "outcome").as_str()), (Code::ResourceExhausted, "not_done"), "{e:?}");
    assert!(fact(&e, "fix").contains("--connections-max") && e.message().contains("2 connections"), "{e:?}");
    assert_eq!(http(node.addr, "GET", "/livez").await.0, 200, "probes are answered all the same");
    drop(b);
    let mut left = 100;
    while c.get(get()).await.unwrap_err().code() != Code::NotFound {
        left -= 1;
        assert!(left > 0, "no room was made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
