//! Acceptors and entries in the form in which they travel.

use crate::message::{AcceptorState, PageEntry};
use paxos::Acceptor;
use ring::{Extent, Offset, Space};
use store::{Entry, Key, Registers};

/// The state of `extent`'s part of an acceptor, without its registers.
pub(crate) fn state_of(a: &Acceptor, extent: Extent, space: &Space) -> AcceptorState {
    AcceptorState {
        slot: a.slot,
        extent,
        configuration: a.configuration.clone(),
        donated: a.donated.iter().copied().collect(),
        refused: a.refused.iter().copied().collect(),
        change_promised: a.change_promised,
        change_accepted: a.change_accepted.clone(),
        homes: a.homes.iter().take(usize::from(space.replicas())).copied().collect(),
    }
}

/// The complete acceptor that a state and registers describe; none if they make no sense in this space.
pub(crate) fn acceptor_of(state: &AcceptorState, registers: Registers, space: &Space) -> Option<Acceptor> {
    if state.slot >= space.replicas() || state.configuration.members.len() != usize::from(space.replicas()) {
        return None;
    }
    let mut a = Acceptor::new(state.slot, state.extent, state.configuration.clone(), true);
    a.donated.extend(state.donated.iter().copied());
    a.refused.extend(state.refused.iter().copied());
    a.change_promised = state.change_promised;
    a.change_accepted = state.change_accepted.clone();
    for (here, there) in a.homes.iter_mut().zip(&state.homes) {
        *here = *there;
    }
    a.registers = registers;
    a.is_valid_in(space).then_some(a)
}

/// An entry as it travels.
pub(crate) fn page_entry(offset: Offset, key: &Key, e: &Entry) -> PageEntry {
    PageEntry { offset, key: key.clone(), stamp: e.stamp, settled: e.settled, record: e.record.clone() }
}

/// Count and digest of a page's entries, to be added to those of the pages before.
pub(crate) fn page_digest(entries: &[PageEntry], before: (u64, u64)) -> (u64, u64) {
    entries.iter().fold(before, |(n, d), e| {
        (n + 1, d ^ store::registers::stamp_digest(&e.key, e.stamp, e.record.version, e.settled))
    })
}

/// Entries from a page into registers.
pub(crate) fn store_entries(registers: &mut Registers, extent: Extent, entries: Vec<PageEntry>) {
    for e in entries.into_iter().filter(|e| extent.contains(e.offset)) {
        let entry = Entry { stamp: e.stamp, record: e.record, settled: e.settled, mark: 0 };
        registers.insert(e.offset, e.key, entry);
    }
}

/// The next page of `extent` after `after`, of about `bytes_max`, and whether it is the last.
pub(crate) fn page<'a>(
    parts: impl Iterator<Item = &'a Acceptor>,
    extent: Extent,
    after: Option<&(Offset, Key)>,
    bytes_max: usize,
) -> (Vec<PageEntry>, bool) {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for a in parts {
        for (o, k, e) in a.registers.range(extent, after) {
            if bytes >= bytes_max {
                return (entries, false);
            }
            bytes += e.record.weight(k);
            entries.push(page_entry(o, k, e));
        }
    }
    (entries, true)
}
