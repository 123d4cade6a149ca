// SPDX-License-Identifier: MIT OR Apache-2.0
// Glass-to-glass delay: from the moment a picture was captured to the moment this page shows it.

/** Above this the two clocks do not agree, and the number would say nothing about the picture. */
const PLAUSIBLE_MS = 60000;

/** The delay of one shown frame in ms, from the metadata of requestVideoFrameCallback, or null. */
export function frameDelay({ captureTime, expectedDisplayTime }) {
  if (!Number.isFinite(captureTime) || !Number.isFinite(expectedDisplayTime)) return null;
  const delay = expectedDisplayTime - captureTime;
  return delay >= 0 && delay < PLAUSIBLE_MS ? delay : null;
}

export function median(values) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Where the capture time comes from, in words for a tooltip. */
export function delayExplanation(delay, packetsCarryCaptureTime) {
  if (delay === null) {
    return 'Not known: the publisher sends neither the capture time of its pictures nor clock reports that the browser can use.';
  }
  const origin = packetsCarryCaptureTime
    ? 'From the capture time that the publisher sends with its pictures'
    : "From the time stamps of the pictures and the sender's clock reports (RTCP)";
  return `${origin}, to the moment the browser shows them. Median of the last second; screen and camera hardware not included.`;
}

/** Watches a video element and knows the delay of the frames of the last second. */
export class DelayMeter {
  #samples = [];
  #handle = null;

  constructor(video) {
    this.video = video;
    if (typeof video.requestVideoFrameCallback === 'function') this.#next();
  }

  #next() {
    this.#handle = this.video.requestVideoFrameCallback((now, metadata) => {
      this.#samples.push({ at: now, delay: frameDelay(metadata) });
      while (this.#samples[0].at < now - 1000) this.#samples.shift();
      this.#next();
    });
  }

  /** The median delay in ms of the frames shown in the last second, or null. */
  value(now = performance.now()) {
    return median(this.#samples.filter(({ at, delay }) => delay !== null && at >= now - 2000).map(({ delay }) => delay));
  }

  stop() {
    if (this.#handle !== null) this.video.cancelVideoFrameCallback(this.#handle);
    this.#handle = null;
  }
}
