// SPDX-License-Identifier: MIT OR Apache-2.0

//! Codec instances and the table of their functions.

use crate::abi::{Id, export, id, store};
use crate::control::{leaked, log, misuse};
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::frame::FRAMES;
use crate::jpeg_dec::JpegDecoder;
use crate::options::options;
use crate::registry::{Registry, lock};
use crate::timing::Wait;
use rockchip_mpp_sys::consts::*;
use rockchip_mpp_sys::*;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

#[derive(Clone)]
enum Engine {
    None,
    Encoder(Arc<Encoder>),
    Decoder(Arc<Decoder>),
    Jpeg(Arc<JpegDecoder>),
}

struct State {
    engine: Engine,
    /// Encoders wait when nothing was said, decoders don't.
    input: Option<Wait>,
    output: Wait,
}

/// A codec instance.
pub struct Context(Mutex<State>);

pub static CONTEXTS: Registry<Context> = Registry::new("context");

static API: MppApi = MppApi {
    size: 184,
    version: 0,
    decode: Some(decode),
    decode_put_packet: Some(decode_put_packet),
    decode_get_frame: Some(decode_get_frame),
    encode: Some(encode),
    encode_put_frame: Some(encode_put_frame),
    encode_get_packet: Some(encode_get_packet),
    isp: Some(isp),
    isp_put_frame: Some(isp_put_frame),
    isp_get_frame: Some(isp_get_frame),
    poll: Some(poll),
    dequeue: Some(dequeue),
    enqueue: Some(enqueue),
    reset: Some(reset),
    control: Some(control),
    reserv: [0; 16],
};

/// The codecs that exist: decoders, encoders.
const DECODERS: [i32; 9] = [
    MPP_VIDEO_CODING_MPEG2,
    MPP_VIDEO_CODING_H263,
    MPP_VIDEO_CODING_MPEG4,
    MPP_VIDEO_CODING_AVC,
    MPP_VIDEO_CODING_MJPEG,
    MPP_VIDEO_CODING_VP8,
    MPP_VIDEO_CODING_VP9,
    MPP_VIDEO_CODING_HEVC,
    MPP_VIDEO_CODING_AV1,
];
const ENCODERS: [i32; 4] =
    [MPP_VIDEO_CODING_AVC, MPP_VIDEO_CODING_HEVC, MPP_VIDEO_CODING_VP8, MPP_VIDEO_CODING_MJPEG];

fn exists(side: i32, coding: i32) -> bool {
    match side {
        MPP_CTX_DEC => DECODERS.contains(&coding),
        MPP_CTX_ENC => ENCODERS.contains(&coding),
        _ => false,
    }
}

/// Does something with the engine, unlocked; −1002 before `mpp_init`.
fn with(ctx: MppCtx, what: &str, f: impl FnOnce(&Engine) -> i32) -> i32 {
    let Some(context) = CONTEXTS.of(ctx, what) else { return MPP_ERR_NULL_PTR };
    let engine = lock(&context.0).engine.clone();
    if matches!(engine, Engine::None) {
        misuse(format_args!("{what}: mpp_init comes first"));
        return MPP_ERR_INIT;
    }
    f(&engine)
}

fn with_encoder(ctx: MppCtx, what: &str, f: impl FnOnce(&Encoder) -> i32) -> i32 {
    with(ctx, what, |engine| match engine {
        Engine::Encoder(encoder) => f(encoder),
        _ => wrong(what),
    })
}

fn wrong(what: &str) -> i32 {
    misuse(format_args!("{what}: not what this context is for"));
    MPP_NOK
}

extern "C" fn decode(_ctx: MppCtx, _packet: MppPacket, _frame: *mut MppFrame) -> MppRet {
    wrong("decode")
}

extern "C" fn decode_put_packet(ctx: MppCtx, packet: MppPacket) -> MppRet {
    with(ctx, "decode_put_packet", |engine| match engine {
        Engine::Decoder(decoder) => decoder.put(packet),
        Engine::Jpeg(decoder) => decoder.put(packet),
        _ => wrong("decode_put_packet"),
    })
}

extern "C" fn decode_get_frame(ctx: MppCtx, frame: *mut MppFrame) -> MppRet {
    with(ctx, "decode_get_frame", |engine| match engine {
        Engine::Decoder(decoder) => decoder.get(frame),
        Engine::Jpeg(decoder) => decoder.get(frame),
        _ => wrong("decode_get_frame"),
    })
}

extern "C" fn encode(_ctx: MppCtx, _frame: MppFrame, _packet: *mut MppPacket) -> MppRet {
    wrong("encode")
}

extern "C" fn encode_put_frame(ctx: MppCtx, frame: MppFrame) -> MppRet {
    with_encoder(ctx, "encode_put_frame", |e| e.put(frame))
}

extern "C" fn encode_get_packet(ctx: MppCtx, packet: *mut MppPacket) -> MppRet {
    with_encoder(ctx, "encode_get_packet", |e| e.get(packet))
}

extern "C" fn isp(_ctx: MppCtx, _from: MppFrame, _to: MppFrame) -> MppRet {
    wrong("isp")
}

extern "C" fn isp_put_frame(_ctx: MppCtx, _frame: MppFrame) -> MppRet {
    wrong("isp_put_frame")
}

extern "C" fn isp_get_frame(_ctx: MppCtx, _frame: *mut MppFrame) -> MppRet {
    wrong("isp_get_frame")
}

