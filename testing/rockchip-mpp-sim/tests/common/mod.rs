// SPDX-License-Identifier: MIT OR Apache-2.0

//! An application of the library: loads it like the elements do, calls it through the C ABI.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod dec;

use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use sim_codec::{Picture, RawFormat};

pub const TAG: *const c_char = c"test".as_ptr();

/// A library of its own, with no state shared with other tests.
pub struct Sim {
    pub s: &'static Symbols,
    configure: unsafe extern "C" fn(*const c_char) -> i32,
    count: unsafe extern "C" fn(*const c_char) -> i64,
    message: unsafe extern "C" fn(*mut c_char, usize) -> usize,
}

impl Sim {
    pub fn new(options: &str) -> Self {
        Self::without(options, &[])
    }

    pub fn without(options: &str, missing: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mpp-{}-{number}.so", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        rockchip_mpp_sim::variant(&path, missing).unwrap();
        let s = Library::load(Some(path.as_os_str())).unwrap().symbols();
        // SAFETY: the same library again; its extra functions have these types.
        let (configure, count, message) = unsafe {
            let extra = libloading::os::unix::Library::new(&path).unwrap();
            let found = (
                *extra.get(b"mpp_sim_configure").unwrap(),
                *extra.get(b"mpp_sim_count").unwrap(),
                *extra.get(b"mpp_sim_message").unwrap(),
            );
            std::mem::forget(extra);
            found
        };
        std::fs::remove_file(&path).unwrap();
        let sim = Self { s, configure, count, message };
        sim.set(options);
        sim
    }

    pub fn set(&self, options: &str) {
        let text = CString::new(options).unwrap();
        // SAFETY: a text that ends with zero.
        assert_eq!(unsafe { (self.configure)(text.as_ptr()) }, 0, "{options}");
    }

    pub fn count(&self, name: &str) -> i64 {
        let text = CString::new(name).unwrap();
        // SAFETY: a text that ends with zero.
        let count = unsafe { (self.count)(text.as_ptr()) };
        assert!(count >= 0, "{name} is no counter");
        count
    }

    pub fn message(&self) -> String {
        let mut text = [0_u8; 256];
        // SAFETY: the buffer is as long as said.
        let length = unsafe { (self.message)(text.as_mut_ptr().cast(), text.len()) };
        String::from_utf8_lossy(&text[..length.min(255)]).into_owned()
    }

    /// Asserts that `f` is noted as a misuse.
    pub fn is_misuse<T>(&self, words: &str, f: impl FnOnce() -> T) -> T {
        let before = self.count("misuse");
        let result = f();
        assert_eq!(self.count("misuse"), before + 1, "not noticed: {words}");
        assert!(self.message().contains(words), "{}", self.message());
        result
    }

    /// Asserts that nothing lives any more and nothing was done wrong.
    pub fn is_clean(&self) {
        for name in [
            "contexts", "frames", "packets", "buffers", "groups", "metas", "enc_cfgs", "dec_cfgs",
            "ref_cfgs", "threads",
        ] {
            assert_eq!(self.count(name), 0, "{name} are left");
        }
        assert_eq!((self.count("misuse"), self.count("leaked")), (0, 0), "{}", self.message());
        assert_eq!(self.count("bytes"), 0);
    }

    pub fn group(&self, kind: i32, mode: i32) -> MppBufferGroup {
        let mut group = null_mut();
        // SAFETY: pointers to variables.
        assert_eq!(unsafe { (self.s.mpp_buffer_group_get)(&mut group, kind, mode, TAG, TAG) }, 0);
        group
    }

    pub fn internal_group(&self) -> MppBufferGroup {
        self.group(MPP_BUFFER_TYPE_DMA_HEAP | MPP_BUFFER_FLAGS_CACHABLE, MPP_BUFFER_INTERNAL)
    }

    pub fn buffer(&self, group: MppBufferGroup, size: usize) -> Result<MppBuffer, i32> {
        let mut buffer = null_mut();
        // SAFETY: pointers to variables.
        let code = unsafe { (self.s.mpp_buffer_get_with_tag)(group, &mut buffer, size, TAG, TAG) };
        assert_eq!(code == 0, !buffer.is_null());
        if code == 0 { Ok(buffer) } else { Err(code) }
    }

