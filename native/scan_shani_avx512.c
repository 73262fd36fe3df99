/*
 * The hybrid kernel: the message schedule on lanes, eight nonces to an AVX-512VL register of 256 bits, and
 * the rounds by the SHA extensions, one nonce at a time. For Zen 4 and later; on Intel's processors the two
 * can't take turns (mixes_sse_and_avx_freely in dispatch.c).
 *
 * The two halves of the work need different parts of the processor, and so run side by side: while the rounds
 * of one step go through, the schedule of the next one is computed. It lies in memory between them, each
 * pair of words with the round constants added, as the rounds take it (`pairs`). The rounds of one nonce wait
 * for each other, so those of four nonces, the streams, take turns: first the four of slots 0 to 3, then
 * those of slots 4 to 7. 256 bits, not 512: the wider instructions would take the rounds' place.
 *
 * Input, result and thread safety: batch.h.
 */
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#define NAME(x) x##_shani_avx512
#if defined(__GNUC__)
#define TARGET __attribute__((target("sse4.1,avx512f,avx512vl,sha")))
#else
#define TARGET
#endif

#define LANES 8
typedef __m256i lanes;
#define LOAD(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define BROADCAST(word) _mm256_set1_epi32((int)(word))
#define ROUND_CONSTANT(t) BROADCAST(sha256_round_constants[t])
#define ADD(x, y) _mm256_add_epi32(x, y)
#define XOR(x, y) _mm256_xor_si256(x, y)
#define XOR3(x, y, z) _mm256_ternarylogic_epi32(x, y, z, 0x96)
#define SHR(x, n) _mm256_srli_epi32(x, n)
#define ROTR(x, n) _mm256_ror_epi32(x, n)
#define CHOOSE(x, y, z) _mm256_ternarylogic_epi32(x, y, z, 0xca)
#define MAJORITY(x, y, z, x_xor_y, y_xor_z) _mm256_ternarylogic_epi32(x, y, z, 0xe8)

#include "lanes.h"

/* Where the unpack instructions put the lanes of a pair of registers. */
static const unsigned lane_in_slot[LANES] = {0, 1, 4, 5, 2, 3, 6, 7};

/* The state of each slot's nonce, in the order of the SHA instructions (the highest word is a, or c). */
typedef struct {
    __m128i abef[LANES], cdgh[LANES];
} streams;

/* What a step's rounds take: pairs[p][slot] is for rounds 2p (low half) and 2p + 1. */
typedef POW_ALIGNED uint64_t pairs[ROUNDS / 2][LANES];

/* Rearrange a to h from lanes to streams. */
TARGET static void to_streams_shani_avx512(streams *out, const lanes v[8]) {
    for (int half = 0; half < 2; half++) {
        __m128i *to = half ? out->cdgh : out->abef;
        const lanes *high = half ? v + 2 : v; /* a and b, or c and d */
        const lanes *low = high + 4;          /* e and f, or g and h */
        /* Lanes 0 1 | 4 5 of f and e, b and a; then their lanes 2 3 | 6 7. */
        lanes fe01 = _mm256_unpacklo_epi32(low[1], low[0]), ba01 = _mm256_unpacklo_epi32(high[1], high[0]);
        lanes fe23 = _mm256_unpackhi_epi32(low[1], low[0]), ba23 = _mm256_unpackhi_epi32(high[1], high[0]);
        lanes lane04 = _mm256_unpacklo_epi64(fe01, ba01), lane15 = _mm256_unpackhi_epi64(fe01, ba01);
        lanes lane26 = _mm256_unpacklo_epi64(fe23, ba23), lane37 = _mm256_unpackhi_epi64(fe23, ba23);

        to[0] = _mm256_castsi256_si128(lane04), to[2] = _mm256_extracti128_si256(lane04, 1);
        to[1] = _mm256_castsi256_si128(lane15), to[3] = _mm256_extracti128_si256(lane15, 1);
        to[4] = _mm256_castsi256_si128(lane26), to[6] = _mm256_extracti128_si256(lane26, 1);
        to[5] = _mm256_castsi256_si128(lane37), to[7] = _mm256_extracti128_si256(lane37, 1);
    }
}

TARGET POW_INLINE void store_pair_shani_avx512(uint64_t to[LANES], lanes first, lanes second) {
    _mm256_store_si256((__m256i *)(void *)to, _mm256_unpacklo_epi32(first, second));
    _mm256_store_si256((__m256i *)(void *)(to + 4), _mm256_unpackhi_epi32(first, second));
}

/* Of four streams, whose rounds came to x and y, the a after the padding block behind the varying one. */
TARGET POW_NOINLINE static void compress_after_shani_avx512(__m128i x[4], const __m128i y[4],
                                                            const streams *chaining, unsigned slot,
                                                            const pow_batch *batch) {
    for (unsigned i = 0; i < 4; i++) {
        const __m128i abef = _mm_add_epi32(x[i], chaining->abef[slot + i]);
        __m128i s0 = abef, s1 = _mm_add_epi32(y[i], chaining->cdgh[slot + i]);

        for (unsigned t = 0; t < ROUNDS; t += 4) {
            __m128i four = _mm_loadu_si128((const __m128i *)(const void *)&batch->after[t]);
            s1 = _mm_sha256rnds2_epu32(s1, s0, four);
            s0 = _mm_sha256rnds2_epu32(s0, s1, _mm_unpackhi_epi64(four, four));
        }
        x[i] = _mm_add_epi32(abef, s0);
    }
}

