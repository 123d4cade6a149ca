// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames: pictures to encode, pictures decoded, and announcements of them.

use crate::abi::{Id, export, handle, id, store};
use crate::control::misuse;
use crate::registry::{Registry, lock};
use crate::{buffer, meta};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::sync::Mutex;

/// A frame's fields.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub width: u32,
    pub height: u32,
    pub hor_stride: u32,
    pub ver_stride: u32,
    pub hor_stride_pixel: u32,
    pub fbc_hdr_stride: u32,
    pub offset_x: u32,
    pub offset_y: u32,
    pub mode: u32,
    pub discard: u32,
    pub viewid: u32,
    pub poc: u32,
    pub errinfo: u32,
    pub eos: u32,
    pub info_change: u32,
    pub thumbnail_en: u32,
    pub pts: i64,
    pub dts: i64,
    pub buf_size: usize,
    pub buffer: Id,
    pub color_range: i32,
    pub color_primaries: i32,
    pub color_trc: i32,
    pub colorspace: i32,
    pub chroma_location: i32,
    pub fmt: i32,
    pub sar: MppFrameRational,
    pub mastering_display: MppFrameMasteringDisplayMetadata,
    pub content_light: MppFrameContentLightMetadata,
    pub meta: Id,
    /// The library's: the application must not touch it.
    pub owned: bool,
}

pub static FRAMES: Registry<Mutex<Frame>> = Registry::new("frame");

/// Frees a frame with what it holds.
pub fn deinit(id: Id, what: &str) -> i32 {
    let Some(frame) = FRAMES.remove(id, what) else { return MPP_ERR_NULL_PTR };
    let (buffer, meta) = {
        let frame = lock(&frame);
        (frame.buffer, frame.meta)
    };
    if buffer != 0 {
        buffer::drop_ref(buffer, what);
    }
    if meta != 0 {
        meta::release_meta(meta);
    }
    MPP_OK
}

/// Notes whose frame it is.
pub fn own(id: Id, owned: bool) {
    if let Some(frame) = FRAMES.find(id) {
        lock(&frame).owned = owned;
    }
}

/// A copy of a frame's fields; none for a handle that is none.
pub fn read(id: Id, what: &str) -> Option<Frame> {
    FRAMES.get(id, what).map(|f| lock(&f).clone())
}

/// The frame's meta, created if there is none.
pub fn meta_of(id: Id, what: &str) -> Option<Id> {
    let frame = FRAMES.get(id, what)?;
    let mut frame = lock(&frame);
    if frame.meta == 0 {
        frame.meta = meta::create();
    }
    Some(frame.meta)
}

fn get<T>(frame: MppFrame, default: T, f: impl Fn(&Frame) -> T) -> T {
    FRAMES.of(frame, "mpp_frame_get").map_or(default, |frame| f(&lock(&frame)))
}

fn set(frame: MppFrame, f: impl Fn(&mut Frame)) {
    if let Some(frame) = FRAMES.of(frame, "mpp_frame_set") {
        f(&mut lock(&frame));
    }
}

macro_rules! fields {
    ($($get:ident $set:ident $field:ident: $ty:ty;)*) => {
        export! {
            $(fn $get(frame: MppFrame) -> $ty { get(frame, <$ty>::default(), |f| f.$field) }
            fn $set(frame: MppFrame, value: $ty) { set(frame, |f| f.$field = value) })*
        }
    };
}

fields! {
    mpp_frame_get_width mpp_frame_set_width width: u32;
    mpp_frame_get_height mpp_frame_set_height height: u32;
    mpp_frame_get_hor_stride mpp_frame_set_hor_stride hor_stride: u32;
    mpp_frame_get_ver_stride mpp_frame_set_ver_stride ver_stride: u32;
    mpp_frame_get_hor_stride_pixel mpp_frame_set_hor_stride_pixel hor_stride_pixel: u32;
    mpp_frame_get_fbc_hdr_stride mpp_frame_set_fbc_hdr_stride fbc_hdr_stride: u32;
    mpp_frame_get_offset_x mpp_frame_set_offset_x offset_x: u32;
    mpp_frame_get_offset_y mpp_frame_set_offset_y offset_y: u32;
    mpp_frame_get_mode mpp_frame_set_mode mode: u32;
    mpp_frame_get_discard mpp_frame_set_discard discard: u32;
    mpp_frame_get_viewid mpp_frame_set_viewid viewid: u32;
    mpp_frame_get_poc mpp_frame_set_poc poc: u32;
    mpp_frame_get_errinfo mpp_frame_set_errinfo errinfo: u32;
    mpp_frame_get_eos mpp_frame_set_eos eos: u32;
    mpp_frame_get_info_change mpp_frame_set_info_change info_change: u32;
    mpp_frame_get_thumbnail_en mpp_frame_set_thumbnail_en thumbnail_en: u32;
    mpp_frame_get_pts mpp_frame_set_pts pts: i64;
    mpp_frame_get_dts mpp_frame_set_dts dts: i64;
    mpp_frame_get_buf_size mpp_frame_set_buf_size buf_size: usize;
    mpp_frame_get_color_range mpp_frame_set_color_range color_range: i32;
    mpp_frame_get_color_primaries mpp_frame_set_color_primaries color_primaries: i32;
    mpp_frame_get_color_trc mpp_frame_set_color_trc color_trc: i32;
    mpp_frame_get_colorspace mpp_frame_set_colorspace colorspace: i32;
    mpp_frame_get_chroma_location mpp_frame_set_chroma_location chroma_location: i32;
    mpp_frame_get_fmt mpp_frame_set_fmt fmt: i32;
    mpp_frame_get_sar mpp_frame_set_sar sar: MppFrameRational;
    mpp_frame_get_mastering_display mpp_frame_set_mastering_display mastering_display: MppFrameMasteringDisplayMetadata;
    mpp_frame_get_content_light mpp_frame_set_content_light content_light: MppFrameContentLightMetadata;
}

