// SPDX-License-Identifier: MPL-2.0

//! Is there a library, a device, a permission? Looked at only to explain a failure, and for the rank.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rockchip_mpp::{Error, Mpp};

/// Where the kernel's driver is.
pub(crate) const NODE: &str = "/dev/mpp_service";
const HEAPS: &str = "/dev/dma_heap";

/// Whether this looks like a board with the driver. No more than a glance.
pub(crate) fn node_exists() -> bool {
    Path::new(NODE).exists()
}

/// The library, if it opens any of these codecs; else why it does not open the first.
pub(crate) fn open<C>(
    path: Option<&OsStr>,
    codecs: impl IntoIterator<Item = C>,
    opens: impl Fn(Mpp, C) -> Result<(), Error>,
) -> Result<Mpp, Error> {
    let mpp = Mpp::load(path)?;
    // A codec may be missing, but not all of them.
    let mut first = None;
    for codec in codecs {
        match opens(mpp, codec) {
            Ok(()) => return Ok(mpp),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or(Error::Nothing { call: "mpp_init" }))
}

/// Which of the things that are needed is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Library,
    Device,
    Permission,
    /// All seems to be there, and yet it fails.
    Unknown,
}

/// What to tell the user.
#[derive(Debug)]
struct Explanation {
    missing: Missing,
    text: String,
}

/// What to post when the hardware could not be opened.
pub(crate) fn message(error: &Error) -> gst::ErrorMessage {
    let Explanation { missing, text } = explain(error);
    match missing {
        Missing::Library => gst::error_msg!(gst::LibraryError::Init, ("{text}")),
        Missing::Device => gst::error_msg!(gst::ResourceError::NotFound, ("{text}")),
        Missing::Permission => gst::error_msg!(gst::ResourceError::OpenReadWrite, ("{text}")),
        Missing::Unknown => gst::error_msg!(gst::ResourceError::Failed, ("{text}")),
    }
}

/// Says why the hardware could not be opened and what to do.
fn explain(error: &Error) -> Explanation {
    explain_with(error, Path::new(NODE), Path::new(HEAPS))
}

fn explain_with(error: &Error, node: &Path, heaps: &Path) -> Explanation {
    if let Error::Load(error) = error {
        return Explanation {
            missing: Missing::Library,
            text: format!(
                "The library of Rockchip MPP could not be loaded. Tried: {error}. Install librockchip_mpp \
                 (Debian-based images of boards: librockchip-mpp1), or name the file in the property library-path or \
                 in the environment variable ROCKCHIP_MPP_LIBRARY."
            ),
        };
    }
    match access(node) {
        Err(ErrorKind::NotFound) => Explanation {
            missing: Missing::Device,
            text: format!(
                "MPP found no video hardware ({error}): there is no {node}. It needs a Rockchip SoC and a kernel with \
                 Rockchip's mpp_service driver; mainline kernels have none. In a container, pass {node} and {heaps} in.",
                node = node.display(),
                heaps = heaps.display()
            ),
        },
        Err(ErrorKind::PermissionDenied) => permission(error, &[node.to_owned()]),
        _ => {
            let closed: Vec<PathBuf> = std::fs::read_dir(heaps)
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| access(path) == Err(ErrorKind::PermissionDenied))
                .collect();
            if closed.is_empty() {
                Explanation {
                    missing: Missing::Unknown,
                    text: format!(
                        "MPP could not open the video hardware ({error}), although {} can be opened. Its own log says why: \
                         run with mpp_syslog_perror=1 in the environment. A library that is older than the SoC does this.",
                        node.display()
                    ),
                }
            } else {
                permission(error, &closed)
            }
        }
    }
}

fn permission(error: &Error, closed: &[PathBuf]) -> Explanation {
    let names: Vec<_> = closed.iter().map(|path| path.display().to_string()).collect();
    Explanation {
        missing: Missing::Permission,
        text: format!(
            "MPP may not use the video hardware ({error}): this user may not open {}. Add the user to the group video \
             (sudo usermod -aG video $USER, then log in again) and install the udev rule 99-rockchip-mpp.rules, which gives \
             that group {NODE} and {HEAPS}/*.",
            names.join(", ")
        ),
    }
}

fn access(path: &Path) -> Result<(), ErrorKind> {
    OpenOptions::new().read(true).write(true).open(path).map(drop).map_err(|error| error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rockchip_mpp::Code;

    fn init_failed() -> Error {
        Error::Call { call: "mpp_init", code: Code(-1) }
    }

    #[test]
    fn a_missing_library_is_named_with_what_was_tried() {
        let error = rockchip_mpp::Mpp::load(Some("/nonexistent/librockchip_mpp.so".as_ref())).unwrap_err();
        let explanation = explain_with(&error.into(), Path::new("/dev/null"), Path::new("/nonexistent"));
        assert_eq!(explanation.missing, Missing::Library);
        assert!(explanation.text.contains("/nonexistent/librockchip_mpp.so: "), "{}", explanation.text);
        assert!(explanation.text.contains("library-path"), "{}", explanation.text);
    }

    #[test]
    fn a_missing_device_is_told_from_a_missing_permission() {
        let explanation =
            explain_with(&init_failed(), Path::new("/nonexistent/mpp_service"), Path::new("/nonexistent"));
        assert_eq!(explanation.missing, Missing::Device);
        assert!(explanation.text.contains("/nonexistent/mpp_service"), "{}", explanation.text);

        let explanation = explain_with(&init_failed(), Path::new("/dev/null"), Path::new("/nonexistent"));
        assert_eq!(explanation.missing, Missing::Unknown);
        assert!(explanation.text.contains("mpp_init failed with -1 (MPP_NOK)"), "{}", explanation.text);

        let text = permission(&init_failed(), &["/dev/mpp_service".into()]).text;
        assert!(text.contains("group video") && text.contains("udev"), "{text}");
    }
}