/* Two rounds of stream i. From pair to pair x and y swap their parts: x is abef before an even one. */
#define TWO_ROUNDS(p, i)                                                                             \
    do {                                                                                             \
        const __m128i pair = _mm_loadl_epi64((const __m128i *)(const void *)&(*now)[p][slot + (i)]); \
        if ((p) % 2)                                                                                 \
            x[i] = _mm_sha256rnds2_epu32(x[i], y[i], pair);                                          \
        else                                                                                         \
            y[i] = _mm_sha256rnds2_epu32(y[i], x[i], pair);                                          \
    } while (0)
#define FOUR(p)                   \
    if (2 * (p) >= start_round) { \
        TWO_ROUNDS(p, 0);         \
        TWO_ROUNDS(p, 1);         \
        TWO_ROUNDS(p, 2);         \
        TWO_ROUNDS(p, 3);         \
    }

/* Schedule words 2p and 2p + 1 into the next step's pairs. Where neither varies, they are there already. */
#define WITH_CONSTANT(t)                                            \
    (!VARIES(t)          ? s->addend[(t) <= LAST_PARTIAL ? (t) : 0] \
     : (t) == ROUNDS - 1 ? ADD(w[(t) % 16], s->last_constant)       \
                         : ADD(w[(t) % 16], ROUND_CONSTANT(t)))
#define STORE_PAIR(p)                                                                            \
    if (VARIES(2 * (p)) || VARIES(2 * (p) + 1)) {                                                \
        store_pair_shani_avx512((*next)[p], WITH_CONSTANT(2 * (p)), WITH_CONSTANT(2 * (p) + 1)); \
    }
#define PAIR(p) EXTEND(2 * (p)) EXTEND(2 * (p) + 1) STORE_PAIR(p)

/* All rounds of four streams, and twelve pairs of the next step's schedule, from pair q on, in between. */
/* clang-format off */
#define ROUNDS_BESIDE_SCHEDULE(q)                     \
    FOUR(0) FOUR(1) FOUR(2) FOUR(3) PAIR((q) + 0)     \
    FOUR(4) FOUR(5) PAIR((q) + 1)                     \
    FOUR(6) FOUR(7) FOUR(8) PAIR((q) + 2)             \
    FOUR(9) FOUR(10) PAIR((q) + 3)                    \
    FOUR(11) FOUR(12) FOUR(13) PAIR((q) + 4)          \
    FOUR(14) FOUR(15) PAIR((q) + 5)                   \
    FOUR(16) FOUR(17) FOUR(18) PAIR((q) + 6)          \
    FOUR(19) FOUR(20) PAIR((q) + 7)                   \
    FOUR(21) FOUR(22) FOUR(23) PAIR((q) + 8)          \
    FOUR(24) FOUR(25) PAIR((q) + 9)                   \
    FOUR(26) FOUR(27) PAIR((q) + 10)                  \
    FOUR(28) FOUR(29) PAIR((q) + 11)                  \
    FOUR(30) FOUR(31)
/* clang-format on */

/* Begin the schedule of a step: the words of the message that vary, into w and the next step's pairs. */
#define BEGIN_SCHEDULE(step)                                                                    \
    do {                                                                                        \
        low = (uint64_t)pow_low_digits[step] << batch->shift;                                   \
        s->words[batch->word] = ADD(LOAD(batch->words[batch->word]), BROADCAST((uint32_t)low)); \
        if (batch->first_word < batch->word) {                                                  \
            s->words[batch->first_word] =                                                       \
                ADD(LOAD(batch->words[batch->first_word]), BROADCAST((uint32_t)(low >> 32)));   \
        }                                                                                       \
        for (int t = first_place; t <= last_place; t++) w[t] = s->words[t];                     \
        EIGHT(STORE_PAIR, 0)                                                                    \
    } while (0)

/* Four streams through the rounds of a step; what they have in the highest word (a) goes to `to`. */
#define HALF_STEP(slot_, q, to)                                                                  \
    do {                                                                                         \
        enum { slot = slot_, swapped = start_round / 2 % 2 };                                    \
        __m128i x[4], y[4];                                                                      \
        for (int i = 0; i < 4; i++) {                                                            \
            x[i] = swapped ? from.cdgh[slot + i] : from.abef[slot + i];                          \
            y[i] = swapped ? from.abef[slot + i] : from.cdgh[slot + i];                          \
            if (single) x[i] = _mm_add_epi32(x[i], low_in_a_and_e);                              \
        }                                                                                        \
        ROUNDS_BESIDE_SCHEDULE(q)                                                                \
        if (batch->after) compress_after_shani_avx512(x, y, &chaining, slot, batch);             \
        to = _mm_unpackhi_epi64(_mm_unpackhi_epi32(x[0], x[1]), _mm_unpackhi_epi32(x[2], x[3])); \
    } while (0)

