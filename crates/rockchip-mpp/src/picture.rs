// SPDX-License-Identifier: MIT OR Apache-2.0

//! Decoded pictures and their memory.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;

use rockchip_mpp_sys::{
    MppBuffer, MppFrame, MppFrameContentLightMetadata, MppFrameMasteringDisplayMetadata, MppPacket, consts,
};

use crate::buffer::{Buffer, Group};
use crate::context::Mpp;
use crate::error::{Error, check};

/// Who asks; appears in the library's log.
const TAG: &CStr = c"rockchip-mpp";

/// Where a picture lies in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Pixels to be shown.
    pub width: u32,
    /// Lines to be shown.
    pub height: u32,
    /// Bytes from line to line.
    pub hor_stride: u32,
    /// Lines from plane to plane.
    pub ver_stride: u32,
    /// Pixels to the left of the first to be shown.
    pub offset_x: u32,
    /// Lines above the first to be shown.
    pub offset_y: u32,
    /// `MPP_FMT_*`, with the marks of compression.
    pub format: i32,
    /// Of compressed pixels: pixels of a row of headers, which tell where the pixels of each block lie. 0 otherwise.
    pub header_stride: u32,
    /// Bytes of a buffer. More than the picture: the hardware keeps data of its own behind it.
    pub buffer_size: usize,
}

impl Format {
    /// The pixel format without marks.
    pub fn pixels(&self) -> i32 {
        self.format & consts::MPP_FRAME_FMT_MASK
    }

    /// Whether the pixels are compressed (AFBC, RFBC), so that only hardware can read them.
    pub fn is_compressed(&self) -> bool {
        self.compression() != 0
    }

    /// How the pixels are compressed, one of `MPP_FRAME_FBC_*`; 0 if they are not.
    pub fn compression(&self) -> i32 {
        self.format & consts::MPP_FRAME_FBC_MASK
    }
}

/// What the stream says of its colours, in the code points of H.26x; 2 is "unspecified".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureColour {
    /// Full range (0 to 255), if told.
    pub full_range: Option<bool>,
    /// `colour_primaries`.
    pub primaries: i32,
    /// `transfer_characteristics`.
    pub transfer: i32,
    /// `matrix_coefficients`.
    pub matrix: i32,
}

/// Which field of an interlaced picture comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// It is not interlaced.
    Progressive,
    /// The upper one.
    TopFirst,
    /// The lower one.
    BottomFirst,
}

/// A decoded picture.
#[derive(Debug)]
pub struct Picture {
    mpp: Mpp,
    raw: MppFrame,
    /// Keeps the memory's pool.
    group: Option<Group>,
    cachable: bool,
}

// SAFETY: a picture has one owner, and the library no thread-local state.
unsafe impl Send for Picture {}

impl Picture {
    /// Takes over a frame that the library gave away, or that was the caller's.
    ///
    /// # Safety
    /// `raw` must be a frame that nobody else owns; its buffer, if any, of `group`.
    pub(crate) unsafe fn from_raw(mpp: Mpp, raw: MppFrame, group: Option<Group>) -> Self {
        let cachable = group.as_ref().is_some_and(Group::is_cachable);
        Self { mpp, raw, group, cachable }
    }

