// SPDX-License-Identifier: MIT OR Apache-2.0
// scripts/demo as its user meets it: start, watch in a browser, Ctrl-C, start again.
// DEMO_SCREENSHOT=1 renews the picture of the README; otherwise one goes to test-output/.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../../server/free-ports.js';
import { eventually, figures, launchBrowser, lookTwice } from './lib/browser.js';
import { Demo, survivors } from './lib/demo.js';

const here = fileURLToPath(new URL('.', import.meta.url));
const renew = Boolean(process.env.DEMO_SCREENSHOT);
const screenshot = renew ? path.join(here, '../../../../docs/images/demo.png') : path.join(here, '../../test-output/demo.png');

let browser;
let page;
let tmp;
let port;
let demo;
const trouble = [];

before(async () => {
  tmp = await mkdtemp(path.join(os.tmpdir(), 'viewer-test.'));
  [port] = await freePorts(['tcp']);
  browser = await launchBrowser();
  page = await browser.newPage({ viewport: { width: 1440, height: 980 } });
  page.on('pageerror', (error) => trouble.push(error.message));
});

after(async () => {
  await demo?.abandon();
  await browser?.close();
  if (tmp) await rm(tmp, { recursive: true, force: true });
});

// The end is only a backstop here: every test that starts a demo ends it by a signal.
const start = () => { demo = new Demo(['--test-source', '--port', String(port), '--duration', '900', '--away', '600'], { tmp }); };

async function playing() {
  await eventually('a playing video', 60, () => page.evaluate(() => {
    const video = document.querySelector('video');
    return video && video.videoWidth > 0 && !video.paused && video.currentTime > 0;
  }));
}

async function saysItIsGone() {
  // Seen at one moment: the page tries again every now and then, and what it meets changes while the demo ends.
  let seen;
  await eventually('words on the trouble', 60, async () => {
    seen = await page.evaluate(() => ({
      shown: !document.querySelector('#trouble').hidden,
      text: document.querySelector('#trouble-text').textContent,
      state: document.querySelector('#state').textContent,
      cards: document.querySelectorAll('.video-card').length,
    }));
    return seen.shown && /web server does not answer|server was shut down|lost|broke off/.test(seen.text);
  }).catch((error) => assert.fail(`${error.message}: ${JSON.stringify(seen)}`));
  assert.deepEqual([seen.state, seen.cards], ['Not connected', 0]);
}

async function ends(signal) {
  const family = demo.family();
  const commands = [...family.values()].map(({ command }) => command.join(' ')).join('\n');
  for (const part of [/gst-launch-1\.0/, /server\/main\.js/, /livekit-server|\/server --bind/]) assert.match(commands, part, 'the family is complete');
  const began = Date.now();
  const result = await demo.end(signal);
  assert.deepEqual(result, { code: 0, signal: null }, demo.output);
  assert.ok(Date.now() - began < 40000, `ending took ${Date.now() - began} ms`);
  // What was killed in the end may take a moment to be gone.
  await eventually('the end of its children', 30, () => survivors(family).length === 0);
  assert.deepEqual((await readdir(tmp)).filter((name) => name.startsWith('livekit-demo')), [], 'its files are gone');
}

test('the demo starts and its picture moves in a browser', { timeout: 1800000 }, async () => {
  start();
  // The first start may build the plugin and the server.
  const address = await demo.address(1500);
  assert.equal(address, `http://127.0.0.1:${port}/`);
  await page.goto(address);
  await playing();
  const frames = () => page.evaluate(() => document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames);
  const before = await frames();
  // A machine that is busy for a moment shows the same picture twice.
  const look = await eventually('a picture that moves: more than a twentieth of it changed in a second', 30, async () => {
    const seen = await lookTwice(page, 1000);
    return seen.changed > 0.05 ? seen : null;
  });
  assert.deepEqual([look.width, look.height], [1280, 720]);
  assert.ok(look.brightness > 40, `the picture is not black: ${look.brightness}`);
  await eventually('more frames', 30, async () => await frames() > before);
  assert.equal(await page.locator('#state').textContent(), 'Connected');
  assert.equal(await page.locator('#empty').isVisible(), false);
});

