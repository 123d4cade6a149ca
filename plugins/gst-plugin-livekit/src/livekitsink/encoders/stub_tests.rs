// SPDX-License-Identifier: MPL-2.0

//! Every row of the table against a stand-in: an element of the encoder's name that has the encoder's properties,
//! with their names, types, ranges and defaults, and encodes nothing.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, Once};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::*;

/// A number property: its name, range and default.
enum Spec {
    UInt(&'static str, u32, u32, u32),
    Int(&'static str, i32, i32, i32),
    Controls,
}

impl Spec {
    fn build(&self) -> glib::ParamSpec {
        match *self {
            Self::UInt(name, minimum, maximum, default) => glib::ParamSpecUInt::builder(name)
                .minimum(minimum)
                .maximum(maximum)
                .default_value(default)
                .build(),
            Self::Int(name, minimum, maximum, default) => glib::ParamSpecInt::builder(name)
                .minimum(minimum)
                .maximum(maximum)
                .default_value(default)
                .build(),
            Self::Controls => glib::ParamSpecBoxed::builder::<gst::Structure>("extra-controls").build(),
        }
    }
}

/// A value that may go from thread to thread.
enum Stored {
    UInt(u32),
    Int(i32),
    Controls(Option<gst::Structure>),
}

impl Stored {
    fn of(value: &glib::Value) -> Self {
        match (value.get(), value.get()) {
            (Ok(number), _) => Self::UInt(number),
            (_, Ok(number)) => Self::Int(number),
            _ => Self::Controls(value.get().unwrap()),
        }
    }

    fn value(&self) -> glib::Value {
        match self {
            Self::UInt(number) => number.to_value(),
            Self::Int(number) => number.to_value(),
            Self::Controls(controls) => controls.to_value(),
        }
    }
}

macro_rules! stub {
    ($module:ident, $type_name:literal, [$($spec:expr),* $(,)?]) => {
        mod $module {
            use super::*;

            #[derive(Default)]
            pub struct Stub(Mutex<HashMap<String, Stored>>);

            static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| vec![$($spec.build()),*]);

            #[glib::object_subclass]
            impl ObjectSubclass for Stub {
                const NAME: &'static str = $type_name;
                type Type = super::$module::Element;
                type ParentType = gst::Element;
            }

            impl ObjectImpl for Stub {
                fn properties() -> &'static [glib::ParamSpec] {
                    PROPERTIES.as_ref()
                }

                fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
                    self.0.lock().unwrap().insert(pspec.name().into(), Stored::of(value));
                }

                fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
                    let known = self.0.lock().unwrap();
                    known.get(pspec.name()).map_or_else(|| pspec.default_value().clone(), Stored::value)
                }
            }

            impl GstObjectImpl for Stub {}

            impl ElementImpl for Stub {
                fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                    static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                        gst::subclass::ElementMetadata::new("Stub", "Codec/Encoder/Video", "For tests", "Nobody")
                    });
                    Some(&*METADATA)
                }
            }

            glib::wrapper! {
                pub struct Element(ObjectSubclass<Stub>) @extends gst::Element, gst::Object;
            }
        }
    };
}

const MAX: u32 = u32::MAX;