#define ROUND_OF_SETUP(t)                               \
    s->addend[t] = ADD(s->words[t], ROUND_CONSTANT(t)); \
    if ((t) < start_round) ROUND(t, s->addend[t]);
#define STORE_PAIR_OF_SETUP(p)                                                           \
    if (!VARIES(2 * (p)) && !VARIES(2 * (p) + 1)) {                                      \
        store_pair_shani_avx512((*next)[p], s->addend[2 * (p)], s->addend[2 * (p) + 1]); \
    }

/* All steps of a batch whose varying words are among those from `first` to `last`. */
#define RUN_PLACE(first, last, varying_)                                                                \
    TARGET static void run_words_##first##_to_##last##_shani_avx512(pow_batch *batch) {                 \
        const uint64_t varying = varying_;                                                              \
        enum { first_place = first, last_place = last, single = first_place == last_place };            \
        enum { start_round = first_place + single };                                                    \
        const __m128i mask = _mm_set1_epi32((int)batch->mask);                                          \
        NAME(setup) setup, *s = &setup;                                                                 \
        pairs buffers[2], *now, *next;                                                                  \
        streams from, chaining;                                                                         \
        lanes w[16];                                                                                    \
        uint64_t low;                                                                                   \
                                                                                                        \
        NAME(set_up)(s, batch);                                                                         \
        if (batch->after) to_streams_shani_avx512(&chaining, s->chaining);                              \
        SUM_UP_ALL;                                                                                     \
        {                                                                                               \
            lanes v[8], state[8], b_xor_c;                                                              \
            for (int i = 0; i < 8; i++) v[i] = s->chaining[i];                                          \
            b_xor_c = XOR(v[1], v[2]);                                                                  \
            SIXTEEN(ROUND_OF_SETUP, 0)                                                                  \
            for (int i = 0; i < 8; i++) state[i] = V(start_round, i);                                   \
            to_streams_shani_avx512(&from, state);                                                      \
        }                                                                                               \
        for (int i = 0; i < 2; i++) {                                                                   \
            next = &buffers[1 - i];                                                                     \
            EIGHT(STORE_PAIR_OF_SETUP, 0);                                                              \
            STORE_PAIR_OF_SETUP(8);                                                                     \
        }                                                                                               \
        BEGIN_SCHEDULE(0);                                                                              \
        EIGHT(PAIR, 8);                                                                                 \
        EIGHT(PAIR, 16);                                                                                \
        EIGHT(PAIR, 24);                                                                                \
        for (uint32_t step = 0; step < batch->steps; step++) {                                          \
            const __m128i low_in_a_and_e = _mm_set_epi32((int)(uint32_t)low, 0, (int)(uint32_t)low, 0); \
            __m128i first_half, second_half;                                                            \
                                                                                                        \
            now = &buffers[step % 2], next = &buffers[(step + 1) % 2];                                  \
            BEGIN_SCHEDULE(step + 1 < batch->steps ? step + 1 : step);                                  \
            HALF_STEP(0, 8, first_half);                                                                \
            HALF_STEP(4, 20, second_half);                                                              \
            if (_mm_testn_epi32_mask(first_half, mask) | _mm_testn_epi32_mask(second_half, mask)) {     \
                POW_ALIGNED uint32_t by_slot[LANES], first_words[LANES];                                \
                _mm_store_si128((__m128i *)(void *)by_slot, first_half);                                \
                _mm_store_si128((__m128i *)(void *)(by_slot + 4), second_half);                         \
                for (unsigned i = 0; i < LANES; i++) first_words[lane_in_slot[i]] = by_slot[i];         \
                if (pow_batch_candidates(batch, step, first_words)) return;                             \
            }                                                                                           \
        }                                                                                               \
    }

/* The tightest first: the fewer words may vary, the less there is to do at each step. A place must begin
   with an even word (or be a single odd one), since the SHA instructions do two rounds at a time. */
#define EACH_PLACE(DO)           \
    DO(3, 3, 0xfffffffffffc0008) \
    DO(2, 3, 0xfffffffffffe000c) \
    DO(4, 5, 0xfffffffffff80030) \
    DO(2, 5, 0xfffffffffffe003c) \
    DO(0, 2, 0xffffffffffff0007) \
    DO(4, 15, 0xfffffffffffffff0)

EACH_PLACE(RUN_PLACE)

#define RUN_IF_HERE(first, last, varying)                                  \
    if ((int)batch->first_word >= (first) && (int)batch->word <= (last)) { \
        run_words_##first##_to_##last##_shani_avx512(batch);               \
        return;                                                            \
    }

TARGET void pow_run_shani_avx512(pow_batch *batch) { EACH_PLACE(RUN_IF_HERE) }
#endif
