"""The composition root: puts a work, an engine and the tools together, the same way for every host."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pow.errors import SettingsError
from pow.identity.callers import Identities
from pow.identity.graph import OnBehalfOf
from pow.longwork.call import CallContext
from pow.longwork.engine import Engine, HostedEngine
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.service import LongWorkService
from pow.longwork.work import AnyWork
from pow.mining.work import MiningWork
from pow.settings import SCHEDULER_SETTING, Settings
from pow.tools.chain_store import ChainStore
from pow.tools.chains import chain_tools
from pow.tools.declarations import Prompt, Tool
from pow.tools.long_work import WorkDeclaration, work_tools
from pow.tools.mining import INSTRUCTIONS, NAMES, demo_prompt, mining_tools
from pow.tools.whoami import whoami_tool


@dataclass(frozen=True, slots=True)
class House:
    """All that a host needs: a long work on an engine, its tools, and who calls them."""

    name: str
    title: str
    instructions: str
    service: LongWorkService
    identities: Identities
    tools: tuple[Tool, ...]
    prompts: tuple[Prompt, ...] = ()

    def tool(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def call(self, headers: Mapping[str, str], client: object = None) -> CallContext:
        """The context of a request with these headers, and with what the host gives for it."""
        return CallContext(caller=self.identities.caller_id(headers), headers=headers, client=client)


def hosted_engine(work: AnyWork, settings: Settings, state_dir: Path | None = None) -> HostedEngine:
    """An engine in this process: on the Durable Task Scheduler that the settings name, else an embedded one.

    Args:
        work: what its workflows do.
        settings: where the scheduler is, and how many workers share a workflow.
        state_dir: the folder of an embedded engine's journal; None keeps it in memory.

    Raises:
        SettingsError: the scheduler's address is none, or what it needs isn't installed.
    """
    if settings.scheduler_connection_string:
        return scheduler_engine(work, settings)
    return EmbeddedEngine(work, state_dir=state_dir, width=settings.mining_fan_out)


def scheduler_engine(work: AnyWork, settings: Settings) -> HostedEngine:
    """An engine on the Durable Task Scheduler that the settings name.

    Raises:
        SettingsError: they name none, its address is none, or what it needs isn't installed.
    """
    if not settings.scheduler_connection_string:
        raise SettingsError(
            f"setting {SCHEDULER_SETTING} must name the scheduler to take work from; "
            "without one, pow-mcp serve works by itself"
        )
    try:
        from pow.longwork.engines.durable_task import DurableTaskEngine
        from pow.longwork.engines.scheduler import SchedulerAddress
    except ImportError as error:
        raise SettingsError(
            f"setting {SCHEDULER_SETTING} names a scheduler, which needs more packages ({error}): "
            "pip install 'pow-mcp[scheduler]'"
        ) from error
    address = SchedulerAddress.parse(settings.scheduler_connection_string, settings.taskhub_name)
    return DurableTaskEngine(work, address, width=settings.mining_fan_out)


def house_of(
    work: AnyWork,
    declared: WorkDeclaration,
    engine: Engine,
    settings: Settings,
    *,
    name: str,
    title: str,
    instructions: str,
) -> House:
    """A house for any long work, with its four tools and whoami."""
    service = LongWorkService(work, engine, declared.names, settings.wait_budget_seconds, declared.noun)
    identities = Identities(OnBehalfOf.from_settings(settings))
    tools = (*work_tools(service, declared), whoami_tool(identities))
    return House(name, title, instructions, service, identities, tools)


def mining_house(work: MiningWork, engine: Engine, settings: Settings, chains: ChainStore) -> House:
    """The miner's house.

    Args:
        work: what `mining_work` made.
        engine: where its workflows run.
        settings: defaults, limits, and the budget of a wait.
        chains: where named chains are kept.
    """
    service = LongWorkService(work, engine, NAMES, settings.wait_budget_seconds)
    identities = Identities(OnBehalfOf.from_settings(settings))
    tools = (*mining_tools(service, work, settings), *chain_tools(service, chains), whoami_tool(identities))
    return House(
        "pow-mcp",
        "Proof-of-work miner",
        INSTRUCTIONS,
        service,
        identities,
        tools,
        (demo_prompt(settings),),
    )
