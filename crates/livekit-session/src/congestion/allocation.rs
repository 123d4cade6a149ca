// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shares one bitrate over tracks and their layers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{
    CATCH_UP_ABOVE, DEFAULT_LAYER_MIN, DEFAULT_MAX, DIP_MEMORY, DOWN_STEP, Demand, FLOOR, OBSERVED_HEADROOM,
    RECOVER_STEP, REJOIN_AFTER, REJOIN_AMPLE, REJOIN_MARGIN, REPLAY_HEADROOM, UP_INTERVAL, UP_STEP,
};
use crate::event::TrackId;

/// What one layer of video wants. Bit/s throughout, 0 = unset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LayerDemand {
    pub(crate) min: u32,
    pub(crate) start: u32,
    pub(crate) max: u32,
    /// The most that the encoder was seen to make.
    pub(crate) observed: u32,
    /// Somebody watches it, and it is not muted.
    pub(crate) wanted: bool,
    /// Its current group of pictures is sent again when somebody asks for a keyframe.
    pub(crate) replays: bool,
}

/// A track of video, its layers from small to large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrackDemand {
    pub(crate) track: TrackId,
    /// Its weight among the tracks, from 1.
    pub(crate) priority: u32,
    pub(crate) layers: Vec<LayerDemand>,
}

/// What a layer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Nobody wants it.
    Idle,
    /// It does not fit: nothing of it is to be sent.
    Paused,
    /// Bit/s.
    Bitrate(u32),
    /// As much as the encoder makes by itself: no limit is known, and none is needed.
    Unlimited,
}

impl LayerDemand {
    /// The most that this layer can use.
    fn ceiling(&self) -> u32 {
        match self.max {
            0 => DEFAULT_MAX.max(scaled(self.observed, OBSERVED_HEADROOM)).max(self.start).max(self.min),
            max => max.max(FLOOR),
        }
    }

    /// The least that makes it worth sending. `base`: the lowest layer, which has none below it to fall back on.
    fn floor(&self, base: bool) -> u32 {
        let least = match (self.min, base) {
            (0, true) => FLOOR,
            (0, false) => scaled(self.ceiling(), DEFAULT_LAYER_MIN),
            (min, _) => min,
        };
        least.max(FLOOR).min(self.ceiling())
    }

    fn start(&self, base: bool) -> u32 {
        let start = if self.start == 0 { self.ceiling() } else { self.start };
        start.clamp(self.floor(base), self.ceiling())
    }
}

/// Shares a bitrate, and keeps what it said before, so that shares change seldom and in steps.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    told: BTreeMap<(TrackId, usize), (u32, Instant)>,
    /// What was told before it became less, and when that was.
    dipped: BTreeMap<(TrackId, usize), (u32, Instant)>,
    dropped: BTreeMap<(TrackId, usize), Instant>,
}

impl Allocator {
    /// What all of it together could use.
    pub(crate) fn demand(tracks: &[TrackDemand], audio: u64) -> Demand {
        let mut demand = Demand { max: 0, start: 0, audio, spare: 0 };
        for track in tracks {
            for (i, layer) in track.layers.iter().enumerate().filter(|(_, l)| l.wanted) {
                demand.max += u64::from(layer.ceiling());
                demand.start += u64::from(layer.start(i == 0));
                if layer.replays {
                    demand.spare += REPLAY_HEADROOM * u64::from(layer.observed);
                }
            }
        }
        demand
    }

    /// Shares `total` bit/s; `None` = there is no estimate yet, each layer starts as it wants to.
    ///
    /// Gives a share for each layer, in the order of `tracks`.
    pub(crate) fn allocate(
        &mut self,
        now: Instant,
        total: Option<u64>,
        tracks: &[TrackDemand],
    ) -> Vec<Vec<Share>> {
        let active = self.choose(now, total, tracks);
        let budgets = budgets(total, tracks, &active);
        let mut shares = Vec::with_capacity(tracks.len());
        for (track, budget) in tracks.iter().zip(budgets) {
            let sent = with_base(track).filter(|(i, _, _)| active.contains(&(track.track, *i)));
            let mut left = budget.saturating_sub(sent.map(|(_, l, base)| u64::from(l.floor(base))).sum());
            let mut row = Vec::with_capacity(track.layers.len());
            for (i, layer, base) in with_base(track) {
                let key = (track.track, i);
                row.push(if !layer.wanted {
                    self.told.remove(&key);
                    Share::Idle
                } else if !active.contains(&key) {
                    self.told.remove(&key);
                    Share::Paused
                } else if total.is_none() {
                    self.tell(key, now, layer.start(base), layer)
                } else {
                    // The lower layers are filled first: more people can watch those.
                    let floor = layer.floor(base);
                    let more = left.min(u64::from(layer.ceiling() - floor));
                    left -= more;
                    self.tell(key, now, floor + more as u32, layer)
                });
            }
            shares.push(row);
        }
        shares
    }

