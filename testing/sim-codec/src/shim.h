/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The few calls of libavcodec that the crate needs, with structures of our own. The Rust side (ffi.rs) repeats these declarations; a test compares the sizes. */
#ifndef SIM_SHIM_H
#define SIM_SHIM_H

#include <stddef.h>
#include <stdint.h>

typedef struct SimEncoder SimEncoder;
typedef struct SimDecoder SimDecoder;

/* Codec numbers are those of the Rust enum Codec. */
enum { SIM_H264, SIM_H265, SIM_VP8, SIM_VP9, SIM_AV1, SIM_MPEG1, SIM_MPEG2, SIM_MPEG4, SIM_H263, SIM_MJPEG, SIM_CODECS };

typedef struct SimEncoderConfig {
    int32_t codec;
    int32_t width, height;
    int32_t fps_num, fps_den;
    int32_t chroma;        /* 0 = 4:0:0, 1 = 4:2:0, 2 = 4:2:2, 3 = 4:4:4 */
    int32_t depth;         /* bits of a sample: 8 or 10 */
    int32_t b_frames;
    int32_t intra_refresh; /* frames of one pass; 0 = off */
    int32_t slices;        /* of a picture, H.264 only; 0 = the encoder chooses */
    int32_t level;         /* 10 × the level's number; 0 = the encoder chooses */
    int32_t range, primaries, transfer, matrix; /* H.273 code points, range 0 = unspecified, 1 = limited, 2 = full */
    const char *profile;   /* NULL = the encoder chooses */
} SimEncoderConfig;

typedef struct SimPicture {
    const uint8_t *plane[3];
    int32_t stride[3]; /* bytes */
    int32_t width, height;
    int32_t chroma, depth;
    int32_t key, corrupt;
    int32_t range, primaries, transfer, matrix;
    int64_t pts;
    /* HDR10: G, B, R primaries and white in 1/50000, luminance in 1/10000 cd/m²; has_* tells whether they are there. */
    int32_t has_mastering, has_light;
    uint16_t primary[3][2], white[2];
    uint32_t max_luminance, min_luminance;
    uint16_t max_cll, max_fall;
} SimPicture;

typedef struct SimPacket {
    const uint8_t *data;
    size_t length;
    int64_t pts;
    int32_t key;
} SimPacket;

/* All functions return 0, or a negative AVERROR; SIM_AGAIN when nothing is ready; SIM_END after the last one. */
enum { SIM_AGAIN = 1, SIM_END = 2 };

int sim_encoder_open(SimEncoder **out, const SimEncoderConfig *config, const uint8_t **headers, size_t *headers_len);
/* qp: the codec's own unit (shim.c says which); key: 1 makes an IDR picture. picture NULL = no more come. */
int sim_encoder_send(SimEncoder *e, const SimPicture *picture, int qp);
int sim_encoder_receive(SimEncoder *e, SimPacket *packet);
void sim_encoder_close(SimEncoder *e);

int sim_decoder_open(SimDecoder **out, int codec, const uint8_t *extra, size_t extra_len);
/* data NULL = no more come. */
int sim_decoder_send(SimDecoder *d, const uint8_t *data, size_t length, int64_t pts);
/* The planes stay valid until the next call. */
int sim_decoder_receive(SimDecoder *d, SimPicture *picture);
void sim_decoder_flush(SimDecoder *d);
void sim_decoder_close(SimDecoder *d);

void sim_error_text(int code, char *text, size_t length);
size_t sim_size_of(int what); /* 0 = SimEncoderConfig, 1 = SimPicture, 2 = SimPacket */
#endif
