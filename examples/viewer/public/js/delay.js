// SPDX-License-Identifier: MIT OR Apache-2.0
// Glass-to-glass delay: from the moment a picture was captured to the moment this page shows it.

/** Above this the two clocks do not agree, and the number would say nothing about the picture. */
const PLAUSIBLE_MS = 60000;

/** NTP counts from 1900, Unix from 1970. */
const NTP_TO_UNIX_MS = 2208988800000;
const VIDEO_CLOCK_KHZ = 90;

const plausible = (delay) => (delay >= 0 && delay < PLAUSIBLE_MS ? delay : null);

/**
 * The delay of one shown frame in ms, or null when its capture time is not known.
 *
 * @param {object} metadata from requestVideoFrameCallback
 * @param {object} [source] the track's RTCRtpSynchronizationSource at that moment
 * @param {number} timeOrigin performance.timeOrigin
 */
export function frameDelay(metadata, source, timeOrigin) {
  const { captureTime, expectedDisplayTime, rtpTimestamp } = metadata;
  if (!Number.isFinite(expectedDisplayTime)) return null;
  // The browser's own answer, already in this page's clock.
  if (Number.isFinite(captureTime)) return plausible(expectedDisplayTime - captureTime);
  if (!Number.isFinite(source?.captureTimestamp) || !Number.isFinite(rtpTimestamp)) return null;
  // The source may be a frame ahead of the one on show; 32 bits wrap round.
  const ticksAhead = (source.rtpTimestamp - rtpTimestamp) | 0;
  const captured = source.captureTimestamp - NTP_TO_UNIX_MS - ticksAhead / VIDEO_CLOCK_KHZ;
  return plausible(timeOrigin + expectedDisplayTime - captured);
}

export function median(values) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** What the figure means, in words for a tooltip. */
export function delayExplanation(delay) {
  return delay === null
    ? 'Not known: no capture time arrives with the pictures. The publisher must send it (abs-capture-time header extension), and the browser must understand it.'
    : 'From the capture time that the publisher sends with its pictures to the moment the browser shows them, median of the last second. '
      + 'The clocks of the two machines must agree. The screen’s own delay is not included.';
}

/** Watches a video element and knows the delay of the frames of the last second. */
export class DelayMeter {
  #samples = [];
  #handle = null;

  constructor(video, receiver) {
    this.video = video;
    this.receiver = receiver;
    if (typeof video.requestVideoFrameCallback === 'function') this.#next();
  }

  #next() {
    this.#handle = this.video.requestVideoFrameCallback((now, metadata) => {
      const source = this.receiver.getSynchronizationSources?.()[0];
      this.#samples.push({ at: now, delay: frameDelay(metadata, source, performance.timeOrigin) });
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
