// SPDX-License-Identifier: MIT OR Apache-2.0

//! Layouts and numbers are those of the system's C headers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::mem::{offset_of, size_of};
use std::process::Command;

use v4l2_m2m::uapi::*;

macro_rules! layout {
    ($rows:ident, $($name:ident { $($field:ident $(=> $c:literal)?),* })*) => {$(
        $rows.push((format!("sizeof(struct {})", stringify!($name)), size_of::<$name>() as u64));
        $(
            let c: &[&str] = &[$($c)?];
            let field = c.first().copied().unwrap_or(stringify!($field));
            $rows.push((
                format!("offsetof(struct {}, {field})", stringify!($name)),
                offset_of!($name, $field) as u64,
            ));
        )*
    )*};
}

macro_rules! constants {
    ($rows:ident, $($name:ident)*) => {$(
        $rows.push((stringify!($name).to_owned(), $name as u64));
    )*};
}

fn rows() -> Vec<(String, u64)> {
    let mut rows = Vec::new();
    layout! { rows,
        v4l2_capability { driver, card, bus_info, version, capabilities, device_caps }
        v4l2_fmtdesc { index, type_ => "type", flags, description, pixelformat }
        v4l2_pix_format { width, height, pixelformat, field, bytesperline, sizeimage, colorspace, priv_ => "priv", flags, ycbcr_enc, quantization, xfer_func }
        v4l2_plane_pix_format { sizeimage, bytesperline }
        v4l2_pix_format_mplane { width, height, pixelformat, field, colorspace, plane_fmt, num_planes, flags, ycbcr_enc, quantization, xfer_func }
        v4l2_format { type_ => "type", fmt }
        v4l2_requestbuffers { count, type_ => "type", memory, capabilities }
        v4l2_plane { bytesused, length, m, data_offset }
        v4l2_buffer { index, type_ => "type", bytesused, flags, field, timestamp, timecode, sequence, memory, m, length, request_fd }
        v4l2_exportbuffer { type_ => "type", index, plane, flags, fd }
        v4l2_outputparm { capability, outputmode, timeperframe }
        v4l2_streamparm { type_ => "type", parm }
        v4l2_control { id, value }
        v4l2_querymenu { id, index, name }
        v4l2_ext_control { id, size, value }
        v4l2_ext_controls { which, count, error_idx, request_fd, controls }
        v4l2_query_ext_ctrl { id, type_ => "type", name, minimum, maximum, step, default_value, flags, elem_size, elems, nr_of_dims, dims }
        v4l2_frmsize_stepwise { min_width, max_width, step_width, min_height, max_height, step_height }
        v4l2_frmsizeenum { index, pixel_format, type_ => "type", stepwise }
        v4l2_encoder_cmd { cmd, flags, raw }
        v4l2_event_subscription { type_ => "type", id, flags }
        v4l2_event { type_ => "type", u, pending, sequence, timestamp, id }
        v4l2_rect { left, top, width, height }
        v4l2_selection { type_ => "type", target, flags, r }
    }
    constants! { rows,
        VIDIOC_QUERYCAP VIDIOC_ENUM_FMT VIDIOC_G_FMT VIDIOC_S_FMT VIDIOC_REQBUFS VIDIOC_QUERYBUF VIDIOC_QBUF
        VIDIOC_EXPBUF VIDIOC_DQBUF VIDIOC_STREAMON VIDIOC_STREAMOFF VIDIOC_S_PARM VIDIOC_G_CTRL VIDIOC_QUERYMENU
        VIDIOC_TRY_FMT VIDIOC_G_EXT_CTRLS VIDIOC_S_EXT_CTRLS VIDIOC_ENUM_FRAMESIZES VIDIOC_ENCODER_CMD
        VIDIOC_TRY_ENCODER_CMD VIDIOC_DQEVENT VIDIOC_SUBSCRIBE_EVENT VIDIOC_S_SELECTION VIDIOC_QUERY_EXT_CTRL
        V4L2_CAP_VIDEO_M2M_MPLANE V4L2_CAP_VIDEO_M2M V4L2_CAP_STREAMING V4L2_CAP_DEVICE_CAPS
        V4L2_BUF_TYPE_VIDEO_CAPTURE V4L2_BUF_TYPE_VIDEO_OUTPUT V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
        V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE V4L2_MEMORY_MMAP V4L2_MEMORY_DMABUF V4L2_FIELD_ANY V4L2_FIELD_NONE
        V4L2_BUF_FLAG_KEYFRAME V4L2_BUF_FLAG_ERROR V4L2_BUF_FLAG_TIMESTAMP_COPY V4L2_BUF_FLAG_LAST
        V4L2_FMT_FLAG_COMPRESSED V4L2_FRMSIZE_TYPE_DISCRETE V4L2_ENC_CMD_START V4L2_ENC_CMD_STOP V4L2_EVENT_EOS
        V4L2_SEL_TGT_CROP V4L2_COLORSPACE_SMPTE170M V4L2_COLORSPACE_REC709 V4L2_COLORSPACE_BT2020
        V4L2_QUANTIZATION_FULL_RANGE V4L2_QUANTIZATION_LIM_RANGE VIDEO_MAX_PLANES V4L2_PIX_FMT_PRIV_MAGIC
        V4L2_CTRL_CLASS_CODEC V4L2_CID_MIN_BUFFERS_FOR_OUTPUT V4L2_CID_MPEG_VIDEO_B_FRAMES
        V4L2_CID_MPEG_VIDEO_GOP_SIZE V4L2_CID_MPEG_VIDEO_BITRATE_MODE V4L2_CID_MPEG_VIDEO_BITRATE
        V4L2_CID_MPEG_VIDEO_BITRATE_PEAK V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE V4L2_CID_MPEG_VIDEO_HEADER_MODE
        V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MODE V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MAX_BYTES V4L2_CID_MPEG_VIDEO_VBV_SIZE
        V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME V4L2_CID_MPEG_VIDEO_AU_DELIMITER
        V4L2_CID_MPEG_VIDEO_INTRA_REFRESH_PERIOD V4L2_CID_FWHT_I_FRAME_QP V4L2_CID_FWHT_P_FRAME_QP
        V4L2_CID_MPEG_VIDEO_H264_I_FRAME_QP V4L2_CID_MPEG_VIDEO_H264_P_FRAME_QP V4L2_CID_MPEG_VIDEO_H264_MIN_QP
        V4L2_CID_MPEG_VIDEO_H264_MAX_QP V4L2_CID_MPEG_VIDEO_H264_CPB_SIZE V4L2_CID_MPEG_VIDEO_H264_ENTROPY_MODE
        V4L2_CID_MPEG_VIDEO_H264_I_PERIOD V4L2_CID_MPEG_VIDEO_H264_LEVEL V4L2_CID_MPEG_VIDEO_H264_PROFILE
        V4L2_CID_MPEG_VIDEO_VPX_MIN_QP V4L2_CID_MPEG_VIDEO_VPX_MAX_QP V4L2_CID_MPEG_VIDEO_HEVC_MIN_QP
        V4L2_CID_MPEG_VIDEO_HEVC_MAX_QP V4L2_CID_MPEG_VIDEO_HEVC_PROFILE V4L2_CID_MPEG_VIDEO_HEVC_LEVEL
        V4L2_CID_MPEG_VIDEO_HEVC_TIER V4L2_CID_MPEG_VIDEO_HEVC_REFRESH_PERIOD
        V4L2_CID_MPEG_VIDEO_PREPEND_SPSPPS_TO_IDR V4L2_CID_MPEG_VIDEO_CONSTANT_QUALITY
        V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE V4L2_CTRL_FLAG_DISABLED V4L2_CTRL_FLAG_READ_ONLY
        V4L2_CTRL_FLAG_INACTIVE V4L2_CTRL_FLAG_NEXT_CTRL V4L2_CTRL_TYPE_MENU V4L2_CTRL_TYPE_BUTTON
        V4L2_CTRL_TYPE_INTEGER64
    }
    macro_rules! formats {
        ($($name:ident)*) => {$(rows.push((stringify!($name).to_owned(), u64::from($name.0)));)*};
    }
    formats! {
        V4L2_PIX_FMT_H264 V4L2_PIX_FMT_HEVC V4L2_PIX_FMT_VP8 V4L2_PIX_FMT_FWHT V4L2_PIX_FMT_YUV420
        V4L2_PIX_FMT_YVU420 V4L2_PIX_FMT_NV12 V4L2_PIX_FMT_NV21 V4L2_PIX_FMT_YUYV V4L2_PIX_FMT_UYVY
        V4L2_PIX_FMT_YUV420M V4L2_PIX_FMT_YVU420M V4L2_PIX_FMT_NV12M V4L2_PIX_FMT_NV21M V4L2_PIX_FMT_JPEG
    }
    rows
}

#[test]
fn the_same_as_in_c() {
    let rows = rows();
    let mut source = String::from(
        "#include <stdio.h>\n#include <stddef.h>\n#include <linux/videodev2.h>\nint main(void) {\n",
    );
    for (expression, _) in &rows {
        source += &format!("  printf(\"%llu\\n\", (unsigned long long)({expression}) & 0xffffffffULL);\n");
    }
    source += "  return 0;\n}\n";
    let folder = std::env::temp_dir().join(format!("v4l2-m2m-uapi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (c, program) = (folder.join("layout.c"), folder.join("layout"));
    std::fs::write(&c, source).unwrap();
    let compiled = Command::new("cc").arg("-o").arg(&program).arg(&c).output().expect("a C compiler (cc)");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let values = String::from_utf8(output.stdout).unwrap();
    let values: Vec<u64> = values.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(values.len(), rows.len());
    let wrong: Vec<_> = rows.iter().zip(values).filter(|((_, ours), c)| ours & 0xffff_ffff != *c).collect();
    assert!(wrong.is_empty(), "((name, ours), C's): {wrong:?}");
}
