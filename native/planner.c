/*
 * The planner: cuts a search into batches (batch.h), and judges the candidates that kernels find.
 *
 * Nonces with the same number of digits share a layout of the message. Within it, the planner counts
 * the high digits up from lane to lane and from batch to batch, in place; a kernel sees only words.
 */
#include <string.h>

#include "batch.h"
#include "pow_native.h"

/* 63 prefix bytes, 20 digits, the 0x80 mark and the 8-byte length need two blocks at the most. */
#define TAIL_BLOCKS 2
#define TAIL_WORDS (TAIL_BLOCKS * BLOCK_WORDS)
#define MARK_AND_LENGTH_BYTES 9

/* clang-format off */
#define TEN(x) (x), (x) + 1, (x) + 2, (x) + 3, (x) + 4, (x) + 5, (x) + 6, (x) + 7, (x) + 8, (x) + 9
#define HUNDRED(x) \
    TEN((x)), TEN((x) + 0x100), TEN((x) + 0x200), TEN((x) + 0x300), TEN((x) + 0x400), \
    TEN((x) + 0x500), TEN((x) + 0x600), TEN((x) + 0x700), TEN((x) + 0x800), TEN((x) + 0x900)
const uint32_t pow_low_digits[1000] = {
    HUNDRED(0x00000), HUNDRED(0x10000), HUNDRED(0x20000), HUNDRED(0x30000), HUNDRED(0x40000),
    HUNDRED(0x50000), HUNDRED(0x60000), HUNDRED(0x70000), HUNDRED(0x80000), HUNDRED(0x90000),
};
/* clang-format on */

static const uint32_t power_of_ten[POW_MAX_LOW_DIGITS + 1] = {1, 10, 100, 1000};

/* What is behind a batch. Offsets (…_at) count bytes from the midstate on, digits from the left. */
typedef struct pow_plan {
    const pow_search *search;
    uint64_t *counts;     /* by leading zero bits, or NULL to look for the first hit */
    uint32_t midstate[8]; /* of the prefix's whole blocks */

    /* The layout: for one number of digits, and of low digits. */
    unsigned digits;
    unsigned digits_at;
    unsigned low;
    unsigned blocks;
    uint32_t words[TAIL_WORDS]; /* of the lane to be filled next, with '0' for the low digits */
    uint32_t after[ROUNDS];

    const pow_backend *backend;
    unsigned lanes;         /* of the backend */
    uint64_t filled_from;   /* the high digits of lane 0 when the lanes were filled last */
    int state_before_known; /* whether state_before is that of the tail's first block now */
    uint32_t state_before[8];
    int found;
    uint64_t nonce;
    pow_batch batch;
} plan;

static unsigned last_digit_at(const plan *p) { return p->digits_at + p->digits - 1; }
static unsigned last_high_digit_at(const plan *p) { return last_digit_at(p) - p->low; }

/* The first word of the varying block, which is the one that the last digit is in. */
static unsigned varying_block(const plan *p) { return last_digit_at(p) / BLOCK_BYTES * BLOCK_WORDS; }

static unsigned shift_of_byte(unsigned at) { return 24 - 8 * (at % 4); }

static uint32_t digit_at(const uint32_t *words, unsigned at) {
    return words[at / 4] >> shift_of_byte(at) & 0xff;
}

static void add_to_digit(uint32_t *words, unsigned at) { words[at / 4] += (uint32_t)1 << shift_of_byte(at); }

static void set_digit(uint32_t *words, unsigned at, uint32_t ascii) {
    words[at / 4] = (words[at / 4] & ~((uint32_t)0xff << shift_of_byte(at))) | ascii << shift_of_byte(at);
}

/* The decimal digits of a number into the bytes from `first` to `last`. */
static void write_number(uint32_t *words, unsigned first, unsigned last, uint64_t number) {
    for (unsigned at = last + 1; at-- > first; number /= 10)
        set_digit(words, at, '0' + (uint32_t)(number % 10));
}

static uint32_t big_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | (uint32_t)bytes[3];
}

static void compress_whole_blocks(plan *p) {
    memcpy(p->midstate, sha256_initial_state, sizeof p->midstate);
    for (size_t at = 0; at + BLOCK_BYTES <= p->search->prefix_len; at += BLOCK_BYTES) {
        uint32_t words[BLOCK_WORDS];
        for (size_t t = 0; t < BLOCK_WORDS; t++) words[t] = big_endian(p->search->prefix + at + 4 * t);
        sha256_compress(p->midstate, words);
    }
}

