// SPDX-License-Identifier: MIT OR Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { History, TrackStats, graphPieces, lossPercent, takeSample } from '../../public/js/stats.js';

const inbound = (at, over = {}) => ({
  type: 'inbound-rtp', id: 'in', codecId: 'c', timestamp: at, ssrc: 7, bytesReceived: 0, packetsReceived: 0, packetsLost: 0, ...over,
});
const codec = { type: 'codec', id: 'c', mimeType: 'video/H264' };

/** `seconds` samples, one a second, of a stream with these rates per second. */
function steady(seconds, rate, stats = new TrackStats()) {
  let figures;
  for (let s = 0; s <= seconds; s += 1) {
    figures = stats.add(takeSample([codec, inbound(1000 * s, {
      bytesReceived: s * rate.bytes, packetsReceived: s * rate.packets, packetsLost: s * (rate.lost ?? 0), framesDecoded: s * rate.frames,
      jitterBufferDelay: s * rate.frames * 0.04, jitterBufferEmittedCount: s * rate.frames, totalDecodeTime: s * rate.frames * 0.002,
    })]));
  }
  return figures;
}

test('a report without a received stream gives no sample, and no sample no figures', () => {
  assert.equal(takeSample([codec, { type: 'transport' }]), null);
  assert.equal(new TrackStats().add(null), null);
});

test('the codec is the one that the stream names, not the first of the report', () => {
  const other = { type: 'codec', id: 'x', mimeType: 'video/VP8' };
  assert.equal(takeSample([other, codec, inbound(0)]).mimeType, 'video/H264');
});

test('a steady stream has its rates', () => {
  const figures = steady(12, { bytes: 312500, packets: 250, frames: 30 });
  assert.equal(figures.bitrate, 2.5e6);
  assert.equal(figures.frameRate, 30);
  assert.ok(Math.abs(figures.jitterBufferMs - 40) < 1e-6);
  assert.ok(Math.abs(figures.decodeMs - 2) < 1e-6);
  assert.equal(figures.lossPercent, 0);
});

test('one sample is not enough for a rate', () => {
  const figures = new TrackStats().add(takeSample([codec, inbound(0, { framesDecoded: 9 })]));
  assert.equal(figures.frameRate, null);
  assert.equal(figures.bitrate, null);
  assert.equal(figures.lossPercent, null);
  assert.equal(figures.mimeType, 'video/H264');
});

test('rates look back three seconds, loss ten', () => {
  const stats = new TrackStats();
  steady(10, { bytes: 100, packets: 90, lost: 10, frames: 30 }, stats);
  const after = (s) => takeSample([codec, inbound(1000 * (10 + s), {
    bytesReceived: 1000, packetsReceived: 900 + 100 * s, packetsLost: 100, framesDecoded: 300,
  })]);
  let figures;
  for (let s = 1; s <= 4; s += 1) figures = stats.add(after(s));
  assert.equal(figures.frameRate, 0, 'the frames before the stall are too old to count');
  assert.ok(figures.lossPercent > 5 && figures.lossPercent < 10, `${figures.lossPercent} of the last ten seconds`);
});

test('a stream that is replaced begins anew', () => {
  const stats = new TrackStats();
  steady(5, { bytes: 1000, packets: 10, frames: 30 }, stats);
  const figures = stats.add(takeSample([codec, inbound(6000, { ssrc: 8, bytesReceived: 999999, framesDecoded: 1 })]));
  assert.equal(figures.bitrate, null);
  const back = new TrackStats();
  steady(5, { bytes: 1000, packets: 10, frames: 30 }, back);
  assert.equal(back.add(takeSample([codec, inbound(6000, { bytesReceived: 10 })])).bitrate, null, 'counters that went back');
});

test('a repeated report changes nothing', () => {
  const stats = new TrackStats();
  const before = steady(5, { bytes: 1000, packets: 10, frames: 30 }, stats);
  const again = stats.add(takeSample([codec, inbound(5000, { bytesReceived: 5000, packetsReceived: 50, framesDecoded: 150 })]));
  assert.equal(again.bitrate, before.bitrate);
});

test('loss is a share of what was sent; late packets are no negative loss', () => {
  assert.equal(lossPercent({ lost: 0, packets: 0 }, { lost: 25, packets: 75 }), 25);
  assert.equal(lossPercent({ lost: 5, packets: 0 }, { lost: 3, packets: 50 }), 0);
  assert.equal(lossPercent({ lost: 5, packets: 50 }, { lost: 5, packets: 50 }), null);
});

test('history keeps the newest values and marks unknown ones', () => {
  const history = new History(3);
  for (const value of [1, NaN, undefined, 4]) history.add(value);
  assert.deepEqual(history.values, [null, null, 4]);
});

test('a graph ends at the right edge, starts its scale at zero and breaks at unknown values', () => {
  assert.deepEqual(graphPieces([], 60, 120, 28), []);
  const [first, second] = graphPieces([10, 10, null, 20, 20], 5, 100, 23).map((piece) => piece.split(' ').map((p) => p.split(',').map(Number)));
  assert.deepEqual(first, [[0, 13], [25, 13]]);
  assert.deepEqual(second, [[75, 3], [100, 3]]);
});
