// SPDX-License-Identifier: MIT OR Apache-2.0

//! What applications find in the library. On x86-64 and AArch64 Linux variadic arguments are passed like others, so
//! `v4l2_open` and `v4l2_ioctl` need not be variadic here.

use crate::config::Config;
use crate::device::{Answer, Device};
use crate::format::{Raw, coded_formats};
use crate::report;
use crate::surface::{self, NvBufSurface, Surface, last_errno, lock};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use v4l2_m2m::uapi::{
    self, v4l2_buffer, v4l2_capability, v4l2_control, v4l2_encoder_cmd, v4l2_event, v4l2_event_subscription,
    v4l2_exportbuffer, v4l2_ext_control, v4l2_ext_controls, v4l2_fmtdesc, v4l2_format, v4l2_plane,
    v4l2_requestbuffers, v4l2_streamparm,
};

static DEVICES: LazyLock<Mutex<HashMap<RawFd, Arc<Device>>>> = LazyLock::new(Mutex::default);
/// Threads inside of `v4l2_open`.
static OPENING: AtomicUsize = AtomicUsize::new(0);

fn fail(errno: i32) -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn answer(answer: Answer) -> c_int {
    match answer {
        Ok(()) => 0,
        Err(errno) => fail(errno),
    }
}

fn device(fd: RawFd) -> Option<Arc<Device>> {
    lock(&DEVICES).get(&fd).cloned()
}

/// Opens an encoder.
///
/// # Safety
/// `path` is a string with a terminating zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn v4l2_open(path: *const c_char, flags: c_int, _mode: c_int) -> c_int {
    if path.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    let (node, more) = path.split_once('?').unwrap_or((&path, ""));
    let mut config = Config::default();
    let environment = std::env::var("NV_V4L2_SIM").unwrap_or_default();
    if let Err(part) = config.apply(&environment).and_then(|()| config.apply(more)) {
        report::violation(&config.tag, "configuration", &format!("{part} makes no sense"));
        return fail(libc::EINVAL);
    }
    if !config.node || node != config.node_name() {
        return fail(libc::ENOENT);
    }
    if config.open_errno != 0 {
        return fail(config.open_errno);
    }
    // NVIDIA's library is not safe here (reference §2.1).
    let others = OPENING.fetch_add(1, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(2));
    OPENING.fetch_sub(1, Ordering::SeqCst);
    if others > 0 {
        report::violation(&config.tag, "open-is-serialised", "v4l2_open in two threads at once");
        return fail(libc::EBUSY);
    }
    // The node is a twin of /dev/null: poll(2) on it means nothing, and ioctl(2) answers ENOTTY.
    // SAFETY: a string with a terminating zero.
    let fd = unsafe { libc::open(c"/dev/null".as_ptr(), flags | libc::O_RDWR) };
    if fd < 0 {
        return fail(last_errno());
    }
    let tag = config.tag.clone();
    let opened = Device::new(config, flags & libc::O_NONBLOCK == 0);
    let old = lock(&DEVICES).insert(fd, opened);
    if let Some(old) = old {
        report::violation(&tag, "close-by-v4l2-close", "a device was closed by close(2)");
        old.close();
    }
    fd
}

/// Closes an encoder; the last of its descriptors ends it.
#[unsafe(no_mangle)]
pub extern "C" fn v4l2_close(fd: c_int) -> c_int {
    let closed = lock(&DEVICES).remove(&fd);
    if let Some(device) = closed {
        let shared = lock(&DEVICES).values().any(|other| Arc::ptr_eq(other, &device));
        if !shared {
            device.close();
        }
    }
    // SAFETY: no pointer is passed; the caller gives the descriptor up.
    unsafe { libc::close(fd) }
}

/// Another descriptor of the same encoder.
#[unsafe(no_mangle)]
pub extern "C" fn v4l2_dup(fd: c_int) -> c_int {
    let Some(device) = device(fd) else { return fail(libc::EBADF) };
    // SAFETY: no pointer is passed.
    let other = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if other >= 0 {
        lock(&DEVICES).insert(other, device);
    }
    other
}

/// Nothing can be read from an encoder.
#[unsafe(no_mangle)]
pub extern "C" fn v4l2_read(_fd: c_int, _buffer: *mut c_void, _length: usize) -> isize {
    fail(libc::EINVAL) as isize
}

