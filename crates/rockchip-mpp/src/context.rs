// SPDX-License-Identifier: MIT OR Apache-2.0

//! The library and its contexts.

use std::ffi::{OsStr, c_void};
use std::ptr::{self, NonNull};

use rockchip_mpp_sys::{
    Library, LoadError, MppApi, MppCtx, MppFrame, MppPacket, MppRet, MppTask, Symbols, consts,
};

use crate::decoder::Decoder;
use crate::encoder::{Encoder, InputMode};
use crate::error::{Error, check};

/// The loaded library. Copies refer to the same one.
#[derive(Clone, Copy, Debug)]
pub struct Mpp(&'static Library);

impl Mpp {
    /// Loads the library: `path` if given, else what the environment names, else by its usual names.
    ///
    /// # Errors
    /// All that was tried.
    pub fn load(path: Option<&OsStr>) -> Result<Self, LoadError> {
        Library::load(path).map(Self)
    }

    /// The name or path that it was loaded by.
    pub fn name(self) -> &'static OsStr {
        self.0.name()
    }

    /// The library's functions.
    pub(crate) fn symbols(self) -> &'static Symbols {
        self.0.symbols()
    }

    /// Whether the release can tell the CPU's cache of buffers (1.0.3 and later).
    pub fn can_sync(self) -> bool {
        self.symbols().mpp_buffer_sync_begin_f.is_some() && self.symbols().mpp_buffer_sync_end_f.is_some()
    }

    /// Whether the release was built with this codec. It says nothing about the hardware: only
    /// [`Context::into_encoder`] does.
    pub fn was_built_with(self, direction: Direction, coding: Coding) -> bool {
        // SAFETY: a function of two numbers.
        let code = unsafe { (self.symbols().mpp_check_support_format)(direction.raw(), coding.raw()) };
        code == consts::MPP_OK
    }
}

/// What a context does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bitstream in, pictures out.
    Decode,
    /// Pictures in, bitstream out.
    Encode,
}

impl Direction {
    pub(crate) fn raw(self) -> i32 {
        match self {
            Self::Decode => consts::MPP_CTX_DEC,
            Self::Encode => consts::MPP_CTX_ENC,
        }
    }
}

/// A codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Coding {
    /// MPEG-1 and MPEG-2.
    Mpeg2,
    /// H.263.
    H263,
    /// MPEG-4 part 2.
    Mpeg4,
    /// H.264.
    Avc,
    /// H.265.
    Hevc,
    /// JPEG.
    Mjpeg,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
}

impl Coding {
    pub(crate) fn raw(self) -> i32 {
        match self {
            Self::Mpeg2 => consts::MPP_VIDEO_CODING_MPEG2,
            Self::H263 => consts::MPP_VIDEO_CODING_H263,
            Self::Mpeg4 => consts::MPP_VIDEO_CODING_MPEG4,
            Self::Avc => consts::MPP_VIDEO_CODING_AVC,
            Self::Hevc => consts::MPP_VIDEO_CODING_HEVC,
            Self::Mjpeg => consts::MPP_VIDEO_CODING_MJPEG,
            Self::Vp8 => consts::MPP_VIDEO_CODING_VP8,
            Self::Vp9 => consts::MPP_VIDEO_CODING_VP9,
            Self::Av1 => consts::MPP_VIDEO_CODING_AV1,
        }
    }
}

/// How long a port waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Until there is something.
    Blocking,
    /// Not at all.
    NonBlocking,
    /// Milliseconds, 1 to 8000. Waits end up to 5 ms early before release 1.0.10: use 20 or more.
    Millis(u16),
}

impl Timeout {
    /// The library reads four bytes where a header promises eight: the same number in a little-endian i64.
    pub(crate) fn raw(self) -> i64 {
        match self {
            Self::Blocking => consts::MPP_POLL_BLOCK,
            Self::NonBlocking => consts::MPP_POLL_NON_BLOCK,
            Self::Millis(ms) => i64::from(ms).clamp(1, consts::MPP_POLL_MAX),
        }
        .to_le()
    }
}

/// The functions of a context that are used; none of them is missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Api {
    pub decode_put_packet: unsafe extern "C" fn(MppCtx, MppPacket) -> MppRet,
    pub decode_get_frame: unsafe extern "C" fn(MppCtx, *mut MppFrame) -> MppRet,
    pub poll: unsafe extern "C" fn(MppCtx, i32, i32) -> MppRet,
    pub dequeue: unsafe extern "C" fn(MppCtx, i32, *mut MppTask) -> MppRet,
    pub enqueue: unsafe extern "C" fn(MppCtx, i32, MppTask) -> MppRet,
    pub encode_put_frame: unsafe extern "C" fn(MppCtx, MppFrame) -> MppRet,
    pub encode_get_packet: unsafe extern "C" fn(MppCtx, *mut MppPacket) -> MppRet,
    pub reset: unsafe extern "C" fn(MppCtx) -> MppRet,
    pub control: unsafe extern "C" fn(MppCtx, i32, *mut c_void) -> MppRet,
}

impl Api {
    fn read(table: NonNull<MppApi>) -> Result<Self, Error> {
        // SAFETY: every release's table begins with its size; the library keeps it for ever.
        let size = unsafe { (*table.as_ptr()).size };
        if size < MppApi::USED_SIZE {
            return Err(Error::Api { size });
        }
        // SAFETY: the table has at least USED_SIZE bytes, the fields read here lie within.
        let functions = unsafe { Self::functions(table.as_ptr()) };
        functions.ok_or(Error::Api { size })
    }

