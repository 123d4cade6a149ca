// SPDX-License-Identifier: MIT OR Apache-2.0
// Prints free loopback ports, one a line: `free-ports.js tcp:7880 tcp udp` (the wanted number is taken if it is free).
import dgram from 'node:dgram';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { pathToFileURL } from 'node:url';

function tcp(port) {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve({ port: server.address().port, close: () => new Promise((done) => server.close(done)) }));
  });
}

function udp(port) {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket('udp4');
    socket.once('error', reject);
    socket.bind(port, '127.0.0.1', () => resolve({ port: socket.address().port, close: () => new Promise((done) => socket.close(done)) }));
  });
}

// Below the range from which outgoing connections are given theirs: one of those must not take the port before it is used.
const FIRST = 10_000;
const TRIES = 100;

function endOfFree() {
  try {
    return Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s/)[0]);
  } catch {
    return 0;
  }
}

async function any(open) {
  const end = endOfFree();
  for (let n = 0; end >= 2 * FIRST && n < TRIES; n += 1) {
    try {
      return await open(FIRST + Math.floor(Math.random() * (end - FIRST)));
    } catch {
      // Taken.
    }
  }
  return open(0);
}

/** All ports are held until every one is found, so that no two are the same. */
export async function freePorts(wishes) {
  const open = { tcp, udp };
  const held = [];
  try {
    for (const wish of wishes) {
      const [kind, number] = wish.split(':');
      if (!open[kind]) throw new Error(`"${wish}": tcp or udp, and a port number behind a colon if one is wanted`);
      held.push(await (number ? open[kind](Number(number)).catch(() => any(open[kind])) : any(open[kind])));
    }
    return held.map(({ port }) => port);
  } finally {
    await Promise.all(held.map(({ close }) => close()));
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const port of await freePorts(process.argv.slice(2))) console.log(port);
}
