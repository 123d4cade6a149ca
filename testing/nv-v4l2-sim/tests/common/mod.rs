// SPDX-License-Identifier: MIT OR Apache-2.0

//! Calls the library as an application does: found by path, functions looked up by name.
#![allow(dead_code, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use nv_v4l2_sim::format::{Layout, Raw};
use sim_codec::Picture;
use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use v4l2_m2m::uapi::*;

pub const CAPTURE: u32 = V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE;
pub const OUTPUT: u32 = V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE;
pub const OWN: u32 = 0x0099_0900;

pub struct Library {
    pub open: unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int,
    pub close: unsafe extern "C" fn(c_int) -> c_int,
    pub dup: unsafe extern "C" fn(c_int) -> c_int,
    pub ioctl: unsafe extern "C" fn(c_int, c_ulong, ...) -> c_int,
    pub mmap: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void,
    pub from_fd: unsafe extern "C" fn(c_int, *mut *mut c_void) -> c_int,
    pub sync: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    pub surface: unsafe extern "C" fn(u32, u32, u32, c_int) -> *mut c_void,
    pub surface_free: unsafe extern "C" fn(*mut c_void),
    pub hold: unsafe extern "C" fn(*const c_char, c_int),
    pub report: unsafe extern "C" fn(*const c_char, *mut c_char, usize) -> usize,
    // Loaded as long as the process lives, as applications must keep NVIDIA's.
    _library: libloading::Library,
}

pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Tests lie beside what they are linked with.
        let path = std::env::current_exe().unwrap().with_file_name("libnv_v4l2_sim.so");
        // SAFETY: the library has no constructors; its functions have these signatures.
        unsafe {
            let library = libloading::Library::new(&path).unwrap();
            Library {
                open: *library.get(b"v4l2_open").unwrap(),
                close: *library.get(b"v4l2_close").unwrap(),
                dup: *library.get(b"v4l2_dup").unwrap(),
                ioctl: *library.get(b"v4l2_ioctl").unwrap(),
                mmap: *library.get(b"v4l2_mmap").unwrap(),
                from_fd: *library.get(b"NvBufSurfaceFromFd").unwrap(),
                sync: *library.get(b"NvBufSurfaceSyncForDevice").unwrap(),
                surface: *library.get(b"nv_v4l2_sim_surface").unwrap(),
                surface_free: *library.get(b"nv_v4l2_sim_surface_free").unwrap(),
                hold: *library.get(b"nv_v4l2_sim_hold").unwrap(),
                report: *library.get(b"nv_v4l2_sim_report").unwrap(),
                _library: library,
            }
        }
    })
}

pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

/// No wait is for a time: this is only when to give up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An open encoder. Closed when dropped.
pub struct Device {
    pub fd: c_int,
    pub tag: String,
}

/// Opens are serialised, as applications have to do it. Wrong tries are let out by one test.
pub static OPEN: std::sync::Mutex<()> = std::sync::Mutex::new(());

pub fn raw_open(path: &str, flags: c_int) -> Result<c_int, i32> {
    let path = CString::new(path).unwrap();
    // SAFETY: a string with a terminating zero.
    let fd = unsafe { (library().open)(path.as_ptr(), flags, 0) };
    if fd < 0 { Err(errno()) } else { Ok(fd) }
}

impl Device {
    pub fn open(config: &str) -> Result<Self, i32> {
        Self::open_with("/dev/v4l2-nvenc", config, libc::O_RDWR | libc::O_NONBLOCK)
    }

