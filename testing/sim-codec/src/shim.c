/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* libavcodec, with the controls of a hardware encoder: a QP for each picture, forced IDR pictures, nothing decided behind the caller's back. */
#include "shim.h"

#include <libavcodec/avcodec.h>
#include <libavutil/imgutils.h>
#include <libavutil/log.h>
#include <libavutil/mastering_display_metadata.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <stdio.h>
#include <string.h>

struct SimEncoder {
    AVCodecContext *context;
    AVFrame *frame;
    AVPacket *packet;
    int codec;
};

struct SimDecoder {
    AVCodecContext *context;
    AVFrame *frame;
    AVPacket *packet;
};

/* Quantisers that a region of interest moves away from: the middle of the codec's range, so that all of it is reached. */
enum { BASE_H265 = 26, BASE_VP8 = 32 };

static const enum AVCodecID ids[SIM_CODECS] = {
    [SIM_H264] = AV_CODEC_ID_H264,         [SIM_H265] = AV_CODEC_ID_HEVC,       [SIM_VP8] = AV_CODEC_ID_VP8,
    [SIM_VP9] = AV_CODEC_ID_VP9,           [SIM_AV1] = AV_CODEC_ID_AV1,         [SIM_MPEG1] = AV_CODEC_ID_MPEG1VIDEO,
    [SIM_MPEG2] = AV_CODEC_ID_MPEG2VIDEO,  [SIM_MPEG4] = AV_CODEC_ID_MPEG4,     [SIM_H263] = AV_CODEC_ID_H263,
    [SIM_MJPEG] = AV_CODEC_ID_MJPEG,
};

static const char *const encoders[SIM_CODECS] = {
    [SIM_H264] = "libx264",       [SIM_H265] = "libx265", [SIM_VP8] = "libvpx", [SIM_VP9] = "libvpx-vp9", [SIM_AV1] = "libaom-av1",
    [SIM_MPEG1] = "mpeg1video",   [SIM_MPEG2] = "mpeg2video", [SIM_MPEG4] = "mpeg4", [SIM_H263] = "h263",  [SIM_MJPEG] = "mjpeg",
};

static void quiet(void) { av_log_set_level(AV_LOG_QUIET); }

static enum AVPixelFormat pixel_format(int codec, int chroma, int depth) {
    if (codec == SIM_MJPEG)
        return chroma == 3 ? AV_PIX_FMT_YUVJ444P : chroma == 2 ? AV_PIX_FMT_YUVJ422P : AV_PIX_FMT_YUVJ420P;
    if (depth > 8)
        return chroma == 3 ? AV_PIX_FMT_YUV444P10 : chroma == 2 ? AV_PIX_FMT_YUV422P10 : AV_PIX_FMT_YUV420P10;
    return chroma == 3 ? AV_PIX_FMT_YUV444P : chroma == 2 ? AV_PIX_FMT_YUV422P : AV_PIX_FMT_YUV420P;
}

