"""The scans that benchmarks time: ranges without a hit, by a backend that has been seen to look at them."""

import time
from collections.abc import Callable

import pytest

from benchmarks.comparison import Work
from pow.limits import MAX_DIFFICULTY
from pow.mining.chain import block_prefix
from pow.scanning.backends import HASHLIB, scan, supported_backends

PREVIOUS_HASH = "0123456789ABCDEF" * 4
# The usual work: a block after the ninth, and nonces of 10 digits.
PREFIX = block_prefix(12, PREVIOUS_HASH)
DIGITS = 10
FIRST_NONCE = 10 ** (DIGITS - 1)

NATIVE_BACKENDS = tuple(name for name in supported_backends() if name != HASHLIB)
needs_native = pytest.mark.skipif(not NATIVE_BACKENDS, reason="the native extension is not built")

# A range's first hit at this difficulty is some thousand nonces away: quick to find, even for hashlib.
_CHECK_DIFFICULTY = 12
_CHECK_NONCES = 1 << 16
_FIRST_TRY = 1024


def nonces_of(digits: int) -> range:
    """All nonces with so many digits."""
    return range(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def vain_scan(backend: str, prefix: bytes, nonces: range, seconds: float) -> Work:
    """A scan of about so many seconds on one thread: the first nonces of the range, or all of it again and again.

    At a difficulty that nothing meets each nonce has to be tried, but that a scan finds nothing doesn't
    show that it looked; that it finds what hashlib finds does, so that is checked here.
    """
    check_scan(backend, prefix, nonces)
    count, calls = min(_FIRST_TRY, len(nonces)), 1
    while True:
        work = repeat_scan(backend, prefix, nonces[:count], calls)
        # The quicker of two: the other one may have been interrupted.
        took = min(_seconds(work), _seconds(work))
        if took >= seconds / 4:
            break
        if count < len(nonces):
            count = min(2 * count, len(nonces))
        else:
            calls *= 2
    if count < len(nonces):
        count = min(int(count * seconds / took) + 1, len(nonces))
    else:
        calls = int(calls * seconds / took) + 1
    return repeat_scan(backend, prefix, nonces[:count], calls)


def repeat_scan(backend: str, prefix: bytes, nonces: range, calls: int) -> Work:
    """So many scans of the whole range, each of which must find nothing."""
    start, stop, tried = nonces.start, nonces.stop, len(nonces) * calls

    def work() -> int:
        for _ in range(calls):
            assert scan(prefix, start, stop, MAX_DIFFICULTY, backend=backend) is None
        return tried

    return work


def check_scan(backend: str, prefix: bytes, nonces: range) -> None:
    """Fail unless the backend finds in the range what hashlib finds there."""
    stop = min(nonces.stop, nonces.start + _CHECK_NONCES)
    # A short range most likely has a hit too, at a difficulty to match.
    difficulty = min(_CHECK_DIFFICULTY, max((stop - nonces.start).bit_length() - 2, 0))
    wanted = scan(prefix, nonces.start, stop, difficulty, backend=HASHLIB)
    assert scan(prefix, nonces.start, stop, difficulty, backend=backend) == wanted


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
