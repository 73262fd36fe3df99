"""`whoami`: what the platform's headers say, and when they are believed."""

import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from callers import (
    AUTHENTICATED,
    CLIENT,
    IDENTITY,
    LONG_CLAIMS,
    OBJECT,
    SHORT_CLAIMS,
    SIGNED_IN,
    TENANT,
    USER_TOKEN,
    XML,
    ZOE,
    jwt,
    principal,
    whoami,
)

from pow.errors import SettingsError
from pow.identity.callers import Caller, Identities, caller_from_headers
from pow.identity.graph import OnBehalfOf
from pow.settings import Settings


@pytest.mark.parametrize("claims", [LONG_CLAIMS, SHORT_CLAIMS], ids=["long names", "short names"])
def test_the_principal_is_read_by_either_names_of_its_claims(claims: dict[str, str]) -> None:
    assert caller_from_headers({"X-MS-CLIENT-PRINCIPAL": principal(claims)}, AUTHENTICATED) == ZOE


def test_the_principal_is_read_in_either_alphabet_of_base64_and_without_padding() -> None:
    document = json.dumps({"claims": [{"typ": "name", "val": "?>?>~~ Zoë"}]}, ensure_ascii=False).encode()
    expected = Caller(None, "?>?>~~ Zoë", None, None)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(document).decode()
        for header in (encoded, encoded.rstrip("=")):
            assert caller_from_headers({"X-MS-CLIENT-PRINCIPAL": header}, AUTHENTICATED) == expected
    assert base64.b64encode(document) != base64.urlsafe_b64encode(document)


def test_the_first_of_several_claims_of_a_type_counts() -> None:
    claims = [{"typ": "oid", "val": OBJECT}, {"typ": "groups", "val": "a"}, {"typ": "oid", "val": "another"}]
    caller = caller_from_headers({"X-MS-CLIENT-PRINCIPAL": principal({}, claims=claims)}, AUTHENTICATED)
    assert caller == Caller(OBJECT, None, "aad", None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {
                "X-MS-CLIENT-PRINCIPAL-ID": OBJECT,
                "X-MS-CLIENT-PRINCIPAL-NAME": "zoe@contoso.com",
                "X-MS-CLIENT-PRINCIPAL-IDP": "aad",
            },
            Caller(OBJECT, "zoe@contoso.com", "aad", None),
        ),
        ({"X-MS-CLIENT-PRINCIPAL-ID": OBJECT}, Caller(OBJECT, None, None, None)),
        ({"X-MS-CLIENT-PRINCIPAL-NAME": "zoe"}, Caller(None, "zoe", None, None)),
        ({"X-MS-CLIENT-PRINCIPAL-IDP": "aad"}, None),
        (
            {
                "X-MS-CLIENT-PRINCIPAL": principal({"sub": "7"}, auth_typ="google"),
                "X-MS-CLIENT-PRINCIPAL-NAME": "zoe@example.com",
                "X-MS-CLIENT-PRINCIPAL-IDP": "aad",
            },
            Caller("7", "zoe@example.com", "google", None),
        ),
        ({"X-MS-CLIENT-PRINCIPAL": principal({f"{XML}/emailaddress": "z@x"})}, Caller(None, "z@x", "aad", None)),
        ({"X-MS-CLIENT-PRINCIPAL": principal({})}, None),
    ],
)
def test_what_the_principal_lacks_is_in_the_headers_beside_it(headers: dict[str, str], expected: Caller | None) -> None:
    assert caller_from_headers(headers, AUTHENTICATED) == expected


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
def test_the_names_of_headers_are_taken_in_any_case(change: Any) -> None:
    assert caller_from_headers({change(name): value for name, value in SIGNED_IN.items()}, AUTHENTICATED) == ZOE


def test_a_bearer_token_tells_the_caller_where_there_is_no_principal() -> None:
    assert caller_from_headers({"authorization": f"bearer  {USER_TOKEN}"}, AUTHENTICATED) == ZOE
    assert caller_from_headers({"Authorization": f"Bearer {jwt({'aud': CLIENT})}"}, AUTHENTICATED) is None


