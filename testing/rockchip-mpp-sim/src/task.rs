// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tasks: slots of a port's queue, with values of their own. JPEG is decoded through them.

use crate::abi::{export, store};
use crate::meta::{Kind, Values, from_handle, to_handle, to_s32};
use crate::registry::{Registry, lock};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::ffi::c_void;
use std::sync::Mutex;

/// A slot.
#[derive(Default)]
pub struct Task {
    pub values: Mutex<Values>,
}

pub static TASKS: Registry<Task> = Registry::new("task");

fn set(task: MppTask, key: i32, kind: Kind, value: i64) -> i32 {
    TASKS.of(task, "mpp_task_meta_set").map_or(MPP_ERR_NULL_PTR, |t| lock(&t.values).set(key, kind, value))
}

fn take<T>(task: MppTask, key: i32, kind: Kind, out: *mut T, default: T, convert: impl Fn(i64) -> T) -> i32 {
    let Some(task) = TASKS.of(task, "mpp_task_meta_get") else { return MPP_ERR_NULL_PTR };
    let found = lock(&task.values).take(key, kind);
    let code = if found.is_some() { MPP_OK } else { MPP_NOK };
    if store(out, found.map_or(default, convert)) { code } else { MPP_ERR_NULL_PTR }
}

export! {
    fn mpp_task_meta_set_s32(task: MppTask, key: i32, value: i32) -> MppRet { set(task, key, Kind::S32, value.into()) }
    fn mpp_task_meta_get_s32(task: MppTask, key: i32, value: *mut i32, default: i32) -> MppRet { take(task, key, Kind::S32, value, default, to_s32) }
    fn mpp_task_meta_set_s64(task: MppTask, key: i32, value: i64) -> MppRet { set(task, key, Kind::S64, value) }
    fn mpp_task_meta_get_s64(task: MppTask, key: i32, value: *mut i64, default: i64) -> MppRet { take(task, key, Kind::S64, value, default, |v| v) }
    fn mpp_task_meta_set_ptr(task: MppTask, key: i32, value: *mut c_void) -> MppRet { set(task, key, Kind::Ptr, from_handle(value)) }
    fn mpp_task_meta_get_ptr(task: MppTask, key: i32, value: *mut *mut c_void, default: *mut c_void) -> MppRet { take(task, key, Kind::Ptr, value, default, to_handle) }
    fn mpp_task_meta_set_frame(task: MppTask, key: i32, value: MppFrame) -> MppRet { set(task, key, Kind::Frame, from_handle(value)) }
    fn mpp_task_meta_get_frame(task: MppTask, key: i32, value: *mut MppFrame) -> MppRet { take(task, key, Kind::Frame, value, std::ptr::null_mut(), to_handle) }
    fn mpp_task_meta_set_packet(task: MppTask, key: i32, value: MppPacket) -> MppRet { set(task, key, Kind::Packet, from_handle(value)) }
    fn mpp_task_meta_get_packet(task: MppTask, key: i32, value: *mut MppPacket) -> MppRet { take(task, key, Kind::Packet, value, std::ptr::null_mut(), to_handle) }
    fn mpp_task_meta_set_buffer(task: MppTask, key: i32, value: MppBuffer) -> MppRet { set(task, key, Kind::Buffer, from_handle(value)) }
    fn mpp_task_meta_get_buffer(task: MppTask, key: i32, value: *mut MppBuffer) -> MppRet { take(task, key, Kind::Buffer, value, std::ptr::null_mut(), to_handle) }
}
