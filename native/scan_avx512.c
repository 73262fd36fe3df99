/*
 * The AVX-512 kernel: two groups of sixteen lanes, whose instructions alternate, so that one group computes
 * while the other one waits. A rotation and a Boolean function of three words are one instruction each.
 *
 * Input, result and thread safety: batch.h. How it works: lane_kernel.h.
 */
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "batch.h"

#define NAME(x) x##_avx512
#if defined(__GNUC__)
#define TARGET __attribute__((target("avx512f")))
#else
#define TARGET
#endif

#define LANES 32
typedef struct {
    __m512i low, high; /* lanes 0 to 15, and 16 to 31 */
} lanes;

/* A function of two or three lanes each, out of the instruction for one register; the macros for
   shifts stay macros, since their counts are part of the instruction. */
#define FUNCTION_OF_2(name, op)                               \
    TARGET POW_INLINE lanes name##_avx512(lanes x, lanes y) { \
        return (lanes){op(x.low, y.low), op(x.high, y.high)}; \
    }
/* Bit 4 * x + 2 * y + z of the table is the function's value. */
#define FUNCTION_OF_3(name, table)                                                \
    TARGET POW_INLINE lanes name##_avx512(lanes x, lanes y, lanes z) {            \
        return (lanes){_mm512_ternarylogic_epi32(x.low, y.low, z.low, table),     \
                       _mm512_ternarylogic_epi32(x.high, y.high, z.high, table)}; \
    }
#define SHIFT(op, x, n) ((lanes){op((x).low, n), op((x).high, n)})

FUNCTION_OF_2(add, _mm512_add_epi32)
FUNCTION_OF_2(xor, _mm512_xor_si512)
FUNCTION_OF_3(xor3, 0x96)
FUNCTION_OF_3(choose, 0xca)
FUNCTION_OF_3(majority, 0xe8)

TARGET POW_INLINE lanes load_avx512(const uint32_t *words) {
    return (lanes){_mm512_load_si512(words), _mm512_load_si512(words + 16)};
}

TARGET POW_INLINE void store_avx512(uint32_t *words, lanes x) {
    _mm512_store_si512(words, x.low);
    _mm512_store_si512(words + 16, x.high);
}

TARGET POW_INLINE lanes broadcast_avx512(uint32_t word) {
    return (lanes){_mm512_set1_epi32((int)word), _mm512_set1_epi32((int)word)};
}

TARGET POW_INLINE int any_clear_avx512(lanes x, lanes mask) {
    return (_mm512_testn_epi32_mask(x.low, mask.low) | _mm512_testn_epi32_mask(x.high, mask.high)) != 0;
}

#define LOAD(p) load_avx512(p)
#define STORE(p, x) store_avx512(p, x)
#define BROADCAST(word) broadcast_avx512(word)
#define ROUND_CONSTANT(t) BROADCAST(sha256_round_constants[t])
#define ADD(x, y) add_avx512(x, y)
#define XOR(x, y) xor_avx512(x, y)
#define XOR3(x, y, z) xor3_avx512(x, y, z)
#define SHR(x, n) SHIFT(_mm512_srli_epi32, x, n)
#define ROTR(x, n) SHIFT(_mm512_ror_epi32, x, n)
#define CHOOSE(x, y, z) choose_avx512(x, y, z)
#define MAJORITY(x, y, z, x_xor_y, y_xor_z) majority_avx512(x, y, z)
#define ANY_CLEAR(x, mask) any_clear_avx512(x, mask)

#include "lane_kernel.h"
#endif
