// SPDX-License-Identifier: MPL-2.0

//! What stands between a pad and its leaf: the codec's parser, or an encoder for raw sound.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::codecs::{self, Link, Row};
use super::imp::LiveKitSink;
use super::log::CAT;
use super::{Leaf, LiveKitSinkPad, watch};

pub(crate) fn leaf_name(pad: &LiveKitSinkPad) -> String {
    format!("{}-leaf", pad.name())
}

fn chain_name(pad: &LiveKitSinkPad) -> String {
    format!("{}-parser", pad.name())
}

type BoxError = Box<dyn std::error::Error>;

impl LiveKitSink {
    /// Sets up what the caps need between pad and leaf, in the place of what other caps needed before. Called
    /// on the pad's streaming thread.
    pub(crate) fn prepare_chain(&self, pad: &LiveKitSinkPad, caps: &gst::CapsRef) -> bool {
        let Some(row) = caps.structure(0).and_then(|s| codecs::row(s.name())) else { return false };
        if pad.imp().chain() == Some(row.media_type) {
            return true;
        }
        let Some(leaf) = self.leaf_of(pad) else { return false };
        // First, so that nothing is taken apart for what can't be put together.
        let Ok(element) = self.build(pad, row) else { return false };
        let result = self.take_out(pad, &leaf).and_then(|()| match &element {
            Some(element) => self.insert(pad, row, element, &leaf),
            None => Ok(pad.set_target(leaf.static_pad("sink").as_ref())?),
        });
        if pad.imp().is_released() {
            // Whoever releases it may have been here before the chain was. That is no error.
            let _ = pad.set_target(gst::Pad::NONE);
            if let Some(element) = element {
                self.discard(&element);
            }
            return false;
        }
        match result {
            Ok(()) => {
                // An event that left the leaf meanwhile found no way.
                self.retarget(pad);
                pad.imp().set_chain(row.media_type);
            }
            Err(error) => {
                gst::element_imp_error!(self, gst::CoreError::Pad, ("Cannot set up {}: {error}", pad.name()));
                return false;
            }
        }
        true
    }

    /// The elements of a row, as one; `None` = it needs none.
    fn build(&self, pad: &LiveKitSinkPad, row: &Row) -> Result<Option<gst::Element>, glib::BoolError> {
        let make = |link: &Link| {
            let mut builder = gst::ElementFactory::make(link.factory);
            for (name, value) in link.properties {
                builder = builder.property_from_str(name, value);
            }
            builder.build().inspect_err(|_| self.missing_element(pad, row, link))
        };
        let elements = row.chain.iter().map(make).collect::<Result<Vec<_>, _>>()?;
        let (Some(first), Some(last)) = (elements.first(), elements.last()) else { return Ok(None) };
        if row.is_raw() {
            let settings = pad.imp().effective();
            last.set_property("dtx", settings.dtx.unwrap_or_default());
            if let Some(bitrate) = settings.max_bitrate {
                // opusenc's own range.
                last.set_property("bitrate", i32::try_from(bitrate.clamp(4_000, 650_000)).unwrap_or(64_000));
            }
        }
        if elements.len() == 1 {
            first.set_property("name", chain_name(pad));
            return Ok(Some(first.clone()));
        }
        let bin = gst::Bin::with_name(&chain_name(pad));
        bin.add_many(&elements)?;
        gst::Element::link_many(&elements)?;
        for (element, name) in [(first, "sink"), (last, "src")] {
            let target = element.static_pad(name).ok_or_else(|| glib::bool_error!("no pad {name}"))?;
            bin.add_pad(&gst::GhostPad::with_target(&target)?)?;
        }
        Ok(Some(bin.upcast()))
    }

    fn insert(
        &self,
        pad: &LiveKitSinkPad,
        row: &Row,
        element: &gst::Element,
        leaf: &Leaf,
    ) -> Result<(), BoxError> {
        self.obj().add(element)?;
        // So far the pad leads straight to the leaf, or nowhere.
        pad.set_target(gst::Pad::NONE)?;
        element.link(leaf.upcast_ref::<gst::Element>())?;
        let entry = element.static_pad("sink").ok_or("the parser has no sink pad")?;
        if row.codec.is_video() {
            watch::push_only(&entry);
            watch::silence(&entry, leaf);
        }
        pad.set_target(Some(&entry))?;
        element.sync_state_with_parent()?;
        Ok(())
    }

    /// Removes what stands between pad and leaf now. The frame that a parser may still hold is the last of a track
    /// that ends with it.
    fn take_out(&self, pad: &LiveKitSinkPad, leaf: &Leaf) -> Result<(), BoxError> {
        let Some(element) = self.obj().by_name(&chain_name(pad)) else { return Ok(()) };
        gst::info!(CAT, imp = self, "{}: another kind of stream", pad.name());
        pad.set_target(gst::Pad::NONE)?;
        element.unlink(leaf);
        self.discard(&element);
        Ok(())
    }

    fn discard(&self, element: &gst::Element) {
        element.set_locked_state(true);
        let _ = element.set_state(gst::State::Null);
        if element.parent().is_some() {
            let _ = self.obj().remove(element);
        }
    }

    /// Stops and removes the elements behind `pad`, the last one first: it may hold the streaming thread.
    pub(crate) fn remove_chain(&self, pad: &LiveKitSinkPad) {
        for name in [leaf_name(pad), chain_name(pad)] {
            if let Some(element) = self.obj().by_name(&name) {
                self.discard(&element);
            }
        }
    }

    fn missing_element(&self, pad: &LiveKitSinkPad, row: &Row, link: &Link) {
        // The form in which installers look for missing plugins.
        let structure = gst::Structure::builder("missing-plugin")
            .field("type", "element")
            .field("detail", link.factory)
            .field("name", format!("GStreamer element {}", link.factory))
            .build();
        let _ = self.obj().post_message(gst::message::Element::builder(structure).src(&*self.obj()).build());
        gst::element_imp_error!(
            self,
            gst::CoreError::MissingPlugin,
            (
                "{}: {} needs the GStreamer element {}, which is missing: install the package {} (Debian, Ubuntu){}",
                pad.name(),
                row.media_type,
                link.factory,
                link.package,
                if row.is_raw() { ", or put an Opus encoder before the pad" } else { " or gst-plugins-bad" }
            )
        );
    }
}
