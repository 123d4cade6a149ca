#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Prints what rkmppenc finds on this machine: kernel, device nodes and who may open them, library, codecs. Changes nothing.
set -uo pipefail

usage() {
    cat <<EOF
usage: scripts/check-rockchip.sh [--help]

Prints kernel, device nodes, permissions, the MPP library and which codecs rkmppenc can encode. Nothing is changed or installed.
Ends with 0 if at least H.264 works.

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
if ! gst-inspect-1.0 rkmppenc >/dev/null 2>&1; then
    row plugin "rkmppenc is not found in $GST_PLUGIN_PATH: cargo build -p gst-plugin-rkmpp"
    exit 1
fi

works=1
for codec in H.264:video/x-h264 H.265:video/x-h265 VP8:video/x-vp8 JPEG:image/jpeg; do
    # The library tells its version when a context is made.
    if out="$(mpp_syslog_perror=1 timeout 20 gst-launch-1.0 -q videotestsrc num-buffers=5 ! video/x-raw,format=NV12,width=640,height=480 \
        ! rkmppenc ! "${codec#*:}" ! fakesink 2>&1)"; then
        row "${codec%%:*}" "works"
        [ "${codec%%:*}" != H.264 ] || works=0
    else
        row "${codec%%:*}" "$(grep -m1 '^ERROR' <<<"$out" || tail -n1 <<<"$out")"
    fi
    if [ -z "${version:-}" ]; then
        version="$(grep -m1 -io 'mpp version.*' <<<"$out" || true)"
        [ -z "$version" ] || row version "$version"
    fi
done
exit "$works"
