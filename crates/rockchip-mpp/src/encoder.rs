// SPDX-License-Identifier: MIT OR Apache-2.0

//! An encoder: frames in, packets out, each packet with its frame.

use std::collections::VecDeque;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rockchip_mpp_sys::consts;

use crate::config::EncoderConfig;
use crate::context::{Coding, Handle};
use crate::error::{Code, Error, check};
use crate::frame::Frame;
use crate::packet::{Packet, ScratchPacket};
use crate::patience::Patience;

/// Room for parameter sets; 1 KiB would be ample.
const HEADER_ROOM: usize = 4096;

/// What [`Encoder::put`] does, as the input time-out chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputMode {
    /// It returns when the frame is coded.
    Synchronous,
    /// It returns at once; several cores work on frames in parallel. VP8 and older chips block all the same.
    Asynchronous,
}

/// Where parameter sets stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderMode {
    /// In front of the first IDR.
    First,
    /// In front of each IDR.
    EachIdr,
}

/// The library's own SEI with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeiMode {
    /// None.
    Disabled,
    /// One for each sequence.
    Sequence,
    /// One for each frame; user data needs it.
    Frame,
}

/// A frame that was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the encoder did not take a frame: {code}")]
pub struct PutError {
    /// The frame, to be put again or dropped.
    pub frame: Frame,
    /// Why. [`is_full`](Self::is_full) is no error.
    pub code: Code,
    mode: InputMode,
}

impl PutError {
    /// Whether there is no room at the moment: get a packet, then put the frame again.
    pub fn is_full(&self) -> bool {
        self.mode == InputMode::Asynchronous
            && matches!(self.code.0, consts::MPP_NOK | consts::MPP_ERR_BUFFER_FULL | consts::MPP_ERR_TIMEOUT)
    }
}

/// A packet and the frame that it was made of.
#[derive(Debug)]
pub struct Encoded {
    /// The bitstream. Empty at the end of the stream, when the rate control drops a frame, and when the hardware fails.
    pub packet: Packet,
    /// The frame. Missing only if the library lost it.
    pub frame: Option<Frame>,
    /// What was given with the frame.
    pub token: Option<u64>,
}

#[derive(Debug)]
struct InFlight {
    frame: Frame,
    token: u64,
}

/// An initialised encoder. All may be called from several threads; typically one puts and another gets.
#[derive(Debug)]
pub struct Encoder {
    handle: Handle,
    coding: Coding,
    mode: InputMode,
    /// Held while the library works on a frame that stays ours (synchronous mode).
    putting: Mutex<()>,
    in_flight: Mutex<VecDeque<InFlight>>,
}

impl Encoder {
    pub(crate) fn new(handle: Handle, coding: Coding, mode: InputMode) -> Self {
        Self { handle, coding, mode, putting: Mutex::new(()), in_flight: Mutex::default() }
    }

    /// Its codec.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// What [`put`](Self::put) does.
    pub fn mode(&self) -> InputMode {
        self.mode
    }

    /// Frames that were put and whose packets were not got.
    pub fn in_flight(&self) -> usize {
        lock(&self.in_flight).len()
    }

    /// A copy of the configuration as it is.
    ///
    /// # Errors
    /// If the library fails.
    pub fn config(&self) -> Result<EncoderConfig, Error> {
        let config = EncoderConfig::new(self.handle.mpp)?;
        // SAFETY: the command fills a configuration.
        unsafe { self.handle.control("MPP_ENC_GET_CFG", consts::MPP_ENC_GET_CFG, config.as_argument()) }?;
        Ok(config)
    }

    /// Makes the changes of a configuration its own: before the first frame, or while it works. Bit rates change
    /// without an IDR, frame rate, GOP, size and format with one.
    ///
    /// # Errors
    /// If the library refuses; the configuration in use is the old one then.
    pub fn apply(&self, config: &EncoderConfig) -> Result<(), Error> {
        // SAFETY: the command reads a configuration.
        unsafe { self.handle.control("MPP_ENC_SET_CFG", consts::MPP_ENC_SET_CFG, config.as_argument()) }
    }

    fn control_number(&self, call: &'static str, command: i32, mut value: i32) -> Result<(), Error> {
        // SAFETY: the commands used with this read a number of four bytes.
        unsafe { self.handle.control(call, command, (&raw mut value).cast()) }
    }

