// SPDX-License-Identifier: MIT OR Apache-2.0
// LiveKit access tokens: a JWT signed with HMAC-SHA256, which node:crypto makes without any package.
import { createHmac } from 'node:crypto';

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/**
 * A token that lets `identity` join `room` and watch, but not publish.
 *
 * @param {{apiKey: string, apiSecret: string, room: string, identity: string, name?: string,
 *          ttlSeconds?: number, now?: number}} options `now` is in seconds since the Unix epoch
 */
export function viewerToken({ apiKey, apiSecret, room, identity, name, ttlSeconds = 600, now = Date.now() / 1000 }) {
  for (const [what, value] of Object.entries({ apiKey, apiSecret, room, identity })) {
    if (!value) throw new Error(`viewerToken: ${what} is empty`);
  }
  const issued = Math.floor(now);
  const payload = {
    iss: apiKey,
    sub: identity,
    name: name ?? identity,
    // A minute back: the server's clock may be a little behind ours.
    nbf: issued - 60,
    exp: issued + ttlSeconds,
    video: { roomJoin: true, room, canSubscribe: true, canPublish: false, canPublishData: false },
  };
  const signed = `${base64url({ alg: 'HS256', typ: 'JWT' })}.${base64url(payload)}`;
  return `${signed}.${createHmac('sha256', apiSecret).update(signed).digest('base64url')}`;
}

/** The payload of a token made elsewhere (unverified), or null when it is not a JWT. */
export function decodeToken(token) {
  const part = String(token).split('.')[1];
  if (!part) return null;
  try {
    const payload = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
    return payload && typeof payload === 'object' ? payload : null;
  } catch {
    return null;
  }
}
