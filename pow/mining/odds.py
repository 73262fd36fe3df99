"""What a job may be expected to take, and with which odds.

A search has no memory: however long a block has been tried, it still takes 2**difficulty nonces on
average from here. Each block's number of nonces is therefore geometric with the chance
p = 2**-difficulty of a hit, and that of n blocks is a sum of n independent ones: negative binomial.
m nonces are enough exactly when among m independent tries there are n hits or more:
P(N <= m) = P(Binomial(m, p) >= n).
"""

import math
import sys

from pow.errors import InvalidArgument

_POLL_SECONDS = (1, 30)

# Chances that differ by less than this share of themselves count as equal. It is more than rounding
# can make out of a thousand blocks, so that a chance which is reached exactly counts as reached.
_ROUNDING = 1e-12
# Terms of a series that no longer change its sum.
_NEGLIGIBLE = 1e-18


def expected_hashes(difficulty: int, blocks: int = 1) -> int:
    """Nonces that so many blocks of that difficulty (leading zero bits) take on average."""
    return blocks << difficulty


def expected_seconds(difficulty: int, blocks: int, rate: float) -> float:
    """Seconds that so many blocks take on average at `rate` nonces a second (more than 0)."""
    return expected_hashes(difficulty, blocks) / rate


def chance_within(hashes: int, difficulty: int, blocks: int = 1) -> float:
    """Chance, 0 to 1, that `hashes` nonces are enough for so many blocks (at least 1).

    Right to some 1e-12 of itself, however small: see `chance_beyond` for one close to 1.
    """
    return _chances(hashes, difficulty, blocks)[0]


def chance_beyond(hashes: int, difficulty: int, blocks: int = 1) -> float:
    """Chance, 0 to 1, that so many blocks take more than `hashes` nonces; as exact as `chance_within`."""
    return _chances(hashes, difficulty, blocks)[1]


def quantile_hashes(chance: float, difficulty: int, blocks: int = 1) -> int:
    """The smallest number of nonces that is enough with at least that chance.

    Raises:
        InvalidArgument: the chance isn't between 0 and 1 (no number of nonces is enough for certain),
            or there are no blocks.
    """
    if not 0 < chance < 1:
        raise InvalidArgument(f"chance must be a number above 0 and below 1, not {chance!r}")
    if blocks < 1:
        raise InvalidArgument(f"blocks must be an integer of at least 1, not {blocks!r}")

    def enough(hashes: int) -> bool:
        within, beyond = _chances(hashes, difficulty, blocks)
        # By the smaller of the two, which is the exact one.
        if chance <= 0.5:
            return within >= chance * (1 - _ROUNDING)
        return beyond <= (1 - chance) * (1 + _ROUNDING)

    most = expected_hashes(difficulty, blocks)
    while not enough(most):
        most *= 2
    while enough(most // 2):
        most //= 2
    too_few = most // 2
    while most - too_few > 1:
        middle = (too_few + most) // 2
        if enough(middle):
            most = middle
        else:
            too_few = middle
    return most


def chance_within_seconds(seconds: float, difficulty: int, blocks: int, rate: float) -> float:
    """Chance, 0 to 1, that so many blocks are mined within `seconds` at `rate` nonces a second."""
    # A product too large for a float is still no more than that: enough for anything.
    return chance_within(int(min(seconds * rate, sys.float_info.max)), difficulty, blocks)


def quantile_seconds(chance: float, difficulty: int, blocks: int, rate: float) -> float:
    """Seconds that are enough with at least that chance, at `rate` nonces a second.

    Raises:
        InvalidArgument: the chance isn't between 0 and 1, or there are no blocks.
    """
    return quantile_hashes(chance, difficulty, blocks) / rate


def median_seconds(difficulty: int, blocks: int, rate: float) -> float:
    """Seconds that half of such jobs take at most, at `rate` nonces a second."""
    return quantile_seconds(0.5, difficulty, blocks, rate)


def percentile_95_seconds(difficulty: int, blocks: int, rate: float) -> float:
    """Seconds that 95 of a hundred such jobs take at most, at `rate` nonces a second."""
    return quantile_seconds(0.95, difficulty, blocks, rate)


def poll_after_seconds(expected_seconds_left: float) -> int:
    """When to ask again: half the expected time, since half of the searches end sooner than 0.7 of it.

    Whole seconds, 1 to 30.
    """
    shortest, longest = _POLL_SECONDS
    return round(min(max(expected_seconds_left / 2, shortest), longest))


def _chances(hashes: int, difficulty: int, blocks: int) -> tuple[float, float]:
    """The chances that so many nonces are enough, and that they aren't.

    The smaller one is summed up, since subtracting the larger one from 1 would leave nothing of it.
    """
    if hashes < blocks:
        return 0.0, 1.0
    # A thousand times the expected number: Chernoff's bound on what is left is below the smallest float.
    if difficulty == 0 or hashes >= expected_hashes(difficulty + 10, blocks):
        return 1.0, 0.0
    if hashes < expected_hashes(difficulty, blocks):
        within = _chance_of_hits(blocks, hashes, difficulty) * _sum_of_more_hits(blocks, hashes, difficulty)
        return within, 1 - within
    beyond = _chance_of_hits(blocks - 1, hashes, difficulty) * _sum_of_fewer_hits(blocks - 1, hashes, difficulty)
    return 1 - beyond, beyond


def _chance_of_hits(hits: int, hashes: int, difficulty: int) -> float:
    """Chance of exactly so many hits: C(m, k) p**k (1-p)**(m-k), by its logarithm, which can't overflow."""
    # The quotients of integers are exact to the last bit and near 1 where it matters; differences of
    # log-gamma would lose all digits, since m has up to eighty.
    logs = (math.log((hashes - i) / ((hits - i) << difficulty)) for i in range(hits))
    return math.exp(math.fsum(logs) + (hashes - hits) * math.log1p(-(2.0**-difficulty)))


def _sum_of_more_hits(hits: int, hashes: int, difficulty: int) -> float:
    """Chance of so many hits or more over the chance of exactly so many; few terms where it is below a half."""
    term = total = 1.0
    misses_per_hit = (1 << difficulty) - 1
    while term > total * _NEGLIGIBLE and hits < hashes:
        term *= (hashes - hits) / ((hits + 1) * misses_per_hit)
        total += term
        hits += 1
    return total


def _sum_of_fewer_hits(hits: int, hashes: int, difficulty: int) -> float:
    """Chance of so many hits or fewer over the chance of exactly so many; few terms where it is below a half."""
    term = total = 1.0
    misses_per_hit = (1 << difficulty) - 1
    while term > total * _NEGLIGIBLE and hits > 0:
        term *= hits * misses_per_hit / (hashes - hits + 1)
        total += term
        hits -= 1
    return total
