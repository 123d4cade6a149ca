// SPDX-License-Identifier: MIT OR Apache-2.0
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import { readConfig, signallingUrl } from '../../server/config.js';
import { freePorts } from '../../server/free-ports.js';
import { decodeToken, viewerToken } from '../../server/token.js';
import { fileFor, isOwnRequest, startWebServer } from '../../server/web.js';

const keys = { apiKey: 'key', apiSecret: 'a secret of some length, for tests only' };

test('a token is signed, short-lived, and lets its bearer watch one room and no more', () => {
  const token = viewerToken({ ...keys, room: 'r', identity: 'me', now: 1_000_000 });
  const [head, body, signature] = token.split('.');
  assert.equal(signature, createHmac('sha256', keys.apiSecret).update(`${head}.${body}`).digest('base64url'));
  assert.deepEqual(JSON.parse(Buffer.from(head, 'base64url')), { alg: 'HS256', typ: 'JWT' });
  const payload = decodeToken(token);
  assert.equal(payload.iss, 'key');
  assert.equal(payload.sub, 'me');
  assert.equal(payload.exp, 1_000_600);
  assert.ok(payload.nbf <= 1_000_000);
  assert.deepEqual(payload.video, { roomJoin: true, room: 'r', canSubscribe: true, canPublish: false, canPublishData: false });
});

test('a token without a room would open every room: refused', () => {
  assert.throws(() => viewerToken({ ...keys, room: '', identity: 'me' }), /room is empty/);
});

test('what is not a token decodes to nothing', () => {
  for (const text of ['', 'abc', 'a.b.c', 'a.bnVsbA.c']) assert.equal(decodeToken(text), null);
});

test('addresses', () => {
  assert.equal(signallingUrl('https://host.example/'), 'wss://host.example');
  assert.equal(signallingUrl('ws://127.0.0.1:7880'), 'ws://127.0.0.1:7880');
  assert.equal(signallingUrl('http://h:1/path'), 'ws://h:1/path');
  assert.throws(() => signallingUrl('rtsp://h'), /must begin with/);
  assert.throws(() => signallingUrl('host'), /not an address/);
});

test('settings that are missing are named', () => {
  const env = { LIVEKIT_URL: 'ws://h', LIVEKIT_API_KEY: 'k', LIVEKIT_API_SECRET: 's', LIVEKIT_ROOM: 'r' };
  assert.deepEqual(readConfig(env), { serverUrl: 'ws://h', port: 8080, apiKey: 'k', apiSecret: 's', room: 'r' });
  assert.throws(() => readConfig({ ...env, LIVEKIT_URL: '' }), /LIVEKIT_URL/);
  assert.throws(() => readConfig({ ...env, LIVEKIT_API_SECRET: '' }), /LIVEKIT_API_SECRET/);
  assert.throws(() => readConfig({ ...env, LIVEKIT_ROOM: ' ' }), /LIVEKIT_ROOM/);
  assert.throws(() => readConfig({ ...env, VIEWER_PORT: 'x' }), /VIEWER_PORT/);
  assert.throws(() => readConfig({ LIVEKIT_URL: 'ws://h', LIVEKIT_VIEWER_TOKEN: 'x' }), /LIVEKIT_VIEWER_TOKEN/);
  const token = viewerToken({ ...keys, room: 'q', identity: 'me' });
  assert.equal(readConfig({ LIVEKIT_URL: 'ws://h', LIVEKIT_VIEWER_TOKEN: token }).room, 'q');
});

test('only files of the page are served', () => {
  assert.ok(fileFor('/').endsWith('/public/index.html'));
  assert.ok(fileFor('/js/main.js').endsWith('/public/js/main.js'));
  for (const path of ['/../package.json', '/..%2fserver/token.js', '/js/../../server/token.js', '/%00.js', '/%zz', '/js', '/style.txt']) {
    assert.equal(fileFor(path), null, path);
  }
});

test('other sites may not have tokens', () => {
  const host = '127.0.0.1:8080';
  assert.equal(isOwnRequest({ host, origin: `http://${host}`, 'sec-fetch-site': 'same-origin' }), true);
  assert.equal(isOwnRequest({ host: 'localhost:8080' }), true);
  assert.equal(isOwnRequest({ host, origin: 'http://evil.example', 'sec-fetch-site': 'cross-site' }), false);
  assert.equal(isOwnRequest({ host, origin: 'http://127.0.0.1:9999' }), false);
  assert.equal(isOwnRequest({ host: 'evil.example:8080', origin: 'http://evil.example:8080' }), false, 'a name that points at loopback');
  assert.equal(isOwnRequest({}), false);
});

let server;
before(async () => {
  server = await startWebServer({ ...keys, serverUrl: 'ws://h', room: 'r', port: 0 });
});
after(() => server.close());

function ask(path, options = {}) {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port: server.address().port, path, ...options }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (part) => { body += part; });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    }).on('error', reject).end();
  });
}

test('the server listens on loopback only and answers page, client and tokens', async () => {
  assert.equal(server.address().address, '127.0.0.1');
  const page = await ask('/');
  assert.equal(page.status, 200);
  assert.match(page.headers['content-security-policy'], /default-src 'self'/);
  assert.match(page.body, /<title>/);
  assert.equal((await ask('/vendor/livekit-client.mjs')).status, 200);
  const first = JSON.parse((await ask('/api/connection', { method: 'POST' })).body);
  const second = JSON.parse((await ask('/api/connection', { method: 'POST' })).body);
  assert.equal(first.url, 'ws://h');
  assert.notEqual(decodeToken(first.token).sub, decodeToken(second.token).sub, 'two pages must not push each other out');
});

test('the secret never leaves the server', async () => {
  for (const path of ['/', '/js/main.js']) assert.doesNotMatch((await ask(path)).body, /a secret of some length/);
  assert.doesNotMatch((await ask('/api/connection', { method: 'POST' })).body, /a secret of some length/);
});

test('wrong methods, hosts and paths are refused', async () => {
  assert.equal((await ask('/api/connection')).status, 405);
  assert.equal((await ask('/', { method: 'POST' })).status, 405);
  assert.equal((await ask('/server/token.js')).status, 404);
  assert.equal((await ask('/api/connection', { method: 'POST', headers: { Host: 'evil.example' } })).status, 403);
  assert.equal((await ask('/api/connection', { method: 'POST', headers: { Origin: 'http://evil.example' } })).status, 403);
});

test('free ports are different, and a wish is met when it can be', async () => {
  const [a, b, c] = await freePorts(['tcp', 'tcp', 'udp']);
  assert.ok(a > 0 && b > 0 && c > 0 && a !== b);
  assert.deepEqual(await freePorts([`tcp:${a}`]), [a]);
  const taken = server.address().port;
  assert.notEqual((await freePorts([`tcp:${taken}`]))[0], taken);
  await assert.rejects(freePorts(['sctp']), /tcp or udp/);
});
