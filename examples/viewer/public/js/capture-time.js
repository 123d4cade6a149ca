// SPDX-License-Identifier: MIT OR Apache-2.0
// Asks publishers' capture times along: Chromium knows the header extension but does not offer it by itself, and
// livekit-client has no option for it. Without it a receive-only page has no way to know when a picture was taken.
const URI = 'http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time';

function ask(connection) {
  for (const transceiver of connection.getTransceivers()) {
    if (transceiver.stopped) continue;
    const extensions = transceiver.getHeaderExtensionsToNegotiate?.();
    const wanted = extensions?.find(({ uri }) => uri === URI);
    if (wanted?.direction !== 'stopped') continue;
    wanted.direction = 'sendrecv';
    try {
      transceiver.setHeaderExtensionsToNegotiate(extensions);
    } catch {
      // The delay stays unknown then, and the page says so.
    }
  }
}

/** Makes every connection of this page ask, from now on. */
export function requestCaptureTimes(prototype = globalThis.RTCPeerConnection?.prototype) {
  for (const method of ['createOffer', 'createAnswer']) {
    const original = prototype?.[method];
    if (!original) continue;
    prototype[method] = function withCaptureTime(...args) {
      ask(this);
      return original.apply(this, args);
    };
  }
}
