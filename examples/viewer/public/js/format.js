// SPDX-License-Identifier: MIT OR Apache-2.0
// Figures as text. Everything takes null for "not known" and answers with a dash then.

export const UNKNOWN = '–';

const known = (value) => typeof value === 'number' && Number.isFinite(value);

export function formatBitrate(bitsPerSecond) {
  if (!known(bitsPerSecond)) return UNKNOWN;
  if (bitsPerSecond >= 1e6) return `${(bitsPerSecond / 1e6).toFixed(bitsPerSecond >= 1e7 ? 1 : 2)} Mbit/s`;
  if (bitsPerSecond >= 1e4) return `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
  return `${(bitsPerSecond / 1e3).toFixed(1)} kbit/s`;
}

export function formatFrameRate(framesPerSecond) {
  return known(framesPerSecond) ? `${framesPerSecond.toFixed(framesPerSecond < 10 ? 1 : 0)} fps` : UNKNOWN;
}

export function formatMilliseconds(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms >= 10000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 && ms > 0 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export function formatPercent(percent) {
  if (!known(percent)) return UNKNOWN;
  if (percent === 0) return '0 %';
  return percent < 0.1 ? '< 0.1 %' : `${percent.toFixed(1)} %`;
}

export function formatResolution(width, height) {
  return width > 0 && height > 0 ? `${width} × ${height}` : UNKNOWN;
}

export function formatFreezes(count, seconds) {
  if (!known(count)) return UNKNOWN;
  if (count === 0) return 'none';
  return `${count} · ${known(seconds) ? `${seconds.toFixed(1)} s` : '? s'}`;
}

/** A MIME type as people say it: "video/H264" → "H.264". */
export function formatCodec(mimeType) {
  if (!mimeType) return UNKNOWN;
  const name = mimeType.split('/').pop();
  const spoken = { h264: 'H.264', h265: 'H.265', hevc: 'H.265', opus: 'Opus', red: 'Opus + RED' };
  return spoken[name.toLowerCase()] ?? name.toUpperCase();
}

/** A linear level (0…1) as decibels below full scale. */
export function formatLevel(level) {
  if (!known(level)) return UNKNOWN;
  return level < 0.0005 ? 'silence' : `${Math.round(20 * Math.log10(level))} dB`;
}

/** Where a level (0…1) stands on a meter that shows −60 dB to 0 dB, as 0…1. */
export function levelToMeter(level) {
  if (!known(level) || level <= 0) return 0;
  return Math.min(1, Math.max(0, 1 + (20 * Math.log10(level)) / 60));
}
