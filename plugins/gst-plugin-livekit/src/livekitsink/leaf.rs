// SPDX-License-Identifier: MPL-2.0

//! The end of a pad's chain: turns buffers into frames of a track.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use livekit_session::bitstream;
use livekit_session::{Codec, Frame, LayerConfig, Outcome, TrackConfig, TrackSource};

use super::changes::Changes;
use super::checks::{Seen, StreamChecks, Warning};
use super::clockmap::Look;
use super::log::CAT;
use super::session::Leaving;
use super::settings::PadSettings;
use super::timeline::Progress;
use super::tracks::Feed;
use super::watch::Silence;
use super::{AllowProfiles, LiveKitSink, LiveKitSinkPad, codecs, keyframes};

/// The end of the present era of NTP, 2036-02-07, from the Unix epoch on (RFC 5905 §6).
const LATEST_CAPTURE: Duration = Duration::from_secs((1 << 32) - 2_208_988_800);

#[derive(Default)]
pub struct Leaf {
    stream: Mutex<Stream>,
    owner: Mutex<Option<(glib::WeakRef<LiveKitSink>, glib::WeakRef<LiveKitSinkPad>)>>,
    keyframe_requests: AtomicU32,
    /// What comes is live, as far as is known.
    live: AtomicBool,
    /// A buffer came.
    has_data: AtomicBool,
    /// What went into the parser before.
    silence: Mutex<Silence>,
}

struct Stream {
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// What the track is to be, once caps came.
    config: Option<TrackConfig>,
    /// Where the frames go.
    feed: Option<Feed>,
    /// How far the track is on the session's timeline.
    progress: Progress,
    checks: StreamChecks,
    /// The session has had the first picture.
    primed: bool,
    /// Why the stream is refused; said once.
    refused: Option<String>,
    /// Buffers that lie before the start of the running time.
    early: u64,
    /// The caps say nothing of the size: the frames do.
    sized_by_frames: bool,
    /// The end of the stream came, and nothing since.
    ended: bool,
    /// Tracks that the pad has had.
    changes: Changes,
    told_changes: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            segment: gst::FormattedSegment::default(),
            config: None,
            feed: None,
            progress: Progress::default(),
            checks: StreamChecks::new(Codec::H264, 0),
            primed: false,
            refused: None,
            early: 0,
            sized_by_frames: false,
            ended: false,
            changes: Changes::default(),
            told_changes: false,
        }
    }
}

