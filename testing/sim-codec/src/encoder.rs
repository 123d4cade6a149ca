// SPDX-License-Identifier: MIT OR Apache-2.0

//! An encoder with hardware's controls.

use crate::ffi::{OpenEncoder, RawEncoder, SendPicture, SendPlane};
use crate::picture::Plane;
use crate::rate::Chooser;
use crate::{Chroma, Codec, Colour, Error, Picture, RateControl, split_parameter_sets};
use std::collections::VecDeque;
use std::ffi::CStr;

/// Profile of H.264; other codecs have one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Baseline (66): no CABAC, no B-frames.
    Baseline,
    /// Main (77).
    Main,
    /// High (100).
    High,
}

impl Profile {
    const fn name(self) -> &'static CStr {
        match self {
            Self::Baseline => c"baseline",
            Self::Main => c"main",
            Self::High => c"high",
        }
    }
}

/// Where parameter sets (SPS, PPS, VPS) go. [`Encoder::headers`] has them in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderPolicy {
    /// Nowhere.
    Never,
    /// In front of the first key frame, and of the first after they changed.
    First,
    /// In front of each key frame.
    EachKey,
}

/// How an encoder is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderConfig {
    /// The codec.
    pub codec: Codec,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Frames per second, numerator and denominator; only the rate control reads it.
    pub framerate: (u32, u32),
    /// How bits are spent.
    pub rate: RateControl,
    /// Frames from key frame to key frame; 0 = one key frame at the beginning, 1 = only key frames.
    pub gop: u32,
    /// Where parameter sets go.
    pub headers: HeaderPolicy,
    /// H.264's profile.
    pub profile: Profile,
    /// Ten times the level of H.264 or H.265 (40 = 4.0); 0 = computed.
    pub level: u32,
    /// Written into the stream (H.264, H.265, VP9, AV1).
    pub colour: Colour,
    /// Chroma sampling; pictures with another are converted.
    pub chroma: Chroma,
    /// Bits of a sample, 8 or (H.265, VP9, AV1) 10.
    pub depth: u8,
    /// Pictures that are coded after one that is shown later. 0 for a hardware encoder; more for a decoder's tests.
    pub b_frames: u8,
    /// Frames of one pass of intra refresh, H.264 only; 0 = none.
    pub intra_refresh: u32,
    /// Slices of a picture, H.264 only; 0 = as many as the encoder likes.
    pub slices: u8,
    /// No real coding after the first two pictures: the same two packets for ever, the second of them for each
    /// picture that is no key frame. For measuring what is around the encoder. Such a stream can't be shown.
    pub instant: bool,
}

impl EncoderConfig {
    /// 25 frames/s, 2 Mbit/s, a key frame every 60 frames.
    pub fn new(codec: Codec, width: usize, height: usize) -> Self {
        Self {
            codec,
            width,
            height,
            framerate: (25, 1),
            rate: RateControl::new(codec, 2_000_000),
            gop: 60,
            headers: HeaderPolicy::EachKey,
            profile: Profile::High,
            level: 0,
            colour: Colour::default(),
            chroma: Chroma::Yuv420,
            depth: 8,
            b_frames: 0,
            intra_refresh: 0,
            slices: 0,
            instant: false,
        }
    }

    fn check(&self) -> Result<(), Error> {
        if !(1..=Picture::MAX_SIZE).contains(&self.width) || !(1..=Picture::MAX_SIZE).contains(&self.height) {
            return Err(Error::Setting("width and height must be from 1 to 16384"));
        }
        if self.framerate.0 == 0 || self.framerate.1 == 0 {
            return Err(Error::Setting("the frame rate must be above zero"));
        }
        let ten = matches!(self.codec, Codec::H265 | Codec::Vp9 | Codec::Av1);
        if self.depth != 8 && (self.depth != 10 || !ten) {
            return Err(Error::Setting("samples of this codec have 8 bits; of H.265, VP9, AV1 8 or 10"));
        }
        let sampling = match self.chroma {
            Chroma::Yuv420 => true,
            Chroma::Yuv422 => matches!(self.codec, Codec::Mjpeg | Codec::H265),
            Chroma::Yuv444 => self.codec == Codec::Mjpeg,
            Chroma::Gray => false,
        };
        if !sampling {
            return Err(Error::Setting("only JPEG and, with 4:2:2, H.265 take other sampling than 4:2:0"));
        }
        if self.b_frames > 0 && !matches!(self.codec, Codec::H264 | Codec::H265 | Codec::Mpeg2 | Codec::Mpeg4)
        {
            return Err(Error::Setting("this codec has no B-frames"));
        }
        Ok(())
    }

    fn frames_per_second(&self) -> f64 {
        f64::from(self.framerate.0) / f64::from(self.framerate.1)
    }

    /// What can't be changed in a running encoder.
    fn structure(&self) -> impl PartialEq + use<> {
        (
            (self.codec, self.width, self.height, self.profile, self.level, self.colour),
            (self.chroma, self.depth, self.b_frames, self.intra_refresh, self.slices, self.instant),
        )
    }
}

