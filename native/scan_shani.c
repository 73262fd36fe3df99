/*
 * The SHA-NI kernel: all by the SHA extensions of x86-64, one nonce at a time, two side by side (streams),
 * since the instructions of one nonce wait for each other. For Goldmont (2016), Zen (2017), Ice Lake and
 * later.
 *
 * Input, result and thread safety: batch.h. The instructions work on four schedule words (a quad) and two
 * rounds at a time; a state is held as abef and cdgh, with a and c in the highest words.
 *
 * As in lanes.h, what doesn't depend on the low digits is computed once per batch. A quad that holds none of
 * the digits is the same for all nonces.
 */
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "batch.h"

#if defined(__GNUC__)
#define TARGET __attribute__((target("sse4.1,sha")))
#else
#define TARGET
#endif

#define LANES 4 /* two after two */
#define QUADS (ROUNDS / 4)

#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define SCHEDULE0(x) (ROTR(x, 7) ^ ROTR(x, 18) ^ (x) >> 3) /* FIPS 180-4, 4.1.2 */

/* What differs from lane to lane, and stays the same for all steps of a batch. */
typedef struct {
    __m128i chaining_abef, chaining_cdgh; /* before the varying block */
    __m128i abef, cdgh;                   /* before the first round of each step */
    __m128i message[4];                   /* with the low digits at '0' */
    __m128i extended;                     /* schedule words 16 to 19, less the terms that depend on word 3; */
    __m128i extended_varying; /* and these terms, with word 3 at '0': only places 2 and 3 have any */
    __m128i last_constants;   /* of the last four rounds */
} lane_setup;

/* What is the same in all lanes. The quads of the message from the last digit's on hold padding only. */
typedef struct {
    __m128i constants[QUADS];
    __m128i with_constants[4]; /* quads of the message with the round constants added */
    __m128i half_extended[7];  /* of schedule quads 5 and 6, HALF_EXTEND of the message's quads 1, 2 and 3 */
    __m128i takes_low[4];      /* all bits set where the last digit's word is */
    __m128i takes_high[4];     /* and where the word before it is */
} common_setup;

TARGET POW_INLINE __m128i load_shani(const uint32_t *words) {
    return _mm_loadu_si128((const __m128i *)(const void *)words);
}

/* Schedule quad t is EXTEND(HALF_EXTEND(quad t - 4, quad t - 3), quad t - 2, quad t - 1). */
#define HALF_EXTEND(q4, q3) _mm_sha256msg1_epu32(q4, q3)
#define EXTEND(half, q2, q1) _mm_sha256msg2_epu32(_mm_add_epi32(half, _mm_alignr_epi8(q1, q2, 4)), q1)

TARGET POW_INLINE void four_rounds_shani(__m128i *abef, __m128i *cdgh, __m128i with_constants) {
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, with_constants);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_unpackhi_epi64(with_constants, with_constants));
}

/* Compress a block whose schedule, constants added, is known. */
TARGET static void compress_shani(__m128i *abef, __m128i *cdgh, const uint32_t schedule[ROUNDS]) {
    __m128i x = *abef, y = *cdgh;

    for (unsigned t = 0; t < ROUNDS; t += 4) four_rounds_shani(&x, &y, load_shani(schedule + t));
    *abef = _mm_add_epi32(*abef, x);
    *cdgh = _mm_add_epi32(*cdgh, y);
}

/* Four words of one lane. */
TARGET static __m128i gather_shani(const uint32_t words[][POW_MAX_LANES], unsigned lane) {
    return _mm_set_epi32((int)words[3][lane], (int)words[2][lane], (int)words[1][lane], (int)words[0][lane]);
}

