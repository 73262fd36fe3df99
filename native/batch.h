/*
 * What the planner (planner.c) hands to a kernel (scan_<backend>.c): a batch of nonces.
 *
 * A nonce is split into high digits and low digits, at most three of these. A batch has a number of
 * lanes, each with high digits of its own (consecutive numbers, the smallest in lane 0), and a number of
 * steps, each with low digits of its own, which all lanes share: lane l at step s is the nonce
 * (high + l) * steps + s. The low digits lie in one word of the message (two, for kernels that ask for it),
 * so that from step to step a single word changes, and by the same amount in every lane.
 *
 *       word 0         word 1         word 2         word 3         word 4
 *      F  5  C  :     d  d  d  d     d  d  d  d     s  s 80 00     ...
 *      prefix        |<----- high digits ----->|    low digits
 *
 * The block with the low digits is the varying block. A midstate stands for all before it, unless high
 * digits lie in the block before it: then that block differs from lane to lane, too. A block that
 * comes after it is padding, and the same for all nonces.
 */
#ifndef POW_BATCH_H
#define POW_BATCH_H

#include <stdint.h>

#include "sha256.h"

#define POW_MAX_LANES 32
/* What one register of baseline x86-64 (SSE2) and aarch64 (NEON) holds, where the compiler has vectors. */
#if defined(__GNUC__)
#define POW_PORTABLE_LANES 4
#else
#define POW_PORTABLE_LANES 1
#endif
#define POW_MAX_LOW_DIGITS 3

#if defined(_MSC_VER)
#define POW_ALIGNED __declspec(align(64))
#define POW_INLINE static __forceinline
#define POW_NOINLINE __declspec(noinline)
#else
#define POW_ALIGNED __attribute__((aligned(64)))
#define POW_INLINE static inline __attribute__((always_inline))
#define POW_NOINLINE __attribute__((noinline))
#endif

struct pow_plan;

typedef struct pow_batch {
    /* words[t][lane]: the varying block, with the low digits at '0'; before[t][lane]: the one before it,
       when before_varies. */
    POW_ALIGNED uint32_t words[BLOCK_WORDS][POW_MAX_LANES];
    POW_ALIGNED uint32_t before[BLOCK_WORDS][POW_MAX_LANES];
    int before_varies;
    uint32_t midstate[8];  /* before `before` when before_varies, else before the varying block */
    const uint32_t *after; /* NULL, or the schedule of the block after it (ROUNDS words, constants added) */
    unsigned word;         /* which of the varying block's words the last digit is in, 0 to 15 */
    unsigned first_word;   /* and the first low digit: the same one, or the one before it */
    unsigned shift;        /* bits from the right end of `word` to its last digit's */
    uint32_t steps;        /* 1, 10, 100 or 1000 */
    uint32_t mask;         /* a digest whose first word has none of these bits is a candidate */

    /* The planner's own. */
    struct pow_plan *plan;
    uint64_t high;  /* of lane 0 */
    unsigned lanes; /* how many of them are of interest; the others are hashed in vain */
} pow_batch;

/* The low digits of each step. Shifted left by `shift`, they are what to add to `word`, and, as the upper
   half of 64 bits, to the word before it. */
extern const uint32_t pow_low_digits[1000];

/* A kernel calls this at a step at which the first digest word of any lane has none of the mask's bits;
   first_words has one per lane of the kernel. Nonzero: the rest of the batch is of no interest. */
int pow_batch_candidates(pow_batch *batch, uint32_t step, const uint32_t *first_words);

void pow_run_portable(pow_batch *batch);
void pow_run_avx2(pow_batch *batch);
void pow_run_avx512(pow_batch *batch);
void pow_run_shani(pow_batch *batch);
void pow_run_shani_avx512(pow_batch *batch);
void pow_run_armv8(pow_batch *batch);

#endif
