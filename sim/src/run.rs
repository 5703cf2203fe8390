//! One run: the ring forms, clients and faults do their work, everything heals, progress is demanded, and
//! what clients saw is checked.
//!
//! Keeps:
//! 1. Nothing but the settings decides what happens.
//! 2. After faults stop: one ring, every position has one live complete owner, no node holds two slots of an
//!    offset when there are R nodes, every request is answered, every key can be read, changed and read (I6).
//! 3. Outside of declared outages at least half of the operations are answered, without faults nine of ten.

use crate::cluster::{Cluster, Note, Residue};
use crate::coverage::Coverage;
use crate::draw::{Draw, Stream};
use crate::history::{self, Action, History};
use crate::invariants::{Violation, broken};
use crate::machine::Machine;
use crate::nemesis::Nemesis;
use crate::network::Tally;
use crate::order;
use crate::settings::{Profile, Scenario, Settings};
use crate::transactions::workload::{Clients, Open};
use crate::workload::Workload;
use core::time::Duration;
use dht::api::SalvageReport;
use dht::{Request, RequestId};
use ring::Space;
use std::collections::{BTreeMap, BTreeSet};
use store::Key;

const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const FORM_TIME: Duration = Duration::from_secs(120);
const LOAD_TIME: Duration = Duration::from_secs(900);
const HEAL_TIME: Duration = Duration::from_secs(120);
const EVENTS_MAX: u64 = 5_000_000;
const TRIES_MAX: usize = 5;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The run.
    pub settings: Settings,
    /// The violation, if there was one.
    pub violation: Option<Violation>,
    /// Operations by outcome: answered, refused by the key's state, failed, unknown.
    pub ops: [u64; 4],
    /// Transactions by outcome: committed, aborted, unknown.
    pub transactions: [u64; 3],
    /// Operations outside of declared outages: all, answered.
    pub undisturbed: (u64, u64),
    /// Faults of the nemesis that took effect.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults of the network that took effect.
    pub network: Tally,
    /// Protocol points reached.
    pub coverage: Coverage,
    /// The transcript's number.
    pub digest: u64,
    /// How many events there were.
    pub events: u64,
    /// The time that all nodes lived together.
    pub lived: Duration,
    /// The part of it in which a fault was in force, or operations still recovered from one, or messages were lost,
    /// doubled, late or out of order.
    pub lived_in_faults: Duration,
    /// Keys whose search was given up.
    pub undecided: usize,
    /// What is left at the end.
    pub residue: Residue,
    /// What clients did.
    pub history: History,
}

/// Runs what `settings` name.
pub fn run<M: Machine>(settings: &Settings, is_printed: bool) -> Outcome {
    let Some(space) = Space::new(settings.config.replication_factor) else {
        return Run::<M>::new(settings, Space::new(1).expect("one replica is valid"), is_printed).outcome(
            Some(Violation { invariant: "settings", text: "no such replication factor".to_owned() }),
        );
    };
    let mut run = Run::<M>::new(settings, space, is_printed);
    let violation = run.all().err();
    run.outcome(violation)
}

#[derive(Debug)]
struct Run<M> {
    settings: Settings,
    cluster: Cluster<M>,
    workload: Workload,
    nemesis: Nemesis,
    history: History,
    /// The open requests of clients: (operation, client, key, action).
    open: BTreeMap<RequestId, (usize, usize, Key, Action)>,
    clients: Clients,
    /// The open requests of transactional clients.
    open_txns: BTreeMap<RequestId, Open>,
    /// What they ask next.
    next_calls: Vec<(Open, Request)>,
    issued: usize,
    is_loading: bool,
    undecided: usize,
    lived_in_faults: Duration,
    /// What the last salvage told.
    salvaged: Option<SalvageReport>,
}

