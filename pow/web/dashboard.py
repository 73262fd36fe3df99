"""The dashboard at / of the self-hosted server, what it asks for, and the metrics.

The page is built from `ui/` into one file. It sees everything that the server does and may start and
cancel workflows, as everybody may who reaches the server: there is no authentication. So that no page
from elsewhere reaches it through a visitor's browser, the server answers to its own names only, and
takes orders only from its own page.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from mcp.server.transport_security import TransportSecurityMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pow import __version__
from pow.errors import EngineError, InvalidArgument
from pow.longwork.call import NOBODY
from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.service import LongWorkService
from pow.mcp.mining_app import UI_FOLDER
from pow.mining.chain import MAX_GENESIS_BYTES
from pow.mining.work import MiningWork
from pow.settings import Settings
from pow.tools.queries import MiningQueries
from pow.units import quote
from pow.web.app import MCP_PATH, health, transport_security

Document = dict[str, Any]
"""A JSON object, as the page gets it or sends it."""

_SNAPSHOT_SECONDS = 1.0
# Of the newest workflows.
_SHOWN = 100
# A chain of the most blocks that a server may allow has a quarter of it.
_MAX_BODY_BYTES = 1 << 20
_STATUSES: tuple[EngineStatus, ...] = ("running", "completed", "failed", "terminated")
# Vitals that say what the server is rather than what it does.
_BUILD = ("backend", "threads")

_Endpoint = Callable[[Request], Awaitable[Response]]


def dashboard_routes(
    service: LongWorkService, work: MiningWork, settings: Settings, allowed_hosts: Sequence[str] = ()
) -> list[Route]:
    """The routes of the dashboard and /metrics, for `http_app`.

    Args:
        service: what its form and its buttons call.
        work: what it tells of.
        settings: the limits that the form shows.
        allowed_hosts: names, beside this machine's own, that browsers may know the server by.
    """
    guard = _Guard(allowed_hosts)
    dashboard = _Dashboard(service, work, settings)
    return [
        Route("/", guard.page(_page())),
        Route("/dashboard/events", guard.reading(dashboard.events)),
        Route("/dashboard/result/{workflow_id}", guard.reading(dashboard.result)),
        Route("/dashboard/start", guard.order(dashboard.start), methods=["POST"]),
        Route("/dashboard/cancel", guard.order(dashboard.cancel), methods=["POST"]),
        Route("/dashboard/verify", guard.order(dashboard.verify), methods=["POST"]),
        Route("/metrics", dashboard.metrics),
    ]


class _Dashboard:
    """What the page asks for."""

    def __init__(self, service: LongWorkService, work: MiningWork, settings: Settings) -> None:
        self._service = service
        self._work = work
        self._queries = MiningQueries(service, work, settings)
        self._settings = settings
        self._workflows: list[Document] = []
        self._feed = _Feed(self._snapshot, lambda: service.engine.closing)

    async def events(self, _: Request) -> Response:
        return StreamingResponse(
            self._feed.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def result(self, request: Request) -> Response:
        return _document(await self._service.get(NOBODY, request.path_params["workflow_id"]))

    async def start(self, request: Request) -> Response:
        asked = await _body(request)
        job = self._work.parse(asked)
        # Whoever presses the button twice wants two.
        workflow_id, _ = await self._service.start_or_join(NOBODY, job, fresh=True)
        return _document({"workflow_id": workflow_id})

    async def cancel(self, request: Request) -> Response:
        return _document(await self._service.cancel(NOBODY, (await _body(request)).get("workflow_id")))

    async def verify(self, request: Request) -> Response:
        return _document(await self._queries.verify_chain((await _body(request)).get("chain")))

    async def metrics(self, _: Request) -> Response:
        try:
            counted = await self._service.engine.counts(NOBODY)
        except EngineError as error:
            return PlainTextResponse(f"{error}\n", status_code=503)
        vitals = self._work.vitals()
        build = {"version": __version__, **{vital.name: str(vital.value) for vital in vitals if vital.name in _BUILD}}
        by_status = [({"status": str(status)}, counted.get(status, 0)) for status in _STATUSES]
        text = "".join(
            [
                _metric("pow_mcp_build_info", "gauge", "What this server is.", [(build, 1)]),
                *(
                    _metric(
                        f"pow_mcp_{vital.name}{'_total' if vital.kind == 'counter' else ''}",
                        *(vital.kind, vital.what, [({}, vital.value)]),
                    )
                    for vital in vitals
                    if vital.name not in _BUILD and isinstance(vital.value, int)
                ),
                _metric("pow_mcp_workflows", "gauge", "Workflows, by their status.", by_status),
            ]
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _snapshot(self) -> Document:
        defaults = self._work.parse({})
        snapshot: Document = {
            "time": time.monotonic(),
            "server": {
                **health(self._service),
                "mcp_path": MCP_PATH,
                "defaults": defaults,
                "limits": {
                    "difficulty": self._settings.max_difficulty,
                    "blocks": self._settings.max_blocks,
                    "genesis_bytes": MAX_GENESIS_BYTES,
                },
            },
        }
        try:
            newest = await self._service.engine.newest(NOBODY, _SHOWN)
            self._workflows = [self._listed(state) for state in newest]
        except EngineError as error:
            snapshot["error"] = str(error)
        return {**snapshot, "workflows": self._workflows}

    def _listed(self, state: WorkflowState) -> Document:
        listed: Document = {"workflow_id": state.workflow_id, "status": state.status}
        if state.job is not None:
            listed |= state.job
            if state.status == "running":
                listed["progress"] = self._service.progress(state).document
        if state.error is not None:
            listed["error"] = state.error
        return listed


class _Feed:
    """One snapshot a second for all viewers together, and none while nobody looks."""

    def __init__(self, snapshot: Callable[[], Awaitable[Document]], closing: Callable[[], bool]) -> None:
        self._snapshot = snapshot
        self._closing = closing
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._latest: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events for one viewer. One who is slow misses snapshots, and never gets old ones."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._viewers.add(queue)
        if self._task is None:
            self._latest = None
            self._task = asyncio.create_task(self._run())
        elif self._latest is not None:
            queue.put_nowait(self._latest)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._viewers.discard(queue)
            if not self._viewers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        try:
            while not self._closing():
                text = json.dumps(await self._snapshot(), separators=(",", ":"))
                self._latest = f"data: {text}\n\n".encode()
                self._send(self._latest)
                await asyncio.sleep(_SNAPSHOT_SECONDS)
        finally:
            # Browsers connect again by themselves, to whatever is there then.
            self._send(None)

    def _send(self, event: bytes | None) -> None:
        for queue in self._viewers:
            with contextlib.suppress(asyncio.QueueEmpty):
                queue.get_nowait()
            queue.put_nowait(event)


class _Guard:
    """Who may ask: browsers that know the server by its own names, and for orders only its own page."""

    def __init__(self, allowed_hosts: Sequence[str]) -> None:
        self._names = TransportSecurityMiddleware(transport_security(allowed_hosts))

    def page(self, html: Response) -> _Endpoint:
        """A page, which a link from anywhere may lead to."""

        async def endpoint(request: Request) -> Response:
            return await self._names.validate_request(request) or html

        return endpoint

    def reading(self, endpoint: _Endpoint) -> _Endpoint:
        """What only the page reads; a browser keeps other pages from the answer, and here from the question."""

        async def guarded(request: Request) -> Response:
            if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
                return _refusal("this is for the dashboard's own page")
            return await self._names.validate_request(request) or await _answer(endpoint, request)

        return guarded

    def order(self, endpoint: _Endpoint) -> _Endpoint:
        """What changes something. Another server's page on this machine has another port, so another origin."""

        async def guarded(request: Request) -> Response:
            refused = await self._names.validate_request(request, is_post=True)
            if refused is not None:
                return refused
            if urlsplit(request.headers.get("origin", "")).netloc != request.headers["host"]:
                return _refusal("orders are taken from the dashboard's own page only: the Origin isn't this server's")
            return await _answer(endpoint, request)

        return guarded


