//! `dissolve`: the operator's answer to two rings that both have data.

use super::Target;
use super::output::{Output, columns, rows};
use super::trouble::report;
use crate::error::{Exit, Report};
use clap::Args;
use serde_json::json;

/// Give up this ring's data for those of another ring that it meets.
#[derive(Debug, Args)]
#[command(
    long_about = "Give up this ring's data for those of another ring that it meets.\n\nTwo rings that both have data never \
become one by themselves: 'kvnode status' tells of the other one at nodes that heard of it. Decide whose data shall live, and \
give this command to such a node of the ring whose data shall not (--endpoint). All its members then forget what they have \
and join the other ring. Members that do not hear of it, being cut off, keep the ring: give the command there as well, later. \
Without --yes it only tells what would be given up.",
    after_help = "Examples:\n  kvnode dissolve --endpoint 10.2.1.3:8000\n  kvnode dissolve --endpoint 10.2.1.3:8000 --yes"
)]
pub(super) struct Dissolve {
    /// Do it
    #[arg(long)]
    yes: bool,
}

impl Dissolve {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let r = target.connect().await?.dissolve(self.yes).await.map_err(report)?;
        let facts = [
            ("executed", r.executed.to_string()),
            ("ring", r.ring.clone()),
            ("members", r.members.to_string()),
            ("keys", r.keys.to_string()),
            ("other_ring", r.other_ring.clone()),
            ("other_address", r.other_address.clone()),
        ];
        let what = format!("about {} keys of ring {} at {} members", r.keys, r.ring, r.members);
        let word = if r.executed {
            format!(
                "{what} were given up; the members join ring {} through {}",
                r.other_ring, r.other_address
            )
        } else {
            format!(
                "{what} would be given up for ring {} at {}; nothing was done. To do it: kvnode dissolve --yes",
                r.other_ring, r.other_address
            )
        };
        let table =
            rows(&["FACT", "VALUE"], facts.iter().map(|(k, v)| vec![(*k).to_owned(), v.clone()]).collect());
        let json = json!({
            "executed": r.executed,
            "ring": r.ring,
            "members": r.members,
            "keys": r.keys,
            "other_ring": r.other_ring,
            "other_address": r.other_address,
        });
        let exit = if r.executed { Exit::Done } else { Exit::Findings };
        Ok(Output { exit, ..Output::new(format!("{word}\n{}", columns(&table)), json, table) })
    }
}
