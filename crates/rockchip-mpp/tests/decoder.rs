// SPDX-License-Identifier: MIT OR Apache-2.0

//! The decoder's side of the safe layer over the simulated library: rules of order, ownership, a device that hangs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers outside of test functions.

mod common;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::{Simulator, mpp};
use rockchip_mpp::{Coding, Context, Decoded, Decoder, Error, Picture, Put, Timeout};
use sim_codec::{Codec, Coded, Encoder, EncoderConfig};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;
const CODECS: [(Coding, Codec); 5] = [
    (Coding::Avc, Codec::H264),
    (Coding::Hevc, Codec::H265),
    (Coding::Vp8, Codec::Vp8),
    (Coding::Vp9, Codec::Vp9),
    (Coding::Mjpeg, Codec::Mjpeg),
];

fn stream(codec: Codec, count: u32) -> Vec<Coded> {
    let (width, height) = (WIDTH as usize, HEIGHT as usize);
    let mut encoder = Encoder::new(EncoderConfig::new(codec, width, height)).unwrap();
    let mut coded = Vec::new();
    for number in 0..count {
        let picture = sim_codec::Picture::test_pattern(width, height, number);
        coded.extend(encoder.encode(&picture, number.into(), false).unwrap());
    }
    coded.extend(encoder.finish().unwrap());
    coded
}

fn decoder(coding: Coding) -> Decoder {
    Context::new(mpp())
        .unwrap()
        .with_input_timeout(Timeout::NonBlocking)
        .unwrap()
        .with_output_timeout(Timeout::Millis(20))
        .unwrap()
        .into_decoder(coding)
        .unwrap()
}

/// What came out of a decoder.
#[derive(Default)]
struct Out {
    pictures: Vec<Picture>,
    formats: usize,
    ended: bool,
}

impl Out {
    fn take(&mut self, decoder: &Decoder) {
        match decoder.get().unwrap() {
            Some(Decoded::Picture(picture)) => {
                self.ended |= picture.eos();
                self.pictures.push(picture);
            }
            Some(Decoded::Format(format)) => {
                // It comes before the first picture that has it.
                assert!(format.width >= WIDTH && format.height >= HEIGHT, "{format:?}");
                assert!(
                    format.hor_stride >= WIDTH && format.buffer_size >= (WIDTH * HEIGHT * 3 / 2) as usize
                );
                self.formats += 1;
            }
            Some(Decoded::End) => self.ended = true,
            None => {}
        }
    }

    fn times(&self) -> Vec<i64> {
        self.pictures.iter().map(Picture::pts).collect()
    }
}

