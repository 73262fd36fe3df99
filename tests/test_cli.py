"""The command line, run as a user runs it: a process, its output, its exit code."""

import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess

from pow import __version__
from pow.cli import backends_report
from pow.mining.calibration import calibrate
from pow.scanning.backends import active_backend, all_backends, native_missing

HANG_SECONDS = 120.0
USABLE = [name for name, backend in all_backends().items() if backend.usable]


def pow_mcp(*arguments: str, text: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pow", *arguments],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=HANG_SECONDS,
        env={**os.environ, **settings},
    )


@pytest.mark.parametrize("difficulty", [1, 4, 8, 12, 16])
def test_mine_prints_the_chain_as_json_and_nothing_else(
    difficulty: int, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    ended = pow_mcp("mine", "--difficulty", str(difficulty), "--json")

    assert ended.returncode == 0
    assert json.loads(ended.stdout) == genesis_chain[difficulty]
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""


@pytest.mark.parametrize("backend", USABLE)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_backend_and_thread_count_prints_the_same(
    backend: str, threads: int, genesis_chains: list[dict[str, Any]]
) -> None:
    expected = next(chain for chain in genesis_chains if chain["genesis"] == "é中文")

    ended = pow_mcp(
        *("mine", "--difficulty", str(expected["difficulty"]), "--genesis", "é中文"),
        *("--blocks", str(len(expected["blocks"])), "--backend", backend, "--threads", str(threads), "--json"),
    )

    assert json.loads(ended.stdout) == expected


def test_mine_prints_a_table_for_people(genesis_chain: dict[int, dict[str, Any]]) -> None:
    ended = pow_mcp("mine", "--difficulty", "8")

    assert ended.returncode == 0
    assert ended.stdout.splitlines()[0] == "4 block(s) from 'GENESIS' at difficulty 8"
    assert all(block["hash"] in ended.stdout for block in genesis_chain[8]["blocks"])
    assert ended.stderr == ""


def test_mine_takes_its_default_difficulty_from_the_settings() -> None:
    ended = pow_mcp("mine", "--json", MiningDifficulty="3")

    assert json.loads(ended.stdout)["difficulty"] == 3


def read_terminal(descriptor: int) -> bytes:
    """All that is written to a pseudo-terminal until its other end is closed."""
    shown = b""
    while True:
        try:
            shown += os.read(descriptor, 4096)
        except OSError:  # how Linux says that it is closed
            os.close(descriptor)
            return shown


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_mine_shows_progress_on_a_terminal_and_wipes_it() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pow", "mine", "--difficulty", "21", "--json"], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = read_terminal(ours)
        assert process.stdout is not None
        chain = json.loads(process.stdout.read())

    assert len(chain["blocks"]) == 4
    lines = shown.decode().split("\r")
    assert any("1/4 blocks" in line and "million hashes/s" in line and "left on average" in line for line in lines)
    assert lines[-1] == "\033[K"


@pytest.mark.parametrize("backend", USABLE)
def test_calibrate_prints_its_measurement_as_json_and_nothing_else(backend: str) -> None:
    ended = pow_mcp(
        *("calibrate", "--budget", "3", "--blocks", "2", "--chance", "0.9", "--measure", "0.05"),
        *("--threads", "1", "--backend", backend, "--json"),
    )

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout.count("\n") == 1
    found = json.loads(ended.stdout)
    assert (found["threads"], found["backend"]) == (1, backend)
    expected = calibrate(found["hashes_per_second"], 3, 2, 0.9)
    assert found["recommended_difficulty"] == expected.recommended
    assert [row["chance"] for row in found["difficulties"]] == [row.chance for row in expected.rows]


def test_calibrate_shows_people_the_line_to_set() -> None:
    # The fastest of one process may be another one's second.
    backend = active_backend().name
    ended = pow_mcp("calibrate", "--measure", "0.05", MaxDifficulty="40", POW_BACKEND=backend)

    assert ended.returncode == 0
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert f"backend {backend}" in lines[0]
    assert lines[1] == "The time to mine 4 blocks, and the chance to be done within 20 s:"
    (marked,) = (line for line in lines if line.startswith("*"))
    assert lines[-1] == f"MiningDifficulty={marked.split()[1]}"


def test_the_line_that_calibrate_shows_can_be_set() -> None:
    shown = pow_mcp("calibrate", "--measure", "0.05", "--budget", "0.2", MaxDifficulty="2").stdout

    settings = dict(line.split("=") for line in shown.splitlines()[-2:])
    assert json.loads(pow_mcp("mine", "--json", **settings).stdout)["difficulty"] == int(settings["MiningDifficulty"])


def test_calibrate_takes_its_budget_and_its_threads_from_the_settings() -> None:
    quick = ("calibrate", "--measure", "0.05", "--json")
    settings = {"WaitBudgetSeconds": "7.5", "MiningThreads": "3"}

    found = json.loads(pow_mcp(*quick, **settings).stdout)
    other = json.loads(pow_mcp(*quick, "--budget", "8", "--threads", "2", **settings).stdout)

    assert (found["budget_seconds"], found["threads"]) == (7.5, 3)
    assert (other["budget_seconds"], other["threads"]) == (8, 2)


def test_calibrate_asks_for_a_budget_where_the_setting_is_0() -> None:
    ended = pow_mcp("calibrate", WaitBudgetSeconds="0")

    assert ended.returncode == 2
    assert ended.stderr == (
        "pow-mcp: the setting WaitBudgetSeconds is 0, which no chain fits into; give --budget SECONDS\n"
    )


def test_calibrate_says_when_no_difficulty_fits() -> None:
    ended = pow_mcp("calibrate", "--measure", "0.05", "--budget", "1e-9")

    assert ended.returncode == 0
    assert "No difficulty has a chance of at least 95 %" in ended.stdout
    assert "MiningDifficulty" not in ended.stdout


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_calibrate_draws_the_plot_that_it_is_asked_for(tmp_path: Path) -> None:
    plot, backend = tmp_path / "odds.svg", active_backend().name
    ended = pow_mcp("calibrate", "--measure", "0.05", "--threads", "1", "--backend", backend, "--plot", str(plot))

    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1] == f"The plot is in {plot}"
    drawn = plot.read_text("utf-8")
    assert ">Chance to mine 4 blocks in time, by difficulty<" in drawn
    assert f"backend {backend}, 1 thread" in drawn
    assert ">budget: 20 s<" in drawn


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_a_plot_that_cannot_be_written_is_an_error_before_anything_is_measured() -> None:
    # Measuring would take longer than `pow_mcp` waits.
    ended = pow_mcp("calibrate", "--measure", "3600", "--plot", "/nowhere/odds.svg")

    assert ended.returncode == 2
    assert ended.stderr == "pow-mcp: can't write the plot to /nowhere/odds.svg: No such file or directory\n"


