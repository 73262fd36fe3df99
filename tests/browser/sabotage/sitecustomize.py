"""Makes a server whose miner breaks on the genesis text FAIL: Python runs this at its start, from PYTHONPATH.

No argument that the tools let through makes a workflow fail, so the failure is put where a real one
would come from, and everything above it is real.
"""

from pow.longwork.work import Control
from pow.mining.messages import SliceAnswer, SliceRequest
from pow.mining.work import MiningWork

run = MiningWork.run


def run_or_fail(self: MiningWork, request: SliceRequest, control: Control[SliceAnswer]) -> SliceAnswer:
    """A slice, which a kernel may fail under."""
    if request["previous_hash"] == "FAIL":
        raise RuntimeError("the kernel gave a wrong answer")
    return run(self, request, control)


MiningWork.run = run_or_fail  # type: ignore[method-assign]