static int codec_options(AVCodecContext *c, const SimEncoderConfig *config) {
    char text[512];
    void *o = c->priv_data;
    int ret = 0;

    switch (config->codec) {
    case SIM_H264:
        /* Key frames come only where they are forced; with qcomp=1 the rate factor is the QP. */
        snprintf(text, sizeof text,
                 "keyint=%s:min-keyint=1:scenecut=0:mbtree=0:aq-mode=0:qcomp=1:ipratio=1:rc-lookahead=0:sync-lookahead=0:"
                 "sliced-threads=0:threads=1:b-pyramid=0:open-gop=0",
                 "infinite");
        if (config->intra_refresh > 0)
            snprintf(text + strlen(text), sizeof text - strlen(text), ":intra-refresh=1:keyint=%d", config->intra_refresh);
        if (config->slices > 0)
            snprintf(text + strlen(text), sizeof text - strlen(text), ":slices=%d", config->slices);
        ret |= av_opt_set(o, "preset", "superfast", 0);
        ret |= av_opt_set(o, "tune", config->b_frames ? "psnr" : "zerolatency", 0);
        ret |= av_opt_set(o, "x264-params", text, 0);
        ret |= av_opt_set_double(o, "crf", 26, 0);
        ret |= av_opt_set_int(o, "forced-idr", 1, 0);
        if (config->profile)
            ret |= av_opt_set(o, "profile", config->profile, 0);
        if (config->level) {
            snprintf(text, sizeof text, "%d.%d", config->level / 10, config->level % 10);
            ret |= av_opt_set(o, "level", text, 0);
        }
        c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
        break;
    case SIM_H265:
        snprintf(text, sizeof text,
                 "keyint=-1:min-keyint=1:scenecut=0:cutree=0:aq-mode=1:aq-strength=0.01:qcomp=1:ipratio=1:pools=none:"
                 "frame-threads=1:wpp=0:info=0:repeat-headers=0:open-gop=0:log-level=none:bframes=%d:rc-lookahead=%d:crf=%d",
                 config->b_frames, config->b_frames ? config->b_frames + 1 : 0, BASE_H265);
        if (config->level)
            snprintf(text + strlen(text), sizeof text - strlen(text), ":level-idc=%d", config->level);
        ret |= av_opt_set(o, "preset", "ultrafast", 0);
        if (!config->b_frames)
            ret |= av_opt_set(o, "tune", "zerolatency", 0);
        ret |= av_opt_set(o, "x265-params", text, 0);
        ret |= av_opt_set_int(o, "forced-idr", 1, 0);
        c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
        break;
    case SIM_VP8:
    case SIM_VP9:
        ret |= av_opt_set(o, "deadline", "realtime", 0);
        ret |= av_opt_set_int(o, "cpu-used", 8, 0);
        ret |= av_opt_set_int(o, "lag-in-frames", 0, 0);
        ret |= av_opt_set_int(o, "auto-alt-ref", 0, 0);
        c->bit_rate = 500 * 1000 * 1000;
        c->qmin = c->qmax = BASE_VP8;
        break;
    case SIM_AV1:
        ret |= av_opt_set(o, "usage", "realtime", 0);
        ret |= av_opt_set_int(o, "cpu-used", 8, 0);
        ret |= av_opt_set_int(o, "lag-in-frames", 0, 0);
        ret |= av_opt_set_int(o, "crf", 20, 0);
        break;
    case SIM_MJPEG:
        /* Hardware writes the tables of the specification's annex K, and so do receivers of RTP/JPEG. */
        ret |= av_opt_set(o, "huffman", "default", 0);
        c->color_range = AVCOL_RANGE_JPEG;
        break;
    default:
        break;
    }
    if (config->codec >= SIM_MPEG1) {
        c->flags |= AV_CODEC_FLAG_QSCALE;
        c->global_quality = FF_QP2LAMBDA * 3;
        c->qmin = 1;
        c->qmax = 31;
    }
    return ret < 0 ? AVERROR(EINVAL) : 0;
}

