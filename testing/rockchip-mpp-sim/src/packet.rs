// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets: pieces of bitstream, in the caller's memory, in a buffer, or in memory of their own.

use crate::abi::{Id, bytes, copy_to, export, handle, id, load, store};
use crate::control::{COUNTERS, misuse};
use crate::registry::{Registry, lock};
use crate::{buffer, meta};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

/// A packet's fields. Pointers are addresses of memory that the caller, the buffer or `own` keeps.
#[derive(Default)]
pub struct Packet {
    pub data: Address,
    pub size: usize,
    pub pos: Address,
    pub length: usize,
    pub pts: i64,
    pub dts: i64,
    pub flag: u32,
    pub eos: bool,
    pub extra: bool,
    pub buffer: Id,
    pub meta: Id,
    /// Memory of a copy, to which the pointers point.
    pub _own: Vec<u8>,
}

/// A pointer that may change threads: it is only looked at in calls of the application, or while one waits.
#[derive(Clone, Copy)]
pub struct Address(pub *mut u8);

impl Default for Address {
    fn default() -> Self {
        Self(std::ptr::null_mut())
    }
}

// SAFETY: what it points to is the application's memory, whose use the ABI's calls order.
unsafe impl Send for Address {}

impl Packet {
    /// What is still to be read.
    pub fn payload(&self) -> &[u8] {
        bytes(self.pos.0, self.length)
    }
}

pub static PACKETS: Registry<Mutex<Packet>> = Registry::new("packet");

/// A packet in a buffer, which it holds from now on instead of the caller.
pub fn in_buffer(buffer_id: Id, length: usize) -> Packet {
    let buffer = buffer::BUFFERS.find(buffer_id);
    let pointer = buffer.as_ref().and_then(|b| b.mapping().map(|m| m.pointer()));
    let at = Address(pointer.unwrap_or(std::ptr::null_mut()));
    let size = buffer.map_or(0, |b| b.size);
    Packet { data: at, size, pos: at, length, buffer: buffer_id, ..Packet::default() }
}

/// Frees a packet with what it holds.
pub fn deinit(id: Id, what: &str) -> i32 {
    let Some(packet) = PACKETS.remove(id, what) else { return MPP_ERR_NULL_PTR };
    let (buffer, meta) = {
        let packet = lock(&packet);
        (packet.buffer, packet.meta)
    };
    if buffer != 0 {
        buffer::drop_ref(buffer, what);
    }
    if meta != 0 {
        meta::release_meta(meta);
    }
    MPP_OK
}

/// The packet's meta, created if there is none.
pub fn meta_of(id: Id, what: &str) -> Option<Id> {
    let packet = PACKETS.get(id, what)?;
    let mut packet = lock(&packet);
    if packet.meta == 0 {
        packet.meta = meta::create();
    }
    Some(packet.meta)
}

/// Takes a value of the packet's meta, if it has one.
pub fn take_meta(id: Id, key: i32, kind: meta::Kind) -> Option<i64> {
    let meta = lock(&*PACKETS.find(id)?).meta;
    let meta = meta::METAS.find(meta)?;
    lock(&meta.values).take(key, kind)
}

/// A handle in the packet's meta, which stays there.
pub fn peek_meta(id: Id, key: i32) -> Option<Id> {
    let meta = lock(&*PACKETS.find(id)?).meta;
    let meta = meta::METAS.find(meta)?;
    let value = lock(&meta.values).peek(key)?;
    usize::try_from(value).ok()
}

fn get<T>(packet: MppPacket, default: T, f: impl Fn(&Packet) -> T) -> T {
    PACKETS.of(packet, "mpp_packet_get").map_or(default, |packet| f(&lock(&packet)))
}

fn set(packet: MppPacket, f: impl Fn(&mut Packet)) {
    if let Some(packet) = PACKETS.of(packet, "mpp_packet_set") {
        f(&mut lock(&packet));
    }
}

