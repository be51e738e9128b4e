"""Each invariant of a chaos test names what breaks it, and is silent about a run in which nothing is wrong.

The evidence is that of real orders, run in memory: one completes, one cannot be paid, and one is refused at the point
of no return, so that all is taken back. Each case plants one thing that must not be.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from antiphon.contracts.counting import counted
from antiphon.contracts.envelope import decode, encode
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import RECORD_TYPE
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import JOURNALS_FILTER, matches, record_subject
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.definition.versions import by_type
from antiphon.coordinator.testing import rehearse
from antiphon.deploy.chaos.backend import TracingBackend
from antiphon.deploy.chaos.evidence import ConsumerState, Effect, Evidence, InboxRow, Sample, Trouble
from antiphon.deploy.chaos.invariants import (
    AFTER_HARM_SECONDS,
    GROWTH_BYTES_MIN,
    INVARIANTS,
    check,
    folded,
    report,
)
from antiphon.deploy.chaos.troubles import Troubles
from antiphon.order.billing import billing
from antiphon.order.billing import ledger as billing_ledger
from antiphon.order.data import load_orders
from antiphon.order.inventory import inventory
from antiphon.order.saga import order
from antiphon.order.shipping import shipping
from antiphon.participants.tables import inbox
from antiphon.participants.testing import Service
from antiphon.tracing.projection.ids import trace_id
from antiphon.tracing.projection.project import project

ORDERS = load_orders()
COMPLETED, REFUSED, UNDELIVERED = (SagaKey.of("order", name) for name in ("order-0002", "order-0001", "po-box"))
SECOND = 1_000_000_000


async def _run() -> dict[str, Any]:
    async with (
        Service.open(inventory) as stock,
        Service.open(billing) as cards,
        Service.open(shipping) as parcels,
        rehearse([order], [stock, cards, parcels]) as rehearsal,
    ):
        for placed in (ORDERS[1], ORDERS[0], replace(ORDERS[1], order_id="po-box", address="PO Box 7")):
            await rehearsal.start(order, placed, id=placed.order_id)
        columns = (inbox.c.saga_type, inbox.c.saga_id, inbox.c.step, inbox.c.state, inbox.c.answer_type)
        inboxes = {
            service.name: [
                InboxRow(SagaKey.of(saga_type, saga_id), step, state, answer or "")
                for saga_type, saga_id, step, state, answer in await service.execute(select(*columns))
            ]
            for service in (stock, cards, parcels)
        }
        lines = select(*(billing_ledger.c[name] for name in ("saga", "entry", "reference", "account", "amount")))
        charges = [
            Effect(saga, "charge_customer", "do" if entry == "charged" else "undo", reference, account, amount)
            for saga, entry, reference, account, amount in await cards.execute(lines)
        ]
        streams = rehearsal.platform.streams
        journals = [each for each in streams[SAGA] if matches(JOURNALS_FILTER, each.subject)]
        return {"entries": journals, "events": streams[EVENTS], "inboxes": inboxes, "charges": charges}


@cache
def what_was_left() -> dict[str, Any]:
    return asyncio.run(_run())


@pytest.fixture
def evidence() -> Evidence:
    """The evidence of a run in which nothing is wrong."""
    left = deepcopy(what_was_left())
    found = Evidence(
        definitions=by_type([order.definition]),
        inboxes=left["inboxes"],
        ledgers={"billing": left["charges"]},
        told_started=frozenset({COMPLETED, REFUSED}),
        told_outcomes={COMPLETED: {"completed"}, UNDELIVERED: {"compensated"}},
        consumers=[ConsumerState(EVENTS, "coordinator-starts", 0, 0)],
        last_fault_ns=left["events"][0].stored_ns,
    )
    for message in left["events"]:
        found.take_event(message)
    for message in left["entries"]:
        found.take_entry(message)
    found.encode = TracingBackend.encode
    found.traces = {
        trace_id(key): found.encode(project(key, saga.entries, saga.events).spans) for key, saga in found.sagas.items()
    }
    found.listed = {str(key): row for key, saga in found.sagas.items() if (row := folded(saga)) is not None}
    return found


def test_a_sound_run_has_all_of_it_and_nothing_is_wrong(evidence: Evidence) -> None:
    assert [str(each) for each in check(evidence)] == []
    assert {key: saga.end.outcome for key, saga in evidence.sagas.items() if saga.end} == {
        COMPLETED: "completed",
        REFUSED: "compensated",
        UNDELIVERED: "compensated",
    }
    assert {row.state for rows in evidence.inboxes.values() for row in rows} == {"done", "refused", "undone"}
    assert sorted(effect.direction for effect in evidence.ledgers["billing"]) == ["do", "do", "undo"]
    assert list(INVARIANTS) == [f"I{number}" for number in range(1, 16)]


# --- what may be planted ----------------------------------------------------------------------------------------------


def rewritten(message: StoredMessage, **changes: Any) -> StoredMessage:
    """A message whose envelope says something else; with `id` also another subject."""
    envelope = replace(decode(message.data, message.subject), **changes)
    return replace(message, subject=envelope.id, data=encode(envelope))


def without_end(evidence: Evidence) -> None:
    evidence.sagas[COMPLETED].entries.pop()


def unnoticed_poison(evidence: Evidence) -> None:
    evidence.unnoticed = ["evt.1.order.o.billing.poison-1.on-poison.1"]


def without_journal(evidence: Evidence) -> None:
    evidence.sagas[COMPLETED].entries.clear()


def not_paid_back(evidence: Evidence) -> None:
    lines: Any = evidence.ledgers["billing"]
    lines[:] = [replace(each, amount=each.amount // 2) if each.direction == "undo" else each for each in lines]


def charged_twice(evidence: Evidence) -> None:
    lines: Any = evidence.ledgers["billing"]
    lines.append(replace(lines[0], effect="charge-again"))


def never_taken_back(evidence: Evidence) -> None:
    lines: Any = evidence.ledgers["billing"]
    lines[:] = [each for each in lines if each.direction == "do"]


def taken_back_without_a_reason(evidence: Evidence) -> None:
    lines: Any = evidence.ledgers["billing"]
    lines.append(Effect(str(COMPLETED), "charge_customer", "undo", "refund", "nobody"))


def never_undone_in_the_inbox(evidence: Evidence) -> None:
    rows: Any = evidence.inboxes["billing"]
    rows[:] = [replace(row, state="done") if row.saga == UNDELIVERED else row for row in rows]


def in_the_wrong_order(evidence: Evidence) -> None:
    entries = evidence.sagas[UNDELIVERED].entries
    later, earlier = (
        next(n for n, each in enumerate(entries) if f".{step}.undo." in each.subject)
        for step in ("charge_customer", "reserve_inventory")
    )
    one, other = entries[later], entries[earlier]
    entries[later], entries[earlier] = replace(other, sequence=one.sequence), replace(one, sequence=other.sequence)


def start_lost(evidence: Evidence) -> None:
    del evidence.sagas[REFUSED].events[0]


def told_otherwise(evidence: Evidence) -> None:
    evidence.told_outcomes[COMPLETED].add("compensated")


def answer_lost(evidence: Evidence) -> None:
    events = evidence.sagas[COMPLETED].events
    events[:] = [each for each in events if ".shipping-scheduled." not in each.subject]


def effect_lost(evidence: Evidence) -> None:
    lines: Any = evidence.ledgers["billing"]
    lines[:] = [each for each in lines if each.saga != str(COMPLETED)]


def row_lost(evidence: Evidence) -> None:
    evidence.inboxes["shipping"].clear()  # type: ignore[attr-defined] # it is a list


def after_the_end(evidence: Evidence) -> None:
    entries = evidence.sagas[REFUSED].entries
    record = next(each for each in evidence.sagas[COMPLETED].entries if ".do." in each.subject)
    data = msgspec.Raw(b"{}")
    added = rewritten(record, id=record_subject(REFUSED, "n90"), type=RECORD_TYPE, data=data, cause="")
    entries.append(replace(added, sequence=entries[-1].sequence + 1))


def written_by_somebody_else(evidence: Evidence) -> None:
    entries = evidence.sagas[COMPLETED].entries
    entries[1] = rewritten(entries[1], source="billing")


def names_a_fact_that_is_none(evidence: Evidence) -> None:
    entries = evidence.sagas[COMPLETED].entries
    entries[-1] = rewritten(entries[-1], cause="e9000")


def decided_twice(evidence: Evidence) -> None:
    entries = evidence.sagas[COMPLETED].entries
    first = decode(entries[0].data, entries[0].subject).cause
    entries[-1] = rewritten(entries[-1], cause=first)


def unreadable(evidence: Evidence) -> None:
    entries = evidence.sagas[COMPLETED].entries
    entries[1] = replace(entries[1], data=b"{")


def out_of_turn(evidence: Evidence) -> None:
    """The charge is sent before the goods are known to be there."""
    entries = evidence.sagas[COMPLETED].entries
    entries[1] = rewritten(entries[1], cause=decode(entries[0].data, entries[0].subject).cause)


def span_lost(evidence: Evidence) -> None:
    assert evidence.traces is not None
    spans = evidence.traces[trace_id(COMPLETED)]
    spans.pop(next(iter(spans)))


def span_changed(evidence: Evidence) -> None:
    assert evidence.traces is not None
    spans = evidence.traces[trace_id(COMPLETED)]
    span = next(iter(spans))
    spans[span] |= {b"another form"}


def span_of_nobody(evidence: Evidence) -> None:
    assert evidence.traces is not None
    evidence.traces = {**evidence.traces, trace_id(SagaKey.of("order", "nobody")): {}}


def unlisted(evidence: Evidence) -> None:
    evidence.listed = {}


def row_behind(evidence: Evidence) -> None:
    assert evidence.listed is not None
    before = replace(evidence.listed[str(COMPLETED)], state="running")
    evidence.listed = {**evidence.listed, str(COMPLETED): before}


def row_of_nobody(evidence: Evidence) -> None:
    assert evidence.listed is not None
    evidence.listed = {**evidence.listed, "order/nobody": evidence.listed[str(COMPLETED)]}


def late(evidence: Evidence) -> None:
    entries = evidence.sagas[COMPLETED].entries
    entries[-1] = replace(entries[-1], stored_ns=entries[-1].stored_ns + 90 * SECOND)
    evidence.traces = None


def undelivered(evidence: Evidence) -> None:
    evidence.consumers = [ConsumerState(SAGA, "billing", 3, 1)]


def set_aside(evidence: Evidence) -> None:
    evidence.set_aside = ["PARKED holds a message of billing (forged): it lies"]


def never_ended_outside(evidence: Evidence) -> None:
    evidence.inboxes["shipping"].append(InboxRow(REFUSED, "schedule_shipping", "claimed"))  # type: ignore[attr-defined]


def held_up(evidence: Evidence) -> None:
    events = evidence.sagas[COMPLETED].events
    number = next(number for number, each in enumerate(events) if ".inventory-reserved." in each.subject)
    began = events[0].stored_ns
    events[number:] = [replace(each, stored_ns=each.stored_ns + 80 * SECOND) for each in events[number:]]
    evidence.troubles = [Trouble(frozenset({"billing"}), began - SECOND, began + 70 * SECOND)]
    evidence.last_fault_ns, evidence.traces = 0, None


def grown(evidence: Evidence) -> None:
    evidence.samples = [
        Sample("billing", 7, number * SECOND, 10**8 + number * GROWTH_BYTES_MIN, 20) for number in range(16)
    ]


def leaking(evidence: Evidence) -> None:
    evidence.samples = [Sample("billing", 7, number * SECOND, 10**8, 20 + 5 * number) for number in range(16)]


def erased(evidence: Evidence) -> None:
    evidence.erased = 2


def restarted(evidence: Evidence) -> int:
    """A worker of billing is restarted while a charge is under way, which was tried three times; when it was sent."""
    events = evidence.sagas[COMPLETED].events
    number = next(number for number, each in enumerate(events) if ".payment-charged." in each.subject)
    events[number] = rewritten(events[number], tries=3)
    sent_ns = next(
        each for each in evidence.sagas[COMPLETED].entries if ".charge_customer.do." in each.subject
    ).stored_ns
    evidence.troubles = [
        Trouble(frozenset({"billing"}), sent_ns - SECOND, sent_ns + SECOND, restarted="billing-1"),
        Trouble(frozenset({"inventory"}), sent_ns - SECOND, sent_ns + SECOND),
        Trouble(frozenset({"exporter"}), sent_ns - SECOND, sent_ns + SECOND, restarted="exporter"),
    ]
    evidence.last_fault_ns, evidence.traces, evidence.listed = 0, None, None
    return sent_ns


def a_coordinator_restarted(evidence: Evidence) -> None:
    sent_ns = restarted(evidence)
    evidence.troubles = [Trouble(frozenset(), sent_ns - SECOND, sent_ns + SECOND, restarted="coordinator-2")]


PLANTED: list[tuple[str, Callable[[Evidence], object], str]] = [
    ("I1", without_end, "order/order-0002: it has not ended and is not parked: it is running"),
    ("I1", without_journal, "order/order-0002: it was started, and nobody began it"),
    ("I2", not_paid_back, r"order/po-box: it was compensated, and billing has \+\d+ of it left on account"),
    ("I3", charged_twice, "order/order-0002: billing has 2 lines of what step charge_customer has done:"),
    ("I4", never_taken_back, "order/po-box: it was compensated, and billing says that step charge_customer was not"),
    ("I4", taken_back_without_a_reason, "order/order-0002: it completed, and billing says that step charge_customer"),
    ("I4", never_undone_in_the_inbox, "order/po-box: it was compensated, and what billing did for step"),
    ("I4", in_the_wrong_order, "order/po-box: step reserve_inventory was compensated before charge_customer, which"),
    ("I5", start_lost, "order/order-0001: a client was told that it is started, and EVENTS holds no start"),
    ("I5", told_otherwise, "order/order-0002: a client was told that it is compensated, and by its journal it is"),
    ("I5", answer_lost, "order/order-0002: shipping has done step schedule_shipping, and EVENTS holds no answer"),
    ("I5", effect_lost, "order/order-0002: step charge_customer was answered as done, and billing has no line of it"),
    ("I5", row_lost, "order/order-0002: shipping has answered that step schedule_shipping is done, and its inbox has"),
    ("I6", after_the_end, "order/order-0001: entry 5 was written after its end, which was entry 4"),
    ("I6", written_by_somebody_else, "order/order-0002: entry 2 was written by billing"),
    ("I6", names_a_fact_that_is_none, "order/order-0002: entry 4 names e9000, which is no message"),
    ("I6", decided_twice, r"order/order-0002: entry 4 decides on e\d+ once more"),
    ("I6", unreadable, "order/order-0002: entry .* of its journal cannot be read"),
    ("I7", out_of_turn, r"order/order-0002: entry 2 \(charge_customer #1\) is nothing that was to be done then"),
    ("I7", without_end, "order/order-0002: its journal lacks the end, completed, which follows from what it holds"),
    ("I8", span_lost, r"order/order-0002: the tracing backend lacks 1 of its \d+ spans"),
    ("I8", span_changed, "order/order-0002: the tracing backend has spans that differ"),
    ("I9", late, r"order/order-0002: it ended 9\d\.\d s after the last fault, and the bound is 60 s"),
    ("I10", undelivered, "consumer billing of SAGA has 3 messages that were not delivered, and 1 without an ack"),
    ("I10", set_aside, r"PARKED holds a message of billing \(forged\): it lies"),
    ("I10", unnoticed_poison, r"a hostile user has published evt\.1.*, and PARKED does not list it"),
    ("I10", never_ended_outside, "order/order-0001: it has ended, and shipping has begun step schedule_shipping"),
    ("I11", held_up, r"order/order-0002: inventory took 8\d\.\d s for step reserve_inventory, while billing had"),
    ("I8", span_of_nobody, "the tracing backend has 1 traces of sagas that never were"),
    ("I12", grown, "billing has grown from .* to .* MB"),
    ("I12", leaking, "billing had .* files and connections open, and has"),
    ("I13", erased, "2 messages of EVENTS are gone, and nobody purged that"),
    ("I14", unlisted, "order/order-0002: the read model has no row of it"),
    ("I14", row_behind, "order/order-0002: the read model says of it state 'running', and not 'completed'"),
    ("I14", row_of_nobody, "the read model has rows of sagas that never were: order/nobody"),
    ("I15", restarted, "order/order-0002: step charge_customer was tried 3 times by billing, .* of billing-1$"),
    ("I15", a_coordinator_restarted, "order/order-0002: step charge_customer was tried 3 times .* of coordinator-2$"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "plant", "sentence"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
def test_what_breaks_it_is_named(
    number: str, plant: Callable[[Evidence], object], sentence: str, evidence: Evidence
) -> None:
    plant(evidence)
    violations = check(evidence)
    told = "\n".join(str(each) for each in violations if each.invariant == number)
    assert re.search(sentence, told), told
    assert report(evidence, violations).startswith(f"{counted(len(violations), 'violation')} of what must hold:")


def test_each_invariant_has_something_that_breaks_it() -> None:
    assert {number for number, _, _ in PLANTED} == set(INVARIANTS)


def test_a_report_has_the_timelines_of_the_sagas_concerned(evidence: Evidence) -> None:
    charged_twice(evidence)
    lines = report(evidence, check(evidence)).splitlines()
    assert lines[3] == "--- order/order-0002"
    assert any("billing charge_customer: payment.charged" in line for line in lines[4:])
    assert not any("order/po-box" in line for line in lines)


def test_a_saga_that_may_be_under_way_is_left_alone(evidence: Evidence) -> None:
    without_end(evidence)
    evidence.open, evidence.told_outcomes, evidence.traces = frozenset({str(COMPLETED)}), {}, None
    evidence.listed = None
    assert [str(each) for each in check(evidence)] == []


# --- attempts that planned restarts cost ------------------------------------------------------------------------------


def lost_attempts(evidence: Evidence) -> list[str]:
    return [str(each) for each in check(evidence) if each.invariant == "I15"]


def test_attempts_that_failed_were_not_lost_to_a_restart(evidence: Evidence) -> None:
    restarted(evidence)
    assert len(lost_attempts(evidence)) == 1
    subject = next(each for each in evidence.sagas[COMPLETED].entries if ".charge_customer.do." in each.subject).subject
    evidence.failed = {subject: 1}
    assert "tried 3 times by billing, of which 1 failed" in lost_attempts(evidence)[0]
    evidence.failed = {subject: 2}
    assert lost_attempts(evidence) == []


def test_without_the_inbox_nobody_knows_which_attempts_failed(evidence: Evidence) -> None:
    restarted(evidence)
    evidence.inboxes = {name: rows for name, rows in evidence.inboxes.items() if name != "billing"}
    assert lost_attempts(evidence) == []


def test_a_command_that_met_no_restart_is_left_alone(evidence: Evidence) -> None:
    restarted(evidence)
    evidence.troubles = evidence.troubles[1:]
    assert lost_attempts(evidence) == []


@pytest.mark.parametrize("whose", ["billing", ""])
@pytest.mark.parametrize("where", ["troubles", "hung"])
@pytest.mark.parametrize(
    ("before", "is_told"), [(0, False), (AFTER_HARM_SECONDS - 1, False), (AFTER_HARM_SECONDS + 1, True)]
)
def test_what_may_have_lost_an_attempt_to_another_trouble_is_left_alone(
    whose: str, where: str, before: float, is_told: bool, evidence: Evidence
) -> None:
    ended_ns = restarted(evidence) - round(before * SECOND)
    harm = Trouble(frozenset({whose} if whose else ()), ended_ns - SECOND, ended_ns + 1)
    setattr(evidence, where, [*getattr(evidence, where), harm])
    assert bool(lost_attempts(evidence)) is is_told


def test_a_restart_in_which_a_process_is_killed_is_none_that_was_planned() -> None:
    troubles = Troubles()
    troubles.begin("billing-1", "billing", planned=True)
    troubles.begin("billing-2", "billing", planned=True)
    troubles.begin("billing-1", "billing")
    troubles.begin("billing-3", "billing")
    troubles.begin("billing-3", "billing", planned=True)
    for number in (1, 2, 3):
        troubles.end(f"billing-{number}")
    assert [each.restarted for each in troubles.all()] == ["", "billing-2", ""]
