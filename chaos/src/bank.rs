//! A bank under faults: money moves between accounts, and whoever adds all of it up finds it all.
//!
//! Keeps:
//! 1. Every total of a committed read-only transaction is exact.
//! 2. A transfer that was acknowledged is there at the end: its receipt was written with it.
//! 3. At the end every account can be written at once: no lock is left.

use crate::campaign::Campaign;
use crate::door::Doors;
use client::{Answer, Client, Condition, Error, Operation, Outcome, Transaction, Value};
use harness::Res;
use num_bigint::BigInt;
use sim::draw::{Draw, Stream};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Data;

const ACCOUNTS: u64 = 1000;
const BALANCE: i64 = 100;
const CLIENTS: usize = 32;
/// So many of the clients add all accounts up, again and again.
const AUDITORS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(10);
const LOCK_FREE_WITHIN: Duration = Duration::from_secs(1);

/// What the bank's clients saw.
#[derive(Debug, Default)]
struct Books {
    transfers: u64,
    totals: u64,
    aborted: u64,
    unknown: u64,
    wrong: Vec<String>,
    /// Of each client: the last acknowledged receipt, and those of unknown outcome after it.
    receipts: Vec<(usize, i64, BTreeSet<i64>)>,
}

fn account(n: u64) -> String {
    format!("account-{n}")
}

fn receipt(who: usize) -> String {
    format!("receipt-{who}")
}

fn number(value: Option<&Value>) -> Option<i64> {
    if let Data::Int(i) = value?.decode() { i64::try_from(&i).ok() } else { None }
}

fn accounts() -> Vec<Operation> {
    (0..ACCOUNTS).map(|n| Operation::get(&account(n))).collect()
}

fn sum(answers: &[Result<Answer, Error>]) -> Result<BigInt, Error> {
    let mut total = BigInt::ZERO;
    for a in answers {
        let balance = a.as_ref().map_err(Clone::clone)?;
        total += number(balance.value.as_ref()).unwrap_or(0);
    }
    Ok(total)
}

fn expected() -> BigInt {
    BigInt::from(ACCOUNTS) * BALANCE
}

#[derive(Debug)]
struct Teller {
    who: usize,
    doors: Doors,
    stop: Arc<AtomicBool>,
    books: Arc<Mutex<Books>>,
    draw: Draw,
}

impl Teller {
    async fn client(&mut self) -> Option<Client> {
        let open = self.doors.open();
        let is_any = open.is_empty() || self.draw.chance(50);
        let doors = if is_any { self.doors.all() } else { open };
        let door = self.draw.pick(&doors)?;
        door.client_with(DEADLINE).await.ok()
    }

    fn note<T>(&self, result: &Result<T, Error>) -> bool {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) => return true,
            Err(e) if e.outcome() == Outcome::Unknown => books.unknown += 1,
            Err(_) => books.aborted += 1,
        }
        false
    }

    async fn audit(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let Some(kv) = self.client().await else { continue };
            let result = kv.transaction(|tx| async move { sum(&tx.run(&accounts()).await?) }).await;
            if self.note(&result)
                && let Ok(total) = result
            {
                let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
                books.totals += 1;
                if total != expected() {
                    books.wrong.push(format!("a total of {total} instead of {}", expected()));
                }
            }
        }
    }

    async fn transfer(mut self) {
        let (mut last, mut done, mut open) = (0i64, 0i64, BTreeSet::new());
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(self.draw.millis(10, 60)).await;
            let Some(kv) = self.client().await else { continue };
            let from = self.draw.below(ACCOUNTS);
            let to = (from + 1 + self.draw.below(ACCOUNTS - 1)) % ACCOUNTS;
            let amount = i64::try_from(self.draw.between(1, 9)).unwrap_or(1);
            last += 1;
            let (slip, n) = (receipt(self.who), last);
            let result =
                kv.transaction(|tx| moved(tx, [account(from), account(to)], amount, slip.clone(), n)).await;
            if self.note(&result) {
                done = n;
                open.clear();
                self.books.lock().unwrap_or_else(PoisonError::into_inner).transfers += 1;
            } else if result.is_err_and(|e| e.outcome() == Outcome::Unknown) {
                open.insert(n);
            }
        }
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.receipts.push((self.who, done, open));
    }
}

