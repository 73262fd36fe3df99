"""A caller as App Service's authentication tells of them, and `whoami` as they call it."""

import asyncio
import base64
import json
from collections.abc import Mapping

from pow.identity.callers import Caller, Identities, IdentityResult
from pow.identity.graph import OnBehalfOf

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