impl<M: Machine> Run<M> {
    fn new(settings: &Settings, space: Space, is_printed: bool) -> Run<M> {
        let seed = settings.seed;
        Run {
            settings: settings.clone(),
            cluster: Cluster::new(settings, space, is_printed),
            workload: Workload::new(
                Draw::new(seed, Stream::Workload),
                settings.cold_keys,
                settings.scenario == Scenario::Hot,
            )
            .keeping_keys(settings.scenario == Scenario::GrowShrink),
            nemesis: Nemesis::new(settings, Draw::new(seed, Stream::Nemesis)),
            history: History::default(),
            open: BTreeMap::new(),
            clients: Clients::new(Draw::new(seed, Stream::Transactions)),
            open_txns: BTreeMap::new(),
            next_calls: Vec::new(),
            issued: 0,
            is_loading: false,
            undecided: 0,
            lived_in_faults: Duration::ZERO,
            salvaged: None,
        }
    }

    fn all(&mut self) -> Result<(), Violation> {
        self.cluster.remind(LOOK_INTERVAL, Note::Look);
        match self.settings.scenario {
            Scenario::Load | Scenario::Hot | Scenario::Transactions => {
                self.form(self.settings.nodes)?;
                self.start_load();
                let limit = self.settings.stretched(LOAD_TIME)
                    * u32::try_from(self.settings.ops / 400 + 1).unwrap_or(1);
                self.until(limit, "the clients did not finish", Run::is_load_over)?;
            }
            Scenario::GrowShrink => self.grow_and_shrink()?,
            Scenario::Salvage => self.lose_and_salvage()?,
        }
        self.is_loading = false;
        self.nemesis.heal(&mut self.cluster)?;
        let heal_time = self.settings.stretched(HEAL_TIME);
        self.until(heal_time, "the ring did not heal", |r| r.is_answered() && r.unrest().is_none())?;
        let keys: Vec<Key> = self.history.by_key().into_keys().collect();
        self.demand(&keys, |_, _| Action::Get)?;
        self.demand(&keys, |w, k| Action::Change(w.plain(k)))?;
        self.demand(&keys, |_, _| Action::Get)?;
        self.look_at_transactions()?;
        self.until(heal_time, "the ring did not come to rest", |r| r.unrest().is_none())?;
        self.cluster.look_at_all()?;
        self.transactions_are_serial()?;
        self.undecided = order::check(&self.history)?;
        self.half_succeeded()
    }

    /// Starts `nodes` nodes one after the other and waits until they are one ring at full strength.
    fn form(&mut self, nodes: u8) -> Result<(), Violation> {
        if self.settings.is_rough_start {
            self.cluster.network().set_weather(self.settings.weather);
        }
        let at_once = self.workload.draw().chance(500);
        self.cluster.start(1, &[1], at_once)?;
        for host in 2..=u16::from(nodes) {
            let pause = self.workload.draw().millis(0, 800);
            let until = self.cluster.now() + pause;
            self.until(pause + LOOK_INTERVAL * 2, "time stood still", |r| r.cluster.now() >= until)?;
            self.cluster.start(host, &[1], false)?;
        }
        self.until(self.settings.stretched(FORM_TIME), "the ring did not form", |r| r.unrest().is_none())
    }

    fn start_load(&mut self) {
        self.cluster.network().set_weather(self.settings.weather);
        self.is_loading = true;
        for client in 0..self.settings.clients {
            self.remind_client(client);
        }
        self.cluster.remind(self.settings.fault_interval, Note::Nemesis);
    }

