"""Every scan backend gives the smallest nonce of its range, whatever the range, the prefix and the difficulty.

The oracle is the definition (definition.py). `every_hit` asks a backend again behind each hit, so that ranges
begin at every place of a vector and of a group of digits. Long batches, for which difficulties must be higher
than here, are test_batches.py's.
"""

import hashlib
import threading
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from definition import all_zero_bits, zero_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from pow.errors import InvalidArgument
from pow.scanning.backends import scan, supported_backends

each_backend = pytest.mark.parametrize("backend", supported_backends())

GENESIS = b"1:GENESIS:"
# The most lanes that a backend may have; fewer of them see several batches in the same range.
WIDEST = 32
LAST = 2**64 - 1


@cache
def oracle(prefix: bytes, start: int, stop: int, difficulty: int) -> list[int]:
    """Every hit of [start, stop), by the definition."""
    return [start + i for i, bits in enumerate(all_zero_bits(prefix, start, stop)) if bits >= difficulty]


def every_hit(backend: str, prefix: bytes, start: int, stop: int, difficulty: int) -> list[int]:
    """Every hit of [start, stop), by asking the backend for the first one again and again."""
    hits: list[int] = []
    while (hit := scan(prefix, start, stop, difficulty, backend=backend)) is not None:
        hits.append(hit)
        start = hit + 1
    return hits


def genesis_hits() -> list[int]:
    """Some 1200 hits of difficulty 8: far enough apart that most groups of a hundred have none."""
    return oracle(GENESIS, 0, 300_000, 8)


def test_the_oracle_counts_leading_zero_bits() -> None:
    assert zero_bits(GENESIS, 251) == 10
    assert hashlib.sha256(b"1:GENESIS:251").hexdigest().startswith("00347db6")


# --- ranges


@each_backend
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 99, 100, 101, 200, 201])
def test_a_range_of_any_length_is_searched_and_nothing_beside_it(backend: str, length: int) -> None:
    for start in (0, 5, 8, 95, 96, 99, 100, 9_990, 123_456):
        stop = start + length
        assert every_hit(backend, GENESIS, start, stop, 2) == oracle(GENESIS, start, stop, 2)


@each_backend
def test_an_empty_range_holds_nothing_even_at_difficulty_0(backend: str) -> None:
    for nonce in (0, 1, 100, 2**32, LAST, 2**64):
        assert scan(GENESIS, nonce, nonce, 0, backend=backend) is None


@each_backend
def test_a_range_of_one_holds_its_nonce(backend: str) -> None:
    for nonce in (0, 9, 10, 99, 100, 2**32, 10**19 - 1, 10**19, LAST):
        assert scan(GENESIS, nonce, nonce + 1, 0, backend=backend) == nonce


@each_backend
def test_hits_just_outside_either_end_are_not_reported(backend: str) -> None:
    hits = genesis_hits()
    for before, after in pairwise(hits[:300]):
        assert scan(GENESIS, before + 1, after, 8, backend=backend) is None
        assert scan(GENESIS, before + 1, after + 1, 8, backend=backend) == after
        assert scan(GENESIS, before, after, 8, backend=backend) == before


@each_backend
def test_a_long_range_is_searched_from_hit_to_hit(backend: str) -> None:
    assert every_hit(backend, GENESIS, 0, 300_000, 8) == genesis_hits()


# --- places in a vector and in a group of a hundred


@each_backend
@pytest.mark.parametrize("lane", range(WIDEST + 1))
def test_a_hit_is_found_in_each_lane(backend: str, lane: int) -> None:
    hits = genesis_hits()
    alone = [hit for before, hit in pairwise(hits) if hit - before > WIDEST + 1]
    # The last ones of a group too: their vectors reach past the group's end.
    for hit in [*alone[:50], *(hit for hit in alone if hit % 100 > 95)]:
        assert scan(GENESIS, hit - lane, hit - lane + WIDEST + 1, 8, backend=backend) == hit
        assert scan(GENESIS, hit - lane, hit + 1, 8, backend=backend) == hit
        assert scan(GENESIS, hit - lane, hit, 8, backend=backend) is None


