"""What a job may be expected to take.

A search has no memory: however long a block has been tried, it still takes 2**difficulty nonces on
average from here.
"""

_POLL_SECONDS = (1, 30)


def expected_hashes(difficulty: int, blocks: int = 1) -> int:
    """Nonces that so many blocks of that difficulty (leading zero bits) take on average."""
    return blocks << difficulty


def expected_seconds(difficulty: int, blocks: int, rate: float) -> float:
    """Seconds that so many blocks take on average at `rate` nonces a second (more than 0)."""
    return expected_hashes(difficulty, blocks) / rate


def poll_after_seconds(expected_seconds_left: float) -> int:
    """When to ask again: half the expected time, since half of the searches end sooner than 0.7 of it.

    Whole seconds, 1 to 30.
    """
    shortest, longest = _POLL_SECONDS
    return round(min(max(expected_seconds_left / 2, shortest), longest))
