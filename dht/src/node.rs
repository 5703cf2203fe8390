//! The node: dispatch of inputs to the machines of this crate, and the queue of effects.
//!
//! Keeps:
//! 1. Nothing here waits: every input is handled to its end, what is sent to this node itself included.
//! 2. Confirms, and news of what is owned, go out once for a whole batch of inputs.

use crate::acceptors::Acceptors;
use crate::api::{Effect, Event, Location, MemberView, Phase, PieceView, Reply, Request, RequestId, Status};
use crate::config::Config;
use crate::context::Context;
use crate::frozen::FrozenPull;
use crate::gateway::Gateway;
use crate::handover::Handovers;
use crate::homes::Homes;
use crate::insight::Inspections;
use crate::joining::Joining;
use crate::message::{Message, Operation};
use crate::replacement::Replacements;
use crate::trace::Trace;
use crate::tx::Transactions;
use paxos::{Acceptor, lineage_of};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use ring::members::{DetectorConfig, MemberEvent, MemberInfo, MemberState, Members, MembersOutput};
use ring::{Extent, NodeRef, Slot, Space, Time};
use std::net::SocketAddr;
use store::{Ballot, Key};

/// Intervals that a node tells of itself; who needs the others asks.
const OWNED_TOLD_MAX: usize = 64;

/// What the intervals of the ring can bear, as one node sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strength {
    /// Nodes that may fail at once without any interval losing its quorum.
    pub(crate) tolerated_failures: usize,
    pub(crate) intervals: usize,
    /// Intervals in which a slot has no live owner.
    pub(crate) under_replicated: usize,
    /// Intervals in which fewer than a quorum of the slots have one.
    pub(crate) without_quorum: usize,
}

/// One node without IO.
#[derive(Debug)]
pub struct DhtNode {
    pub(crate) ctx: Context,
    pub(crate) phase: Phase,
    pub(crate) acceptors: Acceptors,
    pub(crate) homes: Homes,
    pub(crate) gateway: Gateway,
    pub(crate) handovers: Handovers,
    pub(crate) replacements: Replacements,
    pub(crate) tx: Transactions,
    pub(crate) joining: Joining,
    pub(crate) inspections: Inspections,
    pub(crate) salvage: Option<crate::salvage::Salvage>,
    pub(crate) is_owned_changed: bool,
    pub(crate) is_duty_due: bool,
    pub(crate) is_creator: bool,
    pub(crate) is_memory_full: bool,
    pub(crate) has_acknowledged: bool,
    pub(crate) is_resynced: u64,
    pub(crate) next_duty: Time,
    pub(crate) next_tend: Time,
    pub(crate) next_load_report: Time,
    pub(crate) handover_pause_until: Time,
    pub(crate) holes: Vec<(Slot, Extent, Time)>,
    pub(crate) leave_requests: Vec<RequestId>,
    /// Since when a node that leaves has nothing left to hand over: it takes no requests any more.
    pub(crate) done_since: Option<Time>,
    pub(crate) needs_flush: bool,
}

impl DhtNode {
    /// A node that is in no ring yet. `seed` is all the randomness it will ever use; `client_addr` is what it
    /// tells others of where it answers clients.
    pub fn new(
        config: Config,
        me: NodeRef,
        client_addr: Option<SocketAddr>,
        seed: u64,
        now: Time,
    ) -> DhtNode {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let detector = DetectorConfig {
            ping_interval: config.ping_interval,
            suspect_after: config.suspect_after,
            dead_after: config.dead_after,
            knock_interval: config.knock_interval,
            ..DetectorConfig::default()
        };
        let info = MemberInfo {
            node: me,
            client_addr,
            incarnation: 1,
            state: MemberState::Alive,
            end: 0,
            owned: Vec::new(),
            keys: 0,
            bytes: 0,
            extra: Vec::new(),
        };
        let members = Members::new(detector, info, rng.next_u64(), now);
        // A factor that is not allowed is refused where settings are read; here it becomes the default.
        let space = Space::new(config.replication_factor)
            .or_else(|| Space::new(3))
            .expect("three is a replication factor");
        DhtNode {
            ctx: Context::new(me, config, space, members, rng, now),
            phase: Phase::Idle,
            acceptors: Acceptors::default(),
            homes: Homes::default(),
            gateway: Gateway::default(),
            handovers: Handovers::default(),
            replacements: Replacements::default(),
            tx: Transactions::default(),
            joining: Joining::default(),
            inspections: Inspections::default(),
            salvage: None,
            is_owned_changed: false,
            is_duty_due: false,
            is_creator: false,
            is_memory_full: false,
            has_acknowledged: false,
            is_resynced: 0,
            next_duty: now,
            next_tend: now,
            next_load_report: now,
            handover_pause_until: Time(0),
            holes: Vec::new(),
            leave_requests: Vec::new(),
            done_since: None,
            needs_flush: false,
        }
    }

