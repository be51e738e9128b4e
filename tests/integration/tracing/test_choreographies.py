"""The trace of a saga that nobody leads: who reacted to what, after how long a wait, and how it ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.payloads import END_TYPE, RECORD_TYPE, End, Record
from antiphon.contracts.stored import StoredMessage
from antiphon.tracing.jaeger.sagas import calls_in
from antiphon.tracing.projection.project import Projection, project
from antiphon.tracing.projection.spans import FOLLOWS_NS, Open, Span
from tests.integration.tracing.jaeger_page import edges, page_path

KEY = SagaKey.of("order", "o1")
BEGUN = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
MS = 1_000_000


def at(ms: float) -> datetime:
    return BEGUN + timedelta(milliseconds=ms)


def at_ns(ms: float) -> int:
    return round(at(ms).timestamp() * 1000) * MS


class Told:
    """Both streams of one saga."""

    def __init__(self) -> None:
        self.entries: list[StoredMessage] = []
        self.events: list[StoredMessage] = []

    def said(self, subject: str, type_: str, ms: float, data: bytes = b"{}", **more: object) -> int:
        """Something was stored in EVENTS, and is in the journal a millisecond later."""
        source = subject.split(".")[4]
        envelope = Envelope(id=subject, source=source, type=type_, time=at(ms), data=msgspec.Raw(data))
        sequence = len(self.events) + 1
        whole = encode(msgspec.structs.replace(envelope, **more))
        self.events.append(StoredMessage(subject, sequence, at_ns(ms), whole))
        return sequence

    def reacted(
        self, who: str, event: str, heard: int, ms: float, called_ms: float, tries: int = 0, **data: str
    ) -> int:
        """A participant reacted to what is at a place in EVENTS."""
        subject = subjects.event_subject(KEY.path, who, event.replace(".", "-"), f"on-{heard}", 1)
        return self.said(
            subject,
            f"{event}.v1",
            ms,
            msgspec.json.encode(data),
            reacts=str(heard),
            started=at(called_ms),
            tries=tries,
        )

    def recorded(self, sequence: int, ms: float, record: Record | None = None) -> None:
        subject = subjects.record_subject(KEY, f"e{sequence}")
        self._entry(subject, RECORD_TYPE, pack(record or Record()), sequence, ms)

    def ended(self, sequence: int, ms: float, end: End) -> None:
        self._entry(subjects.end_subject(KEY), END_TYPE, pack(end), sequence, ms)

    def _entry(self, subject: str, type_: str, data: msgspec.Raw, sequence: int, ms: float) -> None:
        envelope = Envelope(
            id=subject,
            source="coordinator",
            type=type_,
            time=at(ms),
            data=data,
            cause=f"e{sequence}",
            definition="order",
        )
        self.entries.append(StoredMessage(subject, len(self.entries) + 1, at_ns(ms), encode(envelope)))

    def trace(self) -> Projection:
        return project(KEY, self.entries, self.events)


@pytest.fixture
def refused() -> Projection:
    """Stock is reserved at once; billing is killed, waits for three seconds, and declines; stock is released."""
    told = Told()
    placed = told.said(subjects.start_subject(KEY), "order.placed.v1", 0)
    reserved = told.reacted("inventory", "inventory.reserved", placed, 20, called_ms=10)
    failed = told.reacted(
        "billing", "payment.failed", reserved, 3_100, called_ms=3_050, tries=2, reason="card declined"
    )
    released = told.reacted("inventory", "inventory.released", failed, 3_120, called_ms=3_110)
    told.recorded(placed, 1)
    told.recorded(reserved, 21)
    told.recorded(failed, 3_101, Record(turned="payment.failed"))
    told.ended(released, 3_121, End(outcome="compensated", reason="payment.failed: card declined"))
    return told.trace()


def one(told: Projection, name: str, service: str = "") -> Span:
    (found,) = (span for span in told.spans if span.name == name and service in ("", span.service))
    return found


def test_each_reaction_is_named_after_what_it_heard_and_is_linked_to_it(refused: Projection) -> None:
    assert refused.outcome == "compensated"
    reserve, charge, release = (
        one(refused, "on order.placed"), one(refused, "on inventory.reserved"), one(refused, "on payment.failed"),
    )  # fmt: skip
    assert [span.service for span in (reserve, charge, release)] == ["inventory", "billing", "inventory"]
    assert [[(link.span_id, link.why) for link in span.links] for span in (reserve, charge, release)] == [
        [],
        [(reserve.span_id, "reacts to")],
        [(charge.span_id, "reacts to")],
    ]
    assert reserve.parent_id == refused.spans[-1].span_id, "or else it would be no child of the saga in Jaeger"
    assert charge.attributes["saga.event"] == "payment.failed.v1"


def test_what_turned_the_saga_is_an_error_with_its_reason(refused: Projection) -> None:
    charge = one(refused, "on inventory.reserved")
    assert (charge.status, charge.message) == ("error", "payment.failed: card declined")
    assert one(refused, "on payment.failed").status == "unset"


def test_a_reaction_lasts_from_its_last_call_and_what_was_before_is_the_queues(refused: Projection) -> None:
    charge = one(refused, "on inventory.reserved")
    assert (charge.start_ns, charge.end_ns) == (at_ns(3_050), at_ns(3_100))
    assert charge.attributes["saga.tries"] == 2
    assert charge.attributes["saga.queue_ms"] == pytest.approx(3_030)
    queue, lost = one(refused, "queue inventory.reserved"), one(refused, "try inventory.reserved")
    assert (queue.service, lost.service) == ("inventory", "inventory"), "what waits is the sender's"
    assert queue.attributes["saga.participant"] == "billing"
    assert (queue.start_ns, queue.end_ns) == (at_ns(20) + FOLLOWS_NS, at_ns(3_050) - FOLLOWS_NS)
    assert (lost.status, lost.parent_id) == ("error", queue.span_id)
    busy = [span for span in refused.spans if span.service == "billing" and not span.name.startswith("after ")]
    assert sum(span.end_ns - span.start_ns for span in busy) <= 51 * MS


def test_every_service_that_took_part_knows_the_outcome(refused: Projection) -> None:
    told = {span.service: span.attributes["saga.outcome"] for span in refused.spans if span.name == "saga ended"}
    assert told == {"inventory": "compensated", "billing": "compensated"}
    assert {span.closed_by for span in refused.spans if span.name == "saga ended"} == {refused.spans[-1].closed_by}


def test_what_followed_from_an_event_lies_in_a_span_of_who_said_it(refused: Projection) -> None:
    """A chain of reactions reads as one."""
    reserved, failed = one(refused, "after inventory.reserved"), one(refused, "after payment.failed")
    assert [span.service for span in (reserved, failed)] == ["inventory", "billing"]
    assert [
        one(refused, name).parent_id for name in ("on order.placed", "on inventory.reserved", "on payment.failed")
    ] == [
        refused.spans[-1].span_id,
        reserved.span_id,
        failed.span_id,
    ]
    assert (reserved.parent_id, failed.parent_id) == (refused.spans[-1].span_id, reserved.span_id)
    assert reserved.end_ns == failed.end_ns == one(refused, "on payment.failed").end_ns


def test_the_edges_of_jaegers_graph_are_those_of_cause(refused: Projection) -> None:
    """Computed from what is exported, as Jaeger's own storages do, and as the storage over journals does."""
    caused = {("antiphon", "inventory"), ("inventory", "billing"), ("billing", "inventory")}
    assert set(edges(refused.spans)) == caused
    assert set(calls_in(refused.spans)) == caused


