//! What a command prints: plain for people and pipes, JSON for programs, tables for comparing.
//!
//! Keeps:
//! 1. Data goes to stdout, everything else to stderr, errors included.
//! 2. Every command has all three formats.

use crate::error::{Exit, Report};
use clap::ValueEnum;
use serde_json::{Value as Json, json};
use std::io::{self, Write};

/// The format of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people and pipes.
    #[default]
    Plain,
    /// One JSON document.
    Json,
    /// Columns with a head.
    Table,
}

/// The result of a command in every format.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) plain: Vec<u8>,
    pub(super) json: Json,
    /// The head and the rows.
    pub(super) table: Vec<Vec<String>>,
    /// Sentences for stderr.
    pub(super) notes: Vec<String>,
    pub(super) exit: Exit,
}

impl Output {
    /// A line of text, a JSON document, and a table of it.
    pub(super) fn new(plain: impl Into<String>, json: Json, table: Vec<Vec<String>>) -> Output {
        let mut plain: String = plain.into();
        if !plain.is_empty() && !plain.ends_with('\n') {
            plain.push('\n');
        }
        Output { plain: plain.into_bytes(), json, table, notes: Vec::new(), exit: Exit::Done }
    }

    /// Prints it.
    pub(super) fn print(&self, format: Format) -> io::Result<Exit> {
        let mut out = io::stdout().lock();
        match format {
            Format::Plain => out.write_all(&self.plain)?,
            Format::Json => writeln!(out, "{}", self.json)?,
            Format::Table => out.write_all(columns(&self.table).as_bytes())?,
        }
        out.flush()?;
        if format != Format::Json {
            for note in &self.notes {
                eprintln!("{note}");
            }
        }
        Ok(self.exit)
    }
}

/// A head and rows from fixed texts.
pub(super) fn rows(head: &[&str], rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut all = vec![head.iter().map(|h| (*h).to_owned()).collect()];
    all.extend(rows);
    all
}

/// Rows of equally wide columns, two spaces apart.
pub(super) fn columns(table: &[Vec<String>]) -> String {
    let n = table.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |i: usize| table.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n).map(width).collect();
    let mut out = String::new();
    for row in table {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width.saturating_sub(cell.chars().count()) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Prints an error to stderr and gives its exit code.
pub(super) fn print_error(report: &Report, format: Format) -> Exit {
    match format {
        Format::Plain => eprintln!("{report}"),
        Format::Json => eprintln!("{}", error_json(report)),
        Format::Table => eprint!(
            "{}",
            columns(&rows(
                &["CODE", "MESSAGE", "CAUSE", "FIX"],
                vec![vec![
                    report.code.code.to_owned(),
                    report.message.clone(),
                    report.cause.clone(),
                    report.fix.clone(),
                ]],
            ))
        ),
    }
    report.code.exit
}

fn error_json(r: &Report) -> Json {
    json!({
        "error": {
            "code": r.code.code,
            "reason": r.code.reason,
            "message": r.message,
            "cause": r.cause,
            "fix": r.fix,
            "outcome": r.code.outcome.word(),
            "exit": r.code.exit.number(),
            "facts": r.facts,
        }
    })
}
