// SPDX-License-Identifier: MPL-2.0

//! Notices what in a stream will hurt its viewers. Pure.

use std::time::Duration;

use livekit_session::bitstream::{FrameInfo, VideoFormat};
use livekit_session::{Codec, GopTooLong, MAX_FRAME_BYTES};

/// How long bytes are counted before a bitrate is judged.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// Something a viewer will notice. Each kind is reported once a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Warning {
    /// Frames that may depend on later ones; so far they come in the order in which they are shown.
    BFrames(Codec),
    /// Frames do not come in the order in which they are shown. No warning, but the end of the stream.
    Reordered(Codec),
    /// A keyframe without what a decoder must know first.
    MissingParameterSets(Codec),
    /// Data goes into the parser, and no frame comes out.
    NothingDecodable,
    /// Keyframe requests have no effect.
    IgnoresKeyframeRequests {
        /// The encoder's name, if there is one.
        encoder: Option<String>,
        /// Whether requests are answered from the cache from now on.
        cached: bool,
    },
    /// Keyframes are further apart than what is kept for those who begin to watch.
    GopTooLong {
        /// What it does not fit into.
        bound: GopTooLong,
    },
    /// More bits than announced.
    BitrateAboveMax {
        /// Measured, bit/s.
        measured: u64,
        /// `max-bitrate`, bit/s.
        max: u32,
    },
    /// Time runs backwards.
    TimestampsBack,
    /// A format that browsers can't show.
    BrowserFormat(Codec, VideoFormat),
    /// A buffer without bytes.
    EmptyBuffer,
    /// A buffer that is larger than any frame that is sent.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The stream becomes another one again and again.
    TooManyChanges,
    /// A buffer without PTS and DTS.
    NoTimestamp,
}

fn without_b_frames(codec: Codec) -> &'static str {
    match codec {
        Codec::H265 => "x265enc: option-string=bframes=0 or tune=zerolatency",
        _ => "x264enc: bframes=0 or tune=zerolatency",
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BFrames(codec) => write!(
                f,
                "The stream has B-frames, which WebRTC viewers show out of order or not at all. Turn them off \
                 in the encoder ({})",
                without_b_frames(*codec)
            ),
            Self::Reordered(codec) => write!(
                f,
                "The stream has B-frames: its pictures do not come in the order in which they are shown, and \
                 WebRTC can't carry them. Turn them off in the encoder ({})",
                without_b_frames(*codec)
            ),
            Self::MissingParameterSets(codec) => write!(
                f,
                "A keyframe came without {}, and none came before it: viewers will see nothing. Let the encoder \
                 send them with every keyframe",
                match codec {
                    Codec::H265 => "VPS, SPS and PPS",
                    Codec::Av1 => "a sequence header",
                    _ => "SPS and PPS",
                }
            ),
            Self::NothingDecodable => f.write_str(
                "Data comes, but no picture can be made of it. Most likely the stream never carries its \
                 parameter sets (SPS, PPS; H.265: VPS too): let the encoder send them with every keyframe",
            ),
            Self::IgnoresKeyframeRequests { encoder, cached } => {
                match encoder {
                    Some(name) => write!(f, "The encoder {name} does not answer keyframe requests: ")?,
                    None => f.write_str("Nobody upstream answers keyframe requests: ")?,
                }
                f.write_str(match cached {
                    true => "who joins is sent what was made since the last keyframe. ",
                    false => "who joins waits for the next keyframe of its own. ",
                })?;
                f.write_str(
                    "Set a short keyframe distance (x264enc: key-int-max=60) or use an encoder that honours \
                     GstForceKeyUnit",
                )
            }
            Self::GopTooLong { bound } => write!(
                f,
                "Keyframes are further apart than {}: who joins late in between waits for the next one. Set a \
                 shorter keyframe distance in the source{}",
                match bound {
                    GopTooLong::Duration => "gop-cache-time",
                    GopTooLong::Bytes => "2 MB of data, which is all that gop-cache keeps",
                },
                match bound {
                    GopTooLong::Duration => ", or a longer gop-cache-time",
                    GopTooLong::Bytes => "",
                }
            ),
            Self::BitrateAboveMax { measured, max } => write!(
                f,
                "The stream has {measured} bit/s, far above max-bitrate={max}. Set the encoder's bitrate lower \
                 or max-bitrate higher"
            ),
            Self::TimestampsBack => f.write_str(
                "Timestamps go back: viewers will see stutter. Look for a source that restarts its clock, or \
                 for a missing parser or clocksync upstream",
            ),
            Self::BrowserFormat(codec, format) => write!(
                f,
                "Browsers can't show this stream ({codec}, profile {}, {} bit, chroma {}): only native viewers \
                 will see it",
                format.profile,
                format.bit_depth,
                match format.chroma_format_idc {
                    0 => "4:0:0",
                    1 => "4:2:0",
                    2 => "4:2:2",
                    _ => "4:4:4",
                }
            ),
            Self::EmptyBuffer => f.write_str("A buffer without data came and was dropped"),
            Self::TooLarge { bytes } => write!(
                f,
                "A frame of {bytes} bytes came and was dropped: more than {MAX_FRAME_BYTES} are never sent. Set the \
                 encoder's bitrate lower"
            ),
            Self::TooManyChanges => f.write_str(
                "The stream changes its size, profile or codec all the time; each change is a new track. Changes are \
                 followed once a second from now on, and nothing is sent in between. Let the source keep its format",
            ),
            Self::NoTimestamp => f.write_str(
                "A buffer has no timestamp: the time of its arrival is used, so sound and picture may not fit \
                 together. Let the source set timestamps (for example do-timestamp=true)",
            ),
        }
    }
}

