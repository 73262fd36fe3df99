"""What numbers may be: limits that several rooms share, and the check of a difficulty."""

from pow.errors import InvalidArgument

# SHA-256 has no more bits.
MAX_DIFFICULTY = 256
MAX_NONCE = 2**64 - 1
# Half-open ranges end here at the latest, so that the last 64-bit nonce can be reached.
NONCE_STOP = MAX_NONCE + 1
# Of a chain, unless asked otherwise.
DEFAULT_BLOCKS = 4
MAX_THREADS = 1024
# More slices of one work at once than anybody has machines.
MAX_FAN_OUT = 64


def check_difficulty(value: int) -> int:
    """`value` itself, if it is a number of bits that SHA-256 has.

    Raises:
        InvalidArgument: it isn't an integer from 0 to 256.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DIFFICULTY:
        raise InvalidArgument(f"difficulty must be an integer from 0 to {MAX_DIFFICULTY}, not {value!r}")
    return value
