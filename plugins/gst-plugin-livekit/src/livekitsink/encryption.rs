// SPDX-License-Identifier: MPL-2.0

//! End-to-end encryption: where the key comes from, and how it changes. Nothing here prints one.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use livekit_session::{E2ee, E2eeStats, Secret, TrackConfig};

use super::imp::LiveKitSink;
use super::log::CAT;

/// The variable that stands in for the property `e2ee-key`.
const VARIABLE: &str = "LIVEKIT_E2EE_KEY";
/// The signal that asks the application for a key.
pub(super) const REQUEST: &str = "request-e2ee-key";
/// The action signal that goes on to the next key.
pub(super) const RATCHET: &str = "ratchet-e2ee-key";

/// The signals of this part.
pub(super) fn signals() -> Vec<glib::subclass::Signal> {
    vec![
        // Asks for the key of a participant, by identity and key index: at NULL→READY, and when `e2ee-key-index` is
        // set later. The first handler that returns one wins.
        glib::subclass::Signal::builder(REQUEST)
            .run_last()
            .param_types([String::static_type(), u32::static_type()])
            .return_type::<Option<String>>()
            .accumulator(|_hint, _so_far, value| match value.get::<Option<&str>>() {
                Ok(Some(_)) => std::ops::ControlFlow::Break(value.clone()),
                _ => std::ops::ControlFlow::Continue(value.clone()),
            })
            .build(),
        // Goes on to the key that follows from the present one; viewers follow by themselves. False = nothing is
        // encrypted.
        glib::subclass::Signal::builder(RATCHET)
            .run_last()
            .action()
            .return_type::<bool>()
            .class_handler(|values| {
                let sink = values.first()?.get::<super::LiveKitSink>().ok()?;
                Some(sink.imp().ratchet().to_value())
            })
            .build(),
    ]
}

