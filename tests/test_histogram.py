"""The histogram of leading zero bits: the same from every backend as by the definition, and geometric."""

import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from definition import all_zero_bits

from pow.errors import BackendError, InvalidArgument
from pow.scanning.backends import HASHLIB, Backend, active_backend, scan, supported_backends
from pow.scanning.histogram import leading_zero_histogram

each_backend = pytest.mark.parametrize("backend", supported_backends())
each_native = pytest.mark.parametrize("backend", [name for name in supported_backends() if name != HASHLIB])

GENESIS = b"1:GENESIS:"
DIGIT_CHANGES = [10**power for power in range(1, 20)]
# Long enough for batches of 32 lanes with 1000 steps each.
LONG = 16_001
HANG_SECONDS = 60.0


@cache
def expected(prefix: bytes, start: int, stop: int) -> list[int]:
    """The histogram by the definition."""
    counts = [0] * 257
    for bits in all_zero_bits(prefix, start, stop):
        counts[bits] += 1
    return counts


def counted(prefix: bytes, start: int, stop: int, backend: str) -> list[int]:
    return [int(count) for count in leading_zero_histogram(prefix, start, stop, backend=backend)]


# --- the counts


@each_backend
def test_a_histogram_has_a_64_bit_count_for_each_number_of_zero_bits(backend: str) -> None:
    counts = leading_zero_histogram(GENESIS, 0, 1_000, backend=backend)
    assert (counts.shape, counts.dtype) == ((257,), np.dtype(np.uint64))
    # 251 is the first nonce with 8 zero bits or more, and has 10; 904 is the first with 12 or more.
    assert counts[10] >= 1
    assert counts[12:].sum() == 1


@each_backend
@pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 9, 31, 32, 33, 99, 100, 101, 319, 321, 3_201, 5_003])
def test_a_range_of_any_length_is_counted_and_nothing_beside_it(backend: str, length: int) -> None:
    for start in (0, 5, 95, 123_456, 10**9 + 7, 10**19 + 1):
        counts = counted(GENESIS, start, start + length, backend)
        assert (start, counts) == (start, expected(GENESIS, start, start + length))
        assert sum(counts) == length


@each_backend
@pytest.mark.parametrize("edge", DIGIT_CHANGES)
def test_the_count_runs_across_a_change_of_digits(backend: str, edge: int) -> None:
    for prefix in (b"", GENESIS, b"x" * 46, b"x" * 55, b"x" * 63):
        start, stop = max(0, edge - 1_234), edge + 777
        assert counted(prefix, start, stop, backend) == expected(prefix, start, stop)


@each_backend
@pytest.mark.parametrize("nonce", [0, 1, 100, 2**32, 2**64 - 1, 2**64])
def test_an_empty_range_has_only_zeros(backend: str, nonce: int) -> None:
    assert counted(GENESIS, nonce, nonce, backend) == [0] * 257


@each_backend
@pytest.mark.parametrize("length", [1, 4, 33, 1_000, 3_333])
def test_the_count_reaches_the_last_64_bit_nonce(backend: str, length: int) -> None:
    assert counted(GENESIS, 2**64 - length, 2**64, backend) == expected(GENESIS, 2**64 - length, 2**64)


@each_backend
@pytest.mark.parametrize("length", [55, 56, 63, 64, 65, 119, 128, 200, 4095, 4096])
def test_a_long_prefix_is_hashed_before_the_nonce(backend: str, length: int) -> None:
    prefix = (bytes(range(256)) * 16)[:length]
    assert counted(prefix, 990, 2_020, backend) == expected(prefix, 990, 2_020)


@each_native
@pytest.mark.parametrize("middle", [2 * 10**9, 13 * 10**18], ids=["10-digits", "20-digits"])
def test_the_digits_may_lie_anywhere_in_a_block_or_in_two(backend: str, middle: int) -> None:
    # All digits but the first few change in the middle of the range.
    start = middle - LONG // 2
    for length in range(64):
        prefix = b"\xff" * length
        assert (length, counted(prefix, start, start + LONG, backend)) == (
            length,
            expected(prefix, start, start + LONG),
        )


