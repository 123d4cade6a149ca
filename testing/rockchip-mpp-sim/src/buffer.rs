// SPDX-License-Identifier: MIT OR Apache-2.0

//! Buffers and their groups.

use crate::abi::{Id, bytes, copy_to, export, handle, id, load, store};
use crate::control::{COUNTERS, leaked, log, misuse};
use crate::memory::{Mapping, allocate, borrow, duplicate};
use crate::options::options;
use crate::registry::{Registry, lock};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

/// Memory that the hardware reaches.
pub struct Buffer {
    refs: Mutex<i32>,
    kind: i32,
    pub size: usize,
    index: AtomicI32,
    offset: AtomicUsize,
    /// A descriptor of our own: allocated, or duplicated.
    own: Option<OwnedFd>,
    fd: i32,
    mapping: OnceLock<Option<Mapping>>,
    group: Id,
    allocated: bool,
}

impl Buffer {
    /// The memory, mapped when it is first touched; none if the descriptor does not allow it.
    pub fn mapping(&self) -> Option<&Mapping> {
        self.mapping
            .get_or_init(|| match &self.own {
                Some(own) => Mapping::new(own.as_fd(), self.size),
                None => Mapping::new(borrow(self.fd)?, self.size),
            })
            .as_ref()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.allocated {
            BYTES.fetch_sub(self.size, Relaxed);
        }
    }
}

#[derive(Default)]
struct Pool {
    unused: BTreeSet<Id>,
    used: BTreeSet<Id>,
    limit_size: usize,
    limit_count: usize,
    /// Used buffers that are not to come back: the group was cleared.
    orphans: BTreeSet<Id>,
}

/// A pool of buffers.
pub struct Group {
    mode: i32,
    kind: i32,
    pool: Mutex<Pool>,
}

pub static BUFFERS: Registry<Buffer> = Registry::new("buffer");
pub static GROUPS: Registry<Group> = Registry::new("buffer group");
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes that internal groups hold.
pub fn allocated_bytes() -> usize {
    BYTES.load(Relaxed)
}

/// A new group.
pub fn new_group(kind: i32, mode: i32) -> Id {
    GROUPS.insert(Group { mode, kind, pool: Mutex::default() })
}

fn known_kind(kind: i32) -> bool {
    (MPP_BUFFER_TYPE_NORMAL..=MPP_BUFFER_TYPE_DMA_HEAP).contains(&(kind & MPP_BUFFER_TYPE_MASK))
}

/// An unused buffer of a group, or one allocated for it, with one holder.
pub fn take(group_id: Id, size: usize) -> Option<Id> {
    let group = GROUPS.get(group_id, "mpp_buffer_get")?;
    let mut pool = lock(&group.pool);
    if pool.limit_size > 0 && size > pool.limit_size {
        log(format_args!(
            "mpp_buffer_get: {size} bytes are more than the group's limit of {}",
            pool.limit_size
        ));
        return None;
    }
    let fitting = pool.unused.iter().copied().find(|b| BUFFERS.find(*b).is_some_and(|b| b.size >= size));
    if let Some(found) = fitting {
        pool.unused.remove(&found);
        pool.used.insert(found);
        *lock(&BUFFERS.find(found)?.refs) = 1;
        return Some(found);
    }
    if group.mode != MPP_BUFFER_INTERNAL || group.kind & MPP_BUFFER_TYPE_MASK == MPP_BUFFER_TYPE_NORMAL {
        return None;
    }
    let count = pool.unused.len() + pool.used.len();
    if pool.limit_count > 0 && count >= pool.limit_count {
        // One that is too small gives way.
        let small = pool.unused.first().copied()?;
        pool.unused.remove(&small);
        BUFFERS.remove(small, "mpp_buffer_get");
    }
    let size = if pool.limit_size > 0 { pool.limit_size } else { size };
    if BYTES.load(Relaxed).saturating_add(size) > options().memory_limit {
        log(format_args!("mpp_buffer_get: out of memory"));
        return None;
    }
    let own = allocate(size)?;
    BYTES.fetch_add(size, Relaxed);
    COUNTERS.allocated.fetch_add(1, Relaxed);
    let buffer = Buffer {
        refs: Mutex::new(1),
        kind: group.kind,
        size,
        index: AtomicI32::new(-1),
        offset: AtomicUsize::new(0),
        fd: own.as_raw_fd(),
        own: Some(own),
        mapping: OnceLock::new(),
        group: group_id,
        allocated: true,
    };
    let id = BUFFERS.insert(buffer);
    pool.used.insert(id);
    Some(id)
}

