// SPDX-License-Identifier: MIT OR Apache-2.0

//! The encoder itself: takes pictures, gives packets.

use crate::config::Eos;
use crate::device::{Device, State};
use crate::queue::{Done, Queued, Storage};
use crate::report;
use sim_codec::{Codec, Colour, Encoder, EncoderConfig, HeaderPolicy, Profile, RateControl, RateMode};
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;
use v4l2_m2m::uapi::{V4L2_BUF_FLAG_ERROR, V4L2_BUF_FLAG_KEYFRAME, V4L2_BUF_FLAG_LAST};

/// H.264 levels in the order of the kernel's menu, times ten; 9 is 1b.
const LEVELS: [u32; 16] = [10, 9, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51];

/// An access unit delimiter that allows any picture.
const AUD_H264: &[u8] = &[0, 0, 0, 1, 9, 0xf0];
const AUD_H265: &[u8] = &[0, 0, 0, 1, 0x46, 1, 0x50];

/// What lives from STREAMON to STREAMOFF.
struct Session {
    generation: u64,
    encoder: Encoder,
    packets: u64,
    headers_told: bool,
    /// What comes in place of further packets: `instant=yes`.
    again: Option<Vec<u8>>,
}

/// Until the device is closed.
pub fn run(device: &Device) {
    let mut session: Option<Session> = None;
    while let Some((mut item, generation)) = next(device) {
        if item.end {
            finish(device, &item, generation);
            continue;
        }
        if session.as_ref().is_none_or(|session| session.generation != generation) {
            session = None;
        }
        let made = if slices_apart(device) {
            let made = make(device, &mut session, &item, generation);
            let Some(rest) = begin(device, &mut item, generation, made) else { continue };
            rest
        } else {
            if !wait_until(device, item.since + device.config.latency, generation) {
                continue;
            }
            make(device, &mut session, &item, generation)
        };
        deliver(device, item, generation, made);
    }
}

fn slices_apart(device: &Device) -> bool {
    device.any_state().values.get("SLICE_LEVEL_ENCODE").is_some_and(|on| *on != 0)
}

/// Gives out all slices of a picture but the last, each in its share of the time; what is left. `None`: everything was
/// forgotten meanwhile.
fn begin(
    device: &Device,
    item: &mut Queued,
    generation: u64,
    made: Result<Option<Made>, ()>,
) -> Option<Result<Option<Made>, ()>> {
    let Ok(Some(made)) = made else { return Some(made) };
    let codec = device.any_state().coded.map_or(Codec::H264, |coded| coded.codec);
    let parts = slices(codec, &made.data);
    let count = u32::try_from(parts.len()).unwrap_or(1).max(1);
    let mut left = made.data.as_slice();
    let mut first = true;
    for (number, length) in (1..).zip(parts) {
        let share = device.config.latency * number / count;
        if !wait_until(device, item.since + share, generation) {
            return None;
        }
        let (part, rest) = left.split_at_checked(length)?;
        let mut state = device.any_state();
        loop {
            if state.closing || state.generation != generation {
                return None;
            }
            let held = state.held && device.config.hold_slices && !first;
            if !held && !state.capture.queued.is_empty() {
                break;
            }
            state = device.wait(state);
        }
        if rest.is_empty() {
            return Some(Ok(Some(Made { data: part.to_vec(), key: made.key && first })));
        }
        let flags = if made.key && first && device.config.key_flag { V4L2_BUF_FLAG_KEYFRAME } else { 0 };
        if made.key && first {
            report::count(&device.config.tag, "keys", 1);
        }
        put(device, &mut state, part, flags, item.time, (made.key && first, false));
        if device.config.hold_slices {
            give_back(&mut state, item);
            item.index = None;
        }
        drop(state);
        device.changed.notify_all();
        (first, left) = (false, rest);
    }
    Some(Ok(Some(made)))
}

