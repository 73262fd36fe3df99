/*
 * The portable kernel: plain C with the compiler's generic vectors, four lanes wide; one where it has none.
 *
 * Input, result and thread safety: batch.h. How it works: lane_kernel.h.
 */
#include <string.h>

#include "batch.h"

#define NAME(x) x##_portable
#define TARGET

#define LANES POW_PORTABLE_LANES
#if defined(__GNUC__)
typedef uint32_t lanes __attribute__((vector_size(16)));
#define BROADCAST(word) ((lanes){(word), (word), (word), (word)})
#else
typedef uint32_t lanes;
#define BROADCAST(word) ((lanes)(word))
#endif

static lanes load_portable(const uint32_t *words) {
    lanes x;
    memcpy(&x, words, sizeof x);
    return x;
}

static int any_clear_portable(lanes x, lanes mask) {
    uint32_t words[LANES];
    int any = 0;

    x &= mask;
    memcpy(words, &x, sizeof words);
    for (int lane = 0; lane < LANES; lane++) any |= words[lane] == 0;
    return any;
}

#define LOAD(p) load_portable(p)
#define STORE(p, x) memcpy(p, &(x), sizeof(lanes))
#define ROUND_CONSTANT(t) BROADCAST(sha256_round_constants[t])
#define ADD(x, y) ((x) + (y))
#define XOR(x, y) ((x) ^ (y))
#define XOR3(x, y, z) ((x) ^ (y) ^ (z))
#define SHR(x, n) ((x) >> (n))
#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define CHOOSE(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJORITY(x, y, z, x_xor_y, y_xor_z) ((y) ^ ((x_xor_y) & (y_xor_z)))
#define ANY_CLEAR(x, mask) any_clear_portable(x, mask)

#include "lane_kernel.h"
