// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is encoded can be decoded, and looks like what went in.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use sim_codec::*;

fn size(codec: Codec) -> (usize, usize) {
    if codec == Codec::H263 { (352, 288) } else { (322, 242) }
}

/// Encodes and decodes `count` pictures; the coded ones and the decoded ones by time stamp.
fn round_trip(config: EncoderConfig, count: u32) -> (Vec<Coded>, Vec<Decoded>) {
    let mut encoder = Encoder::new(config).unwrap();
    let mut decoder = Decoder::new(config.codec).unwrap();
    let mut coded = Vec::new();
    for n in 0..count {
        let picture = Picture::test_pattern(config.width, config.height, n);
        coded.extend(encoder.encode(&picture, i64::from(n) * 40 + 7, false).unwrap());
    }
    coded.extend(encoder.finish().unwrap());
    let mut decoded = Vec::new();
    for packet in &coded {
        decoded.extend(decoder.decode(&packet.data, packet.pts).unwrap());
    }
    decoded.extend(decoder.finish().unwrap());
    (coded, decoded)
}

fn check(config: EncoderConfig, count: u32, least: f64) -> Vec<Coded> {
    let (coded, decoded) = round_trip(config, count);
    assert_eq!(coded.len(), count as usize);
    assert_eq!(decoded.len(), count as usize, "{:?}", config.codec);
    for (n, d) in (0..).zip(&decoded) {
        assert_eq!(d.pts, i64::from(n) * 40 + 7, "{:?}", config.codec);
        assert!(!d.corrupt);
        let picture = Picture::test_pattern(config.width, config.height, n).with_depth(config.depth);
        let [y, u, v] = psnr(&picture, &d.picture).unwrap();
        assert!(
            y > least && u > least && v > least,
            "{:?} picture {n}: {y:.1} {u:.1} {v:.1} dB",
            config.codec
        );
    }
    coded
}

#[test]
fn every_codec() {
    for codec in Codec::ALL {
        let (width, height) = size(codec);
        let qp = match codec {
            Codec::H264 | Codec::H265 => 20,
            Codec::Vp8 => 10,
            _ => 2,
        };
        let rate = RateControl::fixed(codec, qp);
        let coded = check(EncoderConfig { rate, ..EncoderConfig::new(codec, width, height) }, 8, 30.0);
        assert!(coded[0].key);
        assert_eq!(
            coded.iter().filter(|c| c.key).count(),
            if codec == Codec::Mjpeg { 8 } else { 1 },
            "{codec:?}"
        );
    }
}

#[test]
fn ten_bits() {
    for codec in [Codec::H265, Codec::Vp9] {
        let rate = RateControl::fixed(codec, 20);
        check(EncoderConfig { depth: 10, rate, ..EncoderConfig::new(codec, 320, 240) }, 4, 30.0);
    }
}

#[test]
fn other_sampling_of_jpeg() {
    let config = EncoderConfig {
        chroma: Chroma::Yuv422,
        rate: RateControl::jpeg_quality(90),
        ..EncoderConfig::new(Codec::Mjpeg, 320, 240)
    };
    let (_, decoded) = round_trip(config, 1);
    assert_eq!(decoded[0].picture.chroma, Chroma::Yuv422);
}

#[test]
fn four_to_two_to_two_of_h265() {
    let rate = RateControl::fixed(Codec::H265, 20);
    for depth in [8, 10] {
        let config = EncoderConfig {
            chroma: Chroma::Yuv422,
            depth,
            rate,
            ..EncoderConfig::new(Codec::H265, 320, 240)
        };
        let (_, decoded) = round_trip(config, 2);
        assert_eq!((decoded[0].picture.chroma, decoded[0].picture.depth), (Chroma::Yuv422, depth));
    }
}

#[test]
fn pictures_are_reordered_when_asked_for() {
    let config = EncoderConfig { b_frames: 2, ..EncoderConfig::new(Codec::H264, 320, 240) };
    let coded = check(config, 12, 25.0);
    assert!(coded.windows(2).any(|w| w[0].pts > w[1].pts));
}

#[test]
fn key_frames_come_exactly_where_they_are_asked_for() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8] {
        let mut encoder =
            Encoder::new(EncoderConfig { gop: 0, ..EncoderConfig::new(codec, 320, 240) }).unwrap();
        let mut keys = Vec::new();
        for n in 0..20 {
            // A cut at 10 must not make one.
            let picture = Picture::test_pattern(320, 240, if n < 10 { n } else { n + 1000 });
            let coded = encoder.encode(&picture, n.into(), n == 7 || n == 15).unwrap();
            assert_eq!(coded.len(), 1, "{codec:?} holds pictures back");
            keys.extend(coded.iter().filter(|c| c.key).map(|c| c.pts));
        }
        assert_eq!(keys, [0, 7, 15], "{codec:?}");
        let mut encoder =
            Encoder::new(EncoderConfig { gop: 6, ..EncoderConfig::new(codec, 320, 240) }).unwrap();
        let mut keys = Vec::new();
        for n in 0..20 {
            let coded = encoder.encode(&Picture::test_pattern(320, 240, n), n.into(), n == 8).unwrap();
            keys.extend(coded.iter().filter(|c| c.key).map(|c| c.pts));
        }
        assert_eq!(keys, [0, 6, 8, 14], "{codec:?}");
    }
}

