//! A store with one copy at host 1, right or broken in a named way, to test the simulator with.

use dht::message::{Answer, Attempt, Operation};
use dht::{Config, Effect, Event, Failure, Message, Reply, Request, RequestId};
use paxos::Acceptor;
use ring::{Extent, NodeId, NodeRef, RingId, Time};
use sim::Machine;
use sim::cluster::address;
use std::collections::{BTreeMap, VecDeque};
use store::{Key, Outcome, Record, SessionId, Value};

/// Nothing is wrong.
pub(crate) const RIGHT: u8 = 0;
/// Every 15th change is acknowledged and not made.
pub(crate) const LOSES_WRITES: u8 = 1;
/// A change that arrives again is made again.
pub(crate) const EXECUTES_TWICE: u8 = 2;
/// A gateway answers reads from what it saw earlier.
pub(crate) const READS_STALE: u8 = 3;
/// A change whose outcome is not known is reported as not done.
pub(crate) const FAILS_BUT_DOES: u8 = 4;
/// Now and then a key gets back its value before the last one.
pub(crate) const GOES_BACK: u8 = 5;
/// A request is now and then answered twice.
pub(crate) const REPLIES_TWICE: u8 = 6;
/// A request is now and then not answered.
pub(crate) const NEVER_REPLIES: u8 = 7;

struct Open {
    id: RequestId,
    attempt: Attempt,
    asked: Time,
    sent: Time,
}

/// The toy.
pub(crate) struct Toy<const BUG: u8> {
    me: NodeRef,
    config: Config,
    session: SessionId,
    seq: u64,
    open: BTreeMap<u64, Open>,
    effects: VecDeque<Effect>,
    n: u64,
    records: BTreeMap<Key, (Record, Record)>,
    answers: BTreeMap<(SessionId, u64), Answer>,
    cache: BTreeMap<Key, (u64, Option<Value>)>,
}

impl<const BUG: u8> Toy<BUG> {
    fn send(&mut self, attempt: Attempt) {
        let to = NodeRef { id: NodeId::ANY, addr: address(1) };
        self.effects.push_back(Effect::Send { to, message: Message::Operation(attempt), trace: None });
    }

    fn execute(&mut self, a: &Attempt) -> Answer {
        if BUG != EXECUTES_TWICE
            && let Some(answer) = self.answers.get(&(a.session, a.seq))
        {
            return answer.clone();
        }
        let (record, before) = self.records.entry(a.key.clone()).or_default();
        self.n += 1;
        if BUG == GOES_BACK && self.n.is_multiple_of(50) {
            *record = before.clone();
        }
        let answer = match &a.operation {
            // These toys know no transactions.
            Operation::Tx(_) => Answer::Busy,
            Operation::Get | Operation::Inspect { .. } | Operation::Resync => {
                Answer::Value { version: record.version, value: record.value.clone() }
            }
            Operation::Change(change) => match change.apply(record, usize::MAX) {
                Outcome::Write(value) => {
                    let result = value.clone().filter(|_| change.answers_value());
                    if BUG != LOSES_WRITES || !self.n.is_multiple_of(15) {
                        *before = record.clone();
                        *record = Record { version: self.n, value, ops: None };
                    }
                    Answer::Done { version: self.n, result }
                }
                Outcome::Nothing => Answer::Nothing { version: record.version, value: None },
                Outcome::Refused(refusal) => {
                    Answer::Refused { refusal, version: record.version, value: record.value.clone() }
                }
            },
        };
        self.answers.insert((a.session, a.seq), answer.clone());
        answer
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        if BUG == NEVER_REPLIES && id.0.is_multiple_of(60) {
            return;
        }
        self.effects.push_back(Effect::Reply { id, reply: reply.clone() });
        if BUG == REPLIES_TWICE && id.0.is_multiple_of(60) {
            self.effects.push_back(Effect::Reply { id, reply });
        }
    }
}

impl<const BUG: u8> Machine for Toy<BUG> {
    const IS_REPLICATED: bool = false;