/// Which key there is; `Ok(None)` = none is wanted. Pure: everything it depends on is an argument.
fn choose(
    asked: Option<Option<String>>,
    property: Option<String>,
    variable: Option<String>,
) -> Result<Option<(Secret, &'static str)>, &'static str> {
    let (key, origin) = match (asked, property, variable) {
        (Some(None), ..) => return Err("no handler of the signal request-e2ee-key returned a key"),
        (Some(Some(key)), ..) => (key, "signal request-e2ee-key"),
        (None, Some(key), _) => (key, "e2ee-key"),
        (None, None, Some(key)) => (key, VARIABLE),
        (None, None, None) => return Ok(None),
    };
    // Somebody wanted encryption, perhaps by a variable that was never filled: sending in the clear is no answer.
    if key.trim().is_empty() {
        return Err("the key is empty");
    }
    Ok(Some((Secret::new(key), origin)))
}

impl LiveKitSink {
    /// The key and its index as things stand.
    fn present_key(&self) -> Result<Option<(Secret, u8, &'static str)>, &'static str> {
        let (property, index) = {
            let settings = self.settings();
            (settings.e2ee_key.clone(), settings.e2ee_key_index)
        };
        let asked = self.has_key_provider().then(|| {
            self.obj().emit_by_name::<Option<String>>(REQUEST, &[&self.identity(), &u32::from(index)])
        });
        let chosen = choose(asked, property, std::env::var(VARIABLE).ok())?;
        Ok(chosen.map(|(key, origin)| (key, index, origin)))
    }

    fn has_key_provider(&self) -> bool {
        let sink = self.obj();
        glib::subclass::SignalId::lookup(REQUEST, sink.type_())
            .is_some_and(|signal| glib::signal::signal_has_handler_pending(&*sink, signal, None, true))
    }

    /// NULL→READY: what the session encrypts with. Takes some ten milliseconds if it does.
    pub(super) fn end_to_end(&self) -> Result<Option<E2ee>, gst::StateChangeError> {
        let refused = |reason: String| {
            gst::element_imp_error!(
                self,
                gst::ResourceError::Settings,
                ("Nothing is sent, because it would not be encrypted end to end: {reason}. Set e2ee-key or \
                     {VARIABLE}, or leave both unset to send what the server can see")
            );
            gst::StateChangeError
        };
        match self.present_key() {
            Ok(None) => Ok(None),
            Ok(Some((key, index, origin))) => {
                gst::info!(CAT, imp = self, "encrypting end to end, key {index} from {origin}");
                E2ee::new(&key, index).map(Some).map_err(|error| refused(error.to_string()))
            }
            Err(reason) => Err(refused(reason.into())),
        }
    }

    /// `e2ee-key` or `e2ee-key-index` was set: the next frame is encrypted with what they say now.
    pub(super) fn rekey(&self, property: &str) {
        // Without somebody to ask, an index counts from the key on that is set after it.
        if property == "e2ee-key-index" && !self.has_key_provider() {
            return;
        }
        let e2ee = {
            let state = self.state();
            // In NULL nothing is resolved yet.
            let Some(config) = &state.config else { return };
            config.e2ee.clone()
        };
        let key = self.present_key();
        let wrong = match (&e2ee, key) {
            (None, Ok(None)) => return,
            (None, _) => "whether a session encrypts is settled when it starts; go to NULL and back".into(),
            (Some(_), Ok(None)) => "an encrypted session stays one; go to NULL and back".into(),
            (Some(_), Err(reason)) => format!("{reason}; the old one stays in use"),
            (Some(e2ee), Ok(Some((key, index, origin)))) => match e2ee.set_key(&key, index) {
                Ok(()) => {
                    gst::info!(CAT, imp = self, "encrypting with key {index} from {origin} from now on");
                    return;
                }
                Err(error) => format!("{error}; the old key stays in use"),
            },
        };
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Settings,
            ("The key for end-to-end encryption is not changed: {wrong}")
        );
    }

    /// What a track was to have and can't have if it is encrypted.
    pub(super) fn tell_what_encryption_leaves_out(&self, config: &TrackConfig) {
        if self.e2ee().is_none() {
            return;
        }
        for (wanted, property) in [(config.red, "red"), (config.capture_trailer, "capture-trailer")] {
            if wanted {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Settings,
                    (
                        "{}: {property} does not go together with end-to-end encryption and is left out",
                        config.name
                    )
                );
            }
        }
    }

    fn ratchet(&self) -> bool {
        let Some(e2ee) = self.e2ee() else { return false };
        match e2ee.ratchet() {
            Ok(()) => {
                gst::info!(CAT, imp = self, "key {} was ratcheted", e2ee.stats().key_index);
                true
            }
            Err(error) => {
                gst::warning!(CAT, imp = self, "the key could not be ratcheted: {error}");
                false
            }
        }
    }

    /// What the session encrypts with, from READY on.
    pub(super) fn e2ee(&self) -> Option<E2ee> {
        self.state().config.as_ref()?.e2ee.clone()
    }
}

/// The counters, for the property `stats`.
pub(super) fn structure(stats: E2eeStats) -> gst::Structure {
    gst::Structure::builder("livekit-e2ee-stats")
        .field("key-index", u32::from(stats.key_index))
        .field("frames-encrypted", stats.frames_encrypted)
        .field("frames-refused", stats.frames_refused)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(
        asked: Option<Option<&str>>,
        property: Option<&str>,
        variable: Option<&str>,
    ) -> Result<Option<(String, &'static str)>, &'static str> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let chosen = choose(asked.map(own), own(property), own(variable))?;
        Ok(chosen.map(|(key, origin)| (key.expose().to_owned(), origin)))
    }

    #[test]
    fn a_handler_beats_the_property_and_that_the_variable() {
        assert_eq!(key(None, None, None), Ok(None));
        let all = key(Some(Some("asked")), Some("set"), Some("env"));
        assert_eq!(all, Ok(Some(("asked".into(), "signal request-e2ee-key"))));
        assert_eq!(key(None, Some("set"), Some("env")), Ok(Some(("set".into(), "e2ee-key"))));
        assert_eq!(key(None, None, Some("env")), Ok(Some(("env".into(), VARIABLE))));
        // Blanks belong to a key.
        assert_eq!(key(None, Some(" a b "), None).unwrap().unwrap().0, " a b ");
    }

    #[test]
    fn a_key_that_was_to_be_and_is_not_never_means_no_encryption() {
        for (asked, property, variable) in [
            (Some(None), Some("set"), Some("env")),
            (Some(Some("")), Some("set"), None),
            (None, Some(""), Some("env")),
            (None, Some("  "), None),
            (None, None, Some("")),
        ] {
            assert!(key(asked, property, variable).is_err(), "{asked:?} {property:?} {variable:?}");
        }
    }
}
