// SPDX-License-Identifier: MIT OR Apache-2.0
// Serves the viewer page on loopback. Settings come from the environment: see config.js and the README.
import { readConfig } from './config.js';
import { startWebServer } from './web.js';

function fail(message) {
  console.error(`viewer: ${message}`);
  process.exit(1);
}

let config;
try {
  config = readConfig(process.env);
} catch (error) {
  fail(error.message);
}

let server;
try {
  server = await startWebServer(config);
} catch (error) {
  fail(error.code === 'EADDRINUSE'
    ? `port ${config.port} is taken: set VIEWER_PORT to another one, or to 0 for any free one`
    : `can't listen on 127.0.0.1:${config.port}: ${error.message}`);
}

console.log(`viewer: http://127.0.0.1:${server.address().port}/`);

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
