"""What a damaged write-ahead log looks like, and what doesn't: logs that SQLite itself has written."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pow.longwork.engines.wal import damage

HEADER_BYTES = 32
FRAME_BYTES = 24 + 512


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log of a database that is open: some transactions on pages of 512 bytes."""
    with closing(sqlite3.connect(tmp_path / "database", isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE entry (text TEXT)")
        for number in range(5):
            connection.execute("INSERT INTO entry VALUES (?)", (f"entry {number}",))
        shutil.copy(tmp_path / "database-wal", tmp_path / "log")
        yield tmp_path / "log"


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x01
    path.write_bytes(content)


def test_a_log_that_sqlite_has_written_is_not_damaged(log: Path) -> None:
    assert log.stat().st_size > HEADER_BYTES + 3 * FRAME_BYTES
    assert damage(log) is None


def test_no_log_is_no_damage(tmp_path: Path) -> None:
    assert damage(tmp_path / "nothing") is None
    (tmp_path / "empty").touch()
    assert damage(tmp_path / "empty") is None


@pytest.mark.parametrize("lost", [1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 7])
def test_a_kill_in_the_middle_of_a_frame_is_no_damage(log: Path, lost: int) -> None:
    log.write_bytes(log.read_bytes()[:-lost])
    assert damage(log) is None


def test_a_last_frame_that_was_not_written_whole_is_no_damage(log: Path) -> None:
    flip(log, log.stat().st_size - 1)
    assert damage(log) is None


@pytest.mark.parametrize("frame", [0, 1])
@pytest.mark.parametrize(
    "offset", [0, 4, 8, 16, 24, 24 + 511], ids=["page", "size", "salt", "checksum", "first", "last"]
)
def test_a_frame_that_is_wrong_and_has_others_behind_it_is_damage(log: Path, frame: int, offset: int) -> None:
    flip(log, HEADER_BYTES + frame * FRAME_BYTES + offset)
    assert damage(log) == f"its frame {frame} is wrong, and frames follow"


@pytest.mark.parametrize(
    ("offset", "what"),
    [(0, "its header is no header"), (9, "its header is no header"), (30, "its header's checksum is wrong")],
)
def test_a_header_that_is_wrong_is_damage(log: Path, offset: int, what: str) -> None:
    flip(log, offset)
    assert damage(log) == what


def test_frames_from_before_the_log_was_begun_anew_are_no_damage(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "database", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE entry (text TEXT)")
        for number in range(5):
            connection.execute("INSERT INTO entry VALUES (?)", (f"entry {number}",))
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        connection.execute("INSERT INTO entry VALUES ('the first one of the new log')")
        log = tmp_path / "database-wal"
        assert log.stat().st_size > HEADER_BYTES + 3 * (24 + 4096)
        assert damage(log) is None
