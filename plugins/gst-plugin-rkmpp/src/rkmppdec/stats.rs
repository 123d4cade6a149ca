// SPDX-License-Identifier: MPL-2.0

//! Counters.

/// What the element did since PAUSED.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    /// Packets.
    pub frames_in: u64,
    pub frames_out: u64,
    /// Pushed with errors in them, and marked.
    pub corrupted: u64,
    /// Left out because of errors in them.
    pub discarded: u64,
    /// Packets that no picture came of.
    pub lost: u64,
    /// Pictures copied or converted by the CPU.
    pub copied: u64,
    /// Formats that the decoder announced.
    pub formats: u64,
    pub restarts: u64,
    /// Pictures come compressed.
    pub compressed: bool,
    /// Why the last copy was one.
    pub copy_reason: Option<&'static str>,
}

impl Stats {
    /// For the property `stats`.
    pub fn structure(&self, pending: usize, held: usize) -> gst::Structure {
        gst::Structure::builder("rkmppdec-stats")
            .field("frames-in", self.frames_in)
            .field("frames-out", self.frames_out)
            .field("frames-corrupted", self.corrupted)
            .field("frames-discarded", self.discarded)
            .field("frames-lost", self.lost)
            .field("frames-copied", self.copied)
            .field("formats", self.formats)
            .field("restarts", self.restarts)
            .field("pending", pending as u64)
            .field("buffers-held", held as u64)
            .field("compressed", self.compressed)
            .field("copy-reason", self.copy_reason.unwrap_or_default())
            .build()
    }
}
