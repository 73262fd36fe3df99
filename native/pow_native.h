/*
 * What every scan kernel gets and gives: the search, its outcome, the table of backends.
 *
 * A kernel finds the smallest nonce n in [first, last] for which
 * SHA-256(prefix || decimal(n)) starts with at least `difficulty` zero bits.
 * There is one kernel per file, named scan_<backend>.c, and each symbol that a file exports ends
 * in its backend's name. dispatch.c alone knows which of them this processor can run.
 *
 * Kernels are thread-safe (they share nothing), allocate nothing, and never need the GIL.
 */
#ifndef POW_NATIVE_H
#define POW_NATIVE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *prefix; /* any alignment; may be NULL when prefix_len is 0 */
    size_t prefix_len;     /* bytes */
    /* Both ends belong to the range: a half-open one can't reach the last 64-bit nonce. The
       binding turns the public half-open range into this one. Precondition: first <= last. */
    uint64_t first;
    uint64_t last;
    unsigned difficulty;          /* leading zero bits, 0 to 256 */
    const volatile uint8_t *stop; /* NULL, or a byte that another thread makes nonzero to end the scan */
} pow_search;

typedef enum { POW_NOT_FOUND = 0, POW_FOUND = 1, POW_STOPPED = 2 } pow_outcome;

/* On POW_FOUND the smallest nonce is in *nonce; else *nonce is left alone. The stop byte is looked at
   at least once per 100 nonces. */
typedef pow_outcome (*pow_scan_fn)(const pow_search *search, uint64_t *nonce);

typedef struct {
    const char *name;
    pow_scan_fn scan;
    int (*supported)(void); /* may this processor, under this operating system, run it? */
} pow_backend;

/* Slowest first, so that the last supported one is the one to prefer. */
extern const pow_backend pow_backends[];
extern const size_t pow_backend_count;

/* Known answers through one backend: 1 when all are right. Takes about a millisecond. */
int pow_self_test(const pow_backend *backend);

pow_outcome pow_scan_portable(const pow_search *search, uint64_t *nonce);

#endif
