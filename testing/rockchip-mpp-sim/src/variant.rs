// SPDX-License-Identifier: MIT OR Apache-2.0

//! Copies of the library for tests: each copy has a state of its own, and may lack functions that older releases
//! lack.

use crate::options::Release;
use std::path::{Path, PathBuf};

/// Names of functions that a library lacks.
pub type Missing = &'static [&'static str];

/// What a release lacks of the functions that some other release has.
pub fn missing_in(release: Release) -> Vec<&'static str> {
    const SYNC: Missing = &[
        "mpp_buffer_sync_begin_f",
        "mpp_buffer_sync_end_f",
        "mpp_buffer_sync_partial_begin_f",
        "mpp_buffer_sync_partial_end_f",
    ];
    const DEC_ST: Missing = &["mpp_dec_cfg_set_st", "mpp_dec_cfg_get_st"];
    let sync = if release < Release::V1_0_4 { SYNC } else { &[] };
    let st = if release < Release::V1_0_10 { DEC_ST } else { &[] };
    [sync, st].concat()
}

/// Why there is no library, or no copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VariantError {
    /// The library was not built with the program that asks for it.
    #[error("librockchip_mpp_sim.so is not beside {0}: run `cargo build -p rockchip-mpp-sim`")]
    NotBuilt(PathBuf),
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The function is not among the library's, so it can't be taken away.
    #[error("the library has no function {0}")]
    NoSuchFunction(String),
}

/// Where cargo put the library, seen from the program that runs (a test, an example, a bench of this workspace).
///
/// # Errors
/// [`VariantError::NotBuilt`] if it is neither beside the program nor a folder above.
pub fn library() -> Result<PathBuf, VariantError> {
    const NAME: &str = "librockchip_mpp_sim.so";
    let program =
        std::env::current_exe().map_err(|source| VariantError::File { path: PathBuf::new(), source })?;
    let beside = program.parent().unwrap_or(Path::new("."));
    // target/debug/deps/test-… and target/debug/deps/lib….so; programs of `cargo run` are a folder above.
    [beside.join(NAME), beside.join("deps").join(NAME), beside.join("..").join(NAME)]
        .into_iter()
        .find(|path| path.exists())
        .ok_or(VariantError::NotBuilt(program))
}

/// Writes a copy of the library to `to`, without the functions in `missing`: their names in the table of dynamic
/// symbols are changed, so that nobody finds them.
///
/// # Errors
/// If files can't be read or written, or a function is not there in the first place.
pub fn variant(to: &Path, missing: &[&str]) -> Result<(), VariantError> {
    let from = library()?;
    let mut bytes =
        std::fs::read(&from).map_err(|source| VariantError::File { path: from.clone(), source })?;
    for name in missing {
        let wanted: Vec<u8> = [b"\0", name.as_bytes(), b"\0"].concat();
        let mut found = false;
        // The name stands in the string tables of the dynamic linker and of debuggers.
        while let Some(at) = bytes.windows(wanted.len()).position(|w| w == wanted) {
            if let Some(first) = bytes.get_mut(at + 1) {
                *first = b'-';
            }
            found = true;
        }
        if !found {
            return Err(VariantError::NoSuchFunction((*name).to_owned()));
        }
    }
    std::fs::write(to, bytes).map_err(|source| VariantError::File { path: to.to_owned(), source })
}
