"""A Python process that tests start, talk to and end."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

# How long anything may take before a test is called hung: never a measure of speed.
HANG_SECONDS = 120.0


class PythonProcess:
    """A Python process that prints a line when it is ready. Leaving the context kills it, if it still runs."""

    def __init__(
        self,
        *arguments: str,
        ready: str,
        python: str | Path = sys.executable,
        folder: str | Path = ".",
        **environment: str,
    ) -> None:
        """
        Args:
            arguments: of the interpreter.
            ready: a pattern in the line that says that it is ready.
            python: the interpreter.
            folder: where it runs.
            environment: its environment, beside this process's.
        """
        # A file: a pipe that nobody reads would stop the process when it is full.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._output = self._logged = ""
        self._process = subprocess.Popen(
            [str(python), *arguments],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=folder,
            env={**os.environ, **environment},
        )
        assert self._process.stdout is not None
        self.start_line = self._process.stdout.readline()
        found = re.search(ready, self.start_line)
        if found is None:
            self._process.wait(HANG_SECONDS)
            raise AssertionError(f"{' '.join(arguments)} did not start: {self.start_line}{self.finish()[1]}")
        self.ready = found

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash does: no handler runs."""
        self._process.kill()
        self.finish()

    def signal(self, number: signal.Signals) -> int:
        """Send a signal; the exit code that it leads to."""
        self._process.send_signal(number)
        self.finish()
        return self._process.returncode

    def log(self) -> str:
        """What it has written to its standard error so far."""
        if not self._errors.closed:
            self._errors.seek(0)
            self._logged = self._errors.read()
        return self._logged

    def finish(self) -> tuple[str, str]:
        """Wait for the end; what it printed since the start line, and its standard error."""
        if not self._errors.closed:
            self._output, _ = self._process.communicate(timeout=HANG_SECONDS)
            self.log()
            self._errors.close()
        return self._output, self._logged

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.kill()  # no error if it has ended
        errors = self.finish()[1]
        if error is not None:
            error.add_note(f"the standard error of {self._process.args!r}:\n{errors[-20_000:]}")
