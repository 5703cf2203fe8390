//! Bytes that are no request, sent to both ports of a node that must go on serving.

use harness::grpc;
use harness::poll::ensure;
use harness::process::{OVERLAY_PORT, start_ring};
use harness::{Res, cli};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tonic::Code;

/// An HTTP/2 preface, empty settings, and a frame header that promises more than a frame may hold.
fn broken_http2() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1]);
    bytes.extend_from_slice(&[0x80; 64]);
    bytes
}

/// A gRPC call over HTTP/1.1 whose body is no message.
fn broken_call() -> Vec<u8> {
    b"POST /kvnode.v1.Kv/Put HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
      Content-Length: 9\r\n\r\n\x00\x00\x00\x00\x04\xff\xff\xff\xff"
        .to_vec()
}

/// A kilobyte without structure, the same in every run.
fn noise() -> Vec<u8> {
    let mut x = 0x2545_f491u32;
    (0..1024)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x.to_be_bytes()[0]
        })
        .collect()
}

fn send(to: SocketAddr, bytes: &[u8]) -> Res<()> {
    let fail = |e: std::io::Error| format!("cannot talk to {to}: {e}");
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(fail)?;
    stream.set_read_timeout(Some(Duration::from_millis(300))).map_err(fail)?;
    // The node may close while this is sent, and may answer or not: all that counts is that it goes on.
    let _ = stream.write_all(bytes);
    let mut answer = [0u8; 4096];
    let _ = stream.read(&mut answer);
    Ok(())
}

pub(crate) fn garbage() -> Res<()> {
    let mut nodes = start_ring(3)?;
    cli::put(&nodes[0].endpoint(), "kept", "whole")?;
    let mut cases = vec![broken_http2(), broken_call(), noise(), vec![0; 4096], vec![0xff; 4096]];
    cases.push(b"GET / HTTP/1.1\r\n".to_vec());
    for node in &nodes {
        let targets = [node.client_addr(), SocketAddr::from((node.ip(), OVERLAY_PORT))];
        for target in targets {
            for bytes in &cases {
                send(target, bytes)?;
            }
        }
    }
    for node in &nodes {
        let status = grpc::put_nonsense(&node.endpoint())?;
        ensure(status.code() == Code::InvalidArgument, || format!("nonsense was answered {status}"))?;
    }
    for node in &mut nodes {
        let ended = node.ended();
        ensure(ended.is_none(), || format!("{} ended: {ended:?}; it said:\n{}", node.ip(), node.log()))?;
        node.wait_ready()?;
        let read = cli::get(&node.endpoint(), "kept")?;
        ensure(read == "whole", || format!("{} gives {read:?}", node.ip()))?;
        node.wait_members(3, Duration::from_secs(5))?;
    }
    Ok(())
}
