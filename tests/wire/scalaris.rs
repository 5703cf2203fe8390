//! Scalaris' JSON-RPC against rings of processes: nothing but sockets and text on this side.

use harness::grpc::Grpc;
use harness::load::Client;
use harness::poll::{ensure, until};
use harness::process::{Node, start_ring};
use harness::{Res, binary, python};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);
const OK: &str = r#"{"status":"ok"}"#;

/// The result of a call, as text.
fn call(node: &Node, page: &str, method: &str, params: &str) -> Res<String> {
    let fail = |e: std::io::Error| format!("{method} at {}: {e}", node.endpoint());
    let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params},"id":0}}"#);
    let head = format!(
        "POST /api/{page}.yaws HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        node.endpoint(),
        body.len()
    );
    let mut stream = TcpStream::connect(node.client_addr()).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    stream.write_all(format!("{head}{body}").as_bytes()).map_err(fail)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(fail)?;
    let inner = text
        .split_once("\r\n\r\n{\"result\":")
        .and_then(|(_, b)| b.strip_suffix(",\"id\":0,\"jsonrpc\":\"2.0\"}\n"));
    inner.map(str::to_owned).ok_or_else(|| format!("{method}{params} at {}: {text}", node.endpoint()))
}

fn expect(node: &Node, page: &str, method: &str, params: &str, expected: &str) -> Res<()> {
    let got = call(node, page, method, params)?;
    ensure(got == expected, || format!("{method}{params} gave {got}, not {expected}"))
}

