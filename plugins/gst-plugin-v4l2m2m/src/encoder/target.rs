// SPDX-License-Identifier: MPL-2.0

//! What receivers want: the upstream event `GstTargetBitrate`.

use std::collections::BTreeMap;

/// Wishes by their source.
#[derive(Debug, Default)]
pub(crate) struct Targets(BTreeMap<String, Target>);

#[derive(Clone, Copy, Debug)]
struct Target {
    bitrate: u32,
    active: bool,
}

/// More sources than this are not believed.
const MAX_SOURCES: usize = 64;

impl Targets {
    /// Takes an event's structure. `false` if it is none of these.
    pub fn update(&mut self, structure: &gst::StructureRef) -> bool {
        if structure.name() != "GstTargetBitrate" {
            return false;
        }
        let source = structure.get::<String>("source").unwrap_or_default();
        let known = self.0.get(&source).copied();
        if known.is_none() && self.0.len() >= MAX_SOURCES {
            return true;
        }
        let bitrate = structure.get::<u32>("bitrate").ok().or(known.map(|target| target.bitrate));
        let active = structure.get::<bool>("active").unwrap_or(true);
        self.0.insert(source, Target { bitrate: bitrate.unwrap_or(u32::MAX), active });
        true
    }

    /// Whether anybody needs frames; yes as long as nobody said anything.
    pub fn active(&self) -> bool {
        self.0.is_empty() || self.0.values().any(|target| target.active)
    }

    /// The lowest bitrate wanted, at most `own`.
    pub fn bitrate(&self, own: u32) -> u32 {
        let wanted = self.0.values().filter(|target| target.active && target.bitrate > 0);
        wanted.map(|target| target.bitrate).min().map_or(own, |bitrate| bitrate.min(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str, bitrate: u32, active: bool) -> gst::Structure {
        gst::Structure::builder("GstTargetBitrate")
            .field("source", source)
            .field("bitrate", bitrate)
            .field("active", active)
            .build()
    }

    #[test]
    fn the_lowest_of_the_active() {
        gst::init().unwrap();
        let mut targets = Targets::default();
        assert!(targets.active());
        assert_eq!(targets.bitrate(2_000), 2_000);
        assert!(!targets.update(&gst::Structure::new_empty("other")));
        assert!(targets.update(&event("a", 1_000, true)));
        assert!(targets.update(&event("b", 500, false)));
        assert_eq!((targets.active(), targets.bitrate(2_000)), (true, 1_000));
        targets.update(&event("b", 500, true));
        assert_eq!(targets.bitrate(2_000), 500);
        assert_eq!(targets.bitrate(100), 100, "never above the property");
        targets.update(&event("a", 1_000, false));
        targets.update(&event("b", 500, false));
        assert!(!targets.active());
    }
}
