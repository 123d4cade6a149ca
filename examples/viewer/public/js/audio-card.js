// SPDX-License-Identifier: MIT OR Apache-2.0
// One audio track: a mute button, a level meter and the figures.
import { element, setText } from './dom.js';
import { FigureList } from './figures.js';
import { formatBitrate, formatCodec, formatLevel, formatMilliseconds, formatPercent, levelToMeter } from './format.js';
import { TrackStats, takeSample } from './stats.js';

const FIELDS = [
  { key: 'bitrate', label: 'Bitrate' },
  { key: 'jitterBuffer', label: 'Jitter buffer', title: 'How long the browser holds sound back to even out the network, over the last 3 s' },
  { key: 'loss', label: 'Packet loss' },
  { key: 'codec', label: 'Codec' },
];

export class AudioCard {
  #publication;
  #receiver = null;
  #stats = new TrackStats();
  #meterTimer = null;

  constructor(publication, participant) {
    this.#publication = publication;
    // Muted until somebody clicks: browsers let no page make sound before.
    this.audio = element('audio', { muted: true, autoplay: true });
    this.button = element('button.mute', { type: 'button' });
    this.button.addEventListener('click', () => this.#setMuted(!this.audio.muted));
    this.bar = element('span.meter-bar');
    this.meter = element('span.meter', {
      role: 'meter', 'aria-label': 'Sound level', 'aria-valuemin': '-60', 'aria-valuemax': '0', 'aria-valuenow': '-60',
    }, this.bar);
    this.level = element('span.level', {}, formatLevel(null));
    this.figures = new FigureList(FIELDS);
    this.title = element('h2');
    this.owner = element('span.owner');
    this.problem = element('p.audio-problem', { hidden: true, role: 'status' });
    this.node = element('article.card.audio-card', {},
      element('header', {}, this.title, this.owner),
      element('div.audio-body', {}, this.button, element('div.level-row', {}, this.meter, this.level), this.figures.node, this.problem, this.audio));
    this.node.dataset.trackSid = publication.trackSid;
    this.#setMuted(true);
    this.rename(participant);
  }

  rename(participant) {
    setText(this.title, this.#publication.trackName || 'Audio');
    setText(this.owner, participant.name || participant.identity);
  }

  attach(track) {
    this.#receiver = track.receiver;
    this.#stats = new TrackStats();
    this.audio.srcObject = new MediaStream([track.mediaStreamTrack]);
    this.audio.play().catch(() => {});
    this.#meterTimer ??= setInterval(() => this.#measureLevel().catch(() => {}), 150);
  }

  detach() {
    clearInterval(this.#meterTimer);
    this.#meterTimer = null;
    this.#receiver = null;
    this.audio.srcObject = null;
  }

  setProblem(text) {
    setText(this.problem, text);
    this.problem.hidden = text === '';
  }

  setPausedByServer() {}

  async refresh() {
    const receiver = this.#receiver;
    const report = await receiver?.getStats();
    if (receiver !== this.#receiver) return;
    const figures = this.#stats.add(report ? takeSample(report.values()) : null);
    if (!figures) return;
    this.figures.set('bitrate', formatBitrate(figures.bitrate), { raw: figures.bitrate });
    this.figures.set('jitterBuffer', formatMilliseconds(figures.jitterBufferMs), { raw: figures.jitterBufferMs });
    this.figures.set('loss', formatPercent(figures.lossPercent), {
      raw: figures.lossPercent,
      tone: figures.lossPercent >= 5 ? 'bad' : figures.lossPercent >= 1 ? 'warn' : '',
      title: `Over the last 10 s. ${formatPercent(figures.concealedPercent)} of the sound had to be made up in that time.`,
    });
    this.figures.set('codec', formatCodec(figures.mimeType), { raw: figures.mimeType });
  }

  #setMuted(muted) {
    this.audio.muted = muted;
    this.button.setAttribute('aria-pressed', String(!muted));
    setText(this.button, muted ? 'Listen' : 'Mute');
    this.button.title = muted ? 'Play the sound of this track' : 'Silence this track on this page';
    if (!muted) {
      this.audio.play().catch(() => this.setProblem('The browser does not let this page play sound: click “Listen” once more.'));
      this.setProblem('');
    }
  }

  async #measureLevel() {
    const receiver = this.#receiver;
    // Some publishers send the level with the packets. Otherwise it is known from decoding, which browsers do only
    // for a track that is heard.
    let level = receiver?.getSynchronizationSources?.()[0]?.audioLevel ?? null;
    if (level === null && !this.audio.muted && receiver) level = takeSample((await receiver.getStats()).values())?.level ?? null;
    if (receiver !== this.#receiver) return;
    const share = levelToMeter(level);
    // Uncovers a bar whose colours stand for levels, so that quiet sound is green however short the bar.
    this.bar.style.clipPath = `inset(0 ${(100 - 100 * share).toFixed(1)}% 0 0)`;
    this.meter.setAttribute('aria-valuenow', String(Math.round(-60 + 60 * share)));
    this.meter.dataset.level = level ?? '';
    setText(this.level, level === null && this.audio.muted ? 'muted' : formatLevel(level));
    this.level.title = level === null && this.audio.muted ? 'The level is measured while you listen' : '';
  }
}
