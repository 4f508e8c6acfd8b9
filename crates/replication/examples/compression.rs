//! What compressing a frame saves and costs: `cargo run --release -p replication --example compression`.
//!
//! Full frames of records (128 KiB or 1,024 of them) with values of several kinds; the median of many rounds.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use replication::{Hlc, NodeId, Op, Record, Stamp, Value, message::Message, wire};

const ROUNDS: usize = 201;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = NodeId::new("eu-central".parse()?, "node-1")?;
    let mut random = fastrand::Rng::with_seed(7);
    println!(
        "| values | plain bytes | compressed | of it | compress µs | MB/s | decode µs | decode compressed µs |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    type Make<'a> = &'a mut dyn FnMut(usize, &mut fastrand::Rng) -> Vec<u8>;
    let kinds: [(&str, Make<'_>); 6] = [
        ("JSON, 100 B", &mut json),
        ("JSON, 1 KB", &mut |n, random| (0..10).flat_map(|i| json(10 * n + i, random)).collect()),
        ("HTML, 4 KB", &mut html),
        ("numbers as text, 20 B", &mut |n, _| format!("{:020}", n * 7_919).into_bytes()),
        ("random, 128 B", &mut |_, random| noise(128, random)),
        ("random, 4 KB", &mut |_, random| noise(4_096, random)),
    ];
    for (name, make) in kinds {
        let frame = full_frame(&node, make, &mut random);
        let compressed = wire::compress(frame.clone(), 0);
        let compress = median(|| drop(black_box(wire::compress(frame.clone(), 0))));
        let plain = median(|| drop(black_box(wire::decode(frame.clone()))));
        let expand = median(|| drop(black_box(wire::decode(compressed.clone()))));
        let records = match wire::decode(compressed.clone())?.message {
            Message::Records { records, .. } => records.len(),
            _ => 0,
        };
        println!(
            "| {name} ({records} records) | {} | {} | {:.0} % | {:.0} | {:.0} | {:.0} | {:.0} |",
            frame.len(),
            compressed.len(),
            100.0 * compressed.len() as f64 / frame.len() as f64,
            compress.as_secs_f64() * 1e6,
            frame.len() as f64 / 1e6 / compress.as_secs_f64(),
            plain.as_secs_f64() * 1e6,
            expand.as_secs_f64() * 1e6,
        );
    }
    Ok(())
}

/// A frame closed at its bounds.
fn full_frame(
    node: &NodeId,
    make: &mut dyn FnMut(usize, &mut fastrand::Rng) -> Vec<u8>,
    random: &mut fastrand::Rng,
) -> Bytes {
    let mut encoder = wire::RecordsEncoder::new(node, 1, wire::cache_id("geocache"));
    for number in 0.. {
        let value = Value { bytes: make(number, random).into(), ..Value::default() };
        let hlc = Hlc::from_ms(1_700_000_000_000 + number as u64);
        let record = Record {
            stamp: Stamp { hlc, origin: node.origin() },
            key: format!("customer:{number:08}").into(),
            op: Op::Put(value),
            previous: None,
        };
        if !encoder.takes(&record) {
            break;
        }
        encoder.push(&record);
    }
    encoder.finish(1)
}

fn json(number: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let (visits, balance) = (random.u32(..1_000), random.f32() * 1_000.0);
    format!(r#"{{"id":{number},"name":"customer {number}","visits":{visits},"balance":{balance:.2},"active":true}}"#)
        .into_bytes()
}

fn html(number: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let rows = (0..40).map(|row| {
        let (price, stock) = (random.u32(100..9_999), random.u32(..500));
        format!("<tr class=\"row\"><td>Item {number}-{row}</td><td>{price} EUR</td><td>{stock} in stock</td></tr>\n")
    });
    format!("<html><body><table>\n{}</table></body></html>", rows.collect::<String>()).into_bytes()
}

fn noise(bytes: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}
