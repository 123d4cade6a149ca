// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an emulated driver does with pictures.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use super::{Done, File, Node, Seen, Side, Work};
use crate::ioctl::Api;
use crate::ops::{SystemCalls, V4l2Ops};
use crate::uapi::*;

/// Offsets of planes, as QUERYBUF tells them: queue, buffer, plane.
pub(super) fn cookie(capture: bool, index: usize, plane: usize) -> u32 {
    (u32::from(capture) << 24) | ((index as u32) << 16) | ((plane as u32) << 12)
}

impl File {
    pub(super) fn new(fd: OwnedFd, index: usize, node: &Node) -> Self {
        let api = if node.capabilities & V4L2_CAP_VIDEO_M2M_MPLANE != 0 {
            Api::MultiPlane
        } else {
            Api::SinglePlane
        };
        let values = node.controls.iter().map(|control| (control.id, control.range.3)).collect();
        Self {
            _fd: fd,
            node: index,
            api,
            coded: node.coded.first().copied().unwrap_or_default(),
            coded_size: 1 << 20,
            stride: 0,
            imported: 0,
            raw: node.raw.first().copied().unwrap_or_default(),
            width: node.sizes.min_width,
            height: node.sizes.min_height,
            crop: (node.sizes.min_width, node.sizes.min_height),
            values,
            output: Side::default(),
            capture: Side::default(),
            work: VecDeque::new(),
            encoded: 0,
            since_key: 0,
            force_key: false,
            headers_sent: false,
            stopping: false,
            ended: false,
            last_queued: false,
            events: 0,
            subscribed: false,
        }
    }

    /// Pieces of memory of a buffer: bytes of a line and of all.
    pub(super) fn planes(&self, capture: bool) -> Vec<(u32, u32)> {
        if capture {
            return vec![(0, self.coded_size)];
        }
        let (stride, height) = (self.stride(), self.height);
        match self.raw {
            V4L2_PIX_FMT_NV12M => vec![(stride, stride * height), (stride, stride * height / 2)],
            V4L2_PIX_FMT_YUV420M => vec![
                (stride, stride * height),
                (stride / 2, stride * height / 4),
                (stride / 2, stride * height / 4),
            ],
            _ => vec![(stride, stride * height * 3 / 2)],
        }
    }

    /// Lines are longer than they need be, so that nobody gets by with the width.
    pub(super) fn stride(&self) -> u32 {
        if self.stride >= self.width { self.stride } else { self.width.next_multiple_of(64) }
    }

    pub(super) fn side(&mut self, capture: bool) -> &mut Side {
        if capture { &mut self.capture } else { &mut self.output }
    }

    pub(super) fn plane_at(&self, offset: u64) -> Option<RawFd> {
        for (capture, side) in [(false, &self.output), (true, &self.capture)] {
            for (index, buffer) in side.buffers.iter().enumerate() {
                for (plane, fd) in buffer.planes.iter().enumerate() {
                    if u64::from(cookie(capture, index, plane)) == offset {
                        return Some(fd.as_raw_fd());
                    }
                }
            }
        }
        None
    }

    pub(super) fn stream_off(&mut self, capture: bool) {
        let side = self.side(capture);
        side.streaming = false;
        side.queued.clear();
        side.done.clear();
        for buffer in &mut side.buffers {
            buffer.in_queue = false;
        }
        self.work.clear();
        (self.stopping, self.ended, self.last_queued) = (false, false, false);
        // The next picture begins a stream of its own.
        (self.since_key, self.headers_sent) = (0, false);
    }

    fn value(&self, id: u32) -> i64 {
        self.values.get(&id).copied().unwrap_or_default()
    }

    /// Encodes what is queued, and gives out what is due.
    pub(super) fn proceed(&mut self, node: &Node, seen: &mut Seen) {
        if !self.output.streaming || !self.capture.streaming || node.faults.hang {
            return;
        }
        while let Some(index) = self.output.queued.pop_front() {
            self.encode(index, node, seen);
        }
        let now = Instant::now();
        while self.work.front().is_some_and(|work| work.due <= now) {
            let Some(target) = self.capture.queued.pop_front() else { break };
            let Some(work) = self.work.pop_front() else { break };
            let last = self.stopping && self.work.is_empty() && node.faults.last_with_picture;
            self.last_queued |= last;
            self.deliver(target, work, if last && !node.faults.silent_end { V4L2_BUF_FLAG_LAST } else { 0 });
        }
        if self.stopping && self.work.is_empty() && !self.last_queued && !node.faults.silent_end {
            if let Some(target) = self.capture.queued.pop_front() {
                self.last_queued = true;
                let end = Work { due: now, data: Vec::new(), flags: 0, timestamp: (0, 0) };
                self.deliver(target, end, V4L2_BUF_FLAG_LAST);
            }
            if self.subscribed {
                self.events += 1;
            }
        }
    }

