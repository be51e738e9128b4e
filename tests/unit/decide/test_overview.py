"""A saga's row, folded without its definition, says what the history says that was folded with it."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts.errors import DefinitionError
from antiphon.contracts.payloads import Operation, Record
from antiphon.coordinator.decision.facts import Operated
from antiphon.coordinator.decision.history import History, is_tired
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.views.summary import Overview, read_told, tell, unread
from tests.support.trip import BookRoom, BookSeat, TripAsked
from tests.unit.decide.life import KEY, Life
from tests.unit.decide.walk import Walk, causes_of, folded, traveller, under_way

SEED = random.randrange(10**9)
WALKS = 150
MOVES_MAX = 40


def assert_same(row: Overview, history: History) -> None:
    """The row says what the history says, as soon as the journal shows it."""
    ended = history.end is not None  # what has ended waits for nobody
    stuck = {name for name in history.marked if not ended and is_tired(history, history.steps[name])}
    fault, paused = ("", "") if ended else (history.fault, history.paused)
    shown = [row.state, row.fault, set(row.stuck), row.paused, row.definition]
    known = [history.state, fault, stuck, paused, history.definition.label]
    assert shown == known
    assert under_way(history) == set(row.steps)
    assert row.started_ns == history.started_ns
    if history.turned:
        unsaid = ("a time was up", "it was turned while it stood still")
        assert row.reason in unsaid or (row.reason and history.turned.startswith(row.reason))


def shows(life: Life) -> bool:
    """Whether the journal shows all that the history knows: a saga that was turned while it stood still has written
    nothing of the way back yet."""
    history = life.history
    wrote = any(".undo." in message.subject and "settle" not in str(message.data) for message in life.journal)
    return history.end is not None or not history.turned or wrote


@pytest.mark.parametrize("number", range(10))
def test_the_row_says_what_the_history_says_at_every_point_of_any_life(number: int) -> None:
    for walk_number in range(WALKS // 10):
        compare(SEED + 1000 * number + walk_number)


@pytest.mark.parametrize("seed", [66, 616])
def test_a_close_is_out_while_further_attempts_are_sent(seed: int) -> None:
    compare(seed)


def compare(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(MOVES_MAX):
        if shows(walk.life):
            try:
                assert_same(folded(walk.life), walk.life.history)
            except AssertionError as error:
                error.add_note(f"seed {seed}")
                raise
        if walk.life.history.end is not None:
            break
        walk.move()


def test_what_was_read_before_changes_nothing_when_it_is_read_again() -> None:
    walk, dice = Walk(SEED), random.Random(SEED)
    row = unread(KEY)
    for _ in range(MOVES_MAX):
        walk.move()
        causes = causes_of(walk.life)
        first, last = sorted(dice.randrange(len(walk.life.journal) + 1) for _ in range(2))
        again = walk.life.journal[first:last]
        for message in [*walk.life.journal, *again]:
            told = read_told(message)
            assert told is not None
            row = tell(row, told, causes.get(told.cause_sequence))
    assert row == folded(walk.life), f"seed {SEED}"


# --- keys -------------------------------------------------------------------------------------------------------------


def keyed(keys: Any) -> Saga[TripAsked]:
    saga = Saga(TripAsked, name="trip", version=1, deadline=timedelta(hours=1), keys=keys)

    @saga.step(needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)

    @saga.step(after=book_room, needs_no_compensation=True)
    def book_seat(s: State[TripAsked]) -> BookSeat:
        return BookSeat(traveller=s.start.traveller)

    return saga


def test_keys_travel_in_the_first_entry_and_a_saga_without_them_carries_none() -> None:
    life, bare = Life(keyed(traveller)), Life(keyed(None))
    for each in (life, bare):
        each.start()
        each.answer("book_room")
    assert [b'"keys"' in message.data for message in life.journal] == [True, False]
    assert [b'"keys"' in message.data for message in bare.journal] == [False, False]
    assert folded(life).keys == {"traveller": "Ada", "nights": "2"}


def test_keys_change_no_shape_so_that_sagas_in_flight_keep_their_definition() -> None:
    assert keyed(traveller).definition.label == keyed(None).definition.label


def too_many(start: TripAsked) -> dict[str, str]:
    return {f"key-{number}": "x" for number in range(9)}


def too_long(start: TripAsked) -> dict[str, str]:
    return {"key": "x" * 201}


def no_token(start: TripAsked) -> dict[str, str]:
    return {"a key": "x"}


def no_dict(start: TripAsked) -> dict[str, str]:
    return [start.traveller]  # type: ignore[return-value] # pyright: ignore


def no_text(start: TripAsked) -> dict[str, str]:
    return {"nights": start.nights}  # type: ignore[dict-item] # pyright: ignore


@pytest.mark.parametrize("keys", [too_many, too_long, no_token, no_dict, no_text])
def test_keys_that_cannot_be_written_park_the_saga_with_the_reason(keys: Any) -> None:
    life = Life(keyed(keys))
    assert [type(entry) for entry in life.start()] == [Record]
    assert "key" in life.history.fault


def test_keys_that_could_not_be_made_at_first_are_written_after_the_retry() -> None:
    broken = True

    def mended_later(start: TripAsked) -> dict[str, str]:
        if broken:
            raise KeyError("traveller")
        return traveller(start)

    life = Life(keyed(mended_later))
    life.start()
    assert "KeyError" in folded(life).parked
    broken = False
    life.take(Operated(life._next(), life.now_ns, "ada", "retry", Operation()))
    row = folded(life)
    assert (row.parked, row.steps, row.keys["traveller"]) == ("", ("book_room",), "Ada")


def test_keys_must_be_made_by_a_function_with_a_name() -> None:
    with pytest.raises(DefinitionError, match="must be a plain function with a name"):
        keyed(lambda start: {})
