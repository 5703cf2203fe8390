//! What clients did and saw, in the simulator's own words, so that its checkers judge it.
//!
//! Keeps:
//! 1. An operation's first moment is taken before it is sent and its last one after its answer came, so what the
//!    history orders was ordered in truth.

use client::{Client, Error, Outcome as Fate};
use ring::Time;
use sim::history::{Action, History, Outcome};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use store::{Change, Data, Key, Refusal, Value};

#[derive(Debug)]
pub(crate) struct Recorder {
    began: Instant,
    inner: Mutex<(u64, History)>,
}

impl Recorder {
    pub(crate) fn new() -> Recorder {
        Recorder { began: Instant::now(), inner: Mutex::default() }
    }

    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn invoke(&self, who: usize, key: &str, action: &Action) -> usize {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 += 1;
        let at = (inner.0, self.now());
        inner.1.invoke(who, Key::new(key.as_bytes()), action.clone(), at)
    }

    pub(crate) fn complete(&self, id: usize, outcome: Outcome) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 += 1;
        let at = (inner.0, self.now());
        inner.1.complete(id, outcome, at);
    }

    /// Everything so far.
    pub(crate) fn history(&self) -> History {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// Does one operation, and tells what came of it.
pub(crate) async fn perform(kv: &Client, key: &str, action: &Action) -> Outcome {
    attempt(kv, key, action).await.unwrap_or_else(|e| failed(&e))
}

/// Does one operation; an error is an answer that shows nothing of the key.
pub(crate) async fn attempt(kv: &Client, key: &str, action: &Action) -> Result<Outcome, Error> {
    let change = match action {
        Action::Get => {
            let entry = kv.get(key).await?;
            let (value, version) = entry.map_or((None, 0), |e| (Some(e.value), e.version));
            return Ok(Outcome::Value { value, version });
        }
        Action::Change(change) => change,
    };
    let done = |version| Outcome::Changed { version, value: None };
    let result = match change {
        Change::Put { value, condition } => kv.put_if(key, value.clone(), *condition).await.map(done),
        Change::Delete { condition } => kv.delete_if(key, *condition).await.map(|d| match d.existed {
            true => done(d.version),
            false => Outcome::Refused { refusal: Refusal::NotFound, version: d.version, value: None },
        }),
        Change::TestAndSet { old, new } => kv.test_and_set(key, old.clone(), new.clone()).await.map(done),
        Change::AddOnNumber { by } => {
            let sum = kv.add_on_number(key, by.clone()).await;
            sum.map(|(version, value)| Outcome::Changed { version, value })
        }
        Change::AddDelOnList { add, remove } => {
            kv.add_del_on_list(key, &elements(add), &elements(remove)).await.map(done)
        }
    };
    result.or_else(|e| refused(&e).ok_or(e))
}

fn elements(list: &Value) -> Vec<Value> {
    if let Data::List(items) = list.decode() { items.iter().map(Value::encode).collect() } else { Vec::new() }
}

/// The state of the key that an error shows, if it shows all of it.
fn refused(e: &Error) -> Option<Outcome> {
    match e {
        Error::Conflict { detail, version, value: Some(value) } if detail.code == "KV-CON-003" => {
            let value = Some(value.clone());
            Some(Outcome::Refused { refusal: Refusal::ValueDiffers, version: *version, value })
        }
        Error::NotFound(_) => Some(Outcome::Refused { refusal: Refusal::NotFound, version: 0, value: None }),
        Error::Conflict { .. }
        | Error::WrongType(_)
        | Error::Rejected(_)
        | Error::Unavailable(_)
        | Error::CannotConnect { .. }
        | Error::Unknown(_) => None,
    }
}

/// What an error leaves open.
pub(crate) fn failed(e: &Error) -> Outcome {
    match e.outcome() {
        Fate::Unknown => Outcome::Unknown,
        Fate::NotDone => Outcome::Failed(match e.detail() {
            Some(d) => d.code.clone(),
            None => "cannot connect".to_owned(),
        }),
    }
}
