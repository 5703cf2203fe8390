//! Routing: where a key lies, and which arcs follow from the members' ends.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ring::placement::{arcs, choose_end};
use ring::{NodeId, Position, Space};
use std::hint::black_box;

fn space(r: u8) -> Space {
    Space::new(r).expect("a valid replication factor")
}

fn members(space: &Space, n: u64) -> Vec<(NodeId, Position)> {
    let mut ends = vec![(NodeId(1), 0)];
    for i in 1..n {
        let id = NodeId(1 + i);
        ends.push((id, choose_end(space, &ends, id, i)));
    }
    ends
}

fn locate(c: &mut Criterion) {
    let mut group = c.benchmark_group("locate");
    for len in [16usize, 256] {
        let (space, key) = (space(3), vec![b'k'; len]);
        group.bench_function(BenchmarkId::from_parameter(len), |b| b.iter(|| space.locate(black_box(&key))));
    }
    group.finish();
    c.bench_function("pieces", |b| {
        let space = space(3);
        let to = space.position(1, 77);
        b.iter(|| space.pieces(black_box(5), black_box(to)));
    });
}

fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("arcs");
    for n in [3u64, 9, 100] {
        let space = space(3);
        let ends = members(&space, n);
        group.bench_function(BenchmarkId::from_parameter(n), |b| b.iter(|| arcs(&space, black_box(&ends))));
    }
    group.finish();
}

criterion_group!(benches, locate, placement);
criterion_main!(benches);