    /// Forgets a track.
    pub(crate) fn forget(&mut self, track: TrackId) {
        self.told.retain(|(t, _), _| *t != track);
        self.dipped.retain(|(t, _), _| *t != track);
        self.dropped.retain(|(t, _), _| *t != track);
    }

    /// Which of the wanted layers are sent at all: as many as fit with their minimum, the lower ones of all tracks
    /// first. The most important track's lowest layer always is: with nothing to send nothing could be measured.
    fn choose(
        &mut self,
        now: Instant,
        total: Option<u64>,
        tracks: &[TrackDemand],
    ) -> BTreeSet<(TrackId, usize)> {
        let mut order = Vec::new();
        for (place, track) in tracks.iter().enumerate() {
            for (i, layer, base) in with_base(track).filter(|(_, layer, _)| layer.wanted) {
                order.push((i, std::cmp::Reverse(track.priority), place, track.track, layer.floor(base)));
            }
        }
        order.sort();
        let mut active = BTreeSet::new();
        let mut cut = BTreeSet::new();
        let mut used = 0;
        for (i, _, _, track, floor) in order {
            let key = (track, i);
            let needs = match self.dropped.get(&key) {
                Some(since) if now.saturating_duration_since(*since) < REJOIN_AFTER => {
                    REJOIN_AMPLE.saturating_mul(used + u64::from(floor)).saturating_sub(used)
                }
                Some(_) => (f64::from(floor) * REJOIN_MARGIN) as u64,
                None => u64::from(floor),
            };
            let fits = total.is_none_or(|total| needs.saturating_add(used) <= total);
            if active.is_empty() || (fits && !cut.contains(&track)) {
                used += u64::from(floor);
                active.insert(key);
                self.dropped.remove(&key);
            } else {
                cut.insert(track);
                self.dropped.entry(key).or_insert(now);
            }
        }
        active
    }

    /// Applies what was said before: less at once, more in steps, next to nothing not at all.
    fn tell(&mut self, key: (TrackId, usize), now: Instant, share: u32, layer: &LayerDemand) -> Share {
        let ceiling = layer.ceiling();
        let share = match self.told.get(&key) {
            None if layer.max == 0 && layer.start == 0 && share >= ceiling => return Share::Unlimited,
            None => share,
            Some(&(told, at)) => {
                let elapsed = now.saturating_duration_since(at);
                let dip =
                    self.dipped.get(&key).filter(|(_, at)| now.saturating_duration_since(*at) < DIP_MEMORY);
                let before = dip.map_or(0, |(before, _)| share.min(*before));
                if share < scaled(told, DOWN_STEP) || told > ceiling {
                    if dip.is_none() {
                        self.dipped.insert(key, (told, now));
                    }
                    share
                } else if before > scaled(told, 2.0 - DOWN_STEP) {
                    before
                } else if share > told
                    && elapsed >= UP_INTERVAL
                    && (share == ceiling || share > scaled(told, 2.0 - DOWN_STEP))
                {
                    let far = share > scaled(told, CATCH_UP_ABOVE);
                    let step = if far { RECOVER_STEP } else { UP_STEP };
                    let steps = (elapsed.as_secs_f64() / UP_INTERVAL.as_secs_f64()).min(2.0);
                    share.min(scaled(told, step.powf(steps)))
                } else {
                    return Share::Bitrate(told);
                }
            }
        };
        self.told.insert(key, (share, now));
        Share::Bitrate(share)
    }
}

/// Layers with their place, and whether they are the lowest.
fn with_base(track: &TrackDemand) -> impl Iterator<Item = (usize, &LayerDemand, bool)> {
    track.layers.iter().enumerate().map(|(i, layer)| (i, layer, i == 0))
}

