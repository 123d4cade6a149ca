// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every function of the library that is used, by its real (not macro) name.

use std::ffi::{c_char, c_int, c_void};

use crate::api::MppApi;
use crate::types::*;

macro_rules! symbols {
    (
        mandatory { $(fn $m:ident($($marg:ident: $mty:ty),* $(,)?) $(-> $mret:ty)?;)* }
        optional { $(fn $o:ident($($oarg:ident: $oty:ty),* $(,)?) $(-> $oret:ty)?;)* }
    ) => {
        /// Types of the functions, by their names. A library with this ABI can check its own against them.
        #[allow(non_camel_case_types, missing_docs)]
        pub mod signatures {
            use super::*;
            $(pub type $m = unsafe extern "C" fn($($marg: $mty),*) $(-> $mret)?;)*
            $(pub type $o = unsafe extern "C" fn($($oarg: $oty),*) $(-> $oret)?;)*
        }

        /// The library's functions. All are `unsafe`: handles must be valid, of the right kind and not yet freed.
        ///
        /// Those that some release lacks are `Option`s: cache synchronisation (before 1.0.3), the log level, and
        /// what the safe layer can do without.
        #[derive(Clone, Copy, Debug)]
        pub struct Symbols {
            $(#[doc = concat!("`", stringify!($m), "`, mandatory.")] pub $m: signatures::$m,)*
            $(#[doc = concat!("`", stringify!($o), "`, optional.")] pub $o: Option<signatures::$o>,)*
        }

        impl Symbols {
            /// Names of the functions that every supported release has.
            pub const MANDATORY: &'static [&'static str] = &[$(stringify!($m)),*];
            /// Names of the functions that may be missing.
            pub const OPTIONAL: &'static [&'static str] = &[$(stringify!($o)),*];

            /// Fills the table from `lookup`, which tells the address of a name.
            ///
            /// # Errors
            /// The names of all mandatory functions that are missing.
            ///
            /// # Safety
            /// Each address that `lookup` gives must be that of a function with the C signature of its name, and
            /// stay valid as long as the table is used.
            pub unsafe fn resolve(
                mut lookup: impl FnMut(&str) -> Option<std::ptr::NonNull<c_void>>,
            ) -> Result<Self, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(
                    let $m = lookup(stringify!($m));
                    if $m.is_none() {
                        missing.push(stringify!($m));
                    }
                )*
                $(let $o = lookup(stringify!($o));)*
                if let ($(Some($m),)*) = ($($m,)*) {
                    Ok(Self {
                        // SAFETY: the caller promises that the address is that of a function of this type.
                        $($m: unsafe { std::mem::transmute::<*mut c_void, signatures::$m>($m.as_ptr()) },)*
                        // SAFETY: as above.
                        $($o: $o.map(|address| unsafe {
                            std::mem::transmute::<*mut c_void, signatures::$o>(address.as_ptr())
                        }),)*
                    })
                } else {
                    Err(missing)
                }
            }
        }
    };
}

