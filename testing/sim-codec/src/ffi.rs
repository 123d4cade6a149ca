// SPDX-License-Identifier: MIT OR Apache-2.0

//! The shim of `shim.c`, made safe. All of the crate's `unsafe` is here.

use crate::{Codec, Colour, Error};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

#[repr(C)]
struct Config {
    codec: i32,
    width: i32,
    height: i32,
    fps_num: i32,
    fps_den: i32,
    chroma: i32,
    depth: i32,
    b_frames: i32,
    intra_refresh: i32,
    slices: i32,
    level: i32,
    range: i32,
    primaries: i32,
    transfer: i32,
    matrix: i32,
    profile: *const c_char,
}

#[repr(C)]
struct CPicture {
    plane: [*const u8; 3],
    stride: [i32; 3],
    width: i32,
    height: i32,
    chroma: i32,
    depth: i32,
    key: i32,
    corrupt: i32,
    range: i32,
    primaries: i32,
    transfer: i32,
    matrix: i32,
    pts: i64,
    has_mastering: i32,
    has_light: i32,
    primary: [[u16; 2]; 3],
    white: [u16; 2],
    max_luminance: u32,
    min_luminance: u32,
    max_cll: u16,
    max_fall: u16,
}

impl CPicture {
    const EMPTY: Self = Self {
        plane: [null(); 3],
        stride: [0; 3],
        width: 0,
        height: 0,
        chroma: 0,
        depth: 8,
        key: 0,
        corrupt: 0,
        range: 0,
        primaries: 2,
        transfer: 2,
        matrix: 2,
        pts: 0,
        has_mastering: 0,
        has_light: 0,
        primary: [[0; 2]; 3],
        white: [0; 2],
        max_luminance: 0,
        min_luminance: 0,
        max_cll: 0,
        max_fall: 0,
    };
}

#[repr(C)]
struct CPacket {
    data: *const u8,
    length: usize,
    pts: i64,
    key: i32,
}

const AGAIN: c_int = 1;
const END: c_int = 2;

unsafe extern "C" {
    fn sim_encoder_open(
        out: *mut *mut c_void,
        config: *const Config,
        headers: *mut *const u8,
        headers_len: *mut usize,
    ) -> c_int;
    fn sim_encoder_send(e: *mut c_void, picture: *const CPicture, qp: c_int) -> c_int;
    fn sim_encoder_receive(e: *mut c_void, packet: *mut CPacket) -> c_int;
    fn sim_encoder_close(e: *mut c_void);
    fn sim_decoder_open(out: *mut *mut c_void, codec: c_int, extra: *const u8, extra_len: usize) -> c_int;
    fn sim_decoder_send(d: *mut c_void, data: *const u8, length: usize, pts: i64) -> c_int;
    fn sim_decoder_receive(d: *mut c_void, picture: *mut CPicture) -> c_int;
    fn sim_decoder_flush(d: *mut c_void);
    fn sim_decoder_close(d: *mut c_void);
    fn sim_error_text(code: c_int, text: *mut c_char, length: usize);
}

fn error_text(code: c_int) -> String {
    let mut text = [0_u8; 128];
    // SAFETY: the buffer is as long as said; the function ends the text with a zero byte within it.
    unsafe { sim_error_text(code, text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default()
}

fn failed(codec: Codec, code: c_int) -> Error {
    Error::Codec { codec, reason: error_text(code) }
}

/// How an encoder is opened; see [`crate::EncoderConfig`].
pub(crate) struct OpenEncoder<'a> {
    pub codec: Codec,
    pub width: u32,
    pub height: u32,
    pub framerate: (u32, u32),
    pub chroma: i32,
    pub depth: u8,
    pub b_frames: u8,
    pub intra_refresh: u32,
    pub slices: u8,
    pub level: u32,
    pub colour: Colour,
    pub profile: Option<&'a CStr>,
}

/// A plane as the shim reads it: `rows` rows of `row_bytes`, one after the other.
pub(crate) struct SendPlane<'a> {
    pub data: &'a [u8],
    pub row_bytes: usize,
    pub rows: usize,
}

/// A picture to encode.
pub(crate) struct SendPicture<'a> {
    pub planes: [SendPlane<'a>; 3],
    pub width: u32,
    pub height: u32,
    pub chroma: i32,
    pub depth: u8,
    pub key: bool,
    pub pts: i64,
}

pub(crate) struct RawPacket {
    pub data: Vec<u8>,
    pub pts: i64,
    pub key: bool,
}

pub(crate) struct RawEncoder {
    handle: NonNull<c_void>,
    codec: Codec,
    geometry: (u32, u32, i32, u8),
}

// SAFETY: libavcodec's contexts may be used from any thread, one call at a time, which `&mut self` ensures.
unsafe impl Send for RawEncoder {}

fn int(value: u32) -> Result<i32, Error> {
    i32::try_from(value).map_err(|_| Error::Setting("a number is too large"))
}