stub!(own, "LiveKitStubOwn", [Spec::UInt("bitrate", 0, MAX, 0)]);
stub!(
    mpp,
    "LiveKitStubMpp",
    [Spec::UInt("bps", 0, MAX, 0), Spec::UInt("bps-min", 0, MAX, 0), Spec::UInt("bps-max", 0, MAX, 0)]
);
stub!(
    nvv4l2,
    "LiveKitStubNvV4l2",
    [Spec::UInt("bitrate", 0, MAX, 4_000_000), Spec::UInt("peak-bitrate", 0, MAX, 0)]
);
stub!(v4l2, "LiveKitStubV4l2", [Spec::Controls]);
stub!(v4l2new, "LiveKitStubV4l2New", [Spec::Controls, Spec::UInt("bitrate", 0, MAX, 0)]);
stub!(
    nv,
    "LiveKitStubNv",
    [Spec::UInt("bitrate", 0, 2_097_152, 0), Spec::UInt("max-bitrate", 0, 2_097_152, 0)]
);
stub!(
    va,
    "LiveKitStubVa",
    [
        Spec::UInt("bitrate", 0, 2_048_000, 0),
        Spec::UInt("cpb-size", 0, 2_048_000, 0),
        Spec::UInt("target-percentage", 50, 100, 66)
    ]
);
stub!(
    qsv,
    "LiveKitStubQsv",
    [Spec::UInt("bitrate", 0, 65_535, 2000), Spec::UInt("max-bitrate", 0, 65_535, 0)]
);
stub!(
    msdk,
    "LiveKitStubMsdk",
    [Spec::UInt("bitrate", 0, 2_048_000, 2048), Spec::UInt("max-vbv-bitrate", 0, 2_048_000, 0)]
);
stub!(
    amf,
    "LiveKitStubAmf",
    [Spec::UInt("bitrate", 0, 2_147_483, 0), Spec::UInt("max-bitrate", 0, 2_147_483, 0)]
);
stub!(vt, "LiveKitStubVt", [Spec::UInt("bitrate", 0, MAX, 0)]);
stub!(
    mf,
    "LiveKitStubMf",
    [Spec::UInt("bitrate", 1, 4_194_303, 2048), Spec::UInt("max-bitrate", 0, 4_194_303, 0)]
);
stub!(omx, "LiveKitStubOmx", [Spec::UInt("target-bitrate", 0, MAX, MAX)]);
stub!(
    zynq,
    "LiveKitStubZynq",
    [Spec::UInt("target-bitrate", 0, MAX, MAX), Spec::UInt("cpb-size", 0, MAX, 3000)]
);
stub!(
    svtav1,
    "LiveKitStubSvtAv1",
    [Spec::UInt("target-bitrate", 0, 100_000, 0), Spec::UInt("maximum-bitrate", 0, 100_000, 0)]
);
stub!(rav1, "LiveKitStubRav1", [Spec::Int("bitrate", 0, i32::MAX, 0)]);
stub!(qti, "LiveKitStubQti", [Spec::UInt("target-bitrate", 0, MAX, 0)]);
stub!(imx, "LiveKitStubImx", [Spec::UInt("bitrate", 0, MAX, 256)]);
stub!(wrong, "LiveKitStubWrong", [Spec::Controls]);

/// Makes the stand-ins known under the encoders' names.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        let all: &[(&[&str], glib::Type)] = &[
            (&["rkmppenc", "jetsonv4l2enc", "v4l2m2menc"], own::Element::static_type()),
            (&["mpph264enc", "mpph265enc", "mppvp8enc"], mpp::Element::static_type()),
            (&["nvv4l2h264enc", "nvv4l2h265enc", "nvv4l2av1enc"], nvv4l2::Element::static_type()),
            (&["v4l2h264enc", "v4l2video11h264enc", "v4l2vp8enc"], v4l2::Element::static_type()),
            (&["v4l2h265enc"], v4l2new::Element::static_type()),
            (
                &[
                    "nvh264enc",
                    "nvh265enc",
                    "nvav1enc",
                    "nvh264device1enc",
                    "nvcudah264enc",
                    "nvautogpuh265enc",
                ],
                nv::Element::static_type(),
            ),
            (&["vah264enc", "vah265enc", "vaav1enc", "vah264lpenc"], va::Element::static_type()),
            (&["vaapih264enc", "vtenc_h265"], vt::Element::static_type()),
            (&["vtenc_h264", "vtenc_h264_hw"], vt::Element::static_type()),
            (&["qsvh264enc", "qsvh265enc", "qsvav1enc"], qsv::Element::static_type()),
            (&["msdkh264enc"], msdk::Element::static_type()),
            (&["amfh264enc", "amfh265enc", "amfav1enc"], amf::Element::static_type()),
            (&["mfh264enc", "mfh265enc"], mf::Element::static_type()),
            (&["omxh264enc"], omx::Element::static_type()),
            (&["omxh265enc"], zynq::Element::static_type()),
            (&["svtav1enc"], svtav1::Element::static_type()),
            (&["rav1enc"], rav1::Element::static_type()),
            (&["qtic2venc"], qti::Element::static_type()),
            (&["imxvpuenc_h264"], imx::Element::static_type()),
            // A name of the table with none of its properties.
            (&["vah264renamedenc"], wrong::Element::static_type()),
        ];
        for (names, kind) in all {
            for name in *names {
                gst::Element::register(None, name, gst::Rank::NONE, *kind).unwrap();
            }
        }
    });
}

