"""Whatever a fault could do to the books is found, and the saga it happened to is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import SERVICES, SHIPPING, Books, Ended, Line, Outcome, Report, Service, compare

COMPLETED, COMPENSATED, REFUSED = "order/order-1", "order/order-2", "order/order-3"


def placed(order_id: str) -> OrderPlaced:
    return OrderPlaced(
        order_id=order_id,
        customer_id="c-1",
        item_id="tea",
        quantity=3,
        amount=4350,
        recipient="Ada",
        address="Lindenallee 1, Berlin",
        country="DE",
    )


@dataclass
class World:
    """Books in balance: one order went through, one was taken back before shipping, one never reserved anything."""

    lines: dict[str, list[Line]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    orders: dict[str, OrderPlaced] = field(default_factory=dict)
    holds: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outcomes = {COMPLETED: "completed", COMPENSATED: "compensated", REFUSED: "compensated"}
        self.orders = {saga: placed(saga.removeprefix("order/")) for saga in self.outcomes}
        for service in SERVICES:
            first, second = effect(service, COMPLETED, "r-1"), effect(service, COMPENSATED, "r-2")
            taken_back = [second, undoing(service, second)] if service.undone else []
            self.lines[service.name] = [first, *taken_back]
            self.holds[service.name] = Counter({first.account: first.amount})

    def report(self) -> Report:
        books = [Books(service, self.lines[service.name], self.holds[service.name]) for service in SERVICES]
        return compare(books, Ended(self.outcomes, self.orders))

    def account(self, service: Service) -> None:
        """Bring the service's state in line with its ledger, so that only what a test plants is wrong."""
        self.holds[service.name] = Counter()
        for line in self.lines[service.name]:
            self.holds[service.name][line.account] += line.amount


def effect(service: Service, saga: str, reference: str) -> Line:
    account, amount = service.owed(placed("any"))
    return Line(saga, service.done, account, amount, reference)


def undoing(service: Service, line: Line) -> Line:
    return replace(line, entry=service.undone or "called back", amount=-line.amount)


def test_books_that_tell_one_story_balance() -> None:
    report = World().report()
    assert report.discrepancies == ()
    assert report.is_balanced
    assert (report.completed, report.compensated) == (1, 2)
    assert [(total.service.name, total.done, total.undone, total.expected) for total in report.totals] == [
        ("inventory", 6, 3, 3),
        ("billing", 8700, 4350, 4350),
        ("shipping", 1, 0, 1),
    ]


def done_twice(lines: list[Line], service: Service) -> None:
    lines.append(lines[0])


def done_though_compensated(lines: list[Line], service: Service) -> None:
    lines.append(effect(service, REFUSED, "r-4"))


def undone_twice(lines: list[Line], service: Service) -> None:
    lines.append(lines[2])


def undoing_lost(lines: list[Line], service: Service) -> None:
    del lines[2]


def effect_lost(lines: list[Line], service: Service) -> None:
    del lines[0]


def undone_though_completed(lines: list[Line], service: Service) -> None:
    lines.append(undoing(service, lines[0]))


def undone_though_never_done(lines: list[Line], service: Service) -> None:
    lines.append(undoing(service, effect(service, REFUSED, "r-3")))


def undone_by_half(lines: list[Line], service: Service) -> None:
    lines[2] = replace(lines[2], amount=lines[2].amount + 1)


def undone_for_somebody_else(lines: list[Line], service: Service) -> None:
    lines[2] = replace(lines[2], account="other")


def undone_of_another_reference(lines: list[Line], service: Service) -> None:
    lines[2] = replace(lines[2], reference="r-9")


def not_what_was_ordered(lines: list[Line], service: Service) -> None:
    lines[0] = replace(lines[0], amount=lines[0].amount + 1)


def nobody_asked_for_it(lines: list[Line], service: Service) -> None:
    lines.append(effect(service, "order/order-9", "r-9"))


def of_another_type(lines: list[Line], service: Service) -> None:
    lines.append(effect(service, "return/order-1", "r-9"))


def of_an_unknown_kind(lines: list[Line], service: Service) -> None:
    lines.append(Line(REFUSED, "stolen", "tea", 1, "r-9"))


