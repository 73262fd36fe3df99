/*
 * The ARMv8 kernel: all by the SHA-2 instructions of aarch64, one nonce at a time, four side by side
 * (streams), since the instructions of one nonce wait for each other. For nearly all 64-bit Arm processors.
 *
 * Input, result and thread safety: batch.h. The instructions work on four schedule words (a quad) and four
 * rounds at a time; a state is held as abcd and efgh, with a and e in the lowest words.
 *
 * As in lanes.h, what doesn't depend on the low digits is computed once per batch. A quad that holds none of
 * the digits is the same for all nonces.
 */
#include "batch.h"

#if defined(__aarch64__) && defined(__GNUC__)
#if defined(__clang__) && !defined(__ARM_FEATURE_SHA2)
/* Clang's arm_neon.h hid these intrinsics from functions that turn them on for themselves until version 16.
 */
#define __ARM_FEATURE_SHA2 1
#define __ARM_FEATURE_CRYPTO 1
#endif
#include <arm_neon.h>

#if defined(__clang__)
#define TARGET __attribute__((target("sha2")))
#else
#define TARGET __attribute__((target("+crypto")))
#endif

#define LANES 4
#define QUADS (ROUNDS / 4)

#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define SCHEDULE0(x) (ROTR(x, 7) ^ ROTR(x, 18) ^ (x) >> 3) /* FIPS 180-4, 4.1.2 */

/* What differs from lane to lane, and stays the same for all steps of a batch. */
typedef struct {
    uint32x4_t chaining_abcd, chaining_efgh; /* before the varying block */
    uint32x4_t abcd, efgh;                   /* before the first round of each step */
    uint32x4_t message[4];                   /* with the low digits at '0' */
    uint32x4_t extended;         /* schedule words 16 to 19, less the terms that depend on word 3; */
    uint32x4_t extended_varying; /* and these terms, with word 3 at '0': only places 2 and 3 have any */
    uint32x4_t last_constants;   /* of the last four rounds */
} lane_setup;

/* What is the same in all lanes. The quads of the message from the last digit's on hold padding only. */
typedef struct {
    uint32x4_t constants[QUADS];
    uint32x4_t with_constants[4]; /* quads of the message with the round constants added */
    uint32x4_t
        half_extended[7];     /* of schedule quads 5 and 6, HALF_EXTEND of the message's quads 1, 2 and 3 */
    uint32x4_t takes_low[4];  /* all bits set where the last digit's word is */
    uint32x4_t takes_high[4]; /* and where the word before it is */
} common_setup;

/* Schedule quad t is EXTEND(HALF_EXTEND(quad t - 4, quad t - 3), quad t - 2, quad t - 1). */
#define HALF_EXTEND(q4, q3) vsha256su0q_u32(q4, q3)
#define EXTEND(half, q2, q1) vsha256su1q_u32(half, q2, q1)

TARGET POW_INLINE uint32x4_t quad_armv8(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3) {
    const uint32_t words[4] = {w0, w1, w2, w3};
    return vld1q_u32(words);
}

TARGET POW_INLINE void four_rounds_armv8(uint32x4_t *abcd, uint32x4_t *efgh, uint32x4_t with_constants) {
    const uint32x4_t before = *abcd;
    *abcd = vsha256hq_u32(before, *efgh, with_constants);
    *efgh = vsha256h2q_u32(*efgh, before, with_constants);
}

/* Compress a block whose schedule, constants added, is known. */
TARGET static void compress_armv8(uint32x4_t *abcd, uint32x4_t *efgh, const uint32_t schedule[ROUNDS]) {
    uint32x4_t x = *abcd, y = *efgh;

    for (unsigned t = 0; t < ROUNDS; t += 4) four_rounds_armv8(&x, &y, vld1q_u32(schedule + t));
    *abcd = vaddq_u32(*abcd, x);
    *efgh = vaddq_u32(*efgh, y);
}

/* Four words of one lane. */
TARGET static uint32x4_t gather_armv8(const uint32_t words[][POW_MAX_LANES], unsigned lane) {
    return quad_armv8(words[0][lane], words[1][lane], words[2][lane], words[3][lane]);
}

