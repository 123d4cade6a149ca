// SPDX-License-Identifier: MPL-2.0

//! Frames into the device and out of it.
//!
//! The base class's stream lock orders what goes out: the streaming thread has it in `handle_frame`, and takes coded
//! frames itself while it waits for a free buffer; the pusher has it through a frame that it holds.

use std::sync::Arc;
use std::time::Duration;

use gst::prelude::*;
use gst_video::prelude::*;
use v4l2_m2m::buffer::Slot;
use v4l2_m2m::config::Config;
use v4l2_m2m::encoder::Raw;
use v4l2_m2m::error::EncoderError;
use v4l2_m2m::ioctl::BuffersError;
use v4l2_m2m::packaged;
use v4l2_m2m::picture::Source;
use v4l2_m2m::worker::{Coded, Notice, Step, Want, Worker, WorkerError};

use super::caps;
use super::import::MOST_IMPORTED;
use super::{Core, Packaging, lock};
use crate::nvmm;

/// Latency is reported in steps of this.
const LATENCY_STEP: Duration = Duration::from_millis(5);

/// With caps that need parameter sets, so many frames may be lost before the first picture.
const MOST_LOST: usize = 64;

fn frame(obj: &gst_video::VideoEncoder, number: u64) -> Option<gst_video::VideoCodecFrame<'_>> {
    i32::try_from(number).ok().and_then(|number| obj.frame(number))
}

/// Passes the first slice of a frame on. The base class marks all that it is given as the last.
fn finish_unmarked(
    obj: &gst_video::VideoEncoder,
    frame: gst_video::VideoCodecFrame,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    let pad = obj.src_pad();
    let probe = pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            buffer.make_mut().unset_flags(gst::BufferFlags::MARKER);
        }
        gst::PadProbeReturn::Ok
    });
    let flow = obj.finish_frame(frame);
    if let Some(probe) = probe {
        pad.remove_probe(probe);
    }
    flow
}

impl Core {
    /// Sets up a stream for the caps and settings of now.
    pub(super) fn set_up(&self, obj: &gst_video::VideoEncoder, worker: &Worker) -> Result<(), ()> {
        let settings = lock(&self.settings).clone();
        let (info, wanted) = {
            let state = lock(&self.state);
            (state.info.clone(), state.wanted.clone())
        };
        let (Some(info), Some(wanted)) = (info, wanted) else { return Err(()) };
        let import = self.importing();
        let raw = caps::raw_format(info.format()).ok_or(())?;
        let mut config = Config::new(wanted.codec, raw, info.width(), info.height());
        settings.apply(&mut config);
        (config.bitrate, config.peak_bitrate) = self.bitrate();
        if import {
            config.memory = v4l2_m2m::ioctl::Memory::DmaBuf;
            config.stride = lock(&self.state).stride;
            if self.binds() {
                // One for each buffer of upstream's pool; how many are in the device at once is another matter.
                config.inputs = MOST_IMPORTED;
            }
        }
        if !import {
            // As many as may be in the device, and the one that upstream writes to meanwhile. It costs two buffers more.
            config.loans = config.inputs.saturating_add(1);
        }
        config.slices_apart = wanted.slices;
        config.profiles = wanted.profiles;
        config.level = wanted.level;
        config.colorimetry = caps::colorimetry(&info.colorimetry());
        // 0/1 is a variable rate: rate control needs some number.
        let rate = self.rate();
        config.rate = rate.unwrap_or(config.rate);
        match worker.configure(&config, settings.device_timeout) {
            Ok(setup) => {
                gst::debug!(self.cat(), obj = obj, "set up: {setup:?}");
                for refused in &setup.refused {
                    self.tell(obj, &Notice::Refused(refused.clone()));
                }
                let mut stats = lock(&self.stats);
                stats.codec = wanted.codec.name().to_owned();
                stats.profile = setup.chosen.profile.unwrap_or_default().to_owned();
                stats.level = setup.chosen.level.unwrap_or_default().to_owned();
                stats.bitrate = config.bitrate;
                drop(stats);
                let mut state = lock(&self.state);
                state.setup = Some(setup);
                state.rate = rate;
                state.bindings.clear();
                (state.restart, state.failed) = (false, false);
                drop(state);
                // Who wished for something meanwhile found no stream to change.
                if self.bitrate() != (config.bitrate, config.peak_bitrate) {
                    self.change_bitrate(obj);
                }
                if self.rate() != rate {
                    self.change_rate(obj);
                }
                if lock(&self.settings).gop() != config.gop_size {
                    self.change_gop(obj);
                }
                Ok(())
            }
            Err(WorkerError::Encoder(error))
                if import
                    && !self.binds()
                    && matches!(
                        *error,
                        EncoderError::Buffers { queue: "OUTPUT", error: BuffersError::Unsupported }
                    ) =>
            {
                gst::warning!(self.cat(), obj = obj, "DMABufs are copied, from now on: {error}");
                lock(&self.state).copying = true;
                self.set_up(obj, worker)
            }
            Err(error) => {
                self.post(obj, &error);
                Err(())
            }
        }
    }

