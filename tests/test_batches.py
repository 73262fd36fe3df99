"""Long batches, at every place of a nonce's digits in the blocks that are hashed.

Native backends hash batches: lanes side by side, and at each step another set of low digits in all of them
(native/batch.h). They take 10, 100 or 1000 steps only in hard searches of ranges long enough, which hashlib
couldn't follow. So these tests search around known hits; each was found by a scan, and hashlib made sure that
it is one, and that there is no other around it. Random cases, which hashlib can follow, come last.
"""

import random
from collections.abc import Iterator

import pytest
from definition import SEED_VARIABLE, all_zero_bits, seed, zero_bits

from pow.scanning.backends import HASHLIB, all_backends, scan, supported_backends

each_native = pytest.mark.parametrize("backend", [name for name in supported_backends() if name != HASHLIB])

FILLER = b"0123456789ABCDEF" * 256
BLOCK_BYTES = 64
# From this one on, batches of 32 lanes may have 1000 steps.
DIFFICULTY = 18

# Lengths of prefixes out of FILLER, and nonces of 20 zero bits or more behind them: the only ones of DIFFICULTY
# from 100,000 nonces before to 64,000 after.
# fmt: off
# All digits and the padding in one block: the last digit is at byte 4, 5, … 54 of it.
ONE_BLOCK = [
    (320, 65_260), (3840, 404_829), (0, 1_134_816), (64, 13_354_752), (0, 114_303_188), (64, 1_143_995_343),
    (0, 11_429_112_946), (64, 114_287_183_881), (0, 1_142_857_499_281), (64, 11_428_571_645_687),
    (0, 114_285_715_144_169), (64, 1_142_857_145_034_555), (0, 11_428_571_429_903_405), (64, 114_285_714_285_869_458),
    (0, 1_142_857_142_857_972_228), (64, 11_428_571_428_575_900_537), (14, 3_707_396), (78, 13_116_649),
    (14, 122_598_091), (78, 1_144_895_302), (14, 11_428_961_346), (78, 114_290_017_189), (14, 1_142_858_403_491),
    (78, 11_428_572_083_043), (14, 114_285_714_723_828), (78, 1_142_857_144_142_184), (14, 11_428_571_428_902_579),
    (78, 114_285_714_288_702_601), (14, 1_142_857_142_858_081_252), (78, 11_428_571_428_572_843_370), (28, 2_876_025),
    (92, 12_186_153), (28, 114_838_087), (92, 1_145_499_302), (28, 11_428_598_725), (92, 114_287_112_915),
    (28, 1_142_858_771_157), (92, 11_428_572_686_351), (28, 114_285_716_066_469), (92, 1_142_857_143_002_818),
    (28, 11_428_571_431_290_912), (92, 114_285_714_287_317_498), (28, 1_142_857_142_858_495_353),
    (92, 11_428_571_428_578_465_626), (42, 3_213_346), (106, 12_884_773), (42, 114_568_027), (106, 1_146_978_163),
    (42, 11_428_702_983), (106, 114_288_302_305), (42, 1_142_859_788_476),
]
# All digits in one block, the end of the padding in another: bytes 55 to 63.
PADDING_BEHIND = [
    (106, 11_428_574_071_431), (42, 114_285_715_122_412), (106, 1_142_857_143_331_446), (42, 11_428_571_430_742_101),
    (106, 114_285_714_289_659_112), (42, 1_142_857_142_859_067_864), (106, 11_428_571_428_574_885_629), (56, 3_218_481),
    (120, 11_849_092),
]
# The digits begin in one block and end at byte 0, 1, … 18 of the next; at byte 1 with a few of them there, and
# with as many as can be. Around most of these nonces the digits in the first block change.
TWO_BLOCKS = [
    (55, 1_234_954_786), (55, 12_345_930_989), (46, 12_345_678_901_236_752_434), (58, 100_339_981), (58, 1_002_800_371),
    (442, 10_023_099_483), (58, 100_243_999_276), (122, 1_001_490_000_894), (58, 10_013_100_001_175),
    (442, 100_041_999_998_621), (122, 1_003_860_000_001_341), (58, 10_022_000_000_000_216),
    (58, 100_129_000_000_000_159), (122, 1_001_209_999_999_999_025), (122, 10_025_700_000_000_001_518),
    (702, 86_000_000_000_001_438), (190, 850_000_000_000_001_202), (62, 6_400_000_000_000_000_714),
    (62, 13_000_000_000_000_008_127), (63, 10_123_456_789_013_420_301),
]
# At the first or the last step of their lanes, whether these have 10, 100 or 1000 of them.
ENDS_OF_LANES = [
    (10, 1_379_365_000), (10, 1_416_649_999),
    (64, 1_116_242_100), (64, 1_033_712_799),
    (67, 2_818_725_000), (67, 1_549_030_999),
]
# fmt: on
HITS = [*ONE_BLOCK, *PADDING_BEHIND, *TWO_BLOCKS, *ENDS_OF_LANES]