/// One frame, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen<'a> {
    /// Presentation time, ns.
    pub pts: Option<u64>,
    /// Decoding time, ns.
    pub dts: Option<u64>,
    /// Size.
    pub bytes: usize,
    /// The head of a video frame.
    pub unit: Option<&'a FrameInfo>,
}

/// Watches one stream.
#[derive(Debug)]
pub(crate) struct StreamChecks {
    codec: Codec,
    max_bitrate: u32,
    reported: Vec<std::mem::Discriminant<Warning>>,
    last_pts: Option<u64>,
    last_dts: Option<u64>,
    have_parameter_sets: bool,
    b_frames: bool,
    /// Where the window began (ns), and the bytes in it.
    window: Option<(u64, u64)>,
}

impl StreamChecks {
    /// Watches a stream with this `max-bitrate` (0 = unset).
    pub fn new(codec: Codec, max_bitrate: u32) -> Self {
        Self {
            codec,
            max_bitrate,
            reported: Vec::new(),
            last_pts: None,
            last_dts: None,
            have_parameter_sets: false,
            b_frames: false,
            window: None,
        }
    }

    /// The timeline starts anew (seek, new segment); what was reported stays reported.
    pub fn restart_timeline(&mut self) {
        self.last_pts = None;
        self.last_dts = None;
        self.window = None;
    }

    /// A frame passes. Returns what is to be reported now.
    pub fn frame(&mut self, seen: &Seen<'_>) -> Vec<Warning> {
        let mut found = Vec::new();
        if seen.bytes == 0 {
            found.push(Warning::EmptyBuffer);
        }
        if seen.bytes > MAX_FRAME_BYTES {
            found.push(Warning::TooLarge { bytes: seen.bytes });
        }
        self.b_frames |= seen.unit.is_some_and(|unit| unit.reordered);
        self.check_times(seen, &mut found);
        if let Some(unit) = seen.unit {
            self.check_unit(unit, &mut found);
        }
        found.extend(self.check_rate(seen));
        found.retain(|warning| self.first_time(warning));
        found
    }

    fn check_times(&mut self, seen: &Seen<'_>, found: &mut Vec<Warning>) {
        let back = |last: Option<u64>, now: Option<u64>| last.zip(now).is_some_and(|(last, now)| now < last);
        let (pts_back, dts_back) = (back(self.last_pts, seen.pts), back(self.last_dts, seen.dts));
        match (seen.pts, seen.dts) {
            (None, None) => found.push(Warning::NoTimestamp),
            // Pictures come in decoding order: with B-frames only that order rises.
            (Some(_), Some(_)) if pts_back && !dts_back && seen.unit.is_some() => {
                found.push(Warning::Reordered(self.codec))
            }
            // … or, without decoding times, not even that.
            (Some(_), None) if pts_back && self.b_frames => found.push(Warning::Reordered(self.codec)),
            _ if dts_back || (pts_back && !self.b_frames) => found.push(Warning::TimestampsBack),
            _ => {}
        }
        self.last_pts = seen.pts.or(self.last_pts);
        self.last_dts = seen.dts.or(self.last_dts);
    }

