//! What a ring tells of itself: in its logs, on the command line, in the dashboard; and whether it is true.

use harness::poll::{ensure, until};
use harness::process::{Node, READY_WITHIN, loopback, start_ring};
use harness::{Res, cli, http, large};
use serde_json::{Value as Json, json};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// An idle ring is watched for so long, and again if something happened to it.
const QUIET: Duration = Duration::from_secs(8);
const WATCHES: u32 = 4;
/// Facts that differ from one moment to the next.
const FLEETING: [&str; 4] =
    ["uptime_seconds", "heard_ago_milliseconds", "round_trip_microseconds", "operations_open"];
/// Keys that are looked at.
const KEYS: u32 = 40;
/// A node that was killed is missed by the others within this.
const MISSED_WITHIN: Duration = Duration::from_secs(10);
/// What a dashboard of a large ring may be sent at first, and each second after that.
const LARGE_RING: usize = 1000;
const FIRST_BYTES_MAX: usize = 1 << 20;

/// At most one line a minute when nothing happens: whatever is written oftener shows within some seconds.
pub(crate) fn quiet() -> Res<()> {
    let nodes = start_ring(3)?;
    let logs = || nodes.iter().map(Node::log).collect::<Vec<_>>();
    let mut said = String::new();
    for _ in 0..WATCHES {
        let before = logs();
        sleep(QUIET);
        let after = logs();
        let news: Vec<&str> =
            after.iter().zip(&before).filter_map(|(a, b)| a.strip_prefix(b.as_str())).collect();
        ensure(news.len() == nodes.len(), || "a log was rewritten".to_owned())?;
        said = news.concat();
        if said.is_empty() {
            return Ok(());
        }
    }
    Err(format!("an idle ring goes on writing, within {QUIET:?}:\n{said}"))
}

/// Without what changes from moment to moment, and of other nodes without what they told at another time.
fn lasting(mut json: Json) -> Json {
    match &mut json {
        Json::Object(o) => {
            o.retain(|name, _| !FLEETING.contains(&name.as_str()));
            o.values_mut().for_each(|v| *v = lasting(v.take()));
        }
        Json::Array(a) => a.iter_mut().for_each(|v| *v = lasting(v.take())),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
    json
}

fn parsed(text: &str) -> Res<Json> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}: {text:.200}"))
}

/// The texts and numbers of a JSON document that name or count something.
fn words(json: &Json, out: &mut Vec<String>) {
    match json {
        Json::Object(o) => o.values().for_each(|v| words(v, out)),
        Json::Array(a) => a.iter().for_each(|v| words(v, out)),
        Json::String(s) if !s.is_empty() => out.push(s.clone()),
        Json::Number(n) => out.push(n.to_string()),
        Json::Null | Json::Bool(_) | Json::String(_) => {}
    }
}

/// Every command in every format tells what the dashboard tells.
pub(crate) fn same_facts() -> Res<()> {
    let nodes = start_ring(3)?;
    for i in 0..KEYS {
        cli::put(&nodes[0].endpoint(), &format!("key {i}"), "value")?;
    }
    for node in &nodes {
        let (at, endpoint) = (node.client_addr(), node.endpoint());
        until("the command line and the dashboard tell the same", READY_WITHIN, || {
            let (events, _) = http::events(at, "/events", &["state", "ring"])?;
            let (state, ring) = (parsed(&events[0])?, parsed(&events[1])?);
            let (_, body) = http::post(at, "/ui/api/locate", &json!({ "key": "key 7" }).to_string())?;
            let body =
                body.find('{').zip(body.rfind('}')).and_then(|(a, b)| body.get(a..=b)).unwrap_or_default();
            for (args, shown) in [
                (vec!["status"], state["status"].clone()),
                (vec!["members"], json!({ "members": state["members"] })),
                (vec!["ring"], ring),
                (vec!["locate", "key 7"], parsed(body)?),
            ] {
                let args: Vec<&str> = args.into_iter().chain(["--endpoint", &endpoint]).collect();
                let (shown, json) = (lasting(shown), lasting(cli::json(&args)?));
                ensure(shown == json, || format!("{args:?}:\n{json}\nthe dashboard:\n{shown}"))?;
                same_in_text(&args, &json)?;
            }
            Ok(())
        })?;
    }
    println!("status, members, ring and locate: plain, table and JSON agree with the dashboard on 3 nodes");
    Ok(())
}

