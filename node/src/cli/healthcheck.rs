//! `healthcheck`: asks `/readyz` of the node on this machine, without any other program.

use super::Target;
use super::flags::ServerFlags;
use super::output::{Output, rows};
use crate::config::{Settings, reachable};
use crate::error::{Exit, Report};
use clap::Args;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer answers are cut.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Exit 0 if the node on this machine is ready, else 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode healthcheck\n  kvnode healthcheck --endpoint 10.2.1.3:8000")]
pub(super) struct Healthcheck {}

/// How long it may take where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(3);

impl Healthcheck {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let endpoint = match target.endpoint.iter().find(|e| !e.is_empty()) {
            // Without one: where a server with this environment listens.
            Some(e) => e.clone(),
            None => {
                let s = Settings::from_layers(&ServerFlags::default().layers()?)?;
                reachable(s.client_addr(s.overlay_addr())).to_string()
            }
        };
        let timeout = target.timeout.unwrap_or(TIMEOUT);
        let answer = match tokio::time::timeout(timeout, ask(&endpoint)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => (false, format!("cannot ask {endpoint}: {e}\n")),
            Err(_) => (false, format!("{endpoint} did not answer within {:?}\n", timeout)),
        };
        let (is_ready, text) = answer;
        let word = if is_ready { "ready" } else { "not ready" };
        let json =
            json!({ "ready": is_ready, "endpoint": endpoint, "checks": text.lines().collect::<Vec<_>>() });
        let table = text.lines().map(|l| vec![l.to_owned()]).collect();
        let mut output = Output::new(word, json, rows(&["CHECK"], table));
        if !is_ready {
            output.notes.extend(text.lines().map(str::to_owned));
            output.exit = Exit::Internal;
        }
        Ok(output)
    }
}

/// Whether `/readyz?verbose` answers 200, and its text.
async fn ask(endpoint: &str) -> std::io::Result<(bool, String)> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let request = format!("GET /readyz?verbose HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let is_ready = head.starts_with("HTTP/1.1 200 ");
    if !head.starts_with("HTTP/1.1 ") {
        return Err(std::io::Error::other("the answer is not HTTP"));
    }
    Ok((is_ready, body.to_owned()))
}