    fn check_unit(&mut self, unit: &FrameInfo, found: &mut Vec<Warning>) {
        self.have_parameter_sets |= unit.parameter_sets;
        if unit.keyframe && !self.have_parameter_sets {
            found.push(Warning::MissingParameterSets(self.codec));
        }
        if unit.reordered && !found.contains(&Warning::Reordered(self.codec)) {
            found.push(Warning::BFrames(self.codec));
        }
        if let Some(format) = unit.format.filter(|format| !format.is_browser_format(self.codec)) {
            found.push(Warning::BrowserFormat(self.codec, format));
        }
    }

    fn check_rate(&mut self, seen: &Seen<'_>) -> Option<Warning> {
        if self.max_bitrate == 0 {
            return None;
        }
        let time = seen.dts.or(seen.pts)?;
        let (begin, bytes) = self.window.get_or_insert((time, 0));
        let elapsed = time.saturating_sub(*begin);
        if elapsed < u64::try_from(RATE_WINDOW.as_nanos()).unwrap_or(u64::MAX) {
            *bytes += seen.bytes as u64;
            return None;
        }
        let measured = u128::from(*bytes) * 8 * 1_000_000_000 / u128::from(elapsed.max(1));
        // The frame at the window's end opens the next one.
        self.window = Some((time, seen.bytes as u64));
        let measured = u64::try_from(measured).unwrap_or(u64::MAX);
        (measured > u64::from(self.max_bitrate) * 3 / 2)
            .then_some(Warning::BitrateAboveMax { measured, max: self.max_bitrate })
    }