# Prefix length, steps, difficulty, and two hits that are the only ones around. "later": the smaller one is in
# another lane than the other one, and at a later step; "earlier": at an earlier step; "same": in the same lane.
PAIRS = {
    "later-of-10": (67, 10, 14, 1_034_450_889, 1_034_450_892),
    "earlier-of-10": (67, 10, 14, 1_011_006_213, 1_011_006_228),
    "same-of-10": (67, 10, 14, 1_058_450_881, 1_058_450_887),
    "later-of-100": (64, 100, DIFFICULTY, 1_329_372_581, 1_329_372_870),
    "earlier-of-100": (64, 100, DIFFICULTY, 1_025_942_612, 1_025_942_720),
    "same-of-100": (64, 100, DIFFICULTY, 3_124_032_612, 3_124_032_664),
    "later-of-1000": (10, 1000, DIFFICULTY, 1_004_722_204, 1_004_725_119),
    "earlier-of-1000": (10, 1000, DIFFICULTY, 1_023_660_142, 1_023_662_291),
    "same-of-1000": (10, 1000, DIFFICULTY, 1_136_763_088, 1_136_763_913),
    "later-of-1000-in-two-words": (67, 1000, DIFFICULTY, 1_045_314_829, 1_045_316_720),
    "earlier-of-1000-in-two-words": (67, 1000, DIFFICULTY, 1_106_241_099, 1_106_242_534),
    "same-of-1000-in-two-words": (67, 1000, DIFFICULTY, 1_350_254_170, 1_350_254_387),
}


def last_digit_at(length: int, nonce: int) -> int:
    """The byte that a nonce's last digit is at, counted from where the prefix's last, unfinished block begins."""
    return length % BLOCK_BYTES + len(str(nonce)) - 1


# --- the known hits


def test_the_known_hits_are_hits() -> None:
    for length, nonce in HITS:
        assert (length, nonce, zero_bits(FILLER[:length], nonce) >= DIFFICULTY) == (length, nonce, True)


def test_the_known_hits_end_at_every_byte_of_a_block() -> None:
    assert [last_digit_at(*hit) for hit in ONE_BLOCK] == list(range(4, 55))
    assert [last_digit_at(*hit) for hit in PADDING_BEHIND] == list(range(55, 64))
    assert [last_digit_at(*hit) - BLOCK_BYTES for hit in TWO_BLOCKS] == [0, 1, *range(1, 19)]


@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_known_hits_are_at_the_first_and_at_the_last_step_of_their_lanes(steps: int) -> None:
    assert {0, steps - 1} <= {nonce % steps for _, nonce in ENDS_OF_LANES}


@pytest.mark.parametrize("pair", PAIRS)
def test_the_known_pairs_are_hits_and_lie_as_they_are_said_to(pair: str) -> None:
    length, steps, difficulty, first, second = PAIRS[pair]
    assert min(zero_bits(FILLER[:length], first), zero_bits(FILLER[:length], second)) >= difficulty
    lanes_between = second // steps - first // steps
    # Few enough for kernels of four lanes.
    assert lanes_between in range(4)
    order = "same" if not lanes_between else "later" if first % steps > second % steps else "earlier"
    assert pair.split("-")[0] == order


# --- batches around them


