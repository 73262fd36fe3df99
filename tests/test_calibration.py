"""The calibration: the rate that is measured, the difficulty that fits, and how both are shown."""

import html
import importlib.util
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pow.cli.calibration_report import as_dict, as_text, check_plot_file, write_plot
from pow.errors import InvalidArgument, MiningStopped
from pow.mining.calibration import (
    MAX_BLOCKS,
    Calibration,
    Measurement,
    calibrate,
    cpuinfo_name,
    measure_rate,
    processor_name,
)
from pow.mining.odds import chance_within, chance_within_seconds, expected_hashes
from pow.mining.pool import MinerPool
from pow.scanning.backends import supported_backends
from pow.units import duration, percentage

MEASUREMENT = Measurement(15_300_000.0, 2.0, 2, "portable", "A Processor (R) $ 2.50GHz")
CALIBRATION = calibrate(MEASUREMENT.hashes_per_second, 20, 4)

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib, the extra `plot`, is not installed"
)


@pytest.mark.parametrize("backend", supported_backends())
@pytest.mark.parametrize("threads", [1, 2])
def test_the_rate_is_what_the_pool_has_tried_over_the_time_it_took(backend: str, threads: int) -> None:
    with MinerPool(threads, backend) as pool:
        measured = measure_rate(pool, 0.05)

        assert measured.hashes_per_second * measured.seconds == pytest.approx(pool.hashes)
    assert (measured.threads, measured.backend) == (threads, backend)
    assert measured.seconds >= 0.05


def test_measuring_says_how_many_nonces_have_been_tried() -> None:
    shown: list[int] = []
    with MinerPool(1) as pool:
        measure_rate(pool, 0.35, shown.append)

        assert shown == sorted(shown)
        assert 0 < shown[-1] <= pool.hashes


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_to_measure_that_is_none_is_an_error(seconds: float) -> None:
    with MinerPool(1) as pool, pytest.raises(InvalidArgument, match="seconds must be a finite number above 0, not"):
        measure_rate(pool, seconds)


def test_a_pool_that_is_closed_has_no_rate() -> None:
    pool = MinerPool(1)
    pool.close()

    with pytest.raises(MiningStopped, match="the rate was not measured"):
        measure_rate(pool, 0.05)


