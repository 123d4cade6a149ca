// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reference structures: of their effect the simulator only has the temporal layer of each frame.

use crate::abi::{export, id, load, store};
use crate::control::misuse;
use crate::registry::{Registry, lock};
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::sync::Mutex;

/// A repeating pattern.
#[derive(Clone, Debug, Default)]
pub struct RefCfg {
    lt: (usize, usize),
    st: (usize, Vec<MppEncRefStFrmCfg>),
}

pub static REF_CFGS: Registry<Mutex<RefCfg>> = Registry::new("reference configuration");

impl RefCfg {
    /// The temporal layer of a frame, counted from its IDR frame.
    pub fn temporal_id(&self, since_idr: u64) -> i32 {
        let frames = self.frames();
        let count = frames.len() as u64;
        // The first entry is the IDR frame; the pattern begins behind it and its last entry stands for it again.
        match since_idr.checked_rem(count.saturating_sub(1).max(1)) {
            Some(index) if count > 0 => frames.get(usize::try_from(index).unwrap_or(0)).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Each frame's layer, repetitions written out.
    fn frames(&self) -> Vec<i32> {
        let repeated = |f: &MppEncRefStFrmCfg| {
            std::iter::repeat_n(f.temporal_id, 1 + usize::try_from(f.repeat).unwrap_or(0).min(63))
        };
        self.st.1.iter().flat_map(repeated).collect()
    }

    fn complete(&self) -> bool {
        self.st.0 == self.st.1.len() && self.lt.0 == self.lt.1 && self.st.0 > 0
    }
}

fn change(cfg: MppEncRefCfg, what: &str, f: impl FnOnce(&mut RefCfg) -> i32) -> i32 {
    REF_CFGS.of(cfg, what).map_or(MPP_ERR_NULL_PTR, |cfg| f(&mut lock(&cfg)))
}

export! {
    fn mpp_enc_ref_cfg_init(cfg: *mut MppEncRefCfg) -> MppRet {
        if cfg.is_null() {
            misuse(format_args!("mpp_enc_ref_cfg_init: no place for the handle"));
            return MPP_ERR_NULL_PTR;
        }
        store(cfg, REF_CFGS.handle(Mutex::default()));
        MPP_OK
    }
    fn mpp_enc_ref_cfg_deinit(cfg: *mut MppEncRefCfg) -> MppRet {
        let Some(h) = load(cfg) else { return MPP_ERR_NULL_PTR };
        store(cfg, std::ptr::null_mut());
        REF_CFGS.remove(id(h), "mpp_enc_ref_cfg_deinit").map_or(MPP_ERR_NULL_PTR, |_| MPP_OK)
    }
    fn mpp_enc_ref_cfg_reset(cfg: MppEncRefCfg) -> MppRet {
        change(cfg, "mpp_enc_ref_cfg_reset", |c| { *c = RefCfg::default(); MPP_OK })
    }
    fn mpp_enc_ref_cfg_set_cfg_cnt(cfg: MppEncRefCfg, lt_count: i32, st_count: i32) -> MppRet {
        change(cfg, "mpp_enc_ref_cfg_set_cfg_cnt", |c| {
            match (usize::try_from(lt_count), usize::try_from(st_count)) {
                (Ok(lt), Ok(st)) if lt <= 64 && st <= 64 => { c.lt.0 = lt; c.st.0 = st; MPP_OK }
                _ => MPP_ERR_VALUE,
            }
        })
    }
    fn mpp_enc_ref_cfg_add_lt_cfg(cfg: MppEncRefCfg, count: i32, frames: *mut MppEncRefLtFrmCfg) -> MppRet {
        change(cfg, "mpp_enc_ref_cfg_add_lt_cfg", |c| {
            let Ok(count) = usize::try_from(count) else { return MPP_ERR_VALUE };
            if frames.is_null() || c.lt.1 + count > c.lt.0 { return MPP_NOK; }
            c.lt.1 += count;
            MPP_OK
        })
    }
    fn mpp_enc_ref_cfg_add_st_cfg(cfg: MppEncRefCfg, count: i32, frames: *mut MppEncRefStFrmCfg) -> MppRet {
        change(cfg, "mpp_enc_ref_cfg_add_st_cfg", |c| {
            let Ok(count) = usize::try_from(count) else { return MPP_ERR_VALUE };
            if frames.is_null() || c.st.1.len() + count > c.st.0 { return MPP_NOK; }
            c.st.1.extend((0..count).filter_map(|i| load(frames.wrapping_add(i))));
            MPP_OK
        })
    }
    fn mpp_enc_ref_cfg_check(cfg: MppEncRefCfg) -> MppRet {
        change(cfg, "mpp_enc_ref_cfg_check", |c| if c.complete() { MPP_OK } else { MPP_NOK })
    }
    fn mpp_enc_ref_cfg_set_keep_cpb(cfg: MppEncRefCfg, _keep: i32) -> MppRet {
        change(cfg, "mpp_enc_ref_cfg_set_keep_cpb", |_| MPP_OK)
    }
    fn mpp_enc_ref_cfg_show(cfg: MppEncRefCfg) -> MppRet { change(cfg, "mpp_enc_ref_cfg_show", |_| MPP_OK) }
}
