"""The long works that the contract's tests run over, with jobs whose results are known."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from primes import primes
from primes.primes import PrimesWork

from pow.longwork.work import AnyWork, Control, Message
from pow.mining import work as mining_work
from pow.mining.miner import shared_pool
from pow.mining.work import MiningWork

CHAINS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("genesis_chains.json").read_text("utf-8"))["chains"]


def chain(difficulty: int, blocks: int = 4) -> dict[str, Any]:
    """A chain from GENESIS that an independent implementation has mined, as chain JSON."""
    known = next(chain for chain in CHAINS if (chain["difficulty"], chain["genesis"]) == (difficulty, "GENESIS"))
    return {**known, "blocks": known["blocks"][:blocks]}


@dataclass(frozen=True)
class Case:
    """A work, and what is known of its jobs."""

    work: AnyWork
    quick: Mapping[str, object]
    """Arguments of a job that is done in some milliseconds."""
    other: Mapping[str, object]
    """Arguments of another one."""
    endless: Mapping[str, object]
    """Arguments of a job that no test sees the end of."""
    document: Message
    """What the quick job's result is for programs."""
    text: str
    """What its result says to people, among other things."""
    refused: Mapping[str, object]
    sentence: str
    """Arguments that aren't allowed, and what is said of them."""
    let_talk: Callable[[pytest.MonkeyPatch], None]
    """Lets runs give partial answers all the time, rather than once a second."""

    def job(self, arguments: Mapping[str, object] | None = None) -> Message:
        """What the work makes of arguments: those of the quick job unless others are given."""
        job: Message = self.work.parse(self.quick if arguments is None else arguments)
        return job

    def done(self, job: Message, report: Message | None) -> float:
        """How much of a job was done when its report said so."""
        return 0.0 if report is None else self.work.progress(job, report).done


def _let_mining_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining_work, "_PARTIAL_SECONDS", 0.0)


def _let_primes_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    # On this clock a second goes by between two looks at it.
    monkeypatch.setattr(primes, "time", SimpleNamespace(monotonic=count().__next__))


MINING = Case(
    MiningWork(shared_pool()),
    quick={"difficulty": 16},
    other={"difficulty": 16, "genesis": "another"},
    endless={"difficulty": 200, "blocks": 1},
    document=chain(16),
    text="**Mined 4 blocks at difficulty 16**",
    refused={"difficulty": 257},
    sentence="difficulty must be an integer from 1 to 256, not 257",
    let_talk=_let_mining_talk,
)
PRIMES = Case(
    PrimesWork(),
    quick={"below": 1_500_000},
    other={"below": 1_000_000},
    endless={"below": 10**11},
    document={"below": 1_500_000, "primes": 114_155},
    text="**114,155** primes",
    refused={"below": "many"},
    sentence="below must be an integer from 1 to 1000000000000, not 'many'",
    let_talk=_let_primes_talk,
)
each_work = pytest.mark.parametrize("case", [MINING, PRIMES], ids=lambda case: case.work.name)


def over_after(looks: int) -> Callable[[], bool]:
    """A clock that has run out once it was looked at so many times."""
    counted = count()
    return lambda: next(counted) >= looks


def control(is_over: Callable[[], bool] = lambda: False, **arguments: Any) -> Control[Any]:
    """A run's control, of a workflow that nobody knows."""
    return Control("00000000-0000-4000-8000-000000000000", is_over, **arguments)


def through_json(document: Message) -> Any:
    """Engines store and send nothing but JSON: what doesn't survive that fails here."""
    copy = json.loads(json.dumps(document))
    assert copy == document
    return copy
