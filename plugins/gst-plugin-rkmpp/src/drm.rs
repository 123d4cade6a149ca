// SPDX-License-Identifier: MPL-2.0

//! Caps of dma-bufs that name their pixels as the kernel does: `format=DMA_DRM, drm-format=NV12`, which GStreamer has from
//! 1.24 on. Pixels lie in lines if there is no modifier behind the name. The one modifier that is known here is that of
//! pixels which the hardware compresses (AFBC): `drm-format=YU08:0x0800000000000041`.

pub(crate) use gst_encoder_glue::drm::known;
use gst_video::VideoInfo;

/// The format that stands in the place of GStreamer's own.
const DMA_DRM: &str = "DMA_DRM";

/// GStreamer's names (bytes in memory) and those of the kernel's `drm_fourcc.h` (bits of a little-endian word).
const NAMES: [(&str, &str); 20] = [
    ("NV12", "NV12"),
    ("I420", "YU12"),
    ("NV21", "NV21"),
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

/// `DRM_FORMAT_MOD_ARM_AFBC(AFBC_FORMAT_MOD_BLOCK_SIZE_16x16 | AFBC_FORMAT_MOD_SPARSE)`, behind a colon.
const AFBC: &str = ":0x0800000000000041";

/// A compressed format. All components lie in one plane: with `NV12`, whose two planes are two of AFBC's as well, the kernel
/// means something else (Documentation/gpu/afbc.rst).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compressed {
    /// GStreamer's name of the same samples in lines.
    pub gst: &'static str,
    /// The kernel's, with the modifier.
    pub name: &'static str,
    /// Bits of a pixel, by which the kernel reckons the stride.
    bits: u32,
}

/// Compressed formats that the hardware writes; it reads those of 8 bits.
const COMPRESSED: [Compressed; 4] = [
    Compressed { gst: "NV12", name: "YU08:0x0800000000000041", bits: 12 },
    Compressed { gst: "NV16", name: "YUYV:0x0800000000000041", bits: 16 },
    Compressed { gst: "NV12_10LE40", name: "YU10:0x0800000000000041", bits: 15 },
    Compressed { gst: "NV16_10LE40", name: "Y210:0x0800000000000041", bits: 32 },
];

impl Compressed {
    /// The compressed kin of a format of GStreamer's.
    pub fn of(gst: &str) -> Option<&'static Self> {
        COMPRESSED.iter().find(|compressed| compressed.gst == gst)
    }

    /// The stride in bytes that a row of headers of so many pixels has for the kernel.
    pub fn stride(&self, pixels: u32) -> usize {
        pixels as usize * self.bits as usize / 8
    }

    /// The pixels of a row of headers, of a stride in bytes. `None` if they are no whole blocks.
    pub fn pixels(&self, stride: i32) -> Option<u32> {
        let bits = u32::try_from(stride).ok()?.checked_mul(8)?;
        let pixels = bits / self.bits;
        (bits.is_multiple_of(self.bits) && pixels > 0 && pixels.is_multiple_of(16)).then_some(pixels)
    }

    /// Gives fixed caps this format.
    pub fn rename(&self, caps: &mut gst::CapsRef) {
        let Some(structure) = caps.structure_mut(0) else { return };
        structure.set("format", DMA_DRM);
        structure.set("drm-format", self.name);
    }
}

/// Whether caps are of compressed pixels.
pub(crate) fn compressed(caps: &gst::CapsRef) -> Option<&'static Compressed> {
    let structure = caps.structure(0).filter(|structure| structure.get::<&str>("format") == Ok(DMA_DRM))?;
    let name = structure.get::<&str>("drm-format").ok()?;
    COMPRESSED.iter().find(|compressed| compressed.name == name)
}

/// Caps without compressed pixels.
pub(crate) fn without_compressed(mut caps: gst::Caps) -> gst::Caps {
    let keep = |structure: &mut gst::StructureRef| {
        if let Ok(name) = structure.get::<&str>("drm-format") {
            return !name.ends_with(AFBC);
        }
        let Ok(list) = structure.get::<gst::List>("drm-format") else { return true };
        let names: Vec<_> = list.iter().filter_map(|name| name.get::<&str>().ok()).collect();
        let kept: Vec<_> = names.into_iter().filter(|name| !name.ends_with(AFBC)).collect();
        structure.set("drm-format", gst::List::new(kept.iter()));
        !kept.is_empty()
    };
    caps.make_mut().filter_map_in_place(|_, structure| {
        if keep(structure) { gst::CapsFilterMapAction::Keep } else { gst::CapsFilterMapAction::Remove }
    });
    caps
}

