"""The tool that tells callers who they are."""

from collections.abc import Mapping
from typing import Any

from pow.identity.callers import Identities, IdentityResult
from pow.longwork.call import CallContext
from pow.tools.declarations import READS, Tool


def whoami_tool(identities: Identities) -> Tool:
    """The tool whoami."""

    async def whoami(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await identities.whoami(call.headers)

    return Tool(
        "whoami",
        "Who am I?",
        "Tell who is signed in, as the platform that hosts this server has authenticated the caller.",
        (),
        IdentityResult,
        READS,
        whoami,
    )
