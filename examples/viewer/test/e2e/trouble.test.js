// SPDX-License-Identifier: MIT OR Apache-2.0
// What the page says when something is wrong; needs a browser, but no LiveKit server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { freePorts } from '../../server/free-ports.js';
import { startWebServer } from '../../server/web.js';
import { eventually, launchBrowser } from './lib/browser.js';

let browser;
let server;

before(async () => {
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  server?.close();
});

test('a LiveKit server that is not there is said in words, and tried again', { timeout: 300000 }, async () => {
  const [nobody] = await freePorts(['tcp']);
  server = await startWebServer({ serverUrl: `ws://127.0.0.1:${nobody}`, apiKey: 'k', apiSecret: 's'.repeat(32), room: 'r', port: 0 });
  const page = await browser.newPage();
  let joins = 0;
  page.on('request', (request) => { if (request.url().endsWith('/api/connection')) joins += 1; });
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const text = await eventually('words on the trouble', 60, async () => (await page.locator('#trouble').isVisible())
    && page.locator('#trouble-text').textContent());
  assert.match(text, new RegExp(`ws://127\\.0\\.0\\.1:${nobody} can’t be reached\\. Trying again in \\d+ s\\.`));
  assert.equal(await page.locator('#empty-title').textContent(), 'Not in the room yet');
  await eventually('a second try', 60, () => joins >= 2);
  await eventually('words again', 60, () => page.locator('#retry').isVisible());
  const before = joins;
  await page.locator('#retry').click();
  await eventually('a try at once', 60, () => joins > before);
});
