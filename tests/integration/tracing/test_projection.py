"""The trace of any saga, whatever happened in it: whole, nested, and never changed afterwards."""

from __future__ import annotations

import random
from functools import cache

import pytest
from msgspec.structs import replace

from antiphon.contracts import SagaKey
from antiphon.contracts.stored import StoredMessage
from antiphon.coordinator.decision.history import StepRecord
from antiphon.tracing.projection.ids import span_id
from antiphon.tracing.projection.project import Projection, exportable, project
from antiphon.tracing.projection.spans import MICROSECOND_NS, MOMENT_NS, Span
from tests.integration.tracing.voyage import KEY, Voyage, visa
from tests.support.traced import assert_one_tree

SEEDS = range(100)
"""Chosen so that the runs have every way a step can go, which `test_the_runs_have_everything` checks."""


@cache
def lived(seed: int) -> Voyage:
    if seed % 4 == 3:
        return Voyage(seed, trouble=0.7, only="depart").live()
    return Voyage(seed, trouble=0.15 + 0.3 * (seed % 4)).live()


def projections(seed: int) -> list[Projection]:
    voyage = lived(seed)
    return [project(key, voyage.entries(key), voyage.events(key)) for key in voyage.sagas()]


def skewed(messages: list[StoredMessage], chance: random.Random) -> list[StoredMessage]:
    """The messages as servers would have stamped them whose clocks do not agree."""
    return [replace(m, stored_ns=m.stored_ns + chance.randint(-4, 4) * 10**9) for m in messages]