export! {
    fn mpp_frame_init(frame: *mut MppFrame) -> MppRet {
        if frame.is_null() {
            misuse(format_args!("mpp_frame_init: no place for the handle"));
            return MPP_ERR_NULL_PTR;
        }
        store(frame, FRAMES.handle(Mutex::default()));
        MPP_OK
    }
    fn mpp_frame_deinit(frame: *mut MppFrame) -> MppRet {
        let Some(h) = crate::abi::load(frame) else { return MPP_ERR_NULL_PTR };
        if FRAMES.find(id(h)).is_some_and(|f| lock(&f).owned) {
            misuse(format_args!("mpp_frame_deinit: the frame {h:?} is the library's until its packet is out"));
            return MPP_NOK;
        }
        let code = deinit(id(h), "mpp_frame_deinit");
        store(frame, std::ptr::null_mut());
        code
    }
    fn mpp_frame_get_buffer(frame: MppFrame) -> MppBuffer { handle(get(frame, 0, |f| f.buffer)) }
    fn mpp_frame_set_buffer(frame: MppFrame, buffer: MppBuffer) {
        let Some(frame) = FRAMES.of(frame, "mpp_frame_set_buffer") else { return };
        // The frame holds the buffer; the caller keeps its own hold.
        let new = id(buffer);
        if new != 0 && buffer::hold(new, "mpp_frame_set_buffer") != MPP_OK {
            return;
        }
        let old = std::mem::replace(&mut lock(&frame).buffer, new);
        if old != 0 {
            buffer::drop_ref(old, "mpp_frame_set_buffer");
        }
    }
    fn mpp_frame_get_hdr_dynamic_meta(_frame: MppFrame) -> *mut MppFrameHdrDynamicMeta { std::ptr::null_mut() }
    fn mpp_frame_has_meta(frame: MppFrame) -> i32 { get(frame, 0, |f| i32::from(f.meta != 0)) }
    fn mpp_frame_get_meta(frame: MppFrame) -> MppMeta { handle(meta_of(id(frame), "mpp_frame_get_meta").unwrap_or(0)) }
    fn mpp_frame_set_meta(frame: MppFrame, meta: MppMeta) {
        let Some(frame) = FRAMES.of(frame, "mpp_frame_set_meta") else { return };
        if !meta.is_null() {
            meta::hold(id(meta));
        }
        let old = std::mem::replace(&mut lock(&frame).meta, id(meta));
        if old != 0 {
            meta::release_meta(old);
        }
    }
    fn mpp_frame_copy(dst: MppFrame, src: MppFrame) -> MppRet {
        let (Some(to), Some(from)) = (FRAMES.of(dst, "mpp_frame_copy"), read(id(src), "mpp_frame_copy")) else {
            return MPP_ERR_NULL_PTR;
        };
        if from.buffer != 0 {
            buffer::hold(from.buffer, "mpp_frame_copy");
        }
        let old = {
            let mut to = lock(&to);
            let meta = to.meta;
            std::mem::replace(&mut *to, Frame { meta, owned: false, ..from }).buffer
        };
        if old != 0 {
            buffer::drop_ref(old, "mpp_frame_copy");
        }
        MPP_OK
    }
    fn mpp_frame_info_cmp(frame0: MppFrame, frame1: MppFrame) -> MppRet {
        let facts = |f: Frame| (f.width, f.height, f.hor_stride, f.ver_stride, f.fmt, f.buf_size);
        let (a, b) = (read(id(frame0), "mpp_frame_info_cmp"), read(id(frame1), "mpp_frame_info_cmp"));
        match (a.map(facts), b.map(facts)) {
            (Some(a), Some(b)) if a == b => MPP_OK,
            (Some(_), Some(_)) => MPP_NOK,
            _ => MPP_ERR_NULL_PTR,
        }
    }
}