    /// Whether a warning of this kind has not been given yet; now it has.
    pub fn first_time(&mut self, warning: &Warning) -> bool {
        let kind = std::mem::discriminant(warning);
        let new = !self.reported.contains(&kind);
        if new {
            self.reported.push(kind);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const FORMAT: VideoFormat =
        VideoFormat { profile: 66, chroma_format_idc: 1, bit_depth: 8, width: 640, height: 480 };

    fn idr() -> FrameInfo {
        FrameInfo { keyframe: true, parameter_sets: true, format: Some(FORMAT), ..delta() }
    }

    fn delta() -> FrameInfo {
        FrameInfo { picture: true, ..FrameInfo::default() }
    }

    fn checks(max_bitrate: u32) -> StreamChecks {
        StreamChecks::new(Codec::H264, max_bitrate)
    }

    fn video(pts: u64, dts: Option<u64>, unit: &FrameInfo) -> Seen<'_> {
        Seen { pts: Some(pts * MS), dts: dts.map(|d| d * MS), bytes: 1000, unit: Some(unit) }
    }

    fn run(checks: &mut StreamChecks, seen: &[Seen<'_>]) -> Vec<Warning> {
        seen.iter().flat_map(|s| checks.frame(s)).collect()
    }

    #[test]
    fn a_clean_stream_is_silent() {
        let (i, p) = (idr(), delta());
        let mut watched = checks(1_000_000);
        let mut seen = vec![video(0, Some(0), &i)];
        seen.extend((1..300).map(|n| video(n * 33, Some(n * 33), if n % 60 == 0 { &i } else { &p })));
        assert_eq!(run(&mut watched, &seen), []);
    }

    #[test]
    fn b_frames_are_seen_by_their_times_and_by_their_slices_but_told_once() {
        let (i, p) = (idr(), delta());
        let reordered = [video(0, Some(0), &i), video(99, Some(33), &p), video(33, Some(66), &p)];
        assert_eq!(run(&mut checks(0), &reordered), [Warning::Reordered(Codec::H264)]);
        let b = FrameInfo { reordered: true, ..delta() };
        let sliced = [video(0, None, &i), video(33, None, &b), video(66, None, &b)];
        assert_eq!(run(&mut checks(0), &sliced), [Warning::BFrames(Codec::H264)]);
        let no_dts = [video(0, None, &i), video(99, None, &p), video(33, None, &b)];
        assert_eq!(run(&mut checks(0), &no_dts), [Warning::Reordered(Codec::H264)]);
    }

    #[test]
    fn time_that_runs_back_is_told_once_and_a_seek_is_no_such_thing() {
        let (i, p) = (idr(), delta());
        let mut watched = checks(0);
        let back = [video(500, None, &i), video(100, None, &p), video(50, None, &p)];
        assert_eq!(run(&mut watched, &back), [Warning::TimestampsBack]);
        let mut watched = checks(0);
        assert_eq!(run(&mut watched, &[video(500, Some(500), &i)]), []);
        assert_eq!(
            run(&mut watched, &[video(400, Some(400), &p)]),
            [Warning::TimestampsBack],
            "both go back"
        );
        let mut watched = checks(0);
        run(&mut watched, &[video(500, None, &i)]);
        watched.restart_timeline();
        assert_eq!(run(&mut watched, &[video(0, None, &i)]), []);
    }

    #[test]
    fn parameter_sets_are_missed_only_if_they_never_came() {
        let bare = FrameInfo { parameter_sets: false, ..idr() };
        let mut watched = checks(0);
        assert_eq!(run(&mut watched, &[video(0, None, &bare)]), [Warning::MissingParameterSets(Codec::H264)]);
        let mut watched = checks(0);
        assert_eq!(run(&mut watched, &[video(0, None, &idr()), video(33, None, &bare)]), []);
    }

    #[test]
    fn bitrate_is_measured_over_three_seconds_and_half_above_is_tolerated() {
        let unit = delta();
        // 1,000 bytes each 8 ms = 1,000,000 bit/s.
        let stream: Vec<_> = (0..500).map(|n| video(n * 8, None, &unit)).collect();
        let found = run(&mut checks(600_000), &stream);
        assert_eq!(found, [Warning::BitrateAboveMax { measured: 1_000_000, max: 600_000 }]);
        assert_eq!(run(&mut checks(700_000), &stream), []);
        assert_eq!(run(&mut checks(0), &stream), []);
        // Large keyframes are part of the rate, not a reason to complain by themselves: 1.27 Mbit/s here.
        let keyframes: Vec<_> = (0..500)
            .map(|n| Seen { bytes: if n % 375 == 0 { 101_000 } else { 1000 }, ..video(n * 8, None, &unit) })
            .collect();
        assert_eq!(run(&mut checks(1_000_000), &keyframes), []);
    }

    #[test]
    fn wide_profiles_empty_buffers_and_missing_times_are_told() {
        let wide =
            FrameInfo { format: Some(VideoFormat { profile: 244, chroma_format_idc: 3, ..FORMAT }), ..idr() };
        let found = run(&mut checks(0), &[video(0, None, &wide), video(33, None, &wide)]);
        assert!(
            matches!(
                found.as_slice(),
                [Warning::BrowserFormat(Codec::H264, VideoFormat { profile: 244, .. })]
            ),
            "{found:?}"
        );
        assert!(found.first().unwrap().to_string().contains("4:4:4"));
        let empty = Seen { pts: Some(0), ..Seen::default() };
        assert_eq!(run(&mut checks(0), &[empty, empty]), [Warning::EmptyBuffer]);
        let timeless = Seen { bytes: 1, ..Seen::default() };
        assert_eq!(run(&mut checks(0), &[timeless, timeless]), [Warning::NoTimestamp]);
    }

    #[test]
    fn advice_names_what_the_codec_has() {
        let (bare, b) =
            (FrameInfo { parameter_sets: false, ..idr() }, FrameInfo { reordered: true, ..delta() });
        let told = |codec, unit: &FrameInfo| {
            let found = run(&mut StreamChecks::new(codec, 0), &[video(0, None, unit)]);
            found.iter().map(Warning::to_string).collect::<Vec<_>>().join(" ")
        };
        assert!(told(Codec::H265, &bare).contains("VPS, SPS and PPS"));
        assert!(told(Codec::Av1, &bare).contains("sequence header"));
        assert!(told(Codec::H265, &b).contains("x265enc"));
        assert!(told(Codec::H264, &b).contains("x264enc"));
    }
}
