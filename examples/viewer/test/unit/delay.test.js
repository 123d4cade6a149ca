// SPDX-License-Identifier: MIT OR Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { delayExplanation, frameDelay, median } from '../../public/js/delay.js';

const NTP = 2208988800000;
const origin = 1_700_000_000_000;
const shown = { expectedDisplayTime: 5000, rtpTimestamp: 90_000 };
const source = { captureTimestamp: origin + 4900 + NTP, rtpTimestamp: 90_000 };
const near = (actual, expected) => assert.ok(Math.abs(actual - expected) < 0.01, `${actual} is not ${expected}`);

test('the delay is display time less capture time, across the two epochs', () => {
  near(frameDelay(shown, source, origin), 100);
});

test('a source that is ahead of the picture on show is corrected by the RTP clock', () => {
  // Three frames later at 30 per second: captured 100 ms later too.
  const ahead = { captureTimestamp: source.captureTimestamp + 100, rtpTimestamp: 99_000 };
  near(frameDelay(shown, ahead, origin), 100);
});

test('the RTP clock may wrap between the two', () => {
  const wrapped = { captureTimestamp: source.captureTimestamp + 100, rtpTimestamp: 4000 };
  near(frameDelay({ ...shown, rtpTimestamp: 2 ** 32 - 5000 }, wrapped, origin), 100);
});

test("the browser's own capture time comes first", () => {
  near(frameDelay({ ...shown, captureTime: 4970 }, source, origin), 30);
});

test('no capture time, or clocks that disagree, is not known rather than nonsense', () => {
  assert.equal(frameDelay(shown, undefined, origin), null);
  assert.equal(frameDelay(shown, { rtpTimestamp: 1 }, origin), null);
  assert.equal(frameDelay({ expectedDisplayTime: 5000 }, source, origin), null);
  assert.equal(frameDelay(shown, { ...source, captureTimestamp: source.captureTimestamp + 200 }, origin), null, 'from the future');
  assert.equal(frameDelay(shown, { ...source, captureTimestamp: source.captureTimestamp - 3_600_000 }, origin), null, 'an hour ago');
});

test('median', () => {
  assert.equal(median([]), null);
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1]), 2.5);
});

test('the explanation says when nothing is known', () => {
  assert.match(delayExplanation(null), /^Not known/);
  assert.match(delayExplanation(55), /clocks of the two machines/);
});
