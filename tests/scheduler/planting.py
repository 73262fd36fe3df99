"""Workflows to plant in the stand-in for the scheduler: the miner's, and another app's."""

import json
import uuid
from typing import Any

from pow.longwork.engines.driver import SLICE_SECONDS
from pow.longwork.orchestration import first_input
from pow.mining.messages import MiningJob, MiningState
from scheduler.control import Planted
from scheduler.process import WORK

JOB = MiningJob(difficulty=60, blocks=1, genesis="GENESIS")


def ours(
    *,
    owner: str | None,
    created_at: float,
    status: str = "RUNNING",
    job: MiningJob = JOB,
    nonces: tuple[int, ...] = (),
    output: object = None,
    workflow_id: str | None = None,
    history_began_at: float | None = None,
    updated_at: float | None = None,
) -> Planted:
    """A workflow of the miner's, as an engine would have started it.

    Args:
        owner: who started it.
        created_at: when; in its input.
        status: as `Planted` has it.
        job: what it is to mine.
        nonces: of the blocks that it has.
        output: of a completed one, if not its last state.
        workflow_id: its id; a new one if None.
        history_began_at: when it was last continued as new, if it was.
        updated_at: of its last turn; a minute after its creation if None.
    """
    given = first_input(WORK, job, slice_seconds=SLICE_SECONDS, owner=owner, created_at=created_at)
    state: MiningState = {**WORK.begin(job), "nonces": list(nonces), "hashes": sum(nonces) + len(nonces)}
    began_at = created_at if history_began_at is None else history_began_at
    return Planted(
        workflow_id or str(uuid.uuid4()),
        WORK.name,
        status,
        created_at=began_at,
        updated_at=began_at + 60.0 if updated_at is None else updated_at,
        input=json.dumps({**given, "state": state}),
        output=json.dumps(output or state) if status == "COMPLETED" else None,
        custom_status=json.dumps(WORK.report(state)),
    )


def foreign(
    given: Any,
    *,
    created_at: float,
    status: str = "RUNNING",
    custom_status: Any = "half way",
    workflow_id: str | None = None,
    updated_at: float | None = None,
) -> Planted:
    """A workflow of another app in the same task hub, which has an input and a custom status of its own kind."""
    return Planted(
        workflow_id or str(uuid.uuid4()),
        "another_app",
        status,
        created_at=created_at,
        updated_at=created_at if updated_at is None else updated_at,
        input=json.dumps(given),
        output=json.dumps("done") if status == "COMPLETED" else None,
        custom_status=json.dumps(custom_status),
    )
