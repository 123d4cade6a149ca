// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every file of tests/data: decoded, it is the same picture after the journey, or it is refused with its reason.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::*;
use rtp_jpeg::*;

/// File, and the file whose picture it must decode to.
const WORKS: &[(&str, &str)] = &[
    ("base420", "base420"),
    ("base422", "base422"),
    ("ok_app4_h264", "base420"),
    ("ok_avi1", "base420"),
    ("ok_comment", "base420"),
    ("ok_dri_0", "base420"),
    ("ok_exif_64k", "base420"),
    ("ok_fill_bytes", "base420"),
    ("ok_four_dqt", "base420"),
    ("ok_merged_dht", "base420"),
    ("ok_merged_dqt", "base420"),
    ("ok_missing_dht", "base420"),
    ("ok_no_eoi", "base420"),
    ("ok_no_eoi_padding", "base420"),
    ("ok_padding", "base420"),
    ("ok_restart_1", "base420"),
    ("ok_restart_2", "base420"),
    ("ok_restart_at_end", "base420"),
    ("ok_restart_no_eoi", "base420"),
    ("ok_restart_row", "base420"),
    ("ok_swapped_dht", "base420"),
    ("ok_swapped_dqt", "base420"),
    ("ok_three_dqt", "base420"),
    ("ok_two_pictures", "base420"),
    ("ok_wide_dqt", "base420"),
    ("self_422", "self_422"),
    ("self_422_restart", "self_422"),
    ("self_ffmpeg", "self_ffmpeg"),
    ("self_large", "self_large"),
    ("self_odd_size", "self_odd_size"),
    ("self_one_dqt", "self_one_dqt"),
];

const REFUSED: &[(&str, ParseError)] = &[
    ("no_12_bit", ParseError::Precision(12)),
    ("no_411", ParseError::Subsampling([0x41, 0x11, 0x11])),
    ("no_440", ParseError::Subsampling([0x12, 0x11, 0x11])),
    ("no_444", ParseError::Subsampling([0x11, 0x11, 0x11])),
    ("no_arithmetic", ParseError::NotBaseline { marker: 0xc9 }),
    ("no_cmyk", ParseError::Components(4)),
    ("no_dnl", ParseError::NoDimensions),
    ("no_grey", ParseError::Components(1)),
    ("no_missing_dqt", ParseError::NoQuantTable(1)),
    ("no_optimised_dht", ParseError::HuffmanTables),
    ("no_progressive", ParseError::NotBaseline { marker: 0xc2 }),
    ("no_restart_misnumbered", ParseError::RestartMarkers),
    ("no_restart_missing", ParseError::RestartMarkers),
    ("no_restart_without_dri", ParseError::RestartMarkers),
    ("no_sof1", ParseError::NotBaseline { marker: 0xc1 }),
    ("no_three_scans", ParseError::Scans),
    ("no_uv_tables", ParseError::ChromaTables),
    ("no_wide_values", ParseError::WideQuantTable(0)),
];

#[test]
fn every_file_is_in_a_table_and_in_the_checksums() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".jpg").map(str::to_owned))
        .collect();
    let in_tables: BTreeSet<String> =
        WORKS.iter().map(|row| row.0).chain(REFUSED.iter().map(|row| row.0)).map(str::to_owned).collect();
    assert_eq!(on_disk, in_tables);
    let sums = String::from_utf8(data("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), on_disk.len());
}

#[test]
fn good_files_arrive_as_the_same_picture() {
    for (name, reference) in WORKS {
        let input = data(&format!("{name}.jpg"));
        let (size, expected) = decode(&data(&format!("{reference}.jpg")));
        let jpeg = Jpeg::parse(&input).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((usize::from(jpeg.width()), usize::from(jpeg.height())), size, "{name}");
        for q in [quant(&jpeg), QuantChoice { q: 255, send_tables: true }] {
            for restart_mode in [RestartMode::Auto, RestartMode::WholeFrame, RestartMode::Aligned] {
                for max_payload in [MIN_PAYLOAD, MIN_PAYLOAD + 1, 200, 1400] {
                    let options = PacketizeOptions { restart_mode, ..PacketizeOptions::new(max_payload, q) };
                    let packets = send(&jpeg, &options, 1, 65_530);
                    let agreed = Some((jpeg.width(), jpeg.height()));
                    let received = receive(config(agreed, false), &packets);
                    assert!(received.lost.is_empty() && received.refused.is_empty(), "{name}: {received:?}");
                    let [(picture, info)] = &received.frames[..] else { panic!("{name}: {received:?}") };
                    assert_eq!((info.q, info.packets, info.concealed), (q.q, packets.len(), 0), "{name}");
                    assert_same(&jpeg, &Jpeg::parse(picture).unwrap());
                    assert_eq!(decode(picture), (size, expected.clone()), "{name}");
                }
            }
        }
    }
}

#[test]
fn bad_files_are_refused_with_their_reason() {
    for (name, reason) in REFUSED {
        let input = data(&format!("{name}.jpg"));
        assert_eq!(Jpeg::parse(&input).as_ref(), Err(reason), "{name}");
    }
}

#[test]
fn two_pictures_in_one_buffer_are_read_one_after_the_other() {
    let input = data("ok_two_pictures.jpg");
    let first = Jpeg::parse(&input).unwrap();
    let second = Jpeg::parse(&input[first.end()..]).unwrap();
    assert_eq!((first.sampling(), second.sampling()), (Sampling::Yuv420, Sampling::Yuv422));
    assert_eq!(first.end() + second.end(), input.len());
}

/// Every prefix is refused, but for those that hold the whole scan and only miss (part of) EOI.
#[test]
fn files_cut_anywhere_are_refused() {
    for name in ["base420", "ok_restart_1", "ok_merged_dqt", "self_422", "ok_no_eoi"] {
        let input = data(&format!("{name}.jpg"));
        let whole = Jpeg::parse(&input).unwrap();
        let scan_end = whole.scan_range().end;
        for length in 0..scan_end {
            let result = Jpeg::parse(&input[..length]);
            assert!(result.is_err(), "{name} cut to {length} of {scan_end} bytes passed");
        }
        for length in scan_end..=input.len() {
            assert_eq!(Jpeg::parse(&input[..length]).unwrap().scan(), whole.scan());
        }
    }
}
