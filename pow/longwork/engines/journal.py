"""The embedded engine's memory: a table of workflows in a SQLite file that outlives the process.

One row holds a workflow: its job, its state as far as it was written, and how it ended. It is written
in WAL mode: a killed process loses nothing that was written; a machine that loses its power may lose
the last moments, never the file's integrity.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pow.errors import EngineError
from pow.longwork.engine import KEEP_SECONDS, EngineStatus
from pow.longwork.engines import wal
from pow.longwork.work import Message

FILE_NAME = "journal.sqlite3"


# The log is moved into the file when it is as long as this: some thousand writes.
_LONG_LOG_BYTES = 4 << 20

_FORMAT = 2
_FIRST_FORMAT = 1
# The statuses of the first format, which were the Durable Task SDK's numbers.
_FIRST_STATUSES: dict[int, EngineStatus] = {1: "completed", 3: "failed", 5: "terminated"}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS workflow (
    number INTEGER PRIMARY KEY,      -- in the order of their starts, whatever clocks say
    id TEXT NOT NULL UNIQUE,
    owner TEXT,                      -- who started it; NULL where callers aren't known
    twin TEXT,                       -- equal for equal jobs of one owner
    status TEXT NOT NULL,
    job TEXT NOT NULL,
    state TEXT NOT NULL,             -- as it was last written; the last one of a completed workflow
    error TEXT,                      -- of a failed one
    used REAL NOT NULL,              -- seconds that its runs have had
    created_at REAL NOT NULL,        -- Unix seconds, as the next one
    updated_at REAL NOT NULL,
    ended REAL                       -- what the clock in `clock` said at its end
) STRICT;
CREATE INDEX IF NOT EXISTS workflow_owner ON workflow (owner, number);
CREATE INDEX IF NOT EXISTS workflow_running ON workflow (number) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS workflow_twin ON workflow (twin) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS workflow_ended ON workflow (ended) WHERE ended IS NOT NULL;
-- Seconds that servers have run on this file: a clock that nobody sets.
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), seconds REAL NOT NULL) STRICT;
INSERT OR IGNORE INTO clock VALUES (1, 0.0);
"""
_COLUMNS = "number, id, owner, status, job, state, error, used, created_at, updated_at"

Adopt = Callable[[Message, Sequence[tuple[Message, Message]]], tuple[Message, Message]]
"""(an orchestration's input, the requests and answers of its slices since) -> job, state: reads the first format."""

logger = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """What the engine needs to know of a running workflow until its turn comes."""

    number: int
    id: str
    owner: str | None
    used: float


@dataclass(frozen=True, slots=True)
class Row:
    """A workflow as it was last written. Times are Unix seconds."""

    number: int
    id: str
    owner: str | None
    status: EngineStatus
    job: str
    state: str
    error: str | None
    used: float
    created_at: float
    updated_at: float


