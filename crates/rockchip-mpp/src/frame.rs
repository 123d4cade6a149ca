// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pictures.

use std::ptr;

use rockchip_mpp_sys::{MppEncROICfg, MppEncROIRegion, MppFrame, consts};

use crate::buffer::Buffer;
use crate::context::Mpp;
use crate::error::{Error, check};

/// Most regions of interest in a frame.
const MAX_REGIONS: usize = 8;

/// Colour description, in the code points of H.26x; 2 is "unspecified".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Full range (0 to 255).
    pub full_range: bool,
    /// `colour_primaries`.
    pub primaries: i32,
    /// `transfer_characteristics`.
    pub transfer: i32,
    /// `matrix_coefficients`.
    pub matrix: i32,
}

/// A rectangle that is to look better or worse than the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoiRegion {
    /// Left, pixels.
    pub x: u16,
    /// Top, pixels.
    pub y: u16,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// Added to the QP: negative is better.
    pub delta_qp: i16,
}

/// The regions as the library reads them, at an address that stays while the frame is with the library.
#[derive(Debug)]
struct RoiData {
    regions: [MppEncROIRegion; MAX_REGIONS],
    config: MppEncROICfg,
}

/// A picture with its memory and what is to be known of it.
#[derive(Debug)]
pub struct Frame {
    mpp: Mpp,
    raw: MppFrame,
    buffer: Option<Buffer>,
    roi: Option<Box<RoiData>>,
}

// SAFETY: a frame has one owner, and the library no thread-local state. The pointers in `roi` point into it.
unsafe impl Send for Frame {}

impl Frame {
    /// Makes a frame without memory.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(mpp: Mpp) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing.
        check("mpp_frame_init", unsafe { (mpp.symbols().mpp_frame_init)(&mut raw) })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_frame_init" });
        }
        Ok(Self { mpp, raw, buffer: None, roi: None })
    }

    /// Size in pixels, bytes from line to line, and lines from plane to plane.
    pub fn set_size(&mut self, width: u32, height: u32, hor_stride: u32, ver_stride: u32) {
        let symbols = self.mpp.symbols();
        // SAFETY: the frame is alive.
        unsafe {
            (symbols.mpp_frame_set_width)(self.raw, width);
            (symbols.mpp_frame_set_height)(self.raw, height);
            (symbols.mpp_frame_set_hor_stride)(self.raw, hor_stride);
            (symbols.mpp_frame_set_ver_stride)(self.raw, ver_stride);
        }
    }

    /// Where compressed pixels lie: pixels of a row of headers, and the first column and line that are to be seen. Their
    /// format bears a mark, one of `MPP_FRAME_FBC_*`.
    pub fn set_compression(&mut self, header_stride: u32, (x, y): (u32, u32)) {
        let symbols = self.mpp.symbols();
        // SAFETY: the frame is alive.
        unsafe {
            (symbols.mpp_frame_set_fbc_hdr_stride)(self.raw, header_stride);
            (symbols.mpp_frame_set_offset_x)(self.raw, x);
            (symbols.mpp_frame_set_offset_y)(self.raw, y);
        }
    }

    /// Pixel format, one of `MPP_FMT_*`, with the mark of compression if there is any.
    pub fn set_format(&mut self, format: i32) {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_set_fmt)(self.raw, format) };
    }

    /// Colour description.
    pub fn set_colour(&mut self, colour: Colour) {
        let symbols = self.mpp.symbols();
        let range =
            if colour.full_range { consts::MPP_FRAME_RANGE_JPEG } else { consts::MPP_FRAME_RANGE_MPEG };
        // SAFETY: the frame is alive.
        unsafe {
            (symbols.mpp_frame_set_color_range)(self.raw, range);
            (symbols.mpp_frame_set_color_primaries)(self.raw, colour.primaries);
            (symbols.mpp_frame_set_color_trc)(self.raw, colour.transfer);
            (symbols.mpp_frame_set_colorspace)(self.raw, colour.matrix);
        }
    }

    /// Presentation time, or any other number: it passes untouched.
    pub fn set_pts(&mut self, pts: i64) {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_set_pts)(self.raw, pts) };
    }

    /// The last one.
    pub fn set_eos(&mut self) {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_set_eos)(self.raw, 1) };
    }

    /// Gives it memory; what it had before is dropped.
    pub fn set_buffer(&mut self, buffer: Buffer) {
        // SAFETY: both are alive; the frame takes a reference of its own.
        unsafe { (self.mpp.symbols().mpp_frame_set_buffer)(self.raw, buffer.raw()) };
        self.buffer = Some(buffer);
    }

    /// Takes its memory, to be used again.
    pub fn take_buffer(&mut self) -> Option<Buffer> {
        let buffer = self.buffer.take()?;
        // SAFETY: the frame is alive; NULL makes it give its reference back.
        unsafe { (self.mpp.symbols().mpp_frame_set_buffer)(self.raw, ptr::null_mut()) };
        Some(buffer)
    }

    /// Regions of interest, the first eight. VEPU580 (RK3588) needs another description and ignores them.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn set_regions(&mut self, regions: &[RoiRegion]) -> Result<(), Error> {
        let mut data = Box::new(RoiData {
            regions: [MppEncROIRegion::default(); MAX_REGIONS],
            config: MppEncROICfg { number: 0, regions: ptr::null_mut() },
        });
        for (slot, region) in data.regions.iter_mut().zip(regions) {
            *slot = MppEncROIRegion {
                x: region.x,
                y: region.y,
                w: region.width,
                h: region.height,
                quality: region.delta_qp,
                area_map_en: 1,
                ..MppEncROIRegion::default()
            };
            data.config.number += 1;
        }
        data.config.regions = data.regions.as_mut_ptr();
        let symbols = self.mpp.symbols();
        // SAFETY: the frame is alive and makes its meta if it has none.
        let meta = unsafe { (symbols.mpp_frame_get_meta)(self.raw) };
        if meta.is_null() {
            return Err(Error::Nothing { call: "mpp_frame_get_meta" });
        }
        // SAFETY: the data stays at its address as long as the frame lives, which is given back with its packet.
        check("mpp_meta_set_ptr(ROI_DATA)", unsafe {
            (symbols.mpp_meta_set_ptr)(meta, consts::KEY_ROI_DATA, (&raw mut data.config).cast())
        })?;
        self.roi = Some(data);
        Ok(())
    }

    pub(crate) fn raw(&self) -> MppFrame {
        self.raw
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: freed once, here; the library does not own it (see Encoder).
        unsafe { (self.mpp.symbols().mpp_frame_deinit)(&mut self.raw) };
    }
}
