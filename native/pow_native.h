/*
 * The native scan, as its callers see it: a search, a backend, the outcome.
 *
 * A search is for the nonces n in [first, last] for which SHA-256(prefix || decimal(n)) starts with
 * at least `difficulty` zero bits. planner.c cuts it into batches, which one of the kernels
 * (scan_<backend>.c) hashes; dispatch.c knows which of them this processor can run, and self_test.c
 * whether they work; batch.h is what lies between planner and kernels.
 *
 * All of it is thread-safe (calls share nothing), allocates nothing, and never needs the GIL.
 */
#ifndef POW_NATIVE_H
#define POW_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* A byte that another thread makes nonzero to end a search.
 *
 * Relaxed order is enough to read it, since it announces nothing but itself: a search that sees it set reads
 * nothing else that the other thread has written, and its own results go to the caller on its own thread.
 * What matters is only that each look is a load of its own; that it may come a batch late does no harm.
 *
 * The byte lies in a Python buffer and Python sets it by a plain store. Hence the assertion: an atomic byte
 * must be laid out like a plain one and need no lock, of which Python would know nothing. Where a compiler
 * lacks C11's atomics (MSVC), volatile comes to the same load. */
#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L && !defined(__STDC_NO_ATOMICS__)
#include <stdatomic.h>
typedef _Atomic uint8_t pow_stop_flag;
_Static_assert(sizeof(pow_stop_flag) == 1 && ATOMIC_CHAR_LOCK_FREE == 2, "a stop flag is a plain byte");
static inline int pow_stop_requested(const pow_stop_flag *stop_flag) {
    return stop_flag && atomic_load_explicit(stop_flag, memory_order_relaxed);
}
#else
typedef volatile uint8_t pow_stop_flag;
static inline int pow_stop_requested(const pow_stop_flag *stop_flag) { return stop_flag && *stop_flag; }
#endif

typedef struct {
    const uint8_t *prefix; /* any alignment; may be NULL when prefix_len is 0 */
    size_t prefix_len;     /* bytes */
    /* Both ends belong to the range: a half-open one can't reach the last 64-bit nonce. The
       binding turns the public half-open range into this one. Precondition: first <= last. */
    uint64_t first;
    uint64_t last;
    unsigned difficulty;            /* leading zero bits, 0 to 256 */
    const pow_stop_flag *stop_flag; /* or NULL for a search that nobody ends */
} pow_search;

typedef enum { POW_NOT_FOUND = 0, POW_FOUND = 1, POW_STOPPED = 2 } pow_outcome;

struct pow_batch;

typedef struct {
    const char *name;
    unsigned lanes;                  /* how many nonces a batch has at each step */
    int two_words;                   /* may the low digits of a batch lie in two words? */
    void (*run)(struct pow_batch *); /* NULL where this build is for another kind of processor */
    int (*supported)(void);          /* may this processor, under this operating system, run it? */
} pow_backend;

/* Slowest first on the processors that we know; which is fastest here, only a measurement tells. */
extern const pow_backend pow_backends[];
extern const size_t pow_backend_count;

/* On POW_FOUND the smallest nonce is in *nonce; else *nonce is left alone. The stop flag is looked at
   between batches: at least once a millisecond on anything that runs a kernel at its usual speed. */
pow_outcome pow_scan(const pow_backend *backend, const pow_search *search, uint64_t *nonce);

/* A digest has from 0 to 256 leading zero bits. */
#define POW_BIT_COUNTS 257

/* Adds to counts[z] how many digests of the range have exactly z leading zero bits. The difficulty is
   ignored. POW_STOPPED, or POW_NOT_FOUND when the whole range was counted. */
pow_outcome pow_count_zero_bits(const pow_backend *backend, const pow_search *search,
                                uint64_t counts[POW_BIT_COUNTS]);

/* Known answers through one backend: 1 when all are right. Takes one to three milliseconds. */
int pow_self_test(const pow_backend *backend);

#endif