    /// A frame with memory for a picture that is to be decoded into it.
    pub(crate) fn around(mpp: Mpp, buffer: Buffer, group: Group) -> Result<Self, Error> {
        let symbols = mpp.symbols();
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing.
        check("mpp_frame_init", unsafe { (symbols.mpp_frame_init)(&mut raw) })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_frame_init" });
        }
        // SAFETY: both are alive; the frame takes a reference of its own.
        unsafe { (symbols.mpp_frame_set_buffer)(raw, buffer.raw()) };
        // SAFETY: just made, with a buffer of the group.
        Ok(unsafe { Self::from_raw(mpp, raw, Some(group)) })
    }

    pub(crate) fn raw(&self) -> MppFrame {
        self.raw
    }

    /// Whether it only announces a new format.
    pub(crate) fn is_announcement(&self) -> bool {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_get_info_change)(self.raw) != 0 }
    }

    pub(crate) fn has_buffer(&self) -> bool {
        // SAFETY: the frame is alive.
        unsafe { !(self.mpp.symbols().mpp_frame_get_buffer)(self.raw).is_null() }
    }

    /// The packet that it was made of, where the application has to free it (JPEG).
    pub(crate) fn take_packet(&mut self) -> Option<MppPacket> {
        let symbols = self.mpp.symbols();
        let mut packet = ptr::null_mut();
        // SAFETY: the frame is alive and owns its meta; the pointer is valid for writing.
        let code = unsafe {
            if (symbols.mpp_frame_has_meta)(self.raw) == 0 {
                return None;
            }
            let meta = (symbols.mpp_frame_get_meta)(self.raw);
            if meta.is_null() {
                return None;
            }
            (symbols.mpp_meta_get_packet)(meta, consts::KEY_INPUT_PACKET, &mut packet)
        };
        (code == consts::MPP_OK && !packet.is_null()).then_some(packet)
    }

    /// What its packet had.
    pub fn pts(&self) -> i64 {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_get_pts)(self.raw) }
    }

    /// Nothing follows.
    pub fn eos(&self) -> bool {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_get_eos)(self.raw) != 0 }
    }

    /// Size and layout.
    pub fn format(&self) -> Format {
        let symbols = self.mpp.symbols();
        // SAFETY: the frame is alive.
        unsafe {
            Format {
                width: (symbols.mpp_frame_get_width)(self.raw),
                height: (symbols.mpp_frame_get_height)(self.raw),
                hor_stride: (symbols.mpp_frame_get_hor_stride)(self.raw),
                ver_stride: (symbols.mpp_frame_get_ver_stride)(self.raw),
                offset_x: (symbols.mpp_frame_get_offset_x)(self.raw),
                offset_y: (symbols.mpp_frame_get_offset_y)(self.raw),
                format: (symbols.mpp_frame_get_fmt)(self.raw),
                header_stride: (symbols.mpp_frame_get_fbc_hdr_stride)(self.raw),
                buffer_size: (symbols.mpp_frame_get_buf_size)(self.raw),
            }
        }
    }

    /// What went wrong with it, bits of `MPP_FRAME_ERR_*`; 0 if nothing did.
    pub fn errors(&self) -> u32 {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_get_errinfo)(self.raw) }
    }

    /// Whether the library advises not to show it.
    pub fn should_be_discarded(&self) -> bool {
        // SAFETY: the frame is alive.
        unsafe { (self.mpp.symbols().mpp_frame_get_discard)(self.raw) != 0 }
    }

    /// Whether it is interlaced, and how.
    pub fn fields(&self) -> Fields {
        // SAFETY: the frame is alive.
        let mode = unsafe { (self.mpp.symbols().mpp_frame_get_mode)(self.raw) };
        match mode & consts::MPP_FRAME_FLAG_FIELD_ORDER_MASK {
            consts::MPP_FRAME_FLAG_TOP_FIRST => Fields::TopFirst,
            consts::MPP_FRAME_FLAG_BOT_FIRST => Fields::BottomFirst,
            // None, or both: then it was made progressive.
            _ => Fields::Progressive,
        }
    }

    /// Its colours.
    pub fn colour(&self) -> PictureColour {
        let symbols = self.mpp.symbols();
        // SAFETY: the frame is alive.
        unsafe {
            PictureColour {
                full_range: match (symbols.mpp_frame_get_color_range)(self.raw) {
                    consts::MPP_FRAME_RANGE_MPEG => Some(false),
                    consts::MPP_FRAME_RANGE_JPEG => Some(true),
                    _ => None,
                },
                primaries: (symbols.mpp_frame_get_color_primaries)(self.raw),
                transfer: (symbols.mpp_frame_get_color_trc)(self.raw),
                matrix: (symbols.mpp_frame_get_colorspace)(self.raw),
            }
        }
    }

    /// HDR10: the display it was graded on, if told. Primaries stand in the order green, blue, red.
    pub fn mastering_display(&self) -> Option<MppFrameMasteringDisplayMetadata> {
        // SAFETY: the frame is alive.
        let metadata = unsafe { (self.mpp.symbols().mpp_frame_get_mastering_display)(self.raw) };
        (metadata.max_luminance > 0).then_some(metadata)
    }

    /// HDR10: how light it gets, if told.
    pub fn content_light(&self) -> Option<MppFrameContentLightMetadata> {
        // SAFETY: the frame is alive.
        let metadata = unsafe { (self.mpp.symbols().mpp_frame_get_content_light)(self.raw) };
        (metadata.max_cll > 0 || metadata.max_fall > 0).then_some(metadata)
    }

    /// Its memory, which outlives it.
    pub fn buffer(&self) -> Option<PictureBuffer> {
        let symbols = self.mpp.symbols();
        // SAFETY: the frame is alive.
        let raw = unsafe { (symbols.mpp_frame_get_buffer)(self.raw) };
        if raw.is_null() {
            return None;
        }
        // SAFETY: the frame holds the buffer while a reference of our own is added.
        let code = unsafe { (symbols.mpp_buffer_inc_ref_with_caller)(raw, TAG.as_ptr()) };
        (code == consts::MPP_OK).then(|| PictureBuffer {
            mpp: self.mpp,
            raw,
            cachable: self.cachable,
            _group: self.group.clone(),
        })
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: freed once, here.
        unsafe { (self.mpp.symbols().mpp_frame_deinit)(&mut self.raw) };
    }
}

