// SPDX-License-Identifier: MIT OR Apache-2.0

//! Configurations keyed by strings. Each key has a type; a wrong one and an unknown key are −1.

use crate::abi::{Id, export, handle, id, load, store, text};
use crate::control::{log, misuse};
use crate::meta::{from_handle, to_handle};
use crate::options::{Release, release};
use crate::registry::{Registry, lock};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::sync::Mutex;

/// Types of values. Signed and unsigned of the same width stand for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    S32,
    U32,
    S64,
    U64,
    Ptr,
    St,
}

impl Type {
    fn takes(self, other: Self) -> bool {
        let width = |t| match t {
            Self::S32 | Self::U32 => 4,
            Self::S64 | Self::U64 => 8,
            Self::Ptr => 1,
            Self::St => 2,
        };
        width(self) == width(other)
    }
}

/// A configuration: only keys that differ from 0 are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cfg(BTreeMap<&'static str, i64>);

impl Cfg {
    /// A value; 0 if it was never set.
    pub fn get(&self, key: &str) -> i64 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// A value as 32 bits without sign.
    pub fn u32(&self, key: &str) -> u32 {
        u32::try_from(self.get(key)).unwrap_or(0)
    }

    pub fn put(&mut self, key: &'static str, value: i64) {
        self.0.insert(key, value);
    }

    /// Takes over all values of another one.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(k, v)| (*k, *v)));
    }
}

const ENC_S32: &str = "base:low_delay rc:mode rc:bps_target rc:bps_max rc:bps_min rc:fps_in_flex rc:fps_in_num \
    rc:fps_in_denorm rc:fps_out_flex rc:fps_out_num rc:fps_out_denorm rc:fps_chg_no_idr rc:gop rc:priority \
    rc:drop_thd rc:drop_gap rc:max_i_prop rc:min_i_prop rc:init_ip_ratio rc:super_i_thd rc:super_p_thd \
    rc:debreath_strength rc:qp_init rc:qp_min rc:qp_max rc:qp_min_i rc:qp_max_i rc:qp_step rc:qp_ip rc:qp_vi \
    rc:hier_qp_en rc:stats_time rc:refresh_num rc:fqp_min_i rc:fqp_min_p rc:fqp_max_i rc:fqp_max_p prep:width prep:height \
    prep:max_width prep:max_height prep:hor_stride prep:ver_stride prep:format prep:format_out prep:chroma_ds_mode \
    prep:colorspace prep:colorprim prep:colortrc prep:colorrange prep:range prep:range_out prep:rotation prep:mirroring \
    prep:flip codec:type h264:stream_type h264:profile h264:level h264:cabac_en h264:cabac_idc h264:trans8x8 h264:const_intra \
    h264:scaling_list h264:cb_qp_offset h264:cr_qp_offset h264:dblk_disable h264:dblk_alpha h264:dblk_beta \
    h264:qp_init h264:qp_max h264:qp_min h264:qp_max_i h264:qp_min_i h264:qp_step h264:qp_delta_ip h264:max_tid h264:max_ltr h264:prefix_mode \
    h264:base_layer_pid h264:constraint_set h264:poc_type h264:log2_max_poc_lsb h264:log2_max_frm_num h265:profile h265:level h265:tier \
    h265:scaling_list h265:cb_qp_offset h265:cr_qp_offset h265:dblk_disable h265:dblk_alpha h265:dblk_beta h265:qp_init \
    h265:qp_max h265:qp_min h265:qp_max_i h265:qp_min_i h265:qp_step h265:qp_delta_ip h265:auto_tile \
    h265:lpf_acs_tile_disable h265:sao_luma_disable h265:sao_chroma_disable h265:lcu_size h265:max_tid h265:max_ltr \
    h265:base_layer_pid vp8:qp_init vp8:qp_max vp8:qp_min vp8:qp_max_i vp8:qp_min_i vp8:qp_step vp8:qp_delta_ip \
    vp8:disable_ivf jpeg:quant jpeg:q_factor jpeg:qf_max jpeg:qf_min hw:qp_row hw:qp_row_i tune:scene_mode tune:deblur_en \
    tune:deblur_str tune:anti_flicker_str tune:lambda_idx_i tune:lambda_idx_p tune:vmaf_opt tune:se_mode hw:qbias_en hw:qbias_i hw:qbias_p";