impl Leaf {
    /// Tells the leaf whose it is.
    pub(crate) fn attach(&self, sink: &LiveKitSink, pad: &LiveKitSinkPad) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((sink.downgrade(), pad.downgrade()));
    }

    /// An upstream force-key-unit event, as GStreamer's video library makes it: as soon as possible, with
    /// parameter sets.
    pub(crate) fn keyframe_event(&self) -> gst::Event {
        let structure = gst::Structure::builder("GstForceKeyUnit")
            .field("running-time", u64::MAX)
            .field("all-headers", true)
            .field("count", self.keyframe_requests.fetch_add(1, Ordering::AcqRel))
            .build();
        gst::event::CustomUpstream::new(structure)
    }

    /// Buffers dropped because they lie before the start of the stream.
    pub(crate) fn early(&self) -> u64 {
        self.stream().early
    }

    /// Ends the track.
    pub(crate) fn close(&self) {
        let feed = self.set_feed(None);
        if let Some(feed) = feed {
            match self.sink() {
                Some(sink) => sink.imp().unpublish(feed),
                None => drop(feed),
            }
        }
    }

    /// Where the frames go.
    pub(crate) fn feed(&self) -> Option<Feed> {
        self.stream().feed.clone()
    }

    /// Frames go there from now on. Returns where they went before.
    pub(crate) fn set_feed(&self, feed: Option<Feed>) -> Option<Feed> {
        let mut stream = self.stream();
        if feed.is_some() {
            stream.primed = false;
            stream.progress = Progress::default();
        }
        std::mem::replace(&mut stream.feed, feed)
    }

    /// The track that the stream is, or would be if it were not a layer of one; `None` = there is no stream, or
    /// its size is not known yet.
    pub(crate) fn config(&self) -> Option<TrackConfig> {
        let muted = self.pad()?.imp().effective().muted.unwrap_or_default();
        let stream = self.stream();
        let config = stream.config.clone().filter(|_| !stream.ended)?;
        let sized = !config.codec.is_video() || config.top_layer().width > 0;
        (sized || self.has_data()).then_some(TrackConfig { muted, ..config })
    }

    #[cfg(test)]
    pub(crate) fn set_config(&self, config: Option<TrackConfig>) {
        self.stream().config = config;
    }

    /// The pad's `muted` changed.
    pub(crate) fn apply_muted(&self) {
        if let (Some(pad), Some(feed)) = (self.pad(), self.feed()) {
            feed.track.set_muted(pad.imp().effective().muted.unwrap_or_default());
        }
    }

    /// The stream can't be what the pad is asked to make of it.
    pub(crate) fn refuse_pad(&self, text: &str) {
        let _ = self.refuse(text);
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sink(&self) -> Option<LiveKitSink> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.0.upgrade()
    }

    fn pad(&self) -> Option<LiveKitSinkPad> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.1.upgrade()
    }

    /// Publishes what `config` says, in the place of what was published before.
    fn publish(&self) {
        let (Some(sink), Some(pad)) = (self.sink(), self.pad()) else { return };
        let now = Instant::now();
        let allowed = self.stream().changes.allowed(now);
        if !allowed {
            // What comes does not fit the old track. With a later frame there may be a new one.
            self.close();
            let told = std::mem::replace(&mut self.stream().told_changes, true);
            if !told {
                self.warn(&Warning::TooManyChanges);
            }
            return;
        }
        let hold = !self.live.load(Ordering::Acquire);
        sink.imp().publish_pad(&pad, &self.obj(), hold);
        let mut stream = self.stream();
        if stream.feed.is_some() {
            stream.changes.published(now);
        }
    }

    /// Whether what comes is live, as far as is known.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// The pad's settings of the GOP cache, or who is upstream, changed.
    pub(crate) fn apply_gop_cache(&self) {
        if let (Some(pad), Some(feed)) = (self.pad(), self.feed()) {
            keyframes::apply_gop_cache(&pad, &feed.track, feed.layer);
        }
    }

    /// Live input is never held back, and nobody waits for it.
    fn look_upstream(&self) {
        let Some(sink) = self.sink() else { return };
        let mut query = gst::query::Latency::new();
        let live = self.obj().sink_pad().peer_query(&mut query) && query.result().0;
        self.live.store(live, Ordering::Release);
        self.apply_sync(sink.imp());
        if live {
            sink.imp().end_preroll("live input");
        }
    }

    /// Takes over the element's `sync`.
    pub(crate) fn apply_sync(&self, sink: &super::imp::LiveKitSink) {
        let sync = sink.settings().sync && !self.live.load(Ordering::Acquire);
        if self.obj().is_sync() != sync {
            self.obj().set_sync(sync);
        }
    }

    /// A buffer's running time; the clock's if it has none of its own. `None` = before the stream's start.
    fn running_time(
        &self,
        segment: &gst::FormattedSegment<gst::ClockTime>,
        buffer: &gst::BufferRef,
    ) -> Option<gst::ClockTime> {
        match buffer.pts().or(buffer.dts()) {
            Some(time) => match segment.to_running_time_full(time)? {
                gst::Signed::Positive(time) => Some(time),
                gst::Signed::Negative(_) => None,
            },
            None => Some(self.obj().current_running_time().unwrap_or_default()),
        }
    }

    /// Takes the size of the pictures from a keyframe, if the caps don't have it. True = it is another one.
    fn take_size(&self, buffer: &gst::BufferRef) -> bool {
        let codec = {
            let stream = self.stream();
            stream.config.as_ref().map(|config| config.codec).filter(|_| stream.sized_by_frames)
        };
        let (Some(codec), Ok(map)) = (codec, buffer.map_readable()) else { return false };
        let Some(format) = bitstream::inspect(codec, &map).format else { return false };
        let mut stream = self.stream();
        let layer = stream.config.as_mut().and_then(|config| config.layers.last_mut());
        layer.is_some_and(|layer| {
            let new = (format.width, format.height);
            let changed = (layer.width, layer.height) != new;
            (layer.width, layer.height) = new;
            changed
        })
    }

    /// A file waits for its track to be published. With its first picture at hand, the session can have the
    /// viewers ready when it starts. Only if it does wait: of a stream that goes on meanwhile this picture would
    /// be an old one, shown until the encoder makes the next keyframe.
    fn prime(&self, buffer: &gst::BufferRef) {
        if self.live.load(Ordering::Acquire) || !self.sink().is_some_and(|sink| sink.imp().holds()) {
            return;
        }
        let (feed, segment) = {
            let mut stream = self.stream();
            let Some(feed) = stream.feed.clone() else { return };
            if feed.track.is_live() || std::mem::replace(&mut stream.primed, true) {
                return;
            }
            (feed, stream.segment.clone())
        };
        let Ok(map) = buffer.map_readable() else { return };
        let media_time = self.running_time(&segment, buffer).unwrap_or_default().into();
        let frame = Frame {
            data: Arc::from(map.as_slice()),
            media_time,
            captured_at: Instant::now(),
            capture_time: None,
        };
        feed.track.prime_layer(feed.layer, frame);
    }

    /// Where a frame's running time lies on the session's timeline, and on the monotonic clock.
    fn place(&self, running_time: gst::ClockTime) -> (Duration, Instant) {
        let look = Look::take(|| self.obj().current_running_time());
        let (Some(sink), Some(base_time), Some(look)) = (self.sink(), self.obj().base_time(), look) else {
            return (running_time.into(), Instant::now());
        };
        let mut stream = self.stream();
        let timeline = &mut sink.imp().state().timeline;
        timeline.place(base_time, &look, running_time, &mut stream.progress)
    }

    /// Whether the stream was refused in words.
    pub(crate) fn is_refused(&self) -> bool {
        self.stream().refused.is_some()
    }

    /// Whether anything came out of the parser.
    pub(crate) fn has_data(&self) -> bool {
        self.has_data.load(Ordering::Acquire)
    }

    pub(crate) fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A warning about more than one frame, given once a stream.
    pub(crate) fn warn_once(&self, warning: &Warning) {
        let new = self.stream().checks.first_time(warning);
        if new {
            self.warn(warning);
        }
    }

    pub(crate) fn warn(&self, warning: &Warning) {
        let name = self.pad().map(|pad| pad.name().to_string()).unwrap_or_default();
        if let Some(sink) = self.sink() {
            gst::element_warning!(sink, gst::StreamError::Format, ("{name}: {warning}"));
        }
    }

    /// Posts an error about the stream, once, and gives it back for the caller's caller.
    fn refuse(&self, text: &str) -> gst::LoggableError {
        let known = self.stream().refused.replace(text.to_string());
        if let Some(sink) = self.sink()
            && known.as_deref() != Some(text)
        {
            let name = self.pad().map(|pad| pad.name().to_string()).unwrap_or_default();
            gst::element_error!(sink, gst::StreamError::Format, ("{name}: {text}"));
        }
        gst::loggable_error!(CAT, "{text}")
    }
}

