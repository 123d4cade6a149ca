// SPDX-License-Identifier: MPL-2.0

//! Which pads make up which track. Pads with the same `track` are layers of one; any other pad is a track of its own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use livekit_session::{Session, Track, TrackConfig, TrackId};

use super::imp::LiveKitSink;
use super::log::CAT;
use super::session::{Held, Leaving};
use super::{Leaf, LiveKitSinkPad};

/// The most layers that LiveKit knows.
const MAX_LAYERS: usize = 3;
/// How long a group waits for the caps of all its pads. Then it is published with those that have them; one that
/// comes later has it published anew.
const GROUP_WAIT: Duration = Duration::from_secs(1);

/// What a pad feeds: a layer of a track, in the session of a generation.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub generation: u64,
    pub track: Arc<Track>,
    pub layer: usize,
}

/// The pads that feed a track, one for each layer.
#[derive(Debug)]
pub(crate) struct Feeders {
    pub pads: Vec<glib::WeakRef<LiveKitSinkPad>>,
    /// How many of them still do.
    pub open: usize,
}

impl Feeders {
    pub fn of<'a>(pads: impl IntoIterator<Item = &'a LiveKitSinkPad>) -> Self {
        let pads: Vec<_> = pads.into_iter().map(|pad| pad.downgrade()).collect();
        Self { open: pads.len(), pads }
    }

    /// The pad of a layer, if it is still there.
    pub fn pad(&self, layer: usize) -> Option<LiveKitSinkPad> {
        self.pads.get(layer)?.upgrade()
    }
}

/// What is known of the groups of a session, by the value of `track`.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: HashMap<String, Group>,
}

#[derive(Debug, Default)]
struct Group {
    generation: u64,
    /// Since when it waits for caps.
    waiting: Option<Instant>,
    /// What was published last.
    published: Option<(TrackId, TrackConfig)>,
    /// Conflicts that were told.
    told: BTreeSet<Conflict>,
}

impl Groups {
    /// The group of this name, as far as it is of this generation.
    fn group(&mut self, name: &str, generation: u64) -> &mut Group {
        let group = self.groups.entry(name.to_owned()).or_default();
        if group.generation != generation {
            *group = Group { generation, ..Group::default() };
        }
        group
    }
}

/// A pad of a group, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The pad's name.
    pub pad: String,
    /// What it would be as a track of its own; `None` = that is not known yet.
    pub config: Option<TrackConfig>,
    /// `track-name`, if that is set.
    pub track_name: Option<String>,
}

/// A setting of a pad that does not count, because the first pad of its track says something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conflict {
    pub pad: String,
    pub setting: &'static str,
    /// The pad whose setting counts.
    pub first: String,
}

/// A group as one track.
#[derive(Debug)]
pub(crate) struct Combined {
    pub config: TrackConfig,
    /// For each layer, the place of its pad among the members.
    pub order: Vec<usize>,
    pub conflicts: Vec<Conflict>,
}

/// Why pads can't be one track: the place of the pad that does not fit, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub member: usize,
    pub text: String,
}