const ENC_U32: &str = "rc:max_reenc_times rc:drop_mode rc:super_mode rc:debreath_en rc:refresh_en rc:refresh_mode \
    split:mode split:arg split:out h264:vui_en h265:vui_en";
const ENC_PTR: &str = "rc:ref_cfg jpeg:qtable_y jpeg:qtable_u jpeg:qtable_v";
const ENC_ST: &str = "rc:hier_qp_delta rc:hier_frame_num hw:aq_thrd_i hw:aq_thrd_p hw:aq_step_i hw:aq_step_p";
const DEC_U32: &str = "base:type base:coding base:hw_type base:batch_mode base:out_fmt base:fast_out base:fast_parse \
    base:split_parse base:internal_pts base:sort_pts base:disable_error base:dis_err_clr_mark base:enable_vproc \
    base:enable_fast_play base:enable_hdr_meta base:enable_thumbnail base:enable_mvc base:disable_dpb_chk \
    base:disable_thread base:codec_mode cb:pkt_rdy_cmd cb:frm_rdy_cmd";
const DEC_PTR: &str = "cb:pkt_rdy_cb cb:pkt_rdy_ctx cb:frm_rdy_cb cb:frm_rdy_ctx";

/// The release that brought a key; all had it if it is not here.
fn since(key: &str) -> Release {
    match key {
        "h265:tier" | "prep:format_out" | "prep:chroma_ds_mode" | "rc:fps_chg_no_idr" => Release::V1_0_8,
        "hw:qbias_en" => Release::V1_0_4,
        "h264:vui_en" | "h265:vui_en" | "tune:se_mode" => Release::V1_0_11,
        "base:disable_dpb_chk" | "base:codec_mode" => Release::V1_0_8,
        "base:dis_err_clr_mark" => Release::V1_0_9,
        _ => Release::V1_0_0,
    }
}

/// Which table a configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Encoder,
    Decoder,
}

/// The key as this library keeps it, and its type; none if this release does not know it.
fn key_of(side: Side, key: &str) -> Option<(&'static str, Type)> {
    // `denom` came with 1.0.5; it and `range` name the same value as another key.
    let (key, since_alias) = match key {
        "rc:fps_in_denom" => ("rc:fps_in_denorm", Release::V1_0_8),
        "rc:fps_out_denom" => ("rc:fps_out_denorm", Release::V1_0_8),
        "prep:range" => ("prep:colorrange", Release::V1_0_0),
        key => (key, Release::V1_0_0),
    };
    if release() < since(key).max(since_alias) {
        return None;
    }
    let tables: &[(&'static str, Type)] = match side {
        Side::Encoder => {
            &[(ENC_S32, Type::S32), (ENC_U32, Type::U32), (ENC_PTR, Type::Ptr), (ENC_ST, Type::St)]
        }
        Side::Decoder => &[(DEC_U32, Type::U32), (DEC_PTR, Type::Ptr)],
    };
    tables.iter().find_map(|(names, kind)| Some((names.split_whitespace().find(|n| *n == key)?, *kind)))
}

pub static ENC_CFGS: Registry<Mutex<Cfg>> = Registry::new("encoder configuration");
pub static DEC_CFGS: Registry<Mutex<Cfg>> = Registry::new("decoder configuration");

fn registry(side: Side) -> &'static Registry<Mutex<Cfg>> {
    match side {
        Side::Encoder => &ENC_CFGS,
        Side::Decoder => &DEC_CFGS,
    }
}

fn find(side: Side, name: *const c_char, kind: Type) -> Result<&'static str, i32> {
    let Some(name) = text(name) else { return Err(MPP_ERR_NULL_PTR) };
    let Some((key, own)) = key_of(side, &name) else {
        log(format_args!("cfg: {name} is not known"));
        return Err(MPP_NOK);
    };
    if !own.takes(kind) {
        log(format_args!("cfg: {name} is {own:?}, not {kind:?}"));
        return Err(MPP_NOK);
    }
    Ok(key)
}

fn set(side: Side, cfg: Id, name: *const c_char, kind: Type, value: i64) -> i32 {
    let Some(cfg) = registry(side).get(cfg, "mpp_cfg_set") else { return MPP_ERR_NULL_PTR };
    match find(side, name, kind) {
        Ok(key) => {
            lock(&cfg).put(key, value);
            MPP_OK
        }
        Err(code) => code,
    }
}

