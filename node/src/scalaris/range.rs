//! `range_read`: what the replicas between two positions hold, from every process of the ring.
//!
//! Each process tells what its own nodes hold (`range_read_here`, a method of ours); the one that was asked puts
//! the answers together. Below replication: a key is listed once for each replica.

use super::{Scalaris, not_shown, report_error, unexpected};
use crate::error::{self, Report};
use crate::handle::NodeHandle;
use core::time::Duration;
use dht::api::Held;
use dht::{Reply, Request as Ask};
use jsonrpc::Json;
use jsonrpc::envelope::Error;
use jsonrpc::json::parse;
use jsonrpc::value::typed_of_value;
use ring::Position;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the other processes may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long one process may take to read its own memory.
const TIMEOUT_HERE: Duration = Duration::from_secs(4);
/// An answer with more entries or bytes is refused: the range is to be cut.
const ENTRIES_MAX: usize = 100_000;
const BYTES_MAX: usize = 32 << 20;

/// Entries, and whether everybody answered in time.
struct Found {
    entries: Vec<(Position, Json)>,
    /// The length of the values, about.
    bytes: usize,
    is_whole: bool,
}

impl Scalaris {
    /// What the whole ring holds from `from` to `to`; the whole ring if they are equal.
    pub(super) async fn range_read(&self, from: Position, to: Position) -> Result<Json, Error> {
        let mut found = self.here(from, to).await?;
        let mut asked = vec![self.info.client_addr];
        let mut waiting = Vec::new();
        for m in self.members_alive().await? {
            match m.info.client_addr {
                Some(client) if !asked.contains(&client) => {
                    asked.push(client);
                    waiting.push(tokio::spawn(timeout(TIMEOUT, there(client, from, to))));
                }
                Some(_) => {}
                None => found.is_whole = false,
            }
        }
        let reply = self.ask(Ask::Ring).await?;
        let Reply::Ring(pieces) = reply else { return Err(unexpected(&reply)) };
        found.is_whole &= pieces.iter().all(|p| p.is_live);
        for answer in waiting {
            match answer.await {
                Ok(Ok(Some(theirs))) => {
                    found.is_whole &= theirs.is_whole;
                    found.bytes += theirs.bytes;
                    found.entries.extend(theirs.entries);
                    check_size(&found)?;
                }
                Ok(Ok(None) | Err(_)) | Err(_) => found.is_whole = false,
            }
        }
        Ok(shown(found))
    }

    /// What the nodes of this process hold.
    pub(super) async fn range_read_here(&self, from: Position, to: Position) -> Result<Json, Error> {
        Ok(shown(self.here(from, to).await?))
    }

    async fn here(&self, from: Position, to: Position) -> Result<Found, Error> {
        let mut handles = vec![self.handle.clone()];
        if let Some(nodes) = &self.info.virtual_nodes {
            handles.extend(nodes.handles().await);
        }
        // A range that begins behind its end goes over the end of the ring.
        let ranges = match from < to {
            true => vec![(from, to)],
            false if from == to => vec![(0, Position::MAX)],
            false => vec![(from, Position::MAX), (0, to)],
        };
        let mut found = Found { entries: Vec::new(), bytes: 0, is_whole: true };
        for handle in &handles {
            for (from, to) in &ranges {
                let some = timeout(TIMEOUT_HERE, scan(handle, *from, *to, &mut found)).await;
                found.is_whole &= some.unwrap_or(Ok(false))?;
            }
        }
        Ok(found)
    }
}

/// Reads one node's memory page by page; false if it stopped meanwhile.
async fn scan(handle: &NodeHandle, from: Position, to: Position, found: &mut Found) -> Result<bool, Error> {
    let mut after = None;
    loop {
        let Ok(reply) = handle.request(Ask::Scan { from, to, after }).await else { return Ok(false) };
        let Reply::Scanned { held, is_more } = reply else { return Err(unexpected(&reply)) };
        after = held.last().map(|h| (h.position, h.key.clone()));
        for h in held {
            found.bytes += h.value.as_bytes().len();
            found.entries.push((h.position, entry(&h)?));
        }
        check_size(found)?;
        if !is_more || after.is_none() {
            return Ok(true);
        }
    }
}

fn entry(h: &Held) -> Result<Json, Error> {
    Ok(Json::object([
        ("key", Json::integer(h.position)),
        ("value", typed_of_value(&h.value).map_err(not_shown)?),
        ("version", Json::integer(h.version)),
    ]))
}

fn check_size(found: &Found) -> Result<(), Error> {
    if found.entries.len() <= ENTRIES_MAX && found.bytes <= BYTES_MAX {
        return Ok(());
    }
    Err(report_error(&Report::new(
        error::VALUE_TOO_LONG,
        "the range holds too much for one answer",
        format!("it is more than {ENTRIES_MAX} entries or {BYTES_MAX} bytes"),
        "read smaller ranges, from one position to the next",
    )))
}

fn shown(mut found: Found) -> Json {
    found.entries.sort_by_key(|(position, _)| *position);
    let entries = found.entries.into_iter().map(|(_, json)| json).collect();
    Json::object([
        ("status", Json::string(if found.is_whole { "ok" } else { "timeout" })),
        ("value", Json::Array(entries)),
    ])
}

/// Asks another process; none if it did not answer so that it can be understood.
async fn there(client: SocketAddr, from: Position, to: Position) -> Option<Found> {
    let body = format!(r#"{{"jsonrpc":"2.0","method":"range_read_here","params":[{from},{to}],"id":0}}"#);
    let request = format!(
        "POST /api/dht_raw.yaws HTTP/1.1\r\nHost: {client}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(client).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let most = u64::try_from(4 * BYTES_MAX).unwrap_or(u64::MAX);
    stream.take(most).read_to_end(&mut answer).await.ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| understood(body)).flatten()
}

fn understood(body: &str) -> Option<Found> {
    let mut result = member(parse(body).ok()?, "result")?;
    let is_whole = member(result.clone(), "status")? == Json::string("ok");
    result = member(result, "value")?;
    let Json::Array(entries) = result else { return None };
    let positioned = entries.into_iter().map(|e| {
        let Json::Number(position) = member(e.clone(), "key")? else { return None };
        Some((position.parse().ok()?, e))
    });
    Some(Found { entries: positioned.collect::<Option<_>>()?, bytes: body.len(), is_whole })
}

fn member(json: Json, name: &str) -> Option<Json> {
    let Json::Object(members) = json else { return None };
    members.into_iter().find(|(n, _)| n == name).map(|(_, j)| j)
}
