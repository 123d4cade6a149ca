// SPDX-License-Identifier: MIT OR Apache-2.0
// The system's Chromium, headless, and what the tests ask of the page in it.
import assert from 'node:assert/strict';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';

function executable() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];
  for (const dir of process.env.PATH.split(path.delimiter)) {
    for (const name of names) {
      try {
        accessSync(path.join(dir, name), constants.X_OK);
        return path.join(dir, name);
      } catch {
        // Not this one.
      }
    }
  }
  throw new Error('no Chromium on PATH: install the package chromium, or set CHROMIUM to its path');
}

export function launchBrowser() {
  return chromium.launch({
    executablePath: executable(),
    args: [
      '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic',
      '--autoplay-policy=document-user-activation-required', '--disable-features=WebRtcHideLocalIpsWithMdns',
    ],
  });
}

/** Asks again until `check` gives something true, and returns that. */
export async function eventually(what, seconds, check) {
  const end = Date.now() + seconds * 1000;
  let last;
  while (Date.now() < end) {
    last = await check();
    if (last) return last;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return assert.fail(`${what}: not within ${seconds} s`);
}

/** The figures of the first card of a kind: { key: { text, raw } }, raw as a number where it is one. */
export function figures(page, card) {
  return page.evaluate((selector) => {
    const found = {};
    for (const node of document.querySelector(selector)?.querySelectorAll('[data-figure]') ?? []) {
      const { raw } = node.dataset;
      found[node.dataset.figure] = { text: node.textContent, raw: raw === '' || Number.isNaN(Number(raw)) ? raw : Number(raw) };
    }
    return found;
  }, card);
}

/** Two looks at the picture: how bright it is, and the share of its pixels that are clearly different the second time. */
export function lookTwice(page, pauseMs) {
  return page.evaluate(async (pause) => {
    const video = document.querySelector('video');
    const canvas = new OffscreenCanvas(160, 90);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const look = () => {
      context.drawImage(video, 0, 0, 160, 90);
      return context.getImageData(0, 0, 160, 90).data;
    };
    const first = look();
    await new Promise((resolve) => setTimeout(resolve, pause));
    const second = look();
    let sum = 0;
    let changed = 0;
    for (let i = 0; i < first.length; i += 4) {
      sum += (first[i] + first[i + 1] + first[i + 2]) / 3;
      if (Math.abs(first[i] - second[i]) + Math.abs(first[i + 1] - second[i + 1]) + Math.abs(first[i + 2] - second[i + 2]) > 60) changed += 1;
    }
    const pixels = first.length / 4;
    return { brightness: sum / pixels, changed: changed / pixels, width: video.videoWidth, height: video.videoHeight };
  }, pauseMs);
}