/// Each track's part of the total: by weight, within what its active layers need and can use.
fn budgets(total: Option<u64>, tracks: &[TrackDemand], active: &BTreeSet<(TrackId, usize)>) -> Vec<u64> {
    let limits: Vec<(f64, f64, f64)> = tracks
        .iter()
        .map(|track| {
            let layers = with_base(track).filter(|(i, _, _)| active.contains(&(track.track, *i)));
            let (mut low, mut high) = (0.0, 0.0);
            for (_, layer, base) in layers {
                low += f64::from(layer.floor(base));
                high += f64::from(layer.ceiling());
            }
            (f64::from(track.priority.max(1)), low, high)
        })
        .collect();
    let part = |level: f64| limits.iter().map(move |(weight, low, high)| (level * weight).clamp(*low, *high));
    let Some(total) = total.map(|t| t as f64) else { return limits.iter().map(|l| l.2 as u64).collect() };
    // The level at which the parts add up: found by halving, because minima and maxima make the sum a broken line.
    let (mut low, mut high) = (0.0, limits.iter().map(|l| l.2 / l.0).fold(0.0, f64::max));
    for _ in 0..48 {
        let middle = (low + high) / 2.0;
        match part(middle).sum::<f64>() > total {
            true => high = middle,
            false => low = middle,
        }
    }
    part(low).map(|p| p.round() as u64).collect()
}

