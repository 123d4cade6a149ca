// SPDX-License-Identifier: MIT OR Apache-2.0
// The little of DOM building that the page needs.

/** element('p.note', { title: '…' }, 'text', otherElement) */
export function element(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split('.');
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(' ');
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const SVG = 'http://www.w3.org/2000/svg';

export function svgElement(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Writes only what changed: a screen reader repeats a live region whenever its text is set. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
