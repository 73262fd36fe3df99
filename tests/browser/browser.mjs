// What the browser tests share: Chromium, what is watched in every page, axe, and screenshots.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// Where npm has installed what ui/package.json names, the browser, where screenshots go, and the server.
export const { POW_UI, POW_CHROMIUM, POW_SCREENSHOTS, POW_SERVER } = process.env;

const require = createRequire(join(POW_UI, "package.json"));
const { chromium } = require("playwright-core");
const axe = require("axe-core");

export const HANG_MILLISECONDS = 60_000;
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 320, height: 720 };
const TALLEST = 3000;
// Colours depend on the theme only, and the layout on the width only.
const LOOKS = { "light-wide": ["light", WIDE], "dark-narrow": ["dark", NARROW] };
// Beyond WCAG 2.2 AA, what axe's authors hold to be good practice.
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/**
 * Runs scenarios one after the other, each in a context of its own; tells of each, and fails with the first.
 * One that provokes faults returns what they look like.
 */
export async function run(scenarios) {
  mkdirSync(POW_SCREENSHOTS, { recursive: true });
  const browser = await chromium.launch({
    executablePath: POW_CHROMIUM,
    args: [
      ...["--no-sandbox", "--headless=new", "--disable-background-networking", "--disable-component-update"],
      ...["--disable-sync", "--no-first-run", "--disable-dev-shm-usage"],
    ],
  });
  try {
    for (const [name, scenario] of Object.entries(scenarios)) {
      const began = performance.now();
      const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce" });
      context.setDefaultTimeout(HANG_MILLISECONDS);
      const page = await context.newPage();
      const faults = watch(page);
      const provoked = await scenario(page);
      assert.deepEqual(faults.filter((fault) => !provoked?.test(fault)), [], name);
      await context.close();
      console.log(`passed: ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
    }
  } finally {
    await browser.close();
  }
}

/** What must not happen: a request to another origin, an error in the page, a breach of its policy. */
function watch(page) {
  const faults = [];
  page.on("request", (request) => {
    const url = new URL(request.url());
    const own = page.url() === "about:blank" || url.origin === new URL(page.url()).origin;
    if (!own && !["data:", "about:"].includes(url.protocol)) faults.push(`request to ${request.url()}`);
  });
  page.on("pageerror", (error) => faults.push(`error: ${error}`));
  page.on("console", (message) => {
    // Refusals that a scenario asks for show as failed loads; anything else that is an error is none of ours.
    const expected = message.text().startsWith("Failed to load resource: the server responded with a status of 400");
    if (["error", "warning"].includes(message.type()) && !expected) faults.push(`console: ${message.text()}`);
  });
  return faults;
}

/**
 * Looks at a state of the page, light and wide, dark and narrow: no violation, nothing wider than the screen,
 * a screenshot.
 *
 * @param setTheme how this page learns of the theme.
 * @param frame the frame that is looked at.
 */
export async function inspect(page, name, { setTheme, frame = page.mainFrame() }) {
  for (const [look, [theme, viewport]] of Object.entries(LOOKS)) {
    const shown = `${name}-${look}`;
    await setTheme(theme);
    await page.setViewportSize(viewport);
    await settle(page, frame);
    const tooWide = await frame.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(tooWide <= 0, `${shown}: ${tooWide} pixels wider than the screen`);
    assert.deepEqual(await violations(frame), [], shown);
    // Not `fullPage`: a frame paints only what would be on the screen.
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ ...viewport, height: Math.min(height, TALLEST) });
    await settle(page, frame);
    await page.screenshot({ path: join(POW_SCREENSHOTS, `${shown}.png`) });
  }
  await setTheme("light");
  await page.setViewportSize(WIDE);
}

/** Waits until the frame has the height that it asks for, and all is painted. */
async function settle(page, frame) {
  if (frame !== page.mainFrame()) {
    await frame.waitForFunction(() => innerHeight >= document.documentElement.scrollHeight);
  }
  const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  await frame.evaluate(painted);
}

async function violations(frame) {
  if (!(await frame.evaluate(() => "axe" in window))) await frame.evaluate(axe.source);
  const found = await frame.evaluate((rules) => window.axe.run({ runOnly: { type: "tag", values: rules } }), RULES);
  assert.ok(found.passes.length > 5, "axe has looked at next to nothing");
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.failureSummary).join("; ")}`);
}

/** Presses Tab until the element has the focus, as somebody without a mouse does. */
export async function tabTo(page, locator) {
  for (let presses = 0; presses < 60; presses += 1) {
    if (await locator.evaluate((target) => target === target.ownerDocument.activeElement)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`Tab never reaches ${locator}`);
}

/** A difficulty at which so many blocks take this server some seconds on average. */
export async function difficultyOfSeconds(seconds, blocks) {
  const health = await (await fetch(`${POW_SERVER}/healthz`)).json();
  return Math.max(1, Math.floor(Math.log2((seconds * health.hashes_per_second) / blocks)));
}
