// SPDX-License-Identifier: MIT OR Apache-2.0

//! An encoder: a device, its queues, and what happens between setting up and draining. Nothing here blocks; who waits, and
//! where, is the caller's business (see [`crate::worker`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::{DmaBufPlane, Slot};
use crate::codec::{Codec, Headers};
use crate::config::Config;
use crate::controls::{Chosen, Controls, Effect, Refused, Wishes};
use crate::error::{EncoderError, NodeError};
use crate::ioctl::{self, Event, Format, Memory, ParmError, PlaneFormat, QueueError, StreamError};
use crate::keyframe::{KeyGuard, Method, Verdict};
use crate::loan::Claim;
use crate::nvidia;
use crate::ops::{Dialect, Interest, V4l2Ops};
use crate::picture::{Layout, RawFormat};
use crate::probe::Device;
use crate::queue::{Allocated, Capture, Coded, Dequeue, Idle, Input, Output, Queue, Streaming};
use crate::quirks::{self, Quirks};
use crate::uapi::*;

/// After this long without a further buffer, a device that cannot say that a stream has ended has ended it.
const QUIET: Duration = Duration::from_millis(200);
/// Keyframe requests are answered by this many further frames, at least.
const MAX_EXTRA: u64 = 64;

/// What was set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where a raw picture's planes lie.
    pub layout: Arc<Layout>,
    /// The device's pixel format.
    pub fourcc: FourCc,
    /// Visible size in the coded stream. Greater than asked for if the device cannot crop.
    pub visible: (u32, u32),
    /// Size with what the device adds.
    pub padded: (u32, u32),
    /// Raw pictures that the device can have at once.
    pub inputs: usize,
    /// Buffers that a producer may have at once, to fill them.
    pub loans: usize,
    /// Profile and level in use.
    pub chosen: Chosen,
    /// Wishes that the device refused, each told once.
    pub refused: Vec<Refused>,
    /// Whose memory raw pictures have.
    pub memory: Memory,
}

/// What comes out of an encoder.
#[derive(Debug)]
pub enum Out {
    /// A coded picture.
    Frame {
        /// Which raw picture it was made of; `None`: more of one that came out before.
        number: Option<u64>,
        /// The bytes.
        data: Vec<u8>,
        /// It can be decoded by itself, as its bytes say.
        keyframe: bool,
        /// The picture ends with these bytes. Unknown ends are told as none.
        end: bool,
    },
    /// The device made nothing of a raw picture.
    Lost {
        /// Which.
        number: u64,
    },
    /// A buffer can be filled again.
    Slot(Slot),
    /// The stream is drained.
    Drained,
    /// A new stream is needed to get a keyframe.
    RestartForKey,
    /// Keyframe requests have no effect here.
    NoKeyframes,
}

/// What a raw picture has in it.
#[derive(Debug)]
pub enum Raw {
    /// It was written into the slot.
    Mapped,
    /// It is somewhere else.
    DmaBuf(Vec<DmaBufPlane>),
    /// A producer wrote it into a buffer of the device's.
    Lent(Arc<Claim>),
}

struct Session {
    config: Config,
    layout: Arc<Layout>,
    output: Queue<Output, Streaming>,
    capture: Queue<Capture, Streaming>,
    headers: Headers,
    keys: KeyGuard,
    /// Timestamps in the device → frame numbers, in order.
    pending: BTreeMap<u64, u64>,
    next_timestamp: u64,
    /// The number of the next frame, as far as is known.
    next_number: u64,
    /// Of the frame that came out last.
    last_timestamp: Option<u64>,
    drain: Drain,
    /// The last frame that became a keyframe, or was asked to.
    last_key: u64,
    /// Keyframes are asked for this often, as the device does not take another distance while it streams.
    key_every: Option<u32>,
    /// For drivers without commands: an empty buffer ends the stream.
    end_slot: Option<Slot>,
    last_buffer: Instant,
    /// The rest of a picture has to come.
    unfinished: bool,
    /// The device says so, and it is no guess.
    tells_ends: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    Asked,
    Done,
}

