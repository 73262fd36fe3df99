// A running workflow tells of the nonces that it has found; the blocks follow from them.

import type { Block } from "./results";

/** The blocks that these nonces make, from the genesis text on; those of `known` aren't made again. */
export async function rebuiltBlocks(genesis: string, nonces: number[], known: Block[]): Promise<Block[]> {
  const blocks = known.slice(0, nonces.length);
  for (const nonce of nonces.slice(blocks.length)) {
    const index = blocks.length + 1;
    const previous_hash = blocks.at(-1)?.hash ?? genesis;
    const preimage = new TextEncoder().encode(`${index}:${previous_hash}:${nonce}`);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", preimage));
    const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("").toUpperCase();
    blocks.push({ index, previous_hash, nonce, hash, attempts: nonce + 1 });
  }
  return blocks;
}
