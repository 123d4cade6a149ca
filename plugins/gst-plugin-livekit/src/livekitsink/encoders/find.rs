// SPDX-License-Identifier: MPL-2.0

//! Finds the encoder that feeds a pad, by walking upstream.
//!
//! The walk goes from peer to peer and through bins by their ghost pads. It takes no lock but those that GStreamer
//! takes for a moment to read a link, and queries nothing that an element would have to answer while it streams.

use gst::prelude::*;

use super::table::{self, Family};

/// A walk this long is a loop, or a pipeline that nobody can mean.
const MAX_STEPS: usize = 256;

/// The encoder upstream of a pad.
#[derive(Clone, Debug)]
pub(crate) struct FoundEncoder {
    /// The encoder.
    pub element: gst::Element,
    /// Its row in the table; `None` = an encoder that is not known.
    pub family: Option<&'static Family>,
    /// The element on the way (a tee) that has another linked branch: what the encoder makes is not for this pad
    /// alone.
    pub shared_at: Option<gst::Element>,
}

/// The first encoder upstream of `pad` (a sink pad). `None` = what comes is made by something that can't be asked:
/// a file, a network source, or an encoder beyond a muxer.
pub(crate) fn encoder_of(pad: &impl IsA<gst::Pad>) -> Option<FoundEncoder> {
    walk(pad.upcast_ref(), None).found
}

/// The same, for a pad whose encoder is named by the user: the element of that name in the pipeline that `pad` is
/// in, or the encoder in it if it is a bin. `None` = there is none of that name.
pub(crate) fn named_encoder(pad: &impl IsA<gst::Pad>, name: &str) -> Option<FoundEncoder> {
    let mut top = pad.upcast_ref::<gst::Pad>().parent()?;
    while let Some(parent) = top.parent() {
        top = parent;
    }
    let element = top.downcast::<gst::Bin>().ok()?.by_name(name)?;
    let element = first_encoder_in(element);
    // On the way to it, the same tees count as on the way to any other.
    let shared_at = walk(pad.upcast_ref(), Some(&element)).found.and_then(|found| found.shared_at);
    Some(FoundEncoder { family: table::family_of(&element), element, shared_at })
}

/// The element on the way upstream of `pad` that has another linked branch, whether an encoder is found or not.
pub(crate) fn split_before(pad: &impl IsA<gst::Pad>) -> Option<gst::Element> {
    walk(pad.upcast_ref(), None).shared_at
}

/// What a walk came to.
#[derive(Default)]
struct Walk {
    found: Option<FoundEncoder>,
    shared_at: Option<gst::Element>,
}

/// Walks upstream from the sink pad `pad` to the first encoder, or to `wanted`.
fn walk(pad: &gst::Pad, wanted: Option<&gst::Element>) -> Walk {
    let mut walk = Walk::default();
    let mut next = pad.peer();
    for _ in 0..MAX_STEPS {
        let Some(source) = next else { break };
        // The end of a bin that the encoder is in: go into it.
        if let Some(ghost) = source.downcast_ref::<gst::GhostPad>() {
            if owner(&source).is_some_and(|bin| is_encoder(&bin, wanted)) {
                walk.found = owner(&source).map(|bin| found(bin, walk.shared_at.clone()));
                break;
            }
            next = ghost.target();
            continue;
        }
        // The beginning of a bin that we are in: leave it. Such a pad belongs to the bin's ghost pad.
        if let Some(ghost) = source.parent().and_downcast::<gst::Pad>() {
            next = ghost.peer();
            continue;
        }
        let Some(element) = owner(&source) else { break };
        if is_encoder(&element, wanted) {
            walk.found = Some(found(element, walk.shared_at.clone()));
            break;
        }
        if ends_the_walk(&element) {
            break;
        }
        let Some(sink) = only(source.iterate_internal_links()) else { break };
        if walk.shared_at.is_none() && feeds_others(&sink, &source) {
            walk.shared_at = Some(element);
        }
        next = sink.peer();
    }
    walk
}

fn found(element: gst::Element, shared_at: Option<gst::Element>) -> FoundEncoder {
    FoundEncoder { family: table::family_of(&element), element, shared_at }
}

fn owner(pad: &gst::Pad) -> Option<gst::Element> {
    pad.parent().and_downcast()
}

