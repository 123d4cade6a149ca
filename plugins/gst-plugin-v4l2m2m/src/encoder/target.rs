// SPDX-License-Identifier: MPL-2.0

//! What receivers want: the upstream event `GstTargetBitrate`, and how frames are left out for it.

use std::collections::BTreeMap;

/// Wishes by their source.
#[derive(Debug, Default)]
pub(crate) struct Targets(BTreeMap<String, Target>);

#[derive(Clone, Copy, Debug)]
struct Target {
    bitrate: u32,
    max_framerate: Option<gst::Fraction>,
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
        let max_framerate = structure.get::<gst::Fraction>("max-framerate").ok().filter(is_rate);
        self.0.insert(source, Target { bitrate: bitrate.unwrap_or(u32::MAX), max_framerate, active });
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

    /// The lowest of the frame rates that are enough, and of `own` if that is one.
    pub fn max_framerate(&self, own: gst::Fraction) -> Option<gst::Fraction> {
        let wanted = self.0.values().filter(|target| target.active);
        wanted.filter_map(|target| target.max_framerate).chain(Some(own).filter(is_rate)).min()
    }
}

fn is_rate(rate: &gst::Fraction) -> bool {
    rate.numer() > 0 && rate.denom() > 0
}

/// Leaves frames out, so that on average there are no more than a rate allows.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the next one may come, ns.
    due: Option<u64>,
}

impl Pace {
    /// Whether a frame of this time is taken. One without a time always is.
    pub fn takes(&mut self, pts: Option<gst::ClockTime>, rate: Option<gst::Fraction>) -> bool {
        let (Some(pts), Some(rate)) = (pts.map(|pts| pts.nseconds()), rate) else { return true };
        let parts = u64::try_from(rate.denom()).ok().zip(u64::try_from(rate.numer()).ok());
        let Some(interval) = parts.and_then(|(d, n)| (d * 1_000_000_000).checked_div(n)) else { return true };
        let due = match self.due {
            // Times that jump back begin anew.
            Some(due) if pts.saturating_add(interval * 2) >= due => due,
            _ => pts,
        };
        // Cameras are not exact to a quarter of a frame.
        if pts.saturating_add(interval / 4) < due {
            self.due = Some(due);
            return false;
        }
        // Time without frames is not made up for.
        self.due = Some(if pts > due.saturating_add(interval) { pts } else { due } + interval);
        true
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

    fn taken(times_ms: impl IntoIterator<Item = u64>, rate: (i32, i32)) -> Vec<u64> {
        let mut pace = Pace::default();
        let rate = Some(gst::Fraction::new(rate.0, rate.1));
        let pts = |ms: &u64| Some(gst::ClockTime::from_mseconds(*ms));
        times_ms.into_iter().filter(|ms| pace.takes(pts(ms), rate)).collect()
    }

    #[test]
    fn frames_are_left_out_evenly() {
        let camera = |count: u64| (0..count).map(|n| n * 1000 / 30);
        assert_eq!(taken(camera(300), (30, 1)).len(), 300);
        assert_eq!(taken(camera(300), (60, 1)).len(), 300);
        for (rate, count) in [(25, 250), (20, 200), (15, 150), (10, 100), (1, 10)] {
            let taken = taken(camera(300), (rate, 1));
            assert!(taken.len().abs_diff(count) <= 2, "{rate}: {}", taken.len());
        }
        // Jitter loses nothing.
        assert_eq!(taken([0, 36, 64, 103, 130, 170], (30, 1)).len(), 6);
        // A pause is not made up for, and times that jump back are no end.
        assert_eq!(taken([0, 5_000, 5_010, 5_020, 5_100], (10, 1)), [0, 5_000, 5_100]);
        assert_eq!(taken([5_000, 0, 10, 100], (10, 1)), [5_000, 0, 100]);
        assert!(Pace::default().takes(None, Some(gst::Fraction::new(1, 1))));
    }

    #[test]
    fn the_lowest_frame_rate_of_the_active() {
        gst::init().unwrap();
        let mut targets = Targets::default();
        let (none, own) = (gst::Fraction::new(0, 1), gst::Fraction::new(20, 1));
        assert_eq!((targets.max_framerate(none), targets.max_framerate(own)), (None, Some(own)));
        let wish = |source: &str, rate: i32, active: bool| {
            let mut structure = event(source, 1_000, active);
            structure.set("max-framerate", gst::Fraction::new(rate, 1));
            structure
        };
        targets.update(&wish("a", 15, true));
        targets.update(&wish("b", 10, false));
        assert_eq!(targets.max_framerate(own), Some(gst::Fraction::new(15, 1)));
        targets.update(&event("a", 1_000, true));
        assert_eq!(targets.max_framerate(none), None);
        targets.update(&wish("a", 0, true));
        assert_eq!(targets.max_framerate(none), None);
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
