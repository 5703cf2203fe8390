//! How many connections are served, and what the others are told.
//!
//! A connection beyond the limit is served for a moment: calls on it are refused with a reason, probes and pages
//! are answered. Beyond a few of those, connections are closed at once.

use crate::error::{self, Report};
use crate::grpc::Problem;
use core::time::Duration;
use http::Response;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

/// Connections that are told that there is no room, at once.
const REFUSALS_MAX: usize = 64;
/// How long such a connection lasts.
pub(super) const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// The room there is.
#[derive(Clone)]
pub(super) struct Admission {
    room: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    limit: usize,
}

/// A connection's room, until it is dropped.
pub(super) struct Admitted {
    /// Whether calls are answered; else they are told that there is no room.
    pub(super) is_served: bool,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(limit: usize) -> Admission {
        let room = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Admission { room, refusals: Arc::new(Semaphore::new(REFUSALS_MAX)), limit }
    }

    /// The limit, for the refusal.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// None if the connection is to be closed at once.
    pub(super) fn admit(&self) -> Option<Admitted> {
        let of = |s: &Arc<Semaphore>| Arc::clone(s).try_acquire_owned().ok();
        if let Some(permit) = of(&self.room) {
            return Some(Admitted { is_served: true, _permit: permit });
        }
        of(&self.refusals).map(|permit| Admitted { is_served: false, _permit: permit })
    }
}

/// What a call on a refused connection is answered.
pub(super) fn refusal(limit: usize) -> Response<Body> {
    let report = Report::new(
        error::TOO_MANY_CONNECTIONS,
        "the node serves as many connections as it may; nothing was done",
        format!("{limit} connections of clients are open, which is the limit"),
        "ask another node, share connections, or raise --connections-max (KVNODE_CONNECTIONS_MAX)",
    );
    Status::from(Problem::from(report)).into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_connections_are_refused_and_beyond_those_closed() {
        let a = Admission::new(2);
        let mut held: Vec<Admitted> = (0..2).filter_map(|_| a.admit()).collect();
        assert!(held.iter().all(|p| p.is_served));
        held.extend((0..REFUSALS_MAX).filter_map(|_| a.admit()));
        assert!(held.last().is_some_and(|p| !p.is_served));
        assert!(held.len() == REFUSALS_MAX + 2 && a.admit().is_none());
        held.clear();
        assert!(a.admit().is_some_and(|p| p.is_served));
    }
}