@each_backend
@pytest.mark.parametrize("place", range(100))
def test_a_hit_is_found_at_each_place_of_a_group_of_a_hundred(backend: str, place: int) -> None:
    first_hits = {hit // 100: hit for hit in reversed(genesis_hits())}
    hit = next(hit for hit in first_hits.values() if hit % 100 == place)
    assert scan(GENESIS, hit - place, hit - place + 100, 8, backend=backend) == hit


@each_backend
@pytest.mark.parametrize("gap", range(1, WIDEST))
def test_of_two_hits_in_one_vector_the_smaller_wins(backend: str, gap: int) -> None:
    hits = oracle(GENESIS, 0, 20_000, 5)
    pairs = [(low, high) for low, high in pairwise(hits) if high - low == gap]
    for low, high in pairs[:20]:
        quiet = max((hit for hit in hits if hit < low), default=-1) + 1
        for start in range(max(quiet, low - WIDEST), low + 1):
            assert scan(GENESIS, start, start + 2 * WIDEST, 5, backend=backend) == low
        assert scan(GENESIS, low + 1, high + 1, 5, backend=backend) == high
    assert pairs


# --- counts of digits, and carries

DIGIT_CHANGES = [10**power for power in range(1, 20)]
CARRIES = [2**31, 2**32, 2**33, 2**48, 2**63]
INNER_CARRIES = [2 * 10**18, 12_999_999_900, 13 * 10**9, 18_446_744_073_000_000_000]


@each_backend
@pytest.mark.parametrize("edge", [*DIGIT_CHANGES, *CARRIES, *INNER_CARRIES])
def test_nonces_on_both_sides_of_a_change_of_digits_or_a_carry_are_found(backend: str, edge: int) -> None:
    for prefix in (b"", GENESIS, b"x" * 46, b"x" * 55, b"x" * 63):
        start, stop = max(0, edge - 120), edge + 120
        assert every_hit(backend, prefix, start, stop, 3) == oracle(prefix, start, stop, 3)


@each_backend
@pytest.mark.parametrize("edge", [*DIGIT_CHANGES, *CARRIES, *INNER_CARRIES])
def test_one_scan_runs_across_a_change_of_digits_or_a_carry(backend: str, edge: int) -> None:
    for prefix in (b"", GENESIS, b"x" * 55):
        hits = oracle(prefix, max(0, edge - 350), edge + 2_000, 7)
        beyond = next(hit for hit in hits if hit >= edge)
        quiet = max((hit + 1 for hit in hits if hit < edge), default=max(0, edge - 350))
        assert scan(prefix, quiet, edge + 2_000, 7, backend=backend) == beyond


@each_backend
@pytest.mark.parametrize("length", [1, 3, 4, 5, 16, 17, 115, 116, 117, 1000])
def test_the_range_reaches_the_last_64_bit_nonce(backend: str, length: int) -> None:
    start = 2**64 - length
    assert every_hit(backend, GENESIS, start, 2**64, 1) == oracle(GENESIS, start, 2**64, 1)
    assert scan(GENESIS, start, 2**64, 256, backend=backend) is None
    assert scan(GENESIS, LAST, 2**64, 0, backend=backend) == LAST


@each_backend
def test_all_counts_of_digits_are_passed_in_one_scan_of_small_nonces(backend: str) -> None:
    # 12 zero bits come first at 904: this passes 1, 2 and 3 digits without a stop.
    assert scan(GENESIS, 0, 2**64, 12, backend=backend) == 904
    assert scan(GENESIS, 905, 2**64, 16, backend=backend) == 88_270


# --- prefixes


@each_backend
@pytest.mark.parametrize("edge", [5, 10, 100, 10**9, 10**10, 10**19])
def test_a_prefix_of_any_length_is_hashed_before_the_nonce(backend: str, edge: int) -> None:
    for length in range(201):
        prefix = bytes((7 * i + length) % 256 for i in range(length))
        start, stop = edge - 5, edge + 7
        found = every_hit(backend, prefix, start, stop, 1)
        assert (length, found) == (length, oracle(prefix, start, stop, 1))


@each_backend
@pytest.mark.parametrize("digits", range(1, 21))
def test_the_digits_may_end_at_any_byte_of_a_block(backend: str, digits: int) -> None:
    start = 10 ** (digits - 1)
    for length in range(64, 128):
        prefix = b"\xff" * length
        found = every_hit(backend, prefix, start, start + 9, 1)
        assert (length, found) == (length, oracle(prefix, start, start + 9, 1))


@each_backend
@pytest.mark.parametrize("length", [255, 256, 257, 4032, 4095, 4096])
def test_a_long_prefix_is_hashed_up_to_4096_bytes(backend: str, length: int) -> None:
    prefix = (bytes(range(256)) * 16)[:length]
    assert every_hit(backend, prefix, 990, 1_020, 2) == oracle(prefix, 990, 1_020, 2)


# --- difficulties


@each_backend
def test_difficulty_0_is_met_by_the_first_nonce(backend: str) -> None:
    for start in (0, 1, 42, 99, 2**40 + 3, LAST):
        assert scan(GENESIS, start, 2**64, 0, backend=backend) == start


@each_backend
@pytest.mark.parametrize("difficulty", range(1, 15))
def test_small_difficulties_are_met_by_the_same_nonces_as_the_oracle_s(backend: str, difficulty: int) -> None:
    assert every_hit(backend, GENESIS, 0, 20_000, difficulty) == oracle(GENESIS, 0, 20_000, difficulty)


@each_backend
@pytest.mark.parametrize(
    ("nonce", "bits"),
    [
        # Hours of hashlib: found with a wide build of the portable kernel, checked here by the oracle.
        # They end around the border between a digest's first and second 32-bit word.
        (35_154_319, 26),
        (972_962_332, 30),
        (8_472_925_583, 31),
        (7_401_702_698, 32),
        (3_462_970_250, 33),
        (7_499_386_988, 34),
    ],
)
def test_a_digest_meets_its_own_zero_bits_and_not_one_more(backend: str, nonce: int, bits: int) -> None:
    assert zero_bits(GENESIS, nonce) == bits
    for start in range(nonce - WIDEST, nonce + 1):
        for difficulty in (20, bits - 1, bits):
            assert scan(GENESIS, start, nonce + 50, difficulty, backend=backend) == nonce
        for difficulty in (bits + 1, bits + 2, 63, 64, 65, 96, 255, 256):
            assert scan(GENESIS, start, nonce + 50, difficulty, backend=backend) is None


@each_backend
@pytest.mark.parametrize("difficulty", [40, 64, 65, 128, 255, 256])
def test_nothing_meets_an_impossible_difficulty(backend: str, difficulty: int) -> None:
    assert scan(GENESIS, 0, 50_000, difficulty, backend=backend) is None


# --- the stop flag


@each_backend
def test_a_flag_that_is_set_before_the_scan_ends_it_without_a_hit(backend: str) -> None:
    assert scan(GENESIS, 0, 2**64, 0, backend=backend, stop_flag=bytearray(b"\1")) is None
    assert scan(GENESIS, 0, 2**64, 256, backend=backend, stop_flag=bytearray(b"\xff")) is None


@each_backend
def test_a_flag_that_is_not_set_changes_nothing(backend: str) -> None:
    assert scan(GENESIS, 0, 1_000, 8, backend=backend, stop_flag=bytearray(1)) == 251
    assert scan(GENESIS, 0, 251, 8, backend=backend, stop_flag=bytearray(1)) is None


@each_backend
def test_only_the_first_byte_of_a_flag_counts(backend: str) -> None:
    flags = memoryview(bytearray(b"\1\0\1"))
    assert scan(GENESIS, 0, 1_000, 8, backend=backend, stop_flag=flags[1:]) == 251
    assert scan(GENESIS, 0, 1_000, 8, backend=backend, stop_flag=flags[2:]) is None


@each_backend
@pytest.mark.parametrize("start", [0, 2**32, 10**19])
def test_a_flag_set_by_another_thread_ends_a_running_scan(backend: str, start: int) -> None:
    stop_flag = bytearray(1)
    scanning = threading.Event()
    results: list[int | None] = []

    def search() -> None:
        scanning.set()
        results.append(scan(GENESIS, start, 2**64, 256, backend=backend, stop_flag=stop_flag))

    # A daemon: if the flag had no effect, the scan would outlive us all.
    thread = threading.Thread(target=search, daemon=True)
    thread.start()
    scanning.wait()
    assert thread.is_alive()
    stop_flag[0] = 1
    thread.join()
    assert results == [None]


# --- all of it at once


@settings(deadline=None, max_examples=300)
@given(
    prefix=st.binary(max_size=200),
    start=st.one_of(
        st.integers(0, LAST),
        st.builds(
            lambda edge, offset: max(0, min(edge + offset, LAST)),
            st.sampled_from([*DIGIT_CHANGES, *CARRIES, *INNER_CARRIES, LAST]),
            st.integers(-150, 150),
        ),
    ),
    length=st.integers(0, 300),
    difficulty=st.integers(0, 12),
)
def test_every_backend_agrees_with_the_oracle(prefix: bytes, start: int, length: int, difficulty: int) -> None:
    stop = min(start + length, 2**64)
    expected = [nonce for nonce in range(start, stop) if zero_bits(prefix, nonce) >= difficulty]
    for backend in supported_backends():
        assert (backend, every_hit(backend, prefix, start, stop, difficulty)) == (backend, expected)


# --- arguments


@pytest.mark.parametrize(
    ("prefix", "got"),
    [(bytes(4097), "4097 bytes"), (bytearray(b"x"), "bytearray"), (memoryview(b"x"), "memoryview"), ("x", "str")],
    ids=["too-long", "bytearray", "memoryview", "text"],
)
def test_a_prefix_that_is_not_bytes_or_too_long_is_refused(prefix: Any, got: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        scan(prefix, 0, 1, 0)
    assert str(caught.value) == f"prefix must be bytes, at most 4096 of them, not {got}"


@pytest.mark.parametrize("nonce", [-1, 2**64 + 1, True, 1.0, "1", None], ids=repr)
def test_a_range_that_is_not_of_64_bit_nonces_is_refused(nonce: Any) -> None:
    for name, start, stop in (("start", nonce, 2**64), ("stop", 0, nonce)):
        with pytest.raises(InvalidArgument) as caught:
            scan(GENESIS, start, stop, 0)
        assert str(caught.value) == f"{name} must be an integer from 0 to 2**64, not {nonce!r}"


def test_a_range_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        scan(GENESIS, 8, 7, 0)
    assert str(caught.value) == "start must not be past stop, but 8 > 7"


@pytest.mark.parametrize("difficulty", [-1, 257, True, 8.0, "8", None], ids=repr)
def test_a_difficulty_that_sha_256_has_not_is_refused(difficulty: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        scan(GENESIS, 0, 1, difficulty)
    assert str(caught.value) == f"difficulty must be an integer from 0 to 256, not {difficulty!r}"


def test_an_empty_stop_flag_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        scan(GENESIS, 0, 1, 0, stop_flag=bytearray())
    assert str(caught.value) == "stop_flag must be a buffer of at least one byte, not an empty one"


@pytest.mark.parametrize("stop_flag", [1, "x", memoryview(bytearray(4))[::2]], ids=["integer", "text", "gaps"])
def test_a_stop_flag_of_the_wrong_kind_is_refused(stop_flag: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^stop_flag must be "):
        scan(GENESIS, 0, 1, 0, stop_flag=stop_flag)
