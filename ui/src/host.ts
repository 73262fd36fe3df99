// A host of MCP Apps as small as can be, for tests: a real MCP client of the server, and the frame with the
// app as the specification wants it: sandboxed, with the policy that the resource asks for.

import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";
import { Client, StreamableHTTPClientTransport, type Tool } from "@modelcontextprotocol/client";

import { byId } from "./elements";
import "./host.css";

const APPS = "io.modelcontextprotocol/ui";
const APP_TYPE = "text/html;profile=mcp-app";

interface Csp {
  connectDomains?: string[];
  resourceDomains?: string[];
  frameDomains?: string[];
  baseUriDomains?: string[];
}

const sources = (domains: string[] | undefined): string => (domains?.length ? domains.join(" ") : "'none'");

/** The policy that a host gives to a resource: nothing is open but what it has asked for. */
function policy(csp: Csp): string {
  const resources = (csp.resourceDomains ?? []).join(" ");
  return [
    "default-src 'none'",
    `script-src 'unsafe-inline' ${resources}`,
    `style-src 'unsafe-inline' ${resources}`,
    `img-src data: ${resources}`,
    `connect-src ${sources(csp.connectDomains)}`,
    `frame-src ${sources(csp.frameDomains)}`,
    `base-uri ${sources(csp.baseUriDomains)}`,
  ].join("; ");
}

async function connect(): Promise<Client> {
  const capabilities = { extensions: { [APPS]: { mimeTypes: [APP_TYPE] } } };
  const client = new Client({ name: "test-host", version: "1.0.0" }, { capabilities });
  await client.connect(new StreamableHTTPClientTransport(new URL("/mcp", location.href)));
  return client;
}

async function appOf(client: Client, toolName: string): Promise<{ html: string; csp: Csp; tool: Tool }> {
  const { tools } = await client.listTools();
  const tool = tools.find(({ name }) => name === toolName);
  const uri = (tool?._meta?.["ui"] as { resourceUri?: string } | undefined)?.resourceUri;
  if (!tool || !uri) throw new Error(`${toolName} carries no page`);
  const resource = (await client.readResource({ uri })).contents[0];
  if (!resource || !("text" in resource) || resource.mimeType !== APP_TYPE) throw new Error(`${uri} is no app`);
  const ui = (resource._meta?.["ui"] ?? {}) as { csp?: Csp };
  return { html: resource.text, csp: ui.csp ?? {}, tool };
}

async function open(theme: "light" | "dark"): Promise<Host> {
  const client = await connect();
  const { html, csp, tool } = await appOf(client, "start_mining");
  const frame = document.createElement("iframe");
  frame.title = "Mining";
  frame.setAttribute("sandbox", "allow-scripts");
  frame.srcdoc = html.replace("<head>", `<head><meta http-equiv="Content-Security-Policy" content="${policy(csp)}">`);
  byId("host").replaceChildren(frame);
  const info = { name: "test-host", version: "1.0.0" };
  const bridge = new AppBridge(client, info, { serverTools: {} }, { hostContext: { theme, toolInfo: { tool } } });
  bridge.onsizechange = ({ height }) => {
    if (height !== undefined) frame.style.height = `${height + 2}px`;
  };
  const initialized = new Promise<void>((resolve) => (bridge.oninitialized = () => resolve()));
  await bridge.connect(new PostMessageTransport(frame.contentWindow!, frame.contentWindow!));
  await initialized;
  return new Host(client, bridge);
}

/** What tests call. */
class Host {
  constructor(
    private readonly client: Client,
    private readonly bridge: AppBridge,
  ) {}

  /** As an agent calls the tool: the app hears of the arguments at once, and of the result when it comes. */
  async callTool(name: string, args: Record<string, unknown>): Promise<void> {
    await this.bridge.sendToolInput({ arguments: args });
    const answer = await this.client.callTool({ name, arguments: args });
    await this.bridge.sendToolResult(answer as Parameters<AppBridge["sendToolResult"]>[0]);
  }

  setTheme(theme: "light" | "dark"): void {
    this.bridge.setHostContext({ theme });
  }
}

Object.assign(window, { openApp: async (theme: "light" | "dark") => Object.assign(window, { host: await open(theme) }) });
