// SPDX-License-Identifier: MPL-2.0

//! `livekitsink` itself: pads, states, messages, properties.

use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::chain::leaf_name;
use super::feedback::Inbox;
use super::log::CAT;
use super::session::{Leaving, State};
use super::settings::{self, Settings};
use super::tracks::Groups;
use super::{AllowProfiles, Leaf, LiveKitSinkDataPad, LiveKitSinkPad, codecs, data, encryption, stats};

pub struct LiveKitSink {
    settings: Mutex<Settings>,
    pub(crate) state: Mutex<State>,
    /// [`Leaving::Rejoining`] is over.
    pub(crate) rejoined: Condvar,
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) inbox_empty: Condvar,
    pub(crate) generation: AtomicU64,
    /// Taken before any other lock.
    pub(crate) groups: Mutex<Groups>,
    default_identity: String,
}

impl LiveKitSink {
    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn identity(&self) -> String {
        self.settings().identity.clone().unwrap_or_else(|| self.default_identity.clone())
    }

    /// The end of `pad`'s chain.
    pub(crate) fn leaf_of(&self, pad: &LiveKitSinkPad) -> Option<Leaf> {
        self.obj().by_name(&leaf_name(pad)).and_downcast()
    }

    pub(crate) fn our_pads(&self) -> Vec<LiveKitSinkPad> {
        self.obj().sink_pads().into_iter().filter_map(|pad| pad.downcast().ok()).collect()
    }

    /// A name for a new pad: the wanted one, else the first free one. `None` = taken, or not one of ours.
    fn pad_name(&self, templ: &gst::PadTemplate, wanted: Option<&str>) -> Option<String> {
        let prefix = templ.name_template().trim_end_matches("%u").to_string();
        let free = |name: &String| self.obj().static_pad(name).is_none();
        match wanted {
            Some(name) if name.contains('%') => (0..).map(|n: u32| format!("{prefix}{n}")).find(free),
            Some(name) => {
                name.strip_prefix(&prefix)?.parse::<u32>().ok()?;
                Some(name.to_string()).filter(free)
            }
            None => (0..).map(|n: u32| format!("{prefix}{n}")).find(free),
        }
    }

