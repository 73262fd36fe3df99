"""What a block is, its bytes, its check; a chain and its verification.

Block `index` (from 1) carries the smallest nonce n = 0, 1, 2, … for which
SHA-256("{index}:{previous_hash}:{n}") has at least `difficulty` leading zero bits. `previous_hash` is
the previous block's digest in upper-case hex; for block 1 it is the genesis text.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pow.errors import InvalidArgument, InvalidChain
from pow.limits import MAX_DIFFICULTY, MAX_NONCE
from pow.units import quote

# The records here, and in all modules that `from pow import …` imports, are named tuples and not dataclasses:
# importing those takes longer than all the rest of the package, and every cold start pays for it.

DEFAULT_GENESIS = "GENESIS"
MAX_GENESIS_BYTES = 64


def block_prefix(index: int, previous_hash: str) -> bytes:
    """The bytes that a block's nonce is appended to before hashing."""
    return f"{index}:{previous_hash}:".encode()


def block_digest(index: int, previous_hash: str, nonce: int) -> bytes:
    """The 32 bytes of SHA-256 over a block's preimage."""
    return hashlib.sha256(block_prefix(index, previous_hash) + b"%d" % nonce).digest()


def leading_zero_bits(digest: bytes) -> int:
    """How many zero bits a digest starts with, 0 to 8 * len(digest)."""
    return len(digest) * 8 - int.from_bytes(digest, "big").bit_length()


def check_genesis(value: object) -> str:
    """`value` itself, if a chain may start from it.

    Raises:
        InvalidArgument: it isn't text, is over 64 bytes of UTF-8, or has characters that don't print.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"genesis must be text, not {value!r}")
    if not value.isprintable():
        _check_characters(value)
    size = len(value.encode())
    if size > MAX_GENESIS_BYTES:
        raise InvalidArgument(
            f"genesis must be at most {MAX_GENESIS_BYTES} bytes of UTF-8, not {size}: {value[:32]!r}…"
        )
    return value


def _check_characters(genesis: str) -> None:
    # Imported here: most texts don't need it, and each import delays a cold start.
    import unicodedata

    for character in genesis:
        # Cc: control characters; Cs: lone surrogates, which have no UTF-8; Zl, Zp: line breaks.
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise InvalidArgument(
                f"genesis must not contain control characters or line breaks; it has "
                f"U+{ord(character):04X} in {genesis[:80]!a}"
            )


class Block(NamedTuple):
    """One mined block. `hash` is its digest as 64 upper-case hex digits."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which a block has no use for
    previous_hash: str
    nonce: int
    hash: str

    @classmethod
    def from_nonce(cls, index: int, previous_hash: str, nonce: int) -> "Block":
        """The block that a nonce makes, whatever its difficulty."""
        return cls(index, previous_hash, nonce, block_digest(index, previous_hash, nonce).hex().upper())

    @property
    def attempts(self) -> int:
        """How many nonces a search from 0 tries until this one."""
        return self.nonce + 1

    def to_dict(self) -> dict[str, Any]:
        """The block as the chain JSON has it."""
        return {
            "index": self.index,
            "previous_hash": self.previous_hash,
            "nonce": self.nonce,
            "hash": self.hash,
            "attempts": self.attempts,
        }

    @classmethod
    def from_dict(cls, document: object, where: str = "block") -> "Block":
        """Read a block of the chain JSON; `where` names its place in error messages.

        Raises:
            InvalidChain: a field is missing or of the wrong kind.
        """
        fields = _object(document, where)
        block = cls(
            index=_integer(fields, "index", where, MAX_NONCE),
            previous_hash=_text(fields, "previous_hash", where),
            nonce=_integer(fields, "nonce", where, MAX_NONCE),
            hash=_text(fields, "hash", where),
        )
        if "attempts" in fields and _integer(fields, "attempts", where, MAX_NONCE + 1) != block.attempts:
            raise InvalidChain(
                f"{where}.attempts is {fields['attempts']}, but the nonce {block.nonce} takes {block.attempts}"
            )
        return block


