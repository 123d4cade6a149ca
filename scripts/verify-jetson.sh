#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Run on a board: encodes live test pictures with each codec and size, decodes the result, measures CPU and latency, prints a table.
set -euo pipefail

usage() {
    cat <<EOF
usage: scripts/verify-jetson.sh [OPTION…]

  --element TEXT     the encoder and its properties (jetsonv4l2enc bitrate=4000000)
  --codecs LIST      of h264, h265, av1 (h264,h265,av1)
  --sizes LIST       (1280x720,1920x1080)
  --fps N            pictures per second (30)
  --seconds N        of each run (10)
  --limit N          seconds after which a run has failed (three times --seconds, and 30)

A row is FAILED when a picture is missing after encoding or after decoding; the exit status is 1 then. Latency is that of the
encoder element alone (GStreamer's latency tracer); CPU is that of the encoding pipeline less that of its test source, in
percent of one core. Goals for Orin NX at 1080p30: latency below 30 ms, CPU below 10 %.
scripts/check-jetson.sh tells what is missing if nothing works.
EOF
}
die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

element='jetsonv4l2enc bitrate=4000000' codecs=h264,h265,av1 sizes=1280x720,1920x1080 fps=30 seconds=10 limit=
while (($#)); do
    case $1 in
    --element | --codecs | --sizes | --fps | --seconds | --limit)
        [ $# -ge 2 ] || die "$1 wants a value"
        declare "${1#--}=$2"
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
[[ $fps =~ ^[1-9][0-9]*$ && $seconds =~ ^[1-9][0-9]*$ ]] || die "--fps and --seconds want whole numbers above 0"
for name in gst-launch-1.0 gst-inspect-1.0; do
    command -v "$name" >/dev/null || die "$name is missing: sudo apt install gstreamer1.0-tools"
done

# The words of a pipeline, split as they are.
read -r -a encoder <<<"$element"
for ((index = ${#encoder[@]} - 1; index >= 0; index--)); do
    [[ ${encoder[index]} == *=* ]] || break
done
gst-inspect-1.0 --exists "${encoder[index]}" ||
    die "GStreamer finds no element ${encoder[index]}; is GST_PLUGIN_PATH set to where it was built (target/release)?"

work="$(mktemp -d "${TMPDIR:-/tmp}/verify-jetson.XXXXXX")"
trap 'rm -rf "$work"' EXIT
frames=$((fps * seconds))
# Three times what a run takes, and then some: a device that hangs must not hang this.
limit=${limit:-$((seconds * 3 + 30))}
[[ $limit =~ ^[1-9][0-9]*$ ]] || die "--limit wants a whole number above 0"
failed=0

# why STATUS LOG: what a pipeline that timeout(1) looked after ended with, and what it said.
why() {
    # 124: ended by it; 137: it had to be killed.
    if (($1 == 124 || $1 == 137)); then
        printf 'no end after %d s (--limit), so it was stopped. A device that hangs, or a machine that is too slow:\n' "$limit"
        printf '      look at dmesg and at who else encodes (tegrastats); or give it more time or less to do (--limit, --fps, --sizes)\n'
    else
        printf 'the pipeline ended with an error:\n'
    fi
    grep -E -A2 'ERROR|WARNING: erroneous' "$2" | head -6 | sed 's/^/      /' || true
}

# cpu_seconds COMMAND…: user and system time of a quiet command; its messages are in $work/log.
cpu_seconds() {
    local TIMEFORMAT='%U %S' times status=0
    times="$({ time timeout -k 5 "$limit" "$@" >"$work/log" 2>&1; } 2>&1)" || status=$?
    awk '{ print $1 + $2 }' <<<"$times"
    return $status
}

# Median, 95th percentile and maximum, in ms, of the encoder's latencies in a tracer's file.
latencies() {
    sed -n 's/.*element-latency.*element=(string)enc,.* time=(guint64)\([0-9]*\).*/\1/p' "$1" | sort -n |
        awk '{ v[NR] = $1 / 1e6 }
            END { if (NR == 0) print "- - -"; else printf "%.1f %.1f %.1f", v[int((NR + 1) / 2)], v[int((NR * 95 + 99) / 100)], v[NR] }'
}

printf '%-5s %-10s %7s %8s %8s %7s %8s %8s %8s %8s  %s\n' codec size frames encoded decoded 'CPU %' 'p50 ms' 'p95 ms' 'max ms' kbit/s ''
for codec in ${codecs//,/ }; do
    case $codec in
    h264) caps=video/x-h264,stream-format=byte-stream,alignment=au parser=h264parse ;;
    h265) caps=video/x-h265,stream-format=byte-stream,alignment=au parser=h265parse ;;
    av1) caps=video/x-av1 parser=av1parse ;;
    *) die "no codec is called $codec; there are h264, h265, av1" ;;
    esac
    for size in ${sizes//,/ }; do
        [[ $size =~ ^([0-9]+)x([0-9]+)$ ]] || die "a size is like 1920x1080, not $size"
        raw="video/x-raw,format=NV12,width=${BASH_REMATCH[1]},height=${BASH_REMATCH[2]},framerate=$fps/1"
        source=(videotestsrc is-live=true pattern=ball "num-buffers=$frames" ! "$raw")
        rm -f "$work"/*
        base="$(cpu_seconds gst-launch-1.0 -q "${source[@]}" ! fakesink sync=false)" || base=0
        # A buffer for each coded picture is a line in the log: identity's last-message.
        status=0
        cpu="$(GST_TRACERS='latency(flags=element)' GST_DEBUG=GST_TRACER:7 GST_DEBUG_NO_COLOR=1 GST_DEBUG_FILE="$work/trace" \
            cpu_seconds gst-launch-1.0 -v "${source[@]}" ! queue max-size-buffers=2 ! "${encoder[@]}" name=enc ! "$caps" ! \
            identity name=coded silent=false ! "$parser" ! matroskamux ! filesink "location=$work/out.mkv")" || status=$?
        if ((status)); then
            printf '%-5s %-10s FAILED: %s\n' "$codec" "$size" "$(why "$status" "$work/log")"
            failed=1
            continue
        fi
        encoded="$(grep -c 'coded: last-message = chain' "$work/log" || true)"
        timeout -k 5 "$limit" gst-launch-1.0 -v filesrc "location=$work/out.mkv" ! decodebin ! \
            fakesink name=shown sync=false silent=false >"$work/decoded" 2>&1 || status=$?
        decoded="$(grep -c 'shown: last-message = chain' "$work/decoded" || true)"
        rate="$(($(stat -c %s "$work/out.mkv") * 8 / seconds / 1000))"
        read -r p50 p95 max <<<"$(latencies "$work/trace")"
        verdict=ok
        if ((encoded != frames || decoded != frames)); then
            verdict=FAILED
            ((status == 0)) || verdict="FAILED: decoding: $(why "$status" "$work/decoded")"
            failed=1
        fi
        printf '%-5s %-10s %7d %8d %8d %7s %8s %8s %8s %8d  %s\n' "$codec" "$size" "$frames" "$encoded" "$decoded" \
            "$(awk -v a="$cpu" -v b="$base" -v s="$seconds" 'BEGIN { printf "%.1f", (a - b) * 100 / s }')" "$p50" "$p95" "$max" "$rate" "$verdict"
    done
done
exit $failed