fn make(name: &str) -> FoundEncoder {
    register();
    let element = gst::ElementFactory::make(name).build().unwrap();
    FoundEncoder { family: table::family(name), element, shared_at: None }
}

fn to(bitrate: u32) -> Wish {
    Wish { bitrate: Some(bitrate), active: true, ..Wish::default() }
}

fn number(found: &FoundEncoder, name: &str) -> i64 {
    found.element.property_value(name).transform::<i64>().unwrap().get().unwrap()
}

fn set(found: &FoundEncoder, name: &str, value: u32) {
    let kind = found.element.find_property(name).unwrap().value_type();
    found.element.set_property_from_value(name, &value.to_value().transform_with_type(kind).unwrap());
}

#[test]
fn each_property_gets_the_bitrate_in_its_own_unit_and_is_given_back() {
    for (names, property, per_unit) in [
        (&["mpph264enc", "mpph265enc", "mppvp8enc"][..], "bps", 1),
        (&["nvv4l2h264enc", "nvv4l2h265enc", "nvv4l2av1enc"], "bitrate", 1),
        (&["v4l2h265enc"], "bitrate", 1),
        (
            &["nvh264enc", "nvh265enc", "nvav1enc", "nvh264device1enc", "nvcudah264enc", "nvautogpuh265enc"],
            "bitrate",
            1000,
        ),
        (&["vah264enc", "vah265enc", "vaav1enc", "vah264lpenc", "vaapih264enc"], "bitrate", 1000),
        (&["vtenc_h264", "vtenc_h264_hw", "vtenc_h265"], "bitrate", 1000),
        (&["qsvh264enc", "qsvh265enc", "qsvav1enc"], "bitrate", 1000),
        (&["msdkh264enc", "amfh264enc", "amfh265enc", "amfav1enc"], "bitrate", 1000),
        (&["mfh264enc", "mfh265enc"], "bitrate", 1000),
        (&["omxh264enc"], "target-bitrate", 1),
        (&["omxh265enc"], "target-bitrate", 1000),
        (&["svtav1enc"], "target-bitrate", 1000),
        (&["rav1enc"], "bitrate", 1),
        (&["qtic2venc"], "target-bitrate", 1),
        (&["imxvpuenc_h264"], "bitrate", 1000),
    ] {
        for name in names {
            let found = make(name);
            let default = number(&found, property);
            // Without a setting of the user's there is no ceiling, and no ratio.
            let own = (default != 0 && default != i64::from(MAX)).then_some(default as u64 * per_unit);
            let hold = Hold::new(&found);
            assert_eq!(hold.own_bitrate(), own, "{name}");
            let wide = Wish { max: 3_000_000, ..to(2_345_678) };
            assert_eq!(hold.wish(wide), Applied::Set(2_345_678 / per_unit * per_unit), "{name}");
            assert_eq!(number(&found, property), 2_345_678 / per_unit as i64, "{name}");
            drop(hold);
            assert_eq!(number(&found, property), default, "{name}: as it was");

            set(&found, property, 4_000_000 / per_unit as u32);
            let hold = Hold::new(&found);
            assert_eq!(hold.own_bitrate(), Some(4_000_000), "{name}");
            assert_eq!(hold.wish(to(9_000_000)), Applied::Set(4_000_000), "{name}: the user's ceiling");
        }
    }
}

