// SPDX-License-Identifier: MPL-2.0

//! What the session wants of a pad's encoder leaves the pad: as an upstream event, as the encoder's own property,
//! and as a message.
//!
//! An encoder that feeds others too is left alone unless `share-encoder` is set: a recording must not suffer from a
//! viewer's network.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use livekit_session::{Target, TargetReason};

use super::encoders::{self, Applied, FoundEncoder, Hold, IDLE_BITRATE, NoKnob, Wish};
use super::imp::{LiveKitSink, is_video};
use super::log::BITRATE;
use super::settings::PadSettings;
use super::{BitrateFeedback, Leaf, LiveKitSinkPad};

/// How often the way to the encoder is looked at while nothing happens: somebody may have begun to record.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a keyframe request, or a pad that stops, waits for another thread that is telling the encoder its bitrate.
/// Tests look at the order, also where that thread does not get a processor for longer.
const SETTLE_TIME: Duration = Duration::from_millis(if cfg!(test) { 30_000 } else { 50 });

/// What a pad knows of its encoder.
#[derive(Default)]
pub(crate) struct Targets {
    inner: Mutex<Inner>,
    /// Nobody is telling the encoder any more.
    told: Condvar,
}

#[derive(Default)]
struct Inner {
    /// What the session wants; `None` = it did not say anything yet, or not any more.
    wanted: Option<Target>,
    /// What was said about it last in a message.
    posted: Option<gst::Structure>,
    hold: Option<Hold>,
    /// What the user set the encoder to when the stream began, bit/s; 0 = not known.
    ceiling: u32,
    /// Whom the way led to when it was last looked at, and when.
    way: Option<Way>,
    looked: Option<Instant>,
    /// Warnings that were given.
    warned: Vec<Kind>,
    /// Something is wanted that a worker has yet to begin with.
    pending: bool,
    /// Somebody is telling the encoder.
    busy: bool,
    /// There is something to tell.
    dirty: bool,
}

/// Kinds of warnings; each is given once for a pad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shared,
    NotLive,
    Missing,
    NotFound,
}

/// The way from a pad to its encoder, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    /// Address of the encoder; 0 = there is none.
    encoder: usize,
    shared: bool,
}

/// Whom a pad's wishes go to.
struct Route {
    encoder: Option<FoundEncoder>,
    /// The element that has another linked branch.
    shared_at: Option<gst::Element>,
    /// `encoder` names an element that is not there.
    missing: Option<String>,
}

impl Route {
    fn of(pad: &LiveKitSinkPad, settings: &PadSettings) -> Self {
        let Some(name) = &settings.encoder else {
            let encoder = encoders::encoder_of(pad);
            let shared_at = match &encoder {
                Some(found) => found.shared_at.clone(),
                // An encoder that can't be seen may hear the event.
                None => encoders::split_before(pad),
            };
            return Self { encoder, shared_at, missing: None };
        };
        match encoders::named_encoder(pad, name) {
            Some(found) => Self { shared_at: found.shared_at.clone(), encoder: Some(found), missing: None },
            None => {
                Self { encoder: None, shared_at: encoders::split_before(pad), missing: Some(name.clone()) }
            }
        }
    }

    fn way(&self) -> Way {
        let encoder = self.encoder.as_ref().map_or(0, |found| found.element.as_ptr() as usize);
        Way { encoder, shared: self.shared_at.is_some() }
    }

    fn encoder_name(&self) -> String {
        self.encoder.as_ref().map(|found| found.element.name().to_string()).unwrap_or_default()
    }
}

/// What came of telling an encoder: a word for the message, and what it is set to now, bit/s (0 = not known).
struct Told {
    result: &'static str,
    applied: u64,
}

impl Targets {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, not for long, until nobody is telling the encoder any more.
    fn settle(&self) {
        let _unused = self.told.wait_timeout_while(self.inner(), SETTLE_TIME, |inner| inner.busy);
    }

    fn take_hold(&self) -> Option<Hold> {
        self.inner().hold.take()
    }

    /// Whether a warning of this kind is the first one.
    fn first(&self, kind: Kind) -> bool {
        let mut inner = self.inner();
        let first = !inner.warned.contains(&kind);
        if first {
            inner.warned.push(kind);
        }
        first
    }
}