def test_a_chain_of_reactions_is_on_the_critical_path_of_jaegers_page(refused: Projection) -> None:
    path = page_path(refused.spans)
    names = ("on order.placed", "on inventory.reserved", "on payment.failed")
    wanted = (*names, "queue inventory.reserved", "try inventory.reserved")
    assert {one(refused, name).span_id for name in wanted} <= path.keys()
    held = {name: path[one(refused, name).span_id] for name in wanted}
    others = sum(path.values()) - sum(held.values())
    assert others <= 25_000, "what waited for two calls, and nothing else"


def test_events_of_one_moment_keep_their_order(refused: Projection) -> None:
    """Jaeger sorts them by name, and its page by whole microseconds."""
    span = Open("", "", "saga", "internal", "antiphon", 10_000, None)
    for name in ("turned", "parked", "cancel asked"):
        span.event(name, 12_345)
    span.event("before", 11_000)
    by_name = sorted(span.events, key=lambda event: event.name)
    assert [each.name for each in sorted(by_name, key=lambda event: event.at_ns // 1000)] == [
        "before", "turned", "parked", "cancel asked",
    ]  # fmt: skip
    assert span.closed(12_345, 1).end_ns >= max(event.at_ns for event in span.events)


def test_each_span_lies_in_its_parent(refused: Projection) -> None:
    """Jaeger warns of a child outside of its parent, and takes it for a clock that is wrong."""
    by_id = {span.span_id: span for span in refused.spans}
    for span in refused.spans[:-1]:
        parent = by_id[span.parent_id]
        assert parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns, span.name