    fn grow_and_shrink(&mut self) -> Result<(), Violation> {
        self.form(1)?;
        self.start_load();
        for nodes in 2..=usize::from(self.settings.nodes) {
            let host = u16::try_from(nodes).unwrap_or(u16::MAX);
            self.cluster.start(host, &[1], false)?;
            self.until(FORM_TIME, "the ring did not grow", |r| r.cluster.serving().len() == nodes)?;
            if self.workload.draw().chance(700) {
                self.until(FORM_TIME, "the ring did not settle", |r| r.unrest().is_none())?;
            }
        }
        self.until(FORM_TIME, "the grown ring did not settle", |r| r.unrest().is_none())?;
        for nodes in (1..self.settings.nodes).rev() {
            let serving = self.cluster.serving();
            let Some(node) = self.workload.draw().pick(&serving) else { break };
            self.cluster.request(node.id, Request::Leave)?;
            self.until(FORM_TIME, "a node did not leave", |r| {
                r.cluster.processes().count() == usize::from(nodes)
            })?;
        }
        self.until(FORM_TIME, "the shrunk ring did not settle", |r| r.unrest().is_none())?;
        // What the last node holds must be all there is; the ring grows again only after this.
        let keys: Vec<Key> = self.history.by_key().into_keys().collect();
        self.is_loading = false;
        self.until(HEAL_TIME, "the clients did not finish", |r| r.open.is_empty())?;
        self.demand(&keys, |_, _| Action::Get)
    }

    /// Loses so many nodes at once that keys have no quorum, sees that they are unavailable, and salvages them. All
    /// replicas were equal before, so nothing may be lost.
    fn lose_and_salvage(&mut self) -> Result<(), Violation> {
        let replicas = usize::from(self.settings.config.replication_factor);
        self.form(self.settings.nodes)?;
        self.start_load();
        self.until(LOAD_TIME, "the clients did not finish", Run::is_load_over)?;
        self.is_loading = false;
        // Accepts are sent to all replicas; the last ones arrive.
        self.pass(Duration::from_secs(3))?;
        let least = self.settings.losses_max() + 1;
        let most = replicas.saturating_sub(1);
        if self.cluster.processes().count() < replicas || least > most {
            return Ok(());
        }
        let lost = least + self.workload.draw().index(most - least + 1);
        for _ in 0..lost {
            let serving = self.cluster.serving();
            let Some(node) = self.workload.draw().pick(&serving) else { break };
            self.cluster.crash(node.id);
        }
        self.pass(self.settings.config.dead_after * 4)?;
        let keys: Vec<Key> = self.history.by_key().into_keys().collect();
        let failed = self.ask_once(&keys)?;
        let serving = self.cluster.serving();
        let Some(node) = self.workload.draw().pick(&serving) else {
            return broken("I6", "nobody serves after the loss".to_owned());
        };
        let would = self.salvage(node.id, true)?;
        if failed == 0 && would.intervals == 0 {
            // The lost nodes had no two replicas of any key.
            return Ok(());
        }
        let report = self.salvage(node.id, false)?;
        let expected = SalvageReport { keys: report.keys, lineage: report.lineage, ..would };
        if report != expected || report.lineage != 1 || report.intervals == 0 || report.sources_lost > 0 {
            return broken("salvage", format!("told {would:?} before and {report:?} after"));
        }
        let nodes = u16::from(self.settings.nodes);
        let hosts: Vec<u16> = (1..=nodes).collect();
        for i in 0..lost {
            let host = nodes + 1 + u16::try_from(i).unwrap_or(0);
            self.cluster.start(host, &hosts, false)?;
        }
        self.until(HEAL_TIME, "the salvaged ring did not become whole", |r| r.unrest().is_none())
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) -> Result<(), Violation> {
        let end = self.cluster.now() + time;
        self.until(time + LOOK_INTERVAL * 2, "time stood still", |r| r.cluster.now() >= end)
    }

    /// One read of every key; how many of them failed.
    fn ask_once(&mut self, keys: &[Key]) -> Result<usize, Violation> {
        let first = self.history.len();
        for key in keys {
            let serving = self.cluster.serving();
            if let Some(node) = self.workload.draw().pick(&serving) {
                self.issue(self.settings.clients, key.clone(), Action::Get, node.id)?;
            }
        }
        let limit = self.settings.config.operation_deadline * 3;
        self.until(limit, "a request was never answered", |r| r.open.is_empty())?;
        Ok(self.history.iter().skip(first).filter(|(_, op)| !op.outcome.is_answered()).count())
    }

