// All workflows: each a button that shows it. Rows stay the same elements, so that the focus stays on them.

import { element, setText } from "./elements";
import { rate } from "./format";
import type { Workflow } from "./results";

class Row {
  readonly root: HTMLElement;
  readonly button = element("button", { type: "button", class: "row" });
  private readonly badge = element("span", { class: "badge" });
  private readonly job = element("span", { class: "job" });
  private readonly steps = element("span", { class: "steps" });
  private readonly detail = element("span", { class: "subtitle" });

  constructor(readonly workflowId: string) {
    this.button.append(this.badge, " ", this.job, " ", this.steps, " ", this.detail);
    this.root = element("li", {}, this.button);
  }

  show(workflow: Workflow, selected: boolean): void {
    const status = workflow.status === "terminated" ? "cancelled" : workflow.status;
    setText(this.badge, status);
    this.badge.dataset["status"] = status;
    setText(this.job, job(workflow));
    const progress = workflow.status === "running" ? workflow.progress : undefined;
    setText(this.steps, progress ? `${progress.blocks_done} of ${progress.blocks_total} blocks` : "");
    const perSecond = progress?.hashes_per_second;
    const facts = [perSecond === undefined ? "" : rate(perSecond), progress?.odds ?? "", workflow.error ?? ""];
    setText(this.detail, facts.filter(Boolean).join(" · ") || workflow.workflow_id);
    if (selected) this.button.setAttribute("aria-current", "true");
    else this.button.removeAttribute("aria-current");
  }
}

export class WorkflowList {
  private readonly rows = new Map<string, Row>();

  constructor(
    private readonly root: HTMLElement,
    private readonly onSelect: (workflowId: string) => void,
  ) {}

  show(workflows: Workflow[], selected: string | undefined): void {
    const known = new Set(workflows.map((workflow) => workflow.workflow_id));
    for (const [id, row] of this.rows) {
      if (known.has(id)) continue;
      row.root.remove();
      this.rows.delete(id);
    }
    workflows.forEach((workflow, position) => {
      const row = this.row(workflow.workflow_id);
      row.show(workflow, workflow.workflow_id === selected);
      // Moving an element takes its focus away, so only what isn't in its place is moved.
      if (this.root.children[position] !== row.root) this.root.insertBefore(row.root, this.root.children[position] ?? null);
    });
  }

  private row(workflowId: string): Row {
    const known = this.rows.get(workflowId);
    if (known) return known;
    const row = new Row(workflowId);
    row.button.addEventListener("click", () => this.onSelect(workflowId));
    this.rows.set(workflowId, row);
    return row;
  }
}

function job(workflow: Workflow): string {
  if (workflow.difficulty === undefined) return "unknown job";
  return `difficulty ${workflow.difficulty}, ${workflow.blocks} × ${workflow.genesis}`;
}