symbols! {
    mandatory {
        // Context.
        fn mpp_create(ctx: *mut MppCtx, api: *mut *mut MppApi) -> MppRet;
        fn mpp_init(ctx: MppCtx, ctx_type: i32, coding: i32) -> MppRet;
        fn mpp_destroy(ctx: MppCtx) -> MppRet;
        fn mpp_check_support_format(ctx_type: i32, coding: i32) -> MppRet;
        // Frame. `deinit` sets the handle to NULL.
        fn mpp_frame_init(frame: *mut MppFrame) -> MppRet;
        fn mpp_frame_deinit(frame: *mut MppFrame) -> MppRet;
        fn mpp_frame_get_width(frame: MppFrame) -> u32;
        fn mpp_frame_set_width(frame: MppFrame, value: u32);
        fn mpp_frame_get_height(frame: MppFrame) -> u32;
        fn mpp_frame_set_height(frame: MppFrame, value: u32);
        fn mpp_frame_get_hor_stride(frame: MppFrame) -> u32;
        fn mpp_frame_set_hor_stride(frame: MppFrame, value: u32);
        fn mpp_frame_get_ver_stride(frame: MppFrame) -> u32;
        fn mpp_frame_set_ver_stride(frame: MppFrame, value: u32);
        fn mpp_frame_get_hor_stride_pixel(frame: MppFrame) -> u32;
        fn mpp_frame_set_hor_stride_pixel(frame: MppFrame, value: u32);
        fn mpp_frame_get_fbc_hdr_stride(frame: MppFrame) -> u32;
        fn mpp_frame_set_fbc_hdr_stride(frame: MppFrame, value: u32);
        fn mpp_frame_get_offset_x(frame: MppFrame) -> u32;
        fn mpp_frame_set_offset_x(frame: MppFrame, value: u32);
        fn mpp_frame_get_offset_y(frame: MppFrame) -> u32;
        fn mpp_frame_set_offset_y(frame: MppFrame, value: u32);
        fn mpp_frame_get_mode(frame: MppFrame) -> u32;
        fn mpp_frame_set_mode(frame: MppFrame, value: u32);
        fn mpp_frame_get_discard(frame: MppFrame) -> u32;
        fn mpp_frame_set_discard(frame: MppFrame, value: u32);
        fn mpp_frame_get_viewid(frame: MppFrame) -> u32;
        fn mpp_frame_set_viewid(frame: MppFrame, value: u32);
        fn mpp_frame_get_poc(frame: MppFrame) -> u32;
        fn mpp_frame_set_poc(frame: MppFrame, value: u32);
        fn mpp_frame_get_errinfo(frame: MppFrame) -> u32;
        fn mpp_frame_set_errinfo(frame: MppFrame, value: u32);
        fn mpp_frame_get_eos(frame: MppFrame) -> u32;
        fn mpp_frame_set_eos(frame: MppFrame, value: u32);
        fn mpp_frame_get_info_change(frame: MppFrame) -> u32;
        fn mpp_frame_set_info_change(frame: MppFrame, value: u32);
        fn mpp_frame_get_thumbnail_en(frame: MppFrame) -> u32;
        fn mpp_frame_set_thumbnail_en(frame: MppFrame, value: u32);
        fn mpp_frame_get_pts(frame: MppFrame) -> i64;
        fn mpp_frame_set_pts(frame: MppFrame, value: i64);
        fn mpp_frame_get_dts(frame: MppFrame) -> i64;
        fn mpp_frame_set_dts(frame: MppFrame, value: i64);
        fn mpp_frame_get_buf_size(frame: MppFrame) -> usize;
        fn mpp_frame_set_buf_size(frame: MppFrame, value: usize);
        fn mpp_frame_get_buffer(frame: MppFrame) -> MppBuffer;
        fn mpp_frame_set_buffer(frame: MppFrame, buffer: MppBuffer);
        fn mpp_frame_get_color_range(frame: MppFrame) -> i32;
        fn mpp_frame_set_color_range(frame: MppFrame, value: i32);
        fn mpp_frame_get_color_primaries(frame: MppFrame) -> i32;
        fn mpp_frame_set_color_primaries(frame: MppFrame, value: i32);
        fn mpp_frame_get_color_trc(frame: MppFrame) -> i32;
        fn mpp_frame_set_color_trc(frame: MppFrame, value: i32);
        fn mpp_frame_get_colorspace(frame: MppFrame) -> i32;
        fn mpp_frame_set_colorspace(frame: MppFrame, value: i32);
        fn mpp_frame_get_chroma_location(frame: MppFrame) -> i32;
        fn mpp_frame_set_chroma_location(frame: MppFrame, value: i32);
        fn mpp_frame_get_fmt(frame: MppFrame) -> i32;
        fn mpp_frame_set_fmt(frame: MppFrame, value: i32);
        fn mpp_frame_get_sar(frame: MppFrame) -> MppFrameRational;
        fn mpp_frame_set_sar(frame: MppFrame, value: MppFrameRational);
        fn mpp_frame_get_mastering_display(frame: MppFrame) -> MppFrameMasteringDisplayMetadata;
        fn mpp_frame_set_mastering_display(frame: MppFrame, value: MppFrameMasteringDisplayMetadata);
        fn mpp_frame_get_content_light(frame: MppFrame) -> MppFrameContentLightMetadata;
        fn mpp_frame_set_content_light(frame: MppFrame, value: MppFrameContentLightMetadata);
        fn mpp_frame_get_hdr_dynamic_meta(frame: MppFrame) -> *mut MppFrameHdrDynamicMeta;
        fn mpp_frame_has_meta(frame: MppFrame) -> i32;
        fn mpp_frame_get_meta(frame: MppFrame) -> MppMeta;
        fn mpp_frame_set_meta(frame: MppFrame, meta: MppMeta);
        // Packet. `deinit` sets the handle to NULL.
        fn mpp_packet_new(packet: *mut MppPacket) -> MppRet;
        fn mpp_packet_init(packet: *mut MppPacket, data: *mut c_void, size: usize) -> MppRet;
        fn mpp_packet_init_with_buffer(packet: *mut MppPacket, buffer: MppBuffer) -> MppRet;
        fn mpp_packet_copy_init(packet: *mut MppPacket, src: MppPacket) -> MppRet;
        fn mpp_packet_deinit(packet: *mut MppPacket) -> MppRet;
        fn mpp_packet_get_data(packet: MppPacket) -> *mut c_void;
        fn mpp_packet_set_data(packet: MppPacket, value: *mut c_void);
        fn mpp_packet_get_size(packet: MppPacket) -> usize;
        fn mpp_packet_set_size(packet: MppPacket, value: usize);
        fn mpp_packet_get_pos(packet: MppPacket) -> *mut c_void;
        fn mpp_packet_set_pos(packet: MppPacket, value: *mut c_void);
        fn mpp_packet_get_length(packet: MppPacket) -> usize;
        fn mpp_packet_set_length(packet: MppPacket, value: usize);
        fn mpp_packet_get_pts(packet: MppPacket) -> i64;
        fn mpp_packet_set_pts(packet: MppPacket, value: i64);
        fn mpp_packet_get_dts(packet: MppPacket) -> i64;
        fn mpp_packet_set_dts(packet: MppPacket, value: i64);
        fn mpp_packet_get_flag(packet: MppPacket) -> u32;
        fn mpp_packet_set_flag(packet: MppPacket, value: u32);
        fn mpp_packet_get_buffer(packet: MppPacket) -> MppBuffer;
        fn mpp_packet_set_buffer(packet: MppPacket, value: MppBuffer);
        fn mpp_packet_set_eos(packet: MppPacket) -> MppRet;
        fn mpp_packet_clr_eos(packet: MppPacket) -> MppRet;
        fn mpp_packet_get_eos(packet: MppPacket) -> u32;
        fn mpp_packet_set_extra_data(packet: MppPacket) -> MppRet;
        fn mpp_packet_read(packet: MppPacket, offset: usize, data: *mut c_void, size: usize) -> MppRet;
        fn mpp_packet_write(packet: MppPacket, offset: usize, data: *mut c_void, size: usize) -> MppRet;
        fn mpp_packet_has_meta(packet: MppPacket) -> i32;
        fn mpp_packet_get_meta(packet: MppPacket) -> MppMeta;
        fn mpp_packet_is_partition(packet: MppPacket) -> u32;
        fn mpp_packet_is_soi(packet: MppPacket) -> u32;
        fn mpp_packet_is_eoi(packet: MppPacket) -> u32;
        fn mpp_packet_get_segment_nb(packet: MppPacket) -> u32;
        fn mpp_packet_get_segment_info(packet: MppPacket) -> *const MppPktSeg;
        // Meta. A get consumes the value.
        fn mpp_meta_get_with_tag(meta: *mut MppMeta, tag: *const c_char, caller: *const c_char) -> MppRet;
        fn mpp_meta_put(meta: MppMeta) -> MppRet;
        fn mpp_meta_size(meta: MppMeta) -> i32;
        fn mpp_meta_set_s32(meta: MppMeta, key: i32, value: i32) -> MppRet;
        fn mpp_meta_get_s32(meta: MppMeta, key: i32, value: *mut i32) -> MppRet;
        fn mpp_meta_set_s64(meta: MppMeta, key: i32, value: i64) -> MppRet;
        fn mpp_meta_get_s64(meta: MppMeta, key: i32, value: *mut i64) -> MppRet;
        fn mpp_meta_set_ptr(meta: MppMeta, key: i32, value: *mut c_void) -> MppRet;
        fn mpp_meta_get_ptr(meta: MppMeta, key: i32, value: *mut *mut c_void) -> MppRet;
        fn mpp_meta_set_frame(meta: MppMeta, key: i32, value: MppFrame) -> MppRet;
        fn mpp_meta_get_frame(meta: MppMeta, key: i32, value: *mut MppFrame) -> MppRet;
        fn mpp_meta_set_packet(meta: MppMeta, key: i32, value: MppPacket) -> MppRet;
        fn mpp_meta_get_packet(meta: MppMeta, key: i32, value: *mut MppPacket) -> MppRet;
        fn mpp_meta_set_buffer(meta: MppMeta, key: i32, value: MppBuffer) -> MppRet;
        fn mpp_meta_get_buffer(meta: MppMeta, key: i32, value: *mut MppBuffer) -> MppRet;
        // Task. The getters of numbers and pointers take a default.
        fn mpp_task_meta_set_s32(task: MppTask, key: i32, value: i32) -> MppRet;
        fn mpp_task_meta_get_s32(task: MppTask, key: i32, value: *mut i32, default: i32) -> MppRet;
        fn mpp_task_meta_set_s64(task: MppTask, key: i32, value: i64) -> MppRet;
        fn mpp_task_meta_get_s64(task: MppTask, key: i32, value: *mut i64, default: i64) -> MppRet;
        fn mpp_task_meta_set_ptr(task: MppTask, key: i32, value: *mut c_void) -> MppRet;
        fn mpp_task_meta_get_ptr(task: MppTask, key: i32, value: *mut *mut c_void, default: *mut c_void) -> MppRet;
        fn mpp_task_meta_set_frame(task: MppTask, key: i32, value: MppFrame) -> MppRet;
        fn mpp_task_meta_get_frame(task: MppTask, key: i32, value: *mut MppFrame) -> MppRet;
        fn mpp_task_meta_set_packet(task: MppTask, key: i32, value: MppPacket) -> MppRet;
        fn mpp_task_meta_get_packet(task: MppTask, key: i32, value: *mut MppPacket) -> MppRet;
        fn mpp_task_meta_set_buffer(task: MppTask, key: i32, value: MppBuffer) -> MppRet;
        fn mpp_task_meta_get_buffer(task: MppTask, key: i32, value: *mut MppBuffer) -> MppRet;
        // Buffer. Tag and caller appear in logs, and must be static.
        fn mpp_buffer_import_with_tag(group: MppBufferGroup, info: *mut MppBufferInfo, buffer: *mut MppBuffer, tag: *const c_char, caller: *const c_char) -> MppRet;
        fn mpp_buffer_get_with_tag(group: MppBufferGroup, buffer: *mut MppBuffer, size: usize, tag: *const c_char, caller: *const c_char) -> MppRet;
        fn mpp_buffer_put_with_caller(buffer: MppBuffer, caller: *const c_char) -> MppRet;
        fn mpp_buffer_inc_ref_with_caller(buffer: MppBuffer, caller: *const c_char) -> MppRet;
        fn mpp_buffer_info_get_with_caller(buffer: MppBuffer, info: *mut MppBufferInfo, caller: *const c_char) -> MppRet;
        fn mpp_buffer_read_with_caller(buffer: MppBuffer, offset: usize, data: *mut c_void, size: usize, caller: *const c_char) -> MppRet;
        fn mpp_buffer_write_with_caller(buffer: MppBuffer, offset: usize, data: *mut c_void, size: usize, caller: *const c_char) -> MppRet;
        fn mpp_buffer_get_ptr_with_caller(buffer: MppBuffer, caller: *const c_char) -> *mut c_void;
        fn mpp_buffer_get_fd_with_caller(buffer: MppBuffer, caller: *const c_char) -> c_int;
        fn mpp_buffer_get_size_with_caller(buffer: MppBuffer, caller: *const c_char) -> usize;
        fn mpp_buffer_get_index_with_caller(buffer: MppBuffer, caller: *const c_char) -> c_int;
        fn mpp_buffer_set_index_with_caller(buffer: MppBuffer, index: c_int, caller: *const c_char) -> MppRet;
        fn mpp_buffer_get_offset_with_caller(buffer: MppBuffer, caller: *const c_char) -> usize;
        fn mpp_buffer_set_offset_with_caller(buffer: MppBuffer, offset: usize, caller: *const c_char) -> MppRet;
        fn mpp_buffer_group_get(group: *mut MppBufferGroup, buffer_type: i32, mode: i32, tag: *const c_char, caller: *const c_char) -> MppRet;
        fn mpp_buffer_group_put(group: MppBufferGroup) -> MppRet;
        fn mpp_buffer_group_clear(group: MppBufferGroup) -> MppRet;
        fn mpp_buffer_group_unused(group: MppBufferGroup) -> i32;
        fn mpp_buffer_group_usage(group: MppBufferGroup) -> usize;
        fn mpp_buffer_group_mode(group: MppBufferGroup) -> i32;
        fn mpp_buffer_group_type(group: MppBufferGroup) -> i32;
        fn mpp_buffer_group_limit_config(group: MppBufferGroup, size: usize, count: i32) -> MppRet;
        // Configurations. `init` takes a pointer to the handle, `deinit` the handle.
        fn mpp_enc_cfg_init(cfg: *mut MppEncCfg) -> MppRet;
        fn mpp_enc_cfg_deinit(cfg: MppEncCfg) -> MppRet;
        fn mpp_enc_cfg_set_s32(cfg: MppEncCfg, name: *const c_char, value: i32) -> MppRet;
        fn mpp_enc_cfg_get_s32(cfg: MppEncCfg, name: *const c_char, value: *mut i32) -> MppRet;
        fn mpp_enc_cfg_set_u32(cfg: MppEncCfg, name: *const c_char, value: u32) -> MppRet;
        fn mpp_enc_cfg_get_u32(cfg: MppEncCfg, name: *const c_char, value: *mut u32) -> MppRet;
        fn mpp_enc_cfg_set_s64(cfg: MppEncCfg, name: *const c_char, value: i64) -> MppRet;
        fn mpp_enc_cfg_get_s64(cfg: MppEncCfg, name: *const c_char, value: *mut i64) -> MppRet;
        fn mpp_enc_cfg_set_u64(cfg: MppEncCfg, name: *const c_char, value: u64) -> MppRet;
        fn mpp_enc_cfg_get_u64(cfg: MppEncCfg, name: *const c_char, value: *mut u64) -> MppRet;
        fn mpp_enc_cfg_set_ptr(cfg: MppEncCfg, name: *const c_char, value: *mut c_void) -> MppRet;
        fn mpp_enc_cfg_get_ptr(cfg: MppEncCfg, name: *const c_char, value: *mut *mut c_void) -> MppRet;
        fn mpp_enc_cfg_set_st(cfg: MppEncCfg, name: *const c_char, value: *mut c_void) -> MppRet;
        fn mpp_enc_cfg_get_st(cfg: MppEncCfg, name: *const c_char, value: *mut c_void) -> MppRet;
        fn mpp_dec_cfg_init(cfg: *mut MppDecCfg) -> MppRet;
        fn mpp_dec_cfg_deinit(cfg: MppDecCfg) -> MppRet;
        fn mpp_dec_cfg_set_s32(cfg: MppDecCfg, name: *const c_char, value: i32) -> MppRet;
        fn mpp_dec_cfg_get_s32(cfg: MppDecCfg, name: *const c_char, value: *mut i32) -> MppRet;
        fn mpp_dec_cfg_set_u32(cfg: MppDecCfg, name: *const c_char, value: u32) -> MppRet;
        fn mpp_dec_cfg_get_u32(cfg: MppDecCfg, name: *const c_char, value: *mut u32) -> MppRet;
        fn mpp_dec_cfg_set_s64(cfg: MppDecCfg, name: *const c_char, value: i64) -> MppRet;
        fn mpp_dec_cfg_get_s64(cfg: MppDecCfg, name: *const c_char, value: *mut i64) -> MppRet;
        fn mpp_dec_cfg_set_u64(cfg: MppDecCfg, name: *const c_char, value: u64) -> MppRet;
        fn mpp_dec_cfg_get_u64(cfg: MppDecCfg, name: *const c_char, value: *mut u64) -> MppRet;
        fn mpp_dec_cfg_set_ptr(cfg: MppDecCfg, name: *const c_char, value: *mut c_void) -> MppRet;
        fn mpp_dec_cfg_get_ptr(cfg: MppDecCfg, name: *const c_char, value: *mut *mut c_void) -> MppRet;
        // Reference structure.
        fn mpp_enc_ref_cfg_init(cfg: *mut MppEncRefCfg) -> MppRet;
        fn mpp_enc_ref_cfg_deinit(cfg: *mut MppEncRefCfg) -> MppRet;
        fn mpp_enc_ref_cfg_reset(cfg: MppEncRefCfg) -> MppRet;
        fn mpp_enc_ref_cfg_set_cfg_cnt(cfg: MppEncRefCfg, lt_count: i32, st_count: i32) -> MppRet;
        fn mpp_enc_ref_cfg_add_lt_cfg(cfg: MppEncRefCfg, count: i32, frames: *mut MppEncRefLtFrmCfg) -> MppRet;
        fn mpp_enc_ref_cfg_add_st_cfg(cfg: MppEncRefCfg, count: i32, frames: *mut MppEncRefStFrmCfg) -> MppRet;
        fn mpp_enc_ref_cfg_check(cfg: MppEncRefCfg) -> MppRet;
        fn mpp_enc_ref_cfg_set_keep_cpb(cfg: MppEncRefCfg, keep: i32) -> MppRet;
    }
    optional {
        fn mpp_set_log_level(level: c_int);
        // From 1.0.3 on.
        fn mpp_buffer_sync_begin_f(buffer: MppBuffer, read_only: i32, caller: *const c_char) -> MppRet;
        fn mpp_buffer_sync_partial_begin_f(buffer: MppBuffer, read_only: i32, offset: u32, length: u32, caller: *const c_char) -> MppRet;
        fn mpp_buffer_sync_end_f(buffer: MppBuffer, read_only: i32, caller: *const c_char) -> MppRet;
        fn mpp_buffer_sync_partial_end_f(buffer: MppBuffer, read_only: i32, offset: u32, length: u32, caller: *const c_char) -> MppRet;
        // From 1.0.10 on.
        fn mpp_dec_cfg_set_st(cfg: MppDecCfg, name: *const c_char, value: *mut c_void) -> MppRet;
        fn mpp_dec_cfg_get_st(cfg: MppDecCfg, name: *const c_char, value: *mut c_void) -> MppRet;
        // In every release, but nothing depends on them.
        fn mpp_enc_cfg_show();
        fn mpp_dec_cfg_show();
        fn mpp_enc_ref_cfg_show(cfg: MppEncRefCfg) -> MppRet;
        fn mpp_frame_copy(dst: MppFrame, src: MppFrame) -> MppRet;
        fn mpp_frame_info_cmp(frame0: MppFrame, frame1: MppFrame) -> MppRet;
        fn mpp_meta_get_s32_d(meta: MppMeta, key: i32, value: *mut i32, default: i32) -> MppRet;
        fn mpp_meta_get_s64_d(meta: MppMeta, key: i32, value: *mut i64, default: i64) -> MppRet;
        fn mpp_meta_get_ptr_d(meta: MppMeta, key: i32, value: *mut *mut c_void, default: *mut c_void) -> MppRet;
        fn mpp_meta_get_frame_d(meta: MppMeta, key: i32, value: *mut MppFrame, default: MppFrame) -> MppRet;
        fn mpp_meta_get_packet_d(meta: MppMeta, key: i32, value: *mut MppPacket, default: MppPacket) -> MppRet;
        fn mpp_meta_get_buffer_d(meta: MppMeta, key: i32, value: *mut MppBuffer, default: MppBuffer) -> MppRet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where no call ever goes.
    fn somewhere() -> Option<std::ptr::NonNull<c_void>> {
        std::ptr::NonNull::new(somewhere as fn() -> _ as *mut c_void)
    }

    #[test]
    fn names_are_unique_and_no_macros() {
        let mut names: Vec<_> = Symbols::MANDATORY.iter().chain(Symbols::OPTIONAL).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        // These exist in headers only.
        for name in
            ["mpp_buffer_get", "mpp_buffer_put", "mpp_buffer_import", "mpp_buffer_sync_end", "mpp_meta_get"]
        {
            assert!(names.binary_search(&&name).is_err(), "{name}");
        }
    }

    #[test]
    fn optional_functions_may_be_missing() {
        // SAFETY: nothing in the table is called.
        let symbols =
            unsafe { Symbols::resolve(|name| Symbols::MANDATORY.contains(&name).then(somewhere).flatten()) }
                .unwrap();
        assert!(symbols.mpp_buffer_sync_begin_f.is_none());
        assert!(symbols.mpp_set_log_level.is_none());
    }

    #[test]
    fn missing_mandatory_functions_are_named() {
        let gone = ["mpp_init", "mpp_packet_get_pos"];
        // SAFETY: nothing in the table is called.
        let missing = unsafe { Symbols::resolve(|name| (!gone.contains(&name)).then(somewhere).flatten()) }
            .unwrap_err();
        assert_eq!(missing, gone);
    }
}
