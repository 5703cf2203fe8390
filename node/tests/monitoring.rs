//! What is written on dashboards and in alert rules is what the node tells.

mod common;

use kvnode::metrics::{METRICS, MetricKind, find};
use std::collections::BTreeSet;

const DASHBOARD: &str = include_str!("../../deploy/grafana/kvnode.json");
const RULES: &str = include_str!("../../deploy/prometheus/alerts.yml");
const RULES_TEST: &str = include_str!("../../deploy/prometheus/alerts_test.yml");

/// Words of a text that look like metrics.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|w| w.starts_with("kvnode_"))
        .collect()
}

fn is_known(name: &str) -> bool {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|s| name.strip_suffix(s));
    find(name).is_some_and(|m| m.kind != MetricKind::Histogram)
        || of_histogram.into_iter().any(|n| find(n).is_some_and(|m| m.kind == MetricKind::Histogram))
}

#[test]
fn dashboard_rules_and_their_tests_name_existing_metrics_only() {
    for (what, text) in [("dashboard", DASHBOARD), ("rules", RULES), ("tests of the rules", RULES_TEST)] {
        for name in names(text) {
            assert!(is_known(name), "{what}: there is no {name}");
        }
    }
}

#[test]
fn every_alert_is_tested_both_ways() {
    let alerts: Vec<&str> = RULES.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let mentions = RULES_TEST.matches(&format!("alertname: {alert}\n")).count();
        assert_eq!(mentions, 2, "{alert} is to be silent once and to fire once");
    }
}

#[tokio::test]
async fn every_metric_of_the_registry_is_scraped_and_no_other() {
    let node = common::fake_node().await;
    let text = common::http_get(node.addr, "/metrics").await;
    for m in METRICS {
        assert!(text.contains(&format!("# TYPE {} {}\n", m.name, m.kind.name())), "{} is missing", m.name);
        let is_there = text.lines().any(|l| l.starts_with(m.name));
        assert!(is_there, "{} has no sample", m.name);
    }
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        assert!(is_known(name), "{name} is not in the registry");
    }
    node.stop.cancel();
}

#[tokio::test]
async fn old_addresses_redirect_and_foreign_pages_cannot_change_anything() {
    let node = common::fake_node().await;
    let http = |head: &str, body: &str| {
        let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n{body}");
        common::http_exchange(node.addr, request)
    };
    let moved = http("GET /ring.yaws HTTP/1.1", "").await;
    assert!(
        moved.starts_with("HTTP/1.1 308") && moved.to_lowercase().contains("location: /#ring\r\n"),
        "{moved}"
    );
    let put = r#"{"key":"k","value":{"type":"string","text":"v"}}"#;
    for (headers, code) in [
        ("content-type: text/plain\r\n", 400),
        ("content-type: application/json\r\norigin: http://evil.example\r\n", 400),
        ("content-type: application/json\r\norigin: http://x\r\n", 200),
    ] {
        let head = format!("POST /ui/api/put HTTP/1.1\r\n{headers}content-length: {}", put.len());
        let answer = http(&head, put).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{headers}: {answer}");
    }
    let page = http("GET / HTTP/1.1", "").await;
    let policy = "content-security-policy: default-src 'none'; script-src 'self';";
    assert!(page.to_lowercase().contains(policy), "{page}");
    node.stop.cancel();
}

#[tokio::test]
async fn scripts_may_post_the_forms_of_scalaris_first_page_and_browsers_may_not() {
    let node = common::fake_node().await;
    let post = |headers: &str, body: &str| {
        let kind = "content-type: application/x-www-form-urlencoded\r\n";
        let head = format!("POST /index.yaws HTTP/1.1\r\n{kind}{headers}content-length: {}", body.len());
        common::http_exchange(node.addr, format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n{body}"))
    };
    for (body, term) in [
        ("type=querykey&key=a+b", "{fail,not_found}"),
        ("type=addkey&key=a+b&value=%3Cv%3E%22", "{ok}"),
        ("type=querykey&key=a+b", "{ok,\"&lt;v&gt;\\\"\"}"),
        ("type=deletekey&key=a+b&timeout=2000", "{ok,3,[ok,ok,ok]}"),
        ("type=deletekey&key=a+b&timeout=2000", "{ok,0,[undef,undef,undef]}"),
        ("type=querykey&key=a+b", "{fail,not_found}"),
    ] {
        let answer = post("", body).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(&format!(" ms: {term}</pre>")),
            "{body}: {answer}"
        );
    }
    for (headers, body) in [
        ("origin: http://evil.example\r\n", "type=addkey&key=k&value=v"),
        ("origin: http://x\r\n", "type=addkey&key=k&value=v"),
        ("sec-fetch-site: cross-site\r\n", "type=addkey&key=k&value=v"),
        ("", "type=addkey&key=k"),
    ] {
        let answer = post(headers, body).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{headers}{body}: {answer}");
    }
    assert!(post("", "type=querykey&key=k").await.contains("{fail,not_found}"));
    node.stop.cancel();
}
