// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles and structs of the C ABI. Sizes and offsets are those of a 64-bit system; `tests/layout.rs` compares
//! them with a C compiler.

use std::ffi::{c_int, c_void};

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident = $target:ident;)*) => {$(
        #[doc = concat!("What [`", stringify!($name), "`] points to; private to the library.")]
        #[repr(C)]
        #[derive(Debug)]
        pub struct $target {
            _private: [u8; 0],
        }

        $(#[$doc])*
        pub type $name = *mut $target;
    )*};
}

handles! {
    /// A codec instance (`void*` in C, as all handles).
    MppCtx = MppCtxTarget;
    /// A picture, or an announcement of one.
    MppFrame = MppFrameTarget;
    /// A piece of bitstream.
    MppPacket = MppPacketTarget;
    /// A reference-counted piece of memory that the hardware can reach.
    MppBuffer = MppBufferTarget;
    /// A pool of buffers.
    MppBufferGroup = MppBufferGroupTarget;
    /// Keyed values that travel with a frame or a packet.
    MppMeta = MppMetaTarget;
    /// A slot of a port's queue (the poll, dequeue, enqueue interface).
    MppTask = MppTaskTarget;
    /// An encoder's configuration, keyed by strings.
    MppEncCfg = MppEncCfgTarget;
    /// A decoder's configuration, keyed by strings.
    MppDecCfg = MppDecCfgTarget;
    /// An encoder's reference structure.
    MppEncRefCfg = MppEncRefCfgTarget;
}

/// A return code: 0 is success; see [`consts`](crate::consts).
pub type MppRet = i32;

/// Memory to import, and what is known of a buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppBufferInfo {
    /// `MPP_BUFFER_TYPE_*`, with flags.
    pub buffer_type: i32,
    /// Bytes.
    pub size: usize,
    /// Must be NULL when importing an fd.
    pub ptr: *mut c_void,
    /// Allocator's handle.
    pub hnd: *mut c_void,
    /// Descriptor of the dma-buf. Imports of `EXT_DMA` borrow it.
    pub fd: c_int,
    /// The caller's own number for the buffer.
    pub index: c_int,
}

impl Default for MppBufferInfo {
    fn default() -> Self {
        Self {
            buffer_type: 0,
            size: 0,
            ptr: std::ptr::null_mut(),
            hnd: std::ptr::null_mut(),
            fd: -1,
            index: 0,
        }
    }
}

/// A ratio (sample aspect ratio).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppFrameRational {
    /// Numerator.
    pub num: i32,
    /// Denominator.
    pub den: i32,
}

/// Mastering display colour volume (H.265 SEI 137), in the SEI's units.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppFrameMasteringDisplayMetadata {
    /// x and y of green, blue, red, in 1/50000.
    pub display_primaries: [[u16; 2]; 3],
    /// x and y of white, in 1/50000.
    pub white_point: [u16; 2],
    /// In 1/10000 cd/m².
    pub max_luminance: u32,
    /// In 1/10000 cd/m².
    pub min_luminance: u32,
}

/// Content light level (H.265 SEI 144), in cd/m².
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppFrameContentLightMetadata {
    /// Most light of a pixel.
    pub max_cll: u16,
    /// Most average light of a frame.
    pub max_fall: u16,
}

/// Head of dynamic HDR metadata; `size` bytes follow.
#[repr(C)]
#[derive(Debug)]
pub struct MppFrameHdrDynamicMeta {
    /// Kind of metadata.
    pub hdr_fmt: u32,
    /// Bytes that follow.
    pub size: u32,
    /// First of them.
    pub data: [u8; 0],
}

/// A piece of a packet (a NAL unit, a slice).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppPktSeg {
    /// Number of the piece.
    pub index: i32,
    /// NAL unit type.
    pub seg_type: i32,
    /// First byte in the packet.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
    /// The next piece or NULL.
    pub next: *const MppPktSeg,
}

/// A rectangle with a quality of its own (`KEY_ROI_DATA`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppEncROIRegion {
    /// Left, in pixels, 16-aligned.
    pub x: u16,
    /// Top, in pixels, 16-aligned.
    pub y: u16,
    /// Width, in pixels.
    pub w: u16,
    /// Height, in pixels.
    pub h: u16,
    /// 1: coded without prediction from other frames.
    pub intra: u16,
    /// QP, or difference of QP.
    pub quality: i16,
    /// 0 to 7; of overlapping regions the higher wins.
    pub qp_area_idx: u16,
    /// 1: `qp_area_idx` counts.
    pub area_map_en: u8,
    /// 1: `quality` is a QP; 0: a difference.
    pub abs_qp_en: u8,
}