/// An encoder.
pub struct Encoder {
    ops: Arc<dyn V4l2Ops>,
    device: Device,
    quirks: Quirks,
    controls: Box<dyn Wishes>,
    session: Option<Session>,
    /// The device has to be opened anew before the next stream.
    stale: bool,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder on an open device.
    #[must_use]
    pub fn new(ops: &Arc<dyn V4l2Ops>, device: Device) -> Self {
        let controls = wishes(&device);
        let quirks = quirks::of(&device.capability.driver);
        Self { ops: Arc::clone(ops), device, quirks, controls, session: None, stale: false }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sets up a stream, in place of the one before. Answers with the slots to fill.
    ///
    /// # Errors
    /// See [`EncoderError`]; no stream is set up then.
    pub fn configure(&mut self, config: &Config) -> Result<(Setup, Vec<Slot>), EncoderError> {
        self.session = None;
        if self.stale {
            let path = self.device.path().to_owned();
            self.device = Device::open(&self.ops, &path).map_err(EncoderError::Reopen)?;
            self.controls = wishes(&self.device);
        }
        // NVIDIA's library remembers buffers of an earlier stream until the device is closed.
        self.stale = self.device.handle.dialect() == Dialect::Nvidia;
        let mut level_up = 0;
        loop {
            match self.try_configure(config, level_up) {
                Err((EncoderError::Stream(StreamError::Refused | StreamError::NoBuffers), true)) => {
                    // The level was too low for the driver's own reckoning.
                    level_up += 1;
                    tracing::debug!(level_up, "the device refuses to stream; trying a higher level");
                }
                Err((error, _)) => return Err(error),
                Ok(done) => return Ok(done),
            }
        }
    }

    /// The flag says whether a higher level could help.
    fn try_configure(
        &mut self,
        config: &Config,
        level_up: usize,
    ) -> Result<(Setup, Vec<Slot>), (EncoderError, bool)> {
        let fatal = |error: EncoderError| (error, false);
        let handle = Arc::clone(&self.device.handle);
        let api = self.device.api;
        let support = self.device.support(config.codec).ok_or(fatal(EncoderError::Codec(config.codec)))?;
        let raw = support.raws.iter().find(|(raw, _)| *raw == config.format);
        let &(_, fourcc) = raw.ok_or(fatal(EncoderError::RawFormat(config.codec)))?;
        let room = room(config, support.sizes);

        let mut capture = Queue::<Capture, Idle>::new(&handle, api);
        let mut output = Queue::<Output, Idle>::new(&handle, api);
        let dialect = handle.dialect();
        let coded = coded_format(config, support.fourcc, dialect);
        capture
            .set_format(&coded)
            .map_err(|error| fatal(EncoderError::Format { queue: "CAPTURE", error }))?;
        self.controls.between_formats(&handle, config);
        let format = output
            .set_format(&raw_format(config, fourcc, room))
            .map_err(|error| fatal(EncoderError::Format { queue: "OUTPUT", error }))?;
        let layout = Layout::new(config.format, &format, api, config.width, config.height)
            .map_err(|error| fatal(error.into()))?;
        let padded = (format.width, format.height);
        let mut visible = padded;
        if padded != (config.width, config.height) {
            match ioctl::set_crop(&handle, config.width, config.height) {
                Ok(rect) => visible = (rect.width, rect.height),
                Err(error) => tracing::debug!(%error, "no crop"),
            }
        }
        let interval = v4l2_fract { numerator: config.rate.1.max(1), denominator: config.rate.0.max(1) };
        if let Err(error) = ioctl::set_interval(&handle, api, interval) {
            tracing::debug!(%error, "no frame rate");
        }
        let chosen = self.controls.apply(&handle, config, level_up);
        let mut refused = self.controls.take_refused();
        if visible != (config.width, config.height) {
            refused.push(Refused {
                control: "crop".into(),
                value: config.width.into(),
                reason: format!(
                    "the device encodes {}x{} in place of {}x{}; the rest repeats the edge",
                    visible.0, visible.1, config.width, config.height
                ),
            });
        }
        if let Err(error) = ioctl::subscribe_end_of_stream(&handle) {
            tracing::debug!(%error, "no event at the end");
        }

        let has_command = dialect == Dialect::Kernel && ioctl::has_encoder_command(&handle);
        let least = ioctl::read_control(&handle, V4L2_CID_MIN_BUFFERS_FOR_OUTPUT).unwrap_or(0);
        let spare = u32::from(!has_command && config.memory == Memory::Mmap);
        let inputs = config.inputs.max(u32::try_from(least).unwrap_or(0)).saturating_add(spare).clamp(1, 32);
        let loans = if config.memory == Memory::Mmap { config.loans } else { 0 };
        // One stays for copies.
        let count = if loans == 0 { inputs } else { inputs.max(loans.saturating_add(1 + spare)) };
        let output = output
            .request(config.memory, count.min(32))
            .map_err(|error| fatal(EncoderError::Buffers { queue: "OUTPUT", error }))?;
        let apart = config.slices_apart && dialect == Dialect::Nvidia;
        let outputs = if apart { config.outputs.saturating_mul(4) } else { config.outputs };
        let mut capture = capture
            .request(Memory::Mmap, outputs.clamp(2, 32))
            .map_err(|error| fatal(EncoderError::Buffers { queue: "CAPTURE", error }))?;
        if apart {
            capture.expect_parts(nvidia::METADATA);
        }
        let retry = chosen.levels_left;
        let lends = output.orphans();
        let (output, capture, mut slots) = start(output, capture, dialect).map_err(|error| (error, retry))?;
        let end_slot = if spare != 0 && slots.len() > 1 { slots.pop() } else { None };
        let inputs = slots.len().min(config.inputs.max(1) as usize);
        let loans = if lends { slots.len().saturating_sub(1).min(loans as usize) } else { 0 };
        slots.truncate(inputs.max(loans + usize::from(loans > 0)));
        let setup = Setup {
            layout: Arc::new(layout),
            fourcc,
            visible,
            padded,
            inputs,
            loans,
            chosen,
            refused,
            memory: config.memory,
        };
        let methods = self.controls.key_methods(&handle, config.codec);
        self.session = Some(Session {
            config: config.clone(),
            layout: Arc::clone(&setup.layout),
            output,
            capture,
            headers: Headers::new(config.codec, config.repeat_headers),
            keys: KeyGuard::new(methods),
            pending: BTreeMap::new(),
            next_timestamp: 0,
            next_number: 0,
            last_timestamp: None,
            drain: Drain::No,
            last_key: 0,
            key_every: None,
            end_slot,
            last_buffer: Instant::now(),
            unfinished: false,
            tells_ends: false,
        });
        Ok((setup, slots))
    }

    /// Whether a stream is set up.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.session.is_some()
    }