    pub fn open_with(node: &str, config: &str, flags: c_int) -> Result<Self, i32> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let tag = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let _guard = OPEN.lock();
        let fd = raw_open(&format!("{node}?tag={tag},{config}"), flags)?;
        Ok(Self { fd, tag })
    }

    pub fn ioctl<T>(&self, request: c_ulong, argument: &mut T) -> Result<(), i32> {
        // SAFETY: callers pass the request's structure.
        let done = unsafe { (library().ioctl)(self.fd, request, std::ptr::from_mut(argument)) };
        if done < 0 { Err(errno()) } else { Ok(()) }
    }

    pub fn format(
        &self,
        request: c_ulong,
        kind: u32,
        pixels: &[u8; 4],
        size: (u32, u32),
        bytes: u32,
    ) -> Result<v4l2_pix_format_mplane, i32> {
        let mut format = v4l2_format { type_: kind, ..Default::default() };
        let mut pix = v4l2_pix_format_mplane { width: size.0, height: size.1, ..Default::default() };
        pix.pixelformat = FourCc::new(pixels).0;
        pix.plane_fmt[0].sizeimage = bytes;
        pix.num_planes = 1;
        format.fmt.pix_mp = pix;
        self.ioctl(request, &mut format)?;
        // SAFETY: a multi-planar type was asked for.
        Ok(unsafe { format.fmt.pix_mp })
    }

    pub fn set_coded(
        &self,
        pixels: &[u8; 4],
        width: u32,
        height: u32,
    ) -> Result<v4l2_pix_format_mplane, i32> {
        self.format(VIDIOC_S_FMT, CAPTURE, pixels, (width, height), 2 << 20)
    }

    pub fn set_raw(&self, pixels: &[u8; 4], width: u32, height: u32) -> Result<v4l2_pix_format_mplane, i32> {
        self.format(VIDIOC_S_FMT, OUTPUT, pixels, (width, height), 0)
    }

    pub fn formats(&self) {
        self.set_coded(b"H264", 320, 240).unwrap();
        self.set_raw(b"YM12", 320, 240).unwrap();
    }

    fn ext_control(&self, which: u32, control: v4l2_ext_control) -> Result<(), i32> {
        let mut control = control;
        let mut controls =
            v4l2_ext_controls { which, count: 1, controls: &raw mut control, ..Default::default() };
        self.ioctl(VIDIOC_S_EXT_CTRLS, &mut controls)
    }

    pub fn control(&self, id: u32, value: i32) -> Result<(), i32> {
        self.control_in(V4L2_CTRL_CLASS_CODEC, id, value)
    }

    pub fn control_in(&self, which: u32, id: u32, value: i32) -> Result<(), i32> {
        let mut control = v4l2_ext_control { id, ..Default::default() };
        control.value.value = value;
        self.ext_control(which, control)
    }

    pub fn pointer(&self, id: u32, size: u32, words: &mut [u32]) -> Result<(), i32> {
        let mut control = v4l2_ext_control { id, size, ..Default::default() };
        control.value.ptr = words.as_mut_ptr().cast();
        self.ext_control(V4L2_CTRL_CLASS_CODEC, control)
    }

    pub fn parm(&self, fps: u32) -> Result<(), i32> {
        let mut parm = v4l2_streamparm { type_: OUTPUT, ..Default::default() };
        parm.parm.output.timeperframe = v4l2_fract { numerator: 1, denominator: fps };
        self.ioctl(VIDIOC_S_PARM, &mut parm)
    }

    pub fn request(&self, kind: u32, memory: u32, count: u32) -> Result<u32, i32> {
        let mut request = v4l2_requestbuffers { count, type_: kind, memory, ..Default::default() };
        self.ioctl(VIDIOC_REQBUFS, &mut request)?;
        Ok(request.count)
    }

    pub fn buffers(&self) {
        assert_eq!(self.request(OUTPUT, V4L2_MEMORY_MMAP, 4), Ok(4));
        assert_eq!(self.request(CAPTURE, V4L2_MEMORY_MMAP, 4), Ok(4));
    }

    pub fn buffer(
        &self,
        request: c_ulong,
        mut buffer: v4l2_buffer,
        planes: &mut [v4l2_plane],
    ) -> Result<v4l2_buffer, i32> {
        buffer.length = planes.len() as u32;
        buffer.m.planes = planes.as_mut_ptr();
        self.ioctl(request, &mut buffer)?;
        Ok(buffer)
    }

    pub fn query(&self, kind: u32, index: u32, planes: usize) -> Result<Vec<v4l2_plane>, i32> {
        let mut planes = vec![v4l2_plane::default(); planes];
        let buffer = v4l2_buffer { type_: kind, index, memory: V4L2_MEMORY_MMAP, ..Default::default() };
        let got = self.buffer(VIDIOC_QUERYBUF, buffer, &mut planes)?;
        planes.truncate(got.length as usize);
        Ok(planes)
    }

    pub fn export(&self, kind: u32, index: u32, plane: u32) -> Result<c_int, i32> {
        let flags = (libc::O_RDWR | libc::O_CLOEXEC) as u32;
        let mut export = v4l2_exportbuffer { type_: kind, index, plane, flags, ..Default::default() };
        self.ioctl(VIDIOC_EXPBUF, &mut export)?;
        Ok(export.fd)
    }

    pub fn stream(&self, on: bool, kind: u32) -> Result<(), i32> {
        let request = if on { VIDIOC_STREAMON } else { VIDIOC_STREAMOFF };
        self.ioctl(request, &mut { kind })
    }

    pub fn start(&self) {
        self.stream(true, OUTPUT).unwrap();
        self.stream(true, CAPTURE).unwrap();
    }

    pub fn queue_capture(&self, index: u32) -> Result<(), i32> {
        let buffer = v4l2_buffer { type_: CAPTURE, index, memory: V4L2_MEMORY_MMAP, ..Default::default() };
        self.buffer(VIDIOC_QBUF, buffer, &mut [v4l2_plane::default()]).map(drop)
    }

    pub fn queue_output(&self, index: u32, used: &[u32]) -> Result<(), i32> {
        let buffer = v4l2_buffer { type_: OUTPUT, index, memory: V4L2_MEMORY_MMAP, ..Default::default() };
        let mut planes: Vec<_> =
            used.iter().map(|used| v4l2_plane { bytesused: *used, ..Default::default() }).collect();
        self.buffer(VIDIOC_QBUF, buffer, &mut planes).map(drop)
    }

    pub fn dequeue(&self, kind: u32, planes: usize) -> Result<(v4l2_buffer, u32), i32> {
        let buffer = v4l2_buffer { type_: kind, memory: V4L2_MEMORY_MMAP, ..Default::default() };
        let mut planes = vec![v4l2_plane::default(); planes];
        let got = self.buffer(VIDIOC_DQBUF, buffer, &mut planes)?;
        Ok((got, planes[0].bytesused))
    }

    pub fn report(&self) -> String {
        report(&self.tag)
    }

    /// Whether a rule was reported broken.
    pub fn broke(&self, rule: &str) -> bool {
        self.report().lines().any(|line| line.starts_with(&format!("violation {rule}: ")))
    }

    pub fn count(&self, name: &str) -> i64 {
        let prefix = format!("count {name} ");
        self.report().lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
    }
}