/// Nothing can be written to an encoder.
#[unsafe(no_mangle)]
pub extern "C" fn v4l2_write(_fd: c_int, _buffer: *const c_void, _length: usize) -> isize {
    fail(libc::EINVAL) as isize
}

/// Not the way to a buffer: exported descriptors are mapped with mmap(2).
#[unsafe(no_mangle)]
pub extern "C" fn v4l2_mmap(_: *mut c_void, _: usize, _: c_int, _: c_int, fd: c_int, _: i64) -> *mut c_void {
    if let Some(device) = device(fd) {
        device.broke("plain-mmap-of-exported-fd", "v4l2_mmap", libc::EINVAL);
    }
    fail(libc::EINVAL);
    libc::MAP_FAILED
}

/// The system's munmap(2).
///
/// # Safety
/// As munmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn v4l2_munmap(address: *mut c_void, length: usize) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(address, length) }
}

/// Not for encoders.
#[unsafe(no_mangle)]
pub extern "C" fn v4l2_fd_open(_fd: c_int, _flags: c_int) -> c_int {
    fail(libc::EINVAL)
}

/// All calls of V4L2.
///
/// # Safety
/// `argument` points to the structure that `request` is defined with; pointers inside it are valid as the request
/// demands, except those of NVIDIA's controls, which are checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn v4l2_ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let Some(device) = device(fd) else {
        // What the node itself would say.
        return fail(if surface::inode(fd).is_some() { libc::ENOTTY } else { libc::EBADF });
    };
    if argument.is_null() {
        return fail(libc::EFAULT);
    }
    if let Err(errno) = device.state().map(drop) {
        return fail(errno);
    }
    // SAFETY: the caller's promise.
    answer(unsafe { dispatch(&device, request, argument) })
}

/// # Safety
/// As [`v4l2_ioctl`], with an argument that is not null.
unsafe fn dispatch(device: &Arc<Device>, request: c_ulong, argument: *mut c_void) -> Answer {
    macro_rules! argument {
        ($type:ty) => {
            // SAFETY: the caller's promise: the argument is the request's structure.
            unsafe { &mut *argument.cast::<$type>() }
        };
    }
    match request {
        uapi::VIDIOC_QUERYCAP => query_capability(argument!(v4l2_capability)),
        uapi::VIDIOC_ENUM_FMT => enumerate(device, argument!(v4l2_fmtdesc))?,
        uapi::VIDIOC_G_FMT => device.get_format(argument!(v4l2_format))?,
        uapi::VIDIOC_S_FMT => device.set_format(argument!(v4l2_format), true)?,
        uapi::VIDIOC_TRY_FMT => device.set_format(argument!(v4l2_format), false)?,
        uapi::VIDIOC_REQBUFS => device.request_buffers(argument!(v4l2_requestbuffers))?,
        uapi::VIDIOC_EXPBUF => device.export_buffer(argument!(v4l2_exportbuffer))?,
        uapi::VIDIOC_QUERYBUF | uapi::VIDIOC_QBUF | uapi::VIDIOC_DQBUF => {
            let buffer = argument!(v4l2_buffer);
            // SAFETY: multi-planar buffers have this member; other types are refused before it is used.
            let planes = unsafe { buffer.m.planes };
            if planes.is_null() || buffer.length == 0 || buffer.length > 8 {
                return Err(device.broke("plane-counts-match", "no planes", libc::EINVAL));
            }
            // SAFETY: the caller's promise: `length` planes are there.
            let planes: &mut [v4l2_plane] =
                unsafe { std::slice::from_raw_parts_mut(planes, buffer.length as usize) };
            match request {
                uapi::VIDIOC_QUERYBUF => device.query_buffer(buffer, planes)?,
                uapi::VIDIOC_QBUF => device.queue_buffer(buffer, planes)?,
                _ => device.dequeue_buffer(buffer, planes)?,
            }
        }
        uapi::VIDIOC_STREAMON => device.stream_on(*argument!(u32))?,
        uapi::VIDIOC_STREAMOFF => device.stream_off(*argument!(u32))?,
        uapi::VIDIOC_S_PARM => device.set_parm(argument!(v4l2_streamparm))?,
        uapi::VIDIOC_G_CTRL => {
            let control = argument!(v4l2_control);
            match control.id {
                uapi::V4L2_CID_MIN_BUFFERS_FOR_OUTPUT => control.value = 1,
                _ => return Err(libc::EINVAL),
            }
        }
        uapi::VIDIOC_S_EXT_CTRLS => {
            let controls = argument!(v4l2_ext_controls);
            // SAFETY: the caller's promise: `count` controls are there.
            unsafe { set_controls(device, controls) }?;
        }
        uapi::VIDIOC_G_EXT_CTRLS => {
            let controls = argument!(v4l2_ext_controls);
            // SAFETY: the caller's promise: `count` controls are there.
            unsafe { get_control(device, controls) }?;
        }
        uapi::VIDIOC_ENCODER_CMD => {
            let command = argument!(v4l2_encoder_cmd);
            device.encoder_cmd(command.cmd, command.flags)?;
        }
        uapi::VIDIOC_SUBSCRIBE_EVENT => device.subscribe(argument!(v4l2_event_subscription).type_)?,
        uapi::VIDIOC_DQEVENT => {
            device.take_event()?;
            *argument!(v4l2_event) = v4l2_event { type_: uapi::V4L2_EVENT_EOS, ..v4l2_event::default() };
        }
        // The node has no QUERY_EXT_CTRL, S_SELECTION, …: controls are tried, not asked for.
        _ => return Err(libc::ENOTTY),
    }
    Ok(())
}

