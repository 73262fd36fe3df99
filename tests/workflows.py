"""What tests do with an engine's workflows, whatever the engine."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from works import Case

from pow.longwork.call import NOBODY, CallContext
from pow.longwork.engine import Engine, Started, WorkflowState

HANG_SECONDS = 120.0


async def start(
    engine: Engine,
    case: Case,
    arguments: Mapping[str, object] | None = None,
    *,
    owner: str | None = None,
    fresh: bool = False,
) -> Started:
    """Start a job: the quick one unless arguments are given."""
    job = case.job(arguments)
    return await engine.start(CallContext(caller=owner), job, json.dumps([owner, job], sort_keys=True), fresh=fresh)


async def state_of(engine: Engine, workflow_id: str) -> WorkflowState:
    """The state of a workflow that the engine knows."""
    state = await engine.state(NOBODY, workflow_id)
    assert state is not None
    return state


async def end_of(engine: Engine, workflow_id: str) -> WorkflowState:
    """The state of a workflow that has ended."""
    state = await engine.wait(NOBODY, workflow_id, HANG_SECONDS)
    assert state is not None
    assert state.ended
    return state


async def run(
    engine: Engine, case: Case, arguments: Mapping[str, object] | None = None, *, owner: str | None = None
) -> WorkflowState:
    """The end of a new job: the quick one unless arguments are given."""
    started = await start(engine, case, arguments, owner=owner, fresh=True)
    return await end_of(engine, started.workflow_id)


async def listed(engine: Engine, owner: str | None = None, limit: int = 100) -> list[tuple[str, str]]:
    """The ids and statuses of an owner's newest workflows."""
    newest = await engine.newest(CallContext(caller=owner), limit)
    return [(state.workflow_id, state.status) for state in newest]


async def done_beyond(engine: Engine, case: Case, workflow_id: str, least: float = 0.0) -> float:
    """How much of a running workflow is done, once that is more than `least`."""
    done = least
    async with asyncio.timeout(HANG_SECONDS):
        while done <= least:
            await asyncio.sleep(0.01)
            state = await state_of(engine, workflow_id)
            assert state.status == "running"
            assert state.job is not None
            done = case.done(state.job, state.report)
    return done


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(HANG_SECONDS):
        while not await condition():
            await asyncio.sleep(0.01)
