// SPDX-License-Identifier: MPL-2.0

//! Codecs and their caps.

use rockchip_mpp::Coding;

/// A codec as it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Codec {
    pub name: &'static str,
    pub coding: Coding,
    /// Pictures may come in another order than their packets.
    pub reorders: bool,
}

impl Codec {
    /// Whether its pictures may come compressed (AFBC). AV1's may be invalid, and disturb the hardware behind; other codecs
    /// ignore the wish.
    pub fn compresses(&self) -> bool {
        matches!(self.coding, Coding::Avc | Coding::Hevc | Coding::Vp9)
    }
}

const fn codec(name: &'static str, coding: Coding, reorders: bool) -> Codec {
    Codec { name, coding, reorders }
}

const H264: Codec = codec("H.264", Coding::Avc, true);
const H265: Codec = codec("H.265", Coding::Hevc, true);
const VP8: Codec = codec("VP8", Coding::Vp8, false);
const VP9: Codec = codec("VP9", Coding::Vp9, false);
const AV1: Codec = codec("AV1", Coding::Av1, false);
const MPEG2: Codec = codec("MPEG-1/2", Coding::Mpeg2, true);
const MPEG4: Codec = codec("MPEG-4", Coding::Mpeg4, true);
const H263: Codec = codec("H.263", Coding::H263, false);
const JPEG: Codec = codec("JPEG", Coding::Mjpeg, false);

/// All of them: at least one has to work for the element to be of use.
pub(crate) const CODECS: [Codec; 9] = [H264, H265, VP8, VP9, AV1, MPEG2, MPEG4, H263, JPEG];

/// The codec of a stream.
pub(crate) fn of(caps: &gst::StructureRef) -> Option<Codec> {
    Some(match caps.name().as_str() {
        "video/x-h264" => H264,
        "video/x-h265" => H265,
        "video/x-vp8" => VP8,
        "video/x-vp9" => VP9,
        "video/x-av1" => AV1,
        "video/x-h263" => H263,
        "image/jpeg" => JPEG,
        "video/mpeg" => match caps.get::<i32>("mpegversion") {
            Ok(1 | 2) => MPEG2,
            Ok(4) => MPEG4,
            _ => return None,
        },
        _ => return None,
    })
}

/// Caps of the sink pad: whole access units, byte streams where there is a choice.
pub(crate) fn sink_caps() -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    {
        let caps = caps.make_mut();
        for name in ["video/x-h264", "video/x-h265"] {
            caps.append_structure(
                gst::Structure::builder(name)
                    .field("stream-format", "byte-stream")
                    .field("alignment", "au")
                    .build(),
            );
        }
        for name in ["video/x-vp8", "video/x-vp9"] {
            caps.append_structure(gst::Structure::new_empty(name));
        }
        caps.append_structure(
            gst::Structure::builder("video/x-av1")
                .field("stream-format", "obu-stream")
                .field("alignment", "tu")
                .build(),
        );
        for versions in [&[1, 2][..], &[4]] {
            caps.append_structure(
                gst::Structure::builder("video/mpeg")
                    .field("mpegversion", gst::List::new(versions.iter().copied()))
                    .field("systemstream", false)
                    .field("parsed", true)
                    .build(),
            );
        }
        caps.append_structure(gst::Structure::new_empty("video/x-h263"));
        caps.append_structure(gst::Structure::new_empty("image/jpeg"));
    }
    caps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_pads_caps_is_a_codec() {
        gst::init().unwrap();
        let caps = sink_caps();
        for coding in CODECS.map(|codec| codec.coding) {
            let found = caps.iter().any(|caps| {
                let mut caps = caps.to_owned();
                caps.fixate();
                of(&caps).is_some_and(|codec| codec.coding == coding)
            });
            assert!(found, "{coding:?}");
        }
        let mpeg =
            |version: i32| of(&gst::Structure::builder("video/mpeg").field("mpegversion", version).build());
        assert_eq!(mpeg(1), mpeg(2));
        assert_eq!(mpeg(3), None);
    }
}
