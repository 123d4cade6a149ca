// SPDX-License-Identifier: MPL-2.0

//! Behaviour of the payloader: pictures in, lists of packets out.

use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_rtp::prelude::*;
use gst_rtp::subclass::prelude::*;
use gst_video::VideoBufferFlags;
use gst_video::prelude::*;
use rtp_jpeg::{
    Field, Jpeg, MAX_PACKET_HEADER_LEN, PacketizeError, PacketizeOptions, Packets, ParseError, QuantSelector,
};

use super::extensions::Extensions;
use super::settings::{self, MIN_MTU, RTP_HEADER_LEN, Settings};
use super::stats::{Last, Stats};
use super::{OnUnsupported, QuantMode};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("rtpjpegpay-rs", gst::DebugColorFlags::empty(), Some("RTP/JPEG payloader"))
});

/// Payload type of JPEG (RFC 3551 §6).
const STATIC_PT: u32 = 26;
const CLOCK_RATE: u32 = 90_000;

/// What the caps say of interlacing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Interlacing {
    #[default]
    Progressive,
    /// One field a buffer.
    Alternate,
    /// A frame a buffer, maybe as two pictures, one for each field.
    Frames { bottom_first: bool },
}

#[derive(Debug, Default)]
struct State {
    selector: QuantSelector,
    /// The settings that the selector was made for.
    policy: Option<(QuantMode, Duration)>,
    pool: Option<(usize, gst::BufferPool)>,
    interlacing: Interlacing,
    /// From the caps, for `a-framerate`.
    framerate: Option<gst::Fraction>,
    /// Announced by `x-dimensions`.
    announced: Option<(u16, u16)>,
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// Latest time given to the selector.
    now: Duration,
}

/// Why a buffer was not sent.
enum Refusal {
    Picture(ParseError),
    /// `quant-mode=static`, and no Q stands for the tables.
    NoQ,
    /// Header extensions leave no room.
    MtuTooSmall {
        overhead: usize,
    },
    Flow(gst::FlowError),
}

/// The behaviour of the element.
#[derive(Debug, Default)]
pub struct RtpJpegPay {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    stats: Mutex<Stats>,
    extensions: Mutex<Extensions>,
}

#[glib::object_subclass]
impl ObjectSubclass for RtpJpegPay {
    const NAME: &'static str = "GstRtpJpegPayRs";
    type Type = super::RtpJpegPay;
    type ParentType = gst_rtp::RTPBasePayload;
}

impl ObjectImpl for RtpJpegPay {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return lock(&self.stats).structure(&self.obj()).to_value();
        }
        let settings = *lock(&self.settings);
        settings.get(pspec.name()).unwrap_or_else(|| pspec.default_value().clone())
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_pt(STATIC_PT);
        obj.connect_add_extension(|obj, extension| lock(&obj.imp().extensions).add(extension));
        obj.connect_clear_extensions(|obj| lock(&obj.imp().extensions).clear());
    }
}

impl GstObjectImpl for RtpJpegPay {}

impl ElementImpl for RtpJpegPay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTP JPEG payloader",
                "Codec/Payloader/Network/RTP",
                "Cuts JPEG pictures into RTP packets (RFC 2435)",
                "The gst-livekit-boards developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let sink = gst::Caps::new_empty_simple("image/jpeg");
            let rtp = |pt: &dyn Fn(gst::structure::Builder) -> gst::structure::Builder| {
                pt(gst::Structure::builder("application/x-rtp").field("media", "video"))
                    .field("clock-rate", CLOCK_RATE as i32)
                    .field("encoding-name", "JPEG")
                    .build()
            };
            let src = gst::Caps::builder_full()
                .structure(rtp(&|s| s.field("payload", STATIC_PT as i32)))
                .structure(rtp(&|s| s.field("payload", gst::IntRange::new(96, 127))))
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
            *lock(&self.state) = State::default();
            *lock(&self.stats) = Stats::default();
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady
            && let Some((_, pool)) = lock(&self.state).pool.take()
        {
            // Buffers that others still hold are freed when they come back.
            let _ = pool.set_active(false);
        }
        Ok(success)
    }
}