/* The message after the midstate, for nonces of so many digits; all of them '0' still. */
static void lay_out(plan *p, unsigned digits) {
    uint8_t bytes[TAIL_BLOCKS * BLOCK_BYTES] = {0};
    unsigned rest = (unsigned)(p->search->prefix_len % BLOCK_BYTES);
    uint64_t bit_length = ((uint64_t)p->search->prefix_len + digits) * 8;

    p->digits = digits;
    p->digits_at = rest;
    p->blocks = rest + digits + MARK_AND_LENGTH_BYTES > BLOCK_BYTES ? 2 : 1;
    if (rest) memcpy(bytes, p->search->prefix + p->search->prefix_len - rest, rest);
    memset(bytes + rest, '0', digits);
    bytes[rest + digits] = 0x80;
    for (unsigned i = 0; i < 8; i++)
        bytes[p->blocks * BLOCK_BYTES - 1 - i] = (uint8_t)(bit_length >> (8 * i));
    for (size_t t = 0; t < TAIL_WORDS; t++) p->words[t] = big_endian(bytes + 4 * t);
}

/* How many digits to make low ones: as many as the last word has (or two words have, where a kernel can do
   that and the last one has but one), and as keep the batch within both the rest of the range and what an
   easy search takes to hit. */
static unsigned choose_low(const plan *p, unsigned digits, uint64_t remaining) {
    unsigned last_at = (unsigned)(p->search->prefix_len % BLOCK_BYTES) + digits - 1;
    int two_words = p->backend->two_words && last_at % 4 == 0 && last_at % BLOCK_BYTES != 0;
    unsigned low = two_words ? POW_MAX_LOW_DIGITS : last_at % 4 + 1;
    unsigned difficulty = p->counts ? 256 : p->search->difficulty;

    if (low > digits - 1) low = digits - 1; /* lanes need a high digit to differ in */
    if (low > POW_MAX_LOW_DIGITS) low = POW_MAX_LOW_DIGITS;
    while (low) {
        uint64_t batch = (uint64_t)p->lanes * power_of_ten[low];
        int too_long = batch / 2 > remaining;
        int too_eager = difficulty < 32 && batch * 8 > (uint64_t)1 << difficulty;
        if (!too_long && !too_eager) break;
        low--;
    }
    return low;
}

/* Where the words of the lanes stand for word t of the tail. */
static uint32_t *lanes_of_word(plan *p, unsigned t) {
    unsigned varying = varying_block(p);
    return t < varying ? p->batch.before[t] : p->batch.words[t - varying];
}

/* Begin a layout with so many digits, of which so many low ones. */
static void begin_layout(plan *p, unsigned digits, unsigned low, uint64_t high) {
    pow_batch *batch = &p->batch;
    unsigned varying;

    lay_out(p, digits);
    p->low = low;
    write_number(p->words, p->digits_at, last_high_digit_at(p), high);
    varying = varying_block(p);
    batch->high = high;
    batch->word = last_digit_at(p) / 4 - varying;
    batch->first_word = low ? (last_high_digit_at(p) + 1) / 4 - varying : batch->word;
    batch->shift = shift_of_byte(last_digit_at(p));
    batch->steps = power_of_ten[low];
    batch->after = NULL;
    if (p->blocks == 2 && varying == 0) {
        sha256_schedule(p->after, p->words + BLOCK_WORDS);
        batch->after = p->after;
    }
    for (unsigned t = 0; t < varying + BLOCK_WORDS; t++) {
        uint32_t *words = lanes_of_word(p, t);
        for (unsigned lane = 0; lane < p->lanes; lane++) words[lane] = p->words[t];
    }
    p->filled_from = high;
    p->state_before_known = 0;
}

/* The first word that isn't the same for all high digits from `low` to `high`. */
static unsigned first_differing_word(const plan *p, uint64_t low, uint64_t high) {
    unsigned at = last_high_digit_at(p);

    for (; low / 10 != high / 10 && at > p->digits_at; low /= 10, high /= 10) at--;
    return at / 4;
}

/* If the digit at byte `at` has been counted past '9', carry. After 9…9 comes 0…0, though there the number
   of digits would change: lanes past the end of the range get that, and are of no interest. */
static void carry(uint32_t *words, unsigned first_at, unsigned at) {
    while (digit_at(words, at) > '9') {
        set_digit(words, at, '0');
        if (at == first_at) return;
        add_to_digit(words, --at);
    }
}

/* Give each lane its high digits. p->words go on to those of the next batch. */
static void fill_lanes(plan *p) {
    pow_batch *batch = &p->batch;
    const uint64_t last = batch->high + p->lanes - 1;
    const unsigned varying = varying_block(p);
    const unsigned at = last_high_digit_at(p);
    const uint32_t one = (uint32_t)1 << shift_of_byte(at);
    uint32_t *const last_word = lanes_of_word(p, at / 4);
    /* Words left of this one hold what they shall since an earlier batch. */
    const unsigned from = first_differing_word(p, p->filled_from, last);
    uint32_t words[TAIL_WORDS];

    batch->before_varies = first_differing_word(p, batch->high, last) < varying;
    memcpy(batch->midstate, p->midstate, sizeof p->midstate);
    if (varying && !batch->before_varies) {
        if (!p->state_before_known || from < varying) {
            memcpy(p->state_before, p->midstate, sizeof p->midstate);
            sha256_compress(p->state_before, p->words);
            p->state_before_known = 1;
        }
        memcpy(batch->midstate, p->state_before, sizeof p->state_before);
    }
    memcpy(words, p->words, sizeof words);
    for (unsigned lane = 0; lane < p->lanes;) {
        /* Up to the lane whose last high digit is 9, only that digit counts up. */
        unsigned end = lane + '9' + 1 - digit_at(words, at);
        if (end > p->lanes) end = p->lanes;
        for (unsigned t = from; t < at / 4; t++) {
            for (unsigned l = lane; l < end; l++) lanes_of_word(p, t)[l] = words[t];
        }
        for (unsigned l = lane; l < end; l++, words[at / 4] += one) last_word[l] = words[at / 4];
        lane = end;
        carry(words, p->digits_at, at);
    }
    memcpy(p->words, words, sizeof words);
    p->filled_from = batch->high;
}

