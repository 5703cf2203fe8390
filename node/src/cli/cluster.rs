//! `status`, `members`, `ring`, `locate`, `leave`.

use super::Target;
use super::output::{Output, columns, rows};
use super::trouble::report;
use crate::error::{self, Exit, Report};
use crate::facts::{self, address_of, id_of, phase_word, state_word};
use clap::Args;
use serde_json::json;

/// The node and its ring in short.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode status\n  kvnode status --endpoint 10.2.1.3:8000 -o json")]
pub(super) struct Status {}

/// The members of the ring.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode members\n  kvnode members -o table")]
pub(super) struct Members {}

/// Who owns which piece of the ring.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode ring\n  kvnode ring -o json")]
pub(super) struct Ring {}

/// Where the replicas of a key are.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode locate greeting\n  kvnode locate greeting -o json")]
pub(super) struct Locate {
    /// The key; it need not be there
    key: String,
}

/// Make a node hand over everything and leave its ring.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kvnode leave\n  kvnode leave --endpoint 10.2.1.4:8000 --timeout 1m")]
pub(super) struct Leave {}

impl Status {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let s = target.connect().await?.status().await.map_err(report)?;
        let (node, address) = (id_of(s.node.as_ref()), address_of(s.node.as_ref()));
        let phase = phase_word(s.phase);
        let ring = if s.ring.is_empty() { "no ring" } else { &s.ring };
        let facts = [
            ("node", node.clone()),
            ("address", address.clone()),
            ("phase", phase.clone()),
            ("ring", ring.to_owned()),
            ("version", s.version.clone()),
            ("uptime_seconds", s.uptime_seconds.to_string()),
            ("members_alive", s.members_alive.to_string()),
            ("members_lost", s.members_lost.to_string()),
            ("replication_factor", s.replication_factor.to_string()),
            ("tolerated_failures", s.tolerated_failures.to_string()),
            ("fully_replicated", s.fully_replicated.to_string()),
            ("keys", s.keys.to_string()),
            ("bytes", s.bytes.to_string()),
            ("bytes_max", s.bytes_max.to_string()),
            ("pieces", s.pieces.to_string()),
            ("lineage", s.lineage.to_string()),
            ("operations_open", s.operations_open.to_string()),
        ];
        let mut plain = format!(
            "{}\nring {ring}\nnode {node} at {address}, {phase}, version {}, up {} s\n\
             {} in {} of {} bytes of memory here\n",
            facts::sentence(&s),
            s.version,
            s.uptime_seconds,
            if s.keys == 1 { "1 key".to_owned() } else { format!("{} keys", s.keys) },
            s.bytes,
            s.bytes_max,
        );
        for f in &s.findings {
            plain.push_str(&format!("finding: {f}\n"));
        }
        let notes = facts::notes(&s);
        for n in &notes {
            plain.push_str(&format!("note: {n}\n"));
        }
        let json = facts::status(&s);
        let mut table: Vec<Vec<String>> = facts.into_iter().map(|(n, v)| vec![n.to_owned(), v]).collect();
        table.extend(s.findings.iter().map(|f| vec!["finding".to_owned(), f.clone()]));
        table.extend(notes.into_iter().map(|n| vec!["note".to_owned(), n]));
        let mut output = Output::new(plain, json, rows(&["WHAT", "VALUE"], table));
        if !s.findings.is_empty() {
            output.exit = Exit::Findings;
        }
        Ok(output)
    }
}

impl Members {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let members = target.connect().await?.members().await.map_err(report)?;
        let mut table = Vec::new();
        for m in &members {
            let (id, overlay) = (id_of(m.node.as_ref()), address_of(m.node.as_ref()));
            let trip = m.round_trip_microseconds.map_or_else(|| "-".to_owned(), |us| format!("{us} us"));
            let client = if m.client_address.is_empty() { "-" } else { &m.client_address };
            table.push(vec![
                if m.is_self { format!("{id} *") } else { id.clone() },
                overlay.clone(),
                client.to_owned(),
                state_word(m.state),
                m.keys.to_string(),
                m.bytes.to_string(),
                format!("{} ms", m.heard_ago_milliseconds),
                trip,
                m.end.clone(),
            ]);
        }
        let head = &["NODE", "OVERLAY", "CLIENTS", "STATE", "KEYS", "BYTES", "HEARD", "RTT", "END"];
        let table = rows(head, table);
        Ok(Output::new(columns(&table), facts::members(&members), table))
    }
}

impl Ring {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let ring = target.connect().await?.ring().await.map_err(report)?;
        let mut table = Vec::new();
        for p in &ring.pieces {
            let (id, address) = (id_of(p.owner.as_ref()), address_of(p.owner.as_ref()));
            let state = if p.live { "live" } else { "not live" };
            table.push(vec![
                p.slot.to_string(),
                p.first_offset.clone(),
                p.last_offset.clone(),
                id.clone(),
                address.clone(),
                state.to_owned(),
            ]);
        }
        let table = rows(&["SLOT", "FIRST", "LAST", "NODE", "OVERLAY", "STATE"], table);
        Ok(Output::new(columns(&table), facts::ring(&ring), table))
    }
}

impl Locate {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let l = target.connect().await?.locate(&self.key).await.map_err(report)?;
        let mut table = Vec::new();
        for r in &l.replicas {
            let (id, address) = (id_of(r.owner.as_ref()), address_of(r.owner.as_ref()));
            let is_home = r.slot == l.home_slot;
            table.push(vec![
                r.slot.to_string(),
                r.position.clone(),
                id.clone(),
                address.clone(),
                if is_home { "home".to_owned() } else { String::new() },
            ]);
        }
        let table = rows(&["SLOT", "POSITION", "NODE", "OVERLAY", ""], table);
        Ok(Output::new(columns(&table), facts::location(&self.key, &l), table))
    }
}

impl Leave {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let is_clean = target.connect().await?.leave().await.map_err(report)?;
        if !is_clean {
            return Err(Report::new(
                error::LEAVE_UNCLEAN,
                "the node left, but not all of its data found a new owner",
                "other nodes did not take it in time, or it was the last node",
                "'kvnode status' at another node shows whether all replicas are complete again",
            ));
        }
        let table = rows(&["LEFT"], vec![vec!["true".to_owned()]]);
        Ok(Output::new("the node has left its ring", json!({ "left": true, "clean": true }), table))
    }
}
