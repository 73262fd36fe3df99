/*
 * Proof that a kernel works on this machine, before anyone relies on it: searches and counts whose answers
 * are known.
 *
 * They go the way of every search, through the planner, and nothing in them is of one backend alone.
 */
#include "pow_native.h"

/* One search and the nonce it must find, computed with an independent SHA-256. */
typedef struct {
    uint8_t filler; /* the prefix is this byte prefix_len times, unless text is given */
    uint8_t prefix_len;
    const char *text;
    uint64_t first, last;
    unsigned difficulty;
    uint64_t answer;
} known_answer;

/* Short and long prefixes, one and two tail blocks, ranges across a change in the count of digits,
   the carry out of 32 bits, and 20 digits. */
static const known_answer known_answers[] = {
    {0, 10, "1:GENESIS:", 0, 999, 8, 251},
    {0, 10, "1:GENESIS:", 252, 999, 8, 430},
    {0, 67, "2:00347DB6331B227553FF9DFCF8F9F6A3BEA235A4616CE01F103C42DE9F4ED074:", 0, 999, 8, 554},
    {'x', 0, 0, 0, 1999, 9, 286},
    {'x', 53, 0, 990, 2999, 9, 2276},
    {'x', 61, 0, 9999990, 10000999, 9, 10000272},
    {'y', 64, 0, 999999900, 1000000999, 9, 1000000066},
    {'z', 120, 0, 4294967200, 4294968999, 9, 4294967211},
    {'q', 191, 0, 9999999999999999900u, 10000000000000001999u, 9, 10000000000000000033u},
};

/* Nonces of 20 zero bits behind so many 'x', for which kernels take their longer batches: together their
   last digits lie in every place of a block that a kernel has code of its own for. */
static const struct {
    uint8_t prefix_len;
    uint64_t answer;
} hard_answers[] = {
    {0, 100888273},    {1, 108671659},  {3, 117154078},  {4, 122442386},    {5, 128567601},
    {9, 136030806},    {10, 142459013}, {14, 100581035}, {20, 107614632},   {27, 114440377},
    {33, 123160971},   {38, 129344048}, {44, 137216411}, {47, 142527640},   {50, 10000480567},
    {54, 10701405291}, {55, 114221212}, {57, 121578411}, {60, 12800545881}, {63, 136950114},
};
#define HARD_DIFFICULTY 20
#define HARD_NONCES 400

static int knows(const pow_backend *backend, const known_answer *known) {
    uint8_t prefix[256];
    uint64_t nonce = 0;
    pow_search search = {prefix, known->prefix_len, known->first, known->last, known->difficulty, 0};

    for (size_t at = 0; at < known->prefix_len; at++) {
        prefix[at] = known->text ? (uint8_t)known->text[at] : known->filler;
    }
    return pow_scan(backend, &search, &nonce) == POW_FOUND && nonce == known->answer;
}

/* How many digests of a range have 0, 1, … 12 leading zero bits: each lane's share counts, not only a hit's.
 */
#define COUNTED_BITS 13
static const struct {
    uint8_t prefix_len; /* so many 'x' */
    uint64_t first, last;
    uint16_t counts[COUNTED_BITS];
} known_counts[] = {
    {4, 123456789, 123460788, {2030, 970, 505, 252, 111, 63, 33, 20, 6, 7, 0, 2, 1}},
    {10, 987654321, 987656320, {963, 525, 259, 120, 63, 27, 17, 14, 2, 7, 2, 1, 0}},
};

static int counts_right(const pow_backend *backend, size_t which) {
    uint8_t prefix[16];
    uint64_t counts[POW_BIT_COUNTS] = {0};
    pow_search search = {
        prefix, known_counts[which].prefix_len, known_counts[which].first, known_counts[which].last, 0, 0};

    for (size_t at = 0; at < search.prefix_len; at++) prefix[at] = 'x';
    pow_count_zero_bits(backend, &search, counts);
    for (size_t bits = 0; bits < COUNTED_BITS; bits++) {
        if (counts[bits] != known_counts[which].counts[bits]) return 0;
    }
    return 1;
}

int pow_self_test(const pow_backend *backend) {
    for (size_t i = 0; i < sizeof known_counts / sizeof *known_counts; i++) {
        if (!counts_right(backend, i)) return 0;
    }
    for (size_t i = 0; i < sizeof known_answers / sizeof *known_answers; i++) {
        if (!knows(backend, &known_answers[i])) return 0;
    }
    for (size_t i = 0; i < sizeof hard_answers / sizeof *hard_answers; i++) {
        const uint64_t answer = hard_answers[i].answer;
        const known_answer known = {
            'x',   hard_answers[i].prefix_len, 0, answer - HARD_NONCES + 100, answer + 99, HARD_DIFFICULTY,
            answer};
        if (!knows(backend, &known)) return 0;
    }
    return 1;
}
