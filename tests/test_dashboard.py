"""What the dashboard asks of its server, over real HTTP; `tests/test_browser.py` drives the page itself."""

import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from typing import Any

import pytest
from python_process import HANG_SECONDS
from server_process import ServerProcess

ENDLESS = 40
UNKNOWN = "00000000-0000-4000-8000-000000000000"
ORDERS = ["/dashboard/start", "/dashboard/cancel", "/dashboard/verify"]


class Answer:
    """An HTTP answer, whatever its status."""

    def __init__(self, response: HTTPResponse | urllib.error.HTTPError) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def document(self) -> Any:
        return json.loads(self.text)


def ask(server: ServerProcess, path: str, document: object = None, **headers: str) -> Answer:
    """GET a path, or POST a document to it as the server's own page does; headers' names with _ for -."""
    content = None if document is None else json.dumps(document).encode()
    own = {} if document is None else {"Content-Type": "application/json", "Origin": server.url}
    sent = {**own, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(f"{server.url}{path}", content, sent)
    try:
        with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
            return Answer(response)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error)


def start(server: ServerProcess, **job: Any) -> str:
    answer = ask(server, "/dashboard/start", job)
    assert answer.status == 200, answer.text
    workflow_id: str = answer.document["workflow_id"]
    return workflow_id


@contextmanager
def viewer(server: ServerProcess) -> Iterator[Iterator[dict[str, Any]]]:
    """Somebody who looks at the dashboard: the snapshots as they come."""
    with urllib.request.urlopen(f"{server.url}/dashboard/events", timeout=HANG_SECONDS) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield (json.loads(line[len(b"data: ") :]) for line in response if line.startswith(b"data: "))


def entry(snapshot: dict[str, Any], workflow_id: str) -> dict[str, Any] | None:
    return next((found for found in snapshot["workflows"] if found["workflow_id"] == workflow_id), None)


def until_status(snapshots: Iterator[dict[str, Any]], workflow_id: str, status: str) -> dict[str, Any]:
    for snapshot in snapshots:
        found = entry(snapshot, workflow_id)
        if found is not None and found["status"] == status:
            return found
    raise AssertionError(f"the stream ended before {workflow_id} was {status}")


def test_the_page_may_run_its_own_script_only_and_be_framed_by_nobody(server: ServerProcess) -> None:
    page = ask(server, "/")
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))

    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for kind in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy[kind])


def test_where_callers_are_known_nobody_sees_everybody_s_workflows() -> None:
    with ServerProcess(WEBSITE_AUTH_ENABLED="true") as server:
        pages = ("/", "/dashboard/events", "/dashboard/result/1", "/metrics", "/healthz")
        assert [ask(server, page).status for page in pages] == [404, 404, 404, 404, 200]


def test_a_chain_is_started_followed_and_verified(
    server: ServerProcess, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    workflow_id = start(server, difficulty="16", blocks=4, genesis="GENESIS")
    with viewer(server) as snapshots:
        listed = until_status(snapshots, workflow_id, "completed")
    result = ask(server, f"/dashboard/result/{workflow_id}").document

    assert listed == {
        "workflow_id": workflow_id,
        "status": "completed",
        "difficulty": 16,
        "blocks": 4,
        "genesis": "GENESIS",
    }
    assert result["chain"] == genesis_chain[16]
    assert ask(server, "/dashboard/verify", {"chain": result["chain"]}).document["valid"] is True
    result["chain"]["blocks"][1]["nonce"] += 1
    assert ask(server, "/dashboard/verify", {"chain": result["chain"]}).document["valid"] is False


def test_a_running_chain_shows_its_progress_and_is_cancelled() -> None:
    with ServerProcess() as server:
        workflow_id = start(server, difficulty=ENDLESS, genesis="to cancel")
        with viewer(server) as snapshots:
            running = until_status(snapshots, workflow_id, "running")
            cancelled = ask(server, "/dashboard/cancel", {"workflow_id": workflow_id}).document
            listed = until_status(snapshots, workflow_id, "terminated")

    assert running["progress"]["blocks_total"] == 4
    assert "95 % by" in running["progress"]["odds"]
    assert (cancelled["status"], cancelled["reason"]) == ("failed", "terminated")
    assert "progress" not in listed


def test_the_same_form_sent_twice_starts_two_chains(server: ServerProcess) -> None:
    assert start(server, difficulty=12) != start(server, difficulty=12)


def test_every_viewer_sees_the_same_snapshots(server: ServerProcess) -> None:
    with ExitStack() as stack:
        viewers = [stack.enter_context(viewer(server)) for _ in range(3)]
        seen = [{next(snapshots)["time"] for _ in range(3)} for snapshots in viewers]

    # Who came later has missed some; nobody has one of his own.
    assert seen[0] & seen[1] & seen[2]


def test_a_snapshot_tells_of_the_server(server: ServerProcess) -> None:
    with viewer(server) as snapshots:
        told = next(snapshots)["server"]
    health = server.health()

    assert {name: told[name] for name in ("version", "backend", "threads", "engine", "status")} == {
        name: health[name] for name in ("version", "backend", "threads", "engine", "status")
    }
    assert told["limits"] == {"difficulty": 40, "blocks": 64, "genesis_bytes": 64}
    assert told["defaults"] == {"difficulty": 21, "blocks": 4, "genesis": "GENESIS"}


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({"difficulty": 41}, "difficulty must be an integer from 1 to 40, not 41"),
        ({"difficulty": ""}, "difficulty must be an integer from 1 to 40, not ''"),
        ({"blocks": 65}, "blocks must be an integer from 1 to 64, not 65"),
        ({"genesis": "a\nb"}, "genesis must not contain control characters"),
        ([], "the request must be a JSON object, not []"),
        ({"genesis": "x" * (1 << 20)}, "the request must be at most 1048576 bytes"),
    ],
    ids=["difficulty", "no difficulty", "blocks", "genesis", "no object", "too long"],
)
def test_a_bad_job_is_refused_with_a_sentence(server: ServerProcess, job: Any, error: str) -> None:
    answer = ask(server, "/dashboard/start", job)

    assert answer.status == 400
    assert error in answer.document["error"]