    pub(super) fn negotiate_output(
        &self,
        obj: &gst_video::VideoEncoder,
        input: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
    ) -> Result<(), gst::LoggableError> {
        let (caps, packaged) =
            self.output_caps().ok_or_else(|| gst::loggable_error!(self.cat(), "nothing is set up"))?;
        // At least the time of a frame until it has been measured.
        let info = input.info();
        let frame = u64::try_from(info.fps().numer())
            .ok()
            .filter(|n| *n > 0)
            .map(|n| Duration::from_secs_f64(f64::from(info.fps().denom().max(1)) / n as f64));
        self.report_latency(obj, frame.unwrap_or(LATENCY_STEP));
        {
            let mut state = lock(&self.state);
            let lost = state.packaging.take().map(|before| before.lost).unwrap_or_default();
            if packaged {
                state.packaging = Some(Packaging { input: input.clone(), record: None, lost });
                return Ok(());
            }
        }
        let output = obj
            .set_output_state(caps, Some(input))
            .map_err(|_| gst::loggable_error!(self.cat(), "no output caps"))?;
        obj.negotiate(output)
            .map_err(|_| gst::loggable_error!(self.cat(), "downstream does not take the caps"))
    }

    /// Caps of what comes out, without parameter sets, and whether those belong in them.
    fn output_caps(&self) -> Option<(gst::Caps, bool)> {
        let state = lock(&self.state);
        let chosen = state.setup.as_ref().map(|setup| setup.chosen).unwrap_or_default();
        let wanted = state.wanted.as_ref()?;
        Some((caps::output(wanted, chosen.profile, chosen.level), wanted.packaged))
    }

    /// Lengths in place of start codes, if downstream wants that, with caps for the parameter sets of a keyframe in front.
    /// `None`: a picture that nothing can be made of, as no keyframe came before.
    fn package(
        &self,
        obj: &gst_video::VideoEncoder,
        data: Vec<u8>,
        keyframe: bool,
    ) -> Result<Option<Vec<u8>>, gst::FlowError> {
        let (codec, known, input, bits) = {
            let state = lock(&self.state);
            let (Some(packaging), Some(wanted)) = (&state.packaging, &state.wanted) else {
                return Ok(Some(data));
            };
            let bits = state.info.as_ref().map_or(8, |info| info.comp_depth(0));
            (wanted.codec, packaging.record.clone(), packaging.input.clone(), bits)
        };
        let record =
            if keyframe { packaged::record(codec, &data, u8::try_from(bits).unwrap_or(8)) } else { None };
        match record {
            Some(record) if known.as_ref() != Some(&record) => {
                let (caps, _) = self.output_caps().ok_or(gst::FlowError::NotNegotiated)?;
                let mut output =
                    obj.set_output_state(caps, Some(&input)).map_err(|_| gst::FlowError::NotNegotiated)?;
                output.set_codec_data(&gst::Buffer::from_slice(record.clone()));
                obj.negotiate(output)?;
                let lost = lock(&self.state).packaging.as_mut().map(|packaging| {
                    packaging.record = Some(record);
                    std::mem::take(&mut packaging.lost)
                });
                for frame in lost.into_iter().flatten().filter_map(|number| frame(obj, number)) {
                    obj.finish_frame(frame)?;
                }
            }
            None if known.is_none() && keyframe => {
                gst::element_error!(
                    obj,
                    gst::StreamError::Encode,
                    ("The device gave no parameter sets, which these caps need: ask for stream-format=byte-stream")
                );
                return Err(gst::FlowError::Error);
            }
            None if known.is_none() => return Ok(None),
            _ => {}
        }
        Ok(Some(packaged::picture(codec, &data)))
    }

