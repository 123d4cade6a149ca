/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Keeps what is set and changes it a little, so that a get that returns its argument's bytes by chance is seen. */
static MppFrameRational sar;
static MppFrameMasteringDisplayMetadata display;
static MppFrameContentLightMetadata light;

void mpp_frame_set_sar(MppFrame frame, MppFrameRational value) {
    (void)frame;
    sar.num = value.num + 1;
    sar.den = value.den + 1;
}
MppFrameRational mpp_frame_get_sar(MppFrame frame) {
    (void)frame;
    return sar;
}
void mpp_frame_set_mastering_display(MppFrame frame, MppFrameMasteringDisplayMetadata value) {
    (void)frame;
    value.display_primaries[2][1]++;
    value.max_luminance++;
    display = value;
}
MppFrameMasteringDisplayMetadata mpp_frame_get_mastering_display(MppFrame frame) {
    (void)frame;
    return display;
}
void mpp_frame_set_content_light(MppFrame frame, MppFrameContentLightMetadata value) {
    (void)frame;
    light.max_cll = value.max_cll + 1;
    light.max_fall = value.max_fall + 1;
}
MppFrameContentLightMetadata mpp_frame_get_content_light(MppFrame frame) {
    (void)frame;
    return light;
}
