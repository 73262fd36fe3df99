// Builds one page into one file: scripts and styles inline, nothing left to load.
//
// The page's policy names the one script and the one style sheet by their hashes, so nothing that gets
// into the page by another way runs, and nothing of it connects anywhere. The dashboard's server sends its
// own policy as a header, which may connect to where the page came from.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";

import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

const page = process.env.PAGE;
if (!["mining-app", "dashboard", "host"].includes(page)) throw new Error(`PAGE must name a page, not ${page}`);
const folder = process.env.UI_OUT ?? "../pow/ui";
const file = resolve(folder, `${page.replace("-", "_")}.html`);

const hashes = (html, tag) =>
  [...html.matchAll(new RegExp(`<${tag}[^>]*>([^]*?)</${tag}>`, "g"))]
    .map(([, text]) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`)
    .join(" ");

const writePage = {
  name: "write-page",
  enforce: "post",
  generateBundle: {
    order: "post",
    handler(_, bundle) {
      const source = bundle[`${page}.html`].source.replaceAll("\r\n", "\n");
      const policy =
        `default-src 'none'; script-src ${hashes(source, "script")}; style-src ${hashes(source, "style")}; ` +
        "img-src data:; base-uri 'none'; form-action 'none'";
      const meta = `<meta http-equiv="Content-Security-Policy" content="${policy}">`;
      const html = page === "mining-app" ? source.replace('<meta charset="utf-8">', `$&\n    ${meta}`) : source;
      for (const name of Object.keys(bundle)) delete bundle[name];
      writeFileSync(file, `${html.trimEnd()}\n`);
    },
  },
};

// zod has remarks for other bundlers in places where this one has no use for them.
const onwarn = (warning, warn) => {
  if (warning.code !== "INVALID_ANNOTATION") warn(warning);
};

export default defineConfig({
  logLevel: "warn",
  define: { PAGE_VERSION: JSON.stringify(JSON.parse(readFileSync("package.json", "utf-8")).version) },
  plugins: [viteSingleFile({ removeViteModuleLoader: true }), writePage],
  build: { target: "es2022", write: false, modulePreload: false, rollupOptions: { input: `${page}.html`, onwarn } },
});
