# cython: language_level=3, binding=False, embedsignature=False
"""Thin binding of the C kernels. Its callers, in `pow.scanning`, check the arguments."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t


cdef extern from "pow_native.h" nogil:
    ctypedef uint8_t pow_stop_flag

    ctypedef struct pow_search:
        const uint8_t *prefix
        size_t prefix_len
        uint64_t first
        uint64_t last
        unsigned difficulty
        const pow_stop_flag *stop_flag

    ctypedef enum pow_outcome:
        POW_NOT_FOUND
        POW_FOUND
        POW_STOPPED

    ctypedef struct pow_backend:
        const char *name
        unsigned lanes
        void *run
        int (*supported)()

    enum:
        POW_BIT_COUNTS

    const pow_backend pow_backends[]
    const size_t pow_backend_count
    pow_outcome pow_scan(const pow_backend *backend, const pow_search *search, uint64_t *nonce)
    pow_outcome pow_count_zero_bits(const pow_backend *backend, const pow_search *search, uint64_t *counts)
    int pow_self_test(const pow_backend *backend)


def backends():
    """The backends, slowest first: (name, whether it is compiled, whether this machine supports it, its lanes)."""
    return [
        (
            pow_backends[i].name.decode(),
            pow_backends[i].run != NULL,
            bool(pow_backends[i].supported()),
            pow_backends[i].lanes,
        )
        for i in range(pow_backend_count)
    ]


def self_test(size_t which):
    """Whether the backend at this place in `backends()` gives every known answer."""
    return bool(pow_self_test(&pow_backends[which]))


def scan(size_t which, bytes prefix, uint64_t first, uint64_t last, unsigned difficulty, stop_flag):
    """The smallest hit in [first, last], or None; `stop_flag` is None or a one-byte buffer."""
    cdef pow_search search
    cdef Py_buffer flag
    cdef uint64_t nonce = 0
    cdef pow_outcome outcome
    search.prefix = <const uint8_t *>PyBytes_AsString(prefix)
    search.prefix_len = <size_t>len(prefix)
    search.first = first
    search.last = last
    search.difficulty = difficulty
    search.stop_flag = NULL
    if stop_flag is None:
        with nogil:
            outcome = pow_scan(&pow_backends[which], &search, &nonce)
    else:
        PyObject_GetBuffer(stop_flag, &flag, PyBUF_SIMPLE)
        try:
            search.stop_flag = <const pow_stop_flag *>flag.buf
            with nogil:
                outcome = pow_scan(&pow_backends[which], &search, &nonce)
        finally:
            PyBuffer_Release(&flag)
    return nonce if outcome == POW_FOUND else None


def count_zero_bits(size_t which, bytes prefix, uint64_t first, uint64_t last):
    """How many digests of [first, last] have 0, 1, … 256 leading zero bits."""
    cdef pow_search search
    cdef uint64_t counts[POW_BIT_COUNTS]
    cdef int bits
    search.prefix = <const uint8_t *>PyBytes_AsString(prefix)
    search.prefix_len = <size_t>len(prefix)
    search.first = first
    search.last = last
    search.difficulty = 0
    search.stop_flag = NULL
    for bits in range(POW_BIT_COUNTS):
        counts[bits] = 0
    with nogil:
        pow_count_zero_bits(&pow_backends[which], &search, counts)
    return [counts[bits] for bits in range(POW_BIT_COUNTS)]