    fn deliver(&mut self, target: usize, work: Work, flags: u32) {
        let Some(buffer) = self.capture.buffers.get_mut(target) else { return };
        let length = buffer.lengths.first().copied().unwrap_or_default() as usize;
        let (mut used, mut flags) = (work.data.len(), flags | work.flags);
        if used > length {
            // A coded picture that does not fit is lost.
            (used, flags) = (0, flags | V4L2_BUF_FLAG_ERROR);
        }
        if let Some(fd) = buffer.planes.first() {
            write(fd.as_raw_fd(), work.data.get(..used).unwrap_or_default());
        }
        let done = Done { index: target, used: used as u32, flags, timestamp: work.timestamp };
        self.capture.done.push_back(done);
    }

    fn encode(&mut self, index: usize, node: &Node, seen: &mut Seen) {
        let stride = self.stride() as usize;
        let visible = self.crop.0 as usize;
        let Some(buffer) = self.output.buffers.get(index) else { return };
        let timestamp = buffer.timestamp;
        let used = buffer.used.first().copied().unwrap_or_default();
        self.output.done.push_back(Done { index, used, flags: 0, timestamp });
        if used == 0 {
            // An empty buffer ends the stream.
            self.stopping = true;
            return;
        }
        let (fd, offset) = match buffer.foreign.first() {
            Some(&(fd, offset)) => (fd, offset as usize),
            None => (buffer.planes.first().map_or(-1, AsRawFd::as_raw_fd), 0),
        };
        let line = read(fd, offset, stride.max(visible));
        let corner =
            (line.first().copied().unwrap_or(0), line.get(visible.saturating_sub(1)).copied().unwrap_or(0));
        seen.corners.push(corner);
        seen.pictures += 1;
        let number = self.encoded;
        self.encoded += 1;
        let faults = &node.faults;
        if faults.drop_every.is_some_and(|n| n > 0 && (number + 1).is_multiple_of(n)) {
            return;
        }
        let gop = self.values.get(&V4L2_CID_MPEG_VIDEO_GOP_SIZE).copied().unwrap_or(i64::MAX);
        let key = self.since_key == 0 || self.since_key as i64 >= gop || std::mem::take(&mut self.force_key);
        self.since_key = if key { 1 } else { self.since_key + 1 };
        let timestamp = if faults.no_timestamps { (0, 0) } else { timestamp };
        let due =
            self.work.back().map_or_else(Instant::now, |work| work.due.max(Instant::now())) + node.latency;
        let repeat = self.value(V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER) != 0 && !faults.headers_once;
        let mut data = Vec::new();
        if key && (repeat || !self.headers_sent) {
            data = self.headers();
            self.headers_sent = true;
            if faults.header_buffer {
                let headers = std::mem::take(&mut data);
                self.work.push_back(Work { due, data: headers, flags: 0, timestamp });
            }
        }
        if faults.error_at == Some(number) {
            let flags = V4L2_BUF_FLAG_ERROR;
            self.work.push_back(Work { due, data: Vec::new(), flags, timestamp });
            return;
        }
        data.extend(self.picture(key, corner.0, number));
        let flags = if key && !faults.no_key_flag { V4L2_BUF_FLAG_KEYFRAME } else { 0 };
        self.work.push_back(Work { due, data, flags, timestamp });
    }

    fn headers(&self) -> Vec<u8> {
        const START: [u8; 4] = [0, 0, 0, 1];
        let nal = |bytes: &[u8]| [&START[..], bytes].concat();
        if self.coded == V4L2_PIX_FMT_H264 {
            [nal(&[0x67, 66, 0, 31, 0xff]), nal(&[0x68, 0xce])].concat()
        } else {
            // Main, level 3.1, as its first bytes tell.
            let sps = [0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 93, 0xa0];
            [nal(&[0x40, 1, 0x0c]), nal(&sps), nal(&[0x44, 1, 0xc1])].concat()
        }
    }

    /// A slice that holds the picture's first byte and its number, ones in between so that no start code arises.
    fn picture(&self, key: bool, corner: u8, number: u64) -> Vec<u8> {
        let mut data = vec![0, 0, 0, 1];
        match (self.coded == V4L2_PIX_FMT_H264, key) {
            (true, true) => data.push(0x65),
            (true, false) => data.push(0x41),
            (false, true) => data.extend([19 << 1, 1]),
            (false, false) => data.extend([1 << 1, 1]),
        }
        data.push(0x88);
        data.extend([1, corner]);
        for byte in number.to_be_bytes() {
            data.extend([1, byte]);
        }
        data.push(0x80);
        data
    }
}

fn write(fd: RawFd, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    if let Ok(address) = SystemCalls.mmap(fd, data.len(), 0) {
        // SAFETY: a new mapping of this length; the source is other memory.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr(), address.as_ptr(), data.len());
            SystemCalls.munmap(address, data.len());
        }
    }
}

fn read(fd: RawFd, offset: usize, length: usize) -> Vec<u8> {
    let mut data = vec![0_u8; length];
    // SAFETY: `data` has this many bytes and lives through the call.
    let read = unsafe { libc::pread(fd, data.as_mut_ptr().cast(), length, offset as libc::off_t) };
    data.truncate(usize::try_from(read).unwrap_or(0));
    data
}