pub fn report(tag: &str) -> String {
    let tag = CString::new(tag).unwrap();
    let mut text = vec![0_u8; 65536];
    // SAFETY: a string with a terminating zero, and a buffer with its length.
    let length = unsafe { (library().report)(tag.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
    assert!(length < text.len());
    CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap().to_owned()
}

/// Lets the devices of a tag code nothing, or go on.
pub fn hold(tag: &str, on: bool) {
    let tag = CString::new(tag).unwrap();
    // SAFETY: a string with a terminating zero.
    unsafe { (library().hold)(tag.as_ptr(), on.into()) };
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: no pointer is passed.
        unsafe { (library().close)(self.fd) };
    }
}

/// A mapping of an exported descriptor.
pub struct Map {
    pub address: *mut u8,
    pub length: usize,
}

impl Map {
    pub fn new(fd: c_int, length: usize, offset: u32) -> Self {
        // SAFETY: the kernel chooses the address.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                offset.into(),
            )
        };
        assert_ne!(address, libc::MAP_FAILED, "errno {}", errno());
        Self { address: address.cast(), length }
    }

    #[allow(clippy::mut_from_ref)]
    pub fn bytes(&self) -> &mut [u8] {
        // SAFETY: the mapping lives as long as this, and one thread of the test uses it.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: made with this address and length.
        unsafe { libc::munmap(self.address.cast(), self.length) };
    }
}

/// A packet.
pub struct Packet {
    pub data: Vec<u8>,
    pub flags: u32,
    pub time: (i64, i64),
}

/// A device that streams, with everything mapped.
pub struct Encoder {
    pub device: Device,
    pub layout: Layout,
    pub pictures: Vec<Vec<Map>>,
    pub packets: Vec<Map>,
    pub fds: Vec<c_int>,
    pub free: Vec<u32>,
}

