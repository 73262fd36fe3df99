"""Other proof-of-work solvers that search SHA-256 digests over decimal nonces, as benchmarks run them.

`make bench-peers` installs them. Each is given a search whose answer is known, on one thread, and hashlib
checks the answer. What they hash differs somewhat:

- altcha, from PyPI, looks for the digest of one known number behind a salt, with either of its APIs. The
  salt is our own prefix here, so it hashes our bytes.
- @mcaptcha/pow-wasm, from npm, hashes a salt, the length of a phrase, the phrase, and nonces from 1 on,
  until the digest is high enough. Ours are as many bytes before the nonce, which has fewer digits there.
"""

import hashlib
import importlib
import importlib.metadata
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO

from benchmarks.comparison import Work
from benchmarks.scans import FIRST_NONCE, PREFIX

_NPM_FOLDER = Path(__file__).parents[1] / ".benchmarks" / "npm" / "node_modules" / "@mcaptcha" / "pow-wasm"
_NODE_SCRIPT = Path(__file__).parent / "pow_wasm.mjs"

# Some tenths of a second for Python.
_ALTCHA_NONCES = 250_000

# With the eight bytes of the phrase's length these are as long as PREFIX; together with the difficulty,
# which is how many nonces a search takes on average, they decide how many it takes.
_SALT = "0123456789ABCDEF" * 3
_PHRASE = "pow-mcp-0000"
_POW_WASM_DIFFICULTY = 1_000_000
_SCORE_BYTES = 16


class PeerMissing(Exception):
    """It isn't installed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A solver: its name with its version, and a search that asserts its answer."""

    name: str
    search: Work


@contextmanager
def altcha() -> Iterator[Peer]:
    """The solver of altcha's present API."""
    module, version = _altcha()
    answer, digest = _altcha_answer()
    parameters = module.ChallengeParameters(
        algorithm="SHA-256", nonce="", salt=PREFIX.hex(), cost=1, key_length=len(digest), key_prefix=digest.hex()
    )
    challenge = module.Challenge(parameters=parameters, signature=None)

    def search() -> int:
        found = module.solve_challenge(challenge, counter_start=FIRST_NONCE, counter_mode="string")
        assert (found.counter, found.derived_key) == (answer, digest.hex())
        return _ALTCHA_NONCES

    yield Peer(f"altcha {version}, solve_challenge", search)


@contextmanager
def altcha_v1() -> Iterator[Peer]:
    """The solver of altcha's first API, which does less beside hashing."""
    module, version = _altcha()
    answer, digest = _altcha_answer()

    def search() -> int:
        found = module.solve_challenge_v1(digest.hex(), PREFIX.decode(), "SHA-256", answer, FIRST_NONCE)
        assert found.number == answer
        return _ALTCHA_NONCES

    yield Peer(f"altcha {version}, solve_challenge_v1", search)


@contextmanager
def pow_wasm() -> Iterator[Peer]:
    """The WebAssembly module under Node, in a process that stays."""
    node = shutil.which("node")
    if node is None:
        raise PeerMissing("node is not installed")
    if not _NPM_FOLDER.is_dir():
        raise PeerMissing("@mcaptcha/pow-wasm is not installed: make bench-peers")
    version = json.loads((_NPM_FOLDER / "package.json").read_text("utf-8"))["version"]
    request = json.dumps({"salt": _SALT, "phrase": _PHRASE, "difficulty": _POW_WASM_DIFFICULTY}) + "\n"
    with subprocess.Popen(
        [node, str(_NODE_SCRIPT), str(_NPM_FOLDER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout
        yield Peer(f"@mcaptcha/pow-wasm {version}", lambda: _search_by_wasm(requests, answers, request))


PEERS: dict[str, Callable[[], AbstractContextManager[Peer]]] = {
    "altcha": altcha,
    "altcha-v1": altcha_v1,
    "pow-wasm": pow_wasm,
}
"""By name. Entering one raises PeerMissing when it isn't installed."""


def _altcha() -> tuple[ModuleType, str]:
    try:
        return importlib.import_module("altcha"), importlib.metadata.version("altcha")
    except ImportError:
        raise PeerMissing("altcha is not installed: make bench-peers") from None


def _altcha_answer() -> tuple[int, bytes]:
    """The last nonce that it will try, and the digest to look for."""
    answer = FIRST_NONCE + _ALTCHA_NONCES - 1
    return answer, hashlib.sha256(PREFIX + b"%d" % answer).digest()


def _search_by_wasm(requests: IO[str], answers: IO[str], request: str) -> int:
    requests.write(request)
    requests.flush()
    line = answers.readline()
    assert line, f"{_NODE_SCRIPT.name} has ended; its standard error says why"
    answer = json.loads(line)
    nonce = int(answer["nonce"])
    message = _SALT.encode() + struct.pack("<Q", len(_PHRASE)) + _PHRASE.encode() + b"%d" % nonce
    score = int.from_bytes(hashlib.sha256(message).digest()[:_SCORE_BYTES], "big")
    highest = 2 ** (8 * _SCORE_BYTES) - 1
    assert score == int(answer["result"])
    assert score >= highest - highest // _POW_WASM_DIFFICULTY
    return nonce
