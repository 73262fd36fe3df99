"""The activity of a process: runs a work's slices, each once, and for as long as somebody wants them.

What engines deliver comes late and twice, and goes on coming for workflows that have ended: a terminate takes no
slice back. So the activity remembers what it has answered and whose end it knows, and while it runs a slice it looks a
few times a second whether the workflow still does.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypedDict

from pow.longwork.engines.remembered import Remembered
from pow.longwork.overhead import Overhead
from pow.longwork.work import AnyWork, Control, Message

HasEnded = Callable[[str], bool]
"""Asks an engine whether a workflow has ended, by its id. May block for a moment, and may raise."""

FAILURE = "work_failed"
"""The one key of what an activity answers when the work itself has failed: its words. It is no failed activity, since
those are their host's doing, and tried again."""

# How often to look whether a slice's workflow was ended elsewhere; the first time soon, since an engine may hand out
# slices of workflows that ended before. Most blocks are shorter than that, and cost no look.
_FIRST_LOOK_SECONDS = 0.01
_LOOK_SECONDS = 0.25
# A process with many slices asks its engine no oftener than this, in all.
_BETWEEN_LOOKS_SECONDS = 0.02

# What takes longer between two slices of a workflow is a queue, or a restart.
_LONGEST_OVERHEAD_SECONDS = 0.1

_REMEMBERED_ANSWERS = 256
_REMEMBERED_ENDS = 10_000

logger = logging.getLogger(__name__)


class ActivityInput(TypedDict):
    """What an activity is asked for."""

    request: Message
    seconds: float
    workflow_id: str


class _Run:
    """A slice under way, and what came of it for whoever asks for the same."""

    def __init__(self, control: Control[Any], has_ended: HasEnded | None) -> None:
        self.control = control
        self.has_ended = has_ended
        self.look_at = time.monotonic() + _FIRST_LOOK_SECONDS
        self.ended = threading.Event()
        self.answer: Message | None = None


class Activities:
    """The activity of a process, and the runs that are under way in it. Thread-safe."""

    def __init__(self, work: AnyWork, overhead: Overhead) -> None:
        """
        Args:
            work: whose runs they are.
            overhead: is told what passed between two slices of a workflow.
        """
        self.overhead = overhead
        self._work = work
        # When the newest slice of a workflow ended here, on the monotonic clock.
        self._ended_at = Remembered[float](_REMEMBERED_ANSWERS)
        self._changed = threading.Condition()
        self._running: dict[Hashable, _Run] = {}
        self._answers = Remembered[Message](_REMEMBERED_ANSWERS)
        self._ends = Remembered[None](_REMEMBERED_ENDS)
        self._closing = False
        self._watch: threading.Thread | None = None
        # When the watch looks again by itself, on the monotonic clock.
        self._watch_wakes_at = float("inf")

    def run(self, document: Message, workflow_id: str | None = None, has_ended: HasEnded | None = None) -> Message:
        """The activity: run the work on an input for as long as that says.

        Args:
            document: an `ActivityInput`, or the first version's: a request with the seconds beside its fields.
            workflow_id: whose it is, where the SDK says so.
            has_ended: tells whether the workflow has ended meanwhile; None where nobody can.
        """
        given: Any = document
        deadline = time.monotonic() + given["seconds"]
        owner = workflow_id or str(given["workflow_id"])
        request: Message = given.get("request", given)
        key = (owner, json.dumps({**request, "seconds": None}, sort_keys=True))
        control: Control[Any] = Control(owner, lambda: self._closing or time.monotonic() >= deadline)
        run = _Run(control, has_ended)
        with self._changed:
            first = self._running.get(key)
            # Once: a work that got nowhere is asked the same again, and would be told so for ever.
            answered = self._answers.pop(key)
            if answered is not None:
                return answered
            if first is None:
                before = self._ended_at.pop(owner)
                if before is not None:
                    self.overhead.add(min(time.monotonic() - before, _LONGEST_OVERHEAD_SECONDS))
                self._running[key] = run
                self._watch_over(run)
            gone = owner in self._ends
        if first is not None:
            # It was handed out again while it runs.
            first.ended.wait()
            if first.answer is not None:
                return first.answer
            return self.run(document, workflow_id, has_ended)
        if gone:
            control.cancel()
        try:
            run.answer = self._answer(request, control)
            return run.answer
        finally:
            with self._changed:
                del self._running[key]
                self._ended_at.add(owner, time.monotonic())
                if run.answer is not None and not (self._closing or control.cancelled):
                    self._answers.add(key, run.answer)
            run.ended.set()

    def cancel(self, workflow_id: str) -> None:
        """End the workflow's runs in this process at once, and those that may still come."""
        with self._changed:
            self._ends.add(workflow_id, None)
            controls = [run.control for run in self._running.values() if run.control.workflow_id == workflow_id]
        for control in controls:
            control.cancel()

    def close(self) -> None:
        """Let every run return soon with what it has, now and from now on."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _answer(self, request: Message, control: Control[Any]) -> Message:
        try:
            answer: Message = self._work.run(request, control)
        except MemoryError:
            # Of this process, not of the work: on another one it may do.
            raise
        except Exception as error:
            logger.exception("a slice of workflow %s failed", control.workflow_id)
            return {FAILURE: str(error) or repr(error)}
        return answer

    def _watch_over(self, run: _Run) -> None:
        """Called under the lock."""
        if run.has_ended is None:
            return
        if self._watch is None:
            self._watch = threading.Thread(target=self._look_after_runs, name="ended-workflows", daemon=True)
            self._watch.start()
        elif run.look_at < self._watch_wakes_at:
            self._changed.notify_all()

    def _look_after_runs(self) -> None:
        while (run := self._next_to_look_at()) is not None:
            workflow_id = run.control.workflow_id
            try:
                ended = run.has_ended is not None and run.has_ended(workflow_id)
            except Exception as error:  # of whatever library asks; a slice is bounded anyhow
                logger.debug("can't ask whether workflow %s still runs: %s", workflow_id, error)
                ended = False
            if ended:
                self.cancel(workflow_id)
            run.look_at = time.monotonic() + _LOOK_SECONDS
            time.sleep(_BETWEEN_LOOKS_SECONDS)

    def _next_to_look_at(self) -> _Run | None:
        """The run that is to be looked at first, when it is time; None at the end."""
        with self._changed:
            while not self._closing:
                watched = [run for run in self._running.values() if run.has_ended and not run.control.cancelled]
                first = min(watched, key=lambda run: run.look_at, default=None)
                if first is not None and first.look_at <= time.monotonic():
                    return first
                self._watch_wakes_at = float("inf") if first is None else first.look_at
                self._changed.wait(None if first is None else first.look_at - time.monotonic())
            return None
