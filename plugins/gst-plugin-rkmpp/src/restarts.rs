// SPDX-License-Identifier: MPL-2.0

//! How often hardware that failed is opened again.

use gst::prelude::*;

/// So many times …
pub(crate) const MAX_RESTARTS: u32 = 3;
/// … until so many frames came out of it.
const RECOVERED: u64 = 300;

/// Counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restarts {
    count: u32,
    /// Frames that had come out when it failed the last time.
    made: u64,
}

impl Restarts {
    /// Once more, after so many frames in all; which time that is.
    fn next(&mut self, made: u64) -> Option<u32> {
        if made.saturating_sub(self.made) >= RECOVERED {
            self.count = 0;
        }
        self.made = made;
        self.count += 1;
        (self.count <= MAX_RESTARTS).then_some(self.count)
    }

    /// The hardware failed when `made` frames had come out of it. Tells the user; whether it is to be opened again.
    ///
    /// # Errors
    /// If that was done often enough.
    pub fn again(
        &mut self,
        element: &impl IsA<gst::Element>,
        what: &str,
        reason: &str,
        made: u64,
    ) -> Result<(), gst::FlowError> {
        match self.next(made) {
            Some(number) => {
                gst::element_warning!(
                    element,
                    gst::ResourceError::Failed,
                    ("The hardware {what} failed ({reason}); restarting it ({number} of {MAX_RESTARTS})")
                );
                Ok(())
            }
            None => {
                gst::element_error!(
                    element,
                    gst::ResourceError::Failed,
                    ("The hardware {what} failed ({reason}), also after {MAX_RESTARTS} restarts; the kernel's log (dmesg) may tell why")
                );
                Err(gst::FlowError::Error)
            }
        }
    }
}

/// It could not be opened again. Tells the user.
pub(crate) fn closed(
    element: &impl IsA<gst::Element>,
    what: &str,
    reason: &str,
    error: &rockchip_mpp::Error,
) -> gst::FlowError {
    gst::element_error!(
        element,
        gst::ResourceError::Failed,
        ("The hardware {what} failed ({reason}) and cannot be opened again: {error}")
    );
    gst::FlowError::Error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recovers_may_fail_again() {
        let mut restarts = Restarts::default();
        assert_eq!([10, 20, 20, 30].map(|made| restarts.next(made)), [Some(1), Some(2), Some(3), None]);
        let mut restarts = Restarts::default();
        for made in [10, 20, 30] {
            assert!(restarts.next(made).is_some());
        }
        assert_eq!(restarts.next(330), Some(1));
        assert_eq!(restarts.next(331), Some(2));
    }
}
