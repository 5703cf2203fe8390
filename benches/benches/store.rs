//! Values, changes and registers.

use benches::{key, record};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use num_bigint::BigInt;
use ring::Extent;
use std::collections::BTreeMap;
use std::hint::black_box;
use store::{Ballot, Change, Data, Entry, Record, Registers, Stamp, Value};

const KEYS: u32 = 10_000;
const OFFSET_STEP: u128 = 1 << 100;

fn entry(n: u64) -> Entry {
    Entry { stamp: Stamp { ballot: Ballot::ZERO, n }, record: record(n), settled: true, mark: 0 }
}

fn registers() -> Registers {
    let mut all = Registers::new();
    for i in 0..KEYS {
        all.insert(u128::from(i) * OFFSET_STEP, key(i), entry(u64::from(i)));
    }
    all
}

fn values(c: &mut Criterion) {
    let object: BTreeMap<String, Data> = (0..10i64)
        .map(|i| {
            (
                format!("member-{i}"),
                Data::List(vec![Data::Int(BigInt::from(i)), Data::String("x".repeat(20))]),
            )
        })
        .collect();
    let samples = [
        ("string-128", Data::String("v".repeat(128))),
        ("integer", Data::Int(BigInt::from(123_456_789))),
        ("object-10", Data::Object(object)),
    ];
    let mut group = c.benchmark_group("value");
    for (name, data) in samples {
        let value = Value::encode(&data);
        group
            .bench_function(BenchmarkId::new("encode", name), |b| b.iter(|| Value::encode(black_box(&data))));
        group.bench_function(BenchmarkId::new("decode", name), |b| b.iter(|| black_box(&value).decode()));
    }
    group.finish();
    c.bench_function("add_on_number", |b| {
        let before = Record { version: 1, value: Some(Value::int(41)), ops: None };
        let change = Change::AddOnNumber { by: Value::int(1) };
        b.iter(|| change.apply(black_box(&before), 1 << 20));
    });
}

fn maps(c: &mut Criterion) {
    let mut all = registers();
    let middle = KEYS / 2;
    let (offset, middle_key) = (u128::from(middle) * OFFSET_STEP, key(middle));
    let whole = Extent::new(0, u128::from(KEYS) * OFFSET_STEP);
    let mut group = c.benchmark_group("registers-10000");
    group.bench_function("get", |b| b.iter(|| all.get(black_box(offset), &middle_key).is_some()));
    group.bench_function("insert-present", |b| {
        b.iter_batched(|| entry(7), |e| all.insert(offset, middle_key.clone(), e), BatchSize::SmallInput);
    });
    group.bench_function("digest", |b| b.iter(|| all.digest(black_box(whole))));
    group.bench_function("split-and-append", |b| {
        b.iter_batched(
            || all.clone(),
            |mut low| {
                let high = low.split_off(offset);
                low.append(high);
                low
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, values, maps);
criterion_main!(benches);
