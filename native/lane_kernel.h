/*
 * The lane kernel: all of the work is done on lanes. A template like lanes.h, which it includes; beyond what
 * that needs, a kernel defines
 *   ANY_CLEAR(x, mask)                     does any lane have none of the mask's bits?
 */
#include "lanes.h"

/* The places of the varying word that share a function, by their first and last one, and what varies with
   them (see lanes.h). Words 2 to 5 have functions of their own: there end nonces of 8 to 12 digits behind
   block indices of 1 to 5 digits. tests/test_native_sources.py computes the bits again. */
#define EACH_PLACE(DO)           \
    DO(0, 1, 0xffffffffffff0003) \
    DO(2, 2, 0xfffffffffffe0004) \
    DO(3, 3, 0xfffffffffffc0008) \
    DO(4, 4, 0xfffffffffff80010) \
    DO(5, 5, 0xfffffffffff00020) \
    DO(6, 7, 0xffffffffffe000c0) \
    DO(8, 15, 0xffffffffffffff00)

/* The first digest word, when a padding block comes after the varying one, whose rounds came to v. */
TARGET static lanes NAME(compress_after)(const NAME(setup) * s, const lanes v[8], const pow_batch *batch) {
    lanes state[8], schedule[ROUNDS];

    for (int i = 0; i < 8; i++) state[i] = ADD(v[i], s->chaining[i]);
    for (int t = 0; t < ROUNDS; t++) schedule[t] = BROADCAST(batch->after[t]);
    NAME(compress)(state, schedule);
    return state[0];
}

/* The rounds up to the first one that may see the varying word; that one too, if no other place may be it. */
#define ROUND_OF_SETUP(t)                              \
    if ((t) < start_round)                             \
        ROUND(t, ADD(s->words[t], ROUND_CONSTANT(t))); \
    else                                               \
        s->addend[t] = ADD(s->words[t], ROUND_CONSTANT(t));
#define ROUND_OF_MESSAGE(t)                         \
    if ((t) >= start_round) {                       \
        if (VARIES(t))                              \
            ROUND(t, ADD(w[t], ROUND_CONSTANT(t))); \
        else                                        \
            ROUND(t, s->addend[t]);                 \
    }
#define ROUND_OF_SCHEDULE(t)                                \
    EXTEND(t)                                               \
    if (!VARIES(t))                                         \
        ROUND(t, s->addend[(t) <= LAST_PARTIAL ? (t) : 0]); \
    else if ((t) == ROUNDS - 1)                             \
        ROUND(t, ADD(w[(t) % 16], s->last_constant));       \
    else                                                    \
        ROUND(t, ADD(w[(t) % 16], ROUND_CONSTANT(t)));

/* All steps of a batch whose varying word is one of those from `first` to `last`. */
#define RUN_PLACE(first, last, varying_)                                                                \
    TARGET static void NAME(run_word_##first)(pow_batch * batch) {                                      \
        const uint64_t varying = varying_;                                                              \
        enum { single = (first) == (last), start_round = (first) + single };                            \
        NAME(setup) setup, *s = &setup;                                                                 \
        lanes start[8];                                                                                 \
                                                                                                        \
        NAME(set_up)(s, batch);                                                                         \
        SUM_UP_ALL;                                                                                     \
        {                                                                                               \
            lanes v[8], b_xor_c;                                                                        \
            for (int i = 0; i < 8; i++) v[i] = s->chaining[i];                                          \
            b_xor_c = XOR(v[1], v[2]);                                                                  \
            SIXTEEN(ROUND_OF_SETUP, 0)                                                                  \
            for (int i = 0; i < 8; i++) start[i] = v[i];                                                \
        }                                                                                               \
        for (uint32_t step = 0; step < batch->steps; step++) {                                          \
            const lanes low = BROADCAST(pow_low_digits[step] << batch->shift);                          \
            const lanes varying_word = ADD(LOAD(batch->words[batch->word]), low);                       \
            lanes v[8], w[16], b_xor_c;                                                                 \
                                                                                                        \
            for (int i = 0; i < 8; i++) v[i] = start[i];                                                \
            if (single) {                                                                               \
                /* A round adds its word to both a and e: so the low digits can be added afterwards. */ \
                w[first] = varying_word;                                                                \
                V(start_round, 0) = ADD(V(start_round, 0), low);                                        \
                V(start_round, 4) = ADD(V(start_round, 4), low);                                        \
            } else {                                                                                    \
                s->words[batch->word] = varying_word;                                                   \
                for (int t = first; t <= last; t++) w[t] = s->words[t];                                 \
            }                                                                                           \
            b_xor_c = XOR(V(start_round, 1), V(start_round, 2));                                        \
            SIXTEEN(ROUND_OF_MESSAGE, 0)                                                                \
            SIXTEEN(ROUND_OF_SCHEDULE, 16)                                                              \
            SIXTEEN(ROUND_OF_SCHEDULE, 32)                                                              \
            SIXTEEN(ROUND_OF_SCHEDULE, 48)                                                              \
            if (batch->after) v[0] = NAME(compress_after)(s, v, batch);                                 \
            if (ANY_CLEAR(v[0], BROADCAST(batch->mask))) {                                              \
                POW_ALIGNED uint32_t first_words[LANES];                                                \
                STORE(first_words, v[0]);                                                               \
                if (pow_batch_candidates(batch, step, first_words)) return;                             \
            }                                                                                           \
        }                                                                                               \
    }
EACH_PLACE(RUN_PLACE)

#define RUN_IF_HERE(first, last, varying) \
    if (batch->word <= (last)) {          \
        NAME(run_word_##first)(batch);    \
        return;                           \
    }

TARGET void NAME(pow_run)(pow_batch *batch) { EACH_PLACE(RUN_IF_HERE) }
