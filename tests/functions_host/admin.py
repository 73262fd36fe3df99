"""What tests may ask of the host, and do to it, over plain HTTP under /test."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from functions_host.durable import DurableEngine
from functions_host.durable_http import status_document
from functions_host.errors import HostError
from functions_host.instances import Instance
from functions_host.worker import Worker


def admin_routes(engine: DurableEngine, worker: Worker) -> list[Route]:
    """The routes; the docstring of each says what it takes and answers."""

    async def faults(request: Request) -> Response:
        """POST /test/faults {"deliver_twice": true, …}: switch faults; answers the state of all."""
        try:
            engine.faults.update(await request.json())
        except HostError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(engine.faults.to_dict())

    async def start(request: Request) -> Response:
        """POST /test/start {"orchestrator", "id"?, "input"? or "raw_input"?, "count"?}: answers the id, or the ids.

        `input` is what a client would pass to start_new; `raw_input` is the stored text itself. With `count`, it
        starts so many of them, each with an id of its own.
        """
        document = await request.json()
        raw_input = document.get("raw_input")
        if "input" in document:
            raw_input = json.dumps(json.dumps(document["input"]))
        try:
            started = [
                engine.start(document["orchestrator"], document.get("id"), raw_input).id
                for _ in range(document.get("count", 1))
            ]
        except HostError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"ids": started} if "count" in document else {"id": started[0]}, 202)

    async def plant(request: Request) -> Response:
        """POST /test/plant {"name"?, "id"?, "input"?, "output"?, "customStatus"?, "runtimeStatus"?, "createdTime"?}.

        Puts an instance into the task hub as an app in another language leaves it there: its input is any JSON, and
        nothing runs. Or a list of such documents; answers the ids.
        """
        documents = await request.json()
        planted = [_planted(document) for document in (documents if isinstance(documents, list) else [documents])]
        for instance in planted:
            engine.plant(instance)
        return JSONResponse({"ids": [instance.id for instance in planted]})

    async def instances(_: Request) -> Response:
        """GET /test/instances: the states of all, oldest first."""
        return JSONResponse([_summary(instance) for instance in engine.instances.values()])

    async def instance(request: Request) -> Response:
        """GET /test/instances/{id}: its state, histories, and every run of an activity."""
        found = engine.instances.get(request.path_params["instance_id"])
        if found is None:
            return JSONResponse({"error": "no such instance"}, 404)
        return JSONResponse(
            {
                **_summary(found),
                "history": found.events,
                "histories": [*found.earlier, found.events],
                "activities": [delivery.to_dict() for delivery in found.deliveries],
                "pending_timers": sorted(found.timers),
            }
        )

    async def state(_: Request) -> Response:
        """GET /test/state: the worker's process, the most activities that ever ran at once, and the faults."""
        return JSONResponse(
            {
                "worker_pid": worker.pid,
                "worker_starts": worker.starts,
                "most_activities_at_once": engine.activities.most_at_once,
                "faults": engine.faults.to_dict(),
            }
        )

    return [
        Route("/test/faults", faults, methods=["POST"]),
        Route("/test/start", start, methods=["POST"]),
        Route("/test/plant", plant, methods=["POST"]),
        Route("/test/instances", instances),
        Route("/test/instances/{instance_id}", instance),
        Route("/test/state", state),
    ]


def _planted(document: dict[str, Any]) -> Instance:
    created = document.get("createdTime")
    moment = datetime.fromisoformat(created) if created else datetime.now(UTC)
    return Instance(
        id=document.get("id") or uuid.uuid4().hex,
        name=document.get("name", "Foreign"),
        raw_input=json.dumps(document["input"]) if "input" in document else None,
        status=document.get("runtimeStatus", "Running"),
        raw_output=json.dumps(document["output"]) if "output" in document else None,
        custom_status=document.get("customStatus"),
        created=moment,
        updated=moment,
    )


def _summary(instance: Instance) -> dict[str, Any]:
    return {
        **status_document(instance, show_input=True),
        "executions": len(instance.earlier) + 1,
        "episodes": instance.episodes,
    }
