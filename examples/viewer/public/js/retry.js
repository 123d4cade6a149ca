// SPDX-License-Identifier: MIT OR Apache-2.0
// How long to wait before trying again.

/** Seconds before the given new start (1 = the first repeat). */
export function retryDelay(attempt, random = Math.random()) {
  return Math.min(4, 2 ** (attempt - 1)) * (0.8 + 0.4 * random);
}

/**
 * Milliseconds before livekit-client's next try to repair a broken connection, or null to give up. By itself it
 * would try for most of a minute; a new start knows a restarted server's address and token, and says what is wrong.
 */
export function repairDelay({ retryCount, elapsedMs }) {
  return elapsedMs > 8000 ? null : Math.min(2000, 250 * 2 ** retryCount);
}
