"""The window of ranges of one block: whatever comes back, in whatever order, the smallest nonce is found."""

import random
from collections.abc import Collection
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pow.limits import NONCE_STOP
from pow.mining.window import BlockWindow, NonceRange, range_nonces, updated_rate


def next_ranges(
    window: BlockWindow, nonces: int, most: int, in_search: Collection[NonceRange] = ()
) -> list[tuple[int, int]]:
    return [(found.start, found.stop) for found, _ in islice(window.next_ranges(in_search, nonces), most)]


def search(searched: NonceRange, hits: list[int], tried: int) -> tuple[bool, int]:
    """What a worker answers that tries so many of the range's nonces: whether it found one, and the next nonce."""
    until = min(searched.start + tried, searched.stop)
    first = next((hit for hit in hits if searched.start <= hit < until), None)
    return (False, until) if first is None else (True, first + 1)


def test_with_one_worker_each_range_begins_where_the_one_before_ended() -> None:
    window = BlockWindow()
    for start, stop in ((0, 1000), (1000, 1500), (1500, 2000)):
        assert next_ranges(window, NONCE_STOP, 2) == [(start, NONCE_STOP)]
        assert window.add(start, stop, found=False) == stop - start
    assert window.tried == [(0, 2000)]


def test_ranges_in_search_at_once_lie_side_by_side() -> None:
    assert next_ranges(BlockWindow(), 10, 3) == [(0, 10), (10, 20), (20, 30)]
    assert next_ranges(BlockWindow(), 10, 2, [NonceRange(10, 20)]) == [(0, 10), (20, 30)]


def test_what_a_slice_leaves_is_searched_before_anything_higher() -> None:
    window = BlockWindow()
    window.add(20, 25, found=False)
    window.add(0, 4, found=False)
    assert next_ranges(window, 100, 2, [NonceRange(10, 20)]) == [(4, 10), (25, 125)]


def test_a_large_gap_is_handed_out_in_parts_that_say_so() -> None:
    window = BlockWindow([(25, 100)])
    assert [*islice(window.next_ranges([], 10), 4)] == [
        ((0, 10), True),
        ((10, 20), True),
        ((20, 25), False),
        ((100, 110), False),
    ]


def test_nothing_is_handed_out_across_a_mark_until_both_sides_were_tried() -> None:
    window = BlockWindow([(0, 4), (30, 40)])
    window.mark(10)
    assert next_ranges(window, 100, 3) == [(4, 10), (10, 30), (40, 140)]
    window.add(4, 12, found=False)
    assert window.tried == [(0, 12), (30, 40)]


def test_a_hit_counts_only_when_everything_below_it_was_tried() -> None:
    window = BlockWindow()
    window.add(10, 16, found=True)
    window.add(0, 4, found=False)
    assert window.nonce is None
    assert next_ranges(window, 10, 3) == [(4, 10)]
    window.add(4, 10, found=False)
    assert window.nonce == 15


def test_a_hit_at_the_first_nonce_counts_at_once() -> None:
    window = BlockWindow()
    window.add(0, 1, found=True)
    assert window.nonce == 0


@pytest.mark.parametrize("order", [(15, 7), (7, 15)])
def test_the_lower_one_of_two_hits_counts(order: tuple[int, int]) -> None:
    window = BlockWindow()
    for hit in order:
        window.add(10 if hit == 15 else 0, hit + 1, found=True)
    assert window.nonce == 7


def test_after_a_hit_nothing_above_it_matters() -> None:
    low, middle, high = NonceRange(0, 10), NonceRange(10, 20), NonceRange(20, 30)
    window = BlockWindow()
    window.add(middle.start, 13, found=True)
    assert window.matters(low)
    assert not window.matters(middle)
    assert not window.matters(high)
    assert next_ranges(window, 10, 3, [low]) == []
    assert window.add(high.start, 25, found=True) == 0
    assert (window.hit, window.tried) == (12, [(10, 13)])


def test_only_what_is_new_of_an_answer_counts() -> None:
    window = BlockWindow()
    assert window.add(0, 10, found=False) == 10
    assert window.add(0, 10, found=False) == 0
    assert window.add(5, 12, found=False) == 2
    assert not window.matters(NonceRange(0, 12))


def test_a_window_goes_on_from_what_was_tried() -> None:
    window = BlockWindow([(0, 3), (10, 20), (30, 34)], 33)
    assert next_ranges(window, 100, 3) == [(3, 10), (20, 30)]


def test_the_last_nonce_is_the_last_to_be_handed_out() -> None:
    window = BlockWindow([(0, NONCE_STOP - 5)])
    assert next_ranges(window, 10, 2) == [(NONCE_STOP - 5, NONCE_STOP)]
    window.add(NONCE_STOP - 5, NONCE_STOP, found=False)
    assert next_ranges(window, 10, 2) == []
    assert window.nonce is None


# The clock of a busy machine says nothing about it.
@settings(deadline=None)
@given(
    hits=st.lists(st.integers(0, 3000), min_size=1, unique=True).map(sorted),
    workers=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 400), min_size=1),
    seed=st.integers(0, 2**32),
)
def test_any_workers_find_the_smallest_nonce(hits: list[int], workers: int, sizes: list[int], seed: int) -> None:
    chance = random.Random(seed)
    window = BlockWindow()
    in_search: list[NonceRange] = []
    step = 0
    while window.nonce is None:
        wanted = [searched for searched in in_search if window.matters(searched)]
        while len(wanted) < workers:
            size, step = sizes[step % len(sizes)], step + 1
            taken = next(window.next_ranges(wanted, size), None)
            if taken is None:
                break
            assert not any(taken[0].start < other.stop and other.start < taken[0].stop for other in wanted)
            wanted.append(taken[0])
            in_search += [taken[0]] * chance.choice([1, 1, 1, 2])  # now and then delivered twice
        ended = in_search.pop(chance.randrange(len(in_search)))
        # Now and then a worker stops early, maybe before it has tried anything.
        found, next_nonce = search(ended, hits, chance.choice([0, 1, 7, 10**6, 10**6]))
        window.add(ended.start, next_nonce, found=found)
        if chance.random() < 0.1:
            # A crash: what was in search is lost, what was tried is known.
            in_search.clear()
            window = BlockWindow(window.tried, window.hit)
    assert window.nonce == hits[0]


def test_until_a_slice_has_ended_a_range_is_small() -> None:
    assert range_nonces(None, 40, 2) == 1 << 21


@pytest.mark.parametrize(
    ("difficulty", "width", "nonces"),
    [
        (40, 2, 10_000_000),  # what a worker does in ten seconds
        (26, 2, 2**26 // 32),  # a small part of the block
        (10, 2, 250_000),  # a quarter of a second's worth, however small the block
        (26, 8, 2**26 // 128),
    ],
)
def test_a_range_is_sized_from_the_rate(difficulty: int, width: int, nonces: int) -> None:
    assert range_nonces(1e6, difficulty, width) == nonces


def test_the_rate_follows_the_slices_and_takes_no_notice_of_tiny_ones() -> None:
    rate = updated_rate(None, 10, 0.000001)
    assert rate is None
    rate = updated_rate(rate, 1_000_000, 1.0)
    assert rate == 1e6
    rate = updated_rate(rate, 10, 0.000001)
    rate = updated_rate(rate, 3_000_000, 1.0)
    assert rate == 2e6
    assert updated_rate(rate, 3_000_000, 0.0) == 2e6
