"""Expected hashes and seconds, and when to ask again."""

import math

import pytest

from pow.odds import expected_hashes, expected_seconds, poll_after_seconds


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
