// @mcaptcha/pow-wasm for peers.py: answers each line {"salt", "phrase", "difficulty"} of its input with a
// line {"nonce", "result"}, so that neither starting Node nor compiling the module is timed.
//
//     node pow_wasm.mjs <folder of the package>

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

const folder = process.argv[2];
// The package is made for bundlers: it doesn't tell Node that its script is a module, and a URL that has
// the text does. Bundlers also instantiate the WebAssembly.
const script = await readFile(join(folder, "pow_wasm_bg.js"));
const glue = await import(`data:text/javascript;base64,${script.toString("base64")}`);
const binary = await readFile(join(folder, "pow_wasm_bg.wasm"));
const { instance } = await WebAssembly.instantiate(binary, { "./pow_wasm_bg.js": glue });
glue.__wbg_set_wasm(instance.exports);

for await (const line of createInterface({ input: process.stdin })) {
  const { salt, phrase, difficulty } = JSON.parse(line);
  console.log(glue.gen_pow(salt, phrase, difficulty));
}
