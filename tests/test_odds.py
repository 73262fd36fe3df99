"""Expected hashes and seconds, the law of both, and when to ask again.

The law is tested against what it is not computed by: sums of the negative binomial probabilities in
exact fractions, the closed form for one block, and the Erlang law that it tends to.
"""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pow.errors import InvalidArgument
from pow.mining.odds import (
    chance_beyond,
    chance_within,
    chance_within_seconds,
    expected_hashes,
    expected_seconds,
    median_seconds,
    percentile_95_seconds,
    poll_after_seconds,
    quantile_hashes,
    quantile_seconds,
)

# What a thousand blocks' chance may be wrong by, as a share of itself.
ROUNDING = 1e-12

difficulties = st.integers(0, 256)
block_counts = st.integers(1, 1000)
# Around the expected number of nonces, from far too few to far more than enough.
shares = st.fractions(Fraction(1, 1000), 8)


def exact_chance_within(hashes: int, difficulty: int, blocks: int) -> Fraction:
    """P(N = k) = C(k-1, n-1) p**n (1-p)**(k-n), the n-th hit at try k, summed up to so many hashes."""
    hit = Fraction(1, 2**difficulty)
    return sum(
        (math.comb(k - 1, blocks - 1) * hit**blocks * (1 - hit) ** (k - blocks) for k in range(blocks, hashes + 1)),
        start=Fraction(0),
    )


@pytest.mark.parametrize(
    ("difficulty", "blocks", "hashes"),
    [(0, 1, 1), (1, 1, 2), (8, 1, 256), (8, 4, 1024), (21, 4, 2**23), (40, 64, 2**46), (20, 0, 0)],
)
def test_a_block_takes_two_to_the_difficulty_hashes_on_average(difficulty: int, blocks: int, hashes: int) -> None:
    assert expected_hashes(difficulty, blocks) == hashes


def test_one_block_is_meant_when_no_number_is_given() -> None:
    assert expected_hashes(21) == 2**21


def test_the_hardest_chain_is_counted_exactly() -> None:
    assert expected_hashes(256, 1000) == 1000 * 2**256


@pytest.mark.parametrize(
    ("difficulty", "blocks", "rate", "seconds"),
    [(20, 4, 2.0**22, 1.0), (20, 4, 2.0**20, 4.0), (21, 4, 2.0**22, 2.0), (21, 0, 1e6, 0.0), (0, 1, 0.5, 2.0)],
)
def test_expected_seconds_are_the_hashes_over_the_rate(
    difficulty: int, blocks: int, rate: float, seconds: float
) -> None:
    assert expected_seconds(difficulty, blocks, rate) == seconds


def test_even_the_hardest_chain_has_an_expected_time() -> None:
    assert math.isfinite(expected_seconds(256, 1000, 1.0))


@pytest.mark.parametrize(
    ("left", "poll"),
    [
        (0.0, 1),
        (0.001, 1),
        (2.0, 1),
        (2.9, 1),
        (3.1, 2),
        (8.0, 4),
        (20.0, 10),
        (59.9, 30),
        (60.0, 30),
        (61.0, 30),
        (1e9, 30),
        (1e300, 30),
    ],
)
def test_an_agent_asks_again_after_half_the_time_from_1_to_30_seconds(left: float, poll: int) -> None:
    after = poll_after_seconds(left)
    assert after == poll
    assert type(after) is int


