// SPDX-License-Identifier: MPL-2.0

//! Pictures that the device reads where they are.

use std::os::fd::RawFd;
use std::sync::Arc;

use v4l2_m2m::buffer::DmaBufPlane;
use v4l2_m2m::encoder::Raw;
use v4l2_m2m::worker::{Step, Want, Worker};

use super::{Core, Memory, lock};
use crate::nvmm;

/// Buffers of the device for those of upstream's pool.
pub(super) const MOST_IMPORTED: u32 = 32;

impl Core {
    /// Whether pictures are read where they are.
    pub(super) fn importing(&self) -> bool {
        let state = lock(&self.state);
        state.memory == Memory::Nvmm || (state.memory == Memory::DmaBuf && !state.copying)
    }

    /// The descriptor and size of a picture that the device can read; `None`: it has to be copied.
    fn descriptor(
        &self,
        obj: &gst_video::VideoEncoder,
        buffer: &gst::BufferRef,
    ) -> Result<Option<(RawFd, u32)>, gst::FlowError> {
        let (memory, info) = {
            let state = lock(&self.state);
            (state.memory, state.info.clone())
        };
        if memory == Memory::Nvmm {
            let surface = nvmm::nvmm(buffer).map_err(|error| {
                gst::element_error!(obj, gst::StreamError::Format, ("A buffer with memory:NVMM: {error}"));
                gst::FlowError::Error
            })?;
            if info.is_none_or(|info| (info.width(), info.height()) != (surface.width, surface.height)) {
                gst::element_error!(
                    obj,
                    gst::StreamError::Format,
                    (
                        "A buffer with memory:NVMM has {}x{} pixels, other than its caps",
                        surface.width,
                        surface.height
                    )
                );
                return Err(gst::FlowError::Error);
            }
            return Ok(Some((surface.fd, surface.size)));
        }
        let ops = lock(&self.ops).clone();
        Ok(nvmm::dmabuf(buffer).filter(|(fd, _)| ops.is_some_and(|ops| ops.can_import(*fd))))
    }

    /// Gives a picture to the device where it is. `None`: it has to be copied, and the stream is set up for that.
    pub(super) fn import(
        &self,
        obj: &gst_video::VideoEncoder,
        worker: &Worker,
        buffer: &gst::Buffer,
        number: u64,
        force: bool,
    ) -> Result<Option<gst::FlowSuccess>, gst::FlowError> {
        let Some((fd, size)) = self.descriptor(obj, buffer)? else {
            gst::warning!(self.cat(), obj = obj, "DMABufs that are no NvBufSurface: copied, from now on");
            lock(&self.state).copying = true;
            self.drain(obj, worker, Some(number))?;
            self.set_up(obj, worker).map_err(|()| gst::FlowError::Error)?;
            return Ok(None);
        };
        if self.bind(fd).is_none() {
            gst::debug!(self.cat(), obj = obj, "more descriptors than the device has buffers: a new stream");
            lock(&self.stats).restarts += 1;
            self.drain(obj, worker, Some(number))?;
            self.set_up(obj, worker).map_err(|()| gst::FlowError::Error)?;
        }
        let Some(index) = self.bind(fd) else { return Err(gst::FlowError::Error) };
        let busy = lock(&self.settings).max_pending.saturating_sub(1) as usize;
        let slot = loop {
            match worker.step(Want::SlotOf { index, busy }, self.patience()) {
                Step::Slot(slot) => break slot,
                other => {
                    self.step(obj, other)?;
                }
            }
        };
        let layout = lock(&self.state).setup.as_ref().map(|setup| setup.layout.clone());
        let Some(layout) = layout else {
            worker.put_back(slot);
            return Err(gst::FlowError::NotNegotiated);
        };
        // Each plane by the same descriptor: where it lies is in the surface's own description.
        let keep: Arc<gst::Buffer> = Arc::new(buffer.clone());
        let planes = layout
            .used()
            .iter()
            .map(|_| DmaBufPlane { fd, keep: keep.clone(), length: size, offset: 0 })
            .collect();
        worker.encode(slot, Raw::DmaBuf(planes), number, force).map_err(|error| {
            self.post(obj, &error);
            gst::FlowError::Error
        })?;
        lock(&self.stats).frames_imported += 1;
        Ok(Some(gst::FlowSuccess::Ok))
    }

    /// The device's buffer for a descriptor; `None`: all have others.
    fn bind(&self, fd: RawFd) -> Option<u32> {
        let mut state = lock(&self.state);
        if let Some(&index) = state.bindings.get(&fd) {
            return Some(index);
        }
        let inputs = state.setup.as_ref().map_or(0, |setup| setup.inputs);
        // Given out in order, and all forgotten at once.
        let index = u32::try_from(state.bindings.len()).ok().filter(|index| (*index as usize) < inputs)?;
        state.bindings.insert(fd, index);
        Some(index)
    }
}