/// The track that the members with a configuration make up; the smallest picture is the first layer.
///
/// Of what is one setting of a track, the first pad's counts. `None` = no member has a configuration.
pub(crate) fn combine(group: &str, members: &[Member]) -> Result<Option<Combined>, Misfit> {
    let known = || members.iter().enumerate().filter_map(|(at, m)| Some((at, m, m.config.as_ref()?)));
    if let Some((member, _, _)) = known().nth(MAX_LAYERS) {
        return Err(Misfit {
            member,
            text: format!(
                "track '{group}' has {MAX_LAYERS} pads already, and LiveKit knows no more layers. Give this pad \
                 another track, or none"
            ),
        });
    }
    let Some((_, first, base)) = known().next() else { return Ok(None) };
    for (member, _, config) in known().skip(1) {
        if config.codec != base.codec {
            return Err(Misfit {
                member,
                text: format!(
                    "track '{group}' is {} from {}, and this pad gets {}. All layers of a track need the same codec; \
                     give this pad another track",
                    base.codec, first.pad, config.codec
                ),
            });
        }
        if !config.codec.is_video() {
            return Err(Misfit {
                member,
                text: format!("only video has layers: give this pad another track than '{group}', or none"),
            });
        }
    }
    let mut order: Vec<usize> = known().map(|(at, _, _)| at).collect();
    // Layers of one size are told apart by their bitrate, and then by the order of the pads.
    let rank = |at: &usize| {
        let layer =
            members.get(*at).and_then(|m| m.config.as_ref()).map(TrackConfig::top_layer).unwrap_or_default();
        (u64::from(layer.width) * u64::from(layer.height), layer.max_bitrate, *at)
    };
    order.sort_by_key(rank);
    let mut config = base.clone();
    config.name = first.track_name.clone().unwrap_or_else(|| group.to_owned());
    config.layers =
        order.iter().filter_map(|at| members.get(*at)?.config.as_ref().map(TrackConfig::top_layer)).collect();
    config.muted = known().any(|(_, _, config)| config.muted);
    let mut conflicts = Vec::new();
    for (_, member, own) in known().skip(1) {
        let mut differs = |setting, differs: bool| {
            if differs {
                conflicts.push(Conflict { pad: member.pad.clone(), setting, first: first.pad.clone() });
            }
        };
        differs("track-name", member.track_name.is_some() && member.track_name != first.track_name);
        differs("source", own.source != base.source);
        differs("priority", own.priority != base.priority);
    }
    Ok(Some(Combined { config, order, conflicts }))
}

/// Whether two configurations are the same track for viewers and server.
fn same(a: &TrackConfig, b: &TrackConfig) -> bool {
    (a.codec, &a.name, a.source, &a.layers, a.priority) == (b.codec, &b.name, b.source, &b.layers, b.priority)
        && a.stereo == b.stereo
        && a.h264_profile == b.h264_profile
}

/// What came of looking at a group.
enum Looked {
    /// Nothing is to be done, or not now.
    Nothing,
    /// It waits from now on; somebody has to look again.
    Waits,
    /// It was published: by these, what they fed before, and what is to be warned of.
    Published(Vec<Leaf>, Vec<Feed>, Vec<Conflict>),
    /// A pad does not fit.
    Misfit(Leaf, String),
}

impl LiveKitSink {
    /// Publishes what came on `pad`, in the place of what was published before: a track of its own, or the track
    /// that it is a layer of. `hold` = the pipeline is to wait for it.
    pub(crate) fn publish_pad(&self, pad: &LiveKitSinkPad, leaf: &Leaf, hold: bool) {
        let effective = pad.imp().effective();
        if let Some(group) = effective.track {
            self.publish_group(&group, hold);
            return;
        }
        let old = leaf.imp().set_feed(None);
        let Some(config) = leaf.imp().config() else { return };
        if let Some(feed) = self.publish(pad, config, old, hold) {
            leaf.imp().set_feed(Some(feed));
            leaf.imp().apply_gop_cache();
        }
    }

    /// Publishes the track that the pads with this `track` are layers of, if it is another than before.
    fn publish_group(&self, name: &str, hold: bool) {
        if let Some((generation, session)) = self.session_for_data(hold) {
            self.update_group(name, generation, &session);
        }
    }

    /// A pad with this `track` is gone, or the time to wait for its caps is over.
    pub(crate) fn regroup(&self, name: &str) {
        let current = {
            let state = self.state();
            state.session.clone().filter(|_| state.leaving == Leaving::No)
        };
        if let Some((generation, session)) = current {
            self.update_group(name, generation, &session);
        }
    }

    fn update_group(&self, name: &str, generation: u64, session: &Session) {
        match self.look_at_group(name, generation, session) {
            Looked::Nothing => {}
            Looked::Waits => self.look_later(name),
            Looked::Published(leaves, replaced, conflicts) => {
                drop(replaced);
                for leaf in leaves {
                    leaf.imp().apply_gop_cache();
                }
                for Conflict { pad, setting, first } in conflicts {
                    gst::element_imp_warning!(
                        self,
                        gst::LibraryError::Settings,
                        ("{pad}: {setting} differs from that of {first}, which is of the same track and counts")
                    );
                }
            }
            Looked::Misfit(leaf, text) => leaf.imp().refuse_pad(&text),
        }
    }