/// Puts all, whatever it takes, and waits for the end.
fn run(decoder: &Decoder, packets: &[Coded]) -> Out {
    let mut out = Out::default();
    let begin = Instant::now();
    let put = |out: &mut Out, put: &dyn Fn() -> Result<Put, Error>| {
        while put().unwrap() == Put::Full {
            out.take(decoder);
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
    };
    for packet in packets {
        put(&mut out, &|| decoder.put(&packet.data, packet.pts + 1000));
    }
    put(&mut out, &|| decoder.put_end());
    while !out.ended {
        out.take(decoder);
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
    out
}

#[test]
fn pictures_come_with_their_times_and_then_the_end() {
    for release in ["1.0.0", "1.0.8", "1.0.11"] {
        let simulator = Simulator::new(&format!("release={release}"));
        for (coding, codec) in CODECS {
            let packets = stream(codec, 10);
            let decoder = decoder(coding);
            let out = run(&decoder, &packets);
            assert_eq!(out.times(), (1000..1010).collect::<Vec<_>>(), "{release} {codec:?}");
            assert_eq!(out.formats, usize::from(codec != Codec::Mjpeg), "{release} {codec:?}");
            for picture in &out.pictures {
                assert_eq!((picture.errors(), picture.should_be_discarded()), (0, false));
                assert!(picture.buffer().unwrap().read(|bytes| bytes.iter().any(|&byte| byte != 0)).unwrap());
            }
            drop(out);
            // After a reset it goes on, with the memory that it has.
            decoder.reset().unwrap();
            let again = run(&decoder, &packets);
            assert_eq!(again.times(), (1000..1010).collect::<Vec<_>>(), "{release} {codec:?}");
            assert_eq!(again.formats, 0, "{release} {codec:?}");
            drop(again);
            decoder.reset().unwrap();
        }
        simulator.assert_clean();
    }
}

#[test]
fn everything_may_be_dropped_at_any_time() {
    let simulator = Simulator::new("latency-us=2000");
    for (coding, codec) in [(Coding::Avc, Codec::H264), (Coding::Mjpeg, Codec::Mjpeg)] {
        let packets = stream(codec, 8);
        for count in 0..=packets.len() {
            for gets in [0, 1, 3, 12] {
                let decoder = decoder(coding);
                let config = decoder.config().unwrap();
                let mut out = Out::default();
                for packet in &packets[..count] {
                    let _ = decoder.put(&packet.data, packet.pts).unwrap();
                    if gets > 3 {
                        out.take(&decoder);
                    }
                }
                (0..gets).for_each(|_| out.take(&decoder));
                let buffers: Vec<_> = out.pictures.iter().filter_map(Picture::buffer).collect();
                let exported = buffers.first().map(|buffer| buffer.export().unwrap());
                let before = buffers.first().map(|buffer| buffer.read(<[u8]>::to_vec).unwrap());
                // The decoder with packets and pictures in it first, then what came out of it.
                drop(decoder);
                drop(out);
                drop(config);
                let after = buffers.first().map(|buffer| buffer.read(<[u8]>::to_vec).unwrap());
                assert!(before == after, "{codec:?} {count} {gets}: its memory was used again");
                drop(buffers);
                if let Some(exported) = exported {
                    let mut byte = [0];
                    assert_eq!(rustix::io::pread(&exported, &mut byte, 0), Ok(1));
                }
                simulator.assert_clean();
            }
        }
    }
}

#[test]
fn a_packet_that_was_refused_can_be_put_again() {
    let simulator = Simulator::new("latency-us=5000");
    for (coding, codec) in CODECS {
        // Also where the queue is never full by itself, because this thread gets a core late.
        simulator.configure("busy-input=3");
        let decoder = decoder(coding);
        let packets = stream(codec, 12);
        let (mut out, mut full) = (Out::default(), 0);
        let mut waiting: VecDeque<_> = packets.iter().collect();
        let begin = Instant::now();
        // Nothing is got until it is full: nobody else makes room.
        while let Some(packet) = waiting.front() {
            match decoder.put(&packet.data, packet.pts + 1000).unwrap() {
                Put::Taken => drop(waiting.pop_front()),
                Put::Full => {
                    full += 1;
                    out.take(&decoder);
                }
            }
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
        assert!(full > 0, "{codec:?}");
        while decoder.put_end().unwrap() == Put::Full {
            out.take(&decoder);
        }
        while !out.ended {
            out.take(&decoder);
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
        assert_eq!(out.times(), (1000..1012).collect::<Vec<_>>(), "{codec:?}");
    }
    simulator.assert_clean();
}

#[test]
fn what_the_library_would_misread_is_refused_here() {
    let simulator = Simulator::new("");
    {
        let decoder = decoder(Coding::Avc);
        // Without a byte, a packet would be the end, or nonsense.
        assert_eq!(decoder.put(&[], 0), Err(Error::Empty));
        assert_eq!(decoder.put_codec_data(&[]), Err(Error::Empty));
        assert!(decoder.get().unwrap().is_none());
        // Too few buffers would stop it for ever.
        decoder.set_buffers(3).unwrap();
        assert_eq!(decoder.buffers(), 4);
        // What it refers to, and one more.
        decoder.set_buffers(6).unwrap();
        let packets = stream(Codec::H264, 6);
        let mut times = Vec::new();
        let begin = Instant::now();
        let mut waiting = packets.iter();
        let mut next = waiting.next();
        // Each picture goes before the next is taken.
        while times.len() < 6 {
            match next {
                Some(packet) if decoder.put(&packet.data, packet.pts).unwrap() == Put::Taken => {
                    next = waiting.next();
                    continue;
                }
                Some(_) => {}
                None => drop(decoder.put_end()),
            }
            if let Some(Decoded::Picture(picture)) = decoder.get().unwrap() {
                times.extend(picture.buffer().map(|_| picture.pts()));
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{times:?}");
        }
        assert_eq!(times, (0..6).collect::<Vec<_>>());
    }
    {
        let decoder = decoder(Coding::Mjpeg);
        assert_eq!(decoder.put(&[], 0), Err(Error::Empty));
        // Without a size there is no telling how much memory the picture needs.
        assert_eq!(decoder.put(b"no picture", 0), Err(Error::NoPicture));
        assert!(decoder.get().unwrap().is_none());
        decoder.reset().unwrap();
    }
    simulator.assert_clean();
}

#[test]
fn a_new_size_gets_memory_of_its_own() {
    let simulator = Simulator::new("");
    for (coding, codec) in CODECS {
        let decoder = decoder(coding);
        // So few that those of the other size would be in the way.
        decoder.set_buffers(7).unwrap();
        let (mut out, mut sizes) = (Out::default(), Vec::new());
        let begin = Instant::now();
        for (width, height) in [(640, 480), (320, 240), (640, 480)] {
            let mut encoder = Encoder::new(EncoderConfig::new(codec, width, height)).unwrap();
            for number in 0..8 {
                let picture = sim_codec::Picture::test_pattern(width, height, number);
                for packet in encoder.encode(&picture, number.into(), false).unwrap() {
                    while decoder.put(&packet.data, packet.pts).unwrap() == Put::Full {
                        out.take(&decoder);
                        sizes.extend(out.pictures.drain(..).map(|picture| picture.format().width));
                        assert!(begin.elapsed() < Duration::from_secs(60), "{codec:?} {sizes:?}");
                    }
                }
            }
        }
        while decoder.put_end().unwrap() == Put::Full {
            out.take(&decoder);
        }
        while !out.ended {
            out.take(&decoder);
            assert!(begin.elapsed() < Duration::from_secs(60), "{codec:?} {sizes:?}");
            sizes.extend(out.pictures.drain(..).map(|picture| picture.format().width));
        }
        sizes.extend(out.pictures.drain(..).map(|picture| picture.format().width));
        assert_eq!(sizes, [[640; 8], [320; 8], [640; 8]].concat(), "{codec:?}");
        assert_eq!(out.formats, if codec == Codec::Mjpeg { 0 } else { 3 }, "{codec:?}");
    }
    simulator.assert_clean();
}

#[test]
fn parameter_sets_may_come_apart() {
    let simulator = Simulator::new("");
    for (coding, codec) in [(Coding::Avc, Codec::H264), (Coding::Hevc, Codec::H265)] {
        let config =
            EncoderConfig { headers: sim_codec::HeaderPolicy::Never, ..EncoderConfig::new(codec, 320, 240) };
        let mut encoder = Encoder::new(config).unwrap();
        let headers = encoder.headers().to_vec();
        let packets: Vec<_> = (0..3)
            .flat_map(|number| {
                let picture = sim_codec::Picture::test_pattern(320, 240, number);
                encoder.encode(&picture, number.into(), false).unwrap()
            })
            .collect();
        let with = decoder(coding);
        assert_eq!(with.put_codec_data(&headers), Ok(Put::Taken));
        assert_eq!(run(&with, &packets).times().len(), packets.len(), "{codec:?}");
        let without = decoder(coding);
        assert!(run(&without, &packets).pictures.iter().all(|picture| picture.errors() != 0), "{codec:?}");
    }
    simulator.assert_clean();
}

/// `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1) of a byte stream's parameter sets.
fn avc_record(headers: &[u8]) -> Vec<u8> {
    let unit = |kind: u8| sim_codec::nal_units(headers).find(|unit| unit[0] & 0x1f == kind).unwrap();
    let mut record = vec![1, unit(7)[1], unit(7)[2], unit(7)[3], 0xff];
    for (count, kind) in [(0xe1, 7), (1, 8)] {
        record.push(count);
        record.extend((unit(kind).len() as u16).to_be_bytes());
        record.extend(unit(kind));
    }
    record
}

#[test]
fn codec_data_of_containers_is_understood() {
    let simulator = Simulator::new("");
    let config = EncoderConfig {
        headers: sim_codec::HeaderPolicy::Never,
        ..EncoderConfig::new(Codec::H264, 320, 240)
    };
    let mut encoder = Encoder::new(config).unwrap();
    let record = avc_record(encoder.headers());
    let mut packets = Vec::new();
    for number in 0..3 {
        let picture = sim_codec::Picture::test_pattern(320, 240, number);
        packets.extend(encoder.encode(&picture, number.into(), false).unwrap());
    }
    // As in MP4: with lengths instead of start codes.
    for packet in &mut packets {
        let units = sim_codec::nal_units(&packet.data);
        packet.data =
            units.flat_map(|unit| [&(unit.len() as u32).to_be_bytes()[..], unit].concat()).collect();
    }
    {
        let decoder = decoder(Coding::Avc);
        // Only what is marked as such is read as a record.
        assert_eq!(decoder.put_codec_data(&record), Ok(Put::Taken));
        let out = run(&decoder, &packets);
        assert_eq!(out.times(), [1000, 1001, 1002]);
        assert!(out.pictures.iter().all(|picture| picture.errors() == 0));
    }
    simulator.assert_clean();
}

#[test]
fn memory_of_an_old_size_is_given_back() {
    let simulator = Simulator::new("");
    for (coding, codec) in CODECS {
        let decoder = decoder(coding);
        let before = simulator.count("bytes");
        let mut held = Vec::new();
        for (width, height) in [(1280, 720), (320, 240)] {
            let mut encoder = Encoder::new(EncoderConfig::new(codec, width, height)).unwrap();
            let picture = sim_codec::Picture::test_pattern(width, height, 0);
            let packets: Vec<_> =
                (0..3).flat_map(|number| encoder.encode(&picture, number, false).unwrap()).collect();
            let out = run(&decoder, &packets);
            assert_eq!(out.pictures.len(), 3, "{codec:?}");
            drop(out);
            decoder.reset().unwrap();
            held.push(simulator.count("bytes") - before);
        }
        // Less than one picture of the first size.
        let picture = 1280 * 720 * 3 / 2;
        assert!(held[0] >= picture && held[1] < picture, "{codec:?}: {held:?}");
    }
    simulator.assert_clean();
}

#[test]
fn one_thread_puts_and_another_gets() {
    let simulator = Simulator::new("");
    for (coding, codec) in CODECS {
        let packets = stream(codec, 60);
        let decoder = decoder(coding);
        std::thread::scope(|scope| {
            let getter = scope.spawn(|| {
                let mut out = Out::default();
                let mut times = Vec::new();
                let begin = Instant::now();
                while times.len() < 60 {
                    out.take(&decoder);
                    times.extend(out.pictures.drain(..).map(|picture| picture.pts()));
                    assert!(begin.elapsed() < Duration::from_secs(60), "{codec:?} {times:?}");
                    std::thread::yield_now();
                }
                times
            });
            for packet in &packets {
                while decoder.put(&packet.data, packet.pts).unwrap() == Put::Full {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            while decoder.put_end().unwrap() == Put::Full {
                std::thread::yield_now();
            }
            assert_eq!(getter.join().unwrap(), (0..60).collect::<Vec<_>>(), "{codec:?}");
        });
        drop(decoder);
        simulator.assert_clean();
    }
}

#[test]
fn memory_that_runs_out_is_an_error() {
    let simulator = Simulator::new("");
    let held = simulator.count("bytes");
    simulator.configure(&format!("memory-limit={}", held + 2000));
    {
        let decoder = decoder(Coding::Avc);
        for packet in &stream(Codec::H264, 2) {
            let _ = decoder.put(&packet.data, packet.pts).unwrap();
        }
        let begin = Instant::now();
        let error = loop {
            match decoder.get() {
                Ok(_) => assert!(begin.elapsed() < Duration::from_secs(60)),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::NoAllocator(_)), "{error:?}");
    }
    simulator.assert_clean();
}

#[test]
fn a_device_that_hangs_does_not_hang_the_program() {
    let simulator = Simulator::new("wedge-at=2,wedge-ms=200");
    let begin = Instant::now();
    {
        let decoder = decoder(Coding::Avc);
        for packet in &stream(Codec::H264, 4) {
            let _ = decoder.put(&packet.data, packet.pts).unwrap();
        }
        (0..5).for_each(|_| drop(decoder.get().unwrap()));
        // The library itself can be reset, and nothing of it is lost.
        decoder.reset().unwrap();
    }
    simulator.assert_clean();
    {
        let decoder = decoder(Coding::Mjpeg);
        for packet in &stream(Codec::Mjpeg, 3) {
            let _ = decoder.put(&packet.data, packet.pts).unwrap();
        }
        assert_eq!(decoder.reset(), Err(Error::Stuck));
        let frames = simulator.count("frames");
        drop(decoder);
        // The hardware may write to their memory at any time: it is never given back.
        assert_eq!(simulator.count("frames"), frames);
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert_eq!(simulator.count("misuse"), simulator.misuse);
}
