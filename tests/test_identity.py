"""`whoami`: what the platform's headers say, when they are believed, and Microsoft Graph on behalf of the caller.

Entra, Graph and App Service's endpoint for managed identities are a server on loopback that speaks their protocols
over TLS. All of azure-identity is the real one, so what these tests see of a request is what would be sent.
"""

import asyncio
import base64
import datetime
import ipaddress
import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pow.identity import Caller, Identities, IdentityResult, caller_from_headers
from pow.on_behalf_of import OnBehalfOf
from pow.settings import Settings

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
IDENTITY = "01234567-89ab-cdef-0123-456789abcdef"
OBJECT = "99999999-8888-7777-6666-555555555555"
HOST = "func-pow.example.net"
AUTHENTICATED = {"WEBSITE_AUTH_ENABLED": "True", "WEBSITE_HOSTNAME": HOST}

XML = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
MICROSOFT = "http://schemas.microsoft.com/identity/claims"
# As the platform has them of a token of version 2, after it mapped some names to .NET's.
LONG_CLAIMS = {
    "aud": CLIENT,
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "iat": "1760000000",
    "name": "Zoë Müller",
    f"{MICROSOFT}/objectidentifier": OBJECT,
    "preferred_username": "zoe@contoso.com",
    f"{MICROSOFT}/scope": "user_impersonation",
    f"{XML}/nameidentifier": "q7Zr0hXb9mUu",
    f"{MICROSOFT}/tenantid": TENANT,
    "ver": "2.0",
}
SHORT_CLAIMS = {"oid": OBJECT, "name": "Zoë Müller", "tid": TENANT, "sub": "q7Zr0hXb9mUu"}
ZOE = Caller(OBJECT, "Zoë Müller", "aad", TENANT)


def principal(claims: Mapping[str, object], /, **others: object) -> str:
    """The header X-MS-CLIENT-PRINCIPAL."""
    document = {
        "auth_typ": "aad",
        "claims": [{"typ": name, "val": value} for name, value in claims.items()],
        "name_typ": f"{XML}/emailaddress",
        "role_typ": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
        **others,
    }
    return base64.b64encode(json.dumps(document, ensure_ascii=False).encode()).decode()


