// SPDX-License-Identifier: MIT OR Apache-2.0

//! A camera's pipeline: source, encoder if the camera makes no JPEG of the wanted size, payloader, sink.

use gst::prelude::*;

use crate::config::{Camera, Source};

/// Encoders, the best one first.
const ENCODERS: [&str; 2] = ["v4l2jpegenc", "jpegenc"];

/// What continues from one pipeline of a camera to the next: receivers see one stream.
#[derive(Clone, Copy, Debug)]
pub struct Continuation {
    /// RTP timestamp of running time 0.
    pub timestamp_offset: u32,
    /// First sequence number.
    pub sequence: u16,
}

/// A pipeline that is ready to play.
#[derive(Debug)]
pub struct CameraPipeline {
    /// In READY, with its device open.
    pub pipeline: gst::Pipeline,
    /// The payloader.
    pub pay: gst::Element,
    /// The sink.
    pub sink: gst::Element,
    /// The encoder, if one is needed.
    pub encoder: Option<gst::Element>,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

/// What to make of the source's pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Input {
    /// They are JPEG already; these caps choose the right ones.
    PassThrough(gst::Caps),
    /// They are raw, chosen by these caps.
    Raw(gst::Caps),
    /// They are JPEG of another size.
    Recode,
}

/// Makes the elements and opens the device.
///
/// `avoid` names encoders that have failed before.
///
/// # Errors
/// What is missing or wrong, in words. Errors of elements are on the pipeline's bus, which `watch` gets before anything happens.
pub fn build(
    camera: &Camera,
    continuation: Continuation,
    avoid: &[String],
    watch: impl FnOnce(&gst::Bus),
) -> Result<CameraPipeline, String> {
    let pipeline = gst::Pipeline::new();
    watch(&pipeline.bus().ok_or("a pipeline without a bus")?);
    fill(&pipeline, camera, continuation, avoid).inspect_err(|_| {
        // The source may be open.
        let _ = pipeline.set_state(gst::State::Null);
    })
}

fn fill(
    pipeline: &gst::Pipeline,
    camera: &Camera,
    continuation: Continuation,
    avoid: &[String],
) -> Result<CameraPipeline, String> {
    let source = source(camera)?;
    add(pipeline, &source)?;
    source.set_state(gst::State::Ready).map_err(|_| format!("{} cannot be opened", camera.source))?;
    let caps = source.static_pad("src").ok_or("the source has no output")?.query_caps(None);
    let (input, mut notes) = choose(&caps, camera)?;
    let mut chain = vec![source];
    let mut encoder = None;
    match input {
        Input::PassThrough(caps) => chain.push(filter(&caps)?),
        Input::Raw(caps) => {
            chain.push(filter(&caps)?);
            encoder = Some(encode(camera, avoid, &mut chain, &mut notes)?);
        }
        Input::Recode => {
            chain.push(make("jpegdec")?);
            encoder = Some(encode(camera, avoid, &mut chain, &mut notes)?);
        }
    }
    let pay = gst::ElementFactory::make("rtpjpegpay-rs")
        .property("pt", u32::from(camera.pt))
        .property("ssrc", camera.ssrc)
        .property("mtu", u32::from(camera.mtu))
        .property("timestamp-offset", continuation.timestamp_offset)
        .property("seqnum-offset", i32::from(continuation.sequence))
        .build()
        .map_err(|error| error.to_string())?;
    let sink = gst::ElementFactory::make("rtpudpsink-rs")
        .property("host", &camera.dest_host)
        .property("port", i32::from(camera.dest_port))
        .property("qos-dscp", camera.dscp.map_or(-1, i32::from))
        .property("ttl-mc", u32::from(camera.multicast_ttl))
        .property("max-pacing-rate", camera.pacing)
        .build()
        .map_err(|error| error.to_string())?;
    chain.extend([pay.clone(), sink.clone()]);
    for element in chain.iter().skip(1) {
        add(pipeline, element)?;
    }
    gst::Element::link_many(&chain)
        .map_err(|_| format!("{} does not give what its caps promised: {caps}", camera.source))?;
    Ok(CameraPipeline { pipeline: pipeline.clone(), pay, sink, encoder, notes })
}

