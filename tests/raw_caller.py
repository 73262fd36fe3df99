"""A caller of revision 2026-07-28 that speaks plain HTTP: the SDK's client knows nothing of tasks."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

from python_process import HANG_SECONDS

from pow.mcp.tasks import TASKS

REVISION = "2026-07-28"
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RawCaller:
    """Sends requests, each with the headers and the metadata that the revision asks for."""

    url: str
    declares_tasks: bool = True
    revision: str = REVISION
    # What a request has instead of what it should have.
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, **params: Any) -> tuple[int, Answer]:
        """The HTTP status and the JSON-RPC answer."""
        try:
            with self._open(method, params) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)

    def result(self, method: str, **params: Any) -> Answer:
        """The result of a request that succeeds."""
        status, answer = self.request(method, **params)
        assert status == 200, answer
        assert "result" in answer, answer
        result: Answer = answer["result"]
        return result

    def call(self, tool: str, **arguments: Any) -> Answer:
        """The result of a tool call: a task or a tool's result."""
        return self.result("tools/call", name=tool, arguments=arguments)

    def get(self, task_id: str) -> Answer:
        """A task."""
        return self.result("tasks/get", taskId=task_id)

    def listen(self, **notifications: Any) -> Iterator[Answer]:
        """The messages of a stream, until it ends."""
        with self._open("subscriptions/listen", {"notifications": notifications}) as response:
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line.removeprefix(b"data:"))

    def _open(self, method: str, params: dict[str, Any]) -> HTTPResponse:
        capabilities: Answer = {"extensions": {TASKS: {}}} if self.declares_tasks else {}
        meta = {
            "io.modelcontextprotocol/protocolVersion": self.revision,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        }
        named = params.get("name") or params.get("taskId")
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": self.revision,
            "Mcp-Method": method,
            **({"Mcp-Name": named} if named else {}),
            **self.headers,
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        response: HTTPResponse = urllib.request.urlopen(request, timeout=HANG_SECONDS)
        return response
