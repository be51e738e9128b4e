"""Every world that one saga can come into, found by trying every move in each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from time import perf_counter

import msgspec

from antiphon.contracts.payloads import Parent
from antiphon.coordinator.decision.entries import read_entry
from antiphon.coordinator.decision.facts import Fact, Tick
from antiphon.coordinator.decision.fold import fold
from antiphon.coordinator.decision.history import begin
from tests.simulation.sagas import Part, Shape
from tests.simulation.world import KEY, Broken, Budget, Model, Move, World, require


class Found(msgspec.Struct):
    """What an exploration has seen."""

    worlds: int = 0
    moves: int = 0
    ends: int = 0
    completed: int = 0
    compensated: int = 0
    parked: int = 0

    def __str__(self) -> str:
        return (
            f"{self.worlds:,} states, {self.moves:,} transitions, {self.ends:,} terminal states: {self.completed:,} "
            f"completed, {self.compensated:,} compensated, {self.parked:,} parked"
        )


def explore(model: Model, budget: Budget) -> Found:
    """Look at every world that can be reached.

    Raises:
        Broken: an invariant does not hold in one of them; the way there is in the message.
    """
    found = Found()
    first = model.begin(budget)
    trail: dict[int, tuple[int, Move]] = {}
    numbers = {hash(first.key()): 0}
    waiting = [(0, first)]
    while waiting:
        number, world = waiting.pop()
        moves = model.moves(world)
        if not any(is_free(move) for move in moves):
            _end(model, world, found, trail, number)
        for move in moves:
            found.moves += 1
            try:
                after = model.after(world, move)
            except Broken as error:
                raise Broken(_told(error, trail, number, move)) from None
            key = hash(after.key())  # 64 bits: among a million worlds two with one hash are one chance in forty million
            if key not in numbers:
                numbers[key] = len(numbers)
                trail[numbers[key]] = (number, move)
                waiting.append((numbers[key], after))
    found.worlds = len(numbers)
    return found


def is_free(move: Move) -> bool:
    """Whether it happens even if nothing more goes wrong."""
    return move[0] in ("deliver", "handle", "grant", "child", "signal", "happen", "operate", "fire", "sweep", "release")


def _end(model: Model, world: World, found: Found, trail: dict[int, tuple[int, Move]], number: int) -> None:
    try:
        model.require_well_ended(world)
        require_readable(model, world)
    except Broken as error:
        raise Broken(_told(error, trail, number, ("nothing more",))) from None
    found.ends += 1
    found.completed += world.history.state == "completed"
    found.compensated += world.history.state == "compensated"
    found.parked += world.history.end is None


def require_readable(model: Model, world: World) -> None:
    """The stored bytes fold into the history that was lived through."""
    facts: dict[int, Fact] = {fact.sequence: fact for fact in world.facts.values() if not isinstance(fact, Tick)}
    drafts = [entry.draft for entry in world.entries]
    entries = [read_entry(draft.subject, place, draft.data) for place, draft in enumerate(drafts, 1)]
    read = fold(begin(KEY, model.definition), entries, facts)
    require(read == world.history, f"the journal reads as {read}, and it was lived as {world.history}")
    if drafts:
        labelled = [bool(entry.definition) for entry in entries]
        require(labelled == [True, *[False] * (len(entries) - 1)], "only the first entry names the definition")


def _told(error: Broken, trail: dict[int, tuple[int, Move]], number: int, last: Move) -> str:
    return "\n".join([str(error), *(f"  {move}" for move in [*_way(trail, number), last])])


def _way(trail: dict[int, tuple[int, Move]], number: int) -> Iterator[Move]:
    moves: list[Move] = []
    while number:
        number, move = trail[number]
        moves.append(move)
    yield from reversed(moves)


SEQUENCE = Shape((Part(timed=True), Part(after=(0,), timed=True, pivot=True), Part(after=(1,), timed=True)))
"""Three steps in a row; the second is the point of no return."""

DIAMOND = Shape((Part(timed=True), Part(after=(0,), timed=True), Part(after=(0,)), Part(after=(1, 2))))
"""One step, two side by side, one that joins them."""

INNER = Shape((Part(),), name="inner")
PARENT = Parent(type="outer", id="o1", step="a", attempt=1, hold=True)

MODELS: dict[str, Model] = {
    # Three steps in a row; the second is the point of no return.
    "sequence": Model(
        Shape((Part(timed=True), Part(after=(0,), timed=True, pivot=True), Part(after=(1,), timed=True)))
    ),
    # One step, two side by side, one that joins them.
    "diamond": Model(Shape((Part(timed=True), Part(after=(0,), timed=True), Part(after=(0,)), Part(after=(1, 2))))),
    # Its deadline is so far away that it has no timer until the sweeper comes, and a step is timed.
    "far": Model(
        Shape((Part(), Part(after=(0,), timed=True), Part(after=(1,), pivot=True)), deadline=timedelta(days=1))
    ),
    "list": Model(Shape((Part(), Part("list", after=(0,), size=2, timed=True), Part(after=(1,))))),
    "list beside": Model(Shape((Part("list", size=2), Part(timed=True)))),
    "list past pivot": Model(Shape((Part(pivot=True), Part("list", after=(0,), size=2, timed=True)))),
    "fickle": Model(
        Shape((Part(timed=True), Part("list", after=(0,), size=2), Part(after=(1,), pivot=True)), fickle=True)
    ),
    "fickle past pivot": Model(
        Shape(
            (Part(pivot=True), Part("list", after=(0,), size=2, timed=True), Part("child", after=(0,))),
            child=INNER,
            fickle=True,
        )
    ),
    "optional": Model(Shape((Part(when=False), Part(when=True), Part(after=(0, 1))))),
    "signal": Model(Shape((Part(), Part("signal", after=(0,), timed=True), Part(after=(1,))))),
    "signal past pivot": Model(Shape((Part(pivot=True), Part("signal", after=(0,)), Part(after=(1,))))),
    "event": Model(Shape((Part(), Part("event", after=(0,), timed=True), Part(after=(1,))))),
    "event past pivot": Model(
        Shape((Part(), Part(pivot=True, after=(0,), timed=True), Part("event", after=(1,)), Part(after=(2,))))
    ),
    "wait": Model(Shape((Part(), Part("wait", after=(0,)), Part(after=(1,), timed=True)))),
    "child": Model(Shape((Part(), Part("child", after=(0,), timed=True), Part(after=(1,))), child=INNER)),
    "child beside": Model(Shape((Part("child"), Part("child"), Part(after=(0, 1))), child=INNER)),
    "child past pivot": Model(Shape((Part(pivot=True), Part("child", after=(0,))), child=INNER)),
    "child kept": Model(Shape((Part("child", kept=True), Part(after=(0,))), child=INNER)),
    "locks": Model(Shape((Part(), Part(after=(0,))), locks=True), keys=("k1", "k2")),
    "is child": Model(Shape((Part(), Part(after=(0,), timed=True))), parent=PARENT),
    "raises": Model(Shape((Part(), Part(after=(0,))), broken="b")),
}

SUITE: dict[str, tuple[Budget, ...]] = {
    "sequence": (
        Budget(crashes=1, duplicates=0, failures=1, slowness=1),
        Budget(crashes=0, duplicates=1, failures=1, slowness=1),
        Budget(crashes=1, duplicates=0, failures=1, slowness=0, cancels=0, closes=1),
    ),
    "diamond": (
        Budget(crashes=1, duplicates=0, failures=1, slowness=0),
        Budget(crashes=0, duplicates=1, failures=1, slowness=0),
        Budget(crashes=0, duplicates=0, failures=1, slowness=1),
    ),
    "list beside": (Budget(crashes=1, duplicates=0, failures=0, slowness=0),),
}
"""What the suite has time for; `make explore` tries more."""

SMALL = Budget(crashes=1, duplicates=0, failures=1, slowness=0)
DEEP = Budget(crashes=1, duplicates=1, failures=2, slowness=1, pauses=0)


def main() -> None:
    """Explore what the arguments name, or everything, with as much trouble as there is patience for."""
    for name in sys.argv[1:] or MODELS:
        began = perf_counter()
        budget = DEEP if name == "sequence" else msgspec.structs.replace(DEEP, duplicates=0, failures=1)
        found = explore(MODELS[name], budget)
        sys.stdout.write(f"{name}: {found} ({perf_counter() - began:.0f} s)\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
