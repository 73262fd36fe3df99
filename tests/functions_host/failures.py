"""Error texts, taken apart and put together as the Durable extension does."""

import json
from typing import Any

from functions_host.values import Failure

_MESSAGE_LABEL = "\nException:"
_STACK_LABEL = "\nStack:"
_TAIL_LABEL = "\n\n$OutOfProcData$:"


def orchestrator_answer(failure: Failure) -> dict[str, Any] | None:
    """The orchestrator's answer, which the SDK hangs behind the text of what it raises; None when it isn't there."""
    _, label, tail = _full_message(failure).partition(_TAIL_LABEL)
    if not label:
        return None
    try:
        answer = json.loads(tail)
    except json.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def friendly_message(failure: Failure) -> str:
    """An activity's error, with the blank in front of it that the extension leaves there."""
    return _full_message(failure).partition(_TAIL_LABEL)[0]


def failure_details(failure: Failure) -> str:
    """The serialized exception that goes with an activity's error into the history."""
    inner = {"$type": "Microsoft.Azure.WebJobs.Script.Workers.Rpc.RpcException", "Message": failure.text}
    return json.dumps(
        {
            "$type": "System.Exception, System.Private.CoreLib",
            "ClassName": "System.Exception",
            "Message": friendly_message(failure),
            "Data": None,
            "InnerException": inner,
            "HelpURL": None,
            "StackTraceString": None,
            "RemoteStackTraceString": None,
            "RemoteStackIndex": 0,
            "ExceptionMethod": None,
            "HResult": -2146233088,
            "Source": None,
            "WatsonBuckets": None,
        }
    )


def _full_message(failure: Failure) -> str:
    text = failure.text
    begin = text.index(_MESSAGE_LABEL) + len(_MESSAGE_LABEL)
    return text[begin : max(begin, text.index(_STACK_LABEL))]
