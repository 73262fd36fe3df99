/*
 * SHA-256 (FIPS 180-4): its constants, and the compression in plain C.
 *
 * The planner compresses with it what is the same for a whole scan, and checks single nonces; the
 * kernels take the constants from here.
 */
#ifndef POW_SHA256_H
#define POW_SHA256_H

#include <stdint.h>

#define BLOCK_BYTES 64
#define BLOCK_WORDS 16
#define ROUNDS 64

extern const uint32_t sha256_initial_state[8];
extern const uint32_t sha256_round_constants[ROUNDS];

/* state: a to h, updated; words: the block's, as big-endian numbers. */
void sha256_compress(uint32_t state[8], const uint32_t words[BLOCK_WORDS]);

/* The message schedule of a block: what the rounds add, constants included. */
void sha256_schedule(uint32_t schedule[ROUNDS], const uint32_t words[BLOCK_WORDS]);

#endif