    /// The next input, and only that, is part of this trace.
    pub fn set_trace(&mut self, trace: Option<Trace>) {
        self.ctx.trace = trace;
    }

    /// A message from another node. Messages to another node id than this one's must not be given.
    pub fn handle_message(&mut self, now: Time, from: NodeRef, message: Message) {
        self.ctx.now = now.max(self.ctx.now);
        self.needs_flush = true;
        if self.ctx.ring.is_some() {
            self.ctx.members.heard(self.ctx.now, from.id);
        }
        self.dispatch(from, message);
        self.handle_local();
    }

    /// A request of a client or of the process.
    pub fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        self.ctx.now = now.max(self.ctx.now);
        self.needs_flush = true;
        match request {
            Request::Start { seeds, creates_at_once, replication_factor } => {
                self.start(id, seeds, creates_at_once, replication_factor);
            }
            Request::Seeds(seeds) => {
                self.set_seeds(seeds);
                self.ctx.reply(id, Reply::Ok);
            }
            Request::Get { key } => self.begin_operation(id, key, Operation::Get),
            Request::Change { key, change } => self.begin_operation(id, key, Operation::Change(change)),
            Request::Transact(asked) => self.begin_transaction(id, *asked),
            Request::Status => {
                let status = Box::new(self.status());
                self.ctx.reply(id, Reply::Status(status));
            }
            Request::Insight => {
                let insight = Box::new(self.insight());
                self.ctx.reply(id, Reply::Insight(insight));
            }
            Request::Inspect { key } => self.begin_inspection(id, &key),
            Request::Members => {
                let members = self.member_views();
                self.ctx.reply(id, Reply::Members(members));
            }
            Request::Ring => {
                let pieces = self.piece_views();
                self.ctx.reply(id, Reply::Ring(pieces));
            }
            Request::Locate { key } => {
                let location = Box::new(self.locate(&key));
                self.ctx.reply(id, Reply::Located(location));
            }
            Request::Scan { from, to, after } => {
                let (held, is_more) = self.scan(from, to, after);
                self.ctx.reply(id, Reply::Scanned { held, is_more });
            }
            Request::Salvage { is_dry } => self.begin_salvage(id, is_dry),
            Request::Dissolve { is_dry } => self.begin_dissolve(id, is_dry),
            Request::Leave => self.begin_leave(id),
        }
        self.handle_local();
    }

    /// A hint of the transport: the connection to `peer` broke or could not be made.
    pub fn handle_connection_lost(&mut self, now: Time, peer: NodeRef) {
        self.ctx.now = now.max(self.ctx.now);
        self.needs_flush = true;
        let now = self.ctx.now;
        self.ctx.members.connection_lost(now, peer.id);
        self.handle_local();
    }

    /// Begins to replace a member that is alive, for the sake of tests: a wrong suspicion may cost a replica for a
    /// while and nothing else. `dice` says which member.
    pub fn replace_wrongly_for_tests(&mut self, now: Time, dice: u64) {
        self.ctx.now = now.max(self.ctx.now);
        self.needs_flush = true;
        if self.phase == Phase::Member && !self.replacements.is_full() {
            self.replace_wrongly(dice);
        }
        self.handle_local();
    }

    /// The moment of [`DhtNode::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        self.ctx.now = now.max(self.ctx.now);
        self.needs_flush = true;
        let now = self.ctx.now;
        if self.ctx.ring.is_some() && self.phase != Phase::Left {
            self.ctx.members.handle_timeout(now);
            self.drain_members();
        }
        self.scan_joining();
        self.scan_inspections();
        self.scan_gateway();
        self.scan_homes();
        self.scan_transactions();
        self.scan_handovers();
        self.scan_replacements();
        self.scan_salvage();
        self.do_duty();
        self.handle_local();
    }

    /// The next thing to do outside. Ask until there is none after every batch of inputs: what waits for other
    /// inputs of the same batch is put together at the first call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if self.needs_flush {
            self.needs_flush = false;
            self.flush_transactions();
            self.handle_local();
            self.flush_confirms();
            if self.is_duty_due {
                self.do_duty();
            }
            self.publish();
            self.drain_members();
            self.handle_local();
        }
        self.ctx.effects.pop_front()
    }

    /// When [`DhtNode::handle_timeout`] is to be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        if matches!(self.phase, Phase::Idle | Phase::Left) {
            return None;
        }
        let members = if self.ctx.ring.is_some() { self.ctx.members.next_timeout() } else { None };
        let duty = matches!(self.phase, Phase::Member | Phase::Leaving).then_some(self.next_duty);
        [
            members,
            duty,
            self.joining.next_knock,
            self.inspections.next_scan(),
            self.gateway.next_scan,
            self.homes.next_scan,
            self.next_transaction_timeout(),
            self.handovers.next_scan,
            self.replacements.next_scan,
            self.next_salvage(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The acceptors in this node's memory, for checkers.
    pub fn acceptors(&self) -> impl Iterator<Item = &Acceptor> + Clone {
        self.acceptors.iter()
    }

    /// The reigns of this node (home slot, interval, ballot), for checkers.
    pub fn reigns(&self) -> impl Iterator<Item = (Slot, Extent, Ballot)> {
        self.homes.reigns.iter().filter(|r| r.is_reigning()).map(|r| (r.home, r.extent, r.ballot))
    }

    /// Clients' transactions under way here.
    pub fn transactions_open(&self) -> usize {
        self.tx.open_count()
    }

    /// Whether this node's transactions have left nothing to do: no job, no open ledger.
    pub fn has_no_transactions(&self) -> bool {
        self.tx.is_idle()
    }

    /// How often a Sync had to write a record again, for coverage.
    pub fn resynced(&self) -> u64 {
        self.is_resynced
    }

    /// The phase of this node's life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn handle_local(&mut self) {
        let me = self.ctx.me;
        loop {
            self.ctx.trace = None;
            if let Some((m, trace)) = self.ctx.local.pop_front() {
                self.ctx.trace = trace;
                self.dispatch(me, m);
            } else if let Some((ticket, reply)) = self.tx.inbox.pop_front() {
                self.on_job_answer(ticket, reply);
            } else {
                return;
            }
        }
    }

    fn drain_members(&mut self) {
        while let Some(out) = self.ctx.members.poll_output() {
            match out {
                MembersOutput::Send(to, gossip) => self.ctx.send(to, Message::Gossip(gossip)),
                MembersOutput::Event(event) => self.on_member_event(event),
            }
        }
    }

    fn on_member_event(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Up(id) => {
                self.learn_owned(id);
                self.tell_member(id, Event::MemberUp);
            }
            MemberEvent::Updated(id) => self.learn_owned(id),
            MemberEvent::Refuted(id) => {
                self.learn_owned(id);
                self.tell_member(id, Event::MemberUp);
            }
            MemberEvent::Suspected(id) => {
                self.on_suspected(id);
                self.refuse_unheard();
                self.is_duty_due = true;
                self.tell_member(id, Event::MemberSuspected);
            }
            MemberEvent::Dead(id) => {
                self.on_suspected(id);
                self.tell_member(id, Event::MemberDead);
            }
            MemberEvent::Left(id) => {
                self.on_left(id);
                if let Some(node) = self.ctx.members.get(id).map(|m| m.info.node) {
                    self.ctx.locations.set_node(node, &[]);
                }
                self.tell_member(id, Event::MemberLeft);
            }
        }
    }

    /// What a member says that it owns; what this node owns itself it knows better.
    fn learn_owned(&mut self, id: ring::NodeId) {
        let Some(info) = self.ctx.members.get(id).map(|m| &m.info) else { return };
        let node = info.node;
        let whole = self.ctx.space.whole();
        let replicas = self.ctx.space.replicas();
        let owned: Vec<(Slot, Extent)> =
            info.owned.iter().copied().filter(|(s, e)| *s < replicas && whole.covers(e)).collect();
        if owned.len() < OWNED_TOLD_MAX {
            self.ctx.locations.set_node(node, &owned);
        } else {
            // It may own more than it tells: what is known of that stays.
            for (slot, extent) in owned {
                self.ctx.locations.set(slot, extent, node);
            }
        }
        for (slot, extent) in self.acceptors.summary() {
            self.ctx.locations.set(slot, extent, self.ctx.me);
        }
    }

    /// Takes the location cache anew from the member table: corrections by refused votes go stale, and nothing
    /// else would ever take them back. The dead come first, so that whoever is alive is believed.
    pub(crate) fn refresh_locations(&mut self) {
        let of_state = |node: &DhtNode, is_dead: bool| -> Vec<ring::NodeId> {
            let members = node.ctx.members.iter();
            members
                .filter(|m| {
                    m.info.state != MemberState::Left && (m.info.state == MemberState::Dead) == is_dead
                })
                .map(|m| m.info.node.id)
                .collect()
        };
        for id in of_state(self, true).into_iter().chain(of_state(self, false)) {
            self.learn_owned(id);
        }
    }

    /// Tells the others what this node owns, if that has changed.
    fn publish(&mut self) {
        if !self.is_owned_changed {
            return;
        }
        self.is_owned_changed = false;
        let owned = self.acceptors.summary();
        let me = self.ctx.me;
        self.ctx.locations.set_owned_by(me, &owned);
        let now = self.ctx.now;
        self.ctx.members.update_me(now, |m| m.owned = owned.into_iter().take(OWNED_TOLD_MAX).collect());
    }

    /// Tells everybody that this node has left: there will be no later gossip to carry it.
    pub(crate) fn publish_leave(&mut self) {
        let info = self.ctx.members.me().clone();
        let strength = self.ctx.members.strength();
        let to: Vec<NodeRef> =
            self.ctx.members.iter().filter(|m| m.is_in_ring()).map(|m| m.info.node).collect();
        for n in to {
            let table = ring::members::Gossip::Table { members: vec![info.clone()], strength };
            self.ctx.send(n, Message::Gossip(table));
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "three tables, the last of which names every message")]
    fn dispatch(&mut self, from: NodeRef, message: Message) {
        let is_in_ring = matches!(self.phase, Phase::Member | Phase::Leaving);
        match message {
            Message::Join { info, replication_factor } => self.on_join(from, info, replication_factor),
            Message::JoinAccepted { info, end, members } => self.on_join_accepted(&info, end, members),
            Message::JoinDenied(refusal) => self.on_join_denied(from, refusal),
            Message::Knock { info, members } => self.on_knock(from, &info, members),
            Message::KnockDenied { ring } => self.on_knock_denied(from, ring),
            Message::Gossip(gossip) => {
                if is_in_ring {
                    let now = self.ctx.now;
                    self.ctx.members.handle_gossip(now, from, gossip);
                    self.drain_members();
                }
            }
            Message::Dissolve { ring, other, at } => {
                if is_in_ring {
                    self.on_dissolve(ring, other, at);
                }
            }
            Message::Operation(attempt) if self.phase == Phase::Left => self.refuse_operation(from, &attempt),
            other => {
                // Before it is in a ring, and after, a node has no part in anything.
                if is_in_ring || self.phase == Phase::Probation && from.id == self.ctx.me.id {
                    self.dispatch_ring(from, other);
                }
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the next table names every message")]
    fn dispatch_ring(&mut self, from: NodeRef, message: Message) {
        match message {
            Message::Reign { rpc, home, slots, extent, ballot, era } => {
                self.serve_reign(from, rpc, home, slots, extent, ballot, era);
            }
            Message::ReignReply { rpc, slot, answer } => self.on_reign_reply(from, rpc, slot, answer),
            Message::Sync { rpc, home, slots, key, ballot, era, have } => {
                self.serve_sync(from, rpc, home, slots, key, ballot, era, have);
            }
            Message::SyncReply { rpc, slot, answer } => self.on_sync_reply(from, rpc, slot, answer),
            Message::Accept { home, slots, key, stamp, era, record } => {
                self.serve_accept(from, home, slots, key, stamp, era, record);
            }
            Message::AcceptReply { stamp, slot, answer } => self.on_accept_reply(from, stamp, slot, answer),
            Message::Confirm { round, items } => self.serve_confirm(from, round, &items),
            Message::ConfirmReply { round, answers } => self.on_confirm_reply(from, round, answers),
            Message::Read { rpc, slots, key, wants_record } => {
                self.serve_read(from, rpc, slots, &key, wants_record)
            }
            Message::ReadReply { rpc, slot, answer } => {
                if !self.on_inspected(rpc, slot, &answer, from) {
                    self.on_read_reply(from, rpc, slot, answer);
                }
            }
            Message::Drop { home, slots, key, stamp, era } => self.serve_drop(home, slots, &key, stamp, era),
            Message::Operation(attempt) => self.on_operation(from, attempt),
            Message::OperationReply { session, seq, attempt, home, extent, ballot, known, answer } => {
                self.on_operation_reply(from, session, seq, attempt, home, extent, ballot, known, answer);
            }
            other => self.dispatch_change(from, other),
        }
    }

    fn dispatch_change(&mut self, from: NodeRef, message: Message) {
        match message {
            Message::ConfigurationQuery { rpc, slot, extent } => {
                self.serve_configuration_query(from, rpc, slot, extent);
            }
            Message::ConfigurationReply { rpc, slot, extent: _, pieces } => {
                self.drop_what_is_complete_elsewhere(from, slot, &pieces);
                self.discard_what_lives_elsewhere(from, rpc, slot, &pieces);
                self.on_configuration_reply(from, rpc, slot, pieces);
            }
            Message::ChangePrepare { rpc, slot, extent, era, ballot, suspect } => {
                self.serve_change_prepare(from, slot, rpc, extent, era, ballot, suspect);
            }
            Message::ChangePrepareReply { rpc, slot, extent, answer } => {
                self.on_change_prepare_reply(from, rpc, slot, extent, answer);
            }
            Message::ChangeAccept { rpc, slot, extent, era, ballot, members } => {
                self.serve_change_accept(from, rpc, slot, extent, era, ballot, &members);
            }
            Message::ChangeAcceptReply { rpc, slot, answer } => {
                self.on_change_accept_reply(from, rpc, slot, answer)
            }
            Message::Install { extent, configuration } => self.learn_configuration(extent, &configuration),
            Message::SurveyQuery { rpc } => self.serve_survey(from, rpc),
            Message::SurveyReply { rpc, pieces } => self.on_survey_reply(from, rpc, pieces),
            Message::SalvagePull { rpc, slot, extent, since, after, held } => {
                self.serve_salvage_pull(from, rpc, slot, extent, since, after.as_ref(), held);
            }
            Message::FillPull { rpc, slot, extent, era, target, after, held } => {
                self.serve_fill_pull(from, rpc, slot, extent, era, target, after.as_ref(), held);
            }
            Message::FillPage { rpc, slot, answer } => self.on_fill_page(from, rpc, slot, answer),
            Message::MemorySeek { slot, extent } => self.serve_memory_seek(from, slot, extent),
            Message::MemoryFound { slot, pieces } => self.on_memory_found(from, slot, &pieces),
            Message::DonationQuery { rpc, slot, extent, era, of } => {
                self.serve_donation_query(from, rpc, slot, extent, era, of);
            }
            Message::DonationReply { rpc, slot, answer } => self.on_donation_reply(rpc, slot, answer),
            Message::FrozenPull { rpc, slot, extent, since, receiver, after, held, unfinished } => {
                let pull = FrozenPull { slot, extent, since, receiver, held };
                self.serve_frozen_pull(from, rpc, pull, after.as_ref(), &unfinished);
            }
            Message::Refuse { rpc, slot, extent, of, after, unfinished } => {
                self.serve_refuse(from, rpc, slot, extent, of, after, &unfinished);
            }
            Message::RefuseReply { rpc, slot, pieces } => self.on_refuse_reply(rpc, slot, pieces),
            Message::FrozenQuery { slot, extent, since } => {
                self.serve_frozen_query(from, slot, extent, since)
            }
            Message::FrozenReply { slot, extent, since } => {
                self.acceptors.discard_frozen(slot, extent, since);
                self.discard_received(slot, extent, since);
            }
            Message::HandoverOffer { attempt, state } => self.on_handover_offer(from, attempt, *state),
            Message::HandoverContinue { attempt, page } => self.on_handover_continue(from, attempt, page),
            Message::HandoverPage { attempt, page, entries } => {
                self.on_handover_page(from, attempt, page, entries)
            }
            Message::HandoverFinal { attempt, state, entries, dropped, count: _, digest: _ } => {
                self.on_handover_final(from, attempt, *state, entries, &dropped);
            }
            Message::HandoverReceived { attempt, count, digest } => {
                self.on_handover_received(from, attempt, count, digest);
            }
            Message::HandoverActivate { attempt } => self.on_handover_activate(from, attempt),
            Message::HandoverActivated { attempt } => self.on_handover_activated(from, attempt),
            Message::HandoverAbort { attempt } => self.on_handover_abort(from, attempt),
            Message::Join { .. }
            | Message::JoinAccepted { .. }
            | Message::JoinDenied(_)
            | Message::Knock { .. }
            | Message::KnockDenied { .. }
            | Message::Dissolve { .. }
            | Message::Gossip(_)
            | Message::Reign { .. }
            | Message::ReignReply { .. }
            | Message::Sync { .. }
            | Message::SyncReply { .. }
            | Message::Accept { .. }
            | Message::AcceptReply { .. }
            | Message::Confirm { .. }
            | Message::ConfirmReply { .. }
            | Message::Read { .. }
            | Message::ReadReply { .. }
            | Message::Drop { .. }
            | Message::Operation(_)
            | Message::OperationReply { .. } => {}
        }
    }

    fn status(&self) -> Status {
        let alive: Vec<SocketAddr> = self.ctx.members.live_infos().map(|m| m.node.addr).collect();
        // A newer process at the same address has taken its place.
        let lost = self.ctx.members.lost().filter(|m| !alive.contains(&m.node.addr)).count();
        let suspected = self.ctx.members.iter().filter(|m| m.is_suspected).count();
        let strength = self.strength_of_pieces();
        Status {
            node: self.ctx.me,
            phase: self.phase,
            ring: self.ctx.ring,
            replication_factor: self.ctx.space.replicas(),
            members_alive: alive.len(),
            members_lost: lost + suspected,
            members_suspected: suspected,
            tolerated_failures: strength.tolerated_failures,
            is_fully_replicated: strength.under_replicated == 0,
            intervals: strength.intervals,
            intervals_without_quorum: strength.without_quorum,
            keys: u64::try_from(self.acceptors.keys()).unwrap_or(0),
            bytes: u64::try_from(self.acceptors.weight()).unwrap_or(0),
            bytes_max: u64::try_from(self.ctx.config.memory_bytes_max).unwrap_or(u64::MAX),
            pieces: self.acceptors.iter().count(),
            operations_open: self.gateway.open_count,
            foreign_ring: self.foreign_ring().map(|f| f.ring),
            lineage: self.acceptors.owned().map(|a| lineage_of(a.configuration.epoch)).max().unwrap_or(0),
        }
    }

    /// Over all intervals: how many more nodes may fail, and where a slot has no live owner.
    pub(crate) fn strength_of_pieces(&self) -> Strength {
        let space = &self.ctx.space;
        let mut cuts: Vec<u128> = vec![0];
        for slot in space.slots() {
            cuts.extend(self.ctx.locations.pieces(slot, space.whole()).iter().map(|(e, _)| e.lo));
        }
        cuts.sort_unstable();
        cuts.dedup();
        let (mut least, mut under_replicated, mut without_quorum) = (usize::MAX, 0, 0);
        let intervals = cuts.len();
        for at in cuts {
            let mut is_full = true;
            // Nodes by the number of slots they hold: the adversary takes the fullest first.
            let mut held: std::collections::BTreeMap<ring::NodeId, usize> = Default::default();
            for slot in space.slots() {
                match self.ctx.live_owner(slot, at) {
                    Some(n) => *held.entry(n.id).or_default() += 1,
                    None => is_full = false,
                }
            }
            under_replicated += usize::from(!is_full);
            let mut counts: Vec<usize> = held.into_values().collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let mut left: usize = counts.iter().sum();
            without_quorum += usize::from(left < space.quorum());
            let mut may_fail = 0;
            for c in counts {
                left -= c;
                if left < space.quorum() {
                    break;
                }
                may_fail += 1;
            }
            least = least.min(may_fail);
        }
        let tolerated_failures = if least == usize::MAX { 0 } else { least };
        Strength { tolerated_failures, intervals, under_replicated, without_quorum }
    }

    pub(crate) fn member_views(&self) -> Vec<MemberView> {
        // Of itself a node knows more than what it told the others last.
        let mut info = self.ctx.members.me().clone();
        info.keys = u64::try_from(self.acceptors.keys()).unwrap_or(0);
        info.bytes = u64::try_from(self.acceptors.weight()).unwrap_or(0);
        let me =
            MemberView { info, is_suspected: false, heard_ago: core::time::Duration::ZERO, round_trip: None };
        let others = self.ctx.members.iter().map(|m| MemberView {
            info: m.info.clone(),
            is_suspected: m.is_suspected,
            heard_ago: self.ctx.now.since(m.heard),
            round_trip: m.round_trip,
        });
        let mut all: Vec<MemberView> = std::iter::once(me).chain(others).collect();
        all.sort_by_key(|m| m.info.node);
        all
    }

    fn piece_views(&self) -> Vec<PieceView> {
        let whole = self.ctx.space.whole();
        let of_slot = |slot: Slot| self.ctx.locations.pieces(slot, whole).into_iter().map(move |p| (slot, p));
        self.ctx
            .space
            .slots()
            .flat_map(of_slot)
            .map(|(slot, (extent, owner))| PieceView {
                slot,
                extent,
                owner,
                is_live: owner.is_some_and(|n| self.ctx.is_live(n.id)),
            })
            .collect()
    }

    fn locate(&self, key: &Key) -> Location {
        let (home, offset) = self.ctx.space.locate(key.as_bytes());
        let replicas = self
            .ctx
            .space
            .slots()
            .map(|s| (self.ctx.space.position(s, offset), self.ctx.owner(s, offset)))
            .collect();
        Location { home, replicas }
    }
}

impl DhtNode {
    /// What this node holds and does, in a few lines, for a reader of a failed run.
    pub fn describe(&self) -> String {
        use core::fmt::Write;
        let mut out =
            format!("{} {:?} strength {:?}\n", self.ctx.me, self.phase, self.ctx.members.strength());
        for a in self.acceptors.iter() {
            let state = match (a.is_complete, a.is_frozen, a.is_stopped) {
                (true, false, false) => "",
                (false, _, _) => " incomplete",
                (_, true, _) => " frozen",
                (_, _, true) => " stopped",
            };
            let donated: Vec<String> = a.donated.iter().map(|(s, e)| format!("{s}/{e}")).collect();
            let _ = writeln!(
                out,
                "    slot {} [{:032x}..{:032x}] replica {} since {} epoch {} keys {} donated {}{state}",
                a.slot,
                a.extent.lo,
                a.extent.hi,
                a.replica,
                a.since(),
                a.configuration.epoch,
                a.registers.len(),
                donated.join(" ")
            );
        }
        let _ = writeln!(out, "    handovers: {}", self.handovers.describe());
        let _ = writeln!(out, "    replacements: {}", self.replacements.describe());
        let _ = writeln!(
            out,
            "    timers: now {:?} gateway {:?} homes {:?} transactions {:?} handovers {:?} replacements {:?} duty {:?}",
            self.ctx.now,
            self.gateway.next_scan,
            self.homes.next_scan,
            self.next_transaction_timeout(),
            self.handovers.next_scan,
            self.replacements.next_scan,
            self.next_duty
        );
        let _ = writeln!(out, "    transactions: {}", self.tx.describe());
        let gone: Vec<String> = self
            .ctx
            .members
            .iter()
            .map(|m| {
                format!("{}:{:?}{}", m.info.node.addr, m.info.state, if m.is_suspected { "?" } else { "" })
            })
            .collect();
        let _ = writeln!(out, "    members: {}", gone.join(" "));
        let holes = &self.holes;
        let _ = writeln!(out, "    holes: {holes:?}");
        out
    }
}
