/*
 * Holds the scan kernels against a plain SHA-256: the nonce that a search finds, the counts of zero bits, and
 * that a stop is heeded.
 *
 * The SHA-256 is this file's own, written down from FIPS 180-4 for whole messages, and computes its
 * constants, so that it shares no mistake with native/. Everything else goes through pow_native.h, as the
 * Python module does it. Link it with native/planner.c, dispatch.c, self_test.c, sha256.c and scan_*.c;
 * with trap_sha_ni.c, too, it runs kernels of SHA instructions on processors that have none.
 *
 *     check_kernels [--cases N] [--seed S] [--window NONCES] [--only CASE] [--force] [BACKEND...]
 *     check_kernels --list
 *
 * Without names it checks every backend that this processor supports; --force runs the named ones in any
 * case. What a case is made of depends on its number, the seed and the window alone: --only repeats one.
 * Exit status: 0, 1 after a wrong answer, 2 for a command line that makes no sense.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pow_native.h"

/* --- SHA-256, as FIPS 180-4 has it. --- */

__extension__ typedef unsigned __int128 wide;

static uint32_t initial[8], constants[64];

/* 4.2.2 and 5.3.3: the first 32 bits of the fractional parts of the roots of the first primes. */
static uint32_t fraction_of_root(unsigned prime, bool cube) {
    const wide target = (wide)prime << (cube ? 96 : 64);
    uint64_t root = 0; /* with 32 bits behind the point */

    for (int bit = 36; bit >= 0; bit--) {
        const wide larger = root | (uint64_t)1 << bit;
        if ((cube ? larger * larger * larger : larger * larger) <= target) root = (uint64_t)larger;
    }
    return (uint32_t)root;
}

static void compute_constants(void) {
    unsigned primes = 0;

    for (unsigned candidate = 2; primes < 64; candidate++) {
        bool prime = true;
        for (unsigned factor = 2; factor < candidate; factor++) prime = prime && candidate % factor;
        if (!prime) continue;
        if (primes < 8) initial[primes] = fraction_of_root(candidate, false);
        constants[primes++] = fraction_of_root(candidate, true);
    }
}

static uint32_t rotr(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

/* 6.2.2, for one block. */
static void hash_block(uint32_t hash[8], const uint8_t block[64]) {
    uint32_t w[64];
    uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3];
    uint32_t e = hash[4], f = hash[5], g = hash[6], h = hash[7];

    for (unsigned t = 0; t < 16; t++) {
        const uint8_t *const bytes = block + 4 * t;
        w[t] = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    }
    for (unsigned t = 16; t < 64; t++) {
        const uint32_t x = w[t - 15], y = w[t - 2];
        const uint32_t sigma0 = rotr(x, 7) ^ rotr(x, 18) ^ x >> 3,
                       sigma1 = rotr(y, 17) ^ rotr(y, 19) ^ y >> 10;
        w[t] = sigma1 + w[t - 7] + sigma0 + w[t - 16];
    }
    for (unsigned t = 0; t < 64; t++) {
        const uint32_t sum0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22),
                       sum1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
        const uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + constants[t] + w[t];
        const uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    hash[0] += a, hash[1] += b, hash[2] += c, hash[3] += d;
    hash[4] += e, hash[5] += f, hash[6] += g, hash[7] += h;
}

#define MAX_MESSAGE 240

static void sha256(uint32_t hash[8], const uint8_t *message, size_t length) {
    uint8_t padded[MAX_MESSAGE + 72] = {0};
    size_t end = (length + 9 + 63) / 64 * 64;

    memcpy(padded, message, length);
    padded[length] = 0x80;
    for (unsigned i = 0; i < 8; i++) padded[end - 1 - i] = (uint8_t)((uint64_t)length * 8 >> 8 * i);
    memcpy(hash, initial, sizeof initial);
    for (size_t at = 0; at < end; at += 64) hash_block(hash, padded + at);
}

/* The examples that NIST gives for SHA-256: one block, and two. */
static bool reference_is_right(void) {
    static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static const uint32_t of_one[8] = {0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223,
                                       0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad};
    static const uint32_t of_two[8] = {0x248d6a61, 0xd20638b8, 0xe5c02693, 0x0c3e6039,
                                       0xa33ce459, 0x64ff2167, 0xf6ecedd4, 0x19db06c1};
    uint32_t one[8], two[8];

    sha256(one, (const uint8_t *)"abc", 3);
    sha256(two, (const uint8_t *)two_blocks, strlen(two_blocks));
    return memcmp(one, of_one, sizeof one) == 0 && memcmp(two, of_two, sizeof two) == 0;
}

