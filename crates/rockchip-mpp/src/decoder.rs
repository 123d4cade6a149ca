// SPDX-License-Identifier: MIT OR Apache-2.0

//! A decoder: bitstream in, pictures out.
//!
//! The library announces each format before its first picture and then stands still until it has got memory for it.
//! That is done here, in [`Decoder::get`]. JPEG goes another way through the library (tasks, with memory for each
//! picture brought along), which is hidden here as well.

use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rockchip_mpp_sys::{MppFrame, MppPacket, MppTask, consts};

use crate::buffer::{Buffer, Group};
use crate::config::DecoderConfig;
use crate::context::{Coding, Handle, Timeout};
use crate::error::{Code, Error, check};
use crate::jpeg;
use crate::packet::InputPacket;
use crate::patience::Patience;
use crate::picture::{Format, Picture};

/// Most pictures in the JPEG decoder at once.
const JPEG_TASKS: usize = 4;
/// Fewer buffers stop the library: that many it needs for itself.
const LEAST_BUFFERS: u32 = 4;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// It was copied.
    Taken,
    /// There is no room: [`get`](Decoder::get), then put the same again.
    Full,
}

/// What came out.
#[derive(Debug)]
pub enum Decoded {
    /// A picture. With [`eos`](Picture::eos) nothing follows.
    Picture(Picture),
    /// The pictures that follow have this format. The decoder has its memory already.
    Format(Format),
    /// Nothing follows.
    End,
}

/// A picture on its way through the JPEG decoder. Frame and packet are ours, but in use.
#[derive(Debug)]
struct Job {
    picture: Picture,
    _packet: InputPacket,
}

/// Memory of the JPEG decoder.
#[derive(Debug, Default)]
struct JpegMemory {
    input: Option<Group>,
    output: Option<Group>,
    output_size: usize,
}

/// An initialised decoder. All may be called from several threads; typically one puts and another gets.
#[derive(Debug)]
pub struct Decoder {
    // Jobs go before the context, the context before its memory: this is the order of dropping.
    jobs: Mutex<VecDeque<Job>>,
    handle: Handle,
    coding: Coding,
    output: Timeout,
    group: Mutex<Option<Group>>,
    jpeg: Mutex<JpegMemory>,
    buffers: AtomicU32,
    /// Bytes of a buffer, once told.
    format: Mutex<Option<Format>>,
    /// The end was put (JPEG: nobody but we know of it).
    ending: AtomicBool,
}

impl Decoder {
    pub(crate) fn new(handle: Handle, coding: Coding, output: Timeout) -> Self {
        Self {
            jobs: Mutex::default(),
            handle,
            coding,
            output,
            group: Mutex::default(),
            jpeg: Mutex::default(),
            buffers: AtomicU32::new(24),
            format: Mutex::default(),
            ending: AtomicBool::new(false),
        }
    }

    /// Its codec.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// A copy of the configuration as it is.
    ///
    /// # Errors
    /// If the library fails.
    pub fn config(&self) -> Result<DecoderConfig, Error> {
        let config = DecoderConfig::new(self.handle.mpp)?;
        // SAFETY: the command fills a configuration.
        unsafe { self.handle.control("MPP_DEC_GET_CFG", consts::MPP_DEC_GET_CFG, config.as_argument()) }?;
        Ok(config)
    }

    /// Puts a configuration in force; before the first packet.
    ///
    /// # Errors
    /// If the library refuses it.
    pub fn apply(&self, config: &DecoderConfig) -> Result<(), Error> {
        // SAFETY: the command reads a configuration.
        unsafe { self.handle.control("MPP_DEC_SET_CFG", consts::MPP_DEC_SET_CFG, config.as_argument()) }
    }

