// SPDX-License-Identifier: MIT OR Apache-2.0
// Prints free loopback ports, one a line: `free-ports.js tcp:7880 tcp udp` (the wanted number is taken if it is free).
import dgram from 'node:dgram';
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

/** All ports are held until every one is found, so that no two are the same. */
export async function freePorts(wishes) {
  const open = { tcp, udp };
  const held = [];
  try {
    for (const wish of wishes) {
      const [kind, number] = wish.split(':');
      if (!open[kind]) throw new Error(`"${wish}": tcp or udp, and a port number behind a colon if one is wanted`);
      held.push(await open[kind](Number(number ?? 0)).catch(() => open[kind](0)));
    }
    return held.map(({ port }) => port);
  } finally {
    await Promise.all(held.map(({ close }) => close()));
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const port of await freePorts(process.argv.slice(2))) console.log(port);
}