def with_clocks_apart(seed: int) -> list[Projection]:
    voyage, chance = lived(seed), random.Random(seed)
    return [
        project(key, skewed(voyage.entries(key), chance), skewed(voyage.events(key), chance)) for key in voyage.sagas()
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_trace_is_one_tree_and_children_lie_inside_their_parents(seed: int) -> None:
    for projection in [*projections(seed), *with_clocks_apart(seed)]:
        assert projection.outcome, f"{projection.key} has not ended"
        assert_one_tree(projection)
        spans = {span.span_id for span in projection.spans}
        for span in projection.spans:
            assert all(span.start_ns <= event.at_ns <= span.end_ns for event in span.events)
            mine = [link for link in span.links if link.trace_id == span.trace_id]
            assert all(link.span_id in spans for link in mine)


@pytest.mark.parametrize("seed", SEEDS[:50])
def test_a_sagas_time_is_that_of_its_journal_and_does_not_run_backwards(seed: int) -> None:
    voyage, chance = lived(seed), random.Random(seed)
    entries = skewed(voyage.entries(), chance)
    spans = project(KEY, entries, skewed(voyage.events(), chance)).spans
    # Events of one moment lie a microsecond apart.
    slack_ns = MOMENT_NS + max(len(span.events) for span in spans) * MICROSECOND_NS
    assert 0 <= spans[-1].end_ns - max(message.stored_ns for message in entries) <= slack_ns
    known = {message.sequence: index for index, message in enumerate(entries)}
    for span in spans:
        assert span.end_ns <= max(message.stored_ns for message in entries[: known[span.closed_by] + 1]) + slack_ns


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_exported_step_by_step_is_the_trace_at_the_end(seed: int) -> None:
    """Each entry is delivered once, at a time when the streams hold some beginning of what they will hold."""
    voyage, chance = lived(seed), random.Random(seed)
    for key in voyage.sagas():
        entries, events = voyage.entries(key), voyage.events(key)
        exported: list[Span] = []
        for number, entry in enumerate(entries, 1):
            seen_entries = entries[: chance.randint(number, len(entries))]
            named = [int(m.data.partition(b'"cause":"e')[2].partition(b'"')[0] or 0) for m in entries[:number]]
            needed = max(named, default=0)
            seen_events = [m for m in events if m.sequence <= needed or chance.random() < 0.5]
            chance.shuffle(seen_events)
            exported += exportable(project(key, seen_entries, seen_events), [entry.sequence])
        assert tuple(exported) == project(key, entries, events).spans


@pytest.mark.parametrize("seed", SEEDS[:50])
def test_a_longer_journal_begins_with_the_spans_of_a_shorter_one(seed: int) -> None:
    voyage = lived(seed)
    whole = project(KEY, voyage.entries(), voyage.events()).spans
    for length in range(len(voyage.entries())):
        part = project(KEY, voyage.entries()[:length], voyage.events())
        assert part.spans == whole[: len(part.spans)]
        known = {span.span_id for span in (*part.spans, *part.open)}
        assert {span.parent_id for span in part.spans} <= {*known, ""}


@pytest.mark.parametrize("seed", SEEDS[:50])
def test_a_fact_that_was_not_read_stops_the_projection_there(seed: int) -> None:
    voyage = lived(seed)
    whole = project(KEY, voyage.entries(), voyage.events())
    for missing in voyage.events():
        part = project(KEY, voyage.entries(), [m for m in voyage.events() if m is not missing])
        assert part.lacks in (0, missing.sequence)
        assert part.spans == whole.spans[: len(part.spans)]
        assert (part == whole) == (part.lacks == 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_end_as_the_coordinator_says_although_no_definition_is_known(seed: int) -> None:
    voyage = lived(seed)
    for projection in projections(seed):
        history = voyage.history(projection.key)
        if any(span.name == "operator pause" for span in projection.spans):
            continue  # that a saga turned while it stood still is seen only when it goes on
        assert projection.outcome == history.state
        for name, record in history.steps.items():
            found = seen(projection, name)
            if name == visa.name and found == ("abandoned", ""):
                continue  # a signal that comes after the turn is heard, and changes nothing
            is_list = record.elements or record.spread
            if is_list and found == ("refused", "") and record.phase == "unknown":
                continue  # the saga only knows that a list has come to nothing, and the trace by which element
            assert found == expected(record), (projection.key, name)


def seen(projection: Projection, name: str) -> tuple[str, str]:
    """What a trace says of a step, and of its compensation."""
    spans = {span.span_id: span for span in projection.spans}
    step = spans.get(span_id(projection.key, name, "do", 0, "step"))
    undo = spans.get(span_id(projection.key, name, "undo", 0, "undo"))
    undone = str(undo.attributes["saga.outcome"]) if undo else ""
    events = projection.spans[-1].events
    if any(event.name == "skipped" and event.attributes["saga.step"] == name for event in events):
        return "skipped", undone
    return str(step.attributes["saga.outcome"]) if step else "waiting", undone


def expected(record: StepRecord) -> tuple[str, str]:
    match record.phase:
        case "undone":
            return "done" if record.reply is not None else "unknown", "undone"
        case "awaiting":
            return "abandoned", ""
        case phase:
            return phase, ""


def test_the_runs_have_everything() -> None:
    found: set[str] = set()
    for seed in SEEDS:
        for projection in projections(seed):
            for span in projection.spans:
                found |= {span.name, *(event.name for event in span.events)}
                found |= {f"{span.kind} {span.attributes.get('saga.outcome', '')}"}
                found |= {name for name in span.attributes if name.startswith("saga.")}
    wanted = {
        "wait for lock", "late answer hotel.booked", "settle depart", "parked", "paused", "operator pause",
        "operator resume", "undo load_bags element", "child saga", "visa-granted", "nap", "timed out", "retry",
        "turned", "skipped", "cancel asked", "signal", "internal unknown", "internal refused", "internal abandoned",
        "saga.synthesised", "saga.lost", "saga.tries", "wait for visa.granted", "wait for time", "queue hotel.book",
        "try hotel.book", "saga ended", "settle airline.depart", "process hotel.book", "process hotel.free",
        "send porter.load", "saga.queue_ms", "saga.clock.difference_ms", "saga.child", "saga.parent",
    }  # fmt: skip
    assert wanted - found == set()


def test_a_saga_that_runs_shows_what_is_open() -> None:
    voyage = lived(0)
    part = project(KEY, voyage.entries()[:5], voyage.events())
    assert not part.outcome
    assert next(span.name for span in part.open) == "saga voyage"
    assert part.spans[0].name == "saga started"


def test_nothing_gives_nothing() -> None:
    assert project(SagaKey.of("voyage", "none"), [], []) == Projection(SagaKey.of("voyage", "none"))