    /// Where parameter sets stand.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn set_header_mode(&self, mode: HeaderMode) -> Result<(), Error> {
        let value = match mode {
            HeaderMode::First => consts::MPP_ENC_HEADER_MODE_DEFAULT,
            HeaderMode::EachIdr => consts::MPP_ENC_HEADER_MODE_EACH_IDR,
        };
        self.control_number("MPP_ENC_SET_HEADER_MODE", consts::MPP_ENC_SET_HEADER_MODE, value)
    }

    /// The library's own SEI.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn set_sei_mode(&self, mode: SeiMode) -> Result<(), Error> {
        let value = match mode {
            SeiMode::Disabled => consts::MPP_ENC_SEI_MODE_DISABLE,
            SeiMode::Sequence => consts::MPP_ENC_SEI_MODE_ONE_SEQ,
            SeiMode::Frame => consts::MPP_ENC_SEI_MODE_ONE_FRAME,
        };
        self.control_number("MPP_ENC_SET_SEI_CFG", consts::MPP_ENC_SET_SEI_CFG, value)
    }

    /// The next frame that a core takes becomes an IDR. In asynchronous mode that may be one that waits already: to be
    /// exact, put the frame when none is in flight.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn request_idr(&self) -> Result<(), Error> {
        // SAFETY: the command takes no argument.
        unsafe {
            self.handle.control("MPP_ENC_SET_IDR_FRAME", consts::MPP_ENC_SET_IDR_FRAME, ptr::null_mut())
        }
    }

    /// The parameter sets, as a byte stream. The next IDR then comes without them, whatever the header mode.
    ///
    /// # Errors
    /// If the library fails.
    pub fn parameter_sets(&self) -> Result<Vec<u8>, Error> {
        let mut memory = vec![0; HEADER_ROOM];
        let mut packet = ScratchPacket::new(self.handle.mpp, &mut memory)?;
        let argument = packet.as_argument();
        // SAFETY: the command fills a packet that is the caller's.
        unsafe { self.handle.control("MPP_ENC_GET_HDR_SYNC", consts::MPP_ENC_GET_HDR_SYNC, argument) }?;
        Ok(packet.written().to_vec())
    }

    /// Gives a frame to the encoder. `token` comes back with its packet.
    ///
    /// # Errors
    /// The frame itself, if the encoder has no room or fails.
    pub fn put(&self, frame: Frame, token: u64) -> Result<(), PutError> {
        let raw = frame.raw();
        let _putting = (self.mode == InputMode::Synchronous).then(|| lock(&self.putting));
        // First, because the packet may come before the call returns.
        lock(&self.in_flight).push_back(InFlight { frame, token });
        // SAFETY: the frame is alive and stays so: it is dropped only after `get` has seen the library give it back,
        // or, in synchronous mode, after this call.
        let code = unsafe { (self.handle.api.encode_put_frame)(self.handle.ctx, raw) };
        if code == consts::MPP_OK {
            return Ok(());
        }
        let mut in_flight = lock(&self.in_flight);
        // The last, as one thread puts; searched, in case that several do.
        let index = in_flight.iter().rposition(|entry| entry.frame.raw() == raw);
        match index.and_then(|index| in_flight.remove(index)) {
            Some(entry) => Err(PutError { frame: entry.frame, code: Code(code), mode: self.mode }),
            // A packet came for a frame that was refused: the library contradicts itself, but the frame is safe.
            None => Ok(()),
        }
    }

    /// Takes a packet, waiting as the output time-out says. `None`: nothing is ready.
    ///
    /// # Errors
    /// If the packet is damaged. There is no error when nothing is ready: releases differ in the code.
    pub fn get(&self) -> Result<Option<Encoded>, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing.
        unsafe { (self.handle.api.encode_get_packet)(self.handle.ctx, &mut raw) };
        if raw.is_null() {
            return Ok(None);
        }
        // SAFETY: the library gave the packet away.
        let mut packet = unsafe { Packet::from_raw(self.handle.mpp, raw) }?;
        let whole = !packet.is_partition() || packet.ends_picture();
        let frame = packet.take_input_frame();
        // In synchronous mode the library may still look at the frame until `put` returns.
        let _putting = (self.mode == InputMode::Synchronous).then(|| lock(&self.putting));
        let mut in_flight = lock(&self.in_flight);
        let entry = match (frame, self.mode) {
            (Some(frame), _) => {
                let index = in_flight.iter().position(|entry| entry.frame.raw() == frame);
                index.and_then(|index| in_flight.remove(index))
            }
            // Here the library keeps the order and tells nothing.
            (None, InputMode::Synchronous) if whole => in_flight.pop_front(),
            (None, _) => None,
        };
        let (frame, token) = entry.map_or((None, None), |entry| (Some(entry.frame), Some(entry.token)));
        Ok(Some(Encoded { packet, frame, token }))
    }

    /// Marks the end of the stream: after all others an empty packet comes, with this token.
    ///
    /// # Errors
    /// If the library fails, or has no room now.
    pub fn put_eos(&self, token: u64) -> Result<(), Error> {
        let mut frame = Frame::new(self.handle.mpp)?;
        frame.set_eos();
        self.put(frame, token).or_else(|error| check("encode_put_frame(eos)", error.code.0))
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // What the library has must come back before anybody may free it.
        let mut patience = Patience::new();
        while self.mode == InputMode::Asynchronous && self.in_flight() > 0 && !patience.is_over() {
            let found = matches!(self.get(), Ok(Some(_)));
            patience.looked(found);
            if !found {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = self.handle.reset();
        let mut in_flight = lock(&self.in_flight);
        if self.mode == InputMode::Asynchronous {
            // The device hangs. These belong to the library: freeing them could free them twice.
            for entry in in_flight.drain(..) {
                std::mem::forget(entry);
            }
        } else {
            // Frames go before their context.
            in_flight.clear();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
