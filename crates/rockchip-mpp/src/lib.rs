// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rockchip MPP without its traps. [`Mpp::load`] finds the library at run time; nothing of it is needed to build.
//!
//! What a caller could do wrong in C is either impossible here or an [`Error`]:
//! * time-outs decide how a context works and must be set before it is initialised: [`Context`] has them, an
//!   [`Encoder`] has not;
//! * a frame given to an asynchronous encoder belongs to the library until its packet comes: [`Encoder::put`]
//!   takes it, [`Encoder::get`] gives it back, with the caller's token, found by its identity and not by order;
//! * a context is reset before it is destroyed, and buffers outlive the frames, groups outlive the buffers;
//! * descriptors that are imported are duplicated, because the library borrows them;
//! * whether something came is judged by the pointer that the library wrote, as its return codes differ by release;
//! * a decoder stands still at each new format until it has got memory: [`Decoder::get`] brings it;
//! * a decoded picture may still be looked at by the decoder: a [`PictureBuffer`] can only be read;
//! * keys of the configuration that a release does not know are remembered as not supported.
//!
//! ```no_run
//! use rockchip_mpp::{Coding, Context, Frame, Group, Mpp, Timeout};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mpp = Mpp::load(None)?;
//! let encoder = Context::new(mpp)?
//!     .with_input_timeout(Timeout::NonBlocking)?
//!     .with_output_timeout(Timeout::Millis(100))?
//!     .into_encoder(Coding::Avc)?;
//! let mut config = encoder.config()?;
//! for (key, value) in [(c"prep:width", 640), (c"prep:height", 480), (c"prep:hor_stride", 640)] {
//!     config.set(key, value)?;
//! }
//! encoder.apply(&config)?;
//!
//! let group = Group::internal(mpp)?;
//! let mut buffer = group.allocate(640 * 480 * 3 / 2)?;
//! buffer.map_mut()?.fill(0x80);
//! let mut frame = Frame::new(mpp)?;
//! frame.set_size(640, 480, 640, 480);
//! frame.set_buffer(buffer);
//! encoder.put(frame, 1)?;
//! while let Some(encoded) = encoder.get()? {
//!     println!("{:?}: {} bytes", encoded.token, encoded.packet.data().len());
//! }
//! # Ok(())
//! # }
//! ```

mod buffer;
mod config;
mod context;
mod decoder;
mod encoder;
mod error;
mod frame;
mod jpeg;
mod packet;
mod patience;
mod picture;

pub use buffer::{Buffer, Group, MapMut};
pub use config::{DecoderConfig, EncoderConfig, Value};
pub use context::{Coding, Context, Direction, Mpp, Timeout};
pub use decoder::{Decoded, Decoder, Put};
pub use encoder::{Encoded, Encoder, HeaderMode, InputMode, PutError, SeiMode};
pub use error::{Code, Error};
pub use frame::{Colour, Frame, RoiRegion};
pub use packet::Packet;
pub use picture::{Fields, Format, Picture, PictureBuffer, PictureColour};
pub use rockchip_mpp_sys as sys;
