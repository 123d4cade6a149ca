// SPDX-License-Identifier: MPL-2.0

//! Reads and sets an encoder's bitrate, in the encoder's own unit and within its own range.

use gst::glib;
use gst::prelude::*;

use super::table::{Family, Knob, Unit};

/// Why an encoder's bitrate can't be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoKnob {
    /// The encoder is not in the table.
    Unknown,
    /// It acts on the event by itself.
    TakesEvent,
    /// The element has none of the properties that its row names, or not as writable numbers.
    Missing {
        /// The first of them.
        property: &'static str,
    },
}

/// An encoder's bitrate setting, found to be there.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    knob: Knob,
    along: &'static [&'static str],
}

/// What an encoder is set to, in its own unit: the bitrate (`None` = not even there) and what moves along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    bitrate: Option<u64>,
    along: Vec<(&'static str, u64)>,
}

impl Values {
    /// The bitrate, if it is one: 0 is "auto" wherever it is allowed, and so is OpenMAX's 0xffffffff.
    fn known(&self) -> Option<u64> {
        self.bitrate.filter(|value| *value != 0 && *value != u64::from(u32::MAX))
    }
}

/// Fields of `extra-controls` that move along with `video_bitrate`.
const CONTROLS_ALONG: &[&str] = &["video_peak_bitrate"];

impl Setting {
    /// The setting of `element`, which belongs to `family`.
    pub fn of(element: &gst::Element, family: Option<&Family>) -> Result<Self, NoKnob> {
        let family = family.ok_or(NoKnob::Unknown)?;
        let mut missing = None;
        for knob in family.knobs {
            let (property, usable) = match knob {
                Knob::Event => return Err(NoKnob::TakesEvent),
                Knob::Property { name, beside, .. } => {
                    let right_build = beside.is_none_or(|other| element.find_property(other).is_some());
                    (name, right_build && Number::of(element, name).is_some())
                }
                Knob::Control { property, .. } => (property, has_structure(element, property)),
            };
            if usable {
                let along = match knob {
                    Knob::Control { .. } => CONTROLS_ALONG,
                    _ => family.along,
                };
                return Ok(Self { knob: *knob, along });
            }
            missing.get_or_insert(*property);
        }
        Err(missing.map_or(NoKnob::Unknown, |property| NoKnob::Missing { property }))
    }

    fn unit(&self) -> Unit {
        match self.knob {
            Knob::Property { unit, .. } => unit,
            Knob::Control { .. } | Knob::Event => Unit::Bit,
        }
    }

    /// What the encoder is set to.
    pub fn read(&self, element: &gst::Element) -> Values {
        match self.knob {
            Knob::Property { name, .. } => {
                let get = |name| Number::of(element, name).and_then(|number| number.get(element));
                let along = self.along.iter().filter_map(|name| Some((*name, get(name)?))).collect();
                Values { bitrate: get(name), along }
            }
            Knob::Control { property, control } => {
                let structure = element.property::<Option<gst::Structure>>(property);
                let get = |control| {
                    let structure = structure.as_ref()?;
                    let field = field_of(structure, control)?;
                    structure.get::<i32>(field).ok().and_then(|value| u64::try_from(value).ok())
                };
                let along = self.along.iter().filter_map(|name| Some((*name, get(name)?))).collect();
                Values { bitrate: get(control), along }
            }
            Knob::Event => Values::default(),
        }
    }

    /// What the encoder is set to, in bit/s. `None` = the encoder decides.
    pub fn bits(&self, values: &Values) -> Option<u64> {
        values.known().map(|value| value.saturating_mul(self.unit().bits()))
    }

    /// The values for `bits` bit/s when the user's own ones are `own`: in the encoder's unit and range, rounded
    /// down, and never 0, which means something else.
    pub fn values_for(&self, element: &gst::Element, bits: u64, own: &Values) -> Values {
        let range = self.range(element);
        let bitrate = (bits / self.unit().bits()).max(1).clamp(*range.start(), *range.end());
        let mut along = Vec::new();
        for (name, value) in &own.along {
            // 0 = by the encoder itself; without a bitrate of the user's there is no ratio.
            let Some(own_bitrate) = own.known().filter(|_| *value != 0) else { continue };
            let scaled = u128::from(*value) * u128::from(bitrate) / u128::from(own_bitrate);
            let scaled = u64::try_from(scaled).unwrap_or(u64::MAX).max(1);
            let range = match self.knob {
                Knob::Control { .. } => 1..=I32_MAX,
                _ => Number::of(element, name).map_or(1..=u64::MAX, |number| number.range()),
            };
            along.push((*name, scaled.clamp(*range.start(), *range.end())));
        }
        Values { bitrate: Some(bitrate), along }
    }