int sim_encoder_open(SimEncoder **out, const SimEncoderConfig *config, const uint8_t **headers, size_t *headers_len) {
    const AVCodec *codec;
    SimEncoder *e;
    AVCodecContext *c;
    int ret;

    *out = NULL;
    if (config->codec < 0 || config->codec >= SIM_CODECS)
        return AVERROR(EINVAL);
    quiet();
    codec = avcodec_find_encoder_by_name(encoders[config->codec]);
    if (!codec)
        return AVERROR_ENCODER_NOT_FOUND;
    e = av_mallocz(sizeof *e);
    if (!e)
        return AVERROR(ENOMEM);
    e->codec = config->codec;
    e->frame = av_frame_alloc();
    e->packet = av_packet_alloc();
    c = e->context = avcodec_alloc_context3(codec);
    if (!e->frame || !e->packet || !c) {
        sim_encoder_close(e);
        return AVERROR(ENOMEM);
    }
    c->width = config->width;
    c->height = config->height;
    c->pix_fmt = pixel_format(config->codec, config->chroma, config->depth);
    /* The codecs that have no time stamps of their own only take some rates; what is shown when is not their business here. */
    c->time_base = (AVRational){1, config->codec >= SIM_MPEG1 && config->codec <= SIM_H263 ? 25 : 90000};
    c->framerate = config->codec >= SIM_MPEG1 && config->codec <= SIM_H263
                       ? (AVRational){25, 1}
                       : (AVRational){config->fps_num, config->fps_den};
    c->gop_size = 1 << 20;
    if (config->codec >= SIM_MPEG1 && config->codec <= SIM_H263)
        c->gop_size = 600;
    c->keyint_min = 1;
    c->max_b_frames = config->b_frames;
    c->thread_count = 1;
    c->color_range = config->range == 2 ? AVCOL_RANGE_JPEG : config->range == 1 ? AVCOL_RANGE_MPEG : AVCOL_RANGE_UNSPECIFIED;
    c->color_primaries = config->primaries;
    c->color_trc = config->transfer;
    c->colorspace = config->matrix;
    ret = codec_options(c, config);
    if (!ret)
        ret = avcodec_open2(c, codec, NULL);
    if (ret < 0) {
        sim_encoder_close(e);
        return ret;
    }
    *headers = c->flags & AV_CODEC_FLAG_GLOBAL_HEADER ? c->extradata : NULL;
    *headers_len = *headers ? (size_t)c->extradata_size : 0;
    *out = e;
    return 0;
}

/* Moves the quantiser of the whole picture by delta of range. */
static int whole_picture_offset(AVFrame *frame, int delta, int range) {
    AVFrameSideData *data = av_frame_new_side_data(frame, AV_FRAME_DATA_REGIONS_OF_INTEREST, sizeof(AVRegionOfInterest));
    AVRegionOfInterest *region;
    if (!data)
        return AVERROR(ENOMEM);
    region = (AVRegionOfInterest *)data->data;
    *region = (AVRegionOfInterest){.self_size = sizeof *region, .right = frame->width, .bottom = frame->height, .qoffset = {delta, range}};
    return 0;
}

int sim_encoder_send(SimEncoder *e, const SimPicture *p, int qp) {
    AVFrame *f = e->frame;
    const AVPixFmtDescriptor *format;
    int ret, i;

    if (!p)
        return avcodec_send_frame(e->context, NULL);
    av_frame_unref(f);
    f->width = e->context->width;
    f->height = e->context->height;
    f->format = e->context->pix_fmt;
    if (p->width != f->width || p->height != f->height || pixel_format(e->codec, p->chroma, p->depth) != f->format)
        return AVERROR(EINVAL);
    ret = av_frame_get_buffer(f, 0);
    if (ret < 0)
        return ret;
    format = av_pix_fmt_desc_get(f->format);
    for (i = 0; i < 3; i++) {
        int width = i ? AV_CEIL_RSHIFT(f->width, format->log2_chroma_w) : f->width;
        int height = i ? AV_CEIL_RSHIFT(f->height, format->log2_chroma_h) : f->height;
        av_image_copy_plane(f->data[i], f->linesize[i], p->plane[i], p->stride[i], width * ((format->comp[0].depth + 7) / 8), height);
    }
    f->pts = p->pts;
    f->pict_type = p->key ? AV_PICTURE_TYPE_I : AV_PICTURE_TYPE_NONE;
    switch (e->codec) {
    case SIM_H264: /* QP 0–51 */
        ret = av_opt_set_double(e->context->priv_data, "crf", qp, 0);
        break;
    case SIM_H265: /* QP 0–51 */
        ret = whole_picture_offset(f, qp - BASE_H265, 51);
        break;
    case SIM_VP8: /* 0–63 */
        ret = whole_picture_offset(f, qp - BASE_VP8, 63);
        break;
    case SIM_VP9:
    case SIM_AV1: /* one quality */
        break;
    default: /* quantiser scale 1–31 */
        f->quality = FF_QP2LAMBDA * qp;
        break;
    }
    return ret < 0 ? ret : avcodec_send_frame(e->context, f);
}

