"""The Durable Task Scheduler: its connection string, and a client and a worker for it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import durabletask.internal.orchestrator_service_pb2 as pb
from azure.core.credentials import AccessToken, TokenCredential
from durabletask.azuremanaged.client import AsyncDurableTaskSchedulerClient
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from durabletask.client import OrchestrationQuery
from durabletask.grpc_options import GrpcWorkerResiliencyOptions
from durabletask.internal.client_helpers import build_query_instances_req, check_continuation_token
from durabletask.worker import ConcurrencyOptions

from pow.errors import SettingsError

# Named in sentences about its value; `pow.settings` reads it.
SETTING = "DURABLE_TASK_SCHEDULER_CONNECTION_STRING"

# A scheduler that was away is found again within these.
_HELLO_SECONDS = 5.0
_LONGEST_RECONNECT_SECONDS = 2.0

_AUTHENTICATIONS = ("None", "ManagedIdentity", "DefaultAzure")
_EXAMPLES = (
    "Endpoint=http://localhost:8080;Authentication=None or "
    "Endpoint=https://NAME.REGION.durabletask.io;Authentication=ManagedIdentity;ClientID=ID"
)


@dataclass(frozen=True, slots=True)
class SchedulerAddress:
    """Where a scheduler is and how to sign in there."""

    endpoint: str
    authentication: str
    client_id: str | None
    taskhub: str

    @classmethod
    def parse(cls, connection_string: str, taskhub: str) -> "SchedulerAddress":
        """Read `Endpoint=…;Authentication=…[;ClientID=…][;TaskHub=…]`; keys in any case and order.

        Raises:
            SettingsError: a part is missing, unknown, or has a value that isn't allowed.
        """
        parts: dict[str, str] = {}
        for part in filter(None, (text.strip() for text in connection_string.split(";"))):
            key, separator, value = part.partition("=")
            if not separator or key.strip().lower() not in ("endpoint", "authentication", "clientid", "taskhub"):
                raise SettingsError(f"setting {SETTING} has the unknown part {part!r}; write it like {_EXAMPLES}")
            parts[key.strip().lower()] = value.strip()
        endpoint = parts.get("endpoint", "")
        if not endpoint.startswith(("http://", "https://")):
            raise SettingsError(
                f"setting {SETTING} needs an Endpoint that starts with http:// or https://, not {endpoint!r}; "
                f"write it like {_EXAMPLES}"
            )
        wanted = parts.get("authentication", "")
        authentication = next((name for name in _AUTHENTICATIONS if name.lower() == wanted.lower()), None)
        if authentication is None:
            raise SettingsError(
                f"setting {SETTING} needs an Authentication of {', '.join(_AUTHENTICATIONS)}, not {wanted!r}"
            )
        return cls(endpoint, authentication, parts.get("clientid") or None, parts.get("taskhub") or taskhub)

    @property
    def secure(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return self.endpoint.startswith("https://")

    def credential(self) -> TokenCredential | None:
        """What signs in; None for an emulator."""
        if self.authentication == "None":
            return None
        # Imported here: it takes a third of a second, and only a scheduler in Azure needs it.
        from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

        if self.authentication == "ManagedIdentity":
            return ManagedIdentityCredential(client_id=self.client_id)
        return DefaultAzureCredential(managed_identity_client_id=self.client_id)


class SchedulerClient(AsyncDurableTaskSchedulerClient):
    """A client that lists page by page: the SDK's own has only lists as a whole, however long."""

    async def pages(self, query: OrchestrationQuery) -> AsyncIterator[Sequence[pb.OrchestrationState]]:
        """What a query finds. How large a page is is the scheduler's to say, unless the query does."""
        token: Any = None
        while True:
            page = await self._get_stub().QueryInstances(build_query_instances_req(query, token))
            yield page.orchestrationState
            if not check_continuation_token(page.continuationToken, token, self._logger):
                return
            token = page.continuationToken


def scheduler_client(address: SchedulerAddress, logger: logging.Logger) -> SchedulerClient:
    """A client of the scheduler."""
    credential = address.credential()
    return SchedulerClient(
        host_address=address.endpoint,
        taskhub=address.taskhub,
        token_credential=None if credential is None else _AsyncCredential(credential),
        secure_channel=address.secure,
        logger=logger,
    )


class SchedulerWorker(DurableTaskSchedulerWorker):
    """A worker that knows when its activities' answers are on their way.

    The SDK's own stop() closes the channel under answers that haven't been sent; the scheduler would then
    have their slices mined again.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._running = 0
        self._changed = threading.Condition()

    def wait_for_answers(self, seconds: float) -> None:
        """Return when every activity has been answered for, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, seconds)

    def _on_activity_execution_started(self, req: pb.ActivityRequest) -> None:
        with self._changed:
            self._running += 1

    def _on_activity_execution_completed(self, req: pb.ActivityRequest) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()


def scheduler_worker(
    address: SchedulerAddress, logger: logging.Logger, concurrency: ConcurrencyOptions
) -> SchedulerWorker:
    """A worker that takes its work from the scheduler."""
    return SchedulerWorker(
        host_address=address.endpoint,
        taskhub=address.taskhub,
        token_credential=address.credential(),
        secure_channel=address.secure,
        concurrency_options=concurrency,
        resiliency_options=GrpcWorkerResiliencyOptions(
            hello_timeout_seconds=_HELLO_SECONDS, reconnect_backoff_cap_seconds=_LONGEST_RECONNECT_SECONDS
        ),
        logger=logger,
    )


class _AsyncCredential:
    """A credential for asynchronous callers, by way of a thread.

    azure.identity.aio would bring a whole HTTP client (aiohttp) for one token an hour.
    """

    def __init__(self, credential: TokenCredential) -> None:
        self._credential = credential

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return await asyncio.to_thread(self._credential.get_token, *scopes, **options)

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
