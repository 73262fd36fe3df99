"""`whoami` with Microsoft Graph on behalf of the caller. What stands in Azure's place: `azure_stand_in.py`."""

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from azure_stand_in import GRAPH_TOKEN, IDENTITY_SECRET, IDENTITY_TOKEN, Azure, azure_on_loopback, entra_error
from callers import (
    CLIENT,
    HOST,
    IDENTITY,
    LONG_CLAIMS,
    SHORT_CLAIMS,
    SIGNED_IN,
    TENANT,
    USER_TOKEN,
    jwt,
    principal,
    whoami,
)

from pow.identity.graph import OnBehalfOf


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    with azure_on_loopback(tmp_path_factory.mktemp("tls")) as serving:
        yield serving


@pytest.fixture
def azure(server: Azure, monkeypatch: pytest.MonkeyPatch) -> Azure:
    """The server, with nothing asked yet, and the environment as App Service has it."""
    server.reset()
    for name in ("IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT", "AZURE_REGIONAL_AUTHORITY_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_SECRET)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return server


def test_graph_is_asked_as_the_caller(azure: Azure) -> None:
    result = whoami(SIGNED_IN, azure.on_behalf_of())

    assert result == {
        **whoami(SIGNED_IN),
        "profile": {
            "display_name": "Zoë Müller",
            "user_principal_name": "zoe@contoso.com",
            "job_title": "Miner",
        },
    }
    assert azure.graph_requests == ["/v1.0/me?$select=displayName,userPrincipalName,mail,jobTitle"]


def test_the_caller_s_token_and_the_identity_s_are_exchanged_for_one_of_graph(azure: Azure) -> None:
    whoami(SIGNED_IN, azure.on_behalf_of())

    [identity_request] = azure.identity_requests
    assert identity_request == {
        "api-version": "2019-08-01",
        "resource": "api://AzureADTokenExchange",
        "client_id": IDENTITY,
    }
    [exchange] = azure.exchanges
    assert set(exchange.pop("scope").split()) == {
        "https://graph.microsoft.com/User.Read",
        # What MSAL adds to every request.
        *("openid", "profile", "offline_access"),
    }
    assert exchange.pop("client_info") == "1"
    assert exchange == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "requested_token_use": "on_behalf_of",
        "assertion": USER_TOKEN,
        "client_id": CLIENT,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": IDENTITY_TOKEN,
    }


def test_the_token_that_the_platform_keeps_comes_before_the_one_that_was_sent(azure: Azure) -> None:
    kept = jwt({**SHORT_CLAIMS, "uti": "kept"})
    whoami({**SIGNED_IN, "x-ms-token-aad-access-token": kept}, azure.on_behalf_of())
    assert [exchange["assertion"] for exchange in azure.exchanges] == [kept]


def test_another_source_of_assertions_can_take_the_identity_s_place(azure: Azure) -> None:
    on_behalf_of = OnBehalfOf(
        TENANT, CLIENT, IDENTITY, authority=azure.url, graph=azure.url, assertion=lambda: "another"
    )
    assert "profile" in whoami(SIGNED_IN, on_behalf_of)
    assert [exchange["client_assertion"] for exchange in azure.exchanges] == ["another"]
    assert azure.identity_requests == []


def test_each_caller_gets_their_own_profile_and_the_identity_s_token_is_kept(azure: Azure) -> None:
    on_behalf_of = azure.on_behalf_of()
    tokens = [jwt({**SHORT_CLAIMS, "oid": str(number)}) for number in range(3)]
    for token in tokens:
        whoami({"Authorization": f"Bearer {token}"}, on_behalf_of)
    assert [exchange["assertion"] for exchange in azure.exchanges] == tokens
    assert len(azure.graph_requests) == 3
    assert len(azure.identity_requests) == 1