impl RTPBasePayloadImpl for RtpJpegPay {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let structure = caps.structure(0).ok_or_else(|| gst::loggable_error!(CAT, "empty caps"))?;
        let interlacing = match structure.get::<&str>("interlace-mode") {
            Ok("alternate") => Interlacing::Alternate,
            Ok("interleaved" | "mixed" | "fields") => Interlacing::Frames {
                bottom_first: structure.get::<&str>("field-order") == Ok("bottom-field-first"),
            },
            _ => Interlacing::Progressive,
        };
        let size = |name| structure.get::<i32>(name).ok().and_then(|size| u16::try_from(size).ok());
        let dimensions = size("width").zip(size("height"));
        {
            let mut state = lock(&self.state);
            state.interlacing = interlacing;
            state.framerate = structure.get("framerate").ok();
            state.announced = match interlacing {
                Interlacing::Progressive => dimensions.filter(|&size| is_inexact(size)),
                // The height of a field is known only from the first picture.
                _ => None,
            };
        }
        self.announce().map_err(|()| gst::loggable_error!(CAT, "downstream does not take RTP/JPEG"))
    }

    fn handle_buffer(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = *lock(&self.settings);
        match self.packetize(&buffer, &settings) {
            Ok(list) => self.obj().push_list(list),
            Err(Refusal::Flow(error)) => Err(error),
            Err(Refusal::MtuTooSmall { overhead }) => {
                gst::element_imp_error!(
                    self,
                    gst::LibraryError::Settings,
                    [
                        "mtu={} leaves no room for the picture beside {overhead} bytes of RTP header extensions \
                         and contributing sources; set it to {} or more",
                        settings.mtu,
                        MIN_MTU + overhead
                    ]
                );
                Err(gst::FlowError::Error)
            }
            Err(Refusal::Picture(error)) => {
                let mut text = error.to_string();
                if matches!(error, ParseError::Subsampling(_) | ParseError::Components(_)) {
                    text += "; put video/x-raw,format=I420 in front of the encoder";
                }
                self.refuse(reason(&error), &text, &settings)
            }
            Err(Refusal::NoQ) => self.refuse(
                "quant-tables",
                "no Q of 1 to 99 stands for its quantisation tables, and quant-mode is static",
                &settings,
            ),
        }
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                let segment = segment.segment().clone().downcast::<gst::ClockTime>();
                lock(&self.state).segment = segment.unwrap_or_default();
            }
            // Whoever joins after a seek may not have the tables.
            gst::EventView::FlushStop(_) => lock(&self.state).selector.resend(),
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        // A new receiver asks for a picture that can be decoded by itself: for JPEG, one with its tables.
        if gst_video::UpstreamForceKeyUnitEvent::parse(&event).is_ok() {
            lock(&self.state).selector.resend();
        }
        self.parent_src_event(event)
    }
}

impl RtpJpegPay {
    /// Negotiates the caps of the source pad.
    fn announce(&self) -> Result<(), ()> {
        let obj = self.obj();
        let (framerate, announced) = {
            let state = lock(&self.state);
            (state.framerate, state.announced)
        };
        let mut fields = gst::Structure::builder("fields");
        if let Some(rate) = framerate.filter(|rate| rate.numer() > 0) {
            let rate = f64::from(rate.numer()) / f64::from(rate.denom());
            fields = fields.field("a-framerate", format!("{rate:.6}"));
        }
        if let Some((width, height)) = announced {
            fields = fields.field("x-dimensions", format!("{width},{height}"));
        }
        obj.set_options("video", obj.pt() != STATIC_PT, "JPEG", CLOCK_RATE);
        obj.set_outcaps(Some(&fields.build())).map_err(|error| gst::debug!(CAT, imp = self, "{error}"))
    }

