"""Who calls: the caller as the platform authenticated them, and what the tool `whoami` answers.

Azure's own authentication ("Easy Auth") stands in front of an app and tells it by headers who was signed in. It takes
those headers away from what callers send; so they prove something there, and nothing anywhere else. That it is there,
the platform says by a setting of its own, or whoever deploys by one of ours: nothing promises the first on every plan.
https://learn.microsoft.com/azure/app-service/configure-authentication-user-identities
"""

import base64
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, NotRequired

from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from pow.errors import SettingsError
from pow.identity.graph import ConsentMissing, InteractionRequired, OnBehalfOf, OnBehalfOfError, Profile

_ENABLED = "WEBSITE_AUTH_ENABLED"
_SETTING = "CallersAreAuthenticated"
_PRINCIPAL = "X-MS-CLIENT-PRINCIPAL"
_PRINCIPAL_ID = "X-MS-CLIENT-PRINCIPAL-ID"
_PRINCIPAL_NAME = "X-MS-CLIENT-PRINCIPAL-NAME"
_PROVIDER = "X-MS-CLIENT-PRINCIPAL-IDP"
_USER_TOKEN = "X-MS-TOKEN-AAD-ACCESS-TOKEN"
_AUTHORIZATION = "Authorization"

# A claim has one name in tokens and another where the platform maps it to one of .NET's. Best first.
_CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
_MICROSOFT_CLAIMS = "http://schemas.microsoft.com/identity/claims"
_ID_CLAIMS = ("oid", f"{_MICROSOFT_CLAIMS}/objectidentifier", "sub", f"{_CLAIMS}/nameidentifier")
_TENANT_CLAIMS = ("tid", f"{_MICROSOFT_CLAIMS}/tenantid")
_NAME_CLAIMS = ("name", "preferred_username", f"{_CLAIMS}/name", f"{_CLAIMS}/upn", "upn", "unique_name")
_MAIL_CLAIMS = (f"{_CLAIMS}/emailaddress", "email")

_LONGEST_TEXT = 256


class Caller(NamedTuple):
    """Who was authenticated. At least one of `id` and `name` is there."""

    id: str | None
    """The provider's identifier of the user or app; Entra's object id."""
    name: str | None
    """For people: the display name, or an address."""
    provider: str | None
    """Who authenticated, in the platform's word: `aad` is Entra."""
    tenant: str | None
    """The id of Entra's tenant."""


class IdentityResult(TypedDict):
    """Who calls. Fields that aren't known are absent."""

    signed_in: bool
    message: str
    name: NotRequired[str]
    id: NotRequired[str]
    provider: NotRequired[str]
    tenant: NotRequired[str]
    profile: NotRequired[Profile]
    consent_url: NotRequired[str]


