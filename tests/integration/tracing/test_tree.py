"""A trace as a person sees it: the tree, the critical path, what differs between two."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import asdict, replace
from rich.console import Console

from antiphon.contracts import SagaKey
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.stored import Outcome
from antiphon.coordinator.views.parked import Waiting
from antiphon.deploy.cli.sagas import with_link
from antiphon.deploy.render.waterfall import (
    COMPUTED,
    CRITICAL,
    ORDINARY,
    WAITING,
    difference_table,
    duration,
    shortened,
    waterfall,
)
from antiphon.tracing.projection.differences import differences
from antiphon.tracing.projection.links import VARIABLE, checked_link, jaeger_link
from antiphon.tracing.projection.project import project
from antiphon.tracing.projection.spans import MOMENT_NS
from antiphon.tracing.projection.tree import critical_path, label, rows
from tests.integration.tracing.jaeger_page import page_path
from tests.integration.tracing.test_examples import Scripted, trace
from tests.integration.tracing.voyage import KEY, MINUTE_NS, Voyage


def test_the_critical_path_goes_through_what_the_saga_waited_for() -> None:
    told = trace({})
    critical = critical_path(told.spans)
    names = {span.name: span.span_id in critical for span in told.spans if span.kind == "internal"}
    assert names["nap"], "it takes half an hour, and everything else milliseconds"
    assert names["book_room"], "the nap comes after it"
    assert names["depart"]
    assert not names["charge_card"]
    assert told.spans[-1].span_id in critical


def test_the_critical_path_is_as_long_as_the_saga() -> None:
    told = trace({("charge_card", "do", 1): ["refused"]})
    critical = critical_path(told.spans)
    top = [s for s in told.spans if s.span_id in critical and s.parent_id == told.spans[-1].span_id]
    assert abs(sum(span.end_ns - span.start_ns for span in top) - told.duration_ns) <= MOMENT_NS


def test_jaegers_page_finds_every_step_that_the_saga_waited_for() -> None:
    """What is on our critical path is on its, and the root holds next to nothing of it."""
    scripts: list[dict[tuple[str, str, int], list[AnswerKind]]] = [
        {},
        {("charge_card", "do", 1): ["refused"]},
        {("depart", "do", 1): ["exhausted"]},
    ]
    for script in scripts:
        voyage = OnMachine(script).live()
        told = project(KEY, voyage.entries(), voyage.events())
        page = page_path(told.spans)
        steps = {span.span_id for span in told.spans if span.parent_id == told.spans[-1].span_id}
        at_ends = {span.end_ns for span in told.spans if span.span_id in page}
        ours = [span for span in told.spans if span.span_id in critical_path(told.spans) & steps]
        assert [span.name for span in ours if span.span_id not in page and span.end_ns not in at_ends] == []
        assert page[told.spans[-1].span_id] * 1000 < 0.01 * told.duration_ns


class OnMachine(Scripted):
    """A voyage in which nothing happens at one instant: each message takes 50 us to be stored."""

    def live(self) -> Voyage:
        store = self.platform.store

        def slowly(stream: str, subject: str, data: bytes) -> Outcome:
            self.platform.now_ns += 50_000
            return store(stream, subject, data)

        self.platform.store = slowly  # type: ignore[method-assign]
        return super().live()


def test_rows_stand_under_their_parents_in_the_order_of_time() -> None:
    drawn = rows(trace({}).spans)
    assert (drawn[0].span.name, drawn[0].depth) == ("saga voyage", 0)
    ids = {row.span.span_id: row for row in drawn}
    for row in drawn[1:]:
        assert row.depth == ids[row.span.parent_id].depth + 1
    tops = [row.span.start_ns for row in drawn if row.depth == 1]
    assert tops == sorted(tops)
    assert "send hotel.book" not in {row.span.name for row in drawn}
    assert "send hotel.book" in {row.span.name for row in rows(trace({}).spans, with_sends=True)}


def test_a_picture_is_text_with_the_reason_for_every_trouble() -> None:
    picture = waterfall(trace({("charge_card", "do", 1): ["refused"]}), 120)
    lines = picture.plain.split("\n")
    assert lines[0].startswith("voyage/v1  compensated: charge_card was refused: refused it was  in ")
    assert all(len(line) <= 120 for line in lines[1:-1]), max(lines[1:-1], key=len)
    by_name = {line.split("  ")[0] or line.strip().split("  ")[0]: line for line in lines[1:]}
    assert "refused: refused it was" in next(line for line in lines if line.startswith("  charge_card"))
    assert CRITICAL in by_name["saga voyage"]
    assert any(ORDINARY in line for line in lines)
    styles = {str(span.style) for span in picture.spans}
    assert {"red", "magenta", "yellow", "green"} <= styles


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_asked_for_and_no_reason_is_lost(width: int) -> None:
    lines = waterfall(trace({("charge_card", "do", 1): ["refused"]}), width).plain.split("\n")
    assert max(map(len, lines)) <= width
    said = " ".join(" ".join(lines).split())
    assert "voyage/v1 compensated: charge_card was refused: refused it was in " in said
    assert said.count("refused: refused it was") == 2, "in the head, and at its step"
    assert "compensated running" in said, "the whole legend"


def test_names_lose_their_middle() -> None:
    assert shortened("order/order-0041", 16) == "order/order-0041"
    assert shortened("order/order-0041", 9) == "orde…0041"


def test_two_traces_are_compared_in_a_narrow_terminal() -> None:
    found = differences(trace({}).spans, trace({("charge_card", "do", 1): ["refused"]}).spans)
    for width in (60, 80, 120):
        out = Console(file=io.StringIO(), width=width)
        out.print(difference_table(found, width))
        assert isinstance(out.file, io.StringIO)
        drawn = out.file.getvalue()
        assert max(map(len, drawn.splitlines())) <= width
        assert ("change" in drawn) is (width >= 80)
        assert "compensated" in drawn
        assert "undo boo" in drawn


def test_what_is_parked_is_no_attempt() -> None:
    parked = replace(trace({}).spans[-1], parent_id="", name="parked", attributes={"saga.attempt": 22})
    assert label(parked) == "parked (entry 22)"
    below = replace(parked, parent_id=parked.span_id, span_id="another")
    (saga, found) = differences([parked, below], [parked, replace(below, attributes={"saga.attempt": 31})])
    assert (saga.name, found.name, found.is_another_way) == ("saga", "parked", False)


def test_tries_whose_times_are_computed_are_dashed_and_the_legend_says_so() -> None:
    told = trace({})
    lines = waterfall(told, 120).plain.split("\n")
    dashed = [line for line in lines if f"{COMPUTED} came to nothing" in line]
    assert len(dashed) == sum("saga.synthesised" in span.attributes for span in told.spans) > 0
    assert f"{COMPUTED} a try that came to nothing, its times computed" in " ".join(lines[-2:])
    without = tuple(span for span in told.spans if "saga.synthesised" not in span.attributes)
    assert COMPUTED not in waterfall(replace(told, spans=without), 120).plain


def test_a_saga_that_runs_is_drawn_up_to_now() -> None:
    voyage = Scripted({("book_room", "do", 1): []}).live()
    told = project(KEY, voyage.entries()[:8], voyage.events())
    last_ns = told.open[0].end_ns
    picture = waterfall(told, 120, now_ns=last_ns + MINUTE_NS)
    assert "running" in picture.plain.split("\n")[0]
    assert "▶" in next(line for line in picture.plain.split("\n") if line.startswith("  book_room"))


def test_what_waits_in_the_queue_is_dotted() -> None:
    lines = waterfall(trace({("charge_card", "do", 1): ["refused"]}), 200).plain.split("\n")
    assert WAITING * 10 in next(line for line in lines if line.startswith("    process airline.book"))


def test_two_sagas_are_compared_span_by_span() -> None:
    good, bad = trace({}), trace({("charge_card", "do", 1): ["refused"]})
    found = {each.name: each for each in differences(good.spans, bad.spans)}
    assert found["charge_card"].is_another_way
    assert not found["book_room"].is_another_way
    assert found["depart"].other is None
    assert found["undo book_room"].one is None
    assert found["saga"].change_ns == bad.duration_ns - good.duration_ns
    assert not any(each.is_another_way for each in differences(good.spans, good.spans))


def test_labels_name_elements_and_attempts() -> None:
    told = trace({("load_bags-1", "do", 1): ["exhausted"]})
    labels = {label(span) for span in told.spans}
    assert {"load_bags[0]", "load_bags[1]", "undo load_bags[1]"} <= labels


def test_durations_are_read_by_people() -> None:
    texts = [duration(ns) for ns in (1_234_000, 1_500_000_000, 125 * 10**9, 3 * 3600 * 10**9 + 61 * 10**9)]
    assert texts == ["1.2 ms", "1.50 s", "2:05 min", "3:01:01 h"]


def test_the_link_to_jaeger_follows_from_the_id() -> None:
    key = SagaKey.of("order", "order-0001")
    assert (
        jaeger_link(key, "http://localhost:16686/") == "http://localhost:16686/trace/01041cbdb73dbbfcc5d1dbcbaee0f04e"
    )
    assert jaeger_link(key, "") == checked_link(key, "") == ""


def test_what_waits_for_a_person_has_the_link_as_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    saga = Waiting(kind="saga", saga="order/order-0001", reason="no", since="2026-11-24T09:00:00Z")
    message = replace(saga, kind="undecodable", saga="")
    assert "trace" not in with_link(saga, saga.saga)
    monkeypatch.setenv(VARIABLE, "http://jaeger:16686")
    assert with_link(saga, saga.saga) == {
        **asdict(saga),
        "trace": "http://jaeger:16686/trace/01041cbdb73dbbfcc5d1dbcbaee0f04e",
    }
    assert "trace" not in with_link(message, "")


@pytest.mark.parametrize(
    "url", ["nonsense", "foo:16686", "http://", "http://[::1", "http://jaeger:16686/?a=b", "ftp://j"]
)
def test_what_is_no_address_of_jaeger_is_a_sentence(url: str) -> None:
    with pytest.raises(PlatformError, match="is no address of Jaeger"):
        checked_link(SagaKey.of("order", "order-0001"), url)
