// SPDX-License-Identifier: MPL-2.0

//! Behaviour of the depayloader: packets in, pictures out.

use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_rtp::prelude::*;
use gst_rtp::subclass::prelude::*;
use gst_video::VideoBufferFlags;
use gst_video::prelude::*;
use rtp_jpeg::{
    Event, Field, FrameInfo, LossReason, PacketError, Reassembler, ReassemblerConfig, RtpPacket, Sampling,
};

use super::frames::Frames;
use super::settings::{self, Settings};
use crate::limiter::Limiter;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("rtpjpegdepay-rs", gst::DebugColorFlags::empty(), Some("RTP/JPEG depayloader"))
});

/// What the caps of the source pad depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    size: (u16, u16),
    sampling: Sampling,
    field: Field,
    framerate: Option<gst::Fraction>,
}

struct State {
    reassembler: Reassembler,
    dimensions: Option<(u16, u16)>,
    output: Output,
    /// Packets received; here and not in the statistics, which would take a second lock for each.
    packets: u64,
}

impl Default for State {
    fn default() -> Self {
        let reassembler = Reassembler::new(ReassemblerConfig::default());
        Self { reassembler, dimensions: None, output: Output::default(), packets: 0 }
    }
}

/// What the next buffers depend on beside their frames.
#[derive(Default)]
struct Output {
    framerate: Option<gst::Fraction>,
    format: Option<Format>,
    /// The newest frame and the one before: RTP timestamp, and the time of the first packet.
    times: [Option<(u32, Option<gst::ClockTime>)>; 2],
    frames: Frames,
}

impl Output {
    /// Takes note of when a frame's first packet came.
    fn note(&mut self, timestamp: u32, pts: Option<gst::ClockTime>) {
        let [newest, before] = &mut self.times;
        if newest.is_none_or(|(known, _)| known != timestamp) {
            *before = newest.replace((timestamp, pts));
        }
    }

    fn time_of(&self, timestamp: u32) -> Option<gst::ClockTime> {
        self.times.iter().flatten().find(|(known, _)| *known == timestamp).and_then(|(_, pts)| *pts)
    }

    /// Caps of a frame, if they are not those of the frame before.
    fn new_caps(&mut self, info: &FrameInfo) -> Option<gst::Caps> {
        let new = Format {
            size: (info.width, info.height),
            sampling: info.sampling,
            field: canonical(info.field),
            framerate: self.framerate,
        };
        (self.format.replace(new) != Some(new)).then(|| caps(&new))
    }
}

#[derive(Debug, Default)]
struct Stats {
    frames: u64,
    concealed: u64,
    bytes: u64,
    lost: Limiter,
    refused: Limiter,
    last_q: u8,
}

/// A finished picture, on its way out.
struct Picture {
    buffer: gst::Buffer,
    caps: Option<gst::Caps>,
}

/// The behaviour of the element.
#[derive(Default)]
pub struct RtpJpegDepay {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    stats: Mutex<Stats>,
}

#[glib::object_subclass]
impl ObjectSubclass for RtpJpegDepay {
    const NAME: &'static str = "GstRtpJpegDepayRs";
    type Type = super::RtpJpegDepay;
    type ParentType = gst_rtp::RTPBaseDepayload;
}

impl ObjectImpl for RtpJpegDepay {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
        self.configure();
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "frame-stats" {
            let packets = lock(&self.state).packets;
            return lock(&self.stats).structure(packets).to_value();
        }
        let settings = *lock(&self.settings);
        settings.get(pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
    }
}

impl GstObjectImpl for RtpJpegDepay {}

impl ElementImpl for RtpJpegDepay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTP JPEG depayloader",
                "Codec/Depayloader/Network/RTP",
                "Makes JPEG pictures of RTP packets (RFC 2435)",
                "The gst-livekit-boards developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let src = gst::Caps::builder("image/jpeg")
                .field("parsed", true)
                .field("sof-marker", 0)
                .field("colorspace", "sYUV")
                .field("sampling", gst::List::new(["YCbCr-4:2:0", "YCbCr-4:2:2"]))
                .build();
            let rtp = || {
                gst::Structure::builder("application/x-rtp")
                    .field("media", "video")
                    .field("clock-rate", 90_000)
            };
            // Payload type 26 says it all; a dynamic one needs a name (RFC 3551 §6).
            let sink = gst::Caps::builder_full()
                .structure(rtp().field("encoding-name", "JPEG").build())
                .structure(rtp().field("payload", 26).build())
                .build();
            let always = gst::PadPresence::Always;
            [("sink", gst::PadDirection::Sink, sink), ("src", gst::PadDirection::Src, src)]
                .into_iter()
                .filter_map(|(name, direction, caps)| {
                    gst::PadTemplate::new(name, direction, always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            *lock(&self.stats) = Stats::default();
            lock(&self.state).packets = 0;
        }
        let success = self.parent_change_state(transition)?;
        if matches!(transition, gst::StateChange::PausedToReady | gst::StateChange::NullToReady) {
            let mut state = lock(&self.state);
            *state = State { packets: state.packets, ..State::default() };
            drop(state);
            self.configure();
        }
        Ok(success)
    }
}

