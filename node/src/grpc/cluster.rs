//! `kvnode.v1.Cluster`.

use super::problem::{closed, failure, phase_text, unexpected};
use super::{Api, Problem};
use crate::error::{self, Report};
use dht::api::{MemberView, Phase, PieceView, Status as NodeStatus};
use dht::{Reply, Request as Ask};
use proto::v1::cluster_server::Cluster;
use proto::v1::member::State;
use proto::v1::{
    self, HistoryRequest, HistoryResponse, LeaveRequest, LocateRequest, MembersRequest, RingRequest,
    StatusRequest,
};
use ring::members::MemberState;
use ring::{NodeRef, Position};
use store::Key;
use tonic::{Request, Response, Status, async_trait};

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn node(n: NodeRef) -> v1::Node {
    v1::Node { id: n.id.to_string(), overlay_address: n.addr.to_string() }
}

fn phase(p: Phase) -> v1::Phase {
    match p {
        Phase::Idle => v1::Phase::Idle,
        Phase::Joining => v1::Phase::Joining,
        Phase::Probation => v1::Phase::Probation,
        Phase::Member => v1::Phase::Member,
        Phase::Leaving => v1::Phase::Leaving,
        Phase::Left => v1::Phase::Left,
    }
}

fn not_done(what: &str, reply: &Reply) -> Report {
    let cause: String = format!("the core replied {reply:?}").chars().take(200).collect();
    Report::new(error::INTERNAL, what, cause, "report it, with the node's log; SIGTERM makes the node leave")
}

/// What an operator should look at, a sentence each.
fn findings(s: &NodeStatus) -> Vec<String> {
    let mut out = Vec::new();
    if s.phase != Phase::Member {
        out.push(format!("the node is {}", phase_text(s.phase)));
    }
    // Where every replica has a live owner, whoever died has been replaced, and is remembered for a while.
    if s.members_suspected > 0 || s.members_lost > 0 && !s.is_fully_replicated {
        let verb = if s.members_lost == 1 { "does" } else { "do" };
        let all = s.members_lost + s.members_alive;
        out.push(format!("{} of {all} members {verb} not answer", s.members_lost));
    }
    if s.phase == Phase::Member && !s.is_fully_replicated {
        out.push(format!("not every key has all its {} replicas", s.replication_factor));
    }
    if s.phase == Phase::Member && s.intervals_without_quorum > 0 {
        out.push(format!(
            "{} of {} intervals have no quorum: their keys can be neither read nor changed",
            s.intervals_without_quorum, s.intervals
        ));
    }
    if let Some(ring) = s.foreign_ring {
        out.push(format!("another ring with data, {ring}, answers at an address of this ring"));
    }
    if s.bytes > s.bytes_max {
        out.push(format!("memory is full: {} of {} bytes; writes are refused", s.bytes, s.bytes_max));
    }
    out
}

