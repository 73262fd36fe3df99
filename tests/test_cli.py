"""The command line, run as a user runs it: a process, its output, its exit code."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pow import __version__
from pow.scanning import all_backends, native_missing

HANG_SECONDS = 120.0


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


@pytest.mark.parametrize("backend", [name for name, backend in all_backends().items() if backend.usable])
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


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_ends_mine_without_a_traceback() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pow", "mine", "--difficulty", "200"], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = os.read(ours, 4096)  # the first progress: it is mining now
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


def test_backends_lists_what_is_there_and_what_is_active() -> None:
    ended = pow_mcp("backends")
    rows = json.loads(pow_mcp("backends", "--json").stdout)

    assert ended.returncode == 0
    assert [row["name"] for row in rows] == list(all_backends())
    assert [row["active"] for row in rows] == [True, *[False] * (len(rows) - 1)]
    (active,) = (line for line in ended.stdout.splitlines() if line.endswith("*"))
    assert active.split()[0] == rows[0]["name"]


def test_the_environment_chooses_the_backend() -> None:
    rows = json.loads(pow_mcp("backends", "--json", POW_BACKEND="hashlib").stdout)

    assert [row["name"] for row in rows if row["active"]] == ["hashlib"]
    assert pow_mcp("--version", POW_BACKEND="hashlib").stdout == f"pow-mcp {__version__} (backend hashlib)\n"


@pytest.mark.skipif(native_missing(), reason="the native extension is not built here")
def test_the_version_is_silent_about_an_extension_that_is_there() -> None:
    ended = pow_mcp("--version")

    assert ended.stdout.startswith(f"pow-mcp {__version__} (backend ")
    assert ended.stderr == ""


@pytest.mark.parametrize("command", ["serve", "mine", "verify", "backends"])
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


def test_mining_does_not_import_the_server() -> None:
    listed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pow.cli; print([m for m in ('mcp', 'durabletask', 'numpy', 'uvicorn') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert listed.stdout == "[]\n"