    /// Makes all packets of a buffer.
    fn packetize(&self, buffer: &gst::Buffer, settings: &Settings) -> Result<gst::BufferList, Refusal> {
        let begin = Instant::now();
        let map = buffer.map_readable().map_err(|_| Refusal::Flow(gst::FlowError::Error))?;
        let first = Jpeg::parse(&map).map_err(Refusal::Picture)?;
        self.announce_size(&first)?;
        let overhead = self.overhead(buffer);
        let room = settings.mtu().saturating_sub(RTP_HEADER_LEN + overhead);

        let mut state = lock(&self.state);
        let second = match state.interlacing {
            Interlacing::Frames { .. } => second_field(&map, &first)?,
            _ => None,
        };
        let fields = fields(state.interlacing, buffer.video_flags(), second.is_some());
        let policy = (settings.quant_mode, settings.quant_interval);
        if state.policy != Some(policy) {
            state.policy = Some(policy);
            state.selector = QuantSelector::new(settings.quant_policy());
        }
        let time = buffer.pts().or(buffer.dts());
        let running_time = time.and_then(|time| state.segment.to_running_time(time));
        let now = running_time.map_or(state.now, Duration::from).max(state.now);
        state.now = now;
        let scans = first.scan().len() + second.as_ref().map_or(0, |second| second.scan().len());
        let expected = scans.div_ceil(room.saturating_sub(MAX_PACKET_HEADER_LEN).max(1));
        let mut maker = Maker::new(self, buffer, settings, overhead, expected, &mut state)?;
        let mut last = None;
        for (jpeg, field) in [Some(&first), second.as_ref()].into_iter().flatten().zip(fields) {
            let quant = state.selector.choose(jpeg.tables(), now).ok_or(Refusal::NoQ)?;
            let options = PacketizeOptions {
                field,
                restart_mode: settings.restart_mode(),
                ..PacketizeOptions::new(room, quant)
            };
            let packets = Packets::new(jpeg, &options).map_err(|error| match error {
                PacketizeError::InvalidQ(_) => Refusal::NoQ,
                _ => Refusal::MtuTooSmall { overhead },
            })?;
            let kind = maker.add(packets)?;
            last = Some(Last { q: quant.q, kind, width: jpeg.width(), height: jpeg.height() });
        }
        drop(state);

        let mut stats = lock(&self.stats);
        stats.frames += 1;
        stats.packets += maker.packets;
        stats.bytes += maker.bytes;
        stats.last = last;
        stats.max_packets_per_frame = stats.max_packets_per_frame.max(maker.packets);
        stats.running_time = running_time.or(stats.running_time);
        stats.prepare_time += begin.elapsed();
        Ok(maker.list)
    }

    /// Bytes beside the fixed RTP header and the payload.
    fn overhead(&self, buffer: &gst::Buffer) -> usize {
        let obj = self.obj();
        let mut extensions = lock(&self.extensions);
        extensions.update(&obj);
        extensions.len(buffer) + 4 * obj.source_count(buffer) as usize
    }

    /// Tells receivers the size where the packets cannot, or only rounded up.
    fn announce_size(&self, jpeg: &Jpeg<'_>) -> Result<(), Refusal> {
        let size = (jpeg.width(), jpeg.height());
        let wanted = is_inexact(size).then_some(size);
        {
            let mut state = lock(&self.state);
            if state.announced == wanted {
                return Ok(());
            }
            state.announced = wanted;
        }
        gst::debug!(CAT, imp = self, "the picture has {} x {} pixels", size.0, size.1);
        self.announce().map_err(|()| Refusal::Flow(gst::FlowError::NotNegotiated))
    }

