// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sizes, offsets and the calling convention, compared with the C compiler of this machine.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers outside of test functions.
#![cfg(target_pointer_width = "64")]

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use rockchip_mpp_sys::*;

/// The same types written in C.
const TYPES: &str = include_str!("layout.h");

fn compile(name: &str, flags: &[&str], source: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let input = folder.join(format!("{name}.c"));
    let output = folder.join(name);
    std::fs::write(&input, source).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-std=c11", "-Wall", "-Werror", "-o"])
        .arg(&output)
        .args(flags)
        .arg(&input)
        .status()
        .unwrap_or_else(|error| panic!("this test needs a C compiler; {compiler}: {error}"));
    assert!(status.success());
    output
}

/// Numbers by name, of Rust; and the C expressions for the same.
#[derive(Default)]
struct Numbers {
    rust: BTreeMap<String, usize>,
    c: String,
}

impl Numbers {
    fn add(&mut self, name: String, rust: usize, expression: &str) {
        self.c += &format!("    printf(\"{name} %zu\\n\", (size_t)({expression}));\n");
        self.rust.insert(name, rust);
    }
}

/// Each row: type, size in the reference, fields with their offsets (0, 0 would be "unknown": none is).
macro_rules! types {
    ($numbers:ident: $($type:ident $size:literal { $($field:ident $offset:literal),* $(,)? })*) => {$(
        assert_eq!(size_of::<$type>(), $size, "size of {}", stringify!($type));
        $numbers.add(stringify!($type).into(), size_of::<$type>(), concat!("sizeof(", stringify!($type), ")"));
        $(
            assert_eq!(offset_of!($type, $field), $offset, "{}.{}", stringify!($type), stringify!($field));
            $numbers.add(
                concat!(stringify!($type), ".", stringify!($field)).into(),
                offset_of!($type, $field),
                concat!("offsetof(", stringify!($type), ", ", stringify!($field), ")"),
            );
        )*
    )*};
}

#[test]
fn types_have_the_layout_of_c() {
    let mut numbers = Numbers::default();
    types! { numbers:
        MppApi 184 {
            size 0, version 4, decode 8, decode_put_packet 16, decode_get_frame 24, encode 32, encode_put_frame 40,
            encode_get_packet 48, isp 56, isp_put_frame 64, isp_get_frame 72, poll 80, dequeue 88, enqueue 96,
            reset 104, control 112, reserv 120,
        }
        MppBufferInfo 40 { buffer_type 0, size 8, ptr 16, hnd 24, fd 32, index 36 }
        MppFrameRational 8 { num 0, den 4 }
        MppFrameMasteringDisplayMetadata 24 {
            display_primaries 0, white_point 12, max_luminance 16, min_luminance 20,
        }
        MppFrameContentLightMetadata 4 { max_cll 0, max_fall 2 }
        MppFrameHdrDynamicMeta 8 { hdr_fmt 0, size 4, data 8 }
        MppPktSeg 24 { index 0, seg_type 4, offset 8, len 12, next 16 }
        MppEncROIRegion 16 {
            x 0, y 2, w 4, h 6, intra 8, quality 10, qp_area_idx 12, area_map_en 14, abs_qp_en 15,
        }
        MppEncROICfg 16 { number 0, regions 8 }
        MppEncROICfg2 48 {
            base_cfg_buf 0, qp_cfg_buf 8, amv_cfg_buf 16, mv_cfg_buf 24, enabled 32, reserved 36,
        }
        MppEncOSDRegion 28 {
            enable 0, inverse 4, start_mb_x 8, start_mb_y 12, num_mb_x 16, num_mb_y 20, buf_offset 24,
        }
        MppEncOSDData 240 { buf 0, num_region 8, region 12 }
        MppEncOSDRegion2 40 { region 0, buf 32 }
        MppEncOSDData2 328 { num_region 0, region 8 }
        MppEncOSDPlt 1024 { data 0 }
        MppEncOSDPltCfg 16 { change 0, plt_type 4, plt 8 }
        MppEncUserData 16 { len 0, pdata 8 }
        MppEncUserDataFull 24 { len 0, uuid 8, pdata 16 }
        MppEncUserDataSet 16 { count 0, datas 8 }
        MppEncRefLtFrmCfg 24 { lt_idx 0, temporal_id 4, ref_mode 8, ref_arg 12, lt_gap 16, lt_delay 20 }
        MppEncRefStFrmCfg 20 { is_non_ref 0, temporal_id 4, ref_mode 8, ref_arg 12, repeat 16 }
        MppQueryCfg 32 { query_flag 0, values 4 }
    }
    numbers.add("enum".into(), size_of::<i32>(), "sizeof(enum example)");
    numbers.add("handle".into(), size_of::<MppFrame>(), "sizeof(void *)");
    numbers.add("used".into(), MppApi::USED_SIZE as usize, "offsetof(MppApi, reserv)");

    let program = compile(
        "layout",
        &[],
        &format!("{TYPES}\n#include <stdio.h>\nint main(void) {{\n{}    return 0;\n}}\n", numbers.c),
    );
    let output = String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap();
    let c: BTreeMap<String, usize> = output
        .lines()
        .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.into(), value.parse().unwrap())).unwrap())
        .collect();
    assert_eq!(c, numbers.rust);
}

/// Structs travel by value: 4 and 8 bytes in registers, 24 bytes in memory.
#[test]
fn structs_by_value_cross_the_border_whole() {
    let library =
        compile("byvalue.so", &["-shared", "-fPIC"], &format!("{TYPES}\n{}", include_str!("byvalue.c")));
    // SAFETY: the library is the one compiled above; it has no constructors.
    let library = unsafe { libloading::Library::new(library) }.unwrap();
    let frame = std::ptr::null_mut();
    let sar = MppFrameRational { num: 16, den: 11 };
    let display = MppFrameMasteringDisplayMetadata {
        display_primaries: [[1, 2], [3, 4], [5, 6]],
        white_point: [7, 8],
        max_luminance: 0x0102_0304,
        min_luminance: 50,
    };
    let light = MppFrameContentLightMetadata { max_cll: 1000, max_fall: 400 };
    // SAFETY: byvalue.c defines these six functions with the library's signatures and ignores the frame.
    unsafe {
        let set: libloading::Symbol<'_, signatures::mpp_frame_set_sar> =
            library.get(b"mpp_frame_set_sar").unwrap();
        let get: libloading::Symbol<'_, signatures::mpp_frame_get_sar> =
            library.get(b"mpp_frame_get_sar").unwrap();
        set(frame, sar);
        assert_eq!(get(frame), MppFrameRational { num: 17, den: 12 });

        let set: libloading::Symbol<'_, signatures::mpp_frame_set_mastering_display> =
            library.get(b"mpp_frame_set_mastering_display").unwrap();
        let get: libloading::Symbol<'_, signatures::mpp_frame_get_mastering_display> =
            library.get(b"mpp_frame_get_mastering_display").unwrap();
        set(frame, display);
        let mut expected = display;
        expected.display_primaries[2][1] += 1;
        expected.max_luminance += 1;
        assert_eq!(get(frame), expected);

        let set: libloading::Symbol<'_, signatures::mpp_frame_set_content_light> =
            library.get(b"mpp_frame_set_content_light").unwrap();
        let get: libloading::Symbol<'_, signatures::mpp_frame_get_content_light> =
            library.get(b"mpp_frame_get_content_light").unwrap();
        set(frame, light);
        assert_eq!(get(frame), MppFrameContentLightMetadata { max_cll: 1001, max_fall: 401 });
    }
}