/// When a buffer's picture was captured, if its source said so: nanoseconds since the Unix epoch.
fn capture_time(buffer: &gst::BufferRef) -> Option<SystemTime> {
    let mut metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
    let unix = |meta: &gst::MetaRef<gst::ReferenceTimestampMeta>| {
        meta.reference().structure(0).is_some_and(|reference| reference.name() == "timestamp/x-unix")
    };
    let at = Duration::from(metas.find(unix)?.timestamp());
    // Beyond the era of NTP that receivers reckon with, it is not a time.
    (at <= LATEST_CAPTURE).then(|| SystemTime::UNIX_EPOCH + at)
}

/// What track a stream with these caps becomes.
fn track_config(codec: Codec, caps: &gst::StructureRef, settings: &PadSettings, pad: &str) -> TrackConfig {
    let mut config = TrackConfig::new(codec, settings.track_name.as_deref().unwrap_or(pad));
    config.capture_trailer = settings.capture_trailer.unwrap_or_default();
    config.source = match settings.source.unwrap_or_default() {
        super::TrackSource::Auto => config.source,
        super::TrackSource::Camera => TrackSource::Camera,
        super::TrackSource::Microphone => TrackSource::Microphone,
        super::TrackSource::ScreenShare => TrackSource::ScreenShare,
        super::TrackSource::ScreenShareAudio => TrackSource::ScreenShareAudio,
        super::TrackSource::Unknown => TrackSource::Unknown,
    };
    let positive = |name| caps.get::<i32>(name).ok().and_then(|v| u32::try_from(v).ok()).unwrap_or_default();
    config.layers = vec![LayerConfig {
        width: positive("width"),
        height: positive("height"),
        min_bitrate: settings.min_bitrate.unwrap_or_default(),
        start_bitrate: settings.start_bitrate.unwrap_or_default(),
        max_bitrate: settings.max_bitrate.unwrap_or_default(),
    }];
    config.priority = settings.priority.unwrap_or(1);
    if codec == Codec::H264 {
        config.h264_profile = caps.get::<&str>("profile").map(codecs::h264_profile).unwrap_or_default();
    }
    if codec == Codec::Opus {
        config.stereo = positive("channels") == 2;
        config.dtx = settings.dtx.unwrap_or_default();
        config.red = settings.red.unwrap_or_default();
    }
    config
}