def test_without_matplotlib_a_plot_is_an_error_that_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")

    ended = pow_mcp("calibrate", "--measure", "3600", "--plot", "odds.svg", PYTHONPATH=str(tmp_path))

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "a plot needs matplotlib, which can't be imported (not here)" in ended.stderr
    assert "pip install 'pow-mcp[plot]'" in ended.stderr


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_calibrate_shows_progress_on_a_terminal_and_wipes_it() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pow", "calibrate", "--measure", "0.5", "--json"], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = read_terminal(ours)
        assert process.stdout is not None
        json.loads(process.stdout.read())

    lines = shown.decode().split("\r")
    assert any(line.startswith("measuring ") and "million hashes" in line for line in lines)
    assert lines[-1] == "\033[K"


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(
    "arguments", [["mine", "--difficulty", "200"], ["calibrate", "--measure", "3600"]], ids=lambda words: words[0]
)
def test_ctrl_c_ends_the_work_without_a_traceback(arguments: list[str]) -> None:
    ours, theirs = pty.openpty()
    # What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen([sys.executable, "-m", "pow", *arguments], stdout=subprocess.PIPE, stderr=theirs)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        os.close(theirs)
        shown = os.read(ours, 4096)  # the first progress: it is at work now
        process.send_signal(signal.SIGINT)
        shown += read_terminal(ours)
        assert process.wait(HANG_SECONDS) == 130

    assert b"Traceback" not in shown