    fn salvage(&mut self, node: ring::NodeId, is_dry: bool) -> Result<SalvageReport, Violation> {
        self.salvaged = None;
        self.cluster.request(node, Request::Salvage { is_dry })?;
        self.until(HEAL_TIME, "a salvage did not end", |r| r.salvaged.is_some())?;
        Ok(self.salvaged.take().unwrap_or_default())
    }

    fn is_load_over(&mut self) -> bool {
        self.issued >= self.settings.ops && self.is_answered()
    }

    /// What keeps the ring from being whole and at rest.
    fn unrest(&self) -> Option<String> {
        if let Some(p) = self.cluster.processes().find(|p| p.is_leaving || p.is_paused) {
            return Some(format!("{} still leaves or is paused", p.me));
        }
        let ring = self.cluster.ring();
        if let Some(p) = self.cluster.processes().find(|p| p.ring.is_none() || p.ring != ring) {
            return Some(format!("{} is in {:?}, others are in {ring:?}", p.me, p.ring));
        }
        if let Some((id, node)) = self.cluster.overdue(self.settings.config.operation_deadline * 3) {
            return Some(format!("request {} was never answered by {node}", id.0));
        }
        if !M::IS_REPLICATED {
            return None;
        }
        if self.issued >= self.settings.ops
            && self.is_answered()
            && let Some(why) = self.cluster.unfinished()
        {
            return Some(why);
        }
        let strength = self.cluster.strength(&BTreeSet::new());
        let has_enough =
            self.cluster.processes().count() >= usize::from(self.settings.config.replication_factor);
        strength.gap.or(strength.overlap).or(strength.doubled.filter(|_| has_enough))
    }

    /// Lets time pass until `is_done`; it is an error if that takes longer than `limit`.
    fn until(
        &mut self,
        limit: Duration,
        otherwise: &str,
        is_done: impl Fn(&mut Run<M>) -> bool,
    ) -> Result<(), Violation> {
        let end = self.cluster.now() + limit;
        let events_max = EVENTS_MAX * u64::try_from(self.settings.ops / 400 + 1).unwrap_or(1);
        loop {
            if self.advance()? && is_done(self) {
                return Ok(());
            }
            if self.cluster.now() > end {
                let why = self.unrest().unwrap_or_else(|| format!("{} operations are open", self.open.len()));
                let nodes: String = self.cluster.processes().map(|p| p.machine.describe()).collect();
                return broken("I6", format!("{otherwise}: {why}\n{nodes}"));
            }
            if self.cluster.transcript().events() > events_max {
                let nodes: String = self.cluster.processes().map(|p| p.machine.describe()).collect();
                return broken("I6", format!("there is no end of events\n{nodes}"));
            }
        }
    }

    /// The next event; true if it is time to look how things are.
    fn advance(&mut self) -> Result<bool, Violation> {
        let note = self.cluster.step()?;
        self.complete();
        self.issue_next_calls()?;
        match note {
            None => return Ok(false),
            Some(Note::Look) => {
                self.cluster.remind(LOOK_INTERVAL, Note::Look);
                if self.is_loading
                    && (self.settings.weather.is_faulty() || self.nemesis.is_felt(self.cluster.now()))
                {
                    let nodes = u32::try_from(self.cluster.processes().count()).unwrap_or(u32::MAX);
                    self.lived_in_faults += LOOK_INTERVAL * nodes;
                }
                return Ok(true);
            }
            Some(Note::Client(client)) => self.issue_next(client)?,
            Some(Note::Nemesis) if self.is_loading => {
                self.nemesis.act(&mut self.cluster)?;
                let next = self.workload.draw().tailed(self.settings.fault_interval);
                self.cluster.remind(next, Note::Nemesis);
            }
            Some(Note::Nemesis) => {}
            Some(Note::LeaveAgain(node)) => {
                if self.cluster.processes().any(|p| p.me.id == node) {
                    self.cluster.request(node, Request::Leave)?;
                }
            }
            Some(Note::FaultEnds(fault)) => self.nemesis.end(&mut self.cluster, fault)?,
        }
        self.complete();
        self.issue_next_calls()?;
        Ok(false)
    }