/// Moves money and leaves a receipt.
async fn moved(tx: Transaction, pair: [String; 2], amount: i64, slip: String, n: i64) -> Result<(), Error> {
    let [from, to] = pair;
    let mut balances = Vec::new();
    for answer in tx.run(&[Operation::get(&from), Operation::get(&to)]).await? {
        balances.push(number(answer?.value.as_ref()).unwrap_or(0));
    }
    let [a, b] = balances[..] else { return Ok(()) };
    let put = |key: &str, v: i64| Operation::put(key, &Value::int(v), Condition::Always);
    let writes = [put(&from, a - amount), put(&to, b + amount), put(&slip, n)];
    for answer in tx.run(&writes).await? {
        answer?;
    }
    Ok(())
}

impl Campaign {
    /// Rounds of kills and partitions while the bank is open.
    pub(crate) fn bank(&mut self) -> Res<()> {
        self.start()?;
        let doors = self.fleet.doors.clone();
        self.open_accounts(&doors)?;
        let (stop, books) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Books::default())));
        let mut tasks = Vec::new();
        for who in 0..CLIENTS {
            let draw_seed =
                self.options.seed.wrapping_mul(7919).wrapping_add(u64::try_from(who).unwrap_or(0));
            let teller = Teller {
                who,
                doors: doors.clone(),
                stop: Arc::clone(&stop),
                books: Arc::clone(&books),
                draw: Draw::new(draw_seed, Stream::Transactions),
            };
            tasks.push(if who < AUDITORS {
                self.runtime.spawn(teller.audit())
            } else {
                self.runtime.spawn(teller.transfer())
            });
        }
        self.rounds()?;
        stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            for task in tasks {
                let _ = task.await;
            }
        });
        let books = std::mem::take(&mut *books.lock().unwrap_or_else(PoisonError::into_inner));
        self.tally.count("transfers committed", books.transfers);
        self.tally.count("totals added up by transactions", books.totals);
        self.tally.count("transactions not done", books.aborted);
        self.tally.count("transactions of unknown outcome", books.unknown);
        if let Err(why) = self.close_bank(&doors, &books) {
            self.fail(self.options.rounds, &why);
        }
        Ok(())
    }

    fn open_accounts(&mut self, doors: &Doors) -> Res<()> {
        let door = doors.open().first().cloned().ok_or("no node serves")?;
        let puts: Vec<Operation> = (0..ACCOUNTS)
            .map(|n| Operation::put(&account(n), &Value::int(BALANCE), Condition::Always))
            .collect();
        let opened = async {
            let kv = door.client_with(DEADLINE).await?;
            kv.transaction(|tx| {
                let puts = puts.clone();
                async move { tx.run(&puts).await?.into_iter().try_for_each(|a| a.map(drop)) }
            })
            .await
        };
        self.runtime.block_on(opened).map_err(|e| format!("the accounts cannot be opened: {e}"))
    }

    /// What must hold when all is quiet again.
    fn close_bank(&mut self, doors: &Doors, books: &Books) -> Res<()> {
        if let Some(wrong) = books.wrong.first() {
            return Err(format!("{} wrong totals: {wrong}", books.wrong.len()));
        }
        let door = doors.open().last().cloned().ok_or("no node serves")?;
        let kv = self.runtime.block_on(door.client_with(DEADLINE)).map_err(|e| e.to_string())?;
        let mut slowest = Duration::ZERO;
        for n in 0..ACCOUNTS {
            let began = Instant::now();
            let added = self.runtime.block_on(kv.add_on_number(&account(n), Value::int(0)));
            slowest = slowest.max(began.elapsed());
            added.map_err(|e| format!("{} cannot be written: {e:?}", account(n)))?;
        }
        self.tally.time("the slowest write of an account at rest", slowest);
        if slowest > LOCK_FREE_WITHIN {
            return Err(format!("a write of an account at rest took {slowest:?}: a lock was left"));
        }
        let answers = self.runtime.block_on(kv.batch(&accounts())).map_err(|e| e.to_string())?;
        let total = sum(&answers).map_err(|e| e.to_string())?;
        if total != expected() {
            return Err(format!("the accounts hold {total} at the end instead of {}", expected()));
        }
        for (who, done, open) in &books.receipts {
            let entry = self.runtime.block_on(kv.get(&receipt(*who))).map_err(|e| e.to_string())?;
            let found = number(entry.as_ref().map(|e| &e.value)).unwrap_or(0);
            if found != *done && !open.contains(&found) {
                return Err(format!(
                    "LOST: client {who} has receipt {found}; acknowledged was {done}, unknown {open:?}"
                ));
            }
        }
        Ok(())
    }
}