def jwt(claims: Mapping[str, object]) -> str:
    """A token with these claims; nothing here checks its signature."""
    parts = [json.dumps({"alg": "RS256", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"no signature"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


USER_TOKEN = jwt({**SHORT_CLAIMS, "aud": CLIENT, "preferred_username": "zoe@contoso.com", "scp": "user_impersonation"})
SIGNED_IN = {"X-MS-CLIENT-PRINCIPAL": principal(LONG_CLAIMS), "Authorization": f"Bearer {USER_TOKEN}"}


def whoami(
    headers: Mapping[str, str],
    on_behalf_of: OnBehalfOf | None = None,
    environment: Mapping[str, str] = AUTHENTICATED,
) -> IdentityResult:
    return asyncio.run(Identities(on_behalf_of, environment).whoami(headers))


# --- headers ---


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


@pytest.mark.parametrize("enabled", ["true", "True", " TRUE\n"])
def test_headers_count_behind_the_platform_s_authentication(enabled: str) -> None:
    assert caller_from_headers(SIGNED_IN, {"WEBSITE_AUTH_ENABLED": enabled}) == ZOE


@pytest.mark.parametrize("environment", [{}, *({"WEBSITE_AUTH_ENABLED": x} for x in ("", "false", "0", "1", "yes"))])
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


def test_importing_it_brings_nothing_large() -> None:
    script = (
        "import sys, pow.identity\n"
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


# --- on behalf of the caller ---


@dataclass
class Azure:
    """What the server on loopback answers, and what it was asked."""

    url: str
    certificate: Path
    refusal: tuple[int, dict[str, Any]] | None = None
    """What Entra answers in the place of a token."""
    graph: tuple[int, str] | None = None
    """What Graph answers in the place of the profile; a status of 0 hangs up."""
    identity_refusal: int | None = None
    """With which status the managed identity gets no token."""
    exchanges: list[dict[str, str]] = field(default_factory=list)
    graph_requests: list[str] = field(default_factory=list)
    identity_requests: list[dict[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        self.refusal = self.graph = self.identity_refusal = None
        for requests in (self.exchanges, self.graph_requests, self.identity_requests):
            requests.clear()

    def on_behalf_of(self) -> OnBehalfOf:
        return OnBehalfOf(TENANT, CLIENT, IDENTITY, authority=self.url, graph=self.url)


IDENTITY_TOKEN = jwt({"aud": "api://AzureADTokenExchange", "sub": IDENTITY})
GRAPH_TOKEN = jwt({"aud": "https://graph.microsoft.com", "scp": "User.Read"})
IDENTITY_SECRET = "the platform's own secret"
PROFILE = {
    "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#users/$entity",
    "displayName": "Zoë Müller",
    "userPrincipalName": "zoe@contoso.com",
    "mail": None,
    "jobTitle": "Miner",
}


class AzureHandler(BaseHTTPRequestHandler):
    """Entra, Microsoft Graph, and App Service's endpoint for managed identities."""

    azure: Azure

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            authority = f"{self.azure.url}/{TENANT}"
            self._answer(
                200,
                {
                    "issuer": f"{authority}/v2.0",
                    "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{authority}/oauth2/v2.0/token",
                },
            )
        elif url.path == "/v1.0/me":
            self.azure.graph_requests.append(self.path)
            self._answer_as_graph()
        elif url.path == "/msi/token" and self.headers["X-IDENTITY-HEADER"] == IDENTITY_SECRET:
            self.azure.identity_requests.append(query)
            self._answer_as_identity()
        else:
            self._answer(404, {"error": "not_found"})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode(), strict_parsing=True)
        if self.path != f"/{TENANT}/oauth2/v2.0/token":
            self._answer(404, {"error": "not_found"})
            return
        self.azure.exchanges.append({name: value for name, [value] in form.items()})
        if self.azure.refusal is not None:
            self._answer(*self.azure.refusal)
            return
        self._answer(
            200,
            {
                "token_type": "Bearer",
                "scope": "https://graph.microsoft.com/User.Read",
                "expires_in": 3600,
                "ext_expires_in": 3600,
                "access_token": GRAPH_TOKEN,
            },
        )

    def _answer_as_graph(self) -> None:
        if self.headers["Authorization"] != f"Bearer {GRAPH_TOKEN}":
            self._answer(401, {"error": {"code": "InvalidAuthenticationToken", "message": "…"}})
        elif self.azure.graph is None:
            self._answer(200, PROFILE)
        elif self.azure.graph[0]:
            self._answer_text(*self.azure.graph)

    def _answer_as_identity(self) -> None:
        if self.azure.identity_refusal is not None:
            self._answer(self.azure.identity_refusal, {"statusCode": self.azure.identity_refusal, "message": "no"})
            return
        self._answer(
            200,
            {
                "access_token": IDENTITY_TOKEN,
                "expires_on": "4102444800",
                "resource": "api://AzureADTokenExchange",
                "token_type": "Bearer",
                "client_id": IDENTITY,
            },
        )

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        self._answer_text(status, json.dumps(document))

    def _answer_text(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests have their own record."""


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing of clients that break off, such as one that doesn't trust the certificate."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def certificate_for_loopback(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    certificate, key = certificate_for_loopback(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(AzureHandler):
        pass

    with QuietServer(("127.0.0.1", 0), Handler) as listening:
        # The handshake is left to the connection's own thread, where one that fails stops nobody else.
        listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
        Handler.azure = Azure(f"https://127.0.0.1:{listening.server_port}", certificate)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield Handler.azure
        listening.shutdown()
        thread.join()


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


def entra_error(code: int, error: str = "invalid_grant", **others: str) -> tuple[int, dict[str, Any]]:
    """An error as Entra's token endpoint gives it."""
    return 400, {
        "error": error,
        "error_description": f"AADSTS{code}: What it says of zoe@contoso.com. Trace ID: 1 Correlation ID: 2",
        "error_codes": [code],
        "timestamp": "2026-01-01 00:00:00Z",
        "trace_id": "6d5b1c34-0000-0000-0000-000000000000",
        "correlation_id": "7a9c2e10-0000-0000-0000-000000000000",
        **others,
    }


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
