#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Looks whether this machine has what jetsonv4l2enc needs: NVENC's node, NVIDIA's libraries, permission. Changes nothing.
set -uo pipefail

usage() {
    cat <<EOF
usage: scripts/check-jetson.sh [--root DIR]

Prints a line for each thing that jetsonv4l2enc needs (ok, note, or MISSING with what to do) and a sum.
  --root DIR   look below DIR instead of below / (an unpacked image; tests)

Exit status: 0 nothing is missing, 1 something is, 2 wrong use.
EOF
}

root=
while (($#)); do
    case $1 in
    --root)
        [ $# -ge 2 ] && [ -d "$2" ] || {
            echo "error: --root wants a folder" >&2
            exit 2
        }
        root=${2%/}
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

missing=0
ok() { printf 'ok       %s\n' "$*"; }
note() { printf 'note     %s\n' "$*"; }
# missing WHAT WHAT-TO-DO
missing() {
    printf 'MISSING  %s\n         → %s\n' "$1" "$2"
    missing=$((missing + 1))
}

# find_in NAME… -- FOLDER…: the first of these names in the first of these folders that has one.
find_in() {
    local names=() name folder
    while [ "$1" != -- ]; do
        names+=("$1")
        shift
    done
    shift
    for folder in "$@"; do
        for name in "${names[@]}"; do
            [ -e "$root$folder/$name" ] && echo "$folder/$name" && return
        done
    done
    return 1
}

# --- The board ---
if model="$({ tr -d '\0' <"$root/proc/device-tree/model"; } 2>/dev/null)" && [ -n "$model" ]; then
    ok "board: $model"
    case $model in
    *"Orin Nano"*) note "Orin Nano has no NVENC: only software encoders work on it (x264enc, openh264enc)" ;;
    esac
else
    note "no board name in /proc/device-tree/model: this is no Jetson, or a container that hides it"
fi

release=''
if [ -r "$root/etc/nv_tegra_release" ]; then
    # First line: "# R36 (release), REVISION: 4.3, GCID: …"
    release="$(sed -n '1s/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\).*/\1.\2/p' "$root/etc/nv_tegra_release")"
elif [ -z "$root" ]; then
    release="$(dpkg-query -W -f '${Version}' nvidia-l4t-core 2>/dev/null | cut -d- -f1)"
fi
major=${release%%.*}
if [ -n "$release" ]; then
    case $major in
    32) jetpack=4 ;;
    35) jetpack=5 ;;
    36) jetpack=6 ;;
    38 | 39) jetpack=7 ;;
    *) jetpack='' ;;
    esac
    ok "Jetson Linux R$release${jetpack:+ (JetPack $jetpack)}"
    case $release in
    36.4*) note "R36.4 wraps AV1 in IVF; jetsonv4l2enc takes that off" ;;
    38.* | 39.*) note "on Thor NVIDIA's library may choose its cuvid plugin; AV1 encoding is Orin's only" ;;
    esac
else
    major=0
    missing "Jetson Linux: no /etc/nv_tegra_release" "on a Jetson flash Jetson Linux; in a container start from an image made for it (l4t-base, l4t-jetpack)"
fi

# --- The node ---
container=no
{ [ -e "$root/.dockerenv" ] || [ -e "$root/run/.containerenv" ]; } && container=yes
if node="$(find_in v4l2-nvenc nvhost-msenc -- /dev)"; then
    if [ -f "$root$node" ] && [ -z "$root" ]; then
        # What a container run with a bind mount of a missing device leaves.
        missing "$node is a plain file, no device" "remove it; in a container pass the device: --device $node"
    elif [ -r "$root$node" ] && [ -w "$root$node" ]; then
        ok "encoder node: $node"
    else
        missing "permission to read and write $node" "sudo usermod -aG video $(id -un), then log in again"
    fi
    if [ "$major" -ge 36 ] && [ "$node" != /dev/v4l2-nvenc ]; then
        note "R36 and newer have /dev/v4l2-nvenc; $node alone may be a leftover"
    fi
elif [ "$container" = yes ]; then
    missing "an encoder node (/dev/v4l2-nvenc, /dev/nvhost-msenc)" "run the container with --runtime nvidia, or pass the node with --device (R36: /dev/v4l2-nvenc, older: /dev/nvhost-msenc)"
else
    missing "an encoder node (/dev/v4l2-nvenc, /dev/nvhost-msenc)" "this board has no NVENC (Orin Nano, PCs), or its driver is not loaded: dmesg | grep -i nvenc"
fi

# --- The libraries ---
bases=(/usr/lib/aarch64-linux-gnu /usr/lib)
own=() plain=() plugin_folders=()
for base in "${bases[@]}"; do
    # `nvidia` since R34, `tegra` before.
    own+=("$base/nvidia" "$base/tegra")
    plain+=("$base")
    plugin_folders+=("$base/libv4l/plugins/nv" "$base/libv4l/plugins")
done
if library="$(find_in libnvv4l2.so libv4l2.so.0 -- "${own[@]}" || find_in libnvv4l2.so -- "${plain[@]}")"; then
    ok "NVIDIA's V4L2 library: $library"
elif library="$(find_in libv4l2.so.0 -- "${plain[@]}")"; then
    missing "NVIDIA's V4L2 library: $library is the distribution's" "sudo apt install nvidia-l4t-multimedia"
else
    missing "NVIDIA's V4L2 library (libnvv4l2.so)" "sudo apt install nvidia-l4t-multimedia; in a container --runtime nvidia brings it in"
fi
if plugin="$(find_in libv4l2_nvvideocodec.so -- "${plugin_folders[@]}")"; then
    ok "its codec plugin: $plugin"
    if [ -e "$root${plugin%/*}/libv4l2_nvcuvidvideocodec.so" ] && [ "$major" -lt 38 ]; then
        note "libv4l2_nvcuvidvideocodec.so beside it comes first in the alphabet, and containers may get it instead; move it away if errors name CUDA_GPU_ID"
    fi
else
    missing "its codec plugin libv4l2_nvvideocodec.so (looked in ${plugin_folders[*]})" "sudo apt install nvidia-l4t-multimedia, or name its folder in LIBV4L2_PLUGIN_DIR"
fi
if surface="$(find_in libnvbufsurface.so libnvbufsurface.so.1.0.0 -- "${own[@]}" "${plain[@]}")"; then
    ok "NVIDIA's buffer library: $surface"
else
    missing "NVIDIA's buffer library libnvbufsurface.so" "sudo apt install nvidia-l4t-multimedia-utils"
fi

# --- GStreamer, and how fast the board is set ---
if [ -z "$root" ]; then
    version="$(gst-inspect-1.0 --version 2>/dev/null | sed -n 's/^GStreamer //p')"
    if [ -n "$version" ]; then
        ok "GStreamer $version"
        if gst-inspect-1.0 --exists jetsonv4l2enc 2>/dev/null; then
            ok "element jetsonv4l2enc"
        else
            # shellcheck disable=SC2016
            missing "element jetsonv4l2enc" 'cargo build --release -p gst-plugin-v4l2m2m && export GST_PLUGIN_PATH=$PWD/target/release'
        fi
    else
        missing "GStreamer's tools" "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
    fi
    if command -v nvpmodel >/dev/null; then
        note "power mode: $(nvpmodel -q 2>/dev/null | sed -n 's/^NV Power Mode: //p') (sudo nvpmodel -m 0 is usually the fastest)"
    fi
fi

echo
if ((missing)); then
    echo "$missing missing"
    exit 1
fi
echo "nothing is missing"
