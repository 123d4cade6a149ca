// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pieces of bitstream.

use std::ffi::c_void;
use std::ptr;

use rockchip_mpp_sys::{MppFrame, MppMeta, MppPacket, consts};

use crate::buffer::Buffer;
use crate::context::Mpp;
use crate::error::{Error, check};

/// A piece of bitstream, with its memory.
#[derive(Debug)]
pub struct Packet {
    mpp: Mpp,
    raw: MppPacket,
    data: *const u8,
    length: usize,
}

// SAFETY: a packet has one owner, and the library no thread-local state.
unsafe impl Send for Packet {}
// SAFETY: shared references read constants and bytes that nobody writes.
unsafe impl Sync for Packet {}

impl Packet {
    /// Takes over a packet that the library gave away.
    ///
    /// # Safety
    /// `raw` must be a packet that nobody else owns.
    pub(crate) unsafe fn from_raw(mpp: Mpp, raw: MppPacket) -> Result<Self, Error> {
        let symbols = mpp.symbols();
        // SAFETY: the packet is alive.
        let (data, length) =
            unsafe { ((symbols.mpp_packet_get_pos)(raw), (symbols.mpp_packet_get_length)(raw)) };
        // From here on it is freed, whatever happens.
        let packet = Self { mpp, raw, data: data.cast_const().cast(), length };
        if length > isize::MAX as usize || (data.is_null() && length > 0) {
            return Err(Error::Packet { length });
        }
        Ok(packet)
    }

    /// Its bytes.
    pub fn data(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: the library says that `length` bytes are here, and keeps them while the packet lives.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }

    /// What the frame had.
    pub fn pts(&self) -> i64 {
        // SAFETY: the packet is alive.
        unsafe { (self.mpp.symbols().mpp_packet_get_pts)(self.raw) }
    }

    /// The last one.
    pub fn eos(&self) -> bool {
        // SAFETY: the packet is alive.
        unsafe { (self.mpp.symbols().mpp_packet_get_eos)(self.raw) != 0 }
    }

    /// Part of a picture, with more to follow unless [`ends_picture`](Self::ends_picture).
    pub fn is_partition(&self) -> bool {
        // SAFETY: the packet is alive.
        unsafe { (self.mpp.symbols().mpp_packet_is_partition)(self.raw) != 0 }
    }

    /// The last part of a picture.
    pub fn ends_picture(&self) -> bool {
        // SAFETY: the packet is alive.
        unsafe { (self.mpp.symbols().mpp_packet_is_eoi)(self.raw) != 0 }
    }

    fn meta(&self) -> Option<MppMeta> {
        let symbols = self.mpp.symbols();
        // SAFETY: the packet is alive, and owns its meta.
        unsafe {
            if (symbols.mpp_packet_has_meta)(self.raw) == 0 {
                return None;
            }
            Some((symbols.mpp_packet_get_meta)(self.raw)).filter(|meta| !meta.is_null())
        }
    }

    fn take_number(&mut self, key: i32) -> Option<i32> {
        let meta = self.meta()?;
        let mut value = 0;
        // SAFETY: the meta is alive and the pointer valid for writing. A missing key is an error code.
        let code = unsafe { (self.mpp.symbols().mpp_meta_get_s32)(meta, key, &mut value) };
        (code == consts::MPP_OK).then_some(value)
    }

    /// Whether it is an I picture, if the release and the codec tell. Reading it takes it out of the packet.
    pub fn take_intra(&mut self) -> Option<bool> {
        self.take_number(consts::KEY_OUTPUT_INTRA).map(|value| value != 0)
    }

    /// The picture's average QP, if told. Reading it takes it out of the packet.
    pub fn take_average_qp(&mut self) -> Option<i32> {
        self.take_number(consts::KEY_ENC_AVERAGE_QP)
    }

    /// The temporal layer, if told. Reading it takes it out of the packet.
    pub fn take_temporal_id(&mut self) -> Option<i32> {
        self.take_number(consts::KEY_TEMPORAL_ID)
    }

    /// The frame that it was made of.
    pub(crate) fn take_input_frame(&mut self) -> Option<MppFrame> {
        let meta = self.meta()?;
        let mut frame = ptr::null_mut();
        // SAFETY: the meta is alive and the pointer valid for writing.
        let code =
            unsafe { (self.mpp.symbols().mpp_meta_get_frame)(meta, consts::KEY_INPUT_FRAME, &mut frame) };
        (code == consts::MPP_OK && !frame.is_null()).then_some(frame)
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: freed once, here.
        unsafe { (self.mpp.symbols().mpp_packet_deinit)(&mut self.raw) };
    }
}

