// SPDX-License-Identifier: MIT OR Apache-2.0

//! Caps of dma-bufs that name their pixels as the kernel does: `format=DMA_DRM, drm-format=NV12`, which GStreamer has from
//! 1.24 on. Only such whose pixels lie in lines, that is without a modifier behind the name.

use gst_video::VideoInfo;

/// The format that stands in the place of GStreamer's own.
const DMA_DRM: &str = "DMA_DRM";

/// GStreamer's names (bytes in memory) and those of the kernel's `drm_fourcc.h` (bits of a little-endian word).
const NAMES: [(&str, &str); 22] = [
    ("NV12", "NV12"),
    ("I420", "YU12"),
    ("NV21", "NV21"),
    ("YV12", "YV12"),
    ("P010_10LE", "P010"),
    ("YUY2", "YUYV"),
    ("UYVY", "UYVY"),
    ("YVYU", "YVYU"),
    ("VYUY", "VYUY"),
    ("NV16", "NV16"),
    ("NV61", "NV61"),
    ("Y42B", "YU16"),
    ("NV24", "NV24"),
    ("Y444", "YU24"),
    ("BGRA", "AR24"),
    ("RGBA", "AB24"),
    ("ARGB", "BA24"),
    ("ABGR", "RA24"),
    ("RGB", "BG24"),
    ("BGR", "RG24"),
    ("NV12_10LE40", "NV15"),
    ("NV16_10LE40", "NV20"),
];

/// Whether this GStreamer has such caps.
#[must_use]
pub fn known() -> bool {
    let (major, minor, ..) = gst::version();
    (major, minor) >= (1, 24)
}

/// The kernel's name of a format of GStreamer's.
#[must_use]
pub fn name(gst: &str) -> Option<&'static str> {
    NAMES.iter().find(|names| names.0 == gst).map(|names| names.1)
}

/// Caps with GStreamer's name of the format instead of the kernel's. `None` if they have none of the kernel's that we know.
#[must_use]
pub fn plain(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    if structure.get::<&str>("format") != Ok(DMA_DRM) {
        return None;
    }
    let drm = structure.get::<&str>("drm-format").ok()?;
    let (gst, _) = NAMES.iter().find(|names| names.1 == drm)?;
    let mut caps = caps.to_owned();
    let structure = caps.make_mut().structure_mut(0)?;
    structure.remove_field("drm-format");
    structure.set("format", *gst);
    Some(caps)
}

/// What such caps say of the picture.
#[must_use]
pub fn info(caps: &gst::CapsRef) -> Option<VideoInfo> {
    VideoInfo::from_caps(plain(caps)?.as_ref()).ok()
}

/// The same fields with the kernel's names of these formats, in place of GStreamer's.
#[must_use]
pub fn template<'a>(structure: &gst::StructureRef, formats: impl Iterator<Item = &'a str>) -> gst::Structure {
    let mut structure = structure.to_owned();
    structure.set("format", DMA_DRM);
    structure.set("drm-format", gst::List::new(formats.filter_map(name)));
    structure
}

/// Gives fixed caps the kernel's name of their format.
pub fn rename(caps: &mut gst::CapsRef) {
    let Some(structure) = caps.structure_mut(0) else { return };
    let Some(drm) = structure.get::<&str>("format").ok().and_then(name) else { return };
    structure.set("format", DMA_DRM);
    structure.set("drm-format", drm);
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst_video::VideoFormat;

    #[test]
    fn names_there_and_back() {
        gst::init().unwrap();
        for (gst, drm) in NAMES {
            if VideoFormat::from_string(gst) == VideoFormat::Unknown {
                continue;
            }
            let caps = format!("video/x-raw(memory:DMABuf),format={gst},width=320,height=240,framerate=30/1");
            let caps: gst::Caps = caps.parse().unwrap();
            let mut renamed = caps.clone();
            rename(renamed.make_mut());
            let structure = renamed.structure(0).unwrap();
            assert_eq!((structure.get("format"), structure.get("drm-format")), (Ok(DMA_DRM), Ok(drm)));
            assert_eq!(plain(&renamed), Some(caps.clone()));
            assert_eq!(info(&renamed).unwrap().format(), VideoFormat::from_string(gst));
            // Those are no such caps.
            assert_eq!(plain(&caps), None);
        }
    }

    #[test]
    fn bytes_of_a_word_are_in_the_other_order() {
        // ARGB8888: blue has the lowest bits, and is the first byte.
        assert_eq!((name("BGRA"), name("BGR"), name("RGB")), (Some("AR24"), Some("RG24"), Some("BG24")));
        assert_eq!(name("GRAY8"), None);
    }

    #[test]
    fn what_does_not_lie_in_lines_is_none_of_ours() {
        gst::init().unwrap();
        for drm in ["NV12:0x0800000000000041", "YU08:0x0800000000000041", "P012"] {
            let caps: gst::Caps = format!(
                "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=(string){drm},width=320,height=240"
            )
            .parse()
            .unwrap();
            assert_eq!(plain(&caps), None, "{drm}");
        }
    }
}
