// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keyed values that travel with frames, packets and tasks. A get consumes.

use crate::abi::{Id, export, handle, id, load, store};
use crate::control::{log, misuse};
use crate::options::{Release, release};
use crate::registry::{Registry, lock};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::sync::Mutex;

/// Kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S32,
    S64,
    Ptr,
    Frame,
    Packet,
    Buffer,
}

/// A set of values, by key.
#[derive(Debug, Default)]
pub struct Values(BTreeMap<i32, (Kind, i64)>);

/// The kind of a key's value, if this release knows the key.
fn kind_of(key: i32) -> Option<Kind> {
    let release = release();
    let known = match key {
        KEY_INPUT_IDR_REQ | KEY_ENC_BPS_RT | KEY_ENC_SSE => release > Release::V1_0_4,
        KEY_ENC_START_QP => release > Release::V1_0_0,
        _ => true,
    };
    if !known {
        return None;
    }
    Some(match key {
        KEY_INPUT_FRAME | KEY_OUTPUT_FRAME => Kind::Frame,
        KEY_INPUT_PACKET | KEY_OUTPUT_PACKET => Kind::Packet,
        KEY_MOTION_INFO | KEY_HDR_INFO | KEY_QPMAP0 => Kind::Buffer,
        KEY_INPUT_IDR_REQ
        | KEY_OUTPUT_INTRA
        | KEY_TEMPORAL_ID
        | KEY_LONG_REF_IDX
        | KEY_ENC_AVERAGE_QP
        | KEY_ENC_START_QP
        | KEY_ENC_BPS_RT
        | KEY_ENC_MARK_LTR
        | KEY_ENC_USE_LTR
        | KEY_ENC_FRAME_QP
        | KEY_ENC_BASE_LAYER_PID => Kind::S32,
        KEY_ENC_SSE => Kind::S64,
        KEY_ROI_DATA | KEY_ROI_DATA2 | KEY_OSD_DATA | KEY_OSD_DATA2 | KEY_USER_DATA | KEY_USER_DATAS => {
            Kind::Ptr
        }
        _ => return None,
    })
}

/// Wrong kinds were accepted by two releases.
fn fits(key: i32, kind: Kind) -> bool {
    let lax = matches!(release(), Release::V1_0_9 | Release::V1_0_10);
    kind_of(key).is_some_and(|k| k == kind || lax)
}

/// What 1.0.11 does with user data when it is set: read it all.
fn touch_user_data(key: i32, value: *mut c_void) {
    if release() < Release::V1_0_11 {
        return;
    }
    let touch = |len: u32, data: *const u8| {
        let sum = crate::abi::bytes(data, len as usize).iter().fold(0_u8, |a, b| a ^ b);
        std::hint::black_box(sum);
    };
    if key == KEY_USER_DATA {
        if let Some(data) = load(value.cast::<MppEncUserData>()) {
            touch(data.len, data.pdata.cast());
        }
    } else if key == KEY_USER_DATAS
        && let Some(set) = load(value.cast::<MppEncUserDataSet>())
    {
        for index in 0..set.count.min(64) as usize {
            if let Some(data) = load(set.datas.wrapping_add(index)) {
                touch(16, data.uuid);
                touch(data.len, data.pdata.cast());
            }
        }
    }
}

impl Values {
    pub fn set(&mut self, key: i32, kind: Kind, value: i64) -> i32 {
        if !fits(key, kind) {
            log(format_args!("meta key {key:#x} does not take {kind:?}"));
            return MPP_NOK;
        }
        self.0.insert(key, (kind, value));
        MPP_OK
    }

    /// Takes the value out.
    pub fn take(&mut self, key: i32, kind: Kind) -> Option<i64> {
        if !fits(key, kind) {
            return None;
        }
        self.0.remove(&key).map(|(_, value)| value)
    }