def test_linux_names_the_processor_by_its_model(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 106\nmodel name\t: A  Processor @ 2GHz \nmodel name\t: Another\n")

    assert cpuinfo_name(cpuinfo) == "A  Processor @ 2GHz"


def test_a_processor_without_a_name_has_none(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")

    assert cpuinfo_name(tmp_path / "arm") == ""
    assert cpuinfo_name(tmp_path / "nothing") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_this_machines_processor_is_named_as_the_system_names_it() -> None:
    name = cpuinfo_name(Path("/proc/cpuinfo"))
    if not name:
        pytest.skip("this processor has no name")

    assert processor_name() == " ".join(name.split())


@pytest.mark.parametrize(
    ("blocks", "chance", "recommended"),
    [
        # One block is done by ln 20 = 2.996 times its expected time with 95 %: 20 s are enough for
        # one of 6.68 s, and 2**2 s is the largest power below.
        (1, 0.95, 22),
        # Four blocks by 7.754 times one block's: 20 s for blocks of 2.58 s, so of 2 s.
        (4, 0.95, 21),
        # Half of the blocks by ln 2 = 0.693: 28.9 s, so 16 s.
        (1, 0.5, 24),
        (1, 0.999, 21),
        (1000, 0.95, 14),
    ],
)
def test_the_largest_difficulty_with_the_wanted_chance_is_recommended(
    blocks: int, chance: float, recommended: int
) -> None:
    assert calibrate(2.0**20, 20, blocks, chance).recommended == recommended


# No deadline: the machine may have other things to do.
@settings(deadline=None)
@given(
    st.floats(1, 1e12),
    st.floats(1e-9, 1e9),
    st.integers(1, 50),
    st.floats(1e-9, 1, exclude_max=True),
)
def test_the_next_difficulty_never_has_the_wanted_chance(
    rate: float, budget: float, blocks: int, chance: float
) -> None:
    found = calibrate(rate, budget, blocks, chance)
    recommended = found.recommended or 0

    assert chance_within_seconds(budget, recommended + 1, blocks, rate) < chance
    if recommended:
        assert chance_within_seconds(budget, recommended, blocks, rate) >= chance


@pytest.mark.parametrize("blocks", [1, 4, 64])
@pytest.mark.parametrize("rate", [1e5, 1.3e6, 7e6, 2e10])
def test_twice_the_rate_is_one_difficulty_more(rate: float, blocks: int) -> None:
    slow, fast = calibrate(rate, 20, blocks), calibrate(2 * rate, 20, blocks)

    assert slow.recommended is not None
    assert fast.recommended == slow.recommended + 1


def test_a_row_says_what_the_law_says() -> None:
    row = next(row for row in calibrate(1e6, 20, 4).rows if row.difficulty == 22)

    assert row.expected_seconds == expected_hashes(22, 4) / 1e6
    assert row.chance == chance_within(20_000_000, 22, 4)
    assert chance_within(round(row.median_seconds * 1e6), 22, 4) == pytest.approx(0.5, abs=1e-6)
    assert chance_within(round(row.percentile_95_seconds * 1e6), 22, 4) == pytest.approx(0.95, abs=1e-6)


@pytest.mark.parametrize("blocks", [1, 2, 4, 64, 1000])
@pytest.mark.parametrize("chance", [0.01, 0.5, 0.95, 0.9999])
def test_the_rows_go_from_a_few_below_until_the_chance_is_gone(blocks: int, chance: float) -> None:
    found = calibrate(1e7, 20, blocks, chance)
    numbers = [row.difficulty for row in found.rows]

    assert found.recommended is not None
    assert 9 <= len(numbers) <= 12
    assert numbers == list(range(found.recommended - 4, numbers[-1] + 1))
    assert found.rows[-1].chance < 0.001 or len(numbers) == 12


def test_nothing_is_recommended_when_not_even_difficulty_1_fits() -> None:
    found = calibrate(1e6, 4e-6, 4)  # four nonces for four blocks

    assert found.recommended is None
    assert [row.difficulty for row in found.rows] == [1, 2, 3, 4]
    assert found.rows[0].chance == 1 / 16


def test_a_difficulty_with_few_below_it_has_the_rows_there_are() -> None:
    found = calibrate(1e6, 20e-6, 4)

    assert found.recommended == 1
    assert found.rows[0].difficulty == 1


def test_no_difficulty_beyond_256_is_recommended() -> None:
    found = calibrate(1e90, 20, 4)

    assert found.recommended == 256
    assert found.rows[-1].difficulty == 256
    assert all(math.isfinite(row.percentile_95_seconds) for row in found.rows)


@pytest.mark.parametrize(
    ("rate", "budget", "blocks", "chance", "sentence"),
    [
        (0.0, 20, 4, 0.95, "hashes_per_second must be a finite number above 0, not 0.0"),
        (math.nan, 20, 4, 0.95, "hashes_per_second must be a finite number above 0, not nan"),
        (1e6, 0, 4, 0.95, "budget_seconds must be a number from 1e-09 to 1e+09, not 0"),
        (1e6, 1.1e9, 4, 0.95, "budget_seconds must be a number from 1e-09 to 1e+09, not 1100000000.0"),
        (1e6, math.nan, 4, 0.95, "budget_seconds must be a number from 1e-09 to 1e+09, not nan"),
        (1e6, 20, 0, 0.95, "blocks must be an integer from 1 to 1000, not 0"),
        (1e6, 20, 1001, 0.95, "blocks must be an integer from 1 to 1000, not 1001"),
        (1e6, 20, True, 0.95, "blocks must be an integer from 1 to 1000, not True"),
        (1e6, 20, 4, 0.0, "wanted_chance must be a number above 0 and below 1, not 0.0"),
        (1e6, 20, 4, 1.0, "wanted_chance must be a number above 0 and below 1, not 1.0"),
        (1e6, 20, 4, math.nan, "wanted_chance must be a number above 0 and below 1, not nan"),
    ],
)
def test_an_argument_that_is_not_allowed_gets_its_sentence(
    rate: float, budget: float, blocks: int, chance: float, sentence: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        calibrate(rate, budget, blocks, chance)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 ns"),
        (1e-12, "1.0e-03 ns"),
        (2e-8, "20.0 ns"),
        (4.5e-5, "45.0 µs"),
        (0.0123, "12.3 ms"),
        (0.4119, "412 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.99, "9.99 s"),
        (9.996, "10.0 s"),
        (59.9, "59.9 s"),
        (90.0, "1.50 min"),
        (5400.0, "1.50 h"),
        (86400.0 * 1.5, "36.0 h"),
        (86400.0 * 12, "12.0 days"),
        (86400.0 * 365.25 * 2280, "2,280 years"),
        (86400.0 * 365.25 * 3e9, "3.0e+09 years"),
    ],
)
def test_a_duration_is_shown_in_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("chance", "text"),
    [
        (0.0, "< 0.1 %"),
        (0.0004, "< 0.1 %"),
        (0.0006, "0.1 %"),
        (0.5, "50.0 %"),
        (0.9994, "99.9 %"),
        (0.9996, "> 99.9 %"),
        (1.0, "> 99.9 %"),
    ],
)
def test_a_chance_is_never_shown_as_certain_or_impossible(chance: float, text: str) -> None:
    assert percentage(chance) == text


def test_the_text_has_what_was_measured_the_table_and_the_setting_to_make() -> None:
    assert as_text(MEASUREMENT, CALIBRATION, 40).splitlines() == [
        "15.3 million hashes/s, measured for 2 s: backend portable, 2 threads, A Processor (R) $ 2.50GHz",
        "The time to mine 4 blocks, and the chance to be done within 20 s:",
        "",
        "  difficulty  expected    median  95th percentile  within 20 s",
        "          21    548 ms    503 ms           1.06 s     > 99.9 %",
        "          22    1.10 s    1.01 s           2.13 s     > 99.9 %",
        "          23    2.19 s    2.01 s           4.25 s     > 99.9 %",
        "          24    4.39 s    4.03 s           8.50 s     > 99.9 %",
        "*         25    8.77 s    8.05 s           17.0 s       98.0 %",
        "          26    17.5 s    16.1 s           34.0 s       66.8 %",
        "          27    35.1 s    32.2 s         1.13 min       19.7 %",
        "          28  1.17 min  1.07 min         2.27 min        2.9 %",
        "          29  2.34 min  2.15 min         4.53 min        0.3 %",
        "          30  4.68 min  4.30 min         9.07 min      < 0.1 %",
        "",
        "Difficulty 25 is the largest with a chance of at least 95 %. To set it:",
        "",
        "MiningDifficulty=25",
    ]


def test_a_difficulty_beyond_the_settings_limit_needs_that_one_too() -> None:
    assert as_text(MEASUREMENT, CALIBRATION, 25).endswith("\nMiningDifficulty=25")
    assert as_text(MEASUREMENT, CALIBRATION, 24).endswith("\nMiningDifficulty=25\nMaxDifficulty=25")


def test_the_text_says_so_when_no_difficulty_fits() -> None:
    text = as_text(replace(MEASUREMENT, processor=None, threads=1), calibrate(1e6, 4e-6, 4, 0.9999), 40)

    assert text.startswith("15.3 million hashes/s, measured for 2 s: backend portable, 1 thread\n")
    assert text.endswith(
        "\n\nNo difficulty has a chance of at least 99.99 %: even that of difficulty 1 is 6.2 %. "
        "Allow a larger budget, fewer blocks or a smaller chance."
    )
    assert "*" not in text
    assert "MiningDifficulty" not in text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(950.0, "950 hashes/s"), (1.2e3, "1.2 thousand hashes/s"), (2.345e10, "23.4 billion hashes/s")],
)
def test_the_rate_is_shown_in_words(rate: float, text: str) -> None:
    assert as_text(replace(MEASUREMENT, hashes_per_second=rate), CALIBRATION, 40).startswith(f"{text}, measured")


