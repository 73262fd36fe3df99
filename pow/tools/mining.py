"""The miner's tools: what mining is called, takes and returns, and what agents are told of it."""

from collections.abc import Mapping

from pow.longwork.service import LongWorkService, ToolNames
from pow.mining.chain import DEFAULT_GENESIS, MAX_GENESIS_BYTES
from pow.mining.messages import ChainDocument, MiningJob, ProgressDocument
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork
from pow.settings import Settings
from pow.tools.declarations import Argument, Prompt, PromptArgument, Tool, count_to
from pow.tools.long_work import WorkDeclaration, work_tools
from pow.tools.queries import MiningQueries, query_tools

NAMES = ToolNames("start_mining", "get_mining_result", "cancel_mining", "list_minings")

MINING_APP_URI = "ui://pow-mcp/mining-app"
"""The page that shows a chain as it is mined."""

INSTRUCTIONS = """\
Mines chains of proof-of-work blocks. Call start_mining; every argument is optional. Quick work comes \
back inline with status "completed" and the chain. Longer work comes back with status "running": wait \
poll_after_seconds, then call get_mining_result with the workflow_id, and again until the status is \
"completed" or "failed". The work goes on between calls, and when the server restarts; cancel_mining ends it, \
list_minings finds a lost workflow_id again. One more unit of difficulty (leading zero bits) doubles the expected \
time, which estimate_mining tells beforehand. The same arguments always give the same chain. verify_chain checks \
one; save_chain keeps a completed one under a name, get_chain gives it back.\
"""

_DEMO = """\
Mine a demo chain of {blocks} blocks at difficulty {difficulty} with start_mining. If the status is "running", say how \
far it is, wait poll_after_seconds, and call get_mining_result until it is completed. Then show the blocks as a table, \
point out the leading zeros of a hash, and explain in two sentences why each block depends on the one before it.\
"""


def mining_work(pool: MinerPool, settings: Settings) -> MiningWork:
    """The work, with the settings' defaults and limits."""
    return MiningWork(
        pool,
        default_difficulty=settings.mining_difficulty,
        max_difficulty=settings.max_difficulty,
        default_blocks=settings.default_blocks,
        max_blocks=settings.max_blocks,
    )


def mining_tools(service: LongWorkService, work: MiningWork, settings: Settings) -> tuple[Tool, ...]:
    """The tools that start, follow, end, list, estimate and verify."""
    return (*work_tools(service, declaration(settings)), *query_tools(MiningQueries(service, work, settings)))


def declaration(settings: Settings) -> WorkDeclaration:
    """What the tools say of mining."""
    return WorkDeclaration(
        names=NAMES,
        arguments=(
            Argument(
                "difficulty",
                count_to(settings.max_difficulty),
                "Leading zero bits of each block's hash. One more doubles the expected time.",
                default=settings.mining_difficulty,
            ),
            Argument(
                "blocks", count_to(settings.max_blocks), "How many blocks to mine.", default=settings.default_blocks
            ),
            Argument(
                "genesis",
                {"type": "string"},
                f"Text that the first block links to, at most {MAX_GENESIS_BYTES} bytes of UTF-8; "
                "another text gives another chain.",
                default=DEFAULT_GENESIS,
            ),
        ),
        job=MiningJob,
        output=ChainDocument,
        progress=ProgressDocument,
        start="Mine a chain of proof-of-work blocks.",
        title="Start mining",
        noun="mining workflow",
        listed="minings",
        meta={"ui": {"resourceUri": MINING_APP_URI}},
    )


def demo_prompt(settings: Settings) -> Prompt:
    """The prompt that shows what the server does."""

    def text(arguments: Mapping[str, str | None]) -> str:
        difficulty = arguments.get("difficulty") or settings.mining_difficulty
        return _DEMO.format(blocks=settings.default_blocks, difficulty=difficulty)

    return Prompt(
        "mine_demo_chain",
        "Mine a demo chain",
        "Mine a short chain, follow its progress, and explain it.",
        (PromptArgument("difficulty", "Leading zero bits of each block's hash; the server's default if left out."),),
        text,
    )
