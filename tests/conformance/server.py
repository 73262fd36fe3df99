"""A server for the conformance suite, made by the product's own app factory, extension and middleware.

It serves the suite's fixtures instead of the product's tools; all else is the product's. Run it as a
script: it prints its URL and serves until it is killed.
"""

import asyncio
import socket
from typing import Any

import uvicorn
from core_fixtures import add_core_fixtures
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage
from starlette.applications import Starlette
from task_fixtures import Jobs, add_task_fixtures, tasks_extension

from pow.mcp.calls import add_call
from pow.web.app import MCP_PATH, mcp_app


class Events(EventStore):
    """The events of streams, for clients of revision 2025-11-25 that come back for the rest."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        if not last_event_id.isdecimal() or int(last_event_id) >= len(self._events):
            return None
        last = int(last_event_id)
        stream_id = self._events[last][0]
        for number, (stream, message) in enumerate(self._events[last + 1 :], last + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


class StatefulServer(MCPServer[Any]):
    """An MCPServer that keeps sessions, whatever the app factory says.

    The product is stateless, which revision 2026-07-28 makes every server; but of 2025-11-25 the suite
    wants to see what only a session can do: sampling, elicitation, streams that are taken up again.
    """

    def streamable_http_app(self, **options: Any) -> Starlette:
        return super().streamable_http_app(
            **{**options, "stateless_http": False, "event_store": Events(), "retry_interval": 100}
        )


def conformance_server() -> MCPServer[Any]:
    """The MCP server with all fixtures."""
    jobs = Jobs()
    tasks = tasks_extension(jobs)
    server = StatefulServer(
        "conformance",
        version="1",
        log_level="WARNING",
        extensions=[tasks],
        middleware=[add_call, tasks.serve_listening],
    )
    add_core_fixtures(server)
    add_task_fixtures(server, jobs)
    return server


async def main() -> None:
    """Serve on a free port."""
    app = mcp_app(conformance_server(), MCP_PATH, (), json_response=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}{MCP_PATH}", flush=True)
        await uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).serve([listener])


if __name__ == "__main__":
    asyncio.run(main())
