// SPDX-License-Identifier: MIT OR Apache-2.0

//! Buffers: REQBUFS, QUERYBUF, EXPBUF, QBUF, DQBUF.

use crate::config::Eos;
use crate::device::{Answer, Device, State};
use crate::report;
use crate::surface::{self, Memory, Surface, Unknown};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;
use v4l2_m2m::uapi::{
    self, V4L2_BUF_FLAG_LAST, V4L2_BUF_FLAG_TIMESTAMP_COPY, V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
    V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE, V4L2_MEMORY_DMABUF, V4L2_MEMORY_MMAP, v4l2_buffer, v4l2_exportbuffer,
    v4l2_plane, v4l2_requestbuffers,
};

/// Most buffers of a queue.
const MOST: u32 = 32;

/// Memory of a buffer.
#[derive(Clone)]
pub enum Storage {
    /// A picture of ours.
    Picture(Arc<Surface>),
    /// A packet of ours.
    Packet(Arc<Memory>),
    /// Whatever is imported with QBUF.
    Imported,
}

/// One buffer.
pub struct Buffer {
    /// Its memory.
    pub storage: Storage,
    /// With the application, and not with the device.
    pub free: bool,
    /// Of each plane, as queued.
    pub used: Vec<u32>,
    /// Of a packet: begins a keyframe, ends a picture.
    pub about: (bool, bool),
}

/// A buffer that waits to be coded, or the end.
pub struct Queued {
    /// Which; none for the end by command.
    pub index: Option<u32>,
    /// An end.
    pub end: bool,
    /// The picture.
    pub surface: Option<Arc<Surface>>,
    /// Seconds and microseconds, if they are to be copied.
    pub time: (i64, i64),
    /// When it came.
    pub since: Instant,
}

impl Queued {
    /// The end by command.
    pub fn end() -> Self {
        Self { index: None, end: true, surface: None, time: (0, 0), since: Instant::now() }
    }
}

/// A buffer that waits to be fetched.
pub struct Done {
    /// Which.
    pub index: u32,
    /// Bytes.
    pub used: u32,
    /// Flags beside those of memory.
    pub flags: u32,
    /// Seconds and microseconds.
    pub time: (i64, i64),
    /// As in [`Buffer::about`].
    pub about: (bool, bool),
}

/// One of the two queues.
#[derive(Default)]
pub struct Queue {
    /// MMAP or DMABUF.
    pub memory: u32,
    /// By index.
    pub buffers: Vec<Buffer>,
    /// With the device.
    pub queued: VecDeque<Queued>,
    /// To be fetched.
    pub done: VecDeque<Done>,
    /// Between STREAMON and STREAMOFF.
    pub streaming: bool,
    sequence: u32,
}

impl Queue {
    /// Whether REQBUFS has made some.
    pub fn has_buffers(&self) -> bool {
        !self.buffers.is_empty()
    }

    /// STREAMOFF.
    pub fn stop(&mut self) {
        self.streaming = false;
        self.queued.clear();
        self.done.clear();
        for buffer in &mut self.buffers {
            buffer.free = true;
        }
    }
}

fn queue_of(state: &mut State, kind: u32) -> Result<&mut Queue, i32> {
    match kind {
        V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE => Ok(&mut state.output),
        V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE => Ok(&mut state.capture),
        _ => Err(libc::EINVAL),
    }
}

/// Where a plane of a buffer stands in its memory, and how long it is.
fn planes_of(state: &State, kind: u32) -> Vec<(usize, usize)> {
    if kind == V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE {
        state.raw.iter().flat_map(|raw| &raw.planes).map(|plane| (plane.at, plane.size)).collect()
    } else {
        state.coded.iter().map(|coded| (0, coded.size as usize)).collect()
    }
}

impl Device {
    /// METADATA of VIDIOC_G_EXT_CTRLS: what a packet is, while the application has its buffer.
    pub fn metadata(&self, index: u32) -> Result<(bool, bool), i32> {
        let state = self.state()?;
        match state.capture.buffers.get(index as usize) {
            Some(buffer) if buffer.free && state.capture.streaming => Ok(buffer.about),
            _ => Err(self.broke(
                "metadata-of-dequeued",
                "METADATA of a buffer that the device has",
                libc::EINVAL,
            )),
        }
    }

