// SPDX-License-Identifier: MPL-2.0

//! Pictures that the device reads where they are.

use std::os::fd::RawFd;
use std::sync::Arc;

use v4l2_m2m::buffer::DmaBufPlane;
use v4l2_m2m::encoder::Raw;
use v4l2_m2m::picture::{Layout, PlaneLayout};
use v4l2_m2m::worker::{Step, Want, Worker};

use super::{Core, IoMode, Memory, lock};
use crate::nvmm;

/// Buffers of the device for those of upstream's pool.
pub(super) const MOST_IMPORTED: u32 = 32;

/// A picture in DMABufs.
struct Foreign {
    /// Descriptor, size, and which byte of the picture it begins with.
    memories: Vec<(RawFd, u32, usize)>,
    strides: Vec<usize>,
    offsets: Vec<usize>,
}

impl Foreign {
    /// `None`: it is somewhere else, or in the middle of a DMABuf, where drivers do not look for it.
    fn of(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Option<Self> {
        let (mut memories, mut at) = (Vec::new(), 0);
        for memory in buffer.iter_memories() {
            let (fd, size) = nvmm::whole(memory)?;
            memories.push((fd, size, at));
            at += memory.size();
        }
        let (strides, offsets) = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => (meta.stride().to_vec(), meta.offset().to_vec()),
            None => (info.stride().to_vec(), info.offset().to_vec()),
        };
        let strides =
            strides.into_iter().map(|stride| usize::try_from(stride).ok()).collect::<Option<_>>()?;
        Some(Self { memories, strides, offsets })
    }

    /// Whether the device reads it as it was written.
    fn fits(&self, layout: &Layout) -> bool {
        let room = self.memories.len() == layout.used().len()
            && self.memories.iter().zip(layout.used()).all(|((_, size, _), used)| size >= used);
        // From a picture's beginning to its memory's.
        let start = |plane: &PlaneLayout| self.memories.get(plane.memory).map(|memory| memory.2);
        room && self.strides.len() == layout.planes().len()
            && layout.planes().iter().zip(self.strides.iter().zip(&self.offsets)).all(
                |(plane, (stride, offset))| {
                    plane.stride == *stride
                        && start(plane).is_some_and(|start| start + plane.offset == *offset)
                },
            )
    }
}

impl Core {
    /// Whether a descriptor has to stay with the buffer of the device that it came with first: NVIDIA's library.
    pub(super) fn binds(&self) -> bool {
        self.kind.features.contains(&nvmm::NVMM)
    }

    /// Where pictures are expected, by what their caps say.
    pub(super) fn expected(&self, announced: Memory) -> Memory {
        let mode = lock(&self.settings).io_mode;
        if self.binds() {
            return announced;
        }
        let state = lock(&self.state);
        match mode {
            IoMode::Mmap => Memory::System,
            IoMode::DmaBuf => Memory::DmaBuf,
            // DMABufs need not be announced. They came before, so they are expected again.
            IoMode::Auto if state.memory == Memory::DmaBuf => Memory::DmaBuf,
            IoMode::Auto => announced,
        }
    }

    /// Where pictures are, now that one has come.
    pub(super) fn found(&self, buffer: &gst::BufferRef) -> Memory {
        let mode = lock(&self.settings).io_mode;
        let state = lock(&self.state);
        if self.binds() {
            return state.announced;
        }
        let shared =
            buffer.n_memory() > 0 && buffer.iter_memories().all(|memory| nvmm::whole(memory).is_some());
        if mode != IoMode::Mmap && shared { Memory::DmaBuf } else { state.memory }
    }

    /// Sets the stream up for copies.
    fn copy_from_now(
        &self,
        obj: &gst_video::VideoEncoder,
        worker: &Worker,
        number: u64,
        why: &str,
    ) -> Result<(), gst::FlowError> {
        gst::warning!(self.cat(), obj = obj, "{why}: copied, from now on");
        lock(&self.state).copying = true;
        self.anew(obj, worker, number)
    }

    fn anew(
        &self,
        obj: &gst_video::VideoEncoder,
        worker: &Worker,
        number: u64,
    ) -> Result<(), gst::FlowError> {
        self.drain(obj, worker, Some(number))?;
        self.set_up(obj, worker).map_err(|()| gst::FlowError::Error)
    }

    /// Gives a picture to a driver of the kernel where it is. `None`: as [`Core::import`].
    fn import_foreign(
        &self,
        obj: &gst_video::VideoEncoder,
        worker: &Worker,
        buffer: &gst::Buffer,
        number: u64,
        force: bool,
    ) -> Result<Option<gst::FlowSuccess>, gst::FlowError> {
        let info = lock(&self.state).info.clone().ok_or(gst::FlowError::NotNegotiated)?;
        let Some(picture) = Foreign::of(buffer, &info) else {
            self.copy_from_now(obj, worker, number, "pictures that are no whole DMABufs")?;
            return Ok(None);
        };
        let layout = || lock(&self.state).setup.as_ref().map(|setup| setup.layout.clone());
        let fits = |layout: Option<Arc<Layout>>| layout.is_some_and(|layout| picture.fits(&layout));
        if !fits(layout()) {
            let first = picture.strides.first().copied();
            let stride = first.and_then(|stride| u32::try_from(stride).ok());
            let other =
                layout().is_none_or(|layout| layout.planes().first().map(|plane| plane.stride) != first);
            if other && std::mem::replace(&mut lock(&self.state).stride, stride) != stride {
                gst::debug!(
                    self.cat(),
                    obj = obj,
                    "the producer's lines have {stride:?} bytes: a new stream"
                );
                self.anew(obj, worker, number)?;
            }
            if !self.importing() {
                return Ok(None);
            }
            if !fits(layout()) {
                let why = "DMABufs with other strides, offsets or sizes than the device's";
                self.copy_from_now(obj, worker, number, why)?;
                return Ok(None);
            }
        }
        let slot = loop {
            match worker.step(Want::Slot, self.patience()) {
                Step::Slot(slot) => break slot,
                other => {
                    self.step(obj, other)?;
                }
            }
        };
        let keep: Arc<gst::Buffer> = Arc::new(buffer.clone());
        let planes = picture.memories.iter().map(|&(fd, length, _)| DmaBufPlane {
            fd,
            keep: keep.clone(),
            length,
            offset: 0,
        });
        let taken = worker.offer(slot, Raw::DmaBuf(planes.collect()), number, force, self.patience());
        if !taken.map_err(|error| {
            self.post(obj, &error);
            gst::FlowError::Error
        })? {
            self.copy_from_now(obj, worker, number, "DMABufs that the device cannot reach")?;
            return Ok(None);
        }
        lock(&self.stats).frames_imported += 1;
        Ok(Some(gst::FlowSuccess::Ok))
    }

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
        if !self.binds() {
            return self.import_foreign(obj, worker, buffer, number, force);
        }
        let Some((fd, size)) = self.descriptor(obj, buffer)? else {
            self.copy_from_now(obj, worker, number, "DMABufs that are no NvBufSurface")?;
            return Ok(None);
        };
        if self.bind(fd).is_none() {
            gst::debug!(self.cat(), obj = obj, "more descriptors than the device has buffers: a new stream");
            lock(&self.stats).restarts += 1;
            self.anew(obj, worker, number)?;
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