TARGET static void set_up_lane_shani(lane_setup *s, const pow_batch *batch, unsigned lane,
                                     unsigned start_round) {
    const uint32_t *const h = batch->midstate;
    const __m128i without_word_3 = _mm_set_epi32(0, -1, -1, -1);

    s->chaining_abef = _mm_set_epi32((int)h[0], (int)h[1], (int)h[4], (int)h[5]);
    s->chaining_cdgh = _mm_set_epi32((int)h[2], (int)h[3], (int)h[6], (int)h[7]);
    if (batch->before_varies) {
        uint32_t words[BLOCK_WORDS], schedule[ROUNDS];
        for (unsigned t = 0; t < BLOCK_WORDS; t++) words[t] = batch->before[t][lane];
        sha256_schedule(schedule, words);
        compress_shani(&s->chaining_abef, &s->chaining_cdgh, schedule);
    }
    for (unsigned q = 0; q < 4; q++) s->message[q] = gather_shani(batch->words + 4 * q, lane);
    s->abef = s->chaining_abef;
    s->cdgh = s->chaining_cdgh;
    for (unsigned t = 0; t < start_round; t += 2) {
        const uint32_t *const k = sha256_round_constants + t;
        const __m128i two =
            _mm_set_epi32(0, 0, (int)(batch->words[t + 1][lane] + k[1]), (int)(batch->words[t][lane] + k[0]));
        const __m128i abef = s->abef;
        s->abef = _mm_sha256rnds2_epu32(s->cdgh, abef, two);
        s->cdgh = abef;
    }
    s->extended = EXTEND(HALF_EXTEND(_mm_and_si128(s->message[0], without_word_3), s->message[1]),
                         s->message[2], s->message[3]);
    s->extended_varying =
        _mm_set_epi32((int)batch->words[3][lane], (int)SCHEDULE0(batch->words[3][lane]), 0, 0);
    s->last_constants = load_shani(sha256_round_constants + ROUNDS - 4);
    if (!batch->after) {
        /* Of the digest only the first word counts: the chaining value's goes in here. */
        const __m128i a = _mm_and_si128(s->chaining_abef, _mm_set_epi32(-1, 0, 0, 0));
        s->last_constants = _mm_add_epi32(s->last_constants, a);
    }
}

TARGET static void set_up_shani(common_setup *s, const pow_batch *batch) {
    __m128i message[4];

    for (unsigned q = 0; q < QUADS; q++) s->constants[q] = load_shani(sha256_round_constants + 4 * q);
    for (unsigned q = 0; q < 4; q++) {
        const __m128i places =
            _mm_set_epi32((int)(4 * q + 3), (int)(4 * q + 2), (int)(4 * q + 1), (int)(4 * q));
        message[q] = gather_shani(batch->words + 4 * q, 0);
        s->with_constants[q] = _mm_add_epi32(message[q], s->constants[q]);
        s->takes_low[q] = _mm_cmpeq_epi32(places, _mm_set1_epi32((int)batch->word));
        s->takes_high[q] = _mm_cmpeq_epi32(places, _mm_set1_epi32((int)batch->word - 1));
    }
    s->half_extended[5] = HALF_EXTEND(message[1], message[2]);
    s->half_extended[6] = HALF_EXTEND(message[2], message[3]);
}

/* Does a quad of the message hold low digits, or may it? (Known when this is compiled.) */
#define MAY_VARY(q) (first_word <= 4 * (q) + 3 && 4 * (q) <= last_word)

/* Quad q of the message in stream i. */
#define MESSAGE_QUAD(q, i)                                                                \
    m[i][q] = lane[i].message[q];                                                         \
    if (MAY_VARY(q)) {                                                                    \
        m[i][q] = _mm_add_epi32(m[i][q], _mm_and_si128(low_word, common.takes_low[q]));   \
        m[i][q] = _mm_add_epi32(m[i][q], _mm_and_si128(high_word, common.takes_high[q])); \
    }

/* The rounds of quad q of the message in stream i. They may begin in the middle of it; x and y come there
   with their parts swapped. */