/// A packet over memory of the caller's, for the library to fill.
#[derive(Debug)]
pub(crate) struct ScratchPacket<'a> {
    mpp: Mpp,
    raw: MppPacket,
    memory: &'a mut [u8],
}

impl<'a> ScratchPacket<'a> {
    pub fn new(mpp: Mpp, memory: &'a mut [u8]) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the memory is borrowed for as long as the packet lives.
        check("mpp_packet_init", unsafe {
            (mpp.symbols().mpp_packet_init)(&mut raw, memory.as_mut_ptr().cast(), memory.len())
        })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_packet_init" });
        }
        // A new packet counts as full.
        // SAFETY: the packet is alive.
        unsafe { (mpp.symbols().mpp_packet_set_length)(raw, 0) };
        Ok(Self { mpp, raw, memory })
    }

    pub fn as_argument(&mut self) -> *mut c_void {
        self.raw.cast()
    }

    /// What the library wrote.
    pub fn written(&self) -> &[u8] {
        // SAFETY: the packet is alive.
        let length = unsafe { (self.mpp.symbols().mpp_packet_get_length)(self.raw) };
        self.memory.get(..length).unwrap_or_default()
    }
}

impl Drop for ScratchPacket<'_> {
    fn drop(&mut self) {
        // SAFETY: freed once, here; the memory stays the caller's.
        unsafe { (self.mpp.symbols().mpp_packet_deinit)(&mut self.raw) };
    }
}

/// A packet for the decoder.
#[derive(Debug)]
pub(crate) struct InputPacket {
    mpp: Mpp,
    raw: MppPacket,
    /// Its memory, if it is not the caller's.
    _buffer: Option<Buffer>,
}

// SAFETY: a packet has one owner, and the library no thread-local state.
unsafe impl Send for InputPacket {}

impl InputPacket {
    /// Around bytes of the caller's, who keeps them until the packet was put: the library copies them then.
    pub fn borrowing(mpp: Mpp, data: &[u8], pts: i64) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the library only reads what a packet for a decoder describes.
        check("mpp_packet_init", unsafe {
            (mpp.symbols().mpp_packet_init)(&mut raw, data.as_ptr().cast_mut().cast(), data.len())
        })?;
        Self::made(mpp, raw, None, data.len(), pts)
    }

    /// The first `length` bytes of a buffer.
    pub fn owning(mpp: Mpp, buffer: Buffer, length: usize, pts: i64) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the buffer is alive; the packet takes a reference of its own.
        check("mpp_packet_init_with_buffer", unsafe {
            (mpp.symbols().mpp_packet_init_with_buffer)(&mut raw, buffer.raw())
        })?;
        Self::made(mpp, raw, Some(buffer), length, pts)
    }

    fn made(
        mpp: Mpp,
        raw: MppPacket,
        buffer: Option<Buffer>,
        length: usize,
        pts: i64,
    ) -> Result<Self, Error> {
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_packet_init" });
        }
        // SAFETY: the packet is alive.
        unsafe {
            (mpp.symbols().mpp_packet_set_length)(raw, length);
            (mpp.symbols().mpp_packet_set_pts)(raw, pts);
        }
        Ok(Self { mpp, raw, _buffer: buffer })
    }

    /// Nothing follows.
    pub fn mark_end(&self) -> Result<(), Error> {
        // SAFETY: the packet is alive.
        check("mpp_packet_set_eos", unsafe { (self.mpp.symbols().mpp_packet_set_eos)(self.raw) })
    }

    /// No picture, but what is needed to decode those that follow.
    pub fn mark_codec_data(&self) -> Result<(), Error> {
        // SAFETY: the packet is alive.
        check("mpp_packet_set_extra_data", unsafe {
            (self.mpp.symbols().mpp_packet_set_extra_data)(self.raw)
        })
    }

    pub fn raw(&self) -> MppPacket {
        self.raw
    }
}

impl Drop for InputPacket {
    fn drop(&mut self) {
        // SAFETY: freed once, here; the memory stays its owner's.
        unsafe { (self.mpp.symbols().mpp_packet_deinit)(&mut self.raw) };
    }
}
