"""The scan backend without native code: hashlib with a copied midstate.

It runs everywhere and shares no code with the kernels, which makes it their independent check.
"""

import hashlib

# Nonces between two looks at the stop flag: about a millisecond.
_STRIDE = 1024


def scan(prefix: bytes, first: int, last: int, difficulty: int, stop_flag: bytearray | memoryview | None) -> int | None:
    """The smallest hit in [first, last], or None; `stop_flag` is None or a one-byte buffer."""
    flag = memoryview(b"\0" if stop_flag is None else stop_flag).cast("B")
    # A digest has at least `difficulty` leading zero bits exactly when, as a 256-bit number, it is at
    # most this one; bytes of equal length compare like the numbers they spell.
    highest = ((1 << (256 - difficulty)) - 1).to_bytes(32, "big")
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