static int again(int ret) { return ret == AVERROR(EAGAIN) ? SIM_AGAIN : ret == AVERROR_EOF ? SIM_END : ret; }

int sim_encoder_receive(SimEncoder *e, SimPacket *out) {
    int ret;
    av_packet_unref(e->packet);
    ret = avcodec_receive_packet(e->context, e->packet);
    if (ret < 0)
        return again(ret);
    out->data = e->packet->data;
    out->length = (size_t)e->packet->size;
    out->pts = e->packet->pts;
    out->key = !!(e->packet->flags & AV_PKT_FLAG_KEY);
    return 0;
}

void sim_encoder_close(SimEncoder *e) {
    if (!e)
        return;
    avcodec_free_context(&e->context);
    av_frame_free(&e->frame);
    av_packet_free(&e->packet);
    av_free(e);
}

int sim_decoder_open(SimDecoder **out, int codec, const uint8_t *extra, size_t extra_len) {
    const AVCodec *decoder = NULL;
    SimDecoder *d;
    int ret;

    *out = NULL;
    if (codec < 0 || codec >= SIM_CODECS || extra_len > 1 << 20)
        return AVERROR(EINVAL);
    quiet();
    /* Other AV1 decoders of libavcodec need hardware. */
    if (codec == SIM_AV1)
        decoder = avcodec_find_decoder_by_name("libdav1d");
    if (!decoder)
        decoder = avcodec_find_decoder(ids[codec]);
    if (!decoder)
        return AVERROR_DECODER_NOT_FOUND;
    d = av_mallocz(sizeof *d);
    if (!d)
        return AVERROR(ENOMEM);
    d->frame = av_frame_alloc();
    d->packet = av_packet_alloc();
    d->context = avcodec_alloc_context3(decoder);
    if (!d->frame || !d->packet || !d->context) {
        sim_decoder_close(d);
        return AVERROR(ENOMEM);
    }
    /* Damaged pictures come out, marked, as the hardware's do. */
    d->context->flags |= AV_CODEC_FLAG_OUTPUT_CORRUPT;
    d->context->thread_count = 1;
    d->context->pkt_timebase = (AVRational){1, 90000};
    if (codec == SIM_AV1) /* libdav1d decodes at most this many pictures ahead */
        av_opt_set_int(d->context->priv_data, "max_frame_delay", 1, 0);
    if (extra_len) {
        d->context->extradata = av_mallocz(extra_len + AV_INPUT_BUFFER_PADDING_SIZE);
        if (!d->context->extradata) {
            sim_decoder_close(d);
            return AVERROR(ENOMEM);
        }
        memcpy(d->context->extradata, extra, extra_len);
        d->context->extradata_size = (int)extra_len;
    }
    ret = avcodec_open2(d->context, decoder, NULL);
    if (ret < 0) {
        sim_decoder_close(d);
        return ret;
    }
    *out = d;
    return 0;
}

int sim_decoder_send(SimDecoder *d, const uint8_t *data, size_t length, int64_t pts) {
    int ret;
    if (!data)
        return again(avcodec_send_packet(d->context, NULL));
    if (!length || length > 1 << 28)
        return AVERROR(EINVAL);
    av_packet_unref(d->packet);
    ret = av_new_packet(d->packet, (int)length);
    if (ret < 0)
        return ret;
    memcpy(d->packet->data, data, length);
    d->packet->pts = pts;
    return again(avcodec_send_packet(d->context, d->packet));
}

static int colour_range(enum AVColorRange range) { return range == AVCOL_RANGE_JPEG ? 2 : range == AVCOL_RANGE_MPEG ? 1 : 0; }

static uint32_t scaled(AVRational value, int unit) { return value.den ? (uint32_t)av_rescale(value.num, unit, value.den) : 0; }