/// What a new configuration changed, most far-reaching first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The encoder was opened anew: new parameter sets, and the next picture is a key frame.
    Reopened,
    /// Frame rate, GOP or rate mode: no key frame, unless the caller asks for one.
    Structure,
    /// Bitrate or quantisers.
    Rate,
    /// Nothing that matters to pictures.
    Nothing,
}

/// A coded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coded {
    /// The bytes, with parameter sets where the policy puts them.
    pub data: Vec<u8>,
    /// How many of them are parameter sets.
    pub headers: usize,
    /// The time stamp that the picture came with.
    pub pts: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// The quantiser, in the codec's unit.
    pub qp: u8,
}

/// An encoder.
pub struct Encoder {
    config: EncoderConfig,
    raw: RawEncoder,
    headers: Vec<u8>,
    headers_sent: bool,
    chooser: Chooser,
    since_key: Option<u32>,
    /// libavcodec wants rising time stamps: a count here, and what the caller gave.
    count: i64,
    stamps: VecDeque<(i64, i64, u8)>,
    /// Left by an encoder that was replaced.
    leftover: Vec<Coded>,
    canned: Option<[Vec<u8>; 2]>,
}

impl Encoder {
    /// Opens an encoder.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Open`].
    pub fn new(config: EncoderConfig) -> Result<Self, Error> {
        config.check()?;
        let (raw, headers) = open(&config)?;
        let mut encoder = Self {
            config,
            raw,
            headers,
            headers_sent: false,
            chooser: Chooser::new(config.codec),
            since_key: None,
            count: 0,
            stamps: VecDeque::new(),
            leftover: Vec::new(),
            canned: None,
        };
        if config.instant {
            encoder.fill_can()?;
        }
        Ok(encoder)
    }

    fn fill_can(&mut self) -> Result<(), Error> {
        let grey = Picture::grey(self.config.width, self.config.height).with_depth(self.config.depth);
        let grey = grey.with_chroma(self.config.chroma);
        let mut coded = self.code(&grey, 0, true, 30)?;
        coded.extend(self.code(&grey, 1, false, 30)?);
        let mut coded = coded.into_iter().map(|c| c.data);
        match (coded.next(), coded.next()) {
            (Some(key), Some(other)) => self.canned = Some([key, other]),
            _ => return Err(Error::Setting("an instant encoder can't hold pictures back")),
        }
        Ok(())
    }

    /// The configuration in force.
    pub const fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Parameter sets as a byte stream; empty for codecs without.
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// Puts another configuration in force for the pictures to come.
    ///
    /// # Errors
    /// As [`Encoder::new`]; the old configuration stays in force.
    pub fn reconfigure(&mut self, config: EncoderConfig) -> Result<Change, Error> {
        config.check()?;
        let old = std::mem::replace(&mut self.config, config);
        if config.structure() != old.structure() {
            match self.reopen() {
                Ok(()) => return Ok(Change::Reopened),
                Err(error) => {
                    self.config = old;
                    return Err(error);
                }
            }
        }
        if (config.framerate, config.gop, config.rate.mode) != (old.framerate, old.gop, old.rate.mode) {
            self.chooser.forget_debt();
            return Ok(Change::Structure);
        }
        if config.rate != old.rate {
            self.chooser.forget_debt();
            return Ok(Change::Rate);
        }
        Ok(Change::Nothing)
    }

    fn reopen(&mut self) -> Result<(), Error> {
        let (raw, headers) = open(&self.config)?;
        let leftover = self.drain()?;
        self.leftover.extend(leftover);
        self.raw = raw;
        self.headers = headers;
        self.headers_sent = false;
        self.chooser = Chooser::new(self.config.codec);
        self.since_key = None;
        self.canned = None;
        if self.config.instant { self.fill_can() } else { Ok(()) }
    }

    /// Encodes a picture. With `b_frames` 0 it comes out at once.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a picture of another size, [`Error::Codec`] if libavcodec fails.
    pub fn encode(&mut self, picture: &Picture, pts: i64, force_key: bool) -> Result<Vec<Coded>, Error> {
        if (picture.width, picture.height) != (self.config.width, self.config.height) {
            return Err(Error::Mismatch {
                have: picture.describe(),
                wanted: format!("{}x{}", self.config.width, self.config.height),
            });
        }
        let due = match self.since_key {
            None => true,
            Some(_) if self.config.gop == 0 => false,
            Some(since) => since >= self.config.gop,
        };
        let key = due || force_key || self.config.codec == Codec::Mjpeg;
        let fps = self.config.frames_per_second();
        let qp = self.chooser.choose(&self.config.rate, fps, key);
        let mut out = std::mem::take(&mut self.leftover);
        if let Some([first, other]) = &self.canned {
            let data = if key { first } else { other }.clone();
            let coded = Coded { data, headers: 0, pts, key, qp };
            out.push(self.finish_one(coded));
        } else {
            let converted;
            let fitting = if picture.chroma == self.config.chroma && picture.depth == self.config.depth {
                picture
            } else {
                converted = picture.with_chroma(self.config.chroma).with_depth(self.config.depth);
                &converted
            };
            for coded in self.code(fitting, pts, key, qp)? {
                self.chooser.coded(&self.config.rate, fps, coded.key, coded.qp, coded.data.len() * 8);
                out.push(self.finish_one(coded));
            }
        }
        self.since_key = Some(if key { 1 } else { self.since_key.unwrap_or(0).saturating_add(1) });
        Ok(out)
    }

