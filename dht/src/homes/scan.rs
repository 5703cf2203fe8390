//! What becomes due with time: what was not answered is sent again, and what nobody answers is given up.

use super::SENDS_MAX;
use super::read::ROUNDS_MAX;
use super::scrub::TOMBSTONE_RESEND;
use crate::message::ConfirmItem;
use crate::node::DhtNode;
use crate::reign::{KeyState, Phase, Reign};
use ring::{Offset, Slot, Time};

impl DhtNode {
    /// Sends again what was not answered, gives up what nobody answers.
    pub(crate) fn scan_homes(&mut self) {
        let now = self.ctx.now;
        if self.homes.next_scan.is_none_or(|t| t > now) {
            return;
        }
        self.homes.next_scan = None;
        let late: Vec<u64> =
            self.homes.rounds.iter().filter(|(_, r)| r.resend_at <= now).map(|(id, _)| *id).collect();
        for id in late {
            let again = now + self.ctx.config.vote_timeout;
            let Some(r) = self.homes.rounds.get_mut(&id) else { continue };
            r.sends += 1;
            r.resend_at = again;
            if r.sends > SENDS_MAX {
                let open: Vec<ConfirmItem> = r
                    .items
                    .iter()
                    .filter(|(_, g)| g.len() < self.ctx.space.quorum())
                    .map(|(i, _)| *i)
                    .collect();
                self.homes.rounds.remove(&id);
                for item in open {
                    self.lose_reigns_of(&item, None);
                }
            } else {
                self.transmit_confirm(id);
            }
        }
        for at in self.homes.reigns.keys() {
            self.scan_reign(at);
        }
        let next = self.homes.rounds.values().map(|r| r.resend_at).min();
        let next = next.into_iter().chain(self.homes.reigns.iter().filter_map(reign_deadline)).min();
        if let Some(t) = next {
            self.homes.schedule(t);
        }
        if self.homes.rounds.len() < ROUNDS_MAX && self.homes.reigns.iter().any(|r| !r.readers.is_empty()) {
            self.homes.has_readers = true;
        }
    }

    fn scan_reign(&mut self, rat: (Slot, Offset)) {
        let now = self.ctx.now;
        let again = now + self.ctx.config.vote_timeout;
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        if let Phase::Seeking { rpc, grants, resend_at, sends, .. } = &mut r.phase {
            if *resend_at > now {
                return;
            }
            *sends += 1;
            *resend_at = again;
            if *rpc == 0 {
                *rpc = self.ctx.draw_rpc();
            }
            let (rpc, grants, sends) = (*rpc, *grants, *sends);
            let (home, extent, ballot, era) = (r.home, r.extent, r.ballot, r.era());
            if sends > SENDS_MAX / 2 {
                self.lose_reign(rat, None);
            } else {
                self.ask_reign(home, extent, ballot, era, rpc, grants);
            }
            return;
        }
        self.scan_blocked(rat);
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let mut syncs = Vec::new();
        let mut flights = Vec::new();
        let mut is_dead = false;
        for (at, k) in &mut r.keys {
            if let Some(s) = k.sync.as_mut().filter(|s| s.resend_at <= now) {
                s.resend_at = again;
                s.wanted = None;
                syncs.push(at.clone());
            }
            if let Some(f) = k.flights.back_mut().filter(|f| f.resend_at <= now) {
                f.sends += 1;
                f.resend_at = if f.is_chosen { now + TOMBSTONE_RESEND } else { again };
                is_dead |= f.sends > SENDS_MAX && !f.is_chosen;
                // A replica whose floor has passed a tombstone takes it only under a higher number.
                let is_passed = f.is_chosen && !f.low.is_empty();
                flights.push((at.clone(), f.n, is_passed));
            }
        }
        if is_dead {
            self.lose_reign(rat, None);
            return;
        }
        let quorum = self.ctx.space.quorum();
        for at in syncs {
            let Some(r) = self.homes.reigns.get_mut(rat) else { return };
            let anchor = r.anchor;
            // Whoever was wanted stays silent; the others may be enough.
            if r.syncing_mut(&at).is_some_and(|s| s.is_enough(quorum, anchor)) {
                self.finish_sync(rat, at);
            } else {
                self.transmit_sync(rat, &at);
            }
        }
        for (at, n, is_passed) in flights {
            if is_passed {
                self.renumber(rat, &at, n);
            } else {
                self.transmit_accept(rat, &at, n);
            }
        }
    }
}

fn reign_deadline(r: &Reign) -> Option<Time> {
    if let Phase::Seeking { resend_at, .. } = &r.phase {
        return Some(*resend_at);
    }
    let of_key = |k: &KeyState| {
        let blocked = k.blocked.front().map(|b| b.until);
        let flight = k.flights.back().map(|f| f.resend_at);
        k.sync.as_ref().map(|s| s.resend_at).into_iter().chain(flight).chain(blocked).min()
    };
    r.keys.values().filter_map(of_key).min()
}
