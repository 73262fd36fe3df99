// The dashboard of a real server, in a real browser: node tests/browser/dashboard.mjs

import assert from "node:assert/strict";

import { difficultyOfSeconds, inspect, POW_SERVER, run, tabTo } from "./browser.mjs";

const ENDLESS = 40;
// So many that luck evens out, and the chain is never done before it was seen running.
const BLOCKS = 16;

const badge = (page) => page.locator("#selected .badge");
const status = (page, text) => page.locator(`#selected .badge[data-status="${text}"]`).waitFor();
const themes = (page) => ({ setTheme: (colorScheme) => page.emulateMedia({ colorScheme }) });

async function open(page) {
  await page.goto(POW_SERVER);
  // The first snapshot fills the form in.
  await page.waitForFunction(() => document.querySelector("#difficulty").value !== "");
}

async function start(page, { difficulty, blocks = 4, genesis = "GENESIS" }) {
  for (const [field, value] of Object.entries({ difficulty, blocks, genesis })) {
    await tabTo(page, page.locator(`#${field}`));
    await page.keyboard.press("ControlOrMeta+A");
    await page.keyboard.type(String(value));
  }
  await page.keyboard.press("Enter");
}

await run({
  "an empty server says so": async (page) => {
    await open(page);
    assert.match(await page.locator("#summary").innerText(), /None yet/);
    assert.equal(await page.locator("#selected h2").innerText(), "No workflow yet");
    assert.match(await page.locator("#snippets").innerText(), new RegExp(`${POW_SERVER}/mcp`));
    for (const path of ["/healthz", "/metrics"]) assert.ok(await page.locator(`a[href="${path}"]`).isVisible());
    await inspect(page, "dashboard-empty", themes(page));
  },

  "a chain is started, followed, completed and verified by keyboard": async (page) => {
    await open(page);
    await start(page, { difficulty: await difficultyOfSeconds(10, BLOCKS), blocks: BLOCKS });
    await status(page, "running");
    assert.match(await page.locator("#selected .facts").innerText(), /95 % by/);
    assert.equal(await page.locator("#selected .block").count(), BLOCKS);
    await status(page, "completed");
    assert.equal(await page.locator("#selected .block mark.zero").count(), BLOCKS);
    const verify = page.getByRole("button", { name: "Verify chain" });
    await tabTo(page, verify);
    await page.keyboard.press("Enter");
    await page.locator('#selected .verdict[data-valid="true"]').waitFor();
    await inspect(page, "dashboard-completed", themes(page));
  },

  "a workflow that runs for long is looked at and cancelled by keyboard": async (page) => {
    await open(page);
    await start(page, { difficulty: ENDLESS, genesis: "long" });
    await status(page, "running");
    await page.locator("#selected .facts dd", { hasText: "hashes/s" }).waitFor();
    await inspect(page, "dashboard-running", themes(page));
    await tabTo(page, page.getByRole("button", { name: "Cancel mining" }));
    await page.keyboard.press("Enter");
    await status(page, "cancelled");
    // The button is gone; the focus must not be.
    assert.equal(await page.evaluate(() => document.activeElement.id), "mining-title");
    await inspect(page, "dashboard-cancelled", themes(page));
  },

  "blocks appear as they are mined": async (page) => {
    await open(page);
    await start(page, { difficulty: await difficultyOfSeconds(60, 64), blocks: 64, genesis: "many" });
    await page.locator("#selected .block.mined mark.zero").nth(1).waitFor();
    await inspect(page, "dashboard-growing", themes(page));
    await page.getByRole("button", { name: "Cancel mining" }).click();
    await status(page, "cancelled");
    // What was mined stays to be seen.
    assert.ok((await page.locator("#selected .block.mined").count()) > 1);
  },

  "a workflow that fails says why": async (page) => {
    await open(page);
    await start(page, { difficulty: 8, genesis: "FAIL" });
    await status(page, "failed");
    assert.match(await page.locator("#selected .message").innerText(), /the kernel gave a wrong answer/);
    await inspect(page, "dashboard-failed", themes(page));
  },

  "a job that isn't allowed starts nothing and says what is": async (page) => {
    await open(page);
    const before = await page.locator("#workflows li").count();
    await start(page, { difficulty: 99 });
    await page.locator("#fault", { hasText: "difficulty must be an integer from 1 to 40" }).waitFor();
    assert.equal(await page.locator("#workflows li").count(), before);
    await inspect(page, "dashboard-refused", themes(page));
  },

  "the workflows that were there are listed, and each can be chosen": async (page) => {
    await open(page);
    const rows = page.locator("#workflows button");
    await rows.first().waitFor();
    for (const text of ["completed", "cancelled", "failed"]) {
      const row = rows.filter({ has: page.locator(`[data-status="${text}"]`) }).first();
      await tabTo(page, row);
      await page.keyboard.press("Enter");
      await status(page, text);
      assert.equal(await row.getAttribute("aria-current"), "true");
    }
    assert.ok(await badge(page).isVisible());
  },

  "the connection is copied": async (page) => {
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await open(page);
    await page.getByRole("button", { name: "Copy for Claude Code" }).click();
    await page.getByText("Copied").waitFor();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(copied, `claude mcp add --transport http pow-mcp ${POW_SERVER}/mcp`);
  },
});
