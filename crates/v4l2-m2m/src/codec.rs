// SPDX-License-Identifier: MIT OR Apache-2.0

//! Coded formats, and what can be told from a coded picture without decoding it: whether it is a keyframe, whether the
//! parameter sets are there. Drivers' own flags are wrong too often.

use crate::av1;
use crate::uapi::*;

/// A coded format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Codec {
    /// H.264, byte-stream.
    H264,
    /// H.265, byte-stream.
    H265,
    /// VP8.
    Vp8,
    /// Fast Walsh Hadamard Transform, what the kernel's virtual codec driver makes.
    Fwht,
    /// AV1, temporal units.
    Av1,
}

impl Codec {
    /// What the kernel's drivers are asked for, the most wanted first.
    pub const ALL: [Self; 4] = [Self::H264, Self::H265, Self::Vp8, Self::Fwht];
    /// What NVIDIA's library is asked for, the most wanted first.
    pub const NVIDIA: [Self; 3] = [Self::H264, Self::H265, Self::Av1];

    /// The kernel's name; of AV1 NVIDIA's.
    #[must_use]
    pub fn fourcc(self) -> FourCc {
        match self {
            Self::H264 => V4L2_PIX_FMT_H264,
            Self::H265 => V4L2_PIX_FMT_HEVC,
            Self::Vp8 => V4L2_PIX_FMT_VP8,
            Self::Fwht => V4L2_PIX_FMT_FWHT,
            Self::Av1 => V4L2_PIX_FMT_AV1_NV,
        }
    }

    /// The codec of a pixel format of the kernel's.
    #[must_use]
    pub fn of(fourcc: FourCc) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.fourcc() == fourcc)
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Vp8 => "VP8",
            Self::Fwht => "FWHT",
            Self::Av1 => "AV1",
        }
    }

    /// Looks at a coded buffer.
    #[must_use]
    pub fn inspect(self, data: &[u8]) -> Contents {
        match self {
            Self::H264 | Self::H265 => self.inspect_nals(data),
            Self::Av1 => inspect_obus(data),
            Self::Vp8 => Contents {
                // RFC 6386 §9.1: the lowest bit of the frame tag is 0 for keyframes.
                keyframe: data.first().is_some_and(|byte| byte & 1 == 0),
                picture: !data.is_empty(),
                ..Contents::default()
            },
            Self::Fwht => Contents {
                // struct fwht_cframe_hdr: two magic words, version, width, height, flags, all big-endian.
                // V4L2_FWHT_FL_I_FRAME is bit 10 of the flags.
                keyframe: data
                    .get(20..24)
                    .and_then(|flags| flags.try_into().ok())
                    .is_some_and(|flags| u32::from_be_bytes(flags) & (1 << 10) != 0),
                picture: !data.is_empty(),
                ..Contents::default()
            },
        }
    }

    fn inspect_nals(self, data: &[u8]) -> Contents {
        let mut contents = Contents::default();
        let mut seen = 0_u8;
        for nal in nals(data) {
            match self.nal_kind(nal.bytes) {
                NalKind::Header(bit) => {
                    seen |= bit;
                    contents.headers.extend_from_slice(data.get(nal.start..nal.end).unwrap_or_default());
                }
                NalKind::Delimiter => contents.headers_at = nal.end,
                NalKind::Key => (contents.picture, contents.keyframe) = (true, true),
                NalKind::Picture => contents.picture = true,
                NalKind::Other => {}
            }
        }
        contents.complete = seen == self.all_headers();
        contents
    }

    fn all_headers(self) -> u8 {
        match self {
            Self::H264 => 0b011,
            Self::H265 => 0b111,
            _ => 0,
        }
    }

    fn nal_kind(self, nal: &[u8]) -> NalKind {
        let Some(&first) = nal.first() else { return NalKind::Other };
        if self == Self::H264 {
            // H.264, Table 7-1.
            match first & 0x1f {
                7 => NalKind::Header(1),
                8 => NalKind::Header(2),
                9 => NalKind::Delimiter,
                5 => NalKind::Key,
                1..=4 => NalKind::Picture,
                _ => NalKind::Other,
            }
        } else {
            // H.265, Table 7-1.
            match first >> 1 & 0x3f {
                32 => NalKind::Header(1),
                33 => NalKind::Header(2),
                34 => NalKind::Header(4),
                35 => NalKind::Delimiter,
                16..=21 => NalKind::Key,
                0..=9 => NalKind::Picture,
                _ => NalKind::Other,
            }
        }
    }
}