#[test]
fn the_quantiser_decides_the_size() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Mjpeg, Codec::Mpeg4] {
        let bytes = |qp| {
            let config =
                EncoderConfig { rate: RateControl::fixed(codec, qp), ..EncoderConfig::new(codec, 320, 240) };
            round_trip(config, 6).0.iter().map(|c| c.data.len()).sum::<usize>()
        };
        let (low, high) = codec.qp_range();
        let third = (high - low) / 3;
        let (fine, middle, coarse) = (bytes(low + third / 2), bytes(low + third), bytes(high - third));
        assert!(fine * 10 > middle * 11 && middle * 10 > coarse * 11, "{codec:?}: {fine} {middle} {coarse}");
    }
}

#[test]
fn bitrate_changes_without_a_key_frame() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8] {
        let mut config = EncoderConfig {
            gop: 0,
            rate: RateControl::new(codec, 3_000_000),
            ..EncoderConfig::new(codec, 320, 240)
        };
        let mut encoder = Encoder::new(config).unwrap();
        let second = |encoder: &mut Encoder, from: u32| {
            let mut bits = 0;
            let mut keys = 0;
            for n in from..from + 25 {
                for coded in encoder.encode(&Picture::test_pattern(320, 240, n), n.into(), false).unwrap() {
                    bits += coded.data.len() * 8;
                    keys += u32::from(coded.key);
                }
            }
            (bits, keys)
        };
        second(&mut encoder, 0);
        let (before, keys) = second(&mut encoder, 25);
        assert_eq!(keys, 0);
        assert!((1_500_000..6_000_000).contains(&before), "{codec:?}: {before}");
        config.rate.bitrate = 400_000;
        assert_eq!(encoder.reconfigure(config).unwrap(), Change::Rate);
        assert_eq!(encoder.reconfigure(config).unwrap(), Change::Nothing);
        let (after, keys) = second(&mut encoder, 50);
        assert_eq!(keys, 0, "{codec:?}");
        assert!((100_000..1_000_000).contains(&after), "{codec:?}: {after}");
    }
}

#[test]
fn headers_go_where_the_policy_says() {
    for codec in [Codec::H264, Codec::H265] {
        for (policy, expect) in
            [(HeaderPolicy::Never, [0, 0]), (HeaderPolicy::First, [1, 0]), (HeaderPolicy::EachKey, [1, 1])]
        {
            let config = EncoderConfig { headers: policy, ..EncoderConfig::new(codec, 320, 240) };
            let mut encoder = Encoder::new(config).unwrap();
            let headers = encoder.headers().to_vec();
            assert_eq!(nal_units(&headers).count(), if codec == Codec::H264 { 2 } else { 3 });
            for (n, expect) in (0..).zip(expect) {
                let coded = encoder.encode(&Picture::test_pattern(320, 240, n), 0, true).unwrap();
                assert_eq!(coded[0].headers, expect * headers.len(), "{codec:?} {policy:?}");
                assert_eq!(coded[0].data.starts_with(&headers), expect == 1);
                let (sets, slices) = split_parameter_sets(codec, &coded[0].data);
                assert_eq!(sets.len(), expect * headers.len());
                assert_eq!(sets.len() + slices.len(), coded[0].data.len(), "only parameter sets and slices");
            }
        }
    }
}

#[test]
fn another_size_begins_with_a_key_frame_and_new_headers() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Mjpeg] {
        let mut config =
            EncoderConfig { headers: HeaderPolicy::First, ..EncoderConfig::new(codec, 320, 240) };
        let mut encoder = Encoder::new(config).unwrap();
        let mut decoder = Decoder::new(codec).unwrap();
        let mut sizes = Vec::new();
        for n in 0..6 {
            if n == 3 {
                (config.width, config.height) = (256, 128);
                assert_eq!(encoder.reconfigure(config).unwrap(), Change::Reopened);
                let wrong = encoder.encode(&Picture::test_pattern(320, 240, n), 0, false);
                assert!(matches!(wrong, Err(Error::Mismatch { .. })));
            }
            let picture = Picture::test_pattern(config.width, config.height, n);
            for coded in encoder.encode(&picture, n.into(), false).unwrap() {
                assert_eq!(coded.key, n == 0 || n == 3 || codec == Codec::Mjpeg);
                for d in decoder.decode(&coded.data, coded.pts).unwrap() {
                    sizes.push((d.picture.width, d.picture.height));
                }
            }
        }
        sizes.extend(decoder.finish().unwrap().iter().map(|d| (d.picture.width, d.picture.height)));
        assert_eq!(sizes, [[(320, 240); 3], [(256, 128); 3]].concat(), "{codec:?}");
    }
}

