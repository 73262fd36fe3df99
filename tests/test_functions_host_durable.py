"""The test host for Functions apps runs orchestrations as Durable Functions does, and goes wrong on demand."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from functions_host.history import task_scheduled, timestamp
from functions_host.replay import ReplayError, replay
from sample_host import (
    TASK_COMPLETED,
    TASK_SCHEDULED,
    TIMER_CREATED,
    TIMER_FIRED,
    Host,
    events,
    outcomes,
    run,
    sample,
    start,
    text,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with sample() as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "host" in request.fixturenames:
        off = {"deliver_twice": False, "record_both": False, "pause": False, "fire_cancelled_timers": False}
        counts = {"lose_next": 0, "lose_for_good": 0, "fail_next": 0, "keep_error_tail": False}
        request.getfixturevalue("host").admin("POST", "/test/faults", off | counts)


# Orchestrations


async def test_the_durable_client_starts_asks_stops_and_forgets(host: Host) -> None:
    instance_id, endless = str(uuid.uuid4()), str(uuid.uuid4())
    async with host.client() as client:
        assert await text(client, "status", id=instance_id) == "unknown"
        job = json.dumps({"start": 5, "steps": 3})
        assert await text(client, "start", orchestrator="chain", id=instance_id, argument=job) == instance_id
        await host.until_ended(instance_id)
        done = json.loads(await text(client, "status", id=instance_id))
        assert done == {"status": "Completed", "input": job, "output": {"value": 40}, "custom": {"step": 2}}

        await text(client, "start", orchestrator="race", id=endless, argument="[1, 100]")
        running = json.loads(await text(client, "status", id=endless))
        assert running["status"] in ("Pending", "Running")
        assert await text(client, "stop", id=endless) == "stopped"
        stopped = await host.until_ended(endless)
        assert json.loads(await text(client, "status", id=endless))["output"] == "because"
        assert await text(client, "purge", id=endless) == "1"
        assert await text(client, "status", id=endless) == "unknown"

        unknown = await client.call_tool("start", {"orchestrator": "nothing", "id": "x"})
        assert unknown.is_error
    assert stopped["runtimeStatus"] == "Terminated"
    assert "The function 'nothing' doesn't exist" in host.log()


@pytest.mark.parametrize("schema", ["1", "2", "3"])
async def test_every_version_of_the_answers_form_is_understood(schema: str) -> None:
    with sample("--schema-version", schema) as host:
        chained = await run(host, "chain", {"start": 1, "steps": 3})
        fanned = await run(host, "everything", [1, 2, 3, 4, 5])
        raced = await run(host, "race", [0.01, 60])
    assert chained["output"] == {"value": 8}
    assert fanned["output"] == [2, 4, 6, 8, 10]
    assert raced["output"] == {"winner": "rest", "doubled": 42}


async def test_a_history_is_written_as_dtfx_does(host: Host) -> None:
    instance = await run(host, "chain", {"start": 1, "steps": 2})

    assert [event["EventType"] for event in instance["history"]] == [12, 0, 4, 13, 12, 5, 4, 13, 12, 5, 1, 13]
    assert [event["EventId"] for event in events(instance, TASK_SCHEDULED)] == [0, 1]
    assert [event["TaskScheduledId"] for event in events(instance, TASK_COMPLETED)] == [0, 1]
    assert all(event["IsPlayed"] for event in instance["history"])
    assert instance["episodes"] == 3


async def test_no_more_activities_run_at_once_than_host_json_allows() -> None:
    with sample() as three, sample("--max-activities", "1") as one:
        for host in (three, one):
            await run(host, "window", {"seconds": [0.11, 0.12, 0.13, 0.14, 0.15], "width": 5, "timers": False})
        most = [host.admin("GET", "/test/state")["most_activities_at_once"] for host in (three, one)]
    assert most == [3, 1]


async def test_a_timer_fires_and_a_cancelled_one_does_not(host: Host) -> None:
    slow = await run(host, "race", [2.0, 0.2])
    fast = await run(host, "race", [0.1, 0.5, 1.0])

    assert slow["output"] == {"winner": "timer", "doubled": 42}
    assert [event["TimerId"] for event in events(slow, TIMER_FIRED)] == [1]
    assert fast["output"] == {"winner": "rest", "doubled": 42}
    assert len(events(fast, TIMER_CREATED)) == 1
    assert events(fast, TIMER_FIRED) == []


async def test_the_answer_of_an_abandoned_activity_enters_the_history_while_the_instance_runs(host: Host) -> None:
    instance = await run(host, "race", [0.5, 0.1, 1.0])

    assert instance["output"] == {"winner": "timer", "doubled": 42}
    assert [event["TaskScheduledId"] for event in events(instance, TASK_COMPLETED)] == [0, 2, 3]


async def test_what_follows_a_task_any_waits_for_a_new_task_of_it_unless_a_cancelled_timer_is_there(
    host: Host,
) -> None:
    """When 0.3 has ended, a free place is there for 0.11, but the extension still waits for 1.5, the newest."""
    job = {"seconds": [0.1, 0.3, 1.5, 0.11], "width": 2}
    plain = await run(host, "window", {**job, "timers": False})
    timed = await run(host, "window", {**job, "timers": True})

    assert plain["output"] == [0.1, 0.3, 1.5, 0.11]
    assert timed["output"] == [0.1, 0.3, 0.11, 1.5]
    assert (len(events(timed, TIMER_CREATED)), len(events(timed, TIMER_FIRED))) == (4, 0)


async def test_continue_as_new_begins_a_history_of_its_own_and_drops_the_answers_of_the_old_one(host: Host) -> None:
    instance = await run(host, "count_down", 3)

    assert (instance["output"], instance["executions"], instance["customStatus"]) == ("done", 4, 1)
    inputs = [json.loads(json.loads(history[1]["Input"])) for history in instance["histories"]]
    assert inputs == [3, 2, 1, 0]
    assert all(history[2]["EventId"] == 0 for history in instance["histories"][:3])
    known = await host.until(instance["instanceId"], lambda found: "running" not in outcomes(found))
    assert Counter(activity["name"] for activity in known["activities"]) == {"rest": 3, "double": 3}
    assert {entry["outcome"] for entry in known["activities"] if entry["name"] == "double"} == {"recorded"}
    assert {entry["outcome"] for entry in known["activities"] if entry["name"] == "rest"} == {"dropped"}


async def test_terminate_ends_an_instance_at_once_and_not_its_activity(host: Host) -> None:
    instance_id = start(host, "race", [0.5, 60])
    await host.until(instance_id, lambda found: outcomes(found) == ["running"])
    assert host.request("POST", f"/durabletask/instances/{instance_id}/terminate?reason=enough")[0] == 202
    instance = await host.until_ended(instance_id)
    assert (instance["runtimeStatus"], instance["output"]) == ("Terminated", "enough")
    assert outcomes(instance) == ["running"]
    assert instance["pending_timers"] == []
    later = await host.until(instance_id, lambda found: outcomes(found) != ["running"])
    assert outcomes(later) == ["dropped"]
    assert host.request("POST", f"/durabletask/instances/{instance_id}/terminate?reason=enough")[0] == 410


async def test_failures_carry_the_texts_of_the_extension(host: Host) -> None:
    by_itself = await run(host, "fall")
    by_activity = await run(host, "fall", "too hot")
    host.admin("POST", "/test/faults", {"keep_error_tail": True})
    with_tail = await run(host, "fall", "too hot")
    too_large = await run(host, "boast")

    assert {entry["runtimeStatus"] for entry in (by_itself, by_activity, with_tail, too_large)} == {"Failed"}
    assert by_itself["output"] == "Orchestrator function 'fall' failed: no input"
    begin = "Orchestrator function 'fall' failed: Activity function 'refuse' failed:  ValueError: too hot"
    assert by_activity["output"].startswith(begin)
    assert "$OutOfProcData$" not in by_activity["output"]
    assert "\n\n$OutOfProcData$:{" in with_tail["output"]
    assert "must not exceed 16 KB" in too_large["output"]


async def test_an_input_that_is_not_what_the_orchestrator_expects_fails_it(host: Host) -> None:
    started = host.admin("POST", "/test/start", {"orchestrator": "chain", "id": "raw", "raw_input": '"{}"'})
    instance = await host.until_ended("raw")
    assert started == {"id": "raw"}
    assert instance["output"] == "Orchestrator function 'chain' failed: 'start'"


def activity(name: str) -> dict[str, Any]:
    return {"actionType": 0, "functionName": name, "input": "1"}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"actions": [[activity("other")]], "schemaVersion": 2}, "number 0 was double before and is other now"),
        (
            {"actions": [[{"actionType": 5, "fireAt": timestamp()}]], "schemaVersion": 2},
            "number 0 was double before and is a timer now",
        ),
        ({"actions": [[activity("none")]], "schemaVersion": 2}, "The function 'none' doesn't exist"),
        ({"actions": [[{"actionType": 11, "compoundActions": []}]], "schemaVersion": 2}, "contains no tasks"),
        ({"actions": [[{"actionType": 6}]], "schemaVersion": 2}, "has no action of type 6"),
        ({"actions": [[], []], "schemaVersion": 1}, "to be of length 1 in outer layer but got size: 2"),
        ({"actions": [[]], "schemaVersion": 9}, "knows no schema version 9"),
    ],
)
def test_an_answer_that_contradicts_the_history_or_asks_for_what_is_not_there_is_an_error(
    answer: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ReplayError) as refused:
        replay(answer, [task_scheduled(0, "double", "[]")], ["double", "other"])
    assert fault in str(refused.value)


# Faults


async def test_an_activity_that_is_delivered_twice_counts_once(host: Host) -> None:
    host.admin("POST", "/test/faults", {"deliver_twice": True})
    instance = await run(host, "chain", {"start": 1, "steps": 4})

    assert instance["output"] == {"value": 16}
    assert Counter(entry["task_id"] for entry in instance["activities"]) == {0: 2, 1: 2, 2: 2, 3: 2}
    pairs = [tuple(outcomes(instance)[at : at + 2]) for at in range(0, 8, 2)]
    assert sorted(map(sorted, pairs)) == [["duplicate", "recorded"]] * 4


async def test_two_answers_of_one_activity_in_the_history_do_no_harm(host: Host) -> None:
    host.admin("POST", "/test/faults", {"deliver_twice": True, "record_both": True})
    instance = await run(host, "chain", {"start": 1, "steps": 3})

    assert instance["output"] == {"value": 8}
    counts = Counter(event["TaskScheduledId"] for event in events(instance, TASK_COMPLETED))
    assert max(counts.values()) == 2


async def test_a_lost_activity_is_delivered_again_and_one_lost_for_good_is_not(host: Host) -> None:
    host.admin("POST", "/test/faults", {"lose_next": 2, "delay_seconds": 0.05})
    again = await run(host, "chain", {"start": 1, "steps": 2})
    host.admin("POST", "/test/faults", {"lose_for_good": 1})
    stuck_id = start(host, "chain", {"start": 1, "steps": 2})
    stuck = await host.until(stuck_id, lambda found: outcomes(found) == ["lost"])

    assert again["output"] == {"value": 4}
    assert outcomes(again) == ["lost", "lost", "recorded", "recorded"]
    assert stuck["runtimeStatus"] == "Running"


async def test_an_activity_fails_on_demand(host: Host) -> None:
    host.admin("POST", "/test/faults", {"fail_next": 1, "fail_message": "MemoryError: full"})
    instance = await run(host, "chain", {"start": 1, "steps": 2})

    assert instance["output"].startswith(
        "Orchestrator function 'chain' failed: Activity function 'double' failed:  MemoryError: full"
    )
    assert outcomes(instance) == ["failed"]


async def test_activities_wait_while_they_are_paused(host: Host) -> None:
    host.admin("POST", "/test/faults", {"pause": True})
    instance_id = start(host, "chain", {"start": 1, "steps": 1})
    await host.until(instance_id, lambda found: found["episodes"] == 1)
    assert host.instance(instance_id)["activities"] == []
    host.admin("POST", "/test/faults", {"pause": False})
    assert (await host.until_ended(instance_id))["output"] == {"value": 2}


async def test_a_cancelled_timer_that_fires_nevertheless_does_no_harm(host: Host) -> None:
    host.admin("POST", "/test/faults", {"fire_cancelled_timers": True})
    instance = await run(host, "race", [0.01, 0.5, 1.0])

    assert instance["output"] == {"winner": "rest", "doubled": 42}
    assert len(events(instance, TIMER_FIRED)) == 1


def test_a_fault_that_is_not_known_is_refused(host: Host) -> None:
    with pytest.raises(AssertionError, match="there is no fault"):
        host.admin("POST", "/test/faults", {"loose_next": 1})
    with pytest.raises(AssertionError, match="lose_next must be a int"):
        host.admin("POST", "/test/faults", {"lose_next": "one"})
