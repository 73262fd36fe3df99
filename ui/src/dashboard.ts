// The dashboard at / of the self-hosted server: everything it does, live, and a form to start more.

import { copyable } from "./copy";
import { byId, setText } from "./elements";
import { duration, large, plural, rate, sentence } from "./format";
import { type MiningArguments, MiningView } from "./mining-view";
import { RateChart } from "./rate-chart";
import { RateMeter } from "./rate-meter";
import type { MiningResult, Server, Snapshot, Workflow } from "./results";
import { cancelMining, miningResult, startMining, verifyChain } from "./server-calls";
import "./style.css";
import { WorkflowList } from "./workflow-list";

const poolMeter = new RateMeter();
const chart = new RateChart();
const view = new MiningView({ cancel: cancelMining, verify: verifyChain }, 2);
const list = new WorkflowList(byId("workflows"), select);
const form = byId<HTMLFormElement>("start");
const fields = {
  difficulty: byId<HTMLInputElement>("difficulty"),
  blocks: byId<HTMLInputElement>("blocks"),
  genesis: byId<HTMLInputElement>("genesis"),
};

let snapshot: Snapshot | undefined;
let selected: string | undefined;
/** The rate of the selected workflow. */
let meter = new RateMeter();
/** The workflow whose result is shown or was asked for. */
let shown: string | undefined;

function take(next: Snapshot): void {
  const first = snapshot === undefined;
  snapshot = next;
  setText(byId("connection"), next.error ?? "");
  byId("connection").hidden = !next.error;
  poolMeter.record(next.time, next.server.hashes);
  chart.show(poolMeter.history);
  showServer(next.server);
  if (first) fillIn(next.server);
  showEstimate();
  showWorkflows(next);
}

function showServer(server: Server): void {
  const facts = [server.version, server.backend, plural(server.threads, "thread"), server.engine];
  setText(byId("server"), facts.join(" · "));
}

function showWorkflows({ workflows, time }: Snapshot): void {
  selected ??= workflows[0]?.workflow_id;
  list.show(workflows, selected);
  const running = workflows.filter((workflow) => workflow.status === "running").length;
  const summary = `${running} running, ${workflows.length - running} ended; the newest first`;
  setText(byId("summary"), workflows.length ? summary : "None yet: start one here, or let an agent call start_mining.");
  const workflow = workflows.find(({ workflow_id }) => workflow_id === selected);
  if (workflow) showSelected(workflow, time);
}

function select(workflowId: string): void {
  if (selected !== workflowId) {
    selected = workflowId;
    meter = new RateMeter();
    shown = undefined;
  }
  if (snapshot) showWorkflows(snapshot);
}

/** Shows the workflow: while it runs from the snapshot, and once it has ended from its result. */
function showSelected(workflow: Workflow, time: number): void {
  const { workflow_id, progress } = workflow;
  if (workflow.status === "running") {
    if (progress) meter.record(time, progress.hashes_tried);
    const result: MiningResult = { workflow_id, status: "running", ...(progress ? { progress } : {}) };
    view.showResult(result, argumentsOf(workflow), meter.latest || undefined);
  } else if (shown !== workflow_id) {
    void showEnded(workflow);
  }
}

async function showEnded(workflow: Workflow): Promise<void> {
  shown = workflow.workflow_id;
  try {
    const result = await miningResult(workflow.workflow_id);
    if (selected === workflow.workflow_id) view.showResult(result, argumentsOf(workflow));
  } catch (error) {
    if (selected !== workflow.workflow_id) return;
    shown = undefined; // the next snapshot tries again
    view.showTrouble(`The server did not answer: ${sentence(error)}`);
  }
}

function argumentsOf({ difficulty, blocks, genesis }: Workflow): MiningArguments {
  return {
    ...(difficulty === undefined ? {} : { difficulty }),
    ...(blocks === undefined ? {} : { blocks }),
    ...(genesis === undefined ? {} : { genesis }),
  };
}

function fillIn({ defaults, limits, mcp_path }: Server): void {
  fields.difficulty.value ||= String(defaults.difficulty);
  fields.blocks.value ||= String(defaults.blocks);
  fields.genesis.value ||= defaults.genesis;
  fields.difficulty.max = String(limits.difficulty);
  fields.blocks.max = String(limits.blocks);
  const url = `${location.origin}${mcp_path}`;
  const settings = { servers: { "pow-mcp": { type: "http", url } } };
  byId("snippets").replaceChildren(
    copyable("VS Code", JSON.stringify(settings, null, 2)),
    copyable("Claude Code", `claude mcp add --transport http pow-mcp ${url}`),
  );
}

function showEstimate(): void {
  setText(byId("estimate"), snapshot ? estimate(snapshot.server) : "");
}

function estimate({ hashes_per_second, limits }: Server): string {
  const [difficulty, blocks] = [Number(fields.difficulty.value), Number(fields.blocks.value)];
  const allowed = difficulty >= 1 && difficulty <= limits.difficulty && blocks >= 1 && blocks <= limits.blocks;
  if (!allowed || !hashes_per_second) return "";
  const hashes = blocks * 2 ** difficulty;
  const average = duration(hashes / hashes_per_second);
  return `${large(hashes)} hashes on average: ${average} with all of ${rate(hashes_per_second)}`;
}

async function start(): Promise<void> {
  const fault = byId("fault");
  try {
    const started = await startMining(fields.difficulty.value, fields.blocks.value, fields.genesis.value);
    fault.hidden = true;
    select(started.workflow_id);
  } catch (error) {
    // First into the page, then its words: that is what an alert is told for.
    fault.hidden = false;
    fault.textContent = sentence(error);
  }
}

function listen(): void {
  const events = new EventSource("/dashboard/events");
  events.onmessage = ({ data }) => take(JSON.parse(String(data)) as Snapshot);
  events.onerror = () => {
    byId("connection").hidden = false;
    setText(byId("connection"), "The server does not answer. Trying again …");
    // The browser tries again by itself, except after an answer that was no stream.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

byId("chart").append(chart.root);
byId("selected").append(view.root);
chart.show([]);
form.addEventListener("input", showEstimate);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void start();
});
listen();