async def _answer(endpoint: _Endpoint, request: Request) -> Response:
    try:
        return await endpoint(request)
    except InvalidArgument as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    except EngineError as error:
        return JSONResponse({"error": str(error)}, status_code=503)


def _document(content: Any) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})


def _refusal(error: str) -> Response:
    return JSONResponse({"error": error}, status_code=403)


async def _body(request: Request) -> Document:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MAX_BODY_BYTES:
            raise InvalidArgument(f"the request must be at most {_MAX_BODY_BYTES} bytes")
    try:
        document = json.loads(content)
    except ValueError as error:
        raise InvalidArgument(f"the request must be a JSON object, which this isn't: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"the request must be a JSON object, not {quote(document)}")
    return document


def _page() -> Response:
    """The page with its policy: its one script and one style sheet by their hashes, and this server only."""
    html = (UI_FOLDER / "dashboard.html").read_text("utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(html, "script"),
        "style-src": _hashes(html, "style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return HTMLResponse(
        html,
        headers={
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "Cache-Control": "no-cache",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _hashes(html: str, tag: str) -> str:
    texts = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _metric(name: str, kind: str, what: str, samples: Sequence[tuple[dict[str, str], int]]) -> str:
    """A metric in Prometheus' text format; labels have no characters that would need escaping."""
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        shown = ",".join(f'{label}="{text}"' for label, text in labels.items())
        lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return "\n".join(lines) + "\n"