    /// # Safety
    /// The table must have USED_SIZE bytes.
    unsafe fn functions(table: *const MppApi) -> Option<Self> {
        // SAFETY: as promised.
        unsafe {
            Some(Self {
                decode_put_packet: (*table).decode_put_packet?,
                decode_get_frame: (*table).decode_get_frame?,
                poll: (*table).poll?,
                dequeue: (*table).dequeue?,
                enqueue: (*table).enqueue?,
                encode_put_frame: (*table).encode_put_frame?,
                encode_get_packet: (*table).encode_get_packet?,
                reset: (*table).reset?,
                control: (*table).control?,
            })
        }
    }
}

/// A context's handle. Resets and destroys it when dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    pub mpp: Mpp,
    pub api: Api,
    pub ctx: MppCtx,
    /// Only then there is something to reset.
    pub initialised: bool,
}

// SAFETY: the library guards its contexts with locks of its own; all functions may be called from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Sends a command with its argument.
    ///
    /// # Safety
    /// `argument` must be what the command expects.
    pub unsafe fn control(
        &self,
        call: &'static str,
        command: i32,
        argument: *mut c_void,
    ) -> Result<(), Error> {
        // SAFETY: the context is alive; the caller answers for the argument.
        check(call, unsafe { (self.api.control)(self.ctx, command, argument) })
    }

    pub fn reset(&self) -> Result<(), Error> {
        // SAFETY: the context is alive.
        check("reset", unsafe { (self.api.reset)(self.ctx) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.initialised {
            // Release 1.0.0 crashes when a decoder is destroyed after the end of a stream without a reset.
            let _ = self.reset();
        }
        // SAFETY: the handle is destroyed once, here.
        unsafe { (self.mpp.symbols().mpp_destroy)(self.ctx) };
    }
}

/// A context that is not initialised yet: the only time when its time-outs can be chosen.
#[derive(Debug)]
pub struct Context {
    handle: Handle,
    input: Timeout,
    output: Timeout,
}

impl Context {
    /// Makes a context. Works without hardware.
    ///
    /// # Errors
    /// If the library fails, or is not like any known release.
    pub fn new(mpp: Mpp) -> Result<Self, Error> {
        let mut ctx = ptr::null_mut();
        let mut table = ptr::null_mut();
        // SAFETY: both pointers are valid for writing.
        check("mpp_create", unsafe { (mpp.symbols().mpp_create)(&mut ctx, &mut table) })?;
        if ctx.is_null() {
            return Err(Error::Nothing { call: "mpp_create" });
        }
        let api =
            NonNull::new(table).ok_or(Error::Api { size: 0 }).and_then(Api::read).inspect_err(|_| {
                // SAFETY: just made, and not used by anybody else.
                unsafe { (mpp.symbols().mpp_destroy)(ctx) };
            })?;
        Ok(Self {
            handle: Handle { mpp, api, ctx, initialised: false },
            input: Timeout::Blocking,
            output: Timeout::NonBlocking,
        })
    }

    /// How long input waits. It decides the encoder's [`InputMode`].
    ///
    /// # Errors
    /// If the library refuses.
    pub fn with_input_timeout(mut self, timeout: Timeout) -> Result<Self, Error> {
        self.set_timeout("MPP_SET_INPUT_TIMEOUT", consts::MPP_SET_INPUT_TIMEOUT, timeout)?;
        self.input = timeout;
        Ok(self)
    }

    /// How long output waits.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn with_output_timeout(mut self, timeout: Timeout) -> Result<Self, Error> {
        self.set_timeout("MPP_SET_OUTPUT_TIMEOUT", consts::MPP_SET_OUTPUT_TIMEOUT, timeout)?;
        self.output = timeout;
        Ok(self)
    }

    fn set_timeout(&self, call: &'static str, command: i32, timeout: Timeout) -> Result<(), Error> {
        let mut value = timeout.raw();
        // SAFETY: the command reads a number of at most eight bytes.
        unsafe { self.handle.control(call, command, (&raw mut value).cast()) }
    }

    fn init(&mut self, direction: Direction, coding: Coding) -> Result<(), Error> {
        // SAFETY: the context is alive and not initialised: both users of this consume it.
        check("mpp_init", unsafe {
            (self.handle.mpp.symbols().mpp_init)(self.handle.ctx, direction.raw(), coding.raw())
        })?;
        self.handle.initialised = true;
        Ok(())
    }

    /// Initialises it as an encoder. This is where missing hardware or permission shows.
    ///
    /// # Errors
    /// If the library fails.
    pub fn into_encoder(mut self, coding: Coding) -> Result<Encoder, Error> {
        self.init(Direction::Encode, coding)?;
        let mode =
            if self.input == Timeout::Blocking { InputMode::Synchronous } else { InputMode::Asynchronous };
        Ok(Encoder::new(self.handle, coding, mode))
    }

    /// Initialises it as a decoder. This is where missing hardware or permission shows.
    ///
    /// # Errors
    /// If the library fails.
    pub fn into_decoder(mut self, coding: Coding) -> Result<Decoder, Error> {
        self.init(Direction::Decode, coding)?;
        Ok(Decoder::new(self.handle, coding, self.output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_the_same_in_four_and_in_eight_bytes() {
        for (timeout, value) in [
            (Timeout::Blocking, -1),
            (Timeout::NonBlocking, 0),
            (Timeout::Millis(0), 1),
            (Timeout::Millis(100), 100),
            (Timeout::Millis(9000), 8000),
        ] {
            let bytes = timeout.raw().to_ne_bytes();
            assert_eq!(i64::from_le_bytes(bytes), value);
            assert_eq!(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), value as i32);
        }
    }
}
