// A hash with its leading zero bits marked: that they are there is the proof of work.

import { element } from "./elements";

/** Leading zero bits of a hash in hex. */
export function leadingZeroBits(hash: string): number {
  const digits = /^0*/.exec(hash)![0].length;
  const next = hash[digits];
  return digits * 4 + (next === undefined ? 0 : Math.clz32(parseInt(next, 16)) - 28);
}

/** The hash; a digit that is zero in its first bits only is marked in proportion. */
export function hashWithZeroBits(hash: string): HTMLElement {
  const bits = leadingZeroBits(hash);
  const digits = Math.floor(bits / 4);
  const shown = element("code", { class: "hash" });
  if (digits) shown.append(element("mark", { class: "zero" }, hash.slice(0, digits)));
  if (bits % 4) shown.append(element("mark", { class: `zero-${bits % 4}` }, hash.slice(digits, digits + 1)));
  shown.append(hash.slice(Math.ceil(bits / 4)));
  return shown;
}