    fn look_at_group(&self, name: &str, generation: u64, session: &Session) -> Looked {
        // One at a time: pads get their caps on threads of their own.
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pads = Vec::new();
        for pad in self.our_pads() {
            let settings = pad.imp().effective();
            if settings.track.as_deref() != Some(name) || pad.imp().is_released() {
                continue;
            }
            let Some(leaf) = self.leaf_of(&pad) else { continue };
            let member = Member {
                pad: pad.name().to_string(),
                config: leaf.imp().config(),
                track_name: settings.track_name,
            };
            pads.push((pad, leaf, member));
        }
        let members: Vec<Member> = pads.iter().map(|(_, _, member)| member.clone()).collect();
        let group = groups.group(name, generation);
        let published = group.published.as_ref().map(|(id, _)| *id);
        // The layer that a pad feeds now, if it is one of this track's.
        let fed = |leaf: &Leaf| {
            let feed = leaf.imp().feed().filter(|feed| feed.generation == generation)?;
            (Some(feed.track.id()) == published).then_some(feed.layer)
        };
        let alive = pads.iter().any(|(_, leaf, _)| fed(leaf).is_some());
        if !alive && members.iter().any(|m| m.config.is_none()) {
            let first = group.waiting.is_none();
            let since = *group.waiting.get_or_insert_with(Instant::now);
            if since.elapsed() < GROUP_WAIT {
                return if first { Looked::Waits } else { Looked::Nothing };
            }
        }
        let combined = match combine(name, &members) {
            Ok(Some(combined)) => combined,
            Ok(None) => return Looked::Nothing,
            Err(Misfit { member, text }) => {
                return match pads.get(member) {
                    Some((_, leaf, _)) => Looked::Misfit(leaf.clone(), text),
                    None => Looked::Nothing,
                };
            }
        };
        let chosen: Vec<_> = combined.order.iter().filter_map(|at| pads.get(*at)).collect();
        let names: Vec<_> = chosen.iter().map(|(_, _, member)| member.pad.clone()).collect();
        let as_before = group.published.as_ref().is_some_and(|(_, config)| same(config, &combined.config));
        if as_before && chosen.iter().enumerate().all(|(layer, (_, leaf, _))| fed(leaf) == Some(layer)) {
            return Looked::Nothing;
        }
        gst::info!(CAT, imp = self, "adding {:?} for {}", combined.config, names.join(", "));
        let Some(track) = self.add_track(
            generation,
            session,
            combined.config.clone(),
            Feeders::of(chosen.iter().map(|(pad, _, _)| pad)),
        ) else {
            return Looked::Nothing;
        };
        let mut replaced = Vec::new();
        for (layer, (_, leaf, _)) in chosen.iter().enumerate() {
            let feed = Feed { generation, track: track.clone(), layer };
            replaced.extend(leaf.imp().set_feed(Some(feed)));
        }
        self.replaced(generation, replaced.iter().map(|feed| feed.track.id()).collect());
        group.waiting = None;
        group.published = Some((track.id(), combined.config));
        let new = |conflict: &Conflict| group.told.insert(conflict.clone());
        let conflicts = combined.conflicts.into_iter().filter(new).collect();
        let leaves = chosen.iter().map(|(_, leaf, _)| leaf.clone()).collect();
        Looked::Published(leaves, replaced, conflicts)
    }

    /// Adds a track to the session, if that is still the current one.
    pub(crate) fn add_track(
        &self,
        generation: u64,
        session: &Session,
        config: TrackConfig,
        feeders: Feeders,
    ) -> Option<Arc<Track>> {
        self.tell_what_encryption_leaves_out(&config);
        let mut state = self.state();
        if state.session.as_ref().is_none_or(|(of, _)| *of != generation) {
            return None;
        }
        // Under the lock, so that the track's pads are known before the first event names the track;
        // adding a track only puts it into a queue.
        let track = session.add_track(config);
        let id = track.id();
        state.tracks.insert(id, feeders);
        state.usable.insert(id);
        state.preroll.added(Held::Track(id));
        Some(Arc::new(track))
    }

