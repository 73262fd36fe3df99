"""The tools for named chains: keep a workflow's chain under a name, and get it back."""

import json
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # schemas are made of these: typing's own only from Python 3.12 on

from pow.longwork.call import CallContext
from pow.longwork.service import LongWorkService
from pow.mining.chain import Chain, verify_chain
from pow.mining.messages import ChainDocument
from pow.mining.work import markdown_report, mined_chain
from pow.tools.chain_store import ChainStore, check_name
from pow.tools.declarations import READS, Argument, Hints, Tool
from pow.tools.long_work import workflow_id
from pow.units import flag


class SavedChain(TypedDict):
    """What came of saving a chain. Only `saved` means that it is kept."""

    status: Literal["saved", "exists", "running", "failed", "not_found"]
    name: str
    workflow_id: str
    result: NotRequired[str]
    error: NotRequired[str]


class NamedChain(TypedDict):
    """A chain that was saved under a name."""

    status: Literal["found", "not_found", "failed"]
    name: str
    result: NotRequired[str]
    chain: NotRequired[ChainDocument]
    error: NotRequired[str]


class ChainTools:
    """What the tools do, on any engine and any store."""

    def __init__(self, service: LongWorkService, chains: ChainStore) -> None:
        """
        Args:
            service: knows the caller's workflows.
            chains: where chains are kept.
        """
        self._service = service
        self._chains = chains

    async def save_chain(
        self, call: CallContext, name: object, workflow_id: object, overwrite: object = None
    ) -> SavedChain:
        """Keep the chain of a completed workflow under a name, if it verifies.

        Args:
            call: whose workflow it is.
            name: 1 to 64 letters, digits, dots, dashes and underscores.
            workflow_id: the workflow whose chain it is.
            overwrite: whether a chain that has the name already is to be replaced.

        Raises:
            InvalidArgument: the name isn't allowed, or `overwrite` is neither true nor false.
            EngineError, ChainStoreError: the engine or the store can't be reached.
        """
        checked = check_name(name)
        replace = flag("overwrite", overwrite)
        state = await self._service.state(call, workflow_id)
        known_as = str(workflow_id) if state is None else state.workflow_id

        def result(status: Literal["saved", "exists", "running", "failed", "not_found"], error: str) -> SavedChain:
            return {"status": status, "name": checked, "workflow_id": known_as, "error": error}

        if state is None:
            return result(
                "not_found", "There is no workflow with this id on this server; list_minings has the recent ones."
            )
        if not state.ended:
            return result(
                "running", "Its chain is not complete yet: save it when get_mining_result says that it is completed."
            )
        if state.status != "completed":
            return result(
                "failed", f"The workflow has no chain: {state.error or 'it was cancelled before it was done'}."
            )
        assert state.output is not None, "a completed workflow has an output"
        chain = mined_chain(self._service.work.restore(state.output))
        verification = verify_chain(chain)
        if not verification:
            return result("failed", f"The chain does not verify, so it was not saved: {verification.message}.")
        document = json.dumps(chain.to_dict(), ensure_ascii=False).encode()
        if not await self._chains.save(checked, document, overwrite=replace):
            return result(
                "exists",
                "Another chain has this name already: choose another one, or pass overwrite true to replace it.",
            )
        report = f"Saved as `{checked}`. {markdown_report(chain)}"
        return {"status": "saved", "name": checked, "workflow_id": known_as, "result": report}

    async def get_chain(self, name: object) -> NamedChain:
        """The chain that was saved under a name; `failed` when what is kept there is none any more.

        Raises:
            InvalidArgument: no chain can have that name.
            ChainStoreError: the store can't be reached.
        """
        checked = check_name(name)
        document = await self._chains.load(checked)
        if document is None:
            sentence = "No chain has this name. save_chain keeps the chain of a completed workflow under one."
            return {"status": "not_found", "name": checked, "error": sentence}
        try:
            chain = Chain.from_dict(json.loads(document))
            fault = verify_chain(chain).message
        except (ValueError, RecursionError) as error:  # InvalidChain is a ValueError; JSON may be nested too deeply
            fault = str(error)
        if fault:
            return {"status": "failed", "name": checked, "error": f"What is kept under this name is no chain: {fault}."}
        return {
            "status": "found",
            "name": checked,
            "result": markdown_report(chain),
            "chain": chain.to_dict(),  # type: ignore[typeddict-item]
        }


def chain_tools(service: LongWorkService, store: ChainStore) -> tuple[Tool, Tool]:
    """The tools save_chain and get_chain."""
    chains = ChainTools(service, store)
    name = Argument(
        "name",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "The chain's name: 1 to 64 letters, digits, dots, dashes and underscores.",
        required=True,
    )
    overwrite = Argument(
        "overwrite", {"type": "boolean"}, "Whether to replace a chain that has the name already.", default=False
    )

    async def save(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await chains.save_chain(call, arguments["name"], arguments["workflow_id"], arguments.get("overwrite"))

    async def get(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await chains.get_chain(arguments["name"])

    return (
        Tool(
            "save_chain",
            "Save chain",
            "Keep the chain of a completed workflow under a name, for get_chain.",
            (name, workflow_id(service.names), overwrite),
            SavedChain,
            Hints(destructive=True, idempotent=True),
            save,
        ),
        Tool(
            "get_chain",
            "Get chain",
            "Get a chain that save_chain has kept under a name.",
            (name,),
            NamedChain,
            READS,
            get,
        ),
    )