#define MESSAGE_ROUNDS(q, i)                                                                              \
    if (4 * (q) + 2 >= start_round) {                                                                     \
        const __m128i with_constants =                                                                    \
            MAY_VARY(q) ? _mm_add_epi32(m[i][q], common.constants[q]) : common.with_constants[q];         \
        if (4 * (q) >= start_round)                                                                       \
            four_rounds_shani(&x[i], &y[i], with_constants);                                              \
        else                                                                                              \
            x[i] = _mm_sha256rnds2_epu32(x[i], y[i], _mm_unpackhi_epi64(with_constants, with_constants)); \
    }

/* Quad q of the schedule in stream i, in the place of quad q - 4. */
#define EXTEND_QUAD(q, i)                                                                                 \
    if ((q) == 4 && single) {                                                                             \
        m[i][0] = _mm_add_epi32(lane[i].extended, _mm_xor_si128(lane[i].extended_varying, terms_of_low)); \
    } else if ((q) >= 4 && (q) < QUADS) {                                                                 \
        const int is_common = ((q) == 5 || (q) == 6) && !MAY_VARY((q) - 4) && !MAY_VARY((q) - 3);         \
        const __m128i half =                                                                              \
            is_common ? common.half_extended[(q) % 7] : HALF_EXTEND(m[i][(q) % 4], m[i][((q) + 1) % 4]);  \
        m[i][(q) % 4] = EXTEND(half, m[i][((q) + 2) % 4], m[i][((q) + 3) % 4]);                           \
    }

/* The rounds of quad q of the schedule in stream i. */
#define SCHEDULE_ROUNDS(q, i) \
    four_rounds_shani(        \
        &x[i], &y[i],         \
        _mm_add_epi32(m[i][(q) % 4], (q) == QUADS - 1 ? lane[i].last_constants : common.constants[q]));

/* A quad's rounds, and then the schedule three quads on, as far ahead as four registers of it reach: so the
   rounds, one waiting for the other as it is, never wait for the schedule, too. */
#define MESSAGE_ROUNDS_THEN_EXTEND(q, i) MESSAGE_ROUNDS(q, i) EXTEND_QUAD((q) + 3, i)
#define SCHEDULE_ROUNDS_THEN_EXTEND(q, i) SCHEDULE_ROUNDS(q, i) EXTEND_QUAD((q) + 3, i)

/* In both streams, their instructions side by side. */
#define BOTH(DO, q) DO(q, 0) DO(q, 1)
/* clang-format off */
#define QUADS_0_TO_3(DO) BOTH(DO, 0) BOTH(DO, 1) BOTH(DO, 2) BOTH(DO, 3)
#define QUADS_4_TO_15(DO)                                \
    BOTH(DO, 4) BOTH(DO, 5) BOTH(DO, 6) BOTH(DO, 7)      \
    BOTH(DO, 8) BOTH(DO, 9) BOTH(DO, 10) BOTH(DO, 11)    \
    BOTH(DO, 12) BOTH(DO, 13) BOTH(DO, 14) BOTH(DO, 15)
/* clang-format on */

/* All steps of a batch whose varying words are among those from `first` to `last`. Where that is word 3
   alone, its round is done, too, and so is all of the next schedule quad but the terms that depend on it. */