    /// Ends the stream without draining; what is in the device is forgotten.
    pub fn stop(&mut self) {
        self.session = None;
    }

    /// Raw pictures in the device.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.pending.len())
    }

    /// What there is to wait for.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let session = self.session.as_ref();
        Interest {
            capture: session.is_some_and(|session| session.is_busy() || session.drain == Drain::Asked),
            output: session.is_some_and(|session| session.output.queued() > 0),
            pause: Duration::ZERO,
        }
    }

    /// Gives a raw picture to the device. `number` is the caller's, growing.
    ///
    /// # Errors
    /// See [`EncoderError`]. A slot of an earlier stream is quietly dropped, and the picture reported as lost.
    pub fn encode(
        &mut self,
        slot: Slot,
        raw: &Raw,
        number: u64,
        force_key: bool,
        out: &mut Vec<Out>,
    ) -> Result<(), EncoderError> {
        let session = self.session.as_mut().ok_or(EncoderError::NotConfigured)?;
        session.next_number = number;
        let due = session
            .key_every
            .is_some_and(|every| number.saturating_sub(session.last_key) >= u64::from(every.max(1)));
        if force_key || due {
            session.last_key = number;
            let verdict = session.keys.request(number);
            Self::ask_key(&mut *self.controls, session, verdict, out);
        }
        let timestamp = session.next_timestamp;
        let used = session.layout.used().to_vec();
        let queued = match raw {
            Raw::Mapped => session.output.queue(slot, &Input::Mapped(&used), timestamp),
            Raw::DmaBuf(planes) => session.output.queue(slot, &Input::DmaBuf(planes, &used), timestamp),
            Raw::Lent(claim) => session.output.queue_lent(slot, claim, &used, timestamp),
        };
        match queued {
            Ok(()) => {
                session.next_timestamp += session.config.frame_time();
                if session.pending.is_empty() {
                    session.last_buffer = Instant::now();
                }
                session.pending.insert(timestamp, number);
                session.next_number = number + 1;
                Ok(())
            }
            Err((error, slot)) => {
                // The picture is lost, the buffer is not.
                out.push(Out::Lost { number });
                out.push(Out::Slot(slot));
                match error {
                    QueueError::Invalid | QueueError::Unreachable
                        if session.config.memory == Memory::Mmap =>
                    {
                        tracing::warn!(%error, "a picture was not taken");
                        Ok(())
                    }
                    error => Err(error.into()),
                }
            }
        }
    }

    fn ask_key(controls: &mut dyn Wishes, session: &mut Session, verdict: Verdict, out: &mut Vec<Out>) {
        match verdict {
            Verdict::Wait | Verdict::Done => {}
            Verdict::Try(Method::Restart) => out.push(Out::RestartForKey),
            Verdict::Try(method) => {
                let handle = Arc::clone(session.output.handle());
                if !controls.force_key(&handle, method) {
                    tracing::debug!(?method, "a keyframe request is refused");
                }
            }
            Verdict::GiveUp => out.push(Out::NoKeyframes),
        }
    }

    /// Takes out whatever is ready.
    ///
    /// # Errors
    /// See [`EncoderError`]; the device has to be set up anew then.
    pub fn collect(&mut self, out: &mut Vec<Out>) -> Result<(), EncoderError> {
        let Some(session) = self.session.as_mut() else { return Ok(()) };
        loop {
            match session.output.dequeue()? {
                Dequeue::Nothing | Dequeue::Ended => break,
                Dequeue::Buffer(slot) => {
                    session.last_buffer = Instant::now();
                    out.push(Out::Slot(slot));
                }
            }
        }
        let mut ended = false;
        while session.drain != Drain::Done {
            match session.capture.dequeue()? {
                Dequeue::Nothing => break,
                Dequeue::Ended => {
                    ended = true;
                    break;
                }
                Dequeue::Buffer(coded) => {
                    session.last_buffer = Instant::now();
                    ended = coded.last
                        || (coded.data.is_empty() && session.drain == Drain::Asked && !coded.error);
                    let verdict = session.take(coded, out);
                    Self::ask_key(&mut *self.controls, session, verdict, out);
                    if ended {
                        break;
                    }
                }
            }
        }
        let mut event = false;
        // NVIDIA's library can wait in this call; there the end is always told by a buffer.
        while session.output.handle().dialect() == Dialect::Kernel
            && let Ok(seen) = ioctl::dequeue_event(session.output.handle())
        {
            event |= seen == Event::EndOfStream;
        }
        if session.drain == Drain::Asked {
            // Drivers without LAST say so by an event, or not at all.
            let silent = !session.is_busy() && session.last_buffer.elapsed() >= QUIET;
            if ended || silent || (event && session.pending.is_empty()) {
                session.finish_drain(out);
            }
        }
        Ok(())
    }

    /// Asks the device to give out everything; [`Out::Drained`] follows.
    ///
    /// # Errors
    /// See [`EncoderError`].
    pub fn drain(&mut self, out: &mut Vec<Out>) -> Result<(), EncoderError> {
        let session = self.session.as_mut().ok_or(EncoderError::NotConfigured)?;
        if session.drain != Drain::No {
            return Ok(());
        }
        session.drain = Drain::Asked;
        session.last_buffer = Instant::now();
        if !session.is_busy() {
            session.finish_drain(out);
            return Ok(());
        }
        let handle = session.output.handle();
        // NVIDIA's own programs send this flag, whatever it means to the library.
        let flags = u32::from(handle.dialect() == Dialect::Nvidia);
        if let Err(error) = ioctl::encoder_command(handle, V4L2_ENC_CMD_STOP, flags) {
            tracing::debug!(%error, "no stop command; an empty buffer ends the stream");
            if let Some(slot) = session.end_slot.take() {
                let none = vec![0; session.layout.used().len()];
                if let Err((error, _)) =
                    session.output.queue(slot, &Input::Mapped(&none), session.next_timestamp)
                {
                    tracing::debug!(%error, "nor an empty buffer; waiting until nothing more comes");
                }
            }
        }
        Ok(())
    }

    /// Forgets what is in the device and starts the queues anew. The next picture becomes a keyframe. All slots come back.
    ///
    /// # Errors
    /// See [`EncoderError`].
    pub fn flush(&mut self, out: &mut Vec<Out>) -> Result<(), EncoderError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let Session {
            config,
            layout,
            output,
            capture,
            headers,
            mut keys,
            next_timestamp,
            next_number,
            key_every,
            end_slot,
            ..
        } = session;
        let dialect = output.handle().dialect();
        let output = output.stream_off()?;
        let capture = capture.stream_off()?;
        let (output, capture, slots) = start(output, capture, dialect)?;
        out.extend(slots.into_iter().map(Out::Slot));
        keys.restarted();
        self.session = Some(Session {
            config,
            layout,
            output,
            capture,
            headers,
            keys,
            pending: BTreeMap::new(),
            next_timestamp,
            next_number,
            last_timestamp: None,
            drain: Drain::No,
            last_key: next_number,
            key_every,
            end_slot,
            last_buffer: Instant::now(),
            unfinished: false,
            tells_ends: false,
        });
        Ok(())
    }

    /// Another bitrate or peak, live if the device can.
    pub fn set_bitrate(&mut self, bitrate: u32, peak: u32) -> Effect {
        let Some(session) = self.session.as_mut() else { return Effect::Live };
        let old = session.config.clone();
        (session.config.bitrate, session.config.peak_bitrate) = (bitrate, peak);
        if self.quirks.bitrate_needs_reopen {
            self.stale = true;
            return Effect::Restart;
        }
        let handle = Arc::clone(session.output.handle());
        self.controls.live_bitrate(&handle, &old, &session.config)
    }

    /// Another GOP size, live if the device can.
    pub fn set_gop(&mut self, frames: u32) -> Effect {
        let Some(session) = self.session.as_mut() else { return Effect::Live };
        if session.config.idr_interval != 0 {
            // Both distances hang together.
            session.config.gop_size = frames;
            self.stale |= self.quirks.bitrate_needs_reopen;
            return Effect::Restart;
        }
        // A shorter distance than the device's is kept by asking for keyframes.
        if session.output.handle().dialect() == Dialect::Nvidia {
            let wanted = Config { gop_size: frames, ..session.config.clone() }.gop();
            if wanted <= session.config.gop() {
                session.key_every = Some(wanted);
                return Effect::Live;
            }
        }
        session.config.gop_size = frames;
        session.key_every = None;
        if self.quirks.gop_needs_restart {
            self.stale |= self.quirks.bitrate_needs_reopen;
            return Effect::Restart;
        }
        let handle = Arc::clone(session.output.handle());
        self.controls.live_gop(&handle, session.config.codec, session.config.gop())
    }

    /// Another frame rate, live if the device can.
    pub fn set_rate(&mut self, rate: (u32, u32)) -> Effect {
        let Some(session) = self.session.as_mut() else { return Effect::Live };
        session.config.rate = rate;
        if self.quirks.rate_needs_restart {
            self.stale |= self.quirks.bitrate_needs_reopen;
            return Effect::Restart;
        }
        let interval = v4l2_fract { numerator: rate.1.max(1), denominator: rate.0.max(1) };
        match ioctl::set_interval(session.output.handle(), self.device.api, interval) {
            Ok(_) => Effect::Live,
            Err(ParmError::Busy) => Effect::Restart,
            Err(_) => Effect::Unsupported,
        }
    }

    /// The next keyframe is to carry the parameter sets, whatever the others do.
    pub fn want_headers(&mut self) {
        if let Some(session) = self.session.as_mut() {
            session.headers.want();
        }
    }

    /// Wishes that were refused since the last call.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        self.controls.take_refused()
    }

    /// Keyframes that got their parameter sets from here, in this stream.
    #[must_use]
    pub fn headers_inserted(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.headers.inserted())
    }

    /// Time since the device gave anything back, while it has pictures.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        let session = self.session.as_ref()?;
        let busy = !session.pending.is_empty() || session.drain == Drain::Asked;
        busy.then(|| session.last_buffer.elapsed())
    }
}

