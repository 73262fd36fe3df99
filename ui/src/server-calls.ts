// What the dashboard asks of its server, beside the stream of snapshots.

import type { Chain, ChainVerdict, MiningResult } from "./results";

export const startMining = (difficulty: string, blocks: string, genesis: string): Promise<{ workflow_id: string }> =>
  post("/dashboard/start", { difficulty, blocks, genesis });

export const cancelMining = (workflowId: string): Promise<MiningResult> =>
  post("/dashboard/cancel", { workflow_id: workflowId });

export const verifyChain = (chain: Chain): Promise<ChainVerdict> => post("/dashboard/verify", { chain });

export const miningResult = async (workflowId: string): Promise<MiningResult> =>
  read(await fetch(`/dashboard/result/${encodeURIComponent(workflowId)}`));

async function post<T>(path: string, document: unknown): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  return read(await fetch(path, { method: "POST", headers, body: JSON.stringify(document) }));
}

/** The answer; throws its sentence where it is an error. */
async function read<T>(response: Response): Promise<T> {
  const text = await response.text();
  if (response.ok) return JSON.parse(text) as T;
  let error: string | undefined;
  try {
    error = (JSON.parse(text) as { error?: string }).error;
  } catch {
    // A proxy's answer, or the server's own refusal: plain text.
  }
  throw new Error(error ?? (text || `the server answered ${response.status}`));
}