    /// VIDIOC_REQBUFS.
    pub fn request_buffers(&self, request: &mut v4l2_requestbuffers) -> Answer {
        let mut guard = self.state()?;
        let state = &mut *guard;
        let (Some(coded), Some(raw)) = (state.coded, state.raw.clone()) else {
            return Err(self.broke("reqbufs-after-formats", "REQBUFS", libc::EINVAL));
        };
        let output = request.type_ == V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE;
        match (request.memory, output) {
            (V4L2_MEMORY_MMAP, _) | (V4L2_MEMORY_DMABUF, true) => {}
            (_, true) => return Err(self.broke("output-mmap-or-dmabuf", "REQBUFS OUTPUT", libc::EINVAL)),
            (_, false) => return Err(self.broke("capture-mmap-only", "REQBUFS CAPTURE", libc::EINVAL)),
        }
        let queue = queue_of(state, request.type_)?;
        if queue.streaming {
            return Err(self.broke("reqbufs-after-streamoff", "REQBUFS while streaming", libc::EBUSY));
        }
        if request.count > 0 && queue.has_buffers() {
            return Err(self.broke("reqbufs-zero-first", "REQBUFS with buffers", libc::EBUSY));
        }
        request.count = request.count.min(MOST);
        let old = std::mem::take(&mut queue.buffers);
        queue.memory = request.memory;
        let mut inodes = Vec::new();
        for _ in 0..request.count {
            let storage = match (request.memory, output) {
                (V4L2_MEMORY_DMABUF, _) => Storage::Imported,
                (_, true) => {
                    let surface = Surface::new(raw.clone(), false)?;
                    inodes.push(surface.inode());
                    Storage::Picture(surface)
                }
                (_, false) => Storage::Packet(Arc::new(Memory::new(coded.size as usize)?)),
            };
            queue.buffers.push(Buffer { storage, free: true, used: Vec::new(), about: (false, false) });
        }
        state.inodes.extend(inodes);
        for buffer in old {
            if let Storage::Picture(surface) = buffer.storage {
                surface::retire(surface.inode());
            }
        }
        if output && request.count == 0 {
            state.slots.clear();
        }
        Ok(())
    }

    /// VIDIOC_QUERYBUF. `planes` is what `m.planes` leads to.
    pub fn query_buffer(&self, buffer: &mut v4l2_buffer, planes: &mut [v4l2_plane]) -> Answer {
        let mut state = self.state()?;
        let layout = planes_of(&state, buffer.type_);
        let queue = queue_of(&mut state, buffer.type_)?;
        if buffer.index as usize >= queue.buffers.len() {
            return Err(self.broke("buffers-exist", "QUERYBUF of an index that is none", libc::EINVAL));
        }
        if planes.len() < layout.len() {
            return Err(self.broke("plane-counts-match", "QUERYBUF", libc::EINVAL));
        }
        for (to, (at, length)) in planes.iter_mut().zip(&layout) {
            to.length = u32::try_from(*length).unwrap_or(0);
            to.bytesused = 0;
            to.data_offset = 0;
            to.m.mem_offset = u32::try_from(*at).unwrap_or(0);
        }
        buffer.length = u32::try_from(layout.len()).unwrap_or(0);
        (buffer.memory, buffer.flags) = (queue.memory, 0);
        Ok(())
    }

    /// VIDIOC_EXPBUF.
    pub fn export_buffer(&self, export: &mut v4l2_exportbuffer) -> Answer {
        let mut state = self.state()?;
        let planes = planes_of(&state, export.type_).len();
        let queue = queue_of(&mut state, export.type_)?;
        let buffer = queue.buffers.get(export.index as usize).ok_or(libc::EINVAL);
        let buffer = buffer.map_err(|errno| self.broke("buffers-exist", "EXPBUF of no buffer", errno))?;
        if export.plane as usize >= planes {
            return Err(libc::EINVAL);
        }
        let (memory, inode) = match &buffer.storage {
            Storage::Picture(surface) => (&surface.memory, surface.inode()),
            Storage::Packet(memory) => (&**memory, 0),
            Storage::Imported => return Err(libc::EINVAL),
        };
        let close_on_exec = export.flags & u32::try_from(libc::O_CLOEXEC).unwrap_or(0) != 0;
        let fd = memory.export(close_on_exec)?;
        let inode = if inode == 0 { surface::inode(fd).unwrap_or(0) } else { inode };
        if surface::remember(fd, inode) == Err(Unknown::Recycled) {
            // NVIDIA's library would answer with the old buffer; "Wrong buffer index" is what users see.
            return Err(self.broke("exported-fds-stay-open", &format!("{fd} comes again"), libc::EINVAL));
        }
        state.exported.push((fd, inode));
        state.inodes.push(inode);
        export.fd = fd;
        Ok(())
    }

