// SPDX-License-Identifier: MIT OR Apache-2.0

//! Configurations of encoders and decoders: values by name.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::ptr;

use rockchip_mpp_sys::{MppDecCfg, MppEncCfg, MppEncRefCfg, MppEncRefStFrmCfg, consts};

use crate::context::Mpp;
use crate::error::{Code, Error, check};

/// A value. The library takes either 32 bit kind for the other, and refuses 64 bits for 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Most keys.
    S32(i32),
    /// Few keys.
    U32(u32),
    /// 64 bits.
    S64(i64),
    /// 64 bits.
    U64(u64),
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::S32(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S32(value) => value.fmt(f),
            Self::U32(value) => value.fmt(f),
            Self::S64(value) => value.fmt(f),
            Self::U64(value) => value.fmt(f),
        }
    }
}

/// An encoder's configuration. Changes reach the encoder by [`Encoder::apply`](crate::Encoder::apply).
#[derive(Debug)]
pub struct EncoderConfig {
    mpp: Mpp,
    raw: MppEncCfg,
    /// Keys that this release does not know.
    unsupported: BTreeSet<CString>,
    /// Handed to the encoder by pointer.
    references: Option<References>,
}

// SAFETY: a configuration has one owner, and the library no thread-local state.
unsafe impl Send for EncoderConfig {}

impl EncoderConfig {
    pub(crate) fn new(mpp: Mpp) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing.
        check("mpp_enc_cfg_init", unsafe { (mpp.symbols().mpp_enc_cfg_init)(&mut raw) })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_enc_cfg_init" });
        }
        Ok(Self { mpp, raw, unsupported: BTreeSet::new(), references: None })
    }

    fn set_raw(&mut self, key: &CStr, value: Value) -> Code {
        let symbols = self.mpp.symbols();
        let (cfg, name) = (self.raw, key.as_ptr());
        // SAFETY: the configuration is alive; the name is copied or compared, not kept.
        Code(unsafe {
            match value {
                Value::S32(value) => (symbols.mpp_enc_cfg_set_s32)(cfg, name, value),
                Value::U32(value) => (symbols.mpp_enc_cfg_set_u32)(cfg, name, value),
                Value::S64(value) => (symbols.mpp_enc_cfg_set_s64)(cfg, name, value),
                Value::U64(value) => (symbols.mpp_enc_cfg_set_u64)(cfg, name, value),
            }
        })
    }

    /// Sets a value that every release knows.
    ///
    /// # Errors
    /// If the library refuses it.
    pub fn set(&mut self, key: &CStr, value: impl Into<Value>) -> Result<(), Error> {
        let value = value.into();
        match self.set_raw(key, value) {
            Code(consts::MPP_OK) => Ok(()),
            code => {
                Err(Error::Config { key: key.to_string_lossy().into_owned(), value: value.to_string(), code })
            }
        }
    }

    /// Sets a value that some releases do not know; tells whether this one does. A key that was refused once is not
    /// tried again: the library logs an error each time.
    pub fn set_optional(&mut self, key: &CStr, value: impl Into<Value>) -> bool {
        if self.unsupported.contains(key) {
            return false;
        }
        let known = self.set_raw(key, value.into()) == Code(consts::MPP_OK);
        if !known {
            self.unsupported.insert(key.to_owned());
        }
        known
    }

    /// Keys that [`set_optional`](Self::set_optional) was refused.
    pub fn unsupported(&self) -> impl Iterator<Item = &CStr> {
        self.unsupported.iter().map(CString::as_c_str)
    }

    /// A value of the configuration, if the release knows the key.
    pub fn get(&self, key: &CStr) -> Option<i32> {
        let mut value = 0;
        // SAFETY: the configuration is alive, the pointer valid for writing.
        let code = unsafe { (self.mpp.symbols().mpp_enc_cfg_get_s32)(self.raw, key.as_ptr(), &mut value) };
        (code == consts::MPP_OK).then_some(value)
    }

    /// Two to four temporal layers, or one for none, each a doubling of the frame rate. To be set before the first
    /// frame: some releases abort when it changes later.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn set_temporal_layers(&mut self, layers: u32) -> Result<(), Error> {
        let references = References::layers(self.mpp, layers)?;
        // SAFETY: the reference structure lives as long as this configuration, which is applied before it goes.
        check("mpp_enc_cfg_set_ptr(rc:ref_cfg)", unsafe {
            (self.mpp.symbols().mpp_enc_cfg_set_ptr)(self.raw, c"rc:ref_cfg".as_ptr(), references.raw.cast())
        })?;
        self.references = Some(references);
        Ok(())
    }

    pub(crate) fn as_argument(&self) -> *mut c_void {
        self.raw.cast()
    }
}

impl Drop for EncoderConfig {
    fn drop(&mut self) {
        // SAFETY: freed once, here.
        unsafe { (self.mpp.symbols().mpp_enc_cfg_deinit)(self.raw) };
    }
}

/// A reference structure.
#[derive(Debug)]
struct References {
    mpp: Mpp,
    raw: MppEncRefCfg,
}

