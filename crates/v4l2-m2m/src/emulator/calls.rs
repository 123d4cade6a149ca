// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ioctls of an emulated driver.

use std::ffi::{c_int, c_ulong, c_void};
use std::io;
use std::os::fd::IntoRawFd;

use super::stream::cookie;
use super::{Buffer, EmulatedControl, File, Node, Seen, Side, errno, memory};
use crate::ioctl::Api;
use crate::queue::{Capture, Direction, Output};
use crate::uapi::*;

/// # Safety
/// As [`crate::ops::V4l2Ops::ioctl`].
pub(super) unsafe fn ioctl(
    file: &mut File,
    node: &Node,
    seen: &mut Seen,
    request: c_ulong,
    argument: *mut c_void,
) -> io::Result<()> {
    macro_rules! call {
        ($function:ident $(, $more:expr)*) => {
            // SAFETY: the caller passes the structure that this request is defined with.
            $function(file, unsafe { &mut *argument.cast() } $(, $more)*)
        };
    }
    match request {
        VIDIOC_QUERYCAP => call!(query_capability, node),
        VIDIOC_ENUM_FMT => call!(enumerate_formats, node),
        VIDIOC_ENUM_FRAMESIZES => call!(frame_sizes, node),
        VIDIOC_S_FMT => call!(set_format, node, seen),
        VIDIOC_S_SELECTION => call!(set_selection, node, seen),
        VIDIOC_S_PARM => call!(set_parm, node, seen),
        VIDIOC_QUERY_EXT_CTRL => call!(query_control, node),
        VIDIOC_QUERYMENU => call!(query_menu, node),
        VIDIOC_S_EXT_CTRLS => call!(set_control, node, seen),
        VIDIOC_REQBUFS => call!(request_buffers, node, seen),
        VIDIOC_QUERYBUF => call!(query_buffer),
        VIDIOC_EXPBUF => call!(export_buffer),
        VIDIOC_QBUF => call!(queue_buffer, node),
        VIDIOC_DQBUF => call!(dequeue_buffer, node, seen),
        VIDIOC_STREAMON => call!(stream_on, node, seen),
        VIDIOC_STREAMOFF => call!(stream_off),
        VIDIOC_ENCODER_CMD | VIDIOC_TRY_ENCODER_CMD => call!(command, node, request == VIDIOC_ENCODER_CMD),
        VIDIOC_SUBSCRIBE_EVENT => call!(subscribe),
        VIDIOC_DQEVENT => call!(dequeue_event),
        _ => Err(errno(libc::ENOTTY)),
    }
}

/// Which queue a buffer type means; EINVAL for those of the other variant of the interface.
fn is_capture(file: &File, type_: u32) -> io::Result<bool> {
    if type_ == Capture::buffer_type(file.api) {
        Ok(true)
    } else if type_ == Output::buffer_type(file.api) {
        Ok(false)
    } else {
        Err(errno(libc::EINVAL))
    }
}

