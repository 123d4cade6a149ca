// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts allocations: none while packets of a stream are made, and none while they are received.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use rtp_jpeg::*;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches a constant-initialised thread local.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(work: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(count(|| drop(std::hint::black_box(vec![0_u8; 10]))), 1);
}

#[test]
fn nothing_is_allocated_to_parse_and_packetise() {
    let input = data("self_large.jpg");
    let mut payload = [0; 1400];
    for restart_mode in [RestartMode::WholeFrame, RestartMode::Aligned] {
        let mut packets = 0;
        let allocations = count(|| {
            let jpeg = Jpeg::parse(&input).unwrap();
            let mut selector = QuantSelector::new(QuantPolicy::Auto);
            let quant = selector.choose(jpeg.tables(), std::time::Duration::ZERO).unwrap();
            let options = PacketizeOptions { restart_mode, ..PacketizeOptions::new(200, quant) };
            for packet in Packets::new(&jpeg, &options).unwrap() {
                packet.write(&mut payload).unwrap();
                packets += 1;
            }
        });
        assert!(packets > 50);
        assert_eq!(allocations, 0);
    }
}

#[test]
fn nothing_is_allocated_to_reassemble_once_the_buffers_have_grown() {
    let input = data("self_large.jpg");
    let jpeg = Jpeg::parse(&input).unwrap();
    for conceal in [false, true] {
        let options = PacketizeOptions::new(1000, QuantChoice { q: 255, send_tables: true });
        let sent: Vec<_> = (0..6).flat_map(|n| send(&jpeg, &options, n, n as u16 * 100)).collect();
        let mut receiver = Reassembler::new(config(None, conceal));
        let mut per_frame = [0; 6];
        let mut frames = 0;
        for packet in &sent {
            per_frame[packet.timestamp as usize] += count(|| {
                frames += receiver.push(&packet.as_packet()).unwrap().count();
            });
        }
        assert_eq!(frames, 6);
        assert!(per_frame[0] > 0);
        assert_eq!(per_frame[1..], [0; 5]);
    }
}
