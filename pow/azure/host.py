"""What the Functions host grants an invocation.

A function that takes longer than `functionTimeout` costs more than its answer: the host starts the worker process anew,
and other invocations that it had in hand, slices above all, may never end. So none may come near it.
https://learn.microsoft.com/azure/azure-functions/functions-host-json
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

# Left for what happens before and after our code.
_SHARE = 0.8
# For the answer of a call that has waited for work.
_ANSWER_SECONDS = 10.0
# Where host.json sets no limit, or none at all: what the front end of Azure grants an HTTP call.
_FRONT_END_SECONDS = 230.0
_OVERRIDE = re.compile(r"AzureFunctionsJobHost(?:__|:)functionTimeout", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.\d+)?")


def invocation_seconds(app: Path, environment: Mapping[str, str]) -> float:
    """How long an invocation may take: 80 % of `functionTimeout`, and no longer than an HTTP call may.

    Args:
        app: the folder of host.json.
        environment: may override what that says.
    """
    override = next((value for name, value in environment.items() if _OVERRIDE.fullmatch(name)), None)
    granted = _seconds(override if override is not None else _function_timeout(app))
    return _SHARE * min(granted, _FRONT_END_SECONDS / _SHARE)


def longest_wait(invocation: float) -> float:
    """How long a call of so many seconds at most may wait for work, so that there is time for its answer."""
    return invocation - min(_ANSWER_SECONDS, (1.0 - _SHARE) * invocation)


def _function_timeout(app: Path) -> str:
    try:
        return str(json.loads((app / "host.json").read_text("utf-8")).get("functionTimeout", ""))
    except (OSError, ValueError):
        return ""


def _seconds(duration: str) -> float:
    """A .NET time span in seconds; endless for none and for -1."""
    found = _DURATION.fullmatch(duration.strip())
    if found is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