    /// Puts parameter sets in front, as the policy wants.
    fn finish_one(&mut self, mut coded: Coded) -> Coded {
        let wanted = match self.config.headers {
            HeaderPolicy::Never => false,
            HeaderPolicy::First => !self.headers_sent,
            HeaderPolicy::EachKey => true,
        };
        if coded.key && wanted {
            coded.data.splice(0..0, self.headers.iter().copied());
            coded.headers = self.headers.len();
            self.headers_sent = true;
        }
        coded
    }

    fn code(&mut self, picture: &Picture, pts: i64, key: bool, qp: u8) -> Result<Vec<Coded>, Error> {
        let plane = |plane: &Plane| (plane.row_bytes(), plane.height);
        let [y, u, v] = &picture.planes;
        let send = |p| {
            let (row_bytes, rows) = plane(p);
            SendPlane { data: &p.data, row_bytes, rows }
        };
        let stamp = self.count;
        self.count += 1;
        self.raw.send(
            &SendPicture {
                planes: [send(y), send(u), send(v)],
                width: u32::try_from(picture.width).unwrap_or(0),
                height: u32::try_from(picture.height).unwrap_or(0),
                chroma: picture.chroma.number(),
                depth: picture.depth,
                key,
                // The unit is that of the codec context: 1/25 s for the MPEGs, else 1/90000 s; only the order matters.
                pts: if matches!(self.config.codec, Codec::Mpeg1 | Codec::Mpeg2 | Codec::Mpeg4 | Codec::H263)
                {
                    stamp
                } else {
                    stamp * 3600
                },
            },
            qp,
        )?;
        self.stamps.push_back((stamp, pts, qp));
        self.receive()
    }

    fn receive(&mut self) -> Result<Vec<Coded>, Error> {
        let mut out = Vec::new();
        while let Some(packet) = self.raw.receive()? {
            let per = if matches!(self.config.codec, Codec::Mpeg1 | Codec::Mpeg2 | Codec::Mpeg4 | Codec::H263)
            {
                1
            } else {
                3600
            };
            let number = packet.pts / per;
            let index = self.stamps.iter().position(|(stamp, ..)| *stamp == number).unwrap_or(0);
            let (_, pts, qp) = self.stamps.remove(index).unwrap_or((0, packet.pts, 0));
            let (_, data) = split_parameter_sets(self.config.codec, &packet.data);
            out.push(Coded { data, headers: 0, pts, key: packet.key, qp });
        }
        Ok(out)
    }

    fn drain(&mut self) -> Result<Vec<Coded>, Error> {
        if self.stamps.is_empty() {
            return Ok(Vec::new());
        }
        self.raw.end()?;
        let coded = self.receive()?;
        self.stamps.clear();
        Ok(coded.into_iter().map(|c| self.finish_one(c)).collect())
    }

    /// What is still held back; afterwards the encoder starts anew, with a key frame.
    ///
    /// # Errors
    /// [`Error::Codec`] if libavcodec fails.
    pub fn finish(&mut self) -> Result<Vec<Coded>, Error> {
        let mut out = std::mem::take(&mut self.leftover);
        if !self.stamps.is_empty() {
            out.extend(self.drain()?);
            self.reopen()?;
        }
        self.since_key = None;
        Ok(out)
    }
}

fn open(config: &EncoderConfig) -> Result<(RawEncoder, Vec<u8>), Error> {
    let size = |v: usize| u32::try_from(v).unwrap_or(0);
    let (raw, extradata) = RawEncoder::open(&OpenEncoder {
        codec: config.codec,
        width: size(config.width),
        height: size(config.height),
        framerate: config.framerate,
        chroma: config.chroma.number(),
        depth: config.depth,
        b_frames: config.b_frames,
        intra_refresh: config.intra_refresh,
        slices: config.slices,
        level: config.level,
        colour: config.colour,
        profile: (config.codec == Codec::H264).then(|| config.profile.name()),
    })?;
    let (headers, _) = split_parameter_sets(config.codec, &extradata);
    Ok((raw, if config.codec.has_parameter_sets() { headers } else { Vec::new() }))
}

/// The quantiser scale of JPEG whose tables come nearest to a quality of 1–99 as the IJG's library counts it.
pub(crate) fn jpeg_scale(quality: u8) -> u8 {
    let quality = f64::from(quality.clamp(1, 99));
    let percent = if quality < 50.0 { 5000.0 / quality } else { 200.0 - 2.0 * quality };
    // A scale of 8 is the specification's table itself.
    (percent * 0.08).round().clamp(1.0, 31.0) as u8
}

impl RateControl {
    /// JPEG with a fixed quality, 1–99 as the IJG's library counts it.
    pub fn jpeg_quality(quality: u8) -> Self {
        Self::fixed(Codec::Mjpeg, jpeg_scale(quality))
    }
}