/// What the JSON has is in the table, and in the text as far as people want it.
fn same_in_text(args: &[&str], json: &Json) -> Res<()> {
    let table = cli::run(&[args, &["-o", "table"]].concat())?.stdout;
    let plain = cli::run(args)?.stdout;
    let mut all = Vec::new();
    words(json, &mut all);
    for word in &all {
        let is_asked = args.contains(&word.as_str());
        let is_sentence = args.first() == Some(&"status") && word.contains(", can lose ");
        ensure(is_asked || is_sentence || table.contains(word.as_str()), || {
            format!("{args:?} -o table lacks {word}:\n{table}")
        })?;
    }
    match args.first() {
        Some(&"status") => {
            for name in ["sentence", "ring", "node", "address", "phase", "version"] {
                let word = json[name].as_str().unwrap_or_default();
                ensure(plain.contains(word), || format!("{args:?} lacks {name} {word}:\n{plain}"))?;
            }
        }
        _ => {
            // The same columns without their head, but for the times of a moment.
            let rows = |text: &str| text.lines().map(|l| l.split_whitespace().count()).sum::<usize>();
            ensure(rows(&plain) >= rows(&table) - 1, || format!("{args:?}:\n{plain}\nas a table:\n{table}"))?;
        }
    }
    Ok(())
}

fn tolerated(node: &Node) -> Res<u64> {
    let status = cli::json(&["status", "--endpoint", &node.endpoint()])?;
    status["tolerated_failures"].as_u64().ok_or_else(|| format!("{status}"))
}

fn wait_tolerated(node: &Node, n: u64) -> Res<()> {
    until(&format!("{} says that {n} nodes may fail", node.ip()), READY_WITHIN, || {
        let said = tolerated(node)?;
        ensure(said == n, || format!("it says {said}"))
    })
}

fn start(n: u8, factor: &str) -> Res<Vec<Node>> {
    let mut nodes = Vec::new();
    for last in 2..2 + n {
        let (ip, first) = (loopback(last).to_string(), loopback(2).to_string());
        let args = ["--listen", &ip, "--join", &first, "--replication-factor", factor];
        nodes.push(Node::start_with(loopback(last), &args, &[])?);
    }
    nodes.iter_mut().try_for_each(Node::wait_ready)?;
    nodes.iter().try_for_each(|node| node.wait_members(usize::from(n), READY_WITHIN))?;
    Ok(nodes)
}

fn read(node: &Node, key: &str) -> Res<cli::Output> {
    cli::run(&["get", "--endpoint", &node.endpoint(), "--timeout", "3s", key])
}

fn kill(nodes: &mut Vec<Node>, addresses: &[String]) -> Res<()> {
    let (dead, alive) = nodes
        .drain(..)
        .partition::<Vec<Node>, _>(|n| addresses.iter().any(|a| a.starts_with(&format!("{}:", n.ip()))));
    *nodes = alive;
    ensure(dead.len() == addresses.len(), || format!("{addresses:?} are not all nodes"))?;
    dead.into_iter().try_for_each(Node::kill)
}

/// Where the replicas of a key are, the home's first.
fn owners(node: &Node, key: &str) -> Res<Vec<String>> {
    let at = cli::json(&["locate", "--endpoint", &node.endpoint(), key])?;
    let replicas = at["replicas"].as_array().cloned().unwrap_or_default();
    Ok(replicas.iter().filter_map(|r| r["overlay_address"].as_str().map(str::to_owned)).collect())
}