@each_native
def test_a_count_in_several_strides_misses_nothing_between_them(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pow.scanning.histogram._STRIDE", 1_000)
    assert counted(GENESIS, 99_500, 102_501, backend) == expected(GENESIS, 99_500, 102_501)


@each_native
@pytest.mark.parametrize(("nonce", "bits"), [(35_154_319, 26), (7_401_702_698, 32), (7_499_386_988, 34)])
def test_the_zero_bits_of_a_rare_digest_are_counted_beyond_its_first_word(backend: str, nonce: int, bits: int) -> None:
    counts = counted(GENESIS, nonce - 50, nonce + 50, backend)
    assert counts[bits] == 1
    assert sum(counts) == 100


# --- the law

NONCES = 4_000_000
# Digests with more zero bits are one kind: the law expects some sixty of them.
LAST_BITS = 15


def chance_of_as_bad_a_fit(chi_square: float, degrees: int) -> float:
    """The upper tail of the chi-square distribution, which is a finite sum for even degrees of freedom."""
    assert degrees % 2 == 0
    half = chi_square / 2
    return math.exp(-half) * math.fsum(half**i / math.factorial(i) for i in range(degrees // 2))


def fit(counts: list[int]) -> float:
    """The chance that the digests of a perfect hash fit the geometric law as badly as these, or worse."""
    kinds = [*counts[: LAST_BITS + 1], sum(counts[LAST_BITS + 1 :])]
    chances = [*(2.0 ** -(bits + 1) for bits in range(LAST_BITS + 1)), 2.0 ** -(LAST_BITS + 1)]
    laws = [sum(counts) * chance for chance in chances]
    chi_square = math.fsum((kind - law) ** 2 / law for kind, law in zip(kinds, laws, strict=True))
    return chance_of_as_bad_a_fit(chi_square, len(kinds) - 1)


@pytest.mark.parametrize(("critical", "degrees", "chance"), [(5.991, 2, 0.05), (18.307, 10, 0.05), (39.252, 16, 0.001)])
def test_the_chances_of_a_fit_are_those_of_printed_tables(critical: float, degrees: int, chance: float) -> None:
    assert chance_of_as_bad_a_fit(critical, degrees) == pytest.approx(chance, rel=1e-3)


def test_digests_that_are_a_little_off_do_not_fit_the_law() -> None:
    law = [NONCES >> (bits + 1) for bits in range(LAST_BITS + 8)]
    assert fit(law) > 0.999
    # One digest in 200 has a zero bit more than it should; and one that starts with seven is never seen.
    moved = law[0] // 200
    assert fit([law[0] - moved, law[1] + moved, *law[2:]]) < 1e-6
    assert fit([*law[:7], 0, *law[8:]]) < 1e-6


@each_native
@pytest.mark.parametrize(
    ("prefix", "start"),
    [(GENESIS, 0), (b"2:" + b"0123456789ABCDEF" * 4 + b":", 10**9), (b"x" * 58, 2**64 - NONCES)],
    ids=["from-0", "10-digits", "20-digits"],
)
def test_millions_of_digests_follow_the_geometric_law(backend: str, prefix: bytes, start: int) -> None:
    counts = counted(prefix, start, start + NONCES, backend)
    assert sum(counts) == NONCES
    # These nonces always give the same chance, about as likely one as another: they pass or fail for good.
    assert fit(counts) > 1e-3
    # A histogram and a scan agree on whether there is a digest of so many bits.
    most = max(bits for bits, count in enumerate(counts) if count)
    assert scan(prefix, start, start + NONCES, most, backend=backend) is not None
    assert scan(prefix, start, start + NONCES, most + 1, backend=backend) is None


# --- arguments, and numpy


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("x", 0, 1), "prefix must be bytes, at most 4096 of them, not str"),
        ((bytes(4097), 0, 1), "prefix must be bytes, at most 4096 of them, not 4097 bytes"),
        ((GENESIS, -1, 1), "start must be an integer from 0 to 2**64, not -1"),
        ((GENESIS, 0, 2**64 + 1), "stop must be an integer from 0 to 2**64, not 18446744073709551617"),
        ((GENESIS, 0, 1.0), "stop must be an integer from 0 to 2**64, not 1.0"),
        ((GENESIS, 8, 7), "start must not be past stop, but 8 > 7"),
    ],
    ids=["text", "too-long", "negative", "past-64-bits", "float", "backwards"],
)
def test_wrong_arguments_are_refused_with_a_sentence(arguments: tuple[Any, Any, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        leading_zero_histogram(*arguments)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("stop", [0, 1], ids=["an-empty-range", "a-range"])
def test_an_unknown_backend_is_refused(stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"^backend 'avx9' is not known; valid here: auto, "):
        leading_zero_histogram(GENESIS, 0, stop, backend="avx9")
    monkeypatch.setenv("POW_BACKEND", "avx9")
    with pytest.raises(BackendError, match=r"^POW_BACKEND 'avx9' is not known; valid here: auto, "):
        leading_zero_histogram(GENESIS, 0, stop)


@each_backend
def test_the_backend_that_is_asked_for_is_the_one_that_counts(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def choose(name: str | None = None) -> Backend:
        chosen = active_backend(name)

        def count(prefix: bytes, first: int, last: int) -> list[int]:
            ran.append(chosen.name)
            return chosen.counter(prefix, first, last)

        return chosen._replace(counter=count)

    monkeypatch.setattr("pow.scanning.histogram.active_backend", choose)
    leading_zero_histogram(GENESIS, 0, 100, backend=backend)
    monkeypatch.setenv("POW_BACKEND", backend)
    leading_zero_histogram(GENESIS, 0, 100)
    assert ran == [backend, backend]


def python(program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={**os.environ, **settings},
    )


def test_importing_pow_and_its_histogram_does_not_import_numpy() -> None:
    ended = python("import pow.scanning.histogram, sys; print(pow.scanning.histogram, {'numpy'} & set(sys.modules))")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("set()\n")


def test_without_numpy_a_histogram_is_an_error_that_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('not here')")
    program = """
from pow.scanning.histogram import leading_zero_histogram
from pow import PowError
try:
    leading_zero_histogram(b"", 0, 1)
except PowError as error:
    print(error)
"""
    ended = python(program, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == (
        "leading_zero_histogram needs numpy, which can't be imported (not here); "
        "to install it: pip install 'pow-mcp[stats]'\n"
    )
