// SPDX-License-Identifier: MPL-2.0

//! Requests for keyframes on their way upstream, and what is done about sources that can't be asked.

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use livekit_session::{GopCacheConfig, GopCacheMode, GopTooLong, Track, TrackId};

use super::checks::Warning;
use super::encoders::{self, FoundEncoder, Keyframes};
use super::imp::LiveKitSink;
use super::log::KEYFRAME;
use super::settings::PadSettings;
use super::{GopCache, Leaf, LiveKitSinkPad, workers};

/// Whether an encoder takes requests, as far as that is known beforehand. `None` = there is no encoder.
fn answers(encoder: Option<&FoundEncoder>, gst_minor: u32) -> bool {
    encoder.is_some_and(|encoder| match encoder.family.map(|family| family.keyframes) {
        Some(Keyframes::EventSince(since)) => gst_minor >= since,
        Some(Keyframes::Event | Keyframes::Signal(_)) | None => true,
    })
}

/// What the session does about requests.
fn cache_config(settings: &PadSettings, answers: bool) -> GopCacheConfig {
    let defaults = GopCacheConfig::default();
    let mode = match settings.gop_cache.unwrap_or_default() {
        GopCache::Auto if answers => GopCacheMode::Auto,
        GopCache::Auto | GopCache::On => GopCacheMode::On,
        GopCache::Off => GopCacheMode::Off,
    };
    GopCacheConfig {
        mode,
        max_duration: settings.gop_cache_time.unwrap_or(defaults.max_duration),
        ..defaults
    }
}

fn encoder_of(pad: &LiveKitSinkPad) -> Option<FoundEncoder> {
    match pad.imp().effective().encoder {
        Some(name) => encoders::named_encoder(pad, &name),
        None => encoders::encoder_of(pad),
    }
}

/// Tells the session how requests for keyframes of a pad's track are to be answered.
pub(crate) fn apply_gop_cache(pad: &LiveKitSinkPad, track: &Track, layer: usize) {
    let encoder = encoder_of(pad);
    let answers = answers(encoder.as_ref(), gst::version().1);
    let config = cache_config(&pad.imp().effective(), answers);
    gst::debug!(
        KEYFRAME,
        obj = pad,
        "encoder {:?}, answers keyframe requests: {answers}; {config:?}",
        encoder.map(|found| found.element.name())
    );
    track.set_gop_cache(layer, config);
}

impl LiveKitSink {
    /// Asks the encoder for a keyframe. A slow event handler upstream must not hold up the messages, hence
    /// a call of its own.
    pub(crate) fn request_keyframe(&self, track: &TrackId, layer: usize) {
        let Some(pad) = self.pad_of(track, layer) else { return };
        let Some(leaf) = self.leaf_of(&pad) else { return };
        workers::run(move || ask_upstream(&pad, &leaf));
    }

    /// The encoder does not answer.
    pub(crate) fn keyframes_ignored(&self, track: &TrackId, layer: usize) {
        let Some(pad) = self.pad_of(track, layer) else { return };
        let Some(leaf) = self.leaf_of(&pad) else { return };
        let cached = pad.imp().effective().gop_cache.unwrap_or_default() != GopCache::Off;
        let encoder = encoder_of(&pad).map(|found| found.element.name().to_string());
        leaf.imp().warn_once(&Warning::IgnoresKeyframeRequests { encoder, cached });
    }

    /// Groups of pictures are longer than what is kept.
    pub(crate) fn gop_too_long(&self, track: &TrackId, layer: usize, bound: GopTooLong) {
        let Some(pad) = self.pad_of(track, layer) else { return };
        let Some(leaf) = self.leaf_of(&pad) else { return };
        leaf.imp().warn_once(&Warning::GopTooLong { bound });
    }
}

/// The event goes upstream in any case: somebody between here and there may act on it. An encoder that takes no notice
/// of it is told in its own way.
pub(crate) fn ask_upstream(pad: &LiveKitSinkPad, leaf: &Leaf) {
    if let Some(sink) = pad.parent().and_downcast::<super::LiveKitSink>() {
        sink.imp().settle_target(pad, leaf);
    }
    let event = leaf.imp().keyframe_event();
    if !leaf.sink_pad().push_event(event) {
        gst::debug!(KEYFRAME, obj = leaf, "nobody upstream took the keyframe request");
    }
    let Some(found) = encoder_of(pad) else { return };
    let Some(Keyframes::Signal(name)) = found.family.map(|family| family.keyframes) else { return };
    if !emit_action(&found.element, name) {
        gst::debug!(KEYFRAME, obj = leaf, "{} has no action signal {name}", found.element.name());
    }
}

/// Emits an action signal without arguments. False = the element has none of this name and kind.
fn emit_action(element: &gst::Element, name: &str) -> bool {
    let Some((signal, _)) = gst::glib::subclass::SignalId::parse_name(name, element.type_(), false) else {
        return false;
    };
    let query = signal.query();
    let fits = query.flags().contains(gst::glib::SignalFlags::ACTION) && query.n_params() == 0;
    if fits {
        element.emit_by_name_with_values(name, &[]);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn auto_is_on_where_nobody_can_be_asked() {
        let settings = |mode| PadSettings { gop_cache: mode, ..PadSettings::default() };
        let mode = |mode, answers| cache_config(&settings(mode), answers).mode;
        assert_eq!(mode(None, true), GopCacheMode::Auto);
        assert_eq!(mode(None, false), GopCacheMode::On);
        assert_eq!(mode(Some(GopCache::Auto), false), GopCacheMode::On);
        assert_eq!(mode(Some(GopCache::On), true), GopCacheMode::On);
        assert_eq!(mode(Some(GopCache::Off), false), GopCacheMode::Off);
        let time = Some(Duration::from_secs(5));
        let long = PadSettings { gop_cache_time: time, ..PadSettings::default() };
        assert_eq!(cache_config(&long, true).max_duration, Duration::from_secs(5));
        assert_eq!(cache_config(&settings(None), true).max_bytes, 2_000_000);
    }

    #[test]
    fn what_is_known_of_encoders_counts() {
        gst::init().unwrap();
        assert!(!answers(None, 26), "no encoder");
        let element = gst::ElementFactory::make("identity").build().unwrap();
        let with = |family| FoundEncoder { element: element.clone(), family, shared_at: None };
        assert!(answers(Some(&with(None)), 16), "an unknown one is asked");
        let av1 = encoders::family("av1enc");
        assert!(av1.is_some());
        assert!(!answers(Some(&with(av1)), 22), "ignores them before 1.24");
        assert!(answers(Some(&with(av1)), 24));
        assert!(answers(Some(&with(encoders::family("nvv4l2h264enc"))), 16), "by its own signal");
    }

    #[test]
    fn only_action_signals_are_emitted() {
        gst::init().unwrap();
        let source = gst::ElementFactory::make("appsrc").build().unwrap();
        assert!(emit_action(&source, "end-of-stream"));
        assert!(!emit_action(&source, "need-data"), "a signal, but no action");
        assert!(!emit_action(&source, "push-buffer"), "an action, but with an argument");
        assert!(!emit_action(&source, "force-IDR"), "no such signal");
    }
}