    fn remind_client(&mut self, client: usize) {
        let think = self.workload.draw().tailed(self.settings.think);
        self.cluster.remind(think, Note::Client(client));
    }

    fn issue_next(&mut self, client: usize) -> Result<(), Violation> {
        let is_endless = self.settings.scenario == Scenario::GrowShrink;
        if !self.is_loading || (self.issued >= self.settings.ops && !is_endless) {
            return Ok(());
        }
        let serving = self.cluster.serving();
        // Most clients stay with one node as long as it serves, the others go anywhere.
        let node = if client.is_multiple_of(3) {
            self.workload.draw().pick(&serving)
        } else {
            serving.get(client % serving.len().max(1)).copied()
        };
        let Some(node) = node else {
            self.remind_client(client);
            return Ok(());
        };
        self.issued += 1;
        if self.settings.scenario == Scenario::Transactions {
            let at = self.cluster.moment().0;
            let (open, request) = self.clients.begin(client, at);
            return self.issue_txn(open, request, node.id);
        }
        let (key, action) = self.workload.next(client);
        self.issue(client, key, action, node.id)
    }

    fn issue(
        &mut self,
        client: usize,
        key: Key,
        action: Action,
        node: ring::NodeId,
    ) -> Result<(), Violation> {
        let request = match &action {
            Action::Get => Request::Get { key: key.clone() },
            Action::Change(change) => Request::Change { key: key.clone(), change: change.clone() },
        };
        let at = self.cluster.moment();
        let op = self.history.invoke(client, key.clone(), action.clone(), at);
        let id = self.cluster.request(node, request)?;
        self.open.insert(id, (op, client, key, action));
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.open.is_empty() && self.open_txns.is_empty() && self.next_calls.is_empty()
    }

    fn issue_txn(&mut self, open: Open, request: Request, node: ring::NodeId) -> Result<(), Violation> {
        let id = self.cluster.request(node, request)?;
        self.open_txns.insert(id, open);
        Ok(())
    }

    /// The next calls of transactions, each at whatever node serves.
    fn issue_next_calls(&mut self) -> Result<(), Violation> {
        while let Some((open, request)) = self.next_calls.pop() {
            let serving = self.cluster.serving();
            match self.workload.draw().pick(&serving) {
                Some(node) => self.issue_txn(open, request, node.id)?,
                None => self.clients.give_up(open),
            }
        }
        Ok(())
    }

    fn complete_txn(&mut self, open: Open, reply: Option<dht::Reply>) {
        let at = self.cluster.moment().0;
        let client = open.client();
        match self.clients.on_reply(open, reply, at) {
            Some(next) => self.next_calls.push(next),
            None if client < self.settings.clients && self.is_loading => self.remind_client(client),
            None => {}
        }
    }

    /// When all is healed: one read of every key, and one of all accounts together.
    fn look_at_transactions(&mut self) -> Result<(), Violation> {
        if self.settings.scenario != Scenario::Transactions {
            return Ok(());
        }
        for _ in 0..TRIES_MAX {
            let before = self.clients.fates;
            let asked = self.clients.keys().into_iter().map(|k| vec![k]).chain([Clients::accounts()]);
            let mut wanted = 0;
            for keys in asked {
                let at = self.cluster.moment().0;
                let next = self.clients.look_at(self.settings.clients, keys, at);
                self.next_calls.push(next);
                wanted += 1;
            }
            self.issue_next_calls()?;
            let limit = self.settings.config.operation_deadline * 6;
            self.until(limit, "a transaction was never answered", Run::<M>::is_answered_now)?;
            if self.clients.fates[0] - before[0] == wanted {
                return Ok(());
            }
        }
        broken("I6", "transactions do not succeed after everything healed".to_owned())
    }

    fn is_answered_now(&mut self) -> bool {
        self.is_answered()
    }

    fn transactions_are_serial(&self) -> Result<(), Violation> {
        if let Some(text) = &self.clients.totals.1 {
            return broken("I5", text.clone());
        }
        match crate::transactions::check(self.clients.txns()) {
            Ok(()) => Ok(()),
            Err(a) => broken("I5", a.to_string()),
        }
    }