    /// Drops a picture, or fails, as `on-unsupported` says.
    fn refuse(
        &self,
        reason: &'static str,
        text: &str,
        settings: &Settings,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let due = lock(&self.stats).dropped.count(reason, Instant::now());
        gst::debug!(CAT, imp = self, "picture refused ({reason}): {text}");
        if settings.on_unsupported == OnUnsupported::Error {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ["A picture cannot be sent as RTP/JPEG: {text}"]
            );
            return Err(gst::FlowError::Error);
        }
        if let Some(count) = due {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                [
                    "Dropped a picture that cannot be sent as RTP/JPEG ({reason}; {count} since the last warning): {text}"
                ]
            );
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

/// Makes the packets of one buffer.
struct Maker<'a> {
    element: glib::BorrowedObject<'a, super::RtpJpegPay>,
    input: &'a gst::Buffer,
    has_capture_time: bool,
    /// `None`: the base class allocates, because contributing sources go into the header.
    pool: Option<gst::BufferPool>,
    list: gst::BufferList,
    packets: u64,
    bytes: u64,
}

impl<'a> Maker<'a> {
    fn new(
        imp: &'a RtpJpegPay,
        input: &'a gst::Buffer,
        settings: &Settings,
        overhead: usize,
        expected: usize,
        state: &mut State,
    ) -> Result<Self, Refusal> {
        let element = imp.obj();
        let has_capture_time = input.iter_meta::<gst::ReferenceTimestampMeta>().next().is_some();
        let pool = if overhead > 0 && element.source_count(input) > 0 {
            None
        } else {
            Some(state.pool(settings.mtu()).map_err(|_| Refusal::Flow(gst::FlowError::Error))?)
        };
        let list = gst::BufferList::new_sized(expected);
        Ok(Self { element, input, has_capture_time, pool, list, packets: 0, bytes: 0 })
    }