    pub fn put_buffer(&self, buffer: MppBuffer) -> i32 {
        // SAFETY: any handle is allowed.
        unsafe { (self.s.mpp_buffer_put_with_caller)(buffer, TAG) }
    }

    pub fn put_group(&self, group: MppBufferGroup) {
        // SAFETY: any handle is allowed.
        assert_eq!(unsafe { (self.s.mpp_buffer_group_put)(group) }, 0);
    }

    pub fn import(&self, group: MppBufferGroup, info: MppBufferInfo, commit: bool) -> Result<MppBuffer, i32> {
        let (mut info, mut buffer) = (info, null_mut());
        let out = if commit { null_mut() } else { &raw mut buffer };
        // SAFETY: pointers to variables, or NULL.
        let code = unsafe { (self.s.mpp_buffer_import_with_tag)(group, &mut info, out, TAG, TAG) };
        if code == 0 { Ok(buffer) } else { Err(code) }
    }

    #[expect(clippy::mut_from_ref, reason = "memory shared with the hardware")]
    pub fn memory(&self, buffer: MppBuffer) -> &mut [u8] {
        // SAFETY: the buffer's own pointer and size; tests hold it meanwhile.
        unsafe {
            let pointer: *mut u8 = (self.s.mpp_buffer_get_ptr_with_caller)(buffer, TAG).cast();
            let size = (self.s.mpp_buffer_get_size_with_caller)(buffer, TAG);
            assert!(!pointer.is_null());
            std::slice::from_raw_parts_mut(pointer, size)
        }
    }

    pub fn frame(&self) -> MppFrame {
        let mut frame = null_mut();
        // SAFETY: a pointer to a variable.
        assert_eq!(unsafe { (self.s.mpp_frame_init)(&mut frame) }, 0);
        frame
    }

    pub fn free_frame(&self, frame: MppFrame) -> i32 {
        let mut frame = frame;
        // SAFETY: a pointer to a variable.
        unsafe { (self.s.mpp_frame_deinit)(&mut frame) }
    }

    pub fn free_packet(&self, packet: MppPacket) -> i32 {
        let mut packet = packet;
        // SAFETY: a pointer to a variable.
        unsafe { (self.s.mpp_packet_deinit)(&mut packet) }
    }

    /// The payload of a packet.
    pub fn bytes(&self, packet: MppPacket) -> Vec<u8> {
        // SAFETY: the packet's own pointer and length.
        unsafe {
            let (pos, length) = ((self.s.mpp_packet_get_pos)(packet), (self.s.mpp_packet_get_length)(packet));
            if length == 0 { Vec::new() } else { std::slice::from_raw_parts(pos.cast(), length).to_vec() }
        }
    }

    /// A number of a packet's meta.
    pub fn packet_s32(&self, packet: MppPacket, key: i32) -> Option<i32> {
        let mut value = 0;
        // SAFETY: pointers to variables.
        let code =
            unsafe { (self.s.mpp_meta_get_s32)((self.s.mpp_packet_get_meta)(packet), key, &mut value) };
        (code == 0).then_some(value)
    }

    /// The frame that a packet brings back.
    pub fn input_frame(&self, packet: MppPacket) -> Option<MppFrame> {
        let mut frame = null_mut();
        // SAFETY: pointers to variables.
        let code = unsafe {
            (self.s.mpp_meta_get_frame)((self.s.mpp_packet_get_meta)(packet), KEY_INPUT_FRAME, &mut frame)
        };
        (code == 0).then_some(frame)
    }
}

/// A context.
pub struct Ctx<'a> {
    pub sim: &'a Sim,
    pub ctx: MppCtx,
    pub api: &'static MppApi,
}

impl<'a> Ctx<'a> {
    pub fn create(sim: &'a Sim) -> Self {
        let (mut ctx, mut api) = (null_mut(), null_mut());
        // SAFETY: pointers to variables; the table is static.
        unsafe {
            assert_eq!((sim.s.mpp_create)(&mut ctx, &mut api), 0);
            Self { sim, ctx, api: &*api }
        }
    }