    fn complete(&mut self) {
        while let Some(done) = self.cluster.poll_completion() {
            if let Some(dht::Reply::Salvaged(report)) = done.reply {
                self.salvaged = Some(*report);
                continue;
            }
            if let Some(open) = self.open_txns.remove(&done.id) {
                self.complete_txn(open, done.reply);
                continue;
            }
            let Some((op, client, key, action)) = self.open.remove(&done.id) else { continue };
            let at = self.cluster.moment();
            let outcome = history::Outcome::of(done.reply);
            self.workload.saw(client, &key, &action, &outcome);
            self.history.complete(op, outcome, at);
            if client < self.settings.clients && self.is_loading {
                self.remind_client(client);
            }
        }
    }

    /// One operation on every key, by a client of its own, again until it is answered.
    fn demand(
        &mut self,
        keys: &[Key],
        action: impl Fn(&mut Workload, &Key) -> Action,
    ) -> Result<(), Violation> {
        let mut todo: Vec<Key> = keys.to_vec();
        for _ in 0..TRIES_MAX {
            let first = self.history.len();
            for key in &todo {
                let action = action(&mut self.workload, key);
                let serving = self.cluster.serving();
                let Some(node) = self.workload.draw().pick(&serving) else {
                    return broken("I6", "nobody serves".to_owned());
                };
                self.issue(self.settings.clients, key.clone(), action, node.id)?;
            }
            self.complete();
            let limit = self.settings.config.operation_deadline * 3;
            self.until(limit, "a request was never answered", |r| r.open.is_empty())?;
            todo = self
                .history
                .iter()
                .skip(first)
                .filter(|(_, op)| !op.outcome.is_answered())
                .map(|(k, _)| k.clone())
                .collect();
            if todo.is_empty() {
                return Ok(());
            }
        }
        let last = self.history.iter().last().map(|(k, op)| format!("{k:?} {op}")).unwrap_or_default();
        broken("I6", format!("{} keys do not answer after everything healed, one: {last}", todo.len()))
    }

    fn undisturbed(&self) -> (u64, u64) {
        let now = self.cluster.now();
        let (mut all, mut answered) = (0, 0);
        for (_, op) in self.history.iter() {
            if op.client < self.settings.clients
                && !self.nemesis.is_excused(op.times.0, op.times.1.unwrap_or(now))
            {
                all += 1;
                answered += u64::from(op.outcome.is_answered());
            }
        }
        (all, answered)
    }

    fn half_succeeded(&self) -> Result<(), Violation> {
        let (all, answered) = self.undisturbed();
        let wanted = if self.settings.profile == Profile::Steady { 9 } else { 5 };
        if all >= 20 && answered * 10 < all * wanted {
            return broken(
                "progress",
                format!("{answered} of {all} operations outside of outages succeeded"),
            );
        }
        Ok(())
    }

    fn outcome(mut self, violation: Option<Violation>) -> Outcome {
        let mut ops = [0; 4];
        for (_, op) in self.history.iter() {
            let [answered, refused, failed, unknown] = &mut ops;
            *match op.outcome {
                history::Outcome::Value { .. } | history::Outcome::Changed { .. } => answered,
                history::Outcome::Refused { .. } => refused,
                history::Outcome::Failed(_) => failed,
                history::Outcome::Unknown => unknown,
            } += 1;
        }
        Outcome {
            violation,
            ops,
            transactions: self.clients.fates,
            undisturbed: self.undisturbed(),
            faults: self.nemesis.tally().clone(),
            network: self.cluster.network().tally(),
            coverage: self.cluster.coverage().clone(),
            digest: self.cluster.transcript().digest(),
            events: self.cluster.transcript().events(),
            lived: self.cluster.lived(),
            lived_in_faults: self.lived_in_faults,
            undecided: self.undecided,
            residue: self.cluster.residue(),
            history: self.history,
            settings: self.settings,
        }
    }
}
