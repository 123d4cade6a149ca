// SPDX-License-Identifier: MPL-2.0

//! The class of `data_%u` pads, and its properties.

use std::sync::{LazyLock, Mutex, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

/// What a data pad's properties say. Read anew for every buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataSettings {
    /// `None` = the pad's name.
    pub topic: Option<String>,
    pub reliable: bool,
    /// Empty = everybody.
    pub destinations: Vec<String>,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self { topic: None, reliable: true, destinations: Vec::new() }
    }
}

#[derive(Default)]
pub struct LiveKitSinkDataPad {
    settings: Mutex<DataSettings>,
}

impl LiveKitSinkDataPad {
    pub(crate) fn settings(&self) -> DataSettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The topic of the next packet.
    pub(crate) fn topic(&self) -> String {
        self.settings().topic.unwrap_or_else(|| self.obj().name().to_string())
    }
}

/// An array of texts; blank ones are none. gst-launch makes a number of `<7>`, which is taken as it was written.
fn texts(value: &glib::Value) -> Vec<String> {
    let Ok(array) = value.get::<gst::Array>() else { return Vec::new() };
    let text = |value: &glib::SendValue| value.transform::<String>().ok()?.get::<Option<String>>().ok()?;
    array.iter().filter_map(text).filter(|text| !text.trim().is_empty()).collect()
}

static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    vec![
        glib::ParamSpecString::builder("topic")
            .nick("Topic")
            .blurb("What the packets are about, for receivers to choose by; unset = the pad's name")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("reliable")
            .nick("Reliable")
            .blurb("Send a packet again until it has arrived, and keep their order; false = send it once")
            .default_value(DataSettings::default().reliable)
            .mutable_playing()
            .build(),
        // Without a type for its elements: a launch line makes a number of an identity of digits.
        gst::ParamSpecArray::builder("destinations")
            .nick("Destinations")
            .blurb("Identities of the participants that get the packets; empty = everybody")
            .mutable_playing()
            .build(),
    ]
});

#[glib::object_subclass]
impl ObjectSubclass for LiveKitSinkDataPad {
    const NAME: &'static str = "GstLiveKitSinkDataPad";
    type Type = super::super::LiveKitSinkDataPad;
    type ParentType = gst::GhostPad;
}

impl ObjectImpl for LiveKitSinkDataPad {
    fn properties() -> &'static [glib::ParamSpec] {
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        match pspec.name() {
            "topic" => settings.topic = crate::livekitsink::settings::string(value),
            "reliable" => settings.reliable = value.get().unwrap_or(settings.reliable),
            "destinations" => settings.destinations = texts(value),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "topic" => self.settings().topic.to_value(),
            "reliable" => self.settings().reliable.to_value(),
            _ => gst::Array::new(self.settings().destinations).to_value(),
        }
    }
}

impl GstObjectImpl for LiveKitSinkDataPad {}
impl PadImpl for LiveKitSinkDataPad {}
impl ProxyPadImpl for LiveKitSinkDataPad {}
impl GhostPadImpl for LiveKitSinkDataPad {}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_pad() -> crate::livekitsink::LiveKitSinkDataPad {
        let sink = gst::PadDirection::Sink;
        glib::Object::builder().property("name", "data_3").property("direction", sink).build()
    }

    #[test]
    fn destinations_are_texts_however_a_launch_line_writes_them() {
        gst::init().unwrap();
        let pad = data_pad();
        assert_eq!(pad.imp().settings(), DataSettings::default());
        pad.set_property_from_str("destinations", "<viewer, \"second one\", 7>");
        assert_eq!(pad.imp().settings().destinations, ["viewer", "second one", "7"]);
        pad.set_property("destinations", gst::Array::new(["", "x"]));
        assert_eq!(pad.imp().settings().destinations, ["x"]);
        let back = pad.property::<gst::Array>("destinations");
        assert_eq!(back.iter().map(|v| v.get::<String>().unwrap()).collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn the_topic_is_the_pads_name_unless_set() {
        gst::init().unwrap();
        let pad: super::super::super::LiveKitSinkDataPad = glib::Object::builder()
            .property("name", "data_3")
            .property("direction", gst::PadDirection::Sink)
            .build();
        assert_eq!(pad.imp().topic(), "data_3");
        pad.set_property("topic", "gps");
        assert_eq!(pad.imp().topic(), "gps");
        pad.set_property("topic", "");
        assert_eq!(pad.imp().topic(), "data_3");
    }
}
