// The MCP App: a host shows it beside start_mining and get_mining_result. It speaks to the host only,
// which passes its tool calls on to the server.

import { App, type McpUiHostContext } from "@modelcontextprotocol/ext-apps";
import { config } from "zod";

import { byId } from "./elements";
import { sentence } from "./format";
import { type MiningArguments, MiningView } from "./mining-view";
import { RateMeter } from "./rate-meter";
import { asMiningResult, type ChainVerdict, type MiningResult } from "./results";
import "./style.css";

// zod would otherwise try to compile its checks, which the policy of the page forbids.
config({ jitless: true });

// `poll_after_seconds` is for agents, whose every look costs a turn; people want to see it move.
const POLL_MILLISECONDS = 1000;
const LONGEST_POLL_MILLISECONDS = 30_000;

type CallResult = Awaited<ReturnType<App["callServerTool"]>>;

const app = new App({ name: "pow-mcp", title: "Proof-of-work mining", version: PAGE_VERSION }, {});
const view = new MiningView({
  cancel: async (workflowId) => {
    const result = miningResult(await call("cancel_mining", { workflow_id: workflowId }));
    take(result);
    return result;
  },
  verify: async (chain) => (await call("verify_chain", { chain })).structuredContent as unknown as ChainVerdict,
}, 1);
const meter = new RateMeter();
let asked: MiningArguments = {};
let latest: MiningResult | undefined;
let pause = POLL_MILLISECONDS;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Calls a tool of the server; throws its sentence where it answers with an error. */
async function call(name: string, args: Record<string, unknown>): Promise<CallResult> {
  const answer = await app.callServerTool({ name, arguments: args });
  if (answer.isError) throw new Error(textOf(answer));
  return answer;
}

function textOf(answer: CallResult): string {
  return answer.content.map((part) => (part.type === "text" ? part.text : "")).join("\n");
}

function miningResult(answer: CallResult): MiningResult {
  const result = asMiningResult(answer.structuredContent);
  if (!result) throw new Error("the tool's answer is no mining result");
  return result;
}

function take(result: MiningResult): void {
  // An answer that was under way when the workflow ended tells of the past.
  if (latest?.workflow_id === result.workflow_id && latest.status !== "running") return;
  latest = result;
  if (result.progress) meter.record(performance.now() / 1000, result.progress.hashes_tried);
  view.showResult(result, asked, meter.latest || undefined);
  schedule();
}

function schedule(): void {
  clearTimeout(timer);
  if (latest?.status === "running" && document.visibilityState === "visible") {
    timer = setTimeout(() => void poll(), pause);
  }
}

async function poll(): Promise<void> {
  if (latest?.status !== "running") return;
  try {
    const result = miningResult(await call("get_mining_result", { workflow_id: latest.workflow_id }));
    pause = POLL_MILLISECONDS;
    take(result);
  } catch (error) {
    // The work goes on without the page: it asks again, less and less often.
    pause = Math.min(pause * 2, LONGEST_POLL_MILLISECONDS);
    view.showTrouble(`The server did not answer: ${sentence(error)}`);
    schedule();
  }
}

/** What start_mining takes where it is given none, as the host knows the tool. */
function defaultGenesis(): MiningArguments {
  const tool = app.getHostContext()?.toolInfo?.tool;
  const schema = tool?.inputSchema.properties?.["genesis"] as { default?: unknown } | undefined;
  return typeof schema?.default === "string" ? { genesis: schema.default } : {};
}

function applyContext(context: McpUiHostContext | undefined): void {
  if (context?.theme) document.documentElement.style.colorScheme = context.theme;
}

app.ontoolinput = ({ arguments: args }) => {
  const given = args ?? {};
  asked = {
    ...("difficulty" in given ? { difficulty: Number(given["difficulty"]) } : {}),
    ...("blocks" in given ? { blocks: Number(given["blocks"]) } : {}),
    ...("genesis" in given ? { genesis: String(given["genesis"]) } : defaultGenesis()),
  };
  if (!latest) view.showWaiting("Mining", "The server has the call; its first answer comes when it is done or takes long.");
};
app.ontoolresult = (answer) => {
  const result = asMiningResult(answer.structuredContent);
  if (result && !answer.isError) take(result);
  else view.showFault(textOf(answer));
};
app.ontoolcancelled = ({ reason }) => {
  if (!latest) view.showFault(reason ?? "The call was cancelled before the server had answered.");
};
app.onhostcontextchanged = applyContext;
app.onteardown = () => {
  clearTimeout(timer);
  return {};
};
document.addEventListener("visibilitychange", schedule);

byId("app").append(view.root);
await app.connect();
applyContext(app.getHostContext());
