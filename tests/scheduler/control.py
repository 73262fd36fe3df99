"""What tests tell the stand-in beside the scheduler's protocol: workflows that it shall have, and slices to fail.

It is a second service on the stand-in's port, whose messages are JSON.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import grpc

_SERVICE = "scheduler_control"


@dataclass(frozen=True, slots=True)
class Planted:
    """A workflow that the stand-in shall have as it is described here, whatever it had under this id.

    Nobody is handed anything of it: of a running one all slices are with some worker.
    """

    workflow_id: str
    name: str
    """The orchestration's name, which tells apps apart."""
    status: str
    """As the protocol has it: RUNNING, COMPLETED, FAILED, TERMINATED, PENDING."""
    created_at: float
    """By the scheduler's clock, in Unix seconds; of the last history."""
    updated_at: float
    """Likewise; the time of its end, once it has ended."""
    input: str | None = None
    """JSON text, as the output and the custom status."""
    output: str | None = None
    custom_status: str | None = None


class Control:
    """Talks to a stand-in that listens at an address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def plant(self, *workflows: Planted) -> None:
        """Let it have these workflows."""
        # One by one: 4 MiB is the limit of a message here, too.
        self._call("plant", *(asdict(workflow) for workflow in workflows))

    def fail_next(self, count: int) -> None:
        """Answer for so many of the slices to hand out next, as a host does whose worker was killed over them."""
        self._call("fail_next", count)

    def _call(self, method: str, *given: object) -> None:
        with grpc.insecure_channel(self._address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{_SERVICE}/{method}")
            for document in given:
                call(json.dumps(document).encode(), timeout=10.0)


def control_handler(plant: Callable[[Planted], None], fail_next: Callable[[int], None]) -> grpc.GenericRpcHandler:
    """The stand-in's end: calls these."""

    def handler(behaviour: Callable[[Any], None]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            behaviour(json.loads(request))
            return b""

        return grpc.unary_unary_rpc_method_handler(call)

    methods = {"plant": handler(lambda given: plant(Planted(**given))), "fail_next": handler(fail_next)}
    return grpc.method_handlers_generic_handler(_SERVICE, methods)