TARGET static void set_up_lane_armv8(lane_setup *s, const pow_batch *batch, unsigned lane,
                                     unsigned start_round, int single) {
    const uint32_t word_3 = batch->words[3][lane];

    s->chaining_abcd = vld1q_u32(batch->midstate);
    s->chaining_efgh = vld1q_u32(batch->midstate + 4);
    if (batch->before_varies) {
        uint32_t words[BLOCK_WORDS], schedule[ROUNDS];
        for (unsigned t = 0; t < BLOCK_WORDS; t++) words[t] = batch->before[t][lane];
        sha256_schedule(schedule, words);
        compress_armv8(&s->chaining_abcd, &s->chaining_efgh, schedule);
    }
    for (unsigned q = 0; q < 4; q++) s->message[q] = gather_armv8(batch->words + 4 * q, lane);
    s->abcd = s->chaining_abcd;
    s->efgh = s->chaining_efgh;
    for (unsigned q = 0; 4 * q < start_round; q++) {
        four_rounds_armv8(&s->abcd, &s->efgh,
                          vaddq_u32(s->message[q], vld1q_u32(sha256_round_constants + 4 * q)));
    }
    if (single) {
        const uint32x4_t without_word_3 = vsetq_lane_u32(0, s->message[0], 3);
        s->extended = EXTEND(HALF_EXTEND(without_word_3, s->message[1]), s->message[2], s->message[3]);
        s->extended_varying = quad_armv8(0, 0, SCHEDULE0(word_3), word_3);
    }
    s->last_constants = vld1q_u32(sha256_round_constants + ROUNDS - 4);
    if (!batch->after) {
        /* Of the digest only the first word counts: the chaining value's goes in here. */
        const uint32_t a = vgetq_lane_u32(s->chaining_abcd, 0);
        s->last_constants = vaddq_u32(s->last_constants, quad_armv8(0, 0, 0, a));
    }
}

TARGET static void set_up_armv8(common_setup *s, const pow_batch *batch) {
    uint32x4_t message[4];

    for (unsigned q = 0; q < QUADS; q++) s->constants[q] = vld1q_u32(sha256_round_constants + 4 * q);
    for (unsigned q = 0; q < 4; q++) {
        const uint32x4_t places = quad_armv8(4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3);
        message[q] = gather_armv8(batch->words + 4 * q, 0);
        s->with_constants[q] = vaddq_u32(message[q], s->constants[q]);
        s->takes_low[q] = vceqq_u32(places, vdupq_n_u32(batch->word));
        s->takes_high[q] = vceqq_u32(places, vdupq_n_u32(batch->word - 1));
    }
    s->half_extended[5] = HALF_EXTEND(message[1], message[2]);
    s->half_extended[6] = HALF_EXTEND(message[2], message[3]);
}

/* Does a quad of the message hold low digits, or may it? (Known when this is compiled.) */
#define MAY_VARY(q) (first_word <= 4 * (q) + 3 && 4 * (q) <= last_word)

/* Quad q of the message in stream i. */
#define MESSAGE_QUAD(q, i)                                                        \
    m[i][q] = lane[i].message[q];                                                 \
    if (MAY_VARY(q)) {                                                            \
        m[i][q] = vaddq_u32(m[i][q], vandq_u32(low_word, common.takes_low[q]));   \
        m[i][q] = vaddq_u32(m[i][q], vandq_u32(high_word, common.takes_high[q])); \
    }

/* The rounds of quad q of the message in stream i. */
#define MESSAGE_ROUNDS(q, i)                                                                                 \
    if (4 * (q) >= start_round) {                                                                            \
        four_rounds_armv8(&x[i], &y[i],                                                                      \
                          MAY_VARY(q) ? vaddq_u32(m[i][q], common.constants[q]) : common.with_constants[q]); \
    }

/* Quad q of the schedule in stream i, in the place of quad q - 4, and its rounds. */
#define SCHEDULE_ROUNDS(q, i)                                                                            \
    if ((q) == 4 && single) {                                                                            \
        m[i][0] = vaddq_u32(lane[i].extended, veorq_u32(lane[i].extended_varying, terms_of_low));        \
    } else {                                                                                             \
        const int is_common = ((q) == 5 || (q) == 6) && !MAY_VARY((q) - 4) && !MAY_VARY((q) - 3);        \
        const uint32x4_t half =                                                                          \
            is_common ? common.half_extended[(q) % 7] : HALF_EXTEND(m[i][(q) % 4], m[i][((q) + 1) % 4]); \
        m[i][(q) % 4] = EXTEND(half, m[i][((q) + 2) % 4], m[i][((q) + 3) % 4]);                          \
    }                                                                                                    \
    four_rounds_armv8(                                                                                   \
        &x[i], &y[i],                                                                                    \
        vaddq_u32(m[i][(q) % 4], (q) == QUADS - 1 ? lane[i].last_constants : common.constants[q]));

