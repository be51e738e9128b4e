"""What may come of a start, a signal or a wish to cancel, by how its saga stands. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from antiphon.contracts.payloads import Prospect
from antiphon.contracts.subjects import SameAddress

from .facts import is_start
from .history import History
from .replay import OtherDefinition, Purged, Replayed

ENDED: Final = "it has ended"
TURNED: Final = "it is being compensated"
NOTED: Final = "it is past its point of no return, so the wish is only noted"


class Told(msgspec.Struct, frozen=True):
    """The prospect, why there is none or less of one, and the version that the saga runs with."""

    prospect: Prospect
    why: str = ""
    version: int = 0


def prospect_of(address: SameAddress, result: Replayed | Exception) -> Told | None:
    """What may come of what is asked about; None where this coordinator cannot tell.

    Whether a saga is not started at all should be asked of the stream's leader, behind which a replica may lag.
    """
    if isinstance(result, Purged):
        return Told("passed", ENDED)
    if isinstance(result, OtherDefinition) and address.what == "start":
        return Told("taken", version=_version_in(result.label))
    if not isinstance(result, Replayed):
        return None
    history = result.history
    if not history.entries and not any(is_start(fact) for fact in result.unnamed):
        return Told("unstarted", version=history.definition.version)
    match address.what:
        case "start":
            # Which version it begins with is decided with its first entry.
            return Told("taken", version=history.definition.version if history.entries else 0)
        case "cancel":
            return _of_cancel(history)
        case "signal":
            return _of_signal(history, address.signal)


def _of_cancel(history: History) -> Told:
    if history.end is not None:
        return Told("passed", ENDED)
    if history.turned:
        return Told("taken", TURNED)
    return Told("early", NOTED) if history.is_past_pivot or history.held else Told("awaited")


def _of_signal(history: History, name: str) -> Told | None:
    step = history.steps.get(name)
    if step is None and not history.entries:
        return None  # another coordinator may have it begin with a version that waits for this
    if step is None:
        return Told("passed", f"it runs with version {history.definition.version}, which has no signal {name}")
    if name in history.signals:
        return Told("taken")
    if history.end is not None:
        return Told("passed", ENDED)
    if history.turned:
        return Told("passed", TURNED)
    match step.phase:
        case "waiting":
            return Told("early")
        case "awaiting":
            return Told("awaited")
        case "skipped":
            return Told("passed", f"step {name} was skipped")
        case _:
            return Told("passed", f"step {name} is over")


def _version_in(label: str) -> int:
    """The version in a label, `name.v2.shape`; 0 where that says none."""
    number = label.rpartition(".")[0].rpartition(".v")[2]
    return int(number) if number.isascii() and number.isdigit() else 0
