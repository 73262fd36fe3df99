// One workflow: its status, progress, chain, and what can be done with it. Both pages show it.

import { Announcer } from "./announcer";
import { ChainView } from "./chain-view";
import { element, setText } from "./elements";
import { large, plural, sentence } from "./format";
import { ProgressView } from "./progress-view";
import { rebuiltBlocks } from "./rebuilt-chain";
import type { Block, Chain, ChainVerdict, MiningResult, Progress } from "./results";

export interface MiningActions {
  /** Ends the workflow; its state thereafter. */
  cancel(workflowId: string): Promise<MiningResult>;
  /** Has the server check the chain. */
  verify(chain: Chain): Promise<ChainVerdict>;
}

/** What the workflow was started with, where that is known. */
export interface MiningArguments {
  difficulty?: number;
  blocks?: number;
  genesis?: string;
}

export class MiningView {
  readonly root = element("section", { class: "mining", "aria-labelledby": "mining-title" });
  private readonly title: HTMLElement;
  private readonly badge = element("span", { class: "badge" });
  private readonly subtitle = element("p", { class: "subtitle" });
  private readonly message = element("p", { class: "message", hidden: "" });
  private readonly progress = new ProgressView();
  private readonly chainView: ChainView;
  private readonly announcer = new Announcer();
  private readonly cancelButton = element("button", { type: "button", class: "danger" }, "Cancel mining");
  private readonly verifyButton = element("button", { type: "button" }, "Verify chain");
  private readonly verdict = element("p", { class: "verdict", role: "status" });
  private result: MiningResult | undefined;
  private lastProgress: Progress | undefined;
  private asked: MiningArguments = {};
  /** The blocks that are known of a workflow whose chain isn't there yet. */
  private rebuilt: Block[] = [];

  /** @param level of its heading: 1 where it is all that the page shows. */
  constructor(
    private readonly actions: MiningActions,
    level: 1 | 2,
  ) {
    this.chainView = new ChainView(level === 1 ? "h2" : "h3");
    this.title = element(`h${level}`, { id: "mining-title", tabindex: "-1" }, "Mining");
    this.cancelButton.addEventListener("click", () => void this.cancel());
    this.verifyButton.addEventListener("click", () => void this.verify());
    this.root.append(
      element("header", { class: "mining-header" }, this.title, this.badge),
      this.subtitle,
      this.message,
      this.progress.root,
      element("div", { class: "actions" }, this.cancelButton, this.verifyButton, this.verdict),
      this.chainView.root,
      this.announcer.root,
    );
    this.showWaiting("No workflow yet", "When one is started, its blocks appear here.");
  }

  /** There is no workflow to show. */
  showWaiting(title: string, message: string): void {
    this.result = this.lastProgress = undefined;
    this.show({ title, badge: "", message, problem: false });
    this.progress.root.hidden = this.chainView.root.hidden = true;
    this.cancelButton.hidden = this.verifyButton.hidden = true;
    this.announcer.say(title);
  }

  /** The call itself failed: there is no workflow. */
  showFault(message: string): void {
    this.showWaiting("Not started", message);
    this.badge.textContent = "failed";
    this.badge.dataset["status"] = "failed";
    this.message.classList.add("problem");
    this.announcer.say(`Not started. ${message}`);
  }

  /** @param liveRate hashes a second just now, where it is known. */
  showResult(result: MiningResult, asked: MiningArguments, liveRate?: number): void {
    if (result.workflow_id !== this.result?.workflow_id) {
      this.lastProgress = undefined;
      this.rebuilt = [];
      setText(this.verdict, "");
    }
    this.result = result;
    this.asked = asked;
    this.lastProgress = result.progress ?? this.lastProgress;
    const running = result.status === "running";
    const badge = result.reason === "terminated" ? "cancelled" : result.status.replace("_", " ");
    const changed = this.badge.textContent !== badge;
    this.show({
      title: TITLES[result.status](result),
      badge,
      message: result.error ?? "",
      problem: result.status === "failed" || result.status === "not_found",
    });
    setText(this.subtitle, subtitle(asked, result));
    const progress = progressOf(result, this.lastProgress);
    this.progress.root.hidden = !running;
    if (running && progress) this.progress.show(progress, liveRate);
    this.showChain(result, asked, progress);
    void this.rebuild(progress?.nonces ?? [], asked.genesis);
    this.showButtons(running, result.chain);
    if (changed) this.announcer.say(`${this.title.textContent}. ${result.error ?? ""}`);
  }