/// Only JPEG decoding goes through tasks here.
fn with_tasks(ctx: MppCtx, what: &str, f: impl FnOnce(&JpegDecoder) -> i32) -> i32 {
    with(ctx, what, |engine| match engine {
        Engine::Jpeg(decoder) => f(decoder),
        _ => wrong(what),
    })
}

extern "C" fn poll(ctx: MppCtx, port: i32, timeout: i32) -> MppRet {
    with_tasks(ctx, "poll", |d| d.poll(port, timeout))
}

extern "C" fn dequeue(ctx: MppCtx, port: i32, task: *mut MppTask) -> MppRet {
    with_tasks(ctx, "dequeue", |d| d.dequeue(port, task))
}

extern "C" fn enqueue(ctx: MppCtx, port: i32, task: MppTask) -> MppRet {
    with_tasks(ctx, "enqueue", |d| d.enqueue(port, task))
}

extern "C" fn reset(ctx: MppCtx) -> MppRet {
    with(ctx, "reset", |engine| match engine {
        Engine::Encoder(encoder) => encoder.reset(),
        Engine::Decoder(decoder) => decoder.reset(),
        Engine::Jpeg(decoder) => decoder.reset(),
        Engine::None => MPP_ERR_INIT,
    })
}

extern "C" fn control(ctx: MppCtx, command: i32, param: *mut c_void) -> MppRet {
    let Some(context) = CONTEXTS.of(ctx, "control") else { return MPP_ERR_NULL_PTR };
    let engine = lock(&context.0).engine.clone();
    match (engine, command) {
        // Only these are legal before mpp_init.
        (Engine::None, MPP_SET_INPUT_TIMEOUT | MPP_SET_OUTPUT_TIMEOUT) => {
            let Some(wait) = Wait::read(param) else { return MPP_ERR_NULL_PTR };
            let mut state = lock(&context.0);
            if command == MPP_SET_INPUT_TIMEOUT {
                state.input = Some(wait);
            } else {
                state.output = wait;
            }
            MPP_OK
        }
        (Engine::None, _) => {
            misuse(format_args!("control {command:#x}: mpp_init comes first"));
            MPP_ERR_INIT
        }
        (Engine::Encoder(encoder), _) => encoder.control(command, param),
        (Engine::Decoder(decoder), _) => decoder.control(command, param),
        (Engine::Jpeg(decoder), _) => decoder.control(command, param),
    }
}

fn init(context: &Context, side: i32, coding: i32) -> i32 {
    let options = options();
    let mut state = lock(&context.0);
    if !matches!(state.engine, Engine::None) {
        misuse(format_args!("mpp_init: this context is in use already"));
        return MPP_ERR_INIT;
    }
    if options.init_error != 0 || options.without.contains(&coding) || !exists(side, coding) {
        log(format_args!("mpp_init: no hardware for side {side}, coding {coding:#x}"));
        return if options.init_error != 0 { options.init_error } else { MPP_NOK };
    }
    let output = state.output;
    let engine = match (side, coding) {
        (MPP_CTX_ENC, _) => {
            Encoder::start(coding, state.input.unwrap_or(Wait::Forever), output).map(Engine::Encoder)
        }
        (_, MPP_VIDEO_CODING_MJPEG) => {
            Some(Engine::Jpeg(JpegDecoder::start(state.input.unwrap_or(Wait::No), output)))
        }
        _ => Decoder::start(coding, state.input.unwrap_or(Wait::No), output).map(Engine::Decoder),
    };
    match engine {
        Some(engine) => {
            state.engine = engine;
            MPP_OK
        }
        None => MPP_NOK,
    }
}

fn destroy(ctx: Id) -> i32 {
    let Some(context) = CONTEXTS.remove(ctx, "mpp_destroy") else { return MPP_ERR_NULL_PTR };
    let engine = std::mem::replace(&mut lock(&context.0).engine, Engine::None);
    match engine {
        Engine::Encoder(encoder) => encoder.stop(),
        Engine::Decoder(decoder) => decoder.stop(),
        Engine::Jpeg(decoder) => decoder.stop(),
        Engine::None => {}
    }
    // Nobody could use them for anything any more.
    if CONTEXTS.len() == 0 {
        let held = FRAMES.len();
        leaked(
            held,
            format_args!("mpp_destroy: {held} frame(s) are still held, and there is no context left"),
        );
    }
    MPP_OK
}

export! {
    fn mpp_create(ctx: *mut MppCtx, api: *mut *mut MppApi) -> MppRet {
        if ctx.is_null() || api.is_null() {
            misuse(format_args!("mpp_create: no place for the handle or the table"));
            return MPP_ERR_NULL_PTR;
        }
        log(format_args!("mpp version: simulator of {}", options().release.name()));
        let state = State { engine: Engine::None, input: None, output: Wait::No };
        store(ctx, CONTEXTS.handle(Context(Mutex::new(state))));
        store(api, (&raw const API).cast_mut());
        MPP_OK
    }
    fn mpp_init(ctx: MppCtx, ctx_type: i32, coding: i32) -> MppRet {
        CONTEXTS.of(ctx, "mpp_init").map_or(MPP_ERR_NULL_PTR, |c| init(&c, ctx_type, coding))
    }
    fn mpp_destroy(ctx: MppCtx) -> MppRet { destroy(id(ctx)) }
    // No probe of the hardware: says what the library was built with.
    fn mpp_check_support_format(ctx_type: i32, coding: i32) -> MppRet {
        if exists(ctx_type, coding) { MPP_OK } else { MPP_NOK }
    }
    fn mpp_set_log_level(_level: i32) {}
}
