// SPDX-License-Identifier: MPL-2.0

//! Counters.

/// What the element did since PAUSED.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    pub frames_in: u64,
    pub frames_out: u64,
    pub bytes_out: u64,
    pub keyframes: u64,
    /// Put into the encoder, nothing came out.
    pub dropped: u64,
    /// Not put into the encoder, because nobody needed them or they could not be read.
    pub skipped: u64,
    pub copied: u64,
    pub imported: u64,
    pub restarts: u64,
    pub average_qp: i32,
    pub bitrate: u32,
    pub max_pending: u64,
    /// Why the last copy was one, although the frame was a dma-buf.
    pub copy_reason: Option<&'static str>,
}

impl Stats {
    /// For the property `stats`.
    pub fn structure(&self, pending: usize) -> gst::Structure {
        gst::Structure::builder("rkmppenc-stats")
            .field("frames-in", self.frames_in)
            .field("frames-out", self.frames_out)
            .field("bytes-out", self.bytes_out)
            .field("keyframes", self.keyframes)
            .field("frames-dropped", self.dropped)
            .field("frames-skipped", self.skipped)
            .field("frames-copied", self.copied)
            .field("frames-imported", self.imported)
            .field("restarts", self.restarts)
            .field("average-qp", self.average_qp)
            .field("bitrate", self.bitrate)
            .field("pending", pending as u64)
            .field("most-pending", self.max_pending)
            .field("copy-reason", self.copy_reason.unwrap_or_default())
            .build()
    }
}