/* --- What is asked. --- */

#define MAX_PREFIX 200
#define MAX_WINDOW 10000000

typedef struct {
    uint8_t prefix[MAX_PREFIX];
    size_t prefix_len;
    uint64_t first;
    size_t length; /* of the window, in nonces: at least 1 */
} window;

static unsigned zero_bits(const uint8_t *prefix, size_t prefix_len, uint64_t nonce) {
    char message[MAX_MESSAGE];
    uint32_t hash[8];
    unsigned bits = 0;

    memcpy(message, prefix, prefix_len);
    const int digits = snprintf(message + prefix_len, sizeof message - prefix_len, "%" PRIu64, nonce);
    sha256(hash, (const uint8_t *)message, prefix_len + (size_t)digits);
    while (bits < 256 && !(hash[bits / 32] >> (31 - bits % 32) & 1)) bits++;
    return bits;
}

/* Random numbers: splitmix64. */
static uint64_t next(uint64_t *random) {
    uint64_t x = *random += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* From 0 to limit - 1; 0 for a limit of 0. */
static uint64_t below(uint64_t *random, uint64_t limit) { return limit ? next(random) % limit : 0; }

/* From 1 to limit, as often with few binary digits as with many. */
static uint64_t of_any_size(uint64_t *random, uint64_t limit) {
    unsigned bits = 1;

    while (bits < 64 && limit >> bits) bits++;
    const uint64_t x = 1 + below(random, (uint64_t)1 << below(random, bits + 1));
    return x < limit ? x : limit;
}

static uint64_t power_of_ten(unsigned exponent) {
    uint64_t power = 1;

    while (exponent--) power *= 10;
    return power;
}

static uint64_t minus_or_0(uint64_t x, uint64_t y) { return x > y ? x - y : 0; }

/* A number with so many decimal digits. */
static uint64_t of_digits(uint64_t *random, unsigned digits) {
    const uint64_t least = digits == 1 ? 0 : power_of_ten(digits - 1);
    const uint64_t behind = digits == 20 ? 0 : power_of_ten(digits);

    return least + below(random, behind - least); /* modulo 2^64, which is behind the numbers of 20 digits */
}

/* Windows that cross what changes the layout or carries, at any point of them. */
static uint64_t random_first(uint64_t *random, size_t length) {
    const uint64_t before = below(random, length + 1), latest = UINT64_MAX - length + 1;
    uint64_t first;

    switch (below(random, 8)) {
        case 0:
            first = below(random, 20);
            break;
        case 1:
            first = minus_or_0((uint64_t)1 << 32, before);
            break;
        case 2:
            first = latest - below(random, 2) * before;
            break;
        case 3:
            first = of_digits(random, 1 + (unsigned)below(random, 20));
            break;
        default:
            first = minus_or_0(power_of_ten(1 + (unsigned)below(random, 19)), before);
    }
    return first < latest ? first : latest;
}

static unsigned digits_of(uint64_t nonce) {
    unsigned digits = 1;

    while (nonce /= 10) digits++;
    return digits;
}

/* A prefix behind which the last of so many digits is this byte of a block. */
static size_t prefix_len_for(uint64_t *random, unsigned place, unsigned digits) {
    return (place + 65 - digits) % 64 + 64 * (size_t)below(random, 3);
}

/* Half of the cases take their turn at putting the last digit into each of a block's bytes; the others have
   the lengths of real prefixes, or lengths around a block's end, or any. */
static size_t random_prefix_len(uint64_t *random, unsigned long number, unsigned digits) {
    switch (below(random, 8)) {
        case 0:
            return 10;
        case 1:
            return 66 + (size_t)below(random, 5);
        case 2:
            return 54 + 64 * (size_t)below(random, 3) + (size_t)below(random, 11);
        case 3:
            return (size_t)below(random, MAX_PREFIX + 1);
        default:
            return prefix_len_for(random, number % 64, digits);
    }
}

static window random_window(uint64_t *random, unsigned long number, size_t longest) {
    window w;

    if (number % 7 == 6) {
        /* The longest batches are those with the last digit in a word of its own, for kernels that vary two;
           and the planner makes them only in long windows. */
        const unsigned digits = 8 + (unsigned)below(random, 12);
        w.length = longest;
        w.first = of_digits(random, digits);
        w.prefix_len = prefix_len_for(random, 4 * (number / 7 % 15) + 4, digits);
    } else {
        w.length = (size_t)of_any_size(random, longest);
        w.first = random_first(random, w.length);
        w.prefix_len =
            random_prefix_len(random, number, digits_of(w.first + below(random, 2) * (w.length - 1)));
    }
    for (size_t at = 0; at < w.prefix_len; at++) w.prefix[at] = (uint8_t)next(random);
    return w;
}

/* --- The checks. --- */

typedef struct {
    unsigned long cases, seed, only;
    size_t longest; /* window */
    bool has_only, force;
} options;

#define MAX_BACKENDS 16
#define MOST_REPORTS 5

typedef struct {
    const pow_backend *backend;
    unsigned long passed, failed;
} subject;

typedef struct {
    const options *options;
    unsigned long number; /* of the case */
    size_t count;
    subject subjects[MAX_BACKENDS];
} run;

static void judge(const run *r, subject *s, const window *w, const char *what, unsigned difficulty,
                  const char *expected, const char *got) {
    const char *const name = s->backend->name;

    if (strcmp(expected, got) == 0) {
        s->passed++;
        return;
    }
    if (s->failed++ >= MOST_REPORTS) return;
    printf("FAILED: %s, case %lu: %s of the %zu nonces from %" PRIu64
           " behind %zu bytes, difficulty %u: expected %s, got %s\n",
           name, r->number, what, w->length, w->first, w->prefix_len, difficulty, expected, got);
    printf("  again: check_kernels --seed %lu --window %zu --only %lu%s %s\n", r->options->seed,
           r->options->longest, r->number, r->options->force ? " --force" : "", name);
}

/* Bytes behind which nothing may be read; a sanitizer and valgrind see it. Nor need they be aligned. */
static uint8_t *tight_copy(const window *w, uint8_t **block) {
    const size_t odd = w->prefix_len % 3, size = odd + w->prefix_len;

    *block = malloc(size ? size : 1);
    if (!*block) abort();
    memcpy(*block + odd, w->prefix, w->prefix_len);
    return w->prefix_len ? *block + odd : NULL;
}

#define TEXT 64
static void say(char text[TEXT], pow_outcome outcome, uint64_t nonce) {
    snprintf(text, TEXT, outcome == POW_FOUND ? "%s %" PRIu64 : "%s (and %" PRIu64 " left alone)",
             outcome == POW_FOUND       ? "nonce"
             : outcome == POW_NOT_FOUND ? "none"
             : outcome == POW_STOPPED   ? "a stop"
                                        : "nonsense",
             nonce);
}

/* answer: the place in the window of the smallest hit; the window's length where there is none. */
static void check_scan(const run *r, subject *s, const window *w, unsigned difficulty, size_t answer,
                       bool stopped) {
    const uint64_t untouched = 0xdeadbeef;
    const pow_stop_flag stop_flag = stopped;
    const bool found = answer < w->length && !stopped;
    uint64_t nonce = untouched;
    uint8_t *block;
    const uint8_t *const prefix = tight_copy(w, &block);
    pow_search search = {prefix,     w->prefix_len,
                         w->first,   w->first + (w->length - 1),
                         difficulty, stopped || w->length % 2 ? &stop_flag : NULL};
    const pow_outcome outcome = pow_scan(s->backend, &search, &nonce);
    char expected[TEXT], got[TEXT];

    free(block);
    say(got, outcome, nonce);
    say(expected,
        stopped ? POW_STOPPED
        : found ? POW_FOUND
                : POW_NOT_FOUND,
        found ? w->first + answer : untouched);
    judge(r, s, w, "search", difficulty, expected, got);
}

/* zeros: the zero bits of each nonce's digest. */
static void check_counts(const run *r, subject *s, const window *w, const uint16_t *zeros, bool stopped) {
    const pow_stop_flag stop_flag = stopped;
    uint64_t counts[POW_BIT_COUNTS], right[POW_BIT_COUNTS];
    uint8_t *block;
    const uint8_t *const prefix = tight_copy(w, &block);
    pow_search search = {prefix, w->prefix_len, w->first, w->first + (w->length - 1), 0, &stop_flag};
    char expected[TEXT], got[TEXT];
    unsigned bits = 0;

    /* Counting adds to what is there. */
    for (unsigned i = 0; i < POW_BIT_COUNTS; i++) counts[i] = right[i] = i;
    for (size_t i = 0; i < w->length && !stopped; i++) right[zeros[i]]++;
    const pow_outcome outcome = pow_count_zero_bits(s->backend, &search, counts);
    free(block);
    while (bits < 256 && counts[bits] == right[bits]) bits++;
    snprintf(expected, TEXT, "outcome %d, %" PRIu64 " of %u zero bits", stopped ? POW_STOPPED : POW_NOT_FOUND,
             right[bits], bits);
    snprintf(got, TEXT, "outcome %d, %" PRIu64 " of %u zero bits", outcome, counts[bits], bits);
    judge(r, s, w, "count", 0, expected, got);
}

/* Everything about a window whose digests the reference computes one by one. */
static void check_window(run *r, const window *w, uint64_t *random) {
    uint16_t *const zeros = malloc(w->length * sizeof *zeros);
    const unsigned easy = (unsigned)below(random, 17), hard = 20 + (unsigned)below(random, 21);
    unsigned most = 0;

    if (!zeros) abort();
    for (size_t i = 0; i < w->length; i++) {
        zeros[i] = (uint16_t)zero_bits(w->prefix, w->prefix_len, w->first + i);
        if (zeros[i] > most) most = zeros[i];
    }
    /* At the most zero bits there are, seldom more than one nonce hits; with one bit more none does. */
    const unsigned difficulties[] = {most, most < 256 ? most + 1 : 256, easy, below(random, 4) ? hard : 256};
    for (size_t d = 0; d < sizeof difficulties / sizeof *difficulties; d++) {
        size_t answer = 0;
        while (answer < w->length && zeros[answer] < difficulties[d]) answer++;
        for (size_t i = 0; i < r->count; i++)
            check_scan(r, &r->subjects[i], w, difficulties[d], answer, false);
    }
    for (size_t i = 0; i < r->count; i++) {
        check_counts(r, &r->subjects[i], w, zeros, false);
        check_counts(r, &r->subjects[i], w, zeros, true);
        check_scan(r, &r->subjects[i], w, easy, 0, true);
    }
    free(zeros);
}

/* How often the slow cases come: a prime, so that they take their turns at a block's bytes, too. */
#define SLOW_EVERY 61

/* Difficult searches come in long batches: a nonce of 18 zero bits, and windows with it anywhere. */
#define DEEP_DIFFICULTY 18
#define DEEP_TRIES ((uint64_t)1 << 24) /* one search in 10^27 needs more */
#define DEEP_WINDOWS 12
static void check_deep_hit(run *r, uint64_t *random) {
    window w = random_window(random, r->number, 1);
    const uint64_t start = w.first < UINT64_MAX - 2 * DEEP_TRIES ? w.first : UINT64_MAX - 2 * DEEP_TRIES;
    uint64_t hit = start;

    while (hit - start < DEEP_TRIES && zero_bits(w.prefix, w.prefix_len, hit) < DEEP_DIFFICULTY) hit++;
    for (int i = 0; i < DEEP_WINDOWS; i++) {
        const size_t longest = r->options->longest;
        const uint64_t before = of_any_size(random, hit - start < longest ? hit - start + 1 : longest) - 1;
        w.first = hit - before;
        w.length = (size_t)(before + of_any_size(random, longest));
        for (size_t s = 0; s < r->count; s++)
            check_scan(r, &r->subjects[s], &w, DEEP_DIFFICULTY, before, false);
        w.length = (size_t)before;
        for (size_t s = 0; s < r->count && before; s++) {
            check_scan(r, &r->subjects[s], &w, DEEP_DIFFICULTY, before, false);
        }
    }
}

/* Nonces whose first digest word is 0, which no test can wait for: only they reach what comes after it. */
static void check_rare_hit(run *r, uint64_t *random) {
    static const struct {
        const char *text; /* of the prefix, which goes on with so many 'x' */
        size_t filler;
        uint64_t nonce;
    } rare[] = {{"1:GENESIS:", 0, 3462970250}, {"1:GENESIS:", 0, 7401702698}};
    const size_t which = r->number / SLOW_EVERY % (sizeof rare / sizeof *rare),
                 text_len = strlen(rare[which].text);
    const uint64_t before = below(random, r->options->longest < 1000 ? r->options->longest : 1000);
    window w = {.prefix_len = text_len + rare[which].filler, .first = rare[which].nonce - before};

    w.length = (size_t)(before + 1 + below(random, 100));
    memset(w.prefix, 'x', sizeof w.prefix);
    memcpy(w.prefix, rare[which].text, text_len);
    check_window(r, &w, random);
}

static void check_case(run *r, unsigned long number) {
    uint64_t random = r->options->seed;

    random = next(&random) + number;
    r->number = number;
    if (number % SLOW_EVERY == 60) {
        check_deep_hit(r, &random);
    } else if (number % SLOW_EVERY == 30) {
        check_rare_hit(r, &random);
    } else {
        const window w = random_window(&random, number, r->options->longest);
        check_window(r, &w, &random);
    }
}

/* --- The command line. --- */

static int refuse(const char *why, const char *what) {
    fprintf(stderr, "check_kernels: %s: %s\n", what, why);
    return 2;
}

static bool compiled(const pow_backend *backend) { return backend->run != NULL; }

static int list(void) {
    for (size_t i = 0; i < pow_backend_count; i++) {
        const pow_backend *const backend = &pow_backends[i];
        const char *const state = !compiled(backend)     ? "not compiled"
                                  : backend->supported() ? "supported"
                                                         : "unsupported";
        printf("%s: %s\n", backend->name, state);
    }
    return 0;
}

static bool number_after(char **argument, unsigned long *into) {
    char *end;

    if (!argument[1] || argument[1][0] < '0' || argument[1][0] > '9') return false;
    *into = strtoul(argument[1], &end, 10);
    return *end == '\0';
}

static int add(run *r, const char *name, bool force) {
    for (size_t i = 0; i < pow_backend_count; i++) {
        const pow_backend *const backend = &pow_backends[i];
        if (strcmp(backend->name, name) != 0) continue;
        if (!compiled(backend)) return refuse("is for another kind of processor", name);
        if (!force && !backend->supported()) return refuse("this processor does not support it", name);
        if (r->count < MAX_BACKENDS) r->subjects[r->count++] = (subject){backend, 0, 0};
        return 0;
    }
    return refuse("no such backend", name);
}

int main(int argc, char **argv) {
    options o = {.cases = 1000, .seed = 1, .longest = 50000};
    run r = {.options = &o};
    unsigned long longest = o.longest, passed = 0, failed = 0;
    char **names = argv + 1;

    if (argc == 2 && strcmp(argv[1], "--list") == 0) return list();
    for (; *names && strncmp(*names, "--", 2) == 0; names++) {
        bool sense = true;
        if (strcmp(*names, "--force") == 0)
            o.force = true;
        else if (strcmp(*names, "--cases") == 0)
            sense = number_after(names++, &o.cases);
        else if (strcmp(*names, "--seed") == 0)
            sense = number_after(names++, &o.seed);
        else if (strcmp(*names, "--window") == 0)
            sense = number_after(names++, &longest) && longest > 0 && longest <= MAX_WINDOW;
        else if (strcmp(*names, "--only") == 0)
            sense = o.has_only = number_after(names++, &o.only);
        else
            sense = false;
        if (!sense) return refuse("what is this?", *names ? *names : "the last option");
    }
    o.longest = (size_t)longest;
    if (o.force && !*names) return refuse("needs the names of backends", "--force");
    for (char **name = names; *name; name++) {
        const int refused = add(&r, *name, o.force);
        if (refused) return refused;
    }
    for (size_t i = 0; i < pow_backend_count && !*names; i++) {
        if (compiled(&pow_backends[i]) && pow_backends[i].supported()) add(&r, pow_backends[i].name, false);
    }

    compute_constants();
    if (!reference_is_right()) return refuse("is wrong", "this program's own SHA-256");
    for (size_t i = 0; i < r.count; i++) {
        subject *const s = &r.subjects[i];
        if (pow_self_test(s->backend))
            s->passed++;
        else
            s->failed++, printf("FAILED: %s, its self-test\n", s->backend->name);
    }
    if (o.has_only) check_case(&r, o.only);
    for (unsigned long number = 0; number < o.cases && !o.has_only; number++) check_case(&r, number);

    for (size_t i = 0; i < r.count; i++) {
        const subject *const s = &r.subjects[i];
        printf("%s: %lu passed, %lu failed\n", s->backend->name, s->passed, s->failed);
        passed += s->passed, failed += s->failed;
    }
    printf("%lu passed, %lu failed\n", passed, failed);
    return failed ? 1 : 0;
}
