// SPDX-License-Identifier: MPL-2.0

//! Who wants what of which encoder. An encoder may feed several pads (a tee with `share-encoder=true`), of several
//! sinks; it is told one thing: it works if any of them needs it, at the lowest bitrate of those that do.
//!
//! No lock is held while a property is set: a handler of the application's that hears of the change may ask us
//! anything. Who comes while somebody else is setting leaves it to that one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gst::glib;
use gst::prelude::*;

use super::apply::{self, NoKnob, Setting, Values};
use super::find::FoundEncoder;
use super::table::Family;

/// What an encoder that nobody needs is set to if there is no `min-bitrate`, bit/s. Not lower, because there are
/// encoders that can't make anything of such a number.
pub(crate) const IDLE_BITRATE: u32 = 30_000;

/// What one pad wants of its encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// bit/s; `None` = as the user set it.
    pub bitrate: Option<u32>,
    /// Frames are needed.
    pub active: bool,
    /// `min-bitrate`, bit/s; 0 = unset.
    pub min: u32,
    /// `max-bitrate`, bit/s; 0 = what the user set the encoder to.
    pub max: u32,
    /// While not active, nothing is to be encoded at all.
    pub pause: bool,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The encoder is set to so many bit/s.
    Set(u64),
    /// It runs, and a running encoder of this kind keeps its bitrate: so many bit/s, if that is known.
    NotLive(Option<u64>),
    /// It can't be set.
    No(NoKnob),
}

/// A pad's hold on an encoder. When it is dropped, the encoder becomes what the user made it, unless another pad has
/// a hold on it.
#[derive(Debug)]
pub(crate) struct Hold {
    pad: u64,
    encoder: Arc<Encoder>,
}

impl Hold {
    /// Takes hold of an encoder for a pad.
    pub fn new(found: &FoundEncoder) -> Self {
        static PADS: AtomicU64 = AtomicU64::new(0);
        Self { pad: PADS.fetch_add(1, Ordering::Relaxed), encoder: Encoder::of(found) }
    }

    /// Whether it is this encoder's.
    pub fn is_of(&self, element: &gst::Element) -> bool {
        self.encoder.element.upgrade().as_ref() == Some(element)
    }

    /// What the user set the encoder to, bit/s. `None` = the encoder decides, or it can't be told.
    pub fn own_bitrate(&self) -> Option<u64> {
        let element = self.encoder.element.upgrade()?;
        match &self.encoder.setting {
            Ok(setting) => {
                let current = setting.read(&element);
                setting.bits(&self.encoder.own(current))
            }
            Err(NoKnob::TakesEvent) => apply::plain_bitrate(&element),
            Err(_) => None,
        }
    }

    /// Makes the encoder do what this pad wants, as far as the others let it.
    pub fn wish(&self, wish: Wish) -> Applied {
        {
            let mut state = self.encoder.state();
            state.wishes.retain(|(pad, _)| *pad != self.pad);
            state.wishes.push((self.pad, wish));
        }
        self.encoder.update();
        self.encoder.applied()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.encoder.state().wishes.retain(|(pad, _)| *pad != self.pad);
        self.encoder.update();
    }
}

/// An encoder that somebody has a hold on.
#[derive(Debug)]
struct Encoder {
    element: glib::WeakRef<gst::Element>,
    family: Option<&'static Family>,
    setting: Result<Setting, NoKnob>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the user set the encoder to.
    own: Values,
    /// What we set it to, as it was read back.
    set: Option<Values>,
    wishes: Vec<(u64, Wish)>,
    /// A probe that lets no frame into the encoder.
    pause: Option<(gst::Pad, gst::PadProbeId)>,
    /// Somebody is setting it.
    busy: bool,
    /// There is something to set.
    dirty: bool,
}

/// All encoders that somebody has a hold on.
static ENCODERS: Mutex<Vec<Weak<Encoder>>> = Mutex::new(Vec::new());