class Identities:
    """What the tool `whoami` does, on any host."""

    def __init__(self, on_behalf_of: OnBehalfOf | None, environment: Mapping[str, str] = os.environ) -> None:
        """
        Args:
            on_behalf_of: asks Microsoft Graph as the caller; None where that isn't set up.
            environment: says whether the platform authenticates, and what the app's host name is.

        Raises:
            SettingsError: the setting CallersAreAuthenticated is neither true nor false.
        """
        if _value(environment, _SETTING) not in ("true", "false", ""):
            # As false it would show everybody everybody's workflows, as true it would believe forged headers.
            raise SettingsError(f"setting {_SETTING} must be true or false, not {environment[_SETTING]!r}")
        self._on_behalf_of = on_behalf_of
        self._environment = environment

    @property
    def tell_callers_apart(self) -> bool:
        """Whether the platform authenticates."""
        return _authenticates(self._environment)

    def caller_id(self, headers: Mapping[str, str]) -> str | None:
        """What tells the caller from all others; None when nobody is signed in."""
        caller = caller_from_headers(headers, self._environment)
        return None if caller is None else caller.id or caller.name

    async def whoami(self, headers: Mapping[str, str]) -> IdentityResult:
        """Who sent the request with these headers. Never raises: what doesn't work is said in `message`."""
        try:
            caller = _caller(headers, self._environment)
        except _NobodySignedIn as reason:
            return {"signed_in": False, "message": f"Nobody is signed in: {reason}"}
        result = _signed_in(caller)
        if self._on_behalf_of is not None:
            await self._add_profile(result, self._on_behalf_of, _user_token(headers))
        return result

    async def _add_profile(self, result: IdentityResult, on_behalf_of: OnBehalfOf, token: str | None) -> None:
        if token is None:
            result["message"] += (
                " Microsoft Graph wasn't asked, since the request brought no token of the user: "
                "call with one, or turn on the token store of the app's authentication."
            )
            return
        try:
            result["profile"] = await on_behalf_of.profile(token)
        except ConsentMissing as error:
            self._add_consent_url(result, error, "sign in and agree; then call whoami again.")
        except InteractionRequired as error:
            self._add_consent_url(result, error, "sign in there and again in the MCP client; then call whoami again.")
        except OnBehalfOfError as error:
            result["message"] += f" But there is no profile. {error}"

    def _add_consent_url(self, result: IdentityResult, error: OnBehalfOfError, what_to_do: str) -> None:
        host = self._environment.get("WEBSITE_HOSTNAME", "").strip()
        if host:
            # The platform's own sign-in, rather than Entra's page for the app registration: that would send the
            # browser back with an answer that the platform didn't ask for, and which it refuses.
            url = f"https://{host}/.auth/login/aad"
            result["consent_url"] = url
            advice = f"Open {url} in a browser, {what_to_do}"
        else:
            advice = "Sign in to this app with a browser, or have an administrator agree for everybody in Entra."
        result["message"] += f" But there is no profile. {error} {advice}"


