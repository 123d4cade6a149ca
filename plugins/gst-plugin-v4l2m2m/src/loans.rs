// SPDX-License-Identifier: MPL-2.0

//! A pool for upstream of the device's own buffers, so that what a producer writes need not be copied.
//!
//! It never runs out: when the device has no more, buffers are ordinary memory with the same strides, which is copied. And
//! it outlives streams: after another set-up of the device it hands out the buffers of the new one.

use std::sync::{Arc, Mutex, OnceLock, Weak};

use gst::glib;
use gst::subclass::prelude::*;
use v4l2_m2m::loan::{Claim, Lender, Loan};
use v4l2_m2m::picture::Layout;

use crate::encoder::lock;
use crate::pool::{describe, placement};

/// What of the device's is with upstream.
#[derive(Clone, Debug, Default)]
pub struct Loans(Arc<Mutex<Vec<Weak<Loan>>>>);

impl Loans {
    fn add(&self, loan: &Arc<Loan>) {
        let mut all = lock(&self.0);
        all.retain(|loan| loan.strong_count() > 0);
        all.push(Arc::downgrade(loan));
    }

    /// The loan that a buffer is made of, which the device still knows.
    fn find(&self, buffer: &gst::BufferRef) -> Option<Arc<Loan>> {
        let all: Vec<Arc<Loan>> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        if all.is_empty() {
            return None;
        }
        let mut places = Vec::with_capacity(3);
        for memory in buffer.iter_memories() {
            // Memory of others may be costly to map.
            if !memory.is_type("RustGlobalAllocatorMemory") || memory.offset() != 0 {
                return None;
            }
            places.push(memory.map_readable().ok()?.as_ptr() as usize);
        }
        all.into_iter()
            .find(|loan| loan.addresses().eq(places.iter().copied()))
            .filter(|loan| loan.is_current())
    }

    /// Claims a buffer for the device, if it is one of the device's, holds a picture as it lies there, and is not there yet.
    pub(crate) fn claim(
        &self,
        buffer: &gst::Buffer,
        info: &gst_video::VideoInfo,
        layout: &Layout,
    ) -> Option<Claim> {
        let loan = self.find(buffer)?;
        let whole = buffer.n_memory() == layout.used().len()
            && buffer
                .iter_memories()
                .zip(layout.used())
                .all(|(memory, used)| memory.size() >= *used as usize);
        let (strides, offsets) = placement(layout)?;
        let same = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => meta.stride() == strides && meta.offset() == offsets,
            None => info.stride() == strides && info.offset() == offsets,
        };
        if whole && same { loan.claim(Arc::new(buffer.clone())) } else { None }
    }
}

glib::wrapper! {
    /// A pool of the device's own buffers.
    pub struct LoanPool(ObjectSubclass<imp::LoanPool>) @extends gst::BufferPool, gst::Object;
}

impl LoanPool {
    /// For pictures of this kind where the device has them so; with the size of a buffer.
    pub(crate) fn new(
        info: &gst_video::VideoInfo,
        layout: &Arc<Layout>,
        lender: Lender,
        loans: &Loans,
    ) -> Option<(Self, u32)> {
        let (strides, offsets) = placement(layout)?;
        let size = layout.used().iter().try_fold(0_u32, |sum, used| sum.checked_add(*used))?;
        let pool: Self = glib::Object::new();
        let layout = Arc::clone(layout);
        let picture =
            imp::Picture { info: info.clone(), layout, strides, offsets, size, lender, loans: loans.clone() };
        pool.imp().picture.set(picture).ok()?;
        Some((pool, size))
    }
}

mod imp {
    use super::*;

    #[derive(Debug)]
    pub struct Picture {
        pub info: gst_video::VideoInfo,
        pub layout: Arc<Layout>,
        pub strides: Vec<i32>,
        pub offsets: Vec<usize>,
        pub size: u32,
        pub lender: Lender,
        pub loans: Loans,
    }

    /// The behaviour of the pool.
    #[derive(Debug, Default)]
    pub struct LoanPool {
        pub picture: OnceLock<Picture>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for LoanPool {
        const NAME: &'static str = "GstV4l2M2mLoanPool";
        type Type = super::LoanPool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for LoanPool {}
    impl GstObjectImpl for LoanPool {}

    impl BufferPoolImpl for LoanPool {
        fn options() -> &'static [&'static str] {
            &["GstBufferPoolOptionVideoMeta"]
        }

        fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
            // Who does not look at the meta would write with other strides.
            config.has_option("GstBufferPoolOptionVideoMeta") && self.parent_set_config(config)
        }

        fn alloc_buffer(
            &self,
            _: Option<&gst::BufferPoolAcquireParams>,
        ) -> Result<gst::Buffer, gst::FlowError> {
            let picture = self.picture.get().ok_or(gst::FlowError::Error)?;
            let mut buffer = gst::Buffer::new();
            let writable = buffer.get_mut().ok_or(gst::FlowError::Error)?;
            if let Some((loan, mut planes)) = picture.lender.borrow(&picture.layout) {
                // What the device adds to a picture is cropped away, but coded.
                picture.layout.blank(planes.iter_mut().map(AsMut::as_mut));
                picture.loans.add(&loan);
                for plane in planes {
                    writable.append_memory(gst::Memory::from_mut_slice(plane));
                }
            } else {
                writable.append_memory(gst::Memory::with_size(picture.size as usize));
            }
            describe(writable, &picture.info, &picture.strides, &picture.offsets)?;
            Ok(buffer)
        }

        fn release_buffer(&self, mut buffer: gst::Buffer) {
            // In place of one that the device does not know (any more), the next may be one that it does.
            if let Some(picture) = self.picture.get()
                && picture.loans.find(&buffer).is_none()
                && let Some(buffer) = buffer.get_mut()
            {
                // By this the pool knows that a buffer is not to be used again.
                buffer.set_flags(gst::BufferFlags::TAG_MEMORY);
            }
            self.parent_release_buffer(buffer);
        }
    }
}
