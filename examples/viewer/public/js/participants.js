// SPDX-License-Identifier: MIT OR Apache-2.0
// Who is in the room, with the quality of each connection as the server sees it.
import { element, setText } from './dom.js';
import { qualityWords } from './words.js';

const BARS = { excellent: 3, good: 2, poor: 1, lost: 0 };

export class Participants {
  #rows = new Map();

  constructor(list, heading) {
    this.list = list;
    this.heading = heading;
  }

  /** Makes the list show exactly these participants. @param {{sid, identity, name, isLocal, connectionQuality}[]} people */
  show(people) {
    const seen = new Set();
    for (const person of people) {
      const key = person.isLocal ? 'this page' : person.sid;
      seen.add(key);
      const row = this.#rows.get(key) ?? this.#add(key);
      const quality = qualityWords(person.connectionQuality);
      setText(row.name, person.name || person.identity);
      setText(row.role, person.isLocal ? 'this page' : person.publishes ? 'publishes' : 'watches');
      row.bars.dataset.bars = BARS[person.connectionQuality] ?? '';
      setText(row.quality, quality);
      row.node.title = `${person.identity}: connection ${quality}`;
    }
    for (const [key, { node }] of this.#rows) {
      if (seen.has(key)) continue;
      node.remove();
      this.#rows.delete(key);
    }
    setText(this.heading, `In the room (${people.length})`);
  }

  #add(key) {
    const row = {
      bars: element('span.bars', { 'aria-hidden': 'true' }, element('i'), element('i'), element('i')),
      name: element('span.person-name'),
      role: element('span.person-role'),
      quality: element('span.person-quality'),
    };
    row.node = element('li.person', {}, row.bars, row.name, row.role, row.quality);
    this.#rows.set(key, row);
    this.list.append(row.node);
    return row;
  }
}