def test_nobody_is_asked_for_a_caller_who_is_not_signed_in(azure: Azure) -> None:
    assert whoami({}, azure.on_behalf_of())["signed_in"] is False
    assert whoami(SIGNED_IN, azure.on_behalf_of(), {"WEBSITE_HOSTNAME": HOST})["signed_in"] is False
    assert azure.identity_requests == azure.exchanges == []


def test_a_request_without_a_token_is_told_how_to_bring_one(azure: Azure) -> None:
    result = whoami({"X-MS-CLIENT-PRINCIPAL": principal(LONG_CLAIMS)}, azure.on_behalf_of())
    assert result["message"] == (
        "Zoë Müller is signed in. Microsoft Graph wasn't asked, since the request brought no token of the user: "
        "call with one, or turn on the token store of the app's authentication."
    )
    assert (result["signed_in"], "profile" in result) == (True, False)
    assert azure.exchanges == []


@pytest.mark.parametrize(
    ("refusal", "shown"),
    [
        (entra_error(65001, suberror="consent_required"), "AADSTS65001"),
        (entra_error(65001, "interaction_required"), "AADSTS65001"),
        (entra_error(65004, "consent_required"), "AADSTS65004"),
        ((400, {"error": "invalid_grant", "suberror": "consent_required"}), "no code"),
    ],
    ids=["suberror", "code", "error", "without a description"],
)
def test_missing_consent_is_told_with_the_link_to_give_it(
    azure: Azure, refusal: tuple[int, dict[str, Any]], shown: str
) -> None:
    azure.refusal = refusal
    result = whoami(SIGNED_IN, azure.on_behalf_of())
    url = f"https://{HOST}/.auth/login/aad"
    assert result == {
        **whoami(SIGNED_IN),
        "message": f"Zoë Müller is signed in. But there is no profile. Consent is missing ({shown}): nobody has agreed "
        f"that this app reads the profile. Open {url} in a browser, sign in and agree; then call whoami again.",
        "consent_url": url,
    }


def test_consent_is_asked_for_in_words_where_the_app_does_not_know_its_host(azure: Azure) -> None:
    azure.refusal = entra_error(65001)
    result = whoami(SIGNED_IN, azure.on_behalf_of(), {"WEBSITE_AUTH_ENABLED": "true"})
    assert "consent_url" not in result
    assert result["message"].endswith(
        "Sign in to this app with a browser, or have an administrator agree for everybody in Entra."
    )


def test_a_second_factor_is_asked_for_with_the_link_to_give_it(azure: Azure) -> None:
    azure.refusal = entra_error(50076, "interaction_required", suberror="basic_action")
    result = whoami(SIGNED_IN, azure.on_behalf_of())
    assert result["consent_url"] == f"https://{HOST}/.auth/login/aad"
    assert result["message"] == (
        "Zoë Müller is signed in. But there is no profile. Entra asks the user for one more step, such as a second "
        f"factor (AADSTS50076). Open https://{HOST}/.auth/login/aad in a browser, sign in there and again in the MCP "
        "client; then call whoami again."
    )


@pytest.mark.parametrize(
    ("code", "error", "advice"),
    [
        (500133, "invalid_grant", "the user's token is no longer good: sign in again in the MCP client"),
        (
            500131,
            "invalid_grant",
            "the user's token is for another app: the MCP client has to ask for this one's scope",
        ),
        (7000114, "invalid_request", "the caller is an app and no user, so there is nobody to ask for"),
        (700016, "unauthorized_client", "check OnBehalfOfTenantId and OnBehalfOfClientId"),
        (
            700213,
            "invalid_client",
            "check that the app registration has a federated credential for the managed identity of "
            "OnBehalfOfIdentityClientId",
        ),
        (53003, "access_denied", "see https://login.microsoftonline.com/error?code=53003"),
    ],
    ids=["expired", "other audience", "app", "unknown app", "no federation", "anything else"],
)
def test_another_refusal_is_told_with_its_code_and_what_to_check(
    azure: Azure, code: int, error: str, advice: str
) -> None:
    azure.refusal = entra_error(code, error)
    result = whoami(SIGNED_IN, azure.on_behalf_of())
    assert result == {
        **whoami(SIGNED_IN),
        "message": "Zoë Müller is signed in. But there is no profile. "
        f"Entra did not exchange the user's token (AADSTS{code}): {advice}.",
    }


