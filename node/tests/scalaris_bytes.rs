//! Scalaris' JSON-RPC under bytes that nobody would send: real calls, with real transaction logs, changed here and there.
//! Whatever comes is answered by one line of JSON, soon, and the node goes on.
//!
//! More of it: `KVNODE_FUZZ_CASES=1000000 cargo test --release -p kvnode --test scalaris_bytes`, another course with
//! `KVNODE_FUZZ_SEED`, and `KVNODE_FUZZ_ADDR=127.0.0.1:8000` for a node of a real ring.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests live in real time and stop where they fail"
)]

mod common;

use common::fake_node;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Calls as clients make them; `TLOG` stands for a log that the node gave.
const CALLS: [(&str, &str); 22] = [
    ("tx", r#"{"jsonrpc":"2.0","method":"nop","params":[0],"id":0}"#),
    ("tx", r#"{"jsonrpc":"2.0","method":"read","params":["k"],"id":1}"#),
    ("tx", r#"{"jsonrpc":"2.0","method":"write","params":["k",{"type":"as_is","value":"v"}],"id":1}"#),
    (
        "tx",
        r#"{"jsonrpc":"2.0","method":"write","params":["b",{"type":"as_bin","value":"AAEC/w=="}],"id":1}"#,
    ),
    (
        "tx",
        r#"{"jsonrpc":"2.0","method":"write","params":["n",{"type":"as_is","value":[1,-2,3.5e7,"\u0160\ud834\udd1e",{"a":[null,true]}]}],"id":1}"#,
    ),
    ("tx", r#"{"jsonrpc":"2.0","method":"add_on_nr","params":["i",12345678901234567890123],"id":1}"#),
    ("tx", r#"{"jsonrpc":"2.0","method":"add_del_on_list","params":["l",[1,"x"],[2]],"id":1}"#),
    (
        "tx",
        r#"{"jsonrpc":"2.0","method":"test_and_set","params":["k",{"type":"as_is","value":"v"},{"type":"as_is","value":"w"}],"id":1}"#,
    ),
    ("tx", r#"{"jsonrpc":"2.0","method":"req_list","params":[[{"read":"k"},{"read":"l"}]],"id":1}"#),
    (
        "tx",
        r#"{"jsonrpc":"2.0","method":"req_list","params":["TLOG",[{"read":"k"},{"write":{"k":{"type":"as_is","value":7}}}]],"id":1}"#,
    ),
    (
        "tx",
        r#"{"jsonrpc":"2.0","method":"req_list","params":["TLOG",[{"add_del_on_list":{"key":"l","add":[1],"del":[]}},{"test_and_set":{"key":"k","old":7,"new":8}},{"commit":""}]],"id":1}"#,
    ),
    ("tx", r#"{"jsonrpc":"2.0","method":"req_list","params":["TLOG",[{"commit":""}]],"id":1}"#),
    (
        "tx",
        r#"{"jsonrpc":"2.0","method":"req_list_commit_each","params":[[{"read":"k"},{"add_on_nr":{"i":1}}]],"id":1}"#,
    ),
    ("rdht", r#"{"jsonrpc":"2.0","method":"delete","params":["k",1000],"id":1}"#),
    ("dht_raw", r#"{"jsonrpc":"2.0","method":"range_read","params":[0,100],"id":1}"#),
    ("rbr", r#"{"jsonrpc":"2.0","method":"write","params":["k",{"type":"as_is","value":1}],"id":1}"#),
    ("rt", r#"{"jsonrpc":"2.0","method":"get_replication_factor","params":[],"id":1}"#),
    ("vm", r#"{"jsonrpc":"2.0","method":"get_other_vms","params":[3],"id":1}"#),
    ("monitor", r#"{"jsonrpc":"2.0","method":"get_service_performance","params":[],"id":1}"#),
    ("autoscale", r#"{"jsonrpc":"2.0","method":"lock_scale_req","params":[],"id":1}"#),
    (
        "tx",
        r#"[{"jsonrpc":"2.0","method":"read","params":["k"],"id":1},{"jsonrpc":"2.0","method":"write","params":["k",1]}]"#,
    ),
    ("tx", r#"%7B%22method%22%3A%22read%22%2C%22params%22%3A%5B%22k%25%22%5D%2C%22id%22%3A1%7D"#),
];

/// What is put in somewhere.
const PIECES: [&[u8]; 26] = [
    b"\"",
    b"\\",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"null",
    b"%",
    b"%2",
    b"%25",
    b"%00",
    b"%ff%fe",
    b"+",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xf0\x9d\x84\x9e",
    b"\\ud834",
    b"\\u0000",
    b"1e999",
    b"-",
    b"0.",
    b"\"params\":",
    b"AQ==",
];

/// SplitMix64: the same course on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((b ^ (b >> 31)) % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    /// One change of a text.
    fn change(&mut self, text: &mut Vec<u8>) {
        let (at, other) = (self.below(text.len() + 1), self.below(text.len() + 1));
        let (from, to) = (at.min(other), at.max(other));
        match self.below(8) {
            0 => drop(text.drain(from..to.min(from + 9))),
            1 => {
                let again = text[from..to.min(from + 40)].to_vec();
                drop(text.splice(at..at, again));
            }
            2 if at < text.len() => text[at] ^= 1 << self.below(8),
            3 => text.truncate(at),
            4 => {
                let (open, n) = (b"[{\""[self.below(3)], self.below(300));
                drop(text.splice(at..at, vec![open; n]));
            }
            5 if at < text.len() => text[at] = b"0123456789aZ~\x7f\x80"[self.below(15)],
            _ => drop(text.splice(at..at, PIECES[self.below(PIECES.len())].iter().copied())),
        }
    }
}

struct Socket(TcpStream);

impl Socket {
    fn open(addr: SocketAddr) -> Socket {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Socket(stream)
    }

    /// The status line and the body of the answer, or what came before the connection ended.
    fn post(&mut self, page: &str, body: &[u8], cut: Option<usize>) -> Result<(String, Vec<u8>), String> {
        let head =
            format!("POST /api/{page}.yaws HTTP/1.1\r\nHost: n\r\nContent-Length: {}\r\n\r\n", body.len());
        let all = [head.as_bytes(), body].concat();
        let (first, rest) = all.split_at(cut.unwrap_or(0).min(all.len()));
        self.0.write_all(first).and_then(|()| self.0.write_all(rest)).map_err(|e| e.to_string())?;
        let mut came = Vec::new();
        let mut length = None;
        loop {
            if let Some(end) = came.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&came[..end]).into_owned();
                let of = |l: &str| l.strip_prefix("Content-Length: ").and_then(|n| n.parse::<usize>().ok());
                let n = *length.get_or_insert(head.lines().find_map(of).unwrap_or(0));
                if came.len() >= end + 4 + n {
                    return Ok((
                        head.lines().next().unwrap_or_default().to_owned(),
                        came[end + 4..].to_vec(),
                    ));
                }
            }
            let mut room = [0; 4096];
            match self.0.read(&mut room) {
                Ok(n) if n > 0 => came.extend_from_slice(&room[..n]),
                ended => return Err(format!("{ended:?} after {:?}", String::from_utf8_lossy(&came))),
            }
        }
    }
}

/// The log in an answer, if there is one.
fn log_in(answer: &str) -> Option<String> {
    let rest = answer.split_once("\"tlog\":\"")?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn fuzz(addr: SocketAddr) {
    let (cases, seed) = (number("KVNODE_FUZZ_CASES", 3000), number("KVNODE_FUZZ_SEED", 1));
    let mut draw = Draw(seed);
    let mut socket = Socket::open(addr);
    let mut log = "AQ==".to_owned();
    let (mut slowest, mut logs, mut whole) = (Duration::ZERO, 0u64, 0u64);
    for case in 0..cases {
        let (page, call) = CALLS[draw.below(CALLS.len())];
        let mut body = call.replace("TLOG", &log).into_bytes();
        // Some calls stay as they are, so that there is something in the store and in the logs.
        for _ in 0..draw.below(4) {
            draw.change(&mut body);
        }
        let cut = (draw.below(4) == 0).then(|| draw.below(body.len() + 90));
        let what = || format!("case {case} of seed {seed}, {page}: {:?}", String::from_utf8_lossy(&body));
        let began = Instant::now();
        let (status, answer) = socket.post(page, &body, cut).unwrap_or_else(|e| panic!("{}\n{e}", what()));
        slowest = slowest.max(began.elapsed());
        assert!(status.starts_with("HTTP/1.1 200 "), "{}\n{status}", what());
        let text = String::from_utf8(answer).unwrap_or_else(|e| panic!("{}\n{e}", what()));
        let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("{}\n{text:?}", what()));
        let is_json = line.is_empty() || serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert!(is_json && !line.contains('\n'), "{}\n{text:?}", what());
        whole += u64::from(line.contains("\"result\""));
        if let Some(given) = log_in(line) {
            (log, logs) = (given, logs + 1);
        }
    }
    let mut other = Socket::open(addr);
    let (_, answer) = other.post("tx", CALLS[0].1.as_bytes(), None).unwrap();
    assert_eq!(answer, b"{\"result\":\"ok\",\"id\":0,\"jsonrpc\":\"2.0\"}\n");
    println!("{cases} requests, {whole} with a result, {logs} logs given, the slowest took {slowest:?}");
    assert!(whole * 10 > cases && logs > 0, "the requests are too broken to test anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_bytes_come_are_answered_by_a_line_of_json() {
    let node = fake_node().await;
    let given = std::env::var("KVNODE_FUZZ_ADDR").ok();
    let addr = given.map_or(node.addr, |a| a.parse().unwrap());
    tokio::task::spawn_blocking(move || fuzz(addr)).await.unwrap();
    drop(node);
}
