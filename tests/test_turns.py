"""Whose turn it is: the owner who has had the least, of theirs the workflow that has had the least; quick work soon."""

from collections import Counter

from pow.longwork.engines.turns import NEWCOMER_SECONDS, Ticket, Turns


def take_turns(turns: Turns[str], tickets: dict[str, Ticket[str]], rounds: int, seconds: float = 1.0) -> list[str]:
    """Who has so many turns, one after the other, each of so many seconds."""
    taken: list[str] = []
    for _ in range(rounds):
        item = turns.take()
        assert item is not None
        taken.append(item)
        turns.charge(tickets[item], seconds)
        turns.queue(tickets[item])
    return taken


def joined(turns: Turns[str], owners: dict[str, str | None]) -> dict[str, Ticket[str]]:
    return {item: turns.join(item, owner) for item, owner in owners.items()}


def test_nobody_has_a_turn_where_nobody_waits() -> None:
    turns: Turns[str] = Turns()
    assert turns.take() is None
    assert turns.take_newcomer() is None
    turns.join("a", None)
    assert (turns.take(), turns.take(), turns.waiting) == ("a", None, 0)


def test_workflows_of_one_owner_take_turns() -> None:
    turns: Turns[str] = Turns()
    tickets = joined(turns, {"a": None, "b": None, "c": None})
    assert take_turns(turns, tickets, 6) == ["a", "b", "c", "a", "b", "c"]


def test_owners_share_alike_however_many_workflows_they_have() -> None:
    turns: Turns[str] = Turns()
    tickets = joined(turns, {"only": "modest", **{f"{number}": "busy" for number in range(9)}})
    assert Counter(take_turns(turns, tickets, 100))["only"] == 50


def test_who_has_had_longer_turns_has_fewer() -> None:
    turns: Turns[str] = Turns()
    tickets = joined(turns, {"long": None, "short": None})
    had = Counter[str]()
    for _ in range(90):
        item = turns.take()
        assert item is not None
        had[item] += 1
        turns.charge(tickets[item], 2.0 if item == "long" else 1.0)
        turns.queue(tickets[item])
    assert abs(had["short"] - 2 * had["long"]) <= 2


def test_a_newcomer_waits_for_nobody_s_past_and_nobody_for_its() -> None:
    turns: Turns[str] = Turns()
    tickets = joined(turns, {"old": None, "older": None})
    take_turns(turns, tickets, 100)
    tickets["new"] = turns.join("new", None)
    # Soon, but not again and again until it has had as much as they.
    taken = take_turns(turns, tickets, 9)
    assert "new" in taken[:3]
    assert Counter(taken)["new"] <= 4


def test_an_owner_who_was_away_does_not_make_up_for_it() -> None:
    turns: Turns[str] = Turns()
    tickets = joined(turns, {"there": "a", "away": "b"})
    assert turns.take() == "there"
    assert turns.take() == "away"
    turns.queue(tickets["there"])
    take_turns(turns, tickets, 100)
    turns.queue(tickets["away"])
    assert Counter(take_turns(turns, tickets, 10))["away"] <= 6


def test_what_a_workflow_had_in_an_earlier_process_counts() -> None:
    turns: Turns[str] = Turns()
    tickets = {"tired": turns.join("tired", None, used=5.0), "fresh": turns.join("fresh", None)}
    assert take_turns(turns, tickets, 5) == ["fresh"] * 5


def test_the_newest_newcomer_is_served_first_where_newcomers_are() -> None:
    turns: Turns[str] = Turns()
    tickets = joined(turns, {"first": None, "second": None})
    assert turns.newcomers == 2
    assert turns.take_newcomer() == "second"
    assert turns.take_newcomer() == "first"
    for ticket in tickets.values():
        turns.charge(ticket, NEWCOMER_SECONDS)
        turns.queue(ticket)
    assert turns.newcomers == 0
    assert turns.take_newcomer() is None
    assert turns.waiting == 2


def test_who_was_taken_as_a_newcomer_gives_way_to_a_newer_one() -> None:
    turns: Turns[str] = Turns()
    ticket = turns.join("first", None)
    assert turns.take_newcomer() == "first"
    assert not turns.gives_way(ticket)
    newer = turns.join("second", None)
    assert turns.gives_way(ticket)
    assert turns.take_newcomer() == "second"
    assert not turns.gives_way(ticket)
    assert not turns.gives_way(newer)


def test_who_is_no_newcomer_any_more_gives_way_to_those_that_are() -> None:
    turns: Turns[str] = Turns()
    older = turns.join("older", None)
    newer = turns.join("newer", None)
    assert turns.take_newcomer() == "newer"
    assert not turns.gives_way(newer)
    turns.charge(newer, NEWCOMER_SECONDS)
    assert turns.gives_way(newer)
    assert turns.take() == "older"
    assert not turns.gives_way(newer)
    assert older.is_newcomer


def test_who_leaves_has_no_more_turns_and_is_no_longer_counted() -> None:
    turns: Turns[str] = Turns()
    tickets = joined(turns, {"a": "x", "b": "x", "c": "y"})
    turns.leave(tickets["a"])
    turns.leave(tickets["c"])
    assert (turns.waiting, turns.newcomers) == (1, 1)
    assert (turns.take(), turns.take(), turns.take_newcomer()) == ("b", None, None)
    turns.leave(tickets["b"])
    assert turns.join("again", "x").owner.members == 1
