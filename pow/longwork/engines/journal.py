"""The embedded engine's memory: a SQLite file that outlives the process.

It holds what was accepted, what has finished, and the slices mined in between. It is written at once
and in WAL mode: a killed process loses nothing that was written; a machine that loses its power may
lose the last moments, never the file's integrity.
"""

import json
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pow.errors import EngineError
from pow.mining.workflow import Document

FILE_NAME = "journal.sqlite3"

# Finished workflows are kept for a week, and the file is from one format only.
_KEEP_FINISHED_SECONDS = 7 * 24 * 3600
_FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS workflow (
    id TEXT PRIMARY KEY,
    orchestration TEXT NOT NULL,
    input TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    -- The rest is set when it finishes: status is the engine's own number for how.
    finished_at REAL,
    status INTEGER,
    output TEXT,
    error TEXT,
    custom_status TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slice (
    workflow_id TEXT NOT NULL,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (workflow_id, request)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS workflow_accepted ON workflow (accepted_at);
"""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One workflow; the fields from `finished_at` on are None until it finishes. Times are Unix seconds."""

    id: str
    orchestration: str
    input: str
    accepted_at: float
    finished_at: float | None
    status: int | None
    output: str | None
    error: str | None
    custom_status: str | None


class Journal:
    """Workflows and their mined slices. Thread-safe. One process at a time has the file open."""

    def __init__(self, state_dir: Path | None) -> None:
        """
        Args:
            state_dir: the folder of the journal's file, made if missing; None keeps it in memory.

        Raises:
            EngineError: the folder or file can't be used, or another server has it open.
        """
        self._lock = threading.Lock()
        self._connection = _open_database(state_dir)
        with self._lock:
            self._connection.execute(
                "DELETE FROM workflow WHERE finished_at < ?", (time.time() - _KEEP_FINISHED_SECONDS,)
            )

    def accept(self, workflow_id: str, orchestration: str, input: str) -> None:
        """Record a workflow that is to run; one that is known already stays as it is."""
        self._execute(
            "INSERT INTO workflow (id, orchestration, input, accepted_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (workflow_id, orchestration, input, time.time()),
        )

    def record_slice(self, workflow_id: str, request: Document, answer: Document) -> None:
        """Record what an activity answered, unless its workflow has finished: it was cancelled meanwhile."""
        self._execute(
            "INSERT OR REPLACE INTO slice SELECT id, ?, ? FROM workflow WHERE id = ? AND finished_at IS NULL",
            (_key(request), json.dumps(answer), workflow_id),
        )

    def recorded_slice(self, workflow_id: str, request: Document) -> Document | None:
        """What the activity answered to this request before, or None."""
        rows = self._execute(
            "SELECT answer FROM slice WHERE workflow_id = ? AND request = ?", (workflow_id, _key(request))
        )
        return json.loads(rows[0][0]) if rows else None

    def carry_on(self, workflow_id: str, input: str) -> None:
        """Let a workflow run from a new input; the slices that led to it are in it."""
        self._execute("UPDATE workflow SET input = ? WHERE id = ?", (input, workflow_id), drop_slices_of=workflow_id)

    def finish(
        self, workflow_id: str, *, status: int, output: str | None, error: str | None, custom_status: str | None
    ) -> None:
        """Record how a workflow ended."""
        self._execute(
            "UPDATE workflow SET finished_at = ?, status = ?, output = ?, error = ?, custom_status = ? WHERE id = ?",
            (time.time(), status, output, error, custom_status, workflow_id),
            drop_slices_of=workflow_id,
        )

    def entry(self, workflow_id: str) -> JournalEntry | None:
        """The workflow of that id, or None."""
        rows = self._execute("SELECT * FROM workflow WHERE id = ?", (workflow_id,))
        return JournalEntry(*rows[0]) if rows else None

    def is_finished(self, workflow_id: str) -> bool:
        """Whether the workflow is known and has ended."""
        entry = self.entry(workflow_id)
        return entry is not None and entry.finished_at is not None

    def unfinished(self) -> list[JournalEntry]:
        """The workflows that are still to run, oldest first."""
        rows = self._execute("SELECT * FROM workflow WHERE finished_at IS NULL ORDER BY accepted_at")
        return [JournalEntry(*row) for row in rows]

    def finished(self, limit: int) -> list[JournalEntry]:
        """The newest workflows that have finished."""
        rows = self._execute(
            "SELECT * FROM workflow WHERE finished_at IS NOT NULL ORDER BY accepted_at DESC LIMIT ?", (limit,)
        )
        return [JournalEntry(*row) for row in rows]

    def close(self) -> None:
        """Close the file; another process may open it then."""
        with self._lock:
            self._connection.close()

    def _execute(
        self, statement: str, values: tuple[Any, ...] = (), *, drop_slices_of: str | None = None
    ) -> list[tuple[Any, ...]]:
        # Leaving `with connection` commits: both statements or neither.
        with self._lock, self._connection as connection:
            rows = connection.execute(statement, values).fetchall()
            if drop_slices_of is not None:
                connection.execute("DELETE FROM slice WHERE workflow_id = ?", (drop_slices_of,))
        return rows


def _open_database(state_dir: Path | None) -> sqlite3.Connection:
    if state_dir is None:
        where = ":memory:"
    else:
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(f"the state directory {state_dir} can't be made: {error}") from error
        where = str(state_dir / FILE_NAME)
    try:
        connection = sqlite3.connect(where, timeout=1, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise EngineError(f"the journal {where} can't be opened: {error}") from error
    try:
        _prepare(connection, where)
    except sqlite3.DatabaseError as error:
        connection.close()
        if "locked" in str(error):
            raise EngineError(
                f"another pow-mcp server uses the state directory {state_dir}; "
                f"stop it, or choose another folder with --state-dir, or none with --ephemeral"
            ) from error
        raise EngineError(
            f"{where} can't be used as a journal ({error}); move it away, or choose another folder with --state-dir"
        ) from error
    except EngineError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, where: str) -> None:
    # Exclusive: a second server on the same file would run the same workflows again. The lock goes
    # with the process, however it ends.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (found_format,) = connection.execute("PRAGMA user_version").fetchone()
    if found_format not in (0, _FORMAT):
        raise EngineError(
            f"{where} has format {found_format}, but this version reads format {_FORMAT}; "
            f"choose another folder with --state-dir"
        )
    connection.executescript(_SCHEMA)
    connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _key(request: Document) -> str:
    # Never the task's id: a history that is continued as new counts those from the beginning again.
    return json.dumps(request, sort_keys=True)