/* Leading zero bits of a nonce's whole digest; the nonce has as many digits as the layout. */
static unsigned zero_bits(const plan *p, uint64_t nonce) {
    uint32_t words[TAIL_WORDS], state[8];
    unsigned bits = 0;

    memcpy(words, p->words, sizeof words);
    memcpy(state, p->midstate, sizeof state);
    write_number(words, p->digits_at, last_digit_at(p), nonce);
    for (unsigned block = 0; block < p->blocks; block++) sha256_compress(state, words + block * BLOCK_WORDS);
    while (bits < 256 && !(state[bits / 32] << (bits % 32) >> 31)) bits++;
    return bits;
}

int pow_batch_candidates(pow_batch *batch, uint32_t step, const uint32_t *first_words) {
    plan *p = batch->plan;

    for (unsigned lane = 0; lane < batch->lanes; lane++) {
        uint64_t nonce = (batch->high + lane) * batch->steps + step;

        if (first_words[lane] & batch->mask) continue;
        if (nonce < p->search->first || nonce > p->search->last) continue;
        if (p->counts) {
            unsigned bits = 0;
            if (!first_words[lane])
                bits = zero_bits(p, nonce);
            else
                while (!(first_words[lane] << bits >> 31)) bits++;
            p->counts[bits]++;
        } else if (p->search->difficulty <= 32 || zero_bits(p, nonce) >= p->search->difficulty) {
            p->found = 1;
            p->nonce = nonce;
            /* Later steps have smaller nonces in the lanes before this one, and only there. */
            batch->lanes = lane;
        }
    }
    return batch->lanes == 0;
}

/* Search [first, last], all of them nonces of so many digits. */
static pow_outcome search_digits(plan *p, unsigned digits, uint64_t first, uint64_t last) {
    pow_batch *batch = &p->batch;
    uint64_t high_last = 0;
    int laid_out = 0;

    for (;;) {
        unsigned low = choose_low(p, digits, last - first);

        if (pow_stop_requested(p->search->stop_flag)) return POW_STOPPED;
        if (!laid_out || low != p->low) {
            begin_layout(p, digits, low, first / power_of_ten[low]);
            high_last = last / power_of_ten[low];
            laid_out = 1;
        }
        batch->lanes =
            high_last - batch->high < p->lanes ? (unsigned)(high_last - batch->high) + 1 : p->lanes;
        fill_lanes(p);
        p->backend->run(batch);
        if (p->found) return POW_FOUND;
        if (high_last - batch->high < p->lanes) return POW_NOT_FOUND;
        batch->high += p->lanes;
        first = batch->high * batch->steps;
    }
}

static pow_outcome search_all(const pow_backend *backend, const pow_search *search, uint64_t *counts,
                              uint64_t *nonce) {
    plan p;
    uint64_t first = search->first;
    uint64_t power = 10; /* the smallest nonce with one digit more than `first`; 0 where none is */
    unsigned digits = 1;

    p.search = search;
    p.counts = counts;
    p.backend = backend;
    p.lanes = backend->lanes;
    p.found = 0;
    p.batch.plan = &p;
    p.batch.mask = counts || search->difficulty == 0 ? 0
                   : search->difficulty >= 32        ? UINT32_MAX
                                                     : ~(UINT32_MAX >> search->difficulty);
    compress_whole_blocks(&p);
    while (power && first >= power) {
        power = digits == 19 ? 0 : power * 10;
        digits++;
    }
    for (;;) {
        uint64_t last = power && power - 1 < search->last ? power - 1 : search->last;
        pow_outcome outcome = search_digits(&p, digits, first, last);

        if (outcome == POW_FOUND) *nonce = p.nonce;
        if (outcome != POW_NOT_FOUND || last == search->last) return outcome;
        first = power;
        power = digits == 19 ? 0 : power * 10;
        digits++;
    }
}

pow_outcome pow_scan(const pow_backend *backend, const pow_search *search, uint64_t *nonce) {
    return search_all(backend, search, NULL, nonce);
}

pow_outcome pow_count_zero_bits(const pow_backend *backend, const pow_search *search,
                                uint64_t counts[POW_BIT_COUNTS]) {
    return search_all(backend, search, counts, NULL);
}