impl Session {
    /// Whether the device has something to give out. Where it does not tell the end of a picture, silence does.
    fn is_busy(&self) -> bool {
        let rest = self.unfinished && (self.tells_ends || self.last_buffer.elapsed() < QUIET);
        rest || !self.pending.is_empty()
    }

    /// Passes a coded buffer on, and books raw pictures of which the device made nothing.
    fn take(&mut self, coded: Coded, out: &mut Vec<Out>) -> Verdict {
        let timestamp = coded.timestamp;
        if coded.error {
            self.unfinished = false;
            if let Some(number) = self.pending.remove(&timestamp) {
                out.push(Out::Lost { number });
            }
            return Verdict::Wait;
        }
        let apart = self.config.slices_apart;
        self.tells_ends = coded.ends_picture.is_some();
        let end = !apart || coded.ends_picture == Some(true) || coded.last;
        let same = self.last_timestamp == Some(timestamp) && !self.pending.contains_key(&timestamp);
        if apart && same && (self.unfinished || timestamp != 0) {
            // Another slice. (What comes after the last of a stream has no bytes.)
            self.unfinished = !end && !coded.data.is_empty();
            if !coded.data.is_empty() {
                out.push(Out::Frame { number: None, data: coded.data, keyframe: false, end });
            }
            return Verdict::Wait;
        }
        let Some(framed) = self.headers.frame(coded.data) else { return Verdict::Wait };
        self.unfinished = !end;
        let number = match self.pending.remove(&timestamp) {
            Some(number) => Some(number),
            None if self.last_timestamp == Some(timestamp) && timestamp != 0 => None,
            // The driver does not copy timestamps: in order then.
            None => self.pending.pop_first().map(|(_, number)| number),
        };
        self.last_timestamp = Some(timestamp);
        let Some(number) = number else {
            out.push(Out::Frame { number: None, data: framed.data, keyframe: false, end });
            return Verdict::Wait;
        };
        // What is older will not come any more, except for what B-frames delay.
        let window = u64::from(self.config.b_frames) * 2;
        while let Some(entry) = self.pending.first_entry()
            && entry.get().saturating_add(window) < number
        {
            out.push(Out::Lost { number: entry.remove() });
        }
        if framed.keyframe {
            self.last_key = self.last_key.max(number);
        }
        out.push(Out::Frame { number: Some(number), data: framed.data, keyframe: framed.keyframe, end });
        let pending = (self.pending.len() as u64).min(MAX_EXTRA);
        self.keys.seen(number, framed.keyframe, pending, self.next_number)
    }

