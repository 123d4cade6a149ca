// SPDX-License-Identifier: MIT OR Apache-2.0

//! The encoder and its thread, on an emulated driver that fails in every way that drivers are known to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use v4l2_m2m::buffer::DmaBufPlane;
use v4l2_m2m::codec::Codec;
use v4l2_m2m::config::Config;
use v4l2_m2m::emulator::{Emulator, Faults, Node};
use v4l2_m2m::encoder::{Raw, Setup};
use v4l2_m2m::error::EncoderError;
use v4l2_m2m::ioctl::{Api, Memory};
use v4l2_m2m::loan::{LentPlane, Loan};
use v4l2_m2m::picture::{Layout, RawFormat, Source};
use v4l2_m2m::uapi::*;
use v4l2_m2m::worker::{Change, Coded, Notice, Step, Want, Worker, WorkerError};

/// No wait is for a time: this is only when to give up.
const PATIENCE: Duration = Duration::from_secs(60);

struct Run {
    emulator: Emulator,
    worker: Worker,
    setup: Setup,
    config: Config,
    next: u64,
    /// Frames that came: number, bytes, keyframe.
    frames: Vec<(Option<u64>, Vec<u8>, bool)>,
    lost: Vec<u64>,
}

fn config() -> Config {
    Config { gop_size: 1000, ..Config::new(Codec::H264, RawFormat::Nv12, 64, 64) }
}

fn start(node: Node, config: Config) -> Run {
    let emulator = Emulator::new(vec![node]);
    let worker = Worker::open(&emulator.ops(), None, PATIENCE).unwrap();
    let setup = worker.configure(&config, PATIENCE).unwrap();
    Run { emulator, worker, setup, config, next: 0, frames: Vec::new(), lost: Vec::new() }
}

fn encoder() -> Node {
    Node::encoder("/dev/video11", Api::MultiPlane)
}

impl Run {
    fn take(&mut self, coded: Coded) {
        match coded {
            Coded::Frame { number, data, keyframe, .. } => self.frames.push((number, data, keyframe)),
            Coded::Lost { number } => self.lost.push(number),
        }
    }

    fn step(&mut self, want: Want) -> Step {
        loop {
            match self.worker.step(want, PATIENCE) {
                Step::Coded(coded) => self.take(coded),
                step => return step,
            }
        }
    }

    fn push(&mut self, force_key: bool) {
        let mut slot = match self.step(Want::Slot) {
            Step::Slot(slot) => slot,
            other => panic!("{other:?}"),
        };
        let (width, height) = (self.config.width as usize, self.config.height as usize);
        let luma = vec![self.next as u8; width * height];
        let chroma = vec![128; width.div_ceil(2) * 2 * height.div_ceil(2)];
        let sources =
            [Source { data: &luma, stride: width }, Source { data: &chroma, stride: width.div_ceil(2) * 2 }];
        assert!(self.setup.layout.copy(&sources, slot.planes_mut()));
        self.worker.encode(slot, Raw::Mapped, self.next, force_key).unwrap();
        self.next += 1;
    }

    fn push_many(&mut self, count: u64) {
        (0..count).for_each(|_| self.push(false));
    }

    fn drain(&mut self) {
        self.worker.drain().unwrap();
        assert!(matches!(self.step(Want::Drained), Step::Drained));
    }

    fn numbers(&self) -> Vec<u64> {
        self.frames.iter().filter_map(|frame| frame.0).collect()
    }

    fn keys(&self) -> Vec<u64> {
        self.frames.iter().filter(|frame| frame.2).filter_map(|frame| frame.0).collect()
    }

