// The chain: a card for each block, mined or to come, each linked to the one before it.

import { element } from "./elements";
import { plural, whole } from "./format";
import type { Block } from "./results";
import { hashWithZeroBits, leadingZeroBits } from "./zero-bits";

export interface ChainState {
  /** The blocks whose contents are known. */
  mined: Block[];
  /** How many are mined: more than are known where the server tells of them only at the end. */
  done: number;
  total: number;
  genesis: string;
  running: boolean;
}

export class ChainView {
  readonly root = element("ol", { class: "chain", "aria-label": "Blocks" });
  private shown = "";

  constructor(private readonly heading: "h2" | "h3") {}

  show(state: ChainState): void {
    const asText = JSON.stringify(state);
    if (asText === this.shown) return;
    this.shown = asText;
    const cards = Array.from({ length: state.total }, (_, position) => {
      const title = element(this.heading, {}, `Block ${position + 1}`);
      const block = state.mined[position];
      return block ? minedCard(title, block, state.genesis) : card(title, ...standing(state, position));
    });
    this.root.replaceChildren(...cards);
  }
}

/** How a block stands whose contents aren't known: the name of its style, and words. */
function standing(state: ChainState, position: number): [string, string] {
  if (position < state.done) return ["done", "Mined; its hash comes with the chain"];
  if (!state.running) return ["waiting", "Not mined"];
  return position === state.done ? ["searching", "Searching"] : ["waiting", "Waits for the block before it"];
}

function minedCard(title: HTMLElement, block: Block, genesis: string): HTMLElement {
  const previous =
    block.index === 1
      ? [element("dt", {}, "Genesis"), element("dd", {}, genesis)]
      : [element("dt", {}, "Follows"), element("dd", {}, element("code", {}, `${block.previous_hash.slice(0, 12)}…`))];
  return element(
    "li",
    { class: "block mined" },
    title,
    element("p", {}, hashWithZeroBits(block.hash)),
    element("p", { class: "bits" }, plural(leadingZeroBits(block.hash), "leading zero bit")),
    element("dl", {}, element("dt", {}, "Nonce"), element("dd", {}, whole(block.nonce)), ...previous),
  );
}

function card(title: HTMLElement, kind: string, text: string): HTMLElement {
  return element("li", { class: `block ${kind}` }, title, element("p", {}, text));
}
