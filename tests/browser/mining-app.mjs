// The MCP App in a host page, against a real server: node tests/browser/mining-app.mjs
//
// The host's client speaks MCP from the browser. What serves the host's page passes /mcp on to the server,
// so that everything has one origin.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";

import { difficultyOfSeconds, inspect, POW_SERVER, run, tabTo } from "./browser.mjs";

const ENDLESS = 40;
// So many that luck evens out, and the chain is never done before it was seen running.
const BLOCKS = 16;
const HOST_PAGE = readFileSync(process.env.POW_HOST_PAGE);

const server = createServer((incoming, outgoing) => {
  if (incoming.url === "/") return outgoing.setHeader("Content-Type", "text/html").end(HOST_PAGE);
  const { method, headers } = incoming;
  const passedOn = request(`${POW_SERVER}${incoming.url}`, { method, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  passedOn.on("error", () => outgoing.destroy());
  outgoing.on("close", () => passedOn.destroy());
  return incoming.pipe(passedOn);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/`;

async function open(page) {
  await page.goto(url);
  await page.waitForFunction(() => "openApp" in window);
  await page.evaluate(() => window.openApp("light").then(() => undefined));
  const frame = page.frames().find((found) => found !== page.mainFrame());
  await frame.locator("h1").waitFor();
  return frame;
}

/** Lets the host call a tool; resolves before the tool has answered. */
const call = (page, name, args) =>
  page.evaluate(([tool, given]) => void window.host.callTool(tool, given), [name, args]);
const status = (frame, text) => frame.locator(`.badge[data-status="${text}"]`).waitFor();
const views = (page, frame) => ({
  frame,
  setTheme: async (theme) => {
    await page.evaluate((given) => window.host.setTheme(given), theme);
    await frame.waitForFunction((given) => document.documentElement.style.colorScheme === given, theme);
  },
});

try {
  await run({
    "the app waits for a call": async (page) => {
      const frame = await open(page);
      assert.equal(await frame.locator("h1").innerText(), "No workflow yet");
      await inspect(page, "mining-app-empty", views(page, frame));
    },

    "the app follows a chain to its end and has it verified": async (page) => {
      const frame = await open(page);
      const difficulty = await difficultyOfSeconds(10, BLOCKS);
      await call(page, "start_mining", { difficulty, blocks: BLOCKS, genesis: "GENESIS" });
      await status(frame, "running");
      assert.match(await frame.locator(".facts").innerText(), /95 % by/);
      await status(frame, "completed");
      assert.equal(await frame.locator(".block.mined").count(), BLOCKS);
      assert.equal(await frame.locator(".block mark.zero").count(), BLOCKS);
      await frame.locator("h1").click();
      await tabTo(page, frame.getByRole("button", { name: "Verify chain" }));
      await page.keyboard.press("Enter");
      await frame.locator('.verdict[data-valid="true"]').waitFor();
      await inspect(page, "mining-app-completed", views(page, frame));
    },

    "the app cancels a chain by keyboard": async (page) => {
      const frame = await open(page);
      await call(page, "start_mining", { difficulty: ENDLESS, genesis: "app" });
      await status(frame, "running");
      await frame.locator(".facts dd", { hasText: "hashes/s" }).waitFor();
      await inspect(page, "mining-app-running", views(page, frame));
      await frame.locator("h1").click();
      await tabTo(page, frame.getByRole("button", { name: "Cancel mining" }));
      await page.keyboard.press("Enter");
      await status(frame, "cancelled");
      assert.equal(await frame.evaluate(() => document.activeElement.id), "mining-title");
      await inspect(page, "mining-app-cancelled", views(page, frame));
    },

    "the app shows blocks as they are mined": async (page) => {
      const frame = await open(page);
      await call(page, "start_mining", { difficulty: await difficultyOfSeconds(60, 64), blocks: 64 });
      await frame.locator(".block.mined mark.zero").nth(1).waitFor();
      await inspect(page, "mining-app-growing", views(page, frame));
      await frame.getByRole("button", { name: "Cancel mining" }).click();
      await status(frame, "cancelled");
    },

    "the app shows a workflow that fails": async (page) => {
      const frame = await open(page);
      await call(page, "start_mining", { difficulty: 8, genesis: "FAIL" });
      await status(frame, "failed");
      assert.match(await frame.locator(".message").innerText(), /the kernel gave a wrong answer/);
      await inspect(page, "mining-app-failed", views(page, frame));
    },

    "the app shows a call that was refused": async (page) => {
      const frame = await open(page);
      await call(page, "start_mining", { difficulty: 99 });
      await status(frame, "failed");
      assert.match(await frame.locator(".message").innerText(), /difficulty must be an integer from 1 to 40, not 99/);
    },

    "the app has no network": async (page) => {
      const frame = await open(page);
      // Both policies count: the host's and the page's own.
      const reached = await frame.evaluate(() => fetch("data:,x").then(() => true, () => false));
      assert.equal(reached, false);
      return /Content Security Policy/;
    },
  });
} finally {
  server.close();
  server.closeAllConnections();
}