class Journal:
    """The table. Thread-safe. One process at a time has the file open.

    Methods raise sqlite3.Error when the file can't be read or written; nothing is half written then.
    """

    def __init__(self, state_dir: Path | None, adopt: Adopt) -> None:
        """
        Args:
            state_dir: the folder of the file, made if missing; None keeps the table in memory.
            adopt: reads workflows of a file in the first format.

        Raises:
            EngineError: the folder or file can't be used, another server has it open, or its format is newer.
        """
        self._lock = threading.RLock()
        self._path = None if state_dir is None else state_dir / FILE_NAME
        self._connection = _open(self._path, adopt)
        self._identity = self._file_identity()
        self._ticked = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a call would have to wait for another thread's."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return False
        return True

    def insert(self, workflow_id: str, owner: str | None, twin: str, job: str, state: str) -> Row:
        """Accept a workflow; it is durable when this returns."""
        now = time.time()
        with self._lock, self._connection as connection:
            cursor = connection.execute(
                "INSERT INTO workflow (id, owner, twin, status, job, state, used, created_at, updated_at) "
                "VALUES (?, ?, ?, 'running', ?, ?, 0.0, ?, ?)",
                (workflow_id, owner, twin, job, state, now, now),
            )
            number = cursor.lastrowid
        assert number is not None
        return Row(number, workflow_id, owner, "running", job, state, None, 0.0, now, now)

    def update(
        self, number: int, *, status: EngineStatus, state: str | None, error: str | None, used: float, updated_at: float
    ) -> None:
        """Write how far a workflow is, or how it ended; a state of None stays as it was written last."""
        with self._lock, self._connection as connection:
            connection.execute(
                "UPDATE workflow SET status = ?1, state = coalesce(?2, state), error = ?3, used = ?4, updated_at = ?5, "
                "ended = CASE ?1 WHEN 'running' THEN NULL ELSE (SELECT seconds FROM clock) END WHERE number = ?6",
                (status, state, error, used, updated_at, number),
            )

    def find(self, workflow_id: str) -> Row | None:
        """The workflow of that id, or None."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM workflow WHERE id = ?", (workflow_id,))
        return rows[0] if rows else None

    def newest(self, owner: str | None, limit: int) -> list[Row]:
        """The owner's newest workflows, newest first."""
        return self._rows(
            f"SELECT {_COLUMNS} FROM workflow INDEXED BY workflow_owner WHERE owner IS ? ORDER BY number DESC LIMIT ?",
            (owner, limit),
        )

    def twin(self, key: str) -> str | None:
        """The id of a running workflow with that key, or None."""
        with self._lock:
            found = self._connection.execute(
                "SELECT id FROM workflow INDEXED BY workflow_twin WHERE status = 'running' AND twin = ? LIMIT 1", (key,)
            ).fetchone()
        return None if found is None else str(found[0])

    def waiting(self) -> Iterator[Waiting]:
        """The running workflows, oldest first."""
        with self._lock:
            yield from (
                Waiting(*row)
                for row in self._connection.execute(
                    "SELECT number, id, owner, used FROM workflow INDEXED BY workflow_running "
                    "WHERE status = 'running' ORDER BY number"
                )
            )

    def counts(self) -> dict[EngineStatus, int]:
        """How many workflows have each status."""
        with self._lock:
            return dict(self._connection.execute("SELECT status, count(*) FROM workflow GROUP BY status"))

    def tick(self) -> None:
        """Let the clock of running servers go on, and forget what ended a week of it ago."""
        now = time.monotonic()
        with self._lock, self._connection as connection:
            connection.execute("UPDATE clock SET seconds = seconds + ?", (now - self._ticked,))
            connection.execute(
                "DELETE FROM workflow INDEXED BY workflow_ended WHERE ended < (SELECT seconds FROM clock) - ?",
                (KEEP_SECONDS,),
            )
        self._ticked = now

    def checkpoint(self) -> None:
        """Move a log that has grown long into the file. That waits for the disk: call it where nobody waits for you."""
        if self._path is None:
            return
        log = self._path.with_name(f"{FILE_NAME}-wal")
        if log.exists() and log.stat().st_size >= _LONG_LOG_BYTES:
            with self._lock:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def keep_file(self) -> None:
        """Make sure that the file is where it was: where somebody has removed it, write it again.

        Raises:
            OSError, sqlite3.Error: it can't be written, or another file has its place.
        """
        if self._path is None or self._file_identity() == self._identity:
            return
        if self._path.exists():
            raise FileExistsError(f"another file has taken the journal's place: {self._path}")
        with self._lock:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for suffix in ("-wal", "-shm", ".new"):
                self._path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
            copy = self._path.with_name(f"{FILE_NAME}.new")
            self._connection.execute("VACUUM INTO ?", (str(copy),))
            copy.rename(self._path)
            new = _connect(self._path)
            self._connection.close()
            self._connection = new
            self._identity = self._file_identity()
        logger.warning("the journal %s had been removed, and was written again", self._path)

    def close(self) -> None:
        """Close the file; another process may open it then."""
        with self._lock:
            with suppress(sqlite3.Error):
                self.tick()
            self._connection.close()

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Row]:
        with self._lock:
            return [Row(*row) for row in self._connection.execute(statement, values)]

    def _file_identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = os.stat(self._path)  # noqa: PTH116 - once a second
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _open(path: Path | None, adopt: Adopt) -> sqlite3.Connection:
    if path is not None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(f"the state directory {path.parent} can't be made: {error}") from error
        _keep_damaged_log(path)
    try:
        connection = _connect(path)
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise EngineError(
                f"another pow-mcp server uses the state directory {path and path.parent}; "
                f"stop it, or choose another folder with --state-dir, or none with --ephemeral"
            ) from error
        raise EngineError(
            f"{path} can't be used as a journal ({error}); move it away, or choose another folder with --state-dir"
        ) from error
    try:
        _prepare(connection, path, adopt)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise EngineError(
            f"{path} can't be used as a journal ({error}); move it away, or choose another folder with --state-dir"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path | None) -> sqlite3.Connection:
    connection = sqlite3.connect(
        ":memory:" if path is None else path, timeout=1, check_same_thread=False, cached_statements=64
    )
    try:
        # Exclusive: a second server on the same file would run the same workflows again. The lock goes
        # with the process, however it ends.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # Not in the middle of somebody's write: `Journal.checkpoint` does it.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # The first write takes the lock.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path | None, adopt: Adopt) -> None:
    (found_format,) = connection.execute("PRAGMA user_version").fetchone()
    if found_format not in (0, _FIRST_FORMAT, _FORMAT):
        raise EngineError(
            f"{path} has format {found_format}, but this version reads formats up to {_FORMAT}: "
            f"it is a newer version's. Use that, or choose another folder with --state-dir"
        )
    connection.execute("BEGIN IMMEDIATE")
    if found_format == _FIRST_FORMAT:
        connection.execute("ALTER TABLE workflow RENAME TO first_workflow")
        connection.execute("ALTER TABLE slice RENAME TO first_slice")
    for statement in filter(str.strip, _SCHEMA.split(";\n")):
        connection.execute(statement)
    if found_format == _FIRST_FORMAT:
        _adopt_all(connection, adopt)
        connection.execute("DROP TABLE first_slice")
        connection.execute("DROP TABLE first_workflow")
    connection.execute(f"PRAGMA user_version = {_FORMAT}")
    connection.execute("COMMIT")