fn query_capability(capability: &mut v4l2_capability) {
    *capability = v4l2_capability::default();
    let copy = |to: &mut [u8], from: &[u8]| to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    copy(&mut capability.driver, b"tegra-video");
    copy(&mut capability.card, b"msenc");
    capability.device_caps = uapi::V4L2_CAP_VIDEO_M2M_MPLANE | uapi::V4L2_CAP_STREAMING;
    capability.capabilities = capability.device_caps | uapi::V4L2_CAP_DEVICE_CAPS;
}

fn enumerate(device: &Device, format: &mut v4l2_fmtdesc) -> Answer {
    let index = format.index as usize;
    let (pixels, flags) = match format.type_ {
        uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE => {
            (coded_formats(device.config.av1).nth(index), uapi::V4L2_FMT_FLAG_COMPRESSED)
        }
        uapi::V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE => (Raw::ALL.get(index).map(|raw| raw.pixels()), 0),
        _ => (None, 0),
    };
    format.pixelformat = pixels.ok_or(libc::EINVAL)?;
    format.flags = flags;
    Ok(())
}

/// # Safety
/// `controls.count` controls are at `controls.controls`.
unsafe fn set_controls(device: &Device, controls: &mut v4l2_ext_controls) -> Answer {
    if controls.which != uapi::V4L2_CTRL_CLASS_CODEC {
        let text = format!("{:#x}", controls.which);
        return Err(device.broke("control-class-is-codec", &text, libc::EINVAL));
    }
    if controls.controls.is_null() && controls.count > 0 {
        return Err(libc::EFAULT);
    }
    for index in 0..controls.count {
        // SAFETY: the caller's promise; the structure is packed, so it is read unaligned.
        let control: v4l2_ext_control =
            unsafe { std::ptr::read_unaligned(controls.controls.add(index as usize)) };
        // SAFETY: every bit pattern is a value of it.
        let union = unsafe { control.value.value64 }.cast_unsigned();
        if let Err(errno) = device.set_control(control.id, control.size, union) {
            controls.error_idx = index;
            return Err(errno);
        }
    }
    Ok(())
}

