"""The test host keeps a task hub as Azure Storage does, and lists it page by page as the Durable extension does."""

import json
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sample_host import Host, outcomes, run, sample, start

pytestmark = pytest.mark.anyio

HIDDEN = "AzureFunctionsJobHost__extensions__durableTask__storageProvider__workItemQueueVisibilityTimeout"


# From one host to the next


async def test_a_killed_host_leaves_its_task_hub_and_hides_the_activity_that_it_ran(tmp_path: Path) -> None:
    options: dict[str, Any] = {"state": tmp_path, HIDDEN: "00:00:06"}
    with sample("--max-activities", "1", **options) as host:
        ended = await run(host, "chain", {"start": 1, "steps": 2})
        running = start(host, "race", [1.5, 60])
        await host.until(running, lambda found: outcomes(found) == ["running"])
        queued = start(host, "chain", {"start": 3, "steps": 2})
        timed = start(host, "race", [1.5, 0.2])
        for instance_id in (queued, timed):
            await host.until(instance_id, lambda found: found["episodes"] == 1)
        host.kill()
    with sample("--max-activities", "1", **options) as host:
        assert host.instance(ended["instanceId"])["output"] == ended["output"]
        done = await host.until_ended(queued)
        fired = await host.until_ended(timed)
        hidden = outcomes(host.instance(running))
        delivered = await host.until_ended(running)

    assert done["output"] == {"value": 12}
    assert fired["output"] == {"winner": "timer", "doubled": 42}
    assert hidden == ["lost"]
    assert delivered["output"] == {"winner": "rest", "doubled": 42}
    assert outcomes(delivered) == ["lost", "recorded", "recorded"]


async def test_a_host_that_is_asked_to_end_waits_for_what_runs_and_hands_back_what_runs_longer(tmp_path: Path) -> None:
    with sample(state=tmp_path) as host:
        short, long = start(host, "race", [0.5, 60]), start(host, "race", [60, 60])
        for instance_id in (short, long):
            await host.until(instance_id, lambda found: outcomes(found) == ["running"])
        assert host.signal(signal.SIGTERM) == 0
    with sample(state=tmp_path) as host:
        waited_for = await host.until_ended(short)
        again = await host.until(long, lambda found: len(found["activities"]) == 2)

    assert outcomes(waited_for)[0] == "recorded"
    assert outcomes(again) == ["lost", "running"]


# The list


def listed(host: Host, query: str, token: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
    sent = {"x-ms-continuation-token": token} if token else {}
    status, headers, body = host.request("GET", f"/durabletask/instances/?{query}", headers=sent)
    assert status == 200
    return json.loads(body), headers.get("x-ms-continuation-token")


def test_the_list_comes_in_pages_by_id_and_a_filtered_page_may_be_empty_and_not_the_last() -> None:
    planted: list[dict[str, Any]] = [
        {"id": f"{number:03}", "name": "Foreign", "input": ["a", 1], "output": 7, "runtimeStatus": "Completed"}
        for number in reversed(range(120))
    ]
    planted[-1] |= {"input": "text", "customStatus": {"at": 1}, "createdTime": "2020-01-02T03:04:05+00:00"}
    planted += [{"id": "running", "name": "Foreign"}]
    with sample() as host:
        host.admin("POST", "/test/plant", planted)
        first, token = listed(host, "showInput=false")
        second, end = listed(host, "", token)
        everything, no_token = listed(host, "top=1000")
        few, more = listed(host, "top=2&instanceIdPrefix=1")
        nothing, goes_on = listed(host, "runtimeStatus=Running,Pending")
        found, last = listed(host, "runtimeStatus=Running,Pending", goes_on)
        old, _ = listed(host, "createdTimeTo=2021-01-01T00:00:00Z")
        terminated = host.request("POST", "/durabletask/instances/running/terminate?reason=enough")[0]

    ids = [f"{number:03}" for number in range(120)] + ["running"]
    assert [entry["instanceId"] for entry in first] == ids[:100]
    assert {json.dumps(entry["input"]) for entry in first} == {"null"}
    assert [entry["instanceId"] for entry in second] == ids[100:]
    assert (second[0]["input"], second[0]["output"]) == (["a", 1], 7)
    assert end is None
    assert [entry["instanceId"] for entry in everything] == ids
    assert no_token is None
    assert [entry["instanceId"] for entry in few] == ["100", "101"]
    assert more is not None
    assert nothing == []
    assert goes_on is not None
    assert [entry["instanceId"] for entry in found] == ["running"]
    assert last is None
    assert [(entry["instanceId"], entry["input"], entry["customStatus"]) for entry in old] == [
        ("000", "text", {"at": 1})
    ]
    assert old[0]["createdTime"] == "2020-01-02T03:04:05Z"
    assert terminated == 202


async def test_an_instance_is_as_old_as_its_newest_execution() -> None:
    with sample() as host:
        started = host.admin("POST", "/test/start", {"orchestrator": "count_down", "input": 2, "count": 2})["ids"]
        instance = [await host.until_ended(instance_id) for instance_id in started][-1]
        # Its first execution began before.
        since = quote(instance["histories"][0][-1]["Timestamp"])
        found, _ = listed(host, f"createdTimeFrom={since}")

    assert instance["instanceId"] in [entry["instanceId"] for entry in found]
