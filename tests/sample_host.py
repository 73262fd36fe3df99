"""The Functions test host with its sample app, and what tests ask of it."""

from pathlib import Path
from typing import Any

import pytest
from functions_process import FunctionsProcess
from mcp import Client

SAMPLE = Path(__file__).parent / "functions_host" / "sample_app"
# How a client begins; either comes to the extension's revision.
MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])
TASK_SCHEDULED, TASK_COMPLETED, TASK_FAILED, TIMER_CREATED, TIMER_FIRED = 4, 5, 6, 10, 11

Host = FunctionsProcess


def sample(*arguments: str, **options: Any) -> Host:
    return FunctionsProcess(SAMPLE, *arguments, SampleHub="hub", **options)


async def text(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    (content,) = result.content
    assert content.type == "text"
    return content.text


def start(host: Host, orchestrator: str, argument: Any = None) -> str:
    started = host.admin("POST", "/test/start", {"orchestrator": orchestrator, "input": argument})
    instance_id: str = started["id"]
    return instance_id


async def run(host: Host, orchestrator: str, argument: Any = None) -> dict[str, Any]:
    return await host.until_ended(start(host, orchestrator, argument))


def events(instance: dict[str, Any], kind: int) -> list[dict[str, Any]]:
    return [event for event in instance["history"] if event["EventType"] == kind]


def outcomes(instance: dict[str, Any]) -> list[str]:
    return [activity["outcome"] for activity in instance["activities"]]


def faults(instance: dict[str, Any]) -> list[str]:
    """Why activities of an instance failed."""
    return [event["Reason"] for event in events(instance, TASK_FAILED)]
