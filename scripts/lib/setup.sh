# SPDX-License-Identifier: MIT OR Apache-2.0
# Sourced by scripts/test and scripts/demo (bash, set -euo pipefail). Every setup_* function may be called again at
# any time, does nothing when nothing is missing, and says what it installs and why.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/gst-livekit-boards"
LIVEKIT_SERVER_VERSION=v1.13.3
export REPO CACHE
mkdir -p "$CACHE"

say() { printf '==> %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# with_progress WHAT COMMAND…: runs a quiet command, says every 15 s that it still works; its output is shown on failure.
# PROGRESS=<command> is called with the file that has the output so far, and says in a few words how far that is.
with_progress() {
    local what=$1 log pid start=$SECONDS next=15 status=0
    shift
    log="$(mktemp "$CACHE/log.XXXXXX")"
    say "$what"
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        if ((SECONDS - start >= next)); then
            say "$what: still at it after $((SECONDS - start)) s${PROGRESS:+, $("$PROGRESS" "$log")}"
            next=$((next + 15))
        fi
    done
    wait "$pid" || status=$?
    if ((status)); then
        cat "$log" >&2
        rm -f "$log"
        die "$what: failed with status $status; its output is above"
    fi
    rm -f "$log"
    say "$what: done in $((SECONDS - start)) s"
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed for: $* — run that as root, then start again"
    fi
}

# version_at_least HAVE WANTED
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

packages_of() {
    case $1 in
    # A C toolchain (the TLS library has C parts) and the GStreamer headers.
    build) echo build-essential pkg-config libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev ;;
    # The codec behind the simulated hardware (testing/sim-codec).
    simulators) echo libavcodec-dev libavutil-dev ;;
    # gst-launch and the elements that the pipelines of README, demo and tests use.
    runtime) echo gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav ;;
    # Python with GStreamer bindings, an RTSP server, a TLS proxy, a relay, network namespaces, a browser, nm, jpegtran.
    test) echo python3 python3-venv python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0 ffmpeg stunnel4 coturn openssl iproute2 nftables util-linux binutils chromium fonts-dejavu-core libjpeg-turbo-progs ;;
    # livekitwebrtcsink of gst-plugins-rs: its headers, and ICE at run time.
    peers) echo build-essential pkg-config libssl-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstreamer-plugins-bad1.0-dev gstreamer1.0-nice gstreamer1.0-plugins-bad ;;
    # The clock and the frame counter in the test picture, and their font; ps, to end what the demo started.
    demo) echo gstreamer1.0-x fonts-dejavu-core procps ;;
    # The kernel's source and what it is built with; programs that the tests run in that kernel.
    uml) echo linux-source build-essential flex bison bc xz-utils bzip2 util-linux iproute2 v4l-utils python3 gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad ;;
    memory) echo valgrind ;;
    *) die "no package set is called $1" ;;
    esac
}

purpose_of() {
    case $1 in
    build) echo "to compile the plugins" ;;
    simulators) echo "for the codec behind the simulated hardware" ;;
    runtime) echo "to run GStreamer pipelines" ;;
    test) echo "for the end-to-end tests" ;;
    peers) echo "for other publishers to compare with" ;;
    demo) echo "for the demo" ;;
    uml) echo "for the test kernel with its virtual V4L2 codec" ;;
    memory) echo "to look for errors of memory" ;;
    esac
}