    /// One frame in.
    pub fn encode(
        &self,
        obj: &gst_video::VideoEncoder,
        mut frame: gst_video::VideoCodecFrame,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let worker = self.worker().ok_or(gst::FlowError::Error)?;
        let number = u64::from(frame.system_frame_number());
        let flags = frame.flags();
        let mut force = flags.contains(gst_video::VideoCodecFrameFlags::FORCE_KEYFRAME);
        let headers = flags.contains(gst_video::VideoCodecFrameFlags::FORCE_KEYFRAME_HEADERS);
        // Whether it is one is told by what comes out.
        frame.unset_flags(gst_video::VideoCodecFrameFlags::SYNC_POINT);
        let buffer = frame.input_buffer_owned().ok_or(gst::FlowError::Error)?;
        lock(&self.stats).frames_in += 1;
        let own_rate = lock(&self.settings).max_framerate;
        let (flow, failed, active, taken) = {
            let mut state = lock(&self.state);
            // Without a first picture there are no parameter sets for the caps, and without caps nothing can be left out.
            let first = state.packaging.as_ref().is_some_and(|packaging| packaging.record.is_none());
            let active = state.targets.wish().active || first;
            let rate = state.max_framerate(own_rate);
            let taken = active && (state.pace.takes(frame.pts(), rate) || first || force);
            (state.flow, state.failed, active, taken)
        };
        if failed {
            obj.finish_frame(frame)?;
            return Err(gst::FlowError::Error);
        }
        if let Some(flow) = flow {
            obj.finish_frame(frame)?;
            return Err(flow);
        }
        if !taken {
            lock(&self.state).paused |= !active;
            lock(&self.stats).frames_paused += 1;
            return obj.finish_frame(frame);
        }
        drop(frame);
        self.notices(obj, &worker);
        force |= std::mem::take(&mut lock(&self.state).paused);
        let (restart, missing) = {
            let found = self.found(&buffer);
            let mut state = lock(&self.state);
            if found != state.memory {
                (state.memory, state.copying, state.stride) = (found, false, None);
                state.restart |= state.setup.is_some();
            }
            (state.restart, state.setup.is_none())
        };
        if restart {
            lock(&self.stats).restarts += 1;
            gst::debug!(self.cat(), obj = obj, "draining for a new stream");
            self.drain(obj, &worker, Some(number))?;
        }
        if restart || missing {
            self.set_up(obj, &worker).map_err(|()| gst::FlowError::Error)?;
            // A stream begins with a keyframe.
            force = false;
        }
        if force {
            lock(&self.stats).keyframes_requested += 1;
            if headers {
                let _ = worker.want_headers();
            }
        }
        if self.importing()
            && let Some(flow) = self.import(obj, &worker, &buffer, number, force)?
        {
            return Ok(flow);
        }
        let (info, layout) = {
            let state = lock(&self.state);
            (state.info.clone(), state.setup.as_ref().map(|setup| setup.layout.clone()))
        };
        let (Some(info), Some(layout)) = (info, layout) else { return Err(gst::FlowError::NotNegotiated) };
        let claim = self.loans.claim(&buffer, &info, &layout);
        let want = if claim.is_some() { Want::Permit } else { Want::Slot };
        let mut slot = loop {
            match worker.step(want, self.patience()) {
                Step::Slot(slot) => break slot,
                other => {
                    self.step(obj, other)?;
                }
            }
        };
        if let Some(claim) = claim {
            lock(&self.stats).frames_imported += 1;
            if let Some(mut frame) = self::frame(obj, number) {
                // Else upstream would wait for its buffer until the coded picture has gone on.
                nvmm::forget_picture(&mut frame);
            }
            return self.give(obj, &worker, slot, Raw::Lent(Arc::new(claim)), number, force);
        }
        lock(&self.stats).frames_copied += 1;
        let whole = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).is_ok_and(|picture| {
            let mut sources = Vec::with_capacity(4);
            for plane in 0..picture.n_planes() {
                let stride = picture.plane_stride().get(plane as usize).copied().unwrap_or(0);
                if let (Ok(data), Ok(stride)) = (picture.plane_data(plane), usize::try_from(stride)) {
                    sources.push(Source { data, stride });
                }
            }
            layout.copy(&sources, slot.planes_mut())
        });
        if !whole {
            // A frame that is smaller than its caps say.
            worker.put_back(slot);
            gst::element_warning!(
                obj,
                gst::StreamError::Format,
                (
                    "A frame of {} bytes does not hold the picture that its caps tell of; dropped",
                    buffer.size()
                )
            );
            return self.lose(obj, number);
        }
        self.give(obj, &worker, slot, Raw::Mapped, number, force)
    }

    fn give(
        &self,
        obj: &gst_video::VideoEncoder,
        worker: &Worker,
        slot: Slot,
        raw: Raw,
        number: u64,
        force: bool,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        worker.encode(slot, raw, number, force).map_err(|error| {
            self.post(obj, &error);
            gst::FlowError::Error
        })?;
        Ok(gst::FlowSuccess::Ok)
    }

    /// Everything out of the device, and the stream ended. `keep` is a frame that was not given to it.
    pub(super) fn drain(
        &self,
        obj: &gst_video::VideoEncoder,
        worker: &Worker,
        keep: Option<u64>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (set_up, failed) = {
            let state = lock(&self.state);
            (state.setup.is_some(), state.failed)
        };
        let mut result = Ok(gst::FlowSuccess::Ok);
        if set_up && !failed && worker.drain().is_ok() {
            loop {
                match worker.step(Want::Drained, self.patience()) {
                    Step::Drained => break,
                    Step::Interrupted => return Err(gst::FlowError::Flushing),
                    other => {
                        result = self.step(obj, other);
                        if result == Err(gst::FlowError::Error) {
                            break;
                        }
                    }
                }
            }
        }
        lock(&self.state).setup = None;
        // What the device did not give out is lost, and said to be.
        let left: Vec<u32> = obj.frames().iter().map(|frame| frame.system_frame_number()).collect();
        for number in left.into_iter().map(u64::from).filter(|number| Some(*number) != keep) {
            self.lose(obj, number)?;
        }
        result
    }

    pub(super) fn patience(&self) -> Duration {
        // The device's thread notices first, and knows more.
        lock(&self.settings).device_timeout + Duration::from_millis(500)
    }

    /// What a wait ended with, when it was not what was waited for.
    pub(super) fn step(
        &self,
        obj: &gst_video::VideoEncoder,
        step: Step,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match step {
            Step::Coded(coded) => self.output(obj, coded),
            Step::Failed(error) => {
                self.post(obj, &WorkerError::Encoder(error));
                Err(gst::FlowError::Error)
            }
            Step::TimedOut => {
                self.post(obj, &WorkerError::TimedOut(self.patience()));
                Err(gst::FlowError::Error)
            }
            Step::Interrupted => Err(gst::FlowError::Flushing),
            Step::Slot(_) | Step::Drained => Ok(gst::FlowSuccess::Ok),
        }
    }

    /// What came out while no frame came in.
    pub(super) fn push_coded(&self, obj: &gst_video::VideoEncoder, worker: &Worker) {
        // Holding a frame holds the stream lock.
        let hold = obj.oldest_frame();
        while let Some(coded) = worker.try_coded() {
            if let Err(flow) = self.output(obj, coded) {
                lock(&self.state).flow = Some(flow);
            }
        }
        drop(hold);
        if let Some(error) = worker.take_error() {
            self.post(obj, &WorkerError::Encoder(error));
        }
        self.notices(obj, worker);
        lock(&self.stats).headers_inserted = worker.headers_inserted();
    }

    /// One coded frame out.
    fn output(
        &self,
        obj: &gst_video::VideoEncoder,
        coded: Coded,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match coded {
            Coded::Lost { number } => self.lose(obj, number),
            Coded::Frame { number: None, data, end, .. } => {
                // More of a frame that the base class has forgotten.
                let Some(data) = self.package(obj, data, false)? else { return Ok(gst::FlowSuccess::Ok) };
                lock(&self.stats).bytes_out += data.len() as u64;
                let mut buffer = self.buffer(data, end);
                if let Some(buffer) = buffer.get_mut() {
                    buffer.set_pts(lock(&self.state).last_pts);
                    buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
                }
                obj.src_pad().push(buffer)
            }
            Coded::Frame { number: Some(number), data, keyframe, end, encode_time } => {
                let Some(mut frame) = frame(obj, number) else {
                    gst::debug!(self.cat(), obj = obj, "frame {number} is not waited for any more");
                    return Ok(gst::FlowSuccess::Ok);
                };
                let Some(data) = self.package(obj, data, keyframe)? else { return self.lose(obj, number) };
                let latency = {
                    let mut stats = lock(&self.stats);
                    stats.frames_out += 1;
                    stats.bytes_out += data.len() as u64;
                    stats.keyframes += u64::from(keyframe);
                    let time = encode_time.unwrap_or_default();
                    stats.encode_time += time;
                    stats.encode_time_last = time;
                    stats.encode_time_max = stats.encode_time_max.max(time);
                    time
                };
                if keyframe {
                    frame.set_flags(gst_video::VideoCodecFrameFlags::SYNC_POINT);
                }
                lock(&self.state).last_pts = frame.pts();
                frame.set_output_buffer(self.buffer(data, end));
                let flow = if end { obj.finish_frame(frame) } else { finish_unmarked(obj, frame) };
                self.report_latency(obj, latency);
                flow
            }
        }
    }

    /// A buffer of coded bytes. Where slices come one by one, the last of a picture is marked.
    fn buffer(&self, data: Vec<u8>, end: bool) -> gst::Buffer {
        let mut buffer = gst::Buffer::from_mut_slice(data);
        let apart = lock(&self.state).wanted.as_ref().is_some_and(|wanted| wanted.slices);
        if apart
            && end
            && let Some(buffer) = buffer.get_mut()
        {
            buffer.set_flags(gst::BufferFlags::MARKER);
        }
        buffer
    }

    /// Books a frame of which nothing came.
    fn lose(&self, obj: &gst_video::VideoEncoder, number: u64) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some(frame) = frame(obj, number) else { return Ok(gst::FlowSuccess::Ok) };
        let held = {
            let mut state = lock(&self.state);
            state.packaging.as_mut().filter(|packaging| packaging.record.is_none()).map(|packaging| {
                let new = packaging.lost.insert(number);
                (new, packaging.lost.len())
            })
        };
        if let Some((new, count)) = held {
            lock(&self.stats).frames_dropped += u64::from(new);
            if count > MOST_LOST {
                gst::element_error!(
                    obj,
                    gst::StreamError::Encode,
                    ("The device made nothing of the first {MOST_LOST} frames")
                );
                return Err(gst::FlowError::Error);
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        lock(&self.stats).frames_dropped += 1;
        gst::debug!(self.cat(), obj = obj, "frame {number} is lost");
        obj.finish_frame(frame)
    }

    /// The greatest time measured, so that it settles.
    fn report_latency(&self, obj: &gst_video::VideoEncoder, latency: Duration) {
        let steps = latency.as_nanos().div_ceil(LATENCY_STEP.as_nanos());
        let latency = LATENCY_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        {
            let mut stats = lock(&self.stats);
            if latency <= stats.latency {
                return;
            }
            stats.latency = latency;
        }
        let time = gst::ClockTime::from_nseconds(super::settings::nanos(latency));
        gst::debug!(self.cat(), obj = obj, "latency {time}");
        obj.set_latency(time, time);
    }

    /// Acts on what the device's thread has to say.
    fn notices(&self, obj: &gst_video::VideoEncoder, worker: &Worker) {
        for notice in worker.take_notices() {
            self.tell(obj, &notice);
            if matches!(notice, Notice::RestartForKey | Notice::RestartForChange(_)) {
                lock(&self.state).restart = true;
            }
        }
    }

    fn tell(&self, obj: &gst_video::VideoEncoder, notice: &Notice) {
        match notice {
            Notice::Refused(refused) => {
                gst::warning!(
                    self.cat(),
                    obj = obj,
                    "{} = {}: {}",
                    refused.control,
                    refused.value,
                    refused.reason
                )
            }
            Notice::Unsupported(change) => {
                gst::warning!(self.cat(), obj = obj, "the device cannot do this: {change:?}");
            }
            Notice::NoKeyframes => {
                if !std::mem::replace(&mut lock(&self.state).key_warned, true) {
                    gst::element_warning!(
                        obj,
                        gst::StreamError::Encode,
                        ("The device does not react to keyframe requests; set a smaller gop-size")
                    );
                }
            }
            Notice::RestartForChange(_) | Notice::RestartForKey => {
                gst::debug!(self.cat(), obj = obj, "a new stream is needed: {notice:?}");
            }
        }
    }

    /// Posts a failure, once.
    pub(super) fn post(&self, obj: &gst_video::VideoEncoder, error: &WorkerError) {
        if std::mem::replace(&mut lock(&self.state).failed, true) {
            return;
        }
        let device = lock(&self.stats).device.clone();
        match error {
            WorkerError::Encoder(inner) if inner.is_gone() => gst::element_error!(
                obj,
                gst::ResourceError::NotFound,
                ("The encoder {device} has vanished: {error}")
            ),
            WorkerError::Encoder(inner) if matches!(**inner, EncoderError::Hung(_)) => {
                gst::element_error!(
                    obj,
                    gst::ResourceError::Failed,
                    ("The encoder {device} hangs: {error}. Restart the pipeline; if that does not help, the driver or the board")
                )
            }
            WorkerError::TimedOut(_) => gst::element_error!(
                obj,
                gst::ResourceError::Failed,
                ("The encoder {device} hangs: {error}. Restart the pipeline; if that does not help, the driver or the board")
            ),
            _ => gst::element_error!(
                obj,
                gst::ResourceError::Settings,
                ("The encoder {device} failed: {error}. {}", (self.kind.hint)(&device))
            ),
        }
    }
}