/// The texts between quotes in the list that `name` has.
fn listed(result: &str, name: &str) -> Vec<String> {
    let list = result.split(&format!("\"{name}\":[")).nth(1).and_then(|l| l.split(']').next());
    list.unwrap_or_default().split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// One store behind both interfaces, at every node; a transaction shows everywhere or nowhere.
pub(crate) fn one_store() -> Res<()> {
    let nodes = start_ring(3)?;
    let [a, b, c] = nodes.as_slice() else { return Err("three nodes".to_owned()) };
    expect(a, "tx", "write", r#"["from-json",{"type":"as_is","value":"text"}]"#, OK)?;
    let seen = Grpc::new(&b.endpoint())?.get("from-json")?;
    ensure(seen.as_deref() == Some("text"), || format!("gRPC reads {seen:?}"))?;
    let _ = Grpc::new(&b.endpoint())?.put("from-grpc", "ä%20");
    expect(
        c,
        "tx",
        "read",
        r#"["from-grpc"]"#,
        r#"{"status":"ok","value":{"type":"as_is","value":"ä%20"}}"#,
    )?;
    let step = call(
        a,
        "tx",
        "req_list",
        r#"[[{"read":"x"},{"write":{"x":{"type":"as_is","value":1}}},{"write":{"y":{"type":"as_is","value":1}}}]]"#,
    )?;
    let log = step.split('"').nth(3).unwrap_or_default().to_owned();
    expect(b, "tx", "read", r#"["x"]"#, r#"{"status":"fail","reason":"not_found"}"#)?;
    // The log is good at every node, once.
    let commit = format!(r#"["{log}",[{{"commit":""}}]]"#);
    expect(b, "tx", "req_list", &commit, r#"{"tlog":"AQ==","results":[{"status":"ok"}]}"#)?;
    let again = call(c, "tx", "req_list", &commit)?;
    ensure(again.contains(r#""reason":"abort""#), || format!("committed twice: {again}"))?;
    for key in ["x", "y"] {
        let one = r#"{"status":"ok","value":{"type":"as_is","value":1}}"#;
        expect(c, "tx", "read", &format!("[\"{key}\"]"), one)?;
    }
    contention(&nodes)?;
    expect(a, "rdht", "delete", r#"["x",2000]"#, r#"{"ok":3,"results":["ok","ok","ok"]}"#)?;
    expect(b, "rdht", "delete", r#"["x",2000]"#, r#"{"ok":0,"results":["undef","undef","undef"]}"#)
}

/// Increments by transactions that read first, at all nodes: what is reported done is done, once.
fn contention(nodes: &[Node]) -> Res<()> {
    let done: usize = thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|n| scope.spawn(move || increments(n))).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| "a client panicked".to_owned())?).sum::<Res<usize>>()
    })?;
    let expected = format!(r#"{{"status":"ok","value":{{"type":"as_is","value":{done}}}}}"#);
    let Some(first) = nodes.first() else { return Ok(()) };
    expect(first, "tx", "read", r#"["counter"]"#, &expected)?;
    expect(first, "tx", "read", r#"["mirror"]"#, &expected)
}

fn increments(node: &Node) -> Res<usize> {
    let mut done = 0;
    for _ in 0..30 {
        let list = r#"[[{"add_on_nr":{"counter":1}},{"add_on_nr":{"mirror":1}},{"commit":""}]]"#;
        let result = call(node, "tx", "req_list", list)?;
        if result.ends_with(r#"{"status":"ok"}]}"#) {
            done += 1;
        } else {
            ensure(result.contains(r#""reason":"abort","keys":["#), || {
                format!("neither done nor not: {result}")
            })?;
        }
    }
    Ok(done)
}

/// Nodes are added, shut down and killed in a process; the data stays.
pub(crate) fn virtual_nodes() -> Res<()> {
    let nodes = start_ring(3)?;
    let [a, b, _] = nodes.as_slice() else { return Err("three nodes".to_owned()) };
    expect(a, "tx", "write", r#"["kept",{"type":"as_is","value":7}]"#, OK)?;
    let added = call(b, "vm", "add_nodes", "[3]")?;
    let names = listed(&added, "ok");
    ensure(names.len() == 3 && added.ends_with(r#","failed":[]}"#), || added.clone())?;
    expect(b, "vm", "number_of_nodes", "[]", r#"{"status":"ok","value":4}"#)?;
    let all = listed(&call(b, "vm", "get_nodes", "[]")?, "value");
    ensure(names.iter().all(|n| all.contains(n)), || format!("{names:?} are not all among {all:?}"))?;
    until("the ring has six nodes", PATIENCE, || a.wait_members(6, Duration::from_secs(1)))?;
    // While a piece is on its way to another node, a range is read in part and says so.
    until("the whole ring is read", PATIENCE, || {
        let whole = call(a, "dht_raw", "range_read", "[0,0]")?;
        ensure(whole.starts_with(r#"{"status":"ok""#) && whole.matches("\"key\"").count() == 3, || whole)
    })?;
    let [one, two, three] = names.as_slice() else { return Err("three names".to_owned()) };
    expect(b, "vm", "shutdown_node", &format!("[\"{one}\"]"), OK)?;
    expect(b, "vm", "shutdown_node", &format!("[\"{one}\"]"), r#"{"status":"not_found"}"#)?;
    let by_name = format!(r#"{{"status":"ok","ok":["{two}"],"not_found":[]}}"#);
    expect(b, "vm", "kill_nodes_by_name", &format!("[[\"{two}\",\"{one}\"]]"), &by_name)?;
    expect(b, "vm", "shutdown_nodes", "[5]", &format!(r#"{{"status":"ok","ok":["{three}"]}}"#))?;
    until("the ring has three nodes", PATIENCE, || a.wait_members(3, Duration::from_secs(1)))?;
    expect(b, "tx", "read", r#"["kept"]"#, r#"{"status":"ok","value":{"type":"as_is","value":7}}"#)?;
    let others = call(b, "vm", "get_other_vms", "[9]")?;
    ensure(others.matches("\"yaws_port\":8000").count() == 2, || others)
}

/// A process that a client shuts down hands over, with all its nodes, and ends with 0.
pub(crate) fn shutdown_vm() -> Res<()> {
    let mut nodes = start_ring(3)?;
    let Some(mut last) = nodes.pop() else { return Err("three nodes".to_owned()) };
    call(&last, "vm", "add_nodes", "[1]")?;
    expect(&last, "tx", "write", r#"["kept",{"type":"as_is","value":7}]"#, OK)?;
    expect(&last, "vm", "shutdown_vm", "[]", OK)?;
    let (status, took) = last.wait_exit(Duration::from_secs(12))?;
    ensure(status.success(), || format!("it ended with {status} after {took:?}"))?;
    let Some(first) = nodes.first() else { return Err("two nodes".to_owned()) };
    expect(first, "tx", "read", r#"["kept"]"#, r#"{"status":"ok","value":{"type":"as_is","value":7}}"#)
}

/// The gRPC script for new users.
pub(crate) fn grpc_example() -> Res<()> {
    let nodes = start_ring(3)?;
    let Some(node) = nodes.last() else { return Err("three nodes".to_owned()) };
    let script = binary::workspace().join("examples").join("grpc_transaction.py");
    let printed = python::run(&python::interpreter(python::GRPC)?, &script, &[&node.endpoint()])?;
    ensure(printed == "moved: True, savings: 90, cash: 10\n", || printed)
}

/// The script for new users that needs nothing but Python, at two nodes.
pub(crate) fn example() -> Res<()> {
    let nodes = start_ring(3)?;
    let script = binary::workspace().join("examples").join("jsonrpc_transaction.py");
    let mut runs = Vec::new();
    for node in nodes.iter().take(2) {
        let run = Command::new("python3").arg(&script).arg(node.endpoint()).output();
        let out = run.map_err(|e| format!("cannot run python3: {e}"))?;
        runs.push(format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        ));
    }
    ensure(runs.iter().all(|r| r == "moved: True, savings: 90, cash: 10\n"), || format!("{runs:?}"))
}
