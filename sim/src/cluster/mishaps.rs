//! What happens to processes: they die, stand still, become slow, have a clock that jumps, or suspect wrongly.

use super::{Cluster, Queued};
use crate::invariants::Violation;
use crate::machine::Machine;
use crate::process::Input;
use core::time::Duration;
use ring::{NodeId, NodeRef};

impl<M: Machine> Cluster<M> {
    /// Kills a process, its memory gone. Others may get a hint.
    pub fn crash(&mut self, node: NodeId) {
        let Some(me) = self.processes.get(&node).map(|p| p.me) else { return };
        self.transcript.note(self.now, "crash", &[node.0]);
        if let Some(p) = self.processes.get(&node).filter(|_| self.transcript.is_printed()) {
            self.transcript.line(self.now, format_args!("crash {}", p.machine.describe()));
        }
        self.remove(node);
        let others: Vec<NodeRef> = self.processes.values().map(|p| p.me).collect();
        for to in others {
            if self.network.passes(me.addr, to.addr)
                && let Some(at) = self.network.hint(self.now)
            {
                self.queue_at(at, Queued::Input { to, input: Input::Lost { peer: me } });
            }
        }
    }

    /// Kills a process when it has sent `effects` more messages and replies: before the one after them, which may be in
    /// the middle of what one input made it do.
    pub fn crash_after(&mut self, node: NodeId, effects: u64) {
        self.fuse = Some((node, effects));
    }

    /// Counts a message or reply; true if the process crashes before it.
    pub(super) fn burn_fuse(&mut self, node: NodeId) -> bool {
        match &mut self.fuse {
            Some((victim, 0)) if *victim == node => {
                self.fuse = None;
                self.crash(node);
                true
            }
            Some((victim, left)) if *victim == node => {
                *left -= 1;
                false
            }
            Some(_) | None => false,
        }
    }

    /// Has a process replace a member that is alive, as if it suspected it.
    pub fn replace_wrongly(&mut self, node: NodeId, dice: u64) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&node).filter(|p| !p.is_paused) else { return Ok(()) };
        p.machine.replace_wrongly(p.clock.local(self.now), dice);
        self.transcript.note(self.now, "wrong suspicion", &[node.0]);
        self.settle(node)
    }

    /// Stops a process for a while; its memory stays.
    pub fn pause(&mut self, node: NodeId) {
        if let Some(p) = self.processes.get_mut(&node) {
            p.is_paused = true;
            self.transcript.note(self.now, "pause", &[node.0]);
            self.transcript.line(self.now, format_args!("pause {node}"));
        }
    }

    /// Lets a paused process go on with what waits for it.
    pub fn resume(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&node) else { return Ok(()) };
        p.is_paused = false;
        let me = p.me;
        let mut waiting = core::mem::take(&mut p.waiting);
        self.transcript.note(self.now, "resume", &[node.0]);
        self.transcript.line(self.now, format_args!("resume {node}"));
        waiting.push_back(Input::Timeout);
        for input in waiting {
            self.give(me, input)?;
        }
        Ok(())
    }

    /// Has a process take so long for everything it is given, or makes it as fast as it was: then what waits is
    /// handled at once.
    pub fn slow_down(&mut self, node: NodeId, each: Option<Duration>) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&node) else { return Ok(()) };
        p.slowness = each;
        self.transcript.note(self.now, "slow", &[node.0, u64::from(each.is_some())]);
        self.transcript.line(self.now, format_args!("{node} takes {each:?} for everything"));
        if each.is_some() || p.is_paused {
            return Ok(());
        }
        let me = p.me;
        for input in core::mem::take(&mut p.waiting) {
            self.give(me, input)?;
        }
        Ok(())
    }

    /// Lets the clock of a process jump forward, or stand still for so long.
    pub fn jump_clock(&mut self, node: NodeId, by: Duration, is_forward: bool) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&node) else { return Ok(()) };
        p.clock.jump(self.now, by, is_forward);
        // Its timer is set anew.
        p.wake = None;
        self.transcript.note(self.now, "clock", &[node.0, u64::from(is_forward)]);
        self.transcript
            .line(self.now, format_args!("the clock of {node} jumps {by:?}, forward: {is_forward}"));
        if p.is_paused { Ok(()) } else { self.settle(node) }
    }

    /// A slow process handles what waits longest.
    pub(super) fn take_turn(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(p) = self.processes.get_mut(&node).filter(|p| !p.is_paused) else { return Ok(()) };
        let Some(each) = p.slowness else { return Ok(()) };
        let Some(input) = p.waiting.pop_front() else { return Ok(()) };
        let me = p.me;
        if matches!(input, Input::Timeout) {
            p.wake = None;
        }
        if !p.waiting.is_empty() {
            self.queue_at(self.now + each, Queued::Turn(node));
        }
        self.handle(me, input)
    }
}