/// The element, or bin, that pictures come from.
fn source(camera: &Camera) -> Result<gst::Element, String> {
    match &camera.source {
        Source::Test(pattern) => {
            let source = make("videotestsrc")?;
            source.set_property("is-live", true);
            let pattern = pattern.as_deref().unwrap_or("ball");
            let known = source.find_property("pattern").and_then(|property| {
                gst::glib::EnumClass::with_type(property.value_type())?.value_by_nick(pattern).map(|_| ())
            });
            known.ok_or_else(|| {
                format!("videotestsrc has no pattern '{pattern}'; gst-inspect-1.0 videotestsrc lists them")
            })?;
            source.set_property_from_str("pattern", pattern);
            // The ball is where the wall clock wants it: two views show whether they are aligned.
            source.set_property_from_str("animation-mode", "wall-time");
            if pattern != "ball" {
                source.set_property("horizontal-speed", 4i32);
            }
            Ok(source)
        }
        Source::V4l2(device) => {
            let source = make("v4l2src")?;
            source.set_property("device", device.to_string_lossy().as_ref());
            // For cameras that make JPEG; a control that a camera lacks is left alone.
            source.set_property("extra-controls", controls(camera));
            Ok(source)
        }
        Source::Libcamera(name) => {
            let source = make("libcamerasrc")?;
            if let Some(name) = name {
                source.set_property("camera-name", name);
            }
            Ok(source)
        }
        Source::Pipeline(text) => {
            let bin = custom(text).map_err(|error| format!("pipeline: {error}"))?;
            Ok(bin.upcast())
        }
    }
}

/// The bin of a text whose end may be caps. Those become an element of their own, so that they are known before a demuxer
/// in front of them has an output.
fn custom(text: &str) -> Result<gst::Bin, String> {
    let end = text.rsplit_once('!').and_then(|(elements, end)| {
        let caps = end.trim().parse::<gst::Caps>().ok().filter(|_| end.contains('/'))?;
        Some((elements, caps))
    });
    // Only the output becomes the bin's: an input that a demuxer will be linked to is open at first, too.
    let parse = |text: &str| gst::parse::bin_from_description(text, false).map_err(|error| error.to_string());
    let bin = match end {
        None => parse(text)?,
        Some((elements, caps)) => {
            let bin = parse(&format!("{elements} ! capsfilter name=end-of-pipeline"))?;
            if let Some(filter) = bin.by_name("end-of-pipeline") {
                filter.set_property("caps", caps);
            }
            bin
        }
    };
    let open = "needs an open end, which gives image/jpeg or video/x-raw";
    let end = bin.find_unlinked_pad(gst::PadDirection::Src).ok_or(open)?;
    let ghost =
        gst::GhostPad::builder_with_target(&end).map_err(|error| error.to_string())?.name("src").build();
    bin.add_pad(&ghost).map_err(|error| error.to_string())?;
    if bin.find_unlinked_pad(gst::PadDirection::Src).is_some() {
        return Err(format!("{open}, and only one"));
    }
    Ok(bin)
}

/// V4L2 controls of JPEG (V4L2_CID_JPEG_…), as GStreamer names them.
fn controls(camera: &Camera) -> gst::Structure {
    let mut controls =
        gst::Structure::builder("controls").field("compression_quality", i32::from(camera.quality));
    if camera.restart_interval > 0 {
        controls = controls.field("restart_interval", i32::from(camera.restart_interval));
    }
    controls.build()
}

/// Decides how the source's pictures are used, from the caps that it offers.
fn choose(caps: &gst::Caps, camera: &Camera) -> Result<(Input, Vec<String>), String> {
    let (width, height) = (i32::from(camera.width), i32::from(camera.height));
    let rate = gst::Fraction::new(camera.fps.into(), 1);
    let sized = |media: &str| gst::Caps::builder(media).field("width", width).field("height", height).build();
    let timed = |media: &str| {
        gst::Caps::builder(media)
            .field("width", width)
            .field("height", height)
            .field("framerate", rate)
            .build()
    };
    let plain = gst::Caps::new_empty_simple;
    let offers = |wanted: &gst::Caps| caps.can_intersect(wanted);
    let (jpeg, raw) = ("image/jpeg", "video/x-raw");
    let size = format!("{width} x {height}");
    let mut notes = Vec::new();
    let input = match &camera.source {
        Source::Pipeline(_) => {
            notes.push("fps is what receivers are told; the pipeline makes its own".to_owned());
            // Whoever writes a pipeline has chosen. ANY intersects with both, and says nothing.
            if caps.is_any() || (offers(&plain(jpeg)) && offers(&plain(raw))) {
                return Err(
                    "pipeline: cannot tell what it gives; end it with ! image/jpeg or ! video/x-raw".into()
                );
            }
            if offers(&plain(jpeg)) { Input::PassThrough(plain(jpeg)) } else { Input::Raw(plain(raw)) }
        }
        // Its caps promise JPEG for every camera; those that have it are better used through V4L2.
        Source::Libcamera(_) => Input::Raw(timed(raw)),
        Source::V4l2(_) | Source::Test(_) => {
            if offers(&timed(jpeg)) {
                Input::PassThrough(timed(jpeg))
            } else if offers(&sized(jpeg)) {
                notes.push(format!(
                    "it has no JPEG of {size} with fps = {}; its own rate is used",
                    camera.fps
                ));
                Input::PassThrough(sized(jpeg))
            } else if offers(&timed(raw)) {
                Input::Raw(timed(raw))
            } else if offers(&sized(raw)) {
                notes.push(format!("it has no {size} with fps = {}; its own rate is used", camera.fps));
                Input::Raw(sized(raw))
            } else if offers(&plain(jpeg)) {
                notes.push(format!("it has no {size}; its JPEG is decoded, scaled and encoded again"));
                Input::Recode
            } else {
                notes.push(format!("it has no {size}; its pictures are scaled"));
                Input::Raw(plain(raw))
            }
        }
    };
    if !matches!(input, Input::PassThrough(_)) && !offers(&plain(raw)) && !offers(&plain(jpeg)) {
        return Err(format!("{} gives neither image/jpeg nor video/x-raw, but {caps}", camera.source));
    }
    if let Input::PassThrough(_) = input {
        notes.push(match camera.source {
            Source::V4l2(_) => format!(
                "the camera makes JPEG itself and is passed through: quality = {} has an influence only if it has the control \
                 compression_quality (v4l2-ctl -L lists them)",
                camera.quality
            ),
            _ => format!("JPEG is passed through: quality = {} has no influence", camera.quality),
        });
        if camera.restart_interval > 0 {
            notes.push(format!(
                "JPEG is passed through: restart_interval = {} has an influence only if the camera has such a control",
                camera.restart_interval
            ));
        }
    }
    Ok((input, notes))
}