    /// Tracks in whose place another one stands now.
    pub(crate) fn replaced(&self, generation: u64, tracks: HashSet<TrackId>) {
        let mut state = self.state();
        // Ids count anew in each session.
        if state.session.as_ref().is_none_or(|(of, _)| *of != generation) {
            return;
        }
        for id in tracks {
            // Now that another one is waited for, this ends nothing.
            state.retire(id);
            state.preroll.settled(&Held::Track(id));
        }
    }

    /// Looks at a group again when its time to wait is over: a file that is held back has no frames to do it.
    fn look_later(&self, name: &str) {
        let clock = gst::SystemClock::obtain();
        let wait = gst::ClockTime::from_nseconds(super::settings::nanos(GROUP_WAIT));
        let timer = clock.new_single_shot_id(clock.time() + wait);
        let (sink, name) = (self.obj().downgrade(), name.to_owned());
        let armed = timer.wait_async(move |_, _, _| {
            // Not on the clock's own thread.
            if let Some(sink) = sink.upgrade() {
                super::workers::run(move || sink.imp().regroup(&name));
            }
        });
        if let Err(error) = armed {
            gst::warning!(CAT, imp = self, "no timer: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_session::{Codec, TrackSource};

    fn member(pad: &str, width: u32) -> Member {
        let mut config = TrackConfig::new(Codec::H264, pad);
        let layer = &mut config.layers[0];
        (layer.width, layer.height, layer.max_bitrate) = (width, width * 9 / 16, width * 1000);
        Member { pad: pad.into(), config: Some(config), track_name: None }
    }

    fn combined(members: &[Member]) -> Combined {
        combine("cam", members).unwrap().unwrap()
    }

    #[test]
    fn layers_are_ordered_by_size_whatever_the_order_of_the_pads() {
        let track = combined(&[member("video_0", 1280), member("video_1", 320), member("video_2", 640)]);
        assert_eq!(track.order, [1, 2, 0]);
        let widths: Vec<_> = track.config.layers.iter().map(|l| l.width).collect();
        assert_eq!(widths, [320, 640, 1280]);
        assert_eq!(track.config.name, "cam", "no pad says another name");
        assert!(track.conflicts.is_empty());
    }

    #[test]
    fn equal_sizes_are_ordered_by_bitrate_and_then_by_pad() {
        let mut rich = member("video_0", 640);
        rich.config.as_mut().unwrap().layers[0].max_bitrate = 2_000_000;
        assert_eq!(combined(&[rich, member("video_1", 640)]).order, [1, 0]);
        assert_eq!(combined(&[member("video_0", 640), member("video_1", 640)]).order, [0, 1]);
    }

    #[test]
    fn pads_without_caps_are_left_out() {
        let unknown = Member { config: None, ..member("video_0", 1) };
        let track = combined(&[unknown.clone(), member("video_1", 640)]);
        assert_eq!((track.order, track.config.layers.len()), (vec![1], 1));
        assert!(combine("cam", &[unknown]).unwrap().is_none());
        assert!(combine("cam", &[]).unwrap().is_none());
    }

    #[test]
    fn the_first_pads_settings_count_and_differences_are_told() {
        let mut first = member("video_0", 640);
        first.track_name = Some("front".into());
        first.config.as_mut().unwrap().priority = 3;
        let mut second = member("video_1", 320);
        second.track_name = Some("back".into());
        let config = second.config.as_mut().unwrap();
        (config.source, config.muted) = (TrackSource::ScreenShare, true);
        let track = combined(&[first, second, member("video_2", 1280)]);
        assert_eq!((track.config.name.as_str(), track.config.priority), ("front", 3));
        assert_eq!(track.config.source, TrackSource::Camera);
        assert!(track.config.muted, "muted is the whole track or nothing");
        let told: Vec<_> = track.conflicts.iter().map(|c| (c.pad.as_str(), c.setting)).collect();
        assert_eq!(
            told,
            [
                ("video_1", "track-name"),
                ("video_1", "source"),
                ("video_1", "priority"),
                ("video_2", "priority")
            ]
        );
    }

    #[test]
    fn pads_that_do_not_fit_are_named_with_a_way_out() {
        let four: Vec<_> = (0..4).map(|n| member(&format!("video_{n}"), 320 << n)).collect();
        let misfit = combine("cam", &four).unwrap_err();
        assert_eq!(misfit.member, 3);
        assert!(misfit.text.contains("'cam'") && misfit.text.contains('3'), "{}", misfit.text);
        let mut other = member("video_1", 320);
        other.config.as_mut().unwrap().codec = Codec::Vp8;
        let misfit = combine("cam", &[member("video_0", 640), other]).unwrap_err();
        assert_eq!(misfit.member, 1);
        assert!(misfit.text.contains("VP8") && misfit.text.contains("H.264"), "{}", misfit.text);
        let sound = || Member {
            pad: "audio_0".into(),
            config: Some(TrackConfig::new(Codec::Opus, "a")),
            track_name: None,
        };
        assert!(combine("cam", &[sound()]).unwrap().is_some());
        assert!(combine("cam", &[sound(), sound()]).unwrap_err().text.contains("only video"));
    }

    #[test]
    fn a_track_is_another_when_anything_of_it_changes_but_its_muting() {
        let track = |members: &[Member]| combined(members).config;
        let base = track(&[member("video_0", 640), member("video_1", 320)]);
        let mut muted = base.clone();
        muted.muted = true;
        assert!(same(&base, &muted));
        assert!(!same(&base, &track(&[member("video_0", 640), member("video_1", 160)])));
        assert!(!same(&base, &track(&[member("video_0", 640)])));
        let mut other = base.clone();
        other.codec = Codec::Vp8;
        assert!(!same(&base, &other));
    }

    /// A sink whose pads, all of one track, got caps with these widths; `None` = none yet.
    fn sink_with(widths: &[Option<u32>]) -> (super::super::LiveKitSink, Vec<LiveKitSinkPad>) {
        gst::init().unwrap();
        let sink: super::super::LiveKitSink = glib::Object::builder()
            .property("url", "ws://127.0.0.1:1")
            .property("api-key", "k")
            .property("api-secret", "s")
            .property("room", "r")
            .build();
        let _ = sink.set_state(gst::State::Playing);
        let pads = widths.iter().map(|width| {
            let pad: LiveKitSinkPad = sink.request_pad_simple("video_%u").and_downcast().unwrap();
            pad.set_property("track", "cam");
            caps(&sink, &pad, *width);
            pad
        });
        let pads = pads.collect();
        (sink, pads)
    }

    fn leaf(sink: &super::super::LiveKitSink, pad: &LiveKitSinkPad) -> Leaf {
        sink.imp().leaf_of(pad).unwrap()
    }

    fn caps(sink: &super::super::LiveKitSink, pad: &LiveKitSinkPad, width: Option<u32>) {
        leaf(sink, pad).imp().set_config(width.and_then(|width| member(&pad.name(), width).config));
    }

    /// The track and layer that each pad feeds.
    fn feeds(sink: &super::super::LiveKitSink, pads: &[LiveKitSinkPad]) -> Vec<Option<(TrackId, usize)>> {
        let feed = |pad| leaf(sink, pad).imp().feed().map(|feed| (feed.track.id(), feed.layer));
        pads.iter().map(feed).collect()
    }

    #[test]
    fn a_group_is_published_when_its_last_pad_has_caps() {
        let (sink, pads) = sink_with(&[Some(1280), Some(320), None]);
        let begin = Instant::now();
        for pad in &pads[..2] {
            sink.imp().publish_pad(pad, &leaf(&sink, pad), false);
        }
        // It does not wait for ever, not for a test that gets no processor either.
        assert!(feeds(&sink, &pads) == [None; 3] || begin.elapsed() >= GROUP_WAIT);
        caps(&sink, &pads[2], Some(640));
        sink.imp().publish_pad(&pads[2], &leaf(&sink, &pads[2]), false);
        let now = feeds(&sink, &pads);
        let id = now[0].unwrap().0;
        assert_eq!(now, [Some((id, 2)), Some((id, 0)), Some((id, 1))]);
        for (layer, pad) in [(2, 0), (0, 1), (1, 2)] {
            assert_eq!(sink.imp().pad_of(&id, layer).as_ref(), Some(&pads[pad]), "events find their pad");
        }
        sink.imp().publish_pad(&pads[0], &leaf(&sink, &pads[0]), false);
        assert_eq!(feeds(&sink, &pads), now, "nothing changed");
        // A change of size of one layer changes the track, and their order.
        caps(&sink, &pads[0], Some(160));
        sink.imp().publish_pad(&pads[0], &leaf(&sink, &pads[0]), false);
        let after = feeds(&sink, &pads);
        let new = after[0].unwrap().0;
        assert_ne!(new, id);
        assert_eq!(after, [Some((new, 0)), Some((new, 1)), Some((new, 2))]);
        assert!(!sink.imp().state().usable.contains(&id) && sink.imp().state().usable.contains(&new));
        // The others go on without a pad that leaves, and end with the last one.
        sink.release_request_pad(&pads[1]);
        let left = feeds(&sink, &[pads[0].clone(), pads[2].clone()]);
        let last = left[0].unwrap().0;
        assert_ne!(last, new);
        assert_eq!(left, [Some((last, 0)), Some((last, 1))]);
        leaf(&sink, &pads[0]).imp().close();
        assert!(sink.imp().state().usable.contains(&last), "one pad still feeds it");
        leaf(&sink, &pads[2]).imp().close();
        assert!(!sink.imp().state().usable.contains(&last));
        // … and come back as what they were.
        sink.imp().publish_pad(&pads[0], &leaf(&sink, &pads[0]), false);
        assert!(feeds(&sink, &pads[..1])[0].is_some());
        sink.set_state(gst::State::Null).unwrap();
    }

    #[test]
    fn a_group_does_not_wait_for_ever_and_takes_in_who_comes_late() {
        let (sink, pads) = sink_with(&[Some(640), None]);
        let begin = Instant::now();
        sink.imp().publish_pad(&pads[0], &leaf(&sink, &pads[0]), true);
        while feeds(&sink, &pads)[0].is_none() {
            assert!(begin.elapsed() < 60 * GROUP_WAIT, "nobody looked again");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(begin.elapsed() >= GROUP_WAIT);
        let alone = feeds(&sink, &pads)[0].unwrap();
        assert_eq!(alone.1, 0);
        caps(&sink, &pads[1], Some(320));
        sink.imp().publish_pad(&pads[1], &leaf(&sink, &pads[1]), true);
        let both = feeds(&sink, &pads);
        let id = both[0].unwrap().0;
        assert_ne!(id, alone.0);
        assert_eq!(both, [Some((id, 1)), Some((id, 0))]);
        sink.set_state(gst::State::Null).unwrap();
    }

    #[test]
    fn muting_one_pad_mutes_its_track_and_the_others_follow() {
        let (sink, pads) = sink_with(&[Some(640), Some(320)]);
        sink.imp().publish_pad(&pads[0], &leaf(&sink, &pads[0]), false);
        let feed = leaf(&sink, &pads[0]).imp().feed().unwrap();
        pads[1].set_property("muted", true);
        let begin = Instant::now();
        while !pads[0].property::<bool>("muted") {
            assert!(begin.elapsed() < Duration::from_secs(60), "the other pad does not know");
            std::thread::sleep(Duration::from_millis(5));
        }
        // What is published anew stays muted.
        caps(&sink, &pads[0], Some(1280));
        sink.imp().publish_pad(&pads[0], &leaf(&sink, &pads[0]), false);
        assert!(leaf(&sink, &pads[0]).imp().config().unwrap().muted);
        // The element's property is for all of them.
        sink.set_property("muted", false);
        assert!(pads.iter().all(|pad| !pad.property::<bool>("muted")));
        drop(feed);
        sink.set_state(gst::State::Null).unwrap();
    }
}
