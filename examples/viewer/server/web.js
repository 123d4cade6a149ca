// SPDX-License-Identifier: MIT OR Apache-2.0
// The page's web server: the files of public/, LiveKit's client from node_modules, and the tokens.
import { createServer } from 'node:http';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { viewerToken } from './token.js';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const publicDir = path.join(root, 'public');
const clientFile = path.join(root, 'node_modules/livekit-client/dist/livekit-client.esm.mjs');

const types = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

const headers = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'self'; connect-src 'self' ws: wss: http: https:; "
    + "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
};

/**
 * The server is on loopback, but a page of any web site open in the same browser can reach loopback too. Only our
 * own page may have tokens: the name in Host stops a site whose name points at 127.0.0.1, the Origin the others.
 */
export function isOwnRequest({ host, origin, 'sec-fetch-site': site }) {
  if (!/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/i.test(host ?? '')) return false;
  if (site && site !== 'same-origin' && site !== 'none') return false;
  return origin === undefined || origin.toLowerCase() === `http://${host.toLowerCase()}`;
}

/** Maps an URL path to a file, or null when there is none that may be served. */
export function fileFor(urlPath) {
  if (urlPath === '/vendor/livekit-client.mjs') return clientFile;
  let name;
  try {
    name = decodeURIComponent(urlPath);
  } catch {
    return null;
  }
  if (name === '/') name = '/index.html';
  const file = path.join(publicDir, name);
  const inside = file.startsWith(publicDir + path.sep) && !name.includes('\0');
  return inside && types[path.extname(file)] ? file : null;
}

function answer(response, status, type, body) {
  response.writeHead(status, { ...headers, 'Content-Type': type });
  response.end(body);
}

/** What the page needs to join: a fresh identity each time, so that two open pages do not push each other out. */
function connection(config) {
  const { serverUrl: url, room } = config;
  if (config.fixedToken) return { url, room, token: config.fixedToken };
  const identity = `viewer-${randomBytes(4).toString('hex')}`;
  return { url, room, token: viewerToken({ ...config, identity, name: 'Viewer page' }) };
}

async function handle(config, request, response) {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (pathname === '/api/connection') {
    if (!isOwnRequest(request.headers)) return answer(response, 403, 'text/plain', 'only the viewer page itself may ask for this\n');
    if (request.method !== 'POST') return answer(response, 405, 'text/plain', 'POST only\n');
    return answer(response, 200, 'application/json', JSON.stringify(connection(config)));
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, 'text/plain', 'GET only\n');
  const file = fileFor(pathname);
  if (!file) return answer(response, 404, 'text/plain', 'not found\n');
  try {
    return answer(response, 200, types[path.extname(file)], await readFile(file));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    const hint = file === clientFile ? 'livekit-client is not installed: run `npm ci` in examples/viewer\n' : 'not found\n';
    return answer(response, 404, 'text/plain', hint);
  }
}

/** Starts the server on 127.0.0.1 and resolves once it listens. */
export function startWebServer(config) {
  const server = createServer((request, response) => {
    handle(config, request, response).catch((error) => {
      console.error(`viewer: ${request.method} ${request.url}: ${error.message}`);
      if (response.headersSent) response.destroy();
      else answer(response, 500, 'text/plain', 'internal error\n');
    });
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.port, '127.0.0.1', () => resolve(server));
  });
}