impl Encoder {
    fn of(found: &FoundEncoder) -> Arc<Self> {
        if let Some(known) = Self::known(&found.element, &mut Self::all()) {
            return known;
        }
        let setting = Setting::of(&found.element, found.family);
        let own = setting.as_ref().map(|setting| setting.read(&found.element)).unwrap_or_default();
        let encoder = Arc::new(Self {
            element: found.element.downgrade(),
            family: found.family,
            setting,
            state: Mutex::new(State { own, ..State::default() }),
        });
        let mut all = Self::all();
        // Another pad may have been as fast.
        if let Some(known) = Self::known(&found.element, &mut all) {
            return known;
        }
        all.push(Arc::downgrade(&encoder));
        encoder
    }

    fn all() -> MutexGuard<'static, Vec<Weak<Self>>> {
        ENCODERS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(element: &gst::Element, all: &mut Vec<Weak<Self>>) -> Option<Arc<Self>> {
        all.retain(|known| known.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).find(|known| known.element.upgrade().as_ref() == Some(element))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is to be set by now, unless another thread is at it, which then does this too.
    fn update(&self) {
        let Some(element) = self.element.upgrade() else { return };
        {
            let mut state = self.state();
            state.dirty = true;
            if state.busy {
                return;
            }
            state.busy = true;
        }
        loop {
            let wishes: Vec<Wish> = {
                let mut state = self.state();
                if !std::mem::take(&mut state.dirty) {
                    state.busy = false;
                    return;
                }
                state.wishes.iter().map(|(_, wish)| *wish).collect()
            };
            self.set_bitrate(&element, &wishes);
            self.set_pause(&element, &wishes);
        }
    }

    fn set_bitrate(&self, element: &gst::Element, wishes: &[Wish]) {
        let Ok(setting) = &self.setting else { return };
        if !self.is_settable(element) {
            return;
        }
        let current = setting.read(element);
        let own = self.own(current.clone());
        let touched = self.state().set.is_some();
        let own_bits = setting.bits(&own);
        let values = match together(wishes, own_bits, self.family.map_or(0, |family| family.idle_part)) {
            Some(bits) => setting.values_for(element, bits, &own),
            // As the user made it; which is what it is if it was never touched.
            None if !touched => return,
            None => own,
        };
        if values != current {
            setting.write(element, &values, &current);
        }
        self.state().set = (!wishes.is_empty()).then(|| setting.read(element));
    }

    /// What the user set it to, if it is set to `current` now: that, unless we did it.
    fn own(&self, current: Values) -> Values {
        let mut state = self.state();
        if state.set.as_ref() != Some(&current) {
            state.own = current;
            state.set = None;
        }
        state.own.clone()
    }

    /// Whether the encoder takes a new bitrate in the state that it is in.
    fn is_settable(&self, element: &gst::Element) -> bool {
        let live = self.family.is_none_or(|family| family.live.with(gst::version().1));
        live || element.current_state() < gst::State::Paused
    }

    fn set_pause(&self, element: &gst::Element, wishes: &[Wish]) {
        let paused = !wishes.is_empty() && wishes.iter().all(|wish| wish.pause && !wish.active);
        let probe = self.state().pause.take();
        let probe = match (paused, probe) {
            (true, None) => {
                let pad = element.static_pad("sink").or_else(|| element.sink_pads().into_iter().next());
                pad.and_then(|pad| {
                    let frames = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
                    // Dropped, not held: a source that others use too must go on. ("Drop" would do the same, but with a
                    // complaint of GStreamer's, because the bindings have freed the buffer already.)
                    let id = pad.add_probe(frames, |_, _| gst::PadProbeReturn::Handled)?;
                    Some((pad, id))
                })
            }
            (false, Some((pad, id))) => {
                pad.remove_probe(id);
                None
            }
            (_, probe) => probe,
        };
        self.state().pause = probe;
    }

    fn applied(&self) -> Applied {
        let setting = match &self.setting {
            Ok(setting) => setting,
            Err(why) => return Applied::No(why.clone()),
        };
        let state = self.state();
        match (&state.set, self.element.upgrade()) {
            (_, Some(element)) if !self.is_settable(&element) => {
                Applied::NotLive(setting.bits(state.set.as_ref().unwrap_or(&state.own)))
            }
            (set, _) => Applied::Set(setting.bits(set.as_ref().unwrap_or(&state.own)).unwrap_or(0)),
        }
    }
}

/// The bitrate for all wishes together, bit/s; `own` is what the user set the encoder to, `idle_part` see
/// [`Family::idle_part`]. `None` = as the user set it.
fn together(wishes: &[Wish], own: Option<u64>, idle_part: u32) -> Option<u64> {
    let active = wishes.iter().any(|wish| wish.active);
    let limited = |wish: &Wish| {
        let max = if wish.max == 0 { own } else { Some(u64::from(wish.max)) };
        let wanted = match wish {
            Wish { active: true, bitrate, .. } => u64::from((*bitrate)?),
            // No frame comes, so no bit is made; and the first ones afterwards are as good as any.
            Wish { pause: true, .. } | Wish { bitrate: None, .. } => return None,
            _ => {
                let part = max.and_then(|max| max.checked_div(idle_part.into())).unwrap_or_default();
                part.max(IDLE_BITRATE.into())
            }
        };
        let wanted = wanted.max(wish.min.into());
        Some(max.map_or(wanted, |max| wanted.min(max)))
    };
    wishes.iter().filter(|wish| wish.active == active).filter_map(limited).min()
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    fn wish(bitrate: u32, active: bool) -> Wish {
        Wish { bitrate: Some(bitrate), active, ..Wish::default() }
    }

    #[test]
    fn the_lowest_of_those_who_need_it_counts() {
        let own = Some(4_000_000);
        assert_eq!(together(&[], own, 0), None);
        assert_eq!(together(&[wish(1_000_000, true)], own, 0), Some(1_000_000));
        let both = [wish(1_000_000, true), wish(2_000_000, true)];
        assert_eq!(together(&both, own, 0), Some(1_000_000));
        let one = [wish(1_000_000, false), wish(2_000_000, true)];
        assert_eq!(together(&one, own, 0), Some(2_000_000), "who needs nothing holds nobody back");
        assert_eq!(together(&[wish(1_000_000, false)], own, 0), Some(u64::from(IDLE_BITRATE)));
        assert_eq!(together(&[wish(1_000_000, false)], own, 4), Some(1_000_000), "a part of its own");
        let paused = Wish { pause: true, ..wish(1_000_000, false) };
        assert_eq!(together(&[paused], own, 0), None, "no frame, no bit");
        assert_eq!(
            together(&[paused, wish(0, false)], own, 0),
            Some(u64::from(IDLE_BITRATE)),
            "not paused then"
        );
    }

    #[test]
    fn limits_are_the_users() {
        let own = Some(2_000_000);
        assert_eq!(together(&[wish(9_000_000, true)], own, 0), Some(2_000_000), "the encoder's own setting");
        let wide = Wish { max: 5_000_000, ..wish(9_000_000, true) };
        assert_eq!(together(&[wide], own, 0), Some(5_000_000), "max-bitrate instead");
        assert_eq!(together(&[wish(9_000_000, true)], None, 0), Some(9_000_000), "nothing known");
        let low = Wish { min: 300_000, ..wish(100_000, true) };
        assert_eq!(together(&[low], own, 0), Some(300_000));
        assert_eq!(together(&[Wish { active: false, ..low }], own, 0), Some(300_000));
        let contrary = Wish { min: 3_000_000, max: 1_000_000, ..wish(2_000_000, true) };
        assert_eq!(together(&[contrary], own, 0), Some(1_000_000), "the upper limit wins");
        for active in [true, false] {
            let none = Wish { active, ..Wish::default() };
            assert_eq!(together(&[none], own, 0), None, "only to be paused");
        }
    }

    fn encoder(line: &str) -> (gst::Element, FoundEncoder) {
        gst::init().unwrap();
        let bin =
            gst::parse::bin_from_description(&format!("{line} name=e ! fakesink name=s"), false).unwrap();
        let found = find::encoder_of(&bin.by_name("s").unwrap().static_pad("sink").unwrap()).unwrap();
        (bin.upcast(), found)
    }

    #[test]
    fn units_ranges_and_ratios_are_the_encoders() {
        let (_bin, x264) = encoder("x264enc bitrate=3000");
        let hold = Hold::new(&x264);
        assert_eq!(hold.own_bitrate(), Some(3_000_000));
        assert_eq!(hold.wish(wish(1_234_567, true)), Applied::Set(1_234_000));
        assert_eq!(x264.element.property::<u32>("bitrate"), 1234);
        assert_eq!(hold.wish(wish(1, true)), Applied::Set(1000), "not below what the property takes");

        let (_bin, openh264) = encoder("openh264enc bitrate=1000000 max-bitrate=1500000");
        let hold = Hold::new(&openh264);
        assert_eq!(hold.wish(wish(500_000, true)), Applied::Set(500_000));
        assert_eq!(openh264.element.property::<u32>("max-bitrate"), 750_000);
        drop(hold);
        assert_eq!(openh264.element.property::<u32>("bitrate"), 1_000_000);
        assert_eq!(openh264.element.property::<u32>("max-bitrate"), 1_500_000);
    }

    #[test]
    fn what_the_user_does_meanwhile_is_the_users_setting() {
        let (_bin, found) = encoder("x264enc bitrate=3000");
        let hold = Hold::new(&found);
        hold.wish(wish(1_000_000, true));
        found.element.set_property("bitrate", 800u32);
        assert_eq!(hold.wish(wish(2_000_000, true)), Applied::Set(800_000));
        assert_eq!(hold.own_bitrate(), Some(800_000));
        drop(hold);
        assert_eq!(found.element.property::<u32>("bitrate"), 800);
    }

    #[test]
    fn an_encoder_that_nobody_told_anything_is_left_alone() {
        let (_bin, found) = encoder("x264enc bitrate=3000");
        let hold = Hold::new(&found);
        found.element.set_property("bitrate", 500u32);
        drop(hold);
        assert_eq!(found.element.property::<u32>("bitrate"), 500);
    }

    #[test]
    fn several_pads_hold_one_encoder_together() {
        let (_bin, found) = encoder("x264enc bitrate=3000");
        let (a, b) = (Hold::new(&found), Hold::new(&found));
        a.wish(wish(2_000_000, true));
        assert_eq!(b.wish(wish(1_000_000, true)), Applied::Set(1_000_000));
        assert_eq!(b.wish(wish(1_000_000, false)), Applied::Set(2_000_000));
        drop(a);
        assert_eq!(found.element.property::<u32>("bitrate"), 750, "idle");
        drop(b);
        assert_eq!(found.element.property::<u32>("bitrate"), 3000);
    }

    #[test]
    fn a_paused_encoder_gets_no_frames_and_its_source_goes_on() {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(
            "videotestsrc is-live=true ! video/x-raw,width=64,height=64 ! identity name=before ! \
             x264enc tune=zerolatency name=e ! fakesink name=after",
        )
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let count = |name: &str| {
            let seen = Arc::new(AtomicU64::new(0));
            let counter = seen.clone();
            let pad = pipeline.by_name(name).unwrap().static_pad("sink").unwrap();
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                counter.fetch_add(1, Ordering::Relaxed);
                gst::PadProbeReturn::Ok
            });
            move || seen.load(Ordering::Relaxed)
        };
        let (before, after) = (count("before"), count("after"));
        let wait = |what: &str, done: &dyn Fn() -> bool| {
            let begin = std::time::Instant::now();
            while !done() {
                assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{what}");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        pipeline.set_state(gst::State::Playing).unwrap();
        wait("frames", &|| after() > 3);
        let found =
            find::encoder_of(&pipeline.by_name("after").unwrap().static_pad("sink").unwrap()).unwrap();
        let hold = Hold::new(&found);
        assert_eq!(hold.wish(Wish { pause: true, ..wish(0, false) }), Applied::Set(2_048_000));
        let (came, went) = (before(), after());
        wait("the source goes on", &|| before() > came + 10);
        assert!(after() <= went + 1, "one may have been in the encoder");
        hold.wish(wish(1_000_000, true));
        wait("frames again", &|| after() > went + 5);
        let other = Hold::new(&found);
        hold.wish(Wish { pause: true, ..wish(0, false) });
        other.wish(wish(1_000_000, true));
        let went = after();
        wait("frames for the other pad", &|| after() > went + 5);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
