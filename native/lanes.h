/*
 * SHA-256 on lanes: the parts of a kernel that hashes one nonce per lane of a vector. A template: a kernel
 * for an instruction set defines its vectors, then includes this.
 *
 * Before, it defines
 *   NAME(x)            x with the backend's suffix
 *   TARGET             the attribute that turns the instruction set on for a function
 *   LANES, lanes       how many 32-bit lanes, and the type that holds them; it may be several registers
 *   LOAD(p), STORE(p, x)                   LANES words, aligned to 64 bytes
 *   BROADCAST(word)                        the same word in each lane
 *   ROUND_CONSTANT(t)                      that of round t in each lane
 *   ADD(x, y), XOR(x, y), XOR3(x, y, z), SHR(x, n), ROTR(x, n)
 *   CHOOSE(x, y, z)                        FIPS 180-4, 4.1.2
 *   MAJORITY(x, y, z, x_xor_y, y_xor_z)    likewise; it may use the two differences or not
 *
 * From step to step of a batch one word of the message changes, sometimes two. So the rounds before it, and
 * the parts of the message schedule that don't depend on it, are computed once per batch. Which parts these
 * are is known when this is compiled: a kernel has a function for each place where the low digits may end,
 * and in it a constant `varying`: bit t is set when schedule word t varies, which it does when word t - 16,
 * t - 15, t - 7 or t - 2 does (FIPS 180-4, 6.2.2).
 */
#include "batch.h"

/* The last schedule word that may be constant, or have a constant term, in any of these functions. */
#define LAST_PARTIAL 36

#define SIGMA0(x) XOR3(ROTR(x, 2), ROTR(x, 13), ROTR(x, 22))
#define SIGMA1(x) XOR3(ROTR(x, 6), ROTR(x, 11), ROTR(x, 25))
#define SCHEDULE0(x) XOR3(ROTR(x, 7), ROTR(x, 18), SHR(x, 3))
#define SCHEDULE1(x) XOR3(ROTR(x, 17), ROTR(x, 19), SHR(x, 10))

/* What stays the same for all steps of a batch. */
typedef struct {
    lanes chaining[8];               /* before the varying block */
    lanes words[LAST_PARTIAL + 1];   /* the schedule words that don't vary, and the varying one at '0' */
    lanes addend[LAST_PARTIAL + 1];  /* of rounds whose words don't vary: word and round constant */
    lanes partial[LAST_PARTIAL + 1]; /* of schedule words that vary: the sum of their constant terms */
    lanes last_constant;             /* of the last round */
} NAME(setup);

/* One round, with all that message and constants add in `addend`. Instead of moving the variables along,
   the names do: in round t, a is v[-t mod 8], b the next one, and so on. */
#define V(t, i) v[((i) + ROUNDS - (t)) % 8]
#define ROUND(t, addend)                                                                               \
    do {                                                                                               \
        lanes t1 = ADD(ADD(ADD(V(t, 7), addend), CHOOSE(V(t, 4), V(t, 5), V(t, 6))), SIGMA1(V(t, 4))); \
        lanes a_xor_b = XOR(V(t, 0), V(t, 1));                                                         \
        lanes t2 = ADD(MAJORITY(V(t, 0), V(t, 1), V(t, 2), a_xor_b, b_xor_c), SIGMA0(V(t, 0)));        \
        (void)b_xor_c, b_xor_c = a_xor_b;                                                              \
        V(t, 3) = ADD(V(t, 3), t1);                                                                    \
        V(t, 7) = ADD(t1, t2);                                                                         \
    } while (0)

#define EIGHT(DO, t) \
    DO((t) + 0) DO((t) + 1) DO((t) + 2) DO((t) + 3) DO((t) + 4) DO((t) + 5) DO((t) + 6) DO((t) + 7)
#define SIXTEEN(DO, t) EIGHT(DO, t) EIGHT(DO, (t) + 8)