fn member(m: &MemberView, me: NodeRef) -> v1::Member {
    let state = match (m.info.state, m.is_suspected) {
        (MemberState::Alive, true) => State::Suspected,
        (MemberState::Alive, false) => State::Alive,
        (MemberState::Leaving, _) => State::Leaving,
        (MemberState::Left, _) => State::Left,
        (MemberState::Dead, _) => State::Dead,
    };
    v1::Member {
        node: Some(node(m.info.node)),
        client_address: m.info.client_addr.map(|a| a.to_string()).unwrap_or_default(),
        state: i32::from(state),
        keys: m.info.keys,
        bytes: m.info.bytes,
        heard_ago_milliseconds: u64::try_from(m.heard_ago.as_millis()).unwrap_or(u64::MAX),
        round_trip_microseconds: m.round_trip.map(|d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
        end: format!("{:032x}", m.info.end),
        is_self: m.info.node == me,
    }
}

fn piece(p: &PieceView) -> v1::Piece {
    v1::Piece {
        slot: u32::from(p.slot),
        first_offset: format!("{:032x}", p.extent.lo),
        last_offset: format!("{:032x}", p.extent.hi),
        owner: p.owner.map(node),
        live: p.is_live,
    }
}

impl Api {
    async fn ask(&self, ask: Ask) -> Result<Reply, Problem> {
        let reply = self.handle.request(ask).await.map_err(closed)?;
        if let Reply::Failed(f) = &reply {
            return Err(failure(f, ""));
        }
        Ok(reply)
    }

    async fn node_status(&self) -> Result<NodeStatus, Problem> {
        let reply = self.ask(Ask::Status).await?;
        if let Reply::Status(s) = reply { Ok(*s) } else { Err(unexpected(&reply)) }
    }
}

#[async_trait]
impl Cluster for Api {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let s = self.node_status().await?;
        Ok(Response::new(v1::StatusResponse {
            findings: findings(&s),
            node: Some(node(s.node)),
            phase: i32::from(phase(s.phase)),
            ring: s.ring.map(|r| r.to_string()).unwrap_or_default(),
            replication_factor: u32::from(s.replication_factor),
            members_alive: small(s.members_alive),
            members_lost: small(s.members_lost),
            tolerated_failures: small(s.tolerated_failures),
            fully_replicated: s.is_fully_replicated,
            keys: s.keys,
            bytes: s.bytes,
            bytes_max: s.bytes_max,
            pieces: small(s.pieces),
            operations_open: small(s.operations_open),
            foreign_ring: s.foreign_ring.map(|r| r.to_string()).unwrap_or_default(),
            version: self.info.version.to_owned(),
            uptime_seconds: self.info.started.elapsed().as_secs(),
            lineage: s.lineage,
        }))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<v1::MembersResponse>, Status> {
        let me = self.node_status().await?.node;
        let reply = self.ask(Ask::Members).await?;
        let Reply::Members(mut views) = reply else { return Err(unexpected(&reply).into()) };
        views.sort_by_key(|v| v.info.node.id);
        let mut members: Vec<v1::Member> = views.iter().map(|v| member(v, me)).collect();
        // Members tell each other of large changes only; what was asked of them for the history is newer.
        let loads = self.info.history.loads();
        for m in members.iter_mut().filter(|m| !m.is_self) {
            if let Some(load) = m.node.as_ref().and_then(|n| loads.get(&n.id)) {
                (m.keys, m.bytes) = (load.keys, load.bytes);
            }
        }
        Ok(Response::new(v1::MembersResponse { members }))
    }

    async fn ring(&self, _: Request<RingRequest>) -> Result<Response<v1::RingResponse>, Status> {
        let replication_factor = u32::from(self.node_status().await?.replication_factor);
        let reply = self.ask(Ask::Ring).await?;
        let Reply::Ring(mut pieces) = reply else { return Err(unexpected(&reply).into()) };
        pieces.sort_by_key(|p| (p.slot, p.extent));
        let pieces = pieces.iter().map(piece).collect();
        Ok(Response::new(v1::RingResponse { replication_factor, pieces }))
    }

    async fn locate(&self, r: Request<LocateRequest>) -> Result<Response<v1::LocateResponse>, Status> {
        let key = Key::new(r.into_inner().key.as_bytes());
        let reply = self.ask(Ask::Locate { key }).await?;
        let Reply::Located(l) = reply else { return Err(unexpected(&reply).into()) };
        let replica = |(slot, (position, owner)): (u32, &(Position, Option<NodeRef>))| v1::Replica {
            slot,
            position: format!("{position:032x}"),
            owner: owner.map(node),
        };
        let replicas = (0..).zip(&l.replicas).map(replica).collect();
        Ok(Response::new(v1::LocateResponse { home_slot: u32::from(l.home), replicas }))
    }

    async fn history(&self, r: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        let me = node(self.node_status().await?.node);
        let after = r.into_inner().after_milliseconds;
        let samples = self.info.history.of_node(&me.id, after);
        let recent = &self.info.traffic.recent;
        let (transactions, hot_keys) = (recent.after(after), recent.hot_keys());
        Ok(Response::new(HistoryResponse { node: Some(me), samples, transactions, hot_keys }))
    }

    async fn salvage(
        &self,
        request: Request<v1::SalvageRequest>,
    ) -> Result<Response<v1::SalvageResponse>, Status> {
        let is_dry = !request.into_inner().execute;
        let reply = self.ask(Ask::Salvage { is_dry }).await?;
        let Reply::Salvaged(r) = reply else {
            return Err(Problem::from(not_done("nothing was salvaged", &reply)).into());
        };
        if r.is_refused {
            let report = Report::new(
                error::SALVAGE_REFUSED,
                "nothing was salvaged",
                "the node is not a member of a ring, or salvages already",
                "wait until the first command has been answered, or ask another node: 'kvnode members'",
            );
            return Err(Problem::from(report).into());
        }
        Ok(Response::new(v1::SalvageResponse {
            executed: !is_dry,
            silent_members: small(r.silent),
            intervals: small(r.intervals),
            share_millionths: r.share_ppm,
            intervals_lost_whole: small(r.lost_whole),
            sources_lost: small(r.sources_lost),
            intervals_failed: small(r.failed),
            keys: u64::try_from(r.keys).unwrap_or(u64::MAX),
            lineage: r.lineage,
        }))
    }

    async fn dissolve(
        &self,
        request: Request<v1::DissolveRequest>,
    ) -> Result<Response<v1::DissolveResponse>, Status> {
        let execute = request.into_inner().execute;
        let reply = self.ask(Ask::Dissolve { is_dry: !execute }).await?;
        let Reply::Dissolved(r) = reply else {
            return Err(Problem::from(not_done("nothing was given up", &reply)).into());
        };
        let refused = |cause: &str, fix: &str| {
            let report = Report::new(error::DISSOLVE_REFUSED, "nothing was given up", cause, fix);
            Err(Problem::from(report).into())
        };
        let Some(ring) = r.ring else {
            return refused("the node is not a member of a ring", "ask one that is: 'kvnode members'");
        };
        let Some((other, at)) = r.other else {
            return refused(
                &format!("the node heard of no other ring than its own, {ring}, in the last 10 s"),
                "ask a node that tells of another ring in 'kvnode status'; a ring knocks at the addresses of its lost \
                 members and at its join addresses",
            );
        };
        Ok(Response::new(v1::DissolveResponse {
            executed: execute,
            ring: ring.to_string(),
            members: small(r.members),
            keys: r.keys,
            other_ring: other.to_string(),
            other_address: at.to_string(),
        }))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let reply = self.ask(Ask::Leave).await?;
        if let Reply::Left { is_clean } = reply {
            return Ok(Response::new(v1::LeaveResponse { clean: is_clean }));
        }
        Err(Problem::from(not_done("the node did not leave", &reply)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::NodeId;
    use std::net::SocketAddr;

    fn status(lost: usize, suspected: usize, is_fully_replicated: bool) -> NodeStatus {
        NodeStatus {
            node: NodeRef { id: NodeId(1), addr: SocketAddr::from(([127, 0, 0, 1], 14195)) },
            phase: Phase::Member,
            ring: None,
            replication_factor: 3,
            members_alive: 4,
            members_lost: lost,
            members_suspected: suspected,
            intervals: 1,
            intervals_without_quorum: 0,
            tolerated_failures: 1,
            is_fully_replicated,
            keys: 0,
            bytes: 0,
            bytes_max: 1,
            pieces: 1,
            operations_open: 0,
            foreign_ring: None,
            lineage: 0,
        }
    }

    #[test]
    fn a_lost_member_is_a_finding_until_all_that_it_had_is_replaced() {
        assert_eq!(findings(&status(1, 1, true)), ["1 of 5 members does not answer"]);
        let of_loss = ["1 of 5 members does not answer", "not every key has all its 3 replicas"];
        assert_eq!(findings(&status(1, 0, false)), of_loss);
        assert!(findings(&status(1, 0, true)).is_empty());
    }
}
