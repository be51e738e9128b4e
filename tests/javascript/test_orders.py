"""Whole orders with billing in JavaScript, between inventory and shipping in Python, on a real server in both forms."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from antiphon.contracts.envelope import decode
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.order.data import load_customers, load_orders
from antiphon.order.messages import OrderPlaced
from tests.support.processes import Fleet, run_orders, supervised
from tests.support.server import FORMS, Form, Platform, platform, until

from . import node

ACK_WAIT_SECONDS = 1.0
"""What a killed worker held is delivered again after this time; in production after thirty seconds."""
COUNT = 10


def orders() -> list[OrderPlaced]:
    """Some that complete, some with a card that is declined, some that no carrier takes, so that money goes back."""
    valid = {each.customer_id for each in load_customers() if each.card == "valid"}
    lines = [each for each in load_orders() if each.quantity == 1]
    away = [each for each in lines if each.country in ("CL", "NZ") and each.customer_id in valid][:3]
    declined = [each for each in lines if each.customer_id not in valid][:3]
    return away + declined + [each for each in lines if each.customer_id in valid and each.country == "CH"][:COUNT]


@pytest.mark.parametrize("form", FORMS)
async def test_orders_end_alike_though_billing_is_in_javascript_and_is_killed_twice(form: Form, tmp_path: Path) -> None:
    """Once between its commit and its event, then between an event and its ack; no effect is lost or doubled."""
    node.require_packages()
    with platform(tmp_path, form) as up:
        await up.set_up(ack_wait_seconds=ACK_WAIT_SECONDS)
        running = Fleet(up, tmp_path, {}, "order")
        billing = node.billing(up, tmp_path, kill_at="worker.committed:3 worker.event_stored:3")
        running.children[billing.role] = billing
        with supervised(running.children):
            report = await run_orders(up, running, orders())
            await until(lambda: len(billing.exits) == 2, what="both deaths of billing")
            await echoed_traces(up)
        assert billing.exits == [-signal.SIGKILL, -signal.SIGKILL], running.logs()
        assert billing.process is not None
        assert billing.process.returncode == 0, running.logs()  # SIGTERM drained it
    assert not report.discrepancies
    money = next(total for total in report.totals if total.service.name == "billing")
    assert money.undone > 0
    assert report.completed >= 5
    assert report.compensated >= 6


async def echoed_traces(up: Platform) -> None:
    """Every answer of billing has the traceparent and the sequence of a command to billing."""
    link = await up.connect("coordinator")
    try:
        commands = {
            str(each.sequence): decode(each.data, each.subject).traceparent
            for each in await link.read_all(SAGA, ["saga.*.order.*.c.cmd.billing.>"])
        }
        answers = [decode(each.data, each.subject) for each in await link.read_all(EVENTS, ["evt.*.order.*.billing.>"])]
    finally:
        await link.close()
    assert all(commands.values())
    assert {each.command: each.traceparent for each in answers} == commands
