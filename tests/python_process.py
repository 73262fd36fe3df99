"""A Python process that tests start, talk to and end."""

import os
import re
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

# How long anything may take before a test is called hung: never a measure of speed.
HANG_SECONDS = 120.0


class PythonProcess:
    """A Python process that prints a line when it is ready. Leaving the context kills it, if it still runs."""

    def __init__(self, *arguments: str, ready: str, **environment: str) -> None:
        """
        Args:
            arguments: of the interpreter that runs the tests.
            ready: a pattern in the line that says that it is ready.
            environment: its environment, beside this process's.
        """
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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

    def finish(self) -> tuple[str, str]:
        """Wait for the end; what it printed since the start line, and its standard error."""
        return self._process.communicate(timeout=HANG_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
            errors = self.finish()[1]
            if error is not None:
                error.add_note(f"the standard error of {self._process.args!r}:\n{errors}")