def test_the_json_has_every_number_unrounded() -> None:
    document = json.loads(json.dumps(as_dict(MEASUREMENT, CALIBRATION), allow_nan=False))

    assert document.pop("difficulties")[4] == {
        "difficulty": 25,
        "expected_seconds": CALIBRATION.rows[4].expected_seconds,
        "median_seconds": CALIBRATION.rows[4].median_seconds,
        "percentile_95_seconds": CALIBRATION.rows[4].percentile_95_seconds,
        "chance": CALIBRATION.rows[4].chance,
    }
    assert document == {
        "hashes_per_second": 15_300_000.0,
        "measured_seconds": 2.0,
        "threads": 2,
        "backend": "portable",
        "processor": "A Processor (R) $ 2.50GHz",
        "budget_seconds": 20,
        "blocks": 4,
        "wanted_chance": 0.95,
        "recommended_difficulty": 25,
    }


def test_the_json_of_no_recommendation_is_null() -> None:
    assert as_dict(MEASUREMENT, calibrate(1e6, 4e-6, 4))["recommended_difficulty"] is None


@needs_matplotlib
def test_an_svg_plot_has_its_labels_units_and_legend_as_text(tmp_path: Path) -> None:
    write_plot(tmp_path / "odds.svg", MEASUREMENT, CALIBRATION)

    svg = (tmp_path / "odds.svg").read_text("utf-8")
    assert "<svg" in svg
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    assert "Chance to mine 4 blocks in time, by difficulty" in texts
    assert "15.3 million hashes/s: backend portable, 2 threads, A Processor (R) $ 2.50GHz" in texts
    assert "chance to be done (%)" in texts
    assert any(text.startswith("time to mine 4 blocks") for text in texts)
    assert {"500 ms", "1 s", "20 s", "1 min", "5 min"} <= set(texts)
    assert {"difficulty: chance within 20 s", "25: 98.0 %, recommended", "26: 66.8 %"} <= set(texts)
    assert {"budget: 20 s", "wanted: 95 %"} <= set(texts)
    assert [text for text in texts if re.match(r"\d\d: ", text)] == [
        f"{row.difficulty}: {percentage(row.chance)}{', recommended' if row.difficulty == 25 else ''}"
        for row in CALIBRATION.rows
    ]


