"""What is said of a search that has no memory: the odds from now on, and no percentage."""

from pow.mining.messages import MiningReport
from pow.mining.progress import Pace, odds, progress_document, progress_sentence, reached_sentence

FRESH: MiningReport = {
    "blocks_done": 0,
    "blocks_total": 4,
    "hashes": 0,
    "seconds": 0.0,
    "nonces": [],
    "next_nonce": 0,
}
UNDER_WAY: MiningReport = {
    "blocks_done": 1,
    "blocks_total": 4,
    "hashes": 2_000_000,
    "seconds": 2.0,
    "nonces": [7],
    "next_nonce": 1_999_992,
}


def test_the_odds_are_those_of_a_geometric_wait() -> None:
    # One block: by ln 2 and by ln 20 times the expected number of nonces.
    assert odds(20, 1, Pace(2.0**20)) == "50 % by 693 ms, 95 % by 3.00 s"
    assert odds(30, 1, Pace(2.0**20)) == "50 % by 11.8 min, 95 % by 51.1 min"


def test_many_blocks_lie_closer_to_their_expectation() -> None:
    assert odds(20, 100, Pace(2.0**20)) == "50 % by 1.66 min, 95 % by 1.95 min"


def test_when_nothing_is_left_it_is_done() -> None:
    assert odds(20, 0, Pace(1.0)) == "100 % by now"


def test_a_workflow_without_a_rate_of_its_own_is_told_of_by_the_pool_s() -> None:
    document = progress_document(FRESH, 20, Pace(2.0**20))
    assert document == {
        "blocks_done": 0,
        "blocks_total": 4,
        "hashes_tried": 0,
        "expected_seconds_left": 4.0,
        "odds": odds(20, 4, Pace(2.0**20)),
    }


def test_a_workflow_s_own_rate_counts_and_only_the_blocks_that_are_left() -> None:
    document = progress_document(UNDER_WAY, 20, Pace(1.0))
    assert (document["hashes_per_second"], document["expected_seconds_left"]) == (1_000_000, 3.1)
    assert document["odds"] == odds(20, 3, Pace(1e6))
    assert document["nonces"] == [7]


def test_what_was_mined_so_far_does_not_say_how_fast_the_rest_is() -> None:
    # As after the restart of a workflow that an older version began.
    document = progress_document({**UNDER_WAY, "seconds": 0.0}, 20, Pace(2.0**20))
    assert "hashes_per_second" not in document
    assert document["expected_seconds_left"] == 3.0


def test_a_chain_that_is_done_has_nothing_left() -> None:
    document = progress_document({**UNDER_WAY, "blocks_done": 4}, 20, Pace(1.0))
    assert (document["expected_seconds_left"], document["odds"]) == (0.0, "100 % by now")


def test_what_a_block_costs_beside_hashing_counts() -> None:
    assert odds(1, 1000, Pace(1e8, 0.025)) == "50 % by 25.0 s, 95 % by 25.0 s"
    document = progress_document({**FRESH, "blocks_total": 1000}, 1, Pace(1e8, 0.025))
    assert document["expected_seconds_left"] == 25.0


def test_what_was_reached_is_said_without_what_is_to_come() -> None:
    assert reached_sentence(UNDER_WAY) == (
        "1 of 4 blocks mined, and all nonces of block 2 below 1,999,992 tried; 2,000,000 hashes in all"
    )
    assert reached_sentence({**UNDER_WAY, "blocks_done": 4}) == "4 of 4 blocks mined; 2,000,000 hashes in all"


def test_the_sentence_says_the_same_as_the_document() -> None:
    sentence = progress_sentence(UNDER_WAY, 20, Pace(1.0))
    assert sentence == (
        "1 of 4 blocks mined, 2,000,000 hashes tried, 1.0 million a second; "
        f"done with odds of {progress_document(UNDER_WAY, 20, Pace(1.0))['odds']}"
    )
