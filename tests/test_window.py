"""The window of ranges of one block: whatever comes back, in whatever order, the smallest nonce is found."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pow.limits import NONCE_STOP
from pow.mining.window import BlockWindow, NonceRange, Pace


def search(searched: NonceRange, hits: list[int], tried: int) -> tuple[bool, int]:
    """What a worker answers that tries so many of the range's nonces: whether it found one, and the next nonce."""
    until = min(searched.start + tried, searched.stop)
    first = next((hit for hit in hits if searched.start <= hit < until), None)
    return (False, until) if first is None else (True, first + 1)


def test_with_one_slice_at_a_time_each_begins_where_the_one_before_ended() -> None:
    window = BlockWindow()
    for start in (0, 1000, 1500):
        searched = window.take(NONCE_STOP)
        assert searched == NonceRange(start, NONCE_STOP)
        assert window.answer(searched, found=False, next_nonce=start + 1000 if start == 0 else start + 500)
    assert window.to_state() == {"next_nonce": 2000, "gaps": [], "hit": None}


def test_ranges_in_search_at_once_lie_side_by_side() -> None:
    window = BlockWindow()
    assert [window.take(10) for _ in range(3)] == [NonceRange(0, 10), NonceRange(10, 20), NonceRange(20, 30)]


def test_what_a_slice_leaves_is_searched_before_anything_higher() -> None:
    window = BlockWindow()
    first, _second, third = (window.take(10), window.take(10), window.take(10))
    assert first is not None
    assert third is not None
    window.answer(third, found=False, next_nonce=25)  # it lay at the upper end: that just moves down
    window.answer(first, found=False, next_nonce=4)
    assert window.take(100) == NonceRange(4, 10)
    assert window.take(100) == NonceRange(25, 125)


def test_a_large_gap_is_handed_out_in_parts() -> None:
    window = BlockWindow(100, [(0, 25)])
    assert [window.take(10) for _ in range(4)] == [(0, 10), (10, 20), (20, 25), (100, 110)]


def test_a_hit_counts_only_when_everything_below_it_has_been_ruled_out() -> None:
    window = BlockWindow()
    low, high = window.take(10), window.take(10)
    assert low is not None
    assert high is not None
    window.answer(high, found=True, next_nonce=16)
    assert window.nonce is None
    window.answer(low, found=False, next_nonce=4)
    assert window.nonce is None
    rest = window.take(10)
    assert rest == NonceRange(4, 10)
    window.answer(rest, found=False, next_nonce=10)
    assert window.nonce == 15


def test_a_lower_hit_replaces_a_higher_one() -> None:
    window = BlockWindow()
    low, high = window.take(10), window.take(10)
    assert low is not None
    assert high is not None
    window.answer(high, found=True, next_nonce=16)
    window.answer(low, found=True, next_nonce=8)
    assert window.nonce == 7


def test_after_a_hit_nothing_above_it_is_handed_out_or_awaited() -> None:
    window = BlockWindow()
    low, middle, high = window.take(10), window.take(10), window.take(10)
    assert low is not None
    assert middle is not None
    assert high is not None
    window.answer(middle, found=True, next_nonce=13)
    assert window.take(10) is None
    assert window.awaited == {low}
    assert not window.answer(high, found=True, next_nonce=25)
    assert window.nonce is None


def test_a_second_answer_does_not_count() -> None:
    window = BlockWindow()
    searched = window.take(10)
    assert searched is not None
    assert window.answer(searched, found=False, next_nonce=4)
    assert not window.answer(searched, found=False, next_nonce=6)
    assert window.to_state() == {"next_nonce": 4, "gaps": [], "hit": None}


def test_a_window_goes_on_from_its_state() -> None:
    state = {"next_nonce": 40, "gaps": [[3, 10], [20, 30]], "hit": 33}
    window = BlockWindow(**state)  # type: ignore[arg-type]
    assert window.to_state() == state
    assert [window.take(100), window.take(100), window.take(100)] == [(3, 10), (20, 30), None]


def test_a_window_that_awaits_answers_has_no_state() -> None:
    window = BlockWindow()
    window.take(10)
    with pytest.raises(AssertionError, match="still being searched"):
        window.to_state()


def test_the_last_nonce_is_the_last_to_be_handed_out() -> None:
    window = BlockWindow(NONCE_STOP - 5)
    searched = window.take(10)
    assert searched == NonceRange(NONCE_STOP - 5, NONCE_STOP)
    window.answer(searched, found=False, next_nonce=NONCE_STOP)
    assert window.take(10) is None
    assert window.nonce is None


@given(
    hits=st.lists(st.integers(0, 3000), min_size=1, unique=True).map(sorted),
    fan_out=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 400), min_size=1),
    seed=st.integers(0, 2**32),
)
def test_any_workers_find_the_smallest_nonce(hits: list[int], fan_out: int, sizes: list[int], seed: int) -> None:
    chance = random.Random(seed)
    window = BlockWindow()
    in_flight: list[NonceRange] = []
    step = 0
    while window.nonce is None:
        while len(window.awaited) < fan_out:
            taken = window.take(sizes[step % len(sizes)])
            step += 1
            if taken is None:
                break
            in_flight.append(taken)
            if chance.random() < 0.2:
                in_flight.append(taken)  # delivered twice
        ended = in_flight.pop(chance.randrange(len(in_flight)))
        # Now and then a worker stops early, maybe before it has tried anything.
        tried = chance.choice([0, 1, 7, 10**6, 10**6])
        found, next_nonce = search(ended, hits, tried)
        window.answer(ended, found=found, next_nonce=next_nonce)
        if not window.awaited and window.nonce is None:
            in_flight.clear()
            window = BlockWindow(**window.to_state())
    assert window.nonce == hits[0]


def test_until_a_slice_has_ended_a_range_is_small() -> None:
    assert Pace().range_nonces(40, 2, 10.0) == 1 << 21


@pytest.mark.parametrize(
    ("difficulty", "fan_out", "nonces"),
    [
        (40, 2, 10_000_000),  # what a worker does in a slice's time
        (26, 2, 2**26 // 32),  # a small part of the block
        (10, 2, 250_000),  # a quarter of a second's worth, however small the block
        (26, 8, 2**26 // 128),
    ],
)
def test_a_range_is_sized_from_the_recorded_rate(difficulty: int, fan_out: int, nonces: int) -> None:
    assert Pace(1e6).range_nonces(difficulty, fan_out, 10.0) == nonces


def test_the_rate_follows_the_slices_and_takes_no_notice_of_tiny_ones() -> None:
    pace = Pace()
    pace.record(10, 0.000001)
    assert pace.rate is None
    pace.record(1_000_000, 1.0)
    assert pace.rate == 1e6
    pace.record(10, 0.000001)
    pace.record(3_000_000, 1.0)
    assert pace.rate == 2e6