@needs_matplotlib
@pytest.mark.parametrize(
    ("name", "magic"), [("odds.png", b"\x89PNG\r\n"), ("odds.pdf", b"%PDF-"), ("odds.SVG", b"<?xml")]
)
def test_a_plots_format_is_its_files_ending_and_equal_plots_are_equal_files(
    tmp_path: Path, name: str, magic: bytes
) -> None:
    write_plot(tmp_path / name, MEASUREMENT, CALIBRATION)
    first = (tmp_path / name).read_bytes()
    write_plot(tmp_path / name, MEASUREMENT, CALIBRATION)

    assert first.startswith(magic)
    assert (tmp_path / name).read_bytes() == first


@needs_matplotlib
@pytest.mark.parametrize(
    ("calibration", "tick"),
    [
        (calibrate(15.3e6, 1e-7, 4), "1 µs"),
        (calibrate(15.3e6, 86400 * 30, 1), "1 year"),
        (calibrate(15.3e6, 1e-9, 1000), "100 µs"),
        (calibrate(10.0, 1e-9, 4), "1 ns"),
        (calibrate(1e-3, 1e9, 1), "1,000 years"),
        (calibrate(1e71, 1e9, 4), "10 years"),
    ],
    ids=["nothing fits", "a month", "a thousand blocks", "a very slow machine", "thousands of years", "difficulty 256"],
)
def test_any_budget_can_be_drawn(tmp_path: Path, calibration: Calibration, tick: str) -> None:
    write_plot(tmp_path / "odds.svg", MEASUREMENT, calibration)

    assert f">{tick}<" in (tmp_path / "odds.svg").read_text("utf-8")


@needs_matplotlib
def test_a_plot_that_cannot_be_written_any_more_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"can't write the plot to .*gone.*odds\.svg: No such file or directory"):
        write_plot(tmp_path / "gone" / "odds.svg", MEASUREMENT, CALIBRATION)


@needs_matplotlib
def test_checking_a_plots_file_leaves_nothing_behind_and_everything_alone(tmp_path: Path) -> None:
    (tmp_path / "there.svg").write_text("kept")
    (tmp_path / "link.svg").symlink_to(tmp_path / "not-yet.svg")

    for name in ("there.svg", "new.svg", "new.PNG", "new.pdf", "link.svg"):
        check_plot_file(tmp_path / name)

    assert {path.name for path in tmp_path.iterdir()} == {"there.svg", "link.svg"}
    assert (tmp_path / "there.svg").read_text() == "kept"


@needs_matplotlib
@pytest.mark.parametrize("name", ["odds.gif", "odds", "svg"])
def test_a_plots_file_needs_the_ending_of_a_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_plot_file(tmp_path / name)
    assert str(caught.value) == f"the plot's file name must end with one of .svg, .png, .pdf, not {name!r}"


@needs_matplotlib
def test_a_plots_file_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder.svg").mkdir()

    with pytest.raises(InvalidArgument, match=r"can't write the plot to .*folder\.svg: Is a directory"):
        check_plot_file(tmp_path / "folder.svg")
    with pytest.raises(InvalidArgument, match=r"can't write the plot to .*odds\.svg: No such file or directory"):
        check_plot_file(tmp_path / "nowhere" / "odds.svg")


def test_the_most_blocks_are_reckoned_too() -> None:
    assert calibrate(1e7, 3600, MAX_BLOCKS).blocks == MAX_BLOCKS