#[test]
fn limits_of_the_encoder_keep_their_ratio() {
    for (name, bitrate, limits, per_unit) in [
        ("mpph264enc", "bps", &["bps-max", "bps-min"][..], 1),
        ("nvv4l2h264enc", "bitrate", &["peak-bitrate"], 1),
        ("nvh264enc", "bitrate", &["max-bitrate"], 1000),
        ("qsvh264enc", "bitrate", &["max-bitrate"], 1000),
        ("msdkh264enc", "bitrate", &["max-vbv-bitrate"], 1000),
        ("amfh264enc", "bitrate", &["max-bitrate"], 1000),
        ("mfh264enc", "bitrate", &["max-bitrate"], 1000),
        ("svtav1enc", "target-bitrate", &["maximum-bitrate"], 1000),
    ] {
        let found = make(name);
        set(&found, bitrate, 4_000_000 / per_unit);
        set(&found, limits[0], 6_000_000 / per_unit);
        if let Some(lower) = limits.get(1) {
            set(&found, lower, 2_000_000 / per_unit);
        }
        let hold = Hold::new(&found);
        for target in [1_000_000u32, 3_000_000] {
            hold.wish(to(target));
            assert_eq!(number(&found, limits[0]), i64::from(target / per_unit * 3 / 2), "{name}");
            if let Some(lower) = limits.get(1) {
                assert_eq!(number(&found, lower), i64::from(target / per_unit / 2), "{name}");
            }
        }
        drop(hold);
        assert_eq!(number(&found, limits[0]), i64::from(6_000_000 / per_unit), "{name}: given back");

        // Left to the encoder, they stay so.
        let found = make(name);
        set(&found, bitrate, 4_000_000 / per_unit);
        Hold::new(&found).wish(to(1_000_000));
        assert_eq!(number(&found, limits[0]), 0, "{name}");
    }
}

#[test]
fn limits_never_cross_the_bitrate_on_the_way() {
    let found = make("mpph264enc");
    set(&found, "bps", 2_000_000);
    set(&found, "bps-min", 1_000_000);
    set(&found, "bps-max", 3_000_000);
    let worst = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = worst.clone();
    found.element.connect_notify(None, move |element, _| {
        let get = |name: &str| element.property::<u32>(name);
        let (low, bitrate, high) = (get("bps-min"), get("bps"), get("bps-max"));
        if !(low <= bitrate && bitrate <= high) {
            seen.lock().unwrap().push((low, bitrate, high));
        }
    });
    let hold = Hold::new(&found);
    for target in [200_000, 2_000_000, 500_000, 1_900_000] {
        hold.wish(to(target));
    }
    drop(hold);
    assert_eq!(*worst.lock().unwrap(), []);
}

#[test]
fn v4l2_controls_of_the_users_survive() {
    let found = make("v4l2h264enc");
    let controls =
        |text: &str| found.element.set_property("extra-controls", text.parse::<gst::Structure>().unwrap());
    let field = |name: &str| {
        let all = found.element.property::<Option<gst::Structure>>("extra-controls");
        all.and_then(|all| all.get::<i32>(name).ok())
    };
    // Nothing set by the user.
    let hold = Hold::new(&found);
    assert_eq!(hold.own_bitrate(), None);
    assert_eq!(hold.wish(to(1_000_000)), Applied::Set(1_000_000));
    assert_eq!(field("video_bitrate"), Some(1_000_000));
    drop(hold);
    assert_eq!(field("video_bitrate"), None);

    controls("controls, repeat_sequence_header=1, video_bitrate=4000000, video_peak_bitrate=5000000");
    let hold = Hold::new(&found);
    assert_eq!(hold.own_bitrate(), Some(4_000_000));
    assert_eq!(hold.wish(to(2_000_000)), Applied::Set(2_000_000));
    assert_eq!(field("repeat_sequence_header"), Some(1));
    assert_eq!((field("video_bitrate"), field("video_peak_bitrate")), (Some(2_000_000), Some(2_500_000)));
    drop(hold);
    assert_eq!((field("video_bitrate"), field("video_peak_bitrate")), (Some(4_000_000), Some(5_000_000)));

    // Spelled as GStreamer lets it be spelled.
    controls("controls, Video-Bitrate=3000000");
    let hold = Hold::new(&found);
    assert_eq!(hold.own_bitrate(), Some(3_000_000));
    hold.wish(to(1_000_000));
    assert_eq!((field("Video-Bitrate"), field("video_bitrate")), (Some(1_000_000), None));
}

