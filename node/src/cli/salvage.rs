//! `salvage`: the operator's answer to a lost quorum.

use super::Target;
use super::output::{Output, columns, rows};
use super::trouble::report;
use crate::error::{Exit, Report};
use clap::Args;
use serde_json::json;

/// Decide anew, from what is left, what has lost its quorum.
#[derive(Debug, Args)]
#[command(
    long_about = "Decide anew, from what is left, what has lost its quorum.\n\nWhere too few replicas are left to decide \
anything, keys are unavailable until lost nodes are back. If they never come back, this command takes what the nodes \
that answer still have as the truth. Acknowledged writes that only lost nodes had are gone then, and should those nodes \
come back, theirs are gone too. Without --yes it only tells what would be done.",
    after_help = "Examples:\n  kvnode salvage\n  kvnode salvage --yes --timeout 1m"
)]
pub(super) struct Salvage {
    /// Do it
    #[arg(long)]
    yes: bool,
}

impl Salvage {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let r = target.connect().await?.salvage(self.yes).await.map_err(report)?;
        let share = f64::from(r.share_millionths) / 10_000.0;
        let facts = [
            ("executed", r.executed.to_string()),
            ("intervals_without_quorum", r.intervals.to_string()),
            ("share_of_positions", format!("{share:.2} %")),
            ("intervals_with_nothing_left", r.intervals_lost_whole.to_string()),
            ("members_that_do_not_answer", r.silent_members.to_string()),
            ("memories_not_read_to_the_end", r.sources_lost.to_string()),
            ("intervals_to_be_asked_again", r.intervals_failed.to_string()),
            ("keys_found", r.keys.to_string()),
            ("lineage", r.lineage.to_string()),
        ];
        let word = match (r.intervals, r.executed) {
            (0, _) => "everything has its quorum: nothing to salvage".to_owned(),
            (n, false) => format!(
                "{n} intervals, {share:.2} % of all positions, have no quorum; nothing was done. If the lost nodes never come \
                 back: kvnode salvage --yes"
            ),
            (n, true) => format!("{n} intervals were decided anew, with the {} keys that were left", r.keys),
        };
        let table =
            rows(&["FACT", "VALUE"], facts.iter().map(|(k, v)| vec![(*k).to_owned(), v.clone()]).collect());
        let json = json!({
            "executed": r.executed,
            "intervals": r.intervals,
            "share_millionths": r.share_millionths,
            "intervals_lost_whole": r.intervals_lost_whole,
            "silent_members": r.silent_members,
            "sources_lost": r.sources_lost,
            "intervals_failed": r.intervals_failed,
            "keys": r.keys,
            "lineage": r.lineage,
        });
        let text = format!("{word}\n{}", columns(&table));
        let is_open = r.intervals_failed > 0 || r.intervals > 0 && !r.executed;
        let exit = if is_open { Exit::Findings } else { Exit::Done };
        Ok(Output { exit, ..Output::new(text, json, table) })
    }
}