/// Whether `element` is what the walk is for. A bin is one only if the table has it: `encodebin` and the like
/// call themselves encoders, but what can be told anything is in them.
fn is_encoder(element: &gst::Element, wanted: Option<&gst::Element>) -> bool {
    match wanted {
        Some(wanted) => element == wanted,
        None if table::family_of(element).is_some() => true,
        None => !element.is::<gst::Bin>() && is_class(element, "Encoder") && !is_class(element, "Network"),
    }
}

/// Beyond these is another stream than the one that comes out of them.
fn ends_the_walk(element: &gst::Element) -> bool {
    ["Muxer", "Demuxer", "Demux", "Decoder", "Source"].iter().any(|class| is_class(element, class))
}

/// Whether `class` is one of the words of an element's classification (`Codec/Encoder/Video`).
fn is_class(element: &gst::Element, class: &str) -> bool {
    element.metadata("klass").is_some_and(|all| all.split('/').any(|word| word == class))
}

/// The only pad of an iterator. `None` = none, or more than one, of which nobody can say which one counts.
fn only(mut pads: gst::Iterator<gst::Pad>) -> Option<gst::Pad> {
    let mut all = collect(&mut pads).into_iter();
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// Whether what comes in at `sink` goes out to others than `source` too.
fn feeds_others(sink: &gst::Pad, source: &gst::Pad) -> bool {
    collect(&mut sink.iterate_internal_links()).iter().any(|pad| pad != source && pad.is_linked())
}

fn collect(pads: &mut gst::Iterator<gst::Pad>) -> Vec<gst::Pad> {
    let mut all = Vec::new();
    // Each pad that is added or removed meanwhile starts it anew.
    for _ in 0..MAX_STEPS {
        match pads.next() {
            Ok(Some(pad)) => all.push(pad),
            Ok(None) => break,
            Err(gst::IteratorError::Resync) => {
                all.clear();
                pads.resync();
            }
            Err(gst::IteratorError::Error) => return Vec::new(),
        }
    }
    all
}

/// `element` itself, or, if it is a bin, the first encoder in it.
fn first_encoder_in(element: gst::Element) -> gst::Element {
    let Some(bin) = element.downcast_ref::<gst::Bin>().filter(|_| table::family_of(&element).is_none())
    else {
        return element;
    };
    let mut elements = bin.iterate_recurse();
    loop {
        match elements.next() {
            Ok(Some(inner)) if is_encoder(&inner, None) => return inner,
            Ok(Some(_)) => {}
            Err(gst::IteratorError::Resync) => elements.resync(),
            Ok(None) | Err(gst::IteratorError::Error) => return element,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pipeline of a launch line, and what a walk from the sink pad of `end` comes to.
    fn walked(line: &str) -> (gst::Pipeline, Walk) {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let pad = pipeline.by_name("end").unwrap().sink_pads().remove(0);
        let walk = walk(&pad, None);
        (pipeline, walk)
    }

    fn name(walk: &Walk) -> Option<String> {
        walk.found.as_ref().map(|found| found.element.name().to_string())
    }

    fn shared(walk: &Walk) -> Option<String> {
        walk.shared_at.as_ref().map(|element| element.name().to_string())
    }

    #[test]
    fn the_walk_goes_through_what_only_passes_on() {
        let (_p, walk) = walked(
            "videotestsrc ! x264enc name=e ! identity ! queue ! video/x-h264,profile=main ! h264parse ! queue2 ! \
             valve ! fakesink name=end",
        );
        assert_eq!(name(&walk).as_deref(), Some("e"));
        assert_eq!(walk.found.unwrap().family, table::family("x264enc"));
        assert!(walk.shared_at.is_none());
    }

    #[test]
    fn the_walk_goes_into_bins_and_out_of_them() {
        let (_p, into) = walked("( videotestsrc ! ( x264enc name=e ) ! ( h264parse ) ) ! fakesink name=end");
        assert_eq!(name(&into).as_deref(), Some("e"));
        // From inside a bin with a ghost sink pad.
        let bin = gst::parse::bin_from_description("queue ! h264parse ! fakesink name=end", true).unwrap();
        let pipeline = gst::Pipeline::new();
        let source = gst::ElementFactory::make("x264enc").name("outside").build().unwrap();
        pipeline.add_many([&source, bin.upcast_ref()]).unwrap();
        source.link(&bin).unwrap();
        let pad = bin.by_name("end").unwrap().static_pad("sink").unwrap();
        assert_eq!(encoder_of(&pad).unwrap().element, source);
        assert_eq!(encoder_of(&bin.static_pad("sink").unwrap()).unwrap().element, source, "from a ghost pad");
    }

    #[test]
    fn a_multiqueue_keeps_streams_apart() {
        let (_p, walk) = walked(
            "multiqueue name=q  x264enc name=a ! q.sink_0  x264enc name=b ! q.sink_1 \
             q.src_0 ! fakesink  q.src_1 ! fakesink name=end",
        );
        assert_eq!(name(&walk).as_deref(), Some("b"));
        assert_eq!(shared(&walk), None, "the other stream is another encoder's");
    }

    #[test]
    fn beyond_muxers_and_demuxers_is_nobody() {
        for line in [
            "funnel name=f ! fakesink name=end  x264enc ! f.  x264enc ! f.",
            "videotestsrc ! x264enc ! mpegtsmux ! tsdemux ! h264parse ! fakesink name=end",
            "filesrc location=/nothing ! h264parse ! fakesink name=end",
            "udpsrc ! application/x-rtp,media=video,clock-rate=90000,encoding-name=H264 ! rtph264depay ! \
             fakesink name=end",
            "videotestsrc ! x264enc ! avdec_h264 ! fakesink name=end",
            "fakesink name=end  fakesink",
        ] {
            let (_p, walk) = walked(line);
            assert_eq!(name(&walk), None, "{line}");
        }
    }

    #[test]
    fn a_tee_counts_if_another_branch_is_linked() {
        let (_p, alone) = walked("videotestsrc ! x264enc name=e ! tee ! queue ! fakesink name=end");
        assert_eq!((name(&alone).as_deref(), shared(&alone)), (Some("e"), None));
        let (p, both) = walked(
            "videotestsrc ! x264enc name=e ! tee name=t ! queue ! fakesink name=end  t. ! queue ! fakesink name=x",
        );
        assert_eq!((name(&both).as_deref(), shared(&both).as_deref()), (Some("e"), Some("t")));
        let other = p.by_name("t").unwrap().static_pad("src_1").unwrap();
        other.unlink(&other.peer().unwrap()).unwrap();
        assert!(walk(&p.by_name("end").unwrap().static_pad("sink").unwrap(), None).shared_at.is_none());
        let (_p, before) = walked("videotestsrc ! tee name=t ! x264enc ! fakesink name=end  t. ! fakesink");
        assert_eq!(shared(&before), None, "raw video is not the encoder's");
    }

    #[test]
    fn a_tee_counts_without_an_encoder_in_sight_too() {
        let (p, walk) = walked("fakesrc ! tee name=t ! fakesink name=end  t. ! fakesink");
        assert_eq!((name(&walk), shared(&walk).as_deref()), (None, Some("t")));
        let end = p.by_name("end").unwrap().static_pad("sink").unwrap();
        assert_eq!(split_before(&end).unwrap().name(), "t");
    }

    #[test]
    fn unknown_encoders_are_found_without_a_row() {
        let (_p, walk) = walked("videotestsrc ! theoraenc name=e ! fakesink name=end");
        let found = walk.found.unwrap();
        assert_eq!((found.element.name().as_str(), found.family), ("e", None));
    }

    #[test]
    fn the_user_may_name_the_encoder() {
        let (p, _) = walked(
            "videotestsrc ! x264enc name=far ! tee name=t ! fakesink  t. ! fakesink name=end  \
             videotestsrc ! ( name=box x264enc name=inner ) ! fakesink",
        );
        let end = p.by_name("end").unwrap().static_pad("sink").unwrap();
        let far = named_encoder(&end, "far").unwrap();
        assert_eq!(far.element.name(), "far");
        assert_eq!(
            far.shared_at.unwrap().name(),
            "t",
            "a name does not lift the protection of the other branch"
        );
        let inner = named_encoder(&end, "box").unwrap();
        assert_eq!(inner.element.name(), "inner");
        assert!(inner.family.is_some() && inner.shared_at.is_none());
        assert!(named_encoder(&end, "nobody").is_none());
    }

    #[test]
    fn loops_end() {
        gst::init().unwrap();
        let (a, b) = (
            gst::ElementFactory::make("identity").build().unwrap(),
            gst::ElementFactory::make("identity").build().unwrap(),
        );
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&a, &b]).unwrap();
        a.link(&b).unwrap();
        b.link(&a).unwrap();
        assert!(encoder_of(&a.static_pad("sink").unwrap()).is_none());
    }
}