class Chain(NamedTuple):
    """A run of blocks that starts from a genesis text, all of one difficulty (leading zero bits)."""

    genesis: str
    difficulty: int
    blocks: tuple[Block, ...]

    def to_dict(self) -> dict[str, Any]:
        """The chain JSON: plain dicts, lists, strings and integers."""
        return {
            "genesis": self.genesis,
            "difficulty": self.difficulty,
            "blocks": [block.to_dict() for block in self.blocks],
        }

    @classmethod
    def from_dict(cls, document: object) -> "Chain":
        """Read the chain JSON. This checks its form, not its proof of work: see `verify_chain`.

        Raises:
            InvalidChain: a field is missing or of the wrong kind.
        """
        fields = _object(document, "chain")
        blocks = fields.get("blocks")
        if not isinstance(blocks, Sequence) or isinstance(blocks, str):
            raise InvalidChain(f"chain.blocks must be a list of blocks, not {_given(blocks)}")
        return cls(
            genesis=_text(fields, "genesis", "chain"),
            difficulty=_integer(fields, "difficulty", "chain", MAX_DIFFICULTY),
            blocks=tuple(Block.from_dict(block, f"blocks[{i}]") for i, block in enumerate(blocks)),
        )


FaultKind = Literal["bad_index", "broken_link", "hash_mismatch", "difficulty_not_met", "nonce_not_smallest"]

Search = Callable[[bytes, int, int, int], int | None]
"""(prefix, start, stop, difficulty) -> the first nonce that meets it; `pow.scan` is one."""


class Verification(NamedTuple):
    """What `verify_chain` found: true when the chain is right, else the first fault."""

    blocks: int
    fault: FaultKind | None = None
    block_index: int | None = None
    message: str = ""

    def __bool__(self) -> bool:
        return self.fault is None


def verify_chain(chain: Chain, *, search: Search | None = None) -> Verification:
    """Check a chain block by block, up to the first one that is wrong.

    Args:
        chain: the chain; one without blocks is right.
        search: given (`pow.scan`, say), each nonce is also proven to be the smallest, which takes as
            long as mining it did.
    """
    previous_hash = chain.genesis
    for position, block in enumerate(chain.blocks, start=1):
        fault = _block_fault(block, position, previous_hash, chain.difficulty, search)
        if fault is not None:
            kind, message = fault
            return Verification(len(chain.blocks), kind, position, f"block {position}: {message}")
        previous_hash = block.hash
    return Verification(len(chain.blocks))


def _block_fault(
    block: Block, position: int, previous_hash: str, difficulty: int, search: Search | None
) -> tuple[FaultKind, str] | None:
    if block.index != position:
        return "bad_index", f"its index is {block.index}, but its place in the chain is {position}"
    if block.previous_hash != previous_hash:
        source = "the genesis text" if position == 1 else f"block {position - 1}'s hash"
        return (
            "broken_link",
            f"its previous_hash is {quote(block.previous_hash)}, but {source} is {quote(previous_hash)}",
        )
    digest = block_digest(position, previous_hash, block.nonce)
    if block.hash != digest.hex().upper():
        return "hash_mismatch", f"its hash is {quote(block.hash)}, but its bytes hash to {digest.hex().upper()!r}"
    zero_bits = leading_zero_bits(digest)
    if zero_bits < difficulty:
        return "difficulty_not_met", f"its hash has {zero_bits} leading zero bits, but the difficulty is {difficulty}"
    if search is not None and block.nonce:
        smaller = search(block_prefix(position, previous_hash), 0, block.nonce, difficulty)
        if smaller is not None:
            return "nonce_not_smallest", f"its nonce is {block.nonce}, but {smaller} meets the difficulty too"
    return None


def _object(document: object, where: str) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise InvalidChain(f"{where} must be a JSON object, not {_given(document)}")
    return document


def _integer(fields: Mapping[str, Any], name: str, where: str, high: int) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise InvalidChain(f"{where}.{name} must be an integer from 0 to {high}, not {_given(value)}")
    return value


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidChain(f"{where}.{name} must be text, not {_given(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidChain(f"{where}.{name} must be text that has UTF-8, not {_given(value)}") from None
    return value


def _given(value: object) -> str:
    return "missing" if value is None else quote(value)
