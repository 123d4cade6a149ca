// SPDX-License-Identifier: MIT OR Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { disconnectWords, isFinal, joinWords, qualityWords, subscriptionWords } from '../../public/js/words.js';
import { repairDelay, retryDelay } from '../../public/js/retry.js';

test('a refused token, a missing server and an unreachable one are told apart', () => {
  const url = 'ws://127.0.0.1:1';
  assert.match(joinWords({ reasonName: 'NotAllowed', status: 401 }, url), /refused this viewer’s token/);
  assert.match(joinWords({ status: 404 }, url), /no LiveKit server/);
  assert.match(joinWords({ reasonName: 'ServerUnreachable' }, url), /can’t be reached/);
  assert.match(joinWords({ message: 'odd' }, url), /odd/);
  assert.doesNotMatch(joinWords({}, url), /undefined/);
});

test('only a taken place is final', () => {
  assert.equal(isFinal('DUPLICATE_IDENTITY'), true);
  for (const reason of ['SERVER_SHUTDOWN', 'SIGNAL_CLOSE', undefined]) assert.equal(isFinal(reason), false);
});

test('every disconnect has a sentence', () => {
  for (const reason of ['SERVER_SHUTDOWN', 'DUPLICATE_IDENTITY', 'something new', undefined]) assert.match(disconnectWords(reason), /^[A-Z].*\.$/);
});

test('a codec that the browser lacks is named', () => {
  assert.match(subscriptionWords('SE_CODEC_UNSUPPORTED', 'H.265'), /can’t play H\.265/);
  assert.match(subscriptionWords(undefined), /could not deliver/);
});

test('unknown qualities are not measured yet', () => {
  assert.equal(qualityWords('excellent'), 'excellent');
  assert.equal(qualityWords('whatever'), 'not measured yet');
});

test('waits grow to four seconds and are spread', () => {
  assert.deepEqual([1, 2, 3, 4, 5, 20].map((n) => retryDelay(n, 0.5)), [1, 2, 4, 4, 4, 4]);
  assert.equal(retryDelay(1, 0), 0.8);
  assert.ok(retryDelay(9, 1) < 4.9);
});

test('repairs are tried quickly and given up after some seconds', () => {
  assert.deepEqual([0, 1, 2, 3, 9].map((retryCount) => repairDelay({ retryCount, elapsedMs: 0 })), [250, 500, 1000, 2000, 2000]);
  assert.equal(repairDelay({ retryCount: 5, elapsedMs: 8001 }), null);
});
