// SPDX-License-Identifier: MIT OR Apache-2.0
// From WebRTC's counters to figures. No DOM here: test/unit/stats.test.js runs this in Node.

const RATE_WINDOW_MS = 3000;
const LOSS_WINDOW_MS = 10000;

const number = (value) => (typeof value === 'number' && Number.isFinite(value) ? value : null);

/**
 * What we use of one track's statistics report.
 *
 * @param {Iterable<object>} entries the values of an RTCStatsReport
 * @returns {object|null} null while the report has no received stream
 */
export function takeSample(entries) {
  const all = [...entries];
  const inbound = all.find((entry) => entry.type === 'inbound-rtp');
  if (!inbound) return null;
  const codec = all.find((entry) => entry.type === 'codec' && entry.id === inbound.codecId);
  return {
    at: inbound.timestamp,
    ssrc: inbound.ssrc,
    mimeType: codec?.mimeType ?? null,
    bytes: number(inbound.bytesReceived) ?? 0,
    packets: number(inbound.packetsReceived) ?? 0,
    lost: number(inbound.packetsLost) ?? 0,
    frames: number(inbound.framesDecoded),
    framesDropped: number(inbound.framesDropped),
    keyFrames: number(inbound.keyFramesDecoded),
    width: number(inbound.frameWidth),
    height: number(inbound.frameHeight),
    freezes: number(inbound.freezeCount),
    freezeSeconds: number(inbound.totalFreezesDuration),
    bufferSeconds: number(inbound.jitterBufferDelay),
    bufferCount: number(inbound.jitterBufferEmittedCount),
    decodeSeconds: number(inbound.totalDecodeTime),
    decoder: inbound.decoderImplementation ?? null,
    keyFrameRequests: number(inbound.pliCount),
    retransmitted: number(inbound.retransmittedPacketsReceived),
    level: number(inbound.audioLevel),
    concealed: number(inbound.concealedSamples),
    samples: number(inbound.totalSamplesReceived),
  };
}

/** Keeps a few seconds of samples and derives rates from them. */
export class TrackStats {
  #samples = [];

  /** Takes the next sample (null is ignored) and returns the figures as they stand now. */
  add(sample) {
    if (sample) {
      const last = this.#samples.at(-1);
      // Another stream, or counters that went back: the old samples say nothing about this one.
      if (last && (last.ssrc !== sample.ssrc || sample.bytes < last.bytes)) this.#samples = [];
      if (!last || sample.at > last.at || this.#samples.length === 0) this.#samples.push(sample);
      while (this.#samples.length > 2 && this.#samples[1].at <= sample.at - LOSS_WINDOW_MS) this.#samples.shift();
    }
    return this.figures();
  }

  figures() {
    const now = this.#samples.at(-1);
    if (!now) return null;
    const before = this.#since(RATE_WINDOW_MS);
    const long = this.#since(LOSS_WINDOW_MS);
    const seconds = before ? (now.at - before.at) / 1000 : 0;
    const perSecond = (key) => (before && now[key] !== null && before[key] !== null ? (now[key] - before[key]) / seconds : null);
    const perCount = (total, count) => {
      if (!before || now[total] === null || now[count] === null) return null;
      const n = now[count] - before[count];
      return n > 0 ? ((now[total] - before[total]) / n) * 1000 : null;
    };
    const bytes = perSecond('bytes');
    return {
      width: now.width,
      height: now.height,
      mimeType: now.mimeType,
      decoder: now.decoder,
      frameRate: perSecond('frames'),
      bitrate: bytes === null ? null : bytes * 8,
      jitterBufferMs: perCount('bufferSeconds', 'bufferCount'),
      decodeMs: perCount('decodeSeconds', 'frames'),
      lossPercent: long ? lossPercent(long, now) : null,
      lost: now.lost,
      packets: now.packets,
      freezes: now.freezes,
      freezeSeconds: now.freezeSeconds,
      frames: now.frames,
      framesDropped: now.framesDropped,
      keyFrames: now.keyFrames,
      keyFrameRequests: now.keyFrameRequests,
      retransmitted: now.retransmitted,
      concealedPercent: long ? share(long, now, 'concealed', 'samples') : null,
    };
  }

  /** The sample to compare the newest one with: the newest that is at least `ms` old, or else the oldest. */
  #since(ms) {
    const now = this.#samples.at(-1);
    const older = this.#samples.slice(0, -1);
    return older.findLast((sample) => sample.at <= now.at - ms) ?? older[0] ?? null;
  }
}

/** Lost packets as a share of those sent. Late packets make `lost` go down again; below zero is none. */
export function lossPercent(before, now) {
  const lost = Math.max(0, now.lost - before.lost);
  const received = now.packets - before.packets;
  return lost + received > 0 ? (100 * lost) / (lost + received) : null;
}

function share(before, now, part, whole) {
  if (now[part] === null || now[whole] === null) return null;
  const n = now[whole] - before[whole];
  return n > 0 ? (100 * (now[part] - before[part])) / n : null;
}

/** The last `length` values, for a small graph. */
export class History {
  constructor(length) {
    this.length = length;
    this.values = [];
  }

  add(value) {
    this.values.push(typeof value === 'number' && Number.isFinite(value) ? value : null);
    if (this.values.length > this.length) this.values.shift();
  }
}

/**
 * Points of a small graph as "x,y x,y …" pieces, one for each unbroken run of values.
 * The scale starts at zero, so that a small wobble does not look like a mountain.
 */
export function graphPieces(values, length, width, height) {
  const top = Math.max(...values.map((value) => value ?? 0), 0) * 1.15 || 1;
  const step = width / Math.max(1, length - 1);
  const pieces = [];
  let piece = [];
  values.forEach((value, index) => {
    if (value === null) {
      if (piece.length > 1) pieces.push(piece.join(' '));
      piece = [];
      return;
    }
    const x = width - (values.length - 1 - index) * step;
    piece.push(`${x.toFixed(1)},${(height - (value / top) * height).toFixed(1)}`);
  });
  if (piece.length > 1) pieces.push(piece.join(' '));
  return pieces;
}
