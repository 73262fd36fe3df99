"""Count digests by their leading zero bits: the statistics behind a difficulty.

Needs numpy, the extra "stats". It is imported only when something is counted, so that without it one sentence
says what is missing.
"""

from typing import TYPE_CHECKING

from pow.errors import PowError
from pow.scanning.backends import active_backend, check_prefix, check_range

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Nonces between two chances for Ctrl-C: a second or less on anything but hashlib.
_STRIDE = 1 << 22
_BIT_COUNTS = 257


def leading_zero_histogram(prefix: bytes, start: int, stop: int, *, backend: str | None = None) -> "NDArray[np.uint64]":
    """Count the digests SHA-256(prefix + decimal n), start <= n < stop, by how many zero bits they start with.

    A digest has exactly z leading zero bits with a chance of 2**-(z + 1), so the counts of a good hash follow
    a geometric law. One pass on one thread, without the GIL, at a fraction of the speed of `scan`.

    Args:
        prefix: 0 to 4096 bytes, hashed before the nonce.
        start: first nonce, 0 to 2**64.
        stop: one past the last nonce, start to 2**64.
        backend: a name out of `supported_backends()`; None or "auto" for POW_BACKEND, else the fastest.

    Returns:
        257 counts, of 0, 1, … 256 leading zero bits; their sum is stop - start.

    Raises:
        InvalidArgument: an argument is out of range or of the wrong kind.
        BackendError: the backend is unknown or can't be used here.
        PowError: numpy can't be imported.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise PowError(
            f"leading_zero_histogram needs numpy, which can't be imported ({error}); "
            "to install it: pip install 'pow-mcp[stats]'"
        ) from error

    check_prefix(prefix)
    check_range(start, stop)
    count = active_backend(backend).counter
    counts = np.zeros(_BIT_COUNTS, dtype=np.uint64)
    for first in range(start, stop, _STRIDE):
        counts += np.array(count(prefix, first, min(first + _STRIDE, stop) - 1), dtype=np.uint64)
    return counts
