//! Scalaris' JSON-RPC over a socket: every call and answer, byte for byte, and the habits of each client.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "tests live in real time and stop where they fail"
)]

mod common;

use common::{DEAD_KEY, FakeNode, LOST_KEY, fake_node};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection, as a client without any library has it.
struct Socket(TcpStream);

struct Answer {
    head: String,
    body: String,
}

impl Socket {
    fn open(addr: SocketAddr) -> Socket {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Socket(stream)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !out.ends_with(end) {
            let mut byte = [0];
            assert_eq!(
                self.0.read(&mut byte).unwrap(),
                1,
                "closed after {:?}",
                String::from_utf8_lossy(&out)
            );
            out.extend(byte);
        }
        out
    }

    fn answer(&mut self) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n")).unwrap();
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("Content-Length: "))
            .map_or(0, |l| l.parse::<usize>().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Answer { head, body: String::from_utf8(body).unwrap() }
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }

    fn post(&mut self, path: &str, body: &str) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\nHost: n\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(format!("{head}{body}").as_bytes());
        self.answer()
    }
}

/// A node and a connection to it.
struct Talk {
    node: FakeNode,
    socket: Socket,
}

impl Talk {
    async fn begin() -> Talk {
        let node = fake_node().await;
        let socket = Socket::open(node.addr);
        Talk { node, socket }
    }

    fn on(&mut self, path: &str, method: &str, params: &str) -> String {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params},"id":0}}"#);
        let answer = self.socket.post(path, &body);
        assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
        answer.body
    }

    /// The result of a call on a page; the envelope around it is checked.
    fn result(&mut self, path: &str, method: &str, params: &str) -> String {
        let body = self.on(path, method, params);
        let begin = "{\"result\":";
        let end = ",\"id\":0,\"jsonrpc\":\"2.0\"}\n";
        let inner = body.strip_prefix(begin).and_then(|b| b.strip_suffix(end));
        inner.unwrap_or_else(|| panic!("{method} {params}: {body}")).to_owned()
    }

    fn tx(&mut self, method: &str, params: &str) -> String {
        let old = self.result("/jsonrpc.yaws", "nop", "[1]");
        assert_eq!(old, "\"ok\"");
        self.result("/api/tx.yaws", method, params)
    }

    fn check(&mut self, method: &str, params: &str, expected: &str) {
        assert_eq!(self.tx(method, params), expected, "{method} {params}");
    }
}