/* Compress a block whose schedule, constants added, lies in memory. */
TARGET static void NAME(compress)(lanes state[8], const lanes schedule[ROUNDS]) {
    lanes v[8], b_xor_c;

    for (int i = 0; i < 8; i++) v[i] = state[i];
    b_xor_c = XOR(v[1], v[2]);
    for (int t = 0; t < ROUNDS; t += 8) {
#define ONE(i) ROUND(i, schedule[t + (i)]);
        EIGHT(ONE, 0)
#undef ONE
    }
    for (int i = 0; i < 8; i++) state[i] = ADD(state[i], v[i]);
}

/* Compress the block before the varying one, which holds high digits. */
TARGET static void NAME(compress_before)(lanes state[8], const pow_batch *batch) {
    lanes w[ROUNDS];

    for (int t = 0; t < BLOCK_WORDS; t++) w[t] = LOAD(batch->before[t]);
    for (int t = BLOCK_WORDS; t < ROUNDS; t++) {
        w[t] = ADD(ADD(w[t - 16], SCHEDULE0(w[t - 15])), ADD(w[t - 7], SCHEDULE1(w[t - 2])));
    }
    for (int t = 0; t < ROUNDS; t++) w[t] = ADD(w[t], ROUND_CONSTANT(t));
    NAME(compress)(state, w);
}

TARGET static void NAME(set_up)(NAME(setup) * s, const pow_batch *batch) {
    for (int i = 0; i < 8; i++) s->chaining[i] = BROADCAST(batch->midstate[i]);
    if (batch->before_varies) NAME(compress_before)(s->chaining, batch);
    for (int t = 0; t < BLOCK_WORDS; t++) s->words[t] = LOAD(batch->words[t]);
    /* Of the last block's digest only the first word counts: what is to be added to it goes in here. */
    s->last_constant = ROUND_CONSTANT(ROUNDS - 1);
    if (!batch->after) s->last_constant = ADD(s->last_constant, s->chaining[0]);
}

#define VARIES(t) ((int)(varying >> (t) & 1))

/* Of schedule word t, the terms that don't vary: all of it, or what EXTEND starts from. */
#define SUM_UP(t)                                                                        \
    if (!(VARIES((t) - 16) && VARIES((t) - 15) && VARIES((t) - 7) && VARIES((t) - 2))) { \
        lanes sum = VARIES((t) - 16) ? BROADCAST(0) : s->words[(t) - 16];                \
        if (!VARIES((t) - 15)) sum = ADD(sum, SCHEDULE0(s->words[(t) - 15]));            \
        if (!VARIES((t) - 7)) sum = ADD(sum, s->words[(t) - 7]);                         \
        if (!VARIES((t) - 2)) sum = ADD(sum, SCHEDULE1(s->words[(t) - 2]));              \
        if (VARIES(t))                                                                   \
            s->partial[t] = sum;                                                         \
        else                                                                             \
            s->words[t] = sum, s->addend[t] = ADD(sum, ROUND_CONSTANT(t));               \
    }
#define SUM_UP_ALL SIXTEEN(SUM_UP, 16) SUM_UP(32) SUM_UP(33) SUM_UP(34) SUM_UP(35) SUM_UP(36)

/* Schedule word t, if it varies; w has the sixteen before it. */
#define EXTEND(t)                                                                                     \
    if (VARIES(t)) {                                                                                  \
        const int whole = VARIES((t) - 16) && VARIES((t) - 15) && VARIES((t) - 7) && VARIES((t) - 2); \
        lanes sum = whole ? w[(t) % 16] : s->partial[(t) <= LAST_PARTIAL ? (t) : 0];                  \
        if (!whole && VARIES((t) - 16)) sum = ADD(sum, w[(t) % 16]);                                  \
        if (VARIES((t) - 15)) sum = ADD(sum, SCHEDULE0(w[((t) + 1) % 16]));                           \
        if (VARIES((t) - 7)) sum = ADD(sum, w[((t) + 9) % 16]);                                       \
        if (VARIES((t) - 2)) sum = ADD(sum, SCHEDULE1(w[((t) + 14) % 16]));                           \
        w[(t) % 16] = sum;                                                                            \
    }
