#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Prints what rkmppenc and rkmppdec find on this machine: kernel, device nodes and who may open them, library, codecs. Changes nothing.
set -uo pipefail

usage() {
    cat <<EOF
usage: scripts/check-rockchip.sh [--help]

Prints kernel, device nodes, permissions, the MPP library and which codecs rkmppenc can encode and
rkmppdec can decode. Nothing is changed or installed.
Ends with 0 if at least H.264 can be encoded.

Environment: ROCKCHIP_MPP_LIBRARY=<path> takes another library; GST_PLUGIN_PATH says where the plugin is
(default: target/release and target/debug of this repository).
EOF
}
case ${1:-} in
-h | --help)
    usage
    exit
    ;;
'') ;;
*)
    usage >&2
    exit 2
    ;;
esac

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export GST_PLUGIN_PATH="${GST_PLUGIN_PATH:-$repo/target/release:$repo/target/debug}"

row() { printf '%-12s %s\n' "$1" "$2"; }

row kernel "$(uname -srm)"
[ ! -r /proc/device-tree/compatible ] || row board "$(tr '\0' ' ' </proc/device-tree/compatible)"
row user "$(id -un) ($(id -Gn))"
for node in /dev/mpp_service /dev/dma_heap/* /dev/dri/renderD*; do
    [ -e "$node" ] || { row missing "$node"; continue; }
    access=closed
    [ ! -r "$node" ] || [ ! -w "$node" ] || access=open
    row "$access" "$(ls -l "$node")"
done

library="${ROCKCHIP_MPP_LIBRARY:-}"
if [ -z "$library" ]; then
    for name in librockchip_mpp.so.1 librockchip_mpp.so.0 librockchip_mpp.so; do
        library="$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | awk -v name="$name" '$1 == name { print $NF; exit }')"
        [ -z "$library" ] || break
    done
fi
if [ -n "$library" ]; then
    row library "$(readlink -f "$library")"
    ! command -v dpkg >/dev/null || row package "$(dpkg -S "$(readlink -f "$library")" 2>/dev/null | head -n1 || true)"
else
    row library "librockchip_mpp is not installed"
fi

if ! command -v gst-launch-1.0 >/dev/null; then
    row gstreamer "gst-launch-1.0 is missing: install gstreamer1.0-tools"
    exit 1
fi
row gstreamer "$(gst-launch-1.0 --version | head -n1)"
for element in rkmppenc rkmppdec; do
    gst-inspect-1.0 "$element" >/dev/null 2>&1 && continue
    row plugin "$element is not found in $GST_PLUGIN_PATH: cargo build -p gst-plugin-rkmpp"
    exit 1
done

work="$(mktemp -d "${TMPDIR:-/tmp}/check-rockchip.XXXXXX")"
trap 'rm -rf "$work"' EXIT
works=1
for codec in 'H.264|video/x-h264|h264parse' 'H.265|video/x-h265|h265parse' 'VP8|video/x-vp8|identity' 'JPEG|image/jpeg|identity'; do
    IFS='|' read -r name caps parser <<<"$codec"
    # The library tells its version when a context is made.
    if out="$(mpp_syslog_perror=1 timeout 20 gst-launch-1.0 -q videotestsrc num-buffers=5 ! video/x-raw,format=NV12,width=640,height=480 \
        ! rkmppenc ! "$caps" ! "$parser" ! matroskamux ! filesink location="$work/$name" 2>&1)"; then
        row "$name" "encoded"
        [ "$name" != H.264 ] || works=0
        if decoded="$(timeout 20 gst-launch-1.0 -q filesrc location="$work/$name" ! matroskademux ! "$parser" ! rkmppdec ! fakesink 2>&1)"; then
            row "$name" "decoded"
        else
            row "$name" "not decoded: $(grep -m1 '^ERROR' <<<"$decoded" || tail -n1 <<<"$decoded")"
        fi
    else
        row "$name" "not encoded: $(grep -m1 '^ERROR' <<<"$out" || tail -n1 <<<"$out")"
    fi
    if [ -z "${version:-}" ]; then
        version="$(grep -m1 -io 'mpp version.*' <<<"$out" || true)"
        [ -z "$version" ] || row version "$version"
    fi
done
# What no encoder makes: whether there is a decoder shows when its format comes, so a packet of noise is enough.
for codec in 'VP9|video/x-vp9' 'AV1|video/x-av1,stream-format=obu-stream,alignment=tu' 'MPEG-2|video/mpeg,mpegversion=2,systemstream=false,parsed=true' \
    'MPEG-4|video/mpeg,mpegversion=4,systemstream=false,parsed=true' 'H.263|video/x-h263'; do
    IFS='|' read -r name caps <<<"$codec"
    out="$(timeout 20 gst-launch-1.0 -q fakesrc num-buffers=1 format=time sizetype=fixed sizemax=64 filltype=random ! "$caps" ! rkmppdec ! fakesink 2>&1)"
    if reason="$(grep -m1 -o 'ERROR.*cannot be decoded.*' <<<"$out")"; then
        row "$name" "no decoder: $reason"
    else
        row "$name" "there is a decoder"
    fi
done
exit "$works"
