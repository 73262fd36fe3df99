/*
 * Which kernels there are, which of them this processor may run, and proof that each works.
 *
 * All detection of processor and operating system lives in this file. To add a kernel: its file
 * scan_<backend>.c, its prototype in pow_native.h, its line in the ladder below, its file in setup.py.
 */
#include "pow_native.h"

static int always(void) { return 1; }

/* The ladder: slowest first, each line faster than those above it wherever it is supported. */
const pow_backend pow_backends[] = {
    {"portable", pow_scan_portable, always},
};
const size_t pow_backend_count = sizeof pow_backends / sizeof *pow_backends;

/* One search and the nonce it must find, computed with an independent SHA-256. */
typedef struct {
    uint8_t filler; /* the prefix is this byte prefix_len times, unless text is given */
    size_t prefix_len;
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

int pow_self_test(const pow_backend *backend) {
    for (size_t i = 0; i < sizeof known_answers / sizeof *known_answers; i++) {
        const known_answer *known = &known_answers[i];
        uint8_t prefix[256];
        uint64_t nonce = 0;
        pow_search search = {prefix, known->prefix_len, known->first, known->last, known->difficulty, 0};

        for (size_t at = 0; at < known->prefix_len; at++) {
            prefix[at] = known->text ? (uint8_t)known->text[at] : known->filler;
        }
        if (backend->scan(&search, &nonce) != POW_FOUND || nonce != known->answer) return 0;
        search.last = known->answer - 1;
        if (search.first <= search.last && backend->scan(&search, &nonce) != POW_NOT_FOUND) return 0;
    }
    return 1;
}
