"""Mining's messages as versions before this one wrote them, read as this one has them.

Journals, histories and states of workflows outlive the version that wrote them. What this version writes
is read here, too: each function takes either.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pow.errors import InvalidChain
from pow.limits import NONCE_STOP, check_difficulty
from pow.mining.chain import Block, Chain, check_genesis
from pow.mining.messages import MiningJob, MiningReport, MiningState, SliceAnswer


def job(document: Mapping[str, object]) -> MiningJob:
    """A job, alone or as part of a state.

    Raises:
        ValueError, KeyError: it isn't one that could have been accepted.
    """
    blocks = document["blocks"]
    if not isinstance(blocks, int):  # a chain has a list there
        raise ValueError(f"blocks must be a number, not {type(blocks).__name__}")
    return {
        "difficulty": check_difficulty(cast(int, document["difficulty"])),
        "blocks": blocks,
        "genesis": check_genesis(document["genesis"]),
    }


def state(document: Mapping[str, object]) -> MiningState:
    """A state, the first version's input of an orchestration, or its output: a chain.

    Raises:
        ValueError, KeyError, TypeError: it is none of these.
    """
    if isinstance(document.get("blocks"), Sequence):
        return _state_of_chain(document)
    if "tried" in document:
        return cast(MiningState, document)
    given = job(document)
    fields: Mapping[str, Any] = document
    nonces = list(fields.get("nonces", ()))
    return {
        **given,
        "nonces": nonces,
        "previous_hash": _last_hash(given["genesis"], nonces),
        "tried": _tried(fields.get("next_nonce", 0), fields.get("gaps", ())),
        "hit": fields.get("hit"),
        "rate": fields.get("rate"),
        "hashes": fields.get("hashes", 0),
        "seconds": fields.get("seconds", 0.0),
    }


def report(document: Mapping[str, object]) -> MiningReport:
    """A report: the first versions' had no nonces, or not the one that was reached."""
    return cast(MiningReport, {"nonces": [], "next_nonce": 0, **document})


def found(answer: SliceAnswer) -> bool:
    """Whether a slice has found a nonce; the first version's answers say so, and have no nonce."""
    return answer.get("nonce") is not None or bool(cast(Mapping[str, object], answer).get("found"))


def _state_of_chain(document: Mapping[str, object]) -> MiningState:
    try:
        chain = Chain.from_dict(document)
    except InvalidChain as error:
        raise ValueError(f"what was kept as a chain is none: {error}") from error
    hashes = sum(block.attempts for block in chain.blocks)
    return {
        "difficulty": chain.difficulty,
        "blocks": len(chain.blocks),
        "genesis": chain.genesis,
        "nonces": [block.nonce for block in chain.blocks],
        "previous_hash": chain.blocks[-1].hash if chain.blocks else chain.genesis,
        "tried": [],
        "hit": None,
        "rate": None,
        "hashes": hashes,
        "seconds": 0.0,
    }


def _last_hash(genesis: str, nonces: Sequence[int]) -> str:
    previous_hash = genesis
    for index, nonce in enumerate(nonces, start=1):
        previous_hash = Block.from_nonce(index, previous_hash, nonce).hash
    return previous_hash


def _tried(next_nonce: int, gaps: Sequence[Sequence[int]]) -> list[list[int]]:
    """What was tried below `next_nonce`, which is all but the gaps; two gaps that touch have an empty range between."""
    tried: list[list[int]] = []
    start = 0
    for gap_start, gap_stop in [*gaps, (next_nonce, NONCE_STOP)]:
        if gap_start > start or (tried and gap_start == start):
            tried.append([start, gap_start])
        start = gap_stop
    return tried
