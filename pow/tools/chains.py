"""The tools for named chains: keep a workflow's chain under a name, and get it back."""

import json
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from pow.mining.chain import Chain, verify_chain
from pow.tools.chain_store import ChainStore, check_name
from pow.tools.mining import ChainDocument, MiningTools, flag, markdown_report


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

    def __init__(self, mining: MiningTools, chains: ChainStore) -> None:
        """
        Args:
            mining: what knows the caller's workflows.
            chains: where chains are kept.
        """
        self._mining = mining
        self._chains = chains

    async def save_chain(self, name: object, workflow_id: object, overwrite: object = None) -> SavedChain:
        """Keep the chain of a completed workflow under a name, if it verifies.

        Args:
            name: 1 to 64 letters, digits, dots, dashes and underscores.
            workflow_id: the workflow whose chain it is.
            overwrite: whether a chain that has the name already is to be replaced.

        Raises:
            InvalidArgument: the name isn't allowed, or `overwrite` is neither true nor false.
            EngineError, ChainStoreError: the engine or the store can't be reached.
        """
        checked = check_name(name)
        replace = flag("overwrite", overwrite)
        state = await self._mining.state(workflow_id)
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
        chain = Chain.from_dict(state.output)
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