impl LiveKitSink {
    /// The session wants something of `pad`'s encoder.
    pub(crate) fn target(&self, pad: &LiveKitSinkPad, target: Target) {
        pad.imp().targets.inner().wanted = Some(target);
        self.retarget(pad);
    }

    /// Tells `pad`'s encoder what is wanted of it. A slow event handler upstream must not hold up the messages,
    /// hence a call of its own.
    pub(crate) fn retarget(&self, pad: &LiveKitSinkPad) {
        let Some(leaf) = self.leaf_of(pad) else { return };
        {
            let mut inner = pad.imp().targets.inner();
            if inner.wanted.is_none() {
                return;
            }
            inner.pending = true;
        }
        let (sink, pad) = (self.obj().downgrade(), pad.downgrade());
        super::workers::run(move || {
            if let (Some(sink), Some(pad)) = (sink.upgrade(), pad.upgrade()) {
                sink.imp().work(&pad, Some(&leaf));
            }
        });
    }

    /// What is wanted of `pad`'s encoder is told to it before anything else is: a keyframe that is asked for next is to
    /// have the bitrate that was wanted before. Waits a little for a thread that is at it.
    pub(crate) fn settle_target(&self, pad: &LiveKitSinkPad, leaf: &Leaf) {
        let targets = &pad.imp().targets;
        if targets.inner().pending {
            self.work(pad, Some(leaf));
        }
        targets.settle();
    }

    /// A stream is about to begin: its encoder starts with `start-bitrate`, and what the user set it to is noted.
    /// Not to be called while the encoder hands something on: it may hold a lock that its properties need.
    pub(crate) fn prepare_encoder(&self, pad: &LiveKitSinkPad) {
        if !is_video(pad) {
            return;
        }
        let targets = &pad.imp().targets;
        if targets.inner().wanted.is_some() {
            self.retarget(pad);
            return;
        }
        let settings = pad.imp().effective();
        let route = Route::of(pad, &settings);
        let Some(found) = &route.encoder else { return };
        let (feedback, share) = {
            let settings = self.settings();
            (settings.bitrate_feedback, settings.share_encoder)
        };
        let hold = Hold::new(found);
        let ceiling = u32::try_from(hold.own_bitrate().unwrap_or_default()).unwrap_or(u32::MAX);
        let ours = feedback == BitrateFeedback::Auto && (share || route.shared_at.is_none());
        let start = settings.start_bitrate.filter(|_| ours);
        if let Some(bitrate) = start {
            let target = Target { bitrate, active: true, reason: TargetReason::Start };
            let applied = hold.wish(wish(&target, &settings, feedback, false));
            gst::debug!(BITRATE, imp = self, "{}: start bitrate {bitrate}: {applied:?}", pad.name());
        }
        let old = {
            let mut inner = targets.inner();
            inner.ceiling = ceiling;
            std::mem::replace(&mut inner.hold, start.map(|_| hold))
        };
        drop(old);
    }

    /// The most that `pad`'s encoder is to make, bit/s, as the user set it; 0 = not known.
    pub(crate) fn ceiling(&self, pad: &LiveKitSinkPad) -> u32 {
        pad.imp().targets.inner().ceiling
    }

