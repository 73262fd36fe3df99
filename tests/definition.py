"""What scans and counts are checked against: the definition with hashlib, one whole message at a time.

And the seed of random cases: each run has another one, which its header and its failures show.
"""

import hashlib
import os
import random
from functools import cache

SEED_VARIABLE = "POW_TEST_SEED"


def zero_bits(prefix: bytes, nonce: int) -> int:
    """How many zero bits SHA-256(prefix + decimal nonce) starts with."""
    digest = hashlib.sha256(prefix + b"%d" % nonce).digest()
    return 256 - int.from_bytes(digest, "big").bit_length()


@cache
def all_zero_bits(prefix: bytes, start: int, stop: int) -> list[int]:
    """The zero bits of each nonce of [start, stop)."""
    return [zero_bits(prefix, nonce) for nonce in range(start, stop)]


@cache
def seed() -> str:
    """The seed of this run's random cases: the environment's, else a new one."""
    return os.environ.get(SEED_VARIABLE) or str(random.SystemRandom().getrandbits(32))