/// Whether a stream of new caps can go on in the same track.
fn same_track(old: &TrackConfig, new: &TrackConfig) -> bool {
    let sizes = |config: &TrackConfig| config.layers.iter().map(|l| (l.width, l.height)).collect::<Vec<_>>();
    old.codec == new.codec
        && old.h264_profile == new.h264_profile
        && sizes(old) == sizes(new)
        && old.stereo == new.stereo
}

#[glib::object_subclass]
impl ObjectSubclass for Leaf {
    const NAME: &'static str = "GstLiveKitLeaf";
    type Type = super::Leaf;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for Leaf {
    fn constructed(&self) {
        self.parent_constructed();
        let leaf = self.obj();
        // The bin does the preroll; a leaf that did it too would wait for data of every pad.
        leaf.set_async(false);
        leaf.set_enable_last_sample(false);
        leaf.set_qos(false);
        // Nothing is rendered here that would take time. (A property, because its setter is not in 1.14.)
        if leaf.has_property("processing-deadline") {
            leaf.set_property("processing-deadline", 0u64);
        }
    }
}

impl GstObjectImpl for Leaf {}

impl ElementImpl for Leaf {
    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = codecs::leaf_caps();
            gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &caps)
                .into_iter()
                .collect()
        });
        TEMPLATES.as_ref()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        // Each run is told anew that nothing comes out of the parser. (`start` is for NULL→READY.)
        if transition == gst::StateChange::ReadyToPaused {
            self.has_data.store(false, Ordering::Release);
            *self.silence() = Silence::default();
        }
        self.parent_change_state(transition)
    }
}

