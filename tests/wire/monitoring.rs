//! A real Prometheus beside a real ring.

use harness::binary::{scratch, workspace};
use harness::poll::until;
use harness::process::{Node, loopback, start_ring_with};
use harness::{Res, cli, http};
use serde_json::Value as Json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A panel has data this soon after Prometheus began to scrape every second.
const DATA_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no Prometheus here.
pub(crate) fn missing() -> Option<String> {
    ["prometheus", "promtool"].into_iter().find_map(|program| {
        let out = Command::new(program).arg("--version").output();
        match out {
            Ok(o) if o.status.success() => None,
            Ok(o) => Some(format!("{program} --version: {}", o.status)),
            Err(e) => Some(format!("{program}: {e}")),
        }
    })
}

/// The unit tests of the alert rules.
pub(crate) fn rules() -> Res<()> {
    let out = Command::new("promtool")
        .args(["test", "rules", "alerts_test.yml"])
        .current_dir(workspace().join("deploy").join("prometheus"))
        .output()
        .map_err(|e| format!("cannot run promtool: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// A Prometheus that ends with this value.
struct Prometheus {
    child: Child,
    addr: SocketAddr,
}

impl Prometheus {
    fn start(nodes: &[Node], dir: &Path) -> Res<Prometheus> {
        let targets: Vec<String> = nodes.iter().map(|n| format!("\"{}\"", n.endpoint())).collect();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: kvnode\n    static_configs:\n      \
             - targets: [{}]\n",
            targets.join(", ")
        );
        let fail = |e: std::io::Error| format!("cannot start prometheus: {e}");
        let data = dir.join("data");
        // What an earlier run has left would be shown as data.
        let _ = std::fs::remove_dir_all(&data);
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).map_err(fail)?;
        let first = nodes.first().ok_or("there is no node")?;
        let addr = SocketAddr::from((first.ip(), 19090));
        let log = std::fs::File::create(dir.join("prometheus.log")).map_err(fail)?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={addr}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(fail)?;
        Ok(Prometheus { child, addr })
    }

    /// How many series an expression has that are numbers.
    fn series(&self, expression: &str) -> Res<usize> {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02x}")).collect();
        let (status, body) = http::get(self.addr, &format!("/api/v1/query?query={encoded}"))?;
        // The body may be in chunks; the JSON is what lies between the first and the last brace.
        let json = body.find('{').zip(body.rfind('}')).and_then(|(a, b)| body.get(a..=b)).unwrap_or_default();
        let json: Json = serde_json::from_str(json).map_err(|e| format!("{status}: {e}: {body:.200}"))?;
        let result =
            json.pointer("/data/result").and_then(Json::as_array).ok_or_else(|| format!("{json}"))?;
        let is_number = |s: &&Json| {
            s.pointer("/value/1").and_then(Json::as_str).is_some_and(|v| v != "NaN" && v != "+Inf")
        };
        Ok(result.iter().filter(is_number).count())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Nothing is left to do about a process that cannot be ended or was ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every target of every panel of the Grafana dashboard has data.
pub(crate) fn panels() -> Res<()> {
    let text = std::fs::read_to_string(workspace().join("deploy").join("grafana").join("kvnode.json"))
        .map_err(|e| format!("the dashboard cannot be read: {e}"))?;
    let dashboard: Json = serde_json::from_str(&text).map_err(|e| format!("the dashboard: {e}"))?;
    // Nobody collects spans there: that they are dropped is shown, too, and nothing else suffers.
    let collector = format!("http://{}:4317", loopback(8));
    let nodes = start_ring_with(3, &[("KVNODE_OTLP_ENDPOINT", collector.as_str())])?;
    let prometheus = Prometheus::start(&nodes, &scratch("prometheus")?)?;
    let work = || -> Res<()> {
        for node in &nodes {
            cli::put(&node.endpoint(), "key", "value")?;
            cli::get(&node.endpoint(), "key")?;
        }
        Ok(())
    };
    work()?;
    let panels = dashboard.get("panels").and_then(Json::as_array).ok_or("the dashboard has no panels")?;
    let mut count = 0;
    for panel in panels {
        let title = panel.get("title").and_then(Json::as_str).unwrap_or_default();
        for target in panel.get("targets").and_then(Json::as_array).into_iter().flatten() {
            let expression = target.get("expr").and_then(Json::as_str).unwrap_or_default();
            let expression = expression.replace("$job", "kvnode").replace("$__rate_interval", "30s");
            until(&format!("panel \"{title}\" has data"), DATA_WITHIN, || {
                match prometheus.series(&expression) {
                    // Rates of what happened before the first scrape are 0: it has to go on happening.
                    Ok(0) => work().and_then(|()| Err(format!("none for {expression}"))),
                    other => other.map(|_| ()),
                }
            })?;
            count += 1;
        }
    }
    if count < 20 {
        return Err(format!("the dashboard has only {count} expressions"));
    }
    until("each node drops its spans", DATA_WITHIN, || {
        let dropped = "increase(kvnode_trace_spans_total{outcome=\"dropped\"}[30s]) > 0";
        match prometheus.series(dropped)? {
            n if n == nodes.len() => Ok(()),
            n => work().and_then(|()| Err(format!("{n} of {} nodes do", nodes.len()))),
        }
    })?;
    println!("{count} expressions of {} panels have data", panels.len());
    Ok(())
}