    /// Now and then: whether the way to the encoder is still the same one. Costs nothing but a look at links.
    pub(crate) fn look_again(&self, pad: &LiveKitSinkPad, now: Instant) {
        {
            let mut inner = pad.imp().targets.inner();
            let due =
                inner.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_INTERVAL);
            if !due || inner.wanted.is_none() {
                return;
            }
            inner.looked = Some(now);
        }
        let way = Route::of(pad, &pad.imp().effective()).way();
        let changed = pad.imp().targets.inner().way.is_some_and(|known| known != way);
        if changed {
            gst::info!(BITRATE, imp = self, "{}: another way to the encoder", pad.name());
            self.retarget(pad);
            if let Some(leaf) = self.leaf_of(pad) {
                leaf.imp().apply_gop_cache();
            }
        }
    }

    /// Nothing is wanted of `pad`'s encoder any more: it becomes what the user made it.
    pub(crate) fn let_go(&self, pad: &LiveKitSinkPad) {
        {
            let mut inner = pad.imp().targets.inner();
            inner.wanted = None;
            inner.posted = None;
            inner.warned.clear();
        }
        self.work(pad, None);
        // Whoever is at it does this too.
        pad.imp().targets.settle();
    }

    /// Does what there is to do for `pad`, unless another thread is at it, which then does this too.
    fn work(&self, pad: &LiveKitSinkPad, leaf: Option<&Leaf>) {
        let targets = &pad.imp().targets;
        {
            let mut inner = targets.inner();
            inner.dirty = true;
            if inner.busy {
                return;
            }
            inner.busy = true;
        }
        loop {
            let wanted = {
                let mut inner = targets.inner();
                if !std::mem::take(&mut inner.dirty) {
                    inner.busy = false;
                    targets.told.notify_all();
                    return;
                }
                inner.pending = false;
                inner.wanted
            };
            match (wanted, leaf) {
                (Some(target), Some(leaf)) => self.tell(pad, leaf, &target),
                _ => drop(pad.imp().targets.take_hold()),
            }
        }
    }

    fn tell(&self, pad: &LiveKitSinkPad, leaf: &Leaf, target: &Target) {
        let (feedback, share, pause) = {
            let settings = self.settings();
            (settings.bitrate_feedback, settings.share_encoder, settings.pause_upstream)
        };
        let settings = pad.imp().effective();
        let route = Route::of(pad, &settings);
        pad.imp().targets.inner().way = Some(route.way());
        // What is no live source would run through its file while frames are thrown away.
        let wish = wish(target, &settings, feedback, pause && leaf.imp().is_live());
        let shared = route.shared_at.as_ref().filter(|_| !share);
        let wanted = feedback != BitrateFeedback::Off || wish.pause;

        if let Some(name) = route.missing.as_ref().filter(|_| wanted) {
            self.warn_once(pad, Kind::NotFound, &format!(
                "There is no element named {name} (the pad's property encoder) in the pipeline, so its bitrate can't \
                 follow the network"
            ));
        }
        let told = if !wanted {
            drop(pad.imp().targets.take_hold());
            return;
        } else if let Some(tee) = shared {
            drop(pad.imp().targets.take_hold());
            self.warn_shared(pad, &route, tee);
            Told { result: "shared", applied: 0 }
        } else {
            let heard = feedback != BitrateFeedback::Off && self.send_event(pad, leaf, target, &settings);
            let told = self.tell_encoder(pad, &route, &wish, heard);
            // Then no property is touched: it was only paused, if anything.
            if feedback == BitrateFeedback::Auto { told } else { Told { result: "event", applied: 0 } }
        };
        if feedback != BitrateFeedback::Off {
            self.post_target(pad, target, &route, &told);
        }
    }

    /// The event for encoders that act on it by themselves. Whether anybody upstream took it.
    fn send_event(&self, pad: &LiveKitSinkPad, leaf: &Leaf, target: &Target, settings: &PadSettings) -> bool {
        let event = event(target, settings, &pad.path_string());
        let taken = leaf.sink_pad().push_event(event);
        if !taken {
            gst::debug!(BITRATE, imp = self, "{}: nobody upstream took the target bitrate", pad.name());
        }
        taken
    }

    /// Sets the encoder's own property, and stops or lets go its frames.
    fn tell_encoder(&self, pad: &LiveKitSinkPad, route: &Route, wish: &Wish, heard: bool) -> Told {
        let targets = &pad.imp().targets;
        let old = targets.take_hold();
        let Some(found) = &route.encoder else {
            drop(old);
            return Told { result: if heard { "event" } else { "no-encoder" }, applied: 0 };
        };
        let (hold, other) = match old {
            Some(hold) if hold.is_of(&found.element) => (hold, None),
            other => (Hold::new(found), other),
        };
        drop(other);
        let applied = hold.wish(*wish);
        targets.inner().hold = Some(hold);
        gst::debug!(BITRATE, imp = self, "{}: {wish:?} at {}: {applied:?}", pad.name(), route.encoder_name());
        match applied {
            Applied::Set(applied) => Told { result: "set", applied },
            Applied::NotLive(applied) => {
                self.warn_once(pad, Kind::NotLive, &format!(
                    "{} keeps its bitrate{} while it runs, so it can't follow the network. Set it, or the pad's \
                     start-bitrate, to what the network always carries, or use an encoder that can be told \
                     (docs/supported-encoders.md)",
                    route.encoder_name(),
                    applied.map(|bits| format!(" of {bits} bit/s")).unwrap_or_default()
                ));
                Told { result: "not-live", applied: applied.unwrap_or_default() }
            }
            Applied::No(NoKnob::Missing { property }) => {
                self.warn_once(pad, Kind::Missing, &format!(
                    "{} has no number property {property} that can be written, so its bitrate can't follow the \
                     network by itself. Connect to the message livekit-target-bitrate",
                    route.encoder_name()
                ));
                Told { result: "no-property", applied: 0 }
            }
            Applied::No(NoKnob::TakesEvent) => Told { result: "event", applied: 0 },
            Applied::No(NoKnob::Unknown) => Told { result: "unknown-encoder", applied: 0 },
        }
    }

    fn post_target(&self, pad: &LiveKitSinkPad, target: &Target, route: &Route, told: &Told) {
        let message = message(&pad.name(), target, &route.encoder_name(), told);
        {
            // The same again, because something else was looked at anew, is no news.
            let mut inner = pad.imp().targets.inner();
            if inner.posted.as_ref() == Some(&message) {
                return;
            }
            inner.posted = Some(message.clone());
        }
        self.post_element_message(message);
    }

    fn warn_shared(&self, pad: &LiveKitSinkPad, route: &Route, tee: &gst::Element) {
        // Without an encoder (a file, a camera's stream) there is nothing that the user would expect to change.
        if route.encoder.is_none() {
            return;
        }
        self.warn_once(pad, Kind::Shared, &format!(
            "{} also feeds another branch of {}, so its bitrate does not follow the network. Set share-encoder=true \
             if the other branch may have what the network carries, or put the tee before the encoder and give \
             livekitsink one of its own",
            route.encoder_name(),
            tee.name()
        ));
    }

    fn warn_once(&self, pad: &LiveKitSinkPad, kind: Kind, text: &str) {
        if pad.imp().targets.first(kind) {
            gst::element_imp_warning!(self, gst::ResourceError::Settings, ("{}: {text}", pad.name()));
        }
    }
}