# setup_system_packages SET…
setup_system_packages() {
    local set package missing
    for set in "$@"; do
        missing=()
        if ! command -v dpkg-query >/dev/null; then
            say "not a Debian-like system: make sure that these are installed $(purpose_of "$set") (Debian's names): $(packages_of "$set")"
            continue
        fi
        for package in $(packages_of "$set"); do
            [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
        done
        ((${#missing[@]})) || continue
        say "installing Debian packages $(purpose_of "$set"): ${missing[*]}"
        # Nothing that the tests need may begin to serve on somebody's machine by itself.
        if [[ " ${missing[*]} " == *" coturn "* ]] && command -v systemctl >/dev/null; then
            say "coturn's own service stays off (systemctl mask); the tests start theirs"
            as_root systemctl mask coturn.service >/dev/null 2>&1 || true
        fi
        if [ -z "${SETUP_APT_UPDATED:-}" ]; then
            with_progress "reading Debian's package lists" as_root apt-get update -q
            SETUP_APT_UPDATED=1
        fi
        with_progress "installing ${#missing[@]} packages" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
    done
}

# A cargo that is new enough: the pinned toolchain by rustup, else any newer than the declared minimum, else Debian's.
setup_rust() {
    local minimum have toolchain
    minimum="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml" | head -n1)"
    minimum="${minimum:-1.92}"
    have="$(cd "$REPO" && cargo --version 2>/dev/null | cut -d' ' -f2 || true)"
    if [ -n "$have" ] && version_at_least "$have" "$minimum"; then
        return
    fi
    if command -v rustup >/dev/null; then
        # The pinned toolchain could not be had; a default one may do.
        have="$(cd / && cargo --version 2>/dev/null | cut -d' ' -f2 || true)"
        if [ -n "$have" ] && version_at_least "$have" "$minimum"; then
            toolchain="$(cd / && rustup show active-toolchain | cut -d' ' -f1)"
            say "the pinned Rust toolchain is not there; using $toolchain ($have)"
            export RUSTUP_TOOLCHAIN="$toolchain"
            return
        fi
        die "Rust $minimum or newer is needed; run: rustup toolchain install stable && rustup default stable"
    fi
    if command -v apt-get >/dev/null; then
        say "installing Debian's Rust compiler (packages rustc-web, cargo-web, rustfmt-web, rust-web-clippy): cargo ${have:-is missing}, $minimum or newer is needed"
        with_progress "reading Debian's package lists" as_root apt-get update -q
        with_progress "installing Rust" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends rustc-web cargo-web rustfmt-web rust-web-clippy
        hash -r
        have="$(cd "$REPO" && cargo --version 2>/dev/null | cut -d' ' -f2 || true)"
        [ -n "$have" ] && version_at_least "$have" "$minimum" && return
    fi
    die "Rust $minimum or newer is needed (found: ${have:-none}); install it with rustup"
}

build_livekit_server() {
    local target=$1 work
    work="$(mktemp -d "$CACHE/go.XXXXXX")"
    (cd "$work" && GOBIN="$work" GOFLAGS=-mod=mod go install "github.com/livekit/livekit-server/cmd/server@$LIVEKIT_SERVER_VERSION") || {
        rm -rf "$work"
        return 1
    }
    mkdir -p "$(dirname "$target")"
    mv "$work/server" "$target"
    rm -rf "$work"
}

# Exports LIVEKIT_SERVER, the path of a livekit-server binary: given, on PATH, in the cache, or built there.
setup_livekit_server() {
    local cached have
    if [ -n "${LIVEKIT_SERVER:-}" ]; then
        [ -x "$LIVEKIT_SERVER" ] || die "LIVEKIT_SERVER=$LIVEKIT_SERVER can't be executed"
        export LIVEKIT_SERVER
        return
    fi
    if LIVEKIT_SERVER="$(command -v livekit-server)"; then
        export LIVEKIT_SERVER
        return
    fi
    cached="$CACHE/livekit-server-$LIVEKIT_SERVER_VERSION/livekit-server"
    if [ ! -x "$cached" ]; then
        have="$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true)"
        if [ -z "$have" ] || ! version_at_least "$have" 1.25; then
            die "no livekit-server on PATH, and building one needs Go 1.25 or newer (found: ${have:-none}); install either, or set LIVEKIT_SERVER=<path of a livekit-server binary>"
        fi
        # Two scripts at once must not build twice.
        exec 9>"$CACHE/livekit-server.lock"
        flock 9
        if [ ! -x "$cached" ]; then
            with_progress "building livekit-server $LIVEKIT_SERVER_VERSION with Go $have (once; 2 to 5 minutes)" build_livekit_server "$cached"
        fi
        exec 9>&-
    fi
    export LIVEKIT_SERVER="$cached"
}

make_venv() {
    local target=$1 requirements=$2
    rm -rf "$target.new"
    # The system's Python, because only that one has GStreamer's bindings.
    /usr/bin/python3 -m venv --system-site-packages "$target.new"
    "$target.new/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes --ignore-installed -r "$requirements"
    rm -rf "$target"
    mv "$target.new" "$target"
}

# Exports E2E_PYTHON: a Python that has LiveKit's SDK, pytest and GStreamer's bindings.
setup_python() {
    local requirements="$REPO/testing/e2e/requirements.txt" key venv
    [ -x /usr/bin/python3 ] || die "/usr/bin/python3 is missing; the tests need the system's Python with GStreamer's bindings"
    key="$({ cat "$requirements" && /usr/bin/python3 --version; } | sha256sum | cut -c1-16)"
    venv="$CACHE/venv-$key"
    if [ ! -x "$venv/bin/pytest" ]; then
        with_progress "installing LiveKit's Python SDK and pytest (pinned, with hashes) for the end-to-end tests" make_venv "$venv" "$requirements"
    fi
    export E2E_PYTHON="$venv/bin/python"
}

build_live555_receiver() {
    local target=$1 folder=$REPO/testing/rtpjpeg/live555 work source
    work="$(mktemp -d "$CACHE/live555.XXXXXX")"
    "$E2E_PYTHON" -m pip download --disable-pip-version-check --no-input --no-deps --require-hashes --no-binary :all: -d "$work" -r "$folder/requirements.txt" &&
        tar -xzf "$work"/liblivemedia-*.tar.gz -C "$work" --strip-components=1 &&
        source="-I$work/liveMedia/include -I$work/UsageEnvironment/include -I$work/BasicUsageEnvironment/include -I$work/groupsock/include" &&
        (cd "$work" && gcc $source -DSOCKLEN_T=socklen_t -w -c liveMedia/rtcp_from_spec.c groupsock/inet.c) &&
        (cd "$work" && g++ $source -DSOCKLEN_T=socklen_t -DNO_OPENSSL=1 -DNO_STD_LIB=1 -w -o receiver "$folder/receiver.cpp" rtcp_from_spec.o inet.o \
            liveMedia/{Media,MediaSource,MediaSink,FramedSource,RTPSource,MultiFramedRTPSource,JPEGVideoRTPSource,RTPInterface,RTCP,HMAC_SHA1,SRTPCryptographicContext,TLSState,MIKEY,Base64,RTPSink}.cpp \
            UsageEnvironment/*.cpp BasicUsageEnvironment/*.cpp groupsock/*.cpp) &&
        mkdir -p "$(dirname "$target")" && mv "$work/receiver" "$target"
    local status=$?
    rm -rf "$work"
    return $status
}

# Exports LIVE555_RECEIVER, a program that receives JPEG with VLC's RTP library. Needs setup_python.
setup_live555() {
    local key
    key="$(cat "$REPO"/testing/rtpjpeg/live555/* "${BASH_SOURCE[0]}" | sha256sum | cut -c1-16)"
    export LIVE555_RECEIVER="$CACHE/live555-$key/receiver"
    if [ ! -x "$LIVE555_RECEIVER" ]; then
        with_progress "building a receiver with live555, VLC's RTP library" build_live555_receiver "$LIVE555_RECEIVER"
    fi
}

# setup_node DIR: the packages of DIR's lock file.
setup_node() {
    local dir=$1 have stamp
    have="$(node --version 2>/dev/null | sed 's/^v//' || true)"
    if [ -z "$have" ] || ! version_at_least "$have" 20; then
        die "Node.js 20 or newer is needed (found: ${have:-none}); install it from your distribution or nodejs.org"
    fi
    stamp="$dir/node_modules/.lock-hash"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$(sha256sum <"$dir/package-lock.json")" ]; then
        # The tests drive the system's Chromium.
        PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 with_progress "installing the npm packages of ${dir#"$REPO"/}" npm ci --prefix "$dir" --no-audit --no-fund
        sha256sum <"$dir/package-lock.json" >"$stamp"
    fi
}

# Builds the tests' own receiver; it is found beside the plugin.
setup_receiver() {
    say "building the receiver of the end-to-end tests"
    (cd "$REPO" && cargo build --locked -p livekit-test-subscriber)
}

# setup_plugin [NAME…]: builds plugins (default: livekit) and makes GStreamer find them. A cargo call for each, because
# in one they would share features, and rtpjpeg needs a newer GStreamer than the others.
setup_plugin() {
    local name
    for name in "${@:-livekit}"; do
        say "building the plugin $name"
        (cd "$REPO" && cargo build --locked -p "gst-plugin-$name")
    done
    export GST_PLUGIN_PATH="${CARGO_TARGET_DIR:-$REPO/target}/debug${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}"
}

# Builds the service of examples/mjpeg-rtp-streamer and exports MJPEG_RTP_STREAMER, its path. A cargo call of its own,
# for the same reason.
setup_streamer() {
    say "building mjpeg-rtp-streamer"
    (cd "$REPO" && cargo build --locked -p mjpeg-rtp-streamer)
    export MJPEG_RTP_STREAMER="${CARGO_TARGET_DIR:-$REPO/target}/debug/mjpeg-rtp-streamer"
}