def unused_url() -> str:
    """Where nobody listens, by all likelihood: the port was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"https://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("case", ["down", "unknown tenant", "failing", "not trusted"])
def test_an_entra_that_gives_no_answer_is_told(azure: Azure, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tenant = azure.url, TENANT
    match case:
        case "down":
            authority = unused_url()
        case "unknown tenant":
            tenant = "contoso.example"
        case "failing":
            azure.refusal = 503, {}
        case "not trusted":
            monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    on_behalf_of = OnBehalfOf(
        tenant, CLIENT, IDENTITY, authority=authority, graph=azure.url, assertion=lambda: "assertion"
    )
    assert whoami(SIGNED_IN, on_behalf_of)["message"] == (
        "Zoë Müller is signed in. But there is no profile. Entra can't be reached, or doesn't know the tenant: "
        "check OnBehalfOfTenantId, and try again later."
    )
    # Not again on its own: somebody waits.
    assert len(azure.exchanges) == (case == "failing")


@pytest.mark.parametrize("status", [400, 500])
def test_an_identity_that_the_app_does_not_have_is_told(azure: Azure, status: int) -> None:
    azure.identity_refusal = status
    assert whoami(SIGNED_IN, azure.on_behalf_of())["message"] == (
        "Zoë Müller is signed in. But there is no profile. The app's managed identity got no token: check that "
        "OnBehalfOfIdentityClientId is the client id of an identity that is assigned to this app."
    )
    assert azure.exchanges == []


@pytest.mark.parametrize(
    ("status", "text", "sentence"),
    [
        (
            403,
            '{"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges"}}',
            "Microsoft Graph refused (403, Authorization_RequestDenied): check that the app registration has the "
            "delegated permission User.Read, and that no policy of the organization forbids it.",
        ),
        (503, "{}", "Microsoft Graph failed (503). Try again later."),
        (429, '{"error": {"code": "Too many\\nrequests"}}', "Microsoft Graph failed (429). Try again later."),
        (200, "[]", "Microsoft Graph's answer can't be read. Try again later."),
        (200, "<html>", "Microsoft Graph's answer can't be read. Try again later."),
        (0, "", "Microsoft Graph can't be reached. Try again later."),
    ],
    ids=["refused", "down", "too many", "no object", "no JSON", "hangs up"],
)
def test_a_graph_that_gives_no_profile_is_told(azure: Azure, status: int, text: str, sentence: str) -> None:
    azure.graph = status, text
    result = whoami(SIGNED_IN, azure.on_behalf_of())
    assert result == {
        **whoami(SIGNED_IN),
        "message": f"Zoë Müller is signed in. But there is no profile. {sentence}",
    }
    assert len(azure.graph_requests) == 1


@pytest.mark.parametrize("outcome", ["success", "consent missing", "identity refused", "graph refused"])
def test_no_token_is_in_an_answer_or_a_log(azure: Azure, outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    match outcome:
        case "consent missing":
            azure.refusal = entra_error(65001, suberror="consent_required")
        case "identity refused":
            azure.identity_refusal = 400
        case "graph refused":
            azure.graph = 403, "{}"
    result = whoami(SIGNED_IN, azure.on_behalf_of())
    shown = json.dumps(result) + caplog.text
    assert IDENTITY_SECRET not in shown
    for token in (USER_TOKEN, IDENTITY_TOKEN, GRAPH_TOKEN):
        # Not in part either; its header is the same in all of them.
        _, claims, _ = token.split(".")
        assert claims not in shown