#define RUN_PLACE(first, last, start)                                                                       \
    TARGET static void run_words_##first##_to_##last##_shani(pow_batch *batch) {                            \
        enum {                                                                                              \
            first_word = first,                                                                             \
            last_word = last,                                                                               \
            single = first_word == last_word,                                                               \
            start_round = start                                                                             \
        };                                                                                                  \
        const __m128i mask = _mm_set1_epi32((int)batch->mask);                                              \
        lane_setup lanes[LANES];                                                                            \
        common_setup common;                                                                                \
                                                                                                            \
        set_up_shani(&common, batch);                                                                       \
        for (unsigned i = 0; i < LANES; i++) set_up_lane_shani(&lanes[i], batch, i, start_round);           \
        for (uint32_t step = 0; step < batch->steps; step++) {                                              \
            const uint64_t low = (uint64_t)pow_low_digits[step] << batch->shift;                            \
            const __m128i low_word = _mm_set1_epi32((int)(uint32_t)low);                                    \
            const __m128i high_word = _mm_set1_epi32((int)(uint32_t)(low >> 32));                           \
            const __m128i low_in_a_and_e = _mm_set_epi32((int)(uint32_t)low, 0, (int)(uint32_t)low, 0);     \
            const __m128i terms_of_low =                                                                    \
                _mm_set_epi32((int)(uint32_t)low, (int)SCHEDULE0((uint32_t)low), 0, 0);                     \
            __m128i first_words[LANES / 2];                                                                 \
                                                                                                            \
            for (unsigned half = 0; half < LANES / 2; half++) {                                             \
                const lane_setup *const lane = lanes + 2 * half;                                            \
                __m128i x[2], y[2], m[2][4];                                                                \
                for (int i = 0; i < 2; i++) {                                                               \
                    x[i] = start_round % 4 ? lane[i].cdgh : lane[i].abef;                                   \
                    y[i] = start_round % 4 ? lane[i].abef : lane[i].cdgh;                                   \
                    /* A round adds its word to both a and e: so the low digits can be added afterwards. */ \
                    if (single) x[i] = _mm_add_epi32(x[i], low_in_a_and_e);                                 \
                }                                                                                           \
                QUADS_0_TO_3(MESSAGE_QUAD);                                                                 \
                QUADS_0_TO_3(MESSAGE_ROUNDS_THEN_EXTEND);                                                   \
                QUADS_4_TO_15(SCHEDULE_ROUNDS_THEN_EXTEND);                                                 \
                if (batch->after) {                                                                         \
                    for (int i = 0; i < 2; i++) {                                                           \
                        x[i] = _mm_add_epi32(x[i], lane[i].chaining_abef);                                  \
                        y[i] = _mm_add_epi32(y[i], lane[i].chaining_cdgh);                                  \
                        compress_shani(&x[i], &y[i], batch->after);                                         \
                    }                                                                                       \
                }                                                                                           \
                /* Of either stream the highest word, a, into places 2 and 3. */                            \
                first_words[half] = _mm_unpackhi_epi32(x[0], x[1]);                                         \
            }                                                                                               \
            first_words[0] = _mm_unpackhi_epi64(first_words[0], first_words[1]);                            \
            if (_mm_movemask_epi8(                                                                          \
                    _mm_cmpeq_epi32(_mm_and_si128(first_words[0], mask), _mm_setzero_si128()))) {           \
                POW_ALIGNED uint32_t words[LANES];                                                          \
                _mm_store_si128((__m128i *)(void *)words, first_words[0]);                                  \
                if (pow_batch_candidates(batch, step, words)) return;                                       \
            }                                                                                               \
        }                                                                                                   \
    }

/* The places of the varying words, and the round that a step begins with: even, and not behind the first of
   them. The tightest places first: the fewer words may vary, the less there is to do at each step. */
#define EACH_PLACE(DO) \
    DO(3, 3, 4)        \
    DO(2, 3, 2)        \
    DO(0, 3, 0)        \
    DO(4, 7, 4)        \
    DO(2, 7, 2)        \
    DO(8, 15, 8)       \
    DO(4, 15, 4)

EACH_PLACE(RUN_PLACE)

#define RUN_IF_HERE(first, last, start)                                    \
    if ((int)batch->first_word >= (first) && (int)batch->word <= (last)) { \
        run_words_##first##_to_##last##_shani(batch);                      \
        return;                                                            \
    }

TARGET void pow_run_shani(pow_batch *batch) { EACH_PLACE(RUN_IF_HERE) }
#endif
