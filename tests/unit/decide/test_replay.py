"""Whatever happens, in whatever order: journals are well-formed, and replaying one gives what was stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.contracts import SagaKey, clock
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.subjects import start_subject
from antiphon.coordinator.decision.author import Author
from antiphon.coordinator.decision.facts import Cancel, Fact, Finish, Send, Tick, cause_of
from antiphon.coordinator.decision.fold import Unfoldable
from antiphon.coordinator.decision.history import ENTRIES_MAX
from antiphon.coordinator.decision.plan import plan
from antiphon.coordinator.decision.replay import replay
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.versions import by_type
from tests.support.trip import ASKED, REPLIES, TRIP, make_trip
from tests.unit.decide.life import KEY, TIME, Life

SAGAS: list[Saga[Any]] = [
    TRIP,
    make_trip(parallel=True),
    make_trip(broken="charge_card"),
    make_trip(parallel=True, broken="book_seat"),
    make_trip(parallel=True, broken="free_room"),
]
STEPS = st.sampled_from(list(REPLIES))
KINDS = st.sampled_from(["done", "done", "done", "refused", "exhausted", "superseded"])
ATTEMPTS = st.integers(1, 3)
EVENTS = st.one_of(
    st.tuples(st.just("do"), STEPS, KINDS),
    st.tuples(st.just("undo"), STEPS, KINDS, ATTEMPTS),
    st.tuples(st.just("again"), st.integers(0, 30)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("deadline")),
    st.tuples(st.just("due"), STEPS),
    st.tuples(st.just("start")),
)


def happen(life: Life, event: tuple[Any, ...]) -> None:
    match event:
        case ("do", step, kind):
            life.answer(step, kind)
        case ("undo", step, kind, attempt):
            life.answer(step, kind, "undo", attempt)
        case ("again", number):
            life.take(list(life.facts.values())[number % len(life.facts)])
        case ("cancel",):
            life.cancel()
        case ("deadline",):
            life.deadline()
        case ("due", step):
            life.due(step)
        case _:
            life.start()


def live(saga: Saga[Any], events: list[tuple[Any, ...]]) -> Life:
    life = Life(saga)
    life.start()
    for event in events:
        happen(life, event)
    return life


def live_torn(saga: Saga[Any], events: list[tuple[Any, ...]]) -> Life:
    """As `live`, but the cancel at the end is cut short by a crash, and all facts are delivered again."""
    life = live(saga, events)
    life.take(Cancel(len(life.facts) + 1, life.now_ns, "changed my mind"), stored_max=1)
    for fact in list(life.facts.values()):
        life.take(fact)
    return life


LIVES = st.builds(live, st.sampled_from(SAGAS), st.lists(EVENTS, max_size=25))

TORN_LIVES = st.builds(live_torn, st.sampled_from(SAGAS), st.lists(EVENTS, max_size=10))


def cause_in(life: Life, cause: str) -> Fact:
    return Tick(int(cause[1:])) if cause.startswith("t") else life.facts[int(cause[1:])]


@given(LIVES | TORN_LIVES)
def test_every_prefix_of_a_journal_decides_the_entry_that_was_stored_next(life: Life) -> None:
    for length, entry in enumerate(life.entries()):
        next_entry = (
            plan(life.refolded(length), cause_in(life, entry.cause), TIME, author=Author(error_texts=True))
            .entries[0]
            .draft
        )
        assert (next_entry.subject, next_entry.data) == (life.journal[length].subject, life.journal[length].data)


@given(LIVES | TORN_LIVES)
def test_folding_a_journal_gives_the_history_that_was_lived_every_time(life: Life) -> None:
    assert life.refolded() == life.refolded() == life.history


@given(LIVES)
def test_journals_are_well_formed(life: Life) -> None:
    entries = life.entries()
    subjects = [message.subject for message in life.journal]
    assert len(subjects) == len(set(subjects))
    assert not any(isinstance(entry.what, Finish) for entry in entries[:-1])
    assert [bool(entry.definition) for entry in entries] == [index == 0 for index in range(len(entries))]
    causes = [
        entry.cause for index, entry in enumerate(entries) if not index or entries[index - 1].cause != entry.cause
    ]
    assert len(causes) == len(set(causes)), "two decisions on one fact"
    named = {cause for cause in causes if cause.startswith("e")}
    if life.history.end is None:
        assert named == {cause_of(fact) for fact in life.facts.values()}


@given(LIVES)
def test_only_what_happened_or_may_have_is_undone_and_its_dependents_first(life: Life) -> None:
    sent = [entry.what for entry in life.entries() if isinstance(entry.what, Send)]
    done = [send.step for send in sent if send.direction == "do"]
    undone = list(dict.fromkeys(send.step for send in sent if send.direction == "undo"))
    assert set(undone) <= set(done)
    refused = {name for name, step in life.history.steps.items() if step.phase == "refused"}
    assert not refused & set(undone)
    if "charge_card" in undone:
        assert undone[0] == "charge_card"


@given(st.sampled_from(SAGAS[:2]), st.lists(EVENTS, max_size=25))
@settings(max_examples=200)
def test_every_saga_ends_once_its_participants_answer(saga: Saga[Any], events: list[tuple[Any, ...]]) -> None:
    life = live(saga, events)
    for _ in range(30):
        for name, step in list(life.history.steps.items()):
            if step.phase == "sent":
                life.answer(name)
            elif step.phase == "undoing" and step.again_ns:
                life.due(name)
            elif step.phase == "undoing":
                life.undone(name, step.undo_attempts)
    assert life.state in ("completed", "compensated")
    assert life.history.entries < ENTRIES_MAX


@given(LIVES)
def test_facts_that_are_delivered_again_to_a_reader_of_the_journal_change_nothing(life: Life) -> None:
    history = life.refolded()
    for fact in life.facts.values():
        assert not plan(history, fact, TIME).entries


def test_a_place_of_events_that_is_another_sagas_by_now_is_not_read_as_its_own() -> None:
    """EVENTS was restored from an older backup than SAGA, and goes on with the same sequences."""
    life = Life()
    life.start()
    other = SagaKey.of("trip", "t2")
    time, data = clock.moment(life.now_ns), pack(ASKED)
    subject = start_subject(other)
    stored = encode(Envelope(id=subject, source="client", type=ASKED.__contract__.type, time=time, data=data))
    pages = SagaPages(life.journal, [StoredMessage(subject, 1, life.now_ns, stored)])
    with pytest.raises(Unfoldable, match="EVENTS was restored from an older backup than SAGA"):
        replay(KEY, by_type([life.definition])["trip"], pages)
