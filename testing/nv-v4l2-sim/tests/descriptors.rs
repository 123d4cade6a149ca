// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules about descriptor numbers, in a process of their own and one after the other: what they close wrongly must not be
//! another test's.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use libc::EINVAL;
use std::sync::Mutex;
use v4l2_m2m::uapi::*;

static ALONE: Mutex<()> = Mutex::new(());

fn close(fd: i32) {
    // SAFETY: no pointer is passed.
    unsafe { libc::close(fd) };
}

#[test]
fn exported_fds_stay_open() {
    let _alone = ALONE.lock();
    let device = Device::open("").unwrap();
    device.formats();
    device.buffers();
    let fd = device.export(OUTPUT, 0, 0).unwrap();
    close(fd);
    // The next export has the number that the tables still know.
    assert_eq!(device.export(OUTPUT, 1, 0), Err(EINVAL));
    assert!(device.report().contains("violation exported-fds-stay-open: "));
    close(fd);
}

#[test]
fn exported_fds_stay_open_until_after_close() {
    let _alone = ALONE.lock();
    let device = Device::open("").unwrap();
    device.formats();
    device.buffers();
    let fd = device.export(CAPTURE, 0, 0).unwrap();
    let tag = device.tag.clone();
    close(fd);
    drop(device);
    assert!(report(&tag).contains("was closed before v4l2_close"), "{}", report(&tag));
    // The right way round.
    let device = Device::open("").unwrap();
    device.formats();
    device.buffers();
    let fd = device.export(CAPTURE, 0, 0).unwrap();
    let tag = device.tag.clone();
    drop(device);
    close(fd);
    assert!(!report(&tag).contains("violation"), "{}", report(&tag));
}

#[test]
fn close_by_v4l2_close() {
    let _alone = ALONE.lock();
    let device = Device::open("").unwrap();
    close(device.fd);
    let next = Device::open("").unwrap();
    assert_eq!(next.fd, device.fd);
    assert!(next.broke("close-by-v4l2-close"));
    std::mem::forget(device);
}

#[test]
fn dup_shares_the_device() {
    let _alone = ALONE.lock();
    let device = Device::open("").unwrap();
    // SAFETY: no pointer is passed.
    let other = unsafe { (library().dup)(device.fd) };
    assert!(other >= 0 && other != device.fd);
    device.formats();
    let other = Device { fd: other, tag: device.tag.clone() };
    drop(device);
    other.buffers();
    let tag = other.tag.clone();
    assert!(report(&tag).contains("count open 1\n"));
    drop(other);
    assert!(report(&tag).contains("count open 0\n"));
}

#[test]
fn a_hundred_cycles_leave_no_descriptor() {
    let _alone = ALONE.lock();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    drop(Encoder::h264(""));
    let before = open();
    for _ in 0..100 {
        let mut encoder = Encoder::h264("instant=yes,latency=0");
        encoder.encode(0);
    }
    assert_eq!(open(), before);
}

#[test]
fn buffers_of_a_size_change_are_gone() {
    let _alone = ALONE.lock();
    let device = Device::open("").unwrap();
    device.formats();
    device.buffers();
    device.request(OUTPUT, V4L2_MEMORY_MMAP, 0).unwrap();
    assert_eq!(device.export(OUTPUT, 0, 0), Err(EINVAL));
}