#[test]
fn our_own_encoders_are_told_once_and_by_the_event() {
    for name in ["rkmppenc", "jetsonv4l2enc", "v4l2m2menc"] {
        let found = make(name);
        set(&found, "bitrate", 3_000_000);
        let hold = Hold::new(&found);
        assert_eq!(hold.own_bitrate(), Some(3_000_000), "{name}: the ceiling is known all the same");
        assert_eq!(hold.wish(to(1_000_000)), Applied::No(NoKnob::TakesEvent), "{name}");
        assert_eq!(number(&found, "bitrate"), 3_000_000, "{name}");
    }
}

#[test]
fn ranges_are_the_encoders() {
    let qsv = make("qsvh264enc");
    let hold = Hold::new(&qsv);
    let most = Wish { max: MAX, ..to(MAX) };
    assert_eq!(hold.wish(most), Applied::Set(65_535_000));
    let rav1 = make("rav1enc");
    assert_eq!(Hold::new(&rav1).wish(most), Applied::Set(i32::MAX as u64));
    // 0 would mean something else.
    let va = make("vah264enc");
    let hold = Hold::new(&va);
    assert_eq!(hold.wish(to(1)), Applied::Set(1000));
}

#[test]
fn encoders_that_cannot_are_said_to() {
    let wrong = make("vah264renamedenc");
    let hold = Hold::new(&wrong);
    assert_eq!(hold.wish(to(1_000_000)), Applied::No(NoKnob::Missing { property: "bitrate" }));
    register();
    let element = gst::ElementFactory::make("identity").build().unwrap();
    let unknown = FoundEncoder { family: None, element, shared_at: None };
    assert_eq!(Hold::new(&unknown).wish(to(1_000_000)), Applied::No(NoKnob::Unknown));
}

#[test]
fn an_encoder_that_keeps_its_bitrate_while_it_runs_is_set_before_and_left_alone_after() {
    for name in ["svtav1enc", "rav1enc"] {
        let found = make(name);
        let property = if name == "svtav1enc" { "target-bitrate" } else { "bitrate" };
        let per_unit = if name == "svtav1enc" { 1000 } else { 1 };
        set(&found, property, 3_000_000 / per_unit);
        let hold = Hold::new(&found);
        assert_eq!(hold.wish(to(1_000_000)), Applied::Set(1_000_000), "{name}: the start bitrate");
        found.element.set_state(gst::State::Playing).unwrap();
        assert_eq!(hold.wish(to(500_000)), Applied::NotLive(Some(1_000_000)), "{name}");
        assert_eq!(number(&found, property), i64::from(1_000_000 / per_unit), "{name}");
        found.element.set_state(gst::State::Null).unwrap();
        drop(hold);
        assert_eq!(number(&found, property), i64::from(3_000_000 / per_unit), "{name}");
    }
}

#[test]
fn jetsons_encoders_need_a_signal_for_a_keyframe() {
    for name in ["nvv4l2h264enc", "nvv4l2h265enc", "nvv4l2av1enc"] {
        assert_eq!(make(name).family.unwrap().keyframes, Keyframes::Signal("force-IDR"), "{name}");
    }
    assert_eq!(make("v4l2h264enc").family.unwrap().keyframes, Keyframes::EventSince(24));
    assert_eq!(make("mpph264enc").family.unwrap().keyframes, Keyframes::Event);
}
