"""The real worker library, loaded and driven by the same messages that the Functions host sends it."""

import asyncio
import importlib
import json
import sys
import threading
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from functions_host.errors import HostError
from functions_host.runtime_wheels import PROTOCOL_PACKAGE

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Json:
    """A value that crosses the protocol as JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class HttpRequestData:
    """An HTTP request on its way to the app; None as body when there is none."""

    method: str
    url: str
    headers: dict[str, str]
    query: dict[str, str]
    route: dict[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class HttpResponseData:
    """An HTTP response on its way back; cookies as (name, value) pairs."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[tuple[str, str], ...]


Value = str | bytes | int | float | Json | HttpRequestData | HttpResponseData | None


@dataclass(frozen=True, slots=True)
class FunctionMetadata:
    """A function of the app as the worker declares it: its bindings are the objects of function.json."""

    name: str
    function_id: str
    bindings: tuple[dict[str, Any], ...]

    @property
    def trigger(self) -> dict[str, Any]:
        """The binding that runs it."""
        return next(binding for binding in self.bindings if binding["type"].lower().endswith("trigger"))

    def others(self, direction: str) -> list[dict[str, Any]]:
        """The bindings beside the trigger: the inputs ("in") or the outputs ("out")."""
        return [
            binding
            for binding in self.bindings
            if binding is not self.trigger and str(binding.get("direction", "in")).lower() == direction
        ]


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception in the app."""

    message: str
    stack: str

    @property
    def text(self) -> str:
        """As the host words it; the Durable extension takes this apart again."""
        return f"Result: Failure\nException: {self.message}\nStack: {self.stack}"


@dataclass(frozen=True, slots=True)
class Reply:
    """How an invocation ended."""

    value: Value = None
    outputs: Mapping[str, Value] = field(default_factory=dict)
    failure: Failure | None = None


class Worker:
    """The worker, on an event loop and threads of its own, as the real one is a process of its own.

    An app that blocks its loop therefore blocks its own functions only, and the host goes on.
    """

    def __init__(self, app: Path, runtime: Path) -> None:
        """
        Args:
            app: the folder of function_app.py.
            runtime: what `runtime_folder` gave.
        """
        self._app = app
        packages = app / ".python_packages" / "lib" / "site-packages"
        # The order of the real worker: the app's own packages, the app, everything else.
        sys.path[:0] = [*([str(packages)] if packages.is_dir() else []), str(app)]
        sys.path.append(str(runtime))
        self._library = importlib.import_module("azure_functions_runtime")
        self._protos = importlib.import_module(PROTOCOL_PACKAGE)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="worker", daemon=True)

    def start(self) -> list[FunctionMetadata]:
        """Load the app.

        Raises:
            HostError: it can't be loaded; with the worker's own error.
        """
        self._thread.start()
        self._library.start_threadpool_executor()
        protos = self._protos
        init = protos.WorkerInitRequest(host_version="4.0.0", function_app_directory=str(self._app))
        answer = self._send(self._library.worker_init_request, worker_init_request=init)
        self._check(answer.result, "the app can't be indexed")
        listing = protos.FunctionsMetadataRequest(function_app_directory=str(self._app))
        answer = self._send(self._library.functions_metadata_request, functions_metadata_request=listing)
        self._check(answer.result, "the worker can't list the functions")
        functions = []
        for metadata in answer.function_metadata_results:
            load = protos.FunctionLoadRequest(function_id=metadata.function_id, metadata=metadata)
            loaded = self._send(self._library.function_load_request, function_load_request=load)
            self._check(loaded.result, f"function {metadata.name} can't be loaded")
            bindings = tuple(json.loads(binding) for binding in metadata.raw_bindings)
            functions.append(FunctionMetadata(metadata.name, metadata.function_id, bindings))
        return functions

    async def invoke(
        self, function: FunctionMetadata, inputs: Mapping[str, Value], metadata: Mapping[str, Value]
    ) -> Reply:
        """Run a function once.

        Args:
            function: which.
            inputs: the values of its trigger and input bindings by their names.
            metadata: the trigger's binding data.
        """
        protos = self._protos
        request = protos.InvocationRequest(
            invocation_id=str(uuid.uuid4()),
            function_id=function.function_id,
            input_data=[protos.ParameterBinding(name=name, data=self._typed(value)) for name, value in inputs.items()],
            trigger_metadata={name: self._typed(value) for name, value in metadata.items()},
        )
        work = self._library.invocation_request(self._message(invocation_request=request))
        # A caller that goes away doesn't stop the function: nor does it on Azure.
        response = await asyncio.shield(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop)))
        if response.result.status != protos.StatusResult.Success:
            error = response.result.exception
            return Reply(failure=Failure(error.message, error.stack_trace))
        value = self._untyped(response.return_value) if response.HasField("return_value") else None
        return Reply(value, {output.name: self._untyped(output.data) for output in response.output_data})

    def _send(self, handler: Any, **request: Any) -> Any:
        return self._run(handler(self._message(**request)))

    def _message(self, **request: Any) -> Any:
        message = self._protos.StreamingMessage(request_id=str(uuid.uuid4()), **request)
        return _WorkerRequest(next(iter(request)), message, {"host": "127.0.0.1", "protos": self._protos})

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _check(self, result: Any, what: str) -> None:
        if result.status != self._protos.StatusResult.Success:
            raise HostError(f"{what}: {result.exception.message}\n{result.exception.stack_trace}")

    def _typed(self, value: Value) -> Any:
        protos = self._protos
        match value:
            case None:
                return protos.TypedData()
            case Json(text):
                return protos.TypedData(json=text)
            case str():
                return protos.TypedData(string=value)
            case bytes():
                return protos.TypedData(bytes=value)
            case HttpRequestData():
                return protos.TypedData(
                    http=protos.RpcHttp(
                        method=value.method,
                        url=value.url,
                        headers=value.headers,
                        query=value.query,
                        params=value.route,
                        body=self._typed(value.body),
                    )
                )
            case _:
                raise TypeError(f"no input of an invocation is a {type(value).__name__}")

    def _untyped(self, data: Any) -> Value:
        match data.WhichOneof("data"):
            case None:
                return None
            case "json":
                return Json(data.json)
            case "http":
                body = self._untyped(data.http.body)
                return HttpResponseData(
                    int(data.http.status_code),
                    dict(data.http.headers),
                    body_bytes(body),
                    tuple((cookie.name, cookie.value) for cookie in data.http.cookies),
                )
            case kind:
                value: Value = getattr(data, kind)
                return value


@dataclass(frozen=True, slots=True)
class _WorkerRequest:
    """The envelope in which the worker's process hands a message to the library."""

    name: str
    request: Any
    properties: dict[str, Any]


def body_bytes(value: Value) -> bytes:
    """A value as the body of a response."""
    match value:
        case None:
            return b""
        case bytes():
            return value
        case Json(text):
            return text.encode()
        case _:
            return str(value).encode()
