// SPDX-License-Identifier: MPL-2.0

//! The request pads: a ghost pad with the settings of its track.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::settings::{PAD_PROPERTIES, PadSettings};
use super::targets::Targets;

#[derive(Default)]
pub struct LiveKitSinkPad {
    settings: Mutex<PadSettings>,
    released: AtomicBool,
    pub(crate) targets: Targets,
    /// Media type of the caps that the elements behind the pad were set up for.
    chain: Mutex<Option<&'static str>>,
}

impl LiveKitSinkPad {
    /// The application has no use for the pad any more. Said before what is behind it is taken apart.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    pub(crate) fn chain(&self) -> Option<&'static str> {
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_chain(&self, media_type: &'static str) {
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = Some(media_type);
    }

    /// The track was muted or unmuted, maybe by somebody else.
    pub(crate) fn muted(&self, muted: bool) {
        if self.effective().muted.unwrap_or_default() != muted {
            self.settings.lock().unwrap_or_else(PoisonError::into_inner).muted = Some(muted);
            self.obj().notify("muted");
        }
    }

    /// The element's `muted` was set: it counts for this pad, too.
    pub(crate) fn follow_muted(&self) {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).muted = None;
        self.obj().notify("muted");
        self.apply_muted();
    }

    fn apply_muted(&self) {
        let sink = self.obj().parent().and_downcast::<super::LiveKitSink>();
        if let Some(leaf) = sink.and_then(|sink| sink.imp().leaf_of(&self.obj())) {
            leaf.imp().apply_muted();
        }
    }

    /// The pad's settings, with what is unset taken from the element's.
    pub(crate) fn effective(&self) -> PadSettings {
        let own = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.obj().parent().and_downcast::<super::LiveKitSink>() {
            Some(sink) => own.or(&sink.imp().settings().pads),
            None => own,
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for LiveKitSinkPad {
    const NAME: &'static str = "GstLiveKitSinkPad";
    type Type = super::LiveKitSinkPad;
    type ParentType = gst::GhostPad;
}

impl ObjectImpl for LiveKitSinkPad {
    fn properties() -> &'static [glib::ParamSpec] {
        PAD_PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).set(pspec.name(), value);
        let sink = self.obj().parent().and_downcast::<super::LiveKitSink>();
        if pspec.name().starts_with("gop-cache")
            && let Some(leaf) = sink.and_then(|sink| sink.imp().leaf_of(&self.obj()))
        {
            leaf.imp().apply_gop_cache();
        }
        if pspec.name() == "muted" {
            self.apply_muted();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        self.effective().get(pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
    }
}

impl GstObjectImpl for LiveKitSinkPad {}
impl PadImpl for LiveKitSinkPad {}
impl ProxyPadImpl for LiveKitSinkPad {}
impl GhostPadImpl for LiveKitSinkPad {}