/// All rectangles of a frame. Must live until the frame's packet is back.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncROICfg {
    /// How many, at most 8.
    pub number: u32,
    /// The first.
    pub regions: *mut MppEncROIRegion,
}

/// Quality by block, from buffers (`KEY_ROI_DATA2`; VEPU580).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncROICfg2 {
    /// Base configuration.
    pub base_cfg_buf: MppBuffer,
    /// QP of each block.
    pub qp_cfg_buf: MppBuffer,
    /// Motion vector hints.
    pub amv_cfg_buf: MppBuffer,
    /// Motion vectors.
    pub mv_cfg_buf: MppBuffer,
    /// Bit 0: QP, bit 1: hints, bit 2: vectors.
    pub enabled: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

/// A rectangle of overlay, in units of 16 pixels.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppEncOSDRegion {
    /// 1: shown.
    pub enable: u32,
    /// 1: inverted where the picture is bright.
    pub inverse: u32,
    /// Left.
    pub start_mb_x: u32,
    /// Top.
    pub start_mb_y: u32,
    /// Width.
    pub num_mb_x: u32,
    /// Height.
    pub num_mb_y: u32,
    /// First byte in the buffer.
    pub buf_offset: u32,
}

/// Overlay of a frame (`KEY_OSD_DATA`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncOSDData {
    /// Palette indices of all regions.
    pub buf: MppBuffer,
    /// How many regions.
    pub num_region: u32,
    /// The regions.
    pub region: [MppEncOSDRegion; 8],
}

/// As [`MppEncOSDRegion`], with a buffer of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncOSDRegion2 {
    /// Where and how.
    pub region: MppEncOSDRegion,
    /// Palette indices.
    pub buf: MppBuffer,
}

/// Overlay of a frame (`KEY_OSD_DATA2`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncOSDData2 {
    /// How many regions.
    pub num_region: u32,
    /// The regions.
    pub region: [MppEncOSDRegion2; 8],
}

/// An overlay's palette; each entry is V, U, Y, alpha from the lowest byte on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncOSDPlt {
    /// The colours.
    pub data: [u32; 256],
}

/// Sets an overlay's palette (`MPP_ENC_SET_OSD_PLT_CFG`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncOSDPltCfg {
    /// Bit 0: the kind changes, bit 1: the colours change.
    pub change: u32,
    /// 0: default palette, 1: the one given.
    pub plt_type: i32,
    /// The palette.
    pub plt: *mut MppEncOSDPlt,
}

/// User data for an SEI without UUID (`KEY_USER_DATA`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncUserData {
    /// Bytes.
    pub len: u32,
    /// The data.
    pub pdata: *mut c_void,
}

/// User data for an SEI.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncUserDataFull {
    /// Bytes, without the UUID.
    pub len: u32,
    /// 16 bytes.
    pub uuid: *mut u8,
    /// The data.
    pub pdata: *mut c_void,
}

/// All user data of a frame (`KEY_USER_DATAS`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MppEncUserDataSet {
    /// How many.
    pub count: u32,
    /// The first.
    pub datas: *mut MppEncUserDataFull,
}

/// A long-term reference of a reference structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppEncRefLtFrmCfg {
    /// Index of the long-term reference.
    pub lt_idx: i32,
    /// Temporal layer.
    pub temporal_id: i32,
    /// `REF_TO_*`.
    pub ref_mode: i32,
    /// Argument of the mode.
    pub ref_arg: i32,
    /// Frames between two with the same index.
    pub lt_gap: i32,
    /// Frames before the first.
    pub lt_delay: i32,
}

/// A frame of a reference structure's repeating pattern.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppEncRefStFrmCfg {
    /// 1: no other frame refers to it.
    pub is_non_ref: i32,
    /// Temporal layer.
    pub temporal_id: i32,
    /// `REF_TO_*`.
    pub ref_mode: i32,
    /// Argument of the mode.
    pub ref_arg: i32,
    /// More frames like this one that follow.
    pub repeat: i32,
}

/// What a codec does (`MPP_DEC_QUERY`, `MPP_ENC_QUERY`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppQueryCfg {
    /// Which of the values are asked for, from bit 0 on.
    pub query_flag: u32,
    /// Status, then counters.
    pub values: [u32; 7],
}
