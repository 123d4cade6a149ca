// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds and loads the library.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::Symbols;

/// Environment variable with a path or a name of the library.
pub const LIBRARY_ENV: &str = "ROCKCHIP_MPP_LIBRARY";

/// Names tried when no path is given: the SONAME, the file's own name, the development link.
pub const DEFAULT_NAMES: [&str; 3] = ["librockchip_mpp.so.1", "librockchip_mpp.so.0", "librockchip_mpp.so"];

/// A loaded library. It stays loaded until the process ends.
#[derive(Debug)]
pub struct Library {
    name: OsString,
    symbols: Symbols,
}

/// One library that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Path or name.
    pub name: OsString,
    /// What went wrong.
    pub reason: String,
}

/// Why there is no library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The path that the caller gave is no usable library. Nothing else was tried.
    #[error("{0}")]
    Path(Attempt),
    /// The path in the environment is no usable library. Nothing else was tried.
    #[error("{LIBRARY_ENV} is set, but {0}")]
    Environment(Attempt),
    /// None of the usual names is a usable library.
    #[error("no usable librockchip_mpp: {}", Attempts(.0))]
    NotFound(Vec<Attempt>),
}

impl LoadError {
    /// What was tried, in order.
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            Self::Path(attempt) | Self::Environment(attempt) => std::slice::from_ref(attempt),
            Self::NotFound(attempts) => attempts,
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.display(), self.reason)
    }
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{attempt}")?;
        }
        Ok(())
    }
}

impl Library {
    /// Loads the library: from `path` if given, else from what [`LIBRARY_ENV`] names, else by the
    /// [`DEFAULT_NAMES`]. Asked again for the same name it gives the same library.
    ///
    /// # Errors
    /// All that was tried, each with what the dynamic linker said or the functions that were missing.
    pub fn load(path: Option<&OsStr>) -> Result<&'static Self, LoadError> {
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            return Self::open(path).map_err(LoadError::Path);
        }
        if let Some(path) = std::env::var_os(LIBRARY_ENV).filter(|path| !path.is_empty()) {
            return Self::open(&path).map_err(LoadError::Environment);
        }
        Self::first_of(&DEFAULT_NAMES)
    }

    fn first_of(names: &[&str]) -> Result<&'static Self, LoadError> {
        let mut attempts = Vec::new();
        for name in names {
            match Self::open(OsStr::new(name)) {
                Ok(library) => return Ok(library),
                Err(attempt) => attempts.push(attempt),
            }
        }
        Err(LoadError::NotFound(attempts))
    }

    fn open(name: &OsStr) -> Result<&'static Self, Attempt> {
        // Failures are not remembered: somebody may install the library meanwhile.
        static LOADED: Mutex<Vec<&'static Library>> = Mutex::new(Vec::new());
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.iter().find(|library| library.name == name) {
            return Ok(library);
        }
        let failed = |reason| Attempt { name: name.to_owned(), reason };
        // SAFETY: the constructors of MPP open device nodes and start logging, and ask nothing of the caller. Who
        // names another library answers for what that does.
        let handle = unsafe { libloading::os::unix::Library::new(name) }.map_err(|e| failed(reason(&e)))?;
        // SAFETY: the names are MPP's own, with the signatures of its headers; the library is never unloaded.
        let symbols = unsafe {
            Symbols::resolve(|name| {
                let symbol = handle.get::<*mut std::ffi::c_void>(name.as_bytes()).ok()?;
                NonNull::new(symbol.into_raw())
            })
        };
        // Constructors may have started threads and registered exit handlers by now: keep it in any case.
        std::mem::forget(handle);
        let symbols = symbols.map_err(|missing| {
            failed(format!("it lacks {} function(s) of MPP: {}", missing.len(), missing.join(", ")))
        })?;
        let library: &'static Self = Box::leak(Box::new(Self { name: name.to_owned(), symbols }));
        loaded.push(library);
        Ok(library)
    }

    /// The name or path that it was loaded by.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Its functions.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }
}

/// What the dynamic linker said; `libloading` has it only as the source of its own error.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_path_is_the_only_one_tried() {
        let error = Library::load(Some(OsStr::new("/nonexistent/libmpp.so"))).unwrap_err();
        assert!(matches!(error, LoadError::Path(_)), "{error}");
        assert_eq!(error.attempts().len(), 1);
        let text = error.to_string();
        assert!(text.contains("/nonexistent/libmpp.so") && text.contains("No such file"), "{text}");
    }

    #[test]
    fn all_names_are_listed_with_their_reasons() {
        let error = Library::first_of(&["libnot-there.so.1", "libc.so.6"]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("libnot-there.so.1: ") && text.contains("libc.so.6: it lacks"), "{text}");
        assert!(text.contains("mpp_create, mpp_init"), "{text}");
    }
}