int sim_decoder_receive(SimDecoder *d, SimPicture *p) {
    const AVPixFmtDescriptor *format;
    const AVFrameSideData *side;
    AVFrame *f = d->frame;
    int ret, i;

    av_frame_unref(f);
    ret = avcodec_receive_frame(d->context, f);
    if (ret < 0)
        return again(ret);
    format = av_pix_fmt_desc_get(f->format);
    memset(p, 0, sizeof *p);
    if (!format || (format->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BE)) || format->comp[0].depth > 10 ||
        (format->nb_components > 1 && !(format->flags & AV_PIX_FMT_FLAG_PLANAR)) || f->linesize[0] < 0)
        return AVERROR_PATCHWELCOME;
    p->width = f->width;
    p->height = f->height;
    p->depth = format->comp[0].depth > 8 ? 10 : 8;
    if (format->nb_components == 1)
        p->chroma = 0;
    else if (format->log2_chroma_h == 1 && format->log2_chroma_w == 1)
        p->chroma = 1;
    else if (format->log2_chroma_h == 0 && format->log2_chroma_w == 1)
        p->chroma = 2;
    else if (format->log2_chroma_h == 0 && format->log2_chroma_w == 0)
        p->chroma = 3;
    else
        return AVERROR_PATCHWELCOME;
    if (format->comp[0].depth != 8 && format->comp[0].depth != 10)
        return AVERROR_PATCHWELCOME;
    for (i = 0; i < (p->chroma ? 3 : 1); i++) {
        p->plane[i] = f->data[i];
        p->stride[i] = f->linesize[i];
    }
    p->key = f->key_frame;
    p->corrupt = (f->flags & AV_FRAME_FLAG_CORRUPT) || f->decode_error_flags;
    p->pts = f->pts;
    p->range = colour_range(f->color_range);
    p->primaries = f->color_primaries;
    p->transfer = f->color_trc;
    p->matrix = f->colorspace;
    side = av_frame_get_side_data(f, AV_FRAME_DATA_MASTERING_DISPLAY_METADATA);
    if (side) {
        /* FFmpeg orders the primaries R, G, B; H.265's message, and hardware, G, B, R. */
        static const int order[3] = {1, 2, 0};
        const AVMasteringDisplayMetadata *m = (const AVMasteringDisplayMetadata *)side->data;
        p->has_mastering = m->has_primaries && m->has_luminance;
        for (i = 0; i < 3; i++) {
            p->primary[i][0] = (uint16_t)scaled(m->display_primaries[order[i]][0], 50000);
            p->primary[i][1] = (uint16_t)scaled(m->display_primaries[order[i]][1], 50000);
        }
        p->white[0] = (uint16_t)scaled(m->white_point[0], 50000);
        p->white[1] = (uint16_t)scaled(m->white_point[1], 50000);
        p->max_luminance = scaled(m->max_luminance, 10000);
        p->min_luminance = scaled(m->min_luminance, 10000);
    }
    side = av_frame_get_side_data(f, AV_FRAME_DATA_CONTENT_LIGHT_LEVEL);
    if (side) {
        const AVContentLightMetadata *l = (const AVContentLightMetadata *)side->data;
        p->has_light = 1;
        p->max_cll = (uint16_t)l->MaxCLL;
        p->max_fall = (uint16_t)l->MaxFALL;
    }
    return 0;
}

void sim_decoder_flush(SimDecoder *d) { avcodec_flush_buffers(d->context); }

void sim_decoder_close(SimDecoder *d) {
    if (!d)
        return;
    avcodec_free_context(&d->context);
    av_frame_free(&d->frame);
    av_packet_free(&d->packet);
    av_free(d);
}

void sim_error_text(int code, char *text, size_t length) {
    if (av_strerror(code, text, length) < 0)
        snprintf(text, length, "error %d", code);
}

size_t sim_size_of(int what) {
    switch (what) {
    case 0:
        return sizeof(SimEncoderConfig);
    case 1:
        return sizeof(SimPicture);
    default:
        return sizeof(SimPacket);
    }
}