impl BaseSinkImpl for Leaf {
    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.close();
        *self.stream() = Stream::default();
        self.obj().set_async(false);
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let structure = caps.structure(0).ok_or_else(|| gst::loggable_error!(CAT, "empty caps"))?;
        let row =
            codecs::row(structure.name()).ok_or_else(|| gst::loggable_error!(CAT, "no codec for {caps}"))?;
        let pad = self.pad().ok_or_else(|| gst::loggable_error!(CAT, "the pad is gone"))?;
        let settings = pad.imp().effective();
        if settings.allow_profiles.unwrap_or_default() == AllowProfiles::Browser
            && let Ok(profile) = structure.get::<&str>("profile")
            && let Some(text) = codecs::profile_refusal(row, profile)
        {
            return Err(self.refuse(&text));
        }
        let mut config = track_config(row.codec, structure, &settings, &pad.name());
        if let Some(sink) = self.sink()
            && let Some(layer) = config.layers.last_mut().filter(|layer| layer.max_bitrate == 0)
        {
            // What the user set the encoder to is the most that it is to make.
            layer.max_bitrate = sink.imp().ceiling(&pad);
        }
        let renew = {
            let mut stream = self.stream();
            let renew =
                !(stream.feed.is_some() && stream.config.as_ref().is_some_and(|c| same_track(c, &config)));
            if stream.config.as_ref().is_none_or(|old| old.codec != config.codec) {
                stream.checks = StreamChecks::new(config.codec, settings.max_bitrate.unwrap_or_default());
            }
            stream.sized_by_frames = config.codec.is_video() && !structure.has_field("width");
            stream.config = Some(config);
            stream.refused = None;
            renew
        };
        // A parser's first caps may lack the size; with its first frame it knows.
        if renew && (row.codec == Codec::Opus || structure.has_field("width")) {
            self.publish();
        } else {
            self.apply_gop_cache();
        }
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        use gst::EventView;
        match event.view() {
            EventView::Caps(_) => {
                let ok = self.parent_event(event);
                self.look_upstream();
                ok
            }
            EventView::Segment(segment) => {
                if let Some(time) = segment.segment().downcast_ref::<gst::ClockTime>() {
                    let mut stream = self.stream();
                    stream.segment = time.clone();
                    stream.checks.restart_timeline();
                }
                self.look_upstream();
                self.parent_event(event)
            }
            EventView::FlushStart(_) if !self.live.load(Ordering::Acquire) => {
                // From here on as any sink: what comes after a seek is prerolled, and the pipeline starts its
                // clock when that is done.
                self.obj().set_async(true);
                self.parent_event(event)
            }
            EventView::FlushStop(_) => {
                self.stream().checks.restart_timeline();
                self.parent_event(event)
            }
            EventView::Eos(_) => {
                if self.stream().feed.is_none()
                    && let Some(sink) = self.sink()
                {
                    sink.imp().end_preroll("a stream without data");
                }
                // Waits for the last frame's time, and tells the bin.
                let ok = self.parent_event(event);
                self.stream().ended = true;
                // If this was the last pad, the bin is leaving, and what is queued still has to go out.
                if self.sink().is_none_or(|sink| sink.imp().state().leaving == Leaving::No) {
                    self.close();
                }
                ok
            }
            _ => self.parent_event(event),
        }
    }

    fn prepare(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.has_data.store(true, Ordering::Release);
        let (unknown, refused) = {
            let mut stream = self.stream();
            stream.ended = false;
            (stream.config.is_none(), stream.refused.is_some())
        };
        if unknown && !refused {
            // Without this the bin would wait in PAUSED for a track that never comes.
            self.refuse(
                "data came without caps, so its codec is unknown. Put a demuxer or a parser in front \
                 (for an H.264 byte stream: h264parse)",
            );
        }
        if unknown {
            return Err(gst::FlowError::NotNegotiated);
        }
        // Nothing published yet, or in a session that was left after EOS.
        let generation = self.sink().map_or(0, |sink| sink.imp().data_generation());
        let resized = self.take_size(buffer);
        let missing = self.stream().feed.as_ref().is_none_or(|feed| feed.generation != generation);
        if missing || resized {
            self.publish();
            if self.stream().refused.is_some() {
                return Err(gst::FlowError::NotNegotiated);
            }
        }
        self.prime(buffer);
        Ok(gst::FlowSuccess::Ok)
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let map = buffer.map_readable().map_err(|_| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ("Cannot read a buffer's memory"));
            gst::FlowError::Error
        })?;
        let (segment, codec, feed) = {
            let stream = self.stream();
            let codec = stream.config.as_ref().map(|config| config.codec).filter(|codec| codec.is_video());
            (stream.segment.clone(), codec, stream.feed.clone())
        };
        let unit = codec.map(|codec| bitstream::inspect(codec, &map));
        let seen = Seen {
            pts: buffer.pts().map(gst::ClockTime::nseconds),
            dts: buffer.dts().map(gst::ClockTime::nseconds),
            bytes: map.len(),
            unit: unit.as_ref(),
        };
        let running_time = self.running_time(&segment, buffer);
        let (warnings, early) = {
            let mut stream = self.stream();
            stream.early += u64::from(running_time.is_none());
            (stream.checks.frame(&seen), stream.early)
        };
        if let Some(reordered) = warnings.iter().find(|w| matches!(w, Warning::Reordered(_))) {
            // Sent on, they would be a picture that jumps back and forth, or stands still.
            self.refuse(&reordered.to_string());
            self.close();
            return Err(gst::FlowError::Error);
        }
        match (running_time, feed) {
            (Some(running_time), Some(feed)) => {
                let (media_time, captured_at) = self.place(running_time);
                let capture_time = capture_time(buffer);
                let frame = Frame { data: Arc::from(map.as_slice()), media_time, captured_at, capture_time };
                // The session counts what it drops, and asks for a keyframe if one is needed.
                if let Outcome::Dropped(reason) = feed.track.write_layer(feed.layer, frame) {
                    gst::log!(CAT, imp = self, "dropped: {}", reason.as_str());
                }
            }
            (Some(_), None) => {}
            (None, _) => {
                gst::debug!(CAT, imp = self, "{early} buffers before the start of the stream so far");
            }
        }
        for warning in &warnings {
            self.warn(warning);
        }
        if let (Some(sink), Some(pad)) = (self.sink(), self.pad()) {
            sink.imp().look_again(&pad, Instant::now());
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn config(codec: Codec, caps: &str, settings: &PadSettings) -> TrackConfig {
        track_config(codec, &gst::Structure::from_str(caps).unwrap(), settings, "video_0")
    }

    #[test]
    fn a_track_takes_its_name_kind_and_size_from_pad_and_caps() {
        gst::init().unwrap();
        let plain = config(Codec::H264, "video/x-h264,width=640,height=480", &PadSettings::default());
        let layer = plain.top_layer();
        assert_eq!((plain.name.as_str(), layer.width, layer.height), ("video_0", 640, 480));
        assert_eq!(plain.source, TrackSource::Camera);
        let settings = PadSettings {
            track_name: Some("front".into()),
            source: Some(super::super::TrackSource::ScreenShare),
            max_bitrate: Some(5),
            ..PadSettings::default()
        };
        let own = config(Codec::H264, "video/x-h264", &settings);
        assert_eq!((own.name.as_str(), own.source), ("front", TrackSource::ScreenShare));
        assert_eq!(own.top_layer().max_bitrate, 5);
        let audio = config(Codec::Opus, "audio/x-opus,channels=2", &PadSettings::default());
        assert!(audio.stereo && audio.source == TrackSource::Microphone);
        assert!(!config(Codec::Opus, "audio/x-opus,channels=1", &PadSettings::default()).stereo);
        assert!(!audio.dtx && !audio.red);
        let settings = PadSettings { dtx: Some(true), red: Some(true), ..PadSettings::default() };
        let audio = config(Codec::Opus, "audio/x-opus,channels=2", &settings);
        assert!(audio.dtx && audio.red);
    }

    #[test]
    fn keyframe_events_are_what_encoders_expect_and_counted() {
        gst::init().unwrap();
        let leaf: super::super::Leaf = glib::Object::new();
        for count in 0..2u32 {
            let event = leaf.imp().keyframe_event();
            assert_eq!(event.type_(), gst::EventType::CustomUpstream);
            let fields = event.structure().unwrap();
            assert_eq!(fields.name(), "GstForceKeyUnit");
            assert_eq!(fields.get::<u64>("running-time"), Ok(u64::MAX), "as soon as possible");
            assert_eq!(fields.get::<bool>("all-headers"), Ok(true));
            assert_eq!(fields.get::<u32>("count"), Ok(count));
        }
    }

    #[test]
    fn the_first_picture_is_sent_ahead_only_while_the_pipeline_waits_for_it() {
        gst::init().unwrap();
        for held in [true, false] {
            let sink: LiveKitSink = glib::Object::builder()
                .property("url", "ws://127.0.0.1:1")
                .property("api-key", "k")
                .property("api-secret", "s")
                .property("room", "r")
                .build();
            let pad = sink.request_pad_simple("video_%u").and_downcast().unwrap();
            let _ = sink.set_state(gst::State::Paused);
            let leaf = sink.imp().leaf_of(&pad).unwrap();
            leaf.imp().stream().config = Some(TrackConfig::new(Codec::H264, "v"));
            if !held {
                sink.imp().end_preroll("this is a test");
            }
            leaf.imp().prepare(&gst::Buffer::from_slice([0, 0, 0, 1, 0x65, 0])).unwrap();
            assert!(leaf.imp().stream().feed.is_some());
            assert_eq!(leaf.imp().stream().primed, held);
            sink.set_state(gst::State::Null).unwrap();
        }
    }

    #[test]
    fn the_capture_time_is_the_buffers_own_unix_time() {
        gst::init().unwrap();
        let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
        let ntp = gst::Caps::new_empty_simple("timestamp/x-ntp");
        let (seconds, mut buffer) = (gst::ClockTime::from_seconds, gst::Buffer::new());
        assert_eq!(capture_time(&buffer), None);
        let add = |buffer: &mut gst::Buffer, reference: &gst::Caps, time| {
            gst::ReferenceTimestampMeta::add(
                buffer.get_mut().unwrap(),
                reference,
                time,
                gst::ClockTime::NONE,
            );
        };
        add(&mut buffer, &ntp, seconds(7));
        assert_eq!(capture_time(&buffer), None, "another clock's");
        add(&mut buffer, &unix, seconds(1_700_000_000));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(capture_time(&buffer), Some(at));
        let mut far = gst::Buffer::new();
        add(&mut far, &unix, gst::ClockTime::MAX);
        assert_eq!(capture_time(&far), None, "no time");
    }

    #[test]
    fn a_new_size_profile_or_codec_needs_a_new_track() {
        gst::init().unwrap();
        let of = |caps: &str| config(Codec::H264, caps, &PadSettings::default());
        let small = of("video/x-h264,width=640,height=480");
        assert!(same_track(&small, &of("video/x-h264,width=640,height=480,framerate=30/1")));
        assert!(!same_track(&small, &of("video/x-h264,width=1280,height=720")));
        let profile = |name| of(&format!("video/x-h264,width=640,height=480,profile={name}"));
        assert!(!same_track(&profile("baseline"), &profile("high")));
        assert!(same_track(&profile("high"), &profile("constrained-high")), "one name in the SDP");
        let vp8 = config(Codec::Vp8, "video/x-vp8,width=640,height=480", &PadSettings::default());
        assert!(!same_track(&small, &vp8));
    }
}
