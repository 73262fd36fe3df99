/*
 * The AVX2 kernel: eight lanes. For x86-64 processors from Haswell (2013) and Zen (2017) on.
 *
 * Input, result and thread safety: batch.h. How it works: lane_kernel.h.
 */
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "batch.h"

#define NAME(x) x##_avx2
#if defined(__GNUC__)
#define TARGET __attribute__((target("avx2")))
#else
#define TARGET
#endif

#define LANES 8
typedef __m256i lanes;
#define LOAD(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define STORE(p, x) _mm256_store_si256((__m256i *)(void *)(p), x)
#define BROADCAST(word) _mm256_set1_epi32((int)(word))
#define ROUND_CONSTANT(t) BROADCAST(sha256_round_constants[t])
#define ADD(x, y) _mm256_add_epi32(x, y)
#define XOR(x, y) _mm256_xor_si256(x, y)
#define XOR3(x, y, z) XOR(XOR(x, y), z)
#define SHR(x, n) _mm256_srli_epi32(x, n)
#define ROTR(x, n) _mm256_or_si256(_mm256_srli_epi32(x, n), _mm256_slli_epi32(x, 32 - (n)))
#define CHOOSE(x, y, z) XOR(z, _mm256_and_si256(x, XOR(y, z)))
#define MAJORITY(x, y, z, x_xor_y, y_xor_z) XOR(y, _mm256_and_si256(x_xor_y, y_xor_z))
#define ANY_CLEAR(x, mask) \
    _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_and_si256(x, mask), _mm256_setzero_si256()))

#include "lane_kernel.h"
#endif
