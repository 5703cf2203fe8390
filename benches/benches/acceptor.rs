//! The votes of one acceptor that holds 10 000 keys.

use benches::{key, record};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use paxos::{Acceptor, Configuration, Member};
use ring::{NodeId, ReplicaId, RingId, Space};
use std::hint::black_box;
use std::sync::Arc;
use store::{Ballot, Stamp};

const KEYS: u32 = 10_000;

fn stamp(n: u64) -> Stamp {
    Stamp { ballot: Ballot { counter: 1, node: NodeId(5) }, n }
}

fn acceptor(space: &Space) -> Acceptor {
    let member = |i| Member { replica: ReplicaId { node: NodeId(i), counter: 1 }, since: 1 };
    let configuration = Arc::new(Configuration::new(RingId(1), 1, (1..4).map(member).collect()));
    let mut acceptor = Acceptor::new(0, space.whole(), configuration, true);
    for i in 0..KEYS {
        let key = key(i);
        let (home, offset) = space.locate(key.as_bytes());
        let n = u64::from(i) + 1;
        acceptor.accept(home, stamp(n), offset, &key, &record(n), 1).expect("nothing higher was promised");
    }
    acceptor
}

fn votes(c: &mut Criterion) {
    let space = Space::new(3).expect("3 is a valid replication factor");
    let mut acceptor = acceptor(&space);
    let (epoch, tag) = (acceptor.configuration.epoch, acceptor.configuration.tag);
    let key = key(KEYS / 2);
    let (home, offset) = space.locate(key.as_bytes());
    let ballot = stamp(0).ballot;
    let mut n = u64::from(KEYS);
    let mut group = c.benchmark_group("acceptor-10000");
    group.bench_function("accept", |b| {
        b.iter_batched(
            || {
                n += 1;
                (n, record(n))
            },
            |(n, record)| acceptor.accept(home, stamp(n), offset, &key, &record, 1).is_ok(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("sync", |b| b.iter(|| acceptor.sync(home, ballot, offset, black_box(&key)).is_ok()));
    group.bench_function("confirm", |b| b.iter(|| acceptor.confirm(black_box(home), ballot).is_ok()));
    group.bench_function("check-and-read", |b| {
        b.iter(|| {
            let is_current = acceptor.check(epoch, tag).is_ok();
            is_current && acceptor.registers.get(offset, black_box(&key)).is_some()
        });
    });
    group.finish();
}

criterion_group!(benches, votes);
criterion_main!(benches);
