//! A store whose memory is outside of all processes, so that any of them may come, go or crash.

use dht::api::Phase;
use dht::{Config, Effect, Event, Failure, Message, Reply, Request, RequestId};
use paxos::Acceptor;
use ring::{NodeRef, RingId, Time};
use sim::Machine;
use sim::cluster::address;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use store::{Key, Outcome, Record};

thread_local! {
    static MEMORY: RefCell<(u64, BTreeMap<Key, Record>)> = const { RefCell::new((0, BTreeMap::new())) };
}

/// Executes a little after it was asked and answers a little later; a crash may come between. With
/// `IS_FORGETFUL` a node that leaves takes one of the keys with it.
pub(crate) struct Shared<const IS_FORGETFUL: bool> {
    effects: VecDeque<Effect>,
    timers: BTreeMap<(Time, u64), (RequestId, Result<Request, Reply>)>,
    next: u64,
    is_leaving: bool,
}

impl<const IS_FORGETFUL: bool> Shared<IS_FORGETFUL> {
    fn after(&mut self, now: Time, what: (RequestId, Result<Request, Reply>)) {
        self.next += 1;
        self.timers.insert((now + Duration::from_millis(2), self.next), what);
    }

    fn execute(request: Request) -> Reply {
        MEMORY.with_borrow_mut(|(n, records)| {
            *n += 1;
            match request {
                Request::Get { key } => {
                    let r = records.entry(key).or_default();
                    Reply::Value { value: r.value.clone(), version: r.version }
                }
                Request::Change { key, change } => {
                    let r = records.entry(key).or_default();
                    match change.apply(r, usize::MAX) {
                        Outcome::Write(value) => {
                            *r = Record { version: *n, value: value.clone(), ops: None };
                            Reply::Changed { version: *n, value: value.filter(|_| change.answers_value()) }
                        }
                        Outcome::Nothing => Reply::Changed { version: r.version, value: None },
                        Outcome::Refused(refusal) => {
                            Reply::Refused { refusal, version: r.version, value: r.value.clone() }
                        }
                    }
                }
                Request::Leave => {
                    if IS_FORGETFUL {
                        records.pop_first();
                    }
                    Reply::Left { is_clean: true }
                }
                _ => Reply::Ok,
            }
        })
    }
}

impl<const IS_FORGETFUL: bool> Machine for Shared<IS_FORGETFUL> {
    const IS_REPLICATED: bool = false;

    fn new(_: Config, _: NodeRef, _: u64, _: Time) -> Self {
        Shared { effects: VecDeque::new(), timers: BTreeMap::new(), next: 0, is_leaving: false }
    }

    fn handle_message(&mut self, _: Time, _: NodeRef, _: Message) {}

    fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        if let Request::Start { seeds, .. } = &request {
            // The founder's first start is the only one before anything is written.
            if *seeds == [address(1)] && id == RequestId(1) {
                MEMORY.set((0, BTreeMap::new()));
            }
            self.effects.push_back(Effect::Reply { id, reply: Reply::Ok });
            self.effects.push_back(Effect::Announce(Event::Joined { ring: RingId(1), is_creator: false }));
            return;
        }
        if self.is_leaving {
            let reply = Reply::Failed(Failure::NotReady { phase: Phase::Leaving });
            self.effects.push_back(Effect::Reply { id, reply });
            return;
        }
        self.is_leaving |= request == Request::Leave;
        self.after(now, (id, Ok(request)));
    }

    fn handle_connection_lost(&mut self, _: Time, _: NodeRef) {}

    fn handle_timeout(&mut self, now: Time) {
        while let Some(e) = self.timers.first_entry().filter(|e| e.key().0 <= now) {
            match e.remove() {
                (id, Ok(request)) => {
                    let reply = Self::execute(request);
                    self.after(now, (id, Err(reply)));
                }
                (id, Err(reply)) => self.effects.push_back(Effect::Reply { id, reply }),
            }
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.timers.keys().next().map(|k| k.0)
    }

    fn acceptors(&self) -> impl Iterator<Item = &Acceptor> + Clone {
        std::iter::empty()
    }
}
