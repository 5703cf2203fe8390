//! What the clients of a model did to one register and saw, and whether it can have happened one at a time: every
//! order is tried.

use store::{Change, Condition, Data, Value};

/// The register: a list of the changes that made it, the latest first; none where there is no value.
pub(super) type Content = Option<Vec<u8>>;

/// What an operation does. Changes have numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put(u8),
    /// Keeps what is there, so that every execution shows.
    Append(u8),
    Delete,
    Get,
}

/// How an operation stands for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Idle,
    Running,
    Done,
    Seen(Content),
    /// Told that it was not done.
    NotDone,
    /// Told that nobody knows.
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) client: usize,
    pub(super) kind: Kind,
    pub(super) stand: Stand,
    /// The operations that had ended when it began, by bit.
    pub(super) after: u16,
}

impl Op {
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.stand, Stand::Idle | Stand::Running)
    }
}

fn list(of: &[u8]) -> Value {
    Value::encode(&Data::List(of.iter().map(|i| Data::Int(i64::from(*i).into())).collect()))
}

/// What a value says.
pub(super) fn content(value: Option<&Value>) -> Content {
    let Data::List(all) = value?.decode() else { return None };
    let number = |d: Data| if let Data::Int(i) = d { u8::try_from(i).ok() } else { None };
    all.into_iter().map(number).collect()
}

impl Kind {
    /// The change that it asks for.
    pub(super) fn change(self) -> Option<Change> {
        match self {
            Kind::Put(i) => Some(Change::Put { value: list(&[i]), condition: Condition::Always }),
            Kind::Append(i) => Some(Change::AddDelOnList { add: list(&[i]), remove: list(&[]) }),
            Kind::Delete => Some(Change::Delete { condition: Condition::Always }),
            Kind::Get => None,
        }
    }

    fn apply(self, content: &Content) -> Content {
        match self {
            Kind::Put(i) => Some(vec![i]),
            Kind::Append(i) => Some([&[i][..], content.as_deref().unwrap_or_default()].concat()),
            Kind::Delete => None,
            Kind::Get => content.clone(),
        }
    }
}

/// The operations that have ended, by bit.
pub(super) fn ended(ops: &[Op]) -> u16 {
    ops.iter().enumerate().filter(|(_, o)| o.is_over()).fold(0, |mask, (i, _)| mask | 1 << i)
}

/// Whether some order explains what was seen.
pub(super) fn is_serial(ops: &[Op]) -> bool {
    go_on(ops, 0, &None)
}

fn go_on(ops: &[Op], done: u16, content: &Content) -> bool {
    let is_certain = |o: &Op| matches!(o.stand, Stand::Done | Stand::Seen(_));
    let open = |mask: u16| ops.iter().enumerate().any(|(i, o)| is_certain(o) && mask >> i & 1 == 1);
    if !open(!done) {
        return true;
    }
    ops.iter().enumerate().any(|(i, o)| {
        let is_possible = match &o.stand {
            Stand::Idle | Stand::NotDone => false,
            Stand::Seen(seen) => seen == content,
            Stand::Done => true,
            Stand::Running | Stand::Unknown => o.kind != Kind::Get,
        };
        // What began after another had ended comes after it.
        let is_next = done >> i & 1 == 0 && !open(o.after & !done);
        is_possible && is_next && go_on(ops, done | 1 << i, &o.kind.apply(content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: Kind, stand: Stand, after: u16) -> Op {
        Op { client: 0, kind, stand, after }
    }

    fn seen(of: &[u8]) -> Stand {
        Stand::Seen(Some(of.to_vec()))
    }

    #[test]
    fn what_was_lost_or_done_twice_or_undone_has_no_order() {
        let put = || op(Kind::Put(1), Stand::Done, 0);
        assert!(is_serial(&[put(), op(Kind::Get, seen(&[1]), 1)]));
        assert!(!is_serial(&[put(), op(Kind::Get, Stand::Seen(None), 1)]));
        assert!(is_serial(&[put(), op(Kind::Get, Stand::Seen(None), 0)]));
        let append = || op(Kind::Append(2), Stand::Done, 1);
        assert!(is_serial(&[put(), append(), op(Kind::Get, seen(&[2, 1]), 3)]));
        assert!(!is_serial(&[put(), append(), op(Kind::Get, seen(&[2, 2, 1]), 3)]));
        assert!(!is_serial(&[put(), append(), op(Kind::Get, seen(&[1]), 3)]));
    }

    #[test]
    fn what_is_unknown_may_show_once_and_what_failed_may_not() {
        let after = |stand| is_serial(&[op(Kind::Put(1), stand, 0), op(Kind::Get, seen(&[1]), 1)]);
        assert!(after(Stand::Unknown) && after(Stand::Running) && !after(Stand::NotDone));
        let vanished = [
            op(Kind::Put(1), Stand::Unknown, 0),
            op(Kind::Get, seen(&[1]), 1),
            op(Kind::Get, Stand::Seen(None), 3),
        ];
        assert!(!is_serial(&vanished));
    }
}
