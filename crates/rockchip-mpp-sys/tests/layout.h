/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The library's types, written from what is known of its ABI. Handles are void pointers, enums have four bytes. */
#include <stddef.h>
#include <stdint.h>

enum example { EXAMPLE_MINUS_ONE = -1, EXAMPLE_ONE = 1 };

typedef void *MppCtx, *MppFrame, *MppPacket, *MppBuffer, *MppTask;

typedef struct {
    uint32_t size, version;
    int (*decode)(MppCtx, MppPacket, MppFrame *);
    int (*decode_put_packet)(MppCtx, MppPacket);
    int (*decode_get_frame)(MppCtx, MppFrame *);
    int (*encode)(MppCtx, MppFrame, MppPacket *);
    int (*encode_put_frame)(MppCtx, MppFrame);
    int (*encode_get_packet)(MppCtx, MppPacket *);
    int (*isp)(MppCtx, MppFrame, MppFrame);
    int (*isp_put_frame)(MppCtx, MppFrame);
    int (*isp_get_frame)(MppCtx, MppFrame *);
    int (*poll)(MppCtx, enum example, enum example);
    int (*dequeue)(MppCtx, enum example, MppTask *);
    int (*enqueue)(MppCtx, enum example, MppTask);
    int (*reset)(MppCtx);
    int (*control)(MppCtx, enum example, void *);
    uint32_t reserv[16];
} MppApi;

typedef struct { enum example buffer_type; size_t size; void *ptr, *hnd; int fd, index; } MppBufferInfo;
typedef struct { int32_t num, den; } MppFrameRational;
typedef struct {
    uint16_t display_primaries[3][2], white_point[2];
    uint32_t max_luminance, min_luminance;
} MppFrameMasteringDisplayMetadata;
typedef struct { uint16_t max_cll, max_fall; } MppFrameContentLightMetadata;
typedef struct { uint32_t hdr_fmt, size; uint8_t data[]; } MppFrameHdrDynamicMeta;
typedef struct MppPktSeg { int32_t index, seg_type; uint32_t offset, len; const struct MppPktSeg *next; } MppPktSeg;
typedef struct {
    uint16_t x, y, w, h, intra;
    int16_t quality;
    uint16_t qp_area_idx;
    uint8_t area_map_en, abs_qp_en;
} MppEncROIRegion;
typedef struct { uint32_t number; MppEncROIRegion *regions; } MppEncROICfg;
typedef struct {
    MppBuffer base_cfg_buf, qp_cfg_buf, amv_cfg_buf, mv_cfg_buf;
    uint32_t enabled, reserved[3];
} MppEncROICfg2;
typedef struct { uint32_t enable, inverse, start_mb_x, start_mb_y, num_mb_x, num_mb_y, buf_offset; } MppEncOSDRegion;
typedef struct { MppBuffer buf; uint32_t num_region; MppEncOSDRegion region[8]; } MppEncOSDData;
typedef struct { MppEncOSDRegion region; MppBuffer buf; } MppEncOSDRegion2;
typedef struct { uint32_t num_region; MppEncOSDRegion2 region[8]; } MppEncOSDData2;
typedef struct { uint32_t data[256]; } MppEncOSDPlt;
typedef struct { uint32_t change; enum example plt_type; MppEncOSDPlt *plt; } MppEncOSDPltCfg;
typedef struct { uint32_t len; void *pdata; } MppEncUserData;
typedef struct { uint32_t len; uint8_t *uuid; void *pdata; } MppEncUserDataFull;
typedef struct { uint32_t count; MppEncUserDataFull *datas; } MppEncUserDataSet;
typedef struct { int32_t lt_idx, temporal_id; enum example ref_mode; int32_t ref_arg, lt_gap, lt_delay; } MppEncRefLtFrmCfg;
typedef struct { int32_t is_non_ref, temporal_id; enum example ref_mode; int32_t ref_arg, repeat; } MppEncRefStFrmCfg;
typedef struct { uint32_t query_flag, values[7]; } MppQueryCfg;