fn get<T>(
    side: Side,
    cfg: Id,
    name: *const c_char,
    kind: Type,
    out: *mut T,
    convert: impl Fn(i64) -> T,
) -> i32 {
    let Some(cfg) = registry(side).get(cfg, "mpp_cfg_get") else { return MPP_ERR_NULL_PTR };
    match find(side, name, kind) {
        Ok(key) => {
            let value = lock(&cfg).get(key);
            if store(out, convert(value)) { MPP_OK } else { MPP_ERR_NULL_PTR }
        }
        Err(code) => code,
    }
}

/// What an encoder of this codec starts with.
pub fn encoder_defaults(coding: i32) -> Cfg {
    let mut cfg = Cfg::default();
    let mut put = |pairs: &[(&'static str, i64)]| pairs.iter().for_each(|(k, v)| cfg.put(k, *v));
    put(&[
        ("codec:type", coding.into()),
        ("rc:mode", MPP_ENC_RC_MODE_VBR.into()),
        ("rc:bps_target", 2_000_000),
        ("rc:bps_max", 2_125_000),
        ("rc:bps_min", 125_000),
        ("rc:fps_in_num", 30),
        ("rc:fps_in_denorm", 1),
        ("rc:fps_out_num", 30),
        ("rc:fps_out_denorm", 1),
        ("rc:gop", 60),
        ("rc:max_reenc_times", 1),
        ("rc:qp_init", 26),
        ("prep:colorspace", 2),
        ("prep:colorprim", 2),
        ("prep:colortrc", 2),
    ]);
    match coding {
        MPP_VIDEO_CODING_HEVC => put(&[
            ("rc:qp_min", 10),
            ("rc:qp_max", 51),
            ("rc:qp_min_i", 10),
            ("rc:qp_max_i", 51),
            ("h265:profile", 1),
            ("h265:level", 120),
        ]),
        MPP_VIDEO_CODING_VP8 => put(&[
            ("rc:mode", MPP_ENC_RC_MODE_CBR.into()),
            ("rc:qp_init", 40),
            ("rc:qp_max", 127),
            ("rc:qp_max_i", 127),
        ]),
        MPP_VIDEO_CODING_MJPEG => {
            put(&[
                ("jpeg:q_factor", 80),
                ("jpeg:qf_min", 1),
                ("jpeg:qf_max", 99),
                ("rc:mode", MPP_ENC_RC_MODE_FIXQP.into()),
            ]);
        }
        _ => put(&[
            ("rc:qp_min", 8),
            ("rc:qp_max", 48),
            ("rc:qp_min_i", 8),
            ("rc:qp_max_i", 48),
            ("h264:profile", 66),
            ("h264:level", 31),
        ]),
    }
    cfg
}

/// What a decoder starts with.
pub fn decoder_defaults(coding: i32) -> Cfg {
    let mut cfg = Cfg::default();
    cfg.put("base:coding", coding.into());
    cfg.put("base:fast_parse", 1);
    cfg.put("base:enable_vproc", 1);
    cfg.put("base:enable_fast_play", 1);
    cfg
}

/// Values of 32 bits are kept as they came: a `u32` above 2^31 is read back the same.
fn from_u32(value: u32) -> i64 {
    value.cast_signed().into()
}

#[expect(clippy::cast_possible_truncation, reason = "values of 32 bits were stored as such")]
fn to_u32(value: i64) -> u32 {
    (value as i32).cast_unsigned()
}

macro_rules! numbers {
    ($side:expr, $cfg:ident: $($set:ident $get:ident $kind:ident $ty:ty, $from:expr, $to:expr;)*) => {
        export! {
            $(fn $set(cfg: $cfg, name: *const c_char, value: $ty) -> MppRet { set($side, id(cfg), name, Type::$kind, $from(value)) }
            fn $get(cfg: $cfg, name: *const c_char, value: *mut $ty) -> MppRet { get($side, id(cfg), name, Type::$kind, value, $to) })*
        }
    };
}

numbers! { Side::Encoder, MppEncCfg:
    mpp_enc_cfg_set_s32 mpp_enc_cfg_get_s32 S32 i32, i64::from, crate::meta::to_s32;
    mpp_enc_cfg_set_u32 mpp_enc_cfg_get_u32 U32 u32, from_u32, to_u32;
    mpp_enc_cfg_set_s64 mpp_enc_cfg_get_s64 S64 i64, i64::from, i64::from;
    mpp_enc_cfg_set_u64 mpp_enc_cfg_get_u64 U64 u64, u64::cast_signed, i64::cast_unsigned;
    mpp_enc_cfg_set_ptr mpp_enc_cfg_get_ptr Ptr *mut c_void, from_handle, to_handle;
}

numbers! { Side::Decoder, MppDecCfg:
    mpp_dec_cfg_set_s32 mpp_dec_cfg_get_s32 S32 i32, i64::from, crate::meta::to_s32;
    mpp_dec_cfg_set_u32 mpp_dec_cfg_get_u32 U32 u32, from_u32, to_u32;
    mpp_dec_cfg_set_s64 mpp_dec_cfg_get_s64 S64 i64, i64::from, i64::from;
    mpp_dec_cfg_set_u64 mpp_dec_cfg_get_u64 U64 u64, u64::cast_signed, i64::cast_unsigned;
    mpp_dec_cfg_set_ptr mpp_dec_cfg_get_ptr Ptr *mut c_void, from_handle, to_handle;
}

/// The tables behind `st` keys are taken and have no effect here.
fn structure(side: Side, cfg: Id, name: *const c_char, value: *mut c_void) -> i32 {
    if value.is_null() {
        return MPP_ERR_NULL_PTR;
    }
    set(side, cfg, name, Type::St, 1)
}

fn init<H>(side: Side, cfg: *mut *mut H, what: &str) -> i32 {
    if cfg.is_null() {
        misuse(format_args!("{what}: no place for the handle"));
        return MPP_ERR_NULL_PTR;
    }
    store(cfg, handle(registry(side).insert(Mutex::default())));
    MPP_OK
}

fn deinit(side: Side, cfg: Id, what: &str) -> i32 {
    registry(side).remove(cfg, what).map_or(MPP_ERR_NULL_PTR, |_| MPP_OK)
}

/// The configuration that a pointer argument of `control` is.
pub fn of(side: Side, param: *mut c_void, what: &str) -> Option<Cfg> {
    registry(side).of(param, what).map(|cfg| lock(&cfg).clone())
}

/// Fills the configuration that a pointer argument of `control` is.
pub fn fill(side: Side, param: *mut c_void, with: &Cfg, what: &str) -> i32 {
    registry(side).of(param, what).map_or(MPP_ERR_NULL_PTR, |cfg| {
        lock(&cfg).merge(with);
        MPP_OK
    })
}

export! {
    fn mpp_enc_cfg_init(cfg: *mut MppEncCfg) -> MppRet { init(Side::Encoder, cfg, "mpp_enc_cfg_init") }
    fn mpp_enc_cfg_deinit(cfg: MppEncCfg) -> MppRet { deinit(Side::Encoder, id(cfg), "mpp_enc_cfg_deinit") }
    fn mpp_enc_cfg_set_st(cfg: MppEncCfg, name: *const c_char, value: *mut c_void) -> MppRet { structure(Side::Encoder, id(cfg), name, value) }
    fn mpp_enc_cfg_get_st(cfg: MppEncCfg, name: *const c_char, value: *mut c_void) -> MppRet {
        get(Side::Encoder, id(cfg), name, Type::St, value.cast::<u8>(), |_| 0)
    }
    fn mpp_enc_cfg_show() {}
    fn mpp_dec_cfg_init(cfg: *mut MppDecCfg) -> MppRet { init(Side::Decoder, cfg, "mpp_dec_cfg_init") }
    fn mpp_dec_cfg_deinit(cfg: MppDecCfg) -> MppRet { deinit(Side::Decoder, id(cfg), "mpp_dec_cfg_deinit") }
    fn mpp_dec_cfg_set_st(cfg: MppDecCfg, name: *const c_char, value: *mut c_void) -> MppRet { structure(Side::Decoder, id(cfg), name, value) }
    fn mpp_dec_cfg_get_st(cfg: MppDecCfg, name: *const c_char, value: *mut c_void) -> MppRet {
        get(Side::Decoder, id(cfg), name, Type::St, value.cast::<u8>(), |_| 0)
    }
    fn mpp_dec_cfg_show() {}
}

/// A time-out as `control` gets it: the low four bytes count.
pub fn timeout(param: *mut c_void) -> Option<i64> {
    load(param.cast::<i32>()).map(i64::from)
}
