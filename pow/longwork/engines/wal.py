"""Whether a SQLite write-ahead log has been damaged: SQLite itself drops what it can't read, and says nothing.

The log's format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
from pathlib import Path

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_MAGIC = 0x377F0682  # of checksums over little-endian words; the next number is that of big-endian ones
_PAGE_SIZES = frozenset(1 << bits for bits in range(9, 17))


def damage(path: Path) -> str | None:
    """What is wrong with the log at a path, in a few words; None when nothing is, or there is none.

    A process that is killed leaves whole frames, and maybe a last one that isn't: that is no damage. Frames that
    follow a wrong one were written, and are lost.

    Raises:
        OSError: it can't be read.
    """
    try:
        log = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(log) < _HEADER_BYTES + _FRAME_HEADER_BYTES:
        return None
    magic, _, page_size, _, salt_1, salt_2, sum_1, sum_2 = struct.unpack_from(">8I", log)
    words = ">" if magic == _MAGIC + 1 else "<"
    if magic not in (_MAGIC, _MAGIC + 1) or page_size not in _PAGE_SIZES:
        return "its header is no header"
    if _checksum(words, log[:24], (0, 0)) != (sum_1, sum_2):
        return "its header's checksum is wrong"
    frame_bytes = _FRAME_HEADER_BYTES + page_size
    sums = (sum_1, sum_2)
    wrong: int | None = None
    for number, start in enumerate(range(_HEADER_BYTES, len(log) - frame_bytes + 1, frame_bytes)):
        _, _, frame_salt_1, frame_salt_2, *found = struct.unpack_from(">6I", log, start)
        if (frame_salt_1, frame_salt_2) != (salt_1, salt_2):
            # From before the log was begun anew, unless frames of this log follow.
            wrong = number if wrong is None else wrong
            continue
        if wrong is not None:
            return f"its frame {wrong} is wrong, and frames follow"
        page = log[start + _FRAME_HEADER_BYTES : start + frame_bytes]
        sums = _checksum(words, log[start : start + 8] + page, sums)
        if sums != tuple(found):
            wrong = number
    return None


def _checksum(words: str, content: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    sum_1, sum_2 = sums
    for first, second in struct.iter_unpack(f"{words}2I", content):
        sum_1 = (sum_1 + first + sum_2) & 0xFFFFFFFF
        sum_2 = (sum_2 + second + sum_1) & 0xFFFFFFFF
    return sum_1, sum_2
