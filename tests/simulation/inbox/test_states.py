"""The shipped inbox keeps its promises in every state of a row, and each naive rule in its place does harm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pytest
from msgspec.structs import replace

from antiphon.participants import inbox
from antiphon.participants.inbox import Close, CloseCounts, NothingToUndo, Row, RunCompensation

from . import machine, promises
from .explore import SMALL, SOUND, explore
from .machine import Config, Order
from .shipped import MACHINE, forget

OUT = Config("compensable, outside", "compensable", True, True, attempts=1, closes=False)
OUT_CLOSES = Config("compensable, outside, closes", "compensable", True, True, faults=1, attempts=1)
UNDO_OUT = Config("compensable, outside undo", "compensable", False, True, faults=0, attempts=1, closes=False)
DECLINES = OUT._replace(declines=True)
PLAIN = Config("compensable, plain", "compensable", attempts=1, closes=False)
PIVOT = Config("pivot, outside", "pivot", True, faults=1, attempts=1, closes=False, turns=False)
PIVOT_CLOSES = Config("pivot, closes", "pivot", faults=1, attempts=1, turns=False)


FIGHT: Final = 6
"""So many claims of one row are a fight, where so little goes wrong."""


@pytest.fixture(autouse=True)
def _shipped() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.name)
def test_the_shipped_inbox_keeps_its_promises_in_every_state(config: Config) -> None:
    found = explore(config)
    sys.stdout.write(f"{config.name}: {found.states:,} states\n")  # shown with -s
    assert not found.broken, "\n".join(found.way)


# --- naive rules ------------------------------------------------------------------------------------------------------


class Naive(NamedTuple):
    """A rule that looks as good, and what it does harm to."""

    what: str
    config: Config
    rules: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    """Functions of the inbox that take the place of its own."""
    order: Order = SOUND
    wanted: str = ""
    """The promise that it breaks; any where none is named."""


on_do, on_undo, on_settle, on_close = inbox.on_do, inbox.on_undo, inbox.on_settle, inbox.on_close


def owns_by_attempt(row: Row | None, claim: int, state: str) -> bool:
    return row is not None and row.state not in ("void", "undone")


def undo_voids(row: Row | None, attempt: int = 1, now: datetime | None = None, **_known: bool) -> Any:
    return NothingToUndo(0) if row is not None and row.state == "claimed" else on_undo(row, attempt, now)


def undo_beside(row: Row | None, attempt: int = 1, now: datetime | None = None, **_known: bool) -> Any:
    is_beside = row is not None and row.state == "claimed"
    return RunCompensation(MACHINE) if is_beside else on_undo(row, attempt, now)


def undos_fight(row: Row | None, attempt: int = 1, now: datetime | None = None, **_known: bool) -> Any:
    return on_undo(row, 9, now)


def settle_voids(row: Row | None, now: datetime | None = None) -> Any:
    return NothingToUndo(0) if row is not None and row.state in ("claimed", "open") else on_settle(row, now)


def never_lapses(row: Row, now: datetime | None) -> bool:
    return False


def stays_claimed(row: Row | None) -> None:
    return None


def forgets_the_claim(row: Row | None) -> Row | None:
    return replace(row, state="void", attempt=0) if row is not None and row.state == "claimed" else None


def close_over_run(row: Row | None, close: Close) -> Any:
    return on_close(replace(row, runs=()) if row is not None else None, close)


def close_without_claim(row: Row | None, close: Close) -> Any:
    return on_close(row, replace(close, claim=row.claim if row is not None else 0))


def close_after_any_look(row: Row | None, close: Close) -> Any:
    return on_close(row, replace(close, claim=row.claim) if row is not None and close.claim else close)


def close_over_refusal(row: Row | None, close: Close) -> Any:
    found = on_close(None if row is not None and row.state == "refused" else row, close)
    return CloseCounts(found.row) if isinstance(found, CloseCounts) else found


def done_is_done_after_all(row: Row | None, attempt: int, digest: str = "") -> Any:
    return inbox.RunHandler() if row is not None and row.state == "undone" else on_do(row, attempt, digest)


def settle_forgets(row: Row | None, now: datetime | None = None) -> Any:
    return inbox.AlreadyUndone(found=True) if row is not None and row.state == "undone" else on_settle(row, now)


NAIVE: Final[dict[str, Naive]] = {
    "attempt is the fence": Naive(
        "a run may commit while the row is not ended", OUT, {"is_owner": owns_by_attempt}, wanted="once"
    ),
    "a stale run may refuse": Naive(
        "the same: what a stale refusal does", OUT, {"is_owner": owns_by_attempt}, wanted="compensated"
    ),
    "undo voids a claim": Naive("an undo that meets a claim makes the row void", OUT, {"on_undo": undo_voids}),
    "undo beside a claim": Naive("an undo that meets a claim compensates at once", OUT, {"on_undo": undo_beside}),
    "settle voids a claim": Naive("a settlement that meets a claim says never", PIVOT, {"on_settle": settle_voids}),
    "settle forgets what was undone": Naive(
        "what was undone is settled as never happened",
        Config("pivot, outside, settled, then undone", "pivot", True, True, 1, 1, closes=False, again=False),
        {"on_settle": settle_forgets},
    ),
    "undo waits for ever": Naive(
        "an undo is handed back until the do has ended", OUT, {"_is_past": never_lapses}, wanted="ends"
    ),
    "exhausted leaves the claim": Naive(
        "attempts run out, the row stays claimed, and undo waits for its end",
        OUT,
        {"given_up": stays_claimed, "_is_past": never_lapses},
        wanted="ends",
    ),
    "exhausted forgets the claim": Naive("attempts run out, the row is void", OUT, {"given_up": forgets_the_claim}),
    "two undos fight": Naive("two undos take the claim from each other", OUT, {"on_undo": undos_fight}, wanted="ends"),
    "what was undone is done again": Naive(
        "a do that comes late runs",
        Config("do again, then undo", "any", faults=1, attempts=1, closes=False, again=False),
        {"on_do": done_is_done_after_all},
    ),
    "close over a run": Naive("a close takes the claim from a run", OUT_CLOSES, {"on_close": close_over_run}),
    "close without a look": Naive(
        "a close of a row in doubt counts at once", OUT_CLOSES, {"on_close": close_without_claim}
    ),
    "close after any look": Naive(
        "a close counts after a look, whatever came since", OUT_CLOSES, {"on_close": close_after_any_look}
    ),
    "close over a refusal": Naive(
        "an operator says done of what was refused", PIVOT_CLOSES, {"on_close": close_over_refusal}
    ),
    "exhausted without asking": Naive(
        "exhausted is answered without asking the row", PLAIN, order=SOUND._replace(exhausted_asks_row=False)
    ),
    "refused without asking": Naive(
        "a refusal is stored without asking whether attempts are left",
        PLAIN._replace(attempts=2, faults=3),
        order=SOUND._replace(refusal_asks_attempts=False),
    ),
    "any refusal is believed": Naive(
        "a refusal counts although an earlier run may have acted", OUT, order=SOUND._replace(refusal_needs_clean=False)
    ),
    "answered before the commit": Naive(
        "the answer leaves before the COMMIT", PLAIN, order=SOUND._replace(answers_before_commit=True)
    ),
    "resolved without a close": Naive(
        "a resolve that the inbox does not hear of",
        PLAIN._replace(closes=True, faults=1),
        order=SOUND._replace(resolves_through_inbox=False),
    ),
    "the outside changes its mind": Naive(
        "the outside acts on a key to which it has said no",
        DECLINES,
        order=SOUND._replace(declines_for_good=False),
        wanted="compensated",
    ),
    "the outside forgets": Naive(
        "the outside forgets a key once it is undone", OUT, order=SOUND._replace(outside_remembers=False)
    ),
}


@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_rule_in_the_place_of_the_shipped_one_does_harm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    naive = NAIVE[name]
    monkeypatch.setattr(machine, "CLAIMS_MAX", FIGHT)
    monkeypatch.setattr(promises, "CLAIMS_MAX", FIGHT)
    for function, instead in naive.rules.items():
        monkeypatch.setattr(inbox, function, instead)
    forget()
    found = explore(naive.config, naive.order, naive.wanted, is_lively="_is_past" in naive.rules)
    assert found.broken, f"{name}: {naive.what}, and nobody comes to harm"
    sys.stdout.write(f"{name} breaks {found.broken!r}:\n  " + "\n  ".join(found.way) + "\n")  # shown with -s
