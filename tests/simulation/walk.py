"""One saga of a random shape, led through its world by a row of numbers."""

from __future__ import annotations

from functools import cache

from antiphon.contracts.payloads import Parent
from tests.simulation.explore import PARENT, is_free, require_readable
from tests.simulation.sagas import random_shape
from tests.simulation.world import Broken, Budget, Model, World, require

SHAPES = 400
"""How many shapes there are; the first ones are small, so that a case that fails shrinks to them."""

MOVES_MAX = 1000

BUDGETS = (
    Budget(crashes=0, duplicates=0, failures=0, slowness=0, cancels=0),
    Budget(crashes=0, duplicates=0, failures=2, slowness=1, cancels=0),
    Budget(crashes=0, duplicates=3, failures=2, slowness=3, cancels=1, pauses=1),
    Budget(crashes=1, duplicates=1, failures=1, slowness=1, cancels=1),
    Budget(crashes=2, duplicates=2, failures=3, slowness=2, cancels=1, pauses=1),
    Budget(crashes=0, duplicates=1, failures=3, slowness=2, cancels=1, closes=3),
    Budget(crashes=2, duplicates=2, failures=3, slowness=2, cancels=1, pauses=1, closes=3),
)


@cache
def model_of(seed: int) -> Model:
    shape = random_shape(seed)
    parent: Parent | None = PARENT if seed % 5 == 4 and not any(part.pivot for part in shape.parts) else None
    return Model(shape, parent, ("k1", "k2")[: 1 + seed % 2])


def walk(seed: int, budget: int, choices: bytes) -> World:
    """Go the way that the numbers say; where they end, nothing more goes wrong.

    Raises:
        Broken: an invariant does not hold.
    """
    model = model_of(seed)
    world = model.begin(BUDGETS[budget])
    numbers = iter(choices)
    for _ in range(MOVES_MAX):
        moves = model.moves(world)
        number = next(numbers, None)
        if number is None:
            moves, number = [move for move in moves if is_free(move)], 0
        if not moves:
            break
        world = model.after(world, moves[number % len(moves)])
    else:
        raise Broken(f"after {MOVES_MAX} moves the saga has not come to an end")
    model.require_well_ended(world)
    require_readable(model, world)
    if not BUDGETS[budget].crashes:  # what a crash tore is made up for on any fact, also on one that comes again
        _require_one_decision_a_fact(world)
    return world


def _require_one_decision_a_fact(world: World) -> None:
    """All entries that were written on one fact stand together."""
    causes = [entry.draft.cause for entry in world.entries]
    runs = [cause for place, cause in enumerate(causes) if not place or causes[place - 1] != cause]
    require(len(set(runs)) == len(runs), f"two decisions on one fact: {causes}")
