// SPDX-License-Identifier: MIT OR Apache-2.0
// One video track: the picture and its figures.
import { DelayMeter, delayExplanation } from './delay.js';
import { element, setText } from './dom.js';
import { FigureList } from './figures.js';
import {
  UNKNOWN, formatBitrate, formatCodec, formatFrameRate, formatFreezes, formatMilliseconds, formatPercent, formatResolution,
} from './format.js';
import { TrackStats, takeSample } from './stats.js';

const FIELDS = [
  { key: 'resolution', label: 'Resolution' },
  { key: 'frameRate', label: 'Frame rate', graph: true, title: 'Frames decoded per second, over the last 3 s' },
  { key: 'bitrate', label: 'Bitrate', graph: true, title: 'Received payload, over the last 3 s' },
  { key: 'delay', label: 'Glass to glass', graph: true },
  { key: 'jitterBuffer', label: 'Jitter buffer', title: 'How long the browser holds pictures back to even out the network, over the last 3 s' },
  { key: 'loss', label: 'Packet loss' },
  { key: 'freezes', label: 'Freezes', title: 'Number of freezes since this page joined, and how long they lasted together' },
  { key: 'codec', label: 'Codec' },
];

/** No new picture for this long is worth telling: slow cameras make one a second. */
const STALL_MS = 3000;

export class VideoCard {
  #publication;
  #receiver = null;
  #stats = new TrackStats();
  #delay = null;
  #progress = { frames: null, at: 0 };
  #problem = '';
  #paused = false;

  constructor(publication, participant) {
    this.#publication = publication;
    this.video = element('video', { muted: true, autoplay: true, playsInline: true });
    this.note = element('p.picture-note', { role: 'status' }, 'Waiting for the first picture…');
    const fullscreen = element('button.fullscreen', { type: 'button', title: 'Full screen' });
    fullscreen.setAttribute('aria-label', 'Show this picture full screen');
    fullscreen.addEventListener('click', () => this.#toggleFullscreen());
    this.picture = element('div.picture', {}, this.video, this.note, fullscreen);
    this.figures = new FigureList(FIELDS);
    this.title = element('h2');
    this.owner = element('span.owner');
    this.node = element('article.card.video-card', {},
      element('header', {}, this.title, this.owner),
      element('div.video-body', {}, this.picture, this.figures.node));
    this.node.dataset.trackSid = publication.trackSid;
    this.rename(participant);
  }

  rename(participant) {
    const name = participant.name || participant.identity;
    setText(this.title, this.#publication.trackName || 'Video');
    setText(this.owner, name);
    this.video.setAttribute('aria-label', `Live video ${this.#publication.trackName || ''} from ${name}`);
  }

  attach(track) {
    this.#receiver = track.receiver;
    this.#stats = new TrackStats();
    this.#progress = { frames: null, at: performance.now() };
    this.#problem = '';
    this.video.srcObject = new MediaStream([track.mediaStreamTrack]);
    // Autoplay of a muted video is always allowed; a rejection here only means that the source changed again.
    this.video.play().catch(() => {});
    this.#delay?.stop();
    this.#delay = new DelayMeter(this.video, track.receiver);
  }

  detach() {
    this.#delay?.stop();
    this.#delay = null;
    this.#receiver = null;
    this.video.srcObject = null;
  }

  setProblem(text) {
    this.#problem = text;
    this.#showNote();
  }

  /** The server stopped sending because the viewer's network can't take the track. */
  setPausedByServer(paused) {
    this.#paused = paused;
    this.#showNote();
  }

  async refresh() {
    const receiver = this.#receiver;
    const report = await receiver?.getStats();
    if (receiver !== this.#receiver) return;
    const figures = this.#stats.add(report ? takeSample(report.values()) : null);
    const frames = figures?.frames ?? null;
    if (frames !== this.#progress.frames) this.#progress = { frames, at: performance.now() };
    this.#showNote();
    if (figures) this.#showFigures(figures);
  }

  #showFigures(figures) {
    const stalled = this.#isStalled();
    const set = (...args) => this.figures.set(...args);
    set('resolution', formatResolution(figures.width, figures.height), { raw: figures.height });
    set('frameRate', formatFrameRate(figures.frameRate), { raw: figures.frameRate, tone: stalled ? 'bad' : '' });
    set('bitrate', formatBitrate(figures.bitrate), { raw: figures.bitrate, tone: stalled ? 'bad' : '' });
    set('jitterBuffer', formatMilliseconds(figures.jitterBufferMs), { raw: figures.jitterBufferMs });
    set('loss', formatPercent(figures.lossPercent), {
      raw: figures.lossPercent,
      tone: figures.lossPercent >= 5 ? 'bad' : figures.lossPercent >= 1 ? 'warn' : '',
      title: `Over the last 10 s. Since joining: ${figures.lost} of ${figures.packets + Math.max(0, figures.lost)} packets`
        + `${figures.retransmitted ? `, ${figures.retransmitted} sent again` : ''}.`,
    });
    set('freezes', formatFreezes(figures.freezes, figures.freezeSeconds), { raw: figures.freezes, tone: figures.freezes ? 'warn' : '' });
    set('codec', formatCodec(figures.mimeType), {
      raw: figures.mimeType,
      title: `Decoder: ${figures.decoder ?? 'unknown'}, ${formatMilliseconds(figures.decodeMs)} a frame. `
        + `${figures.keyFrames ?? UNKNOWN} keyframes, ${figures.keyFrameRequests ?? UNKNOWN} asked for, ${figures.framesDropped ?? UNKNOWN} frames dropped.`,
    });
    const delay = stalled ? null : this.#delay?.value() ?? null;
    set('delay', delay === null ? 'n/a' : formatMilliseconds(delay), { raw: delay, title: delayExplanation(delay) });
  }

  #isStalled() {
    return this.#progress.frames !== null && performance.now() - this.#progress.at > STALL_MS;
  }

  #showNote() {
    const seconds = Math.floor((performance.now() - this.#progress.at) / 1000);
    let text = '';
    if (this.#problem) text = this.#problem;
    else if (this.#publication.isMuted) text = 'Paused by the publisher';
    else if (this.#paused) text = 'Paused by the server: this viewer’s network is too slow for the track';
    else if (!this.#progress.frames) text = 'Waiting for the first picture…';
    else if (this.#isStalled()) text = `No new picture for ${seconds} s`;
    setText(this.note, text);
    this.note.hidden = text === '';
  }

  async #toggleFullscreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await this.picture.requestFullscreen().catch(() => {});
  }
}