fn fill(to: &mut [u8], text: &str) {
    for (to, from) in to.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

fn query_capability(_: &mut File, caps: &mut v4l2_capability, node: &Node) -> io::Result<()> {
    *caps = v4l2_capability::default();
    fill(&mut caps.driver, &node.driver);
    fill(&mut caps.card, "Emulated encoder");
    caps.capabilities = V4L2_CAP_DEVICE_CAPS | node.capabilities;
    caps.device_caps = node.capabilities;
    Ok(())
}

fn enumerate_formats(file: &mut File, desc: &mut v4l2_fmtdesc, node: &Node) -> io::Result<()> {
    let capture = is_capture(file, desc.type_)?;
    let list = if capture { &node.coded } else { &node.raw };
    let format = list.get(desc.index as usize).ok_or_else(|| errno(libc::EINVAL))?;
    desc.pixelformat = format.0;
    desc.flags = if capture { V4L2_FMT_FLAG_COMPRESSED } else { 0 };
    Ok(())
}

fn frame_sizes(_: &mut File, size: &mut v4l2_frmsizeenum, node: &Node) -> io::Result<()> {
    if size.index != 0 {
        return Err(errno(libc::EINVAL));
    }
    // V4L2_FRMSIZE_TYPE_STEPWISE
    size.type_ = 3;
    size.stepwise = node.sizes;
    Ok(())
}

fn set_format(file: &mut File, format: &mut v4l2_format, node: &Node, seen: &mut Seen) -> io::Result<()> {
    let capture = is_capture(file, format.type_)?;
    if !file.side(capture).buffers.is_empty() {
        return Err(errno(libc::EBUSY));
    }
    // SAFETY: any bits are integers.
    let (pix, mp) = unsafe { (format.fmt.pix, format.fmt.pix_mp) };
    let (width, height, code, size, colorspace) = match file.api {
        Api::SinglePlane => (pix.width, pix.height, pix.pixelformat, pix.sizeimage, pix.colorspace),
        Api::MultiPlane => {
            let size = mp.plane_fmt.first().map_or(0, |plane| plane.sizeimage);
            (mp.width, mp.height, mp.pixelformat, size, mp.colorspace)
        }
    };
    let asked = match file.api {
        Api::SinglePlane => pix.bytesperline,
        Api::MultiPlane => mp.plane_fmt.first().map_or(0, |plane| plane.bytesperline),
    };
    let known =
        |list: &[FourCc]| list.iter().find(|one| one.0 == code).or(list.first()).copied().unwrap_or_default();
    if capture {
        file.coded = known(&node.coded);
        file.coded_size = size.clamp(64, 1 << 26);
    } else {
        if let Some(code) = node.faults.format {
            return Err(errno(code));
        }
        let s = node.sizes;
        file.raw = known(&node.raw);
        // To the nearest, as the kernel's helper does.
        let round = |size: u32, step: u32| (size + step / 2) / step.max(1) * step.max(1);
        file.width = round(width.clamp(s.min_width, s.max_width), s.step_width);
        file.height = round(height.clamp(s.min_height, s.max_height), s.step_height);
        file.crop = (file.width, file.height);
        file.stride = if node.faults.fixed_stride { 0 } else { asked };
        seen.colorspace = colorspace;
        if seen.raws.last() != Some(&file.raw) {
            seen.raws.push(file.raw);
        }
    }
    let planes = file.planes(capture);
    let told = |bytes| if capture { bytes } else { node.faults.bytesperline.unwrap_or(bytes) };
    let code = if capture { file.coded } else { file.raw };
    match file.api {
        Api::SinglePlane => {
            let (bytesperline, sizeimage) = planes.first().copied().unwrap_or_default();
            format.fmt.pix = v4l2_pix_format {
                width: file.width,
                height: file.height,
                pixelformat: code.0,
                bytesperline: told(bytesperline),
                sizeimage,
                ..pix
            };
        }
        Api::MultiPlane => {
            let mut mp = v4l2_pix_format_mplane {
                width: file.width,
                height: file.height,
                pixelformat: code.0,
                num_planes: planes.len() as u8,
                ..mp
            };
            for (to, (bytesperline, sizeimage)) in mp.plane_fmt.iter_mut().zip(planes) {
                (to.bytesperline, to.sizeimage) = (told(bytesperline), sizeimage);
            }
            format.fmt.pix_mp = mp;
        }
    }
    Ok(())
}

fn set_selection(
    file: &mut File,
    selection: &mut v4l2_selection,
    node: &Node,
    seen: &mut Seen,
) -> io::Result<()> {
    if node.faults.no_crop || selection.target != V4L2_SEL_TGT_CROP {
        return Err(errno(libc::EINVAL));
    }
    let r = &mut selection.r;
    (r.left, r.top) = (0, 0);
    (r.width, r.height) = (r.width.clamp(2, file.width), r.height.clamp(2, file.height));
    file.crop = (r.width, r.height);
    seen.crop = Some(file.crop);
    Ok(())
}

fn set_parm(file: &mut File, parm: &mut v4l2_streamparm, node: &Node, seen: &mut Seen) -> io::Result<()> {
    is_capture(file, parm.type_)?;
    if let Some(code) = node.faults.parm {
        return Err(errno(code));
    }
    // SAFETY: any bits are integers.
    let interval = unsafe { parm.parm.output }.timeperframe;
    seen.rates.push((interval.denominator, interval.numerator));
    Ok(())
}

fn find(node: &Node, id: u32) -> io::Result<&EmulatedControl> {
    let next = id & V4L2_CTRL_FLAG_NEXT_CTRL != 0;
    let id = id & !V4L2_CTRL_FLAG_NEXT_CTRL;
    let mut controls: Vec<_> = node.controls.iter().collect();
    controls.sort_by_key(|control| control.id);
    let found = controls.into_iter().find(|control| if next { control.id > id } else { control.id == id });
    found.ok_or_else(|| errno(libc::EINVAL))
}

fn query_control(_: &mut File, query: &mut v4l2_query_ext_ctrl, node: &Node) -> io::Result<()> {
    let control = find(node, query.id)?;
    let (minimum, maximum, step, default_value) = control.range;
    *query = v4l2_query_ext_ctrl {
        id: control.id,
        type_: control.kind,
        minimum,
        maximum,
        step,
        default_value,
        ..Default::default()
    };
    fill(&mut query.name, control.name);
    Ok(())
}

fn query_menu(_: &mut File, menu: &mut v4l2_querymenu, node: &Node) -> io::Result<()> {
    let control = find(node, menu.id)?;
    let index = i64::from(menu.index);
    if control.kind != V4L2_CTRL_TYPE_MENU || index < control.range.0 || index > control.range.1 {
        return Err(errno(libc::EINVAL));
    }
    Ok(())
}

fn set_control(
    file: &mut File,
    controls: &mut v4l2_ext_controls,
    node: &Node,
    seen: &mut Seen,
) -> io::Result<()> {
    if controls.count != 1 || controls.controls.is_null() {
        return Err(errno(libc::EINVAL));
    }
    // SAFETY: it points to as many controls as it says.
    let control = unsafe { controls.controls.read_unaligned() };
    let (id, value) = (control.id, control.value);
    // SAFETY: any bits are an integer.
    let value = i64::from(unsafe { value.value });
    let info = find(node, id)?;
    if node.faults.busy.contains(&id) && file.output.streaming {
        return Err(errno(libc::EBUSY));
    }
    if info.kind == V4L2_CTRL_TYPE_BUTTON {
        file.force_key |= id == V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME && !node.faults.ignore_force_key;
    } else if value < info.range.0 || value > info.range.1 {
        return Err(errno(libc::ERANGE));
    }
    file.values.insert(id, value);
    seen.controls.push((id, value));
    Ok(())
}

fn request_buffers(
    file: &mut File,
    request: &mut v4l2_requestbuffers,
    node: &Node,
    seen: &mut Seen,
) -> io::Result<()> {
    let capture = is_capture(file, request.type_)?;
    if file.side(capture).streaming {
        return Err(errno(libc::EBUSY));
    }
    let dmabuf = request.memory == V4L2_MEMORY_DMABUF;
    if (dmabuf && (capture || node.faults.no_dmabuf)) || (!dmabuf && request.memory != V4L2_MEMORY_MMAP) {
        return Err(errno(libc::EINVAL));
    }
    request.capabilities = if node.faults.no_orphans { 0 } else { V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS };
    if request.count != 0 {
        *(if capture { &mut seen.coded_buffers } else { &mut seen.raw_buffers }) = request.count;
        request.count = request.count.max(node.faults.least_buffers);
        if node.faults.most_buffers != 0 {
            request.count = request.count.min(node.faults.most_buffers);
        }
    }
    let planes = file.planes(capture);
    let mut buffers = Vec::new();
    for _ in 0..request.count.min(32) {
        let lengths: Vec<u32> = planes.iter().map(|plane| plane.1).collect();
        let memories = if dmabuf {
            Vec::new()
        } else {
            lengths.iter().map(|&length| memory(length)).collect::<Result<_, _>>()?
        };
        buffers.push(Buffer {
            planes: memories,
            used: vec![0; lengths.len()],
            lengths,
            foreign: Vec::new(),
            timestamp: (0, 0),
            in_queue: false,
        });
    }
    *file.side(capture) = Side { memory: request.memory, buffers, ..Side::default() };
    Ok(())
}

/// The planes that a buffer structure points to.
///
/// # Safety
/// It points to as many as it says.
unsafe fn planes_of(buffer: &mut v4l2_buffer) -> &mut [v4l2_plane] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(buffer.m.planes, buffer.length as usize) }
}