fn new(out: *mut MppPacket, packet: Packet) -> i32 {
    if out.is_null() {
        misuse(format_args!("mpp_packet_init: no place for the handle"));
        return MPP_ERR_NULL_PTR;
    }
    store(out, PACKETS.handle(Mutex::new(packet)));
    MPP_OK
}

fn mark(packet: MppPacket, f: impl Fn(&mut Packet)) -> i32 {
    PACKETS.of(packet, "mpp_packet_set").map_or(MPP_ERR_NULL_PTR, |p| {
        f(&mut lock(&p));
        MPP_OK
    })
}

/// Where `size` bytes at `offset` of the packet's memory are.
fn part(packet: MppPacket, offset: usize, size: usize) -> Result<*mut u8, i32> {
    let Some(packet) = PACKETS.of(packet, "mpp_packet_read/write") else { return Err(MPP_ERR_NULL_PTR) };
    let packet = lock(&packet);
    match offset.checked_add(size) {
        Some(end) if end <= packet.size && !packet.data.0.is_null() => {
            COUNTERS.copied.fetch_add(i64::try_from(size).unwrap_or(0), Relaxed);
            Ok(packet.data.0.wrapping_add(offset))
        }
        _ => Err(MPP_NOK),
    }
}

export! {
    fn mpp_packet_new(packet: *mut MppPacket) -> MppRet { new(packet, Packet::default()) }
    fn mpp_packet_init(packet: *mut MppPacket, data: *mut c_void, size: usize) -> MppRet {
        let at = Address(data.cast());
        new(packet, Packet { data: at, size, pos: at, length: size, ..Packet::default() })
    }
    fn mpp_packet_init_with_buffer(packet: *mut MppPacket, buffer: MppBuffer) -> MppRet {
        // The real library takes NULL here and crashes later.
        if buffer.is_null() {
            misuse(format_args!("mpp_packet_init_with_buffer: the buffer is NULL"));
            return MPP_ERR_NULL_PTR;
        }
        if buffer::hold(id(buffer), "mpp_packet_init_with_buffer") != MPP_OK {
            return MPP_ERR_NULL_PTR;
        }
        let inner = in_buffer(id(buffer), 0);
        let length = inner.size;
        new(packet, Packet { length, ..inner })
    }
    fn mpp_packet_copy_init(packet: *mut MppPacket, src: MppPacket) -> MppRet {
        let Some(src) = PACKETS.of(src, "mpp_packet_copy_init") else { return MPP_ERR_NULL_PTR };
        let copy = {
            let src = lock(&src);
            let mut own = src.payload().to_vec();
            let at = Address(own.as_mut_ptr());
            COUNTERS.copied.fetch_add(i64::try_from(own.len()).unwrap_or(0), Relaxed);
            let (length, flag) = (own.len(), src.flag);
            Packet { data: at, pos: at, size: length, length, pts: src.pts, dts: src.dts, flag, eos: src.eos, extra: src.extra, _own: own, ..Packet::default() }
        };
        new(packet, copy)
    }
    fn mpp_packet_deinit(packet: *mut MppPacket) -> MppRet {
        let Some(h) = load(packet) else { return MPP_ERR_NULL_PTR };
        let code = deinit(id(h), "mpp_packet_deinit");
        store(packet, std::ptr::null_mut());
        code
    }
    fn mpp_packet_get_data(packet: MppPacket) -> *mut c_void { get(packet, Address::default(), |p| p.data).0.cast() }
    fn mpp_packet_set_data(packet: MppPacket, value: *mut c_void) { set(packet, |p| p.data = Address(value.cast())) }
    fn mpp_packet_get_size(packet: MppPacket) -> usize { get(packet, 0, |p| p.size) }
    fn mpp_packet_set_size(packet: MppPacket, value: usize) { set(packet, |p| p.size = value) }
    fn mpp_packet_get_pos(packet: MppPacket) -> *mut c_void { get(packet, Address::default(), |p| p.pos).0.cast() }
    fn mpp_packet_set_pos(packet: MppPacket, value: *mut c_void) {
        set(packet, |p| {
            // What is skipped is no longer there to read.
            let skipped = value.addr().wrapping_sub(p.pos.0.addr());
            p.length = p.length.checked_sub(skipped).unwrap_or(p.length);
            p.pos = Address(value.cast());
        });
    }
    fn mpp_packet_get_length(packet: MppPacket) -> usize { get(packet, 0, |p| p.length) }
    fn mpp_packet_set_length(packet: MppPacket, value: usize) { set(packet, |p| p.length = value) }
    fn mpp_packet_get_pts(packet: MppPacket) -> i64 { get(packet, 0, |p| p.pts) }
    fn mpp_packet_set_pts(packet: MppPacket, value: i64) { set(packet, |p| p.pts = value) }
    fn mpp_packet_get_dts(packet: MppPacket) -> i64 { get(packet, 0, |p| p.dts) }
    fn mpp_packet_set_dts(packet: MppPacket, value: i64) { set(packet, |p| p.dts = value) }
    fn mpp_packet_get_flag(packet: MppPacket) -> u32 { get(packet, 0, |p| p.flag) }
    fn mpp_packet_set_flag(packet: MppPacket, value: u32) { set(packet, |p| p.flag = value) }
    fn mpp_packet_get_buffer(packet: MppPacket) -> MppBuffer { handle(get(packet, 0, |p| p.buffer)) }
    fn mpp_packet_set_buffer(packet: MppPacket, value: MppBuffer) {
        let Some(packet) = PACKETS.of(packet, "mpp_packet_set_buffer") else { return };
        let new = id(value);
        if new != 0 && buffer::hold(new, "mpp_packet_set_buffer") != MPP_OK {
            return;
        }
        let old = std::mem::replace(&mut lock(&packet).buffer, new);
        if old != 0 {
            buffer::drop_ref(old, "mpp_packet_set_buffer");
        }
    }
    fn mpp_packet_set_eos(packet: MppPacket) -> MppRet { mark(packet, |p| p.eos = true) }
    fn mpp_packet_clr_eos(packet: MppPacket) -> MppRet { mark(packet, |p| p.eos = false) }
    fn mpp_packet_get_eos(packet: MppPacket) -> u32 { get(packet, 0, |p| p.eos.into()) }
    fn mpp_packet_set_extra_data(packet: MppPacket) -> MppRet { mark(packet, |p| p.extra = true) }
    fn mpp_packet_read(packet: MppPacket, offset: usize, data: *mut c_void, size: usize) -> MppRet {
        match part(packet, offset, size) {
            Ok(from) => { copy_to(data.cast(), bytes(from, size)); MPP_OK }
            Err(code) => code,
        }
    }
    fn mpp_packet_write(packet: MppPacket, offset: usize, data: *mut c_void, size: usize) -> MppRet {
        match part(packet, offset, size) {
            Ok(to) => { copy_to(to, bytes(data.cast(), size)); MPP_OK }
            Err(code) => code,
        }
    }
    fn mpp_packet_has_meta(packet: MppPacket) -> i32 { get(packet, 0, |p| i32::from(p.meta != 0)) }
    fn mpp_packet_get_meta(packet: MppPacket) -> MppMeta { handle(meta_of(id(packet), "mpp_packet_get_meta").unwrap_or(0)) }
    fn mpp_packet_is_partition(packet: MppPacket) -> u32 { get(packet, 0, |_| 0) }
    fn mpp_packet_is_soi(packet: MppPacket) -> u32 { get(packet, 0, |_| 0) }
    fn mpp_packet_is_eoi(packet: MppPacket) -> u32 { get(packet, 0, |_| 0) }
    fn mpp_packet_get_segment_nb(packet: MppPacket) -> u32 { get(packet, 0, |_| 0) }
    fn mpp_packet_get_segment_info(packet: MppPacket) -> *const MppPktSeg {
        get(packet, std::ptr::null(), |_| std::ptr::null())
    }
}