fn scaled(bitrate: u32, factor: f64) -> u32 {
    // A float that does not fit saturates.
    (f64::from(bitrate) * factor) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn layer(min: u32, max: u32) -> LayerDemand {
        LayerDemand { min: min * 1000, max: max * 1000, wanted: true, ..LayerDemand::default() }
    }

    fn track(id: u64, priority: u32, layers: &[LayerDemand]) -> TrackDemand {
        TrackDemand { track: TrackId(id), priority, layers: layers.to_vec() }
    }

    /// Shares in kbit/s; -1 = paused, -2 = idle, -3 = unlimited. Far enough apart that no step limit applies.
    fn fresh(total: u64, tracks: &[TrackDemand]) -> Vec<Vec<i64>> {
        kbit(&Allocator::default().allocate(Instant::now(), Some(total * 1000), tracks))
    }

    fn kbit(shares: &[Vec<Share>]) -> Vec<Vec<i64>> {
        let number = |s: &Share| match s {
            Share::Bitrate(b) => (i64::from(*b) + 500) / 1000,
            Share::Paused => -1,
            Share::Idle => -2,
            Share::Unlimited => -3,
        };
        shares.iter().map(|row| row.iter().map(number).collect()).collect()
    }

    #[test]
    fn one_track_gets_all_within_its_limits() {
        let one = [track(1, 1, &[layer(200, 2500)])];
        assert_eq!(fresh(1000, &one), [[1000]]);
        assert_eq!(fresh(9000, &one), [[2500]]);
        assert_eq!(fresh(100, &one), [[200]], "the last layer is never dropped");
    }

    #[test]
    fn tracks_share_by_weight() {
        let two = [track(1, 3, &[layer(100, 2500)]), track(2, 1, &[layer(100, 2500)])];
        assert_eq!(fresh(2000, &two), [[1500], [500]]);
        assert_eq!(fresh(300, &two), [[200], [100]], "the minimum goes before the weight");
        assert_eq!(fresh(4000, &two), [[2500], [1500]], "what one can't use is the other's");
        assert_eq!(fresh(90_000, &two), [[2500], [2500]]);
    }

    #[test]
    fn a_weight_of_zero_counts_as_one() {
        let two = [track(1, 0, &[layer(0, 2500)]), track(2, 1, &[layer(0, 2500)])];
        assert_eq!(fresh(1000, &two), [[500], [500]]);
    }

    #[test]
    fn whole_layers_drop_first_and_the_highest_of_them_first() {
        let simulcast = [track(1, 1, &[layer(100, 200), layer(300, 700), layer(1000, 2500)])];
        assert_eq!(fresh(3400, &simulcast), [[200, 700, 2500]]);
        assert_eq!(fresh(1500, &simulcast), [[200, 300, 1000]], "all minima fit, the lower are filled first");
        assert_eq!(fresh(1399, &simulcast), [[200, 700, -1]]);
        assert_eq!(fresh(399, &simulcast), [[200, -1, -1]]);
        assert_eq!(fresh(50, &simulcast), [[100, -1, -1]]);
    }

    #[test]
    fn the_high_layer_of_the_less_important_track_goes_first() {
        let layers = [layer(100, 200), layer(600, 1500)];
        let two = [track(1, 1, &layers), track(2, 2, &layers)];
        assert_eq!(fresh(1399, &two), [[200, -1], [200, 999]]);
        assert_eq!(fresh(150, &two), [[-1, -1], [150, -1]], "even the lowest, where not both fit");
    }

    #[test]
    fn a_higher_layer_is_not_kept_without_the_lower() {
        // The middle layer does not fit, the high one would.
        let odd = [track(1, 1, &[layer(100, 200), layer(900, 1000), layer(300, 600)])];
        assert_eq!(fresh(700, &odd), [[200, -1, -1]]);
    }

    #[test]
    fn nobody_watching_means_nothing_and_the_others_have_it() {
        let mut two = [track(1, 1, &[layer(100, 2500)]), track(2, 1, &[layer(100, 2500)])];
        two[0].layers[0].wanted = false;
        assert_eq!(fresh(1000, &two), [[-2], [1000]]);
        two[1].layers[0].wanted = false;
        assert_eq!(fresh(1000, &two), [[-2], [-2]]);
        assert_eq!(Allocator::demand(&two, 0).max, 0);
        assert_eq!(fresh(1000, &[]), Vec::<Vec<i64>>::new());
    }

    #[test]
    fn before_the_first_estimate_each_starts_as_it_wants() {
        let start = LayerDemand { start: 800_000, ..layer(100, 2500) };
        let odd = LayerDemand { start: 9_000_000, ..layer(100, 2500) };
        let open = LayerDemand { wanted: true, ..LayerDemand::default() };
        let tracks = [
            track(1, 1, &[start]),
            track(2, 1, &[layer(100, 2500)]),
            track(3, 1, &[odd]),
            track(4, 1, &[open]),
        ];
        let shares = Allocator::default().allocate(Instant::now(), None, &tracks);
        assert_eq!(kbit(&shares), [[800], [2500], [2500], [-3]]);
        assert_eq!(Allocator::demand(&tracks, 64).start, 800_000 + 3 * 2_500_000);
    }

    #[test]
    fn without_a_maximum_what_the_encoder_makes_is_its_measure() {
        let open = LayerDemand { wanted: true, observed: 4_000_000, ..LayerDemand::default() };
        let replays = LayerDemand { replays: true, ..open };
        let spare = |layer| Allocator::demand(&[track(1, 1, &[layer])], 0).spare;
        assert_eq!(
            (spare(open), spare(replays)),
            (0, 12_000_000),
            "room to send a group again beside the live frames"
        );
        assert_eq!(spare(LayerDemand { wanted: false, ..replays }), 0);
        let one = [track(1, 1, &[open])];
        assert_eq!(Allocator::demand(&one, 0).max, 5_000_000);
        assert_eq!(fresh(6000, &one), [[-3]], "nothing to say");
        assert_eq!(fresh(3000, &one), [[3000]]);
        let mut a = Allocator::default();
        let t = Instant::now();
        a.allocate(t, Some(3_000_000), &one);
        let shares = a.allocate(t + 500 * MS, Some(90_000_000), &one);
        assert_eq!(kbit(&shares), [[4688]], "once limited, the way back is told");
    }

    #[test]
    fn an_upper_layer_without_a_minimum_needs_a_quarter_of_its_maximum() {
        let simulcast = [track(1, 1, &[layer(0, 200), layer(0, 2000)])];
        assert_eq!(fresh(530, &simulcast), [[30, 500]]);
        assert_eq!(fresh(529, &simulcast), [[200, -1]]);
    }

    #[test]
    fn less_is_told_at_once_and_more_in_steps() {
        let one = [track(1, 1, &[layer(100, 2500)])];
        let mut a = Allocator::default();
        let t = Instant::now();
        let mut at = |ms: u32, total: u64| kbit(&a.allocate(t + ms * MS, Some(total * 1000), &one))[0][0];
        assert_eq!(at(0, 2000), 2000);
        assert_eq!(at(100, 1950), 2000, "less than 3 % is not worth telling");
        assert_eq!(at(200, 1000), 1000);
        assert_eq!(at(1300, 1010), 1000);
        assert_eq!(at(1350, 1040), 1040);
        assert_eq!(at(1500, 1400), 1040, "not yet");
        assert_eq!(at(1600, 1400), 1144);
        assert_eq!(at(1850, 1160), 1144);
        assert_eq!(at(1950, 1196), 1196);
        assert_eq!(at(5000, 1600), 1447, "a long pause makes no giant step");
        assert_eq!(at(5250, 9000), 1809, "far from its share a layer goes faster");
    }

    #[test]
    fn a_dip_that_is_taken_back_is_undone_at_once() {
        let one = [track(1, 1, &[layer(30, 2500)])];
        let mut a = Allocator::default();
        let t = Instant::now();
        let mut at = |ms: u32, total: u64| kbit(&a.allocate(t + ms * MS, Some(total * 1000), &one))[0][0];
        assert_eq!((at(0, 1000), at(100, 500), at(200, 50)), (1000, 500, 50));
        assert_eq!(at(300, 800), 800);
        assert_eq!(at(400, 1500), 1000, "but not to more than before");
        assert_eq!((at(3000, 100), at(4100, 900)), (100, 156), "nor after a while");
    }

    #[test]
    fn the_last_little_step_to_the_maximum_is_told() {
        let one = [track(1, 1, &[layer(100, 2500)])];
        let mut a = Allocator::default();
        let t = Instant::now();
        a.allocate(t, Some(2_450_000), &one);
        assert_eq!(kbit(&a.allocate(t + 300 * MS, Some(9_000_000), &one)), [[2500]]);
    }

    #[test]
    fn a_dropped_layer_comes_back_with_room_to_spare_and_not_at_once() {
        let simulcast = [track(1, 1, &[layer(100, 200), layer(1000, 2000)])];
        let mut a = Allocator::default();
        let t = Instant::now();
        let mut high =
            |ms: u32, total: u64| kbit(&a.allocate(t + ms * MS, Some(total * 1000), &simulcast))[0][1];
        assert_eq!(high(0, 1500), 1300);
        assert_eq!(high(100, 1000), -1);
        assert_eq!(high(1000, 2199), -1, "too soon");
        assert_eq!(high(2200, 1299), -1, "fits, but barely");
        assert_eq!(high(2300, 1300), 1100);
        assert_eq!(high(2400, 1100), 1000, "and stays while it fits");
        assert_eq!(high(2500, 1000), -1);
        assert_eq!(high(2600, 2200), 2000, "it was only for a moment");
    }

    #[test]
    fn forgotten_tracks_leave_nothing_behind() {
        let mut a = Allocator::default();
        let t = Instant::now();
        a.allocate(t, Some(50_000), &[track(1, 1, &[layer(100, 200), layer(100, 200)])]);
        a.forget(TrackId(1));
        assert!(a.told.is_empty() && a.dropped.is_empty());
    }

    #[test]
    fn absurd_numbers_do_no_harm() {
        let huge = LayerDemand {
            min: u32::MAX,
            start: u32::MAX,
            max: u32::MAX,
            observed: u32::MAX,
            wanted: true,
            replays: true,
        };
        let tracks = [track(1, u32::MAX, &[huge, huge]), track(2, 1, &[LayerDemand { max: 0, ..huge }])];
        for total in [0, 1, u64::MAX] {
            let _ = fresh(total / 1000, &tracks);
        }
        let _ = Allocator::demand(&tracks, u64::MAX);
    }

    /// What is shared out adds up to the total, for every total between all minima and all maxima.
    #[test]
    fn nothing_is_lost_or_invented() {
        let tracks = [
            track(1, 5, &[layer(50, 150), layer(150, 500), layer(500, 1700)]),
            track(2, 1, &[layer(100, 2500)]),
            track(3, 2, &[layer(10, 80)]),
        ];
        for total in (850..4900).step_by(50) {
            let shares = fresh(total, &tracks);
            let sum: i64 = shares.iter().flatten().filter(|s| **s > 0).sum();
            assert!((sum - total as i64).abs() <= 5, "{total}: {shares:?}");
        }
    }
}
