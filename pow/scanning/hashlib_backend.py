"""The scan backend without native code: hashlib with a copied midstate.

It runs everywhere and shares no code with the kernels, which makes it their independent check.
"""

import hashlib

# Nonces between two looks at the stop flag: about a millisecond.
_STRIDE = 1024
_DIGEST_BITS = 256


def scan(prefix: bytes, first: int, last: int, difficulty: int, stop_flag: bytearray | memoryview | None) -> int | None:
    """The smallest hit in [first, last], or None; `stop_flag` is None or a one-byte buffer."""
    flag = memoryview(b"\0" if stop_flag is None else stop_flag).cast("B")
    # A digest has at least `difficulty` leading zero bits exactly when, as a 256-bit number, it is at
    # most this one; bytes of equal length compare like the numbers they spell.
    highest = ((1 << (_DIGEST_BITS - difficulty)) - 1).to_bytes(32, "big")
    midstate = hashlib.sha256(prefix)
    for start in range(first, last + 1, _STRIDE):
        if flag[0]:
            return None
        for nonce in range(start, min(start + _STRIDE, last + 1)):
            attempt = midstate.copy()
            attempt.update(b"%d" % nonce)
            if attempt.digest() <= highest:
                return nonce
    return None


def count_zero_bits(prefix: bytes, first: int, last: int) -> list[int]:
    """How many digests of [first, last] have 0, 1, … 256 leading zero bits."""
    counts = [0] * (_DIGEST_BITS + 1)
    midstate = hashlib.sha256(prefix)
    for nonce in range(first, last + 1):
        attempt = midstate.copy()
        attempt.update(b"%d" % nonce)
        counts[_DIGEST_BITS - int.from_bytes(attempt.digest(), "big").bit_length()] += 1
    return counts