  /** Something that will pass: the workflow isn't touched by it. */
  showTrouble(message: string): void {
    setText(this.message, message);
    this.message.hidden = false;
    this.message.classList.add("problem");
  }

  private show(state: { title: string; badge: string; message: string; problem: boolean }): void {
    setText(this.title, state.title);
    setText(this.badge, state.badge);
    this.badge.dataset["status"] = state.badge;
    setText(this.subtitle, "");
    setText(this.message, state.message);
    this.message.hidden = !state.message;
    this.message.classList.toggle("problem", state.problem);
  }

  private showChain(result: MiningResult, asked: MiningArguments, progress: Progress | undefined): void {
    const mined = result.chain?.blocks ?? this.rebuilt;
    const done = Math.max(mined.length, progress?.blocks_done ?? 0);
    const total = progress?.blocks_total ?? asked.blocks ?? mined.length;
    this.chainView.root.hidden = result.status === "not_found" || !total;
    this.chainView.show({
      mined,
      done,
      total: Math.max(total, mined.length),
      genesis: result.chain?.genesis ?? asked.genesis ?? "",
      running: result.status === "running",
    });
  }

  private async rebuild(nonces: number[], genesis: string | undefined): Promise<void> {
    // Without a secure place there is no SHA-256, and without its text no first block: the chain comes at the end.
    if (nonces.length <= this.rebuilt.length || genesis === undefined || !globalThis.isSecureContext) return;
    const workflowId = this.result?.workflow_id;
    const blocks = await rebuiltBlocks(genesis, nonces, this.rebuilt);
    if (!this.result || this.result.workflow_id !== workflowId) return;
    this.rebuilt = blocks;
    this.showChain(this.result, this.asked, progressOf(this.result, this.lastProgress));
  }

  private showButtons(running: boolean, chain: Chain | undefined): void {
    const focused = document.activeElement;
    this.cancelButton.hidden = !running;
    this.verifyButton.hidden = running || !chain;
    // A focus on what has just gone would be lost, and the reader's place with it.
    if (focused === this.cancelButton && !running) this.title.focus();
  }

  private async cancel(): Promise<void> {
    const result = this.result;
    if (!result) return;
    await this.busy(this.cancelButton, "Cancelling …", async () => {
      this.showResult(await this.actions.cancel(result.workflow_id), this.asked);
      return "";
    });
  }

  private async verify(): Promise<void> {
    const chain = this.result?.chain;
    if (!chain) return;
    await this.busy(this.verifyButton, "Verifying …", async () => {
      const found = await this.actions.verify(chain);
      this.verdict.dataset["valid"] = String(found.valid);
      return found.result ?? found.message ?? (found.valid ? "The chain is valid." : "The chain is not valid.");
    });
  }

  /** Does what a button is for, once at a time, and says how it went. */
  private async busy(button: HTMLElement, doing: string, action: () => Promise<string>): Promise<void> {
    if (button.ariaDisabled === "true") return;
    // Not `disabled`, which would take the focus away.
    button.ariaDisabled = "true";
    delete this.verdict.dataset["valid"];
    setText(this.verdict, doing);
    try {
      setText(this.verdict, await action());
    } catch (error) {
      this.verdict.dataset["valid"] = "false";
      setText(this.verdict, `That did not work: ${sentence(error)}`);
    }
    button.ariaDisabled = null;
  }
}

const TITLES: Record<MiningResult["status"], (result: MiningResult) => string> = {
  completed: (result) => `Mined ${plural(result.chain?.blocks.length ?? 0, "block")}`,
  running: (result) =>
    result.progress
      ? `Mining block ${Math.min(result.progress.blocks_done + 1, result.progress.blocks_total)} of ${result.progress.blocks_total}`
      : "Mining",
  failed: (result) => (result.reason === "terminated" ? "Mining was cancelled" : "Mining failed"),
  not_found: () => "No such workflow",
};

function subtitle(asked: MiningArguments, result: MiningResult): string {
  const difficulty = result.chain?.difficulty ?? asked.difficulty;
  const genesis = result.chain?.genesis ?? asked.genesis;
  const parts = [
    difficulty === undefined ? "" : `difficulty ${difficulty}: about ${large(2 ** difficulty)} hashes a block`,
    genesis === undefined ? "" : `genesis ${genesis}`,
  ];
  return parts.filter(Boolean).join(" · ");
}

function progressOf(result: MiningResult, last: Progress | undefined): Progress | undefined {
  return result.status === "completed" ? undefined : (result.progress ?? last);
}
