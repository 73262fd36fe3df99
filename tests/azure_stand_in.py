"""Entra, Microsoft Graph and App Service's endpoint for managed identities: a server on loopback.

It speaks their protocols over TLS, so all of azure-identity is the real one, and what tests see of a
request is what would be sent.
"""

import datetime
import ipaddress
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from callers import CLIENT, IDENTITY, TENANT, jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pow.identity.graph import OnBehalfOf


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


@contextmanager
def azure_on_loopback(folder: Path) -> Iterator[Azure]:
    """The server while the context lasts; its certificate is made in a folder."""
    certificate, key = certificate_for_loopback(folder)
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