def test_verify_accepts_a_mined_chain_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    mined = pow_mcp("mine", "--difficulty", "8", "--json").stdout
    (tmp_path / "chain.json").write_text(mined, "utf-8")

    for ended in (pow_mcp("verify", str(tmp_path / "chain.json")), pow_mcp("verify", "-", text=mined)):
        assert ended.returncode == 0
        assert ended.stdout == "valid: 4 block(s) at difficulty 8\n"


def test_verify_names_the_first_wrong_block_and_why(genesis_chain: dict[int, dict[str, Any]]) -> None:
    chain = json.loads(json.dumps(genesis_chain[8]))
    chain["blocks"][2]["hash"] = chain["blocks"][2]["hash"].replace("0", "1")

    ended = pow_mcp("verify", "-", text=json.dumps(chain))
    in_json = pow_mcp("verify", "--json", "-", text=json.dumps(chain))

    assert ended.returncode == in_json.returncode == 1
    assert ended.stdout.startswith("invalid: block 3: its hash is")
    verdict = json.loads(in_json.stdout)
    assert (verdict["valid"], verdict["block"], verdict["fault"]) == (False, 3, "hash_mismatch")


def test_verify_proves_the_smallest_nonce_only_when_asked() -> None:
    # At difficulty 1 nonce 2 meets it as nonce 1 does, and is not the smallest.
    from pow import Block, Chain

    later = next(
        block for nonce in range(2, 100) if (block := Block.from_nonce(1, "GENESIS", nonce)).hash[0] in "01234567"
    )
    chain = json.dumps(Chain("GENESIS", 1, (later,)).to_dict())

    plain, proven = pow_mcp("verify", "-", text=chain), pow_mcp("verify", "--prove-smallest", "-", text=chain)

    assert plain.returncode == 0
    assert proven.returncode == 1
    assert f"its nonce is {later.nonce}, but 1 meets the difficulty too" in proven.stdout