def test_an_unknown_workflow_is_not_found(server: ServerProcess) -> None:
    for answer in (
        ask(server, f"/dashboard/result/{UNKNOWN}"),
        ask(server, "/dashboard/cancel", {"workflow_id": UNKNOWN}),
    ):
        assert (answer.status, answer.document["status"]) == (200, "not_found")


@pytest.mark.parametrize("path", ORDERS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # A page on the internet, and one of another server on this machine.
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        # What a form can send without asking first.
        ({"Content_Type": "text/plain"}, 400),
        # A name that somebody made resolve to this machine.
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
    ],
    ids=["other site", "other port", "null origin", "no origin", "no JSON", "other host"],
)
def test_another_page_gives_no_orders(server: ServerProcess, path: str, headers: dict[str, str], status: int) -> None:
    assert ask(server, path, {}, **headers).status == status


@pytest.mark.parametrize("path", ["/", "/dashboard/events", f"/dashboard/result/{UNKNOWN}"])
def test_nobody_reads_by_a_foreign_name(server: ServerProcess, path: str) -> None:
    assert ask(server, path, Host="evil.example").status == 421


@pytest.mark.parametrize("path", ["/dashboard/events", f"/dashboard/result/{UNKNOWN}"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_reads_nothing(server: ServerProcess, path: str, site: str) -> None:
    assert ask(server, path, Sec_Fetch_Site=site).status == 403


def test_a_link_from_elsewhere_leads_to_the_page(server: ServerProcess) -> None:
    assert ask(server, "/", Sec_Fetch_Site="cross-site").status == 200


def test_an_allowed_host_has_the_dashboard_too() -> None:
    with ServerProcess("--allow-host", "miner.example") as server:
        own = {"Host": "miner.example", "Origin": "https://miner.example"}
        assert ask(server, "/", Host="miner.example").status == 200
        assert ask(server, "/dashboard/start", {"difficulty": 8}, **own).status == 200


def test_the_metrics_count_hashes_and_workflows() -> None:
    with ServerProcess() as server:
        workflow_id = start(server, difficulty=12)
        with viewer(server) as snapshots:
            until_status(snapshots, workflow_id, "completed")
        answer = ask(server, "/metrics")
    metrics = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))

    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert int(metrics["pow_mcp_hashes_total"]) > 0
    assert metrics['pow_mcp_workflows{status="completed"}'] == "1"
    assert metrics['pow_mcp_workflows{status="running"}'] == "0"
    (build,) = (name for name in metrics if name.startswith("pow_mcp_build_info"))
    assert 'backend="' in build


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_viewer_does_not_keep_the_server_from_ending() -> None:
    with ServerProcess() as server, viewer(server) as snapshots:
        next(snapshots)
        assert server.signal(signal.SIGTERM) == 0