    /// VIDIOC_QBUF. `planes` is what `m.planes` leads to.
    pub fn queue_buffer(&self, buffer: &v4l2_buffer, planes: &[v4l2_plane]) -> Answer {
        let mut guard = self.state()?;
        let state = &mut *guard;
        if let Some(errno) = state.broken {
            return Err(errno);
        }
        let output = buffer.type_ == V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE;
        let layout = planes_of(state, buffer.type_);
        let queue = queue_of(state, buffer.type_)?;
        if !queue.streaming {
            return Err(self.broke("qbuf-after-streamon", "QBUF before STREAMON", libc::EINVAL));
        }
        let memory = queue.memory;
        let Some(entry) = queue.buffers.get(buffer.index as usize) else {
            return Err(self.broke("buffers-exist", "QBUF of an index that is none", libc::EINVAL));
        };
        if buffer.memory != memory {
            return Err(self.broke("memory-kind-matches", "QBUF", libc::EINVAL));
        }
        if !entry.free {
            return Err(self.broke("no-buffer-twice", "QBUF of a buffer that the device has", libc::EINVAL));
        }
        if planes.len() != layout.len() {
            return Err(self.broke("plane-counts-match", "QBUF", libc::EINVAL));
        }
        let first = planes.first().map_or(0, |plane| plane.bytesused);
        let end = output && first == 0;
        let mut surface = None;
        if output && !end {
            for (plane, (_, length)) in planes.iter().zip(&layout) {
                if plane.bytesused == 0 || plane.bytesused as usize > *length {
                    let text = format!("{} of {length}", plane.bytesused);
                    return Err(self.broke("bytesused-of-each-plane", &text, libc::EINVAL));
                }
            }
            surface = match &entry.storage {
                Storage::Picture(surface) => {
                    report::count(&self.config.tag, "synced", i64::from(surface.take_synced()));
                    Some(Arc::clone(surface))
                }
                _ => Some(self.import(state, buffer.index, planes)?),
            };
        }
        let copied = buffer.flags & V4L2_BUF_FLAG_TIMESTAMP_COPY != 0;
        let time = if copied { (buffer.timestamp.tv_sec, buffer.timestamp.tv_usec) } else { (0, 0) };
        let queue = queue_of(state, buffer.type_)?;
        if let Some(entry) = queue.buffers.get_mut(buffer.index as usize) {
            entry.free = false;
            entry.used = planes.iter().map(|plane| plane.bytesused).collect();
        }
        queue.queued.push_back(Queued {
            index: Some(buffer.index),
            end,
            surface,
            time,
            since: Instant::now(),
        });
        drop(guard);
        self.changed.notify_all();
        Ok(())
    }

    /// The picture of an imported descriptor.
    fn import(&self, state: &mut State, index: u32, planes: &[v4l2_plane]) -> Result<Arc<Surface>, i32> {
        // SAFETY: every bit pattern is a descriptor number; with DMABUF memory it is this member.
        let fds: Vec<RawFd> = planes.iter().map(|plane| unsafe { plane.m.fd }).collect();
        let [fd, others @ ..] = fds.as_slice() else { return Err(libc::EINVAL) };
        if others.iter().any(|other| other != fd) {
            return Err(self.broke("one-fd-for-all-planes", "QBUF", libc::EINVAL));
        }
        let surface = surface::lookup(*fd).map_err(|unknown| {
            let rule = match unknown {
                Unknown::Foreign => "only-nvbufsurface",
                Unknown::Recycled => "stable-imported-fds",
            };
            self.broke(rule, &format!("QBUF of {fd}"), libc::EINVAL)
        })?;
        if *state.slots.entry(*fd).or_insert(index) != index {
            return Err(self.broke("stable-imported-fds", &format!("{fd} has another index"), libc::EINVAL));
        }
        if state.raw.as_ref() != Some(&surface.layout) {
            return Err(self.broke("surface-matches-format", "QBUF", libc::EINVAL));
        }
        Ok(surface)
    }

    /// VIDIOC_DQBUF. `planes` is what `m.planes` leads to.
    pub fn dequeue_buffer(&self, buffer: &mut v4l2_buffer, planes: &mut [v4l2_plane]) -> Answer {
        let output = buffer.type_ == V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE;
        let mut guard = self.state()?;
        loop {
            let state = &mut *guard;
            if let Some(errno) = state.gone.or(state.broken) {
                return Err(errno);
            }
            let ended = state.ended;
            let count = planes_of(state, buffer.type_).len();
            let queue = queue_of(state, buffer.type_)?;
            if !queue.streaming {
                return Err(self.broke("dqbuf-while-streaming", "DQBUF before STREAMON", libc::EINVAL));
            }
            if buffer.memory != queue.memory {
                return Err(self.broke("memory-kind-matches", "DQBUF", libc::EINVAL));
            }
            if planes.len() < count {
                return Err(self.broke("plane-counts-match", "DQBUF", libc::EINVAL));
            }
            if let Some(done) = queue.done.pop_front() {
                (buffer.index, buffer.flags) = (done.index, done.flags);
                buffer.field = uapi::V4L2_FIELD_NONE;
                (buffer.timestamp.tv_sec, buffer.timestamp.tv_usec) = done.time;
                buffer.sequence = queue.sequence;
                buffer.length = u32::try_from(count).unwrap_or(0);
                queue.sequence = queue.sequence.wrapping_add(1);
                let entry = queue.buffers.get_mut(done.index as usize).ok_or(libc::EIO)?;
                entry.free = true;
                entry.about = done.about;
                for (plane, used) in planes.iter_mut().zip(&entry.used) {
                    plane.bytesused = *used;
                }
                if let ([plane, ..], false) = (planes, output) {
                    plane.bytesused = done.used;
                    plane.data_offset = 0;
                }
                return Ok(());
            }
            if !output && ended && self.config.eos == Eos::Again {
                buffer.flags |= V4L2_BUF_FLAG_LAST;
                return Err(libc::EAGAIN);
            }
            if !self.blocking {
                report::count(&self.config.tag, "again", 1);
                return Err(libc::EAGAIN);
            }
            if state.closing {
                return Err(libc::EBADF);
            }
            guard = self.wait(guard);
        }
    }
}