    fn finish_drain(&mut self, out: &mut Vec<Out>) {
        self.drain = Drain::Done;
        for number in std::mem::take(&mut self.pending).into_values() {
            out.push(Out::Lost { number });
        }
        out.push(Out::Drained);
    }
}

fn wishes(device: &Device) -> Box<dyn Wishes> {
    match device.handle.dialect() {
        Dialect::Kernel => Box::new(Controls::new(&device.handle)),
        Dialect::Nvidia => Box::new(nvidia::Controls::default()),
    }
}

type Started = (Queue<Output, Streaming>, Queue<Capture, Streaming>, Vec<Slot>);

/// Starts both queues, in the order that the device is known to take.
fn start(
    mut output: Queue<Output, Allocated>,
    mut capture: Queue<Capture, Allocated>,
    dialect: Dialect,
) -> Result<Started, EncoderError> {
    let slots = output.take_slots();
    match dialect {
        Dialect::Kernel => {
            capture.queue_all()?;
            let capture = capture.stream_on()?;
            Ok((output.stream_on()?, capture, slots))
        }
        Dialect::Nvidia => {
            let output = output.stream_on()?;
            let mut capture = capture.stream_on()?;
            capture.queue_all()?;
            Ok((output, capture, slots))
        }
    }
}

fn coded_format(config: &Config, fourcc: FourCc, dialect: Dialect) -> Format {
    // A hint that even a keyframe of noise fits into.
    let size = u64::from(config.width) * u64::from(config.height) * 3 / 2;
    let (least, step) = match dialect {
        Dialect::Kernel => (1 << 20, 1),
        Dialect::Nvidia => (2 << 20, 2),
    };
    Format {
        fourcc,
        width: config.width.next_multiple_of(step),
        height: config.height.next_multiple_of(step),
        colorimetry: config.colorimetry,
        planes: vec![PlaneFormat {
            bytesperline: 0,
            sizeimage: u32::try_from(size.clamp(least, 1 << 28)).unwrap_or(1 << 20),
        }],
    }
}