fn inspect_obus(data: &[u8]) -> Contents {
    let mut contents = Contents::default();
    for obu in av1::obus(data) {
        match obu.kind() {
            av1::Kind::SequenceHeader => {
                contents.complete = true;
                contents.headers.extend_from_slice(data.get(obu.start..obu.end).unwrap_or_default());
            }
            av1::Kind::Delimiter => contents.headers_at = obu.end,
            av1::Kind::Key => (contents.picture, contents.keyframe) = (true, true),
            av1::Kind::Frame => contents.picture = true,
            av1::Kind::Other => {}
        }
    }
    contents
}

enum NalKind {
    /// VPS, SPS or PPS; a bit for each.
    Header(u8),
    Delimiter,
    Key,
    Picture,
    Other,
}

/// What a coded buffer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// A picture that can be decoded by itself.
    pub keyframe: bool,
    /// A picture at all; a buffer may hold parameter sets only.
    pub picture: bool,
    /// All kinds of parameter sets that the codec has are there.
    pub complete: bool,
    /// The parameter sets, with start codes.
    pub headers: Vec<u8>,
    /// Where they would go: after an access unit delimiter.
    headers_at: usize,
}

/// A NAL unit of a byte stream.
pub(crate) struct Nal<'a> {
    /// Of its start code.
    start: usize,
    end: usize,
    /// After the start code.
    pub(crate) bytes: &'a [u8],
}

pub(crate) fn nals(data: &[u8]) -> impl Iterator<Item = Nal<'_>> {
    let find = move |from: usize| {
        let rest = data.get(from..)?;
        Some(from + rest.windows(3).position(|three| three == [0, 0, 1])?)
    };
    let mut next = find(0);
    std::iter::from_fn(move || {
        let code = next?;
        // A fourth zero belongs to the start code.
        let before = |at: usize| if at > 0 && data.get(at - 1) == Some(&0) { at - 1 } else { at };
        let body = code + 3;
        next = find(body);
        let end = next.map_or(data.len(), before);
        Some(Nal { start: before(code), end, bytes: data.get(body..end).unwrap_or_default() })
    })
}

/// Makes every keyframe one that can be decoded by itself: keeps the parameter sets, and puts them in front of keyframes
/// that lack them.
#[derive(Debug)]
pub struct Headers {
    codec: Codec,
    repeat: bool,
    kept: Vec<u8>,
    /// Came in a buffer of their own, and were not sent yet.
    due: bool,
    /// The next keyframe is to have them.
    wanted: bool,
    inserted: u64,
}

/// A buffer as it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// The bytes.
    pub data: Vec<u8>,
    /// It can be decoded by itself.
    pub keyframe: bool,
}

impl Headers {
    /// `repeat`: put them in front of every keyframe that lacks them.
    #[must_use]
    pub fn new(codec: Codec, repeat: bool) -> Self {
        Self { codec, repeat, kept: Vec::new(), due: false, wanted: false, inserted: 0 }
    }

    /// How many keyframes got them from here.
    #[must_use]
    pub fn inserted(&self) -> u64 {
        self.inserted
    }

    /// The next keyframe is to have them, whatever the others do.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// The parameter sets seen last, with start codes; empty before the first.
    #[must_use]
    pub fn current(&self) -> &[u8] {
        &self.kept
    }

    /// Passes a coded buffer on; `None` if it holds no picture.
    pub fn frame(&mut self, mut data: Vec<u8>) -> Option<Framed> {
        if self.codec == Codec::Av1 {
            data = av1::without_ivf(data);
        }
        let contents = self.codec.inspect(&data);
        if contents.complete && !contents.headers.is_empty() {
            self.kept.clone_from(&contents.headers);
        }
        if !contents.picture {
            if !contents.complete {
                // Some drivers send each parameter set in a buffer of its own.
                self.collect(&contents.headers);
            }
            self.due |= !contents.headers.is_empty();
            return None;
        }
        let wanted = self.due || (contents.keyframe && (self.repeat || self.wanted));
        if wanted && contents.headers.is_empty() && !self.kept.is_empty() {
            let at = contents.headers_at.min(data.len());
            data.splice(at..at, self.kept.iter().copied());
            self.inserted += u64::from(!self.due);
        }
        self.due = false;
        self.wanted &= !contents.keyframe;
        Some(Framed { data, keyframe: contents.keyframe })
    }

