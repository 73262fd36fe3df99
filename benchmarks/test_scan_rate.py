"""The rate of `scan` on one thread, for each backend of this machine, against hashlib with a copied midstate.

The work is that of a block after the ninth: SHA-256("12:" + 64 hex digits + ":" + 10-digit nonce), at a
difficulty that never hits. hashlib is measured against itself too: how far that is from 1 is the noise.
"""

from collections.abc import Callable
from functools import partial

import pytest

from pow.chain import MAX_DIFFICULTY, block_prefix
from pow.pool import MinerPool
from pow.scanning import HASHLIB, scan, supported_backends

PREFIX = block_prefix(12, "0123456789ABCDEF" * 4)
FIRST_NONCE = 10**9
# Long enough that the call itself costs nothing, short enough that a pair sees the same machine.
SECONDS = 0.3
KNOWN_DIFFICULTY = 16
# What the readable C kernel has to reach to be worth building.
TARGETS = {"portable": 4.0}

Compare = Callable[[str, Callable[[], int], str, Callable[[], int], float | None], None]


@pytest.mark.benchmark(group="scan")
@pytest.mark.parametrize("backend", supported_backends())
def test_scan(backend: str, compare: Compare) -> None:
    # That a scan finds nothing doesn't show that it looked; that it finds what hashlib finds does.
    known = scan(PREFIX, FIRST_NONCE, FIRST_NONCE + (1 << 24), KNOWN_DIFFICULTY, backend=HASHLIB)
    assert known is not None
    assert scan(PREFIX, FIRST_NONCE, known + 1, KNOWN_DIFFICULTY, backend=backend) == known

    compare(
        f"scan, {backend}",
        partial(scan_in_vain, backend, nonces_in(SECONDS, backend)),
        f"scan, {HASHLIB}",
        partial(scan_in_vain, HASHLIB, nonces_in(SECONDS, HASHLIB)),
        TARGETS.get(backend),
    )


def scan_in_vain(backend: str, nonces: int) -> int:
    """Scan so many nonces; None is the answer only when each of them was tried."""
    assert scan(PREFIX, FIRST_NONCE, FIRST_NONCE + nonces, MAX_DIFFICULTY, backend=backend) is None
    return nonces


def nonces_in(seconds: float, backend: str) -> int:
    """Roughly how many nonces one thread tries in that time."""
    with MinerPool(threads=1, backend=backend) as pool:
        return int(pool.rate * seconds)
