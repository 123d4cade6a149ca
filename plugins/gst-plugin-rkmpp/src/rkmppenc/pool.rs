// SPDX-License-Identifier: MPL-2.0

//! Frames for producers: in memory of the hardware's, as dma-bufs, so that what is written there need not be copied.

use gst::glib;
use gst::subclass::prelude::*;
use rockchip_mpp::{Group, Mpp};

glib::wrapper! {
    /// The pool that the encoder offers upstream.
    pub struct Pool(ObjectSubclass<imp::Pool>) @extends gst::BufferPool, gst::Object;
}

impl Pool {
    /// A pool of the library's memory.
    ///
    /// # Errors
    /// If the library has none.
    pub fn new(mpp: Mpp) -> Result<Self, rockchip_mpp::Error> {
        // Without the CPU's cache: who maps a dma-buf may not tell the library.
        let group = Group::uncached(mpp)?;
        let pool: Self = glib::Object::new();
        *super::flow::lock(&pool.imp().group) = Some(group);
        Ok(pool)
    }
}

mod imp {
    use std::sync::{LazyLock, Mutex};

    use gst::glib;
    use gst::subclass::prelude::*;
    use gst_video::{VideoFrameFlags, VideoInfo, VideoMeta};
    use rockchip_mpp::Group;

    use crate::dmabuf;
    use crate::rkmppenc::flow::lock;
    use crate::rkmppenc::imp::CAT;
    use crate::rkmppenc::layout::{self, Layout};

    /// GStreamer's name of it: buffers may have strides of their own.
    const VIDEO_META: &str = "GstBufferPoolOptionVideoMeta";

    #[derive(Default)]
    pub struct Pool {
        pub group: Mutex<Option<Group>>,
        format: Mutex<Option<(VideoInfo, Layout)>>,
        allocator: LazyLock<gst_allocators::DmaBufAllocator>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Pool {
        const NAME: &'static str = "GstRkMppEncPool";
        type Type = super::Pool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for Pool {}
    impl GstObjectImpl for Pool {}

    impl BufferPoolImpl for Pool {
        fn options() -> &'static [&'static str] {
            &[VIDEO_META]
        }

        fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
            let Some((Some(caps), _, least, most)) = config.params() else { return false };
            let Ok(info) = VideoInfo::from_caps(&caps) else { return false };
            let Some(format) = layout::find(info.format()) else { return false };
            let size = (info.width() as usize, info.height() as usize);
            let layout = if config.has_option(VIDEO_META) {
                Layout::aligned(format, size.0, size.1)
            } else {
                // The producer knows only the usual layout. If the hardware can't read that, it had better use other memory.
                match Layout::existing(format, size, info.stride(), info.offset(), info.size()) {
                    Ok(layout) => layout,
                    Err(reason) => {
                        gst::debug!(CAT, imp = self, "not for {caps} without GstVideoMeta: {reason}");
                        return false;
                    }
                }
            };
            let Ok(bytes) = u32::try_from(layout.size.max(info.size())) else { return false };
            config.set_params(Some(&caps), bytes, least, most);
            *lock(&self.format) = Some((info, layout));
            self.parent_set_config(config)
        }

        fn alloc_buffer(
            &self,
            _params: Option<&gst::BufferPoolAcquireParams>,
        ) -> Result<gst::Buffer, gst::FlowError> {
            let group = lock(&self.group).clone().ok_or(gst::FlowError::Error)?;
            let (info, layout) = lock(&self.format).clone().ok_or(gst::FlowError::NotNegotiated)?;
            let size = layout.size.max(info.size());
            let memory = group
                .allocate(size)
                .map_err(|error| error.to_string())
                .and_then(|buffer| dmabuf::wrap_writable(&self.allocator, buffer, size));
            let memory = match memory {
                Ok(memory) => memory,
                Err(error) => {
                    // Such frames are copied, and if there is no memory for that either, the encoder has the words for it.
                    gst::warning!(CAT, imp = self, "no memory of the hardware's for a frame: {error}");
                    gst::Memory::with_size(size)
                }
            };
            let mut buffer = gst::Buffer::new();
            let inner = buffer.get_mut().ok_or(gst::FlowError::Error)?;
            inner.append_memory(memory);
            let offsets: Vec<_> = layout.planes().map(|plane| plane.offset).collect();
            let strides: Option<Vec<_>> =
                layout.planes().map(|plane| i32::try_from(plane.stride).ok()).collect();
            let strides = strides.ok_or(gst::FlowError::Error)?;
            VideoMeta::add_full(
                inner,
                VideoFrameFlags::empty(),
                info.format(),
                info.width(),
                info.height(),
                &offsets,
                &strides,
            )
            .map_err(|_| gst::FlowError::Error)?;
            Ok(buffer)
        }
    }
}
