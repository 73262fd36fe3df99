"""The comparison of two benchmark runs, on files in pytest-benchmark's shape."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare_runs import main

Ratios = dict[str, list[float]]

FAST = [3.0, 3.1, 3.2]
SLOW = [1.0, 1.1, 1.2]
BETWEEN = [1.15, 2.0, 3.05]


def run_file(path: Path, *benchmarks: Ratios, compiler: str = "GCC 12", **changed: Any) -> Path:
    """A run of benchmarks, each with the ratios of what it compared."""
    document = {
        "machine_info": {
            "cpu": {"brand_raw": "A processor"},
            "pow": {"compiler": compiler, "backend": "portable", "threads": 2},
        },
        "datetime": "2026-01-02T03:04:05+00:00",
        "benchmarks": [
            {
                "name": f"test_{number}",
                "extra_info": {
                    "comparisons": [
                        {"subject": subject, "reference": "hashlib", "ratios": ratios}
                        for subject, ratios in comparisons.items()
                    ]
                },
            }
            for number, comparisons in enumerate(benchmarks)
        ],
        **changed,
    }
    path.write_text(json.dumps(document), "utf-8")
    return path


def rows(saved: Path, new: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """The lines that the comparison prints."""
    main([str(saved), str(new), *options])
    return capsys.readouterr().out.splitlines()


def error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of the standard error of a comparison that refuses its arguments."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("before", "after", "change", "verdict"),
    [
        (SLOW, FAST, "+181.8%", "faster"),
        (FAST, SLOW, "-64.5%", "slower"),
        (SLOW, BETWEEN, "+81.8%", ""),
        (FAST, BETWEEN, "-35.5%", ""),
        (SLOW, SLOW, "+0.0%", ""),
    ],
)
def test_a_change_is_flagged_when_the_ranges_of_the_pairs_do_not_overlap(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: list[float],
    after: list[float],
    change: str,
    verdict: str,
) -> None:
    saved = run_file(tmp_path / "saved.json", {"scan": before})
    new = run_file(tmp_path / "new.json", {"scan": after})

    (row,) = [line for line in rows(saved, new, capsys) if line.startswith("scan ")]

    assert row.split() == ["scan", "hashlib", f"{before[1]:.3g}", f"{after[1]:.3g}", change, *verdict.split()]


def test_tables_show_only_their_changes_unless_all_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run_file(tmp_path / "saved.json", {"alone": SLOW}, {"8 digits": SLOW, "9 digits": SLOW})
    new = run_file(tmp_path / "new.json", {"alone": SLOW}, {"8 digits": SLOW, "9 digits": FAST})

    brief = rows(saved, new, capsys)
    whole = rows(saved, new, capsys, "--all")

    def subjects(lines: list[str]) -> list[str]:
        return [line.split("  ")[0] for line in lines if " hashlib " in line]

    assert subjects(brief) == ["alone", "9 digits"]
    assert "not shown: 1 others" in brief[-1]
    assert subjects(whole) == ["alone", "8 digits", "9 digits"]
    assert whole[-1].startswith("3 ratios: 1 faster and 0 slower")


def test_another_machine_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = run_file(tmp_path / "saved.json", {"scan": SLOW})
    new = run_file(tmp_path / "new.json", {"scan": SLOW}, compiler="clang 19")

    warnings = [line for line in rows(saved, new, capsys) if line.startswith("warning")]

    assert warnings == ["warning: compiler: saved GCC 12, new clang 19"]
    assert not [line for line in rows(saved, saved, capsys) if line.startswith("warning")]


def test_what_only_one_run_has_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = run_file(tmp_path / "saved.json", {"scan": SLOW}, {"avx2": SLOW}, {"avx512": SLOW})
    new = run_file(tmp_path / "new.json", {"scan": SLOW}, {"shani": SLOW})

    assert rows(saved, new, capsys)[-2:] == [
        "only in the saved run: avx2 against hashlib, and 1 more",
        "only in the new run: shani against hashlib",
    ]


def test_benchmarks_that_compare_nothing_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [{"name": "test_other", "extra_info": {}}]
    path = run_file(tmp_path / "run.json", {"scan": SLOW})
    document = json.loads(path.read_text("utf-8"))
    document["benchmarks"] += others
    path.write_text(json.dumps(document), "utf-8")

    assert any(line.startswith("1 ratios") for line in rows(path, path, capsys))

    alone = run_file(tmp_path / "others.json", benchmarks=others)
    assert "has no comparisons" in error([str(alone), str(path)], capsys)


def test_a_missing_file_is_an_error_that_says_what_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.json"

    said = error([str(missing)], capsys)

    assert f"can't read {missing}: No such file or directory" in said
    assert "make bench-save" in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not JSON", "is not JSON"),
        ("[]", "is not a benchmark run"),
        ("{}", "is not a benchmark run"),
        ('{"benchmarks": 1}', "is not a benchmark run"),
        (
            '{"benchmarks": [{"extra_info": {"comparisons": [{"subject": "a", "reference": "b", "ratios": []}]}}]}',
            "ratios of 'a' must be positive numbers, not []",
        ),
    ],
)
def test_a_file_of_another_kind_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, "utf-8")

    said = error([str(path), str(path)], capsys)

    assert str(path) in said
    assert sentence in said