/// Whether a group could give a buffer of this size now.
pub fn available(group_id: Id, size: usize) -> bool {
    let Some(group) = GROUPS.find(group_id) else { return false };
    let pool = lock(&group.pool);
    if pool.limit_size > 0 && size > pool.limit_size {
        return false;
    }
    pool.unused.iter().any(|b| BUFFERS.find(*b).is_some_and(|b| b.size >= size))
        || group.mode == MPP_BUFFER_INTERNAL
            && (pool.limit_count == 0
                || pool.unused.len() + pool.used.len() < pool.limit_count
                || !pool.unused.is_empty())
}

/// One more holder.
pub fn hold(buffer: Id, what: &str) -> i32 {
    let Some(buffer) = BUFFERS.get(buffer, what) else { return MPP_ERR_NULL_PTR };
    *lock(&buffer.refs) += 1;
    MPP_OK
}

/// One holder less; the last one gives the buffer back to its group, or frees it.
pub fn drop_ref(id: Id, what: &str) -> i32 {
    let Some(buffer) = BUFFERS.get(id, what) else { return MPP_ERR_NULL_PTR };
    let left = {
        let mut refs = lock(&buffer.refs);
        *refs -= 1;
        *refs
    };
    if left > 0 {
        return MPP_OK;
    }
    if left < 0 {
        misuse(format_args!("{what}: the buffer {id:#x} has no holder to give back"));
        *lock(&buffer.refs) = 0;
        return MPP_NOK;
    }
    match GROUPS.find(buffer.group) {
        Some(group) => {
            let mut pool = lock(&group.pool);
            pool.used.remove(&id);
            if pool.orphans.remove(&id) {
                BUFFERS.remove(id, what);
            } else {
                pool.unused.insert(id);
            }
        }
        None => {
            BUFFERS.remove(id, what);
        }
    }
    MPP_OK
}

/// Frees a group's unused buffers; used ones will be freed instead of coming back.
fn clear(group: &Group) {
    let mut pool = lock(&group.pool);
    for buffer in std::mem::take(&mut pool.unused) {
        BUFFERS.remove(buffer, "mpp_buffer_group_clear");
    }
    let used = std::mem::take(&mut pool.used);
    pool.orphans.extend(used);
}

/// Ends a group. Buffers in use live on until they are put, and count as leaked if the application asked for this.
pub fn put_group(id: Id, what: &str) -> i32 {
    let Some(group) = GROUPS.remove(id, what) else { return MPP_ERR_NULL_PTR };
    clear(&group);
    let left = lock(&group.pool).orphans.len();
    leaked(left, format_args!("{what}: {left} buffer(s) of the group are still in use"));
    MPP_OK
}

fn import(group: MppBufferGroup, info: *mut MppBufferInfo, buffer: *mut MppBuffer) -> i32 {
    let Some(wanted) = load(info) else {
        misuse(format_args!("mpp_buffer_import: no info"));
        return MPP_ERR_NULL_PTR;
    };
    if buffer.is_null() && group.is_null() {
        misuse(format_args!("mpp_buffer_import: neither a group nor a place for the handle"));
        return MPP_ERR_NULL_PTR;
    }
    let kind = wanted.buffer_type;
    let dup = match kind & MPP_BUFFER_TYPE_MASK {
        MPP_BUFFER_TYPE_EXT_DMA => false,
        MPP_BUFFER_TYPE_DRM | MPP_BUFFER_TYPE_DMA_HEAP | MPP_BUFFER_TYPE_ION => true,
        _ => {
            log(format_args!("mpp_buffer_import: type {kind:#x} can't be imported"));
            return MPP_NOK;
        }
    };
    if !wanted.ptr.is_null() || wanted.size == 0 || wanted.fd < 0 {
        misuse(format_args!(
            "mpp_buffer_import: wants a size, an fd and no pointer (size {}, fd {}, pointer {:?})",
            wanted.size, wanted.fd, wanted.ptr
        ));
        return MPP_NOK;
    }
    let group_id = id(group);
    if group_id != 0 {
        let Some(group) = GROUPS.get(group_id, "mpp_buffer_import") else { return MPP_ERR_NULL_PTR };
        if group.mode != MPP_BUFFER_EXTERNAL {
            misuse(format_args!("mpp_buffer_commit: the group is internal"));
            return MPP_NOK;
        }
        let pool = lock(&group.pool);
        let count = pool.unused.len() + pool.used.len();
        if pool.limit_count > 0 && count >= pool.limit_count
            || pool.limit_size > 0 && wanted.size < pool.limit_size
        {
            log(format_args!("mpp_buffer_commit: beyond the group's limits"));
            return MPP_NOK;
        }
    }
    let own = if dup {
        match duplicate(wanted.fd) {
            Some(own) => Some(own),
            None => return MPP_NOK,
        }
    } else {
        None
    };
    let imported = Buffer {
        refs: Mutex::new(i32::from(!buffer.is_null())),
        kind,
        size: wanted.size,
        index: AtomicI32::new(wanted.index),
        offset: AtomicUsize::new(0),
        fd: own.as_ref().map_or(wanted.fd, AsRawFd::as_raw_fd),
        own,
        mapping: OnceLock::new(),
        group: group_id,
        allocated: false,
    };
    let imported = BUFFERS.insert(imported);
    if let Some(group) = GROUPS.find(group_id) {
        let mut pool = lock(&group.pool);
        if buffer.is_null() {
            pool.unused.insert(imported)
        } else {
            pool.used.insert(imported)
        };
    }
    store(buffer, handle(imported));
    MPP_OK
}

