// SPDX-License-Identifier: MPL-2.0

//! Behaviour of `v4l2m2menc` where it is not that of all encoders here.

use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_encoder_glue::drm;
use gst_video::subclass::prelude::*;
use v4l2_m2m::codec::Codec;
use v4l2_m2m::picture::RawFormat;
use v4l2_m2m::worker::WorkerError;

use super::settings;
use crate::encoder::{Core, Kind, Settings, lock};
use crate::nvmm::DMABUF;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("v4l2m2menc", gst::DebugColorFlags::empty(), Some("V4L2 mem2mem encoder"))
});

static KIND: Kind = Kind {
    element: "v4l2m2menc",
    stats: "application/x-v4l2m2menc-stats",
    category: &CAT,
    codecs: &Codec::ALL,
    raws: &RawFormat::ALL,
    slices: false,
    features: &[DMABUF],
    ops: |_| Ok(crate::testing::ops()),
    refused,
    hint: |device| {
        format!("`v4l2-ctl -d {device} --list-formats-out --list-ctrls-menus` shows what it takes")
    },
};

fn refused(_: &Settings, error: &WorkerError) -> gst::ErrorMessage {
    match error {
        WorkerError::Probe(tried) if tried.0.is_empty() => gst::error_msg!(
            gst::ResourceError::NotFound,
            ("No V4L2 encoder: there is no /dev/video* node; load the driver of the board's encoder")
        ),
        WorkerError::Probe(tried) => gst::error_msg!(
            gst::ResourceError::NotFound,
            ("No V4L2 encoder among the nodes tried: {tried}. Set 'device' if it is another node")
        ),
        _ => gst::error_msg!(gst::ResourceError::OpenRead, ("Cannot open the V4L2 encoder: {error}")),
    }
}

/// The behaviour of the element.
#[derive(Debug)]
pub struct V4l2M2mEnc {
    core: Arc<Core>,
}

impl Default for V4l2M2mEnc {
    fn default() -> Self {
        Self { core: Core::new(&KIND) }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for V4l2M2mEnc {
    const NAME: &'static str = "GstV4l2M2mEnc";
    type Type = super::V4l2M2mEnc;
    type ParentType = gst_video::VideoEncoder;
    type Interfaces = (gst::Preset,);
}

crate::encoder::encoder_impl!(
    V4l2M2mEnc,
    "V4L2 mem2mem encoder",
    "Encodes video with a stateful V4L2 mem2mem device"
);