@pytest.mark.parametrize("difficulty", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("blocks", [1, 2, 4, 7])
def test_the_chances_are_those_of_the_negative_binomial_law(difficulty: int, blocks: int) -> None:
    for hashes in (*range(blocks + 6), 20, 33, 64, 100, 250):
        exact = exact_chance_within(hashes, difficulty, blocks)

        assert chance_within(hashes, difficulty, blocks) == pytest.approx(float(exact), rel=ROUNDING, abs=0)
        assert chance_beyond(hashes, difficulty, blocks) == pytest.approx(float(1 - exact), rel=ROUNDING, abs=0)


@pytest.mark.parametrize("difficulty", [1, 8, 24, 40, 64, 128, 256])
@pytest.mark.parametrize("share", [Fraction(1, 2**20), Fraction(1, 100), Fraction(1), Fraction(3), Fraction(300)])
def test_one_blocks_law_is_geometric(difficulty: int, share: Fraction) -> None:
    hashes = int(expected_hashes(difficulty) * share)
    log_of_all_misses = hashes * math.log1p(-(2.0**-difficulty))

    assert chance_within(hashes, difficulty) == pytest.approx(-math.expm1(log_of_all_misses), rel=ROUNDING, abs=0)
    assert chance_beyond(hashes, difficulty) == pytest.approx(math.exp(log_of_all_misses), rel=ROUNDING, abs=0)


@pytest.mark.parametrize("difficulty", [64, 100, 256])
@pytest.mark.parametrize("blocks", [1, 4, 30, 1000])
@pytest.mark.parametrize("share", [0.25, 0.75, 0.95, 1.0, 1.05, 1.25, 3.0])
def test_at_high_difficulty_the_law_is_erlangs(difficulty: int, blocks: int, share: float) -> None:
    hits = Fraction(share) * blocks  # expected among so many hashes

    def poisson(count: int) -> float:
        return math.exp(count * math.log(hits) - float(hits) - math.lgamma(count + 1))

    within, beyond = (
        chance(int(hits * 2**difficulty), difficulty, blocks) for chance in (chance_within, chance_beyond)
    )

    assert within == pytest.approx(math.fsum(map(poisson, range(blocks, blocks + 4000))), rel=1e-10, abs=0)
    assert beyond == pytest.approx(math.fsum(map(poisson, range(blocks))), rel=1e-10, abs=0)


def test_the_far_tails_keep_their_size() -> None:
    assert chance_within(1000, 1, 1000) == pytest.approx(2.0**-1000, rel=ROUNDING, abs=0)
    assert chance_beyond(1000, 1, 1) == pytest.approx(2.0**-1000, rel=ROUNDING, abs=0)
    assert chance_within(1, 256, 1) == pytest.approx(2.0**-256, rel=ROUNDING, abs=0)
    assert chance_beyond(700 * 2**256, 256, 1) == pytest.approx(math.exp(-700), rel=ROUNDING, abs=0)


@pytest.mark.parametrize("hashes", [2**256 * 10**9, 10**400])
def test_no_number_of_hashes_is_too_large(hashes: int) -> None:
    for difficulty in (0, 1, 256):
        assert chance_within(hashes, difficulty, 1000) == 1.0
        assert chance_beyond(hashes, difficulty, 1000) == 0.0


@pytest.mark.parametrize("blocks", [1, 4, 1000])
def test_at_difficulty_0_every_nonce_is_a_hit(blocks: int) -> None:
    assert chance_within(blocks - 1, 0, blocks) == 0.0
    assert chance_within(blocks, 0, blocks) == 1.0
    assert quantile_hashes(0.000001, 0, blocks) == quantile_hashes(0.999999, 0, blocks) == blocks


@pytest.mark.parametrize(("difficulty", "blocks"), [(0, 3), (1, 1), (3, 4), (5, 10)])
def test_the_law_has_the_expected_number_of_hashes_as_its_mean(difficulty: int, blocks: int) -> None:
    mean = math.fsum(chance_beyond(hashes, difficulty, blocks) for hashes in range(60 * blocks << difficulty))

    assert mean == pytest.approx(expected_hashes(difficulty, blocks), rel=ROUNDING)


@given(difficulties, block_counts, shares)
def test_the_chances_are_chances_and_complement_each_other(difficulty: int, blocks: int, share: Fraction) -> None:
    hashes = int(expected_hashes(difficulty, blocks) * share)
    within, beyond = chance_within(hashes, difficulty, blocks), chance_beyond(hashes, difficulty, blocks)

    assert 0 <= within <= 1
    assert 0 <= beyond <= 1
    assert within + beyond == pytest.approx(1, abs=1e-15)


@given(difficulties, block_counts, shares, shares)
def test_more_hashes_fewer_blocks_and_less_difficulty_never_lower_the_chance(
    difficulty: int, blocks: int, share: Fraction, other: Fraction
) -> None:
    few, many = sorted(int(expected_hashes(difficulty, blocks) * part) for part in (share, other))
    chance = chance_within(few, difficulty, blocks) * (1 - ROUNDING)

    assert chance <= chance_within(many, difficulty, blocks)
    assert chance <= chance_within(few, difficulty, max(1, blocks - 1))
    assert chance <= chance_within(few, max(0, difficulty - 1), blocks)


@pytest.mark.parametrize("difficulty", [0, 1, 2, 4])
@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("chance", [2.0**-40, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999, 1 - 2.0**-40])
def test_a_quantile_is_the_smallest_number_that_is_enough(difficulty: int, blocks: int, chance: float) -> None:
    hashes = quantile_hashes(chance, difficulty, blocks)

    assert exact_chance_within(hashes, difficulty, blocks) >= Fraction(chance)
    assert exact_chance_within(hashes - 1, difficulty, blocks) < Fraction(chance)


@pytest.mark.parametrize("blocks", [1, 2, 6, 8, 11, 66, 1000])
def test_a_chance_that_is_reached_exactly_is_reached_whatever_the_rounding(blocks: int) -> None:
    # Of 2n - 1 tosses of a coin n or more are heads as often as not.
    assert quantile_hashes(0.5, 1, blocks) == 2 * blocks - 1


# No deadline: of a thousand blocks a quantile takes a quarter of a second.
@settings(deadline=None)
@given(difficulties, block_counts, st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_quantile_is_where_the_chance_is_reached(difficulty: int, blocks: int, chance: float) -> None:
    hashes = quantile_hashes(chance, difficulty, blocks)

    assert hashes >= blocks
    if chance <= 0.5:
        assert chance_within(hashes, difficulty, blocks) >= chance * (1 - ROUNDING)
        assert chance_within(hashes - 1, difficulty, blocks) < chance
    else:
        assert chance_beyond(hashes, difficulty, blocks) <= (1 - chance) * (1 + ROUNDING)
        assert chance_beyond(hashes - 1, difficulty, blocks) > 1 - chance


def test_half_of_the_blocks_end_before_seven_tenths_of_the_expected_time() -> None:
    assert median_seconds(40, 1, 1e6) == pytest.approx(math.log(2) * expected_seconds(40, 1, 1e6))


def test_one_block_in_twenty_takes_three_times_the_expected_time() -> None:
    assert percentile_95_seconds(40, 1, 1e6) == pytest.approx(math.log(20) * expected_seconds(40, 1, 1e6))


def test_only_whole_nonces_count_towards_the_chance_in_seconds() -> None:
    assert chance_within_seconds(3.999, 1, 1, 1.0) == chance_within(3, 1) == 0.875
    assert chance_within_seconds(4.0, 1, 1, 1.0) == 0.9375


@pytest.mark.parametrize("seconds", [1e308, math.inf])
def test_no_time_is_too_long(seconds: float) -> None:
    assert chance_within_seconds(seconds, 256, 1000, 1e12) == 1.0


def test_a_quantile_in_seconds_is_its_hashes_over_the_rate() -> None:
    assert quantile_seconds(0.3, 20, 4, 1e6) == quantile_hashes(0.3, 20, 4) / 1e6
    assert chance_within_seconds(quantile_seconds(0.3, 20, 4, 1e6), 20, 4, 1e6) == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize("chance", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf])
def test_a_chance_that_no_number_of_hashes_has_is_an_error(chance: float) -> None:
    with pytest.raises(InvalidArgument, match=r"chance must be a number above 0 and below 1, not "):
        quantile_hashes(chance, 20, 4)


def test_the_quantile_of_no_blocks_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="blocks must be an integer of at least 1, not 0"):
        quantile_hashes(0.5, 20, 0)
