// SPDX-License-Identifier: MIT OR Apache-2.0

//! A decoder that marks what is damaged instead of hiding it.

use crate::ffi::{RawDecoder, RawPicture, Sent};
use crate::picture::Plane;
use crate::{Chroma, Codec, Colour, Error, Picture};
use std::sync::Arc;

/// The colour volume of the mastering display (H.265 annex D): chromaticities in 1/50000, luminance in 1/10000 cd/m².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasteringDisplay {
    /// x and y of green, blue, red.
    pub primaries: [[u16; 2]; 3],
    /// x and y of the white point.
    pub white: [u16; 2],
    /// Brightest.
    pub max_luminance: u32,
    /// Darkest.
    pub min_luminance: u32,
}

/// Light level of the content, cd/m².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentLight {
    /// Of the brightest pixel.
    pub max_cll: u16,
    /// Of the brightest frame on average.
    pub max_fall: u16,
}

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The picture.
    pub picture: Arc<Picture>,
    /// The time stamp that its packet came with.
    pub pts: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// Something was missing or damaged.
    pub corrupt: bool,
    /// What the stream says of its colours.
    pub colour: Colour,
    /// HDR10: the mastering display.
    pub mastering: Option<MasteringDisplay>,
    /// HDR10: light level.
    pub light: Option<ContentLight>,
}

/// A decoder.
pub struct Decoder {
    codec: Codec,
    raw: RawDecoder,
    instant: Option<Option<Decoded>>,
    ended: bool,
}

impl Decoder {
    /// Opens a decoder.
    ///
    /// # Errors
    /// [`Error::Open`] if libavcodec lacks it.
    pub fn new(codec: Codec) -> Result<Self, Error> {
        Self::with_codec_data(codec, &[])
    }

    /// Opens a decoder with what containers keep apart from the pictures (`avcC`, `hvcC`, …).
    ///
    /// # Errors
    /// [`Error::Open`] if libavcodec lacks the decoder or refuses the data.
    pub fn with_codec_data(codec: Codec, data: &[u8]) -> Result<Self, Error> {
        Ok(Self { codec, raw: RawDecoder::open(codec, data)?, instant: None, ended: false })
    }

    /// From now on, only decodes until a picture has come out, then repeats it for each packet. For measuring what is
    /// around the decoder.
    pub fn set_instant(&mut self) {
        self.instant = Some(None);
    }

    /// The codec.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Decodes a packet (a whole access unit) and gives the pictures that are complete, in the order of display.
    ///
    /// # Errors
    /// [`Error::Codec`] for data that can't be decoded; the decoder goes on with the next packet.
    pub fn decode(&mut self, data: &[u8], pts: i64) -> Result<Vec<Decoded>, Error> {
        if data.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(Some(same)) = &self.instant {
            return Ok(vec![Decoded { pts, ..same.clone() }]);
        }
        if self.ended {
            self.flush();
        }
        let mut out = Vec::new();
        if self.raw.send(Some(data), pts)? == Sent::Full {
            self.receive(&mut out)?;
            self.raw.send(Some(data), pts)?;
        }
        self.receive(&mut out)?;
        if let (Some(slot), Some(last)) = (&mut self.instant, out.last()) {
            *slot = Some(last.clone());
        }
        Ok(out)
    }

    /// The pictures that are still held back. Decoding can go on afterwards, at a key frame.
    ///
    /// # Errors
    /// [`Error::Codec`] if libavcodec fails.
    pub fn finish(&mut self) -> Result<Vec<Decoded>, Error> {
        let mut out = Vec::new();
        if !self.ended {
            self.ended = true;
            self.raw.send(None, 0)?;
            self.receive(&mut out)?;
        }
        Ok(out)
    }

    /// Forgets all that came so far, but the parameter sets.
    pub fn flush(&mut self) {
        self.raw.flush();
        self.ended = false;
    }

    fn receive(&mut self, out: &mut Vec<Decoded>) -> Result<(), Error> {
        while let Some(raw) = self.raw.receive()? {
            out.push(decoded(raw));
        }
        Ok(())
    }
}

fn decoded(raw: RawPicture) -> Decoded {
    let (width, height) = (raw.width as usize, raw.height as usize);
    let chroma = Chroma::from_number(raw.chroma);
    let sample = if raw.depth > 8 { 2 } else { 1 };
    let size = chroma.plane_size(width, height);
    let [y, u, v] = raw.planes;
    let plane = |(width, height): (usize, usize), data: Vec<u8>| {
        if data.is_empty() { Plane::default() } else { Plane { width, height, sample, data } }
    };
    let planes = [plane((width, height), y), plane(size, u), plane(size, v)];
    Decoded {
        picture: Arc::new(Picture { width, height, chroma, depth: raw.depth, planes }),
        pts: raw.pts,
        key: raw.key,
        corrupt: raw.corrupt,
        colour: raw.colour,
        mastering: raw.mastering,
        light: raw.light,
    }
}