    fn notices(&self) -> Vec<Notice> {
        let end = Instant::now() + PATIENCE;
        loop {
            let notices = self.worker.take_notices();
            if !notices.is_empty() || Instant::now() > end {
                return notices;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn all(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[test]
fn every_frame_comes_out_once_whatever_the_variant() {
    for (api, format) in [(Api::MultiPlane, RawFormat::Nv12), (Api::SinglePlane, RawFormat::Nv12)] {
        for codec in [Codec::H264, Codec::H265] {
            let mut run = start(Node::encoder("/dev/video0", api), Config { codec, format, ..config() });
            run.push_many(30);
            run.drain();
            assert_eq!(run.numbers(), all(30), "{api:?} {codec:?}");
            assert_eq!(run.keys(), [0]);
            assert!(run.lost.is_empty());
            assert_eq!(run.emulator.seen().corners.len(), 30);
            assert!(run.emulator.seen().corners.iter().zip(0..).all(|(corner, n)| *corner == (n, n)));
        }
    }
}

#[test]
fn ways_to_end_a_stream() {
    let faults = Faults::default();
    for (what, faults) in [
        ("an empty buffer with LAST", faults.clone()),
        ("LAST on the last picture", Faults { last_with_picture: true, ..faults.clone() }),
        ("no command", Faults { no_command: true, ..faults.clone() }),
        ("no command, nothing at the end", Faults { no_command: true, silent_end: true, ..faults.clone() }),
        ("a command, nothing at the end", Faults { silent_end: true, ..faults }),
    ] {
        let node = Node { latency: Duration::from_millis(5), ..encoder().with(faults) };
        let mut run = start(node, config());
        run.drain();
        assert!(run.frames.is_empty(), "{what}: drained with nothing in it");
        run.setup = run.worker.configure(&run.config, PATIENCE).unwrap();
        run.push_many(7);
        run.drain();
        assert_eq!(run.numbers(), all(7), "{what}");
        // And goes on with another size.
        run.config = Config { width: 128, height: 96, ..config() };
        run.setup = run.worker.configure(&run.config, PATIENCE).unwrap();
        run.push_many(3);
        run.drain();
        assert_eq!(run.numbers(), all(10), "{what}");
        assert_eq!(run.keys(), [0, 7], "{what}");
        assert!(run.lost.is_empty(), "{what}");
    }
}

#[test]
fn pictures_that_the_device_drops_are_booked() {
    let mut run = start(encoder().with(Faults { drop_every: Some(3), ..Faults::default() }), config());
    run.push_many(10);
    run.drain();
    assert_eq!(run.numbers(), [0, 1, 3, 4, 6, 7, 9]);
    assert_eq!(run.lost, [2, 5, 8]);
    // Marked as faulty.
    let mut run = start(encoder().with(Faults { error_at: Some(2), ..Faults::default() }), config());
    run.push_many(5);
    run.drain();
    assert_eq!(run.numbers(), [0, 1, 3, 4]);
    assert_eq!(run.lost, [2]);
}

#[test]
fn without_timestamps_frames_are_matched_in_order() {
    let mut run = start(encoder().with(Faults { no_timestamps: true, ..Faults::default() }), config());
    run.push_many(6);
    run.drain();
    assert_eq!(run.numbers(), all(6));
}

#[test]
fn keyframes_are_told_by_their_bytes_and_have_headers() {
    let faults = Faults::default();
    for faults in [
        Faults { no_key_flag: true, ..faults.clone() },
        Faults { headers_once: true, ..faults.clone() },
        Faults { header_buffer: true, ..faults },
    ] {
        let mut run = start(encoder().with(faults.clone()), Config { gop_size: 4, ..config() });
        run.push_many(10);
        run.drain();
        assert_eq!(run.keys(), [0, 4, 8], "{faults:?}");
        assert_eq!(run.numbers(), all(10), "{faults:?}");
        for (_, data, _) in run.frames.iter().filter(|frame| frame.2) {
            let contents = Codec::H264.inspect(data);
            assert!(contents.complete && contents.keyframe, "{faults:?}");
        }
        assert_eq!(run.worker.headers_inserted(), if faults.headers_once { 2 } else { 0 }, "{faults:?}");
    }
}

#[test]
fn forced_keyframes() {
    let mut run = start(encoder(), config());
    for _ in 0..3 {
        run.push_many(5);
        run.push(true);
    }
    run.push_many(5);
    run.drain();
    // Not after the frame asked for; before it by what the device had at most.
    let keys = run.keys();
    assert_eq!(keys.len(), 4, "{keys:?}");
    for (key, asked) in keys.iter().zip([0, 5, 11, 17]) {
        assert!((asked.max(4) - 4..=asked).contains(key), "{keys:?}");
    }
    assert!(run.worker.take_notices().is_empty());
}

#[test]
fn a_device_that_ignores_keyframe_requests_is_started_anew() {
    for node in [
        encoder().with(Faults { ignore_force_key: true, ..Faults::default() }),
        encoder().without(V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME),
    ] {
        let mut run = start(node, config());
        // So many that the first keyframe has come out.
        run.push_many(8);
        run.push(true);
        run.push_many(12);
        assert_eq!(run.notices(), [Notice::RestartForKey]);
        run.drain();
        run.setup = run.worker.configure(&run.config, PATIENCE).unwrap();
        run.push(false);
        run.drain();
        assert_eq!(run.keys(), [0, 21]);
        assert_eq!(run.numbers(), all(22));
    }
}

#[test]
fn live_changes() {
    let mut run = start(encoder(), config());
    run.push_many(2);
    run.worker.change(Change::Bitrate(500_000, 0)).unwrap();
    run.worker.change(Change::Rate((15, 1))).unwrap();
    run.worker.change(Change::Gop(3)).unwrap();
    run.push_many(8);
    run.drain();
    assert_eq!(run.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE), Some(500_000));
    assert_eq!(run.emulator.seen().rates, [(30, 1), (15, 1)]);
    assert!(run.keys().len() >= 3, "{:?}", run.keys());
    assert!(run.worker.take_notices().is_empty());
}

#[test]
fn changes_that_are_refused_while_streaming_ask_for_a_restart() {
    let busy = vec![V4L2_CID_MPEG_VIDEO_BITRATE];
    let mut run = start(encoder().with(Faults { busy, ..Faults::default() }), config());
    run.push_many(2);
    run.worker.change(Change::Bitrate(1_000_000, 0)).unwrap();
    assert_eq!(run.notices(), [Notice::RestartForChange(Change::Bitrate(1_000_000, 0))]);
    // A driver that only stores it is opened anew.
    let mut run = start(Node { driver: "wave5-enc".into(), ..encoder() }, config());
    run.push_many(2);
    run.worker.change(Change::Bitrate(1_000_000, 0)).unwrap();
    assert_eq!(run.notices(), [Notice::RestartForChange(Change::Bitrate(1_000_000, 0))]);
    run.drain();
    let lower = Config { bitrate: 1_000_000, ..run.config.clone() };
    run.worker.configure(&lower, PATIENCE).unwrap();
    assert_eq!(run.emulator.seen().opened, 2);
    assert_eq!(run.emulator.seen().open, 1);
    assert_eq!(run.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE), Some(1_000_000));
    // One that cannot at all.
    let mut run = start(encoder().with(Faults { parm: Some(libc::ENOTTY), ..Faults::default() }), config());
    run.push_many(1);
    run.worker.change(Change::Rate((15, 1))).unwrap();
    assert_eq!(run.notices(), [Notice::Unsupported(Change::Rate((15, 1)))]);
}

#[test]
fn the_level_fits_and_is_raised_when_the_driver_wants_more() {
    let hd = Config { width: 1280, height: 720, ..config() };
    let run = start(encoder(), hd.clone());
    assert_eq!(run.setup.chosen.level, Some("3.1"));
    assert_eq!(run.setup.chosen.profile, Some("constrained-baseline"));
    assert_eq!(run.emulator.control(V4L2_CID_MPEG_VIDEO_H264_LEVEL), Some(9));
    let run = start(encoder().with(Faults { least_level: 11, ..Faults::default() }), hd.clone());
    assert_eq!(run.setup.chosen.level, Some("4"));
    // A level that caps demand stays.
    let fixed = Config { level: Some("4.2".into()), profiles: vec!["high".into()], ..hd.clone() };
    let run = start(encoder(), fixed);
    assert_eq!((run.setup.chosen.level, run.setup.chosen.profile), (Some("4.2"), Some("high")));
    // Nothing the device has is enough: its errno, not an endless search.
    let emulator = Emulator::new(vec![encoder().with(Faults { least_level: 99, ..Faults::default() })]);
    let worker = Worker::open(&emulator.ops(), None, PATIENCE).unwrap();
    let error = worker.configure(&hd, PATIENCE).unwrap_err();
    assert!(error.to_string().contains("level"), "{error}");
}

#[test]
fn odd_sizes_are_padded_and_cropped() {
    let odd = Config { width: 650, height: 481, ..config() };
    let mut run = start(encoder(), odd.clone());
    assert_eq!((run.setup.padded, run.setup.visible), ((656, 496), (650, 481)));
    assert_eq!(run.emulator.seen().crop, Some((650, 481)));
    run.push_many(3);
    run.drain();
    assert_eq!(run.numbers(), all(3));
    let run = start(encoder().with(Faults { no_crop: true, ..Faults::default() }), odd);
    assert_eq!(run.setup.visible, (656, 496));
    assert!(run.setup.refused.iter().any(|refused| refused.control == "crop"));
    // Too large.
    let emulator = Emulator::new(vec![encoder()]);
    let worker = Worker::open(&emulator.ops(), None, PATIENCE).unwrap();
    let error = worker.configure(&Config { width: 5000, ..config() }, PATIENCE).unwrap_err();
    assert!(error.to_string().contains("at most 4096x64 pixels"), "{error}");
}

#[test]
fn a_wrong_bytesperline_still_gives_right_pictures() {
    // 64 pixels make lines of 64 bytes here, so wrong values can be told.
    for wrong in [0, 7, 4096] {
        let node = encoder().with(Faults { bytesperline: Some(wrong), ..Faults::default() });
        let mut run = start(node, config());
        run.push_many(3);
        run.drain();
        assert_eq!(run.emulator.seen().corners, [(0, 0), (1, 1), (2, 2)], "{wrong}");
    }
}

#[test]
fn controls_are_brought_into_range_and_refusals_told_once() {
    let wild = Config {
        bitrate: 90_000_000,
        intra_refresh: 30,
        extra_controls: vec![("video_gop_size".into(), 77), ("no_such_thing".into(), 1)],
        ..config()
    };
    let mut run = start(encoder(), wild.clone());
    assert_eq!(run.emulator.control(V4L2_CID_MPEG_VIDEO_BITRATE), Some(25_000_000));
    assert_eq!(run.emulator.control(V4L2_CID_MPEG_VIDEO_GOP_SIZE), Some(77));
    assert_eq!(run.emulator.control(V4L2_CID_MPEG_VIDEO_B_FRAMES), Some(0));
    let names: Vec<_> = run.setup.refused.iter().map(|refused| refused.control.as_str()).collect();
    assert_eq!(names, ["video_bitrate", "intra-refresh", "no_such_thing"]);
    run.setup = run.worker.configure(&wild, PATIENCE).unwrap();
    assert!(run.setup.refused.is_empty(), "{:?}", run.setup.refused);
}

#[test]
fn flushing_forgets_and_begins_with_a_keyframe() {
    // Nothing comes out before the flush.
    let mut run = start(encoder().with(Faults { hang: true, ..Faults::default() }), config());
    run.push_many(3);
    run.worker.flush(PATIENCE).unwrap();
    run.emulator.fault(|faults| faults.hang = false);
    run.push(false);
    run.drain();
    assert_eq!(run.numbers(), [3]);
    assert_eq!(run.keys(), [3]);
}

#[test]
fn dmabufs_go_in_without_a_copy() {
    let node = Node::encoder("/dev/video0", Api::SinglePlane);
    let config = Config { memory: Memory::DmaBuf, ..config() };
    let mut run = start(node, config);
    for n in 0..5_u8 {
        let Step::Slot(mut slot) = run.step(Want::Slot) else { panic!("no slot") };
        assert_eq!(slot.planes_mut().count(), 0);
        // SAFETY: a new descriptor, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"picture".as_ptr(), 0)) };
        let file = std::fs::File::from(fd);
        std::os::unix::fs::FileExt::write_all_at(&file, &[n + 50; 64 * 96], 0).unwrap();
        let plane = DmaBufPlane { fd: file.as_raw_fd(), keep: Arc::new(file), length: 64 * 96, offset: 0 };
        run.worker.encode(slot, Raw::DmaBuf(vec![plane]), n.into(), false).unwrap();
        run.next += 1;
    }
    run.drain();
    assert_eq!(run.numbers(), all(5));
    assert_eq!(run.emulator.seen().corners, (50..55).map(|n| (n, n)).collect::<Vec<_>>());
}

/// Fills a lent buffer, and gives it to the device.
fn lend(run: &mut Run, loan: &Arc<Loan>, planes: &mut [LentPlane], value: u8) -> std::sync::Weak<()> {
    for plane in planes {
        plane.as_mut().fill(value);
    }
    let keep = Arc::new(());
    let kept = Arc::downgrade(&keep);
    let claim = Arc::new(loan.claim(keep).unwrap());
    assert!(loan.claim(Arc::new(())).is_none(), "the device has it");
    let Step::Slot(slot) = run.step(Want::Permit) else { panic!("no permit") };
    run.worker.encode(slot, Raw::Lent(claim), run.next, false).unwrap();
    run.next += 1;
    kept
}

#[test]
fn lent_buffers_go_in_without_a_copy() {
    for api in [Api::MultiPlane, Api::SinglePlane] {
        let mut run = start(Node::encoder("/dev/video0", api), Config { loans: 2, ..config() });
        assert_eq!((run.setup.inputs, run.setup.loans), (4, 2));
        let (lender, layout) = (run.worker.lender(), run.setup.layout.clone());
        let other = Layout::clone(&start(encoder(), Config { width: 128, ..config() }).setup.layout);
        assert!(lender.borrow(&other).is_none(), "pictures lie elsewhere there");
        let (first, mut one) = lender.borrow(&layout).unwrap();
        let (second, mut two) = lender.borrow(&layout).unwrap();
        assert!(!lender.has(&layout) && lender.borrow(&layout).is_none(), "there are two");
        let sizes: Vec<_> = one.iter().map(|plane| plane.as_ref().len()).collect();
        assert_eq!(sizes, layout.used().iter().map(|used| *used as usize).collect::<Vec<_>>());
        let mut kept = Vec::new();
        // In turn with copied ones, and more often than the device has buffers.
        for round in 0..10_u8 {
            kept.push(lend(&mut run, &first, &mut one, 3 * round));
            kept.push(lend(&mut run, &second, &mut two, 3 * round + 1));
            run.next = u64::from(round) * 3 + 2;
            run.push(false);
            run.next = u64::from(round) * 3 + 3;
            let end = Instant::now() + PATIENCE;
            while kept.iter().any(|kept| kept.strong_count() > 0) {
                assert!(Instant::now() < end, "read, and still kept");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        run.drain();
        assert_eq!(run.numbers(), all(30), "{api:?}");
        assert_eq!(run.emulator.seen().corners, (0..30).map(|n| (n, n)).collect::<Vec<_>>());
        // They come back, whole.
        drop(one);
        assert!(lender.has(&layout));
        let (again, one) = lender.borrow(&layout).unwrap();
        assert_eq!(again.addresses().collect::<Vec<_>>(), first.addresses().collect::<Vec<_>>());
        // After another set-up they are memory, no more.
        run.setup = run.worker.configure(&run.config, PATIENCE).unwrap();
        assert!(!again.is_current() && !second.is_current());
        two[0].as_mut().fill(1);
        let Step::Slot(slot) = run.step(Want::Permit) else { panic!("no permit") };
        let claim = Arc::new(second.claim(Arc::new(())).unwrap());
        run.worker.encode(slot, Raw::Lent(claim), 77, false).unwrap();
        drop((one, two));
        run.next = 78;
        run.push(false);
        run.drain();
        assert_eq!((run.lost.as_slice(), run.frames.last().unwrap().0), (&[77_u64][..], Some(78)), "told");
        let lent: Vec<_> = std::iter::from_fn(|| lender.borrow(&layout)).collect();
        assert_eq!(lent.len(), 2, "those of before are not lent");
        assert!(run.worker.quit(PATIENCE));
        assert_eq!(run.emulator.seen().open, 0, "lent memory does not keep the device open");
        drop(lent);
    }
}

#[test]
fn lent_buffers_in_a_device_that_is_flushed_come_back() {
    let mut run =
        start(encoder().with(Faults { hang: true, ..Faults::default() }), Config { loans: 3, ..config() });
    let lender = run.worker.lender();
    let layout = run.setup.layout.clone();
    let (loan, mut planes) = lender.borrow(&layout).unwrap();
    let kept = lend(&mut run, &loan, &mut planes, 1);
    run.push(false);
    assert_eq!(kept.strong_count(), 1);
    run.worker.flush(PATIENCE).unwrap();
    assert_eq!(kept.strong_count(), 0);
    run.emulator.fault(|faults| faults.hang = false);
    for value in 2..12 {
        let kept = lend(&mut run, &loan, &mut planes, value);
        run.push(false);
        let end = Instant::now() + PATIENCE;
        while kept.strong_count() > 0 {
            assert!(Instant::now() < end, "read, and still kept");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    run.drain();
    assert_eq!(run.numbers(), (2..22).collect::<Vec<_>>(), "with all the slots that there were");
}

#[test]
fn lending_costs_two_buffers_more() {
    for (loans, buffers) in [(0, 4), (3, 4), (5, 6)] {
        let mut run = start(encoder(), Config { loans, ..config() });
        assert_eq!(run.emulator.seen().raw_buffers, buffers);
        let lender = run.worker.lender();
        let lent: Vec<_> = std::iter::from_fn(|| lender.borrow(&run.setup.layout)).collect();
        assert_eq!(lent.len() as u32, loans);
        // Nobody gives these back, and still something else is coded.
        run.push_many(10);
        run.drain();
        assert_eq!(run.numbers(), all(10));
    }
    // No more are in the device than may be, whoever filled them.
    let hanging = encoder().with(Faults { hang: true, ..Faults::default() });
    let mut run = start(hanging, Config { loans: 5, ..config() });
    let (lender, layout) = (run.worker.lender(), run.setup.layout.clone());
    let mut lent: Vec<_> = std::iter::from_fn(|| lender.borrow(&layout)).collect();
    for (number, (loan, planes)) in lent.iter_mut().take(3).enumerate() {
        lend(&mut run, loan, planes, number as u8);
    }
    run.push(false);
    for want in [Want::Slot, Want::Permit] {
        assert!(matches!(run.worker.step(want, Duration::from_millis(100)), Step::TimedOut), "{want:?}");
    }
    // An unused one is there for the next.
    run.worker.flush(PATIENCE).unwrap();
    let Step::Slot(permit) = run.step(Want::Permit) else { panic!("no permit") };
    run.worker.put_back(permit);
    for _ in 0..4 {
        assert!(matches!(run.step(Want::Permit), Step::Slot(_)));
    }
    assert!(matches!(run.worker.step(Want::Permit, Duration::from_millis(100)), Step::TimedOut));
}

#[test]
fn nothing_is_lent_where_it_cannot_be_taken_back() {
    for (faults, loans) in [
        (Faults { no_orphans: true, ..Faults::default() }, 0),
        // One is always left.
        (Faults { most_buffers: 3, ..Faults::default() }, 2),
        (Faults { most_buffers: 1, ..Faults::default() }, 0),
    ] {
        let mut run = start(encoder().with(faults), Config { loans: 3, ..config() });
        assert_eq!(run.setup.loans, loans);
        assert_eq!(run.worker.lender().has(&run.setup.layout), loans > 0);
        run.push_many(5);
        run.drain();
        assert_eq!(run.numbers(), all(5));
    }
}

#[test]
fn failures_of_the_device() {
    // EIO in the middle.
    let mut run = start(encoder().with(Faults { eio_after: Some(3), ..Faults::default() }), config());
    let failed = loop {
        match run.step(Want::Slot) {
            Step::Slot(slot) => {
                let _ = run.worker.encode(slot, Raw::Mapped, run.next, false);
                run.next += 1;
            }
            Step::Failed(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(*failed, EncoderError::Dequeue(_)), "{failed}");
    assert!(!failed.is_gone());
    // Vanished.
    let mut run = start(encoder(), config());
    run.push_many(2);
    run.emulator.fault(|faults| faults.gone = true);
    let failed = loop {
        match run.step(Want::Slot) {
            Step::Slot(slot) => drop(run.worker.encode(slot, Raw::Mapped, 9, false)),
            Step::Failed(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(failed.is_gone(), "{failed}");
}

#[test]
fn a_device_that_hangs_is_noticed_and_left() {
    let emulator = Emulator::new(vec![encoder().with(Faults { hang: true, ..Faults::default() })]);
    let worker = Worker::open(&emulator.ops(), None, Duration::from_secs(2)).unwrap();
    worker.configure(&config(), PATIENCE).unwrap();
    let Step::Slot(slot) = worker.step(Want::Slot, PATIENCE) else { panic!("no slot") };
    worker.encode(slot, Raw::Mapped, 0, false).unwrap();
    assert!(worker.wait_coded());
    let error = worker.take_error().unwrap();
    assert!(matches!(*error, EncoderError::Hung(_)), "{error}");
    assert!(worker.take_error().is_none(), "told once");
    assert!(worker.quit(PATIENCE));
    assert_eq!(emulator.seen().open, 0);
    // Inside a system call.
    let emulator = Emulator::new(vec![encoder()]);
    let worker = Worker::open(&emulator.ops(), None, PATIENCE).unwrap();
    emulator.fault(|faults| faults.slow = Duration::from_secs(3));
    let patience = Duration::from_millis(200);
    let error = worker.configure(&config(), patience).unwrap_err();
    assert!(matches!(error, WorkerError::TimedOut(_)), "{error}");
    assert!(!worker.quit(patience), "the thread is left behind");
    emulator.fault(|faults| faults.slow = Duration::ZERO);
}

/// For devices that can only be asked again and again.
#[test]
fn nothing_is_expected_before_it_can_be_done() {
    let mut run = start(Node { latency: Duration::from_millis(40), ..encoder() }, config());
    let end = Instant::now() + PATIENCE;
    // Late frames are expected at once, so this may take more than two on a busy machine.
    while run.emulator.seen().pause < Duration::from_millis(10) {
        assert!(Instant::now() < end);
        run.push(false);
        assert!(run.worker.wait_coded());
        while let Some(coded) = run.worker.try_coded() {
            run.take(coded);
        }
    }
    assert!(run.emulator.seen().pause <= Duration::from_millis(50));
    run.drain();
    assert_eq!(run.numbers(), all(run.next));
}

#[test]
fn waits_are_interrupted() {
    let run = start(Node { latency: Duration::from_secs(60), ..encoder() }, config());
    let worker = Arc::new(run.worker);
    let other = Arc::clone(&worker);
    let thread = std::thread::spawn(move || {
        loop {
            match other.step(Want::Slot, Duration::from_secs(60)) {
                Step::Slot(slot) => other.encode(slot, Raw::Mapped, 0, false).unwrap(),
                step => break step,
            }
        }
    });
    std::thread::sleep(Duration::from_millis(50));
    worker.interrupt();
    assert!(matches!(thread.join().unwrap(), Step::Interrupted));
    assert!(worker.quit(PATIENCE));
}

#[test]
fn nodes_are_told_apart() {
    let denied = Node {
        path: "/dev/video3".into(),
        ..encoder().with(Faults { open: Some(libc::EACCES), ..Faults::default() })
    };
    let busy = Node {
        path: "/dev/video4".into(),
        ..encoder().with(Faults { open: Some(libc::EBUSY), ..Faults::default() })
    };
    let nodes = vec![Node::camera("/dev/video0"), Node::jpeg("/dev/video2"), denied, busy];
    let emulator = Emulator::new(nodes.clone());
    let error = Worker::open(&emulator.ops(), None, PATIENCE).unwrap_err().to_string();
    for part in [
        "/dev/video0: camera is no",
        "/dev/video2: jpeg encodes JPEG",
        "/dev/video3: no permission",
        "/dev/video4: busy",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(emulator.seen().open, 0, "all closed again");
    let emulator = Emulator::new([nodes, vec![encoder()]].concat());
    let worker = Worker::open(&emulator.ops(), None, PATIENCE).unwrap();
    assert_eq!(worker.info().path, PathBuf::from("/dev/video11"));
    let codecs: Vec<_> = worker.info().codecs.iter().map(|support| support.codec).collect();
    assert_eq!(codecs, [Codec::H264, Codec::H265]);
    let error = Worker::open(&Emulator::default().ops(), Some("/dev/video9".into()), PATIENCE).unwrap_err();
    assert!(error.to_string().contains("there is no such node"), "{error}");
}

#[test]
fn more_or_fewer_buffers_than_asked_for() {
    for (least, most) in [(6, 0), (0, 2)] {
        let faults = Faults { least_buffers: least, most_buffers: most, ..Faults::default() };
        let mut run = start(encoder().with(faults), config());
        run.push_many(12);
        run.drain();
        assert_eq!(run.numbers(), all(12));
    }
}

#[test]
fn nothing_leaks() {
    let cycles = 100;
    let emulator = Emulator::new(vec![encoder()]);
    // The emulator counts: other tests of this process open descriptors too.
    for _ in 0..cycles {
        let worker = Worker::open(&emulator.ops(), None, PATIENCE).unwrap();
        worker.configure(&config(), PATIENCE).unwrap();
        let Step::Slot(slot) = worker.step(Want::Slot, PATIENCE) else { panic!("no slot") };
        worker.encode(slot, Raw::Mapped, 0, false).unwrap();
        assert!(worker.quit(PATIENCE));
    }
    assert_eq!((emulator.seen().opened, emulator.seen().open), (cycles, 0));
}