/// A decoded picture's memory. It can't be written to: the decoder may still look at it to make other pictures. While
/// this lives, the decoder does not use it for another picture.
#[derive(Debug)]
pub struct PictureBuffer {
    mpp: Mpp,
    raw: MppBuffer,
    cachable: bool,
    /// Keeps the group until the buffer has gone.
    _group: Option<Group>,
}

// SAFETY: reference counts and mappings are guarded by locks of the library; nobody writes to the memory.
unsafe impl Send for PictureBuffer {}
// SAFETY: as above.
unsafe impl Sync for PictureBuffer {}

impl PictureBuffer {
    /// A descriptor of its own of the same memory.
    ///
    /// # Errors
    /// If the memory has none, or it cannot be duplicated.
    pub fn export(&self) -> Result<OwnedFd, Error> {
        // SAFETY: the buffer is alive.
        let fd = unsafe { (self.mpp.symbols().mpp_buffer_get_fd_with_caller)(self.raw, TAG.as_ptr()) };
        if fd < 0 {
            return Err(Error::Nothing { call: "mpp_buffer_get_fd" });
        }
        // SAFETY: the library keeps the descriptor open while the buffer lives, which is longer than this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        fd.as_fd().try_clone_to_owned().map_err(|error| Error::Descriptor(error.kind()))
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        // SAFETY: the buffer is alive.
        unsafe { (self.mpp.symbols().mpp_buffer_get_size_with_caller)(self.raw, TAG.as_ptr()) }
    }

    /// Its bytes, for the CPU to read.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn read<T>(&self, reader: impl FnOnce(&[u8]) -> T) -> Result<T, Error> {
        let symbols = self.mpp.symbols();
        // SAFETY: the buffer is alive.
        let data = unsafe { (symbols.mpp_buffer_get_ptr_with_caller)(self.raw, TAG.as_ptr()) };
        let len = self.size();
        if data.is_null() || len > isize::MAX as usize {
            return Err(Error::Unmappable);
        }
        if let Some(begin) = symbols.mpp_buffer_sync_begin_f.filter(|_| self.cachable) {
            // SAFETY: the buffer is alive.
            unsafe { begin(self.raw, 1, TAG.as_ptr()) };
        }
        // SAFETY: the library mapped `len` bytes here and keeps them while the buffer lives; nobody writes.
        let result = reader(unsafe { std::slice::from_raw_parts(data.cast_const().cast(), len) });
        if let Some(end) = symbols.mpp_buffer_sync_end_f.filter(|_| self.cachable) {
            // SAFETY: the buffer is alive, and sync_begin was called.
            unsafe { end(self.raw, 1, TAG.as_ptr()) };
        }
        Ok(result)
    }
}

impl Drop for PictureBuffer {
    fn drop(&mut self) {
        // SAFETY: the reference that was added when this was made; given back once.
        unsafe { (self.mpp.symbols().mpp_buffer_put_with_caller)(self.raw, TAG.as_ptr()) };
    }
}