    fn sink_event(&self, pad: &LiveKitSinkPad, event: gst::Event) -> bool {
        if let gst::EventView::Caps(caps) = event.view() {
            let caps = caps.caps_owned();
            return self.caps_event(pad, &caps, event);
        }
        if event.type_() == gst::EventType::StreamStart {
            // Before any of its frames is encoded.
            self.prepare_encoder(pad);
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// Takes new caps, or says in plain words why not.
    fn caps_event(&self, pad: &LiveKitSinkPad, caps: &gst::Caps, event: gst::Event) -> bool {
        if !codecs::accepts(is_video(pad), caps) {
            let takes = codecs::template_caps(is_video(pad));
            let takes: Vec<_> = takes.iter().map(|s| s.name().to_string()).collect();
            gst::element_imp_error!(
                self,
                gst::StreamError::WrongType,
                (
                    "{} got {}, which it can't take. It takes {}: put an encoder or a demuxer in front",
                    pad.name(),
                    shortened(caps),
                    takes.join(", ")
                )
            );
            return false;
        }
        if caps.structure(0).is_some_and(|structure| !codecs::has_sound_codec_data(structure)) {
            self.refused_by_parser(pad, caps);
            return false;
        }
        if !self.prepare_chain(pad, caps) {
            return false;
        }
        let taken = gst::Pad::event_default(pad, Some(&*self.obj()), event);
        let refused = self.leaf_of(pad).is_none_or(|leaf| leaf.imp().is_refused());
        // Neither said already, nor the end of the pad.
        if !taken && !refused && !pad.pad_flags().contains(gst::PadFlags::FLUSHING) {
            self.refused_by_parser(pad, caps);
        }
        taken
    }

    fn refused_by_parser(&self, pad: &LiveKitSinkPad, caps: &gst::CapsRef) {
        gst::element_imp_error!(
            self,
            gst::StreamError::Format,
            (
                "{}: no parser can read this stream: its codec_data is broken or missing. Let the source repeat its \
                 parameter sets in a byte stream, or repair the file. Its caps say: {}",
                pad.name(),
                shortened(caps)
            )
        );
    }

    fn sink_query(&self, pad: &LiveKitSinkPad, query: &mut gst::QueryRef) -> bool {
        let video = is_video(pad);
        match query.view_mut() {
            gst::QueryViewMut::Caps(q) => {
                // Encoders negotiate with a filter. Without one it is a link that is being checked, and a
                // stream of a refused profile had better get through, to be refused in plain words.
                let profiles = match q.filter() {
                    Some(_) => pad.imp().effective().allow_profiles.unwrap_or_default(),
                    None => AllowProfiles::Any,
                };
                let mut caps = codecs::offered_caps(video, profiles);
                if let Some(filter) = q.filter() {
                    // Ours first: the order of the profiles is the point.
                    caps = caps.intersect_with_mode(filter, gst::CapsIntersectMode::First);
                }
                q.set_result(&caps);
                true
            }
            gst::QueryViewMut::AcceptCaps(q) => {
                // Of caps that are on their way it is better said in words what is wrong with them.
                let accepted = q.caps().is_fixed() || codecs::accepts(video, q.caps());
                q.set_result(accepted);
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    fn new_leaf(&self, pad: &LiveKitSinkPad) -> Result<(), glib::BoolError> {
        let leaf: Leaf = glib::Object::builder().property("name", leaf_name(pad)).build();
        leaf.imp().attach(&self.obj(), pad);
        self.obj().add(&leaf)?;
        pad.set_target(leaf.static_pad("sink").as_ref())?;
        leaf.sync_state_with_parent()
    }
}

/// Caps as text that fits a message.
fn shortened(caps: &gst::CapsRef) -> String {
    let text = caps.to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

pub(crate) fn is_video(pad: &LiveKitSinkPad) -> bool {
    pad.pad_template().is_some_and(|templ| templ.name_template().starts_with("video"))
}

#[glib::object_subclass]
impl ObjectSubclass for LiveKitSink {
    const NAME: &'static str = "GstLiveKitSink";
    type Type = super::LiveKitSink;
    type ParentType = gst::Bin;
    type Interfaces = (gst::ChildProxy,);

    fn new() -> Self {
        Self {
            settings: Mutex::default(),
            state: Mutex::default(),
            rejoined: Condvar::new(),
            inbox: Mutex::default(),
            inbox_empty: Condvar::new(),
            generation: AtomicU64::new(0),
            groups: Mutex::default(),
            default_identity: settings::default_identity(),
        }
    }
}

impl ObjectImpl for LiveKitSink {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.settings().set(pspec.name(), value);
        let leaves = || self.our_pads().into_iter().filter_map(|pad| self.leaf_of(&pad));
        match pspec.name() {
            "sync" => {
                leaves().for_each(|leaf| leaf.imp().apply_sync(self));
                self.apply_sync_to_data();
            }
            "gop-cache" | "gop-cache-time" => leaves().for_each(|leaf| leaf.imp().apply_gop_cache()),
            "participant-name" | "metadata" | "attributes" => self.describe(),
            "e2ee-key" | "e2ee-key-index" => self.rekey(pspec.name()),
            _ => {}
        }
        if pspec.name() == "muted" {
            for pad in self.our_pads() {
                pad.imp().follow_muted();
            }
        }
        if matches!(pspec.name(), "bitrate-feedback" | "share-encoder" | "pause-upstream") {
            for pad in self.our_pads() {
                self.retarget(&pad);
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "identity" => self.identity().to_value(),
            "connection-state" => self.state().connection_state.to_value(),
            "stats" => self.stats().to_value(),
            name => self.settings().get(name).unwrap_or_else(|| pspec.default_value().clone()),
        }
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            vec![
                // Asks for an access token; emitted before every attempt to connect, from a thread of its own,
                // so that a handler may take its time. The first handler that returns one wins.
                glib::subclass::Signal::builder("request-token")
                    .run_last()
                    .return_type::<Option<String>>()
                    .accumulator(|_hint, _so_far, value| match value.get::<Option<&str>>() {
                        Ok(Some(_)) => std::ops::ControlFlow::Break(value.clone()),
                        _ => std::ops::ControlFlow::Continue(value.clone()),
                    })
                    .build(),
            ]
            .into_iter()
            .chain(data::signals())
            .chain(encryption::signals())
            .collect()
        });
        SIGNALS.as_ref()
    }

    fn constructed(&self) {
        self.parent_constructed();
        // A bin is a sink only while it has sinks in it; this one is one from the start.
        self.obj().set_suppressed_flags(gst::ElementFlags::SINK | gst::ElementFlags::SOURCE);
        self.obj().set_element_flags(gst::ElementFlags::SINK);
    }
}

impl LiveKitSink {
    fn stats(&self) -> gst::Structure {
        let session = self.state().session.clone();
        let snapshot = session.map(|(_, session)| session.stats()).unwrap_or_default();
        let pads: Vec<Option<LiveKitSinkPad>> = {
            let state = self.state();
            let pad = |stats: &livekit_session::TrackStats| {
                // Of a track that was replaced, its pad has another one by now.
                let id = stats.track.filter(|id| !state.retired.contains(id))?;
                state.tracks.get(&id)?.pad(stats.layer)
            };
            snapshot.tracks.iter().map(pad).collect()
        };
        let with_early = |pad: &LiveKitSinkPad| {
            let early = self.leaf_of(pad).map_or(0, |leaf| leaf.imp().early());
            (pad.name().to_string(), early)
        };
        let pads: Vec<_> = pads.iter().map(|pad| pad.as_ref().map(with_early)).collect();
        let mut all = stats::structure(&snapshot, &self.identity(), &pads);
        let unheard = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).unheard;
        all.set("data", data::structure(&snapshot.data, unheard));
        if let Some(e2ee) = self.e2ee() {
            all.set("e2ee", encryption::structure(e2ee.stats()));
        }
        for (name, counters) in self.data_pad_stats() {
            all.set(name, counters);
        }
        all
    }
}

impl GstObjectImpl for LiveKitSink {}

impl ElementImpl for LiveKitSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "LiveKit sink",
                "Sink/Network/WebRTC",
                "Publishes encoded video (H.264, H.265, VP8, VP9, AV1) and audio (Opus, or raw) into a LiveKit room",
                "The gst-livekit-boards authors",
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, video| {
                let caps = codecs::template_caps(video);
                gst::PadTemplate::with_gtype(
                    name,
                    gst::PadDirection::Sink,
                    gst::PadPresence::Request,
                    &caps,
                    LiveKitSinkPad::static_type(),
                )
            };
            // Last, so that it is nobody's first choice.
            let data = gst::PadTemplate::with_gtype(
                data::TEMPLATE,
                gst::PadDirection::Sink,
                gst::PadPresence::Request,
                &data::template_caps(),
                LiveKitSinkDataPad::static_type(),
            );
            let tracks = [template("video_%u", true), template("audio_%u", false)];
            tracks.into_iter().chain([data]).flatten().collect()
        });
        TEMPLATES.as_ref()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let mut joining = false;
        match transition {
            gst::StateChange::NullToReady => self.configure()?,
            gst::StateChange::ReadyToPaused => {
                // While no encoder runs yet: states change from the sinks to the sources.
                for pad in self.our_pads() {
                    self.prepare_encoder(&pad);
                }
                // A state that was asked for directly (by a running pipeline that this element was put
                // into): what runs already is not to be stopped for us.
                joining = self.obj().pending_state() != gst::State::Playing;
                if joining {
                    self.state().preroll.start();
                    self.post_async_start();
                }
                if let Err(error) = self.start_session() {
                    self.end_preroll("no session");
                    return Err(error);
                }
            }
            gst::StateChange::PausedToReady => {
                // Before the pads stop, so that the room is left while they do.
                let session = {
                    let mut state = self.state();
                    state.leaving = Leaving::Stopping;
                    state.session.clone()
                };
                self.rejoined.notify_all();
                if let Some((_, session)) = session {
                    session.leave();
                }
            }
            _ => (),
        }

