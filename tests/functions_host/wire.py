"""The worker's protocol on a socket: the library's own protobuf messages, each behind its length.

The real host speaks the same messages over gRPC.
"""

import importlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

from functions_host.runtime_wheels import PROTOCOL_PACKAGE
from functions_host.values import (
    FunctionMetadata,
    HttpRequestData,
    HttpResponseData,
    Json,
    Value,
    body_bytes,
)

_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size


def load_protocol(runtime: Path) -> Any:
    """The generated modules of the protocol.

    Args:
        runtime: what `runtime_folder` gave.
    """
    if str(runtime) not in sys.path:
        sys.path.append(str(runtime))
    return importlib.import_module(PROTOCOL_PACKAGE)


def frame(message: Any) -> bytes:
    """A StreamingMessage as it goes over the socket."""
    content: bytes = message.SerializeToString()
    return _LENGTH.pack(len(content)) + content


def length_of(header: bytes) -> int:
    """How many bytes of a message follow the first LENGTH_BYTES."""
    length: int = _LENGTH.unpack(header)[0]
    return length


def function_metadata(metadata: Any) -> FunctionMetadata:
    """A function as the worker lists it."""
    bindings = tuple(json.loads(binding) for binding in metadata.raw_bindings)
    return FunctionMetadata(metadata.name, metadata.function_id, bindings)


def typed(protos: Any, value: Value) -> Any:
    """A value of an invocation's inputs as the protocol has it."""
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
                    body=typed(protos, value.body),
                )
            )
        case _:
            raise TypeError(f"no input of an invocation is a {type(value).__name__}")


def untyped(data: Any) -> Value:
    """A value that a function gave, out of the protocol."""
    match data.WhichOneof("data"):
        case None:
            return None
        case "json":
            return Json(data.json)
        case "http":
            body = untyped(data.http.body)
            return HttpResponseData(
                int(data.http.status_code),
                dict(data.http.headers),
                body_bytes(body),
                tuple((cookie.name, cookie.value) for cookie in data.http.cookies),
            )
        case kind:
            value: Value = getattr(data, kind)
            return value
