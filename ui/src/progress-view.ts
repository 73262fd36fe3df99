// How far a workflow is. A search has no memory, so there is no bar: what was done, how fast, and the odds.

import { element, setText } from "./elements";
import { large, rate } from "./format";
import type { Progress } from "./results";

type Fact = "blocks" | "hashes" | "rate" | "odds";

const TITLES: Record<Fact, string> = {
  blocks: "Blocks mined",
  hashes: "Hashes tried",
  rate: "Rate",
  odds: "Odds of being done, from now",
};

export class ProgressView {
  readonly root = element("dl", { class: "facts" });
  private readonly values: Record<Fact, HTMLElement>;

  constructor() {
    const fact = (name: Fact): HTMLElement => {
      const value = element("dd");
      this.root.append(element("div", {}, element("dt", {}, TITLES[name]), value));
      return value;
    };
    this.values = { blocks: fact("blocks"), hashes: fact("hashes"), rate: fact("rate"), odds: fact("odds") };
  }

  /** @param liveRate hashes a second just now, where it is known; else the workflow's average. */
  show(progress: Progress, liveRate?: number): void {
    const perSecond = liveRate ?? progress.hashes_per_second;
    setText(this.values.blocks, `${progress.blocks_done} of ${progress.blocks_total}`);
    setText(this.values.hashes, large(progress.hashes_tried));
    setText(this.values.rate, perSecond === undefined ? "not measured yet" : rate(perSecond));
    setText(this.values.odds, progress.odds ?? "not known yet");
  }
}