def test_what_is_json_but_no_chain_does_not_verify() -> None:
    ended = pow_mcp("verify", "-", text='{"genesis": "GENESIS", "difficulty": 1, "blocks": [{"index": 1}]}')

    assert ended.returncode == 1
    assert "blocks[0].previous_hash must be text, not missing" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dig"], "invalid choice: 'dig'"),
        (["mine", "--difficulty", "257"], "must be an integer from 0 to 256, not '257'"),
        (["mine", "--difficulty", "-1"], "must be an integer from 0 to 256, not '-1'"),
        (["mine", "--difficulty", "9" * 30], "must be an integer from 0 to 256"),
        (["mine", "--difficulty", "hard"], "must be an integer from 0 to 256, not 'hard'"),
        (["mine", "--blocks", "0"], "must be an integer of at least 1, not '0'"),
        (["mine", "--threads", "0"], "must be an integer from 1 to 1024, not '0'"),
        (["mine", "--threads", "1025"], "must be an integer from 1 to 1024, not '1025'"),
        (["mine", "--genesis", "a\nb"], "genesis must not contain control characters or line breaks; it has U+000A"),
        (["mine", "--genesis", "x" * 65], "genesis must be at most 64 bytes of UTF-8, not 65"),
        (["mine", "--backend", "cuda"], "backend 'cuda' is not known; valid here: auto,"),
        (["verify", "/nowhere/chain.json"], "can't read /nowhere/chain.json: No such file or directory"),
        (["verify", "-"], "- is not JSON"),
        (["calibrate", "--budget", "0"], "must be a number of seconds from 1e-09 to 1e+09, not '0'"),
        (["calibrate", "--budget", "-1"], "must be a number of seconds from 1e-09 to 1e+09, not '-1'"),
        (["calibrate", "--budget", "nan"], "must be a number of seconds from 1e-09 to 1e+09, not 'nan'"),
        (["calibrate", "--budget", "inf"], "must be a number of seconds from 1e-09 to 1e+09, not 'inf'"),
        (["calibrate", "--budget", "soon"], "must be a number of seconds from 1e-09 to 1e+09, not 'soon'"),
        (["calibrate", "--blocks", "0"], "must be an integer from 1 to 1000, not '0'"),
        (["calibrate", "--blocks", "1001"], "must be an integer from 1 to 1000, not '1001'"),
        (["calibrate", "--chance", "1"], "must be a number above 0 and below 1, not '1'"),
        (["calibrate", "--chance", "0"], "must be a number above 0 and below 1, not '0'"),
        (["calibrate", "--chance", "95"], "must be a number above 0 and below 1, not '95'"),
        (["calibrate", "--chance", "nan"], "must be a number above 0 and below 1, not 'nan'"),
        (["calibrate", "--measure", "0"], "must be a number of seconds above 0 and at most 3600, not '0'"),
        (["calibrate", "--measure", "1e9"], "must be a number of seconds above 0 and at most 3600, not '1e9'"),
        (["calibrate", "--threads", "0"], "must be an integer from 1 to 1024, not '0'"),
        (["calibrate", "--backend", "cuda"], "backend 'cuda' is not known; valid here: auto,"),
        (["calibrate", "--plot", "odds.gif"], "file name must end with one of .svg, .png, .pdf, not 'odds.gif'"),
        (["serve", "--port", "65536"], "must be an integer from 0 to 65535, not '65536'"),
        (["serve", "--ephemeral", "--state-dir", "x"], "not allowed with argument"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_usage_gets_its_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    ended = pow_mcp(*arguments, text="{")

    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [["mine", "--difficulty", "4"], ["backends"], ["--version"]], ids=" ".join)
def test_an_unknown_backend_in_the_environment_is_an_error_everywhere(command: list[str]) -> None:
    ended = pow_mcp(*command, POW_BACKEND="cuda")

    assert ended.returncode == 2
    assert "POW_BACKEND 'cuda' is not known; valid here: auto," in ended.stderr
    assert "hashlib" in ended.stderr


def test_backends_lists_every_backend_and_what_it_can_do() -> None:
    ended = pow_mcp("backends", "--json")
    rows = {row["name"]: row for row in json.loads(ended.stdout)}

    assert ended.returncode == 0
    assert ended.stdout.count("\n") == 1
    assert set(rows) == set(all_backends())
    for name, backend in all_backends().items():
        found = (rows[name]["compiled"], rows[name]["supported"], rows[name]["self_test"])
        assert (name, found) == (name, (backend.compiled, backend.supported, backend.self_test))
    assert {name for name in rows if rows[name]["rate"] is not None} == set(USABLE)


def test_backends_lists_the_fastest_first_and_then_what_cannot_run() -> None:
    rows = json.loads(pow_mcp("backends", "--json").stdout)

    rates = [row["rate"] for row in rows]
    assert rates[: len(USABLE)] == sorted((rate for rate in rates if rate is not None), reverse=True)
    assert rates[len(USABLE) :] == [None] * (len(rates) - len(USABLE))
    assert rates[len(USABLE) - 1] > 0


def test_without_a_choice_the_first_of_the_listed_backends_is_active() -> None:
    rows = json.loads(pow_mcp("backends", "--json", POW_BACKEND="").stdout)

    assert [row["active"] for row in rows] == [True, *[False] * (len(rows) - 1)]