impl Encoder {
    /// All steps in the order of reference §2.4; `controls` are set at their place.
    pub fn new(
        config: &str,
        coded: &[u8; 4],
        raw: Raw,
        size: (u32, u32),
        controls: impl FnOnce(&Device),
    ) -> Self {
        let device = Device::open(config).unwrap();
        device.set_coded(coded, size.0, size.1).unwrap();
        if coded == b"AV10" {
            device.control(OWN + 569, 1).unwrap();
        }
        let pix = device.set_raw(&raw.pixels().to_le_bytes(), size.0, size.1).unwrap();
        controls(&device);
        device.parm(30).unwrap();
        device.buffers();
        let layout = raw.layout(size.0, size.1);
        assert_eq!(pix.num_planes as usize, layout.planes.len());
        let mut fds = Vec::new();
        let mut map = |kind, index, planes: usize| -> Vec<Map> {
            let planes = device.query(kind, index, planes).unwrap();
            (0..)
                .zip(&planes)
                .map(|(number, plane)| {
                    let fd = device.export(kind, index, number).unwrap();
                    fds.push(fd);
                    // SAFETY: MMAP memory has this member.
                    Map::new(fd, plane.length as usize, unsafe { plane.m.mem_offset })
                })
                .collect()
        };
        let pictures = (0..4).map(|index| map(OUTPUT, index, layout.planes.len())).collect();
        let packets = (0..4).map(|index| map(CAPTURE, index, 1).remove(0)).collect();
        let mut event = v4l2_event_subscription { type_: V4L2_EVENT_EOS, ..Default::default() };
        device.ioctl(VIDIOC_SUBSCRIBE_EVENT, &mut event).unwrap();
        device.start();
        for index in 0..4 {
            device.queue_capture(index).unwrap();
        }
        Self { device, layout, pictures, packets, fds, free: vec![3, 2, 1, 0] }
    }

    pub fn h264(config: &str) -> Self {
        Self::new(config, b"H264", Raw::Yuv420, (320, 240), |_| ())
    }

    /// Queues a picture.
    pub fn put_with(&mut self, picture: &Picture, time: (i64, i64), flags: u32) -> Result<(), i32> {
        let index = self.free.pop().expect("a free buffer");
        let mut memory = vec![0; self.layout.size];
        self.layout.write(picture, &mut memory);
        for (map, plane) in self.pictures[index as usize].iter().zip(&self.layout.planes) {
            map.bytes().copy_from_slice(&memory[plane.at..plane.at + plane.size]);
        }
        let mut buffer =
            v4l2_buffer { type_: OUTPUT, index, memory: V4L2_MEMORY_MMAP, flags, ..Default::default() };
        (buffer.timestamp.tv_sec, buffer.timestamp.tv_usec) = time;
        let mut planes: Vec<_> = self
            .layout
            .planes
            .iter()
            .map(|plane| v4l2_plane { bytesused: plane.size as u32, ..Default::default() })
            .collect();
        self.device.buffer(VIDIOC_QBUF, buffer, &mut planes).map(drop)
    }

    pub fn put(&mut self, number: u32) -> Result<(), i32> {
        let picture = Picture::test_pattern(self.layout.width as usize, self.layout.height as usize, number);
        self.put_with(&picture, (number.into(), 7), V4L2_BUF_FLAG_TIMESTAMP_COPY)
    }

    /// Queues the empty buffer of the end.
    pub fn end(&mut self) {
        let index = self.free.pop().expect("a free buffer");
        self.device.queue_output(index, &vec![0; self.layout.planes.len()]).unwrap();
    }

    /// Takes a picture's buffer back, if one is done.
    pub fn reclaim(&mut self) -> Result<(), i32> {
        let (buffer, _) = self.device.dequeue(OUTPUT, self.layout.planes.len())?;
        self.free.push(buffer.index);
        Ok(())
    }

    /// The next packet; its buffer goes back.
    pub fn get(&mut self) -> Result<Packet, i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.device.dequeue(CAPTURE, 1) {
                Ok((buffer, used)) => {
                    let data = self.packets[buffer.index as usize].bytes()[..used as usize].to_vec();
                    self.device.queue_capture(buffer.index)?;
                    while self.reclaim().is_ok() {}
                    let time = (buffer.timestamp.tv_sec, buffer.timestamp.tv_usec);
                    return Ok(Packet { data, flags: buffer.flags, time });
                }
                Err(libc::EAGAIN) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1))
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// One picture in, one packet out.
    pub fn encode(&mut self, number: u32) -> Packet {
        self.put(number).unwrap();
        self.get().unwrap()
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // The device first, then its descriptors.
        // SAFETY: no pointer is passed; Device's own close then finds nothing.
        unsafe { (library().close)(self.device.fd) };
        self.device.fd = -1;
        for fd in self.fds.drain(..) {
            // SAFETY: no pointer is passed.
            unsafe { libc::close(fd) };
        }
    }
}
