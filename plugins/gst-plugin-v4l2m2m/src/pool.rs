// SPDX-License-Identifier: MPL-2.0

//! A pool for upstream whose buffers lie as the device wants them, in DMABufs that it reads where they are.

use std::path::Path;
use std::sync::{Mutex, OnceLock};

use gst::glib;
use gst::subclass::prelude::*;
use v4l2_m2m::heap::{self, Heap};
use v4l2_m2m::picture::Layout;

use crate::encoder::lock;
use crate::nvmm;

/// Strides and offsets of the planes in a buffer whose memories are the pieces that the device wants.
pub(crate) fn placement(layout: &Layout) -> Option<(Vec<i32>, Vec<usize>)> {
    let strides =
        layout.planes().iter().map(|plane| i32::try_from(plane.stride).ok()).collect::<Option<_>>()?;
    let start = |memory: usize| layout.used().iter().take(memory).map(|used| *used as usize).sum::<usize>();
    let offsets = layout.planes().iter().map(|plane| start(plane.memory) + plane.offset).collect();
    Some((strides, offsets))
}

/// Says of a buffer where the planes of its picture lie.
pub(crate) fn describe(
    buffer: &mut gst::BufferRef,
    info: &gst_video::VideoInfo,
    strides: &[i32],
    offsets: &[usize],
) -> Result<(), gst::FlowError> {
    let (flags, format) = (gst_video::VideoFrameFlags::empty(), info.format());
    gst_video::VideoMeta::add_full(buffer, flags, format, info.width(), info.height(), offsets, strides)
        .map(|_| ())
        .map_err(|_| gst::FlowError::Error)
}

glib::wrapper! {
    /// A pool of DMABufs from the kernel's heap.
    pub struct HeapPool(ObjectSubclass<imp::HeapPool>) @extends gst::BufferPool, gst::Object;
}

impl HeapPool {
    /// For pictures of this kind where a device has them so. `None`: there is no heap that may be used, or the device wants
    /// several pieces of memory.
    pub(crate) fn new(info: &gst_video::VideoInfo, layout: &Layout) -> Option<(Self, u32)> {
        let &[size] = layout.used() else { return None };
        let heap = Heap::open(Path::new(heap::SYSTEM)).ok()?;
        let (strides, offsets) = placement(layout)?;
        let pool: Self = glib::Object::new();
        let picture = imp::Picture { heap, info: info.clone(), strides, offsets, size: size as usize };
        pool.imp().picture.set(picture).ok()?;
        Some((pool, size))
    }
}

mod imp {
    use super::*;

    #[derive(Debug)]
    pub struct Picture {
        pub heap: Heap,
        pub info: gst_video::VideoInfo,
        pub strides: Vec<i32>,
        pub offsets: Vec<usize>,
        pub size: usize,
    }

    /// The behaviour of the pool.
    #[derive(Debug, Default)]
    pub struct HeapPool {
        pub picture: OnceLock<Picture>,
        allocator: Mutex<Option<gst_allocators::DmaBufAllocator>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for HeapPool {
        const NAME: &'static str = "GstV4l2M2mHeapPool";
        type Type = super::HeapPool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for HeapPool {}
    impl GstObjectImpl for HeapPool {}

    impl BufferPoolImpl for HeapPool {
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
            let fd = picture.heap.allocate(picture.size).map_err(|_| gst::FlowError::Error)?;
            let allocator =
                lock(&self.allocator).get_or_insert_with(gst_allocators::DmaBufAllocator::new).clone();
            let memory = nvmm::share(&allocator, fd, picture.size);
            let mut buffer = gst::Buffer::new();
            let writable = buffer.get_mut().ok_or(gst::FlowError::Error)?;
            writable.append_memory(memory.map_err(|_| gst::FlowError::Error)?);
            describe(writable, &picture.info, &picture.strides, &picture.offsets)?;
            Ok(buffer)
        }
    }
}
