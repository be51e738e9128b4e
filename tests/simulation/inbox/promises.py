"""What must hold in every state of one row and the world around it."""

from __future__ import annotations

from typing import Final

from .machine import CLAIMS_MAX, LIVE, OPEN, Config, Machine, State, state_of
from .shipped import CLOSE1, DO1, DO2, SETTLE1, SETTLE2, UNDO1, UNDO2

PROMISES: Final = {
    "once": "the effect happens at most once, its compensation at most once and only after it",
    "undone": "after 'undone' or 'nothing found' no effect is there, and none comes",
    "compensated": "an effect outside is compensated with its answer, or the row says that it may be there",
    "resolved": "what was resolved by hand is as the operator was told, and stays so",
    "one answer": "no command gets two different definite answers; only what was overtaken is superseded",
    "settled": "what a settlement said is never contradicted",
    "ends": "without further faults every message ends answered, or the saga is parked",
}
FINAL: Final = frozenset({"done", "refused", "undone", "nothing to undo", "never", "resolved"})
GONE_PHASES: Final = ("refused", "never", "nothing to undo")


def broken(machine: Machine, s: State) -> str:
    """The first promise that does not hold in a state; empty if all do."""
    config, row, world, said = machine.config, s.row, s.world, s.said
    state, closed = state_of(row), row is not None and bool(row.closed)
    there, gone = machine.outside_of(world)
    may_be_undone = world.effect or world.is_by_hand
    if row is not None and row.claim >= CLAIMS_MAX:
        return "ends"
    if max(world.effect, world.undone, world.outside) > 1:
        return "once"
    if (world.undone or world.outside_undone) and not may_be_undone:
        return "once"
    form = world.belief[0] if world.belief else ""
    undos, settles = said[UNDO1] | said[UNDO2], said[SETTLE1] | said[SETTLE2]
    if "nothing found" in undos and (there or world.effect):
        return "undone"
    if "undone" in undos and form != "undone" and (there > gone or world.effect > world.undone):
        return "undone"
    if world.outside and not closed and state not in ("claimed", "open", "done", "undoing", "undone"):
        return "compensated"
    if s.phase in GONE_PHASES and (there or world.effect):
        return "compensated"
    if s.phase == "undone" and form != "undone" and there > gone:
        return "compensated"
    if (world.undone or world.outside_undone) and (row is None or row.answer is None):
        return "compensated"
    if world.belief and ((there, gone) != world.belief[1:] if form != "done" else there != world.belief[1]):
        return "resolved"
    if world.is_by_hand and s.phase in GONE_PHASES:
        return "resolved"
    if answers := _two_answers(config, s):
        return answers
    if "never" in settles and (there or world.effect or "happened" in settles):
        return "settled"
    if "happened" in settles and not may_be_undone:
        return "settled"
    return ""


def _two_answers(config: Config, s: State) -> str:
    row, said, sent = s.row, s.said, s.sent
    if not config.do_outside and row is not None:  # an outside run may still bring its answer after "exhausted"
        for number, message in enumerate((DO1, DO2), 1):
            if "exhausted" in said[message] and said[message] - OPEN and row.attempt == number:
                return "one answer"
    if any(len(answers - OPEN) > 1 for answers in said):
        return "one answer"
    later = sent[UNDO1] or sent[SETTLE1] or sent[CLOSE1]
    if "superseded" in said[DO1] and not (sent[DO2] or later):
        return "one answer"
    if "superseded" in said[DO2] and not later:
        return "one answer"
    is_early = "superseded" in said[UNDO1] and not sent[UNDO2]
    return "one answer" if is_early or "superseded" in said[UNDO2] else ""


def is_at_rest(s: State) -> bool:
    """Every message is answered and acked, and the step is over or waits for a person."""
    if LIVE in s.sent or any(w.at != "idle" for w in s.workers):
        return False
    if s.phase in FINAL:
        return True
    first, second = {"sent": (DO1, DO2), "undoing": (UNDO1, UNDO2), "settling": (SETTLE1, SETTLE2)}[s.phase]
    return bool(s.said[second if s.sent[second] else first] & {"exhausted", "open"})
