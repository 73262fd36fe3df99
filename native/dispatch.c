/*
 * Which kernels there are, which of them this processor may run, and proof that each works.
 *
 * All detection of processor and operating system lives in this file. To add a kernel: its file
 * scan_<backend>.c, its prototype in batch.h, its line in the ladder below, its file in setup.py.
 */
#include "batch.h"
#include "pow_native.h"

#if defined(__x86_64__) || defined(_M_X64)
#define X86_64 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__)
#define AARCH64 1
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

static int always(void) { return 1; }
static int never(void) { return 0; }

#if X86_64

typedef struct {
    uint32_t eax, ebx, ecx, edx;
} cpuid_registers;

static cpuid_registers cpuid(uint32_t leaf) {
    cpuid_registers r = {0, 0, 0, 0};
#if defined(_MSC_VER)
    int words[4];
    __cpuid(words, 0);
    if ((uint32_t)words[0] < leaf) return r;
    __cpuidex(words, (int)leaf, 0);
    r.eax = (uint32_t)words[0], r.ebx = (uint32_t)words[1], r.ecx = (uint32_t)words[2],
    r.edx = (uint32_t)words[3];
#else
    __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
    return r;
}

/* Which registers the operating system saves for a program: XCR0, as Intel's manual (vol. 1, 13.3) has it. */
#define SAVES_YMM 0x06 /* SSE and AVX state */
#define SAVES_ZMM 0xe6 /* and that of AVX-512: mask registers, upper halves, registers 16 to 31 */
static int system_saves(uint32_t state) {
    const uint32_t osxsave = 1u << 27;
    uint32_t xcr0;

    if (!(cpuid(1).ecx & osxsave)) return 0;
#if defined(_MSC_VER)
    xcr0 = (uint32_t)_xgetbv(0);
#else
    uint32_t high;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
#endif
    return (xcr0 & state) == state;
}

/* Bits of CPUID leaves 1 (ECX) and 7 (EBX). */
#define SSSE3 (1u << 9)
#define SSE41 (1u << 19)
#define AVX2 (1u << 5)
#define AVX512F (1u << 16)
#define SHA (1u << 29)
#define AVX512VL (1u << 31)

/* SHA instructions exist in the old encoding only, that of SSE. While the upper half of any of ymm0 to ymm15
   is in use, Intel's processors take time to go from AVX instructions to these and back (optimization
   manual, "Mixing AVX Code with SSE Code"): some 400 cycles, measured. AMD's don't. */
static int mixes_sse_and_avx_freely(void) {
    const cpuid_registers vendor = cpuid(0);
    const int is_intel = vendor.ebx == 0x756e6547 && vendor.edx == 0x49656e69 && vendor.ecx == 0x6c65746e;
    return !is_intel; /* "Genu", "ineI", "ntel" */
}

static int has(uint32_t of_leaf_1, uint32_t of_leaf_7) {
    return (cpuid(1).ecx & of_leaf_1) == of_leaf_1 && (cpuid(7).ebx & of_leaf_7) == of_leaf_7;
}

static int has_avx2(void) { return has(0, AVX2) && system_saves(SAVES_YMM); }
static int has_avx512(void) { return has(0, AVX2 | AVX512F) && system_saves(SAVES_ZMM); }
static int has_shani(void) { return has(SSSE3 | SSE41, SHA); }
static int has_shani_avx512(void) {
    return has_shani() && has_avx512() && has(0, AVX512VL) && mixes_sse_and_avx_freely();
}
#define ON_X86_64(lanes, two_words, run, supported) lanes, two_words, run, supported

#else
#define ON_X86_64(lanes, two_words, run, supported) 0, 0, 0, never
#endif

#if AARCH64 && defined(__GNUC__)

static int has_armv8(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0;
#elif defined(__APPLE__)
    return 1; /* every 64-bit processor of Apple's has them */
#else
    return 0;
#endif
}
#define ON_AARCH64(lanes, two_words, run, supported) lanes, two_words, run, supported

#else
#define ON_AARCH64(lanes, two_words, run, supported) 0, 0, 0, never
#endif

/* The ladder. A kernel that this build can't have, since it is for another kind of processor, stays listed.
 */
const pow_backend pow_backends[] = {
    {"portable", POW_PORTABLE_LANES, 0, pow_run_portable, always},
    {"armv8", ON_AARCH64(4, 1, pow_run_armv8, has_armv8)},
    {"avx2", ON_X86_64(8, 0, pow_run_avx2, has_avx2)},
    {"shani", ON_X86_64(4, 1, pow_run_shani, has_shani)},
    {"avx512", ON_X86_64(32, 0, pow_run_avx512, has_avx512)},
    {"shani_avx512", ON_X86_64(8, 1, pow_run_shani_avx512, has_shani_avx512)},
};
const size_t pow_backend_count = sizeof pow_backends / sizeof *pow_backends;

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
