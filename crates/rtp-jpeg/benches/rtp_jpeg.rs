// SPDX-License-Identifier: MIT OR Apache-2.0

//! Time to parse, packetise and reassemble a frame. Run: cargo bench -p rtp-jpeg
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rtp_jpeg::*;

/// A picture whose scan has about `packets` packets' worth of bytes, with FF as often as in a camera's.
fn picture(packets: usize) -> Vec<u8> {
    let small = include_bytes!("../tests/data/base420.jpg");
    let jpeg = Jpeg::parse(small).unwrap();
    let mut data = small[..jpeg.scan_range().start].to_vec();
    let mut state = 1_u32;
    let end = data.len() + packets * 1360;
    while data.len() < end {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let byte = (state >> 24) as u8;
        data.push(byte);
        if byte == 0xff {
            data.push(0);
        }
    }
    data.extend([0xff, 0xd9]);
    data
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rtp-jpeg");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for size in [53, 354, 1414] {
        let data = picture(size);
        let jpeg = Jpeg::parse(&data).unwrap();
        let options = PacketizeOptions::new(1380, QuantChoice { q: 255, send_tables: true });
        let packets: Vec<Vec<u8>> = Packets::new(&jpeg, &options)
            .unwrap()
            .map(|packet| {
                let mut payload = vec![0; packet.len()];
                packet.write(&mut payload).unwrap();
                payload
            })
            .collect();
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_function(BenchmarkId::new("parse", size), |bencher| {
            bencher.iter(|| Jpeg::parse(black_box(&data)).unwrap());
        });
        let mut payload = vec![0; 1400];
        group.bench_function(BenchmarkId::new("headers", size), |bencher| {
            bencher.iter(|| {
                for packet in Packets::new(black_box(&jpeg), &options).unwrap() {
                    black_box(packet.write_header(black_box(&mut payload)));
                }
            });
        });
        group.bench_function(BenchmarkId::new("packetise", size), |bencher| {
            bencher.iter(|| {
                for packet in Packets::new(black_box(&jpeg), &options).unwrap() {
                    black_box(packet.write(black_box(&mut payload)));
                }
            });
        });
        let mut receiver = Reassembler::new(ReassemblerConfig::default());
        let (mut timestamp, mut sequence) = (0_u32, 0_u16);
        group.bench_function(BenchmarkId::new("reassemble", size), |bencher| {
            bencher.iter(|| {
                timestamp = timestamp.wrapping_add(3000);
                let mut frames = 0;
                for (index, payload) in packets.iter().enumerate() {
                    sequence = sequence.wrapping_add(1);
                    let marker = index + 1 == packets.len();
                    let packet = RtpPacket { ssrc: 1, timestamp, sequence, marker, payload };
                    frames += receiver.push(&packet).unwrap().count();
                }
                assert_eq!(frames, 1);
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
