// SPDX-License-Identifier: MIT OR Apache-2.0

//! Forced keyframes, believed only when they are seen. A driver may lack the control, or have it and ignore it.

/// A way to make a device produce a keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME`
    ForceKeyFrame,
    /// `V4L2_CID_MPEG_MFC51_VIDEO_FORCE_FRAME_TYPE`
    ForceFrameType,
    /// The same with another value (NVIDIA's library).
    ForceFrameTypeI,
    /// NVIDIA's own control.
    ForceIdrFrame,
    /// Ending the stream and starting another, whose first picture is a keyframe.
    Restart,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is asked for, or it is still on its way.
    Wait,
    /// The keyframe came.
    Done,
    /// It should have come: try this.
    Try(Method),
    /// No method works.
    GiveUp,
}

/// One request at a time; further ones before the answer are the same one.
#[derive(Debug)]
pub struct KeyGuard {
    methods: Vec<Method>,
    /// What works, as far as is known.
    best: usize,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    /// The frame it was asked for.
    since: u64,
    method: usize,
}

impl KeyGuard {
    /// `methods` are tried in this order.
    #[must_use]
    pub fn new(methods: Vec<Method>) -> Self {
        Self { methods, best: 0, asked: None }
    }

    /// A keyframe is wanted, at frame `number` or soon after. Answers what to do before that frame is queued.
    pub fn request(&mut self, number: u64) -> Verdict {
        match (&self.asked, self.methods.get(self.best)) {
            (Some(_), _) => Verdict::Wait,
            (None, Some(&method)) => {
                self.asked = Some(Asked { since: number, method: self.best });
                Verdict::Try(method)
            }
            (None, None) => Verdict::GiveUp,
        }
    }

    /// A frame came out while `pending` others were in the device, and `next` is the next to be queued.
    pub fn seen(&mut self, number: u64, keyframe: bool, pending: u64, next: u64) -> Verdict {
        let Some(asked) = &mut self.asked else { return Verdict::Wait };
        if keyframe {
            // Also before the frame asked for: devices apply the request to what they encode next, which may have been
            // queued earlier.
            self.best = asked.method;
            self.asked = None;
            return Verdict::Done;
        }
        // A restart is on its way, and ends with `restarted`.
        if self.methods.get(asked.method) == Some(&Method::Restart) {
            return Verdict::Wait;
        }
        // Two more than were in the device.
        if number < asked.since.saturating_add(pending).saturating_add(2) {
            return Verdict::Wait;
        }
        let method = asked.method + 1;
        let Some(&next_method) = self.methods.get(method) else {
            self.asked = None;
            return Verdict::GiveUp;
        };
        *asked = Asked { since: next, method };
        Verdict::Try(next_method)
    }

    /// The stream was started anew: its first picture is a keyframe.
    pub fn restarted(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::Method::*;
    use super::*;

    #[test]
    fn one_request_one_keyframe() {
        let mut guard = KeyGuard::new(vec![ForceKeyFrame, Restart]);
        assert_eq!(guard.seen(1, false, 1, 3), Verdict::Wait);
        assert_eq!(guard.request(5), Verdict::Try(ForceKeyFrame));
        assert_eq!(guard.request(6), Verdict::Wait, "already asked");
        assert_eq!(guard.seen(5, false, 1, 8), Verdict::Wait);
        assert_eq!(guard.seen(6, true, 1, 9), Verdict::Done);
        assert_eq!(guard.request(9), Verdict::Try(ForceKeyFrame));
        assert_eq!(guard.seen(8, true, 1, 10), Verdict::Done, "one that was queued earlier");
    }

    #[test]
    fn what_is_ignored_is_replaced_and_what_works_is_kept() {
        let mut guard = KeyGuard::new(vec![ForceKeyFrame, ForceFrameType, Restart]);
        assert_eq!(guard.request(10), Verdict::Try(ForceKeyFrame));
        assert_eq!(guard.seen(10, false, 2, 13), Verdict::Wait);
        assert_eq!(guard.seen(13, false, 2, 16), Verdict::Wait);
        assert_eq!(guard.seen(14, false, 2, 17), Verdict::Try(ForceFrameType));
        assert_eq!(guard.seen(15, false, 2, 18), Verdict::Wait);
        assert_eq!(guard.seen(17, true, 2, 20), Verdict::Done);
        assert_eq!(guard.request(30), Verdict::Try(ForceFrameType));
    }

    #[test]
    fn when_nothing_works_it_gives_up() {
        let mut guard = KeyGuard::new(vec![ForceKeyFrame]);
        assert_eq!(guard.request(0), Verdict::Try(ForceKeyFrame));
        assert_eq!(guard.seen(2, false, 0, 3), Verdict::GiveUp);
        assert_eq!(guard.request(3), Verdict::Try(ForceKeyFrame), "asked again, tried again");
        let mut guard = KeyGuard::new(vec![Restart]);
        assert_eq!(guard.request(0), Verdict::Try(Restart));
        assert_eq!(guard.seen(20, false, 0, 21), Verdict::Wait, "until the restart");
        guard.restarted();
        assert_eq!(guard.request(21), Verdict::Try(Restart));
        assert_eq!(KeyGuard::new(Vec::new()).request(0), Verdict::GiveUp);
    }
}