PLANTED = [
    (done_twice, COMPLETED, "has 2 lines where something was {done}"),
    (effect_lost, COMPLETED, "completed, but nothing was {done}"),
    (done_though_compensated, REFUSED, "was compensated, but {amount} {unit} of {account} (r-4) is still {done}"),
    (not_what_was_ordered, COMPLETED, "asked for {amount} {unit} of {account}, but"),
    (nobody_asked_for_it, "order/order-9", "has not ended, or never was, but has lines"),
    (of_another_type, "return/order-1", "has not ended, or never was, but has lines"),
    (of_an_unknown_kind, REFUSED, "has lines of an unknown kind (stolen)"),
]
PLANTED_UNDOINGS = [
    (undone_twice, COMPENSATED, "has 2 lines where something was {undone}"),
    (undoing_lost, COMPENSATED, "was compensated, but {amount} {unit} of {account} (r-2) is still {done}"),
    (undone_though_completed, COMPLETED, "completed, but {amount} {unit} of {account} (r-1) was {undone}"),
    (undone_though_never_done, REFUSED, "{undone}, but nothing was {done}"),
    (undone_by_half, COMPENSATED, "(r-2) {undone}"),
    (undone_for_somebody_else, COMPENSATED, "{amount} {unit} of other (r-2) {undone}"),
    (undone_of_another_reference, COMPENSATED, "{amount} {unit} of {account} (r-9) {undone}"),
]


@pytest.mark.parametrize(
    ("plant", "saga", "sentence", "service"),
    [(*planted, service) for planted in PLANTED for service in SERVICES]
    + [(*planted, service) for planted in PLANTED_UNDOINGS for service in SERVICES if service.undone],
    ids=lambda value: getattr(value, "__name__", getattr(value, "name", "")),
)
def test_a_fault_in_one_ledger_is_found_and_its_saga_named(
    plant: Callable[[list[Line], Service], None], saga: str, sentence: str, service: Service
) -> None:
    world = World()
    plant(world.lines[service.name], service)
    world.account(service)
    report = world.report()
    account, amount = service.owed(placed("any"))
    said = sentence.format(done=service.done, undone=service.undone, unit=service.unit, account=account, amount=amount)
    assert not report.is_balanced
    assert [text for text in report.discrepancies if text.startswith(f"{service.name}: {saga} ") and said in text]
    assert all(text.startswith(f"{service.name}: ") for text in report.discrepancies), "another ledger is blamed"


def test_what_can_never_be_undone_was_not() -> None:
    world = World()
    undone_though_completed(world.lines["shipping"], SHIPPING)
    world.account(SHIPPING)
    assert (
        f"shipping: {COMPLETED} has lines of an unknown kind (called back): 1 parcels of DE (r-1)"
        in world.report().discrepancies
    )


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_state_that_its_ledger_does_not_explain_is_found(service: Service) -> None:
    world = World()
    account, amount = service.owed(placed("any"))
    world.holds[service.name][account] += 1
    assert world.report().discrepancies == (
        f"{service.name}: account {account} holds {amount + 1} {service.unit}, its ledger adds up to {amount}, "
        f"and the completed sagas to {amount}",
    )


def test_what_completed_sagas_owe_is_missed_in_their_accounts_too() -> None:
    world = World()
    effect_lost(world.lines["billing"], SERVICES[1])
    world.account(SERVICES[1])
    assert (
        "billing: account c-1 holds 0 cents, its ledger adds up to 0, and the completed sagas to 4350"
        in world.report().discrepancies
    )


def test_a_saga_whose_order_is_not_known_cannot_be_called_balanced() -> None:
    world = World()
    del world.orders[COMPLETED]
    assert "inventory: order/order-1 completed, but nobody says what was ordered" in world.report().discrepancies


def test_a_completed_saga_without_any_trace_is_found_in_every_ledger() -> None:
    world = World()
    world.outcomes["order/order-4"] = "completed"
    world.orders["order/order-4"] = placed("order-4")
    found = [text for text in world.report().discrepancies if "order/order-4 completed, but nothing was" in text]
    assert len(found) == 3


def test_a_saga_reported_with_the_wrong_outcome_is_found() -> None:
    world = World()
    world.outcomes[COMPENSATED] = "completed"
    assert "inventory: order/order-2 completed, but 3 pieces of tea (r-2) was released" in world.report().discrepancies
