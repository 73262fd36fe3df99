"""What a block's bytes are, what a chain's JSON must look like, and which wrong block is named first."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pow.errors import InvalidArgument, InvalidChain
from pow.limits import check_difficulty
from pow.mining.chain import (
    Block,
    Chain,
    Verification,
    block_digest,
    block_prefix,
    check_genesis,
    leading_zero_bits,
    verify_chain,
)
from pow.scanning.backends import scan

Document = dict[str, Any]

CHAINS: list[Document] = json.loads(Path(__file__).with_name("genesis_chains.json").read_text("utf-8"))["chains"]
CHAIN_IDS = [f"{chain['difficulty']}-{chain['genesis']}" for chain in CHAINS]
# Proving that each nonce is the smallest takes as long as mining; hashlib alone does these in a second.
QUICK = [chain for chain in CHAINS if chain["difficulty"] <= 16]

# 4 blocks of difficulty 8, whose hashes start with 10, 8, 9 and 11 zero bits.
EIGHT = Chain.from_dict(next(chain for chain in CHAINS if chain["difficulty"] == 8))


def with_block(chain: Chain, position: int, **changes: Any) -> Chain:
    """The chain with some fields of one block (from 1) overwritten."""
    blocks = list(chain.blocks)
    blocks[position - 1] = blocks[position - 1]._replace(**changes)
    return chain._replace(blocks=tuple(blocks))


def mined(genesis: str, difficulty: int, ranks: list[int]) -> Chain:
    """A chain whose blocks carry their smallest (rank 0), second smallest (rank 1), … nonce."""
    blocks: list[Block] = []
    for index, rank in enumerate(ranks, start=1):
        previous_hash = blocks[-1].hash if blocks else genesis
        nonce = -1
        for _ in range(rank + 1):
            nonce += 1
            while leading_zero_bits(block_digest(index, previous_hash, nonce)) < difficulty:
                nonce += 1
        blocks.append(Block.from_nonce(index, previous_hash, nonce))
    return Chain(genesis, difficulty, tuple(blocks))


# --- bytes and digests


def test_a_preimage_is_index_previous_hash_and_nonce_between_colons() -> None:
    assert block_prefix(1, "GENESIS") == b"1:GENESIS:"
    assert block_prefix(12, "AB" * 32) == b"12:" + b"AB" * 32 + b":"
    assert block_digest(1, "GENESIS", 251) == hashlib.sha256(b"1:GENESIS:251").digest()


def test_a_genesis_text_is_hashed_as_utf_8() -> None:
    assert block_prefix(1, "é中") == b"1:\xc3\xa9\xe4\xb8\xad:"


@pytest.mark.parametrize("nonce", [0, 9, 10, 2**32, 10**19, 2**64 - 1])
def test_a_nonce_is_hashed_in_decimal_without_padding(nonce: int) -> None:
    assert block_digest(7, "X", nonce) == hashlib.sha256(("7:X:" + str(nonce)).encode()).digest()


@pytest.mark.parametrize("rest", [0, 1], ids=["zeros-follow", "ones-follow"])
def test_leading_zero_bits_are_counted_up_to_all_of_them(rest: int) -> None:
    for bits in range(256):
        first_one = 1 << (255 - bits)
        digest = (first_one | rest * (first_one - 1)).to_bytes(32, "big")
        assert leading_zero_bits(digest) == bits
    assert leading_zero_bits(bytes(32)) == 256


def test_leading_zero_bits_of_other_lengths_are_counted_too() -> None:
    assert leading_zero_bits(b"") == 0
    assert leading_zero_bits(b"\x00") == 8
    assert leading_zero_bits(b"\x00\x01") == 15


def test_a_block_from_a_nonce_has_its_hash_in_upper_case_hex_and_one_attempt_more() -> None:
    block = Block.from_nonce(1, "GENESIS", 251)
    assert block.hash == hashlib.sha256(b"1:GENESIS:251").hexdigest().upper()
    assert block.attempts == 252


# --- arguments


@pytest.mark.parametrize("difficulty", [0, 1, 255, 256])
def test_difficulties_that_sha_256_has_are_accepted(difficulty: int) -> None:
    assert check_difficulty(difficulty) == difficulty


@pytest.mark.parametrize("difficulty", [-1, 257, True, 8.0, "8", None], ids=repr)
def test_other_difficulties_are_refused(difficulty: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_difficulty(difficulty)
    assert str(caught.value) == f"difficulty must be an integer from 0 to 256, not {difficulty!r}"


@pytest.mark.parametrize("genesis", ["", "GENESIS", "x" * 64, "é" * 32, "😀" * 16, "a b:c\u00a0d", "\u200d"], ids=ascii)
def test_a_genesis_of_at_most_64_bytes_of_printing_text_is_accepted(genesis: str) -> None:
    assert check_genesis(genesis) is genesis


@pytest.mark.parametrize(
    ("genesis", "size"), [("x" * 65, 65), ("x" * 63 + "é", 65), ("é" * 33, 66), ("😀" * 17, 68), ("x" * 10**6, 10**6)]
)
def test_a_genesis_over_64_bytes_of_utf_8_is_refused(genesis: str, size: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_genesis(genesis)
    assert str(caught.value) == f"genesis must be at most 64 bytes of UTF-8, not {size}: {genesis[:32]!r}…"


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\0", "U+0000"),
        ("\t", "U+0009"),
        ("\n", "U+000A"),
        ("\r", "U+000D"),
        ("\x1b", "U+001B"),
        ("\x7f", "U+007F"),
        ("\x85", "U+0085"),
        ("\x9f", "U+009F"),
        ("\u2028", "U+2028"),
        ("\u2029", "U+2029"),
        ("\ud800", "U+D800"),
        ("\udfff", "U+DFFF"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "GENESIS{}", "{}GENESIS", "GEN{}ESIS"])
def test_a_genesis_with_control_characters_or_line_breaks_is_refused(character: str, name: str, around: str) -> None:
    genesis = around.format(character)
    with pytest.raises(InvalidArgument) as caught:
        check_genesis(genesis)
    sentence = f"genesis must not contain control characters or line breaks; it has {name} in {genesis!a}"
    assert str(caught.value) == sentence
    # A message that can't be sent or would break its line helps nobody.
    assert str(caught.value).isascii()


@pytest.mark.parametrize("genesis", [None, 7, b"GENESIS", ["GENESIS"]], ids=repr)
def test_a_genesis_that_is_not_text_is_refused(genesis: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_genesis(genesis)
    assert str(caught.value) == f"genesis must be text, not {genesis!r}"


# --- the chain JSON


@pytest.mark.parametrize("document", CHAINS, ids=CHAIN_IDS)
def test_a_chain_survives_the_way_through_its_json(document: Document) -> None:
    chain = Chain.from_dict(document)
    assert chain.to_dict() == document
    assert Chain.from_dict(json.loads(json.dumps(chain.to_dict()))) == chain


def test_a_chain_without_blocks_survives_too() -> None:
    document = {"genesis": "", "difficulty": 256, "blocks": []}
    assert Chain.from_dict(document).to_dict() == document


def test_attempts_may_be_left_out_and_fields_of_others_are_ignored() -> None:
    document = EIGHT.to_dict() | {"mined_by": "somebody"}
    for block in document["blocks"]:
        del block["attempts"]
        block["time"] = 12
    assert Chain.from_dict(document) == EIGHT


def set_in(document: Document, path: Sequence[str | int], value: object) -> None:
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value


def in_block(position: int, field: str) -> Sequence[str | int]:
    return ["blocks", position, field]


NOT_INTEGERS: list[tuple[object, str]] = [(None, "missing"), (True, "True"), (8.0, "8.0"), ("8", "'8'"), ([], "[]")]
NOT_TEXT: list[tuple[object, str]] = [(None, "missing"), (7, "7"), ([], "[]"), (b"x", "b'x'")]
FORM_ERRORS: list[tuple[Sequence[str | int], object, str]] = [
    *(
        (["difficulty"], value, f"chain.difficulty must be an integer from 0 to 256, not {got}")
        for value, got in NOT_INTEGERS
    ),
    (["difficulty"], -1, "chain.difficulty must be an integer from 0 to 256, not -1"),
    (["difficulty"], 257, "chain.difficulty must be an integer from 0 to 256, not 257"),
    *((["genesis"], value, f"chain.genesis must be text, not {got}") for value, got in NOT_TEXT),
    (["genesis"], "a\ud800", "chain.genesis must be text that has UTF-8, not 'a\\ud800'"),
    *((["blocks"], value, f"chain.blocks must be a list of blocks, not {got}") for value, got in NOT_TEXT[:2]),
    (["blocks"], "abc", "chain.blocks must be a list of blocks, not 'abc'"),
    (["blocks"], {}, "chain.blocks must be a list of blocks, not {}"),
    (["blocks", 1], 7, "blocks[1] must be a JSON object, not 7"),
    (["blocks", 1], [], "blocks[1] must be a JSON object, not []"),
    *(
        (in_block(2, name), value, f"blocks[2].{name} must be an integer from 0 to {high}, not {got}")
        for name, high in (("index", 2**64 - 1), ("nonce", 2**64 - 1), ("attempts", 2**64))
        for value, got in [*NOT_INTEGERS, (-1, "-1"), (high + 1, str(high + 1))]
    ),
    *(
        (in_block(3, name), value, f"blocks[3].{name} must be text, not {got}")
        for name in ("previous_hash", "hash")
        for value, got in NOT_TEXT
    ),
    (["blocks", 3, "hash"], "\udfff", "blocks[3].hash must be text that has UTF-8, not '\\udfff'"),
    (["blocks", 0, "attempts"], 251, "blocks[0].attempts is 251, but the nonce 251 takes 252"),
    (["genesis"], [1] * 99, f"chain.genesis must be text, not {str([1] * 99)[:80]}…"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), FORM_ERRORS)
def test_a_document_of_another_form_is_refused_with_the_place(
    path: Sequence[str | int], value: object, sentence: str
) -> None:
    document = EIGHT.to_dict()
    set_in(document, path, value)
    with pytest.raises(InvalidChain) as caught:
        Chain.from_dict(document)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("field", ["genesis", "difficulty", "blocks"])
def test_a_chain_lacking_a_field_is_refused(field: str) -> None:
    document = EIGHT.to_dict()
    del document[field]
    with pytest.raises(InvalidChain, match=rf"^chain\.{field} must be .*, not missing$"):
        Chain.from_dict(document)


@pytest.mark.parametrize("field", ["index", "previous_hash", "nonce", "hash"])
def test_a_block_lacking_a_field_is_refused(field: str) -> None:
    document = EIGHT.blocks[0].to_dict()
    del document[field]
    with pytest.raises(InvalidChain, match=rf"^block\.{field} must be .*, not missing$"):
        Block.from_dict(document)


@pytest.mark.parametrize(("document", "got"), [([], "[]"), ("{}", "'{}'"), (7, "7"), (None, "missing")])
def test_a_document_that_is_no_object_is_refused(document: object, got: str) -> None:
    with pytest.raises(InvalidChain) as caught:
        Chain.from_dict(document)
    assert str(caught.value) == f"chain must be a JSON object, not {got}"


def test_what_strangers_put_into_a_chain_reaches_no_terminal_unescaped() -> None:
    hostile = "\x1b[31m\n" * 100
    for block in (Block(1, "GENESIS", 0, hostile), Block(1, hostile, 0, "00")):
        message = verify_chain(Chain("GENESIS", 1, (block,))).message
        assert message.isprintable()
        assert len(message) < 300


def test_the_last_64_bit_nonce_is_a_nonce() -> None:
    block = Block.from_nonce(1, "GENESIS", 2**64 - 1)
    assert Block.from_dict(block.to_dict()) == block
    assert block.to_dict()["attempts"] == 2**64


# --- verification


@pytest.mark.parametrize("document", CHAINS, ids=CHAIN_IDS)
def test_the_chains_of_another_implementation_are_right(document: Document) -> None:
    verification = verify_chain(Chain.from_dict(document))
    assert verification
    assert verification == Verification(blocks=len(document["blocks"]))


@pytest.mark.parametrize("document", QUICK, ids=[f"{c['difficulty']}-{c['genesis']}" for c in QUICK])
def test_the_nonces_of_another_implementation_are_the_smallest(document: Document) -> None:
    assert verify_chain(Chain.from_dict(document), search=scan)


def test_a_chain_without_blocks_is_right() -> None:
    assert verify_chain(Chain("GENESIS", 256, ()), search=scan)


FAULTS: list[tuple[str, Callable[[], Chain], int, str]] = [
    (
        "bad_index",
        lambda: with_block(EIGHT, 3, index=4),
        3,
        "block 3: its index is 4, but its place in the chain is 3",
    ),
    (
        "bad_index",
        lambda: with_block(EIGHT, 1, index=0),
        1,
        "block 1: its index is 0, but its place in the chain is 1",
    ),
    (
        "broken_link",
        lambda: EIGHT._replace(genesis="OTHER"),
        1,
        "block 1: its previous_hash is 'GENESIS', but the genesis text is 'OTHER'",
    ),
    (
        "broken_link",
        lambda: with_block(EIGHT, 4, previous_hash=EIGHT.blocks[0].hash),
        4,
        f"block 4: its previous_hash is {EIGHT.blocks[0].hash!r}, but block 3's hash is {EIGHT.blocks[2].hash!r}",
    ),
    (
        "hash_mismatch",
        lambda: with_block(EIGHT, 1, nonce=252),
        1,
        f"block 1: its hash is {EIGHT.blocks[0].hash!r}, "
        f"but its bytes hash to {hashlib.sha256(b'1:GENESIS:252').hexdigest().upper()!r}",
    ),
    (
        "hash_mismatch",
        lambda: with_block(EIGHT, 4, hash=EIGHT.blocks[3].hash.lower()),
        4,
        f"block 4: its hash is {EIGHT.blocks[3].hash.lower()!r}, but its bytes hash to {EIGHT.blocks[3].hash!r}",
    ),
    (
        "difficulty_not_met",
        lambda: EIGHT._replace(difficulty=9),
        2,
        "block 2: its hash has 8 leading zero bits, but the difficulty is 9",
    ),
    (
        "difficulty_not_met",
        lambda: EIGHT._replace(difficulty=256),
        1,
        "block 1: its hash has 10 leading zero bits, but the difficulty is 256",
    ),
]


@pytest.mark.parametrize(("kind", "make", "position", "message"), FAULTS)
@pytest.mark.parametrize("search", [None, scan], ids=["quick", "search"])
def test_a_fault_is_told_with_its_block(
    kind: Any, make: Callable[[], Chain], position: int, message: str, search: Any
) -> None:
    verification = verify_chain(make(), search=search)
    assert not verification
    assert verification == Verification(blocks=4, fault=kind, block_index=position, message=message)


def test_a_nonce_that_is_not_the_smallest_is_a_fault_only_when_searched_for() -> None:
    chain = mined("GENESIS", 8, [0, 0, 1, 0])
    assert verify_chain(chain)
    smaller = mined("GENESIS", 8, [0, 0, 0]).blocks[2].nonce
    assert verify_chain(chain, search=scan) == Verification(
        blocks=4,
        fault="nonce_not_smallest",
        block_index=3,
        message=f"block 3: its nonce is {chain.blocks[2].nonce}, but {smaller} meets the difficulty too",
    )


def test_the_first_of_several_wrong_blocks_is_named() -> None:
    late_nonces = mined("GENESIS", 8, [0, 2, 0, 1])
    assert verify_chain(late_nonces, search=scan).block_index == 2
    two_kinds = with_block(with_block(EIGHT, 3, hash="0" * 64), 2, index=9)
    assert (verify_chain(two_kinds).fault, verify_chain(two_kinds).block_index) == ("bad_index", 2)
    other_way_round = with_block(with_block(EIGHT, 2, hash="0" * 64), 3, index=9)
    assert (verify_chain(other_way_round).fault, verify_chain(other_way_round).block_index) == ("hash_mismatch", 2)


def test_a_search_is_asked_for_the_nonces_below_each_block_and_not_for_an_empty_range() -> None:
    asked: list[tuple[bytes, int, int, int]] = []

    def search(prefix: bytes, start: int, stop: int, difficulty: int) -> int | None:
        asked.append((prefix, start, stop, difficulty))
        return scan(prefix, start, stop, difficulty)

    chain = Chain.from_dict(CHAINS[0])
    assert [block.nonce for block in chain.blocks] == [1, 0, 1, 0]
    assert verify_chain(chain, search=search)
    assert asked == [(b"1:GENESIS:", 0, 1, 1), (f"3:{chain.blocks[1].hash}:".encode(), 0, 1, 1)]