/// As many as it says may fail at once, and every key is served; one more, and one is not.
pub(crate) fn tolerated_is_true() -> Res<()> {
    for (factor, may_fail) in [("3", 1), ("5", 2)] {
        let mut nodes = start(5, factor)?;
        for i in 0..KEYS {
            cli::put(&nodes[0].endpoint(), &format!("key {i}"), &i.to_string())?;
        }
        nodes.iter().try_for_each(|n| wait_tolerated(n, may_fail))?;
        let lost = usize::try_from(may_fail).map_err(|e| e.to_string())?;
        let of_key = owners(&nodes[0], "key 0")?;
        kill(&mut nodes, &of_key[..lost])?;
        for i in 0..KEYS {
            let key = format!("key {i}");
            let value =
                until("a read after the loss", MISSED_WITHIN, || cli::get(&nodes[0].endpoint(), &key))?;
            ensure(value == i.to_string(), || format!("R = {factor}: {key} is {value:?}"))?;
        }
        // Where there are more nodes than replicas the ring has healed and bears the next loss; else it says no.
        let again = if factor == "3" { may_fail } else { 0 };
        nodes.iter().try_for_each(|n| wait_tolerated(n, again))?;

        // One more at once than it says now, all of them with a replica of one key.
        let of_key = owners(&nodes[0], "key 0")?;
        let more = usize::try_from(again).map_err(|e| e.to_string())? + 1;
        let held: Vec<String> = of_key
            .into_iter()
            .filter(|a| nodes.iter().any(|n| a.starts_with(&format!("{}:", n.ip()))))
            .collect();
        kill(&mut nodes, &held[..more])?;
        let out = read(&nodes[0], "key 0")?;
        ensure(out.code == Some(5), || format!("R = {factor}: after {more} more losses: {out:?}"))?;
        salvage(&nodes[0])?;
        println!(
            "R = {factor}, five nodes: it says {may_fail}; after so many losses every key is served, then it says {again}; after {more} more one key is not"
        );
    }
    Ok(())
}

/// A salvage is told of, then done; every key has its value afterwards, and the ring says how often it was salvaged.
fn salvage(node: &Node) -> Res<()> {
    let endpoint = node.endpoint();
    let lineage = || cli::json(&["status", "--endpoint", &endpoint]).map(|s| s["lineage"].clone());
    let told = cli::run(&["salvage", "--endpoint", &endpoint])?;
    ensure(told.code == Some(8), || format!("a salvage that is not done yet: {told:?}"))?;
    ensure(lineage()? == 0, || "telling of a salvage is one".to_owned())?;
    let done = cli::run(&["salvage", "--yes", "--endpoint", &endpoint])?;
    ensure(done.code == Some(0), || format!("a salvage: {done:?}"))?;
    for i in 0..KEYS {
        let key = format!("key {i}");
        let value = until("a read after the salvage", MISSED_WITHIN, || cli::get(&endpoint, &key))?;
        ensure(value == i.to_string(), || format!("after the salvage {key} is {value:?}"))?;
    }
    ensure(lineage()? == 1, || "the salvage is not counted".to_owned())?;
    let again = cli::run(&["salvage", "--endpoint", &endpoint])?;
    ensure(again.code == Some(0), || format!("nothing is left to salvage: {again:?}"))
}

/// What a dashboard of a ring of a thousand is sent.
pub(crate) fn large_ring() -> Res<()> {
    let at = large::start(loopback(20))?;
    let ((events, first), _) = until("the large ring is told", READY_WITHIN, || {
        let (events, bytes) = http::events(at, "/events", &["state", "ring"])?;
        let members = parsed(&events[0])?["members"].as_array().map_or(0, Vec::len);
        ensure(members == LARGE_RING, || format!("it knows {members} members"))?;
        Ok(((events, bytes), ()))
    })?;
    let pieces = parsed(&events[1])?["pieces"].as_array().map_or(0, Vec::len);
    // The newcomer itself holds nothing yet.
    ensure(pieces >= LARGE_RING - 1, || format!("it tells of {pieces} pieces"))?;
    let began = Instant::now();
    let (_, _) = http::events(at, "/events", &["state"])?;
    println!(
        "1 000 nodes, {pieces} pieces: {first} bytes at first (state {}, ring {}), the state made and sent in {:?}",
        events[0].len(),
        events[1].len(),
        began.elapsed()
    );
    ensure(first <= FIRST_BYTES_MAX, || format!("{first} bytes at first"))
}