/// What a target means for the encoder, within the user's limits.
fn wish(target: &Target, settings: &PadSettings, feedback: BitrateFeedback, pause: bool) -> Wish {
    Wish {
        // A target without a number means: as much as the user lets it make.
        bitrate: (feedback == BitrateFeedback::Auto && !(target.active && target.bitrate == 0))
            .then_some(target.bitrate),
        active: target.active,
        min: settings.min_bitrate.unwrap_or_default(),
        max: settings.max_bitrate.unwrap_or_default(),
        pause,
    }
}

/// The upstream event `GstTargetBitrate`; `source` tells senders apart.
fn event(target: &Target, settings: &PadSettings, source: &str) -> gst::Event {
    let min = settings.min_bitrate.unwrap_or_default();
    let max = settings.max_bitrate.unwrap_or(u32::MAX);
    let bitrate = match target {
        Target { active: false, .. } => IDLE_BITRATE,
        Target { bitrate: 0, .. } => u32::MAX,
        Target { bitrate, .. } => *bitrate,
    };
    let structure = gst::Structure::builder("GstTargetBitrate")
        .field("bitrate", bitrate.max(min).min(max))
        .field("active", target.active)
        .field("source", source)
        .build();
    gst::event::CustomUpstream::new(structure)
}

/// The message about a target.
fn message(pad: &str, target: &Target, encoder: &str, told: &Told) -> gst::Structure {
    gst::Structure::builder("livekit-target-bitrate")
        .field("pad", pad)
        .field("bitrate", target.bitrate)
        .field("active", target.active)
        .field("reason", reason(target.reason))
        .field("encoder", encoder)
        .field("applied", u32::try_from(told.applied).unwrap_or(u32::MAX))
        .field("result", told.result)
        .build()
}

fn reason(reason: TargetReason) -> &'static str {
    match reason {
        TargetReason::Start => "start",
        TargetReason::Estimate => "estimate",
        TargetReason::Congestion => "congestion",
        TargetReason::Unwatched => "unwatched",
        TargetReason::Muted => "muted",
        TargetReason::Resumed => "resumed",
        _ => "other",
    }
}
