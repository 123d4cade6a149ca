#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A checklist for a Rockchip board: runs rkmppenc and rkmppdec on the real hardware and prints a table for a report. See --help.
set -uo pipefail

usage() {
    cat <<EOF
usage: scripts/verify-rockchip.sh [--frames N] [--help]

Encodes test pictures on this machine's hardware, decodes them with software and with the hardware, and prints one line for each check: ok, FAILED, or how fast.
It takes about two minutes. Please put the output, with that of scripts/check-rockchip.sh, into an issue: reports from boards are what
this project lacks most.

Needs the plugin (cargo build --release -p gst-plugin-rkmpp) and gstreamer1.0-tools, -plugins-base, -plugins-good, -plugins-bad, -libav; for ten bits x265enc
(of -bad).
EOF
}
frames=300
while (($#)); do
    case $1 in
    --frames)
        frames=${2:?--frames wants a number}
        shift
        ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export GST_PLUGIN_PATH="${GST_PLUGIN_PATH:-$repo/target/release:$repo/target/debug}"
work="$(mktemp -d "${TMPDIR:-/tmp}/verify-rockchip.XXXXXX")"
trap 'rm -rf "$work"' EXIT

failed=0
report() { printf '%-8s %s\n' "$1" "$2"; }
# check NAME PIPELINE…: ends by itself without an error or a critical.
check() {
    local name=$1
    shift
    if timeout 60 gst-launch-1.0 -q "$@" >"$work/log" 2>&1 && ! grep -q CRITICAL "$work/log"; then
        report ok "$name"
    else
        report FAILED "$name: $(grep -m1 -E 'ERROR|CRITICAL' "$work/log" || tail -n1 "$work/log")"
        failed=$((failed + 1))
        return 1
    fi
}
# Pictures that a decoder makes of a file: as many as went in?
pictures() {
    local name=$1 file=$2 wanted=$3 got
    shift 3
    # shellcheck disable=SC2016 # the fields are identity's, not the shell's
    got="$(timeout 60 gst-launch-1.0 -v filesrc location="$file" ! "$@" ! identity silent=false ! fakesink 2>/dev/null | grep -c 'chain   \*\*\*')"
    if [ "$got" = "$wanted" ]; then
        report ok "$name: all $wanted pictures can be decoded"
    else
        report FAILED "$name: $got of $wanted pictures can be decoded"
        failed=$((failed + 1))
    fi
}

for format in NV12 I420 YUY2 BGRA; do
    source="videotestsrc num-buffers=60 pattern=ball ! video/x-raw,format=$format,width=1280,height=720,framerate=30/1"
    # shellcheck disable=SC2086 # words on purpose, here and below
    check "H.264 from $format" $source ! rkmppenc ! video/x-h264 ! filesink location="$work/h264" &&
        pictures "H.264 from $format" "$work/h264" 60 h264parse ! avdec_h264 &&
        pictures "H.264 from $format, by rkmppdec" "$work/h264" 60 h264parse ! rkmppdec
done
source="videotestsrc num-buffers=60 pattern=ball ! video/x-raw,format=NV12,width=1280,height=720,framerate=30/1"
# shellcheck disable=SC2086
{
    check "H.265" $source ! rkmppenc ! video/x-h265 ! filesink location="$work/h265" && pictures "H.265" "$work/h265" 60 h265parse ! avdec_h265 &&
        pictures "H.265, by rkmppdec" "$work/h265" 60 h265parse ! rkmppdec
    check "JPEG" $source ! rkmppenc ! image/jpeg ! filesink location="$work/jpeg" && pictures "JPEG" "$work/jpeg" 60 jpegparse ! jpegdec &&
        pictures "JPEG, by rkmppdec" "$work/jpeg" 60 jpegparse ! rkmppdec
    check "VP8 (not on RK3566, RK3576)" $source ! rkmppenc ! video/x-vp8 ! vp8dec ! fakesink
    check "avc in MP4" $source ! rkmppenc ! video/x-h264,stream-format=avc ! h264parse ! mp4mux ! filesink location="$work/mp4" &&
        pictures "avc in MP4" "$work/mp4" 60 qtdemux ! h264parse ! avdec_h264
    check "VP8 by rkmppdec (not on RK3566, RK3576)" $source ! rkmppenc ! video/x-vp8 ! rkmppdec ! fakesink
    check "decoded and encoded again, as dma-bufs" filesrc location="$work/h264" ! h264parse ! rkmppdec ! 'video/x-raw(memory:DMABuf)' ! rkmppenc ! fakesink
    if printf '%s\n' 1.24 "$(gst-launch-1.0 --version | sed -n 's/^GStreamer //p')" | sort -CV; then
        # Compression loses nothing: the same pictures make the same stream.
        afbc='video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=(string)YU08:0x0800000000000041'
        check "decoded and encoded again, in lines" filesrc location="$work/h264" ! h264parse ! rkmppdec ! 'video/x-raw(memory:DMABuf)' \
            ! rkmppenc rate-control=fixqp ! video/x-h265 ! filesink location="$work/plain" &&
            check "decoded and encoded again, compressed (AFBC)" filesrc location="$work/h264" ! h264parse ! rkmppdec arm-afbc=true ! "$afbc" \
                ! rkmppenc rate-control=fixqp ! video/x-h265 ! filesink location="$work/afbc" &&
            if cmp -s "$work/plain" "$work/afbc"; then
                report ok "compressed or not, the pictures are the same"
            else
                report FAILED "compressed (AFBC) pictures differ from those in lines"
                failed=$((failed + 1))
            fi
    else
        report skipped "compressed pictures (AFBC): GStreamer is older than 1.24"
    fi
    check "ten bits unpacked" videotestsrc num-buffers=30 ! video/x-raw,format=I420_10LE,width=1280,height=720,framerate=30/1 ! x265enc speed-preset=ultrafast \
        ! h265parse ! rkmppdec ! video/x-raw,format=P010_10LE ! fakesink
    check "rotated by 90 degrees" $source ! rkmppenc rotation=90 ! h264parse ! avdec_h264 ! video/x-raw,width=720,height=1280 ! fakesink
    check "odd chroma layout (1918x1078)" videotestsrc num-buffers=30 ! video/x-raw,format=NV12,width=1918,height=1078,framerate=30/1 ! rkmppenc ! h264parse ! avdec_h264 ! fakesink
    check "temporal layers" $source ! rkmppenc temporal-layers=3 ! h264parse ! avdec_h264 ! fakesink
    check "intra refresh" $source ! rkmppenc intra-refresh=4 ! h264parse ! avdec_h264 ! fakesink
    check "a new size while playing" concat name=c ! rkmppenc ! h264parse ! avdec_h264 ! fakesink \
        $source ! c. videotestsrc num-buffers=60 ! video/x-raw,format=NV12,width=640,height=480,framerate=30/1 ! c.
}

# speed NAME WIDTH HEIGHT PROPERTIES: frames of one buffer, so that the source costs nothing.
speed() {
    local name=$1 width=$2 height=$3 begin end
    shift 3
    begin="$(date +%s%N)"
    if timeout 120 gst-launch-1.0 -q videotestsrc num-buffers=1 pattern=smpte \
        ! "video/x-raw,format=NV12,width=$width,height=$height,framerate=60/1" ! imagefreeze num-buffers="$frames" \
        ! rkmppenc "$@" ! video/x-h264 ! fakesink >"$work/log" 2>&1; then
        end="$(date +%s%N)"
        report speed "$name, $*: $((frames * 1000000000 / (end - begin))) frames/s"
    else
        report FAILED "$name, $*: $(grep -m1 ERROR "$work/log" || tail -n1 "$work/log")"
        failed=$((failed + 1))
    fi
}
for pending in 1 2 4; do
    speed "1920x1080" 1920 1080 "max-pending=$pending"
    speed "3840x2160" 3840 2160 "max-pending=$pending"
done

# decode_speed NAME FILE PARSER: pictures in dma-bufs that nobody looks at, and what it costs the CPU.
decode_speed() {
    local name=$1 file=$2 parser=$3 begin end seconds count
    count=$frames
    begin="$(date +%s%N)"
    if seconds="$({ TIMEFORMAT='%U %S'; time timeout 120 gst-launch-1.0 -q filesrc location="$file" ! "$parser" ! rkmppdec \
        ! 'video/x-raw(memory:DMABuf)' ! fakevideosink sync=false >"$work/log" 2>&1; } 2>&1)"; then
        end="$(date +%s%N)"
        report speed "$name decoded: $((count * 1000000000 / (end - begin))) frames/s, $(awk -v n="$count" '{ printf "%.2f", 1000 * ($1 + $2) / n }' <<<"$seconds") ms of CPU time each (the start is in it)"
    else
        report FAILED "$name decoded: $(grep -m1 ERROR "$work/log" || tail -n1 "$work/log")"
        failed=$((failed + 1))
    fi
}
for codec in h264 h265; do
    for size in 1920x1080 3840x2160; do
        if check "$codec of $size" videotestsrc num-buffers=1 ! "video/x-raw,format=NV12,width=${size%x*},height=${size#*x},framerate=60/1" \
            ! imagefreeze num-buffers="$frames" ! rkmppenc ! "video/x-$codec" ! filesink location="$work/speed"; then
            decode_speed "$codec of $size" "$work/speed" "${codec}parse"
        fi
    done
done

if [ -e /dev/video0 ]; then
    # io-mode=dmabuf: the frames have to be imported, which GST_DEBUG=rkmppenc:4 tells if they are not.
    if GST_DEBUG=rkmppenc:4 timeout 30 gst-launch-1.0 -q v4l2src num-buffers=60 io-mode=dmabuf ! video/x-raw,format=NV12 ! rkmppenc ! fakesink >"$work/log" 2>&1; then
        if grep -q 'are copied' "$work/log"; then
            report FAILED "camera's dma-bufs: $(grep -m1 -o 'dma-bufs are copied.*' "$work/log")"
            failed=$((failed + 1))
        else
            report ok "camera's dma-bufs go in without a copy"
        fi
    else
        report skipped "camera with io-mode=dmabuf and NV12: $(grep -m1 ERROR "$work/log" || tail -n1 "$work/log")"
    fi
else
    report skipped "camera: there is no /dev/video0"
fi
echo "$failed failed"
((failed == 0))