/// Temporal layer of each frame of the repeating pattern, by the number of layers.
fn pattern(layers: u32) -> &'static [i32] {
    match layers {
        0 | 1 => &[0, 0],
        2 => &[0, 1, 0],
        3 => &[0, 2, 1, 2, 0],
        _ => &[0, 3, 2, 3, 1, 3, 2, 3, 0],
    }
}

impl References {
    fn layers(mpp: Mpp, layers: u32) -> Result<Self, Error> {
        let symbols = mpp.symbols();
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing.
        check("mpp_enc_ref_cfg_init", unsafe { (symbols.mpp_enc_ref_cfg_init)(&mut raw) })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_enc_ref_cfg_init" });
        }
        let references = Self { mpp, raw };
        let pattern = pattern(layers);
        let highest = pattern.iter().copied().max().unwrap_or(0);
        let mut frames: Vec<MppEncRefStFrmCfg> = pattern
            .iter()
            .map(|&layer| MppEncRefStFrmCfg {
                is_non_ref: i32::from(layer == highest && layer > 0),
                temporal_id: layer,
                ref_mode: consts::REF_TO_PREV_REF_FRM,
                ..MppEncRefStFrmCfg::default()
            })
            .collect();
        let count = i32::try_from(frames.len()).unwrap_or(0);
        // SAFETY: the structure is alive; the frames are copied.
        unsafe {
            check("mpp_enc_ref_cfg_set_cfg_cnt", (symbols.mpp_enc_ref_cfg_set_cfg_cnt)(raw, 0, count))?;
            check(
                "mpp_enc_ref_cfg_add_st_cfg",
                (symbols.mpp_enc_ref_cfg_add_st_cfg)(raw, count, frames.as_mut_ptr()),
            )?;
            check("mpp_enc_ref_cfg_check", (symbols.mpp_enc_ref_cfg_check)(raw))?;
        }
        Ok(references)
    }
}

impl Drop for References {
    fn drop(&mut self) {
        // SAFETY: freed once, here.
        unsafe { (self.mpp.symbols().mpp_enc_ref_cfg_deinit)(&mut self.raw) };
    }
}

/// A decoder's configuration. Changes reach the decoder by [`Decoder::apply`](crate::Decoder::apply).
#[derive(Debug)]
pub struct DecoderConfig {
    mpp: Mpp,
    raw: MppDecCfg,
}

// SAFETY: a configuration has one owner, and the library no thread-local state.
unsafe impl Send for DecoderConfig {}

impl DecoderConfig {
    pub(crate) fn new(mpp: Mpp) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for writing.
        check("mpp_dec_cfg_init", unsafe { (mpp.symbols().mpp_dec_cfg_init)(&mut raw) })?;
        if raw.is_null() {
            return Err(Error::Nothing { call: "mpp_dec_cfg_init" });
        }
        Ok(Self { mpp, raw })
    }

    fn set_raw(&mut self, key: &CStr, value: Value) -> Code {
        let symbols = self.mpp.symbols();
        let (cfg, name) = (self.raw, key.as_ptr());
        // SAFETY: the configuration is alive; the name is copied or compared, not kept.
        Code(unsafe {
            match value {
                Value::S32(value) => (symbols.mpp_dec_cfg_set_s32)(cfg, name, value),
                Value::U32(value) => (symbols.mpp_dec_cfg_set_u32)(cfg, name, value),
                Value::S64(value) => (symbols.mpp_dec_cfg_set_s64)(cfg, name, value),
                Value::U64(value) => (symbols.mpp_dec_cfg_set_u64)(cfg, name, value),
            }
        })
    }

    /// Sets a value that every release knows.
    ///
    /// # Errors
    /// If the library refuses it.
    pub fn set(&mut self, key: &CStr, value: impl Into<Value>) -> Result<(), Error> {
        let value = value.into();
        match self.set_raw(key, value) {
            Code(consts::MPP_OK) => Ok(()),
            code => {
                Err(Error::Config { key: key.to_string_lossy().into_owned(), value: value.to_string(), code })
            }
        }
    }

    /// Sets a value that some releases do not know; tells whether this one does.
    pub fn set_optional(&mut self, key: &CStr, value: impl Into<Value>) -> bool {
        self.set_raw(key, value.into()) == Code(consts::MPP_OK)
    }

    /// A value of the configuration, if the release knows the key.
    pub fn get(&self, key: &CStr) -> Option<u32> {
        let mut value = 0;
        // SAFETY: the configuration is alive, the pointer valid for writing.
        let code = unsafe { (self.mpp.symbols().mpp_dec_cfg_get_u32)(self.raw, key.as_ptr(), &mut value) };
        (code == consts::MPP_OK).then_some(value)
    }

    pub(crate) fn as_argument(&self) -> *mut c_void {
        self.raw.cast()
    }
}

impl Drop for DecoderConfig {
    fn drop(&mut self) {
        // SAFETY: freed once, here.
        unsafe { (self.mpp.symbols().mpp_dec_cfg_deinit)(self.raw) };
    }
}
