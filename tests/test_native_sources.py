"""Figures in the C sources that somebody worked out, worked out again: what varies, what is covered, constants."""

import re
from dataclasses import dataclass
from itertools import count, islice
from math import isqrt
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[1] / "native"
MESSAGE_WORDS = 16
ROUNDS = 64


@dataclass(frozen=True)
class Place:
    """Where low digits may be that share a function: in the message's words from `first` to `last`."""

    first: int
    last: int
    figure: int  # its third: which schedule words vary, or the round that a step begins with


def places(file: str) -> list[Place]:
    """The table EACH_PLACE of a kernel."""
    source = (NATIVE / file).read_text("utf-8")
    table = re.search(r"#define EACH_PLACE\(DO\)((?:.*\\\n)*.*)", source)
    assert table, file
    found = [
        Place(int(first), int(last), int(figure, 0))
        for first, last, figure in re.findall(r"DO\((\d+),\s*(\d+),\s*(\w+)\)", table[1])
    ]
    assert len(found) == table[1].count("DO(")
    return found


WITH_MASKS = ["lane_kernel.h", "scan_shani_avx512.c"]
WITH_ROUNDS = ["scan_shani.c", "scan_armv8.c"]


def terms(t: int) -> tuple[int, int, int, int]:
    """The words that schedule word t is the sum of functions of; FIPS 180-4, 6.2.2."""
    return t - 16, t - 15, t - 7, t - 2


def varying(place: Place) -> list[bool]:
    """Of each word of the schedule, whether it depends on the words of a place."""
    varies = [place.first <= t <= place.last for t in range(MESSAGE_WORDS)]
    for t in range(MESSAGE_WORDS, ROUNDS):
        varies.append(any(varies[term] for term in terms(t)))
    return varies


@pytest.mark.parametrize("file", WITH_MASKS)
def test_the_bits_of_each_place_say_which_schedule_words_depend_on_it(file: str) -> None:
    for place in places(file):
        bits = sum(1 << t for t, varies in enumerate(varying(place)) if varies)
        assert f"{place.figure:#018x}" == f"{bits:#018x}", place


def test_the_last_partial_word_is_the_last_that_is_constant_or_has_a_constant_term_at_any_place() -> None:
    source = (NATIVE / "lanes.h").read_text("utf-8")
    stated = re.search(r"#define LAST_PARTIAL (\d+)", source)
    summed_up = re.findall(r"SUM_UP\((\d+)\)", source)
    partial = set(range(MESSAGE_WORDS))
    for file in WITH_MASKS:
        for place in places(file):
            varies = varying(place)
            partial.update(t for t in range(MESSAGE_WORDS, ROUNDS) if not all(varies[term] for term in terms(t)))

    assert stated
    assert int(stated[1]) == max(partial)
    # SIXTEEN(SUM_UP, 16) does the first sixteen.
    assert [int(t) for t in summed_up] == list(range(32, max(partial) + 1))


def test_a_place_of_one_word_or_more_covers_the_low_digits_wherever_they_end() -> None:
    begin = 0
    # RUN_IF_HERE takes the first place that does not end before the word.
    for place in places("lane_kernel.h"):
        assert place.first == begin
        assert place.last >= place.first
        begin = place.last + 1
    assert begin == MESSAGE_WORDS


# The planner lets the low digits begin in the word before the last one's only if both are in the same block.
PAIRS = [(word, word) for word in range(MESSAGE_WORDS)] + [(word - 1, word) for word in range(1, MESSAGE_WORDS)]


@pytest.mark.parametrize("file", ["scan_shani_avx512.c", *WITH_ROUNDS])
def test_some_place_covers_the_low_digits_in_one_word_or_in_two_wherever_they_end(file: str) -> None:
    for first_word, word in PAIRS:
        covering = [place for place in places(file) if place.first <= first_word and word <= place.last]
        assert covering, (first_word, word)
    # RUN_IF_HERE takes the first that covers them, so one that has a tighter one behind it wastes that.
    for number, place in enumerate(places(file)):
        assert not [
            behind for behind in places(file)[number + 1 :] if place.first <= behind.first and behind.last <= place.last
        ]


@pytest.mark.parametrize(("file", "at_a_time"), [("scan_shani_avx512.c", 2), ("scan_shani.c", 2), ("scan_armv8.c", 4)])
def test_a_step_begins_with_a_round_that_the_instructions_can_begin_with_and_skips_none_that_varies(
    file: str, at_a_time: int
) -> None:
    for place in places(file):
        alone = place.first == place.last  # then its own round is done once, too, and mended in each step
        start = place.first + alone if file in WITH_MASKS else place.figure
        assert start % at_a_time == 0, place
        assert start <= place.first + alone, place


@pytest.mark.parametrize("file", WITH_ROUNDS)
def test_kernels_that_do_all_by_sha_instructions_take_only_word_3_alone(file: str) -> None:
    # Theirs is the code for the next four schedule words less the terms that depend on that word.
    assert [place.first for place in places(file) if place.first == place.last] == [3]


def test_pairs_that_the_hybrid_kernel_stores_once_are_all_among_those_it_looks_at() -> None:
    looked_at = re.findall(r"STORE_PAIR_OF_SETUP\((\d+)\);", (NATIVE / "scan_shani_avx512.c").read_text("utf-8"))
    assert looked_at == ["8"]  # behind the first eight
    for place in places("scan_shani_avx512.c"):
        varies = varying(place)
        assert all(varies[2 * pair] or varies[2 * pair + 1] for pair in range(9, ROUNDS // 2)), place


def primes() -> list[int]:
    return list(islice((n for n in count(2) if all(n % factor for factor in range(2, n))), ROUNDS))


def cube_root(number: int) -> int:
    """Its integer part."""
    root = 0
    for bit in reversed(range(number.bit_length() // 3 + 1)):
        if (root | 1 << bit) ** 3 <= number:
            root |= 1 << bit
    return root


def hexadecimal(array: str) -> list[int]:
    source = (NATIVE / "sha256.c").read_text("utf-8")
    values = re.search(rf"{array}\[\w+\] = {{(.*?)}}", source, re.DOTALL)
    assert values
    return [int(value, 16) for value in re.findall(r"0x\w+", values[1])]


def test_the_initial_state_is_the_fractions_of_the_square_roots_of_the_first_primes() -> None:
    # FIPS 180-4, 5.3.3: 32 bits of them.
    assert hexadecimal("sha256_initial_state") == [isqrt(prime << 64) % 2**32 for prime in primes()[:8]]


def test_the_round_constants_are_the_fractions_of_the_cube_roots_of_the_first_primes() -> None:
    # FIPS 180-4, 4.2.2.
    assert hexadecimal("sha256_round_constants") == [cube_root(prime << 96) % 2**32 for prime in primes()]