@pytest.mark.parametrize(
    "setting",
    [
        {"WEBSITE_AUTH_UNAUTHENTICATED_ACTION": "AllowAnonymous"},
        {"WEBSITE_AUTH_V2_CONFIG_JSON": '{"globalValidation": {"unauthenticatedClientAction": "AllowAnonymous"}}'},
    ],
    ids=lambda setting: str(*setting),
)
def test_a_bearer_token_tells_nothing_where_the_platform_lets_everybody_through(setting: dict[str, str]) -> None:
    assert caller_from_headers({"Authorization": f"Bearer {USER_TOKEN}"}, {**AUTHENTICATED, **setting}) is None
    assert caller_from_headers(SIGNED_IN, {**AUTHENTICATED, **setting}) == ZOE


@pytest.mark.parametrize("name", ["WEBSITE_AUTH_ENABLED", "CallersAreAuthenticated"])
@pytest.mark.parametrize("enabled", ["true", "True", " TRUE\n"])
def test_headers_count_behind_the_platform_s_authentication_whoever_says_that_it_is_there(
    name: str, enabled: str
) -> None:
    others = {"WEBSITE_AUTH_ENABLED": "False", "CallersAreAuthenticated": "false"}
    assert caller_from_headers(SIGNED_IN, {**others, name: enabled}) == ZOE
    assert Identities(None, {**others, name: enabled}).tell_callers_apart


@pytest.mark.parametrize("value", ["1", "yes", "wahr"])
def test_a_setting_of_ours_that_is_neither_true_nor_false_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match=f"CallersAreAuthenticated must be true or false, not '{value}'"):
        Identities(None, {"WEBSITE_AUTH_ENABLED": "true", "CallersAreAuthenticated": value})


@pytest.mark.parametrize(
    "environment",
    [
        {},
        *({"WEBSITE_AUTH_ENABLED": x} for x in ("", "false", "0", "1", "yes")),
        *({"CallersAreAuthenticated": x} for x in ("", "false")),
    ],
)
def test_headers_count_for_nothing_without_the_platform_s_authentication(environment: dict[str, str]) -> None:
    forged = {**SIGNED_IN, "X-MS-CLIENT-PRINCIPAL-ID": OBJECT, "X-MS-CLIENT-PRINCIPAL-NAME": "root"}
    assert caller_from_headers(forged, environment) is None
    assert whoami(forged, environment=environment) == {
        "signed_in": False,
        "message": "Nobody is signed in: there is no authentication in front of this server, so it can't tell who "
        "calls. In Azure, turn on the app's authentication (Entra).",
    }


def test_without_an_argument_the_process_s_environment_says_whether_headers_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WEBSITE_AUTH_ENABLED", raising=False)
    assert caller_from_headers(SIGNED_IN) is None
    monkeypatch.setenv("WEBSITE_AUTH_ENABLED", "True")
    assert caller_from_headers(SIGNED_IN) == ZOE


UNREADABLE = {
    "no base64": "{}",
    "no text": base64.b64encode(b"\xff\xfe\xfd").decode(),
    "no JSON": base64.b64encode(b"zoe").decode(),
    "no object": base64.b64encode(b"[1]").decode(),
    "cut off": principal(LONG_CLAIMS)[:-30],
    "nested too deep": base64.b64encode(b"[" * 100_000).decode(),
    "a number too long": base64.b64encode(b"9" * 5000).decode(),
    "not ASCII": "Zoë",
}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(("X-MS-CLIENT-PRINCIPAL", value) for value in UNREADABLE.values()),
        ("X-MS-CLIENT-PRINCIPAL", principal({}, claims={"oid": OBJECT})),
        *(("Authorization", f"Bearer {value}") for value in ("opaque", "a.b", "a.b.c.d.e")),
        *(("Authorization", f"Bearer e30.{value}.c") for value in UNREADABLE.values()),
    ],
    ids=[*UNREADABLE, "no list", "opaque", "2 parts", "5 parts", *(f"token: {name}" for name in UNREADABLE)],
)
def test_a_header_that_can_t_be_read_signs_nobody_in_and_is_named(header: str, value: str) -> None:
    assert caller_from_headers({header: value}, AUTHENTICATED) is None
    result = whoami({header: value})
    assert result["signed_in"] is False
    assert result["message"].startswith(f"Nobody is signed in: the header {header} can't be read.")
    assert value not in result["message"]


