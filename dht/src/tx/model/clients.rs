//! What the clients of the model do, and what they make of replies.

use super::super::commit::Commit;
use super::super::log::Step;
use super::steps::{ask, free_job};
use super::*;
use crate::api::{Failure, Reply, Transact, TxOutcome};
use store::{Change, Condition, OpId};

impl Scope {
    pub(super) fn begin(&self, w: &mut World, client: usize) {
        let c = &mut w.clients[client];
        let (node, number) = (c.node, c.begun);
        (c.begun, c.is_running, c.asked) = (number + 1, true, 0);
        let i = self.txn(client, number);
        let after = history::having(&w.txns, Stand::Committed);
        let content = u8::try_from(i + 1).ok();
        let written = |keys: &str| keys.chars().map(|k| (k, content)).collect();
        let put = || Change::Put { value: self.value(client, number), condition: Condition::Always };
        let (writes, plain) = match &self.clients[client].1[number] {
            Do::Whole(_, to) | Do::Logged(_, to) => (written(to), None),
            Do::Get(k) => (Vec::new(), Some((*k, Operation::Get))),
            Do::Put(k) => (vec![(*k, content)], Some((*k, Operation::Change(put())))),
            Do::Delete(k) => {
                let delete = Change::Delete { condition: Condition::Always };
                (vec![(*k, None)], Some((*k, Operation::Change(delete))))
            }
        };
        w.txns[i] = Txn { stand: Stand::Running, after, reads: Vec::new(), writes };
        if let Some((k, operation)) = plain {
            let job = free_job(w, node, 50);
            w.nodes[usize::from(node)].jobs.insert(job, Job::Plain(client));
            ask(w, node, Ticket { job, part: 0 }, key(k), operation);
            return;
        }
        let (steps, commit) = match &self.clients[client].1[number] {
            Do::Whole(from, to) => ([gets(from), self.puts(client, number, to)].concat(), true),
            Do::Logged(from, _) => (gets(from), false),
            Do::Get(_) | Do::Put(_) | Do::Delete(_) => return,
        };
        self.begin_commit(w, client, Transact { steps, commit, ..Transact::default() });
    }

    /// The commit of a log, for the first time or once more.
    pub(super) fn commit_log(&self, w: &mut World, client: usize) {
        let c = &mut w.clients[client];
        let number = c.begun - 1;
        if c.asked > 0 {
            c.node = 1 - c.node;
        }
        c.asked += 1;
        let Do::Logged(_, to) = &self.clients[client].1[number] else { return };
        let (log, is_repeated) = (c.log.clone(), c.asked > 1);
        let steps = self.puts(client, number, to);
        let op = Some(self.op(client, number));
        self.begin_commit(
            w,
            client,
            Transact { log, steps, commit: true, op, is_repeated, conflicts: self.conflicts },
        );
    }

    fn op(&self, client: usize, number: usize) -> OpId {
        OpId { session: SessionId(u64::try_from(self.txn(client, number)).unwrap_or(0) + 10_000), seq: 1 }
    }

    fn value(&self, client: usize, number: usize) -> Value {
        Value::int(i64::try_from(self.txn(client, number)).unwrap_or(0) + 1)
    }

    fn puts(&self, client: usize, number: usize, keys: &str) -> Vec<Step> {
        let value = self.value(client, number);
        let put = |k| {
            let change = Change::Put { value: value.clone(), condition: Condition::Always };
            Step { key: key(k), change: Some(change) }
        };
        keys.chars().map(put).collect()
    }

    fn begin_commit(&self, w: &mut World, client: usize, asked: Transact) {
        let node = w.clients[client].node;
        let op = asked.op.unwrap_or(self.op(client, w.clients[client].begun - 1));
        let conflicts = asked.conflicts;
        let commit = Commit::new(asked, op, conflicts, START, self.terms(conflicts), None);
        self.add_commit(w, node, commit, client);
    }

    pub(super) fn add_commit(&self, w: &mut World, node: u8, commit: Commit, client: usize) {
        let job = free_job(w, node, 1);
        w.nodes[usize::from(node)].jobs.insert(job, Job::Commit(Box::new(commit), Some(client)));
        self.with_commit(w, node, job, |c, out| c.begin(out));
    }

    pub(super) fn on_reply(&self, w: &mut World, client: usize, reply: Reply) {
        let c = &mut w.clients[client];
        let i = self.txn(client, c.begun - 1);
        let reads = |steps: &[Reply]| {
            steps
                .iter()
                .filter_map(|r| {
                    if let Reply::Value { value, .. } = r { Some(writer(value.as_ref())) } else { None }
                })
                .collect::<Vec<_>>()
        };
        let (from, is_logged) = match &self.clients[client].1[c.begun - 1] {
            Do::Whole(from, _) => ((*from).to_owned(), false),
            Do::Logged(from, _) => ((*from).to_owned(), true),
            Do::Get(k) => (k.to_string(), false),
            Do::Put(_) | Do::Delete(_) => (String::new(), false),
        };
        let seen = if let Reply::Transacted(t) = &reply {
            reads(&t.results)
        } else {
            reads(std::slice::from_ref(&reply))
        };
        if !seen.is_empty() {
            w.txns[i].reads = from.chars().zip(seen).collect();
        }
        let was_doubtful = c.asked > 1;
        let is_unknown = matches!(reply, Reply::Failed(Failure::Unknown { .. }));
        if is_unknown && is_logged && c.asked == 1 && w.nodes[usize::from(1 - c.node)].is_up {
            self.commit_log(w, client);
            return;
        }
        let stand = if let Reply::Transacted(t) = reply {
            match t.outcome {
                TxOutcome::Open => {
                    c.log = t.log;
                    self.commit_log(w, client);
                    return;
                }
                TxOutcome::Committed(_) => Stand::Committed,
                TxOutcome::Failed(_) | TxOutcome::Conflict(_) => Stand::Aborted,
            }
        } else if matches!(reply, Reply::Value { .. } | Reply::Changed { .. }) {
            Stand::Committed
        } else if is_unknown || was_doubtful {
            // That it cannot be done now does not say that it was not done before.
            Stand::Unknown
        } else {
            Stand::Aborted
        };
        c.is_running = false;
        w.txns[i].stand = stand;
    }
}

fn gets(keys: &str) -> Vec<Step> {
    keys.chars().map(|k| Step { key: key(k), change: None }).collect()
}