    /// How many buffers pictures may lie in, those that the hardware refers to and those that others hold on to together;
    /// 24 unless set. They are allocated as they are needed.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn set_buffers(&self, count: u32) -> Result<(), Error> {
        let count = count.max(LEAST_BUFFERS);
        self.buffers.store(count, Ordering::Relaxed);
        let size = lock(&self.format).map(|format| format.buffer_size);
        match (lock(&self.group).as_ref(), size) {
            (Some(group), Some(size)) => group.limit(size, count),
            _ => Ok(()),
        }
    }

    /// How many buffers pictures may lie in.
    pub fn buffers(&self) -> u32 {
        self.buffers.load(Ordering::Relaxed)
    }

    /// Gives a packet to the decoder: a whole access unit. `pts` comes back with its picture.
    ///
    /// # Errors
    /// If the library refuses it for another reason than the lack of room; for JPEG also if there is no memory, or no
    /// picture in the data.
    pub fn put(&self, data: &[u8], pts: i64) -> Result<Put, Error> {
        if data.is_empty() {
            // To the library that would be the end, or nonsense.
            return Err(Error::Empty);
        }
        if self.coding == Coding::Mjpeg {
            return self.put_jpeg(data, pts);
        }
        self.put_packet(&InputPacket::borrowing(self.handle.mpp, data, pts)?)
    }

    /// Gives what containers keep apart from the pictures (parameter sets, `avcC`, `hvcC`), before the first packet.
    ///
    /// # Errors
    /// If the library refuses it.
    pub fn put_codec_data(&self, data: &[u8]) -> Result<Put, Error> {
        if data.is_empty() {
            return Err(Error::Empty);
        }
        let packet = InputPacket::borrowing(self.handle.mpp, data, 0)?;
        packet.mark_codec_data()?;
        self.put_packet(&packet)
    }

    /// Marks the end of the stream: after the last picture comes [`Decoded::End`], or that picture bears the mark.
    ///
    /// # Errors
    /// If the library refuses it.
    pub fn put_end(&self) -> Result<Put, Error> {
        if self.coding == Coding::Mjpeg {
            self.ending.store(true, Ordering::Release);
            return Ok(Put::Taken);
        }
        let packet = InputPacket::borrowing(self.handle.mpp, &[], 0)?;
        packet.mark_end()?;
        self.put_packet(&packet)
    }

    /// The payload is copied by the library.
    fn put_packet(&self, packet: &InputPacket) -> Result<Put, Error> {
        // SAFETY: the packet is alive, and so is the memory that it describes: the caller of this borrows it.
        let code = unsafe { (self.handle.api.decode_put_packet)(self.handle.ctx, packet.raw()) };
        match code {
            consts::MPP_OK => Ok(Put::Taken),
            consts::MPP_ERR_BUFFER_FULL | consts::MPP_ERR_DISPLAY_FULL | consts::MPP_ERR_TIMEOUT => {
                Ok(Put::Full)
            }
            code => Err(Error::Call { call: "decode_put_packet", code: Code(code) }),
        }
    }

    /// Takes what comes next, waiting as the output time-out says. `None`: nothing is ready. A new format gets its memory
    /// here: buffers of the old one that others hold stay theirs.
    ///
    /// # Errors
    /// If there is no memory for a new format. There is no error when nothing is ready: releases differ in the code.
    pub fn get(&self) -> Result<Option<Decoded>, Error> {
        if self.coding == Coding::Mjpeg {
            return self.get_jpeg();
        }
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing.
        unsafe { (self.handle.api.decode_get_frame)(self.handle.ctx, &mut raw) };
        if raw.is_null() {
            return Ok(None);
        }
        let group = lock(&self.group).clone();
        // SAFETY: the library gave the frame away; its buffer is of the group that was set.
        let picture = unsafe { Picture::from_raw(self.handle.mpp, raw, group) };
        if picture.is_announcement() {
            let format = picture.format();
            self.bring_memory(&format)?;
            return Ok(Some(Decoded::Format(format)));
        }
        if picture.eos() && !picture.has_buffer() {
            return Ok(Some(Decoded::End));
        }
        Ok(Some(Decoded::Picture(picture)))
    }

    fn bring_memory(&self, format: &Format) -> Result<(), Error> {
        *lock(&self.format) = Some(*format);
        let group = {
            let mut slot = lock(&self.group);
            match slot.as_ref() {
                Some(group) => group.clone(),
                None => slot.insert(Group::internal(self.handle.mpp)?).clone(),
            }
        };
        // The same group each time: a new one each time grows, and a smaller limit left on it wedges the decoder.
        group.clear()?;
        group.limit(format.buffer_size, self.buffers())?;
        // SAFETY: the command takes a group, which lives as long as the context and longer.
        unsafe {
            self.handle.control(
                "MPP_DEC_SET_EXT_BUF_GROUP",
                consts::MPP_DEC_SET_EXT_BUF_GROUP,
                group.raw().cast(),
            )?;
            self.handle.control(
                "MPP_DEC_SET_INFO_CHANGE_READY",
                consts::MPP_DEC_SET_INFO_CHANGE_READY,
                ptr::null_mut(),
            )
        }
    }

    /// Forgets all that was put and not got. Decoding goes on at the next keyframe. Also after the end.
    ///
    /// # Errors
    /// If the library fails, or the JPEG decoder still works on a picture after half a second: then the decoder is of no
    /// use any more.
    pub fn reset(&self) -> Result<(), Error> {
        self.ending.store(false, Ordering::Release);
        if self.coding == Coding::Mjpeg {
            self.finish_jobs();
            if !lock(&self.jobs).is_empty() {
                return Err(Error::Stuck);
            }
        }
        self.handle.reset()
    }

    /// A picture's way into the JPEG decoder.
    fn put_jpeg(&self, data: &[u8], pts: i64) -> Result<Put, Error> {
        let (width, height) = jpeg::size(data).ok_or(Error::NoPicture)?;
        if lock(&self.jobs).len() >= JPEG_TASKS {
            return Ok(Put::Full);
        }
        // SAFETY: the context is alive.
        if unsafe {
            (self.handle.api.poll)(self.handle.ctx, consts::MPP_PORT_INPUT, consts::MPP_POLL_NON_BLOCK as i32)
        } < 0
        {
            return Ok(Put::Full);
        }
        let Some((buffer, group)) = self.jpeg_output(width, height)? else { return Ok(Put::Full) };
        let packet = self.jpeg_input(data, pts)?;
        let picture = Picture::around(self.handle.mpp, buffer, group)?;
        let mut task = ptr::null_mut();
        // SAFETY: the context is alive, the pointer valid for writing.
        check("dequeue(input)", unsafe {
            (self.handle.api.dequeue)(self.handle.ctx, consts::MPP_PORT_INPUT, &mut task)
        })?;
        if task.is_null() {
            return Err(Error::Nothing { call: "dequeue(input)" });
        }
        let symbols = self.handle.mpp.symbols();
        // First, because the picture may come before the call returns.
        let (raw_packet, raw_frame) = (packet.raw(), picture.raw());
        lock(&self.jobs).push_back(Job { picture, _packet: packet });
        // SAFETY: task, packet and frame are alive, the latter two until the library has given them back.
        let result = unsafe {
            check("mpp_task_meta_set_packet", {
                (symbols.mpp_task_meta_set_packet)(task, consts::KEY_INPUT_PACKET, raw_packet)
            })
            .and(check("mpp_task_meta_set_frame", {
                (symbols.mpp_task_meta_set_frame)(task, consts::KEY_OUTPUT_FRAME, raw_frame)
            }))
            .and(check(
                "enqueue(input)",
                (self.handle.api.enqueue)(self.handle.ctx, consts::MPP_PORT_INPUT, task),
            ))
        };
        if let Err(error) = result {
            drop(self.take_job(raw_frame));
            return Err(error);
        }
        Ok(Put::Taken)
    }

    /// Memory for a JPEG picture: none if the buffers are all in use.
    fn jpeg_output(&self, width: u32, height: u32) -> Result<Option<(Buffer, Group)>, Error> {
        // What ffmpeg's decoder gives it: blocks of 16, four bytes a pixel. Two are not always enough (4:4:4).
        let size = width.next_multiple_of(16) as usize * height.next_multiple_of(16) as usize * 4;
        let mut memory = lock(&self.jpeg);
        let group = match memory.output.clone() {
            Some(group) => group,
            None => memory.output.insert(Group::internal(self.handle.mpp)?).clone(),
        };
        let count = self.buffers();
        if memory.output_size != size {
            group.clear()?;
            memory.output_size = size;
        }
        group.limit(size, count)?;
        match group.allocate(size) {
            Ok(buffer) => Ok(Some((buffer, group))),
            Err(_) if group.usage() >= size.saturating_mul(count as usize) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A JPEG picture in memory that the hardware can read.
    fn jpeg_input(&self, data: &[u8], pts: i64) -> Result<InputPacket, Error> {
        let group = {
            let mut memory = lock(&self.jpeg);
            match memory.input.clone() {
                Some(group) => group,
                None => memory.input.insert(Group::internal(self.handle.mpp)?).clone(),
            }
        };
        // Few sizes, so that buffers can be used again.
        let room = data.len().checked_next_power_of_two().unwrap_or(data.len()).max(1 << 16);
        let mut buffer = group.allocate(room)?;
        buffer.map_mut()?.get_mut(..data.len()).ok_or(Error::Unmappable)?.copy_from_slice(data);
        InputPacket::owning(self.handle.mpp, buffer, data.len(), pts)
    }

    fn get_jpeg(&self) -> Result<Option<Decoded>, Error> {
        let raw = self.next_jpeg(self.output)?;
        match raw {
            Some(job) => {
                let format = job.picture.format();
                let mut known = lock(&self.format);
                *known = Some(format);
                drop(known);
                Ok(Some(Decoded::Picture(job.picture)))
            }
            None if self.ending.load(Ordering::Acquire) && lock(&self.jobs).is_empty() => {
                self.ending.store(false, Ordering::Release);
                Ok(Some(Decoded::End))
            }
            None => Ok(None),
        }
    }

    fn next_jpeg(&self, timeout: Timeout) -> Result<Option<Job>, Error> {
        if lock(&self.jobs).is_empty() {
            // There would be nothing to wait for.
            return Ok(None);
        }
        let (handle, symbols) = (&self.handle, self.handle.mpp.symbols());
        // SAFETY: the context is alive.
        if unsafe { (handle.api.poll)(handle.ctx, consts::MPP_PORT_OUTPUT, timeout.raw() as i32) } < 0 {
            return Ok(None);
        }
        let mut task: MppTask = ptr::null_mut();
        // SAFETY: the context is alive, the pointer valid for writing.
        let code = unsafe { (handle.api.dequeue)(handle.ctx, consts::MPP_PORT_OUTPUT, &mut task) };
        if code != consts::MPP_OK || task.is_null() {
            return Ok(None);
        }
        let mut frame = ptr::null_mut();
        // SAFETY: the task is alive, the pointer valid for writing. It goes back to the library as it should.
        unsafe {
            (symbols.mpp_task_meta_get_frame)(task, consts::KEY_OUTPUT_FRAME, &mut frame);
            check("enqueue(output)", (handle.api.enqueue)(handle.ctx, consts::MPP_PORT_OUTPUT, task))?;
        }
        // A task without a frame, or with an unknown one: the oldest job is what it was for.
        let job = self.take_job(frame).or_else(|| lock(&self.jobs).pop_front());
        Ok(job.map(|mut job| {
            // It is ours already; taken out of the meta so that nobody finds it there.
            let _: Option<MppPacket> = job.picture.take_packet();
            job
        }))
    }

    fn take_job(&self, frame: MppFrame) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        let index = jobs.iter().position(|job| job.picture.raw() == frame)?;
        jobs.remove(index)
    }

    /// What the JPEG decoder has must come back before anybody may free it.
    fn finish_jobs(&self) {
        let mut patience = Patience::new();
        while !lock(&self.jobs).is_empty() && !patience.is_over() {
            patience.looked(matches!(self.next_jpeg(Timeout::Millis(20)), Ok(Some(_))));
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.finish_jobs();
        // The device hangs. These may be written to still: freeing them could hand their memory to others.
        for job in lock(&self.jobs).drain(..) {
            std::mem::forget(job);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