/// Appends what makes JPEG of raw pictures of any size.
fn encode(
    camera: &Camera,
    avoid: &[String],
    chain: &mut Vec<gst::Element>,
    notes: &mut Vec<String>,
) -> Result<gst::Element, String> {
    let name = encoder(|name| gst::ElementFactory::find(name).is_some(), avoid).ok_or(
        "there is no JPEG encoder; install GStreamer's good plugins (Debian: gstreamer1.0-plugins-good)",
    )?;
    let encoder = make(name)?;
    let hardware = name != "jpegenc";
    if hardware {
        encoder.set_property("extra-controls", controls(camera));
    } else {
        encoder.set_property("quality", i32::from(camera.quality));
        if camera.restart_interval > 0 {
            notes.push(format!(
                "jpegenc has no restart markers: restart_interval = {} has no influence",
                camera.restart_interval
            ));
        }
    }
    notes.push(format!("encodes with {name}, quality {}", camera.quality));
    // 4:2:0: what RFC 2435 can carry, with the fewest bits.
    let formats =
        if hardware { gst::List::new(["I420", "NV12"]).to_send_value() } else { "I420".to_send_value() };
    let raw = gst::Caps::builder("video/x-raw")
        .field("format", formats)
        .field("width", i32::from(camera.width))
        .field("height", i32::from(camera.height))
        .build();
    chain.extend([make("videoconvert")?, make("videoscale")?, filter(&raw)?, encoder.clone()]);
    Ok(encoder)
}

/// The best encoder that is there and has not failed; the last one is tried again and again.
fn encoder(there: impl Fn(&str) -> bool, avoid: &[String]) -> Option<&'static str> {
    let all: Vec<_> = ENCODERS.into_iter().filter(|name| there(name)).collect();
    all.iter().find(|name| !avoid.iter().any(|failed| failed == *name)).or(all.last()).copied()
}

fn make(factory: &str) -> Result<gst::Element, String> {
    gst::ElementFactory::make(factory).build().map_err(|_| {
        let package = match factory {
            "libcamerasrc" => "gstreamer1.0-libcamera",
            "v4l2src" | "jpegdec" | "jpegenc" => "gstreamer1.0-plugins-good",
            _ => "gstreamer1.0-plugins-base",
        };
        format!("GStreamer's element {factory} is missing (Debian: {package})")
    })
}

fn filter(caps: &gst::Caps) -> Result<gst::Element, String> {
    let filter = make("capsfilter")?;
    filter.set_property("caps", caps);
    Ok(filter)
}