/// Lengths of the slices of a byte stream, the first with all that is in front of it.
fn slices(codec: Codec, data: &[u8]) -> Vec<usize> {
    let code = |at: usize| data.get(at..at + 3) == Some(&[0, 0, 1]);
    let is_slice = |at: usize| {
        let byte = data.get(at + 3).copied().unwrap_or(0xff);
        match codec {
            Codec::H264 => matches!(byte & 31, 1 | 5),
            Codec::H265 => byte >> 1 & 63 < 32,
            _ => false,
        }
    };
    let starts: Vec<usize> = (0..data.len()).filter(|at| code(*at)).collect();
    // A fourth zero belongs to the start code behind it.
    let end = |next: usize| if next > 0 && data.get(next - 1) == Some(&0) { next - 1 } else { next };
    let nexts = starts.iter().skip(1).map(|next| end(*next)).chain([data.len()]);
    let mut ends: Vec<usize> =
        starts.iter().zip(nexts).filter(|(start, _)| is_slice(**start)).map(|(_, end)| end).collect();
    if let Some(last) = ends.last_mut() {
        *last = data.len();
    }
    let begins = std::iter::once(0).chain(ends.iter().copied());
    ends.iter().zip(begins).map(|(end, begin)| end - begin).collect()
}

/// The next picture, when there is a place for its packet.
fn next(device: &Device) -> Option<(Queued, u64)> {
    let mut state = device.any_state();
    loop {
        if state.closing {
            return None;
        }
        let hanging = device.config.hang.is_some_and(|after| state.pictures >= after);
        let places = if device.config.header_only { 2 } else { 1 };
        let ready = state.output.streaming
            && state.capture.streaming
            && !state.ended
            && !hanging
            && (!state.held || device.config.hold_slices)
            && state.broken.is_none()
            && state.gone.is_none()
            && state.capture.queued.len() >= places;
        if ready && let Some(item) = state.output.queued.pop_front() {
            return Some((item, state.generation));
        }
        state = device.wait(state);
    }
}

