// SPDX-License-Identifier: MIT OR Apache-2.0

//! What those downstream wish: the event `GstTargetBitrate`, from any number of sources.

use std::collections::BTreeMap;

/// Name of the event's structure.
pub const EVENT: &str = "GstTargetBitrate";

/// Sources that are remembered. There is one for each branch downstream.
const MAX_SOURCES: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Target {
    bitrate: u32,
    max_framerate: Option<gst::Fraction>,
    active: bool,
}

/// The wishes of all sources.
#[derive(Debug, Default)]
pub struct Targets(BTreeMap<String, Target>);

/// What comes of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// Somebody needs frames.
    pub active: bool,
    /// Bit/s, at most.
    pub bitrate: Option<u32>,
    /// Frames a second, at most.
    pub max_framerate: Option<gst::Fraction>,
}

impl Targets {
    /// Takes an event's structure.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn update(&mut self, structure: &gst::StructureRef) -> Result<(), &'static str> {
        let source = structure.get::<&str>("source").unwrap_or_default();
        let target = Target {
            bitrate: structure.get("bitrate").map_err(|_| "bitrate is no uint")?,
            max_framerate: structure
                .get::<gst::Fraction>("max-framerate")
                .ok()
                .filter(|rate| rate.numer() > 0 && rate.denom() > 0),
            active: structure.get("active").map_err(|_| "active is no boolean")?,
        };
        if self.0.len() >= MAX_SOURCES && !self.0.contains_key(source) {
            return Err("too many sources");
        }
        self.0.insert(source.into(), target);
        Ok(())
    }

    /// The sum: active if any source is; of the active ones the least.
    #[must_use]
    pub fn wish(&self) -> Wish {
        let active = || self.0.values().filter(|target| target.active);
        Wish {
            active: self.0.is_empty() || active().next().is_some(),
            bitrate: active().map(|target| target.bitrate).filter(|&bitrate| bitrate > 0).min(),
            max_framerate: active().filter_map(|target| target.max_framerate).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str, bitrate: u32, active: bool) -> gst::Structure {
        gst::Structure::builder(EVENT)
            .field("bitrate", bitrate)
            .field("active", active)
            .field("source", source)
            .build()
    }

    #[test]
    fn the_least_of_the_active_ones_counts() {
        gst::init().unwrap();
        let mut targets = Targets::default();
        assert_eq!(targets.wish(), Wish { active: true, bitrate: None, max_framerate: None });
        targets.update(&event("a", 2_000_000, true)).unwrap();
        targets.update(&event("b", 500_000, true)).unwrap();
        assert_eq!(targets.wish().bitrate, Some(500_000));
        targets.update(&event("b", 300_000, false)).unwrap();
        assert_eq!(targets.wish(), Wish { active: true, bitrate: Some(2_000_000), max_framerate: None });
        targets.update(&event("a", 2_000_000, false)).unwrap();
        assert!(!targets.wish().active);
        // 0 is no bitrate, and no rate is one of none.
        let mut rate = event("a", 0, true);
        rate.set("max-framerate", gst::Fraction::new(0, 1));
        targets.update(&rate).unwrap();
        assert_eq!(targets.wish(), Wish { active: true, bitrate: None, max_framerate: None });
    }

    #[test]
    fn nonsense_is_refused_and_memory_bounded() {
        gst::init().unwrap();
        let mut targets = Targets::default();
        assert!(targets.update(&gst::Structure::new_empty(EVENT)).is_err());
        for source in 0..100 {
            let _ = targets.update(&event(&source.to_string(), 1, true));
        }
        assert_eq!(targets.0.len(), MAX_SOURCES);
        let mut rate = event("0", 1, true);
        rate.set("max-framerate", gst::Fraction::new(15, 1));
        targets.update(&rate).unwrap();
        assert_eq!(targets.wish().max_framerate, Some(gst::Fraction::new(15, 1)));
    }
}
