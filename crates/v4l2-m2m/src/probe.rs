// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds encoders among the nodes: memory-to-memory, a known coded format on CAPTURE, a known raw one on OUTPUT.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::Codec;
use crate::error::{NodeError, ProbeError};
use crate::ioctl::{self, Api, Capability, Format, FrameSizes};
use crate::nvidia;
use crate::ops::{Dialect, Handle, V4l2Ops};
use crate::picture::RawFormat;
use crate::queue::{Capture, Output};
use crate::uapi::FourCc;

/// What a device encodes from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecSupport {
    /// The coded format.
    pub codec: Codec,
    /// The device's name of it.
    pub fourcc: FourCc,
    /// Raw formats and the device's names of them.
    pub raws: Vec<(RawFormat, FourCc)>,
    /// Sizes; `None` if the device does not tell.
    pub sizes: Option<FrameSizes>,
}

/// An open encoder and what it can do.
#[derive(Debug)]
pub struct Device {
    pub(crate) handle: Arc<Handle>,
    /// What it says of itself.
    pub capability: Capability,
    /// Single- or multi-planar.
    pub api: Api,
    /// What it encodes, the most wanted first.
    pub codecs: Vec<CodecSupport>,
}

impl Device {
    /// Opens a node.
    ///
    /// # Errors
    /// If it is no encoder for us: see [`NodeError`].
    pub fn open(ops: &Arc<dyn V4l2Ops>, path: &Path) -> Result<Self, NodeError> {
        let handle = Arc::new(Handle::open(ops, path).map_err(NodeError::Open)?);
        let capability = ioctl::query_capability(&handle)?;
        let driver = capability.driver.clone();
        let Some(api) = capability.m2m() else { return Err(NodeError::NotM2m(driver)) };
        if handle.dialect() == Dialect::Nvidia {
            let codecs = nvidia::codecs(&handle, api, &driver)?;
            return Ok(Self { handle, capability, api, codecs });
        }
        let coded = ioctl::enumerate_formats::<Capture>(&handle, api)?;
        let mut wanted: Vec<Codec> =
            coded.iter().filter(|row| row.compressed).filter_map(|row| Codec::of(row.fourcc)).collect();
        wanted.sort();
        if wanted.is_empty() {
            let codecs =
                coded.iter().filter(|row| row.compressed).map(|row| row.fourcc.to_string()).collect();
            return Err(NodeError::NoCodec { driver, codecs });
        }
        let (mut codecs, mut others) = (Vec::new(), Vec::new());
        for codec in wanted {
            // CAPTURE's format decides what OUTPUT offers.
            let format = Format {
                fourcc: codec.fourcc(),
                width: 640,
                height: 480,
                planes: vec![ioctl::PlaneFormat { bytesperline: 0, sizeimage: 1 << 20 }],
                ..Format::default()
            };
            if let Err(error) = ioctl::set_format::<Capture>(&handle, api, &format) {
                tracing::debug!(%error, ?codec, "a listed coded format is refused");
                continue;
            }
            let offered = ioctl::enumerate_formats::<Output>(&handle, api)?;
            // Names in the order of our wishes, planes in one piece first.
            let mut raws = Vec::new();
            for raw in RawFormat::ALL {
                let name = raw.fourccs().iter().find(|code| offered.iter().any(|row| row.fourcc == **code));
                raws.extend(name.map(|&code| (raw, code)));
            }
            others.extend(offered.iter().map(|row| row.fourcc.to_string()));
            if let Some(&(_, code)) = raws.first() {
                let sizes =
                    ioctl::frame_sizes(&handle, code).or_else(|| ioctl::frame_sizes(&handle, codec.fourcc()));
                codecs.push(CodecSupport { codec, fourcc: codec.fourcc(), raws, sizes });
            }
        }
        if codecs.is_empty() {
            return Err(NodeError::NoRawFormat { driver, formats: others });
        }
        Ok(Self { handle, capability, api, codecs })
    }

    /// Opens the first node that is an encoder for one of `codecs`.
    ///
    /// # Errors
    /// All nodes that were tried, and why each was refused.
    pub fn find(ops: &Arc<dyn V4l2Ops>, codecs: &[Codec]) -> Result<Self, ProbeError> {
        let mut refused: Vec<(PathBuf, NodeError)> = Vec::new();
        for path in ops.nodes() {
            match Self::open(ops, &path) {
                Ok(device) if device.codecs.iter().any(|support| codecs.contains(&support.codec)) => {
                    return Ok(device);
                }
                Ok(device) => {
                    let driver = device.capability.driver.clone();
                    let codecs = device.codecs.iter().map(|support| support.codec.name().into()).collect();
                    refused.push((path, NodeError::NoCodec { driver, codecs }));
                }
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "no encoder");
                    refused.push((path, error));
                }
            }
        }
        Err(ProbeError(refused))
    }

    /// The node.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.handle.path()
    }

    /// What it can do for a codec.
    #[must_use]
    pub fn support(&self, codec: Codec) -> Option<&CodecSupport> {
        self.codecs.iter().find(|support| support.codec == codec)
    }
}
