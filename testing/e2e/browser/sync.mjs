// SPDX-License-Identifier: MIT OR Apache-2.0
// Watches a room's flashes and beeps in headless Chromium and prints one JSON report:
//   node sync.mjs '{"url": "ws://…", "token": "…", "seconds": 25, "settle": 15}'
// For each flash after `settle` seconds: when its picture is shown, when its beep is heard (ms), and the difference;
// also what the viewer page's own code says about the delay of the pictures.
import { readFile } from "node:fs/promises";
import { launch } from "./chromium.mjs";

const options = { seconds: 25, settle: 15, audio: true, ...JSON.parse(process.argv[2]) };
const viewer = (name) => readFile(new URL(`../../../examples/viewer/public/js/${name}`, import.meta.url));
const page = await launch(`<!doctype html><meta charset=utf-8><title>sync</title><script src=livekit-client.js></script>
<video muted autoplay playsinline></video><script type=module>
import { DelayMeter } from "./delay.js"; import { requestCaptureTimes } from "./capture-time.js";
Object.assign(window, { DelayMeter, requestCaptureTimes, ready: true });</script>`, {
  "delay.js": await viewer("delay.js"),
  "capture-time.js": await viewer("capture-time.js"),
  "trailer-worker.mjs": await readFile(new URL("node_modules/livekit-client/dist/livekit-client.fm.worker.mjs", import.meta.url)),
  "onset.js": `registerProcessor("onset", class extends AudioWorkletProcessor {
    quiet = 0;
    process([input]) {
      const samples = input[0] ?? [];
      for (let i = 0; i < samples.length; i++) {
        const loud = Math.abs(samples[i]) > 0.1;
        if (loud && this.quiet > sampleRate / 4) this.port.postMessage((currentFrame + i) / sampleRate);
        this.quiet = loud ? 0 : this.quiet + 1;
      }
      return true;
    }
  });`,
});
await page.run(watch, options);

// Runs inside the page.
async function watch({ url, token, seconds, settle, audio, trailer }) {
  const { Room, RoomEvent } = window.LivekitClient;
  while (!window.ready) await new Promise((resolve) => setTimeout(resolve, 10));
  window.requestCaptureTimes();
  // With a worker, LiveKit's client says that it understands packet trailers, and reads them.
  const worker = trailer ? new Worker("trailer-worker.mjs", { type: "module" }) : null;
  const room = new Room(worker ? { frameMetadata: { worker } } : {});
  const video = document.querySelector("video");
  const begin = performance.now();
  const seen = { flashes: [], beeps: [], delays: [], captured: [], playout: [], trailers: [] };
  const context = new AudioContext({ latencyHint: "interactive" });
  await context.audioWorklet.addModule("onset.js");
  const canvas = new OffscreenCanvas(16, 16);
  const drawing = canvas.getContext("2d", { willReadFrequently: true });
  const receivers = {};
  let pictures = null;
  let white = true;
  let meter = null;
  const onFrame = (now, metadata) => {
    drawing.drawImage(video, 0, 0, 16, 16);
    const bright = drawing.getImageData(8, 8, 1, 1).data[1] > 128;
    if (bright && !white) seen.flashes.push(metadata.expectedDisplayTime);
    white = bright;
    const source = receivers.video?.getSynchronizationSources?.()[0];
    // By the browser's own reckoning, and by what the publisher sent along.
    seen.captured.push([metadata.captureTime === undefined ? null : metadata.expectedDisplayTime - metadata.captureTime,
      source?.captureTimestamp === undefined ? null : performance.timeOrigin + metadata.expectedDisplayTime - (source.captureTimestamp - 2208988800000)]);
    const sent = pictures?.lookupFrameMetadata?.({ rtpTimestamp: metadata.rtpTimestamp })?.userTimestamp;
    if (sent) seen.trailers.push(performance.timeOrigin + metadata.expectedDisplayTime - Number(sent) / 1000);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  room.on(RoomEvent.TrackSubscribed, (track) => {
    receivers[track.kind] = track.receiver;
    if (track.kind === "video") {
      pictures = track;
      track.attach(video);
      meter = new window.DelayMeter(video, track.receiver);
      return;
    }
    document.body.append(track.attach());
    const onset = new AudioWorkletNode(context, "onset");
    context.createMediaStreamSource(new MediaStream([track.mediaStreamTrack])).connect(onset);
    onset.port.onmessage = ({ data: at }) => {
      const { contextTime, performanceTime } = context.getOutputTimestamp();
      seen.beeps.push(performanceTime + (at - contextTime) * 1000);
    };
  });
  await room.connect(url, token);
  await context.resume();
  while (performance.now() - begin < seconds * 1000) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    const delay = meter?.value() ?? null;
    if (delay !== null) seen.delays.push(delay);
    const at = {};
    for (const [kind, receiver] of Object.entries(receivers)) {
      for (const entry of (await receiver.getStats()).values()) {
        if (entry.type === "inbound-rtp") at[kind] = entry.estimatedPlayoutTimestamp;
      }
    }
    if (at.audio && at.video) seen.playout.push(at.video - at.audio);
  }
  const late = (list) => list.filter((at) => at > begin + settle * 1000);
  const pairs = late(seen.flashes).map((flash) => {
    const nearest = seen.beeps.reduce((best, beep) => (Math.abs(beep - flash) < Math.abs(best - flash) ? beep : best), Infinity);
    return flash - nearest;
  }).filter(Number.isFinite);
  await room.disconnect();
  return {
    ok: seen.flashes.length > 0 && (!audio || pairs.length > 0),
    offsets: pairs, flashes: seen.flashes.length, beeps: seen.beeps.length,
    delays: seen.delays.slice(-20), captured: seen.captured.slice(-20), playout: seen.playout.slice(-20),
    trailers: seen.trailers.slice(-20),
  };
}
