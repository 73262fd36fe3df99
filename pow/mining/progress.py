"""What can honestly be said of a search that has no memory: what was done, how fast, and the odds of what is left.

There is no percentage: however long a block has been searched, it still takes as long on average from
here. Every tool, task, notification and page says it by these functions.
"""

from functools import lru_cache
from typing import NamedTuple

from pow.mining.messages import MiningReport, ProgressDocument
from pow.mining.odds import expected_seconds, quantile_hashes
from pow.units import duration


class Pace(NamedTuple):
    """How fast blocks are mined."""

    rate: float
    """Nonces a second."""
    block_seconds: float = 0.0
    """What each block costs beside hashing."""


def progress_document(report: MiningReport, difficulty: int, fallback: Pace) -> ProgressDocument:
    """The progress as tools return it.

    Args:
        report: what the workflow has reported.
        difficulty: leading zero bits of each block's hash.
        fallback: what to expect while the workflow has no rate of its own.
    """
    measured = _rate(report)
    pace = fallback._replace(rate=measured or fallback.rate)
    left = report["blocks_total"] - report["blocks_done"]
    expected = expected_seconds(difficulty, left, pace.rate) + left * pace.block_seconds
    document: ProgressDocument = {
        "blocks_done": report["blocks_done"],
        "blocks_total": report["blocks_total"],
        "hashes_tried": report["hashes"],
        "expected_seconds_left": round(expected, 1),
        "odds": odds(difficulty, left, pace),
    }
    if measured is not None:
        document["hashes_per_second"] = round(measured)
    if report["nonces"]:
        document["nonces"] = list(report["nonces"])
    return document


def progress_sentence(report: MiningReport, difficulty: int, fallback: Pace) -> str:
    """The progress for people, in one line."""
    pace = fallback._replace(rate=_rate(report) or fallback.rate)
    left = report["blocks_total"] - report["blocks_done"]
    return (
        f"{report['blocks_done']} of {report['blocks_total']} blocks mined, {report['hashes']:,} hashes tried, "
        f"{pace.rate / 1e6:.1f} million a second; done with odds of {odds(difficulty, left, pace)}"
    )


def reached_sentence(report: MiningReport) -> str:
    """What was done, for people, in one line."""
    done, total = report["blocks_done"], report["blocks_total"]
    block = f", and all nonces of block {done + 1} below {report['next_nonce']:,} tried" if done < total else ""
    return f"{done} of {total} blocks mined{block}; {report['hashes']:,} hashes in all"


def odds(difficulty: int, blocks: int, pace: Pace) -> str:
    """By when so many blocks are mined, with even odds and nearly for sure: "50 % by 40.1 s, 95 % by 2.89 min"."""
    if blocks < 1:
        return "100 % by now"
    half, nearly = (quantile_seconds(chance, difficulty, blocks, pace) for chance in (0.5, 0.95))
    return f"50 % by {duration(half)}, 95 % by {duration(nearly)}"


def quantile_seconds(chance: float, difficulty: int, blocks: int, pace: Pace) -> float:
    """Seconds that are enough for so many blocks, with at least that chance."""
    return _quantile(chance, difficulty, blocks) / pace.rate + blocks * pace.block_seconds


@lru_cache(maxsize=4096)
def _quantile(chance: float, difficulty: int, blocks: int) -> int:
    """`pow.mining.odds.quantile_hashes`, which takes some milliseconds for many blocks, remembered."""
    return quantile_hashes(chance, difficulty, blocks)


def _rate(report: MiningReport) -> float | None:
    """Nonces a second of a workflow's own; None before the first slice told of any."""
    return report["hashes"] / report["seconds"] if report["hashes"] and report["seconds"] > 0 else None