impl RTPBaseDepayloadImpl for RtpJpegDepay {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let structure = caps.structure(0).ok_or_else(|| gst::loggable_error!(CAT, "empty caps"))?;
        {
            let mut state = lock(&self.state);
            state.dimensions = dimensions(structure);
            state.output.framerate = framerate(structure);
        }
        self.configure();
        self.parent_set_caps(caps)
    }

    fn handle_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStop(_) => {
                let mut state = lock(&self.state);
                // The tables that the sender sent once are still good.
                state.reassembler.flush().for_each(drop);
                state.output.times = [None; 2];
            }
            gst::EventView::Eos(_) => {
                let last = {
                    let State { reassembler, output, .. } = &mut *lock(&self.state);
                    self.finish(reassembler.flush(), output)
                };
                for picture in last.into_iter().flatten() {
                    let _ = self.push(picture);
                }
            }
            _ => {}
        }
        self.parent_handle_event(event)
    }

    fn process_rtp_packet(
        &self,
        rtp: &gst_rtp::RTPBuffer<gst_rtp::rtp_buffer::Readable>,
    ) -> Option<gst::Buffer> {
        let payload = match rtp.payload() {
            Ok(payload) => payload,
            Err(error) => {
                gst::debug!(CAT, imp = self, "{error}");
                return None;
            }
        };
        let packet = RtpPacket {
            ssrc: rtp.ssrc(),
            timestamp: rtp.timestamp(),
            sequence: rtp.seq(),
            marker: rtp.is_marker(),
            payload,
        };
        let result = {
            let State { reassembler, output, packets, .. } = &mut *lock(&self.state);
            *packets += 1;
            output.note(packet.timestamp, rtp.buffer().pts());
            match reassembler.push(&packet) {
                Ok(events) if events.is_empty() && !packet.marker => return None,
                Ok(events) => {
                    let [first, second] = self.finish(events, output);
                    // The base class lets nothing older pass, so after the marker nothing can be added.
                    let rest = if packet.marker && second.is_none() {
                        let [rest, _] = self.finish(reassembler.flush(), output);
                        rest
                    } else {
                        None
                    };
                    Ok([first, second.or(rest)])
                }
                Err(error) => Err(error),
            }
        };
        match result {
            Ok(pictures) => {
                let mut pictures = pictures.into_iter().flatten();
                match (pictures.next(), pictures.next()) {
                    (Some(first), Some(second)) => {
                        let _ = self.push(first);
                        self.set_src_caps(second.caps);
                        Some(second.buffer)
                    }
                    (Some(only), None) => {
                        self.set_src_caps(only.caps);
                        Some(only.buffer)
                    }
                    _ => None,
                }
            }
            Err(error) => {
                self.refused(&error);
                None
            }
        }
    }
}

impl RtpJpegDepay {
    /// Gives settings and caps to the reassembler.
    fn configure(&self) {
        let settings = *lock(&self.settings);
        let mut state = lock(&self.state);
        let mut config = ReassemblerConfig::default();
        config.dimensions = state.dimensions;
        config.max_frame = settings.max_frame_size as usize;
        config.conceal = settings.output_corrupt;
        state.reassembler.set_config(config);
    }

    /// Makes buffers of the frames that are done, and counts them.
    fn finish<'a>(
        &self,
        events: impl Iterator<Item = Event<'a>>,
        output: &mut Output,
    ) -> [Option<Picture>; 2] {
        let mut pictures = [None, None];
        for (slot, event) in pictures.iter_mut().zip(events) {
            match event {
                Event::Frame(frame) => {
                    let info = *frame.info();
                    let mut data = output.frames.take();
                    let range = frame.swap(&mut data);
                    let mut buffer = output.frames.wrap(data, range);
                    let out = buffer.make_mut();
                    out.set_pts(output.time_of(info.timestamp));
                    set_flags(out, &info);
                    self.count_frame(&info, out.size());
                    *slot = Some(Picture { buffer, caps: output.new_caps(&info) });
                }
                Event::Lost(loss) => self.lost(loss.reason, loss.timestamp, loss.packets),
            }
        }
        pictures
    }

    fn push(&self, picture: Picture) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.set_src_caps(picture.caps);
        self.obj().push(picture.buffer)
    }

    fn set_src_caps(&self, caps: Option<gst::Caps>) {
        if let Some(caps) = caps {
            gst::debug!(CAT, imp = self, "{caps}");
            self.obj().src_pad().push_event(gst::event::Caps::new(&caps));
        }
    }

    fn count_frame(&self, info: &FrameInfo, size: usize) {
        let mut stats = lock(&self.stats);
        stats.frames += 1;
        stats.bytes += size as u64;
        stats.concealed += u64::from(info.concealed > 0);
        stats.last_q = info.q;
    }

    fn lost(&self, reason: LossReason, timestamp: u32, packets: usize) {
        let name = match reason {
            LossReason::Incomplete => "incomplete",
            LossReason::UnknownTables(_) => "unknown-tables",
            _ => "inconsistent",
        };
        let due = lock(&self.stats).lost.count(name, Instant::now());
        gst::debug!(CAT, imp = self, "frame {timestamp} lost after {packets} packets: {reason}");
        // Losses are the network's everyday life; the others are the sender's fault.
        if let Some(count) = due.filter(|_| reason != LossReason::Incomplete) {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Demux,
                ["Lost a frame ({name}; {count} since the last warning): {reason}"]
            );
        }
    }

    fn refused(&self, error: &PacketError) {
        let name = refusal(error);
        let due = lock(&self.stats).refused.count(name, Instant::now());
        gst::debug!(CAT, imp = self, "packet refused: {error}");
        let network = matches!(error, PacketError::Late | PacketError::Duplicate);
        if let Some(count) = due.filter(|_| !network) {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Demux,
                ["Dropped a packet ({name}; {count} since the last warning): {error}"]
            );
        }
    }
}

