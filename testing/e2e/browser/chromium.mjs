// SPDX-License-Identifier: MIT OR Apache-2.0
// A page of its own in headless Chromium, from a server on loopback, with LiveKit's JavaScript client beside it.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--autoplay-policy=no-user-gesture-required",
  "--disable-gpu",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Serves `html` and the `scripts` (name → text); `run` evaluates a function in the page, prints its report as JSON and ends.
 * `options` go to the function; `screenshot` in them names a file for one. */
export async function launch(html, scripts = {}) {
  const client = await readFile(new URL("node_modules/livekit-client/dist/livekit-client.umd.js", import.meta.url));
  const files = { "livekit-client.js": client, ...scripts };
  const server = createServer((request, response) => {
    const script = files[request.url.slice(1)];
    response.writeHead(200, { "content-type": script ? "text/javascript" : "text/html; charset=utf-8" });
    response.end(script ?? html);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
  const run = async (inPage, options) => {
    let report = { ok: false };
    const notes = [];
    try {
      const page = await browser.newPage();
      page.on("console", (message) => message.type() === "error" && notes.push(message.text()));
      page.on("pageerror", (error) => notes.push(String(error)));
      await page.goto(`http://127.0.0.1:${server.address().port}/`);
      report = await page.evaluate(inPage, options);
      if (options?.screenshot) {
        await page.screenshot({ path: options.screenshot });
      }
    } catch (error) {
      notes.push(String(error));
    } finally {
      await browser.close();
      server.close();
    }
    console.log(JSON.stringify({ ...report, notes }));
    process.exitCode = report.ok ? 0 : 1;
  };
  return { run };
}
