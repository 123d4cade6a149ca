// SPDX-License-Identifier: MIT OR Apache-2.0
// Joins the room and stays in it: livekit-client repairs short breaks itself, this starts anew after the long ones.
import { DisconnectReason, Room, RoomEvent } from '/vendor/livekit-client.mjs';
import { repairDelay, retryDelay } from './retry.js';
import { VIEWER_SERVER_GONE, disconnectWords, isFinal, joinWords } from './words.js';

/**
 * Calls back: `onState({ state, detail, room, url })`, with state one of connecting | connected | reconnecting | waiting | stopped,
 * and `onRoom(room)` with each new Room before it connects.
 */
export class Connection {
  #wake = null;
  #attempt = 0;

  constructor({ onState, onRoom }) {
    this.onState = onState;
    this.onRoom = onRoom;
    // The network came back: no reason to sit out the wait.
    window.addEventListener('online', () => this.#wake?.());
  }

  async run() {
    for (;;) {
      const { reason, detail, url, roomName } = await this.#once();
      if (reason && isFinal(reason)) {
        this.onState({ state: 'stopped', detail, url, room: roomName });
        await new Promise((resolve) => { this.#wake = resolve; });
        continue;
      }
      this.#attempt += 1;
      const seconds = retryDelay(this.#attempt);
      this.onState({ state: 'waiting', detail, url, room: roomName, seconds });
      await this.#sleep(seconds * 1000);
    }
  }

  /** Ends a wait at once. */
  retryNow() {
    this.#wake?.();
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => { clearTimeout(timer); resolve(); };
    }).finally(() => { this.#wake = null; });
  }

  /** One life in the room. Resolves when it is over, with why. */
  async #once() {
    let where;
    try {
      const response = await fetch('/api/connection', { method: 'POST', signal: AbortSignal.timeout(10000) });
      if (!response.ok) return { detail: `The viewer’s web server answered ${response.status}: ${(await response.text()).trim()}` };
      where = await response.json();
    } catch {
      return { detail: VIEWER_SERVER_GONE };
    }
    const { url, room: roomName, token } = where;
    this.onState({ state: 'connecting', url, room: roomName });

    const room = new Room({
      adaptiveStream: false,
      dynacast: false,
      disconnectOnPageLeave: true,
      reconnectPolicy: { nextRetryDelayInMs: repairDelay },
    });
    const over = new Promise((resolve) => {
      room.on(RoomEvent.Disconnected, (reason) => {
        const name = reason === undefined ? undefined : DisconnectReason[reason];
        resolve({ reason: name, detail: disconnectWords(name) });
      });
    });
    room.on(RoomEvent.Reconnecting, () => this.onState({ state: 'reconnecting', url, room: roomName }));
    room.on(RoomEvent.SignalReconnecting, () => this.onState({ state: 'reconnecting', url, room: roomName }));
    room.on(RoomEvent.Reconnected, () => this.onState({ state: 'connected', url, room: room.name || roomName }));
    this.onRoom(room);
    try {
      await room.connect(url, token, { maxRetries: 0 });
    } catch (error) {
      await room.disconnect().catch(() => {});
      return { detail: joinWords(error, url), url, roomName };
    }
    this.#attempt = 0;
    this.onState({ state: 'connected', url, room: room.name || roomName });
    return { ...(await over), url, roomName };
  }
}
