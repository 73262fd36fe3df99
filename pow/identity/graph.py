"""Asks Microsoft Graph who the caller is, as the caller: OAuth 2.0's on-behalf-of flow, without a secret.

The app's managed identity gets a token that stands for the app registration. With that and the caller's token, Entra
gives a token for Graph, if the caller or an administrator has agreed to it.
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow
"""

import asyncio
import json
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NotRequired, cast

from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from pow.errors import PowError, SettingsError
from pow.settings import Settings

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError
    from azure.identity import ManagedIdentityCredential

AUTHORITY = "https://login.microsoftonline.com"
GRAPH = "https://graph.microsoft.com"

# The permission by its name, rather than `.default`: that one stands for all that the registration lists, so a
# permission added there would make everybody's consent insufficient, for a tool that doesn't need it.
SCOPE = "https://graph.microsoft.com/User.Read"
# What a token of a managed identity must be for, to stand for an app registration.
_ASSERTION_SCOPE = "api://AzureADTokenExchange/.default"

# Nobody waits for a retry: whoever asked can ask again. The defaults are minutes.
_CLIENT_OPTIONS: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 0}

_FIELDS = {
    "displayName": "display_name",
    "userPrincipalName": "user_principal_name",
    "mail": "mail",
    "jobTitle": "job_title",
}

_REGISTRATION = "check OnBehalfOfTenantId and OnBehalfOfClientId"
_FEDERATION = (
    "check that the app registration has a federated credential for the managed identity of OnBehalfOfIdentityClientId"
)
_SIGN_IN_AGAIN = "the user's token is no longer good: sign in again in the MCP client"
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_ADVICE = {
    "50013": _SIGN_IN_AGAIN,
    "50173": _SIGN_IN_AGAIN,
    "500133": _SIGN_IN_AGAIN,
    "700082": _SIGN_IN_AGAIN,
    "500131": "the user's token is for another app: the MCP client has to ask for this one's scope",
    "7000114": "the caller is an app and no user, so there is nobody to ask for",
    "90002": _REGISTRATION,
    "700016": _REGISTRATION,
    "70021": _FEDERATION,
    "700211": _FEDERATION,
    "700212": _FEDERATION,
    "700213": _FEDERATION,
}


class Profile(TypedDict):
    """What Microsoft Graph says of the user. What it doesn't know is absent."""

    display_name: NotRequired[str]
    user_principal_name: NotRequired[str]
    mail: NotRequired[str]
    job_title: NotRequired[str]


class OnBehalfOfError(PowError):
    """Graph can't be asked on behalf of the caller. Says why and what to check, and holds no token."""


class ConsentMissing(OnBehalfOfError):
    """Neither the user nor an administrator has agreed that the app reads the user's profile."""


class InteractionRequired(OnBehalfOfError):
    """Entra wants one more step of the user, such as a second factor, which takes a browser."""


