"""What can honestly be said of a search that has no memory: what was done, how fast, and the odds of what is left.

There is no percentage: however long a block has been searched, it still takes as long on average from
here. Every tool, task, notification and page says it by these functions.
"""

from functools import lru_cache
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from pow.mining.odds import quantile_hashes
from pow.mining.workflow import Progress
from pow.units import duration


class ProgressDocument(TypedDict):
    """How far a running workflow is. `odds` are those of the blocks that are left, from now on.

    The first mined blocks follow from their `nonces`, 256 at most.
    """

    blocks_done: int
    blocks_total: int
    hashes_tried: int
    hashes_per_second: NotRequired[int]
    expected_seconds_left: float
    odds: str
    nonces: NotRequired[list[int]]


def progress_document(progress: Progress, difficulty: int, fallback_rate: float) -> ProgressDocument:
    """The progress as tools return it.

    Args:
        progress: what the workflow has reported.
        difficulty: leading zero bits of each block's hash.
        fallback_rate: nonces a second to expect while the workflow has none of its own.
    """
    document: ProgressDocument = {
        "blocks_done": progress.blocks_done,
        "blocks_total": progress.blocks_total,
        "hashes_tried": progress.hashes,
        "expected_seconds_left": round(progress.expected_seconds_left(difficulty, fallback_rate), 1),
        "odds": odds(difficulty, progress.blocks_total - progress.blocks_done, progress.rate or fallback_rate),
    }
    if progress.rate is not None:
        document["hashes_per_second"] = round(progress.rate)
    if progress.nonces:
        document["nonces"] = list(progress.nonces)
    return document


def progress_sentence(progress: Progress, difficulty: int, fallback_rate: float) -> str:
    """The progress for people, in one line."""
    rate = progress.rate or fallback_rate
    left = progress.blocks_total - progress.blocks_done
    return (
        f"{progress.blocks_done} of {progress.blocks_total} blocks mined, {progress.hashes:,} hashes tried, "
        f"{rate / 1e6:.1f} million a second; done with odds of {odds(difficulty, left, rate)}"
    )


def odds(difficulty: int, blocks: int, rate: float) -> str:
    """By when so many blocks are mined, with even odds and nearly for sure: "50 % by 40.1 s, 95 % by 2.89 min"."""
    if blocks < 1:
        return "100 % by now"
    half, nearly = (quantile(chance, difficulty, blocks) / rate for chance in (0.5, 0.95))
    return f"50 % by {duration(half)}, 95 % by {duration(nearly)}"


@lru_cache(maxsize=4096)
def quantile(chance: float, difficulty: int, blocks: int) -> int:
    """`pow.mining.odds.quantile_hashes`, which takes some milliseconds for many blocks, remembered."""
    return quantile_hashes(chance, difficulty, blocks)