    fn collect(&mut self, headers: &[u8]) {
        if headers.is_empty() {
            return;
        }
        if !self.due {
            self.kept.clear();
        }
        // A device that only ever sends headers must not fill the memory.
        if self.kept.len() < 4096 {
            self.kept.extend_from_slice(headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0, 0, 0, 1, 0x67, 66, 0, 31];
    const PPS: &[u8] = &[0, 0, 0, 1, 0x68, 1];
    const AUD: &[u8] = &[0, 0, 0, 1, 9, 0x10];
    const IDR: &[u8] = &[0, 0, 1, 0x65, 0x88, 0];
    const P: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a, 0xff];

    fn join(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn keyframes_are_told_by_the_bytes() {
        assert!(Codec::H264.inspect(&join(&[AUD, SPS, PPS, IDR])).keyframe);
        assert!(!Codec::H264.inspect(&join(&[AUD, P])).keyframe);
        assert!(Codec::H265.inspect(&[0, 0, 1, 19 << 1, 1, 0xaf]).keyframe);
        assert!(Codec::H265.inspect(&[0, 0, 1, 21 << 1, 1, 0xaf]).keyframe);
        assert!(!Codec::H265.inspect(&[0, 0, 1, 1 << 1, 1, 0xaf]).keyframe);
        assert!(Codec::Vp8.inspect(&[0x10, 0, 0]).keyframe);
        assert!(!Codec::Vp8.inspect(&[0x11, 0, 0]).keyframe);
        let mut fwht = [0; 40];
        assert!(!Codec::Fwht.inspect(&fwht).keyframe);
        fwht[22] = 4;
        assert!(Codec::Fwht.inspect(&fwht).keyframe);
    }

    #[test]
    fn headers_are_put_in_front_of_each_keyframe() {
        let mut headers = Headers::new(Codec::H264, true);
        let first = join(&[SPS, PPS, IDR]);
        assert_eq!(headers.frame(first.clone()), Some(Framed { data: first.clone(), keyframe: true }));
        assert_eq!(headers.frame(P.to_vec()), Some(Framed { data: P.to_vec(), keyframe: false }));
        assert_eq!(headers.frame(IDR.to_vec()), Some(Framed { data: first, keyframe: true }));
        // After the delimiter, which must be first.
        let with_delimiter = headers.frame(join(&[AUD, IDR])).unwrap();
        assert_eq!(with_delimiter.data, join(&[AUD, SPS, PPS, IDR]));
        assert_eq!(headers.inserted(), 2);
    }

    #[test]
    fn headers_in_buffers_of_their_own_join_the_next_picture() {
        let mut headers = Headers::new(Codec::H264, false);
        assert_eq!(headers.frame(join(&[SPS, PPS])), None);
        assert_eq!(headers.frame(IDR.to_vec()).unwrap().data, join(&[SPS, PPS, IDR]));
        assert_eq!(headers.frame(IDR.to_vec()).unwrap().data, IDR, "not repeated unless asked");
        // Each alone, and others than before.
        let other = &[0, 0, 0, 1, 0x67, 77, 0, 40][..];
        assert_eq!(headers.frame(other.to_vec()), None);
        assert_eq!(headers.frame(PPS.to_vec()), None);
        assert_eq!(headers.frame(IDR.to_vec()).unwrap().data, join(&[other, PPS, IDR]));
    }

    #[test]
    fn one_keyframe_has_them_on_request() {
        let mut headers = Headers::new(Codec::H264, false);
        let whole = join(&[SPS, PPS, IDR]);
        assert_eq!(headers.frame(whole.clone()).unwrap().data, whole);
        headers.want();
        assert_eq!(headers.frame(P.to_vec()).unwrap().data, P);
        assert_eq!(headers.frame(IDR.to_vec()).unwrap().data, whole);
        assert_eq!(headers.frame(IDR.to_vec()).unwrap().data, IDR);
    }

    #[test]
    fn h265_needs_three() {
        let (vps, sps, pps) = (&[0, 0, 1, 64, 1, 9][..], &[0, 0, 1, 66, 1, 9][..], &[0, 0, 1, 68, 1, 9][..]);
        let idr = &[0, 0, 1, 38, 1, 0xaf][..];
        let mut headers = Headers::new(Codec::H265, true);
        headers.frame(join(&[vps, sps, pps, idr]));
        assert_eq!(headers.frame(idr.to_vec()).unwrap().data, join(&[vps, sps, pps, idr]));
    }

    #[test]
    fn any_bytes_are_taken() {
        let mut headers = Headers::new(Codec::H264, true);
        for data in [&[][..], &[0], &[0, 0, 1], &[0, 0, 0, 1], &[0, 0, 1, 0, 0, 1], &[1; 9]] {
            assert_eq!(headers.frame(data.to_vec()), None, "{data:?}");
        }
        for codec in Codec::ALL {
            let _ = codec.inspect(&[0, 0, 1]);
        }
    }
}
