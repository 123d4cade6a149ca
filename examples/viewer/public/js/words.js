// SPDX-License-Identifier: MIT OR Apache-2.0
// What went wrong, in words a viewer of the page understands.

const disconnects = {
  DUPLICATE_IDENTITY: 'Another window joined the room with the same token and took this one’s place.',
  SERVER_SHUTDOWN: 'The LiveKit server was shut down.',
  PARTICIPANT_REMOVED: 'This viewer was removed from the room.',
  ROOM_DELETED: 'The room was closed.',
  ROOM_CLOSED: 'The room was closed.',
  STATE_MISMATCH: 'The server lost track of this viewer.',
  JOIN_FAILURE: 'Joining the room failed: the media connection could not be made.',
  MIGRATION: 'The server moved the room to another machine.',
  SIGNAL_CLOSE: 'The connection to the LiveKit server broke off.',
  CONNECTION_TIMEOUT: 'The connection to the LiveKit server timed out.',
  MEDIA_FAILURE: 'The media connection broke off.',
};

/** @param {string|undefined} reason a name from livekit-client's DisconnectReason */
export function disconnectWords(reason) {
  return disconnects[reason] ?? 'The connection to the LiveKit server was lost.';
}

/** Only these are not worth another try: trying again would push the other window out in turn. */
export function isFinal(reason) {
  return reason === 'DUPLICATE_IDENTITY';
}

/**
 * Why joining failed.
 *
 * @param {{name?: string, message?: string, status?: number, reasonName?: string}} error
 * @param {string} url the address that was tried
 */
export function joinWords(error, url) {
  if (error.reasonName === 'NotAllowed' || error.status === 401 || error.status === 403) {
    return `The LiveKit server at ${url} refused this viewer’s token. Check that the API key and secret (or the token) belong to this server and have not expired.`;
  }
  if (error.reasonName === 'ServiceNotFound' || error.status === 404) {
    return `There is no LiveKit server at ${url}, or it is too old for this page.`;
  }
  if (error.reasonName === 'ServerUnreachable' || error.reasonName === 'WebSocket' || error.reasonName === 'Timeout') {
    return `The LiveKit server at ${url} can’t be reached.`;
  }
  return `Joining the room failed: ${error.message || 'no reason given'}.`;
}

export const VIEWER_SERVER_GONE = 'The viewer’s own web server does not answer. If you stopped the demo, start it again: this page reconnects by itself.';

/** Why a track can't be shown. @param {string|undefined} error a name from livekit-client's SubscriptionError */
export function subscriptionWords(error, codec) {
  if (error === 'SE_CODEC_UNSUPPORTED') return `This browser can’t play ${codec ?? 'the codec of this track'}.`;
  if (error === 'SE_TRACK_NOTFOUND') return 'The track went away.';
  return 'The server could not deliver this track.';
}

const qualities = { excellent: 'excellent', good: 'good', poor: 'poor', lost: 'lost', unknown: 'not measured yet' };

export function qualityWords(quality) {
  return qualities[quality] ?? qualities.unknown;
}