fn query_buffer(file: &mut File, buffer: &mut v4l2_buffer) -> io::Result<()> {
    let capture = is_capture(file, buffer.type_)?;
    let (api, index) = (file.api, buffer.index as usize);
    let found = file.side(capture).buffers.get(index).ok_or_else(|| errno(libc::EINVAL))?;
    match api {
        Api::SinglePlane => {
            buffer.length = found.lengths.first().copied().unwrap_or_default();
            buffer.m.offset = cookie(capture, index, 0);
        }
        Api::MultiPlane => {
            // SAFETY: the caller passes as many planes as it says.
            for (plane, to) in unsafe { planes_of(buffer) }.iter_mut().enumerate().take(found.lengths.len()) {
                to.length = found.lengths.get(plane).copied().unwrap_or_default();
                to.m.mem_offset = cookie(capture, index, plane);
            }
            buffer.length = found.lengths.len() as u32;
        }
    }
    Ok(())
}

fn export_buffer(file: &mut File, export: &mut v4l2_exportbuffer) -> io::Result<()> {
    let capture = is_capture(file, export.type_)?;
    let buffer = file.side(capture).buffers.get(export.index as usize);
    let plane = buffer.and_then(|buffer| buffer.planes.get(export.plane as usize));
    export.fd = plane.ok_or_else(|| errno(libc::EINVAL))?.try_clone()?.into_raw_fd();
    Ok(())
}