    pub fn timeouts(&self, input: i64, output: i64) {
        for (command, ms) in [(MPP_SET_INPUT_TIMEOUT, input), (MPP_SET_OUTPUT_TIMEOUT, output)] {
            assert_eq!(self.control_with(command, ms), 0);
        }
    }

    pub fn init(&self, side: i32, coding: i32) -> i32 {
        // SAFETY: a context.
        unsafe { (self.sim.s.mpp_init)(self.ctx, side, coding) }
    }

    pub fn control(&self, command: i32, param: *mut c_void) -> i32 {
        // SAFETY: what the command wants is the test's business.
        unsafe { self.api.control.unwrap()(self.ctx, command, param) }
    }

    pub fn control_with<T>(&self, command: i32, value: T) -> i32 {
        let mut value = value;
        self.control(command, (&raw mut value).cast())
    }

    pub fn reset(&self) -> i32 {
        // SAFETY: a context.
        unsafe { self.api.reset.unwrap()(self.ctx) }
    }

    pub fn destroy(self) -> i32 {
        // SAFETY: a context.
        unsafe { (self.sim.s.mpp_destroy)(self.ctx) }
    }
}

/// An encoder with its configuration and input buffers.
pub struct Enc<'a> {
    pub c: Ctx<'a>,
    pub cfg: MppEncCfg,
    pub group: MppBufferGroup,
    pub format: RawFormat,
    pub width: usize,
    pub height: usize,
    pub stride: usize,
    pub rows: usize,
}

pub fn key(name: &str) -> CString {
    CString::new(name).unwrap()
}

impl<'a> Enc<'a> {
    /// NV12 of 320x240, headers at each IDR frame, quantiser 20.
    pub fn open(sim: &'a Sim, coding: i32, input: i64, output: i64) -> Self {
        let c = Ctx::create(sim);
        c.timeouts(input, output);
        assert_eq!(c.init(MPP_CTX_ENC, coding), 0);
        let mut cfg = null_mut();
        // SAFETY: a pointer to a variable.
        assert_eq!(unsafe { (sim.s.mpp_enc_cfg_init)(&mut cfg) }, 0);
        assert_eq!(c.control(MPP_ENC_GET_CFG, cfg.cast()), 0);
        let group = sim.internal_group();
        let (format, width, height, stride, rows) = (RawFormat::Nv12, 320, 240, 320, 240);
        let mut enc = Self { c, cfg, group, format, width, height, stride, rows };
        enc.set("rc:mode", MPP_ENC_RC_MODE_FIXQP);
        enc.set("rc:gop", 0);
        if coding != MPP_VIDEO_CODING_MJPEG {
            enc.set("rc:qp_init", 20);
        }
        enc.shape(MPP_FMT_YUV420SP, RawFormat::Nv12, 320, 240, 320, 240);
        assert_eq!(enc.apply(), 0);
        assert_eq!(enc.c.control_with(MPP_ENC_SET_HEADER_MODE, MPP_ENC_HEADER_MODE_EACH_IDR), 0);
        enc
    }

    pub fn try_set(&self, name: &str, value: i32) -> i32 {
        // SAFETY: a configuration and a text that ends with zero.
        unsafe { (self.c.sim.s.mpp_enc_cfg_set_s32)(self.cfg, key(name).as_ptr(), value) }
    }

    pub fn set(&self, name: &str, value: i32) {
        assert_eq!(self.try_set(name, value), 0, "{name}");
    }

    pub fn get(&self, name: &str) -> i32 {
        let mut value = -77;
        // SAFETY: a configuration, a text that ends with zero, a variable.
        let code = unsafe { (self.c.sim.s.mpp_enc_cfg_get_s32)(self.cfg, key(name).as_ptr(), &mut value) };
        assert_eq!(code, 0, "{name}");
        value
    }

