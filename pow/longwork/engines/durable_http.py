"""What Durable Functions' client can't do: its HTTP API on the host's loopback, asked directly.

The client of azure-functions-durable 1.7 reads a list's first page only, and has no call for a thread. The API:
https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-http-api
"""

import json
import urllib.request
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

_CONTINUATION = "x-ms-continuation-token"
# The host gives 100 a page unless asked for more, and takes no more than this.
_TOP = 1000
_LOOK_SECONDS = 2.0
# No proxy that the environment may name is on the way to the host.
_loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def instance_pages(
    client: Any, *, prefix: str = "", statuses: Sequence[str] = (), since: float | None = None
) -> AsyncIterator[list[dict[str, Any]]]:
    """The instances of the task hub, page by page, in the order of their ids; the objects that the API answers.

    A page may be empty, and the next one not.

    Args:
        client: an invocation's DurableOrchestrationClient.
        prefix: of the instances' ids.
        statuses: which `runtimeStatus` they may have; all if empty.
        since: the earliest `createdTime`, in Unix seconds.
    """
    # The SDK has it already, for its own requests.
    import aiohttp

    query = {"top": str(_TOP), "showInput": "false"}
    if prefix:
        query["instanceIdPrefix"] = prefix
    if statuses:
        query["runtimeStatus"] = ",".join(statuses)
    if since is not None:
        query["createdTimeFrom"] = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    url = f"{_base_url(client)}instances/?{urlencode(query)}"
    headers: dict[str, str] = {}
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(url, headers=headers) as answer:
                answer.raise_for_status()
                yield await answer.json(content_type=None)
                token = answer.headers.get(_CONTINUATION)
            if not token or token == headers.get(_CONTINUATION):
                return
            headers = {_CONTINUATION: token}


def instance_status(client: Any, instance_id: str) -> str:
    """An instance's `runtimeStatus`; for threads, which it blocks for a moment.

    Raises:
        OSError, ValueError: the host doesn't answer, or doesn't know the instance.
    """
    url = f"{_base_url(client)}instances/{quote(instance_id)}?showInput=false"
    with _loopback.open(url, timeout=_LOOK_SECONDS) as answer:
        status: str = json.load(answer)["runtimeStatus"]
    return status


def _base_url(client: Any) -> str:
    # The client has no public name for it.
    return str(client._orchestration_bindings.rpc_base_url)