impl RawEncoder {
    /// The encoder and its parameter sets.
    pub(crate) fn open(open: &OpenEncoder) -> Result<(Self, Vec<u8>), Error> {
        let config = Config {
            codec: open.codec as i32,
            width: int(open.width)?,
            height: int(open.height)?,
            fps_num: int(open.framerate.0)?,
            fps_den: int(open.framerate.1)?,
            chroma: open.chroma,
            depth: open.depth.into(),
            b_frames: open.b_frames.into(),
            intra_refresh: int(open.intra_refresh)?,
            slices: open.slices.into(),
            level: int(open.level)?,
            range: open.colour.range.into(),
            primaries: open.colour.primaries.into(),
            transfer: open.colour.transfer.into(),
            matrix: open.colour.matrix.into(),
            profile: open.profile.map_or(null(), CStr::as_ptr),
        };
        let (mut handle, mut headers, mut headers_len) = (null_mut(), null(), 0);
        // SAFETY: all pointers are to live variables of the types that the shim declares.
        let code = unsafe { sim_encoder_open(&mut handle, &config, &mut headers, &mut headers_len) };
        let handle = match NonNull::new(handle) {
            Some(handle) if code == 0 => handle,
            _ => return Err(Error::Open { codec: open.codec, reason: error_text(code) }),
        };
        let raw =
            Self { handle, codec: open.codec, geometry: (open.width, open.height, open.chroma, open.depth) };
        let headers = if headers.is_null() {
            Vec::new()
        } else {
            // SAFETY: the shim's pointer and length are libavcodec's extradata, which lives as long as the context.
            unsafe { std::slice::from_raw_parts(headers, headers_len) }.to_vec()
        };
        Ok((raw, headers))
    }

    /// Hands over a picture. It must have the size and sampling that the encoder was opened with.
    pub(crate) fn send(&mut self, picture: &SendPicture, qp: u8) -> Result<(), Error> {
        let geometry = (picture.width, picture.height, picture.chroma, picture.depth);
        let mut c = CPicture {
            width: int(picture.width)?,
            height: int(picture.height)?,
            chroma: picture.chroma,
            depth: picture.depth.into(),
            key: picture.key.into(),
            pts: picture.pts,
            ..CPicture::EMPTY
        };
        let sample = if picture.depth > 8 { 2 } else { 1 };
        let (width, height) = (picture.width as usize, picture.height as usize);
        let (half_width, half_height) = match picture.chroma {
            3 => (width, height),
            2 => (width.div_ceil(2), height),
            _ => (width.div_ceil(2), height.div_ceil(2)),
        };
        for (index, (plane, (pointer, stride))) in
            picture.planes.iter().zip(c.plane.iter_mut().zip(c.stride.iter_mut())).enumerate()
        {
            let (columns, rows) = if index == 0 { (width, height) } else { (half_width, half_height) };
            if plane.row_bytes < columns * sample
                || plane.rows < rows
                || plane.data.len() < plane.row_bytes * plane.rows
                || geometry != self.geometry
            {
                return Err(Error::Mismatch {
                    have: format!("{geometry:?}"),
                    wanted: format!("{:?}", self.geometry),
                });
            }
            *pointer = plane.data.as_ptr();
            *stride = int(u32::try_from(plane.row_bytes).unwrap_or(u32::MAX))?;
        }
        // SAFETY: the handle is open. The shim reads from each plane what the loop above has checked to be there, and
        // copies it.
        let code = unsafe { sim_encoder_send(self.handle.as_ptr(), &c, qp.into()) };
        if code == 0 { Ok(()) } else { Err(failed(self.codec, code)) }
    }

    /// No more pictures come.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        // SAFETY: the handle is open; a null picture means the end.
        let code = unsafe { sim_encoder_send(self.handle.as_ptr(), null(), 0) };
        if code == 0 { Ok(()) } else { Err(failed(self.codec, code)) }
    }

    /// The next packet, if one is ready.
    pub(crate) fn receive(&mut self) -> Result<Option<RawPacket>, Error> {
        let mut packet = CPacket { data: null(), length: 0, pts: 0, key: 0 };
        // SAFETY: the handle is open and the packet a live variable.
        match unsafe { sim_encoder_receive(self.handle.as_ptr(), &mut packet) } {
            0 if packet.data.is_null() => Ok(None),
            0 => {
                // SAFETY: the shim's packet is valid until its next call.
                let data = unsafe { std::slice::from_raw_parts(packet.data, packet.length) }.to_vec();
                Ok(Some(RawPacket { data, pts: packet.pts, key: packet.key != 0 }))
            }
            AGAIN | END => Ok(None),
            code => Err(failed(self.codec, code)),
        }
    }
}

impl Drop for RawEncoder {
    fn drop(&mut self) {
        // SAFETY: the handle is open and not used again.
        unsafe { sim_encoder_close(self.handle.as_ptr()) }
    }
}

/// A decoded picture, copied out of libavcodec.
pub(crate) struct RawPicture {
    pub width: u32,
    pub height: u32,
    pub chroma: i32,
    pub depth: u8,
    /// Rows without padding.
    pub planes: [Vec<u8>; 3],
    pub pts: i64,
    pub key: bool,
    pub corrupt: bool,
    pub colour: Colour,
    pub mastering: Option<crate::MasteringDisplay>,
    pub light: Option<crate::ContentLight>,
}

