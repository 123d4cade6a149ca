// SPDX-License-Identifier: MIT OR Apache-2.0
// What the viewer's server is told, all of it by environment: a command line is seen by everybody in `ps`.
import { decodeToken } from './token.js';

/** Reads the settings, or throws an error whose text says which variable to set. */
export function readConfig(env) {
  const url = env.LIVEKIT_URL?.trim();
  if (!url) throw new Error('LIVEKIT_URL is not set: the address of the LiveKit server, like ws://127.0.0.1:7880 or wss://my-project.livekit.cloud');
  const serverUrl = signallingUrl(url);

  const port = Number(env.VIEWER_PORT || 8080);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error(`VIEWER_PORT is ${env.VIEWER_PORT}: a port number from 0 (any free one) to 65535 is needed`);

  const apiKey = env.LIVEKIT_API_KEY;
  const apiSecret = env.LIVEKIT_API_SECRET;
  const fixedToken = env.LIVEKIT_VIEWER_TOKEN;
  if (fixedToken) {
    const payload = decodeToken(fixedToken);
    if (!payload?.video) throw new Error('LIVEKIT_VIEWER_TOKEN is not a LiveKit token (a JWT with a "video" part)');
    return { serverUrl, port, fixedToken, room: payload.video.room ?? '' };
  }
  if (!apiKey || !apiSecret) {
    throw new Error('No way to make a token for the page: set LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or LIVEKIT_VIEWER_TOKEN to a token with the grants roomJoin and canSubscribe');
  }
  const room = env.LIVEKIT_ROOM?.trim();
  if (!room) throw new Error('LIVEKIT_ROOM is not set: the name of the room to show');
  return { serverUrl, port, apiKey, apiSecret, room };
}

/** LiveKit's clients take ws(s)://; people write http(s):// as well. */
export function signallingUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    throw new Error(`LIVEKIT_URL is "${text}", which is not an address: write it like ws://127.0.0.1:7880 or wss://host`);
  }
  const protocol = { 'http:': 'ws:', 'https:': 'wss:', 'ws:': 'ws:', 'wss:': 'wss:' }[url.protocol];
  if (!protocol) throw new Error(`LIVEKIT_URL is "${text}": it must begin with ws://, wss://, http:// or https://`);
  // URL.protocol can't be changed between special and other schemes everywhere; text can.
  return url.href.replace(/^[^:]+:/, protocol).replace(/\/$/, '');
}
