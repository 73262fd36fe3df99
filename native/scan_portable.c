/*
 * The portable kernel: plain C with the compiler's generic vectors, and the readable specification
 * that the kernels for particular instruction sets are held against.
 *
 * Inputs, result and thread safety: see pow_native.h. Range semantics: [first, last], both included.
 *
 * How it saves work:
 *  - The whole 64-byte blocks of the prefix are compressed once per call (the midstate).
 *  - Nonces with the same number of digits share one layout of the remaining bytes (the tail), and
 *    a hundred consecutive ones share all of it but the last two digits.
 *  - LANES consecutive nonces are hashed at once, one per vector lane, lane 0 the smallest.
 */
#include <string.h>

#include "pow_native.h"

#if defined(__GNUC__)
/* Four 32-bit lanes: what baseline x86-64 (SSE2) and aarch64 (NEON) hold in one register. */
#define LANES 4
typedef uint32_t lanes __attribute__((vector_size(16)));
#else
#define LANES 1
typedef uint32_t lanes;
#endif

typedef union {
    lanes all;
    uint32_t lane[LANES];
} lane_view;

/* The last VARYING digits change from step to step; everything before them once per group. */
#define VARYING 2
#define GROUP 100

#define BLOCK_BYTES 64
#define BLOCK_WORDS 16
/* 63 prefix bytes, 20 digits, the 0x80 mark and the 8-byte length need two blocks at the most. */
#define TAIL_BLOCKS 2

