"""The Durable extension's HTTP API on loopback, which `DurableOrchestrationClient` calls."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from functions_host.durable import DurableEngine
from functions_host.errors import HostError
from functions_host.instance_query import CONTINUATION_HEADER, Query
from functions_host.instances import Instance

RPC_PATH = "/durabletask"

_INSTANCE_ID = "INSTANCEID"


def client_binding(base_url: str, task_hub: str) -> str:
    """What a durable client binding gives the function."""
    rpc = f"{base_url}{RPC_PATH}/"
    return json.dumps(
        {
            "taskHubName": task_hub,
            "connectionName": None,
            "creationUrls": {
                "createNewInstancePostUri": f"{rpc}orchestrators/{{functionName}}[/{{instanceId}}]",
                "createAndWaitOnNewInstancePostUri": f"{rpc}orchestrators/{{functionName}}[/{{instanceId}}]"
                "?timeout={timeoutInSeconds}&pollingInterval={intervalInSeconds}",
            },
            "managementUrls": _management_urls(base_url, _INSTANCE_ID),
            "baseUrl": f"{base_url}/runtime/webhooks/durabletask",
            "requiredQueryStringParameters": "",
            "rpcBaseUrl": rpc,
        }
    )


def durable_routes(engine: DurableEngine, base_url: str) -> list[Route]:
    """The API's routes."""

    async def start(request: Request) -> Response:
        name, instance_id = request.path_params["name"], request.path_params.get("instance_id")
        body = await request.body()
        try:
            # The client's JSON text is a JSON string by now, and is stored as one.
            raw_input = json.dumps(json.loads(body)) if body else None
        except json.JSONDecodeError as error:
            return JSONResponse({"Message": "Invalid JSON content", "ExceptionMessage": str(error)}, 400)
        exists = (engine.instances.get(instance_id or "") or Instance("", "", None, "Failed")).ended is False
        try:
            instance = engine.start(name, instance_id, raw_input)
        except HostError as error:
            message = "One or more of the arguments submitted is incorrect"
            return JSONResponse({"Message": message, "ExceptionMessage": str(error)}, 409 if exists else 400)
        urls = _management_urls(base_url, instance.id)
        headers = {"Location": urls["statusQueryGetUri"], "Retry-After": "10"}
        return JSONResponse(urls, 202, headers)

    async def one(request: Request) -> Response:
        instance = engine.instances.get(request.path_params["instance_id"])
        if instance is None:
            return Response(status_code=404)
        if request.method == "DELETE":
            engine.purge(instance)
            return JSONResponse({"instancesDeleted": 1})
        query = {name.lower(): value.lower() for name, value in request.query_params.items()}
        document = status_document(
            instance,
            show_input=query.get("showinput", "true") == "true",
            show_history=query.get("showhistory") == "true",
        )
        if not instance.ended:
            return JSONResponse(document, 202, {"Location": str(request.url), "Retry-After": "5"})
        failed = instance.status == "Failed" and query.get("returninternalservererroronfailure") == "true"
        return JSONResponse(document, 500 if failed else 200)

    async def several(request: Request) -> Response:
        query = Query.of(request.query_params)
        if request.method == "GET":
            page, token = query.page(engine.instances, request.headers.get(CONTINUATION_HEADER))
            documents = [status_document(instance, show_input=query.show_input) for instance in page]
            return JSONResponse(documents, headers={CONTINUATION_HEADER: token} if token else None)
        if "createdTimeFrom" not in request.query_params:
            return JSONResponse({"Message": "Please provide value for 'createdTimeFrom' parameter."}, 400)
        ended = [instance for instance in engine.instances.values() if query.matches(instance) and instance.ended]
        for instance in ended:
            engine.purge(instance)
        return JSONResponse({"instancesDeleted": len(ended)}) if ended else Response(status_code=404)

    async def operate(request: Request) -> Response:
        instance = engine.instances.get(request.path_params["instance_id"])
        if instance is None:
            return Response(status_code=404)
        if request.path_params["operation"].lower() != "terminate":
            return JSONResponse({"Message": "the test host knows no operation but terminate"}, 501)
        if instance.ended:
            return Response(status_code=410)
        engine.terminate(instance, request.query_params.get("reason", ""))
        return Response(status_code=202)

    return [
        Route(f"{RPC_PATH}/orchestrators/{{name}}", start, methods=["POST"]),
        Route(f"{RPC_PATH}/orchestrators/{{name}}/{{instance_id}}", start, methods=["POST"]),
        Route(f"{RPC_PATH}/instances/", several, methods=["GET", "DELETE"]),
        Route(f"{RPC_PATH}/instances", several, methods=["GET", "DELETE"]),
        Route(f"{RPC_PATH}/instances/{{instance_id}}", one, methods=["GET", "DELETE"]),
        Route(f"{RPC_PATH}/instances/{{instance_id}}/{{operation}}", operate, methods=["POST"]),
    ]


def status_document(instance: Instance, *, show_input: bool, show_history: bool = False) -> dict[str, Any]:
    """An instance's state as the API answers it."""
    document = {
        "name": instance.name,
        "instanceId": instance.id,
        "runtimeStatus": instance.status,
        "input": _token(instance.raw_input) if show_input else None,
        "customStatus": instance.custom_status,
        "output": _token(instance.raw_output),
        # Whole seconds, as in .NET's "s" format.
        "createdTime": f"{instance.created:%Y-%m-%dT%H:%M:%S}Z",
        "lastUpdatedTime": f"{instance.updated:%Y-%m-%dT%H:%M:%S}Z",
    }
    return {**document, "historyEvents": instance.events} if show_history else document


def _token(raw: str | None) -> Any:
    """Stored text as JSON, or as it is: a reason or an error is no JSON."""
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except json.JSONDecodeError:
        return raw


def _management_urls(base_url: str, instance_id: str) -> dict[str, str]:
    instance = f"{base_url}{RPC_PATH}/instances/{instance_id}"
    return {
        "id": instance_id,
        "statusQueryGetUri": instance,
        "sendEventPostUri": f"{instance}/raiseEvent/{{eventName}}",
        "terminatePostUri": f"{instance}/terminate?reason={{text}}",
        "rewindPostUri": f"{instance}/rewind?reason={{text}}",
        "purgeHistoryDeleteUri": instance,
        "restartPostUri": f"{instance}/restart",
        "suspendPostUri": f"{instance}/suspend?reason={{text}}",
        "resumePostUri": f"{instance}/resume?reason={{text}}",
    }