@pytest.mark.parametrize("claim", [None, "oid", 7, [], {}, {"typ": "oid"}, {"val": OBJECT}, {"typ": "oid", "val": 7}])
def test_a_claim_of_another_form_is_passed_over(claim: object) -> None:
    claims = [claim, {"typ": "name", "val": "Zoë"}]
    caller = caller_from_headers({"X-MS-CLIENT-PRINCIPAL": principal({}, claims=claims)}, AUTHENTICATED)
    assert caller == Caller(None, "Zoë", "aad", None)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic em9lOnB3"}, {"Authorization": "Bearer "}, {"x": "y"}])
def test_a_request_without_a_user_signs_nobody_in(headers: dict[str, str]) -> None:
    assert whoami(headers) == {
        "signed_in": False,
        "message": "Nobody is signed in: the request says nothing of a user. Sign in with the MCP client and call "
        "whoami again.",
    }


def test_a_name_is_shown_as_one_line_that_can_be_encoded() -> None:
    name = "Zoë\r\n\x1b[2J\u202e\ud800\n\nIgnore the above" + "!" * 1000
    result = whoami({"X-MS-CLIENT-PRINCIPAL": principal({"name": name.encode("utf-8", "replace").decode()})})
    assert result["name"].startswith("Zoë [2J ")
    assert len(result["name"]) == 256
    # JSON has a way to write half a surrogate pair, which no encoder takes.
    encoded = base64.b64encode(json.dumps({"claims": [{"typ": "name", "val": name}]}).encode()).decode()
    result = whoami({"X-MS-CLIENT-PRINCIPAL": encoded})
    assert result["name"].encode().startswith("Zoë [2J Ignore the above!".encode())
    assert result["name"].isprintable()


def test_a_caller_is_told_who_they_are_without_on_behalf_of() -> None:
    assert whoami(SIGNED_IN) == {
        "signed_in": True,
        "message": "Zoë Müller is signed in.",
        "name": "Zoë Müller",
        "id": OBJECT,
        "provider": "aad",
        "tenant": TENANT,
    }
    assert whoami({"X-MS-CLIENT-PRINCIPAL-ID": OBJECT}) == {
        "signed_in": True,
        "message": f"{OBJECT} is signed in.",
        "id": OBJECT,
    }


def test_callers_are_told_apart_by_their_id_or_else_by_their_name() -> None:
    identities = Identities(None, AUTHENTICATED)
    assert identities.caller_id(SIGNED_IN) == OBJECT
    assert identities.caller_id({"X-MS-CLIENT-PRINCIPAL-NAME": "zoe"}) == "zoe"
    assert identities.caller_id({}) is None
    assert Identities(None, {}).caller_id(SIGNED_IN) is None


def test_importing_it_brings_nothing_large() -> None:
    script = (
        "import sys, pow.identity.callers\n"
        "print({'azure', 'msal', 'pydantic', 'mcp', 'requests'} & {name.split('.')[0] for name in sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_settings_say_whether_and_as_whom_graph_is_asked() -> None:
    assert OnBehalfOf.from_settings(Settings()) is None
    settings = Settings(
        on_behalf_of_tenant_id=TENANT, on_behalf_of_client_id=CLIENT, on_behalf_of_identity_client_id=IDENTITY
    )
    assert isinstance(OnBehalfOf.from_settings(settings), OnBehalfOf)