class OnBehalfOf:
    """Asks Graph as one app registration."""

    def __init__(
        self,
        tenant_id: str,
        client_id: str,
        identity_client_id: str,
        *,
        authority: str = AUTHORITY,
        graph: str = GRAPH,
        assertion: Callable[[], str] | None = None,
    ) -> None:
        """
        Args:
            tenant_id: the tenant of the callers, as a GUID or a domain.
            client_id: the app registration that the caller's token is for.
            identity_client_id: the managed identity that stands for the registration.
            authority: where Entra is, without a path.
            graph: where Microsoft Graph is, without a path.
            assertion: gives what proves to be the registration; by default the managed identity's token.
        """
        self._tenant_id = tenant_id
        self._client_id = client_id
        self._authority = authority
        self._graph = graph
        self._assertion = assertion or _managed_identity_assertion(identity_client_id)

    @classmethod
    def from_settings(cls, settings: Settings) -> "OnBehalfOf | None":
        """As the settings have it; None where they don't.

        Raises:
            SettingsError: azure-identity isn't installed, which it takes.
        """
        tenant_id = settings.on_behalf_of_tenant_id
        client_id = settings.on_behalf_of_client_id
        identity_client_id = settings.on_behalf_of_identity_client_id
        if tenant_id is None or client_id is None or identity_client_id is None:
            return None
        if find_spec("azure") is None or find_spec("azure.identity") is None:
            raise SettingsError("the settings OnBehalfOf… need azure-identity: pip install 'pow-mcp[blob]'")
        return cls(tenant_id, client_id, identity_client_id)

    async def profile(self, user_token: str) -> Profile:
        """The profile of the user whose token this is.

        Raises:
            ConsentMissing: nobody has agreed to it yet.
            InteractionRequired: the user has to sign in with a browser.
            OnBehalfOfError: it doesn't work otherwise.
        """
        # The clients block, as azure.identity.aio would bring a whole HTTP client (aiohttp) for this alone.
        return await asyncio.to_thread(self._profile, user_token)

    def _profile(self, user_token: str) -> Profile:
        return self._ask_graph(self._exchange(user_token, self._client_assertion()))

    def _client_assertion(self) -> str:
        from azure.core.exceptions import AzureError

        try:
            return self._assertion()
        except AzureError:
            raise OnBehalfOfError(
                "The app's managed identity got no token: check that OnBehalfOfIdentityClientId is the client id of "
                "an identity that is assigned to this app."
            ) from None

    def _exchange(self, user_token: str, assertion: str) -> str:
        """A token for Graph in exchange for the caller's."""
        # Imported here: it takes a third of a second, and few ask who they are.
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import OnBehalfOfCredential

        with OnBehalfOfCredential(
            self._tenant_id,
            self._client_id,
            client_assertion_func=lambda: assertion,
            user_assertion=user_token,
            authority=self._authority,
            # That is one more request to find out whether the authority is one. No caller can choose it.
            disable_instance_discovery=True,
            **_CLIENT_OPTIONS,
        ) as credential:
            try:
                return credential.get_token(SCOPE).token
            except ClientAuthenticationError as error:
                raise _refusal(error) from None

    def _ask_graph(self, token: str) -> Profile:
        from azure.core import PipelineClient
        from azure.core.exceptions import AzureError, DecodeError
        from azure.core.rest import HttpRequest, HttpResponse

        request = HttpRequest(
            "GET",
            f"{self._graph}/v1.0/me",
            params={"$select": ",".join(_FIELDS)},
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
        )
        client: PipelineClient[HttpRequest, HttpResponse] = PipelineClient(self._graph, **_CLIENT_OPTIONS)
        with client:
            try:
                response = client.send_request(request)
            except DecodeError:
                raise OnBehalfOfError("Microsoft Graph's answer can't be read. Try again later.") from None
            except AzureError:
                raise OnBehalfOfError("Microsoft Graph can't be reached. Try again later.") from None
            return _profile_of(response.status_code, response.text())


def _managed_identity_assertion(client_id: str) -> Callable[[], str]:
    @cache
    def identity() -> "ManagedIdentityCredential":
        """Once for all calls, since it keeps its token until that has to be renewed."""
        from azure.identity import ManagedIdentityCredential

        return ManagedIdentityCredential(client_id=client_id, **_CLIENT_OPTIONS)

    return lambda: identity().get_token(_ASSERTION_SCOPE).token


def _refusal(error: "AzureError") -> OnBehalfOfError:
    """What Entra's refusal means. Its own description stays out: it is long, and names ids and addresses."""
    document = _error_document(error)
    found = re.search(r"AADSTS([0-9]+)", error.message)
    code = found[1] if found else None
    kinds = {document.get("error"), document.get("suberror")}
    shown = f"AADSTS{code}" if code else "no code"
    if code == "65001" or "consent_required" in kinds:
        return ConsentMissing(f"Consent is missing ({shown}): nobody has agreed that this app reads the profile.")
    if "interaction_required" in kinds:
        return InteractionRequired(f"Entra asks the user for one more step, such as a second factor ({shown}).")
    if code is None:
        return OnBehalfOfError(
            "Entra can't be reached, or doesn't know the tenant: check OnBehalfOfTenantId, and try again later."
        )
    advice = _ADVICE.get(code, f"see {AUTHORITY}/error?code={code}")
    return OnBehalfOfError(f"Entra did not exchange the user's token ({shown}): {advice}.")


def _error_document(error: "AzureError") -> dict[str, Any]:
    """The OAuth 2.0 error that came, or an empty one."""
    response = getattr(error, "response", None)
    try:
        document = json.loads(response.text()) if response is not None else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _profile_of(status: int, text: str) -> Profile:
    """What Graph answered.

    Raises:
        OnBehalfOfError: it isn't a profile.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if status != 200:
        raise OnBehalfOfError(_graph_refusal(status, document))
    if not isinstance(document, dict):
        raise OnBehalfOfError("Microsoft Graph's answer can't be read. Try again later.")
    known = {ours: document[theirs] for theirs, ours in _FIELDS.items() if isinstance(document.get(theirs), str)}
    return cast(Profile, known)


def _graph_refusal(status: int, document: object) -> str:
    match document:
        case {"error": {"code": str(code)}} if re.fullmatch(r"[\w.-]{1,80}", code):
            shown = f"{status}, {code}"
        case _:
            shown = str(status)
    if status in (401, 403):
        return (
            f"Microsoft Graph refused ({shown}): check that the app registration has the delegated permission "
            "User.Read, and that no policy of the organization forbids it."
        )
    return f"Microsoft Graph failed ({shown}). Try again later."