test('the figures are there and make sense', { timeout: 180000 }, async () => {
  // The rates need a few seconds of samples, and a moment in which the machine had no time shows in them.
  let found;
  const video = await eventually('figures of the video', 60, async () => {
    found = await figures(page, '.video-card');
    const there = found.frameRate && found.delay.raw !== '' && found.jitterBuffer.raw !== '';
    const rates = there && found.frameRate.raw > 20 && found.frameRate.raw < 40 && found.bitrate.raw > 3e5 && found.bitrate.raw < 1e7;
    return rates && found.loss.raw < 5 && found.delay.raw < 5000 && found.jitterBuffer.raw < 3000 ? found : null;
  }).catch((error) => assert.fail(`${error.message}; the last ones: ${JSON.stringify(found)}`));
  assert.equal(video.resolution.text, '1280 × 720');
  assert.equal(video.codec.text, 'H.264');
  assert.ok(video.jitterBuffer.raw >= 0, video.jitterBuffer.text);
  assert.ok(video.delay.raw > 1, video.delay.text);
  assert.ok(video.loss.raw >= 0, video.loss.text);
  assert.match(video.freezes.text, /^(none|\d+ · \d+\.\d s)$/);
  const audio = await eventually('figures of the sound', 60, async () => {
    const sound = await figures(page, '.audio-card');
    return sound.bitrate?.raw > 1e4 && sound.bitrate.raw < 2e5 ? sound : null;
  });
  assert.equal(audio.codec.text, 'Opus');
  let people;
  await eventually('two people', 60, async () => {
    people = await page.locator('.person').allTextContents();
    return people.length === 2;
  }).catch((error) => assert.fail(`${error.message}: ${people.join(' | ')}`));
});

test('sound is off until somebody clicks, and then has a level', { timeout: 180000 }, async () => {
  const button = page.locator('.mute');
  assert.equal(await button.textContent(), 'Listen');
  assert.equal(await page.evaluate(() => document.querySelector('audio').muted), true);
  await button.click();
  assert.equal(await button.textContent(), 'Mute');
  assert.equal(await page.evaluate(() => document.querySelector('audio').muted), false);
  // The tone has 3 % of full scale.
  let level;
  await eventually('the level of the tone', 60, async () => {
    level = await page.evaluate(() => Number(document.querySelector('.meter').dataset.level));
    return level > 0.01 && level < 0.1;
  }).catch((error) => assert.fail(`${error.message}; it is ${level}`));
  assert.equal(await page.locator('.audio-problem').isVisible(), false);
  if (renew) await page.waitForTimeout(45000);
  await mkdir(path.dirname(screenshot), { recursive: true });
  await page.mouse.move(0, 0);
  await page.screenshot({ path: screenshot });
});

test('the network goes away and comes back, and so does the picture', { timeout: 180000 }, async () => {
  const says = (words) => eventually(String(words), 60, () => words.test(demo.output)).catch((error) => assert.fail(`${error.message}:\n${demo.output}`));
  const shown = () => page.evaluate(() => document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames);
  demo.enter();
  await says(/The network is away for 600 s/);
  await eventually('a picture that stands still', 60, async () => {
    const before = await shown();
    await page.waitForTimeout(1000);
    return await shown() === before;
  });
  await says(/Interrupted: .*path.*\. livekitsink tries to go on\./);
  demo.enter();
  await says(/The network is back/);
  await says(/(It goes on|Back on air) after \d+ s/);
  await playing();
  const before = await shown();
  await eventually('a picture that moves', 60, async () => await shown() > before);
});

test('the page fits a phone', { timeout: 120000 }, async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(overflow, 0, 'nothing sticks out to the side');
  await page.setViewportSize({ width: 1440, height: 980 });
});

test('no secret is on a command line', () => {
  const family = [...demo.family().values()];
  const secret = family.flatMap(({ environment }) => environment).find((line) => line.startsWith('LIVEKIT_API_SECRET='))?.split('=')[1];
  assert.ok(secret?.length >= 32, 'the secret could be read from the environment');
  for (const { command } of family) assert.ok(!command.join(' ').includes(secret), command.join(' '));
  assert.ok(!demo.output.includes(secret));
});

test('Ctrl-C ends everything, and the page says that the demo is gone', { timeout: 240000 }, async () => {
  await ends('SIGINT');
  await saysItIsGone();
});

test('a second start takes seconds, and the open page comes back by itself', { timeout: 180000 }, async () => {
  const began = Date.now();
  start();
  await demo.address(120);
  const took = Date.now() - began;
  assert.ok(took < 60000, `${took} ms`);
  await playing();
  assert.equal(await page.locator('#trouble').isVisible(), false);
});

test('SIGTERM ends everything too', { timeout: 180000 }, () => ends('SIGTERM'));

test('a demo that is killed leaves no process either, and the page copes with a server that says no goodbye', { timeout: 240000 }, async () => {
  start();
  await demo.address(120);
  await playing();
  const family = demo.family();
  await demo.end('SIGKILL');
  await eventually('the end of its children', 30, () => survivors(family).length === 0);
  await saysItIsGone();
});

test('the page had no errors', () => assert.deepEqual(trouble, []));