    pub fn shape(
        &mut self,
        number: i32,
        format: RawFormat,
        width: usize,
        height: usize,
        stride: usize,
        rows: usize,
    ) {
        (self.format, self.width, self.height, self.stride, self.rows) =
            (format, width, height, stride, rows);
        for (name, value) in
            [("width", width), ("height", height), ("hor_stride", stride), ("ver_stride", rows)]
        {
            self.set(&format!("prep:{name}"), value.try_into().unwrap());
        }
        self.set("prep:format", number);
    }

    pub fn apply(&self) -> i32 {
        self.c.control(MPP_ENC_SET_CFG, self.cfg.cast())
    }

    /// A frame with a picture in it.
    pub fn frame(&self, picture: &Picture, pts: i64) -> MppFrame {
        let sim = self.c.sim;
        let buffer = sim.buffer(self.group, self.format.size(self.stride, self.rows)).unwrap();
        picture.to_raw(self.format, self.stride, self.rows, sim.memory(buffer)).unwrap();
        let frame = sim.frame();
        // SAFETY: a frame and a buffer.
        unsafe {
            (sim.s.mpp_frame_set_buffer)(frame, buffer);
            (sim.s.mpp_frame_set_pts)(frame, pts);
            (sim.s.mpp_frame_set_width)(frame, self.width.try_into().unwrap());
            (sim.s.mpp_frame_set_height)(frame, self.height.try_into().unwrap());
        }
        // The frame holds it now.
        assert_eq!(sim.put_buffer(buffer), 0);
        frame
    }

    /// A frame with the test pattern of this number; the number is its time stamp.
    pub fn pattern(&self, number: u32) -> MppFrame {
        self.frame(&Picture::test_pattern(self.width, self.height, number), number.into())
    }

    pub fn put(&self, frame: MppFrame) -> i32 {
        // SAFETY: a context and a frame.
        unsafe { self.c.api.encode_put_frame.unwrap()(self.c.ctx, frame) }
    }

    pub fn get_packet(&self) -> (i32, MppPacket) {
        let mut packet = null_mut();
        // SAFETY: a context and a variable.
        let code = unsafe { self.c.api.encode_get_packet.unwrap()(self.c.ctx, &mut packet) };
        (code, packet)
    }

    /// Waits for a packet, whatever the time-out: the library's is not under test.
    pub fn wait(&self) -> MppPacket {
        for _ in 0..30_000 {
            let (_, packet) = self.get_packet();
            if !packet.is_null() {
                return packet;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("no packet");
    }

    /// Puts a frame and takes its packet; frees the frame.
    pub fn one(&self, number: u32) -> Vec<u8> {
        let frame = self.pattern(number);
        assert_eq!(self.put(frame), 0);
        let packet = self.wait();
        // SAFETY: a packet.
        assert_eq!(unsafe { (self.c.sim.s.mpp_packet_get_pts)(packet) }, i64::from(number));
        let data = self.c.sim.bytes(packet);
        let back = self.c.sim.input_frame(packet).unwrap_or(frame);
        assert_eq!(back, frame);
        assert_eq!(self.c.sim.free_frame(frame), 0);
        assert_eq!(self.c.sim.free_packet(packet), 0);
        data
    }

    pub fn close(self) {
        let sim = self.c.sim;
        assert_eq!(self.c.reset(), 0);
        assert_eq!(self.c.destroy(), 0);
        // SAFETY: a configuration.
        assert_eq!(unsafe { (sim.s.mpp_enc_cfg_deinit)(self.cfg) }, 0);
        sim.put_group(self.group);
    }
}

/// Types of the NAL units of an H.264 stream.
pub fn h264_types(data: &[u8]) -> Vec<u8> {
    sim_codec::nal_units(data).map(|u| u[0] & 0x1f).collect()
}

/// Types of the NAL units of an H.265 stream.
pub fn h265_types(data: &[u8]) -> Vec<u8> {
    sim_codec::nal_units(data).map(|u| (u[0] >> 1) & 0x3f).collect()
}

/// No pointer.
pub const NOTHING: *const c_void = null();

/// Memory behind a descriptor, as a foreign dma-buf.
pub fn memfd(size: u64) -> std::os::fd::OwnedFd {
    let fd = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, size).unwrap();
    fd
}