/// False if everything was forgotten meanwhile.
fn wait_until(device: &Device, when: Instant, generation: u64) -> bool {
    let mut state = device.any_state();
    loop {
        if state.closing || state.generation != generation {
            return false;
        }
        let left = when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        state = device.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// A packet.
struct Made {
    data: Vec<u8>,
    key: bool,
}

fn make(
    device: &Device,
    session: &mut Option<Session>,
    item: &Queued,
    generation: u64,
) -> Result<Option<Made>, ()> {
    let surface = item.surface.as_ref().ok_or(())?;
    let mut state = device.any_state();
    let wanted = configuration(device, &state).ok_or(())?;
    let force = std::mem::take(&mut state.force);
    let number = state.pictures;
    let insert_aud = state.values.get("INSERT_AUD").is_some_and(|on| *on != 0);
    let tradeoff = state.values.get("TEMPORAL_TRADEOFF_LEVEL").copied().unwrap_or(0);
    drop(state);
    let every = device.config.drop;
    // Never the first: the firmware doesn't drop IDRs. 1 of 5, 1 of 3, 1 of 2, 2 of 3 (reference §2.5).
    let dropped = (every > 0 && (number + 1).is_multiple_of(every))
        || match tradeoff {
            1 => number % 5 == 4,
            2 => number % 3 == 2,
            3 => number % 2 == 1,
            4 => !number.is_multiple_of(3),
            _ => false,
        };
    if dropped {
        // The wish for a keyframe outlives a dropped picture.
        device.any_state().force |= force;
        return Ok(None);
    }
    let session = match session {
        Some(session) => {
            session.encoder.reconfigure(wanted).map_err(|_| ())?;
            session
        }
        None => session.insert(Session {
            generation,
            encoder: Encoder::new(wanted).map_err(|_| ())?,
            packets: 0,
            headers_told: false,
            again: None,
        }),
    };
    let (mut data, key, in_front) = match session.again.clone().filter(|_| !force) {
        Some(data) => (data, false, 0),
        None => {
            let picture = surface.layout.read(&surface.memory.read());
            let time = i64::try_from(number).unwrap_or(0);
            let coded = session.encoder.encode(&picture, time, force).map_err(|_| ())?;
            let coded = coded.into_iter().next().ok_or(())?;
            (coded.data, coded.key, coded.headers)
        }
    };
    if device.config.instant && !key {
        session.again = Some(data.clone());
    }
    let codec = wanted.codec;
    if device.config.header_only && codec.has_parameter_sets() && !session.headers_told {
        session.headers_told = true;
        let headers = session.encoder.headers().to_vec();
        data.drain(..in_front.min(data.len()));
        put(device, &mut device.any_state(), &headers, 0, item.time, (false, false));
    }
    match codec {
        Codec::H264 if insert_aud => data = [AUD_H264, &data].concat(),
        Codec::H265 if insert_aud => data = [AUD_H265, &data].concat(),
        Codec::Av1 if device.config.ivf() => data = ivf(&data, &wanted, session.packets),
        _ => {}
    }
    session.packets += 1;
    Ok(Some(Made { data, key }))
}

/// As release 36.4 gives AV1: a file header before the first, a frame header before each.
fn ivf(data: &[u8], config: &EncoderConfig, number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 44);
    if number == 0 {
        let short = |value: usize| u16::try_from(value).unwrap_or(0).to_le_bytes();
        out.extend_from_slice(b"DKIF\0\0\x20\0AV01");
        out.extend_from_slice(&short(config.width));
        out.extend_from_slice(&short(config.height));
        out.extend_from_slice(&config.framerate.0.to_le_bytes());
        out.extend_from_slice(&config.framerate.1.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
    }
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(data);
    out
}

/// The controls in the codec's terms.
fn configuration(device: &Device, state: &State) -> Option<EncoderConfig> {
    let (coded, raw) = (state.coded?, state.raw.as_ref()?);
    let value = |name: &str| state.values.get(name).copied();
    let unsigned = |name: &str| value(name).and_then(|value| u32::try_from(value).ok());
    let mut config = EncoderConfig::new(coded.codec, raw.width as usize, raw.height as usize);
    config.framerate = state.rate;
    config.rate = RateControl::new(coded.codec, unsigned("BITRATE").unwrap_or(4_000_000));
    config.rate.mode = match (value("FRAME_RC_ENABLE"), value("BITRATE_MODE")) {
        (Some(0), _) => RateMode::FixedQp,
        (_, Some(1)) => RateMode::Constant,
        _ => RateMode::Variable,
    };
    let numbers = |name: &str| -> Vec<u32> {
        let blob = state.blobs.get(name).map(Vec::as_slice).unwrap_or_default();
        blob.chunks_exact(4)
            .map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
            .collect()
    };
    // −1 keeps what is.
    let qp = |to: &mut u8, from: Option<&u32>| {
        if let Some(from) = from.and_then(|from| u8::try_from(*from).ok()) {
            *to = from.min(coded.codec.qp_range().1);
        }
    };
    let range = numbers("QP_RANGE");
    qp(&mut config.rate.qp_min_key, range.first());
    qp(&mut config.rate.qp_max_key, range.get(1));
    qp(&mut config.rate.qp_min, range.get(2));
    qp(&mut config.rate.qp_max, range.get(3));
    qp(&mut config.rate.qp_init, numbers("INIT_FRAME_QP").first());
    config.gop = unsigned("IDR_INTERVAL").unwrap_or(256);
    if value("ALLIFRAME_ENCODE").is_some_and(|on| on != 0) {
        config.gop = 1;
    }
    let each = value("INSERT_SPS_PPS_AT_IDR").is_some_and(|on| on != 0);
    config.headers = if each { HeaderPolicy::EachKey } else { HeaderPolicy::First };
    config.profile = match value("H264_PROFILE") {
        Some(2) => Profile::Main,
        Some(4) => Profile::High,
        _ => Profile::Baseline,
    };
    config.level = match coded.codec {
        Codec::H264 => {
            unsigned("H264_LEVEL").and_then(|level| LEVELS.get(level as usize)).copied().unwrap_or(0)
        }
        _ => 0,
    };
    // As many as NVIDIA's would be of a quarter of a frame's bits each.
    config.slices = if numbers("SLICE_LENGTH_PARAM").is_empty() { 0 } else { 4 };
    config.depth = if raw.raw == crate::format::Raw::P010 { 10 } else { 8 };
    if value("EXTENDED_COLORFORMAT").is_some_and(|on| on != 0) {
        config.colour = Colour { range: 2, ..Colour::default() };
    }
    config.instant = device.config.instant;
    Some(config)
}

/// Puts a packet into the next CAPTURE buffer; what doesn't fit is lost, and flagged.
fn put(
    device: &Device,
    state: &mut MutexGuard<'_, State>,
    data: &[u8],
    flags: u32,
    time: (i64, i64),
    about: (bool, bool),
) {
    let Some(index) = state.capture.queued.pop_front().and_then(|place| place.index) else { return };
    let Some(buffer) = state.capture.buffers.get(index as usize) else { return };
    let Storage::Packet(memory) = &buffer.storage else { return };
    let (used, flags) = if data.len() > memory.len() {
        (0, flags | V4L2_BUF_FLAG_ERROR)
    } else {
        (memory.write(data), flags)
    };
    let used = u32::try_from(used).unwrap_or(0);
    report::count(&device.config.tag, "packets", 1);
    state.capture.done.push_back(Done { index, used, flags, time, about });
}

fn give_back(state: &mut MutexGuard<'_, State>, item: &Queued) {
    if let Some(index) = item.index {
        state.output.done.push_back(Done {
            index,
            used: 0,
            flags: 0,
            time: item.time,
            about: (false, false),
        });
    }
}

fn deliver(device: &Device, item: Queued, generation: u64, made: Result<Option<Made>, ()>) {
    let mut state = device.any_state();
    if state.generation != generation || state.closing {
        return;
    }
    match made {
        Ok(Some(made)) => {
            let flag = made.key && device.config.key_flag;
            let flags = if flag { V4L2_BUF_FLAG_KEYFRAME } else { 0 };
            if made.key {
                report::count(&device.config.tag, "keys", 1);
            }
            put(device, &mut state, &made.data, flags, item.time, (made.key, true));
        }
        Ok(None) => report::count(&device.config.tag, "dropped", 1),
        Err(()) => {
            report::violation(
                &device.config.tag,
                "codec",
                "the codec refused these settings or this picture",
            );
            state.broken = Some(libc::EIO);
        }
    }
    give_back(&mut state, &item);
    state.pictures += 1;
    report::count(&device.config.tag, "pictures", 1);
    if device.config.eio.is_some_and(|after| state.pictures >= after) {
        state.broken = Some(libc::EIO);
    }
    if device.config.enodev.is_some_and(|after| state.pictures >= after) {
        state.gone = Some(libc::ENODEV);
    }
    drop(state);
    device.changed.notify_all();
}

/// The end: an empty packet, and the event.
fn finish(device: &Device, item: &Queued, generation: u64) {
    let mut state = device.any_state();
    if state.generation != generation || state.closing {
        return;
    }
    state.ended = true;
    give_back(&mut state, item);
    let last = device.config.eos == Eos::Last;
    if device.config.eos != Eos::Again
        && let Some(index) = state.capture.queued.pop_front().and_then(|place| place.index)
    {
        let flags = if last { V4L2_BUF_FLAG_LAST } else { 0 };
        let about = (false, true);
        state.capture.done.push_back(Done { index, used: 0, flags, time: item.time, about });
    }
    if state.subscribed {
        state.events += 1;
    }
    drop(state);
    device.changed.notify_all();
}
