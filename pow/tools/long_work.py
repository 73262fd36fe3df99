"""The four tools that every long work has: start, get, cancel, list. They are declared once, for all works."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, cast

from typing_extensions import TypedDict, get_type_hints  # typing's own only from Python 3.12 on

from pow.longwork.call import CallContext
from pow.longwork.service import DEFAULT_LISTED, MAX_LISTED, ListedWorkflow, LongWorkService, ToolNames, WorkResult
from pow.tools.declarations import READS, Argument, Hints, Tool, count_to


@dataclass(frozen=True, slots=True)
class WorkDeclaration:
    """What a work's tools are called, and what they say of it."""

    names: ToolNames
    arguments: tuple[Argument, ...]
    """Of a job."""
    job: type
    """The TypedDict of a job, as lists have it."""
    output: type
    """The TypedDict of the work's result."""
    progress: type
    """The TypedDict of its progress."""
    start: str
    """What starting does, in a sentence: "Mine a chain of proof-of-work blocks."."""
    title: str
    """What starting is called, for people."""
    noun: str
    """What one of them is called in sentences: "mining workflow"."""
    listed: str
    """What a list of them is called in results: "minings"."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`_meta` of the tools whose results a page may show."""


def workflow_id(names: ToolNames) -> Argument:
    """The argument that says which workflow is meant."""
    return Argument("workflow_id", {"type": "string"}, f"The workflow_id that {names.start} returned.", required=True)


def work_tools(service: LongWorkService, declared: WorkDeclaration) -> tuple[Tool, ...]:
    """The four tools of a work."""
    names = declared.names
    result = _result_type(service.work.result_key, declared)
    fresh = Argument(
        "fresh",
        {"type": "boolean"},
        "Whether to start anew even if the same call is running already, which it joins otherwise.",
        default=False,
    )

    async def start(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await service.start(call, arguments)

    async def get(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await service.get(call, arguments["workflow_id"])

    async def cancel(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await service.cancel(call, arguments["workflow_id"])

    async def newest(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {declared.listed: await service.list(call, arguments.get("limit"))}

    return (
        Tool(
            names.start,
            declared.title,
            f"{declared.start} Returns the {service.work.result_key} when it is done within the server's wait budget; "
            f'else status "running" with a workflow_id to pass to {names.get}.',
            (*declared.arguments, fresh),
            result,
            Hints(),
            start,
            starts_work=True,
            meta=declared.meta,
        ),
        Tool(
            names.get,
            _title(names.get),
            f"Ask how a {declared.noun} stands. Returns at once: the {service.work.result_key} when it is completed, "
            "else its progress and when to ask again.",
            (workflow_id(names),),
            result,
            READS,
            get,
            meta=declared.meta,
        ),
        Tool(
            names.cancel,
            _title(names.cancel),
            f"End a {declared.noun} that is no longer wanted. One that has ended already keeps its result.",
            (workflow_id(names),),
            result,
            Hints(destructive=True, idempotent=True),
            cancel,
        ),
        Tool(
            names.list,
            _title(names.list),
            f"List your recent {declared.noun}s, the newest first: finds a lost workflow_id again.",
            (Argument("limit", count_to(MAX_LISTED), "How many at most.", default=DEFAULT_LISTED),),
            _list_type(declared),
            READS,
            newest,
        ),
    )


def _result_type(key: str, declared: WorkDeclaration) -> type:
    fields = get_type_hints(WorkResult, include_extras=True)
    fields |= {"progress": NotRequired[declared.progress], key: NotRequired[declared.output]}
    return _typed_dict("Result", "The state of a workflow. Fields that don't apply to the status are absent.", fields)


def _list_type(declared: WorkDeclaration) -> type:
    fields = get_type_hints(ListedWorkflow, include_extras=True)
    job = {name: NotRequired[kind] for name, kind in get_type_hints(declared.job).items()}
    fields |= {**job, "progress": NotRequired[declared.progress]}
    listed: Any = _typed_dict("Listed", "A workflow as the list has it.", fields)
    return _typed_dict("List", "The caller's recent workflows, the newest first.", {declared.listed: list[listed]})


def _typed_dict(name: str, what: str, fields: dict[str, Any]) -> type:
    # A functional TypedDict, whose fields are known only here.
    kind = cast(type, TypedDict(name, fields))  # type: ignore[operator]
    kind.__doc__ = what
    return kind


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
