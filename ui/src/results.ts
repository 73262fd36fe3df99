// The documents that the server answers with: see pow/tools/mining.py, pow/mining/progress.py and pow/web/dashboard.py.

export interface Block {
  index: number;
  previous_hash: string;
  nonce: number;
  hash: string;
  attempts: number;
}

export interface Chain {
  genesis: string;
  difficulty: number;
  blocks: Block[];
}

export interface Progress {
  blocks_done: number;
  blocks_total: number;
  hashes_tried: number;
  hashes_per_second?: number;
  expected_seconds_left: number;
  odds?: string;
  /** Those of the blocks that are mined. */
  nonces?: number[];
}

export type Status = "completed" | "running" | "failed" | "not_found";

/** The state of a workflow. */
export interface MiningResult {
  status: Status;
  workflow_id: string;
  chain?: Chain;
  reason?: "error" | "terminated";
  error?: string;
  poll_after_seconds?: number;
  progress?: Progress;
}

/** What verify_chain says. */
export interface ChainVerdict {
  valid: boolean;
  result?: string;
  message?: string;
}

/** A workflow as the dashboard's list has it. */
export interface Workflow {
  workflow_id: string;
  status: "completed" | "running" | "failed" | "terminated";
  difficulty?: number;
  blocks?: number;
  genesis?: string;
  progress?: Progress;
  error?: string;
}

export interface Server {
  version: string;
  status: string;
  backend: string;
  threads: number;
  hashes_per_second: number;
  hashes: number;
  searches: number;
  engine: string;
  mcp_path: string;
  defaults: { difficulty: number; blocks: number; genesis: string };
  limits: { difficulty: number; blocks: number; genesis_bytes: number };
}

/** What the dashboard's server sends each second; `time` is its clock, in seconds from any moment. */
export interface Snapshot {
  time: number;
  server: Server;
  workflows: Workflow[];
  error?: string;
}

/** The result in a tool's structured content; undefined where that is none. */
export function asMiningResult(content: unknown): MiningResult | undefined {
  const fields = content as Partial<MiningResult> | null | undefined;
  const known = typeof fields?.status === "string" && typeof fields.workflow_id === "string";
  return known ? (fields as MiningResult) : undefined;
}