def caller_from_headers(headers: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> Caller | None:
    """The caller, as the platform authenticated them; None when nobody is signed in.

    Args:
        headers: of the request, with names in any case.
        environment: says whether the platform authenticates; otherwise headers say nothing.
    """
    try:
        return _caller(headers, environment)
    except _NobodySignedIn:
        return None


class _NobodySignedIn(Exception):
    """Says why."""


def _caller(headers: Mapping[str, str], environment: Mapping[str, str]) -> Caller:
    """The caller.

    Raises:
        _NobodySignedIn: there is none; says why, and what to do.
    """
    if not _authenticates(environment):
        raise _NobodySignedIn(
            "there is no authentication in front of this server, so it can't tell who calls. "
            "In Azure, turn on the app's authentication (Entra)."
        )
    caller = _caller_of_principal(headers) or _caller_of_bearer(headers, environment)
    if caller is None:
        raise _NobodySignedIn("the request says nothing of a user. Sign in with the MCP client and call whoami again.")
    return caller


def _caller_of_principal(headers: Mapping[str, str]) -> Caller | None:
    """As the platform's own headers have it; None if they name nobody."""
    encoded = _header(headers, _PRINCIPAL)
    provider = _text(_header(headers, _PROVIDER))
    claims: dict[str, str] = {}
    if encoded:
        principal = _json_of_base64(_PRINCIPAL, encoded)
        claims = _claims_of_principal(principal)
        provider = _text(principal.get("auth_typ")) or provider
    caller = Caller(
        id=_first(claims, _ID_CLAIMS) or _text(_header(headers, _PRINCIPAL_ID)),
        name=_first(claims, _NAME_CLAIMS) or _text(_header(headers, _PRINCIPAL_NAME)) or _first(claims, _MAIL_CLAIMS),
        provider=provider,
        tenant=_first(claims, _TENANT_CLAIMS),
    )
    return caller if caller.id or caller.name else None


def _caller_of_bearer(headers: Mapping[str, str], environment: Mapping[str, str]) -> Caller | None:
    """As the token has it, which the platform has checked and this does not; None without one."""
    # Where the platform lets everybody through, a token that it found wrong gets here like one that it found right.
    token = None if _lets_everybody_through(environment) else _bearer(headers)
    if token is None:
        return None
    parts = token.split(".")
    if len(parts) != 3:
        raise _unreadable(_AUTHORIZATION)
    document = _json_of_base64(_AUTHORIZATION, parts[1])
    claims = {name: text for name, value in document.items() if (text := _text(value))}
    tenant = _first(claims, _TENANT_CLAIMS)
    caller = Caller(
        id=_first(claims, _ID_CLAIMS),
        name=_first(claims, _NAME_CLAIMS) or _first(claims, _MAIL_CLAIMS),
        provider="aad" if tenant else None,
        tenant=tenant,
    )
    return caller if caller.id or caller.name else None


def _authenticates(environment: Mapping[str, str]) -> bool:
    return any(_value(environment, name) == "true" for name in (_ENABLED, _SETTING))


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip().lower()


def _lets_everybody_through(environment: Mapping[str, str]) -> bool:
    names = ("WEBSITE_AUTH_UNAUTHENTICATED_ACTION", "WEBSITE_AUTH_V2_CONFIG_JSON")
    return any("allowanonymous" in environment.get(name, "").lower() for name in names)


def _claims_of_principal(principal: Mapping[str, Any]) -> dict[str, str]:
    """Claims by their types; the first of each, since some, such as groups, are there many times."""
    listed = principal.get("claims", [])
    if not isinstance(listed, list):
        raise _unreadable(_PRINCIPAL)
    claims: dict[str, str] = {}
    for claim in listed:
        match claim:
            case {"typ": str(kind), "val": value} if text := _text(value):
                claims.setdefault(kind, text)
    return claims


def _user_token(headers: Mapping[str, str]) -> str | None:
    """The token to exchange: the one that the platform keeps for the user, or else the one that the client sent."""
    return _header(headers, _USER_TOKEN) or _bearer(headers)


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = (_header(headers, _AUTHORIZATION) or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """A header by its name in any case; None if it is absent or blank."""
    wanted = name.lower()
    # Hosts pass on what JSON they got, so a value may be no text at all.
    found = (value for key, value in headers.items() if key.lower() == wanted and isinstance(value, str))
    return next(found, "").strip() or None


def _json_of_base64(header: str, encoded: str) -> dict[str, Any]:
    """The JSON object of a header: in base64 of either alphabet, padded or not.

    Raises:
        _NobodySignedIn: it isn't one.
    """
    try:
        standard = encoded.replace("-", "+").replace("_", "/")
        decoded = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        document = json.loads(decoded)
    # RecursionError: a header has room for brackets that are nested too deep.
    except (ValueError, RecursionError):
        raise _unreadable(header) from None
    if not isinstance(document, dict):
        raise _unreadable(header)
    return document


def _unreadable(header: str) -> _NobodySignedIn:
    return _NobodySignedIn(
        f"the header {header} can't be read. Sign in again with the MCP client and call whoami again."
    )


def _first(claims: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((claims[name] for name in names if name in claims), None)


def _text(value: object) -> str | None:
    """A claim's value as one line that can be shown; None if there is nothing to show.

    Users choose their names, which end up in sentences that agents read.
    """
    if not isinstance(value, str):
        return None
    printable = "".join(character if character.isprintable() else " " for character in value)
    return " ".join(printable.split())[:_LONGEST_TEXT] or None


def _signed_in(caller: Caller) -> IdentityResult:
    result: IdentityResult = {"signed_in": True, "message": f"{caller.name or caller.id} is signed in."}
    if caller.name is not None:
        result["name"] = caller.name
    if caller.id is not None:
        result["id"] = caller.id
    if caller.provider is not None:
        result["provider"] = caller.provider
    if caller.tenant is not None:
        result["tenant"] = caller.tenant
    return result