/// The kernel's name of a format of GStreamer's.
pub(crate) fn name(gst: &str) -> Option<&'static str> {
    NAMES.iter().find(|names| names.0 == gst).map(|names| names.1)
}

/// Caps with GStreamer's name of the format instead of the kernel's, and of compressed ones with that of the same samples in
/// lines. `None` if they have none of the kernel's that we know.
pub(crate) fn plain(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    if structure.get::<&str>("format") != Ok(DMA_DRM) {
        return None;
    }
    let drm = structure.get::<&str>("drm-format").ok()?;
    let gst = match NAMES.iter().find(|names| names.1 == drm) {
        Some((gst, _)) => gst,
        None => COMPRESSED.iter().find(|compressed| compressed.name == drm)?.gst,
    };
    let mut caps = caps.to_owned();
    let structure = caps.make_mut().structure_mut(0)?;
    structure.remove_field("drm-format");
    structure.set("format", gst);
    Some(caps)
}

/// What such caps say of the picture.
pub(crate) fn info(caps: &gst::CapsRef) -> Option<VideoInfo> {
    VideoInfo::from_caps(plain(caps)?.as_ref()).ok()
}

/// The same fields with the kernel's names of these formats, in place of GStreamer's, and the names of their `compressed` kin.
pub(crate) fn template<'a>(
    structure: &gst::StructureRef,
    formats: impl Iterator<Item = &'a str>,
    compressed: &[&str],
) -> gst::Structure {
    let compressed =
        compressed.iter().filter_map(|gst| Compressed::of(gst)).map(|compressed| compressed.name);
    let mut structure = structure.to_owned();
    structure.set("format", DMA_DRM);
    structure.set("drm-format", gst::List::new(formats.filter_map(name).chain(compressed)));
    structure
}

/// Gives fixed caps the kernel's name of their format.
pub(crate) fn rename(caps: &mut gst::CapsRef) {
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
    fn other_modifiers_are_none_of_ours() {
        gst::init().unwrap();
        for drm in ["NV12:0x0800000000000041", "YU08", "YU08:0x0800000000000051", "P010"] {
            let caps: gst::Caps = format!(
                "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=(string){drm},width=320,height=240"
            )
            .parse()
            .unwrap();
            assert_eq!(plain(&caps), None, "{drm}");
        }
    }

    fn caps(drm: &str) -> gst::Caps {
        format!(
            "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format={drm},width=320,height=240,framerate=30/1"
        )
        .parse()
        .unwrap()
    }

    #[test]
    fn compressed_formats_have_kin_in_lines() {
        gst::init().unwrap();
        for of in COMPRESSED {
            assert!(of.name.ends_with(AFBC));
            let named = caps(&format!("(string){}", of.name));
            assert_eq!(compressed(&named).unwrap().gst, of.gst);
            let plain = plain(&named).unwrap();
            assert_eq!(plain.structure(0).unwrap().get("format"), Ok(of.gst));
            assert!(compressed(&plain).is_none());
            let mut renamed = plain.clone();
            of.rename(renamed.make_mut());
            assert_eq!(renamed, named);
        }
        assert!(compressed(&caps("(string)NV12")).is_none());
        assert!(Compressed::of("I420").is_none());
    }

    #[test]
    fn strides_are_those_of_whole_pixels() {
        let of = |gst| Compressed::of(gst).unwrap();
        assert_eq!((of("NV12").stride(640), of("NV12_10LE40").stride(640)), (960, 1200));
        assert_eq!((of("NV16").stride(640), of("NV16_10LE40").stride(640)), (1280, 2560));
        assert_eq!((of("NV12").pixels(960), of("NV12_10LE40").pixels(1200)), (Some(640), Some(640)));
        for nonsense in [0, -960, 961, 12, i32::MAX] {
            assert_eq!(of("NV12").pixels(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn compressed_formats_can_be_taken_out() {
        gst::init().unwrap();
        let mixed = caps("(string){NV12, YU08:0x0800000000000041, I420}");
        assert_eq!(without_compressed(mixed), caps("(string){NV12, I420}"));
        assert!(
            without_compressed(caps("(string){YU08:0x0800000000000041, YUYV:0x0800000000000041}")).is_empty()
        );
        assert!(without_compressed(caps("(string)YU08:0x0800000000000041")).is_empty());
        let others: gst::Caps = "video/x-raw,format=NV12".parse().unwrap();
        assert_eq!(without_compressed(others.clone()), others);
    }
}
