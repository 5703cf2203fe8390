//! The wire between nodes: frames of votes, as the connection of two nodes carries them under load.

use benches::{key, record};
use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dht::Message;
use dht::message::{Era, SlotSet};
use proto::client_api::{value_from_wire, value_to_wire};
use proto::peer::{put_message, take_frame};
use ring::NodeId;
use std::hint::black_box;
use store::{Ballot, Stamp};

fn stamp(n: u64) -> Stamp {
    Stamp { ballot: Ballot { counter: 7, node: NodeId(0x0123_4567_89ab_cdef) }, n }
}

fn accept(i: u32) -> Message {
    let n = u64::from(i) + 1;
    Message::Accept {
        home: 0,
        slots: SlotSet::one(1),
        key: key(i),
        stamp: stamp(n),
        era: Era { epoch: 3, tag: 0xfeed_beef_0123_4567 },
        record: record(n),
    }
}

fn accept_reply(i: u32) -> Message {
    Message::AcceptReply { stamp: stamp(u64::from(i) + 1), slot: 1, answer: Ok(()) }
}

fn frame(messages: &[Message]) -> BytesMut {
    let mut frame = BytesMut::new();
    for message in messages {
        put_message(&mut frame, message);
    }
    frame
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for count in [1u32, 64] {
        let accepts: Vec<Message> = (0..count).map(accept).collect();
        let replies: Vec<Message> = (0..count).map(accept_reply).collect();
        for (name, messages) in [("accept", accepts), ("accept-reply", replies)] {
            let bytes = frame(&messages).freeze();
            let kind = format!("{name}-{count}");
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(BenchmarkId::new("encode", &kind), |b| {
                b.iter(|| frame(black_box(&messages)))
            });
            group.bench_function(BenchmarkId::new("decode", &kind), |b| {
                b.iter(|| take_frame(black_box(bytes.clone())).expect("it was encoded here"));
            });
        }
    }
    group.finish();
}

fn client_values(c: &mut Criterion) {
    let value = record(1).value.expect("the record has a value");
    let wire = value_to_wire(&value);
    c.bench_function("client-value-to-wire", |b| b.iter(|| value_to_wire(black_box(&value))));
    c.bench_function("client-value-from-wire", |b| {
        b.iter(|| value_from_wire(Some(black_box(&wire).clone())).expect("it was made of a value"));
    });
}

criterion_group!(benches, frames, client_values);
criterion_main!(benches);