def batches(backend: str, nonce: int, steps: int) -> Iterator[range]:
    """The ranges that are one batch of so many steps per lane, with the nonce in each lane in turn."""
    lanes = all_backends()[backend].lanes
    for lane in range(lanes):
        start = (nonce // steps - lane) * steps
        yield range(start, min(start + lanes * steps, 2**64))


@each_native
@pytest.mark.parametrize("steps", [1, 10, 100, 1000])
def test_a_hit_is_found_in_each_lane_of_a_batch(backend: str, steps: int) -> None:
    for length, nonce in HITS:
        for batch in batches(backend, nonce, steps):
            found = scan(FILLER[:length], batch.start, batch.stop, DIFFICULTY, backend=backend)
            assert (length, batch, found) == (length, batch, nonce)


@each_native
@pytest.mark.parametrize("batches_before", [1, 2, 3])
def test_a_hit_is_found_in_a_later_batch(backend: str, batches_before: int) -> None:
    for length, nonce in HITS:
        start = max(0, nonce - batches_before * 1000 * all_backends()[backend].lanes - 7)
        for stop in (nonce + 1, nonce + 500, nonce + 64_000):
            found = scan(FILLER[:length], start, min(stop, 2**64), DIFFICULTY, backend=backend)
            assert (length, nonce, stop, found) == (length, nonce, stop, nonce)
        assert scan(FILLER[:length], start, nonce, DIFFICULTY, backend=backend) is None


@each_native
@pytest.mark.parametrize("size", [1, 7, 10, 100, 1000, 4_000, 8_000, 16_000, 32_000, 40_007])
def test_a_long_range_ends_where_it_ends(backend: str, size: int) -> None:
    for length, nonce in HITS:
        ranges = {
            "ends before": (nonce - size, nonce, None),
            "ends with": (nonce - size, nonce + 1, nonce),
            "begins with": (nonce, nonce + size, nonce),
            "begins after": (nonce + 1, nonce + 1 + size, None),
        }
        for name, (start, stop, expected) in ranges.items():
            found = scan(FILLER[:length], start, stop, DIFFICULTY, backend=backend)
            assert (length, nonce, name, found) == (length, nonce, name, expected)


@each_native
def test_a_candidate_of_a_long_batch_that_has_too_few_zero_bits_is_no_hit(backend: str) -> None:
    for length, nonce in HITS:
        prefix, bits = FILLER[:length], zero_bits(FILLER[:length], nonce)
        for difficulty in (bits - 1, bits):
            assert scan(prefix, nonce - 9_999, nonce + 16_000, difficulty, backend=backend) == nonce
        for difficulty in (bits + 1, 32, 33):
            assert scan(prefix, nonce - 9_999, nonce + 16_000, difficulty, backend=backend) is None


@each_native
@pytest.mark.parametrize("pair", PAIRS)
def test_of_two_hits_in_one_batch_the_smaller_wins_whichever_step_comes_first(backend: str, pair: str) -> None:
    length, steps, difficulty, first, second = PAIRS[pair]
    prefix = FILLER[:length]
    together = [batch for batch in batches(backend, first, steps) if second in batch]
    for batch in together:
        assert scan(prefix, batch.start, batch.stop, difficulty, backend=backend) == first
        assert scan(prefix, first + 1, batch.stop, difficulty, backend=backend) == second
        assert scan(prefix, batch.start, first, difficulty, backend=backend) is None
    # Where the compiler has no vectors, the portable kernel has one lane, and no pair of lanes.
    assert together or all_backends()[backend].lanes == 1


# --- random cases

CASES, CASES_PER_RANGE, PARTS = 100_000, 4, 10


def random_start(chance: random.Random, length: int) -> int:
    """Where a range of so many nonces may begin; every other time it crosses a change of the number of digits."""
    digits = chance.randint(1, 20)
    low: int = 10 ** (digits - 1)
    high: int = min(10**digits, 2**64)
    if chance.random() < 0.5:
        return max(0, min(high - chance.randint(0, length), 2**64 - length))
    return min(chance.randrange(low, high), 2**64 - length)


def random_prefix(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(0, 2 * BLOCK_BYTES))


@pytest.mark.parametrize("part", range(PARTS))
def test_every_backend_agrees_with_hashlib_on_100_000_random_cases(part: int) -> None:
    chance = random.Random(f"{seed()} short {part}")
    for _ in range(CASES // CASES_PER_RANGE // PARTS):
        prefix, length = random_prefix(chance), chance.randint(20, 60)
        start = random_start(chance, length)
        bits = [zero_bits(prefix, nonce) for nonce in range(start, start + length)]
        # The hardest that is met, one that is met by none, and two others.
        difficulties = (max(bits), max(bits) + 1, chance.randint(0, max(bits)), chance.randint(0, 12))
        assert len(difficulties) == CASES_PER_RANGE
        for difficulty in difficulties:
            expected = next((start + i for i, found in enumerate(bits) if found >= difficulty), None)
            for backend in supported_backends():
                found = scan(prefix, start, start + length, difficulty, backend=backend)
                case = (backend, prefix, start, length, difficulty)
                assert found == expected, f"{case}; to repeat it: {SEED_VARIABLE}={seed()}"


@each_native
@pytest.mark.parametrize("part", range(5))
def test_every_native_backend_agrees_with_hashlib_on_long_random_ranges(backend: str, part: int) -> None:
    # The same for all backends, so that hashlib hashes them once.
    chance = random.Random(f"{seed()} long {part}")
    for _ in range(8):
        prefix, length = random_prefix(chance), chance.randint(2_000, 40_000)
        start = random_start(chance, length)
        bits = all_zero_bits(prefix, start, start + length)
        for difficulty in range(9, 23):
            expected = [start + i for i, found in enumerate(bits) if found >= difficulty]
            hits = list(hits_of(backend, prefix, start, start + length, difficulty))
            case = (backend, prefix, start, length, difficulty)
            assert hits == expected, f"{case}; to repeat it: {SEED_VARIABLE}={seed()}"


def hits_of(backend: str, prefix: bytes, start: int, stop: int, difficulty: int) -> Iterator[int]:
    """Every hit of [start, stop), by asking the backend for the first one again and again."""
    while (hit := scan(prefix, start, stop, difficulty, backend=backend)) is not None:
        yield hit
        start = hit + 1
