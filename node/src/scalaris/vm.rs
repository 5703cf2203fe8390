//! The page `vm`: the nodes of this process, and the other processes of the ring.

use super::cluster::ERLANG_VERSION;
use super::{Scalaris, VirtualNodes, ok, report_error};
use crate::error::{NOT_IMPLEMENTED, Report};
use dht::api::Status;
use jsonrpc::Json;
use jsonrpc::call::{VmCall, Which};
use jsonrpc::envelope::Error;
use std::net::SocketAddr;
use std::sync::Arc;

fn names(names: Vec<String>) -> Json {
    Json::Array(names.into_iter().map(Json::String).collect())
}

fn status(word: &str) -> Json {
    Json::object([("status", Json::string(word))])
}

/// How a process is named: the name of an Erlang node, made of the overlay address.
fn process_name(overlay: SocketAddr) -> Json {
    Json::String(format!("kvnode_{}@{}", overlay.port(), overlay.ip()))
}

impl Scalaris {
    pub(super) async fn vm(&self, call: VmCall) -> Result<Json, Error> {
        match call {
            VmCall::GetVersion => Ok(ok(self.version())),
            VmCall::GetInfo => Ok(ok(self.process_info())),
            VmCall::NumberOfNodes => Ok(ok(Json::integer(self.nodes_here().await))),
            VmCall::GetNodes => {
                let mut all = vec![self.status().await?.node.id.to_string()];
                if let Some(nodes) = &self.info.virtual_nodes {
                    all.extend(nodes.names().await);
                }
                Ok(ok(names(all)))
            }
            VmCall::AddNodes(n) => {
                let (added, failed) = self.virtual_nodes()?.add(n).await;
                Ok(Json::object([
                    ("status", Json::string("ok")),
                    ("ok", names(added)),
                    ("failed", names(failed)),
                ]))
            }
            VmCall::ShutdownNodes(which) => self.end_nodes(which, true).await,
            VmCall::KillNodes(which) => self.end_nodes(which, false).await,
            VmCall::GetOtherVms(max) => self.other_processes(max).await,
            VmCall::ShutdownVm => {
                let nodes = self.virtual_nodes()?;
                if self.others_in_ring().await? == 0 {
                    return Ok(status("no_partner_found"));
                }
                nodes.shut_down_process();
                Ok(status("ok"))
            }
            VmCall::KillVm => {
                self.virtual_nodes()?.kill_process();
                Ok(status("ok"))
            }
        }
    }

    fn virtual_nodes(&self) -> Result<&Arc<VirtualNodes>, Error> {
        self.info.virtual_nodes.as_ref().ok_or_else(|| {
            report_error(&Report::new(
                NOT_IMPLEMENTED,
                "this server does not start or end nodes; nothing was done",
                "it was started without a process around it",
                "use a node that 'kvnode' runs",
            ))
        })
    }

    fn process_info(&self) -> Json {
        let (overlay, client) = (self.info.overlay_addr, self.info.client_addr);
        let uptime = self.info.started.elapsed().as_millis();
        Json::object([
            ("scalaris_version", self.version()),
            ("erlang_version", Json::string(ERLANG_VERSION)),
            ("mem_total", Json::integer(resident_bytes())),
            ("uptime", Json::integer(uptime)),
            ("erlang_node", process_name(overlay)),
            ("ip", Json::String(overlay.ip().to_string())),
            ("port", Json::integer(overlay.port())),
            ("yaws_port", Json::integer(client.port())),
        ])
    }

    async fn other_processes(&self, max: usize) -> Result<Json, Error> {
        let mut seen = vec![self.info.client_addr];
        let mut others = Vec::new();
        for m in self.members_alive().await? {
            let Some(client) = m.info.client_addr.filter(|a| !seen.contains(a)) else { continue };
            seen.push(client);
            let overlay = m.info.node.addr;
            others.push(Json::object([
                ("erlang_node", process_name(overlay)),
                ("ip", Json::String(client.ip().to_string())),
                ("port", Json::integer(overlay.port())),
                ("yaws_port", Json::integer(client.port())),
            ]));
            if others.len() == max {
                break;
            }
        }
        Ok(ok(Json::Array(others)))
    }

    /// How many nodes of other processes could take this one's data.
    async fn others_in_ring(&self) -> Result<usize, Error> {
        let here = self.info.client_addr;
        let members = self.members_alive().await?;
        Ok(members.iter().filter(|m| m.info.client_addr != Some(here)).count())
    }

    async fn end_nodes(&self, which: Which, hands_over: bool) -> Result<Json, Error> {
        let nodes = self.virtual_nodes()?;
        let own = self.status().await?;
        let wanted = match which {
            Which::Name(name) if is_own(&own, &name) => return Err(own_node(&name)),
            Which::Name(name) => {
                let ended = nodes.end(vec![name], hands_over).await;
                return Ok(status(if ended.is_empty() { "not_found" } else { "ok" }));
            }
            Which::Count(n) => {
                let ended = nodes.end_any(n, hands_over).await;
                return Ok(Json::object([("status", Json::string("ok")), ("ok", names(ended))]));
            }
            Which::Names(wanted) => wanted,
        };
        if let Some(name) = wanted.iter().find(|n| is_own(&own, n)) {
            return Err(own_node(name));
        }
        let ended = nodes.end(wanted, hands_over).await;
        Ok(Json::object([
            ("status", Json::string("ok")),
            ("ok", names(ended)),
            ("not_found", Json::Array(Vec::new())),
        ]))
    }
}

fn is_own(own: &Status, name: &str) -> bool {
    own.node.id.to_string() == name
}

/// The process answers clients through its first node; that one ends with the process.
fn own_node(name: &str) -> Error {
    report_error(&Report::new(
        NOT_IMPLEMENTED,
        "the first node of a process ends with the process; nothing was done",
        format!("{name} is the node through which this process answers"),
        "end the process: shutdown_vm, kill_vm, 'kvnode leave' or SIGTERM",
    ))
}

/// The memory that the process has now, by the kernel's account; 0 where there is none.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.trim().strip_suffix("kB").and_then(|k| k.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