pub(crate) struct RawDecoder {
    handle: NonNull<c_void>,
    codec: Codec,
}

// SAFETY: as for RawEncoder.
unsafe impl Send for RawDecoder {}

/// Whether a packet was taken.
#[derive(PartialEq, Eq)]
pub(crate) enum Sent {
    Taken,
    /// Pictures have to be received first.
    Full,
}

impl RawDecoder {
    pub(crate) fn open(codec: Codec, extra: &[u8]) -> Result<Self, Error> {
        let mut handle = null_mut();
        // SAFETY: the pointers are to live variables; the extra data is copied.
        let code = unsafe { sim_decoder_open(&mut handle, codec as i32, extra.as_ptr(), extra.len()) };
        match NonNull::new(handle) {
            Some(handle) if code == 0 => Ok(Self { handle, codec }),
            _ => Err(Error::Open { codec, reason: error_text(code) }),
        }
    }

    /// Hands over a packet; `None` means that no more come.
    pub(crate) fn send(&mut self, data: Option<&[u8]>, pts: i64) -> Result<Sent, Error> {
        let (pointer, length) = data.map_or((null(), 0), |d| (d.as_ptr(), d.len()));
        // SAFETY: the handle is open; the data is copied by the shim.
        match unsafe { sim_decoder_send(self.handle.as_ptr(), pointer, length, pts) } {
            0 | END => Ok(Sent::Taken),
            AGAIN => Ok(Sent::Full),
            code => Err(failed(self.codec, code)),
        }
    }

    /// The next picture, if one is ready.
    pub(crate) fn receive(&mut self) -> Result<Option<RawPicture>, Error> {
        let mut c = CPicture::EMPTY;
        // SAFETY: the handle is open and the picture a live variable.
        match unsafe { sim_decoder_receive(self.handle.as_ptr(), &mut c) } {
            0 => {}
            AGAIN | END => return Ok(None),
            code => return Err(failed(self.codec, code)),
        }
        let width = u32::try_from(c.width).unwrap_or(0);
        let height = u32::try_from(c.height).unwrap_or(0);
        let sample = if c.depth > 8 { 2 } else { 1 };
        let mut planes = [Vec::new(), Vec::new(), Vec::new()];
        for (index, (copy, (pointer, stride))) in
            planes.iter_mut().zip(c.plane.iter().zip(c.stride.iter())).enumerate()
        {
            if pointer.is_null() {
                continue;
            }
            let (columns, rows) = match (index, c.chroma) {
                (0, _) | (_, 3) => (width, height),
                (_, 2) => (width.div_ceil(2), height),
                _ => (width.div_ceil(2), height.div_ceil(2)),
            };
            let (bytes, rows) = (columns as usize * sample, rows as usize);
            let stride = usize::try_from(*stride).unwrap_or(0);
            if stride < bytes {
                return Err(Error::Codec {
                    codec: self.codec,
                    reason: "a row is shorter than the picture".into(),
                });
            }
            copy.reserve_exact(bytes * rows);
            for row in 0..rows {
                // SAFETY: libavcodec's plane has `rows` rows, `stride` bytes apart, each of at least `bytes` (checked),
                // and stays until the next call.
                copy.extend_from_slice(unsafe {
                    std::slice::from_raw_parts(pointer.add(row * stride), bytes)
                });
            }
        }
        let byte = |v: i32| u8::try_from(v).unwrap_or(2);
        Ok(Some(RawPicture {
            width,
            height,
            chroma: c.chroma,
            depth: if c.depth > 8 { 10 } else { 8 },
            planes,
            pts: c.pts,
            key: c.key != 0,
            corrupt: c.corrupt != 0,
            colour: Colour {
                range: u8::try_from(c.range).unwrap_or(0),
                primaries: byte(c.primaries),
                transfer: byte(c.transfer),
                matrix: byte(c.matrix),
            },
            mastering: (c.has_mastering != 0).then_some(crate::MasteringDisplay {
                primaries: c.primary,
                white: c.white,
                max_luminance: c.max_luminance,
                min_luminance: c.min_luminance,
            }),
            light: (c.has_light != 0)
                .then_some(crate::ContentLight { max_cll: c.max_cll, max_fall: c.max_fall }),
        }))
    }

    /// Forgets everything that was sent and not yet received.
    pub(crate) fn flush(&mut self) {
        // SAFETY: the handle is open.
        unsafe { sim_decoder_flush(self.handle.as_ptr()) }
    }
}

impl Drop for RawDecoder {
    fn drop(&mut self) {
        // SAFETY: the handle is open and not used again.
        unsafe { sim_decoder_close(self.handle.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn sim_size_of(what: c_int) -> usize;
    }

    #[test]
    fn layouts_are_those_of_the_c_compiler() {
        // SAFETY: the function only returns a number.
        let sizes = unsafe { [sim_size_of(0), sim_size_of(1), sim_size_of(2)] };
        assert_eq!(sizes, [size_of::<Config>(), size_of::<CPicture>(), size_of::<CPacket>()]);
    }
}