fn queue_buffer(file: &mut File, buffer: &mut v4l2_buffer, node: &Node) -> io::Result<()> {
    let capture = is_capture(file, buffer.type_)?;
    if capture && node.faults.gone_requeueing {
        return Err(errno(libc::ENODEV));
    }
    let api = file.api;
    let side = file.side(capture);
    if buffer.memory != side.memory {
        return Err(errno(libc::EINVAL));
    }
    let found = side.buffers.get_mut(buffer.index as usize).ok_or_else(|| errno(libc::EINVAL))?;
    if found.in_queue {
        return Err(errno(libc::EINVAL));
    }
    if !capture && buffer.memory == V4L2_MEMORY_DMABUF {
        if let Some((count, code)) = node.faults.refuse_dmabuf
            && file.imported >= count
        {
            return Err(errno(code));
        }
        file.imported += 1;
    }
    let side = file.side(capture);
    let found = side.buffers.get_mut(buffer.index as usize).ok_or_else(|| errno(libc::EINVAL))?;
    let single = [v4l2_plane { bytesused: buffer.bytesused, length: buffer.length, ..Default::default() }];
    let dmabuf = side.memory == V4L2_MEMORY_DMABUF;
    let planes: &[v4l2_plane] = match api {
        Api::SinglePlane => &single,
        // SAFETY: the caller passes as many planes as it says.
        Api::MultiPlane => unsafe { std::slice::from_raw_parts(buffer.m.planes, buffer.length as usize) },
    };
    if planes.len() < found.lengths.len() {
        return Err(errno(libc::EINVAL));
    }
    if !capture {
        for (plane, &length) in planes.iter().zip(&found.lengths) {
            if plane.bytesused > length.saturating_add(plane.data_offset) || (dmabuf && plane.length < length)
            {
                return Err(errno(libc::EINVAL));
            }
        }
        found.used = planes.iter().map(|plane| plane.bytesused.saturating_sub(plane.data_offset)).collect();
        // SAFETY: any bits are integers.
        let fd =
            |plane: &v4l2_plane| unsafe { if api == Api::SinglePlane { buffer.m.fd } else { plane.m.fd } };
        if dmabuf {
            found.foreign = planes.iter().map(|plane| (fd(plane), plane.data_offset)).collect();
        }
        if buffer.flags & V4L2_BUF_FLAG_TIMESTAMP_COPY != 0 {
            // 32 bits on some targets.
            #[allow(clippy::unnecessary_cast)]
            let timestamp = (buffer.timestamp.tv_sec as i64, buffer.timestamp.tv_usec as i64);
            found.timestamp = timestamp;
        }
    }
    found.in_queue = true;
    side.queued.push_back(buffer.index as usize);
    Ok(())
}

