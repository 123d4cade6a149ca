// SPDX-License-Identifier: MIT OR Apache-2.0
// A list of labelled figures, some with a small graph of the last minute.
import { element, setText, svgElement } from './dom.js';
import { graphPieces, History } from './stats.js';
import { UNKNOWN } from './format.js';

const GRAPH = { seconds: 60, width: 120, height: 28 };

class Graph {
  #history = new History(GRAPH.seconds);

  constructor() {
    this.lines = svgElement('g', { class: 'graph-lines' });
    this.node = svgElement('svg', {
      class: 'graph',
      viewBox: `0 0 ${GRAPH.width} ${GRAPH.height}`,
      preserveAspectRatio: 'none',
      'aria-hidden': 'true',
    }, this.lines);
  }

  add(value) {
    this.#history.add(value);
    const pieces = graphPieces(this.#history.values, GRAPH.seconds, GRAPH.width, GRAPH.height);
    this.lines.replaceChildren(...pieces.map((points) => svgElement('polyline', { points })));
  }
}

/** `fields`: [{ key, label, title, graph }] */
export class FigureList {
  #cells = new Map();

  constructor(fields) {
    this.node = element('dl.figures');
    for (const { key, label, title = '', graph = false } of fields) {
      const value = element('dd', {}, UNKNOWN);
      value.dataset.figure = key;
      const cell = element('div.figure', { title }, element('dt', {}, label), value);
      const cellGraph = graph ? new Graph() : null;
      if (cellGraph) cell.append(cellGraph.node);
      this.#cells.set(key, { cell, value, graph: cellGraph });
      this.node.append(cell);
    }
  }

  /** `tone`: '' | 'good' | 'warn' | 'bad'; `raw` is the bare number, for graphs and for tests. */
  set(key, text, { raw = null, tone = '', title } = {}) {
    const { cell, value, graph } = this.#cells.get(key);
    setText(value, text);
    value.dataset.raw = raw ?? '';
    value.dataset.tone = tone;
    if (title !== undefined && cell.title !== title) cell.title = title;
    graph?.add(raw);
  }
}
