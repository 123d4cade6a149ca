// SPDX-License-Identifier: MPL-2.0

//! How much of each packet RTP header extensions take. The base class writes them when a packet is pushed, and
//! before 1.24 does not tell which ones it has, so they are noted as they come.

use gst::prelude::*;
use gst_rtp::prelude::*;
use gst_rtp::{RTPHeaderExtension, RTPHeaderExtensionFlags};

/// What an extension that cannot be asked takes at most with a one-byte header (RFC 8285 §4.2).
const UNKNOWN_LEN: usize = 16;

/// Extensions in use.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    /// From the signal `add-extension`.
    added: Vec<RTPHeaderExtension>,
    /// All in use: `None` = an extension that cannot be asked.
    active: Vec<Option<RTPHeaderExtension>>,
    /// The caps that `active` was made from.
    caps: Option<gst::Caps>,
}

impl Extensions {
    pub fn add(&mut self, extension: &RTPHeaderExtension) {
        self.added.retain(|known| known.id() != extension.id());
        self.added.push(extension.clone());
        self.caps = None;
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes note of newly negotiated caps, in which every extension has a field.
    pub fn update(&mut self, element: &super::RtpJpegPay) {
        let caps = element.src_pad().current_caps();
        if self.caps.is_some() && self.caps == caps {
            return;
        }
        // Readable from GStreamer 1.24 on.
        let told = element.has_property_with_type("extensions", gst::Array::static_type());
        self.active = if told {
            let all = element.property::<gst::Array>("extensions");
            all.iter().map(|value| value.get().ok()).collect()
        } else {
            let mut active: Vec<_> = self.added.iter().cloned().map(Some).collect();
            for (id, uri) in caps.iter().flat_map(|caps| caps.iter()).flat_map(mapped) {
                if !self.added.iter().any(|known| known.id() == id) {
                    let extension = RTPHeaderExtension::create_from_uri(&uri);
                    if let Some(extension) = &extension {
                        extension.set_id(id);
                    }
                    active.push(extension);
                }
            }
            active
        };
        self.caps = caps;
    }

    /// Bytes that the extensions of one packet take at most (RFC 8285 §4).
    pub fn len(&self, input: &gst::Buffer) -> usize {
        if self.active.is_empty() {
            return 0;
        }
        let both = RTPHeaderExtensionFlags::ONE_BYTE | RTPHeaderExtensionFlags::TWO_BYTE;
        let (mut forms, mut data) = (both, 0);
        for extension in &self.active {
            let Some(extension) = extension else {
                data += UNKNOWN_LEN;
                continue;
            };
            let len = extension.max_size(input);
            forms &= extension.supported_flags();
            if len > 16 || extension.id() > 14 {
                forms.remove(RTPHeaderExtensionFlags::ONE_BYTE);
            }
            data += len;
        }
        let head = if forms.contains(RTPHeaderExtensionFlags::ONE_BYTE) {
            1
        } else if forms.contains(RTPHeaderExtensionFlags::TWO_BYTE) {
            2
        } else {
            // No form suits all of them, so the base class writes none.
            return 0;
        };
        4 + (self.active.len() * head + data).next_multiple_of(4)
    }
}

/// Ids and URIs in a structure's `extmap-…` fields: strings, or arrays of direction, URI, attributes.
fn mapped(structure: &gst::StructureRef) -> Vec<(u32, String)> {
    let uri = |value: &gst::glib::SendValue| {
        value.get::<String>().ok().or_else(|| value.get::<gst::ArrayRef>().ok()?.get(1)?.get::<String>().ok())
    };
    structure
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("extmap-")?.parse().ok()?, uri(value)?)))
        .collect()
}