fn dequeue_buffer(file: &mut File, buffer: &mut v4l2_buffer, node: &Node, seen: &mut Seen) -> io::Result<()> {
    let capture = is_capture(file, buffer.type_)?;
    if !file.side(capture).streaming {
        return Err(errno(libc::EINVAL));
    }
    if node.faults.eio_after.is_some_and(|n| file.encoded >= n) {
        return Err(errno(libc::EIO));
    }
    file.proceed(node, seen);
    if capture && file.ended && file.capture.done.is_empty() {
        return Err(errno(libc::EPIPE));
    }
    let api = file.api;
    let side = file.side(capture);
    let done = side.done.pop_front().ok_or_else(|| errno(libc::EAGAIN))?;
    if let Some(found) = side.buffers.get_mut(done.index) {
        found.in_queue = false;
    }
    buffer.index = done.index as u32;
    buffer.flags = done.flags | V4L2_BUF_FLAG_TIMESTAMP_COPY;
    buffer.timestamp = libc::timeval {
        tv_sec: done.timestamp.0 as libc::time_t,
        tv_usec: done.timestamp.1 as libc::suseconds_t,
    };
    match api {
        Api::SinglePlane => buffer.bytesused = done.used,
        Api::MultiPlane => {
            // SAFETY: the caller passes as many planes as it says.
            if let Some(plane) = unsafe { planes_of(buffer) }.first_mut() {
                (plane.bytesused, plane.data_offset) = (done.used, 0);
            }
        }
    }
    file.ended |= done.flags & V4L2_BUF_FLAG_LAST != 0;
    Ok(())
}

fn stream_on(file: &mut File, type_: &mut c_int, node: &Node, seen: &mut Seen) -> io::Result<()> {
    let capture = is_capture(file, *type_ as u32)?;
    if file.side(capture).buffers.is_empty() {
        return Err(errno(libc::EINVAL));
    }
    let level = file.values.get(&V4L2_CID_MPEG_VIDEO_H264_LEVEL).copied().unwrap_or_default();
    if capture && level < node.faults.least_level {
        return Err(errno(libc::ESRCH));
    }
    seen.streams += u64::from(capture);
    file.side(capture).streaming = true;
    Ok(())
}

fn stream_off(file: &mut File, type_: &mut c_int) -> io::Result<()> {
    let capture = is_capture(file, *type_ as u32)?;
    file.stream_off(capture);
    Ok(())
}

fn command(file: &mut File, command: &mut v4l2_encoder_cmd, node: &Node, run: bool) -> io::Result<()> {
    if node.faults.no_command {
        return Err(errno(libc::ENOTTY));
    }
    if command.cmd > V4L2_ENC_CMD_STOP {
        return Err(errno(libc::EINVAL));
    }
    if run {
        if file.stopping && !file.ended {
            return Err(errno(libc::EBUSY));
        }
        if command.cmd == V4L2_ENC_CMD_STOP && file.output.streaming && file.capture.streaming {
            file.stopping = true;
        }
    }
    Ok(())
}

fn subscribe(file: &mut File, subscription: &mut v4l2_event_subscription) -> io::Result<()> {
    if subscription.type_ != V4L2_EVENT_EOS {
        return Err(errno(libc::EINVAL));
    }
    file.subscribed = true;
    Ok(())
}

fn dequeue_event(file: &mut File, event: &mut v4l2_event) -> io::Result<()> {
    if file.events == 0 {
        return Err(errno(libc::ENOENT));
    }
    file.events -= 1;
    *event = v4l2_event { type_: V4L2_EVENT_EOS, ..Default::default() };
    Ok(())
}