        let result = self.parent_change_state(transition);

        match transition {
            gst::StateChange::ReadyToPaused if result.is_err() => {
                self.end_preroll("state change failed");
                self.stop_session();
                result
            }
            gst::StateChange::ReadyToPaused if joining => Ok(gst::StateChangeSuccess::Async),
            gst::StateChange::PausedToReady => {
                self.end_preroll("stopping");
                self.stop_session();
                for pad in self.our_pads() {
                    self.let_go(&pad);
                }
                result
            }
            gst::StateChange::ReadyToNull => {
                self.state().config = None;
                result
            }
            _ => result,
        }
    }

    fn request_new_pad(
        &self,
        templ: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let Some(name) = self.pad_name(templ, name) else {
            gst::warning!(
                CAT,
                imp = self,
                "no pad {name:?}: taken, or not of the form {}",
                templ.name_template()
            );
            return None;
        };
        if templ.name_template() == data::TEMPLATE {
            let pad = self.new_data_pad(templ, &name);
            let pad =
                pad.inspect_err(|error| gst::error!(CAT, imp = self, "cannot add {name}: {error}")).ok()?;
            self.obj().child_added(&pad, &name);
            return Some(pad);
        }
        let pad = gst::PadBuilder::<LiveKitSinkPad>::from_template(templ)
            .name(&name)
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, query))
            })
            .build();
        let running = self.state().session.is_some();
        let added = self
            .new_leaf(&pad)
            .and_then(|()| if running { pad.set_active(true) } else { Ok(()) })
            .and_then(|()| self.obj().add_pad(&pad));
        if let Err(error) = added {
            gst::error!(CAT, imp = self, "cannot add {name}: {error}");
            self.remove_chain(&pad);
            return None;
        }
        // gst-launch sets `video_0::…` only now.
        self.obj().child_added(&pad, &name);
        Some(pad.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let mut track = None;
        if let Some(pad) = pad.downcast_ref::<LiveKitSinkPad>() {
            track = pad.imp().effective().track;
            pad.imp().release();
            self.let_go(pad);
            self.remove_chain(pad);
        } else if let Some(pad) = pad.downcast_ref::<LiveKitSinkDataPad>() {
            self.remove_data_leaf(pad);
            self.data_ended();
        }
        let Some(pad) = pad.downcast_ref::<gst::GhostPad>() else { return };
        let name = pad.name();
        let _ = pad.set_active(false);
        let _ = pad.set_target(gst::Pad::NONE);
        let _ = self.obj().remove_pad(pad);
        self.obj().child_removed(pad, &name);
        if self.obj().sink_pads().is_empty() {
            self.end_preroll("no pad is left");
        }
        if let Some(track) = track {
            self.regroup(&track);
        }
    }

    fn set_clock(&self, clock: Option<&gst::Clock>) -> bool {
        let ok = self.parent_set_clock(clock);
        // A pipeline hands out its clock when it goes to PLAYING. If it does so before we are done, it is
        // live and does not wait. Not from here, because it is in the middle of its state change.
        if clock.is_some() && self.state().preroll.is_pending() {
            let sink = self.obj().clone();
            super::workers::run(move || sink.imp().end_preroll("PLAYING was asked for"));
        }
        ok
    }

    fn post_message(&self, message: gst::Message) -> bool {
        let own_eos = message.type_() == gst::MessageType::Eos
            && message.src() == Some(self.obj().upcast_ref::<gst::Object>());
        if own_eos {
            self.leave_then_post(message);
            return true;
        }
        self.parent_post_message(message)
    }
}

impl BinImpl for LiveKitSink {}

impl ChildProxyImpl for LiveKitSink {
    fn children_count(&self) -> u32 {
        u32::try_from(self.obj().sink_pads().len()).unwrap_or(u32::MAX)
    }

    fn child_by_name(&self, name: &str) -> Option<glib::Object> {
        self.obj().sink_pads().into_iter().find(|pad| pad.name() == name).map(Cast::upcast)
    }

    fn child_by_index(&self, index: u32) -> Option<glib::Object> {
        self.obj().sink_pads().into_iter().nth(usize::try_from(index).ok()?).map(Cast::upcast)
    }
}
