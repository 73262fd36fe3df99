"""Counting primes as a long work: the one file that somebody writes who wants other long work behind MCP tools.

The primes below N are counted segment by segment. The state is how far that is and how many were found, so the
count goes on after any crash, and repeats a second of it at most.
"""

import math
import time
from collections.abc import Mapping

from typing_extensions import TypedDict  # schemas are made of these: typing's own only from Python 3.12 on

from pow.longwork.engine import Engine
from pow.longwork.service import ToolNames
from pow.longwork.work import Progress, Result, StepControl, StepWork
from pow.settings import Settings
from pow.tools.composition import House, house_of
from pow.tools.declarations import Argument, count_to
from pow.tools.long_work import WorkDeclaration
from pow.units import duration, integer

DEFAULT, LARGEST = 10_000_000, 10**12
_SEGMENT = 1 << 18


class Job(TypedDict):
    """Count the primes below this number."""

    below: int


class State(TypedDict):
    """All numbers below `next` were looked at, `primes` of them are prime, and that took so many seconds."""

    below: int
    next: int
    primes: int
    seconds: float


class Count(TypedDict):
    """How many primes there are below a number."""

    below: int
    primes: int


class CountProgress(TypedDict):
    """How far a count is."""

    share_done: float
    primes: int
    expected_seconds_left: float


class PrimesWork(StepWork[Job, State]):
    """The long work."""

    name = "count_primes"
    result_key = "count"

    def parse(self, arguments: Mapping[str, object]) -> Job:
        below = arguments.get("below")
        return {"below": DEFAULT if below is None else integer("below", below, LARGEST)}

    def first(self, job: Job) -> State:
        return {"below": job["below"], "next": 2, "primes": 0, "seconds": 0.0}

    def finished(self, state: State) -> bool:
        return state["next"] >= state["below"]

    def step(self, state: State, control: StepControl[State]) -> State:
        told = began = time.monotonic()
        while not self.finished(state) and not control.over:
            stop = min(state["next"] + _SEGMENT, state["below"])
            state["primes"] += primes_between(state["next"], stop)
            state["next"] = stop
            now = time.monotonic()
            state["seconds"] += now - began
            began = now
            if now - told >= 1:
                control.reached(state)
                told = now
        return state

    def describe(self, job: Job, state: State) -> Progress:
        share = min(state["next"] / job["below"], 1.0)
        left = state["seconds"] / share * (1 - share) if state["seconds"] else 1.0
        return Progress(
            done=share,
            total=1.0,
            sentence=f"{share:.1%} of the numbers below {job['below']:,} looked at, some {duration(left)} to go",
            poll_after_seconds=round(min(max(left / 2, 1), 30)),
            document={"share_done": share, "primes": state["primes"], "expected_seconds_left": left},
        )

    def conclude(self, state: State) -> Result:
        text = f"There are **{state['primes']:,}** primes below {state['below']:,}."
        return Result(text, {"below": state["below"], "primes": state["primes"]})


def primes_between(start: int, stop: int) -> int:
    """How many primes [start, stop) has; start is at least 2. (A segment of Eratosthenes' sieve.)"""
    sieve = bytearray([1]) * (stop - start)
    for number in range(2, math.isqrt(stop - 1) + 1):
        first = max(number * number, -(-start // number) * number)
        sieve[first - start :: number] = bytes(len(range(first - start, stop - start, number)))
    return sum(sieve)


DECLARATION = WorkDeclaration(
    names=ToolNames("start_count", "get_count", "cancel_count", "list_counts"),
    arguments=(Argument("below", count_to(LARGEST), "Count the primes below this number.", default=10_000_000),),
    job=Job,
    output=Count,
    progress=CountProgress,
    start="Count the primes below a number.",
    title="Count primes",
    noun="count",
    listed="counts",
)


def primes_house(work: PrimesWork, engine: Engine, settings: Settings) -> House:
    """The work's tools on an engine, for any host."""
    return house_of(
        work,
        DECLARATION,
        engine,
        settings,
        name="primes",
        title="Primes",
        instructions="Counts primes. Call start_count; if its status is running, wait and call get_count.",
    )