    fn new(config: Config, me: NodeRef, seed: u64, _: Time) -> Self {
        Toy {
            me,
            config,
            session: SessionId(seed),
            seq: 0,
            open: BTreeMap::new(),
            effects: VecDeque::new(),
            n: 0,
            records: BTreeMap::new(),
            answers: BTreeMap::new(),
            cache: BTreeMap::new(),
        }
    }

    fn handle_message(&mut self, _: Time, from: NodeRef, message: Message) {
        match message {
            Message::Operation(a) => {
                let answer = self.execute(&a);
                let message = Message::OperationReply {
                    session: a.session,
                    seq: a.seq,
                    attempt: a.attempt,
                    home: 0,
                    extent: Extent::point(0),
                    ballot: None,
                    known: 0,
                    answer,
                };
                self.effects.push_back(Effect::Send { to: from, message, trace: None });
            }
            Message::OperationReply { seq, answer, .. } => {
                let Some(open) = self.open.remove(&seq) else { return };
                let reply = match answer {
                    Answer::Value { version, value } => {
                        self.cache.insert(open.attempt.key, (version, value.clone()));
                        Reply::Value { value, version }
                    }
                    Answer::Done { version, result } => Reply::Changed { version, value: result },
                    Answer::Nothing { version, value } => Reply::Changed { version, value },
                    Answer::Refused { refusal, version, value } => Reply::Refused { refusal, version, value },
                    _ => unreachable!("the toy sends no such answer"),
                };
                self.reply(open.id, reply);
            }
            _ => unreachable!("the toy sends no such message"),
        }
    }

    fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        let (key, operation) = match request {
            Request::Start { .. } => {
                self.effects.push_back(Effect::Reply { id, reply: Reply::Ok });
                let ring = RingId(1);
                let is_creator = self.me.addr == address(1);
                self.effects.push_back(Effect::Announce(Event::Joined { ring, is_creator }));
                return;
            }
            Request::Leave => return self.reply(id, Reply::Left { is_clean: true }),
            Request::Get { key } => (key, Operation::Get),
            Request::Change { key, change } => (key, Operation::Change(change)),
            _ => return self.reply(id, Reply::Ok),
        };
        if BUG == READS_STALE
            && operation == Operation::Get
            && id.0.is_multiple_of(5)
            && let Some((version, value)) = self.cache.get(&key).cloned()
        {
            return self.reply(id, Reply::Value { value, version });
        }
        self.seq += 1;
        let attempt = Attempt {
            session: self.session,
            seq: self.seq,
            attempt: 1,
            is_first: true,
            addressed: None,
            known: 0,
            key,
            operation,
            trace: None,
        };
        self.send(attempt.clone());
        self.open.insert(self.seq, Open { id, attempt, asked: now, sent: now });
    }

    fn handle_connection_lost(&mut self, _: Time, _: NodeRef) {}

    fn handle_timeout(&mut self, now: Time) {
        let mut over = Vec::new();
        let mut again = Vec::new();
        for (seq, o) in &mut self.open {
            if now.since(o.asked) >= self.config.operation_deadline {
                over.push(*seq);
            } else if now.since(o.sent) >= self.config.attempt_timeout {
                o.sent = now;
                o.attempt.attempt += 1;
                o.attempt.is_first = false;
                again.push(o.attempt.clone());
            }
        }
        for a in again {
            self.send(a);
        }
        for o in over.iter().filter_map(|s| self.open.remove(s)).collect::<Vec<_>>() {
            let waited = now.since(o.asked);
            let failure = if BUG == FAILS_BUT_DOES {
                Failure::Unavailable { waited }
            } else {
                Failure::Unknown { waited }
            };
            self.reply(o.id, Reply::Failed(failure));
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_timeout(&self) -> Option<Time> {
        let deadline =
            |o: &Open| (o.asked + self.config.operation_deadline).min(o.sent + self.config.attempt_timeout);
        self.open.values().map(deadline).min()
    }

    fn acceptors(&self) -> impl Iterator<Item = &Acceptor> + Clone {
        std::iter::empty()
    }
}
