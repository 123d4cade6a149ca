// SPDX-License-Identifier: MIT OR Apache-2.0

//! Buffers of the device that a producer fills, so that its pictures need not be copied. They are lent: as memory that
//! comes back when it is dropped. Whoever then has a filled one claims it for the device, once at a time.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::buffer::{Keep, Mapping, Slot};
use crate::picture::Layout;
use crate::worker::Shared;

/// A way to the buffers that a worker's device has to lend.
#[derive(Clone, Debug)]
pub struct Lender {
    shared: Weak<Shared>,
}

/// A piece of a lent buffer's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Where it is in this process.
    pub address: usize,
    /// All of it, bytes.
    pub length: usize,
    /// The descriptor that it was mapped by, if not the device's.
    pub exported: Option<RawFd>,
}

/// A buffer that was lent.
#[derive(Debug)]
pub struct Loan {
    shared: Weak<Shared>,
    index: u32,
    generation: u64,
    memories: Vec<Memory>,
    /// Pieces that have come back.
    back: Mutex<Vec<Option<Mapping>>>,
    /// In the device, or on the way there.
    claimed: AtomicBool,
}

/// Memory of a loan, to write a picture to: as many bytes as the device reads.
#[derive(Debug)]
pub struct LentPlane {
    loan: Arc<Loan>,
    number: usize,
    /// `None` only while it is dropped.
    mapping: Option<Mapping>,
    used: usize,
}

/// The right to give a loan to the device. There is one at a time.
pub struct Claim {
    loan: Arc<Loan>,
    /// Keeps the producer from writing.
    _keep: Keep,
}

impl Lender {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// A buffer to fill, where the stream of now has pictures lie as in `layout`, and one that is free. Its pieces of memory
    /// are those of [`Layout::used`].
    #[must_use]
    pub fn borrow(&self, layout: &Layout) -> Option<(Arc<Loan>, Vec<LentPlane>)> {
        let shared = self.shared.upgrade()?;
        let slot = {
            let mut link = shared.lock();
            if link.layout.as_deref() != Some(layout) {
                return None;
            }
            link.lend()?
        };
        let used: Vec<usize> = layout.used().iter().map(|used| *used as usize).collect();
        let enough = slot.planes.len() == used.len()
            && slot.planes.iter().zip(&used).all(|(mapping, used)| mapping.bytes().len() >= *used);
        if !enough {
            shared.change(|link| link.unlend(slot));
            return None;
        }
        let memories = slot.planes.iter().map(|mapping| Memory {
            address: mapping.bytes().as_ptr() as usize,
            length: mapping.bytes().len(),
            exported: mapping.exported(),
        });
        let loan = Arc::new(Loan {
            shared: Weak::clone(&self.shared),
            index: slot.index,
            generation: slot.generation,
            memories: memories.collect(),
            back: Mutex::new(slot.planes.iter().map(|_| None).collect()),
            claimed: AtomicBool::new(false),
        });
        let planes = slot.planes.into_iter().zip(used).enumerate().map(|(number, (mapping, used))| {
            LentPlane { loan: Arc::clone(&loan), number, mapping: Some(mapping), used }
        });
        let planes = planes.collect();
        Some((loan, planes))
    }

    /// Whether [`Lender::borrow`] would give one.
    #[must_use]
    pub fn has(&self, layout: &Layout) -> bool {
        self.shared.upgrade().is_some_and(|shared| {
            let link = shared.lock();
            link.can_lend() && link.layout.as_deref() == Some(layout)
        })
    }
}

impl Loan {
    /// Whether the device still knows the buffer. After another set-up it does not, and the memory is but memory.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.lock().generation == self.generation)
    }

    /// Where its pieces of memory are. While any is lent, nothing else is there.
    pub fn addresses(&self) -> impl Iterator<Item = usize> {
        self.memories.iter().map(|memory| memory.address)
    }

    /// Claims the buffer, filled, for the device; `None`: the device has it already. `keep` keeps the producer from writing
    /// until the device has read it.
    #[must_use]
    pub fn claim(self: &Arc<Self>, keep: Keep) -> Option<Claim> {
        let free = !self.claimed.swap(true, Ordering::AcqRel);
        free.then(|| Claim { loan: Arc::clone(self), _keep: keep })
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn memories(&self) -> &[Memory] {
        &self.memories
    }

    fn give_back(&self, number: usize, mapping: Mapping) {
        let planes = {
            let mut back = self.back.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = back.get_mut(number) {
                *place = Some(mapping);
            }
            if back.iter().any(Option::is_none) {
                return;
            }
            std::mem::take(&mut *back).into_iter().flatten().collect()
        };
        let slot = Slot { index: self.index, generation: self.generation, planes };
        if let Some(shared) = self.shared.upgrade() {
            shared.change(|link| link.unlend(slot));
        }
    }
}

impl AsRef<[u8]> for LentPlane {
    fn as_ref(&self) -> &[u8] {
        let bytes = self.mapping.as_ref().map(Mapping::bytes).unwrap_or_default();
        bytes.get(..self.used).unwrap_or_default()
    }
}

impl AsMut<[u8]> for LentPlane {
    fn as_mut(&mut self) -> &mut [u8] {
        let bytes = self.mapping.as_mut().map(Mapping::bytes_mut).unwrap_or_default();
        bytes.get_mut(..self.used).unwrap_or_default()
    }
}

impl Drop for LentPlane {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.loan.give_back(self.number, mapping);
        }
    }
}

impl Claim {
    pub(crate) fn loan(&self) -> &Loan {
        &self.loan
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("loan", &self.loan).finish_non_exhaustive()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Before what was kept goes back to the producer, who may fill it and have it claimed again.
        self.loan.claimed.store(false, Ordering::Release);
    }
}