/* In all four streams, their instructions side by side. */
#define EACH_STREAM(DO, q) DO(q, 0) DO(q, 1) DO(q, 2) DO(q, 3)
/* clang-format off */
#define QUADS_0_TO_3(DO) EACH_STREAM(DO, 0) EACH_STREAM(DO, 1) EACH_STREAM(DO, 2) EACH_STREAM(DO, 3)
#define QUADS_4_TO_15(DO)                                                            \
    EACH_STREAM(DO, 4) EACH_STREAM(DO, 5) EACH_STREAM(DO, 6) EACH_STREAM(DO, 7)      \
    EACH_STREAM(DO, 8) EACH_STREAM(DO, 9) EACH_STREAM(DO, 10) EACH_STREAM(DO, 11)    \
    EACH_STREAM(DO, 12) EACH_STREAM(DO, 13) EACH_STREAM(DO, 14) EACH_STREAM(DO, 15)
/* clang-format on */

/* All steps of a batch whose varying words are among those from `first` to `last`. Where that is word 3
   alone, its round is done, too, and so is all of the next schedule quad but the terms that depend on it. */
#define RUN_PLACE(first, last, start)                                                                      \
    TARGET static void run_words_##first##_to_##last##_armv8(pow_batch *batch) {                           \
        enum {                                                                                             \
            first_word = first,                                                                            \
            last_word = last,                                                                              \
            single = first_word == last_word,                                                              \
            start_round = start                                                                            \
        };                                                                                                 \
        const uint32x4_t mask = vdupq_n_u32(batch->mask);                                                  \
        lane_setup lane[LANES];                                                                            \
        common_setup common;                                                                               \
                                                                                                           \
        set_up_armv8(&common, batch);                                                                      \
        for (unsigned i = 0; i < LANES; i++) set_up_lane_armv8(&lane[i], batch, i, start_round, single);   \
        for (uint32_t step = 0; step < batch->steps; step++) {                                             \
            const uint64_t both = (uint64_t)pow_low_digits[step] << batch->shift;                          \
            const uint32_t low = (uint32_t)both;                                                           \
            const uint32x4_t low_word = vdupq_n_u32(low), high_word = vdupq_n_u32((uint32_t)(both >> 32)); \
            const uint32x4_t low_in_a_or_e = vsetq_lane_u32(low, vdupq_n_u32(0), 0);                       \
            const uint32x4_t terms_of_low = quad_armv8(0, 0, SCHEDULE0(low), low);                         \
            uint32x4_t x[LANES], y[LANES], m[LANES][4];                                                    \
            uint32_t first_words[LANES];                                                                   \
                                                                                                           \
            for (int i = 0; i < LANES; i++) {                                                              \
                x[i] = lane[i].abcd, y[i] = lane[i].efgh;                                                  \
                /* A round adds its word to both a and e: so the low digits can be added afterwards. */    \
                if (single) x[i] = vaddq_u32(x[i], low_in_a_or_e), y[i] = vaddq_u32(y[i], low_in_a_or_e);  \
            }                                                                                              \
            QUADS_0_TO_3(MESSAGE_QUAD);                                                                    \
            QUADS_0_TO_3(MESSAGE_ROUNDS);                                                                  \
            QUADS_4_TO_15(SCHEDULE_ROUNDS);                                                                \
            for (int i = 0; i < LANES; i++) {                                                              \
                if (batch->after) {                                                                        \
                    x[i] = vaddq_u32(x[i], lane[i].chaining_abcd);                                         \
                    y[i] = vaddq_u32(y[i], lane[i].chaining_efgh);                                         \
                    compress_armv8(&x[i], &y[i], batch->after);                                            \
                }                                                                                          \
                vst1q_lane_u32(first_words + i, x[i], 0);                                                  \
            }                                                                                              \
            if (vmaxvq_u32(vceqzq_u32(vandq_u32(vld1q_u32(first_words), mask)))) {                         \
                if (pow_batch_candidates(batch, step, first_words)) return;                                \
            }                                                                                              \
        }                                                                                                  \
    }

/* The places of the varying words, and the round that a step begins with: a multiple of four, and not behind
   the first of them. The tightest places first: the fewer words may vary, the less there is to do. */
#define EACH_PLACE(DO) \
    DO(3, 3, 4)        \
    DO(0, 3, 0)        \
    DO(4, 7, 4)        \
    DO(0, 7, 0)        \
    DO(8, 15, 8)       \
    DO(4, 15, 4)

EACH_PLACE(RUN_PLACE)

#define RUN_IF_HERE(first, last, start)                                    \
    if ((int)batch->first_word >= (first) && (int)batch->word <= (last)) { \
        run_words_##first##_to_##last##_armv8(batch);                      \
        return;                                                            \
    }

TARGET void pow_run_armv8(pow_batch *batch) { EACH_PLACE(RUN_IF_HERE) }
#endif