/// Calls that resemble real ones, with parameters that often do not; and texts that are none.
fn any_request() -> impl Strategy<Value = (&'static str, String)> {
    let paths: Vec<&'static str> = jsonrpc::Page::ALL.iter().map(|(path, _)| *path).collect();
    let leaf = prop_oneof![
        Just(r#""k""#.to_owned()),
        Just(r#""""#.to_owned()),
        Just(r#"{"type":"as_is","value":1}"#.to_owned()),
        Just(r#"{"type":"as_bin","value":"AAE="}"#.to_owned()),
        Just(r#"{"commit":""}"#.to_owned()),
        Just(r#"{"read":"k"}"#.to_owned()),
        Just(r#"{"add_on_nr":{"k":0.5}}"#.to_owned()),
        Just(r#"{"key":"k","old":1,"new":[]}"#.to_owned()),
        Just("null".to_owned()),
        any::<i64>().prop_map(|i| i.to_string()),
        Just("1e308".to_owned()),
        "[a-zä€\u{10000}%\\\\]{0,6}".prop_map(|s| format!("{s:?}")),
        "[A-Za-z0-9+/]{0,12}={0,2}".prop_map(|s| format!("\"AQ{s}\"")),
    ];
    let name = prop_oneof![
        Just("write"),
        Just("add_del_on_list"),
        Just("test_and_set"),
        Just("type"),
        Just("value"),
        Just("k"),
    ];
    let params = leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(","))),
            proptest::collection::vec((name.clone(), inner), 0..4).prop_map(|v| {
                let members: Vec<String> = v.into_iter().map(|(n, j)| format!("\"{n}\":{j}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    let methods = vec![
        "nop",
        "read",
        "write",
        "add_del_on_list",
        "add_on_nr",
        "test_and_set",
        "req_list",
        "req_list_commit_each",
        "delete",
        "range_read",
        "range_read_here",
        "rbr_read",
        "rbr_write",
        "get_replication_factor",
        "get_version",
        "get_info",
        "number_of_nodes",
        "get_nodes",
        "add_nodes",
        "shutdown_node",
        "kill_nodes",
        "kill_nodes_by_name",
        "get_other_vms",
        "shutdown_vm",
        "kill_vm",
        "get_node_info",
        "get_service_performance",
        "pull_scale_req",
        "get_ring_size",
        "frobnicate",
    ];
    let call =
        (proptest::sample::select(methods), proptest::collection::vec(params.clone(), 0..4), params.clone())
            .prop_map(|(m, p, id)| {
                format!(r#"{{"jsonrpc":"2.0","method":"{m}","params":[{}],"id":{id}}}"#, p.join(","))
            });
    let body = prop_oneof![
        6 => call.clone(),
        1 => proptest::collection::vec(call.clone(), 0..4).prop_map(|c| format!("[{}]", c.join(","))),
        1 => params,
        1 => (call, 0usize..80, "\\PC{0,3}").prop_map(|(c, at, with)| {
            let at = (0..=at.min(c.len())).rev().find(|i| c.is_char_boundary(*i)).unwrap_or(0);
            format!("{}{with}{}", &c[..at], &c[at..])
        }),
    ];
    (proptest::sample::select(paths), body)
}

const OK: &str = r#"{"status":"ok"}"#;
const NOT_FOUND: &str = r#"{"status":"fail","reason":"not_found"}"#;

/// Sockets block; the node runs on other threads.
macro_rules! socket_tests {
    ($($(#[$attr:meta])* fn $name:ident($talk:ident) $body:block)*) => {
        $($(#[$attr])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let mut talk = Talk::begin().await;
            tokio::task::spawn_blocking(move || { let $talk = &mut talk; $body }).await.unwrap();
        })*
    };
}

socket_tests! {
    fn the_captured_dialogs_are_answered_byte_for_byte(t) {
        for (body, expected) in [
            (r#"{"jsonrpc":"2.0","method":"nop","params":[{"type":"as_is","value":1}],"id":0}"#, r#"{"result":"ok","id":0,"jsonrpc":"2.0"}"#),
            (r#"{"jsonrpc":"2.0","method":"read","params":["a"],"id":0}"#, r#"{"result":{"status":"fail","reason":"not_found"},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"jsonrpc":"2.0","method":"write","params":["a",{"type":"as_is","value":"hello"}],"id":7}"#, r#"{"result":{"status":"ok"},"id":7,"jsonrpc":"2.0"}"#),
            (r#"{"jsonrpc":"2.0","method":"read","params":["a"],"id":"abc"}"#, r#"{"result":{"status":"ok","value":{"type":"as_is","value":"hello"}},"id":"abc","jsonrpc":"2.0"}"#),
            (r#"{"jsonrpc":"2.0","method":"frobnicate","params":[1],"id":0}"#, r#"{"result":{"failure":"unknownreq"},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"jsonrpc":"2.0","method":"read","params":{"key":"a"},"id":0}"#, r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"method not found"}}"#),
            ("not JSON", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}"#),
            ("[]", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request"}}"#),
            (r#"{"jsonrpc":"2.0","method":"write","params":["a",1]}"#, ""),
        ] {
            let answer = t.socket.post("/api/tx.yaws", body);
            assert_eq!(answer.body, format!("{expected}\n"), "{body}");
            assert!(answer.head.contains("\r\nContent-Type: application/json\r\n"), "{}", answer.head);
            assert!(answer.head.contains("\r\nDate: "), "{}", answer.head);
            assert!(!answer.head.contains("Transfer-Encoding") && !answer.head.contains("Connection"), "{}", answer.head);
        }
        let lengths = t.socket.post("/api/tx.yaws", r#"{"jsonrpc":"2.0","method":"nop","params":[0],"id":0}"#);
        assert!(lengths.head.contains("\r\nContent-Length: 39\r\n"), "{}", lengths.head);
    }

    fn values_come_back(t) {
        for (sent, expected) in [
            (r#"{"type":"as_bin","value":"AAEC/w=="}"#, None),
            (r#"{"type":"as_is","value":[1,2,3]}"#, None),
            (r#"{"type":"as_is","value":"ä€𝄞"}"#, None),
            (r#"{"type":"as_is","value":"\u0160"}"#, Some(r#"{"type":"as_is","value":"Š"}"#)),
            (r#"{"type":"as_is","value":100000000000000000000000000000000000000001}"#, None),
            (r#"{"type":"as_is","value":-1}"#, None),
            (r#"{"type":"as_is","value":true}"#, None),
            (r#"{"type":"as_is","value":null}"#, None),
            (r#"{"value":{"b":[],"a":{}},"type":"as_is"}"#, Some(r#"{"type":"as_is","value":{"a":{},"b":[]}}"#)),
            (r#"{"type":"as_is","value":["a",[65,66],null,true,1.5,{"x":[1,"y"]}]}"#, Some(r#"{"type":"as_is","value":["a",[65,66],null,true,1.50000000000000000000e+00,{"x":[1,"y"]}]}"#)),
        ] {
            t.check("write", &format!(r#"["v",{sent}]"#), OK);
            let expected = format!(r#"{{"status":"ok","value":{}}}"#, expected.unwrap_or(sent));
            t.check("read", r#"["v"]"#, &expected);
        }
        for key in ["", "%25", "a?b+c", "Š", "k k"] {
            let params = format!("[\"{key}\"");
            t.check("write", &format!(r#"{params},{{"type":"as_is","value":1}}]"#), OK);
            t.check("read", &format!("{params}]"), r#"{"status":"ok","value":{"type":"as_is","value":1}}"#);
        }
    }

    fn single_operations_answer_as_scalaris_does(t) {
        t.check("add_on_nr", r#"["n",5]"#, OK);
        t.check("add_on_nr", r#"["n",0.5]"#, OK);
        t.check("read", r#"["n"]"#, r#"{"status":"ok","value":{"type":"as_is","value":5.50000000000000000000e+00}}"#);
        t.check("add_on_nr", r#"["zero",0]"#, OK);
        t.check("read", r#"["zero"]"#, r#"{"status":"ok","value":{"type":"as_is","value":0}}"#);
        t.check("add_on_nr", r#"["n","x"]"#, r#"{"status":"fail","reason":"not_a_number"}"#);
        t.check("add_del_on_list", r#"["l",["b","b","c"],["b","zz"]]"#, OK);
        t.check("read", r#"["l"]"#, r#"{"status":"ok","value":{"type":"as_is","value":["b","c"]}}"#);
        t.check("add_on_nr", r#"["l",1]"#, r#"{"status":"fail","reason":"not_a_number"}"#);
        t.check("add_del_on_list", r#"["l",["z"],["b"]]"#, OK);
        t.check("read", r#"["l"]"#, r#"{"status":"ok","value":{"type":"as_is","value":["z","c"]}}"#);
        t.check("add_del_on_list", r#"["l","z",[]]"#, r#"{"status":"fail","reason":"not_a_list"}"#);
        t.check("add_del_on_list", r#"["n",["z"],[]]"#, r#"{"status":"fail","reason":"not_a_list"}"#);
        t.check("add_del_on_list", r#"["empty",[],[]]"#, OK);
        t.check("read", r#"["empty"]"#, r#"{"status":"ok","value":{"type":"as_is","value":[]}}"#);
        t.check("write", r#"["s",{"type":"as_is","value":"hello"}]"#, OK);
        t.check("add_del_on_list", r#"["s",["z"],[]]"#, OK);
        t.check("read", r#"["s"]"#, r#"{"status":"ok","value":{"type":"as_is","value":["z",104,101,108,108,111]}}"#);
        t.check("write", r#"["b",{"type":"as_bin","value":"AAE="}]"#, OK);
        t.check("add_del_on_list", r#"["b",["z"],[]]"#, r#"{"status":"fail","reason":"not_a_list"}"#);
        let tas = |k: &str, old: &str| format!(r#"["{k}",{{"type":"as_is","value":{old}}},{{"type":"as_is","value":9}}]"#);
        t.check("test_and_set", &tas("new", "1"), NOT_FOUND);
        t.check("read", r#"["new"]"#, NOT_FOUND);
        t.check("test_and_set", &tas("zero", "0.0"), r#"{"status":"fail","reason":"key_changed","value":{"type":"as_is","value":0}}"#);
        t.check("test_and_set", &tas("zero", "0"), OK);
        t.check("read", r#"["zero"]"#, r#"{"status":"ok","value":{"type":"as_is","value":9}}"#);
        t.check(
            "req_list_commit_each",
            r#"[[{"read":"zero"},{"write":{"e":{"type":"as_is","value":"e"}}},{"add_on_nr":{"e2":3}},{"read":"nothing"},"dropped"]]"#,
            &format!(r#"[{{"status":"ok","value":{{"type":"as_is","value":9}}}},{OK},{OK},{NOT_FOUND}]"#),
        );
        t.check("req_list_commit_each", "[[]]", "[]");
    }

    fn transactions_answer_as_scalaris_does(t) {
        let empty = "AQ==";
        t.check("req_list", "[[]]", &format!(r#"{{"tlog":"{empty}","results":[]}}"#));
        t.check("req_list", r#"[[{"commit":"commit"}]]"#, &format!(r#"{{"tlog":"{empty}","results":[{OK}]}}"#));
        let write = |k: &str, v: &str| format!(r#"{{"write":{{"{k}":{{"type":"as_is","value":{v}}}}}}}"#);
        t.check(
            "req_list",
            &format!(r#"[[{},{{"commit":""}}]]"#, write("a", "1")),
            &format!(r#"{{"tlog":"{empty}","results":[{OK},{OK}]}}"#),
        );
        // Two transactions read and write the same key: the first to commit wins.
        let begin = format!(r#"[[{{"read":"a"}},{},{{"read":"a"}}]]"#, write("a", "2"));
        let value = |v: &str| format!(r#"{{"status":"ok","value":{{"type":"as_is","value":{v}}}}}"#);
        let step = t.tx("req_list", &begin);
        let log = step.strip_prefix(r#"{"tlog":""#).and_then(|s| s.split_once('"')).unwrap().0.to_owned();
        assert_eq!(step, format!(r#"{{"tlog":"{log}","results":[{},{OK},{}]}}"#, value("1"), value("2")));
        assert_eq!(t.tx("req_list", &begin), step, "the same log for the same state");
        let commit = format!(r#"["{log}",[{{"commit":"commit"}}]]"#);
        t.check("req_list", &commit, &format!(r#"{{"tlog":"{empty}","results":[{OK}]}}"#));
        let abort = r#"{"status":"fail","reason":"abort","keys":["a"]}"#;
        t.check("req_list", &commit, &format!(r#"{{"tlog":"{empty}","results":[{abort}]}}"#));
        t.check("read", r#"["a"]"#, &value("2"));
        // A failed operation dooms its transaction, a missing key does not.
        t.check("req_list", r#"[[{"add_on_nr":{"a":"x"}},{"commit":0}]]"#, &format!(r#"{{"tlog":"{empty}","results":[{{"status":"fail","reason":"not_a_number"}},{abort}]}}"#));
        t.check("req_list", &format!(r#"[[{{"read":"m"}},{},{{"commit":0}}]]"#, write("m", "3")), &format!(r#"{{"tlog":"{empty}","results":[{NOT_FOUND},{OK},{OK}]}}"#));
        // A commit before the end.
        let misplaced = t.tx("req_list", &format!(r#"[[{{"read":"a"}},{{"commit":0}},{}]]"#, write("a", "4")));
        assert!(misplaced.ends_with(&format!(r#""results":[{NOT_FOUND},{{"status":"fail","reason":"abort","keys":[]}},{OK}]}}"#)), "{misplaced}");
        let log = misplaced.strip_prefix(r#"{"tlog":""#).and_then(|s| s.split_once('"')).unwrap().0.to_owned();
        t.check("req_list", &format!(r#"["{log}",[{{"commit":0}}]]"#), &format!(r#"{{"tlog":"{empty}","results":[{abort}]}}"#));
        t.check("read", r#"["a"]"#, &value("2"));
    }

    fn a_transaction_over_several_keys_is_whole_or_not_at_all(t) {
        let write = |k: &str, v: u8| format!(r#"{{"write":{{"{k}":{{"type":"as_is","value":{v}}}}}}}"#);
        let value = |v: u8| format!(r#"{{"status":"ok","value":{{"type":"as_is","value":{v}}}}}"#);
        let step = |t: &mut Talk, first: &str, list: &str| {
            let step = t.tx("req_list", &format!("[{first}{list}]"));
            step.strip_prefix(r#"{"tlog":""#).and_then(|s| s.split_once('"')).unwrap().0.to_owned()
        };
        let reads = r#"[{"read":"m1"},{"read":"m2"}]"#;
        let (one, two) = (step(t, "", reads), step(t, "", reads));
        let one = step(t, &format!("\"{one}\","), &format!("[{},{}]", write("m1", 1), write("m2", 1)));
        let two = step(t, &format!("\"{two}\","), &format!("[{},{}]", write("m2", 2), write("m3", 2)));
        let commit = |log: &str| format!(r#"["{log}",[{{"commit":""}}]]"#);
        t.check("req_list", &commit(&one), &format!(r#"{{"tlog":"AQ==","results":[{OK}]}}"#));
        let abort = r#"{"status":"fail","reason":"abort","keys":["m1","m2"]}"#;
        t.check("req_list", &commit(&two), &format!(r#"{{"tlog":"AQ==","results":[{abort}]}}"#));
        t.check("req_list", &commit(&one), &format!(r#"{{"tlog":"AQ==","results":[{abort}]}}"#));
        t.check("read", r#"["m1"]"#, &value(1));
        t.check("read", r#"["m2"]"#, &value(1));
        t.check("read", r#"["m3"]"#, NOT_FOUND);
        t.check(
            "req_list",
            r#"[[{"read":"m1"},{"add_on_nr":{"m3":5}},{"read":"m3"},{"commit":""}]]"#,
            &format!(r#"{{"tlog":"AQ==","results":[{},{OK},{},{OK}]}}"#, value(1), value(5)),
        );
    }

    fn what_has_no_answer_is_told_apart_from_what_was_not_done(t) {
        let write = |k: &str| format!(r#"["{k}",{{"type":"as_is","value":1}}]"#);
        let timeout = r#"{"status":"fail","reason":"timeout"}"#;
        t.check("write", &write(LOST_KEY), timeout);
        t.check("write", &write(DEAD_KEY), r#"{"status":"fail","reason":"abort","keys":["dead"]}"#);
        t.check("read", r#"["dead"]"#, timeout);
        t.check("req_list", r#"[[{"read":"dead"},{"commit":0}]]"#, r#"{"tlog":"AQ==","results":[{"status":"fail","reason":"timeout"},{"status":"fail","reason":"abort","keys":["dead"]}]}"#);
        let long = "k".repeat(2000);
        let body = t.on("/api/tx.yaws", "write", &write(&long));
        assert!(body.contains(r#""error":{"code":-32000,"#) && body.contains("KV-KEY-002") && body.contains("not_done"), "{body}");
        assert_eq!(t.result("/api/rdht.yaws", "delete", r#"["dead",100]"#), r#"{"failure":"timeout","ok":0,"results":[]}"#);
    }

    fn the_other_pages_answer(t) {
        t.check("write", r#"["d",{"type":"as_is","value":1}]"#, OK);
        for (path, method, params, expected) in [
            ("/api/rdht.yaws", "delete", r#"["d"]"#, r#"{"ok":3,"results":["ok","ok","ok"]}"#),
            ("/api/rdht.yaws", "delete", r#"["d",5000]"#, r#"{"ok":0,"results":["undef","undef","undef"]}"#),
            ("/jsonrpc.yaws", "delete", r#"["d"]"#, r#"{"ok":0,"results":["undef","undef","undef"]}"#),
            ("/api/rbr.yaws", "read", r#"["d"]"#, NOT_FOUND),
            ("/api/rbr.yaws", "write", r#"["d",[1,"x"]]"#, OK),
            ("/api/rbr.yaws", "read", r#"["d"]"#, r#"{"status":"ok","value":{"type":"as_is","value":[1,"x"]}}"#),
            ("/jsonrpc.yaws", "rbr_write", r#"["d","y"]"#, OK),
            ("/jsonrpc.yaws", "rbr_read", r#"["d"]"#, r#"{"status":"ok","value":{"type":"as_is","value":"y"}}"#),
            ("/api/rt.yaws", "get_replication_factor", "[]", r#"{"status":"ok","value":3}"#),
            ("/jsonrpc.yaws", "get_replication_factor", "[]", r#"{"status":"ok","value":3}"#),
            ("/api/vm.yaws", "get_version", "[]", concat!(r#"{"status":"ok","value":"kvnode "#, env!("CARGO_PKG_VERSION"), r#""}"#)),
            ("/api/vm.yaws", "number_of_nodes", "[]", r#"{"status":"ok","value":1}"#),
            ("/api/vm.yaws", "get_other_vms", "[3]", r#"{"status":"ok","value":[]}"#),
            ("/jsonrpc.yaws", "get_service_info", "[]", r#"{"status":"ok","value":{"total_load":0,"nodes":1}}"#),
            ("/api/autoscale.yaws", "check_config", "[]", r#"{"status":"error"}"#),
            ("/api/autoscale.yaws", "pull_scale_req", "[]", r#"{"status":"error","reason":"autoscale_false"}"#),
            ("/api/autoscale.yaws", "lock_scale_req", "[]", r#"{"status":"error","reason":"autoscale_false"}"#),
            ("/api/autoscale.yaws", "unlock_scale_req", "[]", r#"{"status":"error","reason":"autoscale_false"}"#),
            ("/jsonrpc.yaws", "get_ring_size", "[2000]", "1"),
            ("/jsonrpc.yaws", "wait_for_ring_size", "[1,2000]", "\"ok\""),
            ("/jsonrpc.yaws", "wait_for_ring_size", "[2,150]", "\"failed\""),
            ("/jsonrpc.yaws", "get_info", "[]", r#"{"failure":"unknownreq"}"#),
            ("/api/rt.yaws", "get_replication_factor", "[1]", r#"{"failure":"unknownreq"}"#),
        ] {
            assert_eq!(t.result(path, method, params), expected, "{path} {method} {params}");
        }
        for (path, _) in jsonrpc::Page::ALL {
            assert_eq!(t.result(path, "nop", "[0]"), "\"ok\"", "{path}");
        }
        let node = t.result("/api/monitor.yaws", "get_node_info", "[]");
        assert!(node.starts_with(r#"{"status":"ok","value":{"scalaris_version":"kvnode "#) && node.ends_with(r#","erlang_version":"none","dht_nodes":1}}"#), "{node}");
        let speed = t.result("/api/monitor.yaws", "get_node_performance", "[]");
        assert!(speed.starts_with(r#"{"status":"ok","value":{"latency_avg":{""#) && speed.contains(r#"},"latency_stddev":{""#), "{speed}");
        let nodes = t.result("/api/vm.yaws", "get_nodes", "[]");
        assert!(nodes.starts_with(r#"{"status":"ok","value":[""#) && nodes.ends_with("\"]}"), "{nodes}");
        let refused = t.on("/api/vm.yaws", "add_nodes", "[1]");
        assert!(refused.contains("\"code\":-32000") && refused.contains("KV-REQ-003"), "{refused}");
    }

    fn process_info_has_the_eight_members(t) {
        let info = t.result("/api/vm.yaws", "get_info", "[]");
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let value = info.get("value").unwrap().as_object().unwrap();
        assert_eq!(value.len(), 8);
        for text in ["scalaris_version", "erlang_version", "erlang_node", "ip"] {
            assert!(value.get(text).unwrap().is_string(), "{text}");
        }
        for number in ["mem_total", "uptime", "port", "yaws_port"] {
            assert!(value.get(number).unwrap().is_u64(), "{number}");
        }
        assert_eq!(value.get("yaws_port").unwrap().as_u64(), Some(u64::from(t.node.addr.port())));
    }

    fn a_range_lists_every_replica(t) {
        t.check("write", r#"["r",{"type":"as_is","value":"x"}]"#, OK);
        let all = t.result("/api/dht_raw.yaws", "range_read", "[0,0]");
        assert!(all.starts_with(r#"{"status":"ok","value":[{"key":"#), "{all}");
        assert_eq!(all.matches(r#","value":{"type":"as_is","value":"x"},"version":1}"#).count(), 3, "{all}");
        let position = all.split("\"key\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let next = position.parse::<u128>().unwrap() + 1;
        let one = t.result("/jsonrpc.yaws", "range_read", &format!("[{position},{next}]"));
        assert_eq!(one.matches("\"key\"").count(), 1, "{one}");
        let beyond = t.result("/api/dht_raw.yaws", "range_read", &format!("[{next},{position}]"));
        assert_eq!(beyond.matches("\"key\"").count(), 3, "{beyond}");
    }

    fn a_benchmark_runs_and_has_its_figures(t) {
        for method in ["run_benchmark_incr", "run_benchmark_read"] {
            let figures = t.result("/jsonrpc.yaws", method, "[]");
            let figures: serde_json::Value = serde_json::from_str(&figures).unwrap();
            for name in [
                "servers", "threads_per_vm", "iterations", "statistics", "wall_clock_time", "wall_clock_throughput",
                "wall_clock_latency", "min_throughput_overall", "min_throughput_each", "mean_throughput_overall",
                "mean_throughput_each", "max_throughput_overall", "max_throughput_each", "min_latency_each",
                "avg_latency_each", "max_latency_each", "avg_latency_overall", "avg_exec_time", "aborts",
            ] {
                assert!(figures.get(name).is_some(), "{name}");
            }
            assert_eq!(figures["aborts"], serde_json::json!([0]));
        }
    }

    fn the_python_client_encodes_its_whole_body_and_keeps_its_connection(t) {
        let json = r#"{"jsonrpc": "2.0", "params": ["\u0160k", {"type": "as_is", "value": "100% \u00e4"}], "method": "write", "id": 0}"#;
        let quoted = |text: &str| -> String {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-~/".contains(&b);
            text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
        };
        for (json, expected) in [
            (json, r#"{"result":{"status":"ok"},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"jsonrpc": "2.0", "params": ["\u0160k"], "method": "read", "id": 0}"#, r#"{"result":{"status":"ok","value":{"type":"as_is","value":"100% ä"}},"id":0,"jsonrpc":"2.0"}"#),
        ] {
            let body = quoted(json);
            t.socket.send(
                format!(
                    "POST /api/tx.yaws HTTP/1.1\r\nHost: localhost:8000\r\nAccept-Encoding: identity\r\nContent-Length: {}\r\n\
                     Content-Type: application/json; charset=utf-8\r\n\r\n{body}",
                    body.len()
                ).as_bytes(),
            );
            assert_eq!(t.socket.answer().body, format!("{expected}\n"));
        }
    }

    fn the_ruby_client_encodes_what_is_unsafe_and_breaks_lines_in_base64(t) {
        // URI::encode leaves these as they are: letters, digits, and -_.!~*'();/?:@&=+$,[]
        let encoded = |text: &str| -> String {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'();/?:@&=+$,[]".contains(&b);
            text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
        };
        let base64 = format!("{}\\n{}\\n", "QUFB".repeat(15), "QUE=");
        let write = format!(r#"{{"jsonrpc":"2.0","method":"write","params":["rb",{{"value":"{base64}","type":"as_bin"}}],"id":0}}"#);
        let read = r#"{"jsonrpc":"2.0","method":"read","params":["rb"],"id":0}"#;
        let stored = format!("{}QUE=", "QUFB".repeat(15));
        for (json, expected) in [
            (write.as_str(), r#"{"result":{"status":"ok"},"id":0,"jsonrpc":"2.0"}"#.to_owned()),
            (read, format!(r#"{{"result":{{"status":"ok","value":{{"type":"as_bin","value":"{stored}"}}}},"id":0,"jsonrpc":"2.0"}}"#)),
        ] {
            let body = encoded(json);
            t.socket.send(
                format!(
                    "POST /jsonrpc.yaws HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\nConnection: keep-alive\r\n\
                     Keep-Alive: 30\r\nAccept: */*\r\nUser-Agent: Ruby\r\nHost: localhost:8000\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ).as_bytes(),
            );
            assert_eq!(t.socket.answer().body, format!("{expected}\n"));
        }
    }

    fn the_cpp_client_sends_no_version_and_line_ends_after_its_body_and_reads_to_the_line_feed(t) {
        for (body, expected) in [
            (r#"{"id":0,"method":"get_replication_factor","params":[]}"#, r#"{"result":{"status":"ok","value":3},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"id":0,"method":"req_list","params":[[{"read":"unknown"},{"commit":""}]]}"#, r#"{"result":{"tlog":"AQ==","results":[{"status":"fail","reason":"not_found"},{"status":"ok"}]},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"id":0,"method":"req_list","params":[[{"write":{"c":{"type":"as_is","value":"v"}}},{"commit":""}]]}"#, r#"{"result":{"tlog":"AQ==","results":[{"status":"ok"},{"status":"ok"}]},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"id":0,"method":"req_list","params":[[{"read":"c"},{"commit":""}]]}"#, r#"{"result":{"tlog":"AQ==","results":[{"status":"ok","value":{"type":"as_is","value":"v"}},{"status":"ok"}]},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"id":0,"method":"rbr_write","params":["c2","v"]}"#, r#"{"result":{"status":"ok"},"id":0,"jsonrpc":"2.0"}"#),
            (r#"{"id":0,"method":"rbr_read","params":["c2"]}"#, r#"{"result":{"status":"ok","value":{"type":"as_is","value":"v"}},"id":0,"jsonrpc":"2.0"}"#),
        ] {
            t.socket.send(
                format!(
                    "POST /jsonrpc.yaws HTTP/1.1\r\nHost: localhost:8000\r\nContent-Type: application/json-rpc\r\nContent-Length: {}\r\n\r\n{body}\r\n\r\n",
                    body.len()
                ).as_bytes(),
            );
            let head = t.socket.until(b"\r\n\r\n");
            assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
            assert_eq!(t.socket.until(b"\n"), format!("{expected}\n").into_bytes());
        }
    }

    fn the_go_client_sends_plain_text_without_a_version(t) {
        let answer = t.socket.post("/api/tx.yaws", r#"{"method":"write","params":["go",{"type":"as_is","value":"x"}],"id":1}"#);
        assert_eq!(answer.body, "{\"result\":{\"status\":\"ok\"},\"id\":1,\"jsonrpc\":\"2.0\"}\n");
        let refused = t.socket.post("/api/rdht.yaws", r#"{"method":"delete","params":[{"key":"go"}],"id":1}"#);
        assert!(refused.body.contains("\"error\":{\"code\":-32602"), "{}", refused.body);
        let gone = t.socket.post("/api/pubsub.yaws", r#"{"method":"publish","params":["t","c"],"id":1}"#);
        assert!(gone.head.starts_with("HTTP/1.1 404"), "{}", gone.head);
    }

    fn only_post_is_served(t) {
        for (method, code, body, header) in [
            ("GET", "501 ", "\n", "Content-Type: application/json"),
            ("OPTIONS", "200 ", "", "Allow: GET, POST, HEAD, OPTIONS"),
            ("PUT", "405 ", "<!doctype html>", "Connection: close"),
        ] {
            let mut socket = Socket::open(t.node.addr);
            socket.send(format!("{method} /api/tx.yaws HTTP/1.1\r\n\r\n").as_bytes());
            let answer = socket.answer();
            assert!(answer.head.starts_with(&format!("HTTP/1.1 {code}")), "{}", answer.head);
            assert!(answer.head.contains(&format!("\r\n{header}\r\n")), "{}", answer.head);
            assert!(answer.body.starts_with(body), "{}", answer.body);
        }
    }

    fn bodies_are_bounded(t) {
        let padded = |n: usize| {
            let call = r#"{"jsonrpc":"2.0","method":"nop","params":[0],"id":0}"#;
            format!("{call}{}", " ".repeat(n - call.len()))
        };
        assert_eq!(t.socket.post("/api/tx.yaws", &padded(1 << 20)).body, "{\"result\":\"ok\",\"id\":0,\"jsonrpc\":\"2.0\"}\n");
        for announced in [(1 << 20) + 1, 10 << 20] {
            let mut socket = Socket::open(t.node.addr);
            socket.send(format!("POST /api/tx.yaws HTTP/1.1\r\nContent-Length: {announced}\r\n\r\n").as_bytes());
            let answer = socket.answer();
            assert!(answer.head.starts_with("HTTP/1.1 413 "), "{}", answer.head);
            assert_eq!(answer.body, "\n");
        }
        let mut socket = Socket::open(t.node.addr);
        socket.send(b"POST /api/tx.yaws HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
        assert!(socket.answer().head.starts_with("HTTP/1.1 413 "));
        assert!(socket.is_closed());
    }

    fn old_and_careful_clients_are_served(t) {
        let call = r#"{"jsonrpc":"2.0","method":"nop","params":[0],"id":0}"#;
        let mut old = Socket::open(t.node.addr);
        old.send(format!("POST /jsonrpc.yaws HTTP/1.0\r\nContent-Length: {}\r\n\r\n{call}", call.len()).as_bytes());
        assert_eq!(old.answer().body, "{\"result\":\"ok\",\"id\":0,\"jsonrpc\":\"2.0\"}\n");
        assert!(old.is_closed());
        let mut careful = Socket::open(t.node.addr);
        careful.send(format!("POST /jsonrpc.yaws HTTP/1.1\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n", call.len()).as_bytes());
        assert_eq!(careful.until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
        careful.send(call.as_bytes());
        assert_eq!(careful.answer().body, "{\"result\":\"ok\",\"id\":0,\"jsonrpc\":\"2.0\"}\n");
    }

    /// More cases: PROPTEST_CASES=100000 cargo test -p kvnode --test scalaris whatever
    fn whatever_comes_is_answered_by_a_line_of_json(t) {
        let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        config.max_shrink_iters = 200;
        let socket = RefCell::new(&mut t.socket);
        let answered = TestRunner::new(config).run(&any_request(), |(path, body)| {
            let answer = socket.borrow_mut().post(path, &body);
            prop_assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
            let line = answer.body.strip_suffix('\n').unwrap();
            prop_assert!(line.is_empty() || serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            Ok(())
        });
        answered.unwrap();
    }

    fn batches_are_answered_in_order(t) {
        let call = |id: u8, v: u8| format!(r#"{{"method":"write","params":["o",{{"type":"as_is","value":{v}}}],"id":{id}}}"#);
        let read = r#"{"method":"read","params":["o"],"id":"r"}"#;
        let note = r#"{"method":"write","params":["o",{"type":"as_is","value":9}]}"#;
        let batch = format!("[{},{},{note},{read}]", call(1, 1), call(2, 2));
        let one = |id: u8| format!(r#"{{"result":{{"status":"ok"}},"id":{id},"jsonrpc":"2.0"}}"#);
        let answer = t.socket.post("/api/tx.yaws", &batch);
        assert_eq!(
            answer.body,
            format!("[{},{},{{\"result\":{{\"status\":\"ok\",\"value\":{{\"type\":\"as_is\",\"value\":2}}}},\"id\":\"r\",\"jsonrpc\":\"2.0\"}}]\n", one(1), one(2))
        );
        assert_eq!(t.socket.post("/api/tx.yaws", &format!("[{note}]")).body, "\n");
    }
}
