//! As much of HTTP/1.1 as a probe needs.

use crate::Res;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// The data of the first event of each of these names on a stream of server-sent events, and how many bytes came
/// until then.
pub fn events(addr: SocketAddr, path: &str, names: &[&str]) -> Res<(Vec<String>, usize)> {
    let fail = |e: std::io::Error| format!("GET http://{addr}{path}: {e}");
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    // HTTP/1.0 has no chunks, so the body is the stream itself.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(fail)?;
    let (mut all, mut part) = (Vec::new(), [0u8; 65_536]);
    loop {
        let text = String::from_utf8_lossy(&all);
        let data = |name: &&str| {
            let (_, after) = text.split_once(&format!("event: {name}\ndata: "))?;
            after.split_once("\n\n").map(|(data, _)| data.to_owned())
        };
        if let Some(found) = names.iter().map(data).collect::<Option<Vec<String>>>() {
            return Ok((found, all.len()));
        }
        match stream.read(&mut part).map_err(fail)? {
            0 => return Err(format!("GET http://{addr}{path}: it ended without {names:?}")),
            n => all.extend_from_slice(&part[..n]),
        }
    }
}

/// Status and body of `POST path` with JSON.
pub fn post(addr: SocketAddr, path: &str, body: &str) -> Res<(u16, String)> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    let size = body.len();
    exchange(
        addr,
        path,
        &format!("{head}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n{body}"),
    )
}

/// Status and body of `GET path`.
pub fn get(addr: SocketAddr, path: &str) -> Res<(u16, String)> {
    exchange(addr, path, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"))
}

fn exchange(addr: SocketAddr, path: &str, request: &str) -> Res<(u16, String)> {
    let fail = |e: std::io::Error| format!("http://{addr}{path}: {e}");
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    stream.write_all(request.as_bytes()).map_err(fail)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(fail)?;
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| format!("http://{addr}{path}: not HTTP: {text:.80}"))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, b)| b).to_owned();
    Ok((status, body))
}