static const uint32_t initial_state[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* clang-format off */
static const uint32_t round_constant[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
/* clang-format on */

/* FIPS 180-4, section 4.1.2, on every lane at once. */
#define ROTR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define SIGMA0(x) (ROTR(x, 2) ^ ROTR(x, 13) ^ ROTR(x, 22))
#define SIGMA1(x) (ROTR(x, 6) ^ ROTR(x, 11) ^ ROTR(x, 25))
#define SCHEDULE0(x) (ROTR(x, 7) ^ ROTR(x, 18) ^ ((x) >> 3))
#define SCHEDULE1(x) (ROTR(x, 17) ^ ROTR(x, 19) ^ ((x) >> 10))
#define CHOOSE(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJORITY(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))

#define ROUND(a, b, c, d, e, f, g, h, t)                                                   \
    do {                                                                                   \
        lanes mixed = (h) + SIGMA1(e) + CHOOSE(e, f, g) + round_constant[t] + w[(t) % 16]; \
        (d) += mixed;                                                                      \
        (h) = mixed + SIGMA0(a) + MAJORITY(a, b, c);                                       \
    } while (0)

/* Eight rounds bring each variable back to its own name, so that none has to be moved. */
#define EIGHT_ROUNDS(t)                         \
    do {                                        \
        ROUND(a, b, c, d, e, f, g, h, (t) + 0); \
        ROUND(h, a, b, c, d, e, f, g, (t) + 1); \
        ROUND(g, h, a, b, c, d, e, f, (t) + 2); \
        ROUND(f, g, h, a, b, c, d, e, (t) + 3); \
        ROUND(e, f, g, h, a, b, c, d, (t) + 4); \
        ROUND(d, e, f, g, h, a, b, c, (t) + 5); \
        ROUND(c, d, e, f, g, h, a, b, (t) + 6); \
        ROUND(b, c, d, e, f, g, h, a, (t) + 7); \
    } while (0)

/* One compression per lane; w is used up as the rolling message schedule. */
static void compress(lanes state[8], lanes w[BLOCK_WORDS]) {
    lanes a = state[0], b = state[1], c = state[2], d = state[3];
    lanes e = state[4], f = state[5], g = state[6], h = state[7];

    EIGHT_ROUNDS(0);
    EIGHT_ROUNDS(8);
    for (int t = 16; t < 64; t += 16) {
        for (int i = 0; i < 16; i++) {
            w[i] += SCHEDULE1(w[(i + 14) % 16]) + w[(i + 9) % 16] + SCHEDULE0(w[(i + 1) % 16]);
        }
        EIGHT_ROUNDS(t);
        EIGHT_ROUNDS(t + 8);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

static lanes broadcast(uint32_t word) {
    lane_view view;
    for (int i = 0; i < LANES; i++) view.lane[i] = word;
    return view.all;
}

static void load_words(lanes *words, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++, bytes += 4) {
        words[i] = broadcast((uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
                             (uint32_t)bytes[3]);
    }
}

/* The bytes after the midstate, laid out for one count of digits. */
typedef struct {
    lanes midstate[8];
    uint8_t bytes[TAIL_BLOCKS * BLOCK_BYTES]; /* the varying digits are left 0 */
    size_t blocks;
    size_t digits_at; /* offset of the first digit in bytes */
    unsigned digits;
    /* What one of the last two digits adds to its word, by the nonce's place in its group. The
       entries past the group's end keep a vector load inside the table; their lanes are ignored. */
    size_t tens_word, ones_word;
    uint32_t tens[GROUP + LANES], ones[GROUP + LANES];
} tail;

static void fill_digit_table(uint32_t *table, size_t byte_at, unsigned divisor) {
    unsigned shift = 24 - 8 * (unsigned)(byte_at % 4);
    for (unsigned i = 0; i < GROUP + LANES; i++) {
        table[i] = (uint32_t)('0' + i / divisor % 10) << shift;
    }
}

/* Lay the tail out for nonces of `digits` digits, with the high digits of `group` in their place. */
static void lay_out(tail *t, const pow_search *search, unsigned digits, uint64_t group) {
    size_t whole = search->prefix_len / BLOCK_BYTES * BLOCK_BYTES;
    size_t rest = search->prefix_len - whole;
    size_t used = rest + digits;
    uint64_t bit_length = ((uint64_t)search->prefix_len + digits) * 8;

    memset(t->bytes, 0, sizeof t->bytes);
    if (rest) memcpy(t->bytes, search->prefix + whole, rest);
    t->digits_at = rest;
    t->digits = digits;
    group /= GROUP;
    for (size_t i = used; i-- > rest;) {
        if (i + VARYING >= used) continue;
        t->bytes[i] = (uint8_t)('0' + group % 10);
        group /= 10;
    }
    t->bytes[used] = 0x80;
    t->blocks = used + 1 + 8 > BLOCK_BYTES ? 2 : 1;
    for (size_t i = 0; i < 8; i++) {
        t->bytes[t->blocks * BLOCK_BYTES - 1 - i] = (uint8_t)(bit_length >> (8 * i));
    }

    t->ones_word = (used - 1) / 4;
    fill_digit_table(t->ones, used - 1, 1);
    if (digits >= VARYING) {
        t->tens_word = (used - 2) / 4;
        fill_digit_table(t->tens, used - 2, 10);
    } else {
        t->tens_word = t->ones_word;
        memset(t->tens, 0, sizeof t->tens);
    }
}

/* Count the high digits up by one, in place. The caller never carries out of the first digit:
   then the count of digits changes, and with it the layout. */
static void next_group(tail *t) {
    uint8_t *digit = t->bytes + t->digits_at + t->digits - VARYING - 1;
    while (*digit == '9') *digit-- = '0';
    ++*digit;
}

static lanes load_lanes(const uint32_t *table) {
    lanes words;
    memcpy(&words, table, sizeof words);
    return words;
}

static int meets_difficulty(const lanes state[8], int lane, unsigned difficulty) {
    for (int i = 0; i < 8; i++) {
        lane_view word = {state[i]};
        if (difficulty < 32) return difficulty == 0 || word.lane[lane] >> (32 - difficulty) == 0;
        if (word.lane[lane]) return 0;
        difficulty -= 32;
    }
    return 1;
}

/* Scan the places [low, high] of one group of up to GROUP nonces; the smallest place, or -1. */
static int scan_group(const tail *t, unsigned difficulty, int low, int high) {
    const uint32_t mask = difficulty >= 32 ? UINT32_MAX : ~(UINT32_MAX >> difficulty);
    const size_t first_block = t->tens_word / BLOCK_WORDS;
    lanes fixed[TAIL_BLOCKS * BLOCK_WORDS];
    lanes start[8];

    load_words(fixed, t->bytes, t->blocks * BLOCK_WORDS);
    memcpy(start, t->midstate, sizeof start);
    if (first_block == 1) {
        /* Both varying digits lie in the second block: the first is the same for the whole group. */
        lanes w[BLOCK_WORDS];
        memcpy(w, fixed, sizeof w);
        compress(start, w);
    }
    for (int place = low; place <= high; place += LANES) {
        lanes w[TAIL_BLOCKS * BLOCK_WORDS];
        lanes state[8];
        lane_view h0;

        memcpy(w, fixed, t->blocks * BLOCK_WORDS * sizeof *w);
        w[t->tens_word] |= load_lanes(t->tens + place);
        w[t->ones_word] |= load_lanes(t->ones + place);
        memcpy(state, start, sizeof state);
        for (size_t block = first_block; block < t->blocks; block++) {
            compress(state, w + block * BLOCK_WORDS);
        }
        h0.all = state[0];
        for (int lane = 0; lane < LANES && place + lane <= high; lane++) {
            if ((h0.lane[lane] & mask) == 0 && meets_difficulty(state, lane, difficulty)) {
                return place + lane;
            }
        }
    }
    return -1;
}

/* Scan [first, last], all of them nonces of `digits` digits. */
static pow_outcome scan_digits(const pow_search *search, tail *t, unsigned digits, uint64_t first,
                               uint64_t last, uint64_t *nonce) {
    uint64_t group = first - first % GROUP;

    lay_out(t, search, digits, group);
    for (;;) {
        int low = first > group ? (int)(first - group) : 0;
        int high = last - group < GROUP ? (int)(last - group) : GROUP - 1;
        int place;

        if (search->stop && *search->stop) return POW_STOPPED;
        place = scan_group(t, search->difficulty, low, high);
        if (place >= 0) {
            *nonce = group + (uint64_t)place;
            return POW_FOUND;
        }
        if (last - group < GROUP) return POW_NOT_FOUND;
        group += GROUP;
        next_group(t);
    }
}

pow_outcome pow_scan_portable(const pow_search *search, uint64_t *nonce) {
    uint64_t first = search->first;
    uint64_t power = 10; /* the smallest nonce with one digit more than `first`; 0 where none is */
    unsigned digits = 1;
    tail t;

    for (int i = 0; i < 8; i++) t.midstate[i] = broadcast(initial_state[i]);
    for (size_t at = 0; at + BLOCK_BYTES <= search->prefix_len; at += BLOCK_BYTES) {
        lanes w[BLOCK_WORDS];
        load_words(w, search->prefix + at, BLOCK_WORDS);
        compress(t.midstate, w);
    }

    while (power && first >= power) {
        power = digits == 19 ? 0 : power * 10;
        digits++;
    }
    for (;;) {
        uint64_t last = power && power - 1 < search->last ? power - 1 : search->last;
        pow_outcome outcome = scan_digits(search, &t, digits, first, last, nonce);

        if (outcome != POW_NOT_FOUND || last == search->last) return outcome;
        first = power;
        power = digits == 19 ? 0 : power * 10;
        digits++;
    }
}
