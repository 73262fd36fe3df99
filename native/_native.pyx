# cython: language_level=3, binding=False, embedsignature=False
"""Thin binding of the C kernels. Arguments are checked by its one caller, `pow.scanning`."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t


cdef extern from "pow_native.h" nogil:
    ctypedef struct pow_search:
        const uint8_t *prefix
        size_t prefix_len
        uint64_t first
        uint64_t last
        unsigned difficulty
        const uint8_t *stop

    ctypedef enum pow_outcome:
        POW_NOT_FOUND
        POW_FOUND
        POW_STOPPED

    ctypedef pow_outcome (*pow_scan_fn)(const pow_search *search, uint64_t *nonce)

    ctypedef struct pow_backend:
        const char *name
        pow_scan_fn scan
        int (*supported)()

    const pow_backend pow_backends[]
    const size_t pow_backend_count
    int pow_self_test(const pow_backend *backend)


def backends():
    """The compiled backends, slowest first: (name, whether this machine supports it)."""
    return [
        (pow_backends[i].name.decode(), bool(pow_backends[i].supported()))
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
    search.stop = NULL
    if stop_flag is None:
        with nogil:
            outcome = pow_backends[which].scan(&search, &nonce)
    else:
        PyObject_GetBuffer(stop_flag, &flag, PyBUF_SIMPLE)
        try:
            search.stop = <const uint8_t *>flag.buf
            with nogil:
                outcome = pow_backends[which].scan(&search, &nonce)
        finally:
            PyBuffer_Release(&flag)
    return nonce if outcome == POW_FOUND else None
