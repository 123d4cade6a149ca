// SPDX-License-Identifier: MIT OR Apache-2.0
// Puts the page together: one card for each track of the room, the people in it, and the state of the connection.
import { RoomEvent, SubscriptionError, Track } from '/vendor/livekit-client.mjs';
import { AudioCard } from './audio-card.js';
import { requestCaptureTimes } from './capture-time.js';
import { Connection } from './connection.js';
import { element, setText } from './dom.js';
import { formatCodec } from './format.js';
import { Participants } from './participants.js';
import { subscriptionWords } from './words.js';
import { VideoCard } from './video-card.js';

const at = (id) => document.getElementById(id);
const cards = new Map();
const participants = new Participants(at('people'), at('people-heading'));
let currentRoom = null;

const STATES = {
  connecting: 'Connecting…',
  connected: 'Connected',
  reconnecting: 'Reconnecting…',
  waiting: 'Not connected',
  stopped: 'Not connected',
};

function showState({ state, detail = '', url = '', room = '', seconds = 0 }) {
  document.body.dataset.state = state;
  setText(at('state'), STATES[state]);
  at('state').title = url ? `LiveKit server: ${url}` : '';
  if (room) {
    setText(at('room'), room);
    document.title = `${room} – LiveKit viewer`;
    setText(at('hint-room'), room);
  }
  const broken = state === 'waiting' || state === 'stopped';
  at('trouble').hidden = !broken;
  if (broken) {
    setText(at('trouble-text'), state === 'waiting' ? `${detail} Trying again in ${Math.max(1, Math.round(seconds))} s.` : detail);
    setText(at('retry'), state === 'stopped' ? 'Use this window' : 'Try now');
  }
  showEmptiness();
}

function showEmptiness() {
  const videos = [...cards.values()].some((card) => card instanceof VideoCard);
  at('empty').hidden = videos;
  at('videos').hidden = !videos;
  const connected = document.body.dataset.state === 'connected';
  setText(at('empty-title'), connected ? 'Waiting for a camera…' : 'Not in the room yet');
  at('empty-help').hidden = !connected;
  at('sounds').hidden = at('sounds').childElementCount === 0;
  at('videos').dataset.count = String(at('videos').childElementCount);
}

function showPeople() {
  if (!currentRoom) return participants.show([]);
  const remote = [...currentRoom.remoteParticipants.values()];
  const people = [...remote, currentRoom.localParticipant].map((person) => ({
    sid: person.sid,
    identity: person.identity,
    name: person.name,
    isLocal: person.isLocal,
    publishes: person.trackPublications.size > 0,
    connectionQuality: person.connectionQuality,
  }));
  people.sort((a, b) => Number(b.publishes) - Number(a.publishes));
  return participants.show(people);
}

/** Tracks arrive in any order; they stand by publisher and name, so that a camera keeps its place when it comes back. */
function insertSorted(parent, node, order) {
  node.dataset.order = order;
  const next = [...parent.children].find((other) => other.dataset.order.localeCompare(order, undefined, { numeric: true }) > 0);
  parent.insertBefore(node, next ?? null);
}

function addCard(publication, participant) {
  if (cards.has(publication.trackSid)) return cards.get(publication.trackSid);
  const video = publication.kind === Track.Kind.Video;
  const card = video ? new VideoCard(publication, participant) : new AudioCard(publication, participant);
  cards.set(publication.trackSid, card);
  insertSorted(at(video ? 'videos' : 'sounds'), card.node, `${participant.identity} ${publication.trackName}`);
  showEmptiness();
  return card;
}

function removeCard(sid) {
  const card = cards.get(sid);
  if (!card) return;
  card.detach();
  card.node.remove();
  cards.delete(sid);
  showEmptiness();
}

function removeAllCards() {
  for (const sid of [...cards.keys()]) removeCard(sid);
}

function follow(room) {
  removeAllCards();
  currentRoom = room;
  room
    .on(RoomEvent.Connected, () => {
      for (const person of room.remoteParticipants.values()) {
        for (const publication of person.trackPublications.values()) addCard(publication, person);
      }
      showPeople();
    })
    .on(RoomEvent.TrackPublished, (publication, person) => { addCard(publication, person); showPeople(); })
    .on(RoomEvent.TrackUnpublished, (publication) => { removeCard(publication.trackSid); showPeople(); })
    .on(RoomEvent.TrackSubscribed, (track, publication, person) => addCard(publication, person).attach(track))
    .on(RoomEvent.TrackUnsubscribed, (track, publication) => cards.get(publication.trackSid)?.detach())
    .on(RoomEvent.TrackSubscriptionFailed, (sid, person, error) => {
      const publication = person.trackPublications.get(sid);
      const codec = publication?.mimeType ? formatCodec(publication.mimeType) : undefined;
      cards.get(sid)?.setProblem(subscriptionWords(SubscriptionError[error], codec));
    })
    .on(RoomEvent.TrackStreamStateChanged, (publication, state) => cards.get(publication.trackSid)?.setPausedByServer(state === Track.StreamState.Paused))
    .on(RoomEvent.ParticipantConnected, showPeople)
    .on(RoomEvent.ParticipantDisconnected, (person) => {
      for (const sid of person.trackPublications.keys()) removeCard(sid);
      showPeople();
    })
    .on(RoomEvent.ParticipantNameChanged, (name, person) => {
      for (const sid of person.trackPublications.keys()) cards.get(sid)?.rename(person);
      showPeople();
    })
    .on(RoomEvent.ConnectionQualityChanged, showPeople)
    .on(RoomEvent.Disconnected, () => {
      if (currentRoom !== room) return;
      currentRoom = null;
      removeAllCards();
      showPeople();
    });
}

async function refreshFigures() {
  await Promise.all([...cards.values()].map((card) => card.refresh().catch(() => {})));
  setTimeout(refreshFigures, 1000);
}

if (typeof RTCPeerConnection === 'undefined') {
  at('empty').replaceChildren(element('h2', {}, 'This browser has no WebRTC'), element('p', {}, 'Open this page in a current Chromium, Firefox, Safari or Edge.'));
} else {
  requestCaptureTimes();
  const connection = new Connection({ onState: showState, onRoom: follow });
  at('retry').addEventListener('click', () => connection.retryNow());
  connection.run();
  refreshFigures();
}