fn add(pipeline: &gst::Pipeline, element: &gst::Element) -> Result<(), String> {
    pipeline.add(element).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn camera(source: Source) -> Camera {
        gst::init().unwrap();
        Camera {
            source,
            width: 1920,
            height: 1080,
            fps: 30,
            ..Config::demo().cameras.remove("camera1").unwrap()
        }
    }

    fn chosen(source: Source, caps: &str) -> (Input, String) {
        let camera = camera(source);
        let (input, notes) = choose(&caps.parse().unwrap(), &camera).unwrap();
        (input, notes.join("; "))
    }

    fn usb() -> Source {
        Source::V4l2("/dev/video0".into())
    }

    fn caps(text: &str) -> gst::Caps {
        text.parse().unwrap()
    }

    const JPEG: &str = "image/jpeg,width=1920,height=1080,framerate={30/1,15/1}";
    const RAW: &str = "video/x-raw,format=YUY2,width=1920,height=1080,framerate=5/1";

    #[test]
    fn the_cameras_own_jpeg_is_passed_through() {
        let (input, notes) = chosen(usb(), &format!("{RAW};{JPEG}"));
        assert_eq!(input, Input::PassThrough(caps("image/jpeg,width=1920,height=1080,framerate=30/1")));
        assert!(notes.contains("quality = 85 has an influence only if"), "{notes}");
        // Another rate is better than encoding.
        let (input, notes) = chosen(usb(), "image/jpeg,width=1920,height=1080,framerate=25/1");
        assert_eq!(input, Input::PassThrough(caps("image/jpeg,width=1920,height=1080")));
        assert!(notes.contains("its own rate is used"), "{notes}");
    }

    #[test]
    fn otherwise_it_is_encoded() {
        let raw = "video/x-raw,format=YUY2,width=1920,height=1080,framerate=30/1";
        let small = "image/jpeg,width=640,height=480,framerate=30/1";
        assert_eq!(
            chosen(usb(), &format!("{small};{raw}")).0,
            Input::Raw(caps("video/x-raw,width=1920,height=1080,framerate=30/1"))
        );
        assert_eq!(chosen(usb(), RAW).0, Input::Raw(caps("video/x-raw,width=1920,height=1080")));
        assert_eq!(chosen(usb(), small).0, Input::Recode);
        assert_eq!(chosen(usb(), "video/x-raw,width=640,height=480").0, Input::Raw(caps("video/x-raw")));
        assert!(choose(&caps("video/x-h264"), &camera(usb())).is_err());
    }

    #[test]
    fn a_pipeline_says_what_it_gives() {
        let pipeline = || Source::Pipeline("x".into());
        let (input, notes) = chosen(pipeline(), "image/jpeg,width=320");
        assert_eq!(input, Input::PassThrough(caps("image/jpeg")));
        assert!(notes.contains("quality = 85 has no influence"), "{notes}");
        assert_eq!(chosen(pipeline(), "video/x-raw,format=NV12").0, Input::Raw(caps("video/x-raw")));
        for unclear in ["ANY", "image/jpeg;video/x-raw"] {
            assert!(choose(&caps(unclear), &camera(pipeline())).unwrap_err().contains("cannot tell"));
        }
        assert!(choose(&caps("audio/x-raw"), &camera(pipeline())).unwrap_err().contains("neither"));
    }

    #[test]
    fn caps_at_the_end_are_known_before_anything_flows() {
        gst::init().unwrap();
        for (text, expected) in [
            ("fakesrc ! multipartdemux ! image/jpeg,width=320", "image/jpeg,width=320"),
            ("fakesrc ! multipartdemux ! capsfilter caps=image/jpeg", "image/jpeg"),
            (
                "videotestsrc ! video/x-raw,format=I420,width=16,height=16,framerate=5/1",
                "video/x-raw,format=I420",
            ),
            ("videotestsrc ! jpegenc", "image/jpeg"),
        ] {
            let bin = custom(text).unwrap();
            let caps = bin.static_pad("src").unwrap().query_caps(None);
            assert!(!caps.is_any() && caps.can_intersect(&self::caps(expected)), "{text}: {caps}");
        }
    }

    #[test]
    fn libcamera_gives_raw_pictures() {
        assert!(matches!(chosen(Source::Libcamera(None), "video/x-raw;image/jpeg").0, Input::Raw(_)));
    }

    #[test]
    fn encoders_that_failed_are_avoided() {
        let both = |_: &str| true;
        assert_eq!(encoder(both, &[]), Some("v4l2jpegenc"));
        assert_eq!(encoder(both, &["v4l2jpegenc".into()]), Some("jpegenc"));
        assert_eq!(encoder(|name| name == "jpegenc", &["jpegenc".into()]), Some("jpegenc"));
        assert_eq!(encoder(|_| false, &[]), None);
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        gst::init().unwrap();
        let continuation = Continuation { timestamp_offset: 0, sequence: 0 };
        for (source, text) in [
            (Source::Pipeline("nonsense ! x".into()), "nonsense"),
            (Source::Pipeline("fakesrc ! fakesink".into()), "needs an open end"),
            (Source::Pipeline("tee name=t ! fakesink t. ! identity".into()), "cannot tell what it gives"),
            (Source::Pipeline("fakesrc ! identity fakesrc ! identity".into()), "and only one"),
            (Source::Test(Some("nonsense".into())), "no pattern 'nonsense'"),
            (Source::V4l2("/dev/none".into()), "/dev/none cannot be opened"),
        ] {
            let error = build(&camera(source), continuation, &[], |_| {}).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
