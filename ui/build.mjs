// Builds the pages that are named, or both that ship; UI_OUT names another folder than ../pow/ui. Each is a
// build of its own, since the plugin can't put what two pages share into both.
//
//     node build.mjs [mining-app] [dashboard] [host]

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
mkdirSync(process.env.UI_OUT ?? join(here, "../pow/ui"), { recursive: true });
const named = process.argv.slice(2);
for (const PAGE of named.length ? named : ["mining-app", "dashboard"]) {
  execFileSync(process.execPath, [join(here, "node_modules/vite/bin/vite.js"), "build"], {
    cwd: here,
    env: { ...process.env, PAGE },
    stdio: "inherit",
  });
}
