"""Fixtures that several test files share."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from definition import SEED_VARIABLE, seed
from server_process import ServerProcess

from pow.longwork.engines.embedded import EmbeddedEngine
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork
from pow.scanning import backends as scanning


def pytest_configure() -> None:
    """Let all processes that share a run's tests draw the same random cases."""
    os.environ[SEED_VARIABLE] = seed()


def pytest_report_header() -> str:
    """What repeats this run's random cases."""
    return f"{SEED_VARIABLE}={seed()}"


@pytest.fixture(scope="session")
def genesis_chains() -> list[dict[str, Any]]:
    """Chains mined by an independent implementation, as chain JSON."""
    document = json.loads((Path(__file__).parent / "genesis_chains.json").read_text("utf-8"))
    chains: list[dict[str, Any]] = document["chains"]
    return chains


@pytest.fixture(scope="session")
def genesis_chain(genesis_chains: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The chains of four blocks, the default, that start from GENESIS, by difficulty."""
    return {
        chain["difficulty"]: {**chain, "blocks": chain["blocks"][:4]}
        for chain in genesis_chains
        if chain["genesis"] == "GENESIS"
    }


@pytest.fixture
def fresh_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backends are looked up and measured again in this test, which sees nothing of what is known already."""
    monkeypatch.setattr(scanning, "all_backends", cache(scanning.all_backends.__wrapped__))
    monkeypatch.setattr(scanning, "measured_rates", cache(scanning.measured_rates.__wrapped__))


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture
def pool() -> Iterator[MinerPool]:
    """A pool of all cores, whose threads end with the test."""
    with MinerPool() as running:
        yield running


@pytest.fixture
async def engine(pool: MinerPool) -> AsyncIterator[EmbeddedEngine]:
    """A running embedded engine that mines and keeps nothing."""
    async with EmbeddedEngine(MiningWork(pool)) as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server that a module's tests share; it keeps nothing."""
    with ServerProcess() as running:
        yield running