#[test]
fn colours_are_written_and_read() {
    let colour = Colour { range: 2, primaries: 9, transfer: 16, matrix: 9 };
    for codec in [Codec::H264, Codec::H265] {
        let (_, decoded) = round_trip(EncoderConfig { colour, ..EncoderConfig::new(codec, 320, 240) }, 1);
        assert_eq!(decoded[0].colour, colour, "{codec:?}");
    }
}

#[test]
fn profile_and_level_are_those_asked_for() {
    for (profile, number) in [(Profile::Baseline, 66), (Profile::Main, 77), (Profile::High, 100)] {
        let config = EncoderConfig { profile, level: 31, ..EncoderConfig::new(Codec::H264, 320, 240) };
        let encoder = Encoder::new(config).unwrap();
        let sps = nal_units(encoder.headers()).next().unwrap();
        assert_eq!((sps[1], sps[3]), (number, 31));
    }
}

#[test]
fn damaged_data_is_an_error_or_a_marked_picture_and_decoding_goes_on() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Mjpeg] {
        let (coded, _) = round_trip(EncoderConfig { gop: 10, ..EncoderConfig::new(codec, 320, 240) }, 20);
        let mut decoder = Decoder::new(codec).unwrap();
        let mut clean = 0;
        for (n, packet) in coded.iter().enumerate() {
            let mut data = packet.data.clone();
            if n == 3 {
                data.iter_mut().enumerate().skip(20).for_each(|(i, b)| *b = b.wrapping_mul(31) ^ i as u8);
            }
            if n == 4 {
                data.truncate(9);
            }
            if let Ok(pictures) = decoder.decode(&data, packet.pts) {
                clean += pictures.iter().filter(|d| n > 10 && !d.corrupt).count();
            }
        }
        assert!(clean >= 7, "{codec:?}: {clean}");
    }
    for codec in Codec::ALL {
        let mut decoder = Decoder::new(codec).unwrap();
        let _ = decoder.decode(&[0x5a; 300], 0);
        assert_eq!(decoder.decode(&[], 0), Ok(Vec::new()));
    }
}

#[test]
fn seeking_forgets_what_was_before() {
    let (coded, _) =
        round_trip(EncoderConfig { gop: 5, b_frames: 1, ..EncoderConfig::new(Codec::H264, 320, 240) }, 15);
    let mut decoder = Decoder::new(Codec::H264).unwrap();
    decoder.decode(&coded[0].data, 1).unwrap();
    decoder.decode(&coded[1].data, 2).unwrap();
    decoder.flush();
    let key = coded.iter().rposition(|c| c.key).unwrap();
    let mut stamps = Vec::new();
    for packet in &coded[key..] {
        stamps.extend(decoder.decode(&packet.data, packet.pts).unwrap().iter().map(|d| (d.pts, d.corrupt)));
    }
    assert!(stamps.first().is_some_and(|s| *s == (coded[key].pts, false)), "{stamps:?}");
    // The end is an end of one stream, not of the decoder.
    decoder.finish().unwrap();
    decoder.decode(&coded[0].data, 1).unwrap();
    assert_eq!(decoder.finish().unwrap().len(), 1);
}

#[test]
fn instant_codecs_repeat_themselves() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Mjpeg] {
        let config = EncoderConfig { instant: true, gop: 4, ..EncoderConfig::new(codec, 1280, 720) };
        let mut encoder = Encoder::new(config).unwrap();
        let mut decoder = Decoder::new(codec).unwrap();
        decoder.set_instant();
        let picture = Picture::test_pattern(1280, 720, 0);
        let packets: Vec<_> = (0..8).flat_map(|n| encoder.encode(&picture, n, false).unwrap()).collect();
        assert_eq!(packets.len(), 8);
        assert_eq!(packets[1].data, packets[2].data);
        assert_eq!(packets[0].data, packets[4].data);
        assert!(packets[0].key && packets[4].key && packets[1].key == (codec == Codec::Mjpeg));
        for packet in &packets {
            let decoded = decoder.decode(&packet.data, packet.pts).unwrap();
            assert_eq!((decoded.len(), decoded[0].pts), (1, packet.pts));
        }
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let good = EncoderConfig::new(Codec::H264, 320, 240);
    for bad in [
        EncoderConfig { width: 0, ..good },
        EncoderConfig { height: 100_000, ..good },
        EncoderConfig { framerate: (25, 0), ..good },
        EncoderConfig { depth: 10, ..good },
        EncoderConfig { chroma: Chroma::Yuv422, ..good },
        EncoderConfig { b_frames: 1, codec: Codec::Vp8, ..good },
    ] {
        assert!(matches!(Encoder::new(bad), Err(Error::Setting(_))), "{bad:?}");
    }
    // Baseline H.263 has five sizes.
    assert!(matches!(Encoder::new(EncoderConfig::new(Codec::H263, 320, 240)), Err(Error::Open { .. })));
    let mut encoder = Encoder::new(good).unwrap();
    assert!(encoder.reconfigure(EncoderConfig { width: 0, ..good }).is_err());
    assert_eq!(encoder.config(), &good);
    assert!(encoder.encode(&Picture::test_pattern(320, 240, 0), 0, false).is_ok());
}
