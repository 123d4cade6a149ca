// SPDX-License-Identifier: MPL-2.0

//! Behaviour of `jetsonv4l2enc` where it is not that of all encoders here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_encoder_glue::drm;
use gst_video::subclass::prelude::*;
use v4l2_m2m::codec::Codec;
use v4l2_m2m::ops::{DEVICE_VARIABLE, LIBRARY_VARIABLE, LoadError, NODES, NvidiaLibrary, V4l2Ops};
use v4l2_m2m::picture::RawFormat;
use v4l2_m2m::worker::WorkerError;

use super::settings;
use crate::encoder::{Core, Kind, Settings, lock};
use crate::nvmm::{DMABUF, NVMM};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("jetsonv4l2enc", gst::DebugColorFlags::empty(), Some("Jetson's NVENC"))
});

static KIND: Kind = Kind {
    element: "jetsonv4l2enc",
    stats: "application/x-jetsonv4l2enc-stats",
    category: &CAT,
    codecs: &Codec::NVIDIA,
    raws: &RawFormat::NVIDIA,
    slices: true,
    features: &[NVMM, DMABUF],
    ops,
    refused,
    hint: |_| {
        "scripts/check-jetson.sh looks for what is missing; GST_DEBUG=jetsonv4l2enc:5 tells more".into()
    },
};

fn library(settings: &Settings) -> Option<PathBuf> {
    settings.library_path.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn ops(settings: &Settings) -> Result<Arc<dyn V4l2Ops>, gst::ErrorMessage> {
    match NvidiaLibrary::load(library(settings).as_deref()) {
        Ok(library) => {
            if !library.has_surfaces() {
                gst::warning!(CAT, "no NvBufSurface functions: caches are not written back");
            }
            Ok(Arc::new(library))
        }
        Err(error) => Err(not_loaded(&error)),
    }
}

/// What is known of the nodes, for messages only.
fn nodes() -> String {
    let state = |node: &&str| match Path::new(node).try_exists() {
        Ok(true) => format!("{node} is there"),
        Ok(false) => format!("there is no {node}"),
        Err(error) => format!("{node}: {error}"),
    };
    NODES.iter().map(state).collect::<Vec<_>>().join(", ")
}

fn not_loaded(error: &LoadError) -> gst::ErrorMessage {
    gst::error_msg!(
        gst::ResourceError::NotFound,
        (
            "NVIDIA's V4L2 library could not be loaded. Tried: {error}. Nodes of NVENC: {}. On a Jetson install \
             nvidia-l4t-multimedia, in a container start it with --runtime nvidia, or name the file in the property \
             library-path or in the environment variable {LIBRARY_VARIABLE}; other machines have no NVENC of this kind",
            nodes()
        )
    )
}

fn refused(settings: &Settings, error: &WorkerError) -> gst::ErrorMessage {
    let loaded = NvidiaLibrary::load(library(settings).as_deref());
    let path = loaded.map_or_else(|error| error.to_string(), |library| library.path().display().to_string());
    match error {
        WorkerError::Probe(tried) => gst::error_msg!(
            gst::ResourceError::NotFound,
            ("No NVENC behind the nodes tried with {path}: {tried}. Orin Nano has no NVENC; in a container pass the node \
                 in (--device); another node is named by the property device or the environment variable {DEVICE_VARIABLE}")
        ),
        _ => gst::error_msg!(gst::ResourceError::OpenRead, ("Cannot open NVENC with {path}: {error}")),
    }
}

/// The behaviour of the element.
#[derive(Debug)]
pub struct JetsonV4l2Enc {
    core: Arc<Core>,
}

impl Default for JetsonV4l2Enc {
    fn default() -> Self {
        Self { core: Core::new(&KIND) }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for JetsonV4l2Enc {
    const NAME: &'static str = "GstJetsonV4l2Enc";
    type Type = super::JetsonV4l2Enc;
    type ParentType = gst_video::VideoEncoder;
    type Interfaces = (gst::Preset,);
}

crate::encoder::encoder_impl!(
    JetsonV4l2Enc,
    "Jetson video encoder",
    "Encodes video with NVENC of NVIDIA Jetson boards"
);
