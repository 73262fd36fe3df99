/*
 * Which kernels there are, and which of them this processor may run.
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