    /// The value, which stays.
    pub fn peek(&self, key: i32) -> Option<i64> {
        self.0.get(&key).map(|(_, value)| *value)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A set with a count of holders.
pub struct Meta {
    pub values: Mutex<Values>,
    refs: Mutex<i32>,
}

pub static METAS: Registry<Meta> = Registry::new("meta");

/// A new set with one holder.
pub fn create() -> Id {
    METAS.insert(Meta { values: Mutex::default(), refs: Mutex::new(1) })
}

/// One more holder.
pub fn hold(meta: Id) {
    if let Some(meta) = METAS.get(meta, "mpp_meta_inc_ref") {
        *lock(&meta.refs) += 1;
    }
}

/// One holder less.
pub fn release_meta(id: Id) -> i32 {
    let Some(meta) = METAS.get(id, "mpp_meta_put") else { return MPP_ERR_NULL_PTR };
    let left = {
        let mut refs = lock(&meta.refs);
        *refs -= 1;
        *refs
    };
    if left == 0 {
        METAS.remove(id, "mpp_meta_put");
    }
    MPP_OK
}

fn set(meta: MppMeta, key: i32, kind: Kind, value: i64) -> i32 {
    METAS.of(meta, "mpp_meta_set").map_or(MPP_ERR_NULL_PTR, |m| lock(&m.values).set(key, kind, value))
}

fn take<T>(meta: MppMeta, key: i32, kind: Kind, out: *mut T, convert: impl Fn(i64) -> T) -> i32 {
    let Some(meta) = METAS.of(meta, "mpp_meta_get") else { return MPP_ERR_NULL_PTR };
    if out.is_null() {
        misuse(format_args!("mpp_meta_get: no place for the value"));
        return MPP_ERR_NULL_PTR;
    }
    match lock(&meta.values).take(key, kind) {
        Some(value) => {
            store(out, convert(value));
            MPP_OK
        }
        None => MPP_NOK,
    }
}

fn take_or<T: Copy>(
    meta: MppMeta,
    key: i32,
    kind: Kind,
    out: *mut T,
    default: T,
    f: impl Fn(i64) -> T,
) -> i32 {
    match take(meta, key, kind, out, f) {
        MPP_NOK => {
            store(out, default);
            MPP_OK
        }
        code => code,
    }
}

/// Numbers of this kind were stored by `to_s32`.
#[expect(clippy::cast_possible_truncation, reason = "the value was an i32 when it was set")]
pub const fn to_s32(value: i64) -> i32 {
    value as i32
}

/// Handles and pointers as stored values, and back.
pub fn from_handle<H>(h: *mut H) -> i64 {
    id(h).cast_signed() as i64
}

pub fn to_handle<H>(value: i64) -> *mut H {
    handle(usize::try_from(value).unwrap_or(0))
}

export! {
    fn mpp_meta_get_with_tag(meta: *mut MppMeta, _tag: *const c_char, _caller: *const c_char) -> MppRet {
        if meta.is_null() {
            misuse(format_args!("mpp_meta_get: no place for the handle"));
            return MPP_ERR_NULL_PTR;
        }
        store(meta, handle(create()));
        MPP_OK
    }
    fn mpp_meta_put(meta: MppMeta) -> MppRet { release_meta(id(meta)) }
    fn mpp_meta_size(meta: MppMeta) -> i32 {
        METAS.of(meta, "mpp_meta_size").map_or(0, |m| i32::try_from(lock(&m.values).len()).unwrap_or(i32::MAX))
    }
    fn mpp_meta_set_s32(meta: MppMeta, key: i32, value: i32) -> MppRet { set(meta, key, Kind::S32, value.into()) }
    fn mpp_meta_get_s32(meta: MppMeta, key: i32, value: *mut i32) -> MppRet { take(meta, key, Kind::S32, value, to_s32) }
    fn mpp_meta_set_s64(meta: MppMeta, key: i32, value: i64) -> MppRet { set(meta, key, Kind::S64, value) }
    fn mpp_meta_get_s64(meta: MppMeta, key: i32, value: *mut i64) -> MppRet { take(meta, key, Kind::S64, value, |v| v) }
    fn mpp_meta_set_ptr(meta: MppMeta, key: i32, value: *mut c_void) -> MppRet {
        touch_user_data(key, value);
        set(meta, key, Kind::Ptr, from_handle(value))
    }
    fn mpp_meta_get_ptr(meta: MppMeta, key: i32, value: *mut *mut c_void) -> MppRet { take(meta, key, Kind::Ptr, value, to_handle) }
    fn mpp_meta_set_frame(meta: MppMeta, key: i32, value: MppFrame) -> MppRet { set(meta, key, Kind::Frame, from_handle(value)) }
    fn mpp_meta_get_frame(meta: MppMeta, key: i32, value: *mut MppFrame) -> MppRet { take(meta, key, Kind::Frame, value, to_handle) }
    fn mpp_meta_set_packet(meta: MppMeta, key: i32, value: MppPacket) -> MppRet { set(meta, key, Kind::Packet, from_handle(value)) }
    fn mpp_meta_get_packet(meta: MppMeta, key: i32, value: *mut MppPacket) -> MppRet { take(meta, key, Kind::Packet, value, to_handle) }
    fn mpp_meta_set_buffer(meta: MppMeta, key: i32, value: MppBuffer) -> MppRet { set(meta, key, Kind::Buffer, from_handle(value)) }
    fn mpp_meta_get_buffer(meta: MppMeta, key: i32, value: *mut MppBuffer) -> MppRet { take(meta, key, Kind::Buffer, value, to_handle) }
    fn mpp_meta_get_s32_d(meta: MppMeta, key: i32, value: *mut i32, default: i32) -> MppRet { take_or(meta, key, Kind::S32, value, default, to_s32) }
    fn mpp_meta_get_s64_d(meta: MppMeta, key: i32, value: *mut i64, default: i64) -> MppRet { take_or(meta, key, Kind::S64, value, default, |v| v) }
    fn mpp_meta_get_ptr_d(meta: MppMeta, key: i32, value: *mut *mut c_void, default: *mut c_void) -> MppRet { take_or(meta, key, Kind::Ptr, value, default, to_handle) }
    fn mpp_meta_get_frame_d(meta: MppMeta, key: i32, value: *mut MppFrame, default: MppFrame) -> MppRet { take_or(meta, key, Kind::Frame, value, default, to_handle) }
    fn mpp_meta_get_packet_d(meta: MppMeta, key: i32, value: *mut MppPacket, default: MppPacket) -> MppRet { take_or(meta, key, Kind::Packet, value, default, to_handle) }
    fn mpp_meta_get_buffer_d(meta: MppMeta, key: i32, value: *mut MppBuffer, default: MppBuffer) -> MppRet { take_or(meta, key, Kind::Buffer, value, default, to_handle) }
}
