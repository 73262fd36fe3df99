"""The embedded engine's activity: a slice in portions, each of which the journal keeps.

What a slice costs an engine beside its hashing (two turns' messages, a replay) is nothing once a second, and a third
of two cores a hundred times a second. So slices are longer the more workflows there are, while a crash
repeats no more than a portion of each.
"""

import time
from collections.abc import Callable

from pow.limits import NONCE_STOP
from pow.longwork.engines.journal import Journal
from pow.mining.pool import MinerPool
from pow.mining.workflow import Document, SliceReached, mine_slice

# What a crash repeats.
_PORTION_SECONDS = 1.0
# So many workflows at once have slices of the length that was asked for; ten times as many, ten times that.
_UNCROWDED = 2


def mine_journaled_slice(
    pool: MinerPool,
    journal: Journal,
    workflow_id: str,
    request: Document,
    on_portion: Callable[[SliceReached], object] = lambda reached: None,
) -> Document:
    """`mine_slice`, going on from where the journal ends; `on_portion` is told after each portion."""
    began = time.monotonic()
    portion, seconds = request, 0.0
    while not journal.is_finished(workflow_id):  # it may be cancelled at any time, even before its turn
        answer = journal.recorded_slice(workflow_id, portion)
        stopped = False
        if answer is None:
            length = min(request["seconds"], _PORTION_SECONDS)
            answer = mine_slice(pool, {**portion, "seconds": length}, owner=workflow_id)
            stopped = answer["seconds"] < length
            # One that was stopped before it tried anything isn't worth a line: it is to be mined again.
            if answer["next_nonce"] > portion["start"]:
                journal.record_slice(workflow_id, portion, answer)
        seconds += answer["seconds"]
        portion = {**portion, "start": answer["next_nonce"]}
        on_portion(SliceReached(request["index"], answer["next_nonce"], seconds))
        over = time.monotonic() - began >= request["seconds"] * max(1.0, pool.searches / _UNCROWDED)
        if answer["found"] or stopped or over or portion["start"] >= request.get("stop", NONCE_STOP):
            return {**answer, "seconds": seconds}
    return {"found": False, "next_nonce": portion["start"], "seconds": seconds}