impl Stats {
    fn structure(&self, packets: u64) -> gst::Structure {
        let by_reason = |name: &str, limiter: &Limiter| {
            let mut structure = gst::Structure::new_empty(name);
            for (reason, count) in limiter.totals() {
                structure.set(reason, count);
            }
            structure
        };
        gst::Structure::builder("application/x-rtp-jpeg-stats")
            .field("frames", self.frames)
            .field("frames-concealed", self.concealed)
            .field("frames-lost", self.lost.total())
            .field("lost", by_reason("lost", &self.lost))
            .field("packets", packets)
            .field("packets-refused", self.refused.total())
            .field("refused", by_reason("refused", &self.refused))
            .field("bytes", self.bytes)
            .field("last-q", u32::from(self.last_q))
            .build()
    }
}

/// `x-dimensions` of caps or SDP: width, then height.
fn dimensions(structure: &gst::StructureRef) -> Option<(u16, u16)> {
    let text = structure.get::<String>("x-dimensions").ok()?;
    let (width, height) = text.split_once(',')?;
    let size = (width.trim().parse().ok()?, height.trim().parse().ok()?);
    (size.0 != 0 && size.1 != 0).then_some(size)
}

/// Frame rate of caps or SDP; `x-framerate` is what old senders call it.
fn framerate(structure: &gst::StructureRef) -> Option<gst::Fraction> {
    ["a-framerate", "x-framerate"].into_iter().find_map(|name| {
        let rate = structure.get::<String>(name).ok()?.trim().parse::<f64>().ok()?;
        (rate > 0.0 && rate <= 1000.0).then(|| gst::Fraction::approximate_f64(rate)).flatten()
    })
}

/// Odd and even fields have the same caps; the buffers' flags tell them apart.
fn canonical(field: Field) -> Field {
    if field == Field::Even { Field::Odd } else { field }
}

fn caps(format: &Format) -> gst::Caps {
    let sampling = match format.sampling {
        Sampling::Yuv422 => "YCbCr-4:2:2",
        Sampling::Yuv420 => "YCbCr-4:2:0",
    };
    let (width, height) = (i32::from(format.size.0), i32::from(format.size.1));
    let caps = gst::Caps::builder("image/jpeg")
        .field("parsed", true)
        .field("sof-marker", 0)
        .field("colorspace", "sYUV")
        .field("sampling", sampling)
        .field("width", width)
        .field("framerate", format.framerate.unwrap_or(gst::Fraction::new(0, 1)));
    match format.field {
        Field::Odd | Field::Even => {
            // In caps, the height is that of a frame.
            caps.field("height", 2 * height).field("interlace-mode", "alternate").build()
        }
        // Every line stands for two.
        Field::Single => {
            caps.field("height", height).field("pixel-aspect-ratio", gst::Fraction::new(1, 2)).build()
        }
        Field::Progressive => caps.field("height", height).build(),
    }
}

fn set_flags(out: &mut gst::BufferRef, info: &FrameInfo) {
    if info.concealed > 0 {
        out.set_flags(gst::BufferFlags::CORRUPTED);
    }
    match info.field {
        Field::Odd => out.set_video_flags(
            VideoBufferFlags::INTERLACED | VideoBufferFlags::TFF | VideoBufferFlags::ONEFIELD,
        ),
        Field::Even => out.set_video_flags(VideoBufferFlags::INTERLACED | VideoBufferFlags::ONEFIELD),
        Field::Progressive | Field::Single => {}
    }
}

/// Name of a reason in the statistics.
fn refusal(error: &PacketError) -> &'static str {
    match error {
        PacketError::TooShort => "too-short",
        PacketError::UnknownType(_) => "unknown-type",
        PacketError::ReservedQ(_) => "reserved-q",
        PacketError::ZeroRestartInterval => "zero-restart-interval",
        PacketError::QuantLength(_) => "table-length",
        PacketError::NoTables => "no-tables",
        PacketError::TooLarge(_) => "too-large",
        PacketError::UnknownSize => "unknown-size",
        PacketError::Duplicate => "duplicate",
        PacketError::Late => "late",
        _ => "other",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left behind is whole: nothing here unwinds half-way through a change.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
