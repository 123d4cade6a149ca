// SPDX-License-Identifier: MPL-2.0

//! The property `extra-config`: keys of MPP's configuration.

use std::ffi::{CStr, CString};

use gst::prelude::*;
use rockchip_mpp::{Error, Value};

/// Sets the user's own keys; posts a warning of each that is not taken.
pub(crate) fn apply(
    element: &impl IsA<gst::Element>,
    extra: Option<&gst::Structure>,
    set_one: impl FnMut(&CStr, Value) -> Result<(), Error>,
) {
    for refused in extra.map(|extra| set(extra, set_one)).unwrap_or_default() {
        gst::element_warning!(
            element,
            gst::LibraryError::Settings,
            ("extra-config: {refused}. Names and ranges of keys depend on the release of MPP")
        );
    }
}

/// Sets the user's own keys.
///
/// Returns what was not taken, and why.
fn set(extra: &gst::StructureRef, mut set: impl FnMut(&CStr, Value) -> Result<(), Error>) -> Vec<String> {
    let mut refused = Vec::new();
    for (name, value) in extra.iter() {
        let number = if let Ok(value) = value.get::<i32>() {
            Some(Value::S32(value))
        } else if let Ok(value) = value.get::<u32>() {
            Some(Value::U32(value))
        } else if let Ok(value) = value.get::<i64>() {
            Some(Value::S64(value))
        } else if let Ok(value) = value.get::<u64>() {
            Some(Value::U64(value))
        } else {
            value.get::<bool>().ok().map(|value| Value::S32(value.into()))
        };
        match (CString::new(name.as_str()), number) {
            (Ok(key), Some(number)) => {
                if let Err(error) = set(&key, number) {
                    refused.push(error.to_string());
                }
            }
            _ => refused.push(format!("{name} is no number but {}", value.type_())),
        }
    }
    refused
}