    /// Appends the packets of one picture; tells their type.
    fn add(&mut self, packets: Packets<'_>) -> Result<u8, Refusal> {
        let failed = |_| Refusal::Flow(gst::FlowError::Error);
        let mut kind = 0;
        let list = self.list.make_mut();
        for packet in packets {
            kind = packet.main_header().kind;
            let mut buffer = match &self.pool {
                Some(pool) => pool.acquire_buffer(None).map_err(Refusal::Flow)?,
                None => self.element.allocate_output_buffer(packet.len() as u32, 0, 0),
            };
            let out = buffer.make_mut();
            out.set_pts(self.input.pts());
            out.set_dts(self.input.dts());
            if self.packets == 0 && self.input.flags().contains(gst::BufferFlags::DISCONT) {
                out.set_flags(gst::BufferFlags::DISCONT);
            }
            if packet.is_last() {
                out.set_flags(gst::BufferFlags::MARKER);
            }
            if self.pool.is_some() {
                let size = RTP_HEADER_LEN + packet.len();
                // All packets but the last have the pool's size.
                if out.size() != size {
                    out.set_size(size);
                }
                let mut map = out.map_writable().map_err(failed)?;
                if let Some((head, payload)) = map.split_first_chunk_mut::<RTP_HEADER_LEN>() {
                    // Version 2, marker; the base class fills in the rest.
                    *head = [0x80, if packet.is_last() { 0x80 } else { 0 }, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                    packet.write(payload);
                }
            } else {
                let mut rtp = gst_rtp::RTPBuffer::from_buffer_writable(out).map_err(failed)?;
                rtp.set_marker(packet.is_last());
                packet.write(rtp.payload_mut().map_err(failed)?);
            }
            if self.has_capture_time {
                copy_capture_time(self.input, out);
            }
            self.packets += 1;
            self.bytes += out.size() as u64;
            list.add(buffer);
        }
        Ok(kind)
    }
}

impl State {
    /// Buffers of MTU size, which come back when they have been sent.
    fn pool(&mut self, mtu: usize) -> Result<gst::BufferPool, glib::BoolError> {
        if let Some((size, pool)) = &self.pool
            && *size == mtu
        {
            return Ok(pool.clone());
        }
        let pool = gst::BufferPool::new();
        let mut config = pool.config();
        config.set_params(None, mtu as u32, 0, 0);
        pool.set_config(config)?;
        pool.set_active(true)?;
        if let Some((_, old)) = self.pool.replace((mtu, pool.clone())) {
            let _ = old.set_active(false);
        }
        Ok(pool)
    }
}

/// When a frame was captured belongs to each of its packets.
fn copy_capture_time(from: &gst::BufferRef, to: &mut gst::BufferRef) {
    for meta in from.iter_meta::<gst::ReferenceTimestampMeta>() {
        gst::ReferenceTimestampMeta::add(to, &meta.reference_owned(), meta.timestamp(), meta.duration());
    }
}

/// Whether the main header cannot tell a size, or only rounds it up to 8 (RFC 2435 §3.1.5).
fn is_inexact((width, height): (u16, u16)) -> bool {
    let exact = |size: u16| size <= rtp_jpeg::MAX_HEADER_DIMENSION && size.is_multiple_of(8);
    !exact(width) || !exact(height)
}

/// The second field of a frame, if the buffer has one after the first.
fn second_field<'a>(data: &'a [u8], first: &Jpeg<'_>) -> Result<Option<Jpeg<'a>>, Refusal> {
    let rest = data.get(first.end()..).unwrap_or_default();
    // Cameras pad fields with zeros.
    let padding = rest.iter().take_while(|&&byte| byte == 0).count();
    let rest = rest.get(padding..).unwrap_or_default();
    if !rest.starts_with(&[0xff, 0xd8]) {
        return Ok(None);
    }
    let second = Jpeg::parse(rest).map_err(Refusal::Picture)?;
    let same = (second.width(), second.height()) == (first.width(), first.height());
    Ok(same.then_some(second))
}

/// What the pictures of a buffer are (RFC 2435 §4.1: the odd field is the upper one).
fn fields(interlacing: Interlacing, flags: VideoBufferFlags, two: bool) -> [Field; 2] {
    match interlacing {
        Interlacing::Alternate if flags.contains(VideoBufferFlags::ONEFIELD) => {
            // GStreamer marks an upper field with both flags, a lower one with ONEFIELD alone.
            if flags.contains(VideoBufferFlags::TFF) { [Field::Odd; 2] } else { [Field::Even; 2] }
        }
        // A field that does not say which one it is can only be doubled in height.
        Interlacing::Alternate => [Field::Single; 2],
        Interlacing::Frames { bottom_first } if two => {
            let top_first = flags.contains(VideoBufferFlags::TFF) || !bottom_first;
            if top_first { [Field::Odd, Field::Even] } else { [Field::Even, Field::Odd] }
        }
        _ => [Field::Progressive; 2],
    }
}

/// Name of a reason in the statistics.
fn reason(error: &ParseError) -> &'static str {
    match error {
        ParseError::NotJpeg => "not-jpeg",
        ParseError::Truncated => "truncated",
        ParseError::BadSegment { .. } => "bad-segment",
        ParseError::InvalidSegment { .. } => "invalid-segment",
        ParseError::NotBaseline { .. } => "not-baseline",
        ParseError::Precision(_) => "precision",
        ParseError::Components(_) => "components",
        ParseError::Subsampling(_) => "subsampling",
        ParseError::NoDimensions => "no-dimensions",
        ParseError::ChromaTables => "chroma-tables",
        ParseError::NoQuantTable(_) => "no-quant-table",
        ParseError::WideQuantTable(_) => "wide-quant-table",
        ParseError::HuffmanTables => "huffman-tables",
        ParseError::Scans => "scans",
        ParseError::MarkerInScan { .. } => "marker-in-scan",
        ParseError::RestartMarkers => "restart-markers",
        ParseError::TooLarge(_) => "too-large",
        _ => "unsupported",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left behind is whole: nothing here unwinds half-way through a change.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
