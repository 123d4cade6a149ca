// SPDX-License-Identifier: MIT OR Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as format from '../../public/js/format.js';

const cases = {
  formatBitrate: [[2_498_000, '2.50 Mbit/s'], [25_000_000, '25.0 Mbit/s'], [48_600, '49 kbit/s'], [900, '0.9 kbit/s'], [0, '0.0 kbit/s']],
  formatFrameRate: [[29.97, '30 fps'], [9.5, '9.5 fps'], [0, '0.0 fps']],
  formatMilliseconds: [[55.4, '55 ms'], [7.93, '7.9 ms'], [0, '0 ms'], [12_340, '12.3 s']],
  formatPercent: [[0, '0 %'], [0.02, '< 0.1 %'], [1.25, '1.3 %']],
  formatLevel: [[1, '0 dB'], [0.05, '-26 dB'], [0, 'silence']],
};

for (const [name, rows] of Object.entries(cases)) {
  test(name, () => {
    for (const [value, text] of rows) assert.equal(format[name](value), text);
    for (const unknown of [null, undefined, NaN, Infinity]) assert.equal(format[name](unknown), format.UNKNOWN);
  });
}

test('formatResolution', () => {
  assert.equal(format.formatResolution(1280, 720), '1280 × 720');
  assert.equal(format.formatResolution(0, 0), format.UNKNOWN);
  assert.equal(format.formatResolution(null, null), format.UNKNOWN);
});

test('formatFreezes', () => {
  assert.equal(format.formatFreezes(0, 0), 'none');
  assert.equal(format.formatFreezes(3, 1.26), '3 · 1.3 s');
  assert.equal(format.formatFreezes(null, null), format.UNKNOWN);
});

test('formatCodec', () => {
  assert.equal(format.formatCodec('video/H264'), 'H.264');
  assert.equal(format.formatCodec('video/H265'), 'H.265');
  assert.equal(format.formatCodec('audio/opus'), 'Opus');
  assert.equal(format.formatCodec('video/vp9'), 'VP9');
  assert.equal(format.formatCodec(null), format.UNKNOWN);
});

test('levelToMeter runs from −60 dB to full scale', () => {
  assert.equal(format.levelToMeter(1), 1);
  assert.equal(format.levelToMeter(2), 1);
  assert.ok(Math.abs(format.levelToMeter(0.001)) < 1e-9);
  assert.equal(format.levelToMeter(0), 0);
  assert.equal(format.levelToMeter(null), 0);
});
