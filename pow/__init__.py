"""A proof-of-work miner: the smallest nonce of each block, on every core, with native kernels.

Import names from here (`from pow import scan`), never `import pow` by itself: that hides the builtin.
"""

from pow.errors import PowError
from pow.mining.chain import Block, Chain, verify_chain
from pow.mining.miner import mine_chain
from pow.scanning.backends import scan, supported_backends

__version__ = "0.1.0"
__all__ = ["Block", "Chain", "PowError", "mine_chain", "scan", "supported_backends", "verify_chain"]