    fn range(&self, element: &gst::Element) -> std::ops::RangeInclusive<u64> {
        match self.knob {
            Knob::Property { name, .. } => {
                Number::of(element, name).map_or(1..=u64::MAX, |number| number.range())
            }
            // The driver has a range of its own, and takes what is nearest.
            Knob::Control { .. } | Knob::Event => 1..=I32_MAX,
        }
    }

    /// Sets the encoder to `values`; `before` is what it is set to now. Limits go out of the way before the
    /// bitrate comes.
    pub fn write(&self, element: &gst::Element, values: &Values, before: &Values) {
        match self.knob {
            Knob::Property { name, .. } => {
                let rising = values.bitrate.unwrap_or(0) > before.bitrate.unwrap_or(0);
                // Upper limits first when it rises, lower limits first when it falls.
                let (first, last): (Vec<_>, Vec<_>) = values
                    .along
                    .iter()
                    .partition(|(_, value)| (*value >= values.bitrate.unwrap_or(0)) == rising);
                let bitrate = values.bitrate.unwrap_or(0);
                let order =
                    first.into_iter().copied().chain([(name, bitrate)]).chain(last.into_iter().copied());
                for (name, value) in order {
                    if let Some(number) = Number::of(element, name) {
                        number.set(element, value);
                    }
                }
            }
            Knob::Control { property, control } => {
                // The user's other controls stay as they are.
                let structure = element.property::<Option<gst::Structure>>(property);
                let mut structure = structure.unwrap_or_else(|| gst::Structure::new_empty("controls"));
                let bitrate = [(control, values.bitrate.unwrap_or(0))];
                for (control, value) in bitrate.into_iter().chain(values.along.iter().copied()) {
                    let field = field_of(&structure, control).unwrap_or_else(|| control.into());
                    if value == 0 {
                        structure.remove_field(field);
                    } else {
                        structure.set(field, i32::try_from(value).unwrap_or(i32::MAX));
                    }
                }
                element.set_property(property, structure);
            }
            Knob::Event => {}
        }
    }
}

/// The property `bitrate`, in bit/s, of an encoder that is told by the event.
pub(crate) fn plain_bitrate(element: &gst::Element) -> Option<u64> {
    let bitrate = Number::of(element, "bitrate")?.get(element);
    Values { bitrate, along: Vec::new() }.known()
}

const I32_MAX: u64 = i32::MAX as u64;

/// The name under which `structure` has a V4L2 control. GStreamer compares them without regard to case, and with
/// everything but letters and digits as underscores.
fn field_of(structure: &gst::StructureRef, control: &str) -> Option<String> {
    let plain = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
    };
    structure.fields().map(|field| field.to_string()).find(|field| plain(field) == control)
}

fn has_structure(element: &gst::Element, name: &str) -> bool {
    element.find_property(name).is_some_and(|pspec| {
        pspec.value_type() == gst::Structure::static_type()
            && pspec.flags().contains(glib::ParamFlags::READWRITE)
    })
}

/// A number property.
struct Number {
    pspec: glib::ParamSpec,
    minimum: u64,
    maximum: u64,
}

impl Number {
    /// The property `name` of `element`, if it is a number that can be read and written.
    fn of(element: &gst::Element, name: &str) -> Option<Self> {
        let pspec = element.find_property(name)?;
        if !pspec.flags().contains(glib::ParamFlags::READWRITE) {
            return None;
        }
        let (minimum, maximum) = if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt>() {
            (u64::from(p.minimum()), u64::from(p.maximum()))
        } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecInt>() {
            (positive(p.minimum().into()), positive(p.maximum().into()))
        } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt64>() {
            (p.minimum(), p.maximum())
        } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecInt64>() {
            (positive(p.minimum()), positive(p.maximum()))
        } else {
            return None;
        };
        Some(Self { pspec, minimum, maximum })
    }

    /// From 1 on: 0 is not a bitrate.
    fn range(&self) -> std::ops::RangeInclusive<u64> {
        self.minimum.max(1)..=self.maximum.max(1)
    }

    fn get(&self, element: &gst::Element) -> Option<u64> {
        let value = element.property_value(self.pspec.name());
        // Each of the types transforms into the widest one.
        let value = value.transform::<i64>().ok()?.get::<i64>().ok()?;
        u64::try_from(value).ok()
    }

    fn set(&self, element: &gst::Element, value: u64) {
        let name = self.pspec.name();
        let value = value.clamp(self.minimum, self.maximum);
        let kind = self.pspec.value_type();
        // In range, hence these never fall back.
        if kind == u32::static_type() {
            element.set_property(name, u32::try_from(value).unwrap_or(u32::MAX));
        } else if kind == i32::static_type() {
            element.set_property(name, i32::try_from(value).unwrap_or(i32::MAX));
        } else if kind == u64::static_type() {
            element.set_property(name, value);
        } else if kind == i64::static_type() {
            element.set_property(name, i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
