// SPDX-License-Identifier: MIT OR Apache-2.0
// Joins a LiveKit room in headless Chromium, lets the first video track play and prints one JSON report:
//   node play.mjs '{"url": "ws://…", "token": "…", "frames": 60, "timeout": 30}'
// Exit code 0 when that many pictures were shown (and sound heard, with "audio": true), 1 otherwise.
import { launch } from "./chromium.mjs";

const options = { frames: 60, timeout: 30, audio: false, ...JSON.parse(process.argv[2]) };
const html = "<!doctype html><title>check</title><script src=livekit-client.js></script><video muted autoplay playsinline></video>";
const { run } = await launch(html);
await run(join, options);

// Runs inside the page.
async function join({ url, token, frames, timeout, audio, clock }) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room();
  const video = document.querySelector("video");
  const seen = { numbers: [], shown: [], frames: 0, tracks: [], first: null };
  const begin = performance.now();
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });

  // The stamp of harness/stamp.py: 60 cells in three rows of 20; number 20 bit, time 32 bit, checksum 8 bit.
  function stamp() {
    const cell = Math.floor(video.videoWidth / 20);
    if (cell < 4) return null;
    canvas.width = cell * 20;
    canvas.height = cell * 3;
    context.drawImage(video, 0, 0, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let word = 0n;
    for (let i = 0; i < 60; i++) {
      const x = (i % 20) * cell + (cell >> 1);
      const y = Math.floor(i / 20) * cell + (cell >> 1);
      word = (word << 1n) | BigInt(pixels[4 * (y * canvas.width + x) + 1] > 125);
    }
    const number = word >> 40n;
    const ms = (word >> 8n) & 0xffffffffn;
    const check = (0xa5n ^ number ^ (number >> 8n) ^ (number >> 16n) ^ ms ^ (ms >> 8n) ^ (ms >> 16n) ^ (ms >> 24n)) & 0xffn;
    return check === (word & 0xffn) ? { number: Number(number), ms: Number(ms) } : null;
  }

  // Presented on the compositor's tick; decoded pictures are counted from the statistics too.
  const onFrame = () => {
    seen.frames += 1;
    seen.first ??= performance.now() - begin;
    const stamped = stamp();
    if (stamped !== null) {
      seen.numbers.push(stamped.number);
      // `clock`: what Date.now() is ahead of the stamps' clock, in ms.
      const delay = clock === undefined ? null : Math.round(Date.now() - clock - stamped.ms);
      seen.shown.push([Math.round(performance.now() - begin), stamped.number, delay]);
    }
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  room.on(RoomEvent.TrackSubscribed, (track, publication) => {
    seen.tracks.push({ kind: track.kind, name: publication.trackName, mime: publication.mimeType });
    if (track.kind === "video") track.attach(video);
    else document.body.append(track.attach());
  });
  await room.connect(url, token);

  let stats = {};
  let sound = {};
  for (;;) {
    for (const participant of room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        const rtcStats = await publication.track?.getRTCStatsReport();
        if (!rtcStats) continue;
        for (const entry of rtcStats.values()) {
          if (entry.type !== "inbound-rtp") continue;
          const codec = rtcStats.get(entry.codecId);
          const flat = {
            codec: codec?.mimeType, fmtp: codec?.sdpFmtpLine, decoded: entry.framesDecoded, lost: entry.packetsLost,
            width: entry.frameWidth, height: entry.frameHeight, freezes: entry.freezeCount, plis: entry.pliCount,
            energy: entry.totalAudioEnergy,
          };
          if (entry.kind === "video") stats = flat;
          else sound = flat;
        }
      }
    }
    const done = seen.frames >= frames && (stats.decoded ?? 0) >= frames && (!audio || sound.energy > 0);
    if (done || performance.now() - begin > timeout * 1000) {
      await room.disconnect();
      return { ok: done, ...seen, stats, sound };
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