@pytest.mark.parametrize("backend", USABLE)
def test_the_table_of_backends_says_the_same_for_people(backend: str) -> None:
    ended = pow_mcp("backends", POW_BACKEND=backend)

    assert ended.returncode == 0
    headings, *lines = (re.split(r"  +", line) for line in ended.stdout.splitlines())
    assert headings == ["backend", "compiled", "supported", "self-test", "million hashes/s", "active"]
    cells = {line[0]: line[1:] for line in lines}
    assert set(cells) == set(all_backends())
    assert [name for name, shown in cells.items() if shown[-1] == "*"] == [backend]
    for name, known in all_backends().items():
        compiled, supported, self_test, rate = cells[name][:4]
        if known.usable:
            assert (name, compiled, supported, self_test) == (name, "yes", "yes", "passed")
            assert float(rate.replace(",", "")) > 0
        else:
            assert (name, compiled, supported) == (name, "yes" if known.compiled else "no", "no")
            assert (self_test, rate) == ("-", "-")


def test_the_table_says_which_backend_failed_its_self_test() -> None:
    rows = [
        {"name": "quick", "compiled": True, "supported": True, "self_test": True, "rate": 1.2346e9, "active": True},
        {"name": "broken", "compiled": True, "supported": True, "self_test": False, "rate": None, "active": False},
    ]

    assert backends_report.as_text(rows).splitlines() == [
        "backend       compiled  supported  self-test  million hashes/s  active",
        "quick         yes       yes        passed              1,234.6  *",
        "broken        yes       yes        FAILED                    -",
    ]


@pytest.mark.parametrize("backend", USABLE)
def test_the_environment_chooses_the_backend(backend: str) -> None:
    rows = json.loads(pow_mcp("backends", "--json", POW_BACKEND=backend).stdout)

    assert [row["name"] for row in rows if row["active"]] == [backend]
    assert pow_mcp("--version", POW_BACKEND=backend).stdout == f"pow-mcp {__version__} (backend {backend})\n"


@pytest.mark.skipif(native_missing(), reason="the native extension is not built here")
def test_the_version_is_silent_about_an_extension_that_is_there() -> None:
    ended = pow_mcp("--version")

    assert ended.stdout.startswith(f"pow-mcp {__version__} (backend ")
    assert ended.stderr == ""


@pytest.mark.parametrize("command", ["serve", "mine", "verify", "calibrate", "backends"])
def test_every_command_has_a_help_text(command: str) -> None:
    ended = pow_mcp(command, "--help")

    assert ended.returncode == 0
    assert f"usage: pow-mcp {command}" in ended.stdout


@pytest.mark.parametrize("blocks", ["1", "2000"])
def test_a_reader_that_goes_away_gets_no_traceback(blocks: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pow", "mine", "--difficulty", "1", "--blocks", blocks, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()

    assert errors == b""


def test_only_serving_and_drawing_import_what_is_slow() -> None:
    listed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pow.cli.main; slow = {'mcp', 'durabletask', 'numpy', 'uvicorn', 'matplotlib'}; "
            "code = pow.cli.main.main(['calibrate', '--measure', '0.01', '--json']); "
            "print(code, slow & set(sys.modules), file=sys.stderr)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert listed.stderr == "0 set()\n"


@pytest.mark.parametrize("command", [["worker"], ["serve", "--port", "0", "--ephemeral"]], ids=lambda words: words[0])
def test_without_durabletask_a_scheduler_is_an_error_that_says_how_to_get_it(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "durabletask.py").write_text("raise ImportError('not here')")
    scheduler = "Endpoint=http://localhost:8080;TaskHub=default;Authentication=None"

    ended = pow_mcp(*command, PYTHONPATH=str(tmp_path), DURABLE_TASK_SCHEDULER_CONNECTION_STRING=scheduler)

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "DURABLE_TASK_SCHEDULER_CONNECTION_STRING names a scheduler, which needs more packages" in ended.stderr
    assert "pip install 'pow-mcp[scheduler]'" in ended.stderr


def test_a_server_without_a_scheduler_and_a_storage_needs_the_packages_of_neither(tmp_path: Path) -> None:
    for package in ("azure", "durabletask"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('not here')")

    with ServerProcess(PYTHONPATH=str(tmp_path)) as server:
        assert server.health()["status"] == "ok"