def _adopt_all(connection: sqlite3.Connection, adopt: Adopt) -> None:
    rows = connection.execute(
        "SELECT id, input, accepted_at, finished_at, status, output, error FROM first_workflow ORDER BY accepted_at"
    ).fetchall()
    taken_over = 0
    for workflow_id, given, accepted_at, finished_at, status, output, error in rows:
        try:
            document = json.loads(given)
            slices = [
                (json.loads(request), json.loads(answer))
                for request, answer in connection.execute(
                    "SELECT request, answer FROM first_slice WHERE workflow_id = ?", (workflow_id,)
                )
            ]
            job, state = adopt(document, slices)
            if output is not None:
                state = json.loads(output)
        except (ValueError, KeyError, TypeError) as fault:
            logger.warning("workflow %s of the older journal can't be read, and is left out: %r", workflow_id, fault)
            continue
        ended = finished_at is not None
        connection.execute(
            "INSERT INTO workflow (id, owner, status, job, state, error, used, created_at, updated_at, ended) "
            "VALUES (?, ?, ?, ?, ?, ?, 0.0, ?, ?, ?)",
            (
                workflow_id,
                document.get("owner"),
                _FIRST_STATUSES.get(status, "failed") if ended else "running",
                json.dumps(job),
                json.dumps(state),
                error,
                accepted_at,
                finished_at if ended else accepted_at,
                0.0 if ended else None,
            ),
        )
        taken_over += 1
    logger.warning("took over %d workflow(s) of an older version's journal", taken_over)


def _keep_damaged_log(path: Path) -> None:
    """Keep a log that SQLite would drop without a word, and say so."""
    log = path.with_name(f"{path.name}-wal")
    try:
        what = wal.damage(log)
        if what is None:
            return
        kept = log.with_name(f"{log.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
        kept.write_bytes(log.read_bytes())
    except OSError as error:
        logger.warning("the journal's log %s can't be looked at: %s", log, error)
        return
    logger.warning(
        "the journal's log %s is damaged (%s): what was written after that is lost. The damaged file is kept as %s",
        *(log, what, kept),
    )