fn of(buffer: MppBuffer, what: &str) -> Option<Arc<Buffer>> {
    BUFFERS.of(buffer, what)
}

fn sync(buffer: MppBuffer) -> i32 {
    COUNTERS.synced.fetch_add(1, Relaxed);
    of(buffer, "mpp_buffer_sync").map_or(MPP_ERR_NULL_PTR, |_| MPP_OK)
}

fn range(size: usize, offset: usize, length: usize) -> Option<std::ops::Range<usize>> {
    let end = offset.checked_add(length)?;
    (end <= size).then_some(offset..end)
}

export! {
    fn mpp_buffer_import_with_tag(group: MppBufferGroup, info: *mut MppBufferInfo, buffer: *mut MppBuffer, _tag: *const c_char, _caller: *const c_char) -> MppRet {
        import(group, info, buffer)
    }
    fn mpp_buffer_get_with_tag(group: MppBufferGroup, buffer: *mut MppBuffer, size: usize, _tag: *const c_char, _caller: *const c_char) -> MppRet {
        if buffer.is_null() || size == 0 {
            misuse(format_args!("mpp_buffer_get: wants a size and a place for the handle"));
            return MPP_ERR_NULL_PTR;
        }
        // Without a group the library would use one of its own, of NORMAL memory, which the hardware can't reach.
        let found = if group.is_null() { None } else { take(id(group), size) };
        store(buffer, handle(found.unwrap_or(0)));
        if found.is_some() { MPP_OK } else { MPP_NOK }
    }
    fn mpp_buffer_put_with_caller(buffer: MppBuffer, _caller: *const c_char) -> MppRet { drop_ref(id(buffer), "mpp_buffer_put") }
    fn mpp_buffer_inc_ref_with_caller(buffer: MppBuffer, _caller: *const c_char) -> MppRet { hold(id(buffer), "mpp_buffer_inc_ref") }
    fn mpp_buffer_info_get_with_caller(buffer: MppBuffer, info: *mut MppBufferInfo, _caller: *const c_char) -> MppRet {
        let Some(b) = of(buffer, "mpp_buffer_info_get") else { return MPP_ERR_NULL_PTR };
        let ptr = b.mapping.get().and_then(Option::as_ref).map_or(std::ptr::null_mut(), |m| m.pointer().cast());
        let told = MppBufferInfo { buffer_type: b.kind, size: b.size, ptr, hnd: std::ptr::null_mut(), fd: b.fd, index: b.index.load(Relaxed) };
        if store(info, told) { MPP_OK } else { MPP_ERR_NULL_PTR }
    }
    fn mpp_buffer_read_with_caller(buffer: MppBuffer, offset: usize, data: *mut c_void, size: usize, _caller: *const c_char) -> MppRet {
        let Some(b) = of(buffer, "mpp_buffer_read") else { return MPP_ERR_NULL_PTR };
        let Some(from) = b.mapping().and_then(|m| m.bytes().get(range(b.size, offset, size)?)) else { return MPP_NOK };
        copy_to(data.cast(), from);
        COUNTERS.copied.fetch_add(i64::try_from(size).unwrap_or(0), Relaxed);
        MPP_OK
    }
    fn mpp_buffer_write_with_caller(buffer: MppBuffer, offset: usize, data: *mut c_void, size: usize, _caller: *const c_char) -> MppRet {
        let Some(b) = of(buffer, "mpp_buffer_write") else { return MPP_ERR_NULL_PTR };
        let Some(to) = b.mapping().and_then(|m| m.bytes_mut().get_mut(range(b.size, offset, size)?)) else { return MPP_NOK };
        let from = bytes(data.cast(), size);
        if from.len() == to.len() { to.copy_from_slice(from); }
        COUNTERS.copied.fetch_add(i64::try_from(size).unwrap_or(0), Relaxed);
        MPP_OK
    }
    fn mpp_buffer_get_ptr_with_caller(buffer: MppBuffer, _caller: *const c_char) -> *mut c_void {
        let pointer = of(buffer, "mpp_buffer_get_ptr").and_then(|b| b.mapping().map(|m| m.pointer().cast()));
        pointer.unwrap_or(std::ptr::null_mut())
    }
    fn mpp_buffer_get_fd_with_caller(buffer: MppBuffer, _caller: *const c_char) -> c_int {
        of(buffer, "mpp_buffer_get_fd").map_or(-1, |b| b.fd)
    }
    fn mpp_buffer_get_size_with_caller(buffer: MppBuffer, _caller: *const c_char) -> usize {
        of(buffer, "mpp_buffer_get_size").map_or(0, |b| b.size)
    }
    fn mpp_buffer_get_index_with_caller(buffer: MppBuffer, _caller: *const c_char) -> c_int {
        of(buffer, "mpp_buffer_get_index").map_or(-1, |b| b.index.load(Relaxed))
    }
    fn mpp_buffer_set_index_with_caller(buffer: MppBuffer, index: c_int, _caller: *const c_char) -> MppRet {
        of(buffer, "mpp_buffer_set_index").map_or(MPP_ERR_NULL_PTR, |b| { b.index.store(index, Relaxed); MPP_OK })
    }
    fn mpp_buffer_get_offset_with_caller(buffer: MppBuffer, _caller: *const c_char) -> usize {
        of(buffer, "mpp_buffer_get_offset").map_or(0, |b| b.offset.load(Relaxed))
    }
    fn mpp_buffer_set_offset_with_caller(buffer: MppBuffer, offset: usize, _caller: *const c_char) -> MppRet {
        of(buffer, "mpp_buffer_set_offset").map_or(MPP_ERR_NULL_PTR, |b| { b.offset.store(offset, Relaxed); MPP_OK })
    }
    fn mpp_buffer_sync_begin_f(buffer: MppBuffer, _read_only: i32, _caller: *const c_char) -> MppRet { sync(buffer) }
    fn mpp_buffer_sync_end_f(buffer: MppBuffer, _read_only: i32, _caller: *const c_char) -> MppRet { sync(buffer) }
    fn mpp_buffer_sync_partial_begin_f(buffer: MppBuffer, _read_only: i32, _offset: u32, _length: u32, _caller: *const c_char) -> MppRet { sync(buffer) }
    fn mpp_buffer_sync_partial_end_f(buffer: MppBuffer, _read_only: i32, _offset: u32, _length: u32, _caller: *const c_char) -> MppRet { sync(buffer) }
    fn mpp_buffer_group_get(group: *mut MppBufferGroup, buffer_type: i32, mode: i32, _tag: *const c_char, _caller: *const c_char) -> MppRet {
        if group.is_null() || !known_kind(buffer_type) || !(MPP_BUFFER_INTERNAL..=MPP_BUFFER_EXTERNAL).contains(&mode) {
            misuse(format_args!("mpp_buffer_group_get: type {buffer_type:#x}, mode {mode}"));
            return MPP_NOK;
        }
        store(group, handle(new_group(buffer_type, mode)));
        MPP_OK
    }
    fn mpp_buffer_group_put(group: MppBufferGroup) -> MppRet { put_group(id(group), "mpp_buffer_group_put") }
    fn mpp_buffer_group_clear(group: MppBufferGroup) -> MppRet {
        GROUPS.of(group, "mpp_buffer_group_clear").map_or(MPP_ERR_NULL_PTR, |g| { clear(&g); MPP_OK })
    }
    fn mpp_buffer_group_unused(group: MppBufferGroup) -> i32 {
        GROUPS.of(group, "mpp_buffer_group_unused").map_or(MPP_ERR_NULL_PTR, |g| i32::try_from(lock(&g.pool).unused.len()).unwrap_or(i32::MAX))
    }
    fn mpp_buffer_group_usage(group: MppBufferGroup) -> usize {
        GROUPS.of(group, "mpp_buffer_group_usage").map_or(0, |g| {
            let pool = lock(&g.pool);
            pool.unused.iter().chain(&pool.used).filter_map(|b| BUFFERS.find(*b)).map(|b| b.size).sum()
        })
    }
    fn mpp_buffer_group_mode(group: MppBufferGroup) -> i32 {
        GROUPS.of(group, "mpp_buffer_group_mode").map_or(-1, |g| g.mode)
    }
    fn mpp_buffer_group_type(group: MppBufferGroup) -> i32 {
        GROUPS.of(group, "mpp_buffer_group_type").map_or(-1, |g| g.kind & MPP_BUFFER_TYPE_MASK)
    }
    fn mpp_buffer_group_limit_config(group: MppBufferGroup, size: usize, count: i32) -> MppRet {
        let Some(group) = GROUPS.of(group, "mpp_buffer_group_limit_config") else { return MPP_ERR_NULL_PTR };
        let mut pool = lock(&group.pool);
        pool.limit_size = size;
        pool.limit_count = usize::try_from(count).unwrap_or(0);
        MPP_OK
    }
}
