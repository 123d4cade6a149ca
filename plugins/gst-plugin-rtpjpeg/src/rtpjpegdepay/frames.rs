// SPDX-License-Identifier: MPL-2.0

//! Memory of pictures, used again when a picture has been shown. The reassembler builds a picture in place and
//! gives its memory away, so that nothing is copied; what comes back here serves a later picture.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Unused memories that are kept; a pipeline has two or three pictures under way.
const MAX_IDLE: usize = 4;

/// The memories that are not in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Frames {
    /// Memory of an earlier picture, or none.
    pub fn take(&self) -> Vec<u8> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// A buffer of the picture at `range` in `data`.
    pub fn wrap(&self, data: Vec<u8>, range: Range<usize>) -> gst::Buffer {
        gst::Buffer::from_mut_slice(Memory { data, range, home: self.clone() })
    }

    fn give_back(&self, data: Vec<u8>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(data);
        }
    }
}

struct Memory {
    data: Vec<u8>,
    range: Range<usize>,
    home: Frames,
}

impl AsMut<[u8]> for Memory {
    fn as_mut(&mut self) -> &mut [u8] {
        self.data.get_mut(self.range.clone()).unwrap_or_default()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_used_again() {
        gst::init().unwrap();
        let frames = Frames::default();
        let data = vec![1, 2, 3, 4];
        let place = data.as_ptr();
        let buffer = frames.wrap(data, 1..3);
        assert_eq!(buffer.map_readable().unwrap().as_slice(), [2, 3]);
        assert!(frames.take().is_empty(), "still in use");
        drop(buffer);
        let again = frames.take();
        assert_eq!(again.as_ptr(), place);
        assert!(frames.take().is_empty());
    }

    #[test]
    fn only_a_few_idle_memories_are_kept() {
        gst::init().unwrap();
        let frames = Frames::default();
        let buffers: Vec<_> = (0..10).map(|_| frames.wrap(vec![0; 100], 0..100)).collect();
        drop(buffers);
        assert_eq!((0..10).filter(|_| !frames.take().is_empty()).count(), MAX_IDLE);
    }
}