/// A size that the device takes and the picture fits into. Drivers round to the nearest, which may be too small.
fn room(config: &Config, sizes: Option<ioctl::FrameSizes>) -> (u32, u32) {
    let (width, height) = (config.width, config.height);
    let fit = |size: u32, step: u32, max: u32| {
        let padded = size.checked_next_multiple_of(step.max(1)).unwrap_or(size);
        if padded <= max { padded } else { size }
    };
    sizes.map_or((width, height), |sizes| {
        (fit(width, sizes.step.0, sizes.width.1), fit(height, sizes.step.1, sizes.height.1))
    })
}

fn raw_format(config: &Config, fourcc: FourCc, (width, height): (u32, u32)) -> Format {
    let separate = fourcc == V4L2_PIX_FMT_YUV420M
        || fourcc == V4L2_PIX_FMT_YVU420M
        || fourcc == V4L2_PIX_FMT_NV12M
        || fourcc == V4L2_PIX_FMT_P010M
        || fourcc == V4L2_PIX_FMT_NV21M;
    let count = match config.format {
        _ if !separate => 1,
        RawFormat::I420 | RawFormat::Yv12 => 3,
        _ => 2,
    };
    let mut planes = vec![PlaneFormat::default(); count];
    if let (Some(plane), Some(stride)) = (planes.first_mut(), config.stride) {
        plane.bytesperline = stride;
    }
    Format { fourcc, width, height, colorimetry: config.colorimetry, planes }
}

/// Which codecs [`Device::find`] looks for when all are welcome.
pub const ANY_CODEC: [Codec; 4] = Codec::ALL;

/// Opens a device: the one at `path`, or the first that encodes.
///
/// # Errors
/// The nodes that were tried, and why each was refused.
pub fn open(
    ops: &Arc<dyn V4l2Ops>,
    path: Option<&std::path::Path>,
) -> Result<Encoder, crate::error::ProbeError> {
    let device = match path {
        Some(path) => Device::open(ops, path)
            .map_err(|error: NodeError| crate::error::ProbeError(vec![(path.to_owned(), error)]))?,
        None => Device::find(ops, &ANY_CODEC)?,
    };
    Ok(Encoder::new(ops, device))
}