/// # Safety
/// `controls.count` controls are at `controls.controls`.
unsafe fn get_control(device: &Device, controls: &v4l2_ext_controls) -> Answer {
    if controls.which != uapi::V4L2_CTRL_CLASS_CODEC {
        let text = format!("{:#x}", controls.which);
        return Err(device.broke("control-class-is-codec", &text, libc::EINVAL));
    }
    if controls.controls.is_null() || controls.count != 1 {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise; the structure is packed, so it is read unaligned.
    let control: v4l2_ext_control = unsafe { std::ptr::read_unaligned(controls.controls) };
    let refused = device.config.refuse.iter().any(|refused| refused == "METADATA");
    if control.id != crate::controls::METADATA || refused {
        return Err(libc::EINVAL);
    }
    // SAFETY: every bit pattern is a value of it.
    crate::device::read_metadata(device, unsafe { control.value.value64 }.cast_unsigned())
}

/// `NvBufSurfaceFromFd`: the description of a buffer; −1 for descriptors that are none.
///
/// # Safety
/// `buffer` is valid for writing a pointer.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn NvBufSurfaceFromFd(fd: c_int, buffer: *mut *mut c_void) -> c_int {
    match surface::lookup(fd) {
        Ok(surface) if !buffer.is_null() => {
            // SAFETY: the caller's promise.
            unsafe { *buffer = surface.header().cast() };
            0
        }
        _ => -1,
    }
}

fn known(surface: *const NvBufSurface) -> c_int {
    if surface::by_header(surface).is_some() { 0 } else { -1 }
}

/// `NvBufSurfaceSyncForDevice`: memory is coherent here, but who calls it is counted.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub extern "C" fn NvBufSurfaceSyncForDevice(
    surface: *mut NvBufSurface,
    _index: c_int,
    plane: c_int,
) -> c_int {
    surface::by_header(surface).map_or(-1, |surface| {
        surface.sync(plane);
        0
    })
}

/// `NvBufSurfaceSyncForCpu`: memory is coherent here.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub extern "C" fn NvBufSurfaceSyncForCpu(surface: *mut NvBufSurface, _index: c_int, _plane: c_int) -> c_int {
    known(surface)
}

/// For tests: a surface as a camera or a converter would hand it on; null if `pixels` is no format of OUTPUT with a known
/// colour format (`YM12`, `NM12`). Its `bufferDesc` is a descriptor that can be mapped.
#[unsafe(no_mangle)]
pub extern "C" fn nv_v4l2_sim_surface(
    width: u32,
    height: u32,
    pixels: u32,
    block_linear: c_int,
) -> *mut NvBufSurface {
    match Raw::of(pixels) {
        Some(raw) if raw != Raw::P010 && (1..=16384).contains(&width) && (1..=16384).contains(&height) => {
            Surface::new(raw.layout(width, height), block_linear != 0)
                .map_or(std::ptr::null_mut(), |surface| surface.header())
        }
        _ => std::ptr::null_mut(),
    }
}

/// For tests: gives a surface back.
#[unsafe(no_mangle)]
pub extern "C" fn nv_v4l2_sim_surface_free(surface: *mut NvBufSurface) {
    if let Some(surface) = surface::by_header(surface) {
        surface::forget(surface.inode());
    }
}

/// For tests: open devices with this tag code nothing (`hold` is not 0), until they are told to go on (0).
///
/// # Safety
/// `tag` is a string with a terminating zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nv_v4l2_sim_hold(tag: *const c_char, hold: c_int) {
    // SAFETY: the caller's promise.
    let tag = if tag.is_null() { c"" } else { unsafe { CStr::from_ptr(tag) } }.to_string_lossy();
    let devices: Vec<_> =
        lock(&DEVICES).values().filter(|device| device.config.tag == tag).cloned().collect();
    for device in devices {
        device.any_state().held = hold != 0;
        device.changed.notify_all();
    }
}

/// For tests: what devices with this tag did, as lines (`count NAME N`, `control NAME VALUE`, `violation RULE: TEXT`). Returns the
/// bytes of it; those that fit, and a terminating zero, are written.
///
/// # Safety
/// `tag` is a string with a terminating zero; `buffer` is valid for writing `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nv_v4l2_sim_report(tag: *const c_char, buffer: *mut c_char, length: usize) -> usize {
    // SAFETY: the caller's promise.
    let tag = if tag.is_null() { c"" } else { unsafe { CStr::from_ptr(tag) } };
    let text = report::text(&tag.to_string_lossy());
    if !buffer.is_null() && length > 0 {
        let fitting = text.len().min(length - 1);
        // SAFETY: the caller's promise: `length` bytes, more than are written.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, fitting);
            *buffer.add(fitting) = 0;
        }
    }
    text.len()
}
